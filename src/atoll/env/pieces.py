# SPDX-License-Identifier: Apache-2.0
"""Items that came together, and in which pieces an environment is given them: all at once, unless one of them fails.

A runner takes everything up to the first item that fails, that one included, so what is left is the next piece. Of
some failures it is not known which item it was, because whoever ran them is gone or all of them together took too long:
of those nothing is taken, and then they are given one by one. Between two pieces there may be a block, and others may
have their turn: where items were cut is seen from their records.
"""

from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError
from atoll.env.records import Arrived, Record
from atoll.env.runner import Runner

__all__ = ["Pieces", "take_all"]

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


@final
class Pieces:
    """Items of one party. ``next`` is what to give, and ``took`` says what came of it; in turns.

    Args:
        party: Who sent them.
        first: Number of the first one.
        count: How many; at least 1.
        items: Encoded list of them.
        is_single: Whether they are given one by one from the beginning.

    Attributes:
        party: As above.
        first: As above.
        last: Number of the last one.
    """

    __slots__ = ("_at", "_count", "_is_single", "_items", "_split", "first", "last", "party")

    def __init__(self, party: bytes, first: int, count: int, items: bytes, *, is_single: bool = False) -> None:
        self.party, self.first, self.last = party, first, first + count - 1
        self._items, self._is_single = items, is_single
        self._split: list[msgspec.Raw] | None = None  # Nearly all are taken at once, and need not be.
        self._at = first  # Number of the first item of the next piece.
        self._count = 0  # Items of the piece of which it is not known yet what came of it.

    def next(self) -> tuple[Arrived, int]:
        """Return what to give now, and how many items that is."""
        assert not self._count, "what came of the last piece is not known"
        at, left = self._at - self.first, self.last + 1 - self._at
        self._count = 1 if self._is_single else left
        if not at and self._count == left:
            return Arrived(self.party, self._at, msgspec.Raw(self._items)), self._count
        if self._split is None:
            self._split = _decode(self._items)
        return Arrived(self.party, self._at, msgspec.Raw(_encode(self._split[at : at + self._count]))), self._count

    def took(self, received: int) -> bool:
        """Note the number of the last item that was taken; return whether that were all. Twice is harmless.

        Raises:
            CorruptError: One that was given alone was not taken.
        """
        count, self._count = self._count, 0
        if received >= self._at:
            self._at = received + 1
        elif count > 1:
            self._is_single = True  # Which of them it was is seen when they come one by one.
        elif count:
            raise CorruptError("an item that was given alone is neither taken nor has it failed")
        return self._at > self.last


def take_all(runner: Runner, record: Record, now_ns: int) -> None:
    """Apply a record, however many of its items fail: for whoever has nobody else to serve, and runs handlers here.

    Args:
        runner: What runs.
        record: As of ``Runner.take``.
        now_ns: Time, ns since 1970.

    Raises:
        UserError: As ``Runner.take``.
        CorruptError: As ``Runner.take``.
    """
    if not isinstance(record, Arrived):
        runner.take(record, now_ns)
        return
    pieces = Pieces(record.party, record.first, len(_decode(record.items)), bytes(record.items))
    is_done = False
    while not is_done:
        runner.take(pieces.next()[0], now_ns)
        is_done = pieces.took(runner.environment.received(record.party))
