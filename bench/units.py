# SPDX-License-Identifier: Apache-2.0
"""Long measurements in units: two at a time, with progress, and kept, so that a run that was cut short goes on.

A finished unit is kept in ``bench/results/units/NAME.json`` beside what it depends on: the digest of the sources, the
machine, and the options. A later run with the same three takes it from there; any other begins anew.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from figures import RESULTS, machine, sources_digest

PROCESSES: Final = 2  # As many as the machine has cores that anybody may count on.
SAVE_S: Final = 10.0
TELL_S: Final = 20.0

Result = list[list[Any]]  # Any: rows as JSON gives them back, of a shape that only the part knows.


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        name: For the file and the progress; letters and dashes.
        work: Measures the unit of a number; a function of a module, and deterministic.
        units: Their numbers.
        options: What else the results depend on, as JSON.
    """

    name: str
    work: Callable[[int], Result]
    units: Sequence[int]
    options: Mapping[str, object]


def _numbered(job: tuple[Callable[[int], Result], int]) -> tuple[int, Result, float]:
    work, number = job
    began = time.process_time()
    return number, work(number), time.process_time() - began


def run_units(plan: Plan) -> dict[int, Result]:
    """Return the result of each unit, by number; measure those that are not known yet."""
    path = RESULTS / "units" / f"{plan.name}.json"
    key = {"sources": sources_digest(), "machine": machine(), "options": dict(plan.options)}
    known: dict[int, Result] = {}
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["key"] == json.loads(json.dumps(key)):
            known = {int(number): result for number, result in kept["units"].items() if int(number) in plan.units}

    def save() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"key": key, "units": known}))
        new.replace(path)

    waiting = [number for number in plan.units if number not in known]
    if len(waiting) < len(plan.units):
        print(f"  {plan.name}: {len(known)} of {len(plan.units)} units known from an earlier run", file=sys.stderr)
    if not waiting:
        return {number: known[number] for number in plan.units}
    began = saved = told = time.monotonic()
    cpu_s, fresh = 0.0, 0
    with multiprocessing.get_context("spawn").Pool(min(PROCESSES, len(waiting))) as pool:
        for number, result, spent_s in pool.imap_unordered(_numbered, [(plan.work, one) for one in waiting]):
            known[number] = result
            cpu_s, fresh, now = cpu_s + spent_s, fresh + 1, time.monotonic()
            if now - saved > SAVE_S or fresh == len(waiting):
                save()
                saved = now
            if now - told > TELL_S or fresh == len(waiting):
                left_s = (now - began) / fresh * (len(waiting) - fresh)
                print(
                    f"  {plan.name}: {len(known)} of {len(plan.units)}, {cpu_s / fresh:.1f} CPU s each, "
                    f"about {left_s / 60:.0f} min left",
                    file=sys.stderr,
                )
                told = now
    return {number: known[number] for number in plan.units}
