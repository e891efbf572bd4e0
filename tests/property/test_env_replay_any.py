# SPDX-License-Identifier: Apache-2.0
"""Any program of records: its journal gives the same state from everywhere, and a channel delivers exactly once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.base.units import SECOND_NS
from atoll.env.app import App, intercept, on, program_of
from atoll.env.changes import Failure, LeaseLost, Matched, PeerSlow, Put, Read, Request, Take, Watch
from atoll.env.channel import Channel
from atoll.env.context import Context
from atoll.env.environment import Environment
from atoll.env.history import decode_body, decode_snapshot
from atoll.env.parties import Ref
from atoll.env.pieces import take_all
from atoll.env.query import where
from atoll.env.records import Arrived, Began, Confirmed, Fired, Forgotten, Found, Item, Opened, Record, Told
from atoll.env.runner import Made, Runner
from atoll.env.tuples import Tuple

ME, CODE, PARTIES = b"m" * 16, b"c" * 32, (b"a" * 16, b"b" * 16, b"c" * 16)
encode = msgspec.msgpack.Encoder().encode


class Do(Tuple, frozen=True):
    """Do these things, in order."""

    what: tuple[str, ...] = ()


class Wait(Tuple, frozen=True):
    """Do these things as a coroutine that waits between any two of them."""

    what: tuple[str, ...] = ()


class Note(Tuple, frozen=True):
    text: str = ""


class Unheard(Tuple, frozen=True):
    """Of a type that the program does not know."""


class Node(App):
    """Does what a list of words says; everything that it does depends on its state, and everything changes it."""

    shared = (Note,)
    count: int = 0
    heard: list[str] = msgspec.field(default_factory=list[str])

    @on(Do)
    def do(self, do: Do, ctx: Context) -> Tuple | None:
        for word in do.what:
            _WORDS[word](self, ctx)
        return Note(str(self.count)) if self.count % 2 else None

    @on(Wait)
    async def wait(self, wait: Wait, ctx: Context) -> Tuple | None:
        for word in wait.what:
            _WORDS[word](self, ctx)
            if self.count % 3:
                self.hear(str(await ctx.call(_party(self, ctx), Note(word), timeout_s=2)))
            else:
                await ctx.sleep(1)
        return Note("waited")

    @on(Note, Matched, LeaseLost, PeerSlow)
    def note(self, event: Tuple, _: Context) -> None:
        self.hear(str(event))

    def then(self, answer: Tuple, ctx: Context) -> None:
        self.hear(str(answer))
        if self.count % 5 == 4:
            raise ValueError(ctx.token().hex())

    def hear(self, text: str) -> None:
        self.count += 1
        self.heard = [*self.heard[-5:], text[:60]]


class Inner(Node):
    @intercept
    def outside(self, request: Request, _: Context) -> Tuple:
        self.count += 1
        return Failure("forbidden") if self.count % 2 else request


def _party(app: Node, ctx: Context) -> Ref | str:
    to: tuple[Ref | str, ...] = (Ref(PARTIES[0]), Ref(PARTIES[1]), Ref(ME, "in"), Ref(ME), "name", "app:Node/in")
    return to[(app.count + ctx.event_number) % len(to)]


def _fail(_: Node, ctx: Context) -> None:
    raise ValueError(ctx.token().hex())


def _count(app: Node, _: Context) -> None:
    app.count += 1


_WORDS: dict[str, Callable[[Any, Context], object]] = {
    "count": _count,
    "draw": lambda app, ctx: app.hear(str(ctx.random.random()) + ctx.token().hex()),
    "send": lambda app, ctx: ctx.send(_party(app, ctx), Note("sent")),
    "all": lambda _, ctx: ctx.publish("app:Node", Note("published")),
    "call": lambda app, ctx: ctx.call(_party(app, ctx), Do(("count",)), timeout_s=2, then=Node.then),
    "resolve": lambda _, ctx: ctx.resolve("name", timeout_s=1, then=Node.then),
    "after": lambda app, ctx: ctx.after(app.count % 3, Note("timer")),
    "bad": lambda app, ctx: ctx.after(app.count % 3, Do(("fail",))),
    "every": lambda app, ctx: ctx.cancel(app.count) or ctx.every(1, Do(("draw",))),
    "spawn": lambda _, ctx: ctx.spawn(Inner, "in", count=7),
    "end": lambda _, ctx: ctx.end("in"),
    "put": lambda app, ctx: ctx.put(Note(str(app.count)), lease_s=app.count % 4 or None),
    "take": lambda app, ctx: app.hear(str(ctx.take(Note))),
    "read": lambda app, ctx: app.hear(str(ctx.read(Note, limit=3)) + str(ctx.count(Note))),
    "watch": lambda _, ctx: ctx.watch(Note, lease_s=3),
    "delete": lambda app, ctx: app.hear(f"{ctx.delete(app.count)} {ctx.unwatch(app.count)} {ctx.renew(1, lease_s=2)}"),
    "log": lambda app, ctx: ctx.log(str(app.count)),
    "fail": _fail,
}

words = st.lists(st.sampled_from(sorted(_WORDS)), max_size=5).map(tuple)
events: st.SearchStrategy[Tuple] = st.one_of(
    st.builds(Do, words),
    st.builds(Do, words),
    st.builds(Wait, words),
    st.builds(Note),
    st.sampled_from(
        (
            Put({"is": "Note", "text": "theirs"}, 2),
            Read(where(Note)),
            Take(where(Note)),
            Watch(where(Note), 3),
            Unheard(),
            PeerSlow("x", slow=True, reason=""),
        )
    ),
)


def _item(event: Tuple, ask: int, re: int, to: str) -> Item:
    return Item(msgspec.Raw(encode(event)), ask, re, to)


def _opened(epoch: int) -> Opened:
    return Opened(b"n" * 10, "ams", epoch)


items = st.builds(
    _item,
    events,
    st.sampled_from((0, 1, 2)),
    st.sampled_from((0, 0, 0, 1, 2, 3, 4)),
    st.sampled_from(("", "", "in", "gone")),
)


@dataclass
class Arrive:
    """Items of a party, beginning ``ahead`` of what is expected: 0 in order, less repeated, more behind a gap."""

    party: int
    ahead: int
    items: list[Item]


steps = st.one_of(
    st.builds(
        Arrive, st.integers(0, 2), st.sampled_from((0, 0, 0, 0, -1, -3, 1)), st.lists(items, min_size=1, max_size=4)
    ),
    st.builds(Arrive, st.integers(0, 2), st.just(0), st.lists(items, min_size=1, max_size=4)),
    st.just("fire"),
    st.just("block"),
    st.just("checkpoint"),
    st.builds(Confirmed, st.sampled_from(PARTIES), st.integers(0, 6)),
    st.builds(Forgotten, st.sampled_from(PARTIES), st.integers(0, 6)),
    st.builds(Found, st.integers(1, 6), st.sampled_from(((), PARTIES[:1], PARTIES[:2], (ME,)))),
    st.builds(_opened, st.integers(1, 9)),
    st.just(Told(msgspec.Raw(encode(PeerSlow("x", slow=True, reason=""))))),
)


@dataclass
class Run:
    """A runner and everything that it has made."""

    runner: Runner
    now_ns: int = 1_000 * SECOND_NS
    made: list[Made] = field(default_factory=list[Made])

    def block(self) -> None:
        made = self.runner.block()
        if made is not None:
            self.made.append(made)

    def step(self, step: Any, gap_ns: int) -> None:
        environment = self.runner.environment
        self.now_ns += gap_ns
        if isinstance(step, Arrive):
            party = PARTIES[step.party]
            first = max(1, environment.received(party) + 1 + step.ahead)
            take_all(self.runner, Arrived(party, first, msgspec.Raw(encode(step.items))), self.now_ns)
        elif step == "fire":
            self.now_ns = max(self.now_ns, environment.deadline_ns or 0)
            self.runner.take(Fired(), self.now_ns)
        elif step == "block":
            self.block()
        elif step == "checkpoint":
            if environment.is_quiescent:
                self.runner.checkpoint(self.now_ns)
                self.block()
        else:
            record: Record = step
            self.runner.take(record, self.now_ns)


PROGRAM = program_of(Node, (Inner,))


def _begun() -> Run:
    run = Run(Runner(PROGRAM, CODE))
    run.runner.take(Began(ME, b"s" * 32, "node", CODE, encode({})), run.now_ns)
    run.block()
    return run


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(steps, st.sampled_from((0, 0, SECOND_NS // 2, 3 * SECOND_NS))), min_size=10, max_size=60))
def test_a_journal_gives_the_same_state_from_everywhere(program: list[tuple[Any, int]]) -> None:
    run = _begun()
    for step, gap_ns in program:
        run.step(step, gap_ns)
        if run.runner.environment.is_quiescent:
            between = run.runner.environment.snapshot()
            assert Environment.restore(PROGRAM, between).snapshot() == between
    for _ in range(200):  # Every coroutine ends, because everything that one can wait for does.
        if run.runner.environment.is_quiescent:
            break
        run.step("fire", 0)
    run.block()
    state = run.runner.environment.snapshot()
    assert Environment.restore(PROGRAM, state).snapshot() == state
    stored = [(made.number, decode_snapshot(made.snapshot)) for made in run.made if made.snapshot is not None]
    for start in (None, *stored):
        again = Runner(PROGRAM, CODE, start)
        for made in run.made[again.number :]:
            again.redo(made.number, decode_body(made.body))
        assert (again.environment.snapshot(), again.digest) == (state, run.runner.digest)
        assert again.environment.owed() == run.runner.environment.owed()


@dataclass
class Wire:
    """Two channels and what is between them, which loses, repeats and reorders."""

    sender: Channel = field(default_factory=Channel)
    receiver: Channel = field(default_factory=Channel)
    sent: list[int] = field(default_factory=list[int])
    taken: list[int] = field(default_factory=list[int])
    frames: list[tuple[int, bytes, int]] = field(default_factory=list[tuple[int, bytes, int]])
    receipts: list[int] = field(default_factory=list[int])

    def send(self, count: int) -> None:
        batch = list(range(len(self.sent), len(self.sent) + count))
        self.sent += batch
        parcel = self.sender.send(count, encode(batch), 0)
        self.frames.append((parcel.first, parcel.payload, self.sender.settled))

    def resend(self) -> None:
        self.frames += [(parcel.first, parcel.payload, self.sender.settled) for parcel in self.sender.outbox]

    def arrive(self, first: int, payload: bytes, settled: int) -> None:
        batch: list[int] = msgspec.msgpack.decode(payload)
        if first <= max(self.receiver.received, settled) + 1:
            skip = self.receiver.news(first, len(batch))
            self.taken += batch[skip:]
            self.receiver.received += len(batch) - skip
        self.receipts.append(self.receiver.received)


wire_steps = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 3)),
    st.tuples(st.sampled_from(("resend", "restore")), st.just(0)),
    st.tuples(st.sampled_from(("arrive", "repeat", "lose", "confirm", "confirm twice")), st.integers(0, 1_000)),
)


@given(st.lists(wire_steps, max_size=60))
def test_a_channel_delivers_exactly_once_and_in_order(program: list[tuple[str, int]]) -> None:
    wire = Wire()
    for what, number in program:
        at = number % len(wire.frames) if wire.frames else 0
        match what:
            case "send":
                wire.send(number)
            case "resend":
                wire.resend()
            case "restore":  # Both ends as they are after a crash: what is in their state, and nothing else.
                wire.sender = msgspec.msgpack.decode(encode(wire.sender), type=Channel)
                wire.receiver = msgspec.msgpack.decode(encode(wire.receiver), type=Channel)
            case "arrive" if wire.frames:
                wire.arrive(*wire.frames.pop(at))
            case "repeat" if wire.frames:
                wire.arrive(*wire.frames[at])
            case "lose" if wire.frames:
                del wire.frames[at]
            case "confirm" if wire.receipts:
                wire.sender.confirm(wire.receipts.pop(number % len(wire.receipts)))
            case "confirm twice" if wire.receipts:
                wire.sender.confirm(wire.receipts[number % len(wire.receipts)])
            case _:
                pass
        assert wire.taken == wire.sent[: len(wire.taken)]
        assert wire.sender.unconfirmed >= len(wire.sent) - len(wire.taken)
    wire.frames.clear()
    wire.resend()  # Once nothing is lost any more, all of it arrives.
    for frame in wire.frames:
        wire.arrive(*frame)
    assert wire.taken == wire.sent
    wire.sender.confirm(wire.receiver.received)
    assert wire.sender.outbox == []
