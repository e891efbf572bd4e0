# SPDX-License-Identifier: Apache-2.0
"""A journal that was changed is found out, however much else was changed with it, and what was forged is named."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import UserError
from atoll.base.ids import GroupId
from atoll.domain.auditing import Audit, audit, heads_in, roster_of, trusting
from atoll.domain.recorder.heads import HeadFiles
from atoll.domain.recorder.journal import BlockJournal, create_journal
from atoll.domain.recorder.messages import KeptHead, Restart, Taken
from atoll.domain.recorder.snapshots import Standing, encode_standing
from atoll.domain.shelves import find_journal, journals_of
from atoll.env.chain import (
    GENESIS,
    Block,
    Frame,
    Position,
    Sealed,
    Sealer,
    certificate_payload,
    encode_frame,
    link_of,
    pack_body,
    read,
    segment_start,
)
from atoll.env.history import DIGEST_BYTES, Entry, encode_body
from atoll.env.records import Fired, Upgraded
from atoll.group.identity import founding_roster
from atoll.group.roster import Roster
from tests.unit.group_world import identity, record
from tests.unit.past_world import ANN, BOB, START_NS, DiskWorld, arrived, bid
from tests.unit.recorder_world import ENVIRONMENT, NODE, Hand, block_after, key_in, stored

WITNESS = b"other-node"


@pytest.fixture
def world(tmp_path: Path) -> DiskWorld:
    """Return a journal with 12 events in three blocks, a checkpoint in block 4, and four events in block 5."""
    made = DiskWorld(tmp_path)
    made.bids(12)
    made.checkpoint()
    made.seal(arrived(BOB, 5, *(bid("bob", 50 + at) for at in range(4))))
    return made


def audited(world: DiskWorld, heads: Iterable[KeptHead] = (), roster: Roster | None = None) -> Audit:
    journal = find_journal(world.state, str(world.directory))
    return audit(journal, [(Path("kept"), (WITNESS, head)) for head in heads], roster)


def forge(world: DiskWorld, hand: Hand, number: int) -> None:
    """Write the journal anew with another block ``number``, all sealed by this hand."""
    at: Position = GENESIS
    parts = [segment_start(hand.manifest())]
    for sealed in world.sealed():
        block = sealed.block
        if block.number == number:
            block = msgspec.structs.replace(block, body=b"\0forged")
        made, at = hand.seal(at, block)
        parts.append(encode_frame(made, made.block.number))
    world.segment.write_bytes(b"".join(parts))


def test_a_journal_that_was_not_changed_is_sound(world: DiskWorld) -> None:
    found = audited(world, [world.head(3), KeptHead(bytes(16), world.head(1).link, bytes(64))])
    assert found.is_sound
    assert (found.first, found.last, found.sound, found.first_event, found.last_event) == (1, 5, 5, 1, 16)
    assert dict(found.counts) == {
        "segments": 1,
        "certificates": 1,
        "blocks": 5,
        "events": 16,
        "heads": 1,
        "snapshots": 1,
    }
    assert [(sealer.node, said) for sealer, said in found.sealers.items()] == [(NODE, "certificate")]
    assert [witness.number for witness in found.witnesses] == [3]


def test_code_is_named_and_not_run(world: DiskWorld) -> None:
    (world.state / "code" / f"{world.code.hex()}.atc").unlink()
    assert [*audited(world).codes] == [world.code]
    forge_snapshot(world, Hand(), code=b"s" * 32)
    assert [*audited(world).codes] == [world.code, b"s" * 32]
    other = Entry(START_NS, 0, Upgraded(b"u" * 32))
    body = encode_body(bytes(DIGEST_BYTES), [Entry(START_NS, 0, Fired()), other])
    world.journal.append(Block(6, 1, 17, 2, pack_body(body)))
    world.journal.append(Block(7, 1, 19, 1, b"odd"))
    world.journal.append(Block(8, 1, 20, 1, b"odd"))
    world.journal.commit()
    found = audited(world)
    assert [*found.codes] == [world.code, b"u" * 32, b"s" * 32]
    what = "not all code that it needs is named"
    why = "does not decode in this version: a body of 3 bytes that is not one"
    assert found.remarks == [f"{what}: block 7, and 1 more, {why}"]
    assert (found.is_sound, found.names_all_code) == (True, False)
    assert found.counts["undecoded"] == 2


def test_a_journal_that_says_all_code_that_it_needs_says_so(world: DiskWorld) -> None:
    assert audited(world).names_all_code
    (world.directory / "snapshots" / "4.ats").write_bytes(b"x")
    assert not audited(world).names_all_code, "it has a fault"


def test_code_that_ran_before_the_first_block_is_known_by_a_snapshot_only(world: DiskWorld) -> None:
    at = Position(4, 1, 12, world.sealed()[3].seal.head)
    signed = world.journal.snapshot(4)[1]
    world.journal.restart(Restart(1, ENVIRONMENT, at, (1, 5), Taken(signed.content, signed.sealer, signed.signature)))
    assert ([*audited(world).codes], audited(world).names_all_code) == ([world.code], True)
    (world.directory / "snapshots" / "4.ats").unlink()
    found = audited(world)
    assert ([*found.codes], found.names_all_code, found.is_sound) == ([], False, True)
    assert found.remarks == ["not all code that it needs is named: no snapshot says which runs at block 5"]


def test_one_changed_byte_names_the_block_and_what_follows(world: DiskWorld) -> None:
    data = bytearray(world.segment.read_bytes())
    at = [frame for frame in read(bytes(data)) if isinstance(frame, Frame)][2].offset  # Of block 2.
    data[at + 60] ^= 1
    world.segment.write_bytes(data)
    found = audited(world)
    assert [fault.block for fault in found.faults] == [2]
    assert "content that does not check (block 2)" in found.faults[0].sentence
    assert (found.sound, found.last, found.sound_events, found.last_event) == (1, 5, 4, 16)


def test_a_block_that_was_changed_with_its_checksum_breaks_the_chain(world: DiskWorld) -> None:
    frames = [frame for frame in read(world.segment.read_bytes()) if isinstance(frame, Frame)]
    data = world.segment.read_bytes()
    two = frames[2]
    assert isinstance(two.item, Sealed)
    block = msgspec.structs.replace(two.item.block, body=two.item.block.body[:-1] + b"x")
    world.segment.write_bytes(data[: two.offset] + encode_frame(Sealed(block, two.item.seal), 2) + data[two.end :])
    found = audited(world)
    assert [(fault.block, "its chain does not check" in fault.sentence) for fault in found.faults] == [(2, True)]
    assert (found.sound, found.last) == (1, 5)


def test_one_that_was_sealed_anew_with_another_key_is_found_by_the_roster(world: DiskWorld) -> None:
    roster = Roster(GroupId(bytes(32)))
    forge(world, Hand(7, signer=5), 2)
    found = audited(world, roster=roster)
    assert "its certificate does not check" in found.faults[0].sentence
    assert list(found.sealers.values()) == ["unknown"]


def test_one_that_was_sealed_anew_is_found_by_the_heads_that_were_shown(world: DiskWorld) -> None:
    shown = [world.head(1), world.head(3)]
    forge(world, Hand(7, signer=5), 2)
    found = audited(world, shown)
    sentences = [fault.sentence for fault in found.faults]
    assert sum("sealed by another key" in sentence for sentence in sentences) == 1
    assert [witness.number for witness in found.contradicting] == [3]
    assert [witness.number for witness in found.witnesses] == [1]
    assert "it was taken after another block 4" in sentences[-1]


def test_a_recorder_that_sealed_two_pasts_is_proven_to_have(world: DiskWorld) -> None:
    shown = world.head(3)
    forge(world, Hand(), 2)
    found = audited(world, [shown])
    assert "it has sealed two pasts" in found.faults[0].sentence


def test_blocks_that_were_shown_and_are_gone_are_missing(world: DiskWorld) -> None:
    shown = world.head(5)
    frames = [frame for frame in read(world.segment.read_bytes()) if isinstance(frame, Frame)]
    world.segment.write_bytes(world.segment.read_bytes()[: frames[-1].offset])
    found = audited(world, [shown])
    assert found.faults[0].sentence.startswith("blocks 5 to 5 are missing: ")
    assert (found.last, found.contradicting[0].number) == (4, 5)


def test_a_journal_that_its_node_gave_up_is_not_kept_here_and_lacks_nothing(world: DiskWorld) -> None:
    shown = [world.head(3), world.head(5)]
    world.journal.restart(Restart(1, ENVIRONMENT, floor=(1, 5)))
    found = audited(world, shown)
    assert not found.is_sound, "nobody else went on with it, as far as is known here"
    here = [(world.state / "heads", (WITNESS, head)) for head in shown]
    found, said = in_places(world, here), "the journal is not kept here: this node gave it up"
    assert found.is_sound
    assert found.remarks == [f"{said}, and heads up to 5 have been shown; nothing was checked"]
    assert audited(world).remarks == [f"{said}; nothing was checked"]


def test_who_gave_a_journal_up_is_not_accused_with_the_new_owners_heads_alone(world: DiskWorld) -> None:
    kept = [world.head(3), world.head(5)]  # By the new owner, of which the others keep what it seals.
    world.journal.promise(2, WITNESS)
    world.journal.restart(Restart(1, ENVIRONMENT, floor=(1, 5)))
    found = audited(world, kept)
    assert (found.is_sound, found.faults, found.contradicting) == (False, [], [])
    (question,) = found.open
    assert (question.block, question.is_missing) == (5, True)
    assert question.sentence.startswith("blocks 1 to 5 were given up, as this node says; ")
    need = f"add --heads of every member but {WITNESS.hex()}, which keeps none of its own"
    assert question.sentence.endswith(need)
    later = shown_by_another(world, 7, epoch=2)
    assert audited(world, [*kept, later]).is_sound, "a third member has kept what the new owner sealed"


def in_places(world: DiskWorld, heads: Iterable[tuple[Path, tuple[bytes, KeptHead]]]) -> Audit:
    """Check the journal with heads of which each is kept somewhere."""
    return audit(find_journal(world.state, str(world.directory)), heads, None)


def test_what_a_node_sealed_is_given_up_only_where_another_went_on(world: DiskWorld) -> None:
    shown, later = world.head(5), shown_by_another(world, 7, epoch=2)
    early = shown_by_another(world, 7)  # Of the epoch that the node itself had.
    world.journal.restart(Restart(1, ENVIRONMENT, floor=(1, 5)))
    elsewhere, here = world.state.parent / "kept", world.state / "heads"
    for heads, is_sound in (
        ([(elsewhere, shown)], False),
        ([(elsewhere, shown), (elsewhere, later)], True),
        ([(elsewhere, shown), (elsewhere, early)], False),
        ([(elsewhere, shown), (here, later)], False),
        ([(here, shown)], True),
    ):
        assert in_places(world, [(place, (WITNESS, head)) for place, head in heads]).is_sound == is_sound


def test_a_standing_that_anybody_can_write_hides_no_block(world: DiskWorld) -> None:
    shown = [world.head(3), world.head(5)]
    world.segment.write_bytes(segment_start(Hand().manifest()))
    (world.directory / "snapshots" / "4.ats").unlink()
    (world.directory / "promise").write_bytes(encode_standing(Standing(ENVIRONMENT, 1, NODE, 1, 5, 1)))
    found = audited(world, shown)
    assert (found.is_sound, found.faults) == (False, [])
    assert [question.block for question in found.open] == [5]
    assert "whether another node went on no head here says" in found.open[0].sentence
    assert found.open[0].sentence.endswith("add --heads of every member")
    (world.directory / "promise").write_bytes(encode_standing(Standing(ENVIRONMENT, 1, NODE, 1, 4, 1)))
    here = [(world.state / "heads", (WITNESS, head)) for head in shown]
    assert [fault.block for fault in in_places(world, here).faults] == [5], "the standing does not speak of it"


def test_a_journal_without_blocks_that_was_not_given_up_lacks_those_that_were_shown(world: DiskWorld) -> None:
    shown = [world.head(5)]
    world.segment.write_bytes(segment_start(Hand().manifest()))
    (world.directory / "snapshots" / "4.ats").unlink()
    assert "blocks 1 to 5 are missing" in audited(world, shown).faults[0].sentence
    assert audited(world).is_sound
    (world.directory / "promise").write_bytes(b"damaged")
    assert "blocks 1 to 5 are missing" in audited(world, shown).faults[0].sentence


def test_a_journal_that_began_anew_after_a_snapshot_is_compared_from_there_on(world: DiskWorld) -> None:
    shown, five = [world.head(3), world.head(4)], world.head(5)
    at = Position(4, 1, 12, world.sealed()[3].seal.head)
    signed = world.journal.snapshot(4)[1]
    world.journal.restart(Restart(1, ENVIRONMENT, at, (1, 5), Taken(signed.content, signed.sealer, signed.signature)))
    found = audited(world, shown)
    assert (found.is_sound, found.remarks, [one.number for one in found.witnesses]) == (True, [], [4])
    assert "blocks 5 to 5 were given up" in audited(world, [*shown, five]).open[0].sentence


def shown_by_another(world: DiskWorld, number: int, *, epoch: int = 1) -> KeptHead:
    """Return the head of a block that came behind those that are here, and that another recorder has sealed."""
    before = msgspec.structs.replace(world.journal.position, number=number - 1, epoch=epoch)
    sealed, _ = Hand(7, WITNESS, signer=2).seal(before, block_after(before))
    return KeptHead(ENVIRONMENT, link_of(before.head, sealed.block), sealed.seal.signature)


def test_a_journal_that_is_behind_others_is_sound(world: DiskWorld) -> None:
    found = audited(world, [world.head(3), shown_by_another(world, 17), shown_by_another(world, 18)])
    assert (found.is_sound, found.faults, found.contradicting) == (True, [], [])
    assert found.remarks == ["behind: 5 of 18 blocks"]
    assert [witness.number for witness in found.witnesses] == [3]


def test_a_node_that_has_shown_a_block_has_had_it_whoever_sealed_it(world: DiskWorld) -> None:
    journal = find_journal(world.state, str(world.directory))
    found = audit(journal, [(Path("kept"), (NODE, shown_by_another(world, 6)))], None)
    assert [(fault.block, fault.is_missing) for fault in found.faults] == [(6, True)]


def test_what_is_missing_behind_what_does_not_check_is_a_fault(world: DiskWorld) -> None:
    shown = [world.head(3), shown_by_another(world, 6)]
    forge(world, Hand(), 2)
    found = audited(world, shown)
    assert [fault.block for fault in found.faults if fault.is_missing] == [6]
    assert not any(remark.startswith("behind") for remark in found.remarks)


def test_a_torn_tail_is_no_fault(world: DiskWorld) -> None:
    world.segment.write_bytes(world.segment.read_bytes() + b"\1\2\3")
    found = audited(world)
    assert found.is_sound
    assert found.torn == 3


def test_only_the_newest_segment_may_be_torn(world: DiskWorld, tmp_path: Path) -> None:
    world.journal.release()
    journal = BlockJournal(world.directory, key_in(tmp_path), segment_bytes_max=1)
    world.memory.seal(arrived(ANN, 9, bid("ann", 99)))
    journal.append(world.memory.blocks[-1])
    journal.commit()
    assert audited(world).counts["segments"] == 2
    data = world.segment.read_bytes()
    world.segment.write_bytes(data[:-5])
    found = audited(world)
    assert "is not the newest" in found.faults[0].sentence
    assert (found.sound, found.last) == (4, 6)
    world.segment.write_bytes(data)
    second = world.directory / "00000002.atb"
    second.write_bytes(second.read_bytes()[:40])
    found = audit(find_journal(world.state, str(world.segment)), (), None)
    assert found.is_sound


def test_snapshots_are_checked(world: DiskWorld) -> None:
    path = world.directory / "snapshots" / "4.ats"
    path.write_bytes(path.read_bytes() + b"x")
    assert [fault.block for fault in audited(world).faults] == [4]


def forge_snapshot(world: DiskWorld, hand: Hand, **fields: object) -> None:
    """Write the snapshot after block 4 anew, with other content, signed by this hand."""
    content = msgspec.structs.replace(world.memory.kept[4], **fields).encode()
    at = Position(4, 1, 12, world.sealed()[3].seal.head)
    (world.directory / "snapshots" / "4.ats").write_bytes(hand.snapshot(at, content))


def test_a_snapshot_that_was_forged_is_found_whoever_signed_it(world: DiskWorld) -> None:
    state = world.memory.kept[4].state.replace(b"bob", b"eve")
    for hand in (Hand(), Hand(7, signer=5)):
        forge_snapshot(world, hand, state=state)
        assert [fault.block for fault in audited(world).faults] == [4]
    forge_snapshot(world, Hand(7, signer=5), code=b"e" * 32)  # Of which its block says nothing.
    assert "signed with a key that is not known" in audited(world).faults[0].sentence
    forge_snapshot(world, Hand(7))
    assert audited(world).is_sound, "another recorder of the same node"


def test_a_snapshot_of_a_block_after_which_none_was_stored_is_a_fault(world: DiskWorld) -> None:
    path, hand, sealed = world.directory / "snapshots" / "3.ats", Hand(), world.sealed()
    path.write_bytes(hand.snapshot(Position(3, 1, 12, sealed[2].seal.head), world.memory.kept[4].encode()))
    assert "no state was stored after block 3" in audited(world).faults[0].sentence
    path.rename(path.with_name("9.ats"))
    path = path.with_name("9.ats")
    path.write_bytes(hand.snapshot(Position(9, 1, 12, sealed[2].seal.head), world.memory.kept[4].encode()))
    assert "it is of block 9, which is not here" in audited(world).faults[0].sentence


def test_who_signs_a_snapshot_is_asked_of_the_roster(world: DiskWorld) -> None:
    roster = founding_roster(identity(0), record(0))
    node = bytes(record(0).node)
    keeper = Hand(7, node)
    keeper.sealer = Sealer(
        node,
        keeper.sealer.recorder,
        identity(0).signing_key,
        identity(0).sign(certificate_payload(node, keeper.sealer.recorder)),
    )
    forge(world, keeper, 0)
    forge_snapshot(world, keeper)
    assert audited(world, roster=roster).is_sound
    forge_snapshot(world, Hand(8, node, signer=5))
    assert "signed with a key that is not known" in audited(world, roster=roster).faults[0].sentence


def test_who_is_trusted_is_asked_of_the_roster_that_a_node_keeps(tmp_path: Path) -> None:
    assert trusting(tmp_path) is None
    (tmp_path / "roster").write_bytes(founding_roster(identity(0), record(0)).encode())
    trusts = trusting(tmp_path)
    assert trusts is not None
    known = msgspec.structs.replace(Hand().sealer, node=record(0).node, signing_key=identity(0).signing_key)
    assert trusts(known)
    assert not trusts(Hand().sealer)
    assert not trusts(msgspec.structs.replace(known, node=NODE))


def test_a_snapshot_that_goes_while_it_is_audited_is_no_fault(world: DiskWorld) -> None:
    path = world.directory / "snapshots" / "4.ats"
    path.unlink()
    path.symlink_to("gone")  # Is listed, and is not there any more when it is read.
    found = audited(world)
    assert (found.is_sound, found.counts["snapshots"]) == (True, 0)


def test_a_snapshot_whose_block_went_is_checked_by_its_place_and_who_signed_it(tmp_path: Path) -> None:
    at = Position(7, 2, 30, b"h" * 32)
    directory = tmp_path / "envs" / ENVIRONMENT.hex()
    directory.parent.mkdir()
    create_journal(directory, key_in(tmp_path), "auction", at)
    path, journal = directory / "snapshots" / "7.ats", find_journal(tmp_path, "auction")
    for hand, place, is_sound in (
        (Hand(), at, True),
        (Hand(7, signer=5), at, False),
        (Hand(), msgspec.structs.replace(at, head=b"i" * 32), False),
    ):
        path.write_bytes(hand.snapshot(place, stored(b"state", epoch=2)))
        assert audit(journal, (), None).is_sound == is_sound


def test_a_journal_in_the_directory_of_another_is_a_fault(world: DiskWorld) -> None:
    world.directory.rename(world.directory.with_name("ff" * 16))
    journal = find_journal(world.state, "auction")
    found = audit(journal, (), None)
    assert "the journal in it is that of" in found.faults[0].sentence


def test_what_cannot_be_read_is_a_fault(world: DiskWorld) -> None:
    journal = find_journal(world.state, "auction")
    world.segment.unlink()
    found = audit(journal, (), None)
    assert "No such file" in found.faults[0].sentence


@pytest.mark.parametrize("size", [0, 4, 50])
def test_a_journal_of_which_no_manifest_can_be_read_is_a_fault(world: DiskWorld, size: int) -> None:
    world.segment.write_bytes(world.segment.read_bytes()[:size])
    (journal,) = journals_of(world.state)
    found = audit(journal, (), None)
    assert "00000001.atb: offset 0: a segment without a whole manifest" in found.faults[0].sentence
    world.segment.unlink()
    (journal,) = journals_of(world.state)
    assert audit(journal, (), None).faults[0].sentence == f"{world.directory}: there is no segment that can be read"


def test_snapshots_that_cannot_be_listed_are_a_fault(world: DiskWorld) -> None:
    directory = world.directory / "snapshots"
    directory.rename(directory.with_name("away"))
    assert audited(world).is_sound
    directory.symlink_to(directory)  # A loop, which nobody can follow.
    assert [fault.sentence for fault in audited(world).faults] == [f"{directory}: Too many levels of symbolic links"]


def test_heads_are_read_as_a_recorder_keeps_them(world: DiskWorld) -> None:
    directory = world.state / "heads"
    assert heads_in(directory) == ([], [])
    for number in (2, 3):
        HeadFiles(directory).keep(WITNESS, world.head(number))
    whole = [(WITNESS, world.head(2)), (WITNESS, world.head(3))]
    assert heads_in(directory) == (whole, [])
    path = directory / f"{WITNESS.hex()}.ath"
    path.write_bytes(bytes(176) + path.read_bytes() + b"torn")
    found, remarks = heads_in(directory)
    assert found == whole
    assert remarks == [f"{path}: 1 of 3 heads do not check, and count for nothing"]


def test_what_is_called_otherwise_is_no_file_of_heads(world: DiskWorld) -> None:
    directory = world.state / "heads"
    HeadFiles(directory).keep(WITNESS, world.head(2))
    (directory / "notes.ath").write_bytes(b"my notes")
    (directory / f"{WITNESS.hex()}.txt").write_bytes(b"more of them")
    assert heads_in(directory) == ([(WITNESS, world.head(2))], [])
    (directory / f"{b'third-node'.hex()}.ath").mkdir()
    with pytest.raises(UserError, match="A304"):
        heads_in(directory)


def test_a_roster_is_read_if_there_is_one(tmp_path: Path) -> None:
    assert roster_of(tmp_path) is None
    (tmp_path / "roster").mkdir()
    with pytest.raises(UserError, match="A108"):
        roster_of(tmp_path)
    (tmp_path / "roster").rmdir()
    (tmp_path / "roster").write_bytes(b"x")
    with pytest.raises(UserError, match="A108") as caught:
        roster_of(tmp_path)
    assert str(tmp_path / "roster") in caught.value.sentence
    assert "backup" in caught.value.fix
