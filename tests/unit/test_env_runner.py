# SPDX-License-Identifier: Apache-2.0
"""The runner: what fails is undone as if it had never begun, and the journal gives everything back."""

from typing import Any, ClassVar

import msgspec
import pytest

from atoll.base.errors import CorruptError, DivergenceError, UsageError, UserError
from atoll.base.units import SECOND_NS
from atoll.env.app import App, migration, on, program_of
from atoll.env.changes import PeerSlow, Restored, Started
from atoll.env.context import Context
from atoll.env.history import decode_body, decode_snapshot
from atoll.env.limits import BLOCK_EVENTS_MAX
from atoll.env.parties import Ref
from atoll.env.pieces import take_all
from atoll.env.places import HandlerFailedError
from atoll.env.records import (
    Checkpointed,
    Confirmed,
    Ended,
    Failed,
    Fired,
    Found,
    Held,
    Note,
    Opened,
    Told,
    Upgraded,
)
from atoll.env.runner import Runner
from atoll.env.tuples import Tuple
from atoll.env.walls import OPEN, HandlerKilled
from tests.unit.elsewhere_world import Elsewhere
from tests.unit.env_world import (
    ANN,
    BOB,
    CODE,
    ME,
    Actor,
    Other,
    Recorded,
    Word,
    arrived,
    began,
    each,
    go,
    heard,
    item,
    items_of,
    notes,
    raw,
    said,
    wait,
)

NODE, OTHER_NODE, OTHER_CODE = b"n" * 10, b"o" * 10, b"d" * 32


class Startled(Actor):
    """Raises at every change."""

    @on(Restored, PeerSlow)
    def change(self, change: Tuple, _: Context) -> None:
        raise ValueError(str(change))


def _recorded(main: type[App] = Actor) -> Recorded:
    return Recorded(main, (Other, Startled))


def _raise(_: Actor, _ctx: Context) -> None:
    raise ValueError("no")


def _check(recorded: Recorded) -> None:
    """See that the journal gives the same state and digest from its beginning and from each snapshot."""
    state = recorded.environment.snapshot()
    for base in (0, *(made.number for made in recorded.blocks if made.snapshot is not None)):
        runner = recorded.replayed(base)
        assert (runner.environment.snapshot(), runner.digest) == (state, recorded.runner.digest)
        assert (runner.number, runner.epoch, runner.holders) == (
            recorded.runner.number,
            recorded.runner.epoch,
            recorded.runner.holders,
        )
        assert runner.block() is None


def _everything(app: Actor, ctx: Context) -> None:
    """Do all that a handler can do, and raise."""
    app.heard = ("changed",)
    app.any = {"a": 1}
    ctx.send(Ref(BOB), Word("never"))
    ctx.send("auction", Word("never"))
    ctx.call(Ref(BOB), Word("never"), then=Actor.then)
    ctx.after(5, Word("never"))
    ctx.spawn(Other, "never")
    ctx.end("inner")
    ctx.put(Word("never"), lease_s=5)
    ctx.take(Word, limit=9)
    ctx.watch(Word)
    ctx.log("never")
    ctx.end()
    raise ValueError("no")


# Undo.


def test_nothing_that_a_failed_handler_did_has_happened() -> None:
    recorded, other = _recorded(), _recorded()
    for one in (recorded, other):
        one.send(each(lambda _, ctx: ctx.spawn(Other, "inner"), lambda _, ctx: ctx.put(Word("kept"))))
    effects = recorded.send(go(_everything), ask=7)
    assert said(effects) == [{"is": "Failure", "code": "raised", "text": "ValueError: no"}]
    assert len(effects) == 1
    other.take(Failed(ANN, 2, "raised", "ValueError: no", msgspec.msgpack.encode(item(go(_raise), 7))))
    assert recorded.environment.fields() == other.environment.fields()
    one, two = (msgspec.msgpack.decode(at.environment.snapshot()) for at in (recorded, other))
    assert one == two
    assert recorded.runner.failures == 1
    _check(recorded)


