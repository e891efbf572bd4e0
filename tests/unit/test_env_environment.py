# SPDX-License-Identifier: Apache-2.0
"""The machine: records in, effects out; what it is between two records can be written and read back."""

from typing import Any

import pytest

from atoll.base.errors import CorruptError, LimitError, UsageError
from atoll.base.units import SECOND_NS
from atoll.env.app import App, on
from atoll.env.changes import (
    Done,
    Failure,
    LeaseLost,
    Moved,
    PeerSlow,
    Put,
    Restored,
    Started,
    Watch,
)
from atoll.env.context import Context, QueueFull
from atoll.env.environment import Environment
from atoll.env.limits import (
    AWAIT_S_MAX,
    DRAIN_AWAITS_MAX,
    ITEMS_MAX,
    LOCAL_EVENTS_MAX,
    PARCEL_BYTES_MAX,
    TUPLE_BYTES_MAX,
)
from atoll.env.parties import Ref
from atoll.env.query import where
from atoll.env.records import (
    Began,
    Checkpointed,
    Confirmed,
    Failed,
    Fired,
    Held,
    Note,
    Opened,
    Post,
    Told,
    Upgraded,
)
from atoll.env.state import State
from atoll.env.tuples import Tuple
from tests.unit.env_world import (
    ANN,
    BOB,
    CODE,
    ME,
    Actor,
    Go,
    Listener,
    Other,
    Unknown,
    Wait,
    Word,
    World,
    arrived,
    due_of,
    each,
    encode,
    go,
    heard,
    item,
    items_of,
    listening,
    raw,
    said,
    wait,
)

ENDED = b"n" * 10


class Odd(App):
    @on(Word)
    def word(self, _: Word, _ctx: Context) -> Any:
        return 5


# Items.


def test_items_are_taken_once_and_in_order() -> None:
    world = listening()
    both = arrived(1, item(Word("a")), item(Word("b")))
    world.put(both)
    world.put(both)  # Twice.
    world.put(arrived(2, item(Word("b")), item(Word("c"))))  # Half of it is known.
    world.put(arrived(1, item(Word("x")), party=BOB))  # Another party has numbers of its own.
    assert heard(world) == ["a", "b", "c", "x"]
    assert world.environment.taken() == {ANN: 3, BOB: 1}
    assert world.environment.parties == 2
    assert (world.environment.received(ANN), world.environment.received(ME)) == (3, 0)
    assert world.environment.events == 4
    world.put(arrived(9, item(Word("y"))))  # Whoever let it in knows that nothing between is missing.
    assert (heard(world)[-1], world.environment.received(ANN)) == ("y", 9)


def test_what_is_sent_is_owed_until_it_is_confirmed() -> None:
    world = listening()
    world.send(each(lambda _, ctx: ctx.send(Ref(BOB), Word("x")), lambda _, ctx: ctx.send(Ref(BOB), Word("y"))))
    [(party, parcel)] = world.environment.owed()
    assert (party, parcel.first, parcel.count, world.environment.owes(BOB)) == (BOB, 1, 2, 2)
    assert parcel.made_ns == world.now_ns
    assert (world.environment.confirmed(BOB), world.environment.confirmed(ME), world.environment.owes(ME)) == (0, 0, 0)
    world.put(Confirmed(BOB, 99))  # No more than was sent.
    world.put(Confirmed(ME, 1))  # Nobody that it knows.
    assert (world.environment.owed(), world.environment.confirmed(BOB)) == ((), 2)


def test_who_applies_it_again_sees_between_two_handlers_what_is_to_leave() -> None:
    world = listening()
    environment = world.environment
    seen: list[tuple[list[str], dict[bytes, int], int, int]] = []

    def look(_: Actor, ctx: Context) -> None:
        ctx.log(f"look {len(seen)}")
        ctx.send(Ref(BOB), Word("x"))
        ctx.after(1, Word("late"))
        notes = [effect.text for effect in environment.coming if isinstance(effect, Note)]
        out = {party: len(items) for party, items in environment.outgoing.items()}
        seen.append((notes, out, environment.sent(BOB), environment.timers_set))

    world.send(go(look), go(look))
    world.send(go(look))
    assert seen == [
        (["look 0"], {BOB: 1}, 0, 1),
        (["look 0", "look 1"], {BOB: 2}, 0, 2),
        (["look 2"], {BOB: 1}, 2, 3),
    ]
    assert (list(environment.coming), dict(environment.outgoing)) == ([], {})
    assert (environment.sent(BOB), environment.sent(ME), environment.timers_set) == (3, 0, 3)


