# SPDX-License-Identifier: Apache-2.0
"""The machine as a whole: what it starts from, its snapshot, and where each input goes."""

import msgspec
import pytest

from atoll.base.errors import CorruptError, UsageError
from atoll.core.machine import Tick
from atoll.env.holding import KIND, Holding, HoldingOptions
from atoll.env.holding.events import (
    BlocksRead,
    Checkpointed,
    Cleared,
    Committed,
    Heard,
    Hold,
    HoldersAsked,
    HoldingEffect,
    HoldingInput,
    KeepFailed,
    KeepPromise,
    Kept,
    MoveAsked,
    MoveFailed,
    PromiseFailed,
    PromiseKept,
    SealFailed,
    SnapshotFailed,
    SnapshotKept,
    SnapshotRead,
    Suspected,
)
from atoll.env.holding.messages import Canvass, HandOver, PartStored, Promised, SnapshotPart, Stored
from atoll.env.holding.state import Awaited
from tests.unit.holding_bench import SIGN, THREE, A, B, Bench, C, block, rows


def test_what_the_disk_had_is_what_it_starts_from() -> None:
    blocks = ((4, 2, ()), (5, 3, (A, B)))
    machine = Holding.create(HoldingOptions(A, b"seed", (4, B), (3, 2), THREE, blocks, (1, 1)), 7)
    assert (machine.last, machine.committed, machine.epoch, machine.holders) == (5, 3, 4, (A, B))
    assert (machine.role, machine.owner) == ("holder", b"")


def test_a_block_of_a_later_epoch_than_the_promise_tells_the_epoch() -> None:
    machine = Holding.create(HoldingOptions(A, b"seed", (2, B), blocks=rows(3)), 0)
    assert machine.epoch == 3


@pytest.mark.parametrize("blocks", [((2, 1, ()),), ((1, 2, ()), (2, 1, ())), ((1, 1, ()), (3, 1, ()))])
def test_a_journal_with_a_gap_is_corrupt(blocks: tuple[tuple[int, int, tuple[bytes, ...]], ...]) -> None:
    with pytest.raises(CorruptError):
        Holding.create(HoldingOptions(A, b"seed", (9, b""), blocks=blocks), 0)


def test_an_own_id_is_a_node_id() -> None:
    with pytest.raises(UsageError):
        Holding.create(HoldingOptions(b"short", b"seed"), 0)


def test_a_machine_goes_on_from_its_snapshot() -> None:
    bench = Bench()
    bench.elect(B)
    bench.propose()
    bench.do(HoldersAsked((A, B)))
    bench.stored(C, 0, accepted=False)
    copy = Holding.restore(bench.machine.snapshot())
    assert copy.snapshot() == bench.machine.snapshot()
    events: tuple[HoldingInput, ...] = (
        Tick(),
        Heard(B, Stored(1, accepted=True, number=1, echo_ns=bench.now_ns)),
        BlocksRead(C, 1, (block(1, 1),)),
        Suspected(B),
    )
    for event in events:
        assert list(copy.handle(event, bench.now_ns)) == list(bench.machine.handle(event, bench.now_ns))
    assert copy.snapshot() == bench.machine.snapshot()


@pytest.mark.parametrize("snapshot", [b"", b"\xc1", msgspec.msgpack.encode([1, 2])])
def test_a_snapshot_that_does_not_decode_is_corrupt(snapshot: bytes) -> None:
    with pytest.raises(CorruptError):
        KIND.restore(snapshot)


def test_inputs_and_effects_survive_a_journal() -> None:
    bench = Bench()
    bench.store(block(1, 1))
    inputs = msgspec.msgpack.Decoder(KIND.inputs)
    effects = msgspec.msgpack.Decoder(KIND.effects)
    event = Heard(B, SnapshotPart(1, 2, 1, (A,), 0, 3, b"abc", 4))
    assert inputs.decode(msgspec.msgpack.encode(event)) == event
    for effect in bench.effects:
        back: HoldingEffect = effects.decode(msgspec.msgpack.encode(effect))
        assert back == effect


def test_a_checkpoint_of_what_is_not_committed_is_dropped() -> None:
    bench = Bench()
    bench.store(block(1, 1), block(2, 1))
    bench.store(before=(2, 1), committed=1)
    bench.do(Checkpointed(2))
    assert bench.state.ledger.base_number == 0
    bench.do(Checkpointed(1))
    assert bench.state.ledger.base_number == 1
    bench.do(Checkpointed(1))
    assert bench.machine.counts == {"checkpoint out of place": 2}


