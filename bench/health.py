# SPDX-License-Identifier: Apache-2.0
"""How well slow is told from well, what living with it gains, and what watching costs.

    make bench-health [BENCH_ARGS="--only telemetry,cost"]

Parts: ``telemetry`` (labelled anomalies, beside other detectors), ``slowdowns`` (put into real machines' series),
``writing`` and ``reading`` (real files on throttled disks, against each scenario's formula), ``why`` (what was done to
simulated groups, and what ``atoll why`` names), ``cost``. Some minutes.

A part that has something to show draws it as ``bench/results/health-PART.svg``; ``--keep`` copies what is drawn to
``docs/reference/figures``, where the documents show it.
"""

import argparse
import shutil
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from random import Random
from statistics import median

import health_disks as disks
import health_slowdowns as slowdowns
import health_telemetry as telemetry
import health_why as why
import plots
from figures import RESULTS, ROOT, Figure, Part, run_parts
from plots import FORMULA, Panel

from atoll import health

COMPONENTS = 10_000
SAMPLES_EACH = 600  # More than a gauge remembers.
REPEATS = 25  # Short ones: what else the machine does then spoils some, and not all.
WHY_TRIALS = 200  # Twenty of each kind.
WHY_UNHURT = 40
KEPT = ROOT / "docs/reference/figures"


def draw(part: str, panels: Sequence[Panel]) -> None:
    """Write a part's picture."""
    plots.write(RESULTS / f"health-{part}.svg", panels)


