# SPDX-License-Identifier: Apache-2.0
"""UDP sockets of the operating system: how they are opened, and what their errors mean to a sender of packets.

Only numeric hosts are given to a socket. With a name the operating system would ask a name server and block.

Bursts. Where the kernel can (Linux 5.0 and later), many datagrams of one length to one endpoint pass it in one call, in
both directions (``UDP_SEGMENT``, ``UDP_GRO``; udp(7)). That is most of what a fast data path in user space gains. Where
it cannot, ``send_burst`` sends them one by one, and ``receive_burst`` returns them one by one. Most software sends one
by one, too, and only some network cards join that: ``receive_bursts`` puts together what it reads so.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from struct import Struct
from typing import Final, final

from atoll.base.errors import LinkError
from atoll.base.ids import Endpoint
from atoll.host.port import port_of
from atoll.host.send_queue import SendQueue

__all__ = [
    "BURST_BYTES_MAX",
    "BURST_DATAGRAMS_MAX",
    "CUTTABLE_BYTES_MAX",
    "DATAGRAM_BYTES_MAX",
    "RECEIVE_BYTES",
    "SOCKET_BUFFER_BYTES",
    "Sent",
    "UdpSocket",
    "bursts_work",
    "error_name",
]

DATAGRAM_BYTES_MAX: Final = 65_535  # Of the protocol.
BURST_BYTES_MAX: Final = 65_535 - 40 - 8  # Limit of the kernel: a burst passes the network layer as one packet.
BURST_DATAGRAMS_MAX: Final = 64  # Limit of the kernel (UDP_MAX_SEGMENTS; 128 since 6.9).

# Longer ones are sent whole or not at all, so that what arrives says how much a way carries (overlay/sizes.py). Shorter
# ones may be cut by networks: they must arrive even where a link carries less than any should.
CUTTABLE_BYTES_MAX: Final = 1_340

RECEIVE_BYTES: Final = 2 * DATAGRAM_BYTES_MAX  # What waits, and room for any that comes behind it.

# Limit. What arrives while the process is busy: 20 ms of 100 MB/s. The operating system may grant less.
SOCKET_BUFFER_BYTES: Final = 2 << 20


class Sent(Enum):
    """What became of a datagram."""

    OK = "ok"
    FULL = "full"  # The buffer is full; later ones may pass.
    TOO_LONG = "too long"  # For the path's first hop.
    REFUSED = "refused"  # No route, forbidden, or another family.


_OK: Final = Sent.OK  # An enumeration's members are found by a slow way, and this one is wanted for each packet.


@final
class UdpSocket:
    """One bound UDP socket that never blocks.

    Args:
        endpoint: Numeric host, and port; port 0: any.
        bursts: Read by ``receive_burst`` only; ``receive`` would take a whole burst for one datagram.
        compiled: Whether packets take the compiled way, if there is one.

    Attributes:
        endpoint: Where it is really bound.
        is_ipv6: Its family.
        sends_bursts: Whether the kernel cuts what is sent. Becomes false when it turns out that it cannot after all.
        receives_bursts: Whether the kernel joins what comes.
        queue: How long what was sent waits in the kernel. Its user notes what is sent.

    Raises:
        LinkError: It cannot be bound; the text is the name of the operating system's error, such as ``EADDRINUSE``.
    """

    __slots__ = (
        "_cuttable",
        "_is_cut",
        "_port",
        "_socket",
        "_whole",
        "endpoint",
        "is_ipv6",
        "queue",
        "receives_bursts",
        "sends_bursts",
    )

    def __init__(self, endpoint: Endpoint, *, bursts: bool = False, compiled: bool = False) -> None:
        self.is_ipv6: Final = ":" in endpoint[0]
        family = socket.AF_INET6 if self.is_ipv6 else socket.AF_INET
        try:
            self._socket: Final = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            raise LinkError(error_name(error)) from error
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
            raise LinkError(error_name(error)) from error
        host, port = self._socket.getsockname()[:2]
        self.endpoint: Final[Endpoint] = (host, port)
        self._cuttable, self._whole = _FRAGMENTS[self.is_ipv6]
        self._is_cut: bool | None = None  # Not told yet.
        self._fragmenting(allowed=True)
        self.queue: Final = SendQueue(self._socket.fileno())
        self._port: Final = port_of(self._socket.fileno()) if compiled else None
        self.sends_bursts = self._can(_UDP_SEGMENT, 0)
        self.receives_bursts: Final = bursts and self._can(_UDP_GRO, 1)

    def _can(self, option: int, value: int) -> bool:
        try:
            self._socket.setsockopt(socket.IPPROTO_UDP, option, value)
        except OSError:
            return False
        return True

    def _fragmenting(self, *, allowed: bool) -> None:
        """Let networks cut what is sent from now on, or not; where the system cannot be told, its default holds."""
        if allowed == self._is_cut:
            return
        self._is_cut = allowed
        level, option, value = self._cuttable if allowed else self._whole
        with suppress(OSError):
            self._socket.setsockopt(level, option, value)

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
            raise LinkError(error_name(error)) from error
        return datagram, source if len(source) == 2 else (source[0], source[1])

    def send(self, endpoint: Endpoint, datagram: bytes | memoryview) -> Sent:
        """Send a datagram to a numeric host of this socket's family; never raises."""
        self._fragmenting(allowed=len(datagram) <= CUTTABLE_BYTES_MAX)
        if self._port is not None:
            error = self._port.send(endpoint[0], endpoint[1], datagram)
            if not error:
                return _OK
            if error != errno.EDESTADDRREQ:
                return _SENT.get(error, Sent.REFUSED)
        try:
            self._socket.sendto(datagram, endpoint)
        except OSError as error:
            return _SENT.get(error.errno or 0, Sent.REFUSED)
        return Sent.OK

    def receive_burst(self, buffer: bytearray | memoryview) -> tuple[int, int, Endpoint] | None:
        """Read datagrams that came from one source into a buffer, back to back; None: there are none now.

        Args:
            buffer: DATAGRAM_BYTES_MAX bytes; what does not fit is lost.

        Returns:
            (bytes read, length of each datagram but the last, source). An empty datagram is 0 bytes of length 1: none.

        Raises:
            LinkError: As ``receive``.
        """
        if self._port is not None:
            try:
                received = self._port.receive(buffer)
            except OSError as error:
                raise LinkError(error_name(error)) from error
            return None if received is None else (received[0], received[1], (received[2], received[3]))
        try:
            read, ancillary, _, source = self._socket.recvmsg_into([buffer], _ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise LinkError(error_name(error)) from error
        size = max(read, 1)
        for _, kind, value in ancillary:
            if kind == _UDP_GRO and len(value) == _INT.size:
                size = _INT.unpack(value)[0] or size
        return read, size, source if len(source) == 2 else (source[0], source[1])

    def receive_first(self, buffer: memoryview) -> tuple[bytes | int, int, Endpoint] | None:
        """As ``receive_burst``, but return a datagram that came alone instead of how long it is."""
        if self._port is not None:
            try:
                received = self._port.receive_first(buffer)
            except OSError as error:
                raise LinkError(error_name(error)) from error
            return None if received is None else (received[0], received[1], (received[2], received[3]))
        burst = self.receive_burst(buffer)
        if burst is None:
            return None
        read, size, source = burst
        return buffer[:read].tobytes() if read <= size else read, size, source

    def receive_bursts(self, buffer: memoryview, reads: int) -> Iterator[tuple[int, int, int, Endpoint]]:
        """Yield what there is now, in order; whoever asks for the next one has done with the one before.

        Datagrams that came one by one are one burst if they follow each other, are of one source, and all but the last,
        which may be shorter, of one length: as if the kernel had joined them.

        Args:
            buffer: RECEIVE_BYTES bytes.
            reads: At most so many.

        Yields:
            (from, until, length of each datagram but the last, source), in the buffer; as ``receive_burst``.

        Raises:
            LinkError: As ``receive``; what was read and not yielded yet is lost with it.
        """
        start = end = size = 0  # Of what waits for more of its kind, if ``waits``.
        source: Endpoint = ("", 0)
        waits = False
        for _ in range(reads):
            received = self.receive_burst(buffer[end:])
            if received is None:
                break
            read, length, sender = received
            if not (waits and 0 < read <= size and read == length and sender == source):
                if waits:
                    yield start, end, size, source
                start, size, source = end, length, sender
            end += read
            room = min(DATAGRAM_BYTES_MAX - (end - start) - size, len(buffer) - end - DATAGRAM_BYTES_MAX)
            waits = read == length == size and room >= 0
            if not waits:
                yield start, end, size, source
                start = end = 0
        if waits:
            yield start, end, size, source

    def send_burst(self, endpoint: Endpoint, data: bytes | memoryview, size: int) -> Sent:
        """Send datagrams that stand back to back; never raises.

        Args:
            endpoint: Numeric host of this socket's family, and port.
            data: At most BURST_BYTES_MAX bytes and BURST_DATAGRAMS_MAX datagrams.
            size: Length of each but the last, which may be shorter.

        Returns:
            What became of them; sent one by one, what became of the first that did not pass.
        """
        if self.sends_bursts and len(data) > size:
            self._fragmenting(allowed=size <= CUTTABLE_BYTES_MAX)
            try:
                self._socket.sendmsg([data], ((socket.IPPROTO_UDP, _UDP_SEGMENT, _U16.pack(size)),), 0, endpoint)
            except OSError as error:
                if error.errno in _NO_BURSTS:
                    self.sends_bursts = False  # This way out has no checksum offload, or the kernel lied.
                elif error.errno != errno.EINVAL:  # That is longer than this way out takes: see each for itself.
                    return _SENT.get(error.errno or 0, Sent.REFUSED)
            else:
                return Sent.OK
        for start in range(0, len(data), size):
            sent = self.send(endpoint, data[start : start + size])
            if sent is not Sent.OK:
                return sent
        return Sent.OK

    def close(self) -> None:
        """Close it."""
        self._socket.close()


# Not in Python's socket module; Linux's ip(7) and ipv6(7): (level, option, value) for what may be cut, and may not.
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_DONT: Final = 0
_WANT: Final = 1
_PROBE: Final = 3
_FRAGMENTS: Final = {
    False: ((socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DONT), (socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)),
    True: ((socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _WANT), (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)),
}

# Not in Python's socket module; Linux's udp(7).
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_U16: Final = Struct("=H")
_INT: Final = Struct("=i")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_INT.size) if hasattr(socket, "CMSG_SPACE") else 0
_NO_BURSTS: Final = {errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP}


