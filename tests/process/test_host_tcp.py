# SPDX-License-Identifier: Apache-2.0
"""Datagrams over real TCP connections, on loopback."""

import select
import socket
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import LinkError
from atoll.base.ids import Endpoint
from atoll.host.tcp import FRAME_BYTES_MAX, FRAME_BYTES_MIN, PREFACE, QUEUE_BYTES_MAX, TcpListener, TcpStream
from atoll.host.udp import Sent

pytestmark = pytest.mark.process

WAIT_S = 5.0


@pytest.fixture(params=["tcp/127.0.0.1", "tcp/::1"])
def listener(request: pytest.FixtureRequest) -> Generator[TcpListener]:
    made = TcpListener((request.param, 0))
    yield made
    made.close()


@pytest.fixture
def pair(listener: TcpListener) -> Generator[tuple[TcpStream, TcpStream]]:
    ours = TcpStream.dial(listener.endpoint)
    assert select.select([listener], [], [], WAIT_S)[0]
    theirs = listener.accept()
    assert theirs is not None
    yield ours, theirs
    ours.close()
    theirs.close()


def exchanged(sender: TcpStream, receiver: TcpStream, count: int) -> list[bytes]:
    """Return so many datagrams of the receiver, while the sender is flushed as a selector would have it."""
    found: list[bytes] = []
    while len(found) < count:
        readable, writable, _ = select.select([receiver], [sender] if sender.is_waiting else [], [], WAIT_S)
        assert readable or writable, f"{len(found)} of {count} came"
        if writable:
            sender.flush()
        if readable:
            found += receiver.receive()
    return found


def test_datagrams_arrive_whole_and_in_order(pair: tuple[TcpStream, TcpStream]) -> None:
    ours, theirs = pair
    pieces = [bytes([number]) * size for number, size in enumerate((FRAME_BYTES_MIN, 1400, FRAME_BYTES_MAX, 77))]
    for piece in pieces:
        assert ours.send(piece, len(piece)) is Sent.OK
    assert exchanged(ours, theirs, 4) == pieces
    assert (ours.is_connected, ours.is_waiting) == (True, False)
    assert ours.endpoint[0] == theirs.endpoint[0]


def test_a_burst_is_cut(pair: tuple[TcpStream, TcpStream]) -> None:
    ours, theirs = pair
    data = b"".join(bytes([number]) * 100 for number in range(5)) + b"e" * 40
    theirs.send(memoryview(data), 100)
    assert exchanged(theirs, ours, 6) == [data[at : at + 100] for at in range(0, len(data), 100)]


def test_what_nobody_reads_is_dropped_at_the_limit_and_the_rest_arrives(pair: tuple[TcpStream, TcpStream]) -> None:
    ours, theirs = pair
    piece = b"p" * 60_000
    sent = 0
    for _ in range(10_000):
        if ours.send(piece, len(piece)) is Sent.FULL:
            break
        sent += 1
    else:
        pytest.fail("it took everything")
    assert sent * len(piece) > QUEUE_BYTES_MAX
    assert exchanged(ours, theirs, sent) == [piece] * sent
    assert ours.send(piece, len(piece)) is Sent.OK


def _read_to_the_end(stream: TcpStream) -> None:
    while select.select([stream], [], [], WAIT_S)[0]:
        stream.receive()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "preface"),
        (b"atoll/2\n", "preface"),
        (PREFACE + b"\0\0", "frame"),
        (PREFACE + bytes((0, FRAME_BYTES_MIN - 1)), "frame"),
        (b"", "ended"),
        (PREFACE[:3], "ended"),
    ],
)
def test_who_does_not_keep_to_the_form_is_cut_off(listener: TcpListener, said: bytes, reason: str) -> None:
    host, port = listener.endpoint
    with socket.create_connection((host.removeprefix("tcp/"), port), timeout=WAIT_S) as stranger:
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        assert select.select([listener], [], [], WAIT_S)[0]
        stream = listener.accept()
        assert stream is not None
        with pytest.raises(LinkError, match=reason):
            _read_to_the_end(stream)
        stream.close()


def test_nobody_at_home_is_told() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # And does not listen.
        there: Endpoint = ("tcp/127.0.0.1", bound.getsockname()[1])
        stream = TcpStream.dial(there)
        assert select.select([], [stream], [], WAIT_S)[1]
        with pytest.raises(LinkError, match="ECONNREFUSED"):
            stream.flush()
        stream.close()


@pytest.mark.parametrize(("host", "reason"), [("tcp/example.org", "EADDRNOTAVAIL"), ("tcp/192.0.2.1", "EADDRNOTAVAIL")])
def test_only_an_address_of_this_machine_is_listened_at(host: str, reason: str) -> None:
    with pytest.raises(LinkError, match=reason):
        TcpListener((host, 0))


@given(
    sizes=st.lists(st.integers(FRAME_BYTES_MIN, 300), max_size=20),
    cuts=st.lists(st.integers(1, 64), min_size=1, max_size=40),
)
def test_frames_do_not_care_how_the_network_cuts(sizes: list[int], cuts: list[int]) -> None:
    far, near = socket.socketpair()
    stream = TcpStream(near, ("tcp/192.0.2.1", 1), is_connected=True)
    pieces = [bytes([index]) * size for index, size in enumerate(sizes)]
    said = PREFACE + b"".join(len(piece).to_bytes(2, "big") + piece for piece in pieces)
    found: list[bytes] = []
    at, turn = 0, 0
    while at < len(said):
        cut = cuts[turn % len(cuts)]
        far.sendall(said[at : at + cut])
        found += stream.receive()
        at, turn = at + cut, turn + 1
    assert found == pieces
    far.close()
    stream.close()
