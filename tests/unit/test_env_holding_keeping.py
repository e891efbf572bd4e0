# SPDX-License-Identifier: Apache-2.0
"""A holder: what it keeps, what it refuses, what it confirms and when, and snapshots that come in parts."""

import pytest

from atoll.core.machine import Tick
from atoll.env.holding.events import (
    Committed,
    CutFrom,
    Heard,
    HoldingInput,
    Keep,
    KeepFailed,
    KeepPromise,
    KeepSnapshot,
    Kept,
    Left,
    Moved,
    MoveFailed,
    PromiseKept,
    SnapshotFailed,
    SnapshotKept,
)
from atoll.env.holding.messages import (
    Block,
    HandOver,
    PartStored,
    SnapshotPart,
    Store,
    Stored,
)
from atoll.env.holding.state import Awaited, Early
from atoll.env.limits import EARLY_BYTES_MAX, EARLY_MESSAGES_MAX, EARLY_NS, KEEPS_MAX
from tests.unit.holding_bench import SIGN, A, B, Bench, C, D, block, rows


def confirmed(number: int, epoch: int = 1, echo_ns: int = 0) -> Stored:
    return Stored(epoch, accepted=True, number=number, echo_ns=echo_ns)


def refused(number: int, epoch: int = 1, echo_ns: int = 0) -> Stored:
    return Stored(epoch, accepted=False, number=number, echo_ns=echo_ns)


# Blocks.


def test_blocks_are_kept_and_confirmed_when_they_are_on_the_disk() -> None:
    bench = Bench()
    bench.store(block(1, 1), block(2, 1, (A, B)), sent_ns=5)
    assert bench.got(KeepPromise) == [KeepPromise(1, b"")]
    assert [keep.number for keep in bench.got(Keep)] == [1, 2]
    assert bench.told(B) == [confirmed(0, echo_ns=5), confirmed(1, echo_ns=5), confirmed(2, echo_ns=5)]
    assert bench.machine.holders == (A, B)
    assert bench.machine.owner == B


def test_nothing_is_confirmed_before_the_promise_is_kept() -> None:
    bench = Bench()
    bench.answers = False
    bench.store(block(1, 1))
    bench.do(Kept(1, 1))
    bench.store(before=(7, 1))
    assert bench.told(B) == []
    bench.do(PromiseKept(1, b""))
    assert bench.told(B) == [confirmed(1)]


# Blocks that were overtaken.


def test_a_block_that_was_overtaken_is_waited_for() -> None:
    bench = Bench()
    bench.store(block(1, 1))
    bench.store(block(4, 1), before=(3, 1), sent_ns=4)
    bench.store(block(3, 1), before=(2, 1), sent_ns=3)
    bench.store(before=(4, 1), sent_ns=5)
    assert bench.effects == [], "neither taken nor refused"
    bench.store(block(2, 1), before=(1, 1), sent_ns=2)
    assert [keep.number for keep in bench.got(Keep)] == [2, 3, 4]
    assert bench.told(B)[-1] == confirmed(4, echo_ns=5)
    assert bench.state.early == Early(is_level=True)


def test_a_block_that_stays_missing_is_asked_for() -> None:
    bench = Bench()
    bench.store(block(1, 1))
    bench.store(block(3, 1), before=(2, 1))
    bench.now_ns += EARLY_NS - 1
    bench.store(before=(3, 1), sent_ns=8)
    assert bench.told(B) == []
    bench.now_ns += 1
    bench.store(before=(3, 1), sent_ns=9)
    assert bench.told(B) == [refused(1, echo_ns=9)]
    bench.store(block(3, 1), before=(2, 1), sent_ns=10)
    assert bench.told(B) == [refused(1, echo_ns=10)], "nor does it wait again before something is taken"
    bench.store(block(2, 1), block(3, 1), before=(1, 1), sent_ns=11)
    assert bench.told(B)[-1] == confirmed(3, echo_ns=11)


def test_one_gap_after_the_other_is_waited_for() -> None:
    bench = Bench()
    bench.store(block(1, 1))
    for number in range(3, 20, 2):
        bench.store(block(number, 1), before=(number - 1, 1))
    for number in range(2, 20, 2):
        bench.now_ns += EARLY_NS - 1
        bench.store(block(number, 1), before=(number - 1, 1))
        assert [keep.number for keep in bench.got(Keep)] == [number, number + 1][: 20 - number]
    assert bench.state.early == Early(is_level=True)


