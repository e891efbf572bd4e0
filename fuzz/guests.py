# SPDX-License-Identifier: Apache-2.0
"""Targets about guests: what a process says in which a stranger's handlers run. See targets.py and recording.py."""

import os
from collections.abc import Callable
from typing import Final

import msgspec

from atoll.base.errors import CorruptError, WireError
from atoll.domain.guest import messages
from atoll.domain.guest.mirror import Mirror
from atoll.domain.guest.ring import GUEST_END, MEMORY_BYTES, SERVER_END, Memory, Receiver, RingError, Sender
from atoll.domain.guest.vdso import functions_of
from atoll.env.channel import Channel, Parcel
from atoll.env.records import Note, Post
from atoll.env.state import State

__all__ = ["GUESTS"]

_ANN: Final = b"a" * 16
_encode: Final = msgspec.msgpack.Encoder().encode
_POST: Final = Post(_ANN, 1, 2, _encode([[1], [2]]))


def _answered(data: bytes) -> object:
    """Decode an answer, and take over what it says was sent."""
    answer = messages.decode_answer(data)
    mirror = Mirror()
    if isinstance(answer, messages.Done):
        mirror.took(_ANN, answer.received, 10, 0)
        mirror.forget(answer.forgotten, 0)
        mirror.sent(answer.effects, 0, 0)
    return mirror.owed()


def _shared(data: bytes) -> object:
    """Read from memory that the other side has filled: its counters first, then its ring."""
    file = os.memfd_create("ring")
    os.ftruncate(file, MEMORY_BYTES)
    memory = Memory(file)
    os.close(file)
    try:
        for number, word in enumerate((*SERVER_END, *(first + 16 for first in SERVER_END))):
            memory.words[word] = int.from_bytes(data[number * 4 : number * 4 + 4], "little")
        at = 4096 + (MEMORY_BYTES - 4096) // 2
        memory.content[at : at + max(0, len(data) - 16)] = data[16:]
        Sender(memory, SERVER_END[0]).begin(b"hello")
        return Receiver(memory, GUEST_END[0]).pull(64)
    finally:
        memory.close()


# Name, decoder, what it may raise, seeds: the fields of a Decoder.
GUESTS: Final[tuple[tuple[str, Callable[[bytes], object], tuple[type[Exception], ...], tuple[bytes, ...]], ...]] = (
    (
        "guest",
        _answered,
        (WireError,),
        (
            messages.encode_answer(messages.Done(messages.Status(1, 5, 2), (_POST, Note("n")), 1, (b"b" * 16,))),
            messages.encode_answer(messages.Fault("raised", "ValueError: no", 3)),
            messages.encode_answer(messages.Content(b"state", messages.Status())),
        ),
    ),
    (
        "mirror",
        Mirror.of,
        (CorruptError,),
        (_encode(State(channels={_ANN: Channel(2, 1, 0, [Parcel(1, 2, b"x")])})), _encode(State())),
    ),
    (
        "ring",
        _shared,
        (RingError,),
        (bytes(4) + b"\x0a\0\0\0" + bytes(8) + b"\x06\0\0\0answer", bytes(4) + b"\x03\0\0\0" + bytes(8) + b"\xff\xff"),
    ),
    ("vdso", functions_of, (), (b"\x7fELF\x02\x01" + bytes(58),)),
)
