# SPDX-License-Identifier: Apache-2.0
"""How benchmarks report: what counts as met, and which parts of an earlier run are taken over."""

import json
from pathlib import Path
from typing import Any

import figures
import pytest
from figures import Figure, percentile, report_parts

ORDER = ("fast", "slow")
FAST = (Figure("fast", "s", 1.0, 0.5),)
SLOW = (Figure("slow", "s", 1.0, 2.0), Figure("slow, worst", "s", None, 9.0, peer=27.0))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "results")
    return tmp_path / "results" / "demo.json"


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:  # Any: as JSON gives it.
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def names(told: dict[str, Any]) -> list[str]:  # Any: as above.
    return [row["name"] for row in told["figures"]]


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("", "s", 1.0, 1.0), True),
        (Figure("", "s", 1.0, 1.1), False),
        (Figure("", "x", 40.0, 41.0, at_most=False), True),
        (Figure("", "x", 40.0, 39.0, at_most=False), False),
        (Figure("", "s", None, 1.0), None),
        (Figure("", "s", 1.0, None), None),
        (Figure("", "s", 1.0, float("inf")), False),
    ],
)
def test_a_bound_is_met_or_not_or_absent(figure: Figure, met: bool | None) -> None:
    assert figure.met is met
    assert json.loads(json.dumps(figure.row(), allow_nan=False))["met"] is met


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [0.0, 50.0, 99.0, 99.0]


def test_parts_run_apart_are_told_together_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    report_parts("demo", ORDER, {"slow": (SLOW, {"note": 1})})
    first = told(capsys)
    assert (names(first), first["missing"]) == (["slow", "slow, worst"], {"fast": "not measured"})
    report_parts("demo", ORDER, {"fast": (FAST, {})})
    both = told(capsys)
    assert (names(both), both["missing"]) == (["fast", "slow", "slow, worst"], {})
    assert both["figures"][1] == {
        "name": "slow",
        "unit": "s",
        "asked": 1.0,
        "measured": 2.0,
        "peer": None,
        "met": False,
    }
    assert {part["sources"] for part in both["parts"].values()} == {figures.sources_digest()}
    report_parts("demo", ORDER, {"slow": (SLOW[:1], {})})
    assert names(told(capsys)) == ["fast", "slow"], "what ran again replaces what it said before"


@pytest.mark.parametrize(("what", "reason"), [("sources_digest", "other sources"), ("machine", "another machine")])
def test_figures_of_other_code_or_another_machine_are_not_taken_over(
    what: str, reason: str, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report_parts("demo", ORDER, {"slow": (SLOW, {})})
    monkeypatch.setattr(figures, what, lambda: {"changed": True} if what == "machine" else "changed")
    report_parts("demo", ORDER, {"fast": (FAST, {})})
    now = told(capsys)
    assert names(now) == ["fast"]
    assert reason in now["missing"]["slow"]
    assert json.loads(elsewhere.read_text())["kept"]["slow"]["figures"] == [one.row() for one in SLOW]


def test_the_digest_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "constraints.txt").write_text("")
    digests: list[str] = []
    for text in ("a = 1\n", "a = 2\n", "a = 1\n"):
        (tmp_path / "src" / "one.py").write_text(text)
        figures.sources_digest.cache_clear()
        digests.append(figures.sources_digest())
    figures.sources_digest.cache_clear()
    assert digests[0] == digests[2] != digests[1]
