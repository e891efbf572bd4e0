# SPDX-License-Identifier: Apache-2.0
"""UDP sockets of the operating system: how they are opened, and what their errors mean to a sender of packets.

Only numeric hosts are given to a socket. With a name the operating system would ask a name server and block.
"""

import errno
import socket
from enum import Enum
from typing import Final, final

from atoll.base.errors import LinkError
from atoll.base.ids import Endpoint

__all__ = ["DATAGRAM_BYTES_MAX", "SOCKET_BUFFER_BYTES", "Sent", "UdpSocket"]

DATAGRAM_BYTES_MAX: Final = 65_535  # Of the protocol.

# Limit. What arrives while the process is busy: 20 ms of 100 MB/s. The operating system may grant less.
SOCKET_BUFFER_BYTES: Final = 2 << 20


class Sent(Enum):
    """What became of a datagram."""

    OK = "ok"
    FULL = "full"  # The buffer is full; later ones may pass.
    TOO_LONG = "too long"  # For the path's first hop.
    REFUSED = "refused"  # No route, forbidden, or another family.


@final
class UdpSocket:
    """One bound UDP socket that never blocks.

    Args:
        endpoint: Numeric host, and port; port 0: any.

    Attributes:
        endpoint: Where it is really bound.
        is_ipv6: Its family.

    Raises:
        LinkError: It cannot be bound; the text is the name of the operating system's error, such as ``EADDRINUSE``.
    """

    __slots__ = ("_socket", "endpoint", "is_ipv6")

    def __init__(self, endpoint: Endpoint) -> None:
        self.is_ipv6: Final = ":" in endpoint[0]
        family = socket.AF_INET6 if self.is_ipv6 else socket.AF_INET
        try:
            self._socket: Final = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            raise LinkError(_name(error)) from error
        try:
            if self.is_ipv6:  # IPv4 has a socket of its own, so that each address has one spelling.
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
            self._socket.settimeout(0)
            # A name is refused here instead of being looked up.
            found = socket.getaddrinfo(*endpoint, family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
            self._socket.bind(found[0][4])
        except OSError as error:
            self._socket.close()
            raise LinkError(_name(error)) from error
        host, port = self._socket.getsockname()[:2]
        self.endpoint: Final[Endpoint] = (host, port)

    def fileno(self) -> int:
        """Return the file descriptor, for a selector."""
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, Endpoint] | None:
        """Return the next datagram and its source; None: there is none now.

        Raises:
            LinkError: The operating system failed otherwise; the socket can go on being used.
        """
        try:
            datagram, source = self._socket.recvfrom(DATAGRAM_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise LinkError(_name(error)) from error
        return datagram, source if len(source) == 2 else (source[0], source[1])

    def send(self, endpoint: Endpoint, datagram: bytes) -> Sent:
        """Send a datagram to a numeric host of this socket's family; never raises."""
        try:
            self._socket.sendto(datagram, endpoint)
        except OSError as error:
            return _SENT.get(error.errno or 0, Sent.REFUSED)
        return Sent.OK

    def close(self) -> None:
        """Close it."""
        self._socket.close()


_SENT: Final = {
    errno.EAGAIN: Sent.FULL,
    errno.EWOULDBLOCK: Sent.FULL,
    errno.ENOBUFS: Sent.FULL,
    errno.EMSGSIZE: Sent.TOO_LONG,
}


def _name(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "EADDRNOTAVAIL"
    return errno.errorcode.get(error.errno or 0, "EIO")
