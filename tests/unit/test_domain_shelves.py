# SPDX-License-Identifier: Apache-2.0
"""Journals are found by name, id or place, and read as they lie: torn, growing, put aside, shortened."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import CorruptError, UserError
from atoll.domain.recorder.journal import BlockJournal, create_journal
from atoll.domain.recorder.restarting import begin_anew, settle
from atoll.domain.recorder.snapshots import Standing, encode_standing
from atoll.domain.shelves import DiskShelf, find_journal, journals_of, snapshots_of, standing_of
from atoll.env.chain import GENESIS, Block, Frame, Position, Seal, Sealed, encode_frame, read, segment_start
from atoll.env.past import Past, flat
from tests.unit.past_world import ANN, BOB, DiskWorld, arrived, bid
from tests.unit.recorder_world import ENVIRONMENT, Hand, key_in, stored

ID = ENVIRONMENT.hex()


@pytest.fixture
def world(tmp_path: Path) -> DiskWorld:
    """Return a journal with 12 events in three blocks, a checkpoint, and four more."""
    made = DiskWorld(tmp_path)
    made.bids(12)
    made.checkpoint()
    made.seal(arrived(BOB, 5, *(bid("bob", 50 + at) for at in range(4))))
    return made


def test_a_journal_is_found_by_name_id_and_place(world: DiskWorld) -> None:
    for name in ("auction", ID, ID[:6], str(world.directory), str(world.segment)):
        found = find_journal(world.state, name)
        assert (found.id, found.name, found.is_ended) == (ENVIRONMENT, "auction", False)
        assert found.segments == (world.segment,)


@pytest.mark.parametrize("name", ["other", "000", ""])
def test_what_is_not_there_is_said_with_what_there_is(world: DiskWorld, name: str) -> None:
    with pytest.raises(UserError, match="A304") as caught:
        find_journal(world.state, name or str(world.state / "code"))
    assert name == "" or caught.value.where.endswith(": auction")


def test_a_name_is_one_though_something_beside_us_is_called_so(
    world: DiskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.state / "auction").mkdir()
    monkeypatch.chdir(world.state)
    assert find_journal(world.state, "auction").segments == (world.segment,)


def test_where_nothing_is_kept_nothing_is_found(tmp_path: Path) -> None:
    assert journals_of(tmp_path) == []
    with pytest.raises(UserError) as caught:
        find_journal(tmp_path, "auction")
    assert caught.value.where.endswith(": none")


def test_one_that_was_put_aside_is_found_behind_those_that_run(world: DiskWorld) -> None:
    ended = world.state / "ended"
    ended.mkdir()
    world.directory.rename(ended / f"{ID}-2")
    (ended / f"{ID}-10").mkdir()
    (ended / f"{ID}-10" / "00000001.atb").write_bytes(b"")
    found = find_journal(world.state, "auction")
    assert (found.directory.name, found.is_ended) == (f"{ID}-2", True)
    assert DiskShelf(found, (world.state / "code",)).last_event == 16


def test_several_of_one_name_are_named_by_their_ids(world: DiskWorld) -> None:
    other = world.state / "envs" / bytes(range(1, 17)).hex()
    other.mkdir()
    manifest = key_in(world.state).manifest(bytes(range(1, 17)), "auction", GENESIS)
    (other / "00000001.atb").write_bytes(segment_start(manifest))
    with pytest.raises(UserError, match="A501") as caught:
        find_journal(world.state, "auction")
    assert ID in caught.value.where


def test_what_it_reads_is_what_was_written(world: DiskWorld) -> None:
    shelf = DiskShelf(find_journal(world.state, "auction"))
    memory = world.memory
    assert (shelf.first, shelf.last, shelf.first_event, shelf.last_event) == (1, 5, 1, 16)
    assert [shelf.block(number) for number in range(1, 6)] == memory.blocks
    assert [shelf.block_of(event) for event in (1, 4, 5, 12, 13, 16)] == [1, 1, 2, 3, 5, 5]
    assert shelf.snapshots == (4,)
    assert shelf.snapshot(4) == memory.kept[4]
    assert shelf.block(5) == shelf.block(5)
    past = Past(shelf)
    assert past.redo().checkpoints == 1
    assert flat(past.state_at(16).state)["best"] == 53
    assert len(shelf.products()) == 1
    with pytest.raises(CorruptError, match="block 6 is not there"):
        shelf.block(6)


def test_a_tail_that_is_torn_or_grows_does_not_count(world: DiskWorld) -> None:
    whole = world.segment.read_bytes()
    world.segment.write_bytes(whole[:-5])
    shelf = DiskShelf(find_journal(world.state, "auction"))
    assert (shelf.last, shelf.last_event) == (4, 12)
    world.segment.write_bytes(whole)
    assert (shelf.last, shelf.block_of(12)) == (4, 3)


def test_what_a_crash_left_of_one_that_began_anew_counts_as_for_the_recorder(world: DiskWorld) -> None:
    world.journal.release()
    begin_anew(world.directory, 2, Hand().manifest(), b"")
    found = find_journal(world.state, ID)
    assert (found.segments, DiskShelf(found).last, snapshots_of(found)) == ((world.segment,), 5, [4])
    standing = Standing(ENVIRONMENT, 1, b"node-of-us", 1, 5, 2)
    (world.directory / "promise").write_bytes(encode_standing(standing))
    found = find_journal(world.state, ID)
    assert (DiskShelf(found).last, snapshots_of(found)) == (0, [])
    assert standing_of(found) == standing
    settle(world.directory, 2)
    assert find_journal(world.state, ID) == found
    (world.directory / "promise").write_bytes(b"damaged")
    assert standing_of(found) is None


def test_segments_follow_each_other(world: DiskWorld, tmp_path: Path) -> None:
    world.journal.release()
    journal = BlockJournal(world.directory, key_in(tmp_path), segment_bytes_max=1)
    world.memory.seal(arrived(ANN, 9, bid("ann", 99)))
    journal.append(world.memory.blocks[-1])
    journal.commit()
    shelf = DiskShelf(find_journal(world.state, "auction"))
    assert (shelf.last, len(shelf.journal.segments)) == (6, 2)
    assert [shelf.block_of(event) for event in (16, 17)] == [5, 6]
    assert shelf.block(6) == world.memory.blocks[-1]
    whole = world.segment.read_bytes()
    world.segment.write_bytes(whole[:-5])
    with pytest.raises(CorruptError, match="it does not follow block 4"):
        DiskShelf(find_journal(world.state, "auction")).block(1)
    world.segment.write_bytes(whole)
    held = DiskShelf(find_journal(world.state, "auction"))
    world.segment.rename(world.segment.with_suffix(".old"))
    with pytest.raises(CorruptError, match="No such file"):
        held.block(1)
    world.segment.with_suffix(".old").rename(world.segment)
    first, second = shelf.journal.segments
    second.rename(second.with_name("00000000.atb"))
    with pytest.raises(CorruptError, match="it is not the one that follows"):
        DiskShelf(find_journal(world.state, "auction"))
    assert first.exists()


def test_a_changed_byte_is_named_with_its_place(world: DiskWorld) -> None:
    data = bytearray(world.segment.read_bytes())
    data[len(data) // 2] ^= 1
    world.segment.write_bytes(data)
    with pytest.raises(CorruptError, match=r"00000001\.atb: offset \d+"):
        DiskShelf(find_journal(world.state, "auction"))


def test_a_block_that_was_not_sealed_so_is_named(world: DiskWorld) -> None:
    block = Block(6, 1, 17, 1, b"\0x")
    with world.segment.open("ab") as file:
        file.write(encode_frame(Sealed(block, Seal(bytes(32), bytes(64))), 6))
    with pytest.raises(CorruptError, match="block 6 does not follow"):
        DiskShelf(find_journal(world.state, "auction"))


def test_a_journal_that_goes_while_it_is_read_is_named(world: DiskWorld) -> None:
    found = find_journal(world.state, "auction")
    shelf = DiskShelf(found)
    whole = world.segment.read_bytes()
    world.segment.write_bytes(whole[:-200])
    with pytest.raises(CorruptError, match="block 5 is not there any more"):
        shelf.block(5)
    world.segment.unlink()
    for again in (lambda: shelf.block(2), lambda: DiskShelf(found)):
        with pytest.raises(CorruptError, match="No such file"):
            again()


@pytest.mark.parametrize("content", [None, b"", b"x" * 100])
def test_a_journal_that_cannot_be_read_is_known_by_its_directory(world: DiskWorld, content: bytes | None) -> None:
    whole = world.segment.read_bytes()
    world.segment.write_bytes(whole[:50] if content is None else content)
    (found,) = journals_of(world.state)
    assert (found.directory, found.id, found.name) == (world.directory, ENVIRONMENT, "")
    assert find_journal(world.state, ID) == find_journal(world.state, str(world.directory)) == found
    with pytest.raises(UserError, match="A304") as caught:
        find_journal(world.state, "auction")
    assert caught.value.where.endswith(f": none; not to be read: {world.directory}")
    assert "audit verify" in caught.value.fix
    with pytest.raises(CorruptError, match=r"00000001\.atb"):
        DiskShelf(found)
    with pytest.raises(UserError, match="A304"):
        find_journal(world.state, str(world.segment))


def test_a_journal_of_another_format_is_known_by_its_directory(world: DiskWorld) -> None:
    world.segment.write_bytes(later_format(world))
    assert [one.id for one in journals_of(world.state)] == [ENVIRONMENT]
    with pytest.raises(UserError, match="A301"):
        DiskShelf(find_journal(world.state, ID))


def later_format(world: DiskWorld) -> bytes:
    return segment_start(msgspec.structs.replace(Hand().manifest(), format=2))


def test_a_journal_whose_newest_segment_cannot_be_read_has_the_name_that_an_older_one_says(world: DiskWorld) -> None:
    (world.directory / "00000002.atb").write_bytes(b"x" * 100)
    found = find_journal(world.state, "auction")
    assert len(found.segments) == 2
    with pytest.raises(CorruptError, match=r"00000002\.atb"):
        DiskShelf(found)


def test_a_journal_without_segments_is_damaged(world: DiskWorld) -> None:
    world.segment.unlink()
    with pytest.raises(CorruptError, match="there is no segment"):
        DiskShelf(find_journal(world.state, ID))


def test_a_directory_that_cannot_be_listed_is_said(world: DiskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Path.iterdir

    def refused(path: Path) -> Iterator[Path]:
        """Refuse as for a user without rights, which no directory is closed to when root runs this."""
        if path in closed:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    closed = {world.directory}
    assert [(one.id, one.segments) for one in journals_of(world.state)] == [(ENVIRONMENT, ())]
    closed = {world.state / "envs"}
    with pytest.raises(UserError, match="A110"):
        journals_of(world.state)


def test_a_directory_that_cannot_be_listed_again_is_taken_as_it_was(
    world: DiskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, looks = Path.iterdir, list[Path]()

    def refused(path: Path) -> Iterator[Path]:
        """Refuse the second look, as when somebody changes the rights in between."""
        if path == world.directory:
            looks.append(path)
            if len(looks) > 1:
                raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert [one.segments for one in journals_of(world.state)] == [(world.segment,)]


def test_a_segment_that_is_damaged_at_its_begin_is_named(world: DiskWorld) -> None:
    found = find_journal(world.state, "auction")
    world.segment.write_bytes(b"x" * 100)
    with pytest.raises(CorruptError, match=r"00000001\.atb: offset 0"):
        DiskShelf(found)


def test_code_is_looked_for_beside_the_journal_and_where_one_says(world: DiskWorld, tmp_path: Path) -> None:
    shelf = DiskShelf(find_journal(world.state, "auction"))
    assert shelf.program(world.code) is shelf.loaded(world.code).program
    path = tmp_path / "code" / f"{world.code.hex()}.atc"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path.rename(elsewhere / path.name)
    with pytest.raises(UserError, match="A304"):
        DiskShelf(shelf.journal).program(world.code)
    assert DiskShelf(shelf.journal, (elsewhere,)).bundle(world.code).app == "Auction"
    (elsewhere / path.name).write_bytes(b"other")
    with pytest.raises(CorruptError, match="it has another digest"):
        DiskShelf(shelf.journal, (elsewhere,)).bundle(world.code)


def test_a_snapshot_that_is_damaged_is_named(world: DiskWorld) -> None:
    shelf = DiskShelf(find_journal(world.state, "auction"))
    path = world.directory / "snapshots" / "4.ats"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptError, match=r"4\.ats: .*signature"):
        shelf.snapshot(4)
    path.unlink()
    with pytest.raises(CorruptError, match=r"4\.ats: No such file"):
        shelf.snapshot(4)


def test_a_snapshot_is_what_its_block_says_and_stands_where_the_chain_was(world: DiskWorld) -> None:
    path = world.directory / "snapshots" / "4.ats"
    shelf = DiskShelf(find_journal(world.state, "auction"), trusts=lambda sealer: sealer == Hand().sealer)
    kept, forger = shelf.snapshot(4), Hand(7, signer=5)
    at = Position(4, 1, 12, position_of(world, 4))
    path.write_bytes(Hand().snapshot(at, kept.encode()))
    assert shelf.snapshot(4) == kept
    forged = msgspec.structs.replace(kept, state=kept.state.replace(b"bob", b"eve"))
    elsewhere = msgspec.structs.replace(at, head=b"h" * 32)
    for data, words in (
        (Hand().snapshot(at, forged.encode()), "it is not the state after block 4"),
        (Hand().snapshot(elsewhere, kept.encode()), "it was taken after another block 4"),
        (forger.snapshot(at, kept.encode()), "a key that is no node's"),
    ):
        path.write_bytes(data)
        with pytest.raises(CorruptError, match=rf"4\.ats: .*{words}"):
            shelf.snapshot(4)


def position_of(world: DiskWorld, number: int) -> bytes:
    """Return the head of a block."""
    frames = [frame.item for frame in read(world.segment.read_bytes()) if isinstance(frame, Frame)]
    return next(item.seal.head for item in frames if isinstance(item, Sealed) and item.block.number == number)


def test_a_snapshot_whose_block_went_stands_where_the_journal_begins(tmp_path: Path) -> None:
    at = Position(7, 2, 30, b"h" * 32)
    directory = tmp_path / "envs" / ID
    directory.parent.mkdir()
    create_journal(directory, key_in(tmp_path), "auction", at)
    shelf = DiskShelf(find_journal(tmp_path, "auction"))
    path, content = directory / "snapshots" / "7.ats", stored(b"state", epoch=2)
    path.write_bytes(Hand(7, b"other-node", signer=2).snapshot(at, content))
    assert shelf.snapshot(7).encode() == content
    path.write_bytes(Hand().snapshot(msgspec.structs.replace(at, head=b"i" * 32), content))
    with pytest.raises(CorruptError, match="it was taken after another block 7"):
        shelf.snapshot(7)


def test_snapshots_that_cannot_be_listed_are_named(world: DiskWorld) -> None:
    directory = world.directory / "snapshots"
    directory.rename(directory.with_name("away"))
    directory.symlink_to(directory)  # A loop, which nobody can follow.
    with pytest.raises(CorruptError, match=r"snapshots: Too many levels"):
        DiskShelf(find_journal(world.state, "auction"))


def test_a_segment_alone_has_no_snapshots(world: DiskWorld) -> None:
    assert DiskShelf(find_journal(world.state, str(world.segment))).snapshots == ()


def test_blocks_of_another_recorder_are_read_with_its_name_before_them(world: DiskWorld) -> None:
    hand = Hand(7, b"other-node", signer=2)
    world.memory.seal(arrived(ANN, 9, bid("ann", 99)))
    sealed, _ = hand.seal(world.journal.position, world.memory.blocks[-1])
    world.journal.keep(hand.sealer, sealed)
    world.journal.commit()
    shelf = DiskShelf(find_journal(world.state, "auction"))
    assert [shelf.block(number) for number in (5, 6)] == world.memory.blocks[4:]
