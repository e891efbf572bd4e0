# SPDX-License-Identifier: Apache-2.0
"""The recorder changes nothing and never stops a node; the reader knows torn from corrupt."""

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from atoll.base.errors import CorruptError, UsageError, UserError
from atoll.core.journal import (
    DIGEST_BYTES,
    FORMAT,
    MAGIC,
    MARK_BYTES,
    Header,
    Origin,
    Provenance,
    Record,
    Recorder,
    SegmentStart,
    Suspension,
    TornTail,
    digest_after,
    encode_effects,
    encode_raised,
    read,
)
from atoll.core.limits import INPUT_BYTES_MAX, PENDING_BYTES_MAX, SEGMENT_BYTES_MAX, SNAPSHOT_BYTES_MAX
from atoll.core.machine import MachineKind, Tuple


class Added(Tuple, frozen=True):
    amount: int
    note: bytes = b""


class Say(Tuple, frozen=True):
    total: int


class Ledger:
    """Adds up, says each even total, and has two bugs on request."""

    def __init__(self, total: int = 0, ballast: bytes = b"") -> None:
        self.total, self.ballast = total, ballast
        self.deadline_ns: int | None = None

    def handle(self, event: Added, now_ns: int) -> Sequence[Say]:
        self.total += event.amount % (1 << 32)
        self.deadline_ns = now_ns + 1
        if event.amount == 13:
            raise ZeroDivisionError("a bug")
        if event.note == b"huge effect":
            return (Say(1 << 70),)
        return (Say(self.total),) if self.total % 2 == 0 else ()

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode((self.total, self.ballast))


def restore(state: bytes) -> Ledger:
    return Ledger(*msgspec.msgpack.decode(state, type=tuple[int, bytes]))


KIND: MachineKind[Added, Say] = MachineKind("ledger", 3, Added, Say, restore)
PROVENANCE = Provenance(product="0.1.0", node="fra-1", wall_ns=1_700_000_000_000_000_000, started_ns=500)


def drained(recorder: Recorder[Added, Say]) -> bytes:
    return b"".join(append.payload for append in recorder.drain())


def frame(content: bytes, sequence: int) -> bytes:
    """The frame of docs/spec/journal.md, written here a second time on purpose."""
    size = len(content).to_bytes(3, "little")
    return size + bytes([size[0] ^ size[1] ^ size[2] ^ 0x5A]) + crc32(content, sequence).to_bytes(4, "little") + content


def test_the_bytes_are_those_of_the_specification() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE, sequence=9)
    recorder.handle(Added(2), 600)
    recorder.handle(Added(1), -1)
    first = digest_after(bytes(DIGEST_BYTES), msgspec.msgpack.encode([["Say", 2]]))
    second = digest_after(first, b"\x90")
    header = [1, "ledger", 3, "0.1.0", "fra-1", PROVENANCE.wall_ns, 500, "start", 9, bytes(16)]
    assert drained(recorder) == (
        b"\x89ATJ\r\n\x1a\n"
        + frame(msgspec.msgpack.encode(header), 0)
        + frame(msgspec.msgpack.encode([0, b""]), 9)
        + frame((600).to_bytes(8, "little") + first[:8] + msgspec.msgpack.encode(["Added", 2, b""]), 10)
        + frame(b"\xff" * 8 + second[:8] + msgspec.msgpack.encode(["Added", 1, b""]), 11)
    )
    assert recorder.digest == second


def test_the_digest_of_no_effects_is_the_vector_of_the_specification() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "spec" / "journal.md").read_text()
    vector = digest_after(bytes(DIGEST_BYTES), encode_effects(())).hex()
    assert f"digest after one input without effects = `{vector}`" in text


def test_what_was_recorded_is_read() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    recorder.handle(Added(1), 1000)
    recorder.handle(Added(3), 2000)
    start, first, second = read(drained(recorder))
    assert isinstance(start, SegmentStart)
    assert start.header == Header(
        FORMAT, "ledger", 3, "0.1.0", "fra-1", PROVENANCE.wall_ns, 500, Origin.START, 0, bytes(DIGEST_BYTES)
    )
    assert start.snapshot == Ledger().snapshot()
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.sequence, first.now_ns, first.payload) == (1, 1000, msgspec.msgpack.encode(Added(1)))
    assert (second.sequence, second.now_ns, second.mark) == (2, 2000, recorder.digest[:MARK_BYTES])