_SENT: Final = {
    errno.EAGAIN: Sent.FULL,
    errno.EWOULDBLOCK: Sent.FULL,
    errno.ENOBUFS: Sent.FULL,
    errno.EMSGSIZE: Sent.TOO_LONG,
}


def bursts_work() -> bool:
    """Return whether this machine's kernel really cuts bursts and joins them: a few datagrams over its loopback.

    An offload that is there and lies would lose every large packet, and nothing else would show it.
    """
    try:
        target = UdpSocket(("127.0.0.1", 0), bursts=True)
    except LinkError:
        return False
    try:
        source = UdpSocket(("127.0.0.1", 0))
    except LinkError:
        target.close()
        return False
    try:
        return _pass_a_burst(source, target)
    finally:
        source.close()
        target.close()


def _pass_a_burst(source: UdpSocket, target: UdpSocket) -> bool:
    sent = b"".join(bytes((number,)) * 200 for number in range(1, 5)) + b"end"
    if source.send_burst(target.endpoint, memoryview(sent), 200) is not Sent.OK or not source.sends_bursts:
        return False
    came, buffer = b"", bytearray(DATAGRAM_BYTES_MAX)
    for _ in range(5):
        received = target.receive_burst(buffer)  # Over the loopback it is there when ``send`` returns.
        if received is None:
            break
        read, size, _ = received
        if size not in {200, read}:
            return False
        came += buffer[:read]
    return came == sent


def error_name(error: OSError) -> str:
    """Return the name of the operating system's error, such as ``EADDRINUSE``."""
    if isinstance(error, socket.gaierror):
        return "EADDRNOTAVAIL"
    if isinstance(error, TimeoutError):
        return "ETIMEDOUT"
    return errno.errorcode.get(error.errno or 0, "EIO")
