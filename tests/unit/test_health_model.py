# SPDX-License-Identifier: Apache-2.0
"""The model's states, one by one; and that nothing flaps, and silence is neither."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from atoll.base.units import MINUTE_NS, SECOND_NS
from atoll.health.model import TRANSITIONS, Condition, Sign, State, Terms, advance

TERMS = Terms(persist_ns=5 * SECOND_NS, recover_ns=MINUTE_NS)
Step = tuple[Sign, float]


def after(*steps: Step, terms: Terms = TERMS) -> Condition:
    """Return the condition after signs at these seconds."""
    condition = Condition()
    for sign, at_s in steps:
        condition = advance(condition, sign, terms, int(at_s * SECOND_NS))
    return condition


def each_second(sign: Sign, begin_s: int, end_s: int) -> list[Step]:
    return [(sign, at_s) for at_s in range(begin_s, end_s)]


WITHIN, OUTSIDE, BELOW, NOTHING = Sign.WITHIN, Sign.OUTSIDE, Sign.BELOW, Sign.NOTHING


def test_who_never_reports_stays_unknown() -> None:
    assert after((NOTHING, 1), (NOTHING, 1000)).state is State.UNKNOWN


def test_one_late_answer_is_a_stutter_that_is_not_told() -> None:
    condition = after((WITHIN, 0), (OUTSIDE, 1))
    assert condition.state is State.STUTTER
    assert not condition.is_told
    assert after((WITHIN, 0), (OUTSIDE, 1), (WITHIN, 2)).state is State.OK


def test_what_lasts_is_slow_since_its_onset() -> None:
    below = each_second(BELOW, 3, 8)
    assert after((WITHIN, 0), *below).state is State.STUTTER
    condition = after((WITHIN, 0), *below, (BELOW, 8))
    assert (condition.state, condition.since_ns) == (State.SLOW, 3 * SECOND_NS)
    assert condition.is_told


def test_a_fault_that_comes_and_goes_is_told_and_later() -> None:
    flapping = [(BELOW if at_s // 2 % 2 else WITHIN, at_s) for at_s in range(60)]
    told = [count for count in range(60) if after(*flapping[:count]).is_told]
    assert 10 < told[0] < 25
    rarer = [(WITHIN if at_s % 4 else BELOW, at_s) for at_s in range(600)]
    assert not after(*rarer).is_told


def test_only_a_minute_without_a_break_is_a_recovery() -> None:
    slow = each_second(BELOW, 0, 10)
    assert after(*slow, *each_second(WITHIN, 10, 70)).state is State.SLOW
    assert after(*slow, *each_second(WITHIN, 10, 71)).state is State.OK
    broken = [*each_second(WITHIN, 10, 60), (OUTSIDE, 60), *each_second(WITHIN, 61, 100)]
    assert after(*slow, *broken).state is State.SLOW


def test_silence_changes_nothing() -> None:
    slow = each_second(BELOW, 0, 10)
    assert after(*slow, (NOTHING, 10_000)).state is State.SLOW
    assert after((WITHIN, 0), (NOTHING, 10_000)).state is State.OK


def test_slow_is_promoted_only_where_policy_says_so() -> None:
    slow = each_second(BELOW, 0, 5000)
    assert after(*slow).state is State.SLOW
    promoting = Terms(persist_ns=SECOND_NS, recover_ns=MINUTE_NS, promote_ns=100 * SECOND_NS)
    assert after(*slow[:100], terms=promoting).state is State.SLOW
    condition = after(*slow[:101], terms=promoting)
    assert (condition.state, condition.since_ns) == (State.FAILED, 0)
    assert after(*slow[:101], *each_second(WITHIN, 101, 162), terms=promoting).state is State.OK


def test_a_clock_that_goes_back_stands_still() -> None:
    assert after((WITHIN, 100), (BELOW, 100), (BELOW, 3)).at_ns == 100 * SECOND_NS


@given(st.lists(st.tuples(st.sampled_from(Sign), st.integers(0, 30 * SECOND_NS)), max_size=60))
def test_tellings_are_at_least_persist_or_recover_apart(steps: list[tuple[Sign, int]]) -> None:
    condition, now_ns, told = Condition(), 0, list[int]()
    for sign, wait_ns in steps:
        now_ns += wait_ns
        before, condition = condition, advance(condition, sign, TERMS, now_ns)
        if condition.is_told != before.is_told:
            told.append(now_ns)
    assert all(later - earlier >= TERMS.persist_ns for earlier, later in pairwise(told))


def test_each_state_and_sign_has_one_row() -> None:
    rows = [(row.before, sign) for row in TRANSITIONS for sign in row.signs]
    assert len(rows) == len(set(rows))
    assert {row.after for row in TRANSITIONS} | {State.UNKNOWN} == set(State)
