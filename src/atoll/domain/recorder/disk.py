# SPDX-License-Identifier: Apache-2.0
"""What the recorder does to files that ``host.files`` does not: cutting back, and naming why the disk refused."""

import errno
import os
from pathlib import Path
from typing import Final

from atoll.base.errors import CorruptError, StorageError
from atoll.domain.recorder.messages import Code, RefusedError

__all__ = ["cut_file", "read_at", "refusal_of", "sync_directory", "write_all"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def refusal_of(error: OSError | StorageError, path: Path) -> RefusedError:
    """Return how a request is refused that met this error; raise it ``from`` that one."""
    if isinstance(error, CorruptError):
        return RefusedError(Code.CORRUPT, f"{path}: {error}")
    cause = error.__cause__ if isinstance(error, StorageError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    words = f"{path}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
    return RefusedError(Code.FULL if number in _FULL else Code.IO, words)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it. Raises ``OSError``; then some of it may be written."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Return up to so many bytes of a file from an offset on. Raises ``OSError``."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        parts: list[bytes] = []
        while size > 0 and (part := file.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def cut_file(path: Path, size: int) -> None:
    """Make a file this long, durably. Raises ``OSError``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make what was renamed, made or removed in a directory durable. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