def part_telemetry() -> Part:
    """All detectors on the same halves."""
    series = telemetry.load()
    rows: dict[str, dict[str, float | None]] = {}
    ours_a: float | None = None
    for detector in (telemetry.OURS, *telemetry.OTHERS):
        if detector.needs and find_spec(detector.needs) is None:
            print(f"  {detector.name} is left out: {detector.needs} is not installed", file=sys.stderr)
            continue
        scores = [detector.score(one.values) for one in series]
        found = telemetry.compared(series, scores, detector.thresholds)
        assert found is not None
        ours_a = found.false_a if ours_a is None else ours_a
        quiet = telemetry.compared(series, scores, detector.thresholds, ours_a)
        score = found.score
        rows[detector.name] = {
            "f1": score.f1,
            "found": score.found,
            "missed": score.missed,
            "false": score.false,
            "false_per_1000": score.false_per_1000,
            "delay_samples": score.delay,
            "threshold": found.threshold,
            "rest": found.rest,
            "quiet_f1": quiet.score.f1 if quiet else None,
            "quiet_false_per_1000": quiet.score.false_per_1000 if quiet else None,
        }
        print(f"  {detector.name}: {rows[detector.name]}", file=sys.stderr)
    names = list(rows)
    draw(
        "telemetry",
        [
            Panel("labelled telemetry, half B: F1", names, {"F1": [rows[name]["f1"] for name in names]}, is_bars=True),
            Panel(
                "the same: false alarms in 1,000 samples",
                names,
                {"false alarms": [rows[name]["false_per_1000"] for name in names]},
                is_bars=True,
            ),
            Panel(
                "F1 where no more false alarms are allowed on half A than ours has there",
                names,
                {"F1": [rows[name]["quiet_f1"] for name in names]},
                is_bars=True,
            ),
        ],
    )
    ours = rows.pop(telemetry.OURS.name)
    best = max(rows.values(), key=lambda row: row["f1"] or 0.0)
    quiet_f1 = max(row["quiet_f1"] or 0.0 for row in rows.values())
    return [
        Figure("labelled telemetry, half B: F1", "", best["f1"], ours["f1"], at_most=False, peer=best["f1"]),
        Figure(
            "the same: false alarms",
            "/1000 samples",
            best["false_per_1000"],
            ours["false_per_1000"],
            peer=best["false_per_1000"],
        ),
        Figure(
            "the same, all tuned to no more false alarms on half A than ours has there: F1",
            "",
            quiet_f1,
            ours["quiet_f1"],
            at_most=False,
            peer=quiet_f1,
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
    factors = [f"by {factor}" for factor in slowdowns.FACTORS]
    curves = {shape: [found[f"{shape} {factor}"] for factor in slowdowns.FACTORS] for shape in slowdowns.SHAPES}
    shares = {shape: [one.share for one in curve] for shape, curve in curves.items()}
    delays = {shape: [one.delay for one in curve] for shape, curve in curves.items()}
    draw(
        "slowdowns",
        [
            Panel("slow-downs that were found, share", factors, shares),
            Panel("median delay until it was told, samples", factors, delays),
        ],
    )
    twice = [found[f"{shape} 2.0"] for shape in slowdowns.SHAPES]
    known = [one.delay for one in twice if one.delay is not None]
    rate, vain = slowdowns.in_vain(machines)
    true = [confidence for one in twice for confidence in one.confidences]
    figures = [
        Figure(f"slow-downs by 2, {shape}: found", "share", 0.95, one.share, at_most=False)
        for shape, one in zip(slowdowns.SHAPES, twice, strict=True)
    ]
    return [
        *figures,
        Figure("slow-downs by 2: delay, median of the shapes", "samples", 10.0, median(known) if known else None),
        Figure("told in vain, of a component in a month", "", 1.0, rate),
        Figure("confidence of a slow-down by 2, eight samples later, median", "", None, median(true) if true else None),
        Figure("the same of what was told in vain", "", None, median(vain) if vain else None),
    ], {
        **{name: {"share": one.share, "delay_samples": one.delay} for name, one in found.items()},
        "confidence": {"slow-downs by 2": sorted(true), "in vain": sorted(vain)},
    }


def part_writing() -> Part:
    """Each plan at each ratio."""
    found = {ratio: disks.writing(ratio) for ratio in disks.RATIOS}
    figures = []
    for ratio, plans in found.items():
        for plan, result in plans.items():
            name = f"{disks.PAIRS} pairs, one at {ratio} of the rate, plan {plan}: of its formula"
            figures.append(Figure(name, "share", 0.9, result.share, at_most=False))
    draw("writing", [_beside("bytes written, MB a second, by the slow pair's share of the rate", found)])
    return figures, {f"{ratio} {plan}": one.measured for ratio, plans in found.items() for plan, one in plans.items()}


def part_reading() -> Part:
    """Graduated and plain at each ratio."""
    figures, extra, found = [], {}, dict[float, dict[str, disks.Result]]()
    for ratio in disks.RATIOS:
        found[ratio] = {}
        for is_graduated, plan in ((True, "graduated"), (False, "plain")):
            result = found[ratio][plan] = disks.reading(ratio, is_graduated=is_graduated)
            name = f"{disks.READERS} readers, one disk at {ratio} of the rate, {plan}: of its formula"
            figures.append(Figure(name, "share", 0.9, result.share, at_most=False))
            extra[f"{ratio} {plan}"] = result.measured
    draw("reading", [_beside("the slowest reader, MB a second, by the slow disk's share of the rate", found)])
    return figures, extra


def _beside(title: str, found: dict[float, dict[str, disks.Result]]) -> Panel:
    """Return what was measured of each plan beside its formula."""
    series: dict[str, list[float | None]] = {}
    for plans in found.values():
        for plan, result in plans.items():
            series.setdefault(plan, []).append(result.measured / 1e6)
            series.setdefault(f"{FORMULA} {plan}", []).append(result.formula / 1e6)
    return Panel(title, [f"{ratio:g}" for ratio in found], series)


def part_why() -> Part:
    """Two hundred groups that something was done to, and some that nothing was."""
    with ProcessPoolExecutor() as pool:
        outcomes = list(pool.map(why.trial, range(WHY_TRIALS)))
        unhurt = list(pool.map(why.unhurt, range(WHY_TRIALS, WHY_TRIALS + WHY_UNHURT)))
    kinds = [kind.value for kind in why.Kind]
    by_kind = {kind: [one for one in outcomes if one.kinds[0] == kind] for kind in kinds}
    counts = {
        "right": [float(sum(one.is_right for one in by_kind[kind])) for kind in kinds],
        "wrong": [float(sum(one.is_wrong for one in by_kind[kind])) for kind in kinds],
        "does not know": [float(sum(not one.is_right and not one.is_wrong for one in by_kind[kind])) for kind in kinds],
    }
    draw("why", [Panel("what atoll why names first, of twenty trials of each kind", kinds, counts, is_bars=True)])
    both = [one for one in outcomes if len(one.kinds) > 1]
    beside = Counter(one.in_vain > 0 for one in outcomes)
    return [
        Figure("why: the right cause is named", "share", 0.9, sum(counts["right"]) / WHY_TRIALS, at_most=False),
        Figure("why: a wrong cause is named", "share", 0.03, sum(counts["wrong"]) / WHY_TRIALS),
        Figure("why, of two causes: both are named", "share", None, sum(one.all_named for one in both) / len(both)),
        Figure("why: another one is named beside it", "share", None, beside[True] / WHY_TRIALS),
        Figure(
            "why: something is named where nothing was done", "share", 0.03, sum(map(why.blames, unhurt)) / WHY_UNHURT
        ),
    ], {
        "two causes": len(both),
        **{f"{kind} {name}": counts[name][at] for at, kind in enumerate(kinds) for name in counts},
        "not right": {
            one.seed: [list(one.kinds), one.diagnosis.findings[0].because] for one in outcomes if not one.is_right
        },
    }


def part_cost() -> Part:
    """Time of a sample, by the public function, and memory of a component."""
    rng = Random(1)
    samples = [0.001 * rng.lognormvariate(0, 0.2) for _ in range(20_000)]
    took = {"a sample": list[float](), "a sample with an amount": list[float]()}
    for _ in range(REPEATS):
        for (name, us), amount in zip(took.items(), (1.0, 4096.0), strict=True):
            began = time.perf_counter()
            for latency_s in samples:
                health.observe(name, latency_s, amount)
            us.append((time.perf_counter() - began) / len(samples) * 1e6)
    tracemalloc.start()
    watch = health.Watch()
    for number in range(COMPONENTS):
        for latency_s in samples[:SAMPLES_EACH]:
            watch.observe(f"disk:{number}", int(latency_s * 1e9), number)
    held = tracemalloc.get_traced_memory()[0] / (1 << 20)
    tracemalloc.stop()
    return [
        *(Figure(f"cost of {name}, median of {REPEATS}", "us", 2.0, median(us)) for name, us in took.items()),
        Figure(f"{COMPONENTS} components", "MiB", 50.0, held),
    ], {f"{name}, least, us": min(us) for name, us in took.items()}


PARTS: dict[str, Callable[[], Part]] = {
    "telemetry": part_telemetry,
    "slowdowns": part_slowdowns,
    "writing": part_writing,
    "reading": part_reading,
    "why": part_why,
    "cost": part_cost,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure detection, and what living with slow gains.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--keep", action="store_true", help="copy what is drawn to docs/reference/figures")
    arguments = parser.parse_args()
    run_parts("health", PARTS, arguments.only, parser)
    if arguments.keep:
        KEPT.mkdir(parents=True, exist_ok=True)
        for drawn in sorted(RESULTS.glob("health-*.svg")):
            shutil.copy(drawn, KEPT / drawn.name)


if __name__ == "__main__":
    main()
