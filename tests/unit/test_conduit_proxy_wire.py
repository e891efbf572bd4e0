# SPDX-License-Identifier: Apache-2.0
"""The first bytes of a proxy's client: which are a request, which are refused and with what answer."""

import re
from http import HTTPStatus
from pathlib import Path

import pytest

from atoll.base.errors import UsageError
from atoll.base.problems import PROBLEMS
from atoll.conduit.limits import PROXY_HEADER_BYTES_MAX, PROXY_HEADER_LINES_MAX
from atoll.conduit.names import Missing
from atoll.conduit.proxy_answer import DENIALS, Speech, accepted, denied, refused_http
from atoll.conduit.proxy_wire import (
    Command,
    Datagram,
    Handshake,
    Refuse,
    Request,
    Say,
    decode_datagram,
    encode_datagram,
)
from atoll.conduit.stream import Reason

HOWTO = (Path(__file__).parents[2] / "docs/howto/proxy.md").read_text()
METHOD = Say(b"\5\0")
HELLO = b"\5\1\0"
OVERLAY = b"\xfd" + bytes(14) + b"\7"


def status_of(step: object) -> int:
    assert isinstance(step, Refuse)
    matched = re.match(rb"HTTP/1\.1 (\d{3}) [^\r\n]+\r\n", step.data)
    assert matched is not None
    return int(matched[1])


def only_step(data: bytes) -> object:
    (step,) = Handshake().feed(data)
    return step


@pytest.mark.parametrize(
    ("said", "host", "port"),
    [
        (b"\5\1\0\3\5web-1\x01\xbb", "web-1", 443),
        (b"\5\1\0\1\x7f\0\0\1\0\x50", b"\x7f\0\0\1", 80),
        (b"\5\1\0\4" + OVERLAY + b"\xff\xff", OVERLAY, 65535),
        (b"\5\1\xff\3\1a\0\1", "a", 1),  # RSV means nothing.
        (b"\5\1\0\3\0\0\1", "", 1),  # No member has that name; nothing to refuse here.
        (b"\5\1\0\3\2\xe9\n\0\1", "\xe9\n", 1),
    ],
)
def test_socks5_connect(said: bytes, host: str | bytes, port: int) -> None:
    handshake = Handshake()
    assert handshake.feed(HELLO) == (METHOD,)
    assert handshake.feed(said + b"data") == (Request(Speech.SOCKS5, Command.CONNECT, host, port),)
    assert handshake.rest == b"data"


def test_socks5_takes_a_request_that_does_not_wait_for_the_method() -> None:
    handshake = Handshake()
    steps = handshake.feed(b"\5\2\2\0" + b"\5\3\0\1\0\0\0\0\0\0")
    assert steps == (METHOD, Request(Speech.SOCKS5, Command.ASSOCIATE, bytes(4), 0))
    assert handshake.rest == b""


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"\5\1\2", b"\5\xff"),  # Only with a password.
        (b"\5\0", b"\5\xff"),
        (HELLO + b"\5\2\0\1\1\2\3\4\0\1", b"\5\7\0\1" + bytes(6)),  # BIND.
        (HELLO + b"\5\0\0\1\1\2\3\4\0\1", b"\5\7\0\1" + bytes(6)),
        (HELLO + b"\5\1\0\2", b"\5\10\0\1" + bytes(6)),  # An unknown kind of address.
        (HELLO + b"\4", b"\5\1\0\1" + bytes(6)),  # Another version after the greeting.
        (HELLO + b"\5\1\0\3\1a\0\0", b"\5\5\0\1" + bytes(6)),  # Port 0: nothing can listen there.
        (b"\4\1\0\x50\1\2\3\4me\0", b"\0\x5b" + bytes(6)),  # SOCKS4.
    ],
)
def test_what_socks_refuses(said: bytes, answer: bytes) -> None:
    *before, last = Handshake().feed(said)
    assert last == Refuse(answer)
    assert before in ([], [METHOD])


@pytest.mark.parametrize("said", [b"", b"\5", b"\5\2\0", HELLO, HELLO + b"\5\1\0", HELLO + b"\5\1\0\3\5web-1\0"])
def test_socks_waits_for_the_rest(said: bytes) -> None:
    assert all(isinstance(step, Say) for step in Handshake().feed(said))


@pytest.mark.parametrize(
    ("said", "host", "port"),
    [
        (b"CONNECT web-1:443 HTTP/1.1\r\nHost: web-1:443\r\n\r\n", "web-1", 443),
        (b"CONNECT web-1.lab.atoll:1 HTTP/1.0\r\n\r\n", "web-1.lab.atoll", 1),
        (b"\r\nCONNECT [fd00::7]:00080 HTTP/1.1\nX: \xe9\ty\nEmpty:\n\n", "fd00::7", 80),
        (b"CONNECT 192.0.2.1:65535 HTTP/1.9\r\n\r\n", "192.0.2.1", 65535),
    ],
)
def test_http_connect(said: bytes, host: str, port: int) -> None:
    handshake = Handshake()
    assert handshake.feed(said + b"\x16\x03data") == (Request(Speech.HTTP, Command.CONNECT, host, port),)
    assert handshake.rest == b"\x16\x03data"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET http://web-1/ HTTP/1.1\r\nHost: web-1\r\n\r\n", 405),
        (b"connect web-1:80 HTTP/1.1\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"\x16\3\1", 400),  # TLS.
        (b"\0", 400),
        (b"hello\r\n", 400),
        (b"CONNECT web-1:80\r\n", 400),
        (b"CONNECT  web-1:80 HTTP/1.1\r\n", 400),
        (b"CONNECT web-1 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT web-1: HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT web-1:0 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT web-1:65536 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT :80 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT me@web-1:80 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT http://web-1:80/ HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT fd00::7:80 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT [abc]:80 HTTP/1.1\r\n\r\n", 400),  # Or a member called abc would have a second name.
        (b"CONNECT a:80 HTTP/1.1\r\nno field\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nA: x\r\n folded\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nA: x\ry\r\n\r\n", 400),
    ],
)
def test_what_http_refuses(said: bytes, status: int) -> None:
    assert status_of(only_step(said)) == status


