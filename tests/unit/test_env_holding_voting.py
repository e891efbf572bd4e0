# SPDX-License-Identifier: Apache-2.0
"""Elections: who stands when, who votes for whom, and that nothing is said before it is on the disk."""

from atoll.base.units import MILLISECOND_NS
from atoll.core.machine import Tick
from atoll.domain.recorder.messages import LENGTH_BYTES, decode_request, encode_request
from atoll.domain.recorder.messages import Promise as KeepRequest
from atoll.env.holding.events import (
    Cleared,
    GetReady,
    KeepPromise,
    Kept,
    PromiseFailed,
    PromiseKept,
    Run,
    Stop,
    Suspected,
    Tell,
)
from atoll.env.holding.messages import Canvass, HandOver, Promised, Store
from atoll.env.limits import ELECTION_NS_MAX, ELECTION_NS_MIN, HEARTBEAT_NS, LEAVE_NS, NUMBER_MAX, SUSPECT_NS, UNFIT_NS
from tests.unit.holding_bench import THREE, A, B, Bench, C, D, block, rows


def granted(*, epoch: int, asked: int, trial: bool) -> Promised:
    return Promised(epoch, asked, trial, granted=True)


# Standing.


def test_a_holder_that_is_alone_owns_the_environment_at_once() -> None:
    bench = Bench((A,))
    assert [effect for effect in bench.effects if not isinstance(effect, Tell)] == [KeepPromise(1, A), Run(1, 0)]
    assert bench.role() == "owner"


def test_a_holder_that_hears_nobody_asks_first_and_then_stands() -> None:
    bench = Bench(blocks=rows(1, 1), promise=(1, b""))
    assert bench.machine.deadline_ns is not None
    assert ELECTION_NS_MIN <= bench.machine.deadline_ns < ELECTION_NS_MAX
    bench.tick()
    assert bench.told(B) == bench.told(C) == [Canvass(2, 2, 1, trial=True, transfer=False)]
    bench.hear(B, granted(epoch=1, asked=2, trial=True))
    assert bench.got(KeepPromise) == [KeepPromise(2, A)]
    assert bench.told(C) == [Canvass(2, 2, 1, trial=False, transfer=False)]
    bench.hear(C, granted(epoch=2, asked=2, trial=False))
    assert bench.got(Run) == [Run(2, 2)]
    assert bench.machine.owner == A


def test_it_asks_again_those_that_have_not_answered_and_after_a_while_anew() -> None:
    bench = Bench((A, B, C, D, b"E" * 10))
    bench.tick()
    bench.hear(B, granted(epoch=0, asked=1, trial=True))
    bench.tick()
    assert not bench.told(B)
    assert len(bench.told(C)) == 1
    while bench.role() != "holder" and bench.now_ns < 2 * ELECTION_NS_MAX:
        bench.tick()
    assert bench.role() == "trial"
    assert bench.machine.epoch == 0


def test_votes_of_others_and_late_ones_are_not_counted() -> None:
    bench = Bench()
    bench.tick()
    for message in (
        Promised(0, 1, trial=True, granted=False),
        granted(epoch=0, asked=2, trial=True),
        granted(epoch=0, asked=1, trial=False),
    ):
        bench.hear(B, message)
    bench.hear(D, granted(epoch=0, asked=1, trial=True))
    assert bench.role() == "trial"
    assert bench.machine.counts == {"not granted": 4}


def test_a_higher_epoch_of_a_voter_is_entered() -> None:
    bench = Bench()
    bench.tick()
    bench.hear(B, Promised(7, 1, trial=True, granted=False))
    assert bench.got(KeepPromise) == [KeepPromise(7, b"")]
    assert bench.role() == "holder"


def test_a_candidate_says_nothing_before_its_own_vote_is_kept() -> None:
    bench = Bench()
    bench.tick()
    bench.answers = False
    bench.hear(B, granted(epoch=0, asked=1, trial=True))
    assert not bench.got(Tell)
    bench.do(PromiseFailed(1, A, "full"))
    assert bench.tick() == [KeepPromise(1, A)]
    bench.do(PromiseKept(1, A))
    assert bench.told(B) == [Canvass(1, 0, 0, trial=False, transfer=False)]


def test_a_candidate_that_is_not_elected_tries_again_on_trial() -> None:
    bench = Bench()
    bench.tick()
    bench.hear(B, granted(epoch=0, asked=1, trial=True))
    assert bench.role() == "candidate"
    while bench.role() == "candidate":
        bench.tick()
    assert bench.told(B) == [Canvass(2, 0, 0, trial=True, transfer=False)]


