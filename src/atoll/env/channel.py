# SPDX-License-Identifier: Apache-2.0
"""What two parties still owe each other: items numbered from 1 each way, confirmed cumulatively, taken once.

Both halves of an environment's channels are part of its state. So an item leaves again after a crash or a move, and one
that comes twice is known by its number: delivery is at least once, and the effect exactly once.

An environment that has no room forgets parties. No number is used twice all the same: what is sent to somebody who is
known anew is numbered behind everything that was sent to anybody who was forgotten.
"""

from typing import final

import msgspec

from atoll.base.errors import LimitError
from atoll.env.limits import PARTY_KEPT_NS, PARTY_SILENT_NS, UNCONFIRMED_MAX

__all__ = ["Channel", "Parcel"]


class Parcel(msgspec.Struct, frozen=True, array_like=True):
    """Items that were sent together.

    Attributes:
        first: Number of the first one.
        count: How many, at least 1.
        payload: An encoded list of items.
        made_ns: When they were made.
    """

    first: int
    count: int
    payload: bytes
    made_ns: int = 0


@final
class Channel(msgspec.Struct, array_like=True):
    """State of one environment towards one party.

    Attributes:
        sent: Number of the last item that was sent.
        received: Number of the last item that was taken; the next is ``received + 1``.
        heard_ns: How long the environment had lived when the party was last heard of.
        outbox: What the party has not confirmed yet, oldest first.
    """

    sent: int = 0
    received: int = 0
    heard_ns: int = 0
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

    @property
    def settled(self) -> int:
        """Number of the last item of which the party has everything up to there, or will never get it."""
        return self.outbox[0].first - 1 if self.outbox else self.sent

    def send(self, count: int, payload: bytes, now_ns: int) -> Parcel:
        """Number some items that leave together, and keep them until they are confirmed."""
        parcel = Parcel(self.sent + 1, count, payload, now_ns)
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

    def may_go(self, lived_ns: int) -> bool:
        """Return whether the party was silent for so long that it may be forgotten, with what is owed to it if need be.

        Args:
            lived_ns: How long the environment has lived.
        """
        return self.heard_ns <= lived_ns - (PARTY_SILENT_NS if self.outbox else PARTY_KEPT_NS)

    def give_up(self, upto: int) -> int:
        """Forget parcels that begin up to a number: the party has forgotten us, and may have taken them before.

        Returns:
            How many items that were.
        """
        before = self.unconfirmed
        while self.outbox and self.outbox[0].first <= upto:
            del self.outbox[0]
        return before - self.unconfirmed

    def news(self, first: int, count: int) -> int:
        """Return how many of the ``count`` items from ``first`` on were taken before and are to be skipped.

        Whoever lets items in has seen to it that none before them is missing. So if they are not the next ones, one of
        both sides has forgotten the other meanwhile, and the channel goes on from here.
        """
        taken = self.received + 1 - first
        if taken < 0:
            self.received, taken = first - 1, 0
        return taken if taken < count else count  # noqa: FURB136 - asked with each record, and min() takes 0.1 us.
