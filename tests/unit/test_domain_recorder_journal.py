# SPDX-License-Identifier: Apache-2.0
"""What was acknowledged is there after any end; what was refused is not; nothing that does not follow is taken."""

import resource
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from atoll.domain.limits import BATCH_BYTES_MAX
from atoll.domain.recorder.journal import BlockJournal, create_journal
from atoll.domain.recorder.messages import Code, RefusedError, Restart, Taken
from atoll.env.chain import (
    GENESIS,
    Block,
    Position,
    Seal,
    Sealed,
    Sealer,
    TornTail,
    Verifier,
    encode_frame,
    read,
)
from tests.unit.recorder_world import (
    ENVIRONMENT,
    NODE,
    OTHER,
    STATE,
    WRITING,
    Hand,
    append,
    block_after,
    code_of,
    journal_in,
    key_in,
)

SMALL = BATCH_BYTES_MAX + 600  # Segments that are full after a block or two.


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / ENVIRONMENT.hex()).glob("*.atb"))


def numbers(items: tuple[Sealer | Sealed, ...]) -> list[int]:
    return [item.block.number for item in items if isinstance(item, Sealed)]


@contextmanager
def full_disk(free: int, path: Path) -> Generator[None]:
    """Let no file grow beyond what this one has and so many bytes more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def open_files() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


# Appending


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    recorded = journal.recorded()
    assert (recorded.environment, recorded.name, recorded.first, recorded.at) == (ENVIRONMENT, "shop", 1, GENESIS)
    assert (recorded.promised_epoch, recorded.promised_to, recorded.snapshots, recorded.damage) == (0, b"", (), "")
    assert journal.read(1, 1000) == ()
    journal.commit()
    assert not journal.is_open


def test_what_was_committed_is_there_after_a_new_start_and_checks(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    seal, before = journal.append(block_after(GENESIS, b"one"))
    assert before == GENESIS.head
    assert journal.position == GENESIS
    assert journal.staged_bytes > 0
    journal.commit()
    assert journal.position.head == seal.head
    append(journal, b"two")
    assert journal.is_open
    again = journal_in(tmp_path)
    assert again.position == journal.position
    verifier = Verifier(ENVIRONMENT, position=GENESIS)
    for item in again.read(1, 1000):
        verifier.feed(item)
    assert verifier.position == again.position


def test_staged_blocks_are_written_together(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    at = GENESIS
    for _ in range(3):
        block = block_after(at)
        seal, before = journal.append(block)
        assert before == at.head
        at = Position(block.number, 1, block.first_event, seal.head)
    assert journal_in(tmp_path).position == GENESIS
    journal.commit()
    assert journal_in(tmp_path).position == journal.position == at
    assert numbers(journal.read(2, 1000)) == [2, 3]


def test_what_does_not_follow_is_refused(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one", epoch=2)
    good = block_after(journal.position)
    replace = msgspec.structs.replace
    assert code_of(lambda: journal.append(replace(good, number=3))) is Code.NUMBER
    assert code_of(lambda: journal.append(replace(good, number=1))) is Code.NUMBER
    assert code_of(lambda: journal.append(replace(good, first_event=3))) is Code.NUMBER
    assert code_of(lambda: journal.append(replace(good, epoch=1))) is Code.EPOCH
    journal.append(good)
    assert code_of(lambda: journal.append(good)) is Code.NUMBER
    journal.commit()
    assert journal_in(tmp_path).position.number == 2


def test_without_a_certificate_nothing_is_sealed(tmp_path: Path) -> None:
    key = key_in(tmp_path, certified=False)
    assert code_of(lambda: create_journal(tmp_path / ENVIRONMENT.hex(), key, "shop", GENESIS)) is Code.SIGNATURE
    journal_in(tmp_path)
    (tmp_path / "recorder.cert").unlink()
    bare = BlockJournal(tmp_path / ENVIRONMENT.hex(), key_in(tmp_path, certified=False))
    assert code_of(lambda: bare.append(block_after(GENESIS))) is Code.SIGNATURE


def test_a_journal_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    append(journal_in(tmp_path), b"one")
    assert code_of(lambda: create_journal(tmp_path / ENVIRONMENT.hex(), key_in(tmp_path), "shop", GENESIS)) is Code.IO
    assert journal_in(tmp_path).position.number == 1


def test_segments_follow_each_other(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segment_bytes_max=SMALL)
    append(journal, *(b"%d" % number for number in range(7)))
    assert len(files(tmp_path)) > 2
    again = journal_in(tmp_path, segment_bytes_max=SMALL)
    assert again.position == journal.position
    for number in range(1, 9):
        assert numbers(again.read(number, 100_000)) == list(range(number, 8))
    verifier = Verifier()
    for path in files(tmp_path):
        for found in read(path.read_bytes()):
            assert not isinstance(found, TornTail)
            verifier.feed(found.item)
    assert verifier.position == journal.position


def test_reading_is_bounded_and_gives_at_least_one(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one", b"two", b"three")
    assert numbers(journal.read(1, 1)) == [1]
    assert numbers(journal.read(1, 9)) == [1, 2]
    assert code_of(lambda: journal.read(5, 1)) is Code.NUMBER
    assert journal.read(4, 1) == ()


# Blocks of others


def test_blocks_of_another_recorder_are_kept_with_their_seals(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    one, at = OTHER.seal(GENESIS, block_after(GENESIS))
    two, end = OTHER.seal(at, block_after(at))
    journal.keep(OTHER.sealer, one)
    journal.keep(OTHER.sealer, two)
    journal.commit()
    assert journal.position == end
    append(journal, b"own", epoch=2)
    again = journal_in(tmp_path)
    own = again.read(3, 1000)[1]
    assert again.read(1, 1000) == (OTHER.sealer, one, two, key_in(tmp_path).sealer, own)
    assert again.read(2, 1) == (OTHER.sealer, two)


def test_what_another_recorder_did_not_seal_is_refused(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    sealed, _ = OTHER.seal(GENESIS, block_after(GENESIS))
    changed = Sealed(msgspec.structs.replace(sealed.block, body=b"\0other"), sealed.seal)
    forged = Sealed(sealed.block, Seal(sealed.seal.head, bytes(64)))
    elsewhere, _ = OTHER.seal(GENESIS, sealed.block, b"e" * 16)
    false = msgspec.structs.replace(OTHER.sealer, node=NODE)
    for sealer, item, code in (
        (OTHER.sealer, changed, Code.CHAIN),
        (OTHER.sealer, forged, Code.SIGNATURE),
        (OTHER.sealer, elsewhere, Code.SIGNATURE),
        (Hand(7).sealer, sealed, Code.SIGNATURE),
        (false, sealed, Code.SIGNATURE),
    ):
        with pytest.raises(RefusedError) as caught:
            journal.keep(sealer, item)
        assert caught.value.code is code
    assert journal.staged_bytes == 0
    journal.keep(OTHER.sealer, sealed)


# Crashes and full disks


def test_a_torn_tail_is_cut_off(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one")
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    append(journal, b"two")
    more = path.read_bytes()
    for size in range(len(whole) + 1, len(more)):
        path.write_bytes(more[:size])
        assert journal_in(tmp_path).position.number == 1
        assert path.read_bytes() == whole
    append(journal_in(tmp_path), b"two")
    assert journal_in(tmp_path).position.number == 2


def test_a_changed_byte_is_said_with_its_place(tmp_path: Path) -> None:
    append(journal_in(tmp_path), b"one", b"two")
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        journal = journal_in(tmp_path)
        assert str(path) in journal.damage
        assert journal.recorded().damage == journal.damage
        assert path.read_bytes() == bytes(changed)


def test_a_block_that_was_changed_with_its_checks_is_said(tmp_path: Path) -> None:
    append(journal_in(tmp_path), b"one")
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    *_, last = read(whole)
    assert not isinstance(last, TornTail)
    assert isinstance(last.item, Sealed)
    changed = Sealed(msgspec.structs.replace(last.item.block, body=b"\0other"), last.item.seal)
    path.write_bytes(whole[: last.offset] + encode_frame(changed, 1))
    assert journal_in(tmp_path).damage.endswith(f"{path}: offset {last.offset}, block 1: its chain does not check")
    forged, _ = OTHER.seal(GENESIS, changed.block)
    path.write_bytes(whole[: last.offset] + encode_frame(forged, 1))
    assert journal_in(tmp_path).damage.endswith("block 1: its signature does not check")


def test_segments_that_do_not_belong_together_are_said(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segment_bytes_max=SMALL)
    append(journal, *(b"%d" % number for number in range(7)))
    first, second, *_ = files(tmp_path)
    content = first.read_bytes()
    first.write_bytes(files(tmp_path)[-1].read_bytes())
    assert "not the one that follows" in journal_in(tmp_path).damage
    first.write_bytes(content[:-1])
    again = journal_in(tmp_path)
    assert again.damage == ""
    assert code_of(lambda: again.read(1, 1 << 20)) is Code.CORRUPT
    whole = Position(*msgspec.structs.astuple(again.position))
    _, *frames = read(content)
    last = frames[-1]
    first.write_bytes(content[: last.offset])
    again = journal_in(tmp_path)
    assert code_of(lambda: again.read(1, 1 << 20)) is Code.CORRUPT
    assert again.position == whole
    first.write_bytes(b"noise")
    assert str(first) in journal_in(tmp_path).damage
    assert journal_in(tmp_path).recorded().name == "shop", "the newest segment says so"
    files(tmp_path)[-1].write_bytes(b"noise")
    assert journal_in(tmp_path).recorded().name == "shop", "or one before it"
    second.unlink()
    assert "a segment is missing" in journal_in(tmp_path).damage
    for path in files(tmp_path):
        path.unlink()
    assert "a segment is missing" in journal_in(tmp_path).damage
    assert journal_in(tmp_path).recorded().name == "", "nothing says so"


def test_a_full_disk_refuses_all_that_shared_the_write_and_nothing_else(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one")
    (path,) = files(tmp_path)
    before, at = path.read_bytes(), journal.position
    first = block_after(at, b"two")
    with full_disk(300, path):
        journal.append(first)
        journal.append(Block(3, 1, 3, 1, b"\0" + bytes(1000)))
        assert code_of(journal.commit) is Code.FULL
        assert path.read_bytes() == before
        assert journal.position == at
        assert code_of(lambda: journal.append(Block(4, 1, 4, 1, b"\0"))) is Code.NUMBER
    journal.append(first)
    journal.commit()
    assert journal_in(tmp_path).position == journal.position
    assert journal.position.number == 2


def test_nothing_is_accepted_before_the_file_is_cut_back(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one")
    (path,) = files(tmp_path)
    before = path.read_bytes()
    aside = path.with_name("aside")
    journal.release()
    path.rename(aside)
    path.symlink_to("/dev/full")  # Writing fails, and so does cutting back.
    journal.append(block_after(journal.position, b"two"))
    assert code_of(journal.commit) is Code.FULL
    assert code_of(lambda: journal.append(block_after(journal.position, b"two"))) is Code.IO
    path.unlink()
    path.write_bytes(before + b"half of it")
    journal.append(block_after(journal.position, b"two"))
    assert path.read_bytes() == before
    journal.commit()
    assert journal_in(tmp_path).position.number == 2


def test_a_segment_that_cannot_begin_refuses_the_block(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segment_bytes_max=1)
    in_the_way = tmp_path / ENVIRONMENT.hex() / f"{2:08d}.atb"
    in_the_way.mkdir()
    assert code_of(lambda: journal.append(block_after(GENESIS))) is Code.IO
    in_the_way.rmdir()
    append(journal, b"one")
    assert journal_in(tmp_path).position.number == 1


# Promises


def test_a_promise_is_durable_and_holds(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one")
    journal.promise(1, NODE)
    assert code_of(lambda: journal.promise(1, b"")) is Code.EPOCH
    journal.promise(3, b"")
    assert code_of(lambda: journal.append(block_after(journal.position, epoch=3))) is Code.EPOCH
    journal.promise(3, b"other-node")
    journal.promise(3, b"other-node")
    again = journal_in(tmp_path)
    assert (again.recorded().promised_epoch, again.recorded().promised_to) == (3, b"other-node")
    for epoch, node in ((3, NODE), (2, b"other-node")):
        with pytest.raises(RefusedError) as caught:
            again.promise(epoch, node)
        assert caught.value.code is Code.EPOCH
    assert code_of(lambda: again.append(block_after(again.position, epoch=2))) is Code.EPOCH
    assert code_of(lambda: again.append(block_after(again.position, epoch=3))) is Code.EPOCH
    theirs, _ = OTHER.seal(again.position, block_after(again.position, epoch=3))
    again.keep(OTHER.sealer, theirs)
    again.commit()
    again.promise(4, NODE)
    append(again, b"ours", epoch=4)


def test_an_epoch_that_has_begun_can_be_promised_and_an_earlier_one_not(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one", epoch=4)
    assert code_of(lambda: journal.promise(3, NODE)) is Code.EPOCH
    journal.promise(4, b"")
    journal.promise(4, b"other-node")
    assert code_of(lambda: journal.promise(4, NODE)) is Code.EPOCH
    assert code_of(lambda: journal.append(block_after(journal.position, epoch=4))) is Code.EPOCH


def test_a_node_that_has_promised_keeps_older_blocks_that_it_lacks(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.promise(7, b"other-node")
    sealed, after = OTHER.seal(GENESIS, block_after(GENESIS, epoch=2))
    journal.keep(OTHER.sealer, sealed)
    journal.commit()
    assert journal.position == after
    assert code_of(lambda: journal.append(block_after(after, epoch=6))) is Code.EPOCH


def test_a_promise_that_is_damaged_or_cannot_be_written_is_said(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    path = tmp_path / ENVIRONMENT.hex() / "promise"
    path.mkdir()
    assert code_of(lambda: journal.promise(1, NODE)) is Code.IO
    assert journal.recorded().promised_epoch == 0
    assert str(path.name) in journal_in(tmp_path).damage
    path.rmdir()
    journal.promise(1, NODE)
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path}: a standing that does not check" in journal_in(tmp_path).damage


# Beginning anew


def theirs(at: Position, content: bytes = b"theirs") -> Taken:
    """A snapshot that another recorder has signed, by the specification."""
    payload = b"atoll-snapshot-1" + ENVIRONMENT + at.number.to_bytes(8, "little") + at.head + sha256(content).digest()
    return Taken(content, OTHER.sealer, OTHER.key.sign(payload))


def test_a_journal_begins_anew_after_a_snapshot_of_another_node(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, WRITING, b"two")
    journal.keep_snapshot(1, STATE)
    journal.promise(4, b"other-node")
    at = Position(7, 4, 30, b"h" * 32)
    journal.restart(Restart(1, ENVIRONMENT, at, (1, 2), theirs(at)))
    for one in (journal, journal_in(tmp_path)):
        recorded = one.recorded()
        assert (recorded.name, recorded.at, recorded.first, recorded.snapshots) == ("shop", at, 8, (7,))
        assert (recorded.promised_epoch, recorded.promised_to, recorded.floor) == (4, b"other-node", (1, 2))
        found, signed = one.snapshot(7)
        assert (found, signed.content, signed.sealer) == (at, b"theirs", key_in(tmp_path).sealer)
    sealed, after = OTHER.seal(at, block_after(at, epoch=4))
    journal.keep(OTHER.sealer, sealed)
    journal.commit()
    assert journal_in(tmp_path).position == after
    assert len(list((tmp_path / ENVIRONMENT.hex() / "orphans").iterdir())) == 2


def test_a_journal_that_is_given_up_remembers_what_it_had(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one", b"two", epoch=3)
    journal.restart(Restart(1, ENVIRONMENT, floor=(3, 2)))
    assert (journal.position, journal.first, journal.snapshots) == (GENESIS, 1, ())
    assert code_of(lambda: journal.promise(2, NODE)) is Code.EPOCH
    journal.promise(3, b"other-node")
    journal.restart(Restart(1, ENVIRONMENT, floor=(3, 1)))
    recorded = journal_in(tmp_path).recorded()
    assert (recorded.floor, recorded.promised_epoch, recorded.promised_to) == ((3, 2), 3, b"other-node")
    append(journal, b"again", epoch=5)
    assert journal_in(tmp_path).position.number == 1


def test_what_a_journal_cannot_begin_with_is_refused(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one")
    at = Position(7, 4, 30, b"h" * 32)
    bad = Restart(1, ENVIRONMENT, at)
    assert code_of(lambda: journal.restart(bad)) is Code.NUMBER
    for false in (
        msgspec.structs.replace(theirs(at), content=b"other"),
        msgspec.structs.replace(theirs(at), sealer=Hand(7).sealer),
        theirs(msgspec.structs.replace(at, number=8)),
    ):
        wrong = Restart(1, ENVIRONMENT, at, snapshot=false)
        assert code_of(partial(journal.restart, wrong)) is Code.SIGNATURE
    orphans = tmp_path / ENVIRONMENT.hex() / "orphans"
    orphans.rmdir()
    good = Restart(1, ENVIRONMENT, at, snapshot=theirs(at))
    assert code_of(lambda: journal.restart(good)) is Code.IO
    assert journal.recorded().damage == ""
    append(journal, b"two")
    assert numbers(journal_in(tmp_path).read(1, 1000)) == [1, 2]


def test_what_was_to_be_given_up_is_gone_before_anything_is_taken(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one", epoch=3)
    orphans = tmp_path / ENVIRONMENT.hex() / "orphans"
    orphans.rmdir()
    assert code_of(lambda: journal.restart(Restart(1, ENVIRONMENT, floor=(3, 1)))) is Code.IO
    assert code_of(lambda: append(journal, b"two", epoch=3)) is Code.IO
    assert journal.position.number == 1
    at = Position(7, 4, 30, b"h" * 32)
    assert code_of(lambda: journal.restart(Restart(1, ENVIRONMENT, at, snapshot=theirs(at)))) is Code.IO
    orphans.mkdir()
    first = block_after(GENESIS, b"again", epoch=5)
    journal.append(first)
    journal.commit()
    recorded = journal_in(tmp_path).recorded()
    assert (recorded.at.number, recorded.at.epoch, recorded.floor) == (1, 5, (3, 1))


def test_what_was_to_be_given_up_twice_is_remembered_at_its_highest(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one", epoch=3)
    orphans = tmp_path / ENVIRONMENT.hex() / "orphans"
    orphans.rmdir()
    for floor in ((3, 1), (0, 0)):
        assert code_of(partial(journal.restart, Restart(1, ENVIRONMENT, floor=floor))) is Code.IO
    orphans.mkdir()
    journal.append(block_after(GENESIS, b"again", epoch=5))
    journal.commit()
    assert journal_in(tmp_path).recorded().floor == (3, 1)


def test_what_was_to_be_given_up_is_remembered_by_a_snapshot_that_comes_first(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one", epoch=3)
    orphans = tmp_path / ENVIRONMENT.hex() / "orphans"
    orphans.rmdir()
    assert code_of(lambda: journal.restart(Restart(1, ENVIRONMENT, floor=(3, 1)))) is Code.IO
    orphans.mkdir()
    at = Position(7, 4, 30, b"h" * 32)
    journal.restart(Restart(1, ENVIRONMENT, at, snapshot=theirs(at)))
    append(journal, b"eight", epoch=4)
    recorded = journal_in(tmp_path).recorded()
    assert (recorded.at.number, recorded.floor) == (8, (3, 1))


def test_beginning_anew_that_stops_in_the_middle_is_said_and_done_at_the_next_start(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one")
    snapshots = tmp_path / ENVIRONMENT.hex() / "snapshots"
    snapshots.rmdir()
    assert code_of(lambda: journal.restart(Restart(1, ENVIRONMENT))) is Code.CORRUPT
    assert str(snapshots) in journal.recorded().damage
    snapshots.mkdir()
    assert journal_in(tmp_path).position == GENESIS


def test_a_cut_that_failed_is_forgotten_with_the_journal(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one", b"two")
    orphans = tmp_path / ENVIRONMENT.hex() / "orphans"
    orphans.rmdir()
    assert code_of(lambda: journal.cut(2)) is Code.IO
    orphans.mkdir()
    journal.restart(Restart(1, ENVIRONMENT))
    append(journal, b"one", b"two")
    assert journal_in(tmp_path).position.number == 2


# Cutting and retaining


def test_a_cut_keeps_what_it_takes_out(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segment_bytes_max=SMALL)
    append(journal, WRITING, WRITING)
    at = journal.position
    append(journal, *[WRITING] * 5)
    journal.keep_snapshot(2, STATE)
    journal.keep_snapshot(5, STATE)
    journal.cut(3)
    assert journal.position == at
    assert journal.snapshots == (2,)
    assert len(list((tmp_path / ENVIRONMENT.hex() / "orphans").iterdir())) == 2
    append(journal, b"another", epoch=2)
    again = journal_in(tmp_path)
    assert again.position == journal.position
    assert numbers(again.read(1, 1000)) == [1, 2, 3]
    journal.cut(4)
    journal.cut(1)
    assert journal.position == GENESIS
    assert len(files(tmp_path)) == 1


def test_a_cut_where_no_journal_is_left_is_refused(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segment_bytes_max=SMALL)
    append(journal, *[WRITING] * 7)
    assert code_of(lambda: journal.cut(9)) is Code.NUMBER
    journal.keep_snapshot(6, STATE)
    assert journal.retain(8) > 1
    assert code_of(lambda: journal.cut(journal.first - 1)) is Code.NUMBER
    assert code_of(lambda: journal.cut(6)) is Code.NUMBER
    journal.cut(7)
    assert journal.position.number == 6


def test_a_cut_that_fails_leaves_the_journal(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one", b"two")
    orphans = tmp_path / ENVIRONMENT.hex() / "orphans"
    orphans.rmdir()
    orphans.touch()
    assert code_of(lambda: journal.cut(2)) is Code.IO
    assert journal.position.number == 2
    assert numbers(journal.read(1, 1000)) == [1, 2]


def test_a_cut_that_failed_is_made_before_anything_is_taken(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"one", b"two", b"three")
    orphans = tmp_path / ENVIRONMENT.hex() / "orphans"
    orphans.rmdir()
    orphans.touch()
    assert code_of(lambda: journal.cut(2)) is Code.IO
    assert code_of(lambda: journal.cut(3)) is Code.IO
    following = block_after(journal.position, epoch=2)
    assert code_of(lambda: journal.append(following)) is Code.IO
    orphans.unlink()
    orphans.mkdir()
    assert code_of(lambda: journal.append(following)) is Code.NUMBER
    assert journal.position.number == 1
    append(journal, b"another two", epoch=2)
    assert journal_in(tmp_path).position == journal.position


def test_retention_goes_no_further_than_a_snapshot(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segment_bytes_max=SMALL)
    append(journal, *[WRITING] * 7)
    before = len(files(tmp_path))
    assert journal.retain(8) == 1
    assert len(files(tmp_path)) == before
    journal.keep_snapshot(1, STATE)
    journal.keep_snapshot(5, STATE)
    assert journal.retain(6, bytes_min=1 << 40) == 1
    assert journal.base == 0
    assert journal.retain(5) == journal.first <= 2
    assert journal.recorded().snapshots == (1, 5)
    first = journal.retain(6)
    assert 1 < first <= 6
    assert journal.base == 5
    assert journal.recorded().snapshots == (5,)
    assert code_of(lambda: journal.retain(9)) is Code.NUMBER
    assert numbers(journal_in(tmp_path).read(6, 1000)) == [6, 7]


def test_retention_that_the_disk_refuses_is_said(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, WRITING)
    journal.keep_snapshot(1, STATE)
    orphans = tmp_path / ENVIRONMENT.hex() / "orphans"
    orphans.rmdir()
    assert code_of(lambda: journal.retain(2)) is Code.IO


def test_a_descriptor_is_given_back(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    before = open_files()
    append(journal, b"one")
    opened = journal.is_open
    journal.release()
    journal.release()
    assert (opened, journal.is_open) == (True, False)
    assert open_files() <= before
    append(journal, b"two")
    journal.release()
