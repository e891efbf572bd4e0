# SPDX-License-Identifier: Apache-2.0
"""The shared memory: frames go through whole, and whatever stands in it cannot do more than be refused."""

import os
from collections.abc import Iterator
from random import Random
from threading import Thread

import pytest

from atoll.domain.guest.ring import (
    GUEST_END,
    MEMORY_BYTES,
    SERVER_END,
    Exchange,
    Memory,
    Receiver,
    RingError,
    Sender,
)
from atoll.domain.limits import GUEST_RING_BYTES

_CONSUMED = 16


class _Both:
    """Both ends of a memory, in one process."""

    def __init__(self, *, compiled: bool) -> None:
        self.file = os.memfd_create("ring")
        os.ftruncate(self.file, MEMORY_BYTES)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.server, self.guest = Memory(self.file), Memory(self.file, self.bell)
        self.asking = Exchange(self.server, SERVER_END, compiled=compiled)
        self.answering = Exchange(self.guest, GUEST_END, compiled=compiled)
        self.out, self.back = self.asking.sender, self.asking.receiver
        self.guest_out, self.guest_in = self.answering.sender, self.answering.receiver

    def close(self) -> None:
        for memory in (self.server, self.guest, self.server):
            memory.close()
        os.close(self.file)
        os.close(self.bell)


def send(sender: Sender, frame: bytes) -> None:
    sender.begin(frame)
    sender.finish()


@pytest.fixture(params=[True, False], ids=["compiled", "python"])
def both(request: pytest.FixtureRequest) -> Iterator[_Both]:
    made = _Both(compiled=bool(request.param))
    yield made
    made.close()


@pytest.fixture
def answering(both: _Both) -> Iterator[None]:
    """A guest that answers with what it is asked, turned round, until it is asked nothing."""

    def run() -> None:
        frame = both.guest_in.receive(1 << 30)
        while frame:
            frame = both.answering.ask(frame[::-1], 1 << 30)

    thread = Thread(target=run)
    thread.start()
    yield
    send(both.out, b"")
    thread.join()


@pytest.mark.usefixtures("answering")
def test_who_asks_gets_the_answer_however_long_both_are(both: _Both) -> None:
    rng = Random(4)
    sizes = [rng.randrange(1, 300) for _ in range(3000)] + [
        GUEST_RING_BYTES - 4,
        GUEST_RING_BYTES,
        GUEST_RING_BYTES * 2,
    ]
    for size in sizes:
        frame = rng.randbytes(size)
        assert both.asking.ask(frame, 1 << 30) == frame[::-1]
    assert both.out.is_sent


def test_who_asks_waits_no_longer_than_it_said(both: _Both) -> None:
    assert both.asking.turn(b"anybody?", 100, 1) is None
    assert both.out.is_sent
    assert both.guest_in.pull(100) == b"anybody?"
    send(both.guest_out, b"here")
    assert both.asking.turn(b"at last", 100, 1) == b"here"


def test_who_asks_too_much_at_once_writes_the_rest_later(both: _Both) -> None:
    send(both.out, b"one")
    both.guest_in.receive(10)
    assert both.asking.turn(bytes(GUEST_RING_BYTES), 100, 1) is None
    assert not both.out.is_sent
    both.guest_in.pull(1 << 30)
    both.out.finish()
    assert both.guest_in.pull(1 << 30) == bytes(GUEST_RING_BYTES)


def test_who_asks_refuses_what_cannot_be(both: _Both) -> None:
    both.guest_out.begin(b"12345")
    with pytest.raises(RingError, match="too long"):
        both.asking.turn(b"?", 8, 1)


def test_who_answers_rings_the_bell_while_it_is_awaited(both: _Both) -> None:
    assert both.answering.turn(b"one", 100, 1) is None
    with pytest.raises(BlockingIOError):
        os.eventfd_read(both.bell)
    assert both.back.pull(100) == b"one"
    both.server.await_bell(awaited=True)
    assert both.answering.turn(b"two", 100, 1) is None
    assert os.eventfd_read(both.bell) == 1


