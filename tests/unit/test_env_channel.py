# SPDX-License-Identifier: Apache-2.0
"""A channel numbers, keeps what is not confirmed, and knows what it has taken."""

import pytest

from atoll.base.errors import LimitError
from atoll.env.channel import Channel, Parcel
from atoll.env.limits import UNCONFIRMED_MAX


def test_what_is_sent_is_kept_until_it_is_confirmed() -> None:
    channel = Channel()
    assert channel.unconfirmed == 0
    assert channel.send(2, b"x", 7) == Parcel(1, 2, b"x", 7)
    assert channel.send(1, b"y", 8) == Parcel(3, 1, b"y", 8)
    assert (channel.sent, channel.unconfirmed) == (3, 3)
    channel.confirm(0)
    channel.confirm(1)  # A part of a parcel: it stays whole.
    assert channel.unconfirmed == 3
    channel.confirm(2)
    assert (channel.outbox, channel.settled) == ([Parcel(3, 1, b"y", 8)], 2)
    channel.confirm(1)  # Late, and harmless.
    channel.confirm(9)
    assert (channel.outbox, channel.unconfirmed, channel.sent) == ([], 0, 3)


def test_a_full_channel_says_so() -> None:
    channel = Channel()
    channel.send(UNCONFIRMED_MAX - 2, b"x", 0)
    channel.room(1)
    with pytest.raises(LimitError, match="unconfirmed_max"):
        channel.room(2)


@pytest.mark.parametrize(
    ("received", "first", "count", "skip"),
    [(0, 1, 3, 0), (3, 1, 3, 3), (2, 1, 3, 2), (3, 4, 1, 0), (9, 1, 3, 3)],
)
def test_what_came_before_is_skipped(received: int, first: int, count: int, skip: int) -> None:
    channel = Channel(received=received)
    assert channel.news(first, count) == skip
    assert channel.received == received


def test_it_goes_on_behind_what_is_settled() -> None:
    channel = Channel(received=3)
    assert channel.news(9, 2) == 0
    assert channel.received == 8


def test_what_a_party_may_have_taken_before_it_forgot_us_is_given_up() -> None:
    channel = Channel(sent=6)
    assert channel.settled == 6
    for at, count in enumerate((3, 1, 2)):
        channel.send(count, b"x", at)
    assert channel.settled == 6
    assert channel.give_up(6) == 0
    assert channel.give_up(8) == 3, "a parcel is given up whole"
    assert (channel.settled, channel.unconfirmed) == (9, 3)
    assert channel.give_up(99) == 3
    assert (channel.settled, channel.sent) == (12, 12)