@pytest.mark.parametrize("bad", [{0}, {1}, {4}, {0, 4}, {1, 2}, {0, 1, 2, 3, 4}])
def test_the_others_of_a_batch_count_wherever_the_bad_one_is(bad: set[int]) -> None:
    recorded = _recorded()
    events = [go(_raise) if at in bad else Word(str(at)) for at in range(5)]
    effects = recorded.send(*events, ask=10)
    answers = [(at.re, one["is"]) for at, one in zip(items_of(effects), said(effects), strict=True)]
    assert answers == [(10 + at, "Failure" if at in bad else "Done") for at in range(5)]
    assert heard(recorded) == [str(at) for at in range(5) if at not in bad]
    assert (recorded.environment.received(ANN), recorded.runner.failures) == (5, len(bad))
    recorded.send(Word("later"))
    _check(recorded)


def test_a_failed_timer_does_not_come_again_and_a_period_goes_on() -> None:
    recorded = _recorded()
    bad = go(_raise)
    recorded.send(each(lambda _, ctx: ctx.after(1, bad), lambda _, ctx: ctx.every(2, bad)))
    for _ in range(3):
        recorded.fire()
    assert recorded.environment.deadline_ns == 1_006 * SECOND_NS
    assert [type(record) for record in recorded.records()][-3:] == [Failed] * 3
    _check(recorded)


def test_only_the_last_step_of_a_coroutine_is_undone() -> None:
    async def fail_late(app: Actor, ctx: Context) -> None:
        app.heard = (*app.heard, "before")
        answer = await ctx.call(Ref(BOB), Word("ask"))
        app.heard = (*app.heard, "after")
        ctx.send(Ref(BOB), Word("never"))
        await ctx.sleep(5)
        raise ValueError(str(answer))

    recorded = _recorded()
    assert said(recorded.send(wait(fail_late), ask=7), BOB) == [{"is": "Word", "text": "ask"}]
    recorded.take(arrived(1, item(Word("yes"), re=1), party=BOB))
    assert heard(recorded) == ["before", "after"]
    effects = recorded.fire()
    assert (said(effects)[0]["text"], items_of(effects)[0].re) == ("ValueError: Word(text='yes')", 7)
    assert recorded.environment.is_quiescent
    _check(recorded)


def test_a_coroutine_that_waits_survives_the_failure_of_others_and_a_restart() -> None:
    async def ask(app: Actor, ctx: Context) -> Word:
        answer = await ctx.call(Ref(BOB), Word("ask"))
        app.heard = (*app.heard, str(answer))
        return Word("done")

    recorded = _recorded()
    recorded.send(wait(ask), ask=7)
    recorded.send(go(_raise))
    again = recorded.replayed()
    for runner in (recorded.runner, again):
        runner.take(arrived(1, item(Word("yes"), re=1), party=BOB), recorded.now_ns)
        made = runner.block()
        assert made is not None
        assert said(runner.release(made.number)) == [{"is": "Word", "text": "done"}]
    assert again.environment.snapshot() == recorded.environment.snapshot()


def test_a_then_that_raises_is_undone_and_its_call_is_over() -> None:
    recorded = _recorded()
    recorded.send(go(lambda _, ctx: ctx.call(Ref(BOB), Word(), then=Actor.then_raise)))
    recorded.take(arrived(1, item(Word("yes"), re=1), party=BOB))
    assert recorded.environment.deadline_ns is None
    assert recorded.runner.failures == 1
    recorded.send(go(lambda _, ctx: ctx.call(Ref(BOB), Word(), timeout_s=2, then=Actor.then_raise)))
    recorded.fire()
    assert recorded.environment.deadline_ns is None
    _check(recorded)


def test_a_nested_environment_that_raises_undoes_the_event_of_all() -> None:
    recorded = _recorded()
    recorded.send(go(lambda _, ctx: ctx.spawn(Other, "in")))

    def tell(app: Actor, ctx: Context) -> None:
        app.heard = ("told",)
        ctx.send(Ref(ME, "in"), bad)

    bad = go(_raise)
    assert said(recorded.send(go(tell), ask=1))[0]["code"] == "raised"
    assert heard(recorded) == []
    _check(recorded)


def test_a_search_that_fails_is_over() -> None:
    recorded = _recorded()
    recorded.send(go(lambda _, ctx: ctx.call("gone", Word(), then=Actor.then_raise)))
    recorded.take(Found(1))
    assert recorded.environment.deadline_ns is None
    assert recorded.runner.failures == 1
    _check(recorded)


