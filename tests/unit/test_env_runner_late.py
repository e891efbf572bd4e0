# SPDX-License-Identifier: Apache-2.0
"""The alarm that ends a handler may come when it is done and its walls are not left yet: that is a failure like others.

Nothing of it leaves the runner as it came, and nobody stays inside: the next alarm would end the server's own code.
"""

from pathlib import Path

import pytest

from atoll.base.errors import CorruptError, UsageError
from atoll.domain.walls import AGAIN_PERIODS, InlineWalls
from atoll.env.app import program_of
from atoll.env.context import Context
from atoll.env.history import decode_body
from atoll.env.places import Inline
from atoll.env.records import Arrived, Failed
from atoll.env.runner import Runner
from tests.unit.env_world import CODE, Actor, arrived, began, go, item, notes
from tests.unit.steward_world import Add, Place


class Late:
    """Real walls without an alarm of their own: one that is due comes when they are about to be left."""

    def __init__(self, note: Path) -> None:
        self.walls = InlineWalls(note, 600)
        self.is_due = False
        self.spared = self.came = 0  # So many times it does not come yet; how often it came.

    def enter(self, *, is_again: bool = False) -> None:
        self.walls.enter(is_again=is_again)

    def leave(self) -> None:
        if self.is_due and self.spared:
            self.spared -= 1
        elif self.is_due:
            self.is_due = False
            self.came += 1
            self.alarms()
        self.walls.leave()

    def about(self, environment: bytes, party: bytes, first: int, count: int) -> None:
        self.walls.about(environment, party, first, count)

    def is_late(self, since_ns: int) -> bool:
        del since_ns  # By a clock that is not that of the test.
        return False

    def alarms(self) -> None:
        """Let as many come as end whatever runs."""
        for _ in range(AGAIN_PERIODS + 1):
            self.walls._alarm(14, None)  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def late(tmp_path: Path) -> Late:
    return Late(tmp_path / "envs.running")


def nobody_is_inside(late: Late) -> None:
    assert (late.came, late.is_due) == (1, False)
    late.alarms()


def heard(app: Actor, ctx: Context) -> None:
    app.heard = (*app.heard, "go")
    ctx.log(f"heard {len(app.heard)}")


def running(late: Late) -> Runner:
    runner = Runner(program_of(Actor), CODE, None, late)
    runner.take(began(), 5)
    runner.take(arrived(1, item(go(heard))), 6)
    return runner


def test_a_handler_that_is_ended_when_it_is_done_has_failed(late: Late) -> None:
    runner = running(late)
    late.is_due = True
    runner.take(arrived(2, item(go(heard))), 7)
    nobody_is_inside(late)
    made = runner.block()
    assert made is not None
    records = [entry.record for entry in decode_body(made.body).entries]
    assert [type(record) for record in records[1:3]] == [Arrived, Failed]
    assert notes(runner.release(made.number)) == ["heard 1"]


def test_what_is_applied_again_and_ended_when_it_is_done_is_said(late: Late) -> None:
    runner = running(late)
    made = runner.block()
    assert made is not None
    again = Runner(program_of(Actor), CODE, None, late)
    late.is_due = True
    with pytest.raises(CorruptError, match="block 1: what was applied once fails now: it ran for more than 900 s"):
        again.redo(1, decode_body(made.body))
    nobody_is_inside(late)


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_checkpoint_that_is_ended_when_it_is_done_is_not_taken(late: Late, *, is_stored: bool) -> None:
    runner = running(late)
    runner.block()
    late.is_due = True
    if is_stored:
        with pytest.raises(UsageError, match="it does not come to an end: it ran for more than 900 s"):
            runner.checkpoint(7)
    else:
        runner._rest(7)  # pyright: ignore[reportPrivateUsage]
    assert not runner.has_news
    nobody_is_inside(late)
    runner.checkpoint(8)


def test_an_upgrade_that_is_ended_when_it_is_done_has_changed_nothing(late: Late) -> None:
    runner = running(late)
    runner.block()
    late.is_due = True
    with pytest.raises(CorruptError, match="it does not come to an end"):
        runner.upgrade(program_of(Actor), b"d" * 32, 7)
    nobody_is_inside(late)
    assert (runner.code, runner.has_news) == (CODE, False)


def test_code_that_is_ended_when_it_is_loaded_is_not_run(late: Late) -> None:
    late.is_due = True
    with pytest.raises(CorruptError, match="it does not come to an end"):
        Runner(Inline(program_of(Actor)), CODE, None, late)
    nobody_is_inside(late)


def test_what_is_ended_when_it_was_undone_is_said(late: Late) -> None:
    def fail(_: Actor, __: Context) -> None:
        late.spared = 1  # That of the handler itself.
        late.is_due = True
        raise ValueError("no")

    runner = running(late)
    with pytest.raises(CorruptError, match="it does not come to an end"):
        runner.take(arrived(2, item(go(fail))), 7)
    nobody_is_inside(late)


def test_nothing_of_it_leaves_the_steward(late: Late) -> None:
    place = Place("one", late)
    identity = place.run()
    place.attach()
    late.is_due = True
    with pytest.raises(UsageError, match="it does not come to an end"):
        place.steward.checkpoint(identity, place.now)
    nobody_is_inside(late)
    late.is_due = True
    place.send(identity, 1, Add(5), ask=1)
    assert place.responses(1) == [{"is": "Failure", "code": "killed", "text": "it ran for more than 300 s"}]
    assert place.counter(identity)["n"] == 0
    place.send(identity, 2, Add(5), ask=2)
    assert place.counter(identity)["n"] == 5
