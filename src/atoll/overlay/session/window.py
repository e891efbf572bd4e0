# SPDX-License-Identifier: Apache-2.0
"""Which counters of one keypair have come: refuses replays, and counts what is missing.

Theory: a ring of 64-bit words, as in RFC 6479. Moving forward clears whole words instead of shifting bits, so a packet
costs a few integer operations whatever it skips. One word is always partly cleared, hence the usable window is
WINDOW_BITS - 64 counters behind the highest one.
"""

from typing import Final, final

from atoll.overlay.session.protocol import WINDOW_BITS

__all__ = ["USABLE_BITS", "Window"]

_WORDS: Final = WINDOW_BITS // 64
_MASK: Final = _WORDS - 1
USABLE_BITS: Final = WINDOW_BITS - 64
_WORD: Final = (1 << 64) - 1


@final
class Window:
    """Replay window over counters 0 to 2^64 - 1.

    Call ``seen`` before the (dearer) authentication and ``mark`` after it succeeded; never ``mark`` a counter for
    which ``seen`` is true.

    Attributes:
        highest: The highest counter marked; -1: none yet.
        received: How many counters were marked.
    """

    __slots__ = ("_words", "highest", "received")

    def __init__(self) -> None:
        self.highest = -1
        self.received = 0
        self._words = [0] * _WORDS

    def seen(self, counter: int) -> bool:
        """Return whether the counter was marked, or is too old to tell."""
        behind = self.highest - counter
        if behind < 0:
            return False
        return behind >= USABLE_BITS or (self._words[(counter >> 6) & _MASK] >> (counter & 63)) & 1 == 1

    def mark_run(self, first: int, count: int) -> None:
        """Note that authentic packets with consecutive counters came, at most WINDOW_BITS - 64 of them.

        Args:
            first: Counter of the first; above ``highest``.
            count: How many; at least 1.
        """
        words, last = self._words, first + count - 1
        top, end = self.highest >> 6, last >> 6
        for step in range(1, min(end - top, _WORDS) + 1):
            words[(top + step) & _MASK] = 0
        bits = (1 << count) - 1 << (first & 63)
        word = first >> 6
        while bits:
            words[word & _MASK] |= bits & _WORD
            bits >>= 64
            word += 1
        self.received += count
        self.highest = last

    def mark(self, counter: int) -> int:
        """Note that an authentic packet came.

        Returns:
            Change of the number of missing counters: those skipped by a new highest one, or -1 for a late arrival.
        """
        highest, words, word = self.highest, self._words, counter >> 6
        self.received += 1
        if counter > highest:
            gap = counter - highest - 1
            top = highest >> 6
            for step in range(1, min(word - top, _WORDS) + 1):
                words[(top + step) & _MASK] = 0
            self.highest = counter
        else:
            gap = -1
        words[word & _MASK] |= 1 << (counter & 63)
        return gap
