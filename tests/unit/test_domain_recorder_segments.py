# SPDX-License-Identifier: Apache-2.0
"""A segment is read from any block, over few places that it remembers."""

from itertools import pairwise
from pathlib import Path

import pytest

from atoll.base.errors import CorruptError
from atoll.domain.limits import INDEX_STEP_BYTES
from atoll.domain.recorder.segments import READ_BYTES, Segment, open_segment
from atoll.env.chain import GENESIS, Position, encode_frame, segment_start
from tests.unit.recorder_world import Hand, block_after, segment_of

HANDS = Hand(), Hand(8, b"other-node", signer=2)


def written(path: Path, data: bytes) -> Segment:
    path.write_bytes(data)
    return open_segment(path)


def test_blocks_are_read_from_any_number(tmp_path: Path) -> None:
    data, at = segment_of(HANDS[0], b"one", b"two", b"three")
    segment = written(tmp_path / "s", data)
    assert (segment.first, segment.size) == (1, len(data))
    for number in range(1, 4):
        assert [sealed.block.number for _, sealed, _ in segment.walk(number)] == list(range(number, 4))
    assert list(segment.walk(4)) == []
    assert segment.after(3) == (at, len(data), HANDS[0].sealer)
    assert segment.after(0) == (GENESIS, segment.begin, HANDS[0].sealer)
    with pytest.raises(CorruptError, match="block 4 is not there"):
        segment.after(4)


def test_who_sealed_is_known_from_any_number(tmp_path: Path) -> None:
    first, at = HANDS[0].seal(GENESIS, block_after(GENESIS))
    second, _ = HANDS[1].seal(at, block_after(at))
    data = segment_start(HANDS[0].manifest()) + encode_frame(first, 1)
    data += encode_frame(HANDS[1].sealer, 2) + encode_frame(second, 2)
    segment = written(tmp_path / "s", data)
    assert [sealer for sealer, _, _ in segment.walk(2)] == [HANDS[1].sealer]
    assert segment.after(2)[2] == HANDS[1].sealer


def long_segment(path: Path) -> tuple[Segment, Position]:
    """One of some 3 MiB whose blocks have very different sizes, one of them longer than is read at a time."""
    parts, at = [segment_start(HANDS[0].manifest())], GENESIS
    for size in (10, 200_000, 200_000, 200_000, READ_BYTES + 1, 10, 300_000, 300_000, 10):
        block = block_after(at)
        body = b"\0" + bytes(size)
        sealed, at = HANDS[0].seal(at, type(block)(block.number, 1, block.first_event, 1, body))
        parts.append(encode_frame(sealed, at.number))
    return written(path, b"".join(parts)), at


def test_places_are_remembered_while_reading(tmp_path: Path) -> None:
    segment, at = long_segment(tmp_path / "s")
    assert len(segment.marks) == 1
    assert [sealed.block.number for _, sealed, _ in segment.walk(1)] == list(range(1, 10))
    offsets = [mark.offset for mark in segment.marks]
    assert len(offsets) >= 4
    assert all(after - before >= INDEX_STEP_BYTES for before, after in pairwise(offsets))
    for number in range(1, 10):
        assert next(segment.walk(number))[1].block.number == number
    assert segment.after(9)[0] == at
    assert [mark.offset for mark in segment.marks] == offsets
    segment.shorten(segment.after(5)[1])
    assert [sealed.block.number for _, sealed, _ in segment.walk(4)] == [4, 5]
    assert all(mark.offset <= segment.size for mark in segment.marks)


def test_a_file_that_ends_inside_a_block_is_corrupt(tmp_path: Path) -> None:
    segment, _ = long_segment(tmp_path / "s")
    for cut in (1, 300_000, 1_700_000):
        segment.size -= cut
        with pytest.raises(CorruptError, match="ends inside a block"):
            list(segment.walk(1))


def test_what_is_no_segment_is_corrupt(tmp_path: Path) -> None:
    for data in (b"", b"\x89ATB", segment_of(HANDS[0])[0][:-1], b"noise"):
        with pytest.raises(CorruptError):
            written(tmp_path / "s", data)
    with pytest.raises(FileNotFoundError):
        open_segment(tmp_path / "none")
