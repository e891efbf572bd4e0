# SPDX-License-Identifier: Apache-2.0
"""Detectors on telemetry whose anomalies people labelled: how many each finds, how late, and how often it cries wolf.

Data: ``data/cloud-monitoring`` (series whose owners labelled each point; points not more than three apart are one
anomaly) and ``data/nab`` (the windows of its own scorer). Files are halved by turns: what a detector has to be tuned in
is tuned on half A, for the best F1, and reported on half B. Ours has nothing to tune but how long an alarm is one
alarm, as all have; its constants are those that are shipped. phi-accrual and MAD are the room's own machines; as float
copies, with coarser thresholds, they were worse by 0.036 and 0.009 in F1.

An *alarm* begins when a detector's score passes its threshold and ends when it was below for ``rest`` samples. An
anomaly is found if an alarm begins in it or at most GRACE samples after it; an alarm that begins elsewhere is false. F1
is over anomalies. Values are no latencies and may be too high or too low, so every detector looks both ways: ours by
two gauges.
"""

import csv
import gzip
import json
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from math import log2
from pathlib import Path
from statistics import median
from typing import Final

from atoll.health.detectors.history import KNOWN_MIN, History
from atoll.health.detectors.phi import PHI_WINDOW, PhiAccrual
from atoll.health.gauge import OUTSIDE, Gauge
from atoll.health.levels import OCTAVE

HERE: Final = Path(__file__).resolve().parent
GRACE: Final = 5
RESTS: Final = (5, 20, 60, 200)
WINDOW: Final = 200
WARM: Final = 50
CENTRE: Final = 8000  # Where a gauge's level of the first values lies.
UNIT: Final = 1_000_000
FAR: Final = 1 << 50


@dataclass(frozen=True)
class Series:
    """One file: its values in order, and the anomalies as (first, last) index."""

    name: str
    values: list[float]
    anomalies: list[tuple[int, int]]


@dataclass(frozen=True)
class Score:
    """How a detector did on several files."""

    found: int
    missed: int
    false: int
    samples: int
    delays: tuple[int, ...]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.found / max(1, 2 * self.found + self.missed + self.false)

    @property
    def false_per_1000(self) -> float:
        """False alarms in 1,000 samples."""
        return 1000 * self.false / self.samples

    @property
    def delay(self) -> float | None:
        """Median samples from the begin of an anomaly to the alarm."""
        return median(self.delays) if self.delays else None


def _rows(path: Path) -> list[list[str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def _time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "")).timestamp()


def load() -> list[Series]:
    """Return all files in order of their names, cloud-monitoring first."""
    found = []
    for path in sorted((HERE / "data/cloud-monitoring").glob("*/*.csv.gz")):
        rows = sorted(_rows(path), key=lambda row: _time(row[0]))
        labelled = [number for number, row in enumerate(rows) if row[2] == "1"]
        anomalies: list[tuple[int, int]] = []
        for number in labelled:
            if anomalies and number - anomalies[-1][1] <= 3:
                anomalies[-1] = (anomalies[-1][0], number)
            else:
                anomalies.append((number, number))
        values: list[float] = []
        for row in rows:
            values.append(float(row[1]) if row[1] else values[-1] if values else 0.0)
        found.append(Series(str(path.relative_to(HERE / "data")), values, anomalies))
    labels = json.loads((HERE / "data/nab/labels.json").read_text())
    for path in sorted((HERE / "data/nab").glob("*/*.csv.gz")):
        rows = _rows(path)
        times = [_time(row[0]) for row in rows]
        name = f"{path.parent.name}/{path.name.removesuffix('.gz')}"
        spans = [
            (bisect_left(times, _time(first)), bisect_right(times, _time(last)) - 1)
            for first, last in labels[name]["windows"]
        ]
        found.append(Series(str(path.relative_to(HERE / "data")), [float(row[1]) for row in rows], spans))
    return found


Scores = list[float]


class Newest:
    """The newest values, their mean and their deviation."""

    def __init__(self, most: int) -> None:
        self._most, self._values = most, deque[float]()
        self._sum = self._squares = 0.0

    def add(self, value: float) -> None:
        """Take one more; the oldest goes."""
        if len(self._values) == self._most:
            old = self._values.popleft()
            self._sum -= old
            self._squares -= old * old
        self._values.append(value)
        self._sum += value
        self._squares += value * value

    def __len__(self) -> int:
        return len(self._values)

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return self._sum / len(self._values)

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return float(max(0.0, self._squares / len(self._values) - self.mean**2) ** 0.5)


