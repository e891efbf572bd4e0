# SPDX-License-Identifier: Apache-2.0
"""What is told of a machine that was slow, and when its promise counts as kept: found, named, avoided."""

from dataclasses import replace

import msgspec
import pytest

from atoll.lab.clients import Waits
from atoll.lab.scenario import Affliction, SlowPhase
from atoll.lab.slowness import AVOIDED_S_MAX, WORDS, Avoided, Found, SlowReport, left, named, told_slow
from atoll.lab.watching import Sighting
from atoll.node.reporting import pace
from atoll.node.views import DiagnosisView, FindingView, SwitchView, WhyView

CPU = SlowPhase(Affliction.STOLEN_CPU, "home", "sin", 22_500, 12_000, 1_000)
DISK = SlowPhase(Affliction.SLOW_DISK, "sin", "home", 24_000, 18_000, 4_000)
FINE = Waits(requests=60, failed=0, late=1, silence_s=0.6, usual_s=0.2)
STUCK = Waits(requests=2, failed=1, late=0, silence_s=9.0, usual_s=0.2)
SEEN = Sighting(106.5, "home", "gpu", "held up for 56 ms, usually below 10 ms, for 6 s (its own word)")
FOUND = Found("gpu", SEEN, 6.5, "cpu", "The CPU of gpu is withheld.", 0.9)
LEFT = Avoided(FINE, STUCK, 6.6, "home->ash->sin", "slow-relay")


def report(found: Found = FOUND, avoided: Avoided = LEFT, *, phase: SlowPhase = CPU, faults: bool = True) -> SlowReport:
    return told_slow(phase, found, avoided, faults=faults)


def test_a_machine_that_was_found_named_and_avoided_in_time_is_a_promise_kept() -> None:
    told = report()
    assert told.kept
    assert (told.node, told.found_by, told.found_s, told.words) == ("gpu", "home", 6.5, SEEN.words)
    assert (told.cause, told.avoided_s, told.instead, told.switch) == ("cpu", 6.6, "home->ash->sin", "slow-relay")
    assert (told.found_max_s, told.avoided_max_s, told.silence_max_s) == (12.0, 12.0 + AVOIDED_S_MAX, 1.2)
    assert (told.silence_s, told.control_silence_s, told.control_failed) == (0.6, 9.0, 1)
    assert report(replace(FOUND, cause="disk"), phase=DISK).kept


@pytest.mark.parametrize(
    "found",
    [
        Found("gpu"),
        replace(FOUND, found_s=12.1),
        replace(FOUND, cause=""),
        replace(FOUND, cause="disk"),
    ],
)
def test_a_machine_not_found_found_late_or_misnamed_is_a_miss(found: Found) -> None:
    assert not report(found).kept


@pytest.mark.parametrize(
    "avoided",
    [
        replace(LEFT, avoided_s=None),
        replace(LEFT, avoided_s=12.1 + AVOIDED_S_MAX),
        replace(LEFT, atoll=replace(FINE, silence_s=1.3)),
        replace(LEFT, atoll=replace(FINE, failed=1)),
        replace(LEFT, atoll=replace(FINE, requests=0)),
    ],
)
def test_a_machine_not_avoided_or_a_client_that_suffers_is_a_miss(avoided: Avoided) -> None:
    assert not report(avoided=avoided).kept


def test_without_faults_the_client_alone_counts() -> None:
    told = report(Found(""), Avoided(FINE, FINE), faults=False)
    assert (told.kept, told.node, told.found_s, told.found_by, told.words) == (True, "", None, "", "")
    assert not report(Found(""), Avoided(STUCK, FINE), faults=False).kept


@pytest.mark.parametrize(
    ("component", "affliction"),
    [
        ("loop", Affliction.STOLEN_CPU),
        ("cpu", Affliction.STOLEN_CPU),
        ("work", Affliction.STOLEN_CPU),
        ("disk", Affliction.SLOW_DISK),
    ],
)
def test_the_words_are_those_of_status(component: str, affliction: Affliction) -> None:
    said = pace(component, 500_000, 5_000)
    assert any(word in said for word in WORDS[affliction])
    others = [one for one in Affliction if one is not affliction]
    assert not any(word in said for one in others for word in WORDS[one])


def switch(ago_s: float, before: str | None, after: str | None, cause: str = "slow-relay") -> SwitchView:
    return SwitchView(ago_s=ago_s, before=before, after=after, cause=cause, evidence="", took_s=0.0)


def why(*history: SwitchView, path: tuple[str, ...] = ("home", "ash", "sin")) -> WhyView:
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


def test_a_relay_is_left_by_the_first_change_away_from_it_since_the_onset() -> None:
    history = (switch(20.0, "gpu", None), switch(4.0, "gpu", "ash"), switch(2.0, "ash", "fra"))
    assert left(why(*history), "gpu", 10.0) == (6.0, "slow-relay")
    again = (switch(9.0, "gpu", "ash", "lossy"), switch(5.0, "ash", "gpu", "better"), *history)
    assert left(why(*again), "gpu", 10.0) == (1.0, "lossy")


def test_a_relay_that_is_in_use_still_or_never_was_is_not_left() -> None:
    assert left(why(switch(4.0, "gpu", "ash"), path=("home", "gpu", "sin")), "gpu", 10.0) == (None, "")
    assert left(why(switch(4.0, "fra", "ash")), "gpu", 10.0) == (None, "")
    assert left(why(switch(14.0, "gpu", "ash")), "gpu", 10.0) == (None, "")
    assert left(why(switch(4.0, None, "ash")), "", 10.0) == (None, "")


def finding(cause: str, where: str) -> FindingView:
    return FindingView(cause=cause, where=where, because=f"{cause}!", confidence=90, costs_ms=None, next="")


def test_the_first_cause_at_the_machine_itself_is_the_one_that_was_named() -> None:
    diagnosis = DiagnosisView(
        symptom="",
        findings=(finding("loss", "path home -> gpu"), finding("cpu", "gpu"), finding("disk", "gpu")),
        not_it=(),
        unknown=(),
    )
    assert named(diagnosis, "gpu") == ("cpu", "cpu!")
    assert named(diagnosis, "ash") == ("", "")
    assert named(None, "gpu") == ("", "")


def test_a_report_survives_its_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(report()), type=SlowReport) == report()