def test_a_node_without_a_vote_never_stands() -> None:
    bench = Bench((B, C))
    bench.tick()
    assert bench.effects == []
    assert bench.machine.deadline_ns is None


def test_blocks_on_their_way_to_the_disk_must_arrive_before_a_node_stands() -> None:
    bench = Bench()
    bench.answers = False
    bench.store(block(1, 1))
    while not bench.now_ns > ELECTION_NS_MAX:
        bench.tick()
    assert bench.role() == "holder"
    assert bench.machine.deadline_ns == bench.now_ns + HEARTBEAT_NS
    bench.do(PromiseKept(1, b""))
    bench.do(Kept(1, 1))
    bench.tick()
    assert bench.told(C) == [Canvass(2, 1, 1, trial=True, transfer=False)]


def test_a_node_that_had_more_once_does_not_stand() -> None:
    bench = Bench(blocks=rows(1), promise=(2, b""), floor=(2, 5))
    bench.tick()
    assert bench.role() == "holder"


def test_a_node_whose_disk_refuses_does_not_stand_for_a_while() -> None:
    bench = Bench()
    bench.state.unfit_ns = UNFIT_NS
    bench.tick()
    assert bench.machine.deadline_ns == UNFIT_NS
    bench.tick()
    assert bench.role() == "trial"


# Suspicion.


def test_a_suspected_owner_is_not_waited_for() -> None:
    bench = Bench()
    bench.store()
    bench.do(Suspected(C))
    assert bench.machine.deadline_ns is not None
    assert bench.machine.deadline_ns > bench.now_ns + SUSPECT_NS
    bench.do(Suspected(B))
    assert bench.machine.deadline_ns <= bench.now_ns + SUSPECT_NS
    assert bench.canvass(C, 2, trial=True) == [Promised(1, 2, trial=True, granted=True)]
    bench.do(Cleared(B))
    assert bench.canvass(C, 2, trial=True) == [Promised(1, 2, trial=True, granted=False)]


# Voting.


def test_a_vote_is_kept_before_it_is_told_and_told_again() -> None:
    bench = Bench()
    bench.answers = False
    assert bench.canvass(B, 1) == []
    assert bench.got(KeepPromise) == [KeepPromise(1, B)]
    assert bench.canvass(B, 1) == []
    bench.do(PromiseKept(1, B))
    assert bench.told(B) == [granted(epoch=1, asked=1, trial=False)]
    assert bench.canvass(B, 1) == [granted(epoch=1, asked=1, trial=False)]


def test_there_is_one_vote_in_an_epoch() -> None:
    bench = Bench()
    bench.canvass(B, 1)
    assert bench.canvass(C, 1) == [Promised(1, 1, trial=False, granted=False)]
    again = Bench(promise=(1, B))
    assert again.canvass(C, 1) == [Promised(1, 1, trial=False, granted=False)]


def test_a_vote_goes_only_to_who_has_as_much() -> None:
    bench = Bench(blocks=rows(1, 2), promise=(2, b""))
    assert bench.canvass(B, 3, (1, 9), trial=True) == [Promised(2, 3, trial=True, granted=False)]
    assert bench.canvass(B, 3, (1, 9)) == []
    assert bench.got(KeepPromise) == [KeepPromise(3, b"")]
    assert bench.canvass(C, 3, (2, 2)) == [granted(epoch=3, asked=3, trial=False)]


def test_a_canvass_of_an_old_epoch_is_refused() -> None:
    bench = Bench(promise=(5, b""))
    assert bench.canvass(B, 4) == [Promised(5, 4, trial=False, granted=False)]


def test_nobody_votes_against_an_owner_that_lives() -> None:
    bench = Bench()
    bench.store()
    assert bench.canvass(C, 2) == [Promised(1, 2, trial=False, granted=False)]
    assert bench.canvass(C, 1) == [Promised(1, 1, trial=False, granted=False)]
    bench.now_ns += ELECTION_NS_MIN
    assert bench.canvass(C, 2) == [granted(epoch=2, asked=2, trial=False)]


def test_an_owner_refuses_but_yields_to_who_was_told_to_take_over() -> None:
    bench = Bench()
    bench.elect(B)
    assert bench.canvass(C, 9, (9, 9), trial=True) == [Promised(1, 9, trial=True, granted=False)]
    assert bench.canvass(C, 9, (9, 9)) == [Promised(1, 9, trial=False, granted=False)]
    bench.hear(C, Canvass(2, 9, 9, trial=False, transfer=True))
    assert bench.got(Stop) == [Stop(1)]
    assert bench.told(C) == [granted(epoch=2, asked=2, trial=False)]


