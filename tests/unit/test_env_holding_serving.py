# SPDX-License-Identifier: Apache-2.0
"""An owner: what it seals, tells and commits, what it does with a disk that refuses, and when it gives up."""

import pytest

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.core.machine import Tick
from atoll.env.holding.desk import Desk
from atoll.env.holding.events import (
    BlocksRead,
    Change,
    Checkpointed,
    Committed,
    Hold,
    HoldersAsked,
    KeepPromise,
    MoveAsked,
    Proposed,
    ReadBlocks,
    ReadSnapshot,
    Refused,
    Resume,
    Run,
    Seal,
    Sealed,
    SealFailed,
    SnapshotRead,
    Stop,
    Suspected,
)
from atoll.env.holding.messages import Block, HandOver, PartStored, SnapshotPart, Store, Stored
from atoll.env.holding.serving import Serving
from atoll.env.limits import (
    DISK_FAILED_NS,
    HEARTBEAT_NS,
    LEAVE_NS,
    OWNER_ALONE_NS,
    PART_BYTES,
    PIPELINED_BLOCKS_MAX,
    RECORDS_BYTES_MAX,
    STORE_BYTES,
    UNFIT_NS,
    WINDOW_BLOCKS_MAX,
)
from tests.unit.holding_bench import A, B, Bench, C, D, E, F, Rows, block, rows


def owner(*, blocks: Rows = (), base: tuple[int, int] = (0, 0), holders: tuple[bytes, ...] = (A, B, C)) -> Bench:
    """A that owns the environment in the epoch after that of the last block, or in epoch 1."""
    last_epoch = blocks[-1][1] if blocks else base[1]
    bench = Bench(holders, blocks=blocks, base=base, promise=(last_epoch, b""))
    if len(holders) > 1:
        bench.elect(*(node for node in holders if node != A))
    return bench


def of(bench: Bench, node: bytes) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """What was told to a node: (before number, before epoch, numbers of the blocks) of each."""
    stores = [message for message in bench.told(node) if isinstance(message, Store)]
    return tuple((one.before_number, one.before_epoch, tuple(told.number for told in one.blocks)) for one in stores)


def read(bench: Bench, node: bytes, *blocks: Block) -> None:
    bench.do(BlocksRead(node, blocks[0].number, blocks))


# Blocks.


def test_a_new_owner_tells_everybody() -> None:
    bench = owner(blocks=rows(1, 1))
    assert of(bench, B) == of(bench, C) == ((2, 1, ()),)
    assert bench.machine.deadline_ns == bench.now_ns + HEARTBEAT_NS


def test_a_proposal_is_sealed_told_and_committed_by_a_majority() -> None:
    bench = owner()
    bench.propose(body=b"one")
    assert bench.got(Seal) == [Seal(1, 1, 1, 1, b"one", ())]
    assert of(bench, B) == of(bench, C) == ((0, 0, (1,)),)
    assert not bench.got(Committed)
    bench.stored(B, 1)
    assert bench.effects == [Committed(1)]
    bench.stored(C, 1)
    assert bench.effects == []


def test_an_owner_that_is_alone_commits_what_is_sealed() -> None:
    bench = owner(holders=(A,))
    bench.propose()
    assert bench.got(Committed) == [Committed(1)]


def test_an_owner_that_is_alone_tells_nobody_and_waits_for_nothing_until_another_one_learns() -> None:
    bench = owner(holders=(A,))
    bench.propose(body=b"one")
    dues = [bench.machine.deadline_ns]
    bench.now_ns += 100 * HEARTBEAT_NS
    now_ns = bench.now_ns
    bench.do(HoldersAsked((A, B)))
    bench.tick()
    assert bench.now_ns == now_ns, "it is told at once"
    assert of(bench, B)
    dues.append(bench.machine.deadline_ns)
    assert dues == [None, now_ns + HEARTBEAT_NS]
    assert bench.machine.owner == A


def test_of_two_holders_both_must_have_it() -> None:
    bench = owner(holders=(A, B))
    bench.propose()
    assert not bench.got(Committed)
    bench.stored(B, 1)
    assert bench.got(Committed) == [Committed(1)]


