# SPDX-License-Identifier: Apache-2.0
"""An environment's time never goes back, and never stands still."""

from atoll.base.units import HOUR_NS, SECOND_NS
from atoll.env.limits import DOUBT_NS, SLEW_PARTS
from atoll.env.orders import Moment
from atoll.env.slew import AGE_NS_MAX, SlewedClock


def test_it_is_the_clock_of_the_node_while_that_goes_on() -> None:
    clock = SlewedClock()
    assert clock.read(Moment(5, 100)) == 100
    assert clock.read(Moment(6, 1_000)) == 1_000
    assert clock.when(1_000) == 7


def test_it_goes_on_slower_while_the_clock_of_the_node_is_behind() -> None:
    clock = SlewedClock()
    clock.set(2 * HOUR_NS, Moment(0, 0))
    seen_ns = 0
    for second in range(1, 100):
        seen_ns = clock.read(Moment(second * SECOND_NS, second * SECOND_NS))
        assert 2 * HOUR_NS < seen_ns < 2 * HOUR_NS + second * SECOND_NS
    due_ns = seen_ns + SECOND_NS
    at_ns = clock.when(due_ns)
    assert at_ns > 100 * SECOND_NS
    assert clock.read(Moment(at_ns, 0)) >= due_ns
    assert clock.read(Moment(at_ns - 5, 0)) >= due_ns  # A monotonic clock that is read late changes nothing.
    assert SLEW_PARTS > 1


def test_it_says_how_old_something_is() -> None:
    clock = SlewedClock()
    clock.set(HOUR_NS, Moment(0, HOUR_NS - DOUBT_NS))
    assert clock.age(HOUR_NS, Moment(5, HOUR_NS + 9)) == 9 * SLEW_PARTS // (SLEW_PARTS - 1)
    assert clock.age(HOUR_NS + 9, Moment(5, HOUR_NS + 7)) == 0
    assert clock.age(-AGE_NS_MAX, Moment(5, HOUR_NS + 7)) == AGE_NS_MAX


def test_something_is_at_least_as_old_as_it_is_while_the_clock_goes_slower() -> None:
    clock = SlewedClock()
    clock.set(2 * HOUR_NS, Moment(0, 2 * HOUR_NS))
    clock.read(Moment(1, HOUR_NS))  # It is set an hour back.
    made_ns = clock.read(Moment(SECOND_NS, HOUR_NS))
    assert clock.age(made_ns, Moment(301 * SECOND_NS, HOUR_NS + 300 * SECOND_NS)) >= 300 * SECOND_NS - SLEW_PARTS


def test_nobody_knows_how_old_something_is_where_the_clock_is_far_behind() -> None:
    clock = SlewedClock()
    clock.set(HOUR_NS, Moment(0, HOUR_NS - DOUBT_NS - 1))
    assert clock.age(HOUR_NS, Moment(5, 7)) == AGE_NS_MAX
    assert clock.age(HOUR_NS + 1, Moment(5, 7)) < SECOND_NS