def test_an_epoch_begins_even_if_a_handler_does_not_bear_it() -> None:
    recorded = _recorded(Startled)
    recorded.send(go(lambda _, ctx: ctx.send("auction", Word())))
    effects = recorded.take(Opened(NODE, "ams", 3))
    assert recorded.runner.epoch == 3
    assert [type(one).__name__ for one in effects] == ["Resolve"]
    recorded.take(Told(raw(PeerSlow("ams", True, "disk"))))
    assert [type(record) for record in recorded.records()][-3:] == [Opened, Failed, Failed]
    _check(recorded)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (HandlerKilled("ran for 2 s"), "killed", "ran for 2 s"),
        (MemoryError(), "grown", "out of memory"),
        (SystemExit(3), "raised", "SystemExit: 3"),
        (GeneratorExit(), "raised", "GeneratorExit: "),
        (RecursionError("deep"), "raised", "RecursionError: deep"),
        (ValueError("x" * 5_000), "raised", "ValueError: " + "x" * 488),
    ],
)
def test_whatever_a_handler_raises_is_its_failure(error: BaseException, code: str, text: str) -> None:
    def fail(_: Actor, _ctx: Context) -> None:
        raise error

    recorded = _recorded()
    assert said(recorded.send(go(fail), ask=1)) == [{"is": "Failure", "code": code, "text": text}]


def test_walls_stand_while_handlers_run() -> None:
    class Counting:
        inside = 0
        again = False
        seen: ClassVar[list[object]] = []

        def enter(self, *, is_again: bool = False) -> None:
            assert not self.inside
            self.inside, self.again = 1, is_again

        def leave(self) -> None:
            self.inside = 0

        def about(self, environment: bytes, party: bytes, first: int, count: int) -> None:
            self.seen.append((environment, party, first, count))

        def is_late(self, since_ns: int) -> bool:
            del since_ns
            return False

    walls = Counting()
    runner = Runner(program_of(Actor), CODE, None, walls)
    runner.take(began(), 5)

    def look(_: Actor, ctx: Context) -> None:
        ctx.log(f"inside {walls.inside}")
        raise HandlerKilled("now")

    def only_look(_: Actor, ctx: Context) -> None:
        ctx.log(f"inside {walls.inside}")

    take_all(runner, arrived(1, item(go(look)), item(go(only_look))), 5)
    made = runner.block()
    assert made is not None
    assert notes(runner.release(made.number)) == ["inside 1"]
    assert walls.inside == 0
    OPEN.about(ME, ANN, 1, 1)
    assert not OPEN.is_late(0)


def test_an_environment_that_cannot_begin_does_not() -> None:
    class Stillborn(App):
        @on(Started)
        def started(self, _: Started, _ctx: Context) -> None:
            raise ValueError("no")

    with pytest.raises(UserError, match="A602"):
        Runner(program_of(Stillborn), CODE).take(began(), 5)
    with pytest.raises(UserError, match="A602"):
        Runner(program_of(Actor), CODE).take(began(heard=5), 5)


def test_what_no_handler_can_have_raised_ends_it() -> None:
    runner = _recorded().runner
    with pytest.raises(CorruptError, match="Failed cannot be applied"):
        runner.take(Failed(ANN, 1, "raised", "no", b"no item"), 5)


@pytest.mark.parametrize("error", [ValueError("second"), HandlerKilled("second"), SystemExit("second")])
def test_a_handler_that_fails_only_the_second_time_is_found(error: BaseException) -> None:
    times: list[int] = []

    def fickle(_: Actor, _ctx: Context) -> None:
        times.append(1)
        if len(times) > 1:
            raise error

    recorded = _recorded()
    recorded.send(go(fickle))
    with pytest.raises(CorruptError, match="block 2: what was applied once fails now: second"):
        recorded.replayed()
    times.clear()
    recorded = _recorded()
    recorded.send(go(fickle))
    with pytest.raises(CorruptError, match="fails the second time: second"):
        recorded.send(go(_raise))


