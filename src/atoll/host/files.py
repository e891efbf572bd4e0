# SPDX-License-Identifier: Apache-2.0
"""How a node keeps a file so that a crash at any moment leaves the old content or the new one, and only we read it.

Foreign errors are mapped here, once: the disk's refusals become ``StorageError`` (a running node goes on without), and
what keeps a node from starting becomes a ``UserError`` with its fix. ``explain`` turns the first into the second where
a person waits for the answer.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Final, final

from atoll.base.errors import LimitError, StorageError, UsageError, UserError
from atoll.host.limits import PRIVATE_BYTES_MAX

__all__ = [
    "FileDisk",
    "StateLock",
    "explain",
    "make_private_directory",
    "read_private",
    "storage_error",
    "write_atomic",
    "write_private",
]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})  # What an owner can mend.
_TEMPORARY: Final = ".new"  # Behind the name of a file that is being replaced; a leftover is overwritten next time.


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the error of the house for an error of the operating system; raise it ``from`` that one."""
    return StorageError(f"{path}: {error.strerror or error}")


def explain(error: StorageError, path: Path) -> UserError:
    """Return what to tell a person whom this refusal stops, with the fix that fits its cause."""
    cause = error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    if number in _FULL:
        return UserError(
            "A102",
            "the disk is full",
            where=str(error),
            fix=f"free some space for {path.parent}, or choose another directory with --state",
        )
    elsewhere = "choose another directory with --state DIR"
    return UserError(
        "A110",
        f"cannot use {path}",
        where=str(error),
        fix=f"make {path.parent} writable for this user, or {elsewhere}" if number in _REFUSED else elsewhere,
    )


def make_private_directory(path: Path, *, signs: Collection[str] = ()) -> None:
    """Make a directory, and its parents, that only this user can enter; an existing one is closed to others.

    Args:
        path: The directory.
        signs: Names of which one tells that an existing directory is ours. One without any, open to others and not
            empty, is somebody else's (``/tmp``, a home): to close it would harm them. None given: it is ours.

    Raises:
        StorageError: It cannot be made, or belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            if signs and any(path.iterdir()) and not any((path / sign).exists() for sign in signs):
                raise StorageError(
                    f"{path}: other files are in it and other users may enter it; atoll needs one of its own"
                )
            path.chmod(0o700)
    except OSError as error:
        raise storage_error(error, path) from error


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace the content of a file in one step that survives a crash.

    Writes a temporary file beside it, syncs, renames, and syncs the directory. There must be one writer at a time:
    hold the ``StateLock``.

    Raises:
        StorageError: The disk refused. The old content is still there, whole.
    """
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        _write_synced(temporary, content, mode)
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise storage_error(error, path) from error


def write_private(path: Path, content: bytes) -> None:
    """Create a key file that only this user can read, and never replace one. Hold the ``StateLock``.

    Raises:
        UsageError: More than ``PRIVATE_BYTES_MAX`` bytes.
        StorageError: A file of that name exists, or the disk refused.
    """
    if len(content) > PRIVATE_BYTES_MAX:
        raise UsageError(f"a key file of {len(content)} bytes")
    if path.exists() or path.is_symlink():
        raise StorageError(f"{path}: it exists, and a key is never replaced")
    write_atomic(path, content)


def read_private(path: Path) -> bytes:
    """Return the content of a key file that nobody else may read, at most ``PRIVATE_BYTES_MAX`` bytes.

    Raises:
        UserError: A101, it cannot be read or is too large; A104, others may read it.
    """
    try:
        # Opened first and judged by its descriptor, so that nobody can swap the file between check and read.
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077:
                raise UserError(
                    "A104",
                    f"the key file {path} can be read by others",
                    where=f"mode {mode:04o}, owner {status.st_uid}",
                    fix=f"chmod 600 {path}; if others may have read it, make a new identity",
                )
            content = file.read(PRIVATE_BYTES_MAX + 1)
    except OSError as error:
        raise UserError(
            "A101",
            f"cannot read the key file {path}",
            where=str(error.strerror or error),
            fix="run as the user who owns it, or choose another directory with --state",
        ) from error
    if len(content) > PRIVATE_BYTES_MAX:
        raise UserError(
            "A101",
            f"the key file {path} is too large to be one",
            where=f"more than {PRIVATE_BYTES_MAX} bytes",
            fix="restore it from a backup, or move it away to start with a new identity",
        )
    return content


