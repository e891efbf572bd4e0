# SPDX-License-Identifier: Apache-2.0
"""What the watchman kept tells who was called slow first, for the right reason, and who else was."""

from pathlib import Path
from typing import Any, cast

from atoll.lab.live import LiveGroup
from atoll.lab.watching import Sighting, Watchman

EARLY = Sighting(1.0, "fra", "gpu", "disk write 90 ms")
LATE = Sighting(5.0, "home", "gpu", "held up for 56 ms")
OTHER = Sighting(6.0, "home", "ash", "answers after 90 ms")
AGAIN = Sighting(7.0, "home", "ash", "answers after 80 ms")


def watchman() -> Watchman:
    one = Watchman(LiveGroup(("fra", "home"), cast("Any", None), Path()))
    one.sightings.extend((EARLY, LATE, OTHER, AGAIN))
    return one


def test_the_first_sighting_is_since_an_instant_and_for_a_reason() -> None:
    assert watchman().first("gpu", 0.0, ("held up for", "processor")) == LATE
    assert watchman().first("gpu", 0.0, ("disk write",)) == EARLY
    assert watchman().first("gpu", 2.0, ("disk write",)) is None
    assert watchman().first("sin", 0.0, ("disk write",)) is None


def test_all_others_are_told_once_by_each() -> None:
    assert watchman().besides({"gpu"}) == (OTHER,)
    assert watchman().besides({"gpu", "ash"}) == ()
    assert watchman().besides(()) == (EARLY, LATE, OTHER)


def test_nobody_has_said_anything_of_who_was_not_asked() -> None:
    assert watchman().peer("fra", "gpu") is None