def test_older_blocks_are_committed_with_the_first_of_the_own_epoch() -> None:
    bench = owner(blocks=rows(1, 1, 2))
    bench.stored(B, 3)
    bench.stored(C, 3)
    assert not bench.got(Committed)
    bench.propose()
    bench.stored(C, 4)
    assert bench.got(Committed) == [Committed(4)]


def test_what_is_told_is_on_the_own_disk_and_several_are_on_their_way() -> None:
    bench = owner()
    bench.answers = False
    bench.propose()
    bench.propose()
    assert of(bench, B) == ()
    bench.do(Sealed(1, 1, b"sealed"))
    bench.do(Sealed(2, 1, b"sealed"))
    assert of(bench, B) == ((1, 1, (2,)),)


def test_proposals_of_another_epoch_or_to_no_owner_are_dropped() -> None:
    bench = owner()
    bench.do(Proposed(9, 1, 1, b"x"))
    bench.hear(B, Store(2, 0, 0, (), 0, 0, counted=True))
    bench.do(Proposed(2, 1, 1, b"x"))
    assert bench.effects == []
    assert bench.machine.counts == {"too late for an owner": 2}


def test_a_body_that_is_too_large_is_a_mistake_of_the_runner() -> None:
    with pytest.raises(UsageError):
        owner().propose(body=bytes(RECORDS_BYTES_MAX + 1))


def test_a_change_that_nobody_asked_for_is_refused() -> None:
    bench = owner()
    assert bench.propose((A, B)) == [Refused(1, 1, "holders")]


# What others have.


def test_a_node_that_lacks_blocks_is_read_for() -> None:
    bench = owner(blocks=rows(1, 1, 1, 2))
    bench.stored(B, 1, accepted=False)
    assert bench.got(ReadBlocks) == [ReadBlocks(B, 2, STORE_BYTES)]
    read(bench, B, block(2, 1), block(3, 1))
    assert of(bench, B) == ((1, 1, (2, 3)),)
    assert not bench.got(ReadBlocks)  # Until it takes something.
    bench.stored(B, 3)
    assert bench.got(ReadBlocks) == [ReadBlocks(B, 4, STORE_BYTES)]
    bench.propose()  # It comes in its turn.
    assert of(bench, B) == ()
    read(bench, B, block(4, 2), block(5, 3))
    assert of(bench, B) == ((3, 1, (4, 5)),)


def test_the_search_for_a_common_block_goes_back_step_by_step() -> None:
    bench = owner(blocks=rows(1, 1, 2, 2, 3))
    bench.now_ns += 1
    bench.stored(B, 4, accepted=False)
    read(bench, B, block(5, 3))
    bench.hear(B, Stored(4, accepted=False, number=3, echo_ns=bench.now_ns - 1))  # Of what was told before.
    assert bench.effects == []
    bench.now_ns += 1
    bench.stored(B, 2, accepted=False)
    assert bench.got(ReadBlocks) == [ReadBlocks(B, 3, STORE_BYTES)]
    read(bench, B, block(3, 2))
    assert of(bench, B) == ((2, 1, (3,)),)
    bench.hear(B, Stored(4, accepted=True, number=2, echo_ns=bench.now_ns - 1))
    assert bench.state.reign is not None
    assert bench.state.reign.peers[B].probe is not None
    bench.stored(B, 2)
    assert bench.got(ReadBlocks) == [ReadBlocks(B, 4, STORE_BYTES)]


def test_a_search_that_got_lost_begins_again_with_a_heartbeat() -> None:
    bench = owner(blocks=rows(1, 1))
    bench.stored(B, 0, accepted=False)
    read(bench, B, block(1, 1))
    bench.tick()
    assert not bench.got(ReadBlocks)
    bench.tick()
    assert bench.got(ReadBlocks) == [ReadBlocks(B, 1, STORE_BYTES)]


def test_what_is_confirmed_is_sure_whatever_a_refusal_skips() -> None:
    bench = owner(blocks=rows(1, 2, 2))
    bench.now_ns += 1
    bench.stored(B, 2)
    bench.hear(B, Stored(3, accepted=False, number=0, echo_ns=bench.now_ns - 1))
    assert bench.machine.counts == {"refusal that came late": 1}
    bench.stored(B, 1, accepted=False)
    assert bench.got(ReadBlocks) == [ReadBlocks(B, 3, STORE_BYTES)]


