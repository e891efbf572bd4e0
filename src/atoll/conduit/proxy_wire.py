# SPDX-License-Identifier: Apache-2.0
"""What a program says to the proxy before its bytes flow, and with each datagram. Pure: bytes in, steps out.

One port speaks SOCKS5 (RFC 1928: no authentication; CONNECT and UDP ASSOCIATE) and HTTP CONNECT (RFC 9110, 9.3.6; RFC
9112). The first byte tells them apart: 5 is SOCKS5, 4 is SOCKS4 and refused, all others are HTTP.

Rules of the file: no bytes raise; what is decided depends on the bytes alone and not on how they were cut into pieces;
every length is bounded, by one byte that says it (SOCKS) or by ``conduit/limits.py`` (HTTP). Where leniency gives no
second meaning (a lone LF ends a line, a request without Host), it is lenient: the programs cannot be changed.
"""

import ipaddress
import re
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.conduit.limits import PROXY_HEADER_BYTES_MAX, PROXY_HEADER_LINES_MAX
from atoll.conduit.proxy_answer import Reply, Speech, pack_address, refused_http, refused_socks

__all__ = [
    "Command",
    "Datagram",
    "Handshake",
    "Refuse",
    "Request",
    "Say",
    "Step",
    "decode_datagram",
    "encode_datagram",
]

_SOCKS5: Final = 5
_SOCKS4: Final = 4
_NO_AUTHENTICATION: Final = 0
_IPV4, _NAME, _IPV6 = 1, 3, 4  # ATYP.
_ADDRESS_BYTES: Final = {_IPV4: 4, _IPV6: 16}
_PORT_BYTES: Final = 2
_PORT_MAX: Final = 0xFFFF

_SOCKS4_REFUSED: Final = b"\0\x5b" + bytes(6)  # Code 91, "request rejected or failed", of the SOCKS4 protocol.
_NO_METHOD: Final = b"\5\xff"  # RFC 1928, section 3: no acceptable methods.
_METHOD: Final = b"\5\0"

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110, 5.6.2.
_FIRST: Final = re.compile(_TOKEN + rb"|[\r\n]")
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb"+) ([!-~]+) HTTP/([0-9])\.[0-9]")
_FIELD_LINE: Final = re.compile(_TOKEN + rb"+:[\t -~\x80-\xff]*")
_AUTHORITY: Final = re.compile(
    rb"(?:\[([0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,41})\]|([A-Za-z0-9._~!$&'()*+,;=%-]{1,255})):([0-9]{1,5})"  # RFC 3986.
)


class Command(IntEnum):
    """What a client asks for; the numbers are those of SOCKS."""

    CONNECT = 1
    ASSOCIATE = 3


