# SPDX-License-Identifier: Apache-2.0
"""Decides which consumer gets the next record: one that is ready, by chance. The distributed queue of River.

Each consumer has *credits*: how many records it may hold unfinished. A record goes to one of those that have credit,
drawn at random; finishing a record gives the credit back. So each gets work at the rate at which it finishes work, and
nobody measures, announces or agrees on anything.

Source: Arpaci-Dusseau et al., Cluster I/O with River, IOPADS 1999, section 3.1.
"""

from typing import Final, Generic, TypeVar, final

from atoll.base.errors import UsageError
from atoll.core.entropy import Draws

__all__ = ["Credits"]

Consumer = TypeVar("Consumer")


@final
class Credits(Generic[Consumer]):
    """Credits of all consumers.

    Args:
        each: Records that one may hold, at least 1. 2 keeps one busy while its next record is on the way.
        draws: Randomness.
    """

    def __init__(self, each: int, draws: Draws) -> None:
        if each < 1:
            raise UsageError(f"{each} credits")
        self._each, self._draws = each, draws
        self._held: Final[dict[Consumer, int]] = {}
        self._ready: Final[list[Consumer]] = []  # One entry for each that has credit.

    @property
    def is_ready(self) -> bool:
        """Whether anybody has credit."""
        return bool(self._ready)

    def join(self, consumer: Consumer) -> None:
        """Let one more consume.

        Raises:
            UsageError: It does already.
        """
        if consumer in self._held:
            raise UsageError(f"{consumer} consumes already")
        self._held[consumer] = 0
        self._ready.append(consumer)

    def leave(self, consumer: Consumer) -> None:
        """Take a consumer out; what it holds is its owner's to give out again."""
        if self._held.pop(consumer, self._each) < self._each:
            self._ready.remove(consumer)

    def take(self) -> Consumer | None:
        """Return who gets the next record; None: nobody is ready."""
        if not self._ready:
            return None
        at = self._draws.below(len(self._ready))
        chosen = self._ready[at]
        self._held[chosen] += 1
        if self._held[chosen] == self._each:
            self._ready[at] = self._ready[-1]
            self._ready.pop()
        return chosen

    def finished(self, consumer: Consumer) -> None:
        """Give a credit back: a record is finished.

        Raises:
            UsageError: The consumer holds none.
        """
        held = self._held.get(consumer, 0)
        if not held:
            raise UsageError(f"{consumer} holds no record")
        self._held[consumer] = held - 1
        if held == self._each:
            self._ready.append(consumer)