def test_a_recorder_is_the_machine_to_its_driver() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    before_ns = recorder.deadline_ns
    assert recorder.handle(Added(2), 7) == (Say(2),)
    assert recorder.handle(Added(1), 8) == ()
    assert (before_ns, recorder.deadline_ns) == (None, 9)
    assert recorder.snapshot() == Ledger(3).snapshot()


def test_draining_gives_each_byte_once() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    assert recorder.pending_bytes > 0
    first = drained(recorder)
    assert (recorder.pending_bytes, recorder.drain()) == (0, ())
    recorder.handle(Added(1), 1)
    assert [type(item) for item in read(first + drained(recorder))] == [SegmentStart, Record]


def test_a_full_segment_is_followed_by_one_that_continues_it() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE, segment_bytes_max=100)
    for now_ns in range(5):
        recorder.handle(Added(1), now_ns)
    appends = recorder.drain()
    assert [append.segment for append in appends] == [0, 1]
    begin, *records = read(appends[0].payload)
    follow, *rest = read(appends[1].payload)
    assert isinstance(begin, SegmentStart)
    assert isinstance(follow, SegmentStart)
    assert len(records) + len(rest) == 5
    assert follow.header.origin is Origin.ROLLOVER
    assert follow.header.sequence == len(records)
    assert follow.snapshot == Ledger(len(records)).snapshot()
    assert follow.header.digest[:MARK_BYTES] == records[-1].mark  # type: ignore[union-attr]  # pyright: ignore  A record.


def test_a_current_segment_goes_on_after_a_drain() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    recorder.drain()
    recorder.handle(Added(1), 0)
    (append,) = recorder.drain()
    assert append.segment == 0


def test_a_machine_that_raises_is_recorded_and_still_raises() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    with pytest.raises(ZeroDivisionError):
        recorder.handle(Added(13), 5)
    _, record = read(drained(recorder))
    assert isinstance(record, Record)
    assert record.payload == msgspec.msgpack.encode(Added(13))
    assert record.mark == digest_after(bytes(DIGEST_BYTES), encode_raised(ZeroDivisionError()))[:MARK_BYTES]


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (Added(1, bytes(INPUT_BYTES_MAX)), Suspension.INPUT),
        (Added(1 << 70), Suspension.INPUT),
        (Added(1, b"huge effect"), Suspension.EFFECT),
    ],
)
def test_what_cannot_be_recorded_suspends_the_recording_and_not_the_machine(event: Added, cause: Suspension) -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    plain = Ledger()
    assert recorder.handle(event, 1) == plain.handle(event, 1)
    assert recorder.suspended is cause
    assert recorder.handle(Added(1), 2) == plain.handle(Added(1), 2)
    assert recorder.snapshot() == plain.snapshot()
    assert recorder.drain() == ()


def test_a_machine_that_raises_while_nothing_is_recorded_still_raises() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    recorder.suspend(Suspension.STORAGE)
    with pytest.raises(ZeroDivisionError):
        recorder.handle(Added(13), 5)


def test_a_resumed_recording_says_that_inputs_are_missing() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    recorder.handle(Added(1), 1)
    recorder.suspend(Suspension.STORAGE)
    recorder.handle(Added(2), 2)
    recorder.resume()
    assert recorder.suspended is None
    recorder.handle(Added(4), 3)
    (append,) = recorder.drain()
    start, record = read(append.payload)
    assert append.segment == 1
    assert isinstance(start, SegmentStart)
    assert (start.header.origin, start.header.sequence, start.header.digest) == (Origin.RESUMED, 2, bytes(16))
    assert start.snapshot == Ledger(3).snapshot()
    assert isinstance(record, Record)
    assert record.sequence == 3


def test_resuming_a_recording_that_runs_changes_nothing() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    pending_bytes = recorder.pending_bytes
    recorder.resume()
    assert recorder.pending_bytes == pending_bytes