def test_frames_of_all_sizes_go_through_both_ways(both: _Both) -> None:
    rng = Random(1)
    for size in (0, 1, 7, 4096, GUEST_RING_BYTES - 4, *(rng.randrange(GUEST_RING_BYTES // 3) for _ in range(50))):
        frame = rng.randbytes(size)
        assert both.out.begin(frame)
        assert both.guest_in.receive(1 << 30) == frame
        send(both.guest_out, frame[::-1])
        assert both.back.pull(GUEST_RING_BYTES) == frame[::-1]
    assert both.back.pull(1) is None


def test_a_frame_larger_than_the_ring_goes_in_parts(both: _Both) -> None:
    frame = Random(2).randbytes(3 * GUEST_RING_BYTES + 5)
    is_sent = both.out.begin(frame)
    assert not is_sent
    assert not both.out.go_on()  # There is no room before something is read.
    parts = 0
    while (came := both.guest_in.pull(1 << 30)) is None:
        parts += 1
        is_sent = both.out.go_on()
    assert (came, parts, is_sent) == (frame, 3, True)


def test_a_frame_that_comes_in_crumbs(both: _Both) -> None:
    words, content = both.server.words, both.server.content
    frame = (5).to_bytes(4, "little") + b"crumb"
    came: bytes | None = None
    for at, byte in enumerate(frame):
        content[4096 + GUEST_RING_BYTES + at] = byte
        words[GUEST_END[0]] = at + 1
        came = both.back.pull(5)
    assert came == b"crumb"


def test_waiting_ends_at_once_where_there_is_news_and_else_with_its_time(both: _Both) -> None:
    both.back.wait(1)
    both.out.begin(b"x")
    both.guest_in.wait()
    both.out.wait(1)


def test_a_long_frame_is_written_by_send_while_somebody_reads(both: _Both) -> None:
    frame = bytes(4 * GUEST_RING_BYTES)
    writing = Thread(target=send, args=(both.guest_out, frame))
    writing.start()
    assert both.back.receive(1 << 30) == frame
    writing.join()


def test_the_bell_rings_only_while_it_is_awaited(both: _Both) -> None:
    both.guest_out.begin(b"one")
    with pytest.raises(BlockingIOError):
        os.eventfd_read(both.bell)
    both.server.await_bell(awaited=True)
    assert both.back.pull(10) == b"one"
    both.guest_out.begin(b"two")
    assert os.eventfd_read(both.bell) == 1
    both.server.await_bell(awaited=False)
    assert both.back.pull(10) == b"two"


def test_it_is_known_whether_a_frame_was_read(both: _Both) -> None:
    both.out.begin(b"one")
    assert both.out.is_untouched
    both.guest_in.receive(10)
    assert not both.out.is_untouched


@pytest.mark.parametrize("produced", [GUEST_RING_BYTES + 1, 1 << 31, (1 << 32) - 1])
def test_a_counter_that_cannot_be_is_refused(both: _Both, produced: int) -> None:
    both.server.words[GUEST_END[0]] = produced
    with pytest.raises(RingError, match="room"):
        both.back.pull(1 << 30)


def test_a_reader_that_claims_too_much_is_refused(both: _Both) -> None:
    both.server.words[SERVER_END[0] + _CONSUMED] = 5
    with pytest.raises(RingError, match="read more"):
        both.out.begin(b"x")


@pytest.mark.parametrize("whole", [True, False])
def test_a_frame_that_is_too_long_is_refused_before_it_is_read(both: _Both, whole: bool) -> None:
    both.guest_out.begin(bytes(1000))
    if not whole:
        both.server.words[GUEST_END[0]] -= 1
    with pytest.raises(RingError, match="too long"):
        both.back.pull(999)


def test_more_than_one_frame_is_refused(both: _Both) -> None:
    both.guest_out.begin(b"one")
    both.guest_out.begin(b"two")
    with pytest.raises(RingError, match="more than was asked"):
        both.back.pull(100)


def test_rubbish_anywhere_raises_nothing_else(both: _Both) -> None:
    rng = Random(3)
    outcomes = {"frame": 0, "nothing": 0, "refused": 0}
    for _ in range(300):
        sender, receiver = Sender(both.server, SERVER_END[0]), Receiver(both.server, SERVER_END[1])
        both.server.content[:4096] = rng.randbytes(4096) if rng.random() < 0.5 else bytes(4096)
        if rng.random() < 0.7:
            both.server.words[GUEST_END[0]] = rng.randrange(12)
        at = 4096 + GUEST_RING_BYTES
        both.server.content[at : at + 8] = bytes([rng.randrange(9), 0, 0, 0]) * 2
        try:
            sender.begin(b"hello")
            outcomes["nothing" if receiver.pull(64) is None else "frame"] += 1
        except RingError:
            outcomes["refused"] += 1
    assert all(outcomes.values()), outcomes
