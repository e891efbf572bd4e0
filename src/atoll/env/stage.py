# SPDX-License-Identifier: Apache-2.0
"""A stage: applications in memory, on a clock that stands still until it is told to go on. For their authors' tests.

    def test_the_highest_bid_wins() -> None:
        with Stage() as stage:
            auction = stage.run(Auction)
            ann, bob = stage.client(), stage.client()
            ann.call(auction, Bid("ann", 5))
            bob.call(auction, Bid("bob", 7))
            assert ann.events(Outbid) == [Outbid("bob", 7)]
            auction.crash()  # It goes on as after kill -9.
            stage.advance(60)
            assert auction.state.winner == "bob"

It is the machine that nodes run, with a journal, so that what holds here holds there. Everything follows from the
``seed`` and the calls: nothing is random, nothing waits. At the end of the ``with`` everything is replayed from its
journal, and a handler that does something else the second time fails the test.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b, sha256
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, final, overload

import msgspec

from atoll.base.errors import LimitError, UsageError, UserError
from atoll.base.ids import NODE_ID_BYTES
from atoll.base.units import SECOND_NS
from atoll.env.app import App, Program, program_of
from atoll.env.asking import encoded
from atoll.env.changes import Failure
from atoll.env.history import Snapshot, decode_body, decode_snapshot
from atoll.env.limits import CALL_TIMEOUT_S, NAME_CHARS_MAX
from atoll.env.parties import PARTY_BYTES, Ref
from atoll.env.pieces import take_all
from atoll.env.records import (
    FOUND_MAX,
    Arrived,
    Began,
    Confirmed,
    Effect,
    Fired,
    Found,
    Item,
    Note,
    Opened,
    Post,
    Record,
    Resolve,
    Stopped,
    Told,
    Upgraded,
)
from atoll.env.runner import Made, Runner
from atoll.env.tuples import Tuple
from atoll.env.walls import OPEN, Walls

__all__ = ["Actor", "Client", "Stage", "UnexpectedAnswerError"]

AppT = TypeVar("AppT", bound=App)
OtherT = TypeVar("OtherT", bound=App)
AnswerT = TypeVar("AnswerT", bound=Tuple)
EventT = TypeVar("EventT", bound=Tuple)

STEPS_MAX: Final = 100_000  # Limit. What may follow from one call of a test; more is a loop, and LimitError says so.
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)  # When the curtain rises; any date would do, but the same one for all.

_encode: Final = msgspec.msgpack.Encoder().encode
_items: Final = msgspec.msgpack.Decoder(list[Item])


class UnexpectedAnswerError(UsageError):
    """A call was answered by another type of tuple than the test wants, such as a ``Failure``.

    Args:
        answer: What came.
    """

    def __init__(self, answer: Tuple) -> None:
        super().__init__(repr(answer))
        self.answer: Final = answer


@final
class Stage:
    """Environments and clients of one test, and the time.

    Args:
        seed: From which all that is random follows; another one is another run.
        walls: What stands around handlers; nothing as a rule.

    Attributes:
        now_ns: Virtual time, ns since 1970. It moves in ``advance``, and while a ``call`` waits.
    """

    def __init__(self, seed: int = 0, walls: Walls = OPEN) -> None:
        self.now_ns = (BEGIN - EPOCH) // timedelta(microseconds=1) * 1000
        self._seed, self._walls = seed, walls
        self._made = 0
        self._cores: dict[bytes, _Core] = {}
        self._clients: dict[bytes, Client] = {}
        self._waiting: deque[tuple[bytes, Post | Resolve]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Replay everything, unless the test has failed already."""
        if kind is None:
            self.replay()

    def run(
        self, app: type[AppT], name: str = "", *, known: Iterable[type[Tuple]] = (), **fields: Any
    ) -> "Actor[AppT]":
        """Begin an environment.

        Args:
            app: Its class. All tuples and applications that its module knows are known to it, as with ``atoll run``.
            name: How others call it; else the class's name in small letters.
            known: Further types of tuples that may come.
            fields: Fields of its state to begin with.

        Raises:
            UserError: A601 or A602, the application cannot be run.
            UsageError: The name is taken.
        """
        name = name or app.__name__.lower()
        if len(name) > NAME_CHARS_MAX or any(core.name == name for core in self._cores.values()):
            raise UsageError(f"an environment called {name!r}")
        unknown = [field for field in fields if field not in app.__struct_fields__]
        if unknown:
            where = f"its fields: {', '.join(app.__struct_fields__) or 'none'}"
            sentence = f"{name} cannot begin: it has no field {unknown[0]}"
            raise UserError("A602", sentence, where=where, fix="name one of these")
        program = _program_of(app, known)
        began = Began(self._bytes(PARTY_BYTES), self._bytes(32), name, _code_of(program), _encode(fields))
        core = _Core(program, began, self._walls, lambda effects: self._perform(began.id, effects))
        core.take(began, self.now_ns)
        self._cores[began.id] = core
        self.settle()
        return Actor(self, core, app)

    def client(self) -> "Client":
        """Return a program outside, such as a person's; each has its own identity."""
        client = Client(self, self._bytes(PARTY_BYTES))
        self._clients[client.ref.party] = client
        return client

    def now(self) -> datetime:
        """Return the virtual time in UTC."""
        return EPOCH + timedelta(microseconds=self.now_ns // 1000)

    def advance(self, seconds: float) -> None:
        """Let time pass: every timer that becomes due fires, in order.

        Raises:
            LimitError: STEPS_MAX timers fired.
        """
        end_ns = self.now_ns + round(seconds * SECOND_NS)
        for _ in range(STEPS_MAX):
            if not self._fire(end_ns):
                self.now_ns = end_ns
                return
        raise LimitError("steps_max", STEPS_MAX)

    def tell(self, change: Tuple) -> None:
        """Let every environment hear of a change around it, such as ``PeerSlow``."""
        for core in self._cores.values():
            core.take(Told(msgspec.Raw(_encode(change))), self.now_ns)
        self.settle()

    def replay(self) -> None:
        """Apply all journals from their beginning once more.

        Raises:
            DivergenceError: A handler did something else this time: it looks at what is neither event nor state.
            CorruptError: One raised that did not.
        """
        for core in self._cores.values():
            core.again(None)

    # What actors and clients need.

    def settle(self) -> None:
        """Deliver everything that is on its way, and what follows from it. Calls of a test do so by themselves.

        Raises:
            LimitError: It does not end.
        """
        for _ in range(STEPS_MAX):
            if not self._waiting:
                return
            source, effect = self._waiting.popleft()
            if isinstance(effect, Post):
                self._deliver(source, effect)
            else:
                self._cores[source].take(Found(effect.number, self._named(effect.name)), self.now_ns)
        raise LimitError("steps_max", STEPS_MAX)

    def wait(self, is_done: Callable[[], bool], end_ns: int) -> bool:
        """Let time pass until something is so, or it is ``end_ns``; return whether it is."""
        while not is_done():
            if not self._fire(end_ns):
                self.now_ns = end_ns
                return False
        return True

    def carry(self, source: bytes, to: bytes, first: int, item: Item) -> None:
        """Carry one item of a client's."""
        self._waiting.append((source, Post(to, first, 1, _encode((item,)))))
        self.settle()

    def deliver_owed(self, client: "Client") -> None:
        """Deliver what a client has missed."""
        for identity, core in self._cores.items():
            for party, parcel in core.runner.environment.owed():
                if party == client.ref.party:
                    self._waiting.append((identity, Post(party, parcel.first, parcel.count, parcel.payload)))
        self.settle()

    def _fire(self, end_ns: int) -> bool:
        """Fire the first timer that is due by ``end_ns``; False: none is."""
        due = [(core.deadline_ns, core) for core in self._cores.values()]
        first = min(((at_ns, core) for at_ns, core in due if at_ns is not None), key=lambda one: one[0], default=None)
        if first is None or first[0] > end_ns:
            return False
        self.now_ns = max(self.now_ns, first[0])
        first[1].take(Fired(), self.now_ns)
        self.settle()
        return True

    def _perform(self, identity: bytes, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Post | Resolve):
                self._waiting.append((identity, effect))

    def _named(self, name: str) -> tuple[bytes, ...]:
        live = [core for core in self._cores.values() if not core.is_over]
        found = [core.began.id for core in live if name in {core.name, f"app:{core.program.main.name}"}]
        return tuple(sorted(found)[:FOUND_MAX])

    def _deliver(self, source: bytes, post: Post) -> None:
        core, sender = self._cores.get(post.party), self._cores.get(source)
        client = self._clients.get(post.party)
        if core is not None:
            core.take(Arrived(source, post.first, msgspec.Raw(post.items)), self.now_ns)
        elif client is None or client.is_away or sender is None:
            return  # It stays owed, as on a node.
        else:
            client.take(sender.program, post)
        if sender is not None:
            sender.take(Confirmed(post.party, post.first + post.count - 1), self.now_ns)

    def _bytes(self, size: int) -> bytes:
        self._made += 1
        return blake2b(b"%d|%d" % (self._seed, self._made), digest_size=size).digest()


@final
class Actor(Generic[AppT]):
    """An environment on the stage. Made by ``Stage.run``.

    Args:
        stage: Where.
        core: What it is.
        app: Its class.
    """

    def __init__(self, stage: Stage, core: "_Core", app: type[AppT]) -> None:
        self._stage, self._core, self._app = stage, core, app

    @property
    def ref(self) -> Ref:
        """How others reach it."""
        return Ref(self._core.began.id)

    def nested(self, path: str) -> Ref:
        """Return how others reach an environment that is nested in it."""
        return Ref(self._core.began.id, path)

    @property
    def state(self) -> AppT:
        """A copy of its state, as a snapshot would give it back."""
        return msgspec.convert(self._core.runner.environment.fields(), self._app)

    def state_of(self, path: str, app: type[OtherT]) -> OtherT:
        """Return a copy of the state of an environment that is nested in it."""
        return msgspec.convert(self._core.runner.environment.fields(path), app)

    @property
    def log(self) -> Sequence[str]:
        """The lines that it has logged."""
        return tuple(self._core.log)

    @property
    def failures(self) -> int:
        """How many events failed because their handler raised, since it was begun or restored."""
        return self._core.runner.failures

    @property
    def is_over(self) -> bool:
        """Whether it has ended itself, or was stopped."""
        return self._core.is_over

    def checkpoint(self) -> None:
        """Write its state down and read it back.

        Raises:
            UsageError: A coroutine waits, or a field holds what is no data.
        """
        self._core.runner.checkpoint(self._stage.now_ns)
        self._core.seal()

    def crash(self, node: str = "") -> None:
        """End it and restore it from its last checkpoint and its journal, on another node if one is named.

        Raises:
            DivergenceError: As ``Stage.replay``.
            CorruptError: As ``Stage.replay``.
        """
        self._reopen(node or self._core.node, "")

    def stop(self) -> None:
        """End it, as ``atoll env stop`` does."""
        self._core.take(Stopped(), self._stage.now_ns)
        self._stage.settle()

    def move(self, node: str) -> None:
        """Move it to another node.

        Raises:
            DivergenceError: As ``Stage.replay``.
            CorruptError: As ``Stage.replay``.
        """
        self._reopen(node, self._core.node)

    def _reopen(self, node: str, before: str) -> None:
        core = self._core
        core.runner, core.node = core.again(core.snapshot), node
        number = blake2b(node.encode(), digest_size=NODE_ID_BYTES).digest()
        core.take(Opened(number, node, core.runner.epoch + 1, before), self._stage.now_ns)
        self._stage.settle()

    def upgrade(self, app: type[OtherT], *, known: Iterable[type[Tuple]] = ()) -> "Actor[OtherT]":
        """Run another version of the class, which has the same name, from now on.

        Raises:
            UsageError: A coroutine waits, or a field holds what is no data.
            CorruptError: The state does not fit; nothing has changed.
        """
        program = _program_of(app, known)
        self._core.upgrade(program, self._stage.now_ns)
        return Actor(self._stage, self._core, app)


@final
class Client:
    """A program outside. Made by ``Stage.client``.

    Args:
        stage: Where.
        party: Its id.

    Attributes:
        ref: How environments see it.
        is_away: Whether nothing reaches it now.
    """

    def __init__(self, stage: Stage, party: bytes) -> None:
        self._stage: Final = stage
        self.ref: Final = Ref(party)
        self.is_away = False
        self._sent: dict[bytes, int] = {}
        self._asked = 0
        self._answers: dict[int, Tuple] = {}
        self._events: list[Tuple] = []

    def send(self, to: Actor[Any] | Ref, event: Tuple) -> None:
        """Send a tuple."""
        self._post(to, event, 0)

    @overload
    def call(self, to: Actor[Any] | Ref, event: Tuple, *, timeout_s: float = ...) -> Tuple: ...

    @overload
    def call(self, to: Actor[Any] | Ref, event: Tuple, answer: type[AnswerT], *, timeout_s: float = ...) -> AnswerT: ...

    def call(
        self,
        to: Actor[Any] | Ref,
        event: Tuple,
        answer: type[AnswerT] | None = None,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> AnswerT | Tuple:
        """Send a tuple and return the response; time passes until it is there.

        Args:
            to: Whom.
            event: The tuple.
            answer: Type of the response; None: whatever comes, a ``Failure`` too.
            timeout_s: How long to wait.

        Raises:
            UnexpectedAnswerError: The response is of another type.
        """
        number = self.ask(to, event)
        end_ns = self._stage.now_ns + round(timeout_s * SECOND_NS)
        if self._stage.wait(lambda: number in self._answers, end_ns):
            came = self._answers.pop(number)
        else:
            came = Failure("timeout", f"no response within {timeout_s:g} s")
        if answer is not None and not isinstance(came, answer):
            raise UnexpectedAnswerError(came)
        return came

    def ask(self, to: Actor[Any] | Ref, event: Tuple) -> int:
        """Begin a call and let no time pass; ``answer`` gives what came."""
        self._asked += 1
        self._post(to, event, self._asked)
        return self._asked

    def answer(self, number: int) -> Tuple | None:
        """Return the response to a call of ``ask``, once; None: it has not come."""
        return self._answers.pop(number, None)

    @overload
    def events(self) -> list[Tuple]: ...

    @overload
    def events(self, kind: type[EventT], /, *kinds: type[EventT]) -> list[EventT]: ...

    def events(self, *kinds: type[Tuple]) -> Sequence[Tuple]:
        """Return and forget what came unasked, oldest first; with types: only that of these types."""
        wanted = kinds or (Tuple,)
        taken = [event for event in self._events if isinstance(event, wanted)]
        self._events = [event for event in self._events if not isinstance(event, wanted)]
        return taken

    def leave(self) -> None:
        """Be away: nothing arrives, as when the program hangs or has lost its network."""
        self.is_away = True

    def come_back(self) -> None:
        """Be there again, and get what was sent meanwhile."""
        self.is_away = False
        self._stage.deliver_owed(self)

    def take(self, program: Program, post: Post) -> None:
        """Take what an environment sends. It comes once: what is delivered here is confirmed at once."""
        for item in _items.decode(post.items):
            event = program.event.decode(item.event)
            if item.re:
                self._answers[item.re] = event
            else:
                self._events.append(event)

    def _post(self, to: Actor[Any] | Ref, event: Tuple, ask: int) -> None:
        ref, raw = to if isinstance(to, Ref) else to.ref, encoded(event)
        first = self._sent[ref.party] = self._sent.get(ref.party, 0) + 1
        self._stage.carry(self.ref.party, ref.party, first, Item(msgspec.Raw(raw), ask, 0, ref.path))


@final
class _Core:
    """What an actor is, whichever version of its class it runs.

    Args:
        program: Its first code.
        began: How it began.
        walls: What stands around handlers.
        perform: Takes what is to be done.
    """

    def __init__(
        self, program: Program, began: Began, walls: Walls, perform: Callable[[Sequence[Effect]], None]
    ) -> None:
        self.program, self.began, self.name = program, began, began.name
        self._walls, self._perform = walls, perform
        self.runner = Runner(program, began.code, None, walls)
        self._programs = {began.code: program}
        self._blocks: list[Made] = []
        self.snapshot: tuple[int, Snapshot] | None = None
        self.node = "here"
        self.log: list[str] = []

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end."""
        return self.runner.is_over

    @property
    def deadline_ns(self) -> int | None:
        """When its first timer is due; None: none is set, or it is over."""
        return None if self.is_over else self.runner.environment.deadline_ns

    def take(self, record: Record, now_ns: int) -> None:
        """Apply a record, seal it, and give its effects away."""
        if self.is_over:
            return
        take_all(self.runner, record, now_ns)
        if self.runner.wants_checkpoint:
            self.runner.checkpoint(now_ns)
        self.seal()

    def seal(self) -> None:
        """Make a block of what was applied."""
        made = self.runner.block()
        assert made is not None, "a record was applied and makes no block"
        self._blocks.append(made)
        if made.snapshot is not None:
            self.snapshot = made.number, decode_snapshot(made.snapshot)
        effects = self.runner.release(made.number)
        self.log += [effect.text for effect in effects if isinstance(effect, Note)]
        self._perform(effects)

    def upgrade(self, program: Program, now_ns: int) -> None:
        """Run other code."""
        code = _code_of(program, len(self._programs))
        self.runner.upgrade(program, code, now_ns)
        self.program = self._programs[code] = program
        self.seal()

    def again(self, snapshot: tuple[int, Snapshot] | None) -> Runner:
        """Return what the journal gives, from a checkpoint or from the beginning."""
        code = self.began.code if snapshot is None else snapshot[1].code
        runner = Runner(self._programs[code], code, snapshot, self._walls)
        for made in self._blocks[runner.number :]:
            body = decode_body(made.body)
            codes = [entry.record.code for entry in body.entries if isinstance(entry.record, Upgraded)]
            runner.redo(made.number, body, self._programs[codes[0]] if codes else None)
        return runner


def _program_of(app: type[App], known: Iterable[type[Tuple]]) -> Program:
    """Return the program of a class as ``atoll run`` would make it of the class's module."""
    module: Sequence[Any] = tuple(vars(sys.modules[app.__module__]).values())
    classes = [one for one in module if isinstance(one, type)]
    nested = [one for one in classes if issubclass(one, App) and one is not App and one.__name__ != app.__name__]
    tuples = [one for one in classes if issubclass(one, Tuple) and one is not Tuple]
    return program_of(app, nested, (*tuples, *known))


def _code_of(program: Program, number: int = 0) -> bytes:
    """Return what stands for the hash of the code."""
    return sha256(f"{program.main.name} {number}".encode()).digest()