def test_failures_do_not_cost_more_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.runner.UNDO_EVENTS", 20)
    runs: list[int] = []

    def count(_: Actor, _ctx: Context) -> None:
        runs.append(1)

    recorded = _recorded()
    for _ in range(20):
        recorded.send(go(count))
    recorded.send(*[go(_raise)] * 50)
    assert len(runs) == 20 * 2  # Once live, and once to undo the first failure.
    assert sum(isinstance(record, Checkpointed) for record in recorded.records()) >= 2
    assert all(made.snapshot is None for made in recorded.blocks)
    _check(recorded)
    recorded.send(go(lambda app, _: setattr(app, "any", object())))
    recorded.send(*[go(_raise)] * 50)  # It cannot rest now, and goes on all the same.
    assert recorded.runner.failures == 100


# Blocks.


def test_effects_are_held_until_their_block_is_durable() -> None:
    recorded = _recorded()
    runner = recorded.runner
    runner.take(arrived(1, item(go(lambda _, ctx: ctx.send(Ref(BOB), Word("1"))))), 5)
    first = runner.block()
    runner.take(arrived(2, item(go(lambda _, ctx: ctx.log("x")))), 5)
    assert runner.has_news
    assert first is not None
    assert runner.first_held() == {BOB: 1}
    second = runner.block()
    assert second is not None
    assert (first.number, first.first_event, first.events) == (2, 1, 1)
    assert (second.number, second.first_event, second.events) == (3, 2, 1)
    assert runner.release(1) == []
    assert said(runner.release(2), BOB) == [{"is": "Word", "text": "1"}]
    assert runner.release(9) == [Note("x")]
    assert runner.first_held() == {}
    runner.take(Confirmed(BOB, 1), 6)
    quiet = runner.block()
    assert quiet is not None
    assert (quiet.first_event, quiet.events) == (3, 0)
    runner.take(arrived(3, item(go(lambda _, ctx: ctx.send(Ref(BOB), Word("2"))))), 5)
    assert runner.first_held() == {BOB: 2}  # In no block yet.
    runner.take(arrived(4, item(go(lambda _, ctx: ctx.end()))), 5)
    last = runner.block()
    assert last is not None
    assert runner.release(last.number)[-1] == Ended()


def test_a_block_is_full_after_so_many_events() -> None:
    recorded = _recorded()
    recorded.runner.take(arrived(1, *[item(Word())] * (BLOCK_EVENTS_MAX - 1)), 5)
    assert not recorded.runner.is_block_full
    recorded.runner.take(arrived(BLOCK_EVENTS_MAX, item(Word())), 5)
    assert bool(recorded.runner.is_block_full)


# Checkpoints.


def test_a_checkpoint_is_wanted_after_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nap(_: Actor, ctx: Context) -> None:
        await ctx.sleep(1)

    monkeypatch.setattr("atoll.env.runner.CHECKPOINT_EVENTS", 3)
    recorded = _recorded()
    recorded.send(Word(), Word(), wait(nap))
    assert recorded.runner.wants_checkpoint is False  # Not while a coroutine waits.
    recorded.fire()
    assert bool(recorded.runner.wants_checkpoint)
    recorded.checkpoint()
    assert not recorded.runner.wants_checkpoint
    monkeypatch.setattr("atoll.env.runner.CHECKPOINT_BYTES", 100)
    recorded.send(Word("x" * 100))
    assert bool(recorded.runner.wants_checkpoint)
    again = recorded.replayed()
    assert again.wants_checkpoint
    _check(recorded)


def test_a_checkpoint_that_cannot_be_taken_is_not_tried_at_once_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.runner.CHECKPOINT_EVENTS", 3)
    recorded = _recorded()
    recorded.send(go(lambda app, _: setattr(app, "any", object())), Word("a"), Word("b"))
    with pytest.raises(UsageError, match=r"Actor\.any holds what is no data"):
        recorded.runner.checkpoint(5)
    assert recorded.runner.wants_checkpoint is False
    assert recorded.runner.block() is None
    recorded.send(go(lambda app, _: setattr(app, "any", None)), Word(), Word())
    assert bool(recorded.runner.wants_checkpoint)
    recorded.checkpoint()
    assert heard(recorded) == ["a", "b", "", ""]


def test_a_snapshot_knows_who_keeps_the_journal() -> None:
    recorded = _recorded()
    recorded.take(Opened(NODE, "ams", 3))
    recorded.take(Held((NODE, OTHER_NODE), 2))
    recorded.checkpoint()
    stored = recorded.blocks[-1].snapshot
    assert stored is not None
    snapshot = decode_snapshot(stored)
    assert (snapshot.epoch, snapshot.holders, snapshot.copies, snapshot.code) == (3, (NODE, OTHER_NODE), 2, CODE)
    _check(recorded)


