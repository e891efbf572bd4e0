# SPDX-License-Identifier: Apache-2.0
"""Any bytes are a request, a refusal, or wait for more; and how they were cut into pieces makes no difference."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from atoll.base.ids import GroupId
from atoll.base.member import Member
from atoll.conduit.limits import PROXY_HEADER_BYTES_MAX
from atoll.conduit.names import TOP, Book, Missing, resolve
from atoll.conduit.proxy_answer import DENIALS, denied
from atoll.conduit.proxy_wire import Handshake, Request, Say, Step, decode_datagram, encode_datagram

BOOK = Book(
    GroupId(b"g" * 32),
    "lab",
    Member(b"h" * 32, bytes(32), "home"),
    (Member(b"w" * 32, bytes(32), "web-1"),),
)
names = st.sampled_from([b"web-1", b"HOME.lab.atoll.", b"www.example.com", b"fd00::1", b"\xff", b""])
ports = st.integers(0, 65535)


def socks_of(methods: bytes, command: int, name: bytes, port: int, rest: bytes) -> bytes:
    address = bytes((5, command, 0, 3, len(name))) + name + port.to_bytes(2, "big")
    return bytes((5, len(methods))) + methods + address + rest


def http_of(line: tuple[bytes, bytes, int, bytes], fields: list[bytes], rest: bytes) -> bytes:
    return b"%s %s:%d HTTP/%s\r\n%s\r\n%s" % (*line, b"".join(fields), rest)


tails = st.binary(max_size=40)
method_lists = st.one_of(st.just(b"\0"), st.binary(max_size=255))
socks = st.builds(socks_of, method_lists, st.integers(0, 4), names, ports, tails)
methods = st.sampled_from([b"CONNECT", b"GET", b"\r\nCONNECT", b"C ONNECT"])
versions = st.sampled_from([b"1.1", b"1.0", b"2.0", b"x"])
fields = st.lists(st.sampled_from([b"Host: x\r\n", b"A:\n", b" folded\r\n", b"bad\r\n", b"X: \0\r\n"]), max_size=70)
http = st.builds(http_of, st.tuples(methods, names, ports, versions), fields, tails)
long = st.integers(PROXY_HEADER_BYTES_MAX - 2, PROXY_HEADER_BYTES_MAX + 2).map(
    lambda size: b"CONNECT a:1 HTTP/1.1\r\nX:" + b"x" * (size - 28) + b"\r\n\r\nrest"
)
noise = st.binary(max_size=200)
begun = st.tuples(st.sampled_from([b"\5\1\0\5", b"\4", b"CONNECT "]), noise).map(b"".join)
said = st.one_of(socks, http, long, noise, begun)


def outcome(pieces: Sequence[bytes]) -> tuple[bytes, Step | None, bytes]:
    """Return what was said before the end, the end, and what is left for the tunnel."""
    handshake, sayings = Handshake(), b""
    for number, piece in enumerate(pieces):
        for step in handshake.feed(piece):
            if not isinstance(step, Say):
                rest = handshake.rest + b"".join(pieces[number + 1 :])
                return sayings, step, rest if isinstance(step, Request) else b""
            sayings += step.data
    return sayings, None, b""


@given(data=said, cuts=st.lists(st.integers(0, 9000), max_size=8))
@example(data=b"CONNECT a:1 HTTP/1.1\r\n\r\n", cuts=[21, 22, 23])
def test_any_cut_gives_the_same_outcome(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[first:last] for first, last in pairwise(edges)]
    assert outcome(pieces) == outcome([data])


@given(data=st.one_of(socks, http, noise, begun))
def test_single_bytes_give_the_same_outcome(data: bytes) -> None:
    assert outcome([data[at : at + 1] for at in range(len(data))]) == outcome([data])


@given(data=said)
def test_any_bytes_have_an_outcome_and_every_request_a_place_or_an_answer(data: bytes) -> None:
    _, end, _ = outcome([data])
    if isinstance(end, Request):
        found = BOOK.locate(end.host)
        if isinstance(found, Missing):
            assert denied(end.speech, end.target, DENIALS[found]).isascii() or end.speech.value == "socks5"


@given(data=st.one_of(noise, st.binary(max_size=40).map(lambda tail: b"\0\0\0" + tail)))
def test_a_datagram_decodes_to_none_or_to_what_encodes_to_it(data: bytes) -> None:
    datagram = decode_datagram(data)
    if datagram is not None and isinstance(datagram.host, bytes):
        assert encode_datagram(datagram.host, datagram.port, datagram.payload) == b"\0\0\0" + data[3:]


labels = st.text(alphabet="wW-1eb.atolABC\u212a%:[]", max_size=30)


@given(
    name=st.one_of(labels, st.text(max_size=300), st.sampled_from(["web-1", "home"])), dot=st.sampled_from(["", "."])
)
def test_any_text_is_a_member_or_none_and_case_and_dot_do_not_matter(name: str, dot: str) -> None:
    found = resolve(name, BOOK.members, "lab", BOOK.own)
    assert found in (None, BOOK.own.node, *(member.node for member in BOOK.members))
    if found is not None:
        assert name.isascii()
        bare = name.removesuffix(".")
        assert resolve(bare.upper() + dot, BOOK.members, "lab", BOOK.own) == found
        assert bare.lower().partition(".")[2] in {"", TOP, f"lab.{TOP}"}


@given(host=st.one_of(st.binary(max_size=20), st.text(max_size=40)))
def test_any_host_is_located_or_missing(host: str | bytes) -> None:
    empty = Book(BOOK.group, "lab", BOOK.own, ())
    assert isinstance(empty.locate(host), Missing | bytes)
