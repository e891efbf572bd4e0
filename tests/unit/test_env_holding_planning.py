# SPDX-License-Identifier: Apache-2.0
"""Moves and changes of the holders: one step at a time, and what becomes of them when a node does not answer."""

import msgspec
import pytest

from atoll.base.units import MILLISECOND_NS
from atoll.env.holding.events import (
    Change,
    Cleared,
    Committed,
    GetReady,
    Hold,
    HoldersAsked,
    HoldersChanged,
    HoldersFailed,
    HoldingEffect,
    KeepPromise,
    MoveAsked,
    Moved,
    MoveFailed,
    PromiseFailed,
    PromiseKept,
    Ready,
    Resume,
    Run,
    Seal,
    Sealed,
    Stop,
    Suspected,
    Tell,
)
from atoll.env.holding.messages import (
    HandOver,
    Prepare,
    Prepared,
    Promised,
    SnapshotPart,
    Store,
    Stored,
)
from atoll.env.holding.state import Awaited, Plan
from atoll.env.limits import (
    HAND_OVER_NS,
    HEARTBEAT_NS,
    NEAR_BLOCKS,
    PREPARE_NS,
    PROGRESS_NS,
    ROUND_NS,
    ROUNDS_MAX,
    SUSPECT_NS,
)
from tests.unit.holding_bench import SIGN, A, B, Bench, C, D, E, F, block

HOLDERS = (A, B, C, D, E)


def owner(*others: bytes, opened: bool = True) -> Bench:
    """A that owns the environment together with these, in epoch 1."""
    bench = Bench((A, *others))
    if others:
        bench.elect(*others)
    if opened:
        bench.propose()
        follow(bench)
    bench.now_ns += MILLISECOND_NS
    return bench


def follow(bench: Bench, *but: bytes) -> None:
    """Let all that the owner tells have all that it has."""
    reign = bench.state.reign
    assert reign is not None
    seen: list[HoldingEffect] = []
    for node in list(reign.peers):
        if node not in but and bench.role() == "owner":
            seen += bench.stored(node, bench.machine.last)
    bench.effects = seen


def wait(bench: Bench, span_ns: int, *silent: bytes) -> None:
    """Let time pass in which all but these answer."""
    until_ns = bench.now_ns + span_ns
    while bench.now_ns <= until_ns and bench.role() == "owner":
        bench.tick()
        seen = bench.effects
        if bench.role() == "owner":
            follow(bench, *silent)
        bench.effects = seen + bench.effects


# Changes of the holders.


def test_a_new_holder_first_learns_what_there_is() -> None:
    bench = owner(B)
    bench.do(HoldersAsked((A, B, C)))
    assert bench.effects == []
    bench.tick()
    assert isinstance(bench.told(C)[0], Store)
    bench.stored(C, 1)
    assert bench.got(Change) == [Change(1, (A, B, C))]
    bench.propose()
    assert not bench.got(Change)
    bench.propose((A, B, C))
    assert bench.machine.holders == (A, B, C)
    bench.stored(B, 3)
    assert bench.effects == [Committed(3), HoldersChanged((A, B, C))]


def test_holders_come_and_go_one_by_one() -> None:
    bench = owner(B, C)
    bench.do(HoldersAsked((A, D, E)))
    seen: list[tuple[bytes, ...]] = []
    for _ in range(10):
        follow(bench)
        for change in bench.got(Change):
            seen.append(change.holders)
            bench.propose(change.holders)
        if bench.got(HoldersChanged):
            break
    assert seen == [(A, B, C, D), (A, B, C, D, E), (A, C, D, E), (A, D, E)]
    assert bench.got(HoldersChanged) == [HoldersChanged((A, D, E))]


def test_five_is_the_most_so_one_goes_first() -> None:
    bench = owner(B, C, D, E)
    bench.do(HoldersAsked((A, B, C, D, F)))
    assert bench.got(Change) == [Change(1, (A, B, C, D))]


def test_nothing_is_changed_before_a_block_of_the_own_epoch_is_committed() -> None:
    bench = owner(B, C, opened=False)
    bench.do(HoldersAsked((A, B)))
    assert bench.effects == []
    bench.propose()
    bench.stored(B, 1)
    assert bench.got(Change) == [Change(1, (A, B))]


