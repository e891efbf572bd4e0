# SPDX-License-Identifier: Apache-2.0
"""A disk that lies as little as real ones do: what was synced survives a crash, and of the rest anything may.

Each file is the content that is durable plus the writes since then, in order. A crash keeps a random number of those
writes whole and tears the next one: it is cut short, or its space is there but still holds zeros. Later writes are
gone. That is what an ext4 or xfs file shows after a power cut, seen through the rules of ``base.ports.Disk``.
"""

from collections.abc import Callable
from random import Random
from typing import Final, final

from atoll.base.errors import StorageError

__all__ = ["DISK_BYTES", "PowerCut", "SimDisk"]

DISK_BYTES: Final = 1 << 40  # Default capacity: practically unlimited.


class PowerCut(BaseException):
    """The power went while the program called the disk. Not an ``Exception``: no handler of a program survives it."""


class _File:
    """Durable content, and the writes after it as (replaces, bytes)."""

    __slots__ = ("cached", "durable", "pending")

    def __init__(self) -> None:
        self.durable: bytes | None = None  # None: the name itself is not durable yet.
        self.cached = bytearray()
        self.pending: list[tuple[bool, bytes]] = []

    def sync(self) -> None:
        self.durable = bytes(self.cached)
        self.pending.clear()


@final
class SimDisk:
    """The ``Disk`` port of one simulated node.

    Args:
        rng: Decides what a crash leaves.
        capacity_bytes: Sum of all files' sizes that it holds.
    """

    __slots__ = ("_cut_after", "_files", "_rng", "capacity_bytes", "syncs")

    def __init__(self, rng: Random, capacity_bytes: int = DISK_BYTES) -> None:
        self._rng = rng
        self._files: dict[str, _File] = {}
        self._cut_after: int | None = None
        self.capacity_bytes = capacity_bytes  # May be changed at any time; a fault that fills the disk sets it to 0.
        self.syncs = 0  # How often ``sync`` was called: the price of durability. Read only.

    def read(self, name: str) -> bytes:
        """Return the content, synced or not. Raises StorageError if there is no such file."""
        return bytes(self._file(name).cached)

    def write(self, name: str, content: bytes) -> None:
        """Replace the content. Raises StorageError when full, with a prefix written."""
        self._step(lambda: self._put(name, content, replaces=True))

    def append(self, name: str, content: bytes) -> None:
        """Add to the end. Raises StorageError when full, with a prefix added."""
        self._step(lambda: self._put(name, content, replaces=False))

    def sync(self, name: str) -> None:
        """Make one file durable. Raises StorageError if there is no such file."""
        file = self._file(name)
        self.syncs += 1
        self._step(file.sync)

    def rename(self, old: str, new: str) -> None:
        """Rename durably; content that was not synced stays at risk. Raises StorageError if there is no such file."""
        file = self._file(old)
        self._step(lambda: self._move(file, old, new))

    def remove(self, name: str) -> None:
        """Delete durably. Raises StorageError if there is no such file."""
        self._file(name)
        self._step(lambda: self._files.pop(name))

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted."""
        return tuple(sorted(self._files))

    def used_bytes(self) -> int:
        """Return the sum of all sizes."""
        return sum(len(file.cached) for file in self._files.values())

    def cut_power_after(self, operations: int | None) -> None:
        """Let the power go (``PowerCut``) during the n-th changing operation from now, 1 or more; None: not at all."""
        self._cut_after = operations

    def crash(self) -> None:
        """Lose what a power cut loses. The world calls this; the next reader sees what is left."""
        self._cut_after = None
        for name, file in list(self._files.items()):
            survived = self._survivor(file)
            if survived is None:
                del self._files[name]
            else:
                file.durable, file.cached = survived, bytearray(survived)
                file.pending.clear()

    def _file(self, name: str) -> _File:
        file = self._files.get(name)
        if file is None:
            raise StorageError(f"no file {name!r}")
        return file

    def _step(self, change: Callable[[], object]) -> None:
        """Apply one change, or cut the power just before or just after it."""
        if self._cut_after is None:
            change()
            return
        self._cut_after -= 1
        if self._cut_after > 0:
            change()
            return
        if self._rng.getrandbits(1):
            change()
        raise PowerCut

    def _put(self, name: str, content: bytes, *, replaces: bool) -> None:
        file = self._files.setdefault(name, _File())
        room_bytes = self.capacity_bytes - self.used_bytes()
        if replaces:
            room_bytes += len(file.cached)
            file.cached.clear()
        fitting = content[: max(0, room_bytes)]
        file.cached += fitting
        file.pending.append((replaces, fitting))
        if len(fitting) < len(content):
            raise StorageError(f"no space left on the disk for {name!r}")

    def _move(self, file: _File, old: str, new: str) -> None:
        del self._files[old]
        self._files[new] = file
        if file.durable is None:
            file.durable = b""  # The name is durable now; the content is not.

    def _survivor(self, file: _File) -> bytes | None:
        if not file.pending:
            return file.durable
        whole = self._below(len(file.pending) + 1)
        if file.durable is None and whole == 0 and self._rng.getrandbits(1):
            return None
        content = bytearray(file.durable or b"")
        for replaces, written in file.pending[:whole]:
            if replaces:
                content.clear()
            content += written
        if whole < len(file.pending):
            replaces, written = file.pending[whole]
            kept = self._below(len(written) + 1)
            if replaces and (kept or self._rng.getrandbits(1)):
                content.clear()  # Truncated; else the replacement had not begun.
            content += written[:kept]
            if self._below(4) == 0:
                content += bytes(len(written) - kept)  # Size is metadata and may outrun the data: zeros.
        return bytes(content)

    def _below(self, bound: int) -> int:
        return self._rng.getrandbits(32) * bound >> 32
