# SPDX-License-Identifier: Apache-2.0
"""A clock that was set back is told, with its code, for as long as it matters."""

from atoll.base.units import SECOND_NS
from atoll.group.limits import INVITE_VALID_NS
from atoll.node.clockwatch import STEP_NS_MIN, ClockWatch

WALL_NS = 1_800_000_000 * SECOND_NS


def test_a_clock_that_runs_or_leaps_ahead_is_no_news() -> None:
    watch = ClockWatch(WALL_NS, 5)
    assert watch.warning(WALL_NS + SECOND_NS, 5 + SECOND_NS) is None
    assert watch.warning(WALL_NS + 10**6 * SECOND_NS, 6 + SECOND_NS) is None
    assert watch.warning(WALL_NS + 10**6 * SECOND_NS - STEP_NS_MIN + 2, 7 + SECOND_NS) is None


def test_a_step_back_is_told_until_no_invitation_of_before_is_open() -> None:
    watch = ClockWatch(WALL_NS, 0)
    back_ns = WALL_NS - 3600 * SECOND_NS
    told = watch.warning(back_ns, 0)
    assert told is not None
    assert told.startswith("A107: the clock was set back by 3600 s")
    assert watch.warning(back_ns + INVITE_VALID_NS - 1, INVITE_VALID_NS - 1) == told
    assert watch.warning(back_ns + INVITE_VALID_NS, INVITE_VALID_NS) is None


def test_a_second_step_begins_anew() -> None:
    watch = ClockWatch(WALL_NS, 0)
    watch.warning(WALL_NS - STEP_NS_MIN, 0)
    told = watch.warning(WALL_NS - 3 * STEP_NS_MIN, SECOND_NS)
    assert told is not None
    assert "121 s" in told
    assert watch.warning(WALL_NS, INVITE_VALID_NS) is not None