@pytest.mark.parametrize(
    ("holders", "reason"),
    [
        ((), "1 to 5 different nodes can be holders"),
        ((*HOLDERS, F), "1 to 5 different nodes can be holders"),
        ((A, B, B), "1 to 5 different nodes can be holders"),
        ((A, b"short"), "1 to 5 different nodes can be holders"),
        ((B, C), "the owner is not among them: move first"),
    ],
)
def test_what_cannot_be_the_holders_is_refused(holders: tuple[bytes, ...], reason: str) -> None:
    bench = owner(B, C)
    assert bench.do(HoldersAsked(holders)) == [HoldersFailed(reason)]


def test_there_is_one_change_at_a_time_and_only_the_owner_makes_it() -> None:
    bench = owner(B)
    bench.do(HoldersAsked((A, B, C)))
    assert bench.do(MoveAsked(D)) == [MoveFailed("another change is under way")]
    assert bench.do(HoldersAsked((A,))) == [HoldersFailed("another change is under way")]
    holder = Bench()
    assert holder.do(MoveAsked(A)) == [MoveFailed("only the owner can move it")]
    assert holder.do(HoldersAsked((A,))) == [HoldersFailed("only the owner can change it")]


def test_a_new_holder_that_does_not_answer_is_given_up_and_told_so() -> None:
    bench = owner(B)
    bench.do(HoldersAsked((A, B, C)))
    wait(bench, PROGRESS_NS, C)
    assert bench.got(HoldersFailed) == [HoldersFailed("the new holder does not answer")]
    bench.tick()
    assert [message.counted for message in bench.told(C) if isinstance(message, Store)] == [False]


def catch_up(bench: Bench, lag_blocks: int, lag_ns: int, blocks: int) -> list[HoldingEffect]:
    """Let C have all but so many blocks, told so long ago, while so many more come; return all that this led to."""
    seen: list[HoldingEffect] = []
    for _ in range(blocks):
        bench.now_ns += 25 * MILLISECOND_NS
        bench.propose()
        bench.stored(B, bench.machine.last)
        number = bench.machine.last - lag_blocks
        if number > 0 and not seen:
            answer = Stored(bench.machine.epoch, accepted=True, number=number, echo_ns=bench.now_ns - lag_ns)
            seen += [effect for effect in bench.hear(C, answer) if not isinstance(effect, Tell)]
        if bench.machine.deadline_ns is not None and bench.now_ns >= bench.machine.deadline_ns:
            seen += [effect for effect in bench.tick() if not isinstance(effect, Tell)]
    return seen


@pytest.mark.parametrize("lag", [1, 12, 30])
def test_a_new_holder_may_be_as_far_away_as_an_election_allows(lag: int) -> None:
    bench = owner(B)
    bench.do(HoldersAsked((A, B, C)))
    assert catch_up(bench, lag, lag * 25 * MILLISECOND_NS, 80)[0] == Change(1, (A, B, C))


def test_a_new_holder_that_takes_less_than_comes_is_given_up() -> None:
    bench = owner(B)
    bench.do(HoldersAsked((A, B, C)))
    seen = catch_up(bench, 40, 40 * 25 * MILLISECOND_NS, 40 * (ROUNDS_MAX + 2))
    assert seen == [HoldersFailed("the new holder does not keep up")]


def test_a_new_holder_that_took_long_to_learn_shows_once_more_that_it_keeps_up() -> None:
    bench = owner(B)
    for _ in range(3):
        bench.propose()
        bench.stored(B, bench.machine.last)
    bench.do(HoldersAsked((A, B, C)))
    wait(bench, ROUND_NS, C)
    bench.propose()
    bench.stored(B, bench.machine.last)
    bench.stored(C, bench.machine.last - 1)
    assert not bench.got(Change), "a block was committed since the round began, and it may need as long for that"
    bench.stored(C, bench.machine.last)
    assert bench.got(Change) == [Change(1, (A, B, C))]


