# SPDX-License-Identifier: Apache-2.0
"""What the proxy answers, in both of its protocols, and which end of a request is told in which words. Pure.

SOCKS5 has one byte for a reason, HTTP a status and room for a line that names a code of the catalogue and the remedy.
The table is in docs/howto/proxy.md too, and a test holds the two together.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from http import HTTPStatus
from typing import Final

from atoll.conduit.names import Missing
from atoll.conduit.stream import Reason

__all__ = [
    "DENIALS",
    "Denial",
    "Reply",
    "Speech",
    "accepted",
    "denied",
    "pack_address",
    "refused_http",
    "refused_socks",
]

_SOCKS5: Final = 5
_IPV4, _IPV6 = 1, 4  # ATYP.
_IPV4_BYTES: Final = 4
_NOWHERE: Final = bytes(4)  # BND.ADDR 0.0.0.0, where there is no address to tell.


class Speech(Enum):
    """Which of the two protocols a client speaks."""

    SOCKS5 = "socks5"
    HTTP = "http"


class Reply(IntEnum):
    """Reply codes of SOCKS5 (RFC 1928, section 6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    HOST_UNREACHABLE = 4
    REFUSED = 5
    NO_COMMAND = 7
    NO_ADDRESS_TYPE = 8


@dataclass(frozen=True, slots=True)
class Denial:
    """One way to be refused, in both protocols.

    Attributes:
        reply: For SOCKS.
        status: For HTTP.
        code: Of the catalogue.
        sentence: What happened; ``{}`` is the target.
        fix: What to do.
    """

    reply: Reply
    status: HTTPStatus
    code: str
    sentence: str
    fix: str


DENIALS: Final[dict[Reason | Missing, Denial]] = {
    Missing.OUTSIDE: Denial(
        Reply.NOT_ALLOWED,
        HTTPStatus.FORBIDDEN,
        "A430",
        "{} is outside the overlay",
        "use this proxy for members only, by name: atoll status",
    ),
    Missing.UNKNOWN: Denial(
        Reply.HOST_UNREACHABLE, HTTPStatus.BAD_GATEWAY, "A210", "no member is meant by {}", "see: atoll status"
    ),
    Reason.RESET: Denial(
        Reply.GENERAL_FAILURE,
        HTTPStatus.BAD_GATEWAY,
        "A499",
        "the member gave up on {}",
        "try again, or see: atoll status",
    ),
    Reason.REFUSED: Denial(
        Reply.REFUSED,
        HTTPStatus.BAD_GATEWAY,
        "A431",
        "nothing listens at {}",
        "start the service there, on 127.0.0.1, or name the port that it has",
    ),
    Reason.FORBIDDEN: Denial(
        Reply.NOT_ALLOWED,
        HTTPStatus.FORBIDDEN,
        "A432",
        "the member does not let this node reach {}",
        "ask whoever runs that member",
    ),
    Reason.NO_SERVICE: Denial(
        Reply.GENERAL_FAILURE,
        HTTPStatus.BAD_GATEWAY,
        "A208",
        "the member of {} does not know this version's request",
        "bring both to the same version of atoll",
    ),
    Reason.LIMIT: Denial(
        Reply.GENERAL_FAILURE,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "A499",
        "too much is open at once, here or at the member, for {}",
        "close some connections, and try again",
    ),
    Reason.UNREACHABLE: Denial(
        Reply.HOST_UNREACHABLE, HTTPStatus.GATEWAY_TIMEOUT, "A406", "no answer in time for {}", "see: atoll status"
    ),
}
"""Every end that a request may meet before its bytes flow."""


def accepted(speech: Speech, address: bytes = _NOWHERE, port: int = 0) -> bytes:
    """Return the answer that ends a handshake well.

    Args:
        speech: In which protocol.
        address: Where a SOCKS client should send its datagrams, 4 or 16 bytes; all zero: it asked for a connection.
        port: The port there.
    """
    if speech is Speech.HTTP:
        return b"HTTP/1.1 200 Connection established\r\n\r\n"  # RFC 9110, 9.3.6: without Content-Length.
    return _reply(Reply.SUCCEEDED, address, port)


def denied(speech: Speech, target: str, denial: Denial) -> bytes:
    """Return the answer to a request that is refused. HTTP clients also get one line that people can read.

    Args:
        speech: In which protocol.
        target: What was asked for, as printing ASCII in one line.
        denial: Why it is refused.
    """
    if speech is Speech.SOCKS5:
        return refused_socks(denial.reply)
    return _http(denial.status, denial.code, denial.sentence.format(target), denial.fix)


def refused_socks(reply: Reply) -> bytes:
    """Return the answer to a SOCKS5 request that is refused as it stands."""
    return _reply(reply, _NOWHERE, 0)


def refused_http(status: HTTPStatus) -> bytes:
    """Return the answer to an HTTP request that is refused as it stands; ``status`` is one of four."""
    fix = "make the program tunnel (curl --proxytunnel), or use socks5h://"
    return _http(status, "A433", _UNFIT[status], fix)


def pack_address(address: bytes, port: int) -> bytes:
    """Return ``ATYP ADDR PORT`` of RFC 1928 for an address of 4 or 16 bytes."""
    kind = _IPV4 if len(address) == _IPV4_BYTES else _IPV6
    return bytes([kind]) + address + port.to_bytes(2, "big")


def _reply(reply: Reply, address: bytes, port: int) -> bytes:
    return bytes([_SOCKS5, reply, 0]) + pack_address(address, port)


_UNFIT: Final = {
    HTTPStatus.BAD_REQUEST: "this is neither SOCKS5 nor CONNECT HOST:PORT",
    HTTPStatus.METHOD_NOT_ALLOWED: "this proxy takes only CONNECT",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "the header is too long",
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: "this proxy speaks HTTP/1",
}


def _http(status: HTTPStatus, code: str, sentence: str, fix: str) -> bytes:
    body = f"{code}: {sentence}; fix: {fix}\n".encode("ascii")
    fields = [f"HTTP/1.1 {status.value} {status.phrase}"]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        fields.append("Allow: CONNECT")  # RFC 9110, 15.5.6: it MUST be there.
    fields += ["Content-Type: text/plain", f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(fields).encode("ascii") + body