def sigma(values: Sequence[float]) -> Scores:
    """Distance from the mean of the newest 200, in their standard deviations."""
    newest, scores = Newest(min(WINDOW, len(values) // 3)), []
    for value in values:
        known = len(newest) >= WARM
        scores.append(abs(value - newest.mean) / (newest.deviation + 1e-9 * (1 + abs(newest.mean))) if known else 0.0)
        newest.add(value)
    return scores


def scaled(values: Sequence[float]) -> list[int]:
    """Return the values as whole numbers, a million of which are usual: what the room's machines take."""
    begin = [abs(value) for value in values[: max(20, len(values) // 10)]]
    usual = median(begin) or 1.0
    return [round(UNIT * value / usual) for value in values]


def mad(values: Sequence[float]) -> Scores:
    """Distance from the median of the newest 200, in robust deviations: the room's own."""
    history, scores = History(max(KNOWN_MIN, min(WINDOW, len(values) // 3))), list[float]()
    for value in scaled(values):
        distance = history.distance(value)
        scores.append(0.0 if distance is None else abs(distance) / 1000)
        history.observe(value)
    return scores


def phi(values: Sequence[float]) -> Scores:
    """Suspicion of the room's accrual detector, to which each value is a time between two signs of life.

    One sees how much too long it is, one how much too short. Mean and deviation are all that it looks at, so a constant
    makes all of them positive and changes nothing.
    """
    waits, window = scaled(values), max(WARM, min(PHI_WINDOW, len(values) // 4))

    def suspicions(sign: int) -> list[int]:
        detector, at_ns, found = PhiAccrual(window, deviation_min_ns=1), 0, list[int]()
        detector.observe(at_ns)
        for wait in waits:
            at_ns += FAR + sign * wait
            found.append(detector.phi(at_ns) or 0)
            detector.observe(at_ns)
        return found

    both = zip(suspicions(1), suspicions(-1), strict=True)
    return [max(one) / 1000 if number >= WARM else 0.0 for number, one in enumerate(both)]


def fixed(values: Sequence[float]) -> Scores:
    """Octaves from the median of the first tenth: a threshold that somebody sets once."""
    begin = max(20, len(values) // 10)
    usual = abs(median(values[:begin]))
    scores = [0.0] * begin
    scores += [abs(log2((abs(value) + 1e-3 * usual + 1e-9) / (1.001 * usual + 1e-9))) for value in values[begin:]]
    return scores


def half_space_trees(values: Sequence[float]) -> Scores:
    """River's streaming forest, on each value and its step from the last one, scaled as it asks."""
    anomaly, preprocessing = import_module("river.anomaly"), import_module("river.preprocessing")
    scaler, forest = preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(window_size=WINDOW, seed=1)
    scores, last = list[float](), values[0]
    for number, value in enumerate(values):
        scaler.learn_one({"value": value, "step": value - last})
        point = scaler.transform_one({"value": value, "step": value - last})
        scores.append(forest.score_one(point) if number > WINDOW else 0.0)
        forest.learn_one(point)
        last = value
    return scores


def gauges(values: Sequence[float]) -> Scores:
    """Ours, as shipped: one gauge for what is too high, one for what is too low."""
    begin = [value for value in values[: max(20, len(values) // 10)] if value > 0]
    usual = median(begin) if begin else 1.0
    high, low, scores = Gauge(), Gauge(), list[float]()
    for value in values:
        # A tenth of what is usual is added, so that counts that fall to nothing do not lie infinitely low.
        level = CENTRE + int(OCTAVE * log2((max(value, 0.0) + 0.1 * usual) / usual))
        level = max(0, min(2 * CENTRE, level))
        scores.append(float((high.observe(level) | low.observe(2 * CENTRE - level)) & OUTSIDE))
    return scores


@dataclass(frozen=True)
class Detector:
    """One that is compared: what scores, the thresholds to choose from, and the package that it needs."""

    name: str
    score: Callable[[Sequence[float]], Scores]
    thresholds: tuple[float, ...]
    needs: str = ""


OURS: Final = Detector("atoll", gauges, (0.5,))
OTHERS: Final = (
    Detector("phi-accrual", phi, (2, 3, 5, 8, 12, 15, 20, 24, 40)),
    Detector("fixed threshold", fixed, (0.5, 1, 1.5, 2, 3, 4, 5)),
    Detector("sigma", sigma, (2, 3, 4, 5, 6, 8, 10, 14)),
    Detector("MAD", mad, (3, 4, 6, 8, 12, 16, 24, 32, 48)),
    Detector("half-space trees (river)", half_space_trees, (0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99), "river"),
)


def begins(scores: Scores, threshold: float, rest: int) -> list[int]:
    """Return where alarms begin."""
    found, last = [], -1 - rest
    for number, score in enumerate(scores):
        if score > threshold:
            if number - last > rest:
                found.append(number)
            last = number
    return found


def judge(series: Sequence[Series], scores: Sequence[Scores], threshold: float, rest: int) -> Score:
    """Return how a detector did."""
    found = missed = false = 0
    delays = []
    for one, its in zip(series, scores, strict=True):
        alarms = begins(its, threshold, rest)
        inside = set[int]()
        for first, last in one.anomalies:
            hits = [alarm for alarm in alarms if first <= alarm <= last + GRACE]
            inside.update(hits)
            found += bool(hits)
            missed += not hits
            delays += [hits[0] - first] if hits else []
        false += len(set(alarms) - inside)
    return Score(found, missed, false, sum(len(one.values) for one in series), tuple(delays))


@dataclass(frozen=True)
class Compared:
    """How a detector did on half B, as tuned on half A."""

    score: Score
    threshold: float
    rest: int
    false_a: float  # False alarms in 1,000 samples on half A.


def compared(
    series: Sequence[Series], scores: Sequence[Scores], thresholds: Sequence[float], false_most: float | None = None
) -> Compared | None:
    """Tune on half A for the best F1; return how it does on half B.

    Args:
        series: All; the even ones are half A.
        scores: What a detector says of each.
        thresholds: Those to choose from.
        false_most: Only such tunings as have no more false alarms in 1,000 samples on half A. None comes back if no
            tuning is so quiet.
    """
    tunings = [
        (judge(series[::2], scores[::2], threshold, rest), threshold, rest)
        for threshold in thresholds
        for rest in RESTS
    ]
    tunings = [one for one in tunings if false_most is None or one[0].false_per_1000 <= false_most]
    if not tunings:
        return None
    on_a, threshold, rest = max(tunings, key=lambda one: (one[0].f1, *one[1:]))
    return Compared(judge(series[1::2], scores[1::2], threshold, rest), threshold, rest, on_a.false_per_1000)
