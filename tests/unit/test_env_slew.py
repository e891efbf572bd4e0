# SPDX-License-Identifier: Apache-2.0
"""An environment's time never goes back, and never stands still."""

from atoll.base.units import HOUR_NS, SECOND_NS
from atoll.env.limits import SLEW_PARTS
from atoll.env.orders import Moment
from atoll.env.slew import SlewedClock


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