def test_answers_that_nobody_waits_for_are_counted() -> None:
    bench = Bench()
    bench.do(Kept(1, 1))
    bench.do(PromiseKept(4, B))
    bench.do(SnapshotKept(1, 1))
    bench.do(SnapshotRead(B, 0, 0, (), 0, 0, b""))
    bench.do(BlocksRead(B, 1, ()))
    bench.hear(B, PartStored(0, 1, 0, 0))
    assert bench.effects == []
    assert bench.machine.counts == {
        "answer of the recorder out of place": 1,
        "snapshot out of place": 1,
        "too late for an owner": 2,
        "answer to no owner": 1,
    }


def test_the_answer_of_the_disk_goes_to_who_asked() -> None:
    bench = Bench((A,))
    bench.propose()
    assert bench.got(Committed) == [Committed(1)]
    bench.do(MoveAsked(B))
    bench.do(SnapshotFailed(1, 1, "full"))
    bench.do(SnapshotRead(B, 0, 0, (), 0, 0, b""))
    assert bench.machine.counts == {"snapshot that the disk refused": 1}


def test_a_deadline_is_the_nearest_of_all() -> None:
    bench = Bench()
    nearest_ns = bench.machine.deadline_ns
    assert nearest_ns is not None
    bench.state.awaited = awaited = Awaited(B, HandOver(0, ()), SIGN, nearest_ns - 1, asked=True)
    assert bench.machine.deadline_ns == nearest_ns - 1
    awaited.tell_ns = nearest_ns - 2
    assert bench.machine.deadline_ns == nearest_ns - 2
    bench.state.promise.retry_ns = nearest_ns - 3
    assert bench.machine.deadline_ns == nearest_ns - 3
    bench.do(Tick())
    assert bench.machine.deadline_ns == nearest_ns - 3


def test_writes_that_were_cut_are_answered_in_vain() -> None:
    bench = Bench()
    bench.store()
    bench.answers = False
    bench.store(block(1, 1))
    bench.store(block(1, 2), epoch=2)
    bench.do(Kept(1, 1))
    assert bench.effects == []
    assert bench.state.ledger.durable == 0


def test_a_life_from_the_first_vote_to_the_last_block() -> None:
    """Each input and each message once, so that each is seen to reach its part."""
    bench = Bench()
    bench.tick()
    assert bench.hear(B, Canvass(1, 0, 0, trial=True, transfer=False))
    bench.answers = False
    bench.hear(B, Promised(0, 1, trial=True, granted=True))
    bench.do(PromiseFailed(1, A, "full"))
    assert bench.tick() == [KeepPromise(1, A)]
    bench.answers = True
    bench.do(PromiseKept(1, A))
    bench.hear(C, Promised(1, 1, trial=False, granted=True))
    assert bench.role() == "owner"
    bench.tick()
    bench.answers = False
    bench.propose()
    bench.do(SealFailed(1, 1, "full"))
    assert bench.got(Hold) == [Hold(1, "disk")]
    bench.do(Suspected(C))
    bench.do(Cleared(C))
    bench.do(SnapshotRead(B, 0, 0, (), 0, 0, b""))
    bench.hear(B, PartStored(1, 1, 0, bench.now_ns))
    bench.hear(B, HandOver(1, ()))
    bench.hear(B, Stored(2, accepted=False, number=0, echo_ns=0))
    assert (bench.role(), bench.machine.last) == ("holder", 0)
    bench.do(PromiseKept(2, b""))
    bench.store(block(1, 2), epoch=2)
    bench.do(KeepFailed(1, 2, "full"))
    bench.state.awaited = Awaited(C, HandOver(2, ()), SIGN, bench.now_ns, asked=True)
    assert bench.do(Tick()) == [MoveFailed("no owner is known")]
    bench.hear(B, SnapshotPart(2, 5, 1, (A, B), 0, 3, b"abc", 4))
    bench.do(SnapshotKept(5, 1))
    assert bench.machine.committed == 5
    assert bench.machine.counts == {
        "own block that the disk refused": 1,
        "hand-over out of place": 1,
        "block that the disk refused": 1,
    }


def test_an_owner_alone_is_one_when_its_promise_is_kept() -> None:
    bench = Bench((A,), promise=(3, A))
    assert (bench.role(), bench.machine.epoch, bench.machine.owner) == ("owner", 4, A)


def test_who_holds_from_a_block_on() -> None:
    bench = Bench(blocks=((1, 1, ()), (2, 1, (A, B))), promise=(1, b""))
    assert bench.machine.holders_since(2) == (A, B)
    assert bench.machine.holders_since(1) == ()
    assert bench.machine.holders == (A, B)


def test_time_that_goes_back_is_a_mistake_of_the_driver() -> None:
    bench = Bench()
    bench.do(Tick(), 5)
    bench.now_ns = 0
    with pytest.raises(UsageError):
        bench.do(Tick())