def test_blocks_that_cannot_be_read_are_asked_for_again() -> None:
    bench = owner(blocks=rows(1, 1))
    bench.stored(B, 0, accepted=False)
    bench.do(BlocksRead(C, 1, ()))
    bench.do(BlocksRead(D, 1, ()))
    bench.do(BlocksRead(B, 2, (block(2, 1),)))
    assert bench.machine.counts == {}
    for blocks in ((), (block(2, 1),), (block(1, 2),)):
        bench.do(BlocksRead(B, 1, blocks))
        assert of(bench, B) == ()
        bench.tick()
        assert bench.got(ReadBlocks) == [ReadBlocks(B, 1, STORE_BYTES)]
    assert bench.machine.counts == {"blocks that cannot be read": 3}


def test_no_more_is_told_than_the_window_holds() -> None:
    bench = owner()
    for _ in range(WINDOW_BLOCKS_MAX + 1):
        bench.propose()
        bench.stored(C, bench.machine.last)
    bench.propose()
    assert of(bench, B) == ()
    bench.stored(B, 2)
    assert bench.got(ReadBlocks) == [ReadBlocks(B, WINDOW_BLOCKS_MAX + 1, STORE_BYTES)]


def test_a_new_owner_tells_its_first_block_at_once_however_long_the_journal_is() -> None:
    bench = owner(blocks=rows(*[1] * (WINDOW_BLOCKS_MAX + 1)))
    bench.propose()
    last = WINDOW_BLOCKS_MAX + 1
    assert of(bench, B) == ((last, 1, (last + 1,)),)
    bench.stored(B, 0, accepted=False)
    assert bench.got(ReadBlocks) == [ReadBlocks(B, 1, STORE_BYTES)]
    assert bench.state.reign is not None
    assert bench.state.reign.peers[B].assumed == 0, "it has said what it has, and the window counts from there"
    bench.stored(B, 1)
    assert bench.got(ReadBlocks) == [ReadBlocks(B, 2, STORE_BYTES)]


def test_answers_of_strangers_and_impossible_ones_are_dropped() -> None:
    bench = owner()
    bench.stored(D, 0)
    bench.stored(B, 7)
    bench.hear(B, Stored(0, accepted=True, number=0, echo_ns=bench.now_ns))
    bench.hear(B, Stored(1, accepted=True, number=0, echo_ns=bench.now_ns + 1))
    bench.hear(B, Stored(1, accepted=True, number=0, echo_ns=0))
    assert bench.machine.counts == {"answer out of place": 4, "more stored than there is": 1}
    assert bench.effects == []


def test_a_higher_epoch_ends_the_ownership() -> None:
    bench = owner()
    bench.hear(B, Stored(5, accepted=False, number=0, echo_ns=0))
    assert bench.effects == [Stop(1), KeepPromise(5, b"")]
    assert bench.told(B) == []
    assert bench.role() == "holder"
    bench.stored(B, 0)
    bench.hear(B, PartStored(5, 1, 1, 0))
    assert bench.machine.counts == {"answer to no owner": 2}


# Snapshots.


def snapshot(number: int, offset: int, payload: bytes, total: int = 6) -> SnapshotRead:
    return SnapshotRead(B, number, 1, (A, B), offset, total, payload)


def test_a_node_that_lacks_more_than_the_journal_has_gets_a_snapshot_in_parts() -> None:
    bench = owner(base=(5, 1))
    assert of(bench, B) == ((5, 1, ()),)
    bench.stored(B, 2, accepted=False)
    assert bench.got(ReadSnapshot) == [ReadSnapshot(B, 0, 0, PART_BYTES)]
    bench.stored(B, 2, accepted=False)
    assert bench.effects == []
    bench.do(snapshot(5, 0, b"abc"))
    assert bench.told(B) == [SnapshotPart(2, 5, 1, (A, B), 0, 6, b"abc", bench.now_ns)]
    bench.hear(B, PartStored(2, 4, 3, bench.now_ns))
    bench.hear(B, PartStored(2, 5, 0, bench.now_ns))
    assert bench.effects == []
    bench.hear(B, PartStored(2, 5, 3, bench.now_ns))
    assert bench.got(ReadSnapshot) == [ReadSnapshot(B, 5, 3, PART_BYTES)]
    bench.do(snapshot(5, 3, b"def"))
    bench.propose()
    assert of(bench, B) == ()
    bench.stored(B, 5)
    assert bench.got(ReadBlocks) == [ReadBlocks(B, 6, STORE_BYTES)]
    bench.do(snapshot(5, 3, b"def"))
    bench.hear(B, PartStored(2, 5, 6, bench.now_ns))
    assert bench.effects == []


