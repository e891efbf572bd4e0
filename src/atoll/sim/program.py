# SPDX-License-Identifier: Apache-2.0
"""What the world runs: one node's whole program, reduced to three doors and an outbox."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from atoll.base.ids import Endpoint
from atoll.base.ports import Disk

__all__ = ["Factory", "Program", "ProgramT", "endpoint_of"]


class Program(Protocol):
    """One node under simulation. All times that it sees or gives are its own clock's.

    After each call the world sends and empties ``outbox`` and reads ``deadline_ns``. What the program keeps over a
    crash it keeps on the disk that its factory was given.
    """

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` is owed, monotonic ns; None: never. A tick must move it into the future."""
        ...

    @property
    def outbox(self) -> list[tuple[Endpoint, bytes]]:
        """Datagrams to send, in order; the world clears it."""
        ...

    def start(self, now_ns: int, wall_ns: int) -> None:
        """Begin; called once, first."""
        ...

    def receive(self, datagram: bytes, source: Endpoint, now_ns: int, wall_ns: int) -> None:
        """Take one datagram. Whatever its bytes are, this must not raise."""
        ...

    def tick(self, now_ns: int, wall_ns: int) -> None:
        """Do what was due at ``deadline_ns``, or before."""
        ...


ProgramT = TypeVar("ProgramT", bound=Program)

Factory = Callable[[int, Disk, bytes], ProgramT]  # (index of the node, its disk, 32 bytes of seed) -> its program.


def endpoint_of(index: int) -> Endpoint:
    """Return the endpoint of the node with this index in every simulated world."""
    return (f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}", 4000)
