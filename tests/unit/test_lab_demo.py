# SPDX-License-Identifier: Apache-2.0
"""The demo's verdict: which change of route answered a trouble, and when a promise counts as kept."""

from dataclasses import replace

import pytest

from atoll.lab.clients import Waits
from atoll.lab.demo import DemoReport, Healing, PhaseReport, told, verdict_text
from atoll.lab.scenario import Phase, Trouble
from atoll.lab.twin import Twin
from atoll.node.views import SwitchView, WhyView

KILLED = Phase(Trouble.RELAY_KILLED, "home", "sin", 16_500, 21_000, 0, 1_000)
FINE = Waits(requests=60, failed=0, late=1, silence_s=0.6, usual_s=0.2)
STUCK = Waits(requests=2, failed=1, late=0, silence_s=4.5, usual_s=0.2)


def switch(ago_s: float, after: str | None, cause: str = "silent") -> SwitchView:
    return SwitchView(ago_s=ago_s, before=None, after=after, cause=cause, evidence="", took_s=0.3)


def why(*history: SwitchView, path: tuple[str, ...] = ("home", "gpu", "sin")) -> WhyView:
    return WhyView(
        source="home",
        target="sin",
        tag="latency",
        path=path,
        since_s=1.0,
        because="",
        candidates=(),
        history=history,
        next="",
    )


def report(waits: Waits, *, came: bool = True) -> PhaseReport:
    return told(KILLED, waits, STUCK, Healing.of(why(switch(4.2, "gpu")), 4.5), came=came)


def test_the_first_change_since_the_trouble_answered_it() -> None:
    history = (switch(9.0, "fra"), switch(4.2, "gpu"), switch(1.0, None, "recovered"))
    healing = Healing("home->gpu->sin", "silent", 0.3)
    assert Healing.of(why(*history), 4.5) == healing
    assert Healing.of(why(*reversed(history)), 4.5) == healing, "whatever the order of the history"
    assert Healing.of(why(*history), 2.0) == Healing("home->sin", "recovered", 0.3)


def test_without_a_change_the_present_path_is_told() -> None:
    assert Healing.of(why(switch(9.0, "fra")), 4.5) == Healing("home->gpu->sin")
    assert Healing.of(why(switch(3.0, None, "start"), path=("home", "sin")), 4.5) == Healing("home->sin")


def test_a_promise_is_kept_within_its_time_and_one_round_trip() -> None:
    assert report(FINE).kept
    assert report(replace(FINE, silence_s=1.2)).kept
    assert report(FINE).promised_s == 1.2


@pytest.mark.parametrize("waits", [replace(FINE, silence_s=1.3), replace(FINE, failed=1), replace(FINE, requests=0)])
def test_a_long_wait_a_lost_request_or_nobody_there_is_a_miss(waits: Waits) -> None:
    assert not report(waits).kept


def test_a_relay_that_could_not_be_killed_is_a_miss_however_short_the_wait() -> None:
    assert not report(FINE, came=False).kept


def test_the_verdict_names_what_was_missed() -> None:
    def text(*phases: PhaseReport) -> str:
        twin = Twin(seed=7, trace="", phases=())
        kept = all(phase.kept for phase in phases)
        return verdict_text(DemoReport(seed=7, speed=1.0, faults=True, phases=phases, simulated=twin, kept=kept))

    good, bad = report(FINE), report(replace(FINE, silence_s=1.3))
    assert "every promise kept" in text(good)
    assert "rerouted home->gpu->sin in 0.30 s" in text(good)
    assert "MISSED" not in text(good)
    assert "MISSED: promised 1.20 s" in text(good, bad)
    assert "a promise was MISSED" in text(good, bad)
