# SPDX-License-Identifier: Apache-2.0
"""The machine once more: what others do with its spaces, and how what is sent to a name finds its way."""

from typing import Any, ClassVar

import msgspec

from atoll.base.units import SECOND_NS
from atoll.env.app import App, on
from atoll.env.changes import (
    Matched,
    Matches,
    Placed,
    Put,
    Read,
    Resolved,
    Take,
    Watch,
)
from atoll.env.context import Context
from atoll.env.limits import (
    UNCONFIRMED_MAX,
)
from atoll.env.parties import Ref
from atoll.env.query import where
from atoll.env.records import (
    Checkpointed,
    Failed,
    Found,
    Opened,
    Resolve,
)
from atoll.env.tuples import Tuple
from tests.unit.env_world import (
    ANN,
    BOB,
    Actor,
    Unknown,
    Word,
    World,
    due_of,
    each,
    go,
    heard,
    items_of,
    listening,
    notes,
    said,
)

ENDED = b"n" * 10


# Spaces.


def test_others_use_the_space_of_an_environment_that_shares() -> None:
    world = listening()
    assert said(world.send(Watch(where(Word), 60), ask=1, party=BOB), BOB)[0]["is"] == "atoll.Watching"
    effects = world.send(Put({"is": "Word", "text": "x"}, 5), ask=1)
    assert said(effects)[0] == msgspec.to_builtins(Placed(2, world.now_ns + 5 * SECOND_NS))
    assert said(effects, BOB) == [{"is": "atoll.Matched", "watch": 1, "key": 2, "event": {"is": "Word", "text": "x"}}]
    assert said(world.send(Read(where(Word)), ask=1))[0]["tuples"] == [{"is": "Word", "text": "x"}]
    assert said(world.send(Read(where("Secret")), ask=1))[0]["code"] == "forbidden"
    assert world.send(Take(where(Word))) == ()  # Without a question there is no answer, and it happens all the same.
    assert said(world.send(Read(where(Word)), ask=1))[0]["tuples"] == []
    world.fire()
    assert heard(world) == []  # The lease was another's.


def test_an_environment_that_shares_nothing_gets_no_space() -> None:
    class Closed(App):
        shared: ClassVar[tuple[type[Tuple], ...]] = ()

        @on(Word)
        def word(self, _: Word, _ctx: Context) -> None: ...

    world = World(Closed)
    assert said(world.send(Read(where(Word)), ask=1))[0]["code"] == "forbidden"
    assert b"space" not in world.environment.snapshot()


def test_an_application_may_answer_requests_itself() -> None:
    class Own(Actor):
        @on(Read)
        def read(self, read: Read, _: Context) -> Tuple:
            return Matches((Word(f"at most {read.limit}"),))

    assert said(World(Own).send(Read(where("Any"), 3), ask=1))[0]["tuples"] == [{"is": "Word", "text": "at most 3"}]


def test_what_matched_comes_as_its_type_from_everywhere() -> None:
    world = listening()
    world.send(Matched(1, 2, Word("far away")))
    world.send(go(lambda _, ctx: ctx.call(Ref(BOB), Read(where(Word)), then=Actor.then)))
    world.respond(1, Matches((Word("y"), Unknown("z"))))
    assert heard(world) == [
        "put far away",
        "Matches(tuples=(Word(text='y'), {'is': 'Unknown', 'text': 'z'}), more=False)",
    ]


# Names.


def _searches(effects: Any) -> list[tuple[int, str]]:
    return [(effect.number, effect.name) for effect in effects if isinstance(effect, Resolve)]


def test_a_name_is_looked_up_and_one_or_all_get_the_tuple() -> None:
    world = listening()
    world.send(go(lambda _, ctx: ctx.send("app:X/in", Word("one"))))
    world.send(go(lambda _, ctx: ctx.publish("app:X", Word("all"))))
    world.send(go(lambda _, ctx: ctx.send("app:X", Word("other"))))
    effects = world.put(Found(1, (ANN, BOB)))
    assert (said(effects), said(effects, BOB), items_of(effects, BOB)[0].to) == (
        [],
        [{"is": "Word", "text": "one"}],
        "in",
    )
    effects = world.put(Found(2, (ANN, BOB)))
    assert said(effects) == said(effects, BOB) == [{"is": "Word", "text": "all"}]
    effects = world.put(Found(3, (ANN, BOB)))
    assert said(effects, BOB) == [{"is": "Word", "text": "other"}]


def test_a_name_that_nobody_has_fails_calls_and_is_noted_for_what_was_sent() -> None:
    world = listening()
    world.send(each(lambda _, ctx: ctx.send("gone", Word()), lambda _, ctx: ctx.call("gone", Word(), then=Actor.then)))
    assert notes(world.put(Found(1))) == ["not sent: nobody is called gone"]
    world.put(Found(2))
    assert heard(world) == ["Failure(code='unknown', text='nobody is called gone')"]
    assert due_of(world) is None


def test_who_has_a_name_can_be_asked_first() -> None:
    world = listening()
    for name in ("x/in", "gone", "slow"):
        world.send(go(lambda _, ctx, name=name: ctx.resolve(name, timeout_s=9, then=Actor.then)))  # type: ignore[misc]
    world.put(Found(1, (ANN, BOB)))
    world.put(Found(2))
    world.fire()
    assert world.put(Found(3, (BOB,))) == ()  # Too late.
    resolved, unknown, late = heard(world)
    assert resolved == str(Resolved((Ref(ANN, "in"), Ref(BOB, "in"))))
    assert (unknown[:22], late[:22]) == ("Failure(code='unknown'", "Failure(code='timeout'")


def test_what_is_not_known_yet_is_asked_again_by_the_next_node() -> None:
    world = listening()
    world.send(each(lambda _, ctx: ctx.send("a", Word()), lambda _, ctx: ctx.call("b", Word())))
    world.put(Checkpointed())
    assert _searches(world.put(Opened(ENDED, "fra", 2))) == [(1, "a"), (2, "b")]
    world.put(Found(1, (BOB,)))
    assert _searches(world.put(Opened(ENDED, "fra", 3, silent=True))) == [(2, "b")]


def test_a_full_channel_fails_a_call_by_name_and_is_noted_for_what_was_sent() -> None:
    def fill(_: Actor, ctx: Context) -> None:
        for _n in range(UNCONFIRMED_MAX):
            ctx.send(Ref(BOB), Word())
        ctx.send("bob", Word())
        ctx.call("bob", Word(), then=Actor.then)

    world = listening()
    world.send(go(fill))
    assert notes(world.put(Found(1, (BOB,))))[0].startswith("not sent: to " + BOB.hex())
    world.put(Found(2, (BOB,)))
    assert heard(world)[0].startswith("Failure(code='queue-full'")


def test_a_failed_search_ends_its_call() -> None:
    world = listening()
    world.send(each(lambda _, ctx: ctx.call("a", Word()), lambda _, ctx: ctx.send("a", Word())))
    for number in (1, 1, 2):
        assert world.put(Failed(b"", 0, "raised", "no", search=number)) == ()
    assert (due_of(world), _searches(world.put(Opened(ENDED, "fra", 2)))) == (None, [])
