# SPDX-License-Identifier: Apache-2.0
"""Reading a job's data, every piece of which is on two disks, at the rate of all disks together.

The decisions are ``health/declustering.py``; here are the threads, one for each disk, which reads whatever it is to
read next, and the readers' buffers, which put the blocks in order.

Source: Arpaci-Dusseau et al., Cluster I/O with River, IOPADS 1999.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self, final

from atoll.base.errors import StorageError, UsageError
from atoll.health.declustering import Declustering

__all__ = ["GraduatedReader", "ReadBlock"]

AHEAD: Final = 32  # Limit. Blocks of each reader under way or waiting for an earlier one.
DISKS_MAX: Final = 256

ReadBlock = Callable[[int, int], bytes]  # (segment, block) to its content; raises OSError.


@final
class GraduatedReader:
    """Reads N segments of equal length from N disks. Use as a context manager; each segment has one reader.

    Args:
        disks: For each disk what reads a block of one of its two segments: i holds segments i-1 and i, in a ring.
        blocks: Of each segment.
        ahead: Blocks that a reader may hold or have under way. Blocks are read in order, so a disk that is slower than
            the others by more than this factor holds its readers up.
        is_graduated: False: plain mirroring, for comparison.
    """

    def __init__(
        self, disks: Sequence[ReadBlock], blocks: int, *, ahead: int = AHEAD, is_graduated: bool = True
    ) -> None:
        if not 2 <= len(disks) <= DISKS_MAX or blocks < 1 or ahead < 1:
            raise UsageError(f"{len(disks)} disks, {blocks} blocks, {ahead} ahead")
        self._shares: Final = Declustering(blocks, len(disks), ahead, is_graduated=is_graduated)
        self._state: Final = threading.Condition()
        self._arrived: Final[list[dict[int, bytes]]] = [{} for _ in disks]
        self._living: Final = [True] * len(disks)
        self._ending = False
        self._blocks: Final = blocks
        self._threads: Final = [
            threading.Thread(target=self._serve, args=(number, read), name="atoll-disk")
            for number, read in enumerate(disks)
        ]

    def __enter__(self) -> Self:
        """Begin to read."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; waits for the reads that are under way."""
        with self._state:
            self._ending = True
            self._state.notify_all()
        for thread in self._threads:
            thread.join()

    def segment(self, number: int) -> Iterator[bytes]:
        """Yield the blocks of a segment in order.

        Raises:
            StorageError: Both of its disks failed.
        """
        arrived = self._arrived[number]
        for block in range(self._blocks):
            with self._state:
                self._state.wait_for(lambda: block in arrived or self._ending or self._is_lost(number))  # noqa: B023
                if block not in arrived:
                    raise StorageError(f"segment {number}: block {block} can be read from neither disk")
                found = arrived.pop(block)
                self._shares.took(number)
                self._state.notify_all()
            yield found

    def _is_lost(self, segment: int) -> bool:
        return not any(self._living[disk] for disk in self._shares.disks_of(segment))

    def _serve(self, disk: int, read: ReadBlock) -> None:
        while True:
            with self._state:
                asked: tuple[int, int] | None = None
                while not self._ending and (asked := self._shares.next_for(disk)) is None:
                    self._state.wait()
                if asked is None:
                    return
            segment, block = asked
            try:
                found = read(segment, block)
            except OSError:
                with self._state:
                    self._living[disk] = False
                    self._shares.failed(segment, block)
                    self._state.notify_all()
                return
            with self._state:
                self._arrived[segment][block] = found
                self._state.notify_all()
