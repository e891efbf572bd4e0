# SPDX-License-Identifier: Apache-2.0
"""How well slow is told from well, what living with it gains, and what watching costs.

    make bench-health [BENCH_ARGS="--only telemetry,cost"]

Parts: ``telemetry`` (labelled anomalies, beside other detectors), ``slowdowns`` (put into real machines' series),
``writing`` and ``reading`` (real files on throttled disks, against each scenario's formula), ``cost``. Some minutes.
"""

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from random import Random
from statistics import median

import health_disks as disks
import health_slowdowns as slowdowns
import health_telemetry as telemetry
from figures import Figure, Part, run_parts

from atoll import health

COMPONENTS = 10_000
SAMPLES_EACH = 600  # More than a gauge remembers.
REPEATS = 5


def part_telemetry() -> Part:
    """All detectors on the same halves."""
    series = telemetry.load()
    rows: dict[str, dict[str, float | None]] = {}
    for detector in (telemetry.OURS, *telemetry.OTHERS):
        if detector.needs and find_spec(detector.needs) is None:
            print(f"  {detector.name} is left out: {detector.needs} is not installed", file=sys.stderr)
            continue
        score, threshold, rest = telemetry.compared(detector, series)
        rows[detector.name] = {
            "f1": score.f1,
            "found": score.found,
            "missed": score.missed,
            "false": score.false,
            "false_per_1000": score.false_per_1000,
            "delay_samples": score.delay,
            "threshold": threshold,
            "rest": rest,
        }
        print(f"  {detector.name}: {rows[detector.name]}", file=sys.stderr)
    ours = rows.pop(telemetry.OURS.name)
    best = max(rows.values(), key=lambda row: row["f1"] or 0.0)
    return [
        Figure("labelled telemetry, half B: F1", "", best["f1"], ours["f1"], at_most=False, peer=best["f1"]),
        Figure(
            "the same: false alarms",
            "/1000 samples",
            best["false_per_1000"],
            ours["false_per_1000"],
            peer=best["false_per_1000"],
        ),
        Figure("the same: delay, median", "samples", None, ours["delay_samples"], peer=best["delay_samples"]),
    ], {telemetry.OURS.name: ours, **rows}


def part_slowdowns() -> Part:
    """Every shape and factor."""
    machines = slowdowns.load()
    found = {
        f"{shape} {factor}": slowdowns.found_of(machines, shape, factor)
        for shape in slowdowns.SHAPES
        for factor in slowdowns.FACTORS
    }
    twice = [found[f"{shape} 2.0"] for shape in slowdowns.SHAPES]
    delays = [one.delay for one in twice if one.delay is not None]
    figures = [
        Figure(f"slow-downs by 2, {shape}: found", "share", 0.95, one.share, at_most=False)
        for shape, one in zip(slowdowns.SHAPES, twice, strict=True)
    ]
    return [
        *figures,
        Figure("slow-downs by 2: delay, median of the shapes", "samples", 10.0, median(delays) if delays else None),
        Figure("told in vain, of a component in a month", "", 1.0, slowdowns.false_alarms(machines)),
    ], {name: {"share": one.share, "delay_samples": one.delay} for name, one in found.items()}


def part_writing() -> Part:
    """Each plan at each ratio."""
    found = {ratio: disks.writing(ratio) for ratio in disks.RATIOS}
    figures = []
    for ratio, plans in found.items():
        for plan, result in plans.items():
            name = f"{disks.PAIRS} pairs, one at {ratio} of the rate, plan {plan}: of its formula"
            figures.append(Figure(name, "share", 0.9, result.share, at_most=False))
    return figures, {f"{ratio} {plan}": one.measured for ratio, plans in found.items() for plan, one in plans.items()}


def part_reading() -> Part:
    """Graduated and plain at each ratio."""
    figures, extra = [], {}
    for ratio in disks.RATIOS:
        for is_graduated, plan in ((True, "graduated"), (False, "plain")):
            result = disks.reading(ratio, is_graduated=is_graduated)
            name = f"{disks.READERS} readers, one disk at {ratio} of the rate, {plan}: of its formula"
            figures.append(Figure(name, "share", 0.9, result.share, at_most=False))
            extra[f"{ratio} {plan}"] = result.measured
    return figures, extra


def part_cost() -> Part:
    """Time of a sample, by the public function, and memory of a component."""
    rng = Random(1)
    samples = [0.001 * rng.lognormvariate(0, 0.2) for _ in range(100_000)]
    took = {"a sample": [0.0], "a sample with an amount": [0.0]}
    for name, amount in (("a sample", 1.0), ("a sample with an amount", 4096.0)):
        for _ in range(REPEATS):
            began = time.perf_counter()
            for latency_s in samples:
                health.observe("disk:measured", latency_s, amount)
            took[name].append((time.perf_counter() - began) / len(samples) * 1e6)
    tracemalloc.start()
    watch = health.Watch()
    for number in range(COMPONENTS):
        for latency_s in samples[:SAMPLES_EACH]:
            watch.observe(f"disk:{number}", int(latency_s * 1e9), number)
    held = tracemalloc.get_traced_memory()[0] / (1 << 20)
    tracemalloc.stop()
    return [
        *(Figure(f"cost of {name}, median of {REPEATS}", "us", 2.0, median(us[1:])) for name, us in took.items()),
        Figure(f"{COMPONENTS} components", "MiB", 50.0, held),
    ], {}


PARTS: dict[str, Callable[[], Part]] = {
    "telemetry": part_telemetry,
    "slowdowns": part_slowdowns,
    "writing": part_writing,
    "reading": part_reading,
    "cost": part_cost,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure detection, and what living with slow gains.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    run_parts("health", PARTS, parser.parse_args().only, parser)


if __name__ == "__main__":
    main()
