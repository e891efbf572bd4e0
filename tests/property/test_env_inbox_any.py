# SPDX-License-Identifier: Apache-2.0
"""What a party says may come in any parts and order, again and again: it waits once, whole and in order."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.env.environment import Environment
from atoll.env.inbox import Inbox
from atoll.env.messages import Carried, Receipt
from tests.unit.steward_world import ANN, PROGRAM, Add, items

ME = b"me".ljust(16)
LAST = 12
parts = st.tuples(st.integers(1, LAST), st.integers(1, LAST)).map(sorted)


@given(st.lists(parts, max_size=20), st.integers(0, 3))
def test_items_wait_once_and_in_order_however_they_are_cut(came: list[list[int]], pops: int) -> None:
    inbox, environment = Inbox(ME, "one"), Environment.blank(PROGRAM)
    waited: list[int] = []

    def take() -> None:
        frame = inbox.pop()
        assert frame.items == items(*(Add(number) for number in range(frame.first, frame.first + frame.count)))
        waited.extend(range(frame.first, frame.first + frame.count))

    for first, last in (*came, [1, LAST]):
        message = Carried(ANN, ME, first, items(*(Add(number) for number in range(first, last + 1))))
        said = inbox.put(message, environment, 0, is_disk_full=False)
        assert said is None or (isinstance(said, Receipt) and first > 1)
        for _ in range(pops):
            if inbox:
                take()
    while inbox:
        take()
    assert waited == [*range(1, LAST + 1)]
