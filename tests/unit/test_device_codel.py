# SPDX-License-Identifier: Apache-2.0
"""The control law of RFC 8289."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.device.nic.codel import INTERVAL_NS, TARGET_NS, CoDel

STEP_NS = MILLISECOND_NS
INTERVAL_STEPS = INTERVAL_NS // STEP_NS


def drops(codel: CoDel, sojourn_ns: int, begin_ns: int, steps: int) -> list[int]:
    times = range(begin_ns, begin_ns + steps * STEP_NS, STEP_NS)
    return [now_ns for now_ns in times if codel.drops(sojourn_ns, now_ns)]


def test_a_queue_below_the_target_loses_nothing() -> None:
    assert not drops(CoDel(), TARGET_NS - 1, SECOND_NS, 10_000)


def test_a_queue_that_stands_for_an_interval_is_told_of_ever_more_often() -> None:
    told = drops(CoDel(), TARGET_NS, SECOND_NS, 20 * INTERVAL_STEPS)
    assert told[0] == SECOND_NS + INTERVAL_NS
    gaps = [after - before for before, after in pairwise(told)]
    assert gaps[0] == INTERVAL_NS
    assert all(after <= before + STEP_NS for before, after in pairwise(gaps))  # In whole steps.
    assert gaps[-1] < INTERVAL_NS // 3


def test_a_moment_without_a_queue_ends_it() -> None:
    codel = CoDel()
    assert drops(codel, TARGET_NS, SECOND_NS, INTERVAL_STEPS + 1)
    again_ns = SECOND_NS + (INTERVAL_STEPS + 1) * STEP_NS
    assert not codel.drops(0, again_ns)
    assert not drops(codel, TARGET_NS, again_ns + STEP_NS, INTERVAL_STEPS)


def test_who_was_dropping_a_moment_ago_goes_on_at_the_rate_that_was_found() -> None:
    gaps: list[int] = []
    for pause_ns in (STEP_NS, 20 * INTERVAL_NS):
        codel = CoDel()
        end_ns = drops(codel, TARGET_NS, SECOND_NS, 20 * INTERVAL_STEPS)[-1]
        codel.drops(0, end_ns + STEP_NS)
        told = drops(codel, TARGET_NS, end_ns + STEP_NS + pause_ns, 4 * INTERVAL_STEPS)
        gaps.append(told[1] - told[0])
    assert gaps[0] < gaps[1] == INTERVAL_NS


@given(st.lists(st.tuples(st.integers(0, 100 * MILLISECOND_NS), st.integers(0, SECOND_NS)), max_size=200))
def test_whatever_comes_only_what_waited_too_long_is_told_of(waits: list[tuple[int, int]]) -> None:
    codel, now_ns = CoDel(), SECOND_NS
    for sojourn_ns, passed_ns in waits:
        now_ns += passed_ns
        if codel.drops(sojourn_ns, now_ns):
            assert sojourn_ns >= TARGET_NS
