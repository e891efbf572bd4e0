# SPDX-License-Identifier: Apache-2.0
"""What all parts share: how an epoch is entered, how an ownership ends, and what is answered then."""

import pytest

from atoll.base.errors import UsageError
from atoll.env.holding.desk import Desk
from atoll.env.holding.events import (
    Change,
    Committed,
    HoldersAsked,
    HoldersFailed,
    KeepPromise,
    MoveAsked,
    MoveFailed,
    PromiseFailed,
    SealFailed,
    Stop,
    Tell,
)
from atoll.env.holding.messages import HandOver, SnapshotPart, Store
from atoll.env.holding.state import Awaited, Incoming, Plan
from atoll.env.limits import (
    DISK_RETRY_NS,
    ELECTION_NS_MAX,
    ELECTION_NS_MIN,
    HAND_OVER_NS,
    HEARTBEAT_NS,
)
from tests.unit.holding_bench import A, B, Bench, C


def owner() -> Bench:
    bench = Bench()
    bench.elect(B)
    return bench


def desk(bench: Bench) -> Desk:
    return Desk(bench.state)


def incoming(bench: Bench) -> Incoming | None:
    return bench.state.incoming


def test_counts_messages_and_times() -> None:
    bench = Bench()
    one = desk(bench)
    one.count("reason")
    one.count("reason")
    assert bench.machine.counts == {"reason": 2}
    one.tell(B, HandOver(1, ()))
    assert one.effects == [Tell(B, HandOver(1, ()))]
    one.arm()
    assert bench.state.election_ns is not None
    assert ELECTION_NS_MIN <= bench.state.election_ns < ELECTION_NS_MAX


def test_a_promise_is_never_changed_and_asked_for_again_when_it_failed() -> None:
    bench = Bench()
    one = desk(bench)
    one.promise(2, b"")
    one.promise(2, B)
    for epoch, node in ((2, C), (2, b""), (1, C)):
        with pytest.raises(AssertionError):
            one.promise(epoch, node)
    one.promise_failed()
    assert bench.state.promise.retry_ns == DISK_RETRY_NS
    one.promise_again()
    assert one.effects == [KeepPromise(2, b""), KeepPromise(2, B), KeepPromise(2, B)]
    with pytest.raises(AssertionError):
        one.adopt(2)


def test_the_machine_asks_again_for_a_promise_that_failed() -> None:
    bench = Bench()
    bench.answers = False
    bench.canvass(B, 1)
    bench.do(PromiseFailed(1, B, "full"))
    assert bench.machine.deadline_ns == bench.now_ns + DISK_RETRY_NS
    assert bench.tick() == [KeepPromise(1, B)]


def test_commits_never_go_back() -> None:
    one = desk(Bench())
    one.commit(3)
    one.commit(3)
    one.commit(2)
    assert one.effects == [Committed(3)]


def test_a_change_is_asked_for() -> None:
    bench = Bench()
    one, plan = desk(bench), Plan((A,))
    one.ask_change(plan, (A, B))
    assert (one.effects, plan.change) == ([Change(0, (A, B))], (A, B))


def test_parts_of_a_snapshot_are_dropped_in_a_new_epoch_but_not_one_that_is_written() -> None:
    bench = Bench()
    bench.hear(B, SnapshotPart(1, 5, 1, (), 0, 9, b"abc", 0))
    assert bench.state.incoming is not None
    desk(bench).adopt(2)
    assert incoming(bench) is None
    bench.state.incoming = Incoming(5, 1, (), 9, asked=True)
    desk(bench).adopt(3)
    assert incoming(bench) is not None


def test_an_owner_that_yields_stops_and_forgets_who_owned() -> None:
    bench = owner()
    one = desk(bench)
    one.yield_role()
    assert one.effects == [Stop(1)]
    assert (bench.role(), bench.machine.owner, bench.state.reign) == ("holder", b"", None)


def test_what_the_disk_refused_is_not_in_the_journal_when_the_ownership_ends() -> None:
    bench = owner()
    bench.propose()
    bench.answers = False
    bench.propose()
    bench.propose()
    bench.do(SealFailed(2, 1, "full"))
    desk(bench).yield_role()
    assert bench.machine.last == 1
    assert [write.live for write in bench.state.ledger.writes] == [False]
    bench.do(SealFailed(3, 1, "full"))
    assert bench.machine.last == 1


def test_what_may_still_be_written_stays_in_the_ledger() -> None:
    bench = owner()
    bench.answers = False
    bench.propose()
    bench.propose()
    bench.do(SealFailed(1, 1, "full"))
    bench.do(SealFailed(2, 1, "full"))
    while bench.state.reign is not None and bench.state.reign.retry_ns is not None:
        bench.tick()
    desk(bench).yield_role()
    assert bench.machine.last == 2
    bench.do(SealFailed(1, 1, "full"))
    assert bench.machine.last == 0


def test_who_asked_is_told_that_the_ownership_was_lost() -> None:
    for ask, answers in (
        (MoveAsked(C), [MoveFailed("the ownership was lost")]),
        (HoldersAsked((A, B)), [HoldersFailed("the ownership was lost")]),
    ):
        bench = owner()
        bench.do(ask)
        one = desk(bench)
        one.yield_role()
        assert one.effects == [Stop(1), *answers]
    quiet = owner()
    assert quiet.state.reign is not None
    quiet.state.reign.plan = Plan((A, B))
    one = desk(quiet)
    one.yield_role()
    assert one.effects == [Stop(1)]


def test_the_outcome_of_a_hand_over_is_awaited() -> None:
    bench = owner()
    bench.propose()
    bench.stored(B, 1)
    bench.do(MoveAsked(B))
    bench.prepared(B)
    message = HandOver(1, (), 1, promised=True)
    assert bench.told(B)[-1] == message
    assert bench.got(Stop) == [Stop(1)]
    due_ns, until_ns = bench.now_ns + HEARTBEAT_NS, bench.now_ns + HAND_OVER_NS
    assert bench.state.awaited == Awaited(
        B, message, Store(1, 1, 1, (), 1, 0, counted=True), until_ns, due_ns, asked=True
    )


def test_time_does_not_go_back() -> None:
    bench = Bench()
    bench.do(MoveAsked(B), 5)
    bench.now_ns = 0
    with pytest.raises(UsageError):
        bench.do(MoveAsked(B))
