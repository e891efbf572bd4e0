# SPDX-License-Identifier: Apache-2.0
"""The demo's verdict: which change of route answered a trouble, and when a promise counts as kept."""

from dataclasses import replace

import pytest

from atoll.lab.bidders import Account
from atoll.lab.clients import Waits
from atoll.lab.demo import Alarm, DemoReport, Healing, PhaseReport, told, verdict_text
from atoll.lab.histories import Replayed, Tampered
from atoll.lab.kept import KeepReport, keep_lines, told_audit, told_move, told_replay
from atoll.lab.scenario import Affliction, Phase, SlowPhase, Trouble
from atoll.lab.slowness import Avoided, Found, SlowReport, told_slow
from atoll.lab.twin import Twin
from atoll.lab.watching import Sighting
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


CPU = SlowPhase(Affliction.STOLEN_CPU, "home", "sin", 22_500, 12_000, 1_000)
DISK = SlowPhase(Affliction.SLOW_DISK, "sin", "home", 24_000, 18_000, 4_000)
HELD_UP = Sighting(1.0, "home", "gpu", "held up for 56 ms, usually below 10 ms, for 6 s (its own word)")
WRITES = Sighting(1.0, "ash", "fra", "disk write 498 ms, usually below 5.0 ms, for 6 s (its own word)")
CPU_FOUND = Found("gpu", HELD_UP, 6.5, "cpu", "The CPU of gpu is withheld.", 0.9)
DISK_FOUND = Found("fra", WRITES, 10.4, "disk", "A durable write on fra takes 498 ms.", 0.9)
LEFT = Avoided(FINE, STUCK, 6.6, "home->ash->sin", "slow-relay")
ELSEWHERE = Avoided(FINE, FINE, 11.4, "home", "", 0.62, 1.8)


def slow_text(*slow: SlowReport, alarms: tuple[Alarm, ...] = (), faults: bool = True) -> str:
    kept = not alarms and all(one.kept for one in slow)
    twin = Twin(seed=7, trace="", phases=())
    return verdict_text(
        DemoReport(seed=7, speed=1.0, faults=faults, phases=(), simulated=twin, kept=kept, slow=slow, alarms=alarms)
    )


def test_the_verdict_says_who_was_slow_who_found_it_and_what_was_done() -> None:
    text = slow_text(told_slow(CPU, CPU_FOUND, LEFT, faults=True), told_slow(DISK, DISK_FOUND, ELSEWHERE, faults=True))
    assert "every promise kept" in text
    _, *lines, _ = [" ".join(line.split()) for line in text.splitlines()]
    assert lines == [
        "stolen CPU, gpu found by nobody 6.50 s gpu: held up for 56 ms, usually below 10 ms",
        "longest wait 4.50 s 0.60 s rerouted home->ash->sin after 6.60 s (slow-relay)",
        "slow disk, fra found by nobody 10.40 s fra: disk write 498 ms, usually below 5.0 ms",
        "then an answer 1.80 s 0.62 s new connections go to home after 11.40 s",
    ]


def test_the_verdict_says_what_was_not_found_and_what_heartbeats_found() -> None:
    unheard = Found("gpu", unheard_s=7.0)
    text = slow_text(told_slow(CPU, unheard, Avoided(FINE, STUCK), faults=True))
    assert "7.00 s        nobody" in text
    assert "MISSED: promised found in 12.0 s, avoided in 15.0 s, no wait above 1.20 s; named: nothing" in text
    assert "a promise was MISSED" in text


def test_without_faults_nobody_is_found_and_that_is_said() -> None:
    quiet = told_slow(CPU, Found(""), Avoided(FINE, FINE), faults=False)
    text = slow_text(quiet, faults=False)
    assert "nobody was called slow" in text
    assert "found by" not in text
    alarm = Alarm(at_s=12.5, by="fra", node="ash", words="answers after 90 ms")
    text = slow_text(quiet, alarms=(alarm,), faults=False)
    assert "FALSE ALARM: fra called ash slow at t=12.5 s: answers after 90 ms" in text
    assert "nobody was called slow" not in text
    assert "a promise was MISSED" in text
    stuck = told_slow(CPU, Found(""), Avoided(STUCK, FINE), faults=False)
    assert "MISSED: promised no wait above 1.20 s" in slow_text(stuck, faults=False)


def test_the_verdict_has_the_program_that_was_kept() -> None:
    fair = Account(240, 0, 0, 0, 0)
    moved = told_move(("fra", "ash", "ash"), (0.9, 0.73, 0.35), fair, "")
    past = told_replay("ash", "fra", "5a" * 32, Replayed(123, 0, "5a" * 32))
    audited = told_audit("fra", Tampered(40, 21, 21))
    keeping = KeepReport(
        name="lot",
        clients=("home", "sin"),
        holders=("fra", "ash", "gpu"),
        moved=moved,
        killed=None,
        replayed=past,
        audited=audited,
        kept=True,
    )
    twin = Twin(seed=7, trace="", phases=())
    report = DemoReport(seed=7, speed=1.0, faults=False, phases=(), simulated=twin, kept=True, keeping=keeping)
    assert verdict_text(report).splitlines()[1:4] == keep_lines(keeping)