# Taking over.


def is_heir(bench: Bench) -> bool:
    return bench.machine.is_heir


def test_a_holder_that_is_told_to_take_over_stands_without_a_trial() -> None:
    bench = Bench()
    bench.store(block(1, 1))
    bench.hear(B, HandOver(1, (A, B)))
    assert bench.told(C) == [Canvass(2, 1, 1, trial=False, transfer=True)]
    bench.hear(B, HandOver(1, (A, B)))
    assert bench.machine.counts == {"hand-over out of place": 1}


def test_no_epoch_that_somebody_names_leads_to_one_that_the_recorder_cannot_keep() -> None:
    bench = Bench(blocks=rows(1), promise=(1, b""))
    bench.hear(B, Store(NUMBER_MAX, 1, 1, (), 0, 0, counted=True))
    bench.hear(B, HandOver(NUMBER_MAX, (), 1))
    (promise,) = bench.got(KeepPromise)
    assert (promise.epoch, promise.node) == (NUMBER_MAX + 1, A)
    request = KeepRequest(7, bytes(16), promise.epoch, promise.node)
    assert decode_request(encode_request(request)[LENGTH_BYTES:]) == request


def test_a_hand_over_of_another_is_nothing() -> None:
    bench = Bench()
    bench.store()
    bench.hear(C, HandOver(1, ()))
    bench.hear(B, HandOver(2, ()))
    assert bench.role() == "holder"
    assert bench.machine.counts == {"hand-over out of place": 2}


def test_a_hand_over_waits_for_what_was_told_before_it() -> None:
    bench = Bench()
    bench.store()
    bench.answers = False
    bench.store(block(1, 1))
    bench.hear(B, HandOver(1, (), 2))
    bench.do(Kept(1, 1))
    assert bench.role() == "holder", "block 2 is still on its way"
    assert is_heir(bench)
    bench.store(block(2, 1), before=(1, 1))
    assert bench.role() == "holder"
    bench.do(Kept(2, 1))
    assert bench.role() == "candidate"
    assert is_heir(bench)
    assert bench.got(GetReady) == [GetReady(2)], "what is restored follows"
    bench.do(PromiseKept(2, A))
    bench.elect_now(C)
    assert not is_heir(bench)


def test_a_hand_over_that_waits_is_void_in_the_next_epoch() -> None:
    bench = Bench()
    bench.store()
    bench.hear(B, HandOver(1, (), 1))
    assert is_heir(bench)
    bench.answers = False
    bench.store(block(1, 2), epoch=2)
    assert not is_heir(bench)
    bench.do(PromiseKept(2, b""))
    assert bench.role() == "holder"
    assert bench.state.summons is None


def test_a_promise_that_nobody_waits_for_is_only_kept() -> None:
    bench = Bench(THREE)
    bench.answers = False
    bench.canvass(B, 1, (0, 0))
    bench.canvass(C, 2, (0, 0))
    bench.do(PromiseKept(1, B))
    assert bench.effects == []
    bench.do(PromiseKept(2, C))
    bench.do(PromiseKept(2, C))
    assert bench.effects == []


def test_a_tick_before_its_time_does_nothing() -> None:
    bench = Bench()
    bench.now_ns += MILLISECOND_NS
    assert bench.do(Tick()) == []


def test_who_was_told_a_part_and_never_made_a_holder_asks_who_told_it() -> None:
    bench = Bench(())
    bench.store(block(1, 1))
    bench.tick()
    assert [(told.node, type(told.message)) for told in bench.got(Tell)] == [(B, Canvass)]
    bench.store(before=(1, 1), counted=0)
    assert bench.machine.last == 0
    bench.tick()
    assert bench.got(Tell) == []
    assert bench.machine.deadline_ns is None


def test_who_is_no_holder_any_more_asks_those_who_are_to_be_let_go() -> None:
    bench = Bench(THREE, blocks=((1, 1, ()), (2, 1, (B, C))), promise=(1, B))
    bench.tick()
    asked = Canvass(2, 2, 1, trial=True, transfer=False)
    assert [(told.node, told.message) for told in bench.got(Tell)] == [(B, asked), (C, asked)]
    assert bench.role() == "holder"
    assert bench.machine.deadline_ns == bench.now_ns + LEAVE_NS
    bench.effects.clear()
    bench.tick()
    assert len(bench.got(Tell)) == 2, "as often as it takes"
    bench.hear(B, Promised(1, 2, trial=True, granted=True))
    assert bench.role() == "holder"
    assert bench.machine.epoch == 1
