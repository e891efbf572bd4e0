# SPDX-License-Identifier: Apache-2.0
"""Files that report how long each of their operations took, whatever file they are.

Wraps anything with the methods of a file: one of this machine, or what ``fsspec`` opens far away. Reads, writes and
flushes are reported with their bytes to ``health.observe``; everything else is passed on.
"""

import time
from typing import Any, Final, Self, final

from atoll import health

__all__ = ["Watched"]


@final
class Watched:
    """A file that is watched.

    Args:
        file: Open, binary; anything with the methods that are called.
        component: What its operations are reported as, such as ``disk:/data``: reads as ``disk.read:/data`` and so on.
    """

    def __init__(self, file: Any, component: str) -> None:
        kind, _, which = component.partition(":")
        self._file: Final[Any] = file
        self._read: Final = f"{kind}.read:{which}"
        self._write: Final = f"{kind}.write:{which}"
        self._flush: Final = f"{kind}.flush:{which}"

    def read(self, size: int = -1, /) -> bytes:
        """Read, as the file does."""
        began = time.monotonic()
        found: bytes = self._file.read(size)
        health.observe(self._read, time.monotonic() - began, len(found or b""))
        return found

    def readinto(self, buffer: bytearray | memoryview, /) -> int | None:
        """Read into a buffer, as the file does."""
        began = time.monotonic()
        count: int | None = self._file.readinto(buffer)
        health.observe(self._read, time.monotonic() - began, count or 0)
        return count

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Write, as the file does."""
        began = time.monotonic()
        count: int = self._file.write(data)
        health.observe(self._write, time.monotonic() - began, count or 0)
        return count

    def flush(self) -> None:
        """Flush, as the file does."""
        began = time.monotonic()
        self._file.flush()
        health.observe(self._flush, time.monotonic() - began)

    def __enter__(self) -> Self:
        """Return itself."""
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._file.__exit__(*error)

    def __iter__(self) -> Any:
        """Iterate over the file's lines, which are not reported one by one."""
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        """Pass on what is not reported."""
        return getattr(self._file, name)
