# SPDX-License-Identifier: Apache-2.0
"""A channel numbers, keeps what is not confirmed, and knows what it has taken."""

import pytest

from atoll.base.errors import LimitError
from atoll.env.channel import Channel, Parcel
from atoll.env.limits import UNCONFIRMED_MAX


def test_what_is_sent_is_kept_until_it_is_confirmed() -> None:
    channel = Channel()
    assert channel.unconfirmed == 0
    assert channel.send(2, b"x") == Parcel(1, 2, b"x")
    assert channel.send(1, b"y") == Parcel(3, 1, b"y")
    assert (channel.sent, channel.unconfirmed) == (3, 3)
    channel.confirm(0)
    channel.confirm(1)  # A part of a parcel: it stays whole.
    assert channel.unconfirmed == 3
    channel.confirm(2)
    assert channel.outbox == [Parcel(3, 1, b"y")]
    channel.confirm(1)  # Late, and harmless.
    channel.confirm(9)
    assert (channel.outbox, channel.unconfirmed, channel.sent) == ([], 0, 3)


def test_a_full_channel_says_so() -> None:
    channel = Channel()
    channel.send(UNCONFIRMED_MAX - 2, b"x")
    channel.room(1)
    with pytest.raises(LimitError, match="unconfirmed_max"):
        channel.room(2)


@pytest.mark.parametrize(
    ("received", "first", "count", "skip"),
    [(0, 1, 3, 0), (3, 1, 3, 3), (2, 1, 3, 2), (3, 4, 1, 0), (3, 5, 1, -1), (9, 1, 3, 3)],
)
def test_what_came_before_is_skipped_and_a_gap_is_seen(received: int, first: int, count: int, skip: int) -> None:
    assert Channel(received=received).news(first, count) == skip