def test_a_journal_that_gives_something_else_is_found() -> None:
    texts = ["first", "second", "third"]

    def chance(app: Actor, ctx: Context) -> None:
        app.any = texts.pop(0)
        ctx.log(app.any)

    recorded = _recorded()
    recorded.send(go(chance))
    with pytest.raises(DivergenceError, match="mark"):
        recorded.replayed()

    def silent(app: Actor, _: Context) -> None:
        app.any = texts.pop(0)

    texts += ["fourth"]
    recorded = _recorded()
    recorded.send(go(silent))
    recorded.checkpoint()
    with pytest.raises(DivergenceError, match="state"):
        recorded.replayed()


def test_a_digest_that_is_not_that_of_the_block_is_found() -> None:
    recorded = _recorded()
    body = msgspec.structs.replace(decode_body(recorded.blocks[0].body), digest=b"x" * 16)
    with pytest.raises(DivergenceError):
        Runner(recorded.program, CODE).redo(1, body)


def test_a_checkpoint_that_fails_the_second_time_is_found() -> None:
    values: list[Any] = [1, object()]
    recorded = _recorded()
    recorded.send(go(lambda app, _: setattr(app, "any", values.pop(0))))
    recorded.checkpoint()
    with pytest.raises(CorruptError, match="a checkpoint that was taken once fails now"):
        recorded.replayed()


# Upgrades.


class Count1(App):
    count: int = 0

    @on(Word)
    def word(self, _: Word, _ctx: Context) -> None:
        self.count += 1


class Count2(App):
    version: ClassVar[int] = 2
    total: int = 0

    @on(Word)
    def word(self, _: Word, ctx: Context) -> None:
        self.total += 10
        ctx.log(str(self.total))

    @migration(1)
    @staticmethod
    def from_1(fields: dict[str, Any]) -> dict[str, Any]:
        return {"total": fields["count"] * 100}


class Count3(Count2):
    version: ClassVar[int] = 3


def test_an_upgrade_migrates_the_state_and_is_part_of_the_journal() -> None:
    Count1.__name__ = Count2.__name__ = Count3.__name__ = "Count"
    recorded = Recorded(Count1)
    recorded.send(Word(), Word())
    recorded.runner.upgrade(program_of(Count2), OTHER_CODE, recorded.now_ns)
    recorded.seal()
    assert recorded.environment.fields() == {"total": 200}
    assert notes(recorded.send(Word())) == ["210"]
    assert recorded.runner.code == OTHER_CODE
    runner = Runner(recorded.program, CODE)
    for made in recorded.blocks:
        body = decode_body(made.body)
        upgraded = any(isinstance(entry.record, Upgraded) for entry in body.entries)
        runner.redo(made.number, body, program_of(Count2) if upgraded else None)
    assert (runner.code, runner.digest) == (OTHER_CODE, recorded.runner.digest)
    assert runner.environment.snapshot() == recorded.environment.snapshot()
    before = recorded.environment.snapshot()
    for app, reason in ((Count3, "no migration from 2"), (Count1, "has version 2, the code has 1")):
        with pytest.raises(CorruptError, match=reason):
            recorded.runner.upgrade(program_of(app), CODE, recorded.now_ns)
    assert (recorded.environment.snapshot(), recorded.runner.block()) == (before, None)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_migration_that_ends_the_process_ends_only_the_upgrade(error: BaseException) -> None:
    class Leaves(App):
        version: ClassVar[int] = 2

        @migration(1)
        @staticmethod
        def from_1(_fields: dict[str, Any]) -> dict[str, Any]:
            raise error

    Leaves.__name__ = Count1.__name__
    recorded = Recorded(Count1)
    with pytest.raises(CorruptError, match=type(error).__name__):
        recorded.runner.upgrade(program_of(Leaves), OTHER_CODE, recorded.now_ns)
    recorded.send(Word())
    assert recorded.environment.fields() == {"count": 1}


# Elsewhere.


def _finish(runner: Runner) -> int:
    """Let a runner go on until it is done; return how often it was asked."""
    asked = 0
    while runner.is_busy:
        asked += 1
        runner.go_on()
    return asked


