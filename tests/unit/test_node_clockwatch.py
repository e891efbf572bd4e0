# SPDX-License-Identifier: Apache-2.0
"""A clock that was set back is told, with its code, for as long as it matters."""

from atoll.base.units import SECOND_NS
from atoll.group.limits import INVITE_VALID_NS
from atoll.node.clockwatch import STEP_NS_MIN, TOLD_NS_MIN, ClockWatch

WALL_NS = 1_800_000_000 * SECOND_NS


def told(watch: ClockWatch, wall_ns: int, now_ns: int) -> str | None:
    watch.look(wall_ns, now_ns)
    return watch.warning(now_ns)


def test_a_clock_that_runs_or_leaps_ahead_is_no_news() -> None:
    watch = ClockWatch(WALL_NS, 5)
    assert told(watch, WALL_NS + SECOND_NS, 5 + SECOND_NS) is None
    assert told(watch, WALL_NS + 10**6 * SECOND_NS, 6 + SECOND_NS) is None
    assert told(watch, WALL_NS + 10**6 * SECOND_NS - STEP_NS_MIN + 2, 7 + SECOND_NS) is None


def test_a_step_back_is_told_until_no_invitation_of_before_is_open() -> None:
    watch = ClockWatch(WALL_NS, 0)
    back_ns = WALL_NS - 3600 * SECOND_NS
    said = told(watch, back_ns, 0)
    assert said is not None
    assert said.startswith("A107: the clock was set back by 3600 s")
    assert told(watch, back_ns + INVITE_VALID_NS - 1, INVITE_VALID_NS - 1) == said
    assert told(watch, back_ns + INVITE_VALID_NS, INVITE_VALID_NS) is None


def test_a_second_step_begins_anew() -> None:
    watch = ClockWatch(WALL_NS, 0)
    told(watch, WALL_NS - STEP_NS_MIN, 0)
    said = told(watch, WALL_NS - 3 * STEP_NS_MIN, SECOND_NS)
    assert said is not None
    assert "121 s" in said
    assert told(watch, WALL_NS, INVITE_VALID_NS) is not None


def test_a_step_either_way_is_told_for_a_while() -> None:
    watch = ClockWatch(WALL_NS, 0)
    watch.look(WALL_NS + TOLD_NS_MIN - 1, 0)
    assert watch.stepped_s(0) == 0
    watch.look(WALL_NS + 90 * SECOND_NS, 0)
    assert watch.stepped_s(INVITE_VALID_NS - 1) == 89
    watch.look(WALL_NS + 87 * SECOND_NS, 0)
    assert watch.stepped_s(1) == -3
    assert watch.stepped_s(INVITE_VALID_NS) == 0
