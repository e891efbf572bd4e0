# SPDX-License-Identifier: Apache-2.0
"""Undoing a handler that failed lets others have their turn, and what is undone is made again elsewhere beside them."""

import pytest

from atoll.env.app import program_of
from atoll.env.context import Context
from atoll.env.history import decode_body
from atoll.env.limits import UNDO_EVENT_BYTES
from atoll.env.pieces import take_all
from atoll.env.places import HandlerFailedError
from atoll.env.records import Arrived, Checkpointed, Failed
from atoll.env.runner import Runner
from atoll.env.walls import HandlerKilled
from tests.unit.elsewhere_world import Elsewhere
from tests.unit.env_world import ANN, CODE, Actor, Recorded, Word, arrived, began, go, item
from tests.unit.steward_world import Notes


def fail(_: Actor, __: Context) -> None:
    raise ValueError("no")


class Turns(Notes):
    """Walls that say how often they are asked in one turn, before they are late: as often as ``patience`` says."""

    def is_late(self, since_ns: int) -> bool:
        if since_ns != self.since_ns:
            self.since_ns, self.left = since_ns, self.patience
        self.left -= 1
        return self.left < 0


def started(walls: Turns) -> Runner:
    """Return a runner that has taken three records and made a block of them."""
    runner = Runner(program_of(Actor), CODE, None, walls)
    runner.take(began(), 5)
    for number in (1, 2, 3):
        runner.take(arrived(number, item(Word(str(number)))), 5)
    assert runner.block() is not None
    return runner


def records(runner: Runner) -> list[object]:
    made = runner.block()
    assert made is not None
    return [entry.record for entry in decode_body(made.body).entries]


def test_undoing_waits_for_the_turn_of_others() -> None:
    walls = Turns()
    runner = started(walls)
    walls.patience = 2
    runner.take(arrived(4, item(go(fail)), item(Word("4"))), 5, 100)
    turns = 1
    while runner.is_busy:
        assert not runner.is_elsewhere, "nothing runs that says when it is done"
        turns += 1
        runner.go_on(100 + turns)
    assert turns == 2, "four records are made again, of which two fit into each turn"
    assert runner.environment.fields()["heard"] == ["1", "2", "3"]
    assert [type(one) for one in records(runner)] == [Failed]


def test_where_nobody_waits_undoing_is_one_act() -> None:
    walls = Turns()
    runner = started(walls)
    walls.patience = 0
    runner.take(arrived(4, item(go(fail))), 5)
    assert not runner.is_busy
    assert runner.environment.received(ANN) == 4


def test_a_runner_that_is_let_go_while_it_undoes_does_not_go_on() -> None:
    walls = Turns()
    runner = started(walls)
    walls.patience = 0
    runner.take(arrived(4, item(go(fail))), 5, 100)
    assert bool(runner.is_busy)
    runner.close()
    assert not runner.is_busy
    assert runner.block() is None


def test_what_is_made_again_elsewhere_is_waited_for_beside_others() -> None:
    place = Elsewhere(Actor, 0)
    runner = Runner(place, CODE)
    runner.take(began(), 5)
    place.failures, place.unmade = [HandlerFailedError("killed", "it is dead", is_known=False)], 3
    runner.take(arrived(1, item(Word("a"))), 5)
    asked = 0
    while runner.is_busy:
        assert runner.is_elsewhere
        asked += 1
        runner.go_on()
    assert asked == 3
    assert [type(one) for one in records(runner)][-1] is Failed


def test_one_failure_at_a_time_is_undone() -> None:
    runner = started(Turns())
    runner.take(arrived(4, item(Word("4")), item(go(fail)), item(go(fail)), item(Word("5"))), 5)
    assert (runner.environment.received(ANN), runner.failures) == (5, 1)
    assert [type(one) for one in records(runner)] == [Arrived, Failed]
    take_all(runner, arrived(6, item(go(fail)), item(Word("5"))), 5)
    assert [type(one) for one in records(runner)] == [Failed, Arrived]
    assert runner.environment.fields()["heard"] == ["1", "2", "3", "4", "5"]


def test_what_comes_before_a_failure_and_fails_when_it_is_given_again_is_not_passed_over() -> None:
    runner = started(Turns())
    calls: list[int] = []

    def second_time(_: Actor, __: Context) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise HandlerKilled("it ran for too long")

    take_all(runner, arrived(4, item(go(second_time)), item(Word("4")), item(go(fail))), 5)
    failed = [(one.number, one.code) for one in records(runner) if isinstance(one, Failed)]
    assert failed == [(4, "killed"), (6, "raised")]
    assert runner.environment.fields()["heard"] == ["1", "2", "3", "4"]
    assert runner.failures == 2


def test_large_items_that_are_applied_again_bring_a_checkpoint_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.runner.UNDO_EVENTS", 20)

    def checkpoints(text: str) -> int:
        recorded = Recorded(Actor)
        recorded.send(Word(text))
        for _ in range(4):
            recorded.send(go(fail))
        return sum(isinstance(one, Checkpointed) for one in recorded.records())

    assert (checkpoints("small"), checkpoints("x" * 30 * UNDO_EVENT_BYTES)) == (0, 1)
