# SPDX-License-Identifier: Apache-2.0
"""The doors of the house: what the live host and the simulator both provide, and machines never see.

Only drivers hold a port. A port exists here when it has two makers (the operating system and the simulator); what only
one of them has is no port.
"""

from typing import Protocol

from atoll.base.ids import Endpoint

__all__ = ["Clock", "Datagrams", "Disk", "Entropy"]


class Clock(Protocol):
    """Two clocks: one for measuring, which never goes back; one for people, which may jump."""

    def monotonic_ns(self) -> int:
        """Return time since an arbitrary point, ns; never less than before, until the computer reboots."""
        ...

    def wall_ns(self) -> int:
        """Return time since 1970, ns; may jump either way."""
        ...


class Datagrams(Protocol):
    """One socket that sends datagrams; best effort, never blocks."""

    def send(self, to: Endpoint, datagram: bytes) -> None:
        """Send one datagram of at most 65,507 bytes. A full buffer or a dead network loses it silently."""
        ...


class Disk(Protocol):
    """One directory of flat files, and what a crash leaves of them.

    Content is durable after ``sync`` of its file; before that a crash may keep all, some, or nothing of it. Names are
    durable at once: when ``write`` or ``append`` of a new name is synced, and when ``rename`` or ``remove`` returns.
    To replace a file safely: ``write`` another name, ``sync`` it, ``rename`` it over the old one.
    """

    def read(self, name: str) -> bytes:
        """Return the content.

        Raises:
            StorageError: No such file, or it cannot be read.
        """
        ...

    def write(self, name: str, content: bytes) -> None:
        """Make this the whole content of the file, creating it if need be. Not atomic.

        Raises:
            StorageError: The disk is full or read-only; the file may hold any prefix of the content.
        """
        ...

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of the file, creating it if need be. Not atomic.

        Raises:
            StorageError: The disk is full or read-only; any prefix of the content may have been added.
        """
        ...

    def sync(self, name: str) -> None:
        """Return when the file's name and content would outlive a crash.

        Raises:
            StorageError: No such file, or the disk failed; then nothing is known of its content.
        """
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name in one step, replacing what had that name; durable on return.

        Raises:
            StorageError: No such file, or the disk is read-only.
        """
        ...

    def remove(self, name: str) -> None:
        """Delete a file; durable on return.

        Raises:
            StorageError: No such file, or the disk is read-only.
        """
        ...

    def names(self) -> tuple[str, ...]:
        """Return the names of all files, sorted."""
        ...


class Entropy(Protocol):
    """A source of random bytes. ``core.entropy.Draws`` is one that repeats; the operating system's does not."""

    def token(self, size_bytes: int) -> bytes:
        """Return 1 to 64 random bytes."""
        ...