def test_a_snapshot_that_cannot_be_read_or_is_lost_is_tried_again_later() -> None:
    bench = owner(base=(5, 1))
    bench.stored(B, 2, accepted=False)
    bench.do(SnapshotRead(B, 0, 0, (), 0, 0, b""))
    bench.do(SnapshotRead(C, 5, 1, (), 0, 1, b"x"))
    bench.do(SnapshotRead(D, 5, 1, (), 0, 1, b"x"))
    assert bench.effects == []
    assert bench.machine.counts == {"snapshot that cannot be read": 1}
    bench.tick()
    assert not bench.got(ReadSnapshot)
    bench.tick()
    assert bench.got(ReadSnapshot) == [ReadSnapshot(B, 0, 0, PART_BYTES)]
    bench.stored(B, 5)
    assert bench.state.reign is not None
    assert bench.state.reign.peers[B].shipping is None


def test_a_journal_that_begins_later_ends_reading_for_who_is_behind() -> None:
    bench = owner(holders=(A, B, C))
    bench.propose()
    bench.propose()
    bench.stored(B, 2)
    bench.stored(C, 0, accepted=False)
    bench.do(Checkpointed(2))
    read(bench, C, block(1, 1))
    assert of(bench, C) == ()
    bench.tick()
    assert bench.got(ReadSnapshot) == [ReadSnapshot(C, 0, 0, PART_BYTES)]
    assert of(bench, C) == ((2, 1, ()),)


# Holding the runner.


def test_a_full_pipeline_holds_the_runner() -> None:
    bench = owner(blocks=rows(*[1] * 100))
    for _ in range(PIPELINED_BLOCKS_MAX - 1):
        bench.propose()
        assert not bench.got(Hold)
    bench.propose()
    assert bench.got(Hold) == [Hold(2, "full")]
    assert bench.propose() == [Refused(2, 1, "full")]
    bench.stored(B, 101)
    assert bench.got(Resume) == [Resume(2)]


def test_many_bytes_that_are_not_sealed_hold_the_runner() -> None:
    bench = owner()
    bench.answers = False
    for _ in range(4):
        bench.propose(body=bytes(RECORDS_BYTES_MAX))
    assert bench.got(Hold) == [Hold(1, "full")]
    bench.do(Sealed(1, 1, b"sealed"))
    assert bench.got(Resume) == [Resume(1)]


# A disk that refuses.


def test_what_the_disk_refused_is_tried_again_in_order() -> None:
    bench = owner(holders=(A,))
    bench.propose()
    bench.answers = False
    bench.propose(body=b"two")
    bench.propose(body=b"three")
    bench.do(SealFailed(2, 1, "full"))
    assert bench.effects == [Hold(1, "disk")]
    bench.now_ns += SECOND_NS
    bench.tick()
    assert not bench.got(Seal)  # The other one has not failed yet.
    bench.do(SealFailed(3, 1, "full"))
    while not bench.got(Seal):
        bench.tick()
    assert [(seal.number, seal.body) for seal in bench.got(Seal)] == [(2, b"two"), (3, b"three")]
    assert bench.propose() == [Refused(1, 1, "disk")]
    bench.do(Sealed(2, 1, b"sealed"))
    assert bench.effects == [Committed(2), Resume(1)]
    bench.do(Sealed(3, 1, b"sealed"))
    assert bench.got(Committed) == [Committed(3)]


def test_an_owner_alone_with_a_full_disk_waits() -> None:
    bench = owner(holders=(A,))
    bench.answers = False
    bench.propose()
    for _ in range(20):
        bench.do(SealFailed(1, 1, "full"))
        while not bench.got(Seal):
            bench.tick()
    assert bench.now_ns > DISK_FAILED_NS
    assert bench.role() == "owner"


