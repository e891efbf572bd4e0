# SPDX-License-Identifier: Apache-2.0
"""Messages about who owns an environment: round trips, bounds, and nothing but WireError."""

import msgspec
import pytest

from atoll.base.errors import UsageError, WireError
from atoll.env.holding.messages import (
    HOLDING_TAGS,
    Block,
    Canvass,
    HandOver,
    HoldingMessage,
    PartStored,
    Prepare,
    Prepared,
    Promised,
    SnapshotPart,
    Store,
    Stored,
    decode,
    encode,
)
from atoll.env.limits import HOLDERS_MAX, NUMBER_MAX, PART_BYTES, STORE_BLOCKS_MAX

ENVIRONMENT = bytes(range(16))
NODE = bytes(10)
MESSAGES: tuple[HoldingMessage, ...] = (
    Store(3, 7, 2, (Block(8, 3, (NODE,), b"sealed"), Block(9, 3, (), b"s")), 6, 123, counted=True),
    Stored(3, accepted=False, number=4, echo_ns=123),
    Canvass(4, 9, 3, trial=True, transfer=False),
    Promised(3, 4, trial=True, granted=True),
    HandOver(3, (NODE, NODE)),
    SnapshotPart(3, 5, 2, (NODE,), 0, 10, b"part", 123),
    PartStored(3, 5, 4, 123),
)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_letter_comes_back_as_it_was(message: HoldingMessage) -> None:
    letter = encode(ENVIRONMENT, message)
    assert decode(letter) == (ENVIRONMENT, message)
    assert letter[17] in HOLDING_TAGS


@pytest.mark.parametrize(
    "message",
    [
        Store(0, 0, 0, (), 0, 0, counted=True),
        Store(1, 0, 0, (Block(1, 1, (), b"s"),) * (STORE_BLOCKS_MAX + 1), 0, 0, counted=True),
        Store(1, 0, 0, (Block(1, 1, (NODE,) * (HOLDERS_MAX + 1), b"s"),), 0, 0, counted=True),
        Store(1, 0, 0, (Block(1, 1, (), b""),), 0, 0, counted=True),
        Store(1, 0, 0, (Block(0, 1, (), b"s"),), 0, 0, counted=True),
        HandOver(1, (b"short",)),
        SnapshotPart(1, 1, 1, (), 0, 1, bytes(PART_BYTES + 1), 0),
        SnapshotPart(1, 1, 1, (), 0, 0, b"", 0),
        Stored(1, accepted=True, number=-1, echo_ns=0),
        PartStored(1, 0, 0, 0),
        Store(NUMBER_MAX + 1, 0, 0, (), 0, 0, counted=True),
        Store(1, NUMBER_MAX + 1, 0, (), 0, 0, counted=True),
        Store(1, 0, NUMBER_MAX + 1, (), 0, 0, counted=True),
        Store(1, 0, 0, (), NUMBER_MAX + 1, 0, counted=True),
        Store(1, 0, 0, (Block(NUMBER_MAX + 1, 1, (), b"s"),), 0, 0, counted=True),
        Store(1, 0, 0, (Block(1, NUMBER_MAX + 1, (), b"s"),), 0, 0, counted=True),
        Stored(NUMBER_MAX + 1, accepted=True, number=1, echo_ns=0),
        Stored(1, accepted=True, number=NUMBER_MAX + 1, echo_ns=0),
        Canvass(NUMBER_MAX + 1, 1, 1, trial=False, transfer=True),
        Canvass(1, NUMBER_MAX + 1, 1, trial=False, transfer=True),
        Canvass(1, 1, NUMBER_MAX + 1, trial=False, transfer=True),
        Promised(NUMBER_MAX + 1, 1, trial=False, granted=False),
        HandOver(NUMBER_MAX + 1, ()),
        HandOver(1, (), NUMBER_MAX + 1),
        SnapshotPart(NUMBER_MAX + 1, 1, 1, (), 0, 1, b"", 0),
        SnapshotPart(1, NUMBER_MAX + 1, 1, (), 0, 1, b"", 0),
        SnapshotPart(1, 1, NUMBER_MAX + 1, (), 0, 1, b"", 0),
        Prepare(NUMBER_MAX + 1),
        Prepared(NUMBER_MAX + 1),
    ],
)
def test_what_breaks_a_bound_is_refused(message: HoldingMessage) -> None:
    with pytest.raises(WireError):
        decode(encode(ENVIRONMENT, message))


@pytest.mark.parametrize("letter", [b"", bytes(15), bytes(16), ENVIRONMENT + msgspec.msgpack.encode([200])])
def test_what_is_no_letter_is_refused(letter: bytes) -> None:
    with pytest.raises(WireError):
        decode(letter)


def test_an_environment_has_an_id_of_16_bytes() -> None:
    with pytest.raises(UsageError):
        encode(b"short", MESSAGES[0])
