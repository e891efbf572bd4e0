# SPDX-License-Identifier: Apache-2.0
"""The log of a process in the background: its standard error in a file, rotated by size; and how to read it.

Standard error itself is the log, because the interpreter and libraries write there too. To rotate, the file is renamed
(``node.log`` becomes ``node.log.1``, that ``node.log.2``, and so on; the oldest goes) and descriptor 2 is led to a new
one. Renaming loses no line, neither of a writer nor of a reader that follows; copying and truncating may.
"""

import logging
import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Final, TextIO, final

from atoll.host.limits import LOG_BYTES_MAX, LOG_FILES_MAX, LOG_TAIL_BYTES_MAX

__all__ = ["LogReader", "StderrLog", "log_to_stderr", "rotate_log"]

_STDERR: Final = 2


@final
class StderrLog(logging.StreamHandler[TextIO]):
    """Writes log records to standard error, and rotates the file behind it once ``rotate`` was called."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._path: Path | None = None
        self._bytes_max = LOG_BYTES_MAX

    def rotate(self, path: Path, *, bytes_max: int = LOG_BYTES_MAX) -> None:
        """From now on rotate ``path``, if it is what standard error goes to; a terminal or a pipe is left alone.

        Only one process may do so for one file: hold the ``StateLock``.
        """
        try:
            is_ours = os.path.samestat(os.fstat(_STDERR), path.stat())
        except OSError:
            return
        if is_ours:
            self._path, self._bytes_max = path, bytes_max

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, then rotate if the file has become too large."""
        super().emit(record)
        if self._path is not None:
            self._rotate_if_full(self._path)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the base class names it so.
        """Lose a line that the disk refuses. To tell of it there is no better place than the one that refused."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def _rotate_if_full(self, path: Path) -> None:
        try:
            status = os.fstat(_STDERR)
            if status.st_size < self._bytes_max:
                return
            if path.exists() and os.path.samestat(status, path.stat()):  # Else somebody else has moved it already.
                _shift(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.dup2(descriptor, _STDERR)
            os.close(descriptor)
        except OSError:
            return  # A disk that is full or read-only. The old file goes on; the next line tries again.


def _shift(path: Path) -> None:
    """Rename every file of the log to the next number; the oldest is replaced."""
    for older, newer in pairwise(_files(path)):
        if newer.exists():
            newer.replace(older)


def _files(path: Path) -> list[Path]:
    """Return the names of all files that a log may have, oldest first."""
    return [*(path.with_name(f"{path.name}.{number}") for number in range(LOG_FILES_MAX - 1, 0, -1)), path]


@final
class LogReader:
    """Reads the end of a log, and what is added to it, over rotations.

    Args:
        path: The newest file of the log.

    Raises:
        OSError: It cannot be opened; the caller says so to a person.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("rb")

    def tail(self, lines: int) -> bytes:
        """Return the last lines of the log, from the file before as well where the newest has too few.

        At most LOG_TAIL_BYTES_MAX bytes of a file are read. Call it once, first.
        """
        kept = _last_lines(self._file)
        before = _files(self._path)[-2]
        if len(kept) < lines and before.exists():
            with before.open("rb") as file:
                kept = _last_lines(file) + kept
        return b"".join(kept[len(kept) - lines :] if len(kept) > lines else kept)

    def added(self) -> Iterator[bytes]:
        """Give what was added since the last call, in order and in pieces; nothing: call again later."""
        while True:
            was_rotated = not self._is_newest()  # Asked first: what is read after it is then the last of its file.
            while piece := self._file.read(LOG_TAIL_BYTES_MAX):
                yield piece
            if not was_rotated or not self._open_next():
                return

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def _is_newest(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return True  # Between two steps of a rotation, or deleted by somebody: wait for a new one.

    def _open_next(self) -> bool:
        """Go on in the file that followed ours; in the oldest that there is, if ours is gone."""
        ours = os.fstat(self._file.fileno())
        files = [file for file in _files(self._path) if file.exists()]
        following = [index + 1 for index, file in enumerate(files) if os.path.samestat(ours, file.stat())]
        found = files[following[0] :] if following else files
        if not found:
            return False
        fresh = found[0].open("rb")
        self._file.close()
        self._file = fresh
        return True


def _last_lines(file: IO[bytes]) -> list[bytes]:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LOG_TAIL_BYTES_MAX))
    return file.read().splitlines(keepends=True)


def log_to_stderr() -> None:
    """Send the log of this process to its standard error: for a node's process, once."""
    logging.basicConfig(
        level=logging.INFO, handlers=(StderrLog(),), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("quic").setLevel(logging.WARNING)  # It tells of every connection.


def rotate_log(path: Path) -> None:
    """Keep the log of this process in bounds, if ``path`` is where its standard error goes; hold the state's lock."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, StderrLog):
            handler.rotate(path)