def test_a_handler_that_runs_elsewhere_may_take_its_time() -> None:
    place = Elsewhere(Actor, 2)
    runner = Runner(place, CODE)
    runner.take(began(), 5)
    assert _finish(runner) == 2
    runner.take(arrived(1, item(Word("a")), item(go(_raise), 7), item(Word("b"))), 5)
    assert bool(runner.is_elsewhere)
    with pytest.raises(AssertionError, match="a handler runs"):
        runner.take(Fired(), 6)
    assert _finish(runner) > 2
    assert runner.environment.fields()["heard"] == ["a"], "what is behind it is given again"
    runner.take(arrived(3, item(Word("b"))), 5)
    assert _finish(runner) == 2
    assert not runner.is_elsewhere
    assert runner.environment.fields()["heard"] == ["a", "b"]
    with pytest.raises(AssertionError, match="no handler runs"):
        runner.go_on()
    made = runner.block()
    assert made is not None
    [failure] = [one for one in said(runner.release(made.number)) if one["is"] == "Failure"]
    assert failure["text"] == "ValueError: no"
    again = Runner(Elsewhere(Actor, 1), CODE)
    asked = list(again.redoing(made.number, decode_body(made.body)))
    assert (len(asked), again.digest) == (4, runner.digest)
    patient = Runner(Elsewhere(Actor, 1), CODE)
    patient.redo(made.number, decode_body(made.body))
    assert patient.digest == runner.digest
    runner.close()
    assert place.is_closed


def test_a_runner_that_is_let_go_does_not_go_on() -> None:
    runner = Runner(Elsewhere(Actor, 5), CODE)
    runner.take(began(), 5)
    runner.go_on()
    runner.close()
    assert not runner.is_busy
    assert runner.block() is None


def test_whoever_is_gone_before_a_handler_began_is_not_its_fault() -> None:
    place = Elsewhere(Actor, 0)
    runner = Runner(place, CODE)
    runner.take(began(), 5)
    place.failures = [HandlerFailedError("gone", "out of memory")] * 3
    runner.take(arrived(1, item(Word("a"))), 5)
    assert (runner.environment.fields()["heard"], runner.failures) == (["a"], 0)
    place.failures, place.fails_at = [HandlerFailedError("gone", "out of memory")] * 4, 2
    with pytest.raises(CorruptError, match="Arrived cannot be applied: out of memory"):
        runner.take(arrived(2, item(Word("b"))), 5)


def test_where_it_is_not_known_which_item_failed_they_come_one_by_one() -> None:
    place = Elsewhere(Actor, 0)
    runner = Runner(place, CODE)
    runner.take(began(), 5)
    place.failures = [HandlerFailedError("killed", "too long", is_known=False)]
    take_all(runner, arrived(1, item(Word("a")), item(Word("b"))), 5)
    place.failures, place.fails_at = [HandlerFailedError("killed", "too long", is_known=False)], 3
    runner.take(arrived(3, item(Word("c"))), 5)
    assert runner.environment.fields()["heard"] == ["a", "b"]
    assert (runner.environment.received(ANN), runner.failures) == (3, 1)


def test_an_upgrade_that_fails_lets_go_of_its_place() -> None:
    recorded = Recorded(Count3)
    place = Elsewhere(Count1, 0)
    with pytest.raises(CorruptError):
        recorded.runner.upgrade(place, OTHER_CODE, 5)
    assert place.is_closed


def test_a_checkpoint_is_due_after_some_blocks_and_more_where_the_state_is_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("atoll.env.runner.CHECKPOINT_BLOCKS", 3)
    recorded = _recorded()
    for _ in range(2):
        assert not recorded.runner.wants_checkpoint
        recorded.send(Word("a"))
    assert bool(recorded.runner.wants_checkpoint)
    recorded.checkpoint()
    monkeypatch.setattr("atoll.env.runner.CHECKPOINT_BLOCK_BYTES", len(recorded.environment.snapshot()) // 2)
    for _ in range(3):
        recorded.send(Word("a"))
        assert not recorded.runner.wants_checkpoint, "two more than three, its own block counted"
    recorded.send(Word("a"))
    assert bool(recorded.runner.wants_checkpoint)
