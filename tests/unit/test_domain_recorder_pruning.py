# SPDX-License-Identifier: Apache-2.0
"""What is cut is kept, and what is let go of is never needed by a snapshot that stays."""

from pathlib import Path

import pytest

from atoll.domain.recorder import pruning
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.domain.recorder.pruning import (
    ORPHANS_NAME,
    SNAPSHOTS_NAME,
    base_of,
    check_room,
    drop_old,
    first_within,
    keep_aside,
    next_serial,
    shorten,
    snapshot_numbers,
    thin_out,
)
from atoll.domain.recorder.segments import Segment, open_segment
from atoll.env.chain import GENESIS, Frame, Position, Verifier, read
from tests.unit.recorder_world import Hand, block_after, segment_of

HANDS = Hand(), Hand(8, b"other-node", signer=2)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / SNAPSHOTS_NAME).mkdir()
    (tmp_path / ORPHANS_NAME).mkdir()
    return tmp_path


def snapshot(directory: Path, *numbers: int) -> None:
    for number in numbers:
        (directory / SNAPSHOTS_NAME / f"{number}.ats").touch()


def three_segments(directory: Path) -> list[Segment]:
    """Of two blocks each: 1 and 2, 3 and 4, 5 and 6."""
    segments, at = list[Segment](), GENESIS
    for number in (1, 2, 3):
        data, at = segment_of(HANDS[0], b"one", b"two", at=at)
        path = directory / f"{number:08d}.atb"
        path.write_bytes(data)
        segments.append(open_segment(path))
    return segments


def test_only_snapshots_are_snapshots(directory: Path) -> None:
    snapshot(directory, 20, 3)
    (directory / SNAPSHOTS_NAME / "4.ats.new").touch()
    assert snapshot_numbers(directory) == [3, 20]
    assert (base_of([3, 20], 20), base_of([3, 20], 21), base_of([3, 20], 3)) == (3, 20, None)


def verified(path: Path) -> Position:
    verifier = Verifier()
    for frame in read(path.read_bytes()):
        assert isinstance(frame, Frame)
        verifier.feed(frame.item)
    assert verifier.position is not None
    return verifier.position


def test_blocks_that_are_cut_are_a_journal_of_their_own(directory: Path) -> None:
    one, at = HANDS[0].seal(GENESIS, block_after(GENESIS))
    two, then = HANDS[1].seal(at, block_after(at))
    three, end = HANDS[1].seal(then, block_after(then))
    snapshot(directory, 1, 2, 3)
    blocks = [(HANDS[1].sealer, two), (HANDS[1].sealer, three)]
    keep_aside(directory, HANDS[0].manifest(at), blocks, (2, 3))
    orphans = directory / ORPHANS_NAME
    assert sorted(path.name for path in orphans.iterdir()) == [f"{2:019d}-1.atb", f"{2:019d}-1.ats", f"{3:019d}-1.ats"]
    assert verified(orphans / f"{2:019d}-1.atb") == end
    assert snapshot_numbers(directory) == [1]
    keep_aside(directory, HANDS[0].manifest(GENESIS), [(HANDS[0].sealer, one)], ())
    assert verified(orphans / f"{1:019d}-2.atb") == at


def test_a_cut_that_fails_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError(5, "Input/output error")

    one, _ = HANDS[0].seal(GENESIS, block_after(GENESIS))
    orphans = directory / ORPHANS_NAME
    with pytest.raises(OSError, match="Input"):
        keep_aside(directory, HANDS[0].manifest(), ((HANDS[0].sealer, one) for _ in iter(broken, 0)), ())
    assert list(orphans.iterdir()) == []
    monkeypatch.setattr(pruning, "ORPHANS_MAX", 1)
    keep_aside(directory, HANDS[0].manifest(), [(HANDS[0].sealer, one)], ())
    with pytest.raises(RefusedError) as caught:
        keep_aside(directory, HANDS[0].manifest(), [(HANDS[0].sealer, one)], ())
    assert caught.value.code is Code.LIMIT
    with pytest.raises(RefusedError, match="ORPHANS_MAX"):
        check_room(directory)
    assert next_serial(directory) == 2


def test_a_journal_is_shortened_from_its_end(directory: Path) -> None:
    first, second, third = three_segments(directory)
    _, size, _ = second.after(3)
    shorten(directory, [second, third], size)
    assert not third.path.exists()
    assert verified(second.path).number == 3
    assert verified(first.path).number == 2


@pytest.mark.parametrize(("base", "left"), [(0, 3), (1, 3), (2, 2), (3, 2), (4, 1), (6, 1)])
def test_whole_segments_go_that_no_snapshot_needs(directory: Path, base: int, left: int) -> None:
    segments = three_segments(directory)
    snapshot(directory, *range(7))
    for number in (base, base + 1):
        (directory / ORPHANS_NAME / f"{number:019d}-1.atb").touch()
    (directory / ORPHANS_NAME / "something else").touch()
    drop_old(directory, segments, base)
    assert len(segments) == len(list(directory.glob("*.atb"))) == left
    assert segments[0].first <= base + 1
    assert snapshot_numbers(directory) == list(range(base, 7))
    assert sorted(path.name for path in (directory / ORPHANS_NAME).iterdir()) == [
        f"{base + 1:019d}-1.atb",
        "something else",
    ]


def test_the_newest_bytes_are_whole_segments(directory: Path) -> None:
    segments = three_segments(directory)
    last = segments[-1].size
    assert [first_within(segments, size) for size in (1, last, last + 1, 3 * last, 99 * last)] == [5, 5, 3, 1, 1]


@pytest.mark.parametrize(
    ("count", "most", "left"),
    [(0, 2, []), (3, 3, [0, 1, 2]), (3, 2, [0, 2]), (4, 3, [0, 2, 3]), (9, 4, [0, 4, 8]), (17, 5, [0, 4, 8, 12, 16])],
)
def test_snapshots_are_thinned_out_between_the_first_and_the_last(
    directory: Path, count: int, most: int, left: list[int]
) -> None:
    snapshot(directory, *range(count))
    assert thin_out(directory, most) == snapshot_numbers(directory) == left
