# SPDX-License-Identifier: Apache-2.0
"""How every benchmark reports: a table for people, a file, and one JSON line at the end for programs."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what was asked.

    Attributes:
        name: What was measured, with the statistic.
        unit: Its unit.
        asked: The bound; None where the figure is for information.
        measured: What came out; None: not measured in this run.
        at_most: Whether ``asked`` is an upper bound (else a lower one).
        peer: The same figure for what it is compared with, if measured in the same run.
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


def report(bench: str, figures: Sequence[Figure], extra: dict[str, object] | None = None) -> None:
    """Print the table, write ``bench/results/NAME.json``, and print the JSON line last."""
    rows = [{k: v for k, v in asdict(f).items() if k != "at_most"} | {"met": f.met} for f in figures]
    width = max((len(f.name) for f in figures), default=0)
    for f in figures:
        bound = "-" if f.asked is None else f"{'<=' if f.at_most else '>='} {f.asked:g}"
        value = "-" if f.measured is None else f"{f.measured:.4g}"
        peer = "" if f.peer is None else f"  peer {f.peer:.4g}"
        verdict = {True: "met", False: "MISSED", None: ""}[f.met]
        print(f"{f.name:<{width}}  {value:>10} {f.unit:<10} {bound:>12}{peer}  {verdict}")
    result = {"bench": bench, "machine": machine(), "figures": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{bench}.json").write_text(json.dumps(result | {"extra": extra or {}}, indent=1) + "\n")
    print(json.dumps(result))
