# SPDX-License-Identifier: Apache-2.0
"""The compiled way of one packet in or out of this process, where it is installed (``native/src/port.c``)."""

from typing import Protocol

from atoll.base.compiled import COMPILED

__all__ = ["Port", "port_of"]


class Port(Protocol):
    """A UDP socket or a TUN device that does not block. Errors are the numbers of the operating system."""

    def send(self, host: str, port: int, data: bytes | memoryview, /) -> int:
        """Send one datagram; return 0 or an error; EDESTADDRREQ: the host is not plainly numeric."""
        ...

    def receive(self, buffer: bytearray | memoryview, /) -> tuple[int, int, str, int] | None:
        """Return how many bytes came, the length of each datagram but the last, host and port; None: nothing.

        Raises:
            OSError: The operating system failed.
        """
        ...

    def receive_first(self, buffer: memoryview, /) -> tuple[int | bytes, int, str, int] | None:
        """As ``receive``, but return one datagram that came alone instead of how long it is."""
        ...

    def read(self, buffer: bytearray, /) -> int | bytes:
        """Read from a TUN device; return how many bytes, or if it is short what was read, or an error, negative."""
        ...

    def write(self, packet: bytes, /) -> int:
        """Write one packet, behind a header that says that nothing is left to do; return 0 or an error."""
        ...


def port_of(fd: int) -> Port | None:
    """Return the compiled way through an open file, which must stay open as long; None: there is none."""
    if COMPILED is None:
        return None
    made: Port = COMPILED.Port(fd)
    return made
