# SPDX-License-Identifier: Apache-2.0
"""The control law, and that it holds a queue of a simulated sender."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.device.nic.codel import CEILING_NS, INTERVAL_NS, TARGET_NS, CoDel

STEP_NS = MILLISECOND_NS


def drops(codel: CoDel, sojourn_ns: int, begin_ns: int, steps: int) -> list[int]:
    times = range(begin_ns, begin_ns + steps * STEP_NS, STEP_NS)
    return [now_ns for now_ns in times if codel.drops(sojourn_ns, now_ns)]


def test_a_queue_below_the_target_loses_nothing() -> None:
    assert not drops(CoDel(), TARGET_NS - 1, SECOND_NS, 10_000)


def test_a_queue_that_stands_for_an_interval_is_told_of_ever_more_often() -> None:
    told = drops(CoDel(), TARGET_NS, SECOND_NS, 1_000)
    assert told[0] == SECOND_NS + INTERVAL_NS
    gaps = [after - before for before, after in pairwise(told)]
    assert gaps[0] == INTERVAL_NS
    assert all(after <= before + STEP_NS for before, after in pairwise(gaps))  # In whole steps.
    assert gaps[-1] < INTERVAL_NS // 3


def test_a_queue_that_is_much_too_long_is_told_of_at_once() -> None:
    assert drops(CoDel(), CEILING_NS, SECOND_NS, 1) == [SECOND_NS]


def test_a_moment_without_a_queue_ends_it() -> None:
    codel = CoDel()
    assert drops(codel, TARGET_NS, SECOND_NS, 60)
    assert not codel.drops(0, SECOND_NS + 60 * STEP_NS)
    assert not drops(codel, TARGET_NS, SECOND_NS + 61 * STEP_NS, 49)


def test_who_was_dropping_a_moment_ago_goes_on_at_the_rate_that_was_found() -> None:
    codel = CoDel()
    first = drops(codel, TARGET_NS, SECOND_NS, 1_000)
    codel.drops(0, 2 * SECOND_NS)
    again = drops(codel, TARGET_NS, 2 * SECOND_NS + STEP_NS, 200)
    assert again[1] - again[0] < first[1] - first[0]
    later = CoDel()
    drops(later, TARGET_NS, SECOND_NS, 1_000)
    later.drops(0, 2 * SECOND_NS)
    late = drops(later, TARGET_NS, 10 * SECOND_NS, 200)
    assert late[1] - late[0] == INTERVAL_NS


@given(st.lists(st.tuples(st.integers(0, 100 * MILLISECOND_NS), st.integers(0, SECOND_NS)), max_size=200))
def test_whatever_comes_no_two_drops_are_nearer_than_the_law_allows(waits: list[tuple[int, int]]) -> None:
    codel, now_ns, told = CoDel(), SECOND_NS, 0
    for sojourn_ns, passed_ns in waits:
        now_ns += passed_ns
        if codel.drops(sojourn_ns, now_ns):
            assert sojourn_ns >= TARGET_NS
            told += 1
    assert told <= len(waits)