@dataclass(frozen=True, slots=True)
class Say:
    """Write these bytes and go on."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """Write these bytes, then end the connection."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """What the client wants; it waits for the answer now.

    Attributes:
        speech: In which protocol to answer.
        command: What for.
        host: A name or an address as text, or an address as 4 or 16 bytes.
        port: 1 to 65535. For ASSOCIATE the port that the client will send from; 0: it does not know yet.
    """

    speech: Speech
    command: Command
    host: str | bytes
    port: int

    @property
    def target(self) -> str:
        """``HOST:PORT`` as text, for people; whatever was asked for, it prints in one line."""
        host = ascii(self.host)[1:-1] if isinstance(self.host, str) else str(ipaddress.ip_address(self.host))
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


Step = Say | Refuse | Request


@final
class Handshake:
    """One client's first bytes, up to its request. ``feed`` it until it gives Refuse or Request.

    Source: RFC 1928, sections 3 to 6; RFC 9112, sections 2, 3.2.3 and 5; RFC 9110, 9.3.6.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._next = self._begin
        self._is_over = False
        self._line_at = self._searched_to = 0
        self._lines: list[bytes] = []

    @property
    def rest(self) -> bytes:
        """What the client sent behind its request, ahead of any answer."""
        return bytes(self._buffer) if self._is_over else b""

    def feed(self, data: bytes) -> tuple[Step, ...]:
        """Take bytes; return what follows from them, in order: nothing (more are needed), or up to two steps.

        Raises:
            UsageError: It is over. No bytes raise.
        """
        if self._is_over:
            raise UsageError("bytes for a handshake that is over")
        self._buffer += data
        steps: list[Step] = []
        while self._buffer and not self._is_over and (step := self._next()) is not None:
            steps.append(step)
            self._is_over = not isinstance(step, Say)
        return tuple(steps)

    def _begin(self) -> Step | None:
        first = self._buffer[0]
        if first == _SOCKS4:
            return Refuse(_SOCKS4_REFUSED)
        if first != _SOCKS5 and _FIRST.match(self._buffer) is None:  # TLS, say: its header would never end.
            return Refuse(refused_http(HTTPStatus.BAD_REQUEST))
        self._next = self._greeting if first == _SOCKS5 else self._header
        return self._next()

    # SOCKS5.

    def _greeting(self) -> Step | None:
        if len(self._buffer) < 2 or len(self._buffer) < 2 + self._buffer[1]:
            return None
        methods = self._buffer[2 : 2 + self._buffer[1]]
        del self._buffer[: 2 + self._buffer[1]]
        if _NO_AUTHENTICATION not in methods:
            return Refuse(_NO_METHOD)
        self._next = self._request
        return Say(_METHOD)

    def _request(self) -> Step | None:
        if self._buffer[0] != _SOCKS5:
            return Refuse(refused_socks(Reply.GENERAL_FAILURE))
        taken = _take_address(self._buffer, 3)
        if taken is None:
            return None
        if isinstance(taken, Reply):
            return Refuse(refused_socks(taken))
        host, port, end = taken
        command = self._buffer[1]
        del self._buffer[:end]
        if command not in Command.__members__.values():
            return Refuse(refused_socks(Reply.NO_COMMAND))  # BIND: nobody connects to a client of the proxy.
        if command == Command.CONNECT and not port:
            return Refuse(refused_socks(Reply.REFUSED))
        return Request(Speech.SOCKS5, Command(command), host, port)

    # HTTP.

    def _header(self) -> Step | None:
        while True:
            at = self._buffer.find(b"\n", self._searched_to, PROXY_HEADER_BYTES_MAX)
            if at < 0:
                self._searched_to = len(self._buffer)  # Or a client that sends single bytes would cost their square.
                is_long = len(self._buffer) >= PROXY_HEADER_BYTES_MAX
                return Refuse(refused_http(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)) if is_long else None
            line = bytes(self._buffer[self._line_at : at]).removesuffix(b"\r")
            self._line_at = self._searched_to = at + 1
            if line:
                self._lines.append(line)
                if len(self._lines) > PROXY_HEADER_LINES_MAX:
                    return Refuse(refused_http(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
                if len(self._lines) == 1 and not _REQUEST_LINE.fullmatch(line):
                    return Refuse(refused_http(HTTPStatus.BAD_REQUEST))
            elif self._lines:  # Empty lines before the request are left out (RFC 9112, 2.2).
                del self._buffer[: self._line_at]
                return self._judge()

    def _judge(self) -> Step:
        asked = _REQUEST_LINE.fullmatch(self._lines[0])
        assert asked is not None  # It was looked at when it came.
        method, target, major = asked.groups()
        if major != b"1":
            return Refuse(refused_http(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED))
        if not all(_FIELD_LINE.fullmatch(line) for line in self._lines[1:]):
            return Refuse(refused_http(HTTPStatus.BAD_REQUEST))
        if method != b"CONNECT":
            return Refuse(refused_http(HTTPStatus.METHOD_NOT_ALLOWED))
        authority = _AUTHORITY.fullmatch(target)
        if authority is None or not 0 < int(authority[3]) <= _PORT_MAX:
            return Refuse(refused_http(HTTPStatus.BAD_REQUEST))
        host = (authority[1] or authority[2]).decode("ascii")  # The brackets come off: the address is the same text.
        return Request(Speech.HTTP, Command.CONNECT, host, int(authority[3]))


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram and whom it is for, as clients send it to the relay (RFC 1928, section 7)."""

    host: str | bytes
    port: int
    payload: bytes


def decode_datagram(data: bytes) -> Datagram | None:
    """Return what a client sent to the relay; None: cut short, a fragment, or of an unknown kind of address."""
    if len(data) < 4 or data[2]:  # FRAG: a relay that does not reassemble MUST drop what is not 0.
        return None
    taken = _take_address(data, 3)
    if taken is None or isinstance(taken, Reply):
        return None
    host, port, end = taken
    return Datagram(host, port, bytes(data[end:]))


def encode_datagram(address: bytes, port: int, payload: bytes) -> bytes:
    """Return a datagram for a client; it came from this address (4 or 16 bytes) and port."""
    return bytes(3) + pack_address(address, port) + payload


def _take_address(data: bytes | bytearray, at: int) -> tuple[str | bytes, int, int] | Reply | None:
    """Return (host, port, end) of ``ATYP ADDR PORT``; None: too short; NO_ADDRESS_TYPE: no such ATYP."""
    if len(data) <= at:
        return None
    kind = data[at]
    begin = at + 1
    if kind == _NAME:
        if len(data) <= begin:
            return None
        size = data[begin]
        begin += 1
    elif kind in _ADDRESS_BYTES:
        size = _ADDRESS_BYTES[kind]
    else:
        return Reply.NO_ADDRESS_TYPE
    end = begin + size + _PORT_BYTES
    if len(data) < end:
        return None
    raw = bytes(data[begin : begin + size])
    port = int.from_bytes(data[end - _PORT_BYTES : end], "big")
    return (raw.decode("latin-1") if kind == _NAME else raw), port, end
