# SPDX-License-Identifier: Apache-2.0
"""What handlers ask, and what comes of it: limits are said at once, walls hold, and what ended asks for nothing."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from atoll.base.errors import UsageError
from atoll.base.units import HOUR_NS, SECOND_NS
from atoll.env.app import App, intercept, on
from atoll.env.asking import NOTE_CHARS_MAX
from atoll.env.changes import Failure, Put, Read, Request, Started, Watch
from atoll.env.context import Asker, Context, QueueFull
from atoll.env.environment import Environment
from atoll.env.limits import (
    LIVED_STEP_NS,
    NESTED_MAX,
    OPERATIONS_MAX,
    PARTY_KEPT_NS,
    PARTY_SILENT_NS,
    SPACE_TUPLES_MAX,
    TIMERS_MAX,
    TUPLE_BYTES_MAX,
    UNCONFIRMED_MAX,
)
from atoll.env.parties import Ref
from atoll.env.query import where
from atoll.env.records import TEXT_CHARS_MAX, Confirmed, Effect, Ended, Forgotten, Found, Post, Resolve
from atoll.env.tuples import Tuple
from tests.unit.env_world import ANN, BOB, ME, Actor, Other, Word, World, go, heard, items_of, notes, said, wait

BIG = Word("x" * TUPLE_BYTES_MAX)


def _world() -> World:
    return World(Actor, (Other, Wall, Starter))


def posts(effects: Sequence[Effect]) -> list[tuple[bytes, int, int]]:
    return [(post.party, post.first, post.count) for post in effects if isinstance(post, Post)]


def _no(_: Actor, _ctx: Context) -> Word:
    return Word("no")


def _is_quiet(world: World) -> bool:
    return world.environment.is_quiescent


class Wall(Actor):
    """Lets ``yes`` through, changes ``change``, and refuses ``no``."""

    @intercept
    def outside(self, request: Request, ctx: Context) -> Tuple | None:
        assert (ctx.sender, ctx.ask) == (None, 0)
        self.heard = (*self.heard, f"{request.path} asks {request.what}")
        if b"no" in request.event:
            return Failure("forbidden", "by the wall")
        if b"end" in request.event:
            ctx.end("in")
            return BIG
        if b"huge" in request.event:
            return BIG
        if b"long" in request.event:
            return Failure("forbidden", "x" * TUPLE_BYTES_MAX)
        return Word("changed") if b"change" in request.event else request if b"yes" in request.event else None


def test_a_tuple_that_is_too_large_is_refused_where_it_is_made() -> None:
    def each(_: Actor, ctx: Context) -> None:
        ask: Any
        for ask in (ctx.send, ctx.call):
            for to in (Ref(ANN), "auction"):
                with pytest.raises(UsageError, match="at most"):
                    ask(to, BIG)

    world = _world()
    assert world.send(go(each)) == ()
    assert world.environment.deadline_ns is None  # A call that was not made waits for nothing.


class Choice(Tuple):
    one: Literal["a", "b"]


class Sharing(App):
    shared = (Choice,)


def test_a_failure_that_quotes_much_is_cut_so_that_whoever_asked_can_take_it() -> None:
    world = _world()
    [answer] = said(world.send(Word(), ask=1, to="\0" * (TUPLE_BYTES_MAX - 100)))
    assert answer == {
        "is": "Failure",
        "code": "unknown",
        "text": ("no environment '" + "\\x00" * TEXT_CHARS_MAX)[:TEXT_CHARS_MAX],
    }
    [answer] = said(world.send(Word(), ask=2, to="x" * 10_000))
    assert len(answer["text"]) > 10_000, "it fits as it is"
    world.send(go(lambda _, ctx: ctx.spawn(Wall, "wall")))
    world.send(go(lambda _, ctx: ctx.spawn(Other, "in")), to="wall")
    [answer] = said(world.send(go(lambda _, _ctx: Word("long")), ask=3, to="wall/in"))
    assert answer == {"is": "Failure", "code": "forbidden", "text": "x" * TEXT_CHARS_MAX}
    sharing = World(Sharing)
    [answer] = said(sharing.send(Put({"is": "Choice", "one": "\0" * (TUPLE_BYTES_MAX - 100)}), ask=1))
    assert (answer["code"], len(answer["text"])) == ("unexpected", TEXT_CHARS_MAX)


def test_a_full_channel_raises_in_the_handler_and_takes_the_call_back() -> None:
    def fill(_: Actor, ctx: Context) -> None:
        for _n in range(UNCONFIRMED_MAX):
            ctx.send(Ref(BOB), Word())
        with pytest.raises(QueueFull, match=f"unconfirmed_max is {UNCONFIRMED_MAX}"):
            ctx.send(Ref(BOB), Word())
        with pytest.raises(QueueFull):
            ctx.call(Ref(BOB), Word(), then=Actor.then)
        ctx.reply(Word("a reply is never refused"))

    world = _world()
    assert said(world.send(go(fill), ask=1)) == [{"is": "Word", "text": "a reply is never refused"}]
    assert world.environment.deadline_ns is None
    world.put(Confirmed(BOB, UNCONFIRMED_MAX))
    assert len(items_of(world.send(go(lambda _, ctx: ctx.send(Ref(BOB), Word()))), BOB)) == 1


def test_too_many_calls_searches_timers_and_environments_are_refused() -> None:
    def calls(_: Actor, ctx: Context) -> None:
        for _n in range(OPERATIONS_MAX):
            ctx.sleep(1)
        ask: Any
        for ask, arguments in ((ctx.sleep, (1,)), (ctx.call, (Ref(BOB), Word())), (ctx.resolve, ("x",))):
            with pytest.raises(QueueFull, match="calls wait already"):
                ask(*arguments)

    def searches(_: Actor, ctx: Context) -> None:
        for _n in range(OPERATIONS_MAX):
            ctx.send("x", Word())
        ask: Any
        for ask, arguments in ((ctx.publish, ("x", Word())), (ctx.call, ("x", Word())), (ctx.resolve, ("x",))):
            with pytest.raises(QueueFull, match="names are looked up already"):
                ask(*arguments)

    def timers(_: Actor, ctx: Context) -> None:
        for _n in range(TIMERS_MAX):
            ctx.after(1, Word())
        with pytest.raises(QueueFull, match="timers_max"):
            ctx.after(1, Word())

    def nested(_: Actor, ctx: Context) -> None:
        for number in range(NESTED_MAX):
            ctx.spawn(Other, str(number))
        ctx.spawn(Other, "0")  # It is there.
        with pytest.raises(QueueFull, match="are nested already"):
            ctx.spawn(Other, "one more")

    for script in (calls, searches, timers, nested):
        _world().send(go(script))


class Starter(Actor):
    """Hears that it has begun."""

    @on(Started)
    def started(self, _: Started, ctx: Context) -> None:
        self.heard = (*self.heard, f"{ctx.path} begins")


def test_a_nested_environment_hears_that_it_has_begun() -> None:
    world = _world()
    world.send(go(lambda _, ctx: [ctx.spawn(Starter, "a"), ctx.spawn(Starter, "a")]))
    assert heard(world, "a") == ["a begins"]


def test_a_timer_can_be_taken_back() -> None:
    world = _world()

    def set_and_cancel(_: Actor, ctx: Context) -> Word:
        with pytest.raises(UsageError, match="at most"):
            ctx.after(1, BIG)
        number = ctx.after(1, Word())
        return Word(f"{ctx.cancel(number)} {ctx.cancel(number)}")

    assert said(world.send(go(set_and_cancel), ask=1)) == [{"is": "Word", "text": "True False"}]
    assert world.environment.deadline_ns is None


def test_a_caller_that_is_ended_by_a_wall_has_no_call_to_take_back() -> None:
    def call(_: Actor, ctx: Context) -> None:
        with pytest.raises(UsageError, match="at most"):
            ctx.call(Ref(BOB), Word("end"))

    world = _world()
    world.send(go(lambda _, ctx: ctx.spawn(Wall, "wall")))
    world.send(go(lambda _, ctx: ctx.spawn(Other, "in")), to="wall")
    world.send(go(call), to="wall/in")
    assert (world.environment.fields("wall/in"), world.environment.deadline_ns) == ({}, None)


def test_what_was_put_off_is_due_when_there_was_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: Actor, _ctx: Context) -> Word:
        return Word("yes")

    world = _world()
    monkeypatch.setattr("atoll.env.environment.DRAIN_EVENTS", 2)
    world.send(Word(), Word())
    assert world.send(wait(answer), ask=4) == ()
    assert world.environment.first_timer == 0
    world.environment.checkpoint()
    assert world.environment.deadline_ns == world.now_ns
    effects = world.fire()
    assert (said(effects), items_of(effects)[0].re) == ([{"is": "Word", "text": "yes"}], 4)


class Stranger(App):
    pass


def test_what_cannot_be_is_said_at_once() -> None:
    def each(_: Actor, ctx: Context) -> None:
        for name in ("", "a/b", "x" * 65):
            with pytest.raises(UsageError, match="a nested environment called"):
                ctx.spawn(Other, name)
        with pytest.raises(UsageError, match="does not know the application class Stranger"):
            ctx.spawn(Stranger, "x")
        for name in ("", "/x", "x" * 65, "x/" + "y" * 201):
            with pytest.raises(UsageError, match="no environment is called"):
                ctx.send(name, Word())
        for then in (Actor.then_wait, test_what_cannot_be_is_said_at_once):
            with pytest.raises(UsageError, match="is no plain method of Actor"):
                ctx.call(Ref(BOB), Word(), then=then)

    _world().send(go(each))


def test_a_space_that_is_full_raises_in_the_handler() -> None:
    def fill(_: Actor, ctx: Context) -> None:
        for _n in range(SPACE_TUPLES_MAX):
            ctx.put(Word())
        with pytest.raises(QueueFull, match="space_tuples_max"):
            ctx.put(Word())

    _world().send(go(fill))


def test_nested_environments_go_through_the_walls_around_them() -> None:
    world = _world()
    world.send(go(lambda _, ctx: ctx.spawn(Wall, "wall")))
    world.send(go(lambda _, ctx: [ctx.spawn(Other, "in"), ctx.spawn(Other, "in2")]), to="wall")

    def outside(text: str) -> Any:
        return world.send(go(lambda _, ctx: ctx.send(Ref(BOB), Word(text))), to="wall/in")

    assert said(outside("yes"), BOB) == [{"is": "Word", "text": "yes"}]
    assert said(outside("as it is"), BOB) == [{"is": "Word", "text": "as it is"}]
    assert said(outside("change"), BOB) == [{"is": "Word", "text": "changed"}]
    assert outside("no") == ()
    with pytest.raises(UsageError, match="at most"):
        outside("huge")
    world.sent[ANN] -= 1  # The item counts as not taken.
    assert heard(world, "wall") == ["wall/in asks Word"] * 5


def test_a_wall_that_asks_for_something_else_is_no_wall() -> None:
    def ask(_: Actor, ctx: Context) -> None:
        ctx.send("auction", Word("yes"))

    world = _world()
    world.send(go(lambda _, ctx: ctx.spawn(Wall, "wall")))
    world.send(go(lambda _, ctx: ctx.spawn(Other, "in")), to="wall")
    world.send(go(ask), to="wall/in")
    assert heard(world, "wall") == []  # A name passes nobody; whoever is found does.
    world.put(Found(1, (BOB,)))
    assert heard(world, "wall") == ["wall/in asks Word"]


def test_walls_are_for_what_leaves() -> None:
    world = _world()
    world.send(go(lambda _, ctx: [ctx.spawn(Wall, "a"), ctx.spawn(Other, "ab")]))
    world.send(go(lambda _, ctx: ctx.spawn(Other, "in")), to="a")

    def to(path: str) -> None:
        world.send(go(lambda _, ctx: ctx.send(Ref(ME, path), Word("no"))), to="a/in")

    to("a")
    to("a/in")
    to("ab")  # Not inside: its name only begins alike.
    to("")
    assert heard(world, "a") == ["no", "a/in asks Word", "a/in asks Word"]
    assert heard(world, "a/in") == ["no"]
    assert (heard(world, "ab"), heard(world)) == ([], [])


def test_a_call_that_a_wall_refuses_fails_and_so_does_a_response() -> None:
    world = _world()
    world.send(go(lambda _, ctx: ctx.spawn(Wall, "a")))
    world.send(go(lambda _, ctx: ctx.spawn(Other, "in")), to="a")
    effects = world.send(go(lambda _, ctx: ctx.call(Ref(BOB), Word("no"), then=Other.then)), to="a/in")
    assert effects == ()
    assert heard(world, "a/in") == ["Failure(code='forbidden', text='by the wall')"]
    effects = world.send(go(_no), ask=7, to="a/in")
    assert said(effects) == [{"is": "Failure", "code": "forbidden", "text": "by the wall"}]
    assert items_of(effects)[0].re == 7


def test_what_has_ended_asks_for_nothing_but_may_still_answer() -> None:
    def end(_: Actor, ctx: Context) -> Word:
        ctx.end()
        asks: tuple[Any, ...] = (
            lambda: ctx.after(1, Word()),
            lambda: ctx.sleep(1),
            lambda: ctx.call(Ref(BOB), Word(), then=Actor.then),
            lambda: ctx.spawn(Other, "x"),
            lambda: ctx.put(Word()),
            lambda: ctx.read(Word),
        )
        for ask in asks:
            with pytest.raises(UsageError, match="in has ended"):
                ask()
        ctx.send(Ref(BOB), Word("farewell"))
        return Word("done")

    world = _world()
    world.send(go(lambda _, ctx: ctx.spawn(Other, "in")))
    effects = world.send(go(end), ask=3, to="in")
    assert said(effects) == [{"is": "Word", "text": "done"}]
    assert said(effects, BOB) == [{"is": "Word", "text": "farewell"}]
    assert world.environment.fields("in") == {}


def test_ending_takes_everything_with_it() -> None:
    async def sleep(_: Actor, ctx: Context) -> None:
        await ctx.sleep(60)

    def busy(_: Actor, ctx: Context) -> None:
        ctx.after(5, Word())
        ctx.call(Ref(BOB), Word(), then=Actor.then)
        ctx.put(Word(), lease_s=5)

    world = _world()
    world.send(go(lambda _, ctx: [ctx.spawn(Wall, "a"), ctx.spawn(Other, "ab")]))
    world.send(go(lambda _, ctx: ctx.spawn(Other, "b")), to="a")
    world.send(go(busy), to="a/b")
    world.send(go(lambda _, ctx: ctx.after(9, Word())), to="ab")
    assert world.send(wait(sleep), ask=5, to="a/b") == ()
    assert world.environment.is_quiescent is False
    effects = world.send(go(lambda _, ctx: (ctx.end("a"), ctx.end("gone"))))
    assert said(effects) == [{"is": "Failure", "code": "ended", "text": "a has ended"}]
    assert items_of(effects)[0].re == 5
    assert _is_quiet(world)
    assert world.environment.deadline_ns == world.now_ns + 9 * SECOND_NS
    assert list(world.environment.fields("ab")) == ["heard", "any"]
    assert world.send(go(lambda _, ctx: ctx.end())) == [Ended()]


def test_a_coroutine_that_answered_before_it_was_given_up_does_not_answer_again() -> None:
    async def early(_: Actor, ctx: Context) -> None:
        ctx.reply(Word("early"))
        await ctx.sleep(60)

    async def unasked(_: Actor, ctx: Context) -> None:
        await ctx.sleep(60)

    world = _world()
    world.send(go(lambda _, ctx: ctx.spawn(Other, "a")))
    assert said(world.send(wait(early), ask=5, to="a")) == [{"is": "Word", "text": "early"}]
    world.send(wait(unasked), to="a")
    assert world.send(go(lambda _, ctx: ctx.end("a"))) == ()


def test_responses_of_one_record_leave_together() -> None:
    effects = _world().send(Word("a"), Word("b"), Word("c"), ask=7)
    assert [one.re for one in items_of(effects)] == [7, 8, 9]
    assert len(effects) == 1


def test_a_line_of_the_log_has_a_limit() -> None:
    assert notes(_world().send(go(lambda _, ctx: ctx.log("x" * 5_000)))) == ["x" * NOTE_CHARS_MAX]


def test_who_watches_and_does_not_read_loses_the_watch() -> None:
    world = _world()
    world.send(Watch(where(Word)), party=BOB, ask=1)
    world.send(go(lambda _, ctx: [ctx.put(Word("one")), ctx.put(Word("two"))]))

    def fill(_: Actor, ctx: Context) -> None:
        for _n in range(UNCONFIRMED_MAX - 3):
            ctx.send(Ref(BOB), Word())

    world.send(go(fill))
    effects = world.send(Put({"is": "Word", "text": "three"}), ask=1)
    assert said(effects)[0]["is"] == "atoll.Placed"
    [note] = notes(effects)
    assert note.startswith("watch 1 ended: to " + BOB.hex())
    assert notes(world.send(Put({"is": "Word", "text": "four"}))) == []


def test_the_party_that_was_silent_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.asking.PARTIES_MAX", 3)
    monkeypatch.setattr("atoll.env.environment.LIVED_STEP_NS", PARTY_KEPT_NS)
    world = _world()
    parties = [bytes([number]) * 16 for number in range(6)]
    world.send(go(lambda _, ctx: ctx.call(Ref(parties[0]), Word(), timeout_s=1000)), party=parties[1])
    world.put(Confirmed(parties[0], 1))
    heard_ns = world.environment.lived_ns
    world.now_ns += SECOND_NS
    world.send(Word(), Word(), party=parties[2])
    world.now_ns += PARTY_KEPT_NS - SECOND_NS - 1
    world.send(Word(), party=parties[3])
    assert set(world.environment.taken()) == set(parties[:4]), "who was heard of just now is not forgotten"
    assert world.environment.forgot_ns == -1
    world.now_ns += 1
    world.send(Word(), party=parties[4])
    # The first one is asked something, and its response must find its place.
    assert set(world.environment.taken()) == {parties[0], *parties[2:5]}
    assert world.environment.forgot_ns == heard_ns
    assert world.environment.forgotten == [parties[1]]

    def to_all(_: Actor, ctx: Context) -> None:
        for party in parties[2:5]:
            ctx.send(Ref(party), Word())

    world.send(go(to_all), party=parties[4])
    assert world.environment.forgotten == []
    world.now_ns += PARTY_KEPT_NS
    world.send(Word(), party=parties[5])
    assert len(world.environment.taken()) == 5, "who is owed something is not forgotten: the table grows"


def test_a_clock_that_is_set_makes_nobody_look_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.asking.PARTIES_MAX", 1)
    world = _world()
    world.send(Word())
    before_ns = world.environment.lived_ns
    world.now_ns += 365 * 24 * HOUR_NS
    world.send(Word(), party=BOB)
    assert world.environment.knows(ANN)
    assert world.environment.lived_ns == before_ns + LIVED_STEP_NS
    assert world.restored().lived_ns == before_ns + LIVED_STEP_NS


def test_numbers_for_a_party_that_was_forgotten_are_never_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.asking.PARTIES_MAX", 1)
    monkeypatch.setattr("atoll.env.environment.LIVED_STEP_NS", PARTY_SILENT_NS)
    world = _world()

    def three(_: Actor, ctx: Context) -> None:
        for _number in range(3):
            ctx.send(Ref(BOB), Word())

    tell = go(three)
    assert posts(world.send(tell)) == [(BOB, 1, 3)]
    world.put(Confirmed(BOB, 3))
    world.now_ns += PARTY_KEPT_NS
    world.send(Word())  # ANN's, so that BOB is silent longest.
    world.send(Word(), party=b"c" * 16)
    assert not world.environment.knows(BOB)
    world.environment = world.restored()
    assert posts(world.send(tell)) == [(BOB, 4, 3)]
    assert world.environment.confirmed(BOB) == 3


def test_who_was_silent_for_an_hour_is_forgotten_with_what_is_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.asking.PARTIES_MAX", 1)
    monkeypatch.setattr("atoll.env.environment.LIVED_STEP_NS", PARTY_SILENT_NS)
    world = _world()
    world.send(go(lambda _, ctx: ctx.send(Ref(BOB), Word())))
    world.now_ns += PARTY_SILENT_NS - 1
    assert world.send(Word()) == ()
    assert world.send(Word(), party=b"c" * 16) == ()
    world.now_ns += 1
    [note] = notes(world.send(Word(), party=b"d" * 16))
    assert note == f"given up: 1 tuples to {BOB.hex()}, who was silent for an hour"
    assert not world.environment.knows(BOB)


def test_a_party_too_many_is_refused_to_the_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PARTIES_MAX", 1), ("PARTIES_KNOWN_MAX", 2)):
        monkeypatch.setattr(f"atoll.env.asking.{name}", value)
    world = _world()

    def two(_: Actor, ctx: Context) -> None:
        ctx.send(Ref(BOB), Word())
        with pytest.raises(QueueFull, match="parties"):
            ctx.send(Ref(b"c" * 16), Word())
        ctx.send(Ref(BOB), Word())

    assert posts(world.send(go(two))) == [(BOB, 1, 2)]


def test_a_response_for_which_there_is_no_room_is_left_out_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PARTIES_MAX", 1), ("PARTIES_KNOWN_MAX", 2)):
        monkeypatch.setattr(f"atoll.env.asking.{name}", value)
    world = _world()
    world.send(go(lambda _, ctx: ctx.send(Ref(BOB), Word())))
    effects = world.send(go(lambda _, ctx: ctx.reply(Word(), to=Asker(Ref(b"c" * 16), 1))))
    assert posts(effects) == []
    assert notes(effects) == [f"no response to {(b'c' * 16).hex()}: 2 parties are known, and none can be forgotten"]


def test_a_table_that_has_grown_is_shortened_when_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.asking.PARTIES_MAX", 4)
    monkeypatch.setattr("atoll.env.asking.PARTIES_KNOWN_MAX", 20)
    monkeypatch.setattr("atoll.env.environment.LIVED_STEP_NS", PARTY_KEPT_NS)
    world = _world()
    for number in range(20):
        world.send(Word(), party=bytes([number]) * 16)
    assert (world.environment.parties, world.environment.room) == (20, 0)
    world.now_ns += PARTY_KEPT_NS
    world.send(Word(), party=bytes([0]) * 16)
    assert world.environment.room == 19
    world.send(Word(), party=b"z" * 16)
    assert world.environment.parties == 4
    assert world.environment.knows(bytes([0]) * 16)


def test_what_a_party_may_have_taken_before_it_forgot_this_one_is_given_up() -> None:
    world = _world()
    for _ in range(3):
        world.send(go(lambda _, ctx: ctx.send(Ref(BOB), Word())))
    [note] = notes(world.put(Forgotten(BOB, 2)))
    assert note == f"not known whether they came: 2 tuples to {BOB.hex()}, who forgot this one"
    assert [(party, parcel.first) for party, parcel in world.environment.owed()] == [(BOB, 3)]
    assert world.environment.confirmed(BOB) == 2
    assert world.put(Forgotten(BOB, 2)) == ()
    assert world.put(Forgotten(b"c" * 16, 2)) == ()


def test_names_become_parties_when_the_answer_comes() -> None:
    world = _world()
    effects = world.send(go(lambda _, ctx: ctx.call("auction/room", Word("x"), then=Actor.then)))
    assert effects == [Resolve(1, "auction")]
    effects = world.put(Found(1, (BOB,)))
    [item] = items_of(effects, BOB)
    assert (item.to, item.ask) == ("room", 1)
    assert world.put(Found(1, (BOB,))) == ()  # It was answered.
    world.respond(1, Word("yes"))
    assert heard(world) == ["Word(text='yes')"]


def test_the_machine_says_what_it_needs() -> None:
    environment: Environment = _world().environment
    assert environment.own("a") == Ref(ME, "a")


def test_one_environment_uses_the_space_of_another_of_its_tree() -> None:
    def use(_: Actor, ctx: Context) -> None:
        store = ctx.spawn(Other, "store")
        ctx.call(store, Watch(where(Word)), then=Actor.then)
        ctx.call(store, Put(Word("x")), then=Actor.then)
        ctx.call(store, Read(where(Word)), then=Actor.then)

    world = _world()
    world.send(go(use))
    watching, placed, put, matches = heard(world)
    assert watching.startswith("Watching(number=1")
    assert placed.startswith("Placed(key=2")
    assert put == "put x"
    assert matches == "Matches(tuples=(Word(text='x'),), more=False)"


def test_one_of_many_takes_its_turn() -> None:
    world = _world()
    chosen: list[bytes] = []
    for number in range(1, 5):
        world.send(go(lambda _, ctx: ctx.send("app:X", Word())))
        [post] = [effect for effect in world.put(Found(number, (ANN, BOB))) if isinstance(effect, Post)]
        chosen.append(post.party)
    assert chosen == [BOB, ANN, BOB, ANN]


def test_an_environment_finds_itself() -> None:
    world = _world()
    world.send(go(lambda _, ctx: ctx.send("test", Word("to me"))))
    world.put(Found(1, (ME,)))
    assert heard(world) == ["to me"]
