# SPDX-License-Identifier: Apache-2.0
"""What programs and strangers make that cannot be written, said or read: it is a failure, and nothing else changes."""

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
import pytest

from atoll.base.errors import CorruptError, UsageError
from atoll.env.app import App, intercept, migration, on
from atoll.env.changes import Copied, Failure, Put, Read, Started, Watch
from atoll.env.context import Asker, Context
from atoll.env.parties import Ref
from atoll.env.query import where
from atoll.env.records import Arrived, Began, Failed, Found
from atoll.env.runner import Runner
from atoll.env.texts import is_plain, plain, words_of
from atoll.env.tuples import Tuple
from atoll.env.walls import HandlerKilled
from tests.unit.env_world import (
    ANN,
    BOB,
    CODE,
    SEED,
    Actor,
    Other,
    Recorded,
    Word,
    arrived,
    encode,
    go,
    heard,
    item,
    notes,
    raw,
    said,
)

HALF = "\ud800"  # Of a pair: json.loads gives it, and UTF-8 has nothing for it.


class UnshownError(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


class Bid(Tuple):
    amount: int = 1

    def __post_init__(self) -> None:
        assert self.amount > 0, "negative"


class Auction(App):
    best: int = 0
    sign: int = 1

    def __post_init__(self) -> None:
        assert self.sign > 0, "negative"

    @on(Bid)
    def bid(self, bid: Bid, _: Context) -> None:
        self.best += bid.amount

    @on(Word)
    def spoil(self, _: Word, __: Context) -> None:
        self.sign = -1


def recorded(*nested: type[App]) -> Recorded:
    return Recorded(Actor, nested)


def test_texts_are_made_plain() -> None:
    assert plain(f"a{HALF}b", 9) == "a?b"
    assert plain("abc", 2) == "ab"
    assert is_plain("é")
    assert not is_plain(f"é{HALF}")
    assert words_of(UnshownError(), 12) == "UnshownError"
    assert words_of(KeyError(HALF), 99) == r"KeyError: '\ud800'"
    assert words_of(ValueError(HALF), 99) == "ValueError: ?"


def lives_and_replays(world: Recorded, *words: str) -> None:
    """Fail unless it goes on, and its journal gives what it is."""
    world.send(Word("on"))
    assert heard(world) == [*words, "on"]
    assert world.replayed().environment.fields() == world.environment.fields()


NOTHING: Any = None
NO_ASKER: Any = Ref(BOB)
NOBODY: list[tuple[Callable[[Actor, Context], object], str]] = [
    (lambda _, ctx: ctx.send(HALF, Word()), "UsageError: no environment is called '\\ud800'"),
    (lambda _, ctx: ctx.publish(f"a/{HALF}", Word()), "UsageError: no environment is called 'a/\\ud800'"),
    (lambda _, ctx: ctx.spawn(Other, HALF), "UsageError: a nested environment called '\\ud800'"),
    (lambda _, ctx: ctx.send(Ref(BOB, HALF), Word()), "is no reference"),
    (lambda _, ctx: ctx.call(Ref(b"bob"), Word()), "is no reference"),
    (lambda _, ctx: ctx.send(Ref("bob".rjust(16)), Word()), "is no reference"),  # type: ignore[arg-type]
    (lambda _, ctx: ctx.send(Ref(BOB, "x" * 201), Word()), "is no reference"),
    (lambda _, ctx: ctx.send(NOTHING, Word()), "None is no reference"),
    (lambda _, ctx: ctx.reply(Word(), to=Asker(Ref(BOB), 1 << 64)), "is nobody who asks"),
    (lambda _, ctx: ctx.reply(Word(), to=Asker(Ref(b"b"), 1)), "is no reference"),
    (lambda _, ctx: ctx.reply(Word(), to=NO_ASKER), "is nobody who asks"),
    (lambda _, ctx: ctx.send(Ref(BOB), Word(HALF)), "UnicodeEncodeError"),
]


@pytest.mark.parametrize(("script", "text"), NOBODY)
def test_what_names_nobody_or_cannot_be_written_fails_where_it_is_said(script: Any, text: str) -> None:
    world = recorded(Other)
    [answer] = said(world.send(go(script), ask=1))
    assert (answer["code"], text in answer["text"]) == ("raised", True), answer
    lives_and_replays(world)


def test_a_line_that_cannot_be_written_is_written_as_far_as_it_can() -> None:
    world = recorded()
    assert notes(world.send(go(lambda _, ctx: ctx.log(f"unknown word {HALF}")))) == ["unknown word ?"]
    lives_and_replays(world)


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError(f"unknown word {HALF}"), "ValueError: unknown word ?"), (UnshownError(), "UnshownError")],
)
def test_an_error_that_cannot_be_said_is_a_failure_like_another(error: Exception, text: str) -> None:
    def fail(app: Actor, _: Context) -> None:
        app.heard = (*app.heard, "half")
        raise error

    world = recorded()
    assert said(world.send(go(fail), ask=1)) == [{"is": "Failure", "code": "raised", "text": text}]
    lives_and_replays(world)