def test_a_state_beyond_its_bound_is_not_recorded() -> None:
    recorder = Recorder(KIND, Ledger(0, bytes(SNAPSHOT_BYTES_MAX)), PROVENANCE)
    assert recorder.suspended is Suspension.SNAPSHOT
    assert recorder.handle(Added(2), 0) == (Say(2),)


def test_a_shell_that_never_drains_costs_a_bounded_memory() -> None:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    note = bytes(INPUT_BYTES_MAX - 100)
    peak = 0
    while recorder.suspended is None:
        recorder.handle(Added(1, note), 0)
        peak = max(peak, recorder.pending_bytes)
    assert recorder.suspended is Suspension.BEHIND
    assert peak <= PENDING_BYTES_MAX
    assert (recorder.pending_bytes, recorder.drain()) == (0, ())


def test_a_shell_that_is_behind_at_a_rollover_suspends_too() -> None:
    recorder = Recorder(KIND, Ledger(0, bytes(SNAPSHOT_BYTES_MAX - 16)), PROVENANCE, segment_bytes_max=1)
    recorder.handle(Added(1), 0)
    assert recorder.suspended is Suspension.BEHIND


@pytest.mark.parametrize(("sequence", "segment_bytes_max"), [(-1, 1), (0, 0), (0, SEGMENT_BYTES_MAX + 1)])
def test_a_senseless_recorder_is_refused(sequence: int, segment_bytes_max: int) -> None:
    with pytest.raises(UsageError):
        Recorder(KIND, Ledger(), PROVENANCE, sequence=sequence, segment_bytes_max=segment_bytes_max)


def sample() -> bytes:
    recorder = Recorder(KIND, Ledger(), PROVENANCE)
    for now_ns in range(3):
        recorder.handle(Added(now_ns), now_ns)
    return drained(recorder)


def test_no_bytes_hold_nothing() -> None:
    assert list(read(b"")) == []


def test_segments_one_after_the_other_are_read_in_order() -> None:
    once = list(read(sample()))
    twice = list(read(sample() * 2))
    assert len(twice) == 2 * len(once)
    second = twice[len(once)]
    assert isinstance(second, SegmentStart)
    assert second.offset == len(sample())


def test_a_tail_of_zeros_is_torn() -> None:
    items = list(read(sample() + bytes(4096)))
    assert items[-1] == TornTail(len(sample()))
    assert list(read(bytes(64))) == [TornTail(0)]


def test_a_cut_anywhere_leaves_whole_items_and_says_where_they_end() -> None:
    whole = sample()
    items = list(read(whole))
    ends = [*(item.offset for item in items[1:]), len(whole)]
    for cut in range(1, len(whole)):
        count = sum(end <= cut for end in ends)
        torn = [] if cut in ends else [TornTail(ends[count - 1] if count else 0)]
        assert list(read(whole[:cut])) == [*items[:count], *torn]


def test_a_segment_without_a_whole_snapshot_is_torn_at_its_begin() -> None:
    whole = sample()
    assert list(read(whole + whole[:60]))[-1] == TornTail(len(whole))
    assert list(read(whole[:3])) == [TornTail(0)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"something else entirely", "offset 0: no journal segment begins here"),
        (sample() + b"garbage behind the end", f"offset {len(sample())}: a length that does not check"),
        (sample() + frame(b"short", 4), f"offset {len(sample())}: a record of 5 bytes"),
        (sample() + frame(bytes(40), 5), f"offset {len(sample())}: content that does not check"),  # Number 5, not 4.
        (MAGIC + frame(b"\x90", 0) + bytes(9), "offset 8: journal header does not decode"),
        (MAGIC + frame(b"\x91\x01", 0), "offset 8: journal header does not decode"),
    ],
)
def test_other_bytes_are_corrupt_and_the_place_is_named(data: bytes, text: str) -> None:
    with pytest.raises(CorruptError, match=text):
        list(read(data))


def test_another_format_is_named_to_the_user() -> None:
    content = msgspec.msgpack.encode([2, {"anything": "else"}])
    with pytest.raises(UserError, match="A301: this journal has format 2, and this atoll reads format 1"):
        list(read(MAGIC + frame(content, 0)))
