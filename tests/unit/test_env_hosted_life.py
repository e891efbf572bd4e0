# SPDX-License-Identifier: Apache-2.0
"""The life of an environment on a node: it opens, fails, changes hands, or runs in a process of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from atoll.base.errors import CorruptError, UsageError
from atoll.base.units import SECOND_NS
from atoll.env import runner as runner_module
from atoll.env.app import App, on, program_of
from atoll.env.beginning import Wanted
from atoll.env.context import Context
from atoll.env.facts import Facts, Suspect
from atoll.env.holding import Block, HoldingOptions
from atoll.env.holding import events as on_holding
from atoll.env.holding.messages import Prepare as PrepareLetter
from atoll.env.keepers import Peer
from atoll.env.limits import (
    CONFIRM_NS,
    RESEND_NS,
    RESTORE_RETRY_NS,
)
from atoll.env.messages import AGE_UNSAID, Carried, Receipt
from atoll.env.orders import AskRecorder, Await, Forget, Prepare, Restore, Say, Spare, Told
from atoll.env.places import HandlerFailedError
from atoll.env.records import Began, Failed, Found, Held, Opened
from atoll.env.runner import Runner
from tests.unit.steward_world import (
    ANN,
    BOB,
    CODE,
    OTHER_CODE,
    PROGRAM,
    Add,
    Boom,
    Elsewhere,
    Group,
    Later,
    Notes,
    Place,
    Quit,
    Seek,
    encode,
    items,
    node_id,
    receipts,
    started,
)

# Handlers that fail.


def test_a_handler_that_fails_is_undone_and_the_next_item_is_taken() -> None:
    place, identity = started()
    place.send(identity, 1, Add(1), Boom(), Add(1), ask=1)
    assert place.responses(1) == [
        {"is": "Sum", "n": 1},
        {"is": "Failure", "code": "raised", "text": "ValueError: boom"},
        {"is": "Sum", "n": 2},
    ]


def test_what_a_process_did_not_survive_counts_as_failed_when_it_is_known_which_item_it_was() -> None:
    place, identity = started()
    place.hosted(identity).filling.suspect = Suspect(ANN, 2, 1)
    place.send(identity, 1, Add(1), Add(10), Add(1), ask=1)
    assert [one.get("code", one.get("n")) for one in place.responses(1)] == [1, "killed", 2]
    assert place.hosted(identity).filling.suspect is None
    assert any(isinstance(one, Failed) and one.number == 2 for one in place.records(identity))


def test_where_it_is_not_known_which_items_are_taken_one_by_one_and_each_is_noted() -> None:
    walls = Notes()
    place = Place(walls=walls)
    identity = place.run()
    place.attach()
    place.send(identity, 1, Add(1))
    place.hosted(identity).filling.suspect = Suspect(ANN, 1, 3)
    walls.notes.clear()
    place.send(identity, 1, Add(1), Add(1))
    assert walls.notes == [(ANN, 2, 1)]
    assert place.hosted(identity).filling.suspect == Suspect(ANN, 1, 3), "one of them is still to come"
    place.send(identity, 3, Add(1), Add(1))
    assert walls.notes == [(ANN, 2, 1), (ANN, 3, 1), (ANN, 4, 1)]
    assert place.hosted(identity).filling.suspect is None
    assert place.counter(identity)["n"] == 4


def test_items_of_others_are_not_suspected() -> None:
    place, identity = started()
    place.hosted(identity).filling.suspect = Suspect(BOB, 1, 1)
    place.send(identity, 1, Add(1))
    assert place.counter(identity)["n"] == 1
    assert place.hosted(identity).filling.suspect == Suspect(BOB, 1, 1)


def test_a_timer_that_a_process_did_not_survive_counts_as_failed() -> None:
    place, identity = started()
    place.send(identity, 1, Later(1), Later(2))
    runner = place.hosted(identity).runner
    assert runner is not None
    place.hosted(identity).filling.suspect = Suspect(b"", runner.environment.first_timer, 1)
    place.tick(SECOND_NS)
    assert place.counter(identity)["n"] == 0
    place.tick(SECOND_NS)
    assert place.counter(identity)["n"] == 100


def test_an_environment_whose_process_did_not_survive_its_opening_is_not_told_again() -> None:
    before, identity = started()
    for suspect, silent in ((Suspect(b"", 0, 1), True), (Suspect(b"", 0, 0), False), (None, False)):
        place = Place()
        place.is_restoring = False
        place.again(before)
        place.hosted(identity).filling.suspect = suspect
        (order,) = place.restoring
        place.restore(order)
        opened = [one for one in place.records(identity) if isinstance(one, Opened)][-1]
        assert opened.silent is silent
        before = place


class Fickle(App):
    """Is not deterministic: what went well once fails the second time."""

    n: int = 0
    runs = 0

    @on(Add)
    def add(self, add: Add, _: Context) -> None:
        if add.n == 7:
            type(self).runs += 1
            if type(self).runs == 2:
                raise ValueError("not again")

    @on(Boom)
    def boom(self, _: Boom, __: Context) -> None:
        raise ValueError("boom")


def test_a_handler_that_is_not_deterministic_stops_its_environment_which_is_restored_later() -> None:
    Fickle.runs = 0
    place = Place()
    program = program_of(Fickle)
    identity = place.steward.create(Wanted("fickle", CODE, encode({}), 1), program, place.now)
    place.settle()
    place.attach()
    place.send(identity, 1, Add(7))
    place.is_restoring = False
    place.send(identity, 2, Boom())
    hosted = place.hosted(identity)
    assert hosted.runner is None
    assert "fails the second time" in hosted.failed
    assert any("cannot go on" in one.text for one in place.got(Say))
    assert hosted.epoch == 1
    place.tick(RESTORE_RETRY_NS)
    (order,) = place.restoring
    assert order == Restore(identity, 1, hosted.holding.last)


# Opening, and failing to.


def test_what_was_inherited_counts_only_when_the_opening_is_durable() -> None:
    before, identity = started()
    before.send(identity, 1, Add(2), ask=1)
    place = Place()
    place.attach()
    place.is_slow = True
    place.again(before)
    assert place.waiting, "the promise"
    place.is_slow, waiting = False, place.waiting
    place.waiting = []
    place.is_restoring = False
    for order in waiting:
        place.record(order)
    place.settle()
    (restore,) = place.restoring
    place.is_slow = True
    place.restore(restore)
    place.send(identity, 1, Add(2), ask=1)
    assert not place.said(1), "it is there, and not committed in this epoch"
    place.answer()
    assert (1, True) in receipts(place)
    place.hear(1, Receipt(ANN, identity, 0, again=True))
    assert place.responses(1) == [{"is": "Sum", "n": 2}]


def test_an_answer_to_a_restore_of_another_epoch_is_nothing() -> None:
    place, identity = started()
    hosted = place.hosted(identity)
    runner = hosted.runner
    hosted.restored(7, Runner(PROGRAM, CODE), "", place.now)
    hosted.restored(hosted.epoch, None, "too late", place.now)
    assert hosted.runner is runner
    assert not hosted.failed


def test_what_cannot_be_restored_is_said_and_tried_again() -> None:
    before, identity = started()
    before.send(identity, 1, Add(5))
    place = Place()
    place.is_restoring = False
    place.again(before)
    (order,) = place.restoring
    place.restore(order, "A605: packages")
    hosted = place.hosted(identity)
    assert hosted.failed == "A605: packages"
    assert hosted.deadline_ns is not None
    place.is_restoring = True
    place.tick(RESTORE_RETRY_NS)
    assert not hosted.failed
    assert place.counter(identity)["n"] == 5


def test_it_is_not_restored_again_before_it_is_known_what_came_of_the_last_time() -> None:
    before, identity = started()
    before.send(identity, 1, Add(5))
    place = Place()
    place.is_restoring = False
    place.again(before)
    for _ in range(3):
        place.tick(RESTORE_RETRY_NS)
        (order,) = place.restoring
        place.restoring.clear()
        place.restore(order, "the code is not here")
        assert not place.restoring, "not at once"
        place.tick(RESTORE_RETRY_NS)
        for _ in range(12):
            place.tick(RESTORE_RETRY_NS)
        assert len(place.restoring) == 1, "it takes long"
    place.restore(place.restoring.pop())
    assert place.counter(identity)["n"] == 5
    place.tick(RESTORE_RETRY_NS)
    assert not place.restoring


def test_an_opening_that_breaks_what_is_restored_counts_as_a_failed_restore() -> None:
    before, identity = started()

    class Broken(Notes):
        def leave(self) -> None:
            raise CorruptError("broken")

    place = Place()
    place.is_restoring = False
    place.again(before)
    (order,) = place.restoring
    runner = place.runner(identity, order.number)
    runner.walls = Broken()
    place.steward.restored(identity, order.epoch, runner, "", place.now)
    assert place.hosted(identity).failed


def test_an_owner_that_cannot_run_it_is_silent_so_that_another_takes_over() -> None:
    group = Group("one", "two", "three")
    identity = group["one"].run(copies=3)
    group.until(lambda: len(group["one"].hosted(identity).holding.holders) == 3)
    group["two"].is_restoring = False
    group["one"].steward.move(identity, node_id("two"), 1, group["one"].now)
    group.until(lambda: group["two"].restoring)
    group["two"].restore(group["two"].restoring.pop(), "A605: packages")
    group.until(lambda: group.owner(identity) is not None, 120)
    assert group.owner(identity) is not group["two"]


# Holders and moves.


def test_a_move_takes_everything_along_and_says_that_it_was_one() -> None:
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=1)
    one.attach()
    one.send(identity, 1, Add(4), ask=1)
    one.steward.move(identity, node_id("two"), 9, one.now)
    one.steward.move(identity, node_id("three"), 10, one.now)
    group.until(lambda: group.owner(identity) is group["two"])
    assert one.got(Told) == [Told(10, "another move is under way"), Told(9, None)]
    opened = [record for record in group["two"].records(identity) if isinstance(record, Opened)]
    assert [(record.before, record.epoch) for record in opened] == [("one", 2)]
    group.until(lambda: any(isinstance(asked.order, on_holding.Left) for asked in one.got(AskRecorder)))
    assert identity in one.steward.hosted  # What was promised stays, or it could vote twice in an epoch.
    assert one.steward.hosted[identity].is_blank
    one.send(identity, 2, Add(1), ask=2)
    group.until(lambda: len(one.responses(1)) == 2)
    assert one.responses(1)[-1] == {"is": "Sum", "n": 5}


def test_a_move_that_fails_says_why() -> None:
    group = Group("one", "two")
    one = group["one"]
    identity = one.run(copies=1)
    group.cut.add(node_id("two"))
    one.steward.move(identity, node_id("two"), 9, one.now)
    group.until(lambda: one.got(Told))
    assert one.got(Told)[0].failure == "the new holder does not answer"
    one.send(identity, 1, Add(1))
    one.attach()
    one.send(identity, 1, Add(1))
    assert one.counter(identity)["n"] == 1


def test_a_move_waits_for_a_change_of_the_holders() -> None:
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=3)
    one.tick(SECOND_NS)
    hosted = one.hosted(identity)
    assert hosted._is_changing  # pyright: ignore[reportPrivateUsage]
    one.steward.move(identity, node_id("three"), 1, one.now)
    group.until(lambda: group.owner(identity) is group["three"])
    assert one.got(Told) == [Told(1, None)]
    assert len(group["three"].hosted(identity).holding.holders) == 3


def test_who_should_keep_the_journal_is_looked_after_but_not_during_anything_else() -> None:
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=3)
    hosted = one.hosted(identity)
    peers = {node_id(name): Peer(name) for name in ("two", "three")}
    hosted.maintain(peers, set(), one.now)
    hosted.maintain(peers, set(), one.now)
    group.until(lambda: len(hosted.holding.holders) == 3)
    group.until(lambda: not hosted._is_changing)  # pyright: ignore[reportPrivateUsage]
    one.settle()
    hosted.maintain(peers, set(), one.now)
    assert hosted.taken() == ([], [])
    held = [record for record in one.records(identity) if isinstance(record, Held)]
    assert [len(record.nodes) for record in held] == [1, 2, 3]
    group.cut |= {node_id("two"), node_id("three")}
    hosted.stop(one.now)
    hosted.taken()
    hosted.maintain({}, {node_id("two")}, one.now)
    assert hosted.taken() == ([], [])


def test_an_owner_that_was_cut_off_stops_and_what_waited_goes_to_the_next_one() -> None:
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=3)
    one.attach()
    group.until(lambda: len(one.hosted(identity).holding.holders) == 3)
    one.send(identity, 1, Add(1), ask=1)
    group.flow()
    assert len(one.responses(1)) == 1
    group.cut.add(node_id("one"))
    group.meet()
    one.send(identity, 2, Add(10), ask=2)
    assert len(one.responses(1)) == 1
    group.until(lambda: group.owner(identity) is not None)
    group.cut.clear()
    group.meet()
    group.until(lambda: one.hosted(identity).runner is None)
    one.send(identity, 2, Add(20), ask=2)
    owner = group.owner(identity)
    assert owner is not None
    group.until(lambda: len(one.responses(1)) == 2)
    assert owner.counter(identity)["n"] in {11, 21}
    assert [record.before for record in owner.records(identity) if isinstance(record, Opened)] == [""]


def test_what_waits_when_it_stops_goes_to_whoever_runs_it_next() -> None:
    place, identity = started()
    hosted = place.hosted(identity)
    place.feed(identity, on_holding.SealFailed(99, 1, "full"))  # Counted, and nothing else.
    hosted._hold = "move"  # pyright: ignore[reportPrivateUsage]
    place.send(identity, 1, Add(1))
    hosted.end()
    _, routed = hosted.taken()
    assert routed == [Carried(ANN, identity, 1, items(Add(1)), age_ns=AGE_UNSAID)]
    assert hosted.is_ended


# Handlers that run elsewhere.


def test_while_a_handler_runs_elsewhere_everything_waits_for_it() -> None:
    place, at = Place(), Elsewhere()
    identity = place.run(at=at)
    place.attach()
    at.is_slow = True
    place.send(identity, 1, Add(1), ask=1)
    place.send(identity, 2, Add(1), ask=2)
    hosted = place.hosted(identity)
    hosted.found(Found(7), place.now)
    assert place.got(Await) == [Await(identity)]
    asks: tuple[Callable[[], None], ...] = (
        lambda: hosted.checkpoint(place.now),
        lambda: hosted.upgrade(PROGRAM, CODE, place.now),
    )
    for ask in asks:
        with pytest.raises(UsageError, match="a handler runs"):
            ask()
    place.steward.resume(identity, place.now)
    place.settle()
    assert place.got(Await) == [Await(identity)] * 2
    assert not place.said(1)
    at.is_slow = False
    place.steward.resume(identity, place.now)
    place.settle()
    assert [one["n"] for one in place.responses(1)] == [1, 2]
    place.steward.resume(identity, place.now)
    assert len(place.got(Await)) == 2


def test_the_place_is_let_go_of_when_it_stops() -> None:
    place, at = Place(), Elsewhere()
    identity = place.run(at=at)
    place.hosted(identity).end()
    assert at.is_closed
    place.hosted(identity).resume(place.now)


def test_what_fails_elsewhere_behind_a_gap_is_counted_by_its_own_number() -> None:
    place, at = Place(), Elsewhere()
    identity = place.run(at=at)
    place.attach()
    at.is_slow = True
    place.hear(1, Carried(ANN, identity, 9, items(Add(1), ask=1), settled=8))
    at.is_slow, at.failure = False, HandlerFailedError("raised", "boom")
    place.steward.resume(identity, place.now)
    place.settle()
    assert [one["code"] for one in place.responses(1)] == ["raised"]
    assert receipts(place)[-1] == (9, False)


def test_a_place_that_cannot_go_on_counts_as_a_failure_of_the_environment() -> None:
    place, at = Place(), Elsewhere()
    identity = place.run(at=at)
    place.attach()
    at.is_slow = True
    place.send(identity, 1, Add(1), ask=1)
    at.is_slow, at.failure = False, HandlerFailedError("raised", "boom")

    def fails(*_: object) -> Any:
        raise CorruptError("nothing can be made here")

    at.blank = fails  # type: ignore[method-assign]
    place.steward.resume(identity, place.now)
    assert place.hosted(identity).failed == "nothing can be made here"


def test_a_runner_that_comes_too_late_is_let_go_of() -> None:
    place, at = Place(), Elsewhere()
    identity = place.run()
    place.hosted(identity).restored(99, Runner(at, CODE), "", place.now)
    assert at.is_closed


def test_what_is_asked_again_while_a_handler_runs_elsewhere_is_neither_taken_twice_nor_asked_for() -> None:
    place, at = Place(), Elsewhere()
    identity = place.run(at=at)
    place.attach()
    at.is_slow = True
    for _ in range(3):
        place.send(identity, 1, Add(1), ask=1)
    assert not place.said(1)
    at.is_slow = False
    place.steward.resume(identity, place.now)
    place.settle()
    assert place.counter(identity)["n"] == 1


def test_an_effect_that_nobody_knows_is_a_bug() -> None:
    place, identity = started()
    with pytest.raises(AssertionError, match="nobody knows"):
        place.hosted(identity)._perform([object()], place.now)  # type: ignore[list-item]  # pyright: ignore[reportPrivateUsage, reportArgumentType]


def test_a_runner_that_has_not_begun_gets_its_first_record() -> None:
    place = Place()
    began = Began(ANN, b"s" * 32, "fresh", CODE, encode({"n": 5}), place.own)
    options = HoldingOptions(place.own, b"s" * 32, holders=(place.own,))
    place.steward.adopt(Facts(ANN, "fresh", "Counter", CODE), options, place.now, (Runner(PROGRAM, CODE), began))
    place.settle()
    assert place.counter(ANN)["n"] == 5


def test_who_is_meant_is_asked_when_the_question_is_durable_and_an_end_is_known_then() -> None:
    place, identity = started()
    place.is_slow = True
    place.send(identity, 1, Seek("nobody"))
    assert not place.got(Say)
    place.answer()
    assert any("nobody is called nobody" in one.text for one in place.got(Say))
    place.is_slow = True
    place.send(identity, 2, Quit())
    assert not place.got(Forget)
    place.answer()
    assert place.got(Forget) == [Forget(identity)]


def test_a_change_of_holders_is_not_forgotten_when_what_runs_fails() -> None:
    group = Group("one", "two", "three")
    one, far = group["one"], Elsewhere()
    identity = one.run(at=far, copies=3)
    one.attach()
    far.is_slow = True
    one.send(identity, 1, Add(1))
    hosted = one.hosted(identity)
    assert hosted.runner is not None
    assert hosted.runner.is_busy
    group.until(lambda: bool(hosted.filling.holders))
    far.is_slow = False

    def gone(*_: object) -> Any:
        raise HandlerFailedError("gone", "its process is gone")

    def nothing(*_: object) -> Any:
        raise CorruptError("no guest")

    far.answered, far.blank = gone, nothing  # type: ignore[method-assign]
    one.steward.resume(identity, one.now)
    assert hosted.failed == "no guest"
    group.until(lambda: len(hosted.holding.holders) > 1)


def test_what_ends_before_it_has_begun_lets_go_of_its_place() -> None:
    place, far = Place(), Elsewhere()
    place.is_slow = True
    identity = place.run(at=far)
    place.steward.stop(identity, place.now)
    place.settle()
    assert identity not in place.steward.hosted
    assert far.is_closed


def test_one_leaves_a_slow_node_now_and_then_and_only_for_a_better_one() -> None:
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=3)
    hosted = one.hosted(identity)
    group.until(lambda: len(hosted.holding.holders) == 3)
    slow = {node_id(name): Peer(name, slow="disk") for name in ("two", "three")}
    hosted.flee(slow, one.now)
    assert group.owner(identity) is one
    group.until(lambda: not hosted._is_changing)  # pyright: ignore[reportPrivateUsage]
    hosted.flee({**slow, node_id("three"): Peer("three")}, one.now)
    hosted.flee({**slow, node_id("two"): Peer("two")}, one.now)
    one.steward.tick(one.now)
    group.until(lambda: group.owner(identity) is group["three"])


def test_a_move_that_waits_when_it_stops_is_answered() -> None:
    place, identity = started()
    hosted = place.hosted(identity)
    hosted._is_changing = True  # A change of holders.  # pyright: ignore[reportPrivateUsage]
    place.steward.move(identity, node_id("two"), 5, place.now)
    hosted._drop()  # pyright: ignore[reportPrivateUsage]
    place.holding_tick(identity)
    assert place.got(Told) == [Told(5, "it does not run here any more")]


def test_what_is_due_first_is_when_it_is_looked_after_and_not_while_nothing_may_be_applied() -> None:
    place, identity = started()
    hosted = place.hosted(identity)
    place.send(identity, 1, Add(1), ask=1)
    place.hear(1, Receipt(ANN, identity, 1))
    assert hosted.deadline_ns == place.now_ns + CONFIRM_NS
    place.send(identity, 2, Later(CONFIRM_NS / 2 / SECOND_NS))
    due_ns = hosted.deadline_ns
    assert due_ns is not None
    assert place.now_ns < due_ns < place.now_ns + CONFIRM_NS
    hosted._hold = "move"  # pyright: ignore[reportPrivateUsage]
    assert hosted.wall_deadline_ns is None
    assert hosted.deadline_ns == place.now_ns + RESEND_NS


def test_a_change_of_the_holders_is_told_in_the_block_that_it_is_proposed_with() -> None:
    place, identity = started()
    hosted = place.hosted(identity)
    place.is_slow = True
    place.send(identity, 1, Add(1))
    place.send(identity, 2, Add(1))
    hosted._hold = "full"  # pyright: ignore[reportPrivateUsage]
    hosted.filling.change((place.own,))
    hosted.upgrade(PROGRAM, OTHER_CODE, place.now)  # Seals what there was by itself.
    assert hosted.filling.holders == (place.own,)


def test_what_was_on_its_way_when_it_failed_counts_only_when_the_new_opening_is_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner_module, "BLOCK_EVENTS_MAX", 1)
    place, identity = started()
    hosted = place.hosted(identity)
    place.is_slow = True
    for number in (1, 2):
        place.send(identity, number, Add(1))
    seals = [one.order for one in place.waiting if isinstance(one.order, on_holding.Seal)]
    place.waiting = []
    for seal in seals:
        place.kept[identity].append(Block(seal.number, seal.epoch, seal.holders, seal.body))
    hosted._fail("it was not deterministic", place.now)  # pyright: ignore[reportPrivateUsage]
    place.tick(RESTORE_RETRY_NS)
    assert place.counter(identity)["n"] == 2
    first, second = (on_holding.Sealed(seal.number, seal.epoch, seal.body) for seal in seals)
    place.feed(identity, first)
    assert not receipts(place), "the second item is there, and not committed"
    place.feed(identity, second)
    place.answer()
    assert receipts(place)[-1] == (2, True)


def test_what_is_restored_beforehand_is_asked_for_once_and_waited_for() -> None:
    group = Group("one", "two", "three")
    one, two = group["one"], group["two"]
    identity = one.run(copies=3)
    group.until(lambda: len(one.hosted(identity).holding.holders) == 3)
    hosted = two.hosted(identity)
    for _ in range(2):
        hosted.feed(on_holding.Heard(one.own, PrepareLetter(one.hosted(identity).epoch)), two.now)
    assert [order for order in hosted.taken()[0] if isinstance(order, Prepare)] == [Prepare(identity)]
    again = on_holding.GetReady(5), on_holding.Run(6, 3), on_holding.Stop(6)
    cases: list[tuple[Sequence[on_holding.HoldingEffect], list[Restore]]] = [
        ([on_holding.Run(5, 3)], [Restore(identity, 5, 3)]),
        (again, []),
    ]
    for effects, due in cases:
        hosted._perform(effects, two.now)  # pyright: ignore[reportPrivateUsage]
        assert not [order for order in hosted.taken()[0] if isinstance(order, Restore)]
        hosted.prepared("", two.now)
        assert [order for order in hosted.taken()[0] if isinstance(order, Restore)] == due


def test_a_target_that_cannot_run_it_leaves_it_where_it_is() -> None:
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=3)
    group.until(lambda: len(one.hosted(identity).holding.holders) == 3)
    group["two"].unready = "it needs a package"
    one.steward.move(identity, group["two"].own, 9, one.now)
    group.until(lambda: one.got(Told))
    assert one.got(Told) == [Told(9, "it cannot run there: it needs a package")]
    assert group.owner(identity) is one


def test_what_ran_here_is_kept_for_a_while_if_its_state_is_of_use() -> None:
    group = Group("one", "two", "three")
    one, two = group["one"], group["two"]
    identity = one.run(copies=3)
    group.until(lambda: len(one.hosted(identity).holding.holders) == 3)
    runner = one.hosted(identity).runner
    assert runner is not None
    one.steward.move(identity, two.own, 9, one.now)
    group.until(lambda: group.owner(identity) is two)
    assert [spare.runner for spare in one.got(Spare)] == [runner]
    assert runner.release(1 << 60) == [], "what it held back leaves from where it runs now"


def test_what_has_something_that_is_in_no_block_is_not_kept() -> None:
    place, identity = started()
    hosted = place.hosted(identity)
    runner = hosted.runner
    assert runner is not None
    runner.take(Found(9), runner.environment.now_ns)
    hosted._perform([on_holding.Stop(1)], place.now)  # pyright: ignore[reportPrivateUsage]
    assert not [order for order in hosted.taken()[0] if isinstance(order, Spare)]
