# SPDX-License-Identifier: Apache-2.0
"""What a handler may ask: everything follows from the input and the state, and what cannot be is said at once."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.env.app import App, on
from atoll.env.changes import Failure, Matched
from atoll.env.context import Asker, Context, Operation, QueueFull
from atoll.env.environment import Environment
from atoll.env.limits import SPACE_WATCHES_MAX, WAIT_S_MAX
from atoll.env.parties import Ref
from atoll.env.query import field, where
from atoll.env.records import Fired, Resolve
from atoll.env.tuples import Tuple
from tests.unit.env_world import ANN, BOB, ME, World, items_of, notes, said


class Go(Tuple, frozen=True):
    """Do what the test says."""


class Job(Tuple, frozen=True):
    name: str
    size: int = 0


class Late(Tuple, frozen=True):
    pass


class Child(App):
    count: int = 0

    @on(Go)
    def go(self, _: Go, ctx: Context) -> None:
        _script(self, ctx)


class Main(App):
    asker: Asker | None = None
    heard: tuple[str, ...] = ()

    @on(Go)
    def go(self, _: Go, ctx: Context) -> None:
        _script(self, ctx)

    @on(Late)
    def late(self, _: Late, _ctx: Context) -> None:
        self.heard = (*self.heard, "late")

    @on(Matched)
    def matched(self, matched: Matched, _: Context) -> None:
        self.heard = (*self.heard, matched.event.name)

    def answered(self, answer: Tuple, _: Context) -> None:
        self.heard = (*self.heard, str(answer))


_scripts: list[Callable[[Any, Context], object]] = []


def _script(app: App, ctx: Context) -> None:
    _scripts.pop()(app, ctx)


def _do(world: World, script: Callable[[Context], Any], *, ask: int = 0, to: str = "") -> tuple[Any, Any]:
    """Run a script as a handler; return what it gave and the effects."""
    given: list[Any] = []
    _scripts.append(lambda _, ctx: given.append(script(ctx)))
    effects = world.send(Go(), ask=ask, to=to)
    return given[0], effects


def test_time_stands_still_during_an_event() -> None:
    world = World(Main, (), (Job,))
    world.now_ns = 1_500 * SECOND_NS
    (ns, at, number), _ = _do(world, lambda ctx: (ctx.now_ns, ctx.now(), ctx.event_number))
    assert ns == 1_500 * SECOND_NS
    assert at == datetime(1970, 1, 1, 0, 25, tzinfo=UTC)
    assert number == world.environment.events == 1
    world.now_ns = 0
    assert _do(world, lambda ctx: ctx.now_ns)[0] == 1_500 * SECOND_NS  # It never goes back.


def _draw(ctx: Context) -> tuple[Any, ...]:
    return ctx.random.random(), ctx.random.random(), ctx.token(), ctx.token(), ctx.token(3), ctx.uuid()


def test_chance_is_new_in_each_event_and_the_same_in_each_run() -> None:
    one, other = World(Main, (), (Job,)), World(Main, (), (Job,))
    first, second = _do(one, _draw)[0], _do(one, _draw)[0]
    assert len({*first, *second}) == 12
    assert (len(first[2]), len(first[4])) == (16, 3)
    assert isinstance(first[5], UUID)
    assert first[5].version == 4
    assert _do(other, _draw)[0] == first
    other.environment = other.restored()
    assert _do(other, _draw)[0] == second
    for size in (0, 65):
        with pytest.raises(UsageError, match=f"a token of {size} bytes"):
            _do(World(Main), lambda ctx, size=size: ctx.token(size))  # type: ignore[misc]


def _send_two(ctx: Context) -> None:
    ctx.send(Ref(ANN), Job("one"))
    ctx.send(Ref(ANN, "room"), Job("two"))


def _reply_twice(ctx: Context) -> None:
    ctx.reply(Job("yes"))
    ctx.reply(Job("again"))


def test_what_is_sent_leaves_together() -> None:
    world = World(Main, (), (Job,))
    _, effects = _do(world, _send_two)
    assert len(effects) == 1
    assert [(one["name"], item.to) for one, item in zip(said(effects), items_of(effects), strict=True)] == [
        ("one", ""),
        ("two", "room"),
    ]


def test_a_reply_answers_the_call_at_hand_once() -> None:
    world = World(Main, (), (Job,))
    _, effects = _do(world, lambda ctx: ctx.reply(Job("yes")), ask=7)
    assert [(one["name"], item.re) for one, item in zip(said(effects), items_of(effects), strict=True)] == [("yes", 7)]
    assert _do(world, lambda ctx: ctx.reply(Job("nobody asked")))[1] == ()
    with pytest.raises(UsageError, match="answered before"):
        _do(world, _reply_twice, ask=7)


def test_a_reply_can_be_deferred_and_kept_in_state() -> None:
    world = World(Main, (), (Job,))
    asker, effects = _do(world, lambda ctx: ctx.defer(), ask=7)
    assert (asker, effects) == (Asker(Ref(ANN), 7), ())
    assert _do(world, lambda ctx: ctx.defer())[0] is None
    _, effects = _do(world, lambda ctx: ctx.reply(Job("at last"), to=asker))
    assert [item.re for item in items_of(effects)] == [7]


def test_a_call_has_one_outcome() -> None:
    world = World(Main, (), (Job,))
    _, effects = _do(world, lambda ctx: ctx.call(Ref(BOB), Job("x"), timeout_s=5, then=Main.answered))
    [item] = items_of(effects, BOB)
    world.respond(item.ask, Job("done"))
    assert world.environment.fields()["heard"] == ["Job(name='done', size=0)"]
    assert world.environment.deadline_ns is None


@pytest.mark.parametrize("seconds", [-1, WAIT_S_MAX * 2, float("nan")])
def test_foolish_times_are_refused(seconds: float) -> None:
    asks: tuple[Callable[[Context], Any], ...] = (
        lambda ctx: ctx.call(Ref(BOB), Job("x"), timeout_s=seconds),
        lambda ctx: ctx.after(seconds, Late()),
        lambda ctx: ctx.every(seconds, Late()),
        lambda ctx: ctx.sleep(seconds),
        lambda ctx: ctx.resolve("auction", timeout_s=seconds),
    )
    for ask in asks:
        with pytest.raises(UsageError, match="a time of"):
            _do(World(Main, (), (Job,)), ask)


def test_timers_come_once_or_again_and_can_be_taken_back() -> None:
    world = World(Main, (), (Job,))
    once, _ = _do(world, lambda ctx: ctx.after(2, Late()))
    again, _ = _do(world, lambda ctx: ctx.every(1.5, Late()))
    for _ in range(3):
        world.fire()
    assert world.environment.fields()["heard"] == ["late"] * 3
    assert _do(world, lambda ctx: (ctx.cancel(once), ctx.cancel(again), ctx.cancel(again)))[0] == (False, True, False)
    assert world.environment.deadline_ns is None
    with pytest.raises(UsageError, match="a period of"):
        _do(world, lambda ctx: ctx.every(0.0001, Late()))


def test_a_timer_cannot_be_taken_for_the_time_out_of_a_call() -> None:
    world = World(Main, (), (Job,))
    _do(world, lambda ctx: ctx.call(Ref(BOB), Job("x")))
    number = world.environment.first_timer
    assert _do(world, lambda ctx: ctx.cancel(number))[0] is False


def _look_up(ctx: Context) -> None:
    ctx.send("auction/rooms", Job("x"))
    ctx.publish("app:Auction", Job("x"))
    ctx.call("auction", Job("x"))
    ctx.resolve("auction", then=Main.answered)
    ctx.resolve("auction")


def test_names_are_looked_up_when_the_event_counts() -> None:
    world = World(Main, (), (Job,))
    _, effects = _do(world, _look_up)
    resolves = [one for one in effects if isinstance(one, Resolve)]
    assert [(one.number, one.name) for one in resolves] == [
        (1, "auction"),
        (2, "app:Auction"),
        (3, "auction"),
        (4, "auction"),
        (5, "auction"),
    ]


def test_the_space_of_ones_own() -> None:
    world = World(Main, (), (Job,))
    keys, _ = _do(world, lambda ctx: [ctx.put(Job("a", 1)), ctx.put(Job("b", 2), lease_s=5), ctx.put(Job("c", 3))])
    assert keys == [1, 2, 3]
    assert _do(world, lambda ctx: ctx.read(Job))[0] == [Job("a", 1), Job("b", 2), Job("c", 3)]
    assert _do(world, lambda ctx: ctx.read(where(Job, field("size") > 1), limit=1))[0] == [Job("b", 2)]
    assert _do(world, lambda ctx: (ctx.count(Job), ctx.count(where("Other"))))[0] == (3, 0)
    assert _do(world, lambda ctx: ctx.take(Job))[0] == [Job("a", 1)]
    assert _do(world, lambda ctx: (ctx.renew(2, lease_s=60), ctx.renew(1, lease_s=60)))[0] == (True, False)
    assert world.environment.deadline_ns == world.now_ns + 60 * SECOND_NS
    assert _do(world, lambda ctx: (ctx.delete(2), ctx.delete(2)))[0] == (True, False)
    assert _do(world, lambda ctx: ctx.take(Job, limit=9))[0] == [Job("c", 3)]


def test_a_watch_tells_of_what_is_put_later() -> None:
    world = World(Main, (), (Job,))
    number, _ = _do(world, lambda ctx: ctx.watch(where(Job, field("size") > 1)))
    _do(world, lambda ctx: ctx.watch(Late, lease_s=5))
    _do(world, lambda ctx: [ctx.put(Job("small", 1)), ctx.put(Job("large", 2))])
    assert world.environment.fields()["heard"] == ["large"]
    assert _do(world, lambda ctx: (ctx.unwatch(number), ctx.unwatch(number)))[0] == (True, False)
    _do(world, lambda ctx: [ctx.watch(Late) for _ in range(SPACE_WATCHES_MAX - 1)])
    with pytest.raises(QueueFull, match="space_watches_max"):
        _do(world, lambda ctx: ctx.watch(Late))


def test_environments_are_named_by_their_path() -> None:
    world = World(Main, (Child,), (Job,))
    inner, _ = _do(world, lambda ctx: ctx.spawn(Child, "one", count=3))
    assert inner == Ref(ME, "one")
    deeper, _ = _do(world, lambda ctx: ctx.spawn(Child, "two"), to="one")
    assert deeper == Ref(ME, "one/two")
    assert _do(world, lambda ctx: ctx.me, to="one/two")[0] == deeper
    assert _do(world, lambda ctx: ctx.me)[0] == Ref(ME)
    assert world.environment.fields("one") == {"count": 3}
    assert _do(world, lambda ctx: ctx.end("two"), to="one")[0] is True
    assert _do(world, lambda ctx: ctx.end("two"), to="one")[0] is False
    assert _do(world, lambda ctx: ctx.end(), to="one")[0] is True
    assert world.environment.fields("one") == {}
    _do(world, lambda ctx: ctx.spawn(Child, "three"))
    assert _do(world, lambda ctx: ctx.end("three"))[0] is True


def test_a_line_of_the_log_says_whose_it_is() -> None:
    world = World(Main, (Child,), (Job,))
    _do(world, lambda ctx: ctx.spawn(Child, "one"))
    assert notes(_do(world, lambda ctx: ctx.log("hello"))[1]) == ["hello"]
    assert notes(_do(world, lambda ctx: ctx.log("hello"), to="one")[1]) == ["one: hello"]


def test_a_context_that_was_cut_reaches_nothing() -> None:
    world = World(Main, (), (Job,))
    ctx, _ = _do(world, lambda ctx: ctx)
    ctx.cut()
    with pytest.raises(UsageError, match="post comes too late"):
        ctx.send(Ref(ANN), Job("x"))
    with pytest.raises(UsageError, match="now_ns comes too late"):
        _ = ctx.now_ns


def test_an_operation_that_is_over_is_not_waited_for() -> None:
    done = Operation(1, Failure("timeout"))
    assert list(done.__await__()) == []
    waiting = Operation(2)
    steps = waiting.__await__()
    assert next(steps) is waiting
    waiting.outcome = Job("x")
    with pytest.raises(StopIteration) as stopped:
        next(steps)
    assert stopped.value.value == Job("x")


def test_a_context_belongs_to_an_environment() -> None:
    world = World(Main, (), (Job,))
    assert isinstance(world.environment, Environment)
    world.put(Fired())  # Nothing is due: nothing happens.
    assert world.environment.events == 0
