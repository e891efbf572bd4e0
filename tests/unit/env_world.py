# SPDX-License-Identifier: Apache-2.0
"""What the tests of environments share: how records are made by hand, and how effects are looked at."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, ClassVar

import msgspec

from atoll.base.units import SECOND_NS
from atoll.env.app import App, Program, on, program_of
from atoll.env.changes import LeaseLost, Matched, Moved, PeerSlow, Restored, Started
from atoll.env.context import Context
from atoll.env.environment import Environment
from atoll.env.history import decode_body, decode_snapshot
from atoll.env.pieces import take_all
from atoll.env.records import Arrived, Began, Effect, Fired, Item, Note, Post, Record
from atoll.env.runner import Made, Runner
from atoll.env.tuples import Tuple

ME, ANN, BOB = b"m" * 16, b"a" * 16, b"b" * 16
SEED, CODE = b"s" * 32, b"c" * 32

encode = msgspec.msgpack.Encoder().encode
_items = msgspec.msgpack.Decoder(list[Item])


def raw(event: object) -> msgspec.Raw:
    return msgspec.Raw(encode(event))


def item(event: object, ask: int = 0, *, re: int = 0, to: str = "", by: str = "") -> Item:
    return Item(raw(event), ask, re, to, by)


def arrived(first: int, *items: Item, party: bytes = ANN) -> Arrived:
    return Arrived(party, first, raw(list(items)))


def began(**fields: Any) -> Began:
    return Began(ME, SEED, "test", CODE, encode(fields))


def items_of(effects: Iterable[Effect], party: bytes = ANN) -> list[Item]:
    """Return what was sent to a party."""
    return [
        one for post in effects if isinstance(post, Post) and post.party == party for one in _items.decode(post.items)
    ]


def said(effects: Iterable[Effect], party: bytes = ANN) -> list[Any]:
    """Return the tuples that were sent to a party, as dicts."""
    return [msgspec.msgpack.decode(one.event) for one in items_of(effects, party)]


def notes(effects: Iterable[Effect]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, Note)]


class World:
    """One environment without a runner: what a handler raises comes out of ``put``.

    Args:
        main: Class of the outermost environment.
        nested: Classes that it may spawn.
        known: Further types of tuples.
        fields: Of its state.
    """

    def __init__(
        self, main: type[App], nested: Sequence[type[App]] = (), known: Sequence[type[Tuple]] = (), **fields: Any
    ) -> None:
        self.program = program_of(main, nested, known)
        self.environment = Environment.blank(self.program)
        self.now_ns = 1_000 * SECOND_NS
        self.sent: dict[bytes, int] = {}
        self.began = self.put(began(**fields))

    def put(self, record: Record) -> Sequence[Effect]:
        return self.environment.handle(record, self.now_ns)

    def send(self, *events: object, party: bytes = ANN, ask: int = 0, to: str = "") -> Sequence[Effect]:
        """Let a party send tuples; each asks with its number if ``ask``."""
        first = self.sent.get(party, 0) + 1
        self.sent[party] = first + len(events) - 1
        return self.put(
            arrived(first, *(item(event, ask and ask + at, to=to) for at, event in enumerate(events)), party=party)
        )

    def respond(self, number: int, event: object, party: bytes = BOB) -> Sequence[Effect]:
        first = self.sent[party] = self.sent.get(party, 0) + 1
        return self.put(arrived(first, item(event, re=number), party=party))

    def fire(self) -> Sequence[Effect]:
        """Let time go on to what is due next."""
        at_ns = self.environment.deadline_ns
        assert at_ns is not None, "nothing is due"
        self.now_ns = max(self.now_ns, at_ns)
        return self.put(Fired())

    def restored(self) -> Environment:
        return Environment.restore(self.program, self.environment.snapshot())


class Recorded:
    """One environment with a runner, and its journal."""

    def __init__(
        self, main: type[App], nested: Sequence[type[App]] = (), known: Sequence[type[Tuple]] = (), **fields: Any
    ) -> None:
        self.program: Program = program_of(main, nested, known)
        self.runner = Runner(self.program, CODE)
        self.now_ns = 1_000 * SECOND_NS
        self.sent: dict[bytes, int] = {}
        self.blocks: list[Made] = []
        self.take(began(**fields))

    @property
    def environment(self) -> Environment:
        environment = self.runner.environment
        assert isinstance(environment, Environment)
        return environment

    def take(self, record: Record) -> list[Effect]:
        """Apply a record, seal it, and return what may leave."""
        take_all(self.runner, record, self.now_ns)
        return self.seal()

    def seal(self) -> list[Effect]:
        made = self.runner.block()
        if made is None:
            return []
        self.blocks.append(made)
        return self.runner.release(made.number)

    def send(self, *events: object, party: bytes = ANN, ask: int = 0, to: str = "") -> list[Effect]:
        first = self.sent.get(party, 0) + 1
        self.sent[party] = first + len(events) - 1
        return self.take(
            arrived(first, *(item(event, ask and ask + at, to=to) for at, event in enumerate(events)), party=party)
        )

    def fire(self) -> list[Effect]:
        at_ns = self.environment.deadline_ns
        assert at_ns is not None, "nothing is due"
        self.now_ns = max(self.now_ns, at_ns)
        return self.take(Fired())

    def checkpoint(self) -> None:
        self.runner.checkpoint(self.now_ns)
        self.seal()

    def replayed(self, base: int = 0) -> Runner:
        """Return what the journal gives, from its beginning or from the snapshot of block ``base``."""
        snapshot = None
        if base:
            stored = self.blocks[base - 1].snapshot
            assert stored is not None
            snapshot = base, decode_snapshot(stored)
        runner = Runner(self.program, CODE, snapshot)
        for made in self.blocks[base:]:
            runner.redo(made.number, decode_body(made.body))
        return runner

    def records(self) -> list[Record]:
        return [entry.record for made in self.blocks for entry in decode_body(made.body).entries]


# An application that does what a test says.

Script = Callable[[Any, Context], Any]
AsyncScript = Callable[[Any, Context], Awaitable[Any]]
_scripts: list[Any] = []


class Go(Tuple, frozen=True):
    """Do this, as a handler."""

    script: int


class Wait(Tuple, frozen=True):
    """Do this, as a coroutine."""

    script: int


class Word(Tuple, frozen=True):
    text: str = ""


class Actor(App):
    """Does what it is told. Words that it hears are in its state."""

    shared: ClassVar[tuple[type[Tuple], ...]] = (Word,)
    heard: tuple[str, ...] = ()
    any: Any = None

    @on(Go)
    def go(self, go: Go, ctx: Context) -> Any:
        answer = _scripts[go.script](self, ctx)
        return answer if isinstance(answer, Tuple) else None

    @on(Wait)
    async def wait(self, wait: Wait, ctx: Context) -> Any:
        return await _scripts[wait.script](self, ctx)

    @on(Word)
    def word(self, word: Word, _: Context) -> None:
        self.heard = (*self.heard, word.text)

    @on(Matched)
    def matched(self, matched: Matched, _: Context) -> None:
        self.heard = (*self.heard, f"put {matched.event.text}")

    @on(LeaseLost)
    def lost(self, lost: LeaseLost, _: Context) -> None:
        self.heard = (*self.heard, f"lost {lost.key}")

    def then(self, answer: Tuple, _: Context) -> None:
        self.heard = (*self.heard, str(answer))

    def then_raise(self, answer: Tuple, _: Context) -> None:
        raise ValueError(str(answer))

    async def then_wait(self, answer: Tuple, _: Context) -> None:
        raise AssertionError(str(answer))


class Other(Actor):
    """The same, under another name."""


class Listener(Actor):
    """Hears of changes."""

    @on(Started, Restored, Moved, PeerSlow)
    def change(self, change: Tuple, _: Context) -> None:
        self.heard = (*self.heard, str(change))


class Unknown(Tuple, frozen=True):
    text: str = ""


def go(script: Script) -> Go:
    _scripts.append(script)
    return Go(len(_scripts) - 1)


def each(*scripts: Script) -> Go:
    """Return the order to do several things, each as a script."""
    return go(lambda app, ctx: [script(app, ctx) for script in scripts])


def wait(script: AsyncScript) -> Wait:
    _scripts.append(script)
    return Wait(len(_scripts) - 1)


def heard(world: World | Recorded, path: str = "") -> list[str]:
    return list(world.environment.fields(path)["heard"])


def listening(main: type[App] = Actor) -> World:
    """Return a world that knows the other applications, too."""
    return World(main, (Other, Listener))


def due_of(world: World) -> int | None:
    return world.environment.deadline_ns
