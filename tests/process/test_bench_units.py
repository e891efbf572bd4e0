# SPDX-License-Identifier: Apache-2.0
"""Long measurements in units: each is measured once, in processes of their own, and known to the next run."""

import json
import os
from pathlib import Path

import figures
import pytest
import units
from units import Plan, Result, run_units

pytestmark = pytest.mark.process


def work(number: int) -> Result:
    """Return what the unit measures: here, who measured it."""
    return [[number, os.getpid()]]


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(units, "RESULTS", tmp_path)
    return tmp_path / "units" / "demo.json"


def plan(count: int, option: int = 1) -> Plan:
    return Plan("demo", work, range(count), {"option": option})


def test_units_run_in_other_processes_and_come_back_in_order() -> None:
    found = run_units(plan(5))
    assert [rows[0][0] for rows in found.values()] == list(found) == [0, 1, 2, 3, 4]
    assert os.getpid() not in {rows[0][1] for rows in found.values()}


def test_a_run_that_was_cut_short_goes_on(kept: Path) -> None:
    first = run_units(plan(3))
    assert [number for number, rows in run_units(plan(5)).items() if rows == first.get(number)] == [0, 1, 2]
    written = json.loads(kept.read_text())
    del written["units"]["1"]
    kept.write_text(json.dumps(written))
    again = run_units(plan(3))
    assert again[0] == first[0]
    assert again[1] != first[1]


def test_other_options_or_sources_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_units(plan(1))
    assert run_units(plan(1, option=2)) != first
    second = run_units(plan(1, option=2))
    assert run_units(plan(1, option=2)) == second
    monkeypatch.setattr(units, "sources_digest", lambda: "changed")
    assert run_units(plan(1, option=2)) != second
    assert figures.sources_digest() != "changed"
