# SPDX-License-Identifier: Apache-2.0
"""Slow-downs put into the performance of real cloud machines: how many are found, how soon, and what is told in vain.

Data: ``data/vm-noise``, the same benchmarks on the same virtual machines for 483 days, some runs a day. Each machine's
series is one component; a rate is turned into a time. What is told of a series as it is counts as a false alarm,
although some of these machines were truly slow for a while (nobody knows when). Into the series slow-downs of four
shapes are put at random places; one is found if the component is told slow, by a new onset, while it lasts.
"""

import csv
import gzip
from dataclasses import dataclass
from datetime import datetime
from math import log2
from pathlib import Path
from random import Random
from statistics import median
from typing import Final

from atoll.health.model import Terms
from atoll.health.watch import Watch

HERE: Final = Path(__file__).resolve().parent
DATA: Final = HERE / "data/vm-noise"
MONTH_S: Final = 30.44 * 86_400
LENGTH: Final = 40  # Samples of a slow-down.
BEFORE: Final = 1000  # Samples that are seen before it.
BEFORE_MIN: Final = 300
SURE: Final = 8
SPANS: Final = 2  # Slow-downs of each shape and factor in each series.
FACTORS: Final = (1.5, 2.0, 5.0, 20.0)
SHAPES: Final = ("step", "ramp", "flapping", "stop-and-go")
TERMS: Final = Terms(persist_ns=0, recover_ns=0)  # Hours lie between the samples: what several of them say has lasted.
RATES: Final = ("MiB", "ops", "Ops", "Events", "Requests")  # Units of which more is better.


@dataclass(frozen=True)
class Machine:
    """One machine in one benchmark: when it ran, seconds, and how long it took, in any unit."""

    name: str
    times: list[float]
    took: list[float]


@dataclass(frozen=True)
class Found:
    """What became of the slow-downs of one kind."""

    share: float
    delay: float | None
    confidences: tuple[int, ...]


@dataclass(frozen=True)
class Telling:
    """One: at which sample, and how sure it was when another eight had come, or all."""

    at: int
    confidence: int


def load() -> list[Machine]:
    """Return all series."""
    found = []
    with (DATA / "index.csv").open(encoding="utf-8") as index:
        files = list(csv.DictReader(index))
    for row in files:
        is_rate = any(word in row["unit"] for word in RATES)
        by: dict[str, list[tuple[float, float]]] = {}
        with gzip.open(DATA / row["file"], "rt", encoding="utf-8") as file:
            for value, _, at, machine in list(csv.reader(file))[1:]:
                if float(value) > 0:
                    took = 1e9 / float(value) if is_rate else float(value)
                    by.setdefault(machine, []).append((datetime.fromisoformat(at).timestamp(), took))
        for machine, runs in by.items():
            runs.sort()
            found.append(Machine(f"{row['file']}:{machine}", [at for at, _ in runs], [took for _, took in runs]))
    return found


def told(machine: Machine, begin: int, end: int, slower: list[float]) -> list[Telling]:
    """Return when the component is told slow, from ``begin`` to ``end``.

    Args:
        machine: Whose series it is.
        begin: The first that is seen.
        end: One after the last.
        slower: By how much the last samples are slower.
    """
    watch, found, begun = Watch(TERMS), list[Telling](), list[int]()
    unit = 1e6 / median(machine.took)  # So that a usual run takes a millisecond: levels have no room below 1 ns.
    first = end - len(slower)
    for number in range(begin, end):
        took = machine.took[number] * unit * (slower[number - first] if number >= first else 1.0)
        watch.observe("machine", int(1000 * took), int((machine.times[number] - machine.times[0]) * 1e9))
        if watch.changes:
            begun += [number for change in watch.changes if change.told and change.after == "slow"]
            watch.changes.clear()
        standing = watch.standing("machine")
        if begun and standing and (number == begun[0] + SURE or number == end - 1):
            found += [Telling(at, standing.confidence) for at in begun]
            begun.clear()
    return found


def shaped(shape: str, factor: float) -> list[float]:
    """Return by how much each sample of a slow-down is slower."""
    match shape:
        case "ramp":
            return [2 ** (log2(factor) * min(1.0, number / 20)) for number in range(LENGTH)]
        case "flapping":
            return [factor if number // 10 % 2 == 0 else 1.0 for number in range(LENGTH)]
        case "stop-and-go":
            return [factor if number // 2 % 2 == 0 else 1.0 for number in range(LENGTH)]
    return [factor] * LENGTH


def in_vain(machines: list[Machine]) -> tuple[float, list[int]]:
    """Return how often a component is told slow in a month as it is, and how sure each telling was."""
    tellings = [one for machine in machines for one in told(machine, 0, len(machine.took), [])]
    months = sum((machine.times[-1] - machine.times[0]) / MONTH_S for machine in machines)
    return len(tellings) / months, [one.confidence for one in tellings]


def found_of(machines: list[Machine], shape: str, factor: float, seed: int = 1) -> Found:
    """Return how many slow-downs of a kind are found, and the median number of samples that it takes."""
    rng, first, tried = Random(seed), list[tuple[int, int]](), 0
    for machine in machines:
        if len(machine.took) < BEFORE_MIN + LENGTH + 10:
            continue
        for _ in range(SPANS):
            onset = rng.randrange(BEFORE_MIN, len(machine.took) - LENGTH)
            tellings = told(machine, max(0, onset - BEFORE), onset + LENGTH, shaped(shape, factor))
            hits = [(one.at - onset + 1, one.confidence) for one in tellings if one.at >= onset]
            tried += 1
            first += hits[:1]
    delay = median(delay for delay, _ in first) if first else None
    return Found(len(first) / tried, delay, tuple(confidence for _, confidence in first))
