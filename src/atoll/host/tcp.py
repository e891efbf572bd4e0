# SPDX-License-Identifier: Apache-2.0
"""Datagrams over TCP, for networks that let nothing else through: framed streams that never block.

Each end first sends PREFACE, then frames: a length of two bytes, big endian, and a datagram. What a datagram is and
who sent it is not this file's matter; whoever breaks the frame is cut off.

A stream is kept short of data on purpose. What waits in it waits in front of everything that comes later, so at most
UNSENT_BYTES stand in the kernel and QUEUE_BYTES_MAX here; beyond that datagrams are dropped, as a router would.
Normative text: docs/spec/relay.md, section 6.
"""

import errno
import select
import socket
from contextlib import suppress
from typing import Final, final

from atoll.base.errors import LinkError
from atoll.base.ids import TCP_PREFIX, Endpoint
from atoll.host.udp import Sent, error_name

__all__ = ["FRAME_BYTES_MAX", "FRAME_BYTES_MIN", "PREFACE", "QUEUE_BYTES_MAX", "TcpListener", "TcpStream"]

PREFACE: Final = b"atoll/1\n"  # Spec. Printable, so that nothing on the way takes it for noise.
FRAME_BYTES_MIN: Final = 32  # Spec. The least that a session sends: a keepalive.
FRAME_BYTES_MAX: Final = 0xFFFF
QUEUE_BYTES_MAX: Final = 128 * 1024  # Limit. At it, what comes is dropped until some of it has gone.
UNSENT_BYTES: Final = 16 * 1024
READ_BYTES: Final = 64 * 1024
SILENT_MS_MAX: Final = 5_000  # So long may sent data stay unacknowledged; then the connection is dead.
BACKLOG: Final = 64

_LENGTH_BYTES: Final = 2
_OPTIONS: Final = (  # Where the system has no such option, the stream works all the same.
    ("TCP_NODELAY", 1),
    ("TCP_NOTSENT_LOWAT", UNSENT_BYTES),
    ("TCP_USER_TIMEOUT", SILENT_MS_MAX),
)


def _parts(endpoint: Endpoint) -> tuple[socket.AddressFamily, str, int]:
    host = endpoint[0].removeprefix(TCP_PREFIX)
    return socket.AF_INET6 if ":" in host else socket.AF_INET, host, endpoint[1]


def _endpoint(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    return TCP_PREFIX + name[0], name[1]


@final
class TcpListener:
    """One listening socket.

    Args:
        endpoint: TCP_PREFIX and a numeric host, and port; port 0: any.

    Attributes:
        endpoint: Where it is really bound.

    Raises:
        LinkError: It cannot be bound; the text is the name of the operating system's error, such as ``EADDRINUSE``.
    """

    __slots__ = ("_socket", "endpoint")

    def __init__(self, endpoint: Endpoint) -> None:
        family, host, port = _parts(endpoint)
        try:
            self._socket: Final = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise LinkError(error_name(error)) from error
        try:
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.settimeout(0)
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            self._socket.bind(found[0][4])
            self._socket.listen(BACKLOG)
        except OSError as error:
            self._socket.close()
            raise LinkError(error_name(error)) from error
        self.endpoint: Final = _endpoint(self._socket.getsockname())

    def fileno(self) -> int:
        """Return the file descriptor, for a selector."""
        return self._socket.fileno()

    def accept(self) -> "TcpStream | None":
        """Return the next caller's stream; None: there is none, or it cannot be had."""
        try:
            accepted, name = self._socket.accept()
        except OSError:  # It went away again, or there are no more file descriptors.
            return None
        return TcpStream(accepted, _endpoint(name), is_connected=True)

    def close(self) -> None:
        """Close it."""
        self._socket.close()


@final
class TcpStream:
    """One connection; ``dial`` makes those that we open.

    Args:
        connection: Ours from now on.
        endpoint: The far end.
        is_connected: Whether it is connected already.

    Attributes:
        endpoint: The far end.
        is_connected: As above; becomes true in ``flush``.
    """

    __slots__ = ("_in", "_is_greeted", "_out", "_poll", "_socket", "endpoint", "is_connected")

    def __init__(self, connection: socket.socket, endpoint: Endpoint, *, is_connected: bool) -> None:
        self._socket: Final = connection
        self.endpoint: Final = endpoint
        self.is_connected = is_connected
        self._in = bytearray()
        self._out = bytearray(PREFACE)
        self._is_greeted = False
        connection.settimeout(0)
        for name, value in _OPTIONS:
            with suppress(AttributeError, OSError):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._poll: Final = select.poll()
        self._poll.register(connection, select.POLLOUT)

    @classmethod
    def dial(cls, endpoint: Endpoint) -> "TcpStream":
        """Begin to connect to a numeric host.

        Raises:
            LinkError: There is no way there.
        """
        family, host, port = _parts(endpoint)
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise LinkError(error_name(error)) from error
        connection.settimeout(0)
        try:
            connection.connect((host, port))
        except BlockingIOError:
            pass
        except OSError as error:
            connection.close()
            raise LinkError(error_name(error)) from error
        return cls(connection, endpoint, is_connected=False)

    def fileno(self) -> int:
        """Return the file descriptor, for a selector."""
        return self._socket.fileno()

    @property
    def is_waiting(self) -> bool:
        """Whether ``flush`` has something to do once the stream is writable."""
        return not self.is_connected or bool(self._out)

    def send(self, data: bytes | memoryview, size: int) -> Sent:
        """Send datagrams that stand back to back; never raises, an end is told by ``receive``.

        Args:
            data: The datagrams.
            size: Length of each but the last, which may be shorter; FRAME_BYTES_MIN to FRAME_BYTES_MAX.
        """
        if len(self._out) >= QUEUE_BYTES_MAX:
            return Sent.FULL
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._out += len(piece).to_bytes(_LENGTH_BYTES, "big")
            self._out += piece
        if self.is_connected:
            with suppress(LinkError):
                self.flush()
        return Sent.OK

    def flush(self) -> None:
        """Send what waits, as far as the kernel wants it now.

        Raises:
            LinkError: It could not be connected, or has ended.
        """
        if not self._poll.poll(0):
            return
        if not self.is_connected:
            failed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                raise LinkError(errno.errorcode.get(failed, "EIO"))
            self.is_connected = True
        if not self._out:
            return
        try:
            sent = self._socket.send(self._out)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise LinkError(error_name(error)) from error
        del self._out[:sent]

    def receive(self) -> list[bytes]:
        """Return the datagrams that came; call it when the stream is readable.

        Raises:
            LinkError: It has ended, or the far end does not keep to the form.
        """
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise LinkError(error_name(error)) from error
        if not data:
            raise LinkError("ended")
        self._in.extend(data)
        if not self._is_greeted and not self._take_preface():
            return []
        return self._take_frames()

    def _take_preface(self) -> bool:
        if not PREFACE.startswith(self._in[: len(PREFACE)]):
            raise LinkError("preface")
        if len(self._in) < len(PREFACE):
            return False
        del self._in[: len(PREFACE)]
        self._is_greeted = True
        return True

    def _take_frames(self) -> list[bytes]:
        came, frames, at = self._in, list[bytes](), 0
        while len(came) - at >= _LENGTH_BYTES:
            start = at + _LENGTH_BYTES
            end = start + int.from_bytes(came[at:start], "big")
            if end - start < FRAME_BYTES_MIN:
                raise LinkError("frame")
            if len(came) < end:
                break
            frames.append(bytes(came[start:end]))
            at = end
        del came[:at]
        return frames

    def close(self) -> None:
        """Close it."""
        self._socket.close()