def test_a_snapshot_on_its_way_is_progress() -> None:
    bench = owner(B)
    bench.do(HoldersAsked((A, B, C)))
    bench.state.ledger.checkpoint(1)
    bench.stored(C, 0, accepted=False)
    reign = bench.state.reign
    assert reign is not None
    shipping = reign.peers[C].shipping
    assert shipping is not None
    for _ in range(3):
        shipping.offset += 1
        wait(bench, PROGRESS_NS // 2, C)
        assert not bench.got(HoldersFailed)
    assert not any(isinstance(message, SnapshotPart) for message in bench.told(C))


# Moves.


def gone(upto: int, *wanted: bytes) -> HandOver:
    """What the owner of epoch 1 says, which is none any more."""
    return HandOver(1, wanted, upto, promised=True)


def test_a_move_to_a_holder_that_has_everything() -> None:
    bench = owner(B, C)
    bench.propose()
    bench.do(MoveAsked(C))
    assert bench.told(C) == [Prepare(1)]
    bench.prepared(C)
    assert bench.got(Hold) == [Hold(1, "move")]
    assert bench.told(C) == [], "what is not committed would be said by the next owner"
    bench.stored(B, 2)
    assert bench.got(Committed) == [Committed(2)]
    assert bench.told(C)[-1] == gone(2), "it was told block 2, and stands when that is on its disk"
    sign = Store(1, 2, 1, (), 2, bench.now_ns, counted=True)
    assert bench.told(B) == [sign], "nobody shall miss the owner meanwhile"
    assert bench.got(KeepPromise) == [KeepPromise(2, C)]
    assert (bench.role(), bench.got(Stop)) == ("holder", [Stop(1)])
    assert bench.machine.deadline_ns == bench.now_ns + HEARTBEAT_NS
    bench.tick()
    assert bench.told(C) == [gone(2)], "it may have been lost"
    assert bench.told(B) == [msgspec.structs.replace(sign, sent_ns=bench.now_ns)]
    bench.hear(C, Store(2, 2, 1, (), 2, 0, counted=True))
    assert bench.got(Moved) == [Moved(C, 2)]
    assert bench.state.awaited is None


def test_nobody_is_told_of_a_hand_over_before_the_promise_is_kept() -> None:
    bench = owner(B, C)
    bench.do(MoveAsked(C))
    bench.answers = False
    bench.prepared(C)
    assert not any(isinstance(message, HandOver) for message in bench.told(C))
    bench.do(PromiseFailed(2, C, "full"))
    assert bench.told(C) == []
    assert bench.machine.heir == b""
    bench.do(PromiseKept(2, C))
    assert bench.told(C) == [gone(1)]
    assert bench.machine.heir == C
    bench.hear(C, Store(2, 1, 1, (), 1, 0, counted=True))
    assert bench.machine.heir == b""


def test_who_handed_over_and_votes_for_another_later_tells_nobody_to_stand() -> None:
    bench = owner(B, C)
    bench.do(MoveAsked(C))
    bench.prepared(C)
    bench.canvass(B, 3, (1, 1))
    assert bench.got(KeepPromise) == [KeepPromise(3, B)]
    assert bench.told(B) == [Promised(3, 3, trial=False, granted=True)]
    bench.tick()
    assert bench.told(C) == []
    bench.canvass(C, 4, (1, 1))
    assert bench.told(C) == [Promised(4, 4, trial=False, granted=True)], "that is a vote as any other"


def test_who_is_handed_over_to_needs_no_other_vote_of_three() -> None:
    heir = Bench(blocks=((1, 1, ()),), promise=(1, b""))
    heir.hear(B, Store(1, 1, 1, (), 1, 0, counted=True))
    heir.hear(B, gone(1))
    assert heir.role() == "owner"
    assert heir.got(Run) == [Run(2, 1)]
    five = Bench((A, B, C, D, E), blocks=((1, 1, ()),), promise=(1, b""))
    five.hear(B, Store(1, 1, 1, (), 1, 0, counted=True))
    five.hear(B, gone(1))
    assert five.role() == "candidate"
    assert {node for node in (B, C, D, E) if five.told(node)} == {C, D, E}
    five.hear(C, Promised(2, 2, trial=False, granted=True))
    assert five.role() == "owner"


def test_the_vote_of_who_handed_over_counts_only_for_the_journal_that_it_has() -> None:
    heir = Bench(blocks=((1, 1, ()), (2, 1, ()), (3, 1, ())), promise=(2, b""))
    heir.hear(B, Store(2, 3, 2, (), 1, 0, counted=True))
    heir.hear(B, HandOver(2, (), 3, promised=True))
    assert heir.role() == "holder", "its own block 3 is not the owner's"
    heir.hear(B, Store(2, 1, 1, (block(2, 2), block(3, 2)), 1, 1, counted=True))
    assert heir.role() == "owner"


def test_a_move_to_where_it_is_and_to_no_node() -> None:
    bench = owner(B, C)
    assert bench.do(MoveAsked(A)) == [Moved(A, 1)]
    assert bench.do(MoveAsked(b"short")) == [MoveFailed("that is no node")]


def test_a_move_to_another_node_replaces_the_holder_that_is_worth_least() -> None:
    bench = owner(B, C)
    bench.do(Suspected(C))
    bench.do(MoveAsked(D))
    bench.stored(D, 1)
    assert bench.got(Change) == [Change(1, (A, B, C, D))]
    bench.propose((A, B, C, D))
    follow(bench)
    assert bench.got(Change) == [Change(1, (A, B, D))]
    bench.propose((A, B, D))
    follow(bench)
    bench.prepared(D)
    assert bench.told(D)[-1] == gone(3)


def test_an_owner_alone_moves_and_is_removed_by_the_next() -> None:
    bench = owner()
    bench.do(MoveAsked(B))
    bench.stored(B, 1)
    bench.propose((A, B))
    bench.stored(B, 2)
    bench.prepared(B)
    assert bench.told(B)[-1] == gone(2, B)
    heir = Bench((A, B), own=B, blocks=((1, 1, ()), (2, 1, (A, B))), promise=(1, b""))
    heir.hear(A, Store(1, 2, 1, (), 2, 0, counted=True))
    heir.hear(A, HandOver(1, (B,)))
    heir.elect_now(A)
    heir.propose()
    heir.stored(A, 3)
    assert heir.got(Change) == [Change(2, (B,))]
    heir.propose((B,))
    assert heir.got(Committed) == [Committed(4)]
    assert not heir.got(HoldersChanged)


def test_nothing_is_handed_over_before_the_own_disk_has_it_and_the_target_was_told() -> None:
    bench = owner(B, C)
    bench.answers = False
    bench.propose()
    bench.do(MoveAsked(C))
    bench.prepared(C)
    assert bench.told(C) == [], "block 2 is not sealed"
    bench.answers = True
    bench.do(Sealed(2, 1, b"sealed"))
    assert not any(isinstance(message, HandOver) for message in bench.told(C))
    bench.stored(B, 2)
    assert bench.told(C)[-1] == gone(2)
    behind = owner(B, C)
    for _ in range(NEAR_BLOCKS + 1):
        behind.propose()
        behind.stored(B, behind.machine.last)
    behind.do(MoveAsked(C))
    behind.prepared(C)
    assert behind.told(C) == [], "it lacks too many"
    assert behind.got(Hold) == [Hold(1, "move")]
    behind.stored(C, 2)
    assert behind.told(C)[-1] == gone(behind.machine.last)


def test_proposals_go_on_until_the_target_is_ready() -> None:
    bench = owner(B, C)
    bench.do(MoveAsked(C))
    assert bench.got(Hold) == []
    bench.propose()
    assert [seal.number for seal in bench.got(Seal)] == [2]
    wait(bench, HEARTBEAT_NS)
    assert Prepare(1) in bench.told(C), "it may have been lost"
    follow(bench)
    for stranger in (Prepared(1), Prepared(9)):
        bench.hear(B, stranger)
    assert bench.got(Hold) == []
    assert bench.machine.counts["prepared for nothing"] == 2
    bench.prepared(C)
    assert bench.got(Stop) == [Stop(1)]


def test_a_target_that_cannot_run_it_or_never_gets_ready_costs_no_pause() -> None:
    bench = owner(B, C)
    bench.do(MoveAsked(C))
    bench.prepared(C, "it needs a package")
    assert bench.got(MoveFailed) == [MoveFailed("it cannot run there: it needs a package")]
    bench.do(MoveAsked(C))
    wait(bench, PREPARE_NS)
    assert bench.got(MoveFailed) == [MoveFailed("the other holder does not get ready to run it")]
    bench.do(MoveAsked(C))
    bench.do(Suspected(C))
    assert bench.got(MoveFailed) == [MoveFailed("the other holder does not get ready to run it")]
    assert bench.got(Hold) == []


def test_a_holder_gets_ready_for_its_owner_only_and_says_so() -> None:
    bench = Bench()
    bench.store(block(1, 1), committed=1)
    for node, epoch in ((C, 1), (B, 2)):
        bench.hear(node, Prepare(epoch))
        assert bench.got(GetReady) == []
    bench.hear(B, Prepare(1))
    assert bench.got(GetReady) == [GetReady(1)]
    bench.do(Ready())
    assert bench.told(B) == [Prepared(1)]
    bench.do(Ready("no" * 1000))
    assert bench.told(B) == [Prepared(1, "no" * 250)]
    alone = Bench((A,))
    assert alone.do(Ready()) == []


def test_a_wish_that_makes_no_sense_is_forgotten() -> None:
    for wish in ((), (A, C), (A, B, B), (A, B)):
        heir = Bench((A, B), own=B, promise=(1, b""))
        heir.hear(A, Store(1, 0, 0, (), 0, 0, counted=True))
        heir.hear(A, HandOver(1, wish))
        heir.elect_now(A)
        assert heir.state.reign is not None
        assert heir.state.reign.plan is None


def test_who_takes_over_again_tells_that_the_move_failed() -> None:
    bench = Bench()
    for asked in (True, False):
        bench = Bench()
        bench.state.awaited = Awaited(B, HandOver(1, ()), SIGN, 1 << 60, asked=asked)
        bench.elect(B)
        assert bench.got(MoveFailed) == [MoveFailed("this node took over again")] * asked
        assert bench.got(Run) == [Run(1, 0)]
        assert bench.state.awaited is None


def test_who_lacks_too_much_for_too_long_is_not_handed_over_to() -> None:
    bench = owner(B, C)
    for _ in range(NEAR_BLOCKS + 1):
        bench.propose()
        bench.stored(B, bench.machine.last)
    bench.do(MoveAsked(C))
    bench.prepared(C)
    assert bench.got(Hold) == [Hold(1, "move")]
    wait(bench, HAND_OVER_NS, C)
    assert bench.got(MoveFailed) == [MoveFailed("the other holder did not take over")]
    assert bench.got(Resume) == [Resume(1)]
    assert bench.machine.holders == (A, B, C)


def test_a_hand_over_that_nobody_takes_is_given_up() -> None:
    bench = owner(B, C)
    bench.do(MoveAsked(C))
    bench.prepared(C)
    while not bench.got(MoveFailed):
        assert bench.role() == "holder", "it waits for the other one"
        bench.tick()
    assert bench.got(MoveFailed) == [MoveFailed("no owner is known")]
    assert bench.told(B) == []


def test_where_the_other_holder_is_lost_nobody_waits_for_it() -> None:
    for lost, role in ((C, "trial"), (B, "holder")):
        bench = owner(B, C)
        bench.do(MoveAsked(C))
        bench.prepared(C)
        until_ns = bench.now_ns + SUSPECT_NS
        bench.do(Suspected(lost))
        while (due_ns := bench.machine.deadline_ns) is not None and due_ns <= until_ns:
            bench.tick()
        assert bench.role() == role


def test_an_owner_alone_removes_again_who_did_not_take_over() -> None:
    bench = owner()
    bench.do(MoveAsked(B))
    bench.stored(B, 1)
    bench.propose((A, B))
    bench.stored(B, 2)
    bench.prepared(B)
    while not bench.got(MoveFailed):
        bench.tick()
    bench.elect(B)
    bench.propose()
    bench.stored(B, 3)
    assert bench.got(Change) == [Change(3, (A,))]
    assert bench.state.reign is not None
    bench.propose((A,))
    assert bench.machine.holders == (A,)
    assert bench.state.reign.plan is None


def test_an_owner_that_shall_be_no_holder_hands_over_to_the_one_that_has_most() -> None:
    bench = owner(B, C)
    reign = bench.state.reign
    assert reign is not None
    bench.propose()
    bench.stored(C, 2)
    reign.plan = Plan((B, C), count=3)
    bench.do(Cleared(B))
    bench.prepared(C)
    assert bench.told(C)[-1] == gone(2, B, C)
    assert not any(isinstance(message, HandOver) for message in bench.told(B))


def test_when_nobody_is_fit_to_take_over_the_plan_is_given_up() -> None:
    bench = owner(B, C)
    reign = bench.state.reign
    assert reign is not None
    reign.plan = Plan((B, C), count=3)
    bench.do(Suspected(B))
    assert reign.plan is not None
    again = owner(B)
    assert again.state.reign is not None
    again.state.reign.plan = Plan((B,), count=2)
    again.do(Suspected(B))
    assert again.state.reign.plan is None
