# SPDX-License-Identifier: Apache-2.0
"""What we ask of aioquic behind its public names, joined back to back on a clock of integers. Fails if a name moves."""

from random import Random

import pytest

from atoll.base.errors import WireError
from atoll.conduit.limits import DATAGRAM_BYTES_MAX, NUDGE_PACKETS_MAX, STREAM_WINDOW_BYTES, STREAMS_MAX
from atoll.conduit.quic import (
    HandshakeCompleted,
    PeerQuic,
    QuicEvent,
    StreamDataReceived,
    client_configuration,
    first_connection_id,
    server_configuration,
)

SERVER = server_configuration()
CLIENT = client_configuration()


class Pair:
    """A client and a server without any path between them: ``carry`` moves what is due, at once."""

    def __init__(self) -> None:
        self.now = 100.0
        self.client = PeerQuic(CLIENT)
        self.client.start(self.now)
        first = self.client.drain(self.now)
        self.server = PeerQuic(SERVER, first_connection_id(first[0]))
        for datagram in first:
            self.server.feed(datagram, self.now)
        self.carry()

    def carry(self) -> int:
        """Move datagrams until nothing is due; return how many."""
        carried = 0
        while True:
            self.now += 0.002
            for side in (self.client, self.server):
                timer = side.get_timer()
                if timer is not None and timer <= self.now:
                    side.tick(self.now)
            there, back = self.client.drain(self.now), self.server.drain(self.now)
            for datagram in there:
                self.server.feed(datagram, self.now)
            for datagram in back:
                self.client.feed(datagram, self.now)
            carried += len(there) + len(back)
            if not there and not back:
                return carried


def events(side: PeerQuic) -> list[QuicEvent]:
    found: list[QuicEvent] = []
    while (event := side.next_event()) is not None:
        found.append(event)
    return found


def received(side: PeerQuic) -> bytes:
    return b"".join(event.data for event in events(side) if isinstance(event, StreamDataReceived))


def test_two_members_shake_hands_and_no_datagram_is_too_long() -> None:
    pair = Pair()
    assert any(isinstance(event, HandshakeCompleted) for event in events(pair.client))
    assert any(isinstance(event, HandshakeCompleted) for event in events(pair.server))
    pair.client.put(0, bytes(20_000), end=False)
    assert {len(datagram) <= DATAGRAM_BYTES_MAX for datagram in pair.client.drain(pair.now)} == {True}


def test_a_nudge_resends_at_once_what_was_lost_and_forgets_the_back_off() -> None:
    pair = Pair()
    pair.client.put(0, b"lost with the path", end=False)
    assert pair.client.drain(pair.now)
    for _ in range(5):  # Five silent rounds: the timer doubles each time.
        timer = pair.client.get_timer()
        assert timer is not None
        pair.now = timer
        pair.client.tick(pair.now)
        pair.client.drain(pair.now)
    backed_off = pair.client.get_timer()
    assert backed_off is not None
    assert backed_off - pair.now > 0.5

    events(pair.server)
    pair.client.nudge(pair.now)
    for datagram in pair.client.drain(pair.now):
        pair.server.feed(datagram, pair.now)
    assert received(pair.server) == b"lost with the path"
    rearmed = pair.client.get_timer()
    assert rearmed is not None
    assert rearmed - pair.now < 0.5


def test_a_nudge_does_not_shrink_the_congestion_window() -> None:
    pair = Pair()
    pair.client.put(0, bytes(8_000), end=False)
    assert len(pair.client.drain(pair.now)) >= 3  # What the pacer lets go at once.
    before = pair.client._loss.congestion_window  # pyright: ignore[reportPrivateUsage] -- what it is about.
    pair.client.nudge(pair.now)
    pair.carry()
    assert pair.client._loss.congestion_window >= before  # pyright: ignore[reportPrivateUsage]
    assert len(received(pair.server)) == 8_000


def test_a_nudge_of_an_idle_connection_sends_one_small_probe() -> None:
    pair = Pair()
    pair.client.nudge(pair.now)
    (probe,) = pair.client.drain(pair.now)
    assert len(probe) < 100
    assert NUDGE_PACKETS_MAX > 1


def test_the_window_follows_the_reader() -> None:
    pair = Pair()
    pair.client.put(0, bytes(2 * STREAM_WINDOW_BYTES), end=True)
    for _ in range(50):
        pair.carry()
    first = len(received(pair.server))
    assert first == STREAM_WINDOW_BYTES
    pair.server.note_read(0, first)
    for _ in range(50):
        pair.carry()
    assert len(received(pair.server)) == STREAM_WINDOW_BYTES


def test_unsent_bytes_are_those_that_never_left() -> None:
    pair = Pair()
    pair.client.put(0, bytes(100_000), end=False)
    before = pair.client.unsent_bytes(0, 100_000)
    pair.client.drain(pair.now)
    after = pair.client.unsent_bytes(0, 100_000)
    assert before == 100_000
    assert 0 < after < before
    assert pair.client.unsent_bytes(4, 0) == 0


def test_only_so_many_streams_are_let_in() -> None:
    pair = Pair()
    for number in range(STREAMS_MAX + 1):
        pair.client.put(4 * number, b"x", end=False)
    pair.carry()
    opened = {event.stream_id for event in events(pair.server) if isinstance(event, StreamDataReceived)}
    assert len(opened) == STREAMS_MAX


def test_bytes_for_a_stream_that_is_no_longer_wanted_are_dropped_quietly() -> None:
    pair = Pair()
    pair.client.put(0, b"x", end=False)
    pair.carry()
    pair.server.stop(0, 1)
    pair.carry()
    pair.client.put(0, b"nobody reads this", end=False)
    pair.client.put(4, b"y", end=True)
    pair.carry()
    assert pair.client.foreign_fault is None
    assert pair.server.knows(4)
    pair.server.stop(400, 1)


def test_garbage_at_any_point_raises_nothing() -> None:
    draws = Random(5)
    pair = Pair()
    for size in (0, 1, 19, 21, 300, 1200, 1500):
        pair.server.feed(draws.randbytes(size), pair.now)
        pair.client.feed(b"\x40" + draws.randbytes(size), pair.now)
    fresh = PeerQuic(SERVER, b"12345678")
    assert fresh.drain(pair.now) == []
    fresh.feed(draws.randbytes(1200), pair.now)
    assert fresh.drain(pair.now) == []
    pair.client.put(0, b"still works", end=False)
    pair.carry()
    assert received(pair.server) == b"still works"


def test_only_a_full_sized_initial_opens() -> None:
    with pytest.raises(WireError, match="short"):
        first_connection_id(bytes(1199))
    with pytest.raises(WireError):
        first_connection_id(bytes(1200))
    with pytest.raises(WireError, match="kind"):
        first_connection_id(b"\x40" + bytes(1199))
