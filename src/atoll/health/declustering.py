# SPDX-License-Identifier: Apache-2.0
"""Decides which reader a disk serves next, when every piece of data is on two disks and each disk serves two readers.

*Graduated declustering*: segment i is on disk i and on disk i+1, in a ring. Reader i takes part of its segment from
each. A disk gives its next block to whichever of its two readers has come less far. So when a disk slows down its
readers take more from their other disks, whose other readers take more from theirs, and the loss is spread over all:
with one disk of N at rate b and the others at B, every reader gets ((N-1) B + b) / N. A disk that takes turns
(``is_graduated`` false: plain mirroring) leaves the slow disk's readers with (B + b) / 2.

Nothing is measured, and no disk knows another: a reader's progress is all that is told.

Source: Arpaci-Dusseau et al., Cluster I/O with River, IOPADS 1999, section 3.2.
"""

from typing import Final, final

__all__ = ["Declustering"]


@final
class Declustering:
    """Who reads what from where, for one job over N segments on N disks.

    Args:
        blocks: Of each segment.
        ahead: How many blocks of a reader may be under way, or arrived out of order, at a time.
        is_graduated: False: disks take turns.
    """

    def __init__(self, blocks: int, segments: int, ahead: int, *, is_graduated: bool = True) -> None:
        self._blocks, self._ahead, self._is_graduated = blocks, ahead, is_graduated
        self._next: Final = [0] * segments  # Block that is asked for next.
        self._taken: Final = [0] * segments  # Blocks that the reader has taken, in order.
        self._again: Final[list[list[int]]] = [[] for _ in range(segments)]  # Blocks whose disk failed.
        self._turn: Final = [0] * segments

    def disks_of(self, segment: int) -> tuple[int, int]:
        """Return the disks that hold a segment."""
        return segment, (segment + 1) % len(self._next)

    def next_for(self, disk: int) -> tuple[int, int] | None:
        """Return (segment, block) that a disk is to read now; None: nothing until a reader has taken a block."""
        readers = [segment for segment in ((disk - 1) % len(self._next), disk) if self._is_waiting(segment)]
        if not readers:
            return None
        if self._is_graduated:
            chosen = min(readers, key=lambda segment: self._next[segment])
        else:
            chosen = readers[self._turn[disk] % len(readers)]
            self._turn[disk] += 1
        if self._again[chosen]:
            return chosen, self._again[chosen].pop()
        self._next[chosen] += 1
        return chosen, self._next[chosen] - 1

    def _is_waiting(self, segment: int) -> bool:
        if self._again[segment]:
            return True
        following = self._next[segment]
        return following < self._blocks and following < self._taken[segment] + self._ahead

    def took(self, segment: int) -> None:
        """Note that a reader has taken its next block, in order."""
        self._taken[segment] += 1

    def failed(self, segment: int, block: int) -> None:
        """Note that a disk did not deliver a block; the segment's other disk is to."""
        self._again[segment].append(block)

    def is_over(self, segment: int) -> bool:
        """Return whether a reader has taken all of its segment."""
        return self._taken[segment] >= self._blocks
