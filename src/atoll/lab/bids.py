# SPDX-License-Identifier: Apache-2.0
"""The application that the demo keeps running: one lot, and bids that are numbered by who makes them.

As a person writes one; ``lab/keeping.py`` runs it as ``atoll run`` would. It keeps accounts that show what was lost or
done twice: each bidder counts its bids, and each bid that is taken gets a place in the one history of the lot.
"""

from hashlib import sha256

import atoll

__all__ = ["Bid", "Books", "Look", "Lot", "Taken"]

BIDDERS_MAX = 64  # State stays in memory and goes with each move, so whatever grows has a bound.


class Bid(atoll.Tuple):
    """Offer money. Gives ``Taken``, or a failure: full.

    Attributes:
        who: Who bids.
        number: Counts the bids of this bidder, from 1.
        amount: How much.
    """

    who: str
    number: int
    amount: int


class Taken(atoll.Tuple):
    """A bid was taken.

    Attributes:
        number: Of the bid.
        place: Which bid of all it is, from 1. No two bids of one history have the same.
        best: The best amount so far.
    """

    number: int
    place: int
    best: int


class Look(atoll.Tuple):
    """Ask for the accounts. Gives ``Books``."""


class Books(atoll.Tuple):
    """The accounts.

    Attributes:
        last: Number of the last bid of each bidder.
        bids: How many were taken.
        doubled: Bids that came once more.
        missed: Bids that are missing before one that came.
    """

    last: dict[str, int]
    bids: int
    doubled: int
    missed: int


class Lot(atoll.App):
    """The lot. These fields are its state. ``digest`` chains all bids in their order."""

    best: int = 0
    winner: str = ""
    bids: int = 0
    last: dict[str, int] = {}  # noqa: RUF012 - each App gets a copy of its defaults.
    doubled: int = 0
    missed: int = 0
    digest: str = ""
    ran_on: list[str] = []  # noqa: RUF012 - as above.

    @atoll.on(Bid)
    def bid(self, bid: Bid, _: atoll.Context) -> atoll.Tuple:
        """Take a bid, once."""
        if bid.who not in self.last and len(self.last) >= BIDDERS_MAX:
            return atoll.Failure("full", f"{BIDDERS_MAX} bid already")
        before = self.last.get(bid.who, 0)
        if bid.number <= before:
            self.doubled += 1
            return Taken(bid.number, 0, self.best)
        self.missed += bid.number - before - 1
        self.last[bid.who] = bid.number
        self.bids += 1
        if bid.amount > self.best:
            self.best, self.winner = bid.amount, bid.who
        line = f"{self.digest} {bid.who} {bid.number} {bid.amount}"
        self.digest = sha256(line.encode()).hexdigest()
        return Taken(bid.number, self.bids, self.best)

    @atoll.on(Look)
    def look(self, _: Look, ctx: atoll.Context) -> Books:
        """Show the accounts."""
        del ctx
        return Books(dict(self.last), self.bids, self.doubled, self.missed)

    @atoll.on(atoll.Moved, atoll.Restored)
    def changed(self, change: atoll.Moved | atoll.Restored, _: atoll.Context) -> None:
        """Note where it runs now."""
        self.ran_on = [*self.ran_on[-15:], change.node]