def _any(to: Ref) -> Ref:
    return to


def test_what_several_made_together_and_cannot_leave_fails_where_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.context._known", _any)  # As if somebody had found a way round.
    world = recorded()
    half = go(lambda _, ctx: ctx.send(Ref(BOB, HALF), Word()))
    answers = said(world.send(Word("one"), half, Word("two"), ask=1))
    assert [answer["is"] for answer in answers] == ["Done", "Failure", "Done"]
    lives_and_replays(world, "one", "two")
    assert [type(record) for record in world.records()].count(Failed) == 1


def test_one_that_is_ended_at_the_end_of_others_time_is_tried_by_itself() -> None:
    world = recorded()
    tries: list[int] = []

    def slow(app: Actor, _: Context) -> None:
        tries.append(1)
        app.heard = (*app.heard, "slow")
        if len(tries) == 1:
            raise HandlerKilled("the time of all was over")

    world.send(Word("one"), go(slow), Word("two"))
    assert heard(world) == ["one", "slow", "two"]
    assert not any(isinstance(record, Failed) for record in world.records())
    assert [len(msgspec.msgpack.decode(one.items)) for one in world.records() if isinstance(one, Arrived)] == [1, 1, 1]


def test_a_tuple_whose_own_check_fails_is_refused_and_the_others_count() -> None:
    world = Recorded(Auction)
    effects = world.send(Bid(5), {"is": "Bid", "amount": -1}, Bid(2), {"is": "Bid", "amount": "x"}, Bid(1), ask=1)
    assert [answer.get("code") for answer in said(effects)] == [None, "unhandled", None, "unhandled", None]
    assert "AssertionError: negative" in said(effects)[1]["text"]
    assert world.environment.fields()["best"] == 8
    assert world.runner.failures == 0


def test_a_state_whose_own_check_fails_is_refused_at_the_checkpoint() -> None:
    world = Recorded(Auction)
    world.send(Word())
    with pytest.raises(UsageError, match="AssertionError: negative"):
        world.checkpoint()
    world.send(Bid(5))
    assert world.environment.fields()["best"] == 5


def test_who_ends_a_call_is_who_was_called() -> None:
    world = Recorded(Actor)
    world.send(go(lambda _, ctx: ctx.call(Ref(BOB), Word(), then=Actor.then)))
    world.take(Failed(ANN, 2, "killed", "", encode(item(Word(), re=1))))
    assert heard(world) == []
    world.take(Failed(BOB, 1, "killed", "", encode(item(Word(), re=1))))
    world.take(arrived(2, item(Word("late"), re=1), party=BOB))
    assert heard(world) == [], "the call is over"


class Inner(App):
    @on(Bid)
    async def work(self, _: Bid, ctx: Context) -> None:
        await ctx.call(Ref(BOB), Word())
        raise ValueError("boom")


def failed_inside(then: Callable[..., None]) -> Recorded:
    """Return a world in which a nested coroutine has failed whose caller waits for it."""

    def ask(_: Actor, ctx: Context) -> None:
        ctx.call(ctx.spawn(Inner, "in"), Bid(), then=then)

    world = Recorded(Actor, (Inner,))
    world.send(go(ask))
    world.take(arrived(1, item(Word(), re=2), party=BOB))
    return world


def test_whom_a_coroutine_was_to_answer_hears_at_once_that_it_failed() -> None:
    world = failed_inside(Actor.then)
    assert world.environment.deadline_ns == world.now_ns, "in a record of its own: what hears it may fail, too"
    world.fire()
    assert ["boom" in word for word in heard(world)] == [True]
    assert world.replayed().environment.fields() == world.environment.fields()


def test_a_failure_that_fails_whoever_hears_it_is_no_end() -> None:
    world = failed_inside(Actor.then_raise)
    world.fire()
    assert world.runner.failures == 2
    lives_and_replays(world)


def test_what_came_with_the_item_that_ends_it_is_refused() -> None:
    world = recorded()
    end = go(lambda _, ctx: ctx.end())
    effects = world.send(Word("one"), end, Word("two"), {"is": "Nobody"}, ask=1)
    assert [answer.get("code") for answer in said(effects)] == [None, None, "ended", "ended"]
    assert heard(world) == ["one"]
    assert world.environment.received(ANN) == 4
    assert world.replayed().environment.received(ANN) == 4