def fill_disk(bench: Bench) -> None:
    """Let the disk refuse a block until the ownership ends."""
    bench.answers = False
    bench.propose()
    bench.do(SealFailed(bench.machine.last, 1, "full"))
    while bench.role() == "owner":
        bench.tick()
        if bench.got(Seal):
            bench.do(SealFailed(bench.machine.last, 1, "full"))
        if bench.role() == "owner":
            bench.stored(B, 0)
            bench.stored(C, 1)


def test_an_owner_whose_disk_refuses_for_long_hands_over_to_who_has_most() -> None:
    bench = owner()
    bench.propose()
    fill_disk(bench)
    assert bench.got(Stop) == [Stop(1)]
    assert bench.told(C) == [HandOver(1, ())]
    assert bench.told(B) == []
    assert bench.machine.last == 1
    assert bench.state.unfit_ns == bench.now_ns + UNFIT_NS


def test_without_anybody_fit_it_only_stops() -> None:
    bench = owner()
    bench.propose()
    bench.do(Suspected(B))
    bench.do(Suspected(C))
    fill_disk(bench)
    assert bench.effects == [Stop(1)]


# Being alone, and those who leave.


def test_an_owner_without_a_majority_steps_down() -> None:
    bench = owner()
    began_ns = bench.now_ns
    while bench.role() == "owner":
        bench.tick()
    assert bench.got(Stop) == [Stop(1)]
    assert bench.now_ns > began_ns + OWNER_ALONE_NS
    assert bench.machine.owner == b""
    assert bench.machine.counts == {"ownership without a majority": 1}


def test_one_that_left_is_told_so_for_a_while_and_few_are() -> None:
    bench = owner(holders=(A, B))
    reign = bench.state.reign
    assert reign is not None
    serving = Serving(Desk(bench.state))
    bench.state.ledger.configs[-1].holders = (A,)
    serving.meet()
    serving.meet()
    assert reign.peers[B].leave_ns == bench.now_ns + LEAVE_NS
    while B in reign.peers:
        bench.tick()
        stores = [message for message in bench.told(B) if isinstance(message, Store)]
        assert not any(store.counted for store in stores)
    for node in (B, C, D, E, F):
        serving.learn(node)
    serving.meet()
    assert list(reign.peers) == [D, E, F]
    before = reign.peers[D]
    assert serving.learn(D) is not before  # What it has, it may have dropped.


def test_the_first_effect_of_an_ownership_is_to_run() -> None:
    bench = Bench()
    bench.elect(B)
    assert bench.effects[0] == Run(1, 0)


def test_a_new_holder_is_known_as_soon_as_it_is_proposed_and_a_move_holds_the_runner() -> None:
    bench = owner(holders=(A,))
    bench.propose()
    bench.do(MoveAsked(D), 1)
    bench.stored(D, 1)
    assert bench.got(Change) == [Change(1, (A, D))]
    bench.propose((A, D))
    assert bench.state.reign is not None
    assert bench.state.reign.peers[D].leave_ns is None
    bench.do(Tick())  # Before its time.
    bench.stored(D, 2)
    bench.answers = False
    bench.propose()
    bench.prepared(D)
    assert bench.got(Hold) == [Hold(1, "move")]
    assert bench.propose() == [Refused(1, 1, "move")]


def test_who_was_a_holder_and_asks_is_told_that_it_is_none() -> None:
    bench = owner(blocks=((1, 1, ()), (2, 1, (A, B))))
    bench.canvass(C, 9, (1, 1), trial=True)
    (store,) = [message for message in bench.told(C) if isinstance(message, Store)]
    assert (store.counted, store.blocks) == (False, ())
    bench.canvass(C, 9, (1, 1), trial=True)
    assert of(bench, C) == (), "it is being told"
    for _ in range(LEAVE_NS // HEARTBEAT_NS + 1):
        bench.tick()
        bench.stored(B, 2)
    bench.canvass(C, 9, (1, 1), trial=True)
    assert len(of(bench, C)) == 1, "it has not heard it"


def test_who_never_was_a_holder_is_told_that_and_no_more() -> None:
    bench = owner(blocks=rows(1, 1))
    bench.canvass(E, 9, trial=True)
    assert of(bench, E) == ((2, 1, ()),)
    bench.tick()
    assert of(bench, E) == ()
    bench.canvass(B, 9, trial=True)
    assert of(bench, B) == (), "a holder is told in time"
