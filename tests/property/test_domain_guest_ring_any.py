# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in the memory that a guest shares: the compiled way and Python's do the same, and refuse the same."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.guest.ring import GUEST_END, MEMORY_BYTES, SERVER_END, Exchange, Memory, RingError
from atoll.domain.limits import GUEST_RING_BYTES

_PAGE, _CONSUMED = 4096, 16
Turn = tuple[bytes, int, int, bytes, int]

# What is as it should be comes often, or nothing would ever go through.
counts = st.sampled_from([0] * 12 + [1, -1, 4, GUEST_RING_BYTES, -GUEST_RING_BYTES, 1 << 31])
shifts = st.sampled_from([0, 1, 40, GUEST_RING_BYTES - 30, GUEST_RING_BYTES - 5, (1 << 32) - 20])
frames = st.one_of(st.binary(max_size=60), st.just(bytes(GUEST_RING_BYTES - 4)), st.just(bytes(GUEST_RING_BYTES - 3)))
texts = st.binary(max_size=40).map(lambda text: len(text).to_bytes(4, "little") + text)
answers = st.one_of(texts, texts, st.tuples(texts, texts).map(b"".join), st.binary(max_size=60))


@dataclass
class _Seen:
    """What came of some turns."""

    outcomes: list[object]
    memory: bytes
    counters: tuple[int, int]
    is_sent: bool


@contextmanager
def _memory() -> Generator[Memory]:
    file = os.memfd_create("ring")
    os.ftruncate(file, MEMORY_BYTES)
    memory = Memory(file)
    os.close(file)
    try:
        yield memory
    finally:
        memory.close()


def _played(turns: list[Turn], shift: int, *, compiled: bool) -> _Seen:
    """Ask again and again, from some place in the rings on, while somebody writes what it likes into them."""
    with _memory() as memory:
        exchange = Exchange(memory, SERVER_END, compiled=compiled)
        sender, receiver = exchange.sender, exchange.receiver
        out, back = SERVER_END
        sender.produced = receiver.consumed = shift
        for word in (out, out + _CONSUMED, back, back + _CONSUMED):
            memory.words[word] = shift
        outcomes: list[object] = []
        for frame, read, produced, answer, bytes_max in turns:
            memory.words[out + _CONSUMED] = (sender.produced + read) & 0xFFFFFFFF
            at = receiver.consumed % GUEST_RING_BYTES
            ring = _PAGE + GUEST_RING_BYTES
            room = answer[: GUEST_RING_BYTES - at]
            memory.content[ring + at : ring + at + len(room)] = room
            memory.words[back] = (receiver.consumed + len(answer) + produced) & 0xFFFFFFFF
            try:
                outcomes.append(exchange.turn(frame, bytes_max, 1))
            except RingError as error:
                outcomes.append(str(error))
                break
            if not sender.is_sent:
                break
        return _Seen(outcomes, bytes(memory.content), (sender.produced, receiver.consumed), sender.is_sent)


@given(
    st.lists(st.tuples(frames, counts, counts, answers, st.sampled_from([0, 8, 20, 80]))),
    shifts,
)
def test_both_ways_do_the_same_with_whatever_is_there(turns: list[Turn], shift: int) -> None:
    assert _played(turns, shift, compiled=True) == _played(turns, shift, compiled=False)


@given(st.lists(st.binary(max_size=200), max_size=8), shifts)
def test_what_is_sent_comes_whole(texts: list[bytes], shift: int) -> None:
    with _memory() as memory:
        asking, answering = Exchange(memory, SERVER_END), Exchange(memory, GUEST_END)
        for end in (asking, answering):
            end.sender.produced = end.receiver.consumed = shift
            memory.words[end.sender.first] = memory.words[end.sender.first + _CONSUMED] = shift
        for text in texts:
            answering.sender.begin(text[::-1])
            assert asking.turn(text, 1 << 20, 1) == text[::-1]
            assert answering.receiver.pull(1 << 20) == text
