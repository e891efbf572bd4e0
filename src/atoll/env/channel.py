# SPDX-License-Identifier: Apache-2.0
"""What two parties still owe each other: items numbered from 1 each way, confirmed cumulatively, taken once.

Both halves of an environment's channels are part of its state. So an item leaves again after a crash or a move, and one
that comes twice is known by its number: delivery is at least once, and the effect exactly once.
"""

from typing import final

import msgspec

from atoll.base.errors import LimitError
from atoll.env.limits import UNCONFIRMED_MAX

__all__ = ["Channel", "Parcel"]


class Parcel(msgspec.Struct, frozen=True, array_like=True):
    """Items that were sent together.

    Attributes:
        first: Number of the first one.
        count: How many, at least 1.
        payload: An encoded list of items.
    """

    first: int
    count: int
    payload: bytes


@final
class Channel(msgspec.Struct, array_like=True):
    """State of one environment towards one party.

    Attributes:
        sent: Number of the last item that was sent.
        received: Number of the last item that was taken; the next is ``received + 1``.
        used: Number of the event at which the channel was last used.
        outbox: What the party has not confirmed yet, oldest first.
    """

    sent: int = 0
    received: int = 0
    used: int = 0
    outbox: list[Parcel] = msgspec.field(default_factory=list[Parcel])

    @property
    def unconfirmed(self) -> int:
        """How many items the party has not confirmed yet."""
        return self.sent - self.outbox[0].first + 1 if self.outbox else 0

    def room(self, pending: int) -> None:
        """Return if one more item may be sent beside ``pending`` ones that are about to be.

        Raises:
            LimitError: UNCONFIRMED_MAX are on their way; the sender is told, and nothing is lost silently.
        """
        if self.unconfirmed + pending >= UNCONFIRMED_MAX:
            raise LimitError("unconfirmed_max", UNCONFIRMED_MAX)

    def send(self, count: int, payload: bytes) -> Parcel:
        """Number some items that leave together, and keep them until they are confirmed."""
        parcel = Parcel(self.sent + 1, count, payload)
        self.sent += count
        self.outbox.append(parcel)
        return parcel

    def confirm(self, upto: int) -> None:
        """Forget what the party has. A parcel of which it has a part stays whole; an older number is harmless."""
        kept = 0
        for parcel in self.outbox:
            if parcel.first + parcel.count - 1 > upto:
                break
            kept += 1
        if kept:
            del self.outbox[:kept]

    def news(self, first: int, count: int) -> int:
        """Return how many of the ``count`` items from ``first`` on were taken before and are to be skipped; -1: a gap.

        A gap means that items before these have not come yet; the sender sends again from the first unconfirmed one.
        """
        taken = self.received + 1 - first
        if taken < 0:
            return -1
        return taken if taken < count else count  # noqa: FURB136 - asked with each record, and min() takes 0.1 us.
