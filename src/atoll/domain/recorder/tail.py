# SPDX-License-Identifier: Apache-2.0
"""The open end of a journal's newest segment: bytes go in behind the last ones, durable when the call returns.

Where little is written at a time, zeros are laid down ahead and written over. A file that grows with each write makes
the file system keep its new length as well, by a write and a flush of its own: a quarter of the time on a fast disk,
half on others. Where much is written nothing is laid down, and what was is cut off first: then what a crash leaves of
the write is a torn tail as a growing file has it. Of a small one it may leave holes (docs/spec/environment-journal.md).
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from atoll.domain.limits import AHEAD_BYTES_MAX, AHEAD_BYTES_MIN
from atoll.domain.recorder.disk import write_at
from atoll.env.chain import HOLED_BYTES_MAX

__all__ = ["Tail"]


@final
class Tail:
    """One file, held open.

    Args:
        path: Of the segment.
        size: Where the next byte goes; what is behind it in the file is zeros.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._descriptor: Final = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._size = size
        self._length = os.fstat(self._descriptor).st_size
        self._ahead = AHEAD_BYTES_MIN  # So much is laid down next: twice as much each time.

    def write(self, content: bytes) -> None:
        """Write this, durably.

        Raises:
            OSError: Any of it may be there. Nothing more may be written; the file is to be cut.
        """
        end = self._size + len(content)
        if len(content) > HOLED_BYTES_MAX:
            self._ahead = AHEAD_BYTES_MIN
            self.cut()
        write_at(self._descriptor, content, self._size)
        if end > self._length and len(content) <= HOLED_BYTES_MAX:
            self._lay_down(end)
        os.fdatasync(self._descriptor)
        self._size, self._length = end, max(end, self._length)

    def cut(self) -> None:
        """Take away what is laid down ahead; it is durable with the next write. Raises ``OSError``."""
        if self._length > self._size:
            os.ftruncate(self._descriptor, self._size)
            self._length = self._size

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    def _lay_down(self, end: int) -> None:
        with suppress(OSError):  # A disk that has no room for zeros may have some for blocks.
            write_at(self._descriptor, bytes(self._ahead), end)
            self._ahead = min(2 * self._ahead, AHEAD_BYTES_MAX)
        self._length = os.fstat(self._descriptor).st_size