@final
class StateLock:
    """The right to use a state directory, held by one process until it ends, however it ends.

    The kernel gives the lock back when the process dies, so there is nothing to clean up; the file stays, because
    removing it would let two processes hold a lock on two files of one name.

    Args:
        path: The lock file; made when missing.

    Raises:
        UserError: A103, another process holds it.
        StorageError: The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise UserError(
                "A103",
                f"another atoll node (process {holder}) uses this state directory",
                where=str(path.parent),
                fix=f"run `atoll down --state {quote(str(path.parent))}` to stop it, or choose another directory",
            ) from error
        except OSError as error:
            os.close(self._descriptor)
            raise storage_error(error, path) from error

    def release(self) -> None:
        """Give the lock back. Twice is harmless."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> "StateLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


@final
class FileDisk:
    """A directory of the real disk; see ``base.ports.Disk``.

    Args:
        directory: Exists, and only this process changes it.
        file_bytes_max: Largest file that ``read`` returns, bytes.
    """

    def __init__(self, directory: Path, *, file_bytes_max: int) -> None:
        self._directory = directory
        self._file_bytes_max = file_bytes_max

    def read(self, name: str) -> bytes:
        """Return the content.

        Raises:
            StorageError: No such file, or it cannot be read.
            LimitError: It is larger than ``file_bytes_max``.
        """
        path = self._path(name)
        try:
            with path.open("rb") as file:
                content = file.read(self._file_bytes_max + 1)
        except OSError as error:
            raise storage_error(error, path) from error
        if len(content) > self._file_bytes_max:
            raise LimitError("file_bytes_max", self._file_bytes_max)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Make this the whole content of a file of mode 0600; not atomic. Raises ``StorageError``."""
        self._put(name, content, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of a file of mode 0600; not atomic. Raises ``StorageError``."""
        self._put(name, content, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def sync(self, name: str) -> None:
        """Return when name and content are durable. Raises ``StorageError``."""
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            _sync_directory(self._directory)
        except OSError as error:
            raise storage_error(error, path) from error

    def rename(self, old: str, new: str) -> None:
        """Rename in one step, durable on return. Raises ``StorageError``."""
        path = self._path(old)
        try:
            path.replace(self._path(new))
            _sync_directory(self._directory)
        except OSError as error:
            raise storage_error(error, path) from error

    def remove(self, name: str) -> None:
        """Delete, durable on return. Raises ``StorageError``."""
        path = self._path(name)
        try:
            path.unlink()
            _sync_directory(self._directory)
        except OSError as error:
            raise storage_error(error, path) from error

    def names(self) -> tuple[str, ...]:
        """Return the names of all files, sorted. Raises ``StorageError``."""
        try:
            return tuple(sorted(entry.name for entry in self._directory.iterdir() if entry.is_file()))
        except OSError as error:
            raise storage_error(error, self._directory) from error

    def _path(self, name: str) -> Path:
        if name in {"", ".", ".."} or "/" in name or "\0" in name:
            raise UsageError(f"a file called {name!r}")
        return self._directory / name

    def _put(self, name: str, content: bytes, flags: int) -> None:
        path = self._path(name)
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
            try:
                _write_all(descriptor, content)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_error(error, path) from error


def _write_synced(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)  # What a crash left has perhaps another mode, or is a link to elsewhere.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)  # The umask may have taken bits that the caller asked for.
        _write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
