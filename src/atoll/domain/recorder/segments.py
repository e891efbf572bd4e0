# SPDX-License-Identifier: Apache-2.0
"""One segment file of a journal: what it begins with, and where in it a block is.

A few places are remembered for each file, so that a read from the middle passes over INDEX_STEP_BYTES at most. They are
found while something is read for the first time; what was appended since comes in by ``grow``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from atoll.base.errors import CorruptError
from atoll.domain.limits import INDEX_STEP_BYTES
from atoll.domain.recorder.disk import read_at
from atoll.env.chain import Frame, Manifest, Position, Sealed, Sealer, TornTail, read, read_frames
from atoll.env.limits import BLOCK_FRAME_BYTES_MAX

__all__ = ["Mark", "Segment", "open_segment"]

MANIFEST_BYTES_MAX: Final = 4096  # Limit. Of what a file begins with; a manifest is below 1 KiB.
READ_BYTES: Final = 1024 * 1024  # Read at a time; a frame that does not fit is read alone.
FRAME_HEAD_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Mark:
    """A place between two frames.

    Attributes:
        number: Of the next block.
        offset: Where its frame begins, or that of a sealer before it.
        sealer: Who sealed it, unless a sealer stands before it.
    """

    number: int
    offset: int
    sealer: Sealer


@final
@dataclass(slots=True)
class Segment:
    """One file.

    Attributes:
        path: Of the file.
        manifest: What it begins with.
        begin: Where its manifest ends.
        size: Bytes of it that are sealed; what is behind them does not count.
        marks: Places that are known, rising; at least the one behind the manifest.
    """

    path: Path
    manifest: Manifest
    begin: int
    size: int
    marks: list[Mark] = field(default_factory=list[Mark])

    def __post_init__(self) -> None:
        self.marks.append(Mark(self.manifest.at.number + 1, self.begin, self.manifest.sealer))

    @property
    def first(self) -> int:
        """Number of the first block that is in it or will be."""
        return self.manifest.at.number + 1

    def walk(self, number: int) -> Iterator[tuple[Sealer, Sealed, Frame]]:
        """Read from a block on: who sealed it, what it is, where it is.

        Raises:
            OSError: The file cannot be read.
            CorruptError: It is not what was written.
        """
        mark = next(mark for mark in reversed(self.marks) if mark.number <= number or mark is self.marks[0])
        following, offset, sealer, size = mark.number, mark.offset, mark.sealer, READ_BYTES
        while offset < self.size:
            data = read_at(self.path, offset, min(size, self.size - offset))
            before = offset
            for frame in read_frames(data, following, offset):
                if isinstance(frame, TornTail):
                    break
                item, offset = frame.item, frame.end
                if isinstance(item, Sealed):
                    following = item.block.number + 1
                    if item.block.number >= number:
                        yield sealer, item, frame
                    self.grow(following, offset, sealer)
                else:
                    assert isinstance(item, Sealer), "a manifest is refused where it is read"
                    sealer = item
            if offset > before:
                size = READ_BYTES
            elif size == READ_BYTES and len(data) < self.size - offset:
                size = FRAME_HEAD_BYTES + BLOCK_FRAME_BYTES_MAX
            else:
                raise CorruptError(f"offset {offset}: it ends inside a block")

    def grow(self, number: int, offset: int, sealer: Sealer) -> None:
        """Note a place, unless it is near one that is known.

        Args:
            number: Of the next block.
            offset: Where it begins.
            sealer: Who seals it.
        """
        if offset - self.marks[-1].offset >= INDEX_STEP_BYTES:
            self.marks.append(Mark(number, offset, sealer))

    def after(self, number: int) -> tuple[Position, int, Sealer]:
        """Return where the journal stood after a block in this file, where that ends and who sealed it.

        Args:
            number: Of a block in it, or of the one before its first.

        Raises:
            OSError: The file cannot be read.
            CorruptError: It is not what was written, or the block is not there.
        """
        if number == self.manifest.at.number:
            return self.manifest.at, self.begin, self.manifest.sealer
        for sealer, sealed, frame in self.walk(number):
            block = sealed.block
            events = block.first_event + block.events - 1
            return Position(block.number, block.epoch, events, sealed.seal.head), frame.end, sealer
        raise CorruptError(f"block {number} is not there")

    def shorten(self, size: int) -> None:
        """Forget what is behind this place."""
        self.size = size
        self.marks = [mark for mark in self.marks if mark.offset <= size]


def open_segment(path: Path) -> Segment:
    """Read what a segment file begins with.

    Raises:
        OSError: It cannot be read.
        CorruptError: It does not begin as a segment.
        UserError: A301, it has another format.
    """
    data = read_at(path, 0, MANIFEST_BYTES_MAX)
    first = next(read(data), TornTail(0))
    if isinstance(first, TornTail):
        raise CorruptError("offset 0: a segment without a whole manifest")
    assert isinstance(first.item, Manifest), "the first frame is one"
    return Segment(path, first.item, first.end, path.stat().st_size)
