# SPDX-License-Identifier: Apache-2.0
"""How every benchmark reports: a table for people, a file, and one JSON line at the end for programs."""

import json
import os
import platform
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"

Row = dict[str, Any]  # What json.loads returns; checked by what reads it.


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what was asked.

    Attributes:
        name: What was measured, with the statistic.
        unit: Its unit.
        asked: The bound; None where the figure is for information.
        measured: What came out; None: not measured in this run.
        at_most: Whether ``asked`` is an upper bound (else a lower one).
        peer: The same figure for what it is compared with.
    """

    name: str
    unit: str
    asked: float | None
    measured: float | None
    at_most: bool = True
    peer: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bound holds; None where there is no bound or no measurement."""
        if self.asked is None or self.measured is None:
            return None
        return self.measured <= self.asked if self.at_most else self.measured >= self.asked

    def row(self) -> Row:
        """Return it as JSON has it. Without end (never healed) is written as null and not met: JSON has no infinity."""
        row = {key: value for key, value in asdict(self).items() if key != "at_most"} | {"met": self.met}
        return row | {"measured": None} if self.measured == float("inf") else row


Part = tuple[Sequence[Figure], Mapping[str, object]]  # Figures, and what else a program may want to know.


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


@cache
def machine() -> dict[str, object]:
    """Return what the figures depend on and a reader cannot see."""
    model = platform.processor() or "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


@cache
def commit() -> str | None:
    """Return the commit that is checked out; None outside git."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def sources_digest() -> str:
    """Return a digest of all code that figures can depend on, committed or not, as it was when first asked."""
    digest = blake2b(digest_size=8)
    for path in sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("bench/*.py"), ROOT / "constraints.txt"]):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def show(figures: Sequence[Figure]) -> None:
    """Print the table for people."""
    width = max((len(f.name) for f in figures), default=0)
    for f in figures:
        bound = "-" if f.asked is None else f"{'<=' if f.at_most else '>='} {f.asked:g}"
        value = "-" if f.measured is None else f"{f.measured:.4g}"
        peer = "" if f.peer is None else f"  peer {f.peer:.4g}"
        verdict = {True: "met", False: "MISSED", None: ""}[f.met]
        print(f"{f.name:<{width}}  {value:>10} {f.unit:<14} {bound:>8}{peer}  {verdict}")


def report(bench: str, figures: Sequence[Figure], extra: Mapping[str, object] | None = None) -> None:
    """Print the table, write ``bench/results/NAME.json``, and print the JSON line last."""
    show(figures)
    result = {"bench": bench, "machine": machine(), "commit": commit(), "sources": sources_digest()}
    _write(result | {"figures": [f.row() for f in figures], "extra": dict(extra or {})})


def run_parts(bench: str, parts: Mapping[str, Callable[[], Part]], wanted: str, parser: ArgumentParser) -> None:
    """Measure some parts of a benchmark, and report each at once: a run may be cut short.

    Args:
        bench: Its name.
        parts: All parts, in order.
        wanted: Names of those to measure, with commas between.
        parser: Who is told of a name that there is not; ends the program.
    """
    names = wanted.split(",")
    if unknown := [name for name in names if name not in parts]:
        parser.error(f"no part {unknown[0]!r}")
    sources_digest()  # As the sources are now: they may be edited while this runs.
    for name in names:
        print(f"{name} ...", file=sys.stderr)
        report_parts(bench, list(parts), {name: parts[name]()})


def report_parts(bench: str, order: Sequence[str], measured: Mapping[str, Part]) -> None:
    """Report a benchmark of several parts of which only some ran now, together with what earlier runs left.

    A part of an earlier run is taken over only if the same sources made it on the same machine; the JSON says of each
    part which commit was checked out and which digest the sources had, which parts are missing, and why. The
    file keeps what is not taken over, under ``kept``, until the part is run again.

    Args:
        bench: Its name.
        order: All parts.
        measured: The figures and the extra results of those that ran now.
    """
    kept = _kept_parts(bench)
    for name, (figures, extra) in measured.items():
        show(figures)
        rows = [f.row() for f in figures]
        origin = {"commit": commit(), "sources": sources_digest(), "machine": machine()}
        kept[name] = origin | {"figures": rows, "extra": dict(extra)}
    missing = {name: reason for name in order if (reason := _missing(kept.get(name))) is not None}
    for name, reason in missing.items():
        if name in kept:
            print(f"  {name}: {reason}; not taken over", file=sys.stderr)
    known = {name: kept[name] for name in order if name not in missing}
    _write(
        {
            "bench": bench,
            "machine": machine(),
            "figures": [row for part in known.values() for row in part["figures"]],
            "parts": {
                name: {"commit": part["commit"], "sources": part["sources"], "figures": len(part["figures"])}
                for name, part in known.items()
            },
            "missing": missing,
            "extra": {name: part["extra"] for name, part in known.items() if part["extra"]},
        },
        keep={"kept": kept},
    )


def _kept_parts(bench: str) -> dict[str, Row]:
    """Return the newest figures of each part that was ever run here, also those that no longer count."""
    path = RESULTS / f"{bench}.json"
    return dict(json.loads(path.read_text()).get("kept", {})) if path.exists() else {}


def _missing(part: Row | None) -> str | None:
    """Return why a part is not among the figures; None: it is."""
    if part is None:
        return "not measured"
    if part["machine"] != machine():
        return "measured on another machine"
    if part["sources"] != sources_digest():
        return f"measured on other sources, at commit {part['commit']}"
    return None


def _write(result: Row, keep: Row | None = None) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{result['bench']}.json").write_text(json.dumps(result | (keep or {}), indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "extra"}))