def test_items_behind_the_end_that_do_not_decode_are_refused_too() -> None:
    world = recorded()
    effects = world.send({"is": "Nobody"}, go(lambda _, ctx: ctx.end()), Word("two"), ask=1)
    assert [answer.get("code") for answer in said(effects)] == ["unhandled", None, "ended"]


class Keeper(App):
    shared: ClassVar[tuple[type[Tuple], ...]] = (Word,)


class Wall(App):
    @on(Started)
    def started(self, _: Started, ctx: Context) -> None:
        ctx.spawn(Keeper, "in")

    @intercept
    def outside(self, _: Any, __: Context) -> Failure:
        return Failure("forbidden", "by the wall")


def test_what_a_nested_space_gives_away_is_seen_by_those_around_it() -> None:
    world = Recorded(Wall, (Keeper,))
    for event in (Put({"is": "Word", "text": "secret"}), Read(where(Word))):
        assert [one["text"] for one in said(world.send(event, to="in", ask=1))] == ["by the wall"]


def test_a_limit_beyond_all_there_can_be_is_no_failure() -> None:
    world = recorded()
    world.send(Put({"is": "Word", "text": "x"}))
    [answer] = said(world.send(Read(where(Word), 1 << 63), ask=1))
    assert len(answer["tuples"]) == 1
    assert world.runner.failures == 0


def test_a_copy_tells_nobody_of_the_original() -> None:
    class Teller(Actor):
        @on(Copied)
        def copied(self, _: Copied, ctx: Context) -> None:
            ctx.put(Word("copied"))

    world = Recorded(Teller)
    world.send(go(lambda _, ctx: ctx.watch(Word)))  # It watches itself, which goes on.
    world.send(Watch(where(Word), 600.0), ask=1)
    copy = Runner(world.program, CODE)
    state = world.environment.snapshot()
    copy.take(Began(b"C" * 16, SEED, "copy", CODE, encode({}), state=state), world.now_ns)
    made = copy.block()
    assert made is not None
    assert said(copy.release(made.number)) == []
    assert copy.environment.fields()["heard"] == ["put copied"]


def test_a_block_has_bounds_whatever_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.runner.BLOCK_BYTES", 1_000)
    for record in (
        arrived(1, item(Word("x" * 900))),
        Found(1, tuple(bytes([number]) * 16 for number in range(60))),
        Failed(ANN, 1, "killed", "", encode(item(Word("x" * 900)))),
    ):
        world = recorded()
        world.runner.take(record, world.now_ns)
        assert not world.runner.is_block_full or len(encode(record)) >= 936
        world.runner.take(record, world.now_ns)
        assert world.runner.is_block_full
        world.seal()
        assert not world.runner.is_block_full


def test_migrations_and_clean_up_run_inside_walls_too() -> None:
    class Counting:
        depth = 0
        again: ClassVar[list[bool]] = []

        def enter(self, *, is_again: bool = False) -> None:
            self.depth += 1
            self.again.append(is_again)

        def leave(self) -> None:
            self.depth = 0

        def about(self, environment: bytes, party: bytes, first: int, count: int) -> None:
            pass

        def is_late(self, since_ns: int) -> bool:
            del since_ns
            return False

    walls, seen = Counting(), list[int]()

    class Old(App):
        @on(Bid)
        async def work(self, _: Bid, ctx: Context) -> None:
            try:
                await ctx.call(Ref(BOB), Word())
            finally:
                seen.append(walls.depth)

        @on(Word)
        def fail(self, _: Word, __: Context) -> None:
            raise ValueError("boom")

    class New(App):
        version = 2

        @migration(1)
        @staticmethod
        def up(fields: dict[str, Any]) -> dict[str, Any]:
            seen.append(walls.depth)
            return fields

    old = Recorded(Old)
    runner = Runner(old.program, CODE, None, walls)
    runner.take(Began(b"m" * 16, SEED, "test", CODE, encode({})), 1)
    runner.take(arrived(1, item(Bid())), 1)
    runner.take(arrived(2, item(Word())), 1)  # What waits is given up, to be undone.
    assert seen == [1]
    assert True in walls.again
    runner.take(arrived(1, item(Word(), re=1), party=BOB), 1)
    del seen[:]
    New.__name__ = "Old"
    runner.upgrade(Recorded(New).program, b"d" * 32, 1)
    assert seen == [1]


def test_a_failure_that_cannot_be_undone_is_told_to_whoever_drives_it() -> None:
    world = recorded()
    with pytest.raises(CorruptError, match="what failed cannot be undone: DecodeError"):
        world.runner.take(Arrived(ANN, 1, msgspec.Raw(b"\xc1")), world.now_ns)  # What no door lets through.


def test_paths_have_a_length() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encode([raw({"is": "Word"}), 0, 0, "x" * 201, ""]), type=type(item(Word())))
