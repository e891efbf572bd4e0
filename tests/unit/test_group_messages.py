# SPDX-License-Identifier: Apache-2.0
"""Wire messages: tags, room for later versions, and packing."""

import msgspec
import pytest

from atoll.base.errors import UsageError, WireError
from atoll.group.limits import CONTROL_BYTES_MAX
from atoll.group.messages import (
    GROUP_TAGS,
    Digest,
    GroupMessage,
    Hello,
    JoinRefused,
    Line,
    Push,
    Refused,
    Summary,
    decode,
    encode,
    packed,
)
from atoll.group.statement import Draft, Remove, Statement

MESSAGES: list[GroupMessage] = [
    Hello(1, 1, (1 << 63) - 1, 1_800_000_000, "0.1.0"),
    Refused(6, 7, 1, 1, "0.1.0"),
    Digest(7, b"d" * 16),
    Summary(answer=True, first=bytes(8), last=b"\xff" * 8, lines=(Line(b"i" * 8, 3, b"l" * 8, 0, b""),)),
    Push(()),
    JoinRefused(1, 1, 1),
]


def statement(counter: int) -> Statement:
    return Draft(b"k" * 32, counter, b"p" * 32, Remove(b"n" * 10, b"s" * 32, (b"h" * 32,))).with_signature(b"g" * 64)


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_survive_the_wire(message: GroupMessage) -> None:
    payload = encode(message)
    assert decode(payload) == message
    assert payload[0] >> 4 == 9
    assert payload[1] in GROUP_TAGS


@pytest.mark.parametrize(
    "payload", [b"", b"\x90", b"\x91\x20", b"\x91\x01", bytes(1201), encode(MESSAGES[2]) + b"\x00"]
)
def test_other_bytes_are_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode(payload)


def test_a_later_hello_is_still_understood() -> None:
    later = msgspec.msgpack.encode([32, 5, 9, 7, 1_800_000_000, "9.0", "something new", {}])
    assert decode(later) == Hello(5, 9, 7, 1_800_000_000, "9.0")
    assert decode(msgspec.msgpack.encode([33, 5, 7, 5, 9, "9.0", 1])) == Refused(5, 7, 5, 9, "9.0")
    with pytest.raises(WireError):
        decode(msgspec.msgpack.encode([34, 7, b"d" * 16, "something new"]))


def test_packing_loses_nothing_and_keeps_the_bound() -> None:
    items = [statement(counter) for counter in range(1, 40)]
    starts: list[int] = []

    def wrap(start: int, part: tuple[Statement, ...]) -> Push:
        starts.append(start)
        return Push(part)

    messages = packed(items, wrap)
    assert all(len(message) <= CONTROL_BYTES_MAX for message in messages)
    pushes = [decode(message) for message in messages]
    assert [s for push in pushes if isinstance(push, Push) for s in push.statements] == items
    assert len(messages) == 8  # Five of 236 bytes each.
    assert starts[1:] == [0, 5, 10, 15, 20, 25, 30, 35]
    assert packed([], wrap) == []


def test_an_own_message_that_is_too_long_is_a_bug() -> None:
    with pytest.raises(UsageError):
        encode(Push(tuple(statement(counter) for counter in range(1, 9))))