def test_what_overlaps_what_was_missing_is_taken_as_well() -> None:
    bench = Bench()
    bench.store(block(1, 1))
    bench.store(block(4, 1), block(5, 1), before=(3, 1))
    bench.store(block(3, 1), before=(2, 1))
    bench.store(block(2, 1), block(3, 1), block(4, 1), before=(1, 1))
    assert [keep.number for keep in bench.got(Keep)] == [2, 3, 4, 5]
    assert bench.state.early == Early(is_level=True)


@pytest.mark.parametrize(("count", "size"), [(EARLY_MESSAGES_MAX, 1), (4, EARLY_BYTES_MAX // 4)])
def test_what_waits_is_bounded(count: int, size: int) -> None:
    bench = Bench()
    bench.store(block(1, 1))
    for number in range(3, 4 + count):
        assert bench.told(B) == [] or number == 3
        bench.store(Block(number, 1, (), bytes(size)), before=(number - 1, 1))
    assert bench.told(B) == [refused(1)]
    assert bench.state.early == Early()


@pytest.mark.parametrize("ends", [Heard(C, Store(2, 1, 1, (), 0, 0, counted=True)), KeepFailed(1, 1, "full")])
def test_what_waits_is_of_one_owner_and_of_a_journal_that_stands(ends: HoldingInput) -> None:
    bench = Bench()
    bench.answers = False
    bench.store(block(1, 1))
    bench.store(block(3, 1), before=(2, 1))
    assert len(bench.state.early.stores) == 1
    bench.do(ends)
    assert not bench.state.early.stores


def test_a_sign_of_life_is_confirmed_at_once_and_says_what_is_committed() -> None:
    bench = Bench()
    bench.store(block(1, 1), block(2, 1))
    bench.store(before=(2, 1), committed=9, sent_ns=7)
    assert bench.effects[-1] == Committed(2)
    assert bench.told(B) == [confirmed(2, echo_ns=7)]
    bench.store(before=(1, 1), committed=1, sent_ns=6)
    assert bench.told(B) == [confirmed(2, echo_ns=7)]
    assert not bench.got(Committed)


def test_blocks_that_are_here_are_not_kept_again() -> None:
    bench = Bench()
    bench.store(block(1, 1), block(2, 1))
    bench.store(block(1, 1), block(2, 1), block(3, 1))
    assert [keep.number for keep in bench.got(Keep)] == [3]
    bench.store(block(1, 1), block(2, 1))
    assert bench.told(B) == [confirmed(3)]


def test_what_the_owner_does_not_have_is_cut_off() -> None:
    bench = Bench(blocks=rows(1, 1, 1), promise=(1, b""))
    bench.store(block(2, 2), before=(1, 1), epoch=2)
    assert bench.got(CutFrom) == [CutFrom(2)]
    assert [keep.number for keep in bench.got(Keep)] == [2]
    assert (bench.machine.last, bench.told(B)[-1]) == (2, confirmed(2, 2))


def test_a_block_without_the_one_before_it_is_refused_with_a_hint() -> None:
    bench = Bench(blocks=rows(1, 2, 2), promise=(2, b""))
    bench.store(block(8, 3), before=(7, 3), epoch=3, sent_ns=4)
    assert bench.told(B) == [confirmed(0, 3, 4)]  # The promise came first, and nothing is known to be the owner's.
    bench.store(block(8, 3), before=(7, 3), epoch=3, sent_ns=4)
    assert bench.told(B) == [refused(3, 3, 4)]
    bench.store(block(4, 3), before=(3, 3), epoch=3)
    assert bench.told(B) == [refused(1, 3)]


def test_blocks_out_of_order_are_dropped() -> None:
    bench = Bench()
    bench.store(block(2, 1))
    bench.store(block(1, 2))
    bench.store(block(1, 0 + 1), block(2, 1), before=(0, 2))
    assert bench.machine.last == 0
    assert bench.machine.counts == {"blocks out of order": 3}


def test_what_contradicts_the_committed_is_dropped() -> None:
    bench = Bench()
    bench.store(block(1, 1), block(2, 1))
    bench.store(before=(2, 1), committed=2)
    bench.store(block(1, 2), epoch=2)
    assert bench.machine.counts == {"blocks that contradict what is committed": 1}
    assert bench.machine.last == 2


def test_epochs_do_not_go_back_whatever_an_owner_says_of_what_is_not_here() -> None:
    bench = Bench(base=(3, 2), promise=(2, b""))
    bench.store(block(3, 1), block(4, 1), before=(2, 1), epoch=2)
    assert bench.machine.last == 3
    assert bench.machine.counts == {"blocks that contradict what is committed": 1}


def test_blocks_before_the_journal_are_known() -> None:
    bench = Bench(base=(3, 1), promise=(1, b""))
    bench.store(block(2, 1), block(3, 1), block(4, 1), before=(1, 1))
    assert [keep.number for keep in bench.got(Keep)] == [4]
    bench.store(before=(1, 1))
    assert bench.told(B) == [confirmed(4)]


def test_a_disk_that_is_behind_takes_no_more() -> None:
    bench = Bench()
    bench.store()
    bench.answers = False
    for number in range(1, KEEPS_MAX + 2):
        bench.store(block(number, 1), before=(number - 1, min(1, number - 1)))
    assert bench.machine.last == KEEPS_MAX
    assert bench.machine.counts == {"blocks for a disk that is behind": 1}


def test_a_block_that_the_disk_refused_is_forgotten_with_all_after_it() -> None:
    bench = Bench()
    bench.store()
    bench.answers = False
    bench.store(block(1, 1), block(2, 1))
    bench.do(KeepFailed(1, 1, "full"))
    assert (bench.machine.last, bench.state.matched) == (0, 0)
    bench.store(block(1, 1))
    bench.do(KeepFailed(2, 1, "full"))
    bench.do(Kept(1, 1))
    assert bench.told(B) == [confirmed(1)]


# Owners.


def test_an_owner_of_an_old_epoch_learns_it() -> None:
    bench = Bench(promise=(4, b""))
    bench.store(sent_ns=3)
    assert bench.told(B) == [refused(0, 4, 3)]
    bench.answers = False
    bench.store(epoch=5)
    bench.store()
    assert bench.told(B) == []


def test_there_is_one_owner_in_an_epoch() -> None:
    bench = Bench()
    bench.store()
    bench.hear(C, Store(1, 0, 0, (), 0, 0, counted=True))
    assert bench.effects == []
    owner = Bench()
    owner.elect(B)
    owner.store()
    assert owner.role() == "owner"
    assert owner.machine.counts == bench.machine.counts == {"second owner in an epoch": 1}


def test_who_asked_for_a_move_hears_who_owns_the_environment() -> None:
    bench = Bench()
    bench.state.awaited = Awaited(B, HandOver(0, ()), SIGN, 10, asked=True)
    bench.store()
    assert bench.got(Moved) == [Moved(B, 1)]
    bench.state.awaited = Awaited(C, HandOver(1, ()), SIGN, 10, asked=True)
    bench.store(epoch=2)
    assert bench.got(MoveFailed) == [MoveFailed("another holder took over")]
    bench.state.awaited = Awaited(C, HandOver(2, ()), SIGN, 10, asked=True)
    bench.do(Tick(), 1)
    assert bench.got(MoveFailed) == [MoveFailed("no owner is known")]


def test_where_nobody_asked_for_it_nobody_hears_who_took_over() -> None:
    bench = Bench()
    for epoch, node in ((1, B), (2, C)):
        bench.state.awaited = Awaited(node, HandOver(epoch - 1, ()), SIGN, 10)
        bench.store(epoch=epoch)
        assert bench.got(Moved) + bench.got(MoveFailed) == []
        assert bench.state.awaited is None
    bench.state.awaited = Awaited(C, HandOver(2, ()), SIGN, 10)
    bench.do(Tick(), 1)
    assert bench.got(MoveFailed) == []
    assert bench.state.awaited is not None
    assert bench.state.awaited.until_ns is None


# Leaving.


def test_a_node_that_is_no_holder_any_more_gives_the_journal_up() -> None:
    bench = Bench()
    bench.store(block(1, 1), block(2, 1, (B, C)))
    bench.store(before=(2, 1), committed=1, counted=0)
    assert not bench.got(Left)
    bench.store(before=(2, 1), committed=2, sent_ns=9)
    bench.store(before=(2, 1), committed=2, counted=0, sent_ns=8)  # It was overtaken: the owner counts on us again.
    assert not bench.got(Left)
    bench.store(before=(2, 1), committed=2, counted=0, sent_ns=10)
    assert bench.got(Left) == [Left(1, 2)]
    assert (bench.machine.last, bench.machine.committed, bench.state.ledger.rank) == (0, 0, (1, 2))
    bench.store(before=(2, 1), committed=2, counted=0, sent_ns=11)
    assert bench.told(B) == [refused(0, echo_ns=11)]
    assert not bench.got(Left)


def test_a_holder_does_not_leave_nor_one_that_is_writing() -> None:
    bench = Bench((B, C, D), own=A)
    bench.answers = False
    bench.store(block(1, 1), counted=0)
    assert not bench.got(Left)
    holder = Bench()
    holder.store(block(1, 1), counted=0)
    assert not holder.got(Left)


# Snapshots.


def part(offset: int, payload: bytes, *, number: int = 5, total: int = 6, epoch: int = 2) -> SnapshotPart:
    return SnapshotPart(epoch, number, 1, (A, B), offset, total, payload, 3)


def part_stored(offset: int, number: int = 5) -> PartStored:
    return PartStored(2, number, offset, 3)


def test_a_snapshot_is_put_together_and_kept() -> None:
    bench = Bench((), promise=(2, b""))
    bench.hear(B, part(0, b"abc"))
    assert bench.told(B) == [part_stored(3)]
    bench.hear(B, part(0, b"abc"))
    assert bench.told(B) == [part_stored(3)]
    bench.hear(B, part(4, b"ef"))
    assert bench.told(B) == [part_stored(3)]
    bench.hear(B, part(3, b""))
    assert bench.told(B) == [part_stored(3)]
    bench.hear(B, part(3, b"def"))
    assert bench.got(KeepSnapshot) == [KeepSnapshot(5, 1, (A, B), b"abcdef")]
    assert bench.got(Committed) == [Committed(5)]
    assert bench.told(B) == [confirmed(5, 2, 3)]
    assert (bench.machine.last, bench.machine.holders) == (5, (A, B))
    bench.hear(B, part(0, b"abc"))
    assert bench.told(B) == [confirmed(5, 2, 3)]


def test_while_a_snapshot_is_written_blocks_wait() -> None:
    bench = Bench((), promise=(2, b""))
    bench.answers = False
    bench.hear(B, part(0, b"abcdef"))
    bench.hear(B, part(0, b"abcdef"))
    assert bench.effects == []
    bench.hear(B, part(0, b"abc", number=9))
    assert bench.effects == []
    bench.store(block(1, 2), epoch=2)
    assert bench.told(B) == [confirmed(0, 2, 3)]
    bench.do(SnapshotKept(5, 9))
    assert bench.machine.last == 0
    bench.do(SnapshotKept(5, 1))
    assert bench.machine.last == 5
    bench.do(SnapshotKept(5, 1))
    assert bench.machine.counts == {"snapshot out of place": 2}


def test_a_snapshot_of_what_is_here_takes_nothing_away() -> None:
    bench = Bench(blocks=rows(1, 1, 1), promise=(2, b""))
    bench.hear(B, part(0, b"abcdef", number=2))
    assert not bench.got(KeepSnapshot)
    assert bench.told(B) == [confirmed(2, 2, 3)]
    writing = Bench(promise=(2, b""))
    writing.answers = False
    writing.store(block(1, 1), block(2, 1), block(3, 2), epoch=2)
    writing.hear(B, part(0, b"abcdef", number=2))
    assert writing.told(B) == [confirmed(0, 2, 3)]
    writing.hear(B, part(0, b"abcdef", number=3))
    assert writing.machine.counts == {"snapshot that cannot be the owner's": 1}
    old = Bench(base=(7, 1), promise=(2, b""))
    old.hear(B, part(0, b"abcdef"))
    assert old.told(B) == [confirmed(7, 2, 3)]
    other = Bench(blocks=((1, 1, ()), (2, 2, ())), promise=(2, b""))
    other.hear(B, part(0, b"abcdef", number=2))
    assert other.got(KeepSnapshot) == [KeepSnapshot(2, 1, (A, B), b"abcdef")]


def test_a_snapshot_that_the_disk_refused_is_asked_for_again() -> None:
    bench = Bench((), promise=(2, b""))
    bench.answers = False
    bench.hear(B, part(0, b"abcdef"))
    bench.do(SnapshotFailed(5, 1, "full"))
    bench.hear(B, part(3, b"def"))
    assert bench.told(B) == [part_stored(0)]


def test_another_snapshot_begins_anew_and_one_that_is_too_long_is_dropped() -> None:
    bench = Bench((), promise=(2, b""))
    bench.hear(B, part(0, b"abc"))
    bench.hear(B, part(0, b"ab", number=7))
    assert bench.told(B) == [part_stored(2, 7)]
    bench.hear(B, part(2, b"cdefghij", number=7))
    assert bench.machine.counts == {"snapshot longer than it said": 1}
    bench.hear(B, SnapshotPart(2, 8, 3, (), 0, 6, b"abc", 3))
    assert bench.machine.counts["snapshot that cannot be the owner's"] == 1
    bench.hear(B, part(0, b"ab", number=7))
    bench.hear(C, part(2, b"cd", number=7, epoch=3))
    assert bench.told(C) == [confirmed(0, 3, 3)]  # The promise came first.
    bench.hear(C, part(2, b"cd", number=7, epoch=3))
    assert bench.told(C) == [PartStored(3, 7, 0, 3)]  # The parts of two nodes need not fit.
    bench.hear(C, part(0, b"ab", number=7, epoch=1))
    assert bench.told(C) == [refused(0, 3, 3)]