def test_its_applications_are_there_by_path_as_they_live() -> None:
    world = listening()
    world.send(go(lambda _, ctx: ctx.spawn(Other, "inner")))
    apps = world.environment.apps()
    assert {path: type(app) for path, app in apps.items()} == {"": Actor, "inner": Other}
    world.send(Word("x"))
    assert apps[""] == Actor(heard=("x",))


def test_what_leaves_together_is_no_more_than_may_travel() -> None:
    text = "x"

    def say(_: Go, ctx: Context) -> None:
        ctx.send(Ref(BOB), Word(text))

    world = listening()
    posts = [post for post in world.send(each(*[say] * (ITEMS_MAX + 1))) if isinstance(post, Post)]
    half = ITEMS_MAX // 2
    assert [(post.first, post.count) for post in posts] == [(1, half), (half + 1, half + 1)]
    text = "x" * (TUPLE_BYTES_MAX - 100)
    count = PARCEL_BYTES_MAX // TUPLE_BYTES_MAX + 1
    posts = [post for post in world.send(each(*[say] * count)) if isinstance(post, Post)]
    assert [post.count for post in posts] == [count // 2, count - count // 2]
    assert [post.first for post in posts] == [ITEMS_MAX + 2, ITEMS_MAX + 2 + posts[0].count]
    assert all(len(post.items) <= PARCEL_BYTES_MAX for post in posts)


def test_who_asks_is_answered_whatever_he_asks() -> None:
    world = listening()
    assert said(world.send(Word("x"), ask=1)) == [{"is": "Done"}]
    assert said(world.send(Done(), ask=1))[0]["code"] == "unhandled"
    assert said(world.send(Word("x"), ask=1, to="nowhere"))[0]["code"] == "unknown"
    assert world.send(Done()) == ()
    assert world.send(Word("x"), to="nowhere") == ()
    for kind in (Started(), Restored("ams"), LeaseLost(1, None)):
        answer = said(world.send(kind, ask=1))[0]
        assert (answer["code"], answer["text"]) == ("forbidden", f"{type(kind).__name__} is not for others to say")


def test_a_stranger_cannot_say_what_only_the_surroundings_say() -> None:
    world = listening(Listener)
    assert said(world.send(Moved("a", "b"), PeerSlow("a", True, ""), ask=1))[0]["code"] == "forbidden"
    assert heard(world) == ["Started()"]


def test_tuples_that_the_program_does_not_know_are_refused_and_the_others_taken() -> None:
    world = listening()
    effects = world.put(
        arrived(1, item(Word("a")), item(Unknown("b"), 7), item({"is": "Word", "text": 5}, 8), item(Word("d"), 9))
    )
    assert [(one["is"], at.re) for one, at in zip(said(effects), items_of(effects), strict=True)] == [
        ("Failure", 7),
        ("Failure", 8),
        ("Done", 9),
    ]
    assert heard(world) == ["a", "d"]
    assert world.put(arrived(1, item(Unknown("b"), 7))) == ()  # Taken before.
    world.put(arrived(4, item(Word("d")), item(Unknown("e"))))
    assert world.environment.received(ANN) == 5


def test_who_sent_what_cannot_be_decoded_hears_why() -> None:
    world = listening()
    strange = ({"is": "Word", "text": 5}, {"text": "no type"}, {"is": "x" * 999}, 7)
    answers = said(world.put(arrived(1, *(item(one, at) for at, one in enumerate(strange, 1)))))
    assert [answer["text"] for answer in answers] == [
        "Word: Expected `str`, got `int` - at `$.text`",
        "this is no tuple",
        f"no tuple is called '{'x' * 64}' here",
        "this is no tuple",
    ]


def test_a_response_that_the_program_does_not_know_is_a_failure() -> None:
    world = listening()
    world.send(go(lambda _, ctx: ctx.call(Ref(BOB), Word(), then=Actor.then)))
    world.respond(1, Unknown())
    assert heard(world)[0].startswith("Failure(code='unexpected', text=\"no tuple is called 'Unknown' here")


def test_only_who_was_asked_responds_and_only_once() -> None:
    world = listening()
    world.send(go(lambda _, ctx: ctx.call(Ref(BOB), Word(), then=Actor.then)))
    world.respond(1, Word("forged"), party=ANN)
    world.respond(1, Word("true"))
    world.respond(1, Word("again"))
    assert heard(world) == ["Word(text='true')"]
    assert due_of(world) is None


def test_a_call_that_nobody_answers_ends_by_its_time() -> None:
    world = listening()
    world.send(
        go(lambda _, ctx: [ctx.call(Ref(BOB), Word(), timeout_s=5, then=Actor.then), ctx.call(Ref(BOB), Word())])
    )
    world.fire()
    assert heard(world) == ["Failure(code='timeout', text='no response in time')"]
    world.respond(1, Word("late"))
    world.fire()  # Nobody waits for the other one.
    assert len(heard(world)) == 1


def test_a_call_outlives_a_restore() -> None:
    world = listening()
    world.send(go(lambda _, ctx: ctx.call(Ref(BOB), Word(), then=Actor.then)))
    world.environment = world.restored()
    world.respond(1, Word("yes"))
    assert heard(world) == ["Word(text='yes')"]


def test_a_timer_without_a_handler_is_harmless() -> None:
    world = listening()
    world.send(go(lambda _, ctx: ctx.after(1, Done())))
    assert world.fire() == ()


def test_a_handler_returns_a_tuple_or_nothing() -> None:
    with pytest.raises(UsageError, match="a handler returned int"):
        World(Odd).send(Word())


# Copies.


def test_a_copy_begins_with_what_the_other_was_and_owes_nobody() -> None:
    def busy(_: Actor, ctx: Context) -> None:
        ctx.send(Ref(BOB), Word("x"))
        ctx.call(Ref(BOB), Word("y"))
        ctx.after(5, Word("z"))

    world = listening()
    world.send(Word("a"))
    world.send(go(busy))
    copy = Environment.blank(world.program)
    began = Began(BOB, b"t" * 32, "copy", CODE, encode({}), state=world.environment.snapshot(), source="test")
    assert copy.handle(began, world.now_ns + 1) == ()
    assert (copy.id, copy.name, copy.fields()) == (BOB, "copy", world.environment.fields())
    assert (copy.owed(), copy.taken(), copy.now_ns) == ((), {}, world.now_ns + 1)
    due_ns = copy.deadline_ns  # A timer goes on, a call does not.
    assert due_ns is not None
    assert due_ns == world.now_ns + 5 * SECOND_NS
    copy.handle(Fired(), due_ns)
    assert (copy.fields()["heard"], copy.deadline_ns) == (["a", "z"], None)
    with pytest.raises(CorruptError):
        Environment.blank(world.program).handle(Began(BOB, b"t" * 32, "copy", CODE, b"\x80", state=b"x"), 1)


# Changes and timers.


def test_everybody_in_the_tree_hears_of_a_change() -> None:
    world = listening(Listener)
    world.send(go(lambda _, ctx: [ctx.spawn(Listener, "a"), ctx.spawn(Other, "b")]))
    world.put(Opened(ENDED, "ams", 1))
    world.put(Opened(ENDED, "fra", 2, "ams"))
    assert world.put(Opened(ENDED, "lon", 3, silent=True)) == ()
    world.put(Told(raw(PeerSlow("ams", True, "disk"))))
    world.put(Held((ENDED,)))
    world.put(Upgraded(CODE))
    expected = ["Started()", "Restored(node='ams')", "Moved(source='ams', node='fra')"]
    expected.append("PeerSlow(node='ams', slow=True, reason='disk')")
    assert (heard(world), heard(world, "a"), heard(world, "b")) == (expected, expected, [])


def test_one_thing_is_done_at_a_time_and_nothing_before_its_time() -> None:
    world = listening()
    world.send(go(lambda _, ctx: [ctx.after(2, Word("timer")), ctx.put(Word(), lease_s=2), ctx.put(Word(), lease_s=2)]))
    at_ns = due_of(world)
    assert at_ns == world.now_ns + 2 * SECOND_NS
    world.put(Fired())
    assert heard(world) == []
    world.fire()
    assert heard(world) == ["timer"]  # Of two things at one moment the timer is first.
    world.send(go(lambda _, ctx: ctx.after(0, Word("overtaken"))))
    for _ in range(4):  # Another timer of that moment, the end of both leases, and what the environment hears of it.
        world.fire()
    assert heard(world) == ["timer", "overtaken", "lost 1", "lost 2"]
    assert due_of(world) is None
    world.put(Fired())


def test_who_does_not_want_to_hear_of_a_lost_lease_does_not() -> None:
    class Deaf(App):
        @on(Go)
        def go(self, _: Go, ctx: Context) -> None:
            ctx.put(Word(), lease_s=2)

    world = World(Deaf, (Actor,))
    world.send(Go(0))
    world.fire()
    assert due_of(world) is None


def test_only_spaces_whose_lease_ends_now_are_looked_at() -> None:
    world = listening()
    world.send(go(lambda _, ctx: [ctx.spawn(Other, "a"), ctx.spawn(Other, "b"), ctx.put(Word(), lease_s=5)]))
    world.send(go(lambda _, ctx: ctx.put(Word(), lease_s=2)), to="a")
    for _ in range(2):
        world.fire()
    assert (heard(world), heard(world, "a")) == ([], ["lost 1"])
    assert due_of(world) == 1_005 * SECOND_NS


# Coroutines.


async def _ask_bob(app: Actor, ctx: Context) -> Word:
    first, second = ctx.call(Ref(BOB), Word("1")), ctx.call(Ref(BOB), Word("2"))
    answers = [await second, await first]
    app.heard = (*app.heard, *(str(one) for one in answers))
    await ctx.sleep(3)
    return Word("done")


def test_a_coroutine_waits_for_several_calls_and_then_answers() -> None:
    world = listening()
    world.send(wait(_ask_bob), ask=7)
    assert world.environment.is_quiescent is False
    with pytest.raises(UsageError, match="a snapshot while a coroutine waits"):
        world.environment.snapshot()
    assert world.respond(1, Word("one")) == ()
    world.respond(2, Failure("ended"))
    assert heard(world) == ["Failure(code='ended', text='')", "Word(text='one')"]
    effects = world.fire()
    assert (said(effects), items_of(effects)[0].re) == ([{"is": "Word", "text": "done"}], 7)
    assert world.environment.snapshot()
    assert world.environment.events == 3  # The item, and each time that it went on: it waited for the second one first.


def test_a_coroutine_waits_for_what_the_context_gave_and_not_for_long() -> None:
    class Foreign:
        def __await__(self) -> Any:
            yield 5

    async def foreign(_: Actor, _ctx: Context) -> None:
        await Foreign()

    async def long(_: Actor, ctx: Context) -> None:
        await ctx.sleep(AWAIT_S_MAX + 1)

    async def keep(app: Actor, ctx: Context) -> None:
        app.any = ctx.sleep(5)
        await app.any

    async def share(app: Actor, _ctx: Context) -> None:
        await app.any

    with pytest.raises(UsageError, match="and nothing else"):
        listening().send(wait(foreign))
    with pytest.raises(UsageError, match="can wait 600 s"):
        listening().send(wait(long))
    with pytest.raises(UsageError, match="two coroutines await one call"):
        listening().send(wait(keep), wait(share))


def test_coroutines_that_leave_no_rest_are_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.environment.DRAIN_EVENTS", 10)
    monkeypatch.setattr("atoll.env.environment.PUT_OFF_MAX", 2)

    async def nap(app: Actor, ctx: Context) -> Word:
        await ctx.sleep(1)
        app.heard = (*app.heard, "rested")
        return Word("woken")

    async def loop(_: Actor, ctx: Context) -> None:
        while True:
            await ctx.sleep(1)

    world = listening()
    world.send(wait(loop))
    world.send(*[Word()] * 8)
    world.send(wait(nap), ask=5)  # The tenth event: that one is put off.
    assert world.environment.is_draining is True
    assert world.send(wait(nap), ask=7) == ()
    with pytest.raises(QueueFull, match="wait for a checkpoint"):
        world.send(wait(nap))
    for _ in range(DRAIN_AWAITS_MAX):  # What waits goes on, but not for ever.
        assert world.fire() == ()
    with pytest.raises(LimitError, match="drain_awaits_max"):
        world.fire()


def test_too_many_bytes_without_rest_are_too_many_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.environment.DRAIN_BYTES", 1_000)
    world = listening()
    world.send(Word("x" * 500))
    world.send(Word("x" * 500))
    assert world.environment.is_draining is True
    world.put(Checkpointed())
    assert not Environment.restore(world.program, world.environment.snapshot()).is_draining


def test_coroutines_of_what_is_thrown_away_are_closed() -> None:
    closed: list[str] = []

    async def nap(_: Actor, ctx: Context) -> None:
        try:
            await ctx.sleep(60)
        finally:
            closed.append("closed")
            ctx.log("this reaches nobody")

    world = listening()
    world.send(wait(nap))
    world.environment.discard()
    assert closed == ["closed"]
    world.send(go(lambda _, ctx: ctx.spawn(Other, "a")))
    world.send(wait(nap), to="a")
    world.send(go(lambda _, ctx: ctx.end("a")))
    assert closed == ["closed"]  # It could reach what lives until that is replaced.
    world.put(Checkpointed())
    assert closed == ["closed", "closed"]


# Inside the tree.


def test_what_environments_of_a_tree_say_to_each_other_is_part_of_the_event() -> None:
    def ask(app: Actor, ctx: Context) -> None:
        inner = ctx.spawn(Other, "in")
        ctx.call(inner, Word("hello"), then=Actor.then)
        ctx.call(inner, Done(), then=Actor.then)
        ctx.call(Ref(ME, "nowhere"), Word(), then=Actor.then)
        ctx.call(inner, Unknown(), then=Actor.then)
        ctx.send(inner, Unknown())
        ctx.send(Ref(ME, "nowhere"), Word())
        app.any = 5

    world = listening()
    assert world.send(go(ask)) == ()
    assert heard(world, "in") == ["hello"]
    done, unhandled, unknown, strange = heard(world)
    assert done == "Done()"
    assert "Other has no handler for Done" in unhandled
    assert "no environment 'nowhere' in test" in unknown
    assert "no tuple is called 'Unknown' here" in strange
    assert due_of(world) is None


def test_a_response_of_an_unknown_type_from_inside_is_a_failure() -> None:
    class Teller(Actor):
        @on(Done)
        def done(self, _: Done, _ctx: Context) -> Tuple:
            return Unknown("x")

    world = World(Actor, (Teller,))
    world.send(go(lambda _, ctx: ctx.call(ctx.spawn(Teller, "in"), Done(), then=Actor.then)))
    assert heard(world)[0].startswith("Failure(code='unexpected'")


def test_a_response_that_nobody_waits_for_inside_is_dropped() -> None:
    def ask(app: Actor, ctx: Context) -> None:
        ctx.call(ctx.spawn(Other, "in"), go(defer))
        app.any = None

    def defer(app: Other, ctx: Context) -> None:
        app.any = ctx.defer()
        ctx.reply(Word("one"), to=app.any)
        ctx.reply(Word("two"), to=app.any)

    world = listening()
    assert world.send(go(ask)) == ()
    assert due_of(world) is None


def test_a_conversation_inside_that_does_not_end_is_a_loop() -> None:
    def again(_: Actor, ctx: Context) -> None:
        ctx.send(ctx.me, forever)

    forever = go(again)
    with pytest.raises(LimitError, match=f"local_events_max is {LOCAL_EVENTS_MAX}"):
        listening().send(forever)


def test_a_then_of_an_environment_that_has_ended_is_not_called() -> None:
    def ask(_: Actor, ctx: Context) -> None:
        ctx.call(ctx.me, go(end), then=Actor.then)

    def end(_: Actor, ctx: Context) -> None:
        ctx.end()

    world = listening()
    world.send(go(lambda _, ctx: ctx.spawn(Other, "in")))
    world.send(go(ask), to="in")
    assert world.environment.fields("in") == {}


# What failed.


def test_a_failed_item_counts_as_taken_and_who_asked_hears_so() -> None:
    world = listening()
    effects = world.put(Failed(ANN, 1, "raised", "no", encode(item(Word(), 7, by="room"))))
    assert said(effects) == [{"is": "Failure", "code": "raised", "text": "no"}]
    assert (items_of(effects)[0].re, items_of(effects)[0].to) == (7, "room")
    assert world.environment.received(ANN) == 1
    assert world.put(Failed(ANN, 2, "raised", "no", encode(item(Word())))) == ()
    assert world.put(Failed(b"", 0, "raised", "no")) == ()
    assert world.environment.events == 3


def test_a_failed_response_ends_its_call_and_the_coroutine_that_waits() -> None:
    async def ask(_: Actor, ctx: Context) -> None:
        await ctx.call(Ref(BOB), Word())

    world = listening()
    world.send(wait(ask), ask=7)
    failed = Failed(BOB, 1, "raised", "no", encode(item(Word(), re=1)))
    effects = world.put(failed)
    assert (said(effects)[0]["code"], items_of(effects)[0].re) == ("raised", 7)
    assert (due_of(world), world.environment.is_quiescent) == (None, True)
    assert world.put(Failed(BOB, 2, "raised", "no", encode(item(Word(), re=1)))) == ()


def test_a_failed_timer_is_over() -> None:
    async def nap(_: Actor, ctx: Context) -> None:
        await ctx.sleep(2)

    world = listening()
    world.send(go(lambda _, ctx: ctx.after(1, Word())))
    world.send(wait(nap), ask=7)
    world.put(Failed(b"", 99, "raised", "no"))  # Not the one that is due.
    assert world.environment.first_timer == 1
    assert world.put(Failed(b"", 1, "raised", "no")) == ()
    assert said(world.put(Failed(b"", 2, "raised", "no")))[0]["code"] == "raised"
    assert world.environment.first_timer == 0
    assert world.put(Failed(b"", 2, "raised", "no")) == ()


def test_a_failed_event_that_was_put_off_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.environment.DRAIN_EVENTS", 1)
    world = listening()
    world.send(Wait(0), Wait(0), ask=7)
    world.send(Wait(0))
    world.put(Checkpointed())
    for expected in (["raised"], ["raised"], []):
        effects = world.put(Failed(b"", world.environment.first_timer, "raised", "no"))
        assert [one["code"] for one in said(effects)] == expected


# State.


def _busy(world: World) -> None:
    def all_of_it(app: Actor, ctx: Context) -> None:
        app.any = {"x": [1, None, 2.5, "text", b"bytes"]}
        ctx.spawn(Other, "in")
        ctx.after(5, Word("timer"))
        ctx.every(7, Word("beat"))
        ctx.call(Ref(BOB), Word("ask"), then=Actor.then)
        ctx.call("somebody", Word("ask"), then=Actor.then)
        ctx.send(Ref(BOB), Word("x"))
        ctx.put(Word("kept"), lease_s=6)
        ctx.watch(Word)

    world.send(go(all_of_it), ask=3)
    world.send(Watch(where(Word)), party=BOB, ask=1)


def _step(world: World, number: int) -> Any:
    return world.send(Put({"is": "Word"}), ask=2) if number % 2 else world.fire()


def test_a_restored_environment_goes_on_as_the_other_would() -> None:
    one, other = listening(), listening()
    _busy(one)
    _busy(other)
    other.environment = other.restored()
    for step in range(8):
        assert _step(one, step) == _step(other, step)
        assert one.environment.snapshot() == other.environment.snapshot()
    assert one.environment.fields() == other.environment.fields()
    assert one.environment.checkpoint() == other.environment.snapshot() == one.environment.snapshot()


def test_a_checkpoint_that_cannot_be_read_back_changes_nothing() -> None:
    world = listening()
    world.send(each(lambda app, _: setattr(app, "any", 3), lambda _, ctx: ctx.after(5, Word("x"))))
    world.send(go(lambda app, _: setattr(app, "heard", 5)))
    with pytest.raises(UsageError, match="does not fit its code"):
        world.environment.checkpoint()
    world.send(go(lambda app, _: setattr(app, "heard", ())))
    world.fire()
    assert heard(world) == ["x"]
    world.send(go(lambda app, _: setattr(app, "any", object())))
    with pytest.raises(UsageError, match=r"Actor\.any holds what is no data"):
        world.environment.checkpoint()


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\xa1x", encode(State())[:-1]])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptError, match="does not decode"):
        Environment.restore(listening().program, data)


def test_a_snapshot_of_another_form_is_refused() -> None:
    with pytest.raises(CorruptError, match="of format 9"):
        Environment.restore(listening().program, encode(State(format=9)))


def test_fields_are_for_people() -> None:
    world = listening()
    world.send(Word("x"))
    assert world.environment.fields() == {"heard": ["x"], "any": None}
    assert world.environment.fields("nowhere") == {}


def test_after_its_end_what_is_given_in_a_piece_of_its_own_is_refused() -> None:
    world = listening()
    world.send(go(lambda _, ctx: ctx.end()), ask=1)
    events = world.environment.events
    effects = world.send(Word("late"), Word("later"), ask=2)
    assert [one["code"] for one in said(effects)] == ["ended", "ended"]
    assert (world.environment.received(ANN), world.environment.events, heard(world)) == (3, events, [])
    assert world.put(arrived(2, item(Word("late"), 2))) == (), "it was refused before"