def test_a_405_names_what_is_allowed_and_says_one_line() -> None:
    step = only_step(b"POST /x HTTP/1.1\r\n\r\n")
    assert isinstance(step, Refuse)
    header, _, body = step.data.partition(b"\r\n\r\n")
    assert b"\r\nAllow: CONNECT\r\n" in header
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in header
    assert body.startswith(b"A433: ")
    assert body.count(b"\n") == 1
    assert b"; fix: " in body


def header_of(size_bytes: int) -> bytes:
    start = b"CONNECT a:80 HTTP/1.1\r\nX: "
    return start + b"x" * (size_bytes - len(start) - 4) + b"\r\n\r\n"


def test_a_header_of_the_longest_size_is_taken_and_a_longer_one_refused() -> None:
    assert isinstance(only_step(header_of(PROXY_HEADER_BYTES_MAX)), Request)
    assert status_of(only_step(header_of(PROXY_HEADER_BYTES_MAX + 1))) == 431
    assert Handshake().feed(b"C" * (PROXY_HEADER_BYTES_MAX - 1)) == ()
    assert status_of(only_step(b"C" * PROXY_HEADER_BYTES_MAX)) == 431
    assert status_of(only_step(b"\n" * PROXY_HEADER_BYTES_MAX)) == 431


def test_a_header_has_a_most_of_lines() -> None:
    def with_lines(count: int) -> bytes:
        return b"CONNECT a:80 HTTP/1.1\r\n" + b"a: b\r\n" * (count - 1) + b"\r\n"

    assert isinstance(only_step(with_lines(PROXY_HEADER_LINES_MAX)), Request)
    assert status_of(only_step(with_lines(PROXY_HEADER_LINES_MAX + 1))) == 431


def test_a_handshake_that_is_over_takes_no_more() -> None:
    handshake = Handshake()
    handshake.feed(b"\4")
    with pytest.raises(UsageError):
        handshake.feed(b"x")
    assert Handshake().rest == b""


def test_a_yes_says_where_datagrams_go() -> None:
    assert accepted(Speech.SOCKS5) == b"\5\0\0\1" + bytes(6)
    assert accepted(Speech.SOCKS5, b"\x7f\0\0\1", 0x1234) == b"\5\0\0\1\x7f\0\0\1\x12\x34"
    assert accepted(Speech.SOCKS5, OVERLAY, 1) == b"\5\0\0\4" + OVERLAY + b"\0\1"
    assert accepted(Speech.HTTP).startswith(b"HTTP/1.1 200 ")
    assert accepted(Speech.HTTP).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("host", "target"),
    [("web-1", "web-1:80"), (b"\x7f\0\0\1", "127.0.0.1:80"), (OVERLAY, "[fd00::7]:80"), ("\xe9\n'", "\\xe9\\n':80")],
)
def test_a_target_prints_in_one_line(host: str | bytes, target: str) -> None:
    request = Request(Speech.HTTP, Command.CONNECT, host, 80)
    assert request.target == target
    assert target.encode() in denied(Speech.HTTP, request.target, DENIALS[Missing.UNKNOWN])


@pytest.mark.parametrize("why", [*Missing, *Reason])
def test_every_end_has_an_answer_in_both_protocols_and_a_row_in_the_docs(why: Missing | Reason) -> None:
    denial = DENIALS[why]
    assert denied(Speech.SOCKS5, "a:1", denial) == bytes((5, denial.reply, 0, 1)) + bytes(6)
    told = denied(Speech.HTTP, "a:1", denial)
    assert status_of(Refuse(told)) == denial.status
    body = told.partition(b"\r\n\r\n")[2].decode()
    assert body == f"{denial.code}: {denial.sentence.format('a:1')}; fix: {denial.fix}\n"
    assert denial.code in PROBLEMS
    rows = [
        line for line in HOWTO.splitlines() if f"| {denial.reply.value} | {denial.status} | {denial.code} |" in line
    ]
    assert rows


@pytest.mark.parametrize("status", [400, 405, 431, 505])
def test_what_is_refused_as_it_stands_has_a_row_in_the_docs(status: int) -> None:
    assert status_of(Refuse(refused_http(HTTPStatus(status)))) == status
    assert f"| {status} | A433 |" in HOWTO


def test_a_datagram_there_and_back() -> None:
    assert decode_datagram(b"\0\0\0\3\3web\0\x35query") == Datagram("web", 53, b"query")
    assert decode_datagram(b"\0\0\0\1\x7f\0\0\1\0\x35") == Datagram(b"\x7f\0\0\1", 53, b"")
    assert encode_datagram(OVERLAY, 53, b"answer") == b"\0\0\0\4" + OVERLAY + b"\0\x35answer"
    assert decode_datagram(encode_datagram(OVERLAY, 53, b"answer")) == Datagram(OVERLAY, 53, b"answer")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\1\3\3web\0\x35x",
        b"\0\0\0\2\1\2\3",
        b"\0\0\0\3",
        b"\0\0\0\3\3web\0",
        b"\0\0\0\4" + OVERLAY,
    ],
)
def test_a_fragment_or_a_short_datagram_is_none(data: bytes) -> None:
    assert decode_datagram(data) is None
