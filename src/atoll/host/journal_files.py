# SPDX-License-Identifier: Apache-2.0
"""How much of a node's past stays on disk, and what happens when the disk refuses it.

A journal is a directory of segment files ``00000001.atj``, ``00000002.atj``, … (mode 0600 in a 0700 directory): the
higher the newer, each run of the node going on with the next number. The oldest go when there are too many files or
bytes. Writes are buffered and not synced: a journal of control decisions is evidence and not a commit log, no state is
rebuilt from it after a crash, and a sync for each decision would cost more than the decisions. When the disk refuses,
recording pauses with a named warning, the node goes on, and recording is tried again every ``RETRY_NS``.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar, final

from atoll.base.errors import CorruptError, StorageError, UsageError, UserError
from atoll.core.journal import Append, Record, Recorder, SegmentStart, Suspension, TornTail, read
from atoll.host.files import make_private_directory, storage_error, write_atomic
from atoll.host.limits import FLUSH_BYTES_MAX, FLUSH_NS_MAX, JOURNAL_BYTES_MAX, RETRY_NS, SEGMENTS_MAX

__all__ = ["EXPORT_BYTES_MAX", "JournalFiles", "export_journal", "read_journal"]

EXPORT_BYTES_MAX: Final = 4 * JOURNAL_BYTES_MAX  # Largest file that is taken for a journal: room for another's limits.
_RECORD_BYTES_MIN: Final = 25  # Frame 8, time 8, mark 8, input 1.
_NAME: Final = re.compile(r"(\d{8})\.atj")
_NUMBER_MAX: Final = 99_999_999

In = TypeVar("In")
Out = TypeVar("Out")


@final
class JournalFiles:
    """The journal of one machine on disk, bounded.

    Give ``sequence`` to the ``Recorder``, then call ``keep`` when ``deadline_ns`` comes or after every batch of inputs.

    Args:
        directory: Made when missing. Nobody else may write there: hold the ``StateLock``.
        segments_max: Most files kept, at least 2.
        bytes_max: Most bytes kept, checked when a segment begins, so at most one segment more is on disk.

    Raises:
        StorageError: The directory cannot be made or read.
    """

    def __init__(
        self, directory: Path, *, segments_max: int = SEGMENTS_MAX, bytes_max: int = JOURNAL_BYTES_MAX
    ) -> None:
        if segments_max < 2 or bytes_max < 1:
            raise UsageError(f"a journal of {segments_max} segments and {bytes_max} bytes")
        make_private_directory(directory)
        self._directory = directory
        self._segments_max = segments_max
        self._bytes_max = bytes_max
        numbers = _numbers_of(directory)
        self._before = numbers[-1] if numbers else 0  # Number of the last file of earlier runs.
        self._buffer: list[tuple[int, bytes]] = []  # (number of the file, bytes)
        self._buffered_bytes = 0
        self._flush_at_ns: int | None = None
        self._retry_at_ns: int | None = None
        self._file: tuple[int, int] | None = None  # (number, descriptor) of the file being written.
        self.sequence: Final = _last_sequence(directory, numbers)  # Number of the last input of earlier runs.
        self.warning: str | None = None  # A sentence for ``status`` while journalling is suspended.

    @property
    def deadline_ns(self) -> int | None:
        """When ``keep`` must be called next; None: after the next input."""
        return self._flush_at_ns if self._retry_at_ns is None else self._retry_at_ns

    def keep(self, recorder: Recorder[In, Out], now_ns: int) -> bool:
        """Take what was recorded, write it when enough has come or waited long enough, and drop what is too old.

        Returns:
            True when journalling has just resumed, else False.

        Raises:
            StorageError: Once each time journalling stops: the disk refused, or the recorder suspended itself. The
                caller logs it and goes on; ``warning`` says it until journalling resumes.
        """
        if self._retry_at_ns is not None:
            if now_ns < self._retry_at_ns:
                return False
            return self._retry(recorder, now_ns)
        if recorder.suspended is not None:
            raise self._suspend(recorder, now_ns, StorageError(f"{self._directory}: {recorder.suspended}"))
        for append in recorder.drain():
            self._take(append, now_ns)
        if self._flush_at_ns is not None and (now_ns >= self._flush_at_ns or self._buffered_bytes >= FLUSH_BYTES_MAX):
            try:
                self.flush()
            except StorageError as error:
                cause = error.__cause__
                raise self._suspend(recorder, now_ns, error) from cause
        return False

    def flush(self) -> None:
        """Hand everything taken so far to the operating system: it survives this process, not a power cut.

        Raises:
            StorageError: The disk refused; what was buffered is lost.
        """
        buffer, self._buffer, self._buffered_bytes, self._flush_at_ns = self._buffer, [], 0, None
        for number, payload in buffer:
            begun = self._file is None or self._file[0] != number
            try:
                descriptor = self._open(number) if begun or self._file is None else self._file[1]
                view = memoryview(payload)
                while view:
                    view = view[os.write(descriptor, view) :]
            except OSError as error:
                if begun:
                    # Not even its snapshot fits. Left behind, one for each retry would push out the good segments.
                    with suppress(OSError):
                        self._path(number).unlink(missing_ok=True)
                raise storage_error(error, self._path(number)) from error

    def close(self) -> None:
        """Flush and close; for a node that goes down in order. Raises ``StorageError`` like ``flush``."""
        try:
            self.flush()
        finally:
            self._close_file()

    def _take(self, append: Append, now_ns: int) -> None:
        number = self._before + 1 + append.segment
        if number > _NUMBER_MAX:
            raise UsageError("a journal of a hundred million segments")
        self._buffer.append((number, append.payload))
        self._buffered_bytes += len(append.payload)
        if self._flush_at_ns is None:
            self._flush_at_ns = now_ns + FLUSH_NS_MAX

    def _retry(self, recorder: Recorder[In, Out], now_ns: int) -> bool:
        """Try to store a new segment; what was recorded before is lost and the new segment says so."""
        recorder.resume()
        for append in recorder.drain():
            self._take(append, now_ns)
        try:
            self.flush()
        except StorageError:
            # Said once; the warning stands.
            self._suspend(recorder, now_ns, None)
            return False
        if recorder.suspended is not None:
            self._suspend(recorder, now_ns, None)
            return False
        self._retry_at_ns, self.warning = None, None
        return True

    def _suspend(self, recorder: Recorder[In, Out], now_ns: int, error: StorageError | None) -> StorageError:
        if recorder.suspended is None:
            recorder.suspend(Suspension.STORAGE)
        self._buffer, self._buffered_bytes, self._flush_at_ns = [], 0, None
        self._close_file()
        self._retry_at_ns = now_ns + RETRY_NS
        if error is not None:
            self.warning = f"journal suspended ({recorder.suspended}): {error}"
        return StorageError(self.warning)

    def _open(self, number: int) -> int:
        """Begin a file, after room was made for it; return its descriptor."""
        self._close_file()
        self._drop_old()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path(number), flags, 0o600)
        self._file = (number, descriptor)
        return descriptor

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file[1])
            self._file = None

    def _drop_old(self) -> None:
        """Make room for one more segment: the oldest go first."""
        sizes = [(number, self._path(number).stat().st_size) for number in _numbers_of(self._directory)]
        total = sum(size for _, size in sizes)
        while sizes and (len(sizes) >= self._segments_max or total > self._bytes_max):
            number, size = sizes.pop(0)
            self._path(number).unlink(missing_ok=True)
            total -= size

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:08d}.atj"


def read_journal(path: Path) -> tuple[bytes, ...]:
    """Return the segments of a journal, oldest first: of a directory, or of one exported file.

    A segment that a running node drops meanwhile is left out.

    Raises:
        UserError: A304, there is no journal at this path, or it cannot be read, or is too large.
    """
    try:
        if path.is_dir():
            segments = [_content_of(path / f"{number:08d}.atj") for number in _numbers_of(path)]
            contents = [content for content in segments if content is not None]
            if not contents:
                raise _no_journal(path, "the directory holds no segment files (NNNNNNNN.atj)")
            return tuple(contents)
        with path.open("rb") as file:
            content = file.read(EXPORT_BYTES_MAX + 1)
    except StorageError as error:
        raise _no_journal(path, str(error)) from error
    except OSError as error:
        raise _no_journal(path, error.strerror or str(error)) from error
    if len(content) > EXPORT_BYTES_MAX:
        raise _no_journal(path, f"more than {EXPORT_BYTES_MAX} bytes")
    return (content,)


def export_journal(segments: Iterable[bytes], target: Path) -> int:
    """Write a journal as one file, mode 0600, torn tails cut off; return its size, bytes.

    Raises:
        CorruptError: A segment does not check; nothing is written.
        StorageError: The disk refused.
    """
    content = b"".join(data[: _whole_bytes(data)] for data in segments)
    write_atomic(target, content)
    return len(content)


def _whole_bytes(data: bytes) -> int:
    for item in read(data):
        if isinstance(item, TornTail):
            return item.offset
    return len(data)


def _numbers_of(directory: Path) -> list[int]:
    try:
        names = [entry.name for entry in directory.iterdir()]
    except OSError as error:
        raise storage_error(error, directory) from error
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


def _content_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _last_sequence(directory: Path, numbers: list[int]) -> int:
    """Return the number of the last input on disk, or a higher one where its segment cannot be read to the end."""
    for number in reversed(numbers):
        path = directory / f"{number:08d}.atj"
        try:
            data = _content_of(path) or b""
        except OSError as error:
            raise storage_error(error, path) from error
        last: int | None = None
        try:
            for item in read(data):
                if isinstance(item, SegmentStart):
                    last = item.header.sequence
                elif isinstance(item, Record):
                    last = item.sequence
        except (CorruptError, UserError):
            # Numbers must only not repeat. A journal of another format has no number for us to go on from.
            last = None if last is None else last + len(data) // _RECORD_BYTES_MIN
        if last is not None:
            return last
    return 0


def _no_journal(path: Path, where: str) -> UserError:
    return UserError(
        "A304",
        f"there is no journal to read at {path}",
        where=where,
        fix="give the journal directory of a node, or a file that was exported from one",
    )
