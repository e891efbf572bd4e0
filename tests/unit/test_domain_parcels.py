# SPDX-License-Identifier: Apache-2.0
"""A snapshot is the same payload however it is cut, is read once, and is kept no longer than somebody needs it."""

from collections.abc import Callable
from hashlib import sha256

import msgspec
import pytest

from atoll.base.errors import CorruptError, LimitError
from atoll.domain.parcels import Answered, Parcels, Part, State, open_state
from atoll.domain.recorder import messages as to
from atoll.domain.recorder.snapshots import Signed, checks
from atoll.env.chain import Position
from atoll.env.history import SNAPSHOT_FORMAT, Snapshot
from atoll.env.holding.events import ReadSnapshot
from tests.unit.recorder_world import ENVIRONMENT, NODE, Hand

HAND = Hand()
HOLDERS = (NODE, b"other-node")


def content_of(size: int = 500) -> bytes:
    return Snapshot(SNAPSHOT_FORMAT, b"c" * 32, bytes(16), 2, HOLDERS, 3, NODE, bytes(size)).encode()


class Shelf:
    """Stands for a recorder: answers with what it is given."""

    def __init__(self, *numbers: int) -> None:
        self.contents = dict.fromkeys(numbers, content_of())
        self.asked: list[to.ReadSnapshot] = []
        self.is_full = False

    def ask(self, make: Callable[[int], to.Request], told: Answered) -> None:
        if self.is_full:
            raise LimitError("REQUESTS_MAX", 0)
        request = make(len(self.asked) + 1)
        assert isinstance(request, to.ReadSnapshot)
        self.asked.append(request)
        numbers = [number for number in self.contents if number <= request.number]
        number = max(numbers, default=0) if request.upto else request.number
        if number not in self.contents:
            told(to.Refused(request.id, to.Code.UNKNOWN, "none"))
            return
        content = self.contents[number]
        at = Position(number, 2, 10 * number, b"h" * 32)
        signature = HAND.key.sign(payload_of(number, content))
        told(to.Snapshot(request.id, number, at.head, content, at.epoch, at.events, HAND.sealer, signature))


def payload_of(number: int, content: bytes) -> bytes:
    """What is signed, by the specification."""

    return b"atoll-snapshot-1" + ENVIRONMENT + number.to_bytes(8, "little") + b"h" * 32 + sha256(content).digest()


def read(parcels: Parcels, number: int, offset: int, bytes_max: int, environment: bytes = ENVIRONMENT) -> Part | None:
    parts: list[Part | None] = []
    parcels.read(environment, ReadSnapshot(NODE, number, offset, bytes_max), parts.append)
    (part,) = parts
    return part


def whole(parcels: Parcels, number: int, bytes_max: int) -> bytes:
    payload = b""
    while True:
        part = read(parcels, number, len(payload), bytes_max)
        assert part is not None
        assert (part.offset, part.epoch, part.holders) == (len(payload), 2, HOLDERS)
        assert 0 < len(part.payload) <= bytes_max
        payload += part.payload
        if len(payload) == part.total:
            return payload


def test_a_snapshot_is_read_once_and_cut_anyhow() -> None:
    shelf = Shelf(5, 9)
    parcels = Parcels(shelf)
    one = whole(parcels, 5, 97)
    assert [request.number for request in shelf.asked] == [5]
    assert parcels.kept_bytes == 0
    assert one == whole(parcels, 5, 1_000_000) == whole(parcels, 5, 1)
    state, snapshot = open_state(one, ENVIRONMENT)
    assert (state.at, state.content) == (Position(5, 2, 50, b"h" * 32), content_of())
    assert (snapshot.epoch, snapshot.holders) == (2, HOLDERS)
    assert checks(ENVIRONMENT, 5, Signed(state.at.head, state.content, state.sealer, state.signature))


def test_the_newest_is_given_when_none_is_named_or_that_one_is_gone() -> None:
    parcels = Parcels(Shelf(5, 9))
    newest = read(parcels, 0, 0, 10)
    assert newest is not None
    assert (newest.number, newest.offset) == (9, 0)
    gone = read(parcels, 7, 300, 10)
    assert gone is not None
    assert (gone.number, gone.offset, gone.payload) == (9, 0, newest.payload)


def test_beyond_the_end_there_is_nothing() -> None:
    parcels = Parcels(Shelf(5))
    first = read(parcels, 5, 0, 10)
    assert first is not None
    for offset in (first.total, first.total + 1, 1 << 40):
        assert read(parcels, 5, offset, 10) == Part(5, 2, HOLDERS, offset, first.total, b"")
    assert parcels.kept_bytes == 0


def test_what_cannot_be_read_is_said() -> None:
    shelf = Shelf()
    parcels = Parcels(shelf)
    assert read(parcels, 0, 0, 10) is None
    assert read(parcels, 3, 0, 10) is None
    shelf.contents[4] = b"nonsense"
    assert read(parcels, 4, 0, 10) is None
    shelf.is_full = True
    assert read(parcels, 4, 0, 10) is None


def test_what_is_kept_is_bounded() -> None:
    shelf = Shelf(5)
    size = len(whole(Parcels(shelf), 5, 1_000_000))
    parcels = Parcels(shelf, bytes_max=2 * size)
    for number in range(4):
        read(parcels, 5, 0, 10, bytes([number]) * 16)
        assert parcels.kept_bytes == min(number + 1, 2) * size
    asked = len(shelf.asked)
    read(parcels, 5, 10, 10, bytes([3]) * 16)
    read(parcels, 5, 10, 10, bytes([2]) * 16)
    assert len(shelf.asked) == asked
    read(parcels, 5, 10, 10, bytes([0]) * 16)
    assert len(shelf.asked) == asked + 1


def test_what_another_node_sent_is_checked() -> None:
    payload = whole(Parcels(Shelf(5)), 5, 1_000_000)
    state, _ = open_state(payload, ENVIRONMENT)
    for wrong in (b"", b"\xc1", payload[:-1], b"\x91" * 2_000):
        with pytest.raises(CorruptError, match="does not decode"):
            open_state(wrong, ENVIRONMENT)
    replace = msgspec.structs.replace
    for false in (
        replace(state, content=state.content + b"x"),
        replace(state, at=replace(state.at, number=6)),
        replace(state, at=replace(state.at, head=b"i" * 32)),
        replace(state, sealer=Hand(8).sealer),
        replace(state, sealer=replace(state.sealer, node=b"other-node")),
    ):
        with pytest.raises(CorruptError, match="its signature does not check"):
            open_state(msgspec.msgpack.encode(false), ENVIRONMENT)
    with pytest.raises(CorruptError, match="its signature does not check"):
        open_state(payload, b"e" * 16)
    nonsense = State(state.at, b"nonsense", state.sealer, HAND.key.sign(payload_of(5, b"nonsense")))
    with pytest.raises(CorruptError, match="a snapshot does not decode"):
        open_state(msgspec.msgpack.encode(nonsense), ENVIRONMENT)
