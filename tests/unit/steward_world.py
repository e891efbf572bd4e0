# SPDX-License-Identifier: Apache-2.0
"""Stewards of some nodes, with recorders that answer at once unless they are told not to, and messages that arrive."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from atoll.base.ids import NodeId
from atoll.base.units import SECOND_NS
from atoll.core.machine import Tick
from atoll.env.app import App, Program, on, program_of
from atoll.env.beginning import Wanted
from atoll.env.context import Context
from atoll.env.environment import Environment
from atoll.env.facts import Facts
from atoll.env.history import decode_body
from atoll.env.holding import Block, HoldingOptions
from atoll.env.holding import encode as encode_letter
from atoll.env.holding import events as on_holding
from atoll.env.holding.messages import HoldingMessage
from atoll.env.hosted import Hosted
from atoll.env.keepers import Peer
from atoll.env.messages import (
    Answered,
    Asked,
    Carried,
    Letter,
    Message,
    Notice,
    Receipt,
    Refusal,
    decode_message,
    encode_message,
)
from atoll.env.orders import (
    AskRecorder,
    Await,
    Create,
    FetchCode,
    Forget,
    Moment,
    Order,
    Prepare,
    Rest,
    Restore,
    Say,
    Spare,
    StoreSnapshot,
    TellNode,
    TellSession,
    Told,
)
from atoll.env.parties import PARTY_BYTES
from atoll.env.places import HandlerFailedError, Inline, UnansweredError
from atoll.env.records import Held, Item, Record
from atoll.env.runner import Runner
from atoll.env.steward import Steward
from atoll.env.tuples import Tuple
from atoll.env.walls import OPEN, Walls

CODE, OTHER_CODE = b"c" * 32, b"d" * 32
WALL_NS = 1_000_000 * SECOND_NS
ANN, BOB = b"ann".ljust(16), b"bob".ljust(16)
Kind = TypeVar("Kind")
_items = msgspec.msgpack.Decoder(list[Item])
encode = msgspec.msgpack.Encoder().encode


class Add(Tuple):
    n: int


class Sum(Tuple):
    n: int


class Boom(Tuple):
    pass


class Later(Tuple):
    s: float


class Quit(Tuple):
    pass


class Hang(Tuple):
    pass


class Spoil(Tuple):
    pass


class Seek(Tuple):
    name: str
    n: int = 1


class Counter(App):
    n: int = 0
    odd: Any = None

    @on(Add)
    def add(self, add: Add, ctx: Context) -> Sum:
        self.n += add.n
        ctx.log(f"n is {self.n}")
        return Sum(self.n)

    @on(Boom)
    def boom(self, _: Boom, __: Context) -> None:
        raise ValueError("boom")

    @on(Later)
    def later(self, later: Later, ctx: Context) -> None:
        ctx.after(later.s, Add(100))

    @on(Quit)
    def end(self, _: Quit, ctx: Context) -> None:
        ctx.end()

    @on(Hang)
    async def hang(self, _: Hang, ctx: Context) -> None:
        await ctx.sleep(60)

    @on(Spoil)
    def spoil(self, _: Spoil, __: Context) -> None:
        self.odd = object()

    @on(Seek)
    def seek(self, seek: Seek, ctx: Context) -> None:
        ctx.send(seek.name, Add(seek.n))


PROGRAM = program_of(Counter, known=[Sum])


def node_id(name: str) -> NodeId:
    return NodeId(name.encode().ljust(10, b"."))


ONE, TWO, THREE = (node_id(name) for name in ("one", "two", "three"))
OTHER = b"o" * 16


def items(*events: Tuple, ask: int = 0) -> bytes:
    """Encode items; each asks with its number if ``ask``."""
    return encode([Item(msgspec.Raw(encode(event)), ask and ask + at) for at, event in enumerate(events)])


class Elsewhere:
    """A place whose handlers run elsewhere: what was begun while ``is_slow`` is done when that is over."""

    walls = None

    def __init__(self, program: Program = PROGRAM) -> None:
        self._inline = Inline(program)
        self.is_slow = self.is_closed = False
        self.failure: HandlerFailedError | None = None
        self.running: tuple[Environment, Record, int] | None = None

    @property
    def name(self) -> str:
        return self._inline.name

    def blank(self) -> Any:
        return _Away(self, self._inline.blank())

    def restore(self, snapshot: bytes) -> Any:
        return _Away(self, self._inline.restore(snapshot))

    def remake(self, snapshot: bytes | None) -> Any:
        return self.blank() if snapshot is None else self.restore(snapshot)

    def answered(self) -> Any:
        assert self.running is not None
        if self.is_slow:
            raise UnansweredError
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        environment, record, now_ns = self.running
        return environment.handle(record, now_ns)

    def close(self) -> None:
        self.is_closed = True


class _Away:
    """The environment as it is seen from here."""

    def __init__(self, place: Elsewhere, environment: Any) -> None:
        self._place, self._environment = place, environment

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def handle(self, record: Record, now_ns: int) -> Any:
        if self._place.is_slow:
            self._place.running = self._environment, record, now_ns
            raise UnansweredError
        return self._environment.handle(record, now_ns)


class Place:
    """The steward of one node, and the processes around it."""

    def __init__(self, name: str = "one", walls: Walls = OPEN) -> None:
        self.name, self.own = name, node_id(name)
        self.steward = Steward(self.own, name, name.encode().ljust(32, b"."), walls)
        self.now_ns = 100 * SECOND_NS
        self.kept: dict[bytes, list[Block]] = {}
        self.promises: dict[bytes, tuple[int, bytes]] = {}
        self.programs: dict[bytes, Program] = {CODE: PROGRAM}
        self.orders: list[Order] = []
        self.out: list[tuple[NodeId, Message]] = []
        self.waiting: list[AskRecorder] = []
        self.restoring: list[Restore] = []
        self.is_full = False  # The disk is.
        self.is_slow = False  # The recorder does not answer now.
        self.unready = ""  # Why nothing can be restored beforehand.
        self.is_restoring = True  # What is to be restored is, at once.

    @property
    def now(self) -> Moment:
        return Moment(self.now_ns, WALL_NS + self.now_ns)

    def got(self, kind: type[Kind]) -> list[Kind]:
        """Return the orders of one kind so far."""
        return [order for order in self.orders if isinstance(order, kind)]

    def said(self, session: int) -> list[Message]:
        """Return what a client was told so far."""
        return [order.message for order in self.got(TellSession) if order.session == session]

    def responses(self, session: int) -> list[dict[str, Any]]:
        """Return the tuples that a client got, each once."""
        found: dict[int, dict[str, Any]] = {}
        for message in self.said(session):
            if isinstance(message, Carried):
                for number, item in enumerate(_items.decode(message.items), message.first):
                    found[number] = msgspec.msgpack.decode(item.event)
        return [found[number] for number in sorted(found)]

    def settle(self) -> None:
        """Obey all orders, and those that come of that."""
        while orders := self.steward.orders():
            for order in orders:
                self.orders.append(order)
                self._obey(order)

    def _obey(self, order: Order) -> None:
        match order:
            case AskRecorder():
                if self.is_slow:
                    self.waiting.append(order)
                else:
                    self.record(order)
            case Create(identity):
                self.kept.setdefault(identity, [])
            case Prepare(identity):
                self.steward.prepared(identity, self.unready, self.now)
            case Restore():
                if self.is_restoring:
                    self.restore(order)
                else:
                    self.restoring.append(order)
            case Forget(identity):
                self.kept.pop(identity, None)
                self.steward.forget(identity)
            case TellNode(node, message):
                self.out.append((node, message))
            case Spare(_, runner):
                runner.close()
            case Await() | Rest() | FetchCode() | StoreSnapshot() | TellSession() | Say() | Told():
                pass

    def answer(self) -> None:
        """Let the recorder answer again."""
        self.is_slow = False
        waiting, self.waiting = self.waiting, []
        for order in waiting:
            self.record(order)
        self.settle()

    def record(self, asked: AskRecorder) -> None:
        """Let the recorder answer this."""
        answer = self._kept(self.kept.setdefault(asked.id, []), asked)
        if answer is not None:
            self.steward.recorded(asked.id, answer, self.now)

    def _kept(self, blocks: list[Block], asked: AskRecorder) -> on_holding.HoldingInput | None:
        match asked.order:
            case on_holding.Seal(epoch, number, _, _, body, holders):
                if self.is_full or number != len(blocks) + 1:
                    return on_holding.SealFailed(number, epoch, "full")
                blocks.append(Block(number, epoch, holders, body))
                return on_holding.Sealed(number, epoch, body)
            case on_holding.Keep(number, epoch, holders, sealed):
                if self.is_full or number != len(blocks) + 1:
                    return on_holding.KeepFailed(number, epoch, "full")
                blocks.append(Block(number, epoch, holders, sealed))
                return on_holding.Kept(number, epoch)
            case on_holding.CutFrom(number):
                del blocks[number - 1 :]
                return None
            case on_holding.Left():
                blocks.clear()
                return None
            case on_holding.KeepPromise(epoch, node):
                self.promises[asked.id] = epoch, node
                return on_holding.PromiseKept(epoch, node)
            case on_holding.ReadBlocks(node, first):
                return on_holding.BlocksRead(node, first, tuple(blocks[first - 1 :]))
            case on_holding.ReadSnapshot(node):
                return on_holding.SnapshotRead(node, 0, 0, (), 0, 0, b"")
            case on_holding.KeepSnapshot(number, epoch):
                return on_holding.SnapshotFailed(number, epoch, "content")

    def runner(self, identity: bytes, number: int) -> Runner:
        """Apply the journal."""
        runner = Runner(PROGRAM, CODE, None, OPEN)
        for block in self.kept[identity][:number]:
            runner.redo(block.number, decode_body(block.sealed), self.programs.get(OTHER_CODE))
        return runner

    def restore(self, order: Restore, failed: str = "") -> None:
        """Answer a ``Restore``."""
        runner = None if failed else self.runner(order.id, order.number)
        self.steward.restored(order.id, order.epoch, runner, failed, self.now)
        self.settle()

    def records(self, identity: bytes) -> list[Record]:
        """Return what is in a journal."""
        return [entry.record for block in self.kept[identity] for entry in decode_body(block.sealed).entries]

    # What comes in.

    def run(self, name: str = "count", copies: int = 1, at: Elsewhere | None = None, **fields: Any) -> bytes:
        """Begin an environment."""
        wanted = Wanted(name, CODE, encode(fields), copies)
        identity = self.steward.take_up(self.steward.begin(wanted, at or PROGRAM, self.now), self.now)
        self.settle()
        return identity

    def again(self, before: "Place") -> None:
        """Take up what another process of this node has left behind."""
        self.kept = before.kept
        for identity, blocks in before.kept.items():
            options = HoldingOptions(
                self.own,
                b"s" * 32,
                promise=before.promises.get(identity, (0, b"")),
                blocks=tuple((block.number, block.epoch, _holders(block)) for block in blocks),
            )
            hosted = before.steward.hosted[identity]
            facts = Facts(identity, hosted.facts.name, "Counter", CODE, hosted.facts.origin)
            self.steward.adopt(facts, options, self.now)
        self.settle()

    def hosted(self, identity: bytes) -> Hosted:
        return self.steward.hosted[identity]

    def counter(self, identity: bytes) -> dict[str, Any]:
        """Return the state of what runs."""
        runner = self.hosted(identity).runner
        assert runner is not None
        return runner.environment.fields()

    def hear(self, origin: int | NodeId, message: Message) -> None:
        self.steward.heard(origin, message, self.now)
        self.settle()

    def attach(self, party: bytes = ANN, session: int = 1) -> None:
        self.steward.attach(party, session, self.now)
        self.settle()

    def send(self, identity: bytes, first: int, *events: Tuple, party: bytes = ANN, ask: int = 0) -> None:
        """Let a client, whose session is 1, say something."""
        self.hear(1, Carried(party, identity, first, items(*events, ask=ask)))

    def members(self, **members: Peer) -> None:
        self.steward.members({node_id(name): peer for name, peer in members.items()}, self.now)
        self.settle()

    def feed(self, identity: bytes, event: on_holding.HoldingInput) -> None:
        self.steward.recorded(identity, event, self.now)
        self.settle()

    def tick(self, after_ns: int = 0) -> None:
        self.now_ns += after_ns
        self.steward.tick(self.now)
        self.settle()

    def holding_tick(self, identity: bytes) -> None:
        self.feed(identity, Tick())


def _holders(block: Block) -> tuple[bytes, ...]:
    """Return who holds from this block on, as what is in it says; empty: as before."""
    held = [entry.record for entry in decode_body(block.sealed).entries if isinstance(entry.record, Held)]
    return held[-1].nodes if held else ()


class Notes:
    """Walls that only remember what was noted, and how much of it in one turn."""

    def __init__(self) -> None:
        self.notes: list[tuple[bytes, int, int]] = []
        self.since_ns: int = -1
        self.patience: int = 1_000_000
        self.left: int = self.patience

    def enter(self, *, is_again: bool = False) -> None:
        pass

    def leave(self) -> None:
        pass

    def about(self, environment: bytes, party: bytes, first: int, count: int) -> None:
        assert len(environment) == PARTY_BYTES
        self.notes.append((party, first, count))
        self.left -= 1

    def is_late(self, since_ns: int) -> bool:
        """Be late when so many were noted in a turn as ``patience`` says."""
        if since_ns != self.since_ns:
            self.since_ns, self.left = since_ns, self.patience
        return self.left <= 0


def started(**options: Any) -> tuple[Place, bytes]:
    """Return a node with one environment, and a client."""
    place = Place()
    identity = place.run(**options)
    place.attach()
    return place, identity


def receipts(place: Place, session: int = 1) -> list[tuple[int, bool]]:
    return [(one.upto, one.again) for one in place.said(session) if isinstance(one, Receipt)]


def refusals(place: Place, session: int = 1) -> list[str]:
    return [one.code for one in place.said(session) if isinstance(one, Refusal)]


def notice(
    identity: bytes = OTHER,
    owner: bytes = TWO,
    *,
    epoch: int = 1,
    name: str = "other",
    holders: tuple[bytes, ...] = (),
    ended: bool = False,
) -> Notice:
    return Notice(identity, epoch, owner, name, "Other", CODE, holders or (owner,), ended)


def letter(message: HoldingMessage, identity: bytes = OTHER) -> Letter:
    return Letter(encode_letter(identity, message))


def told_nodes(place: Place) -> list[tuple[bytes, Any]]:
    return [(order.node, order.message) for order in place.got(TellNode)]


class Group:
    """Some nodes that hear each other, unless they are cut off."""

    def __init__(self, *names: str) -> None:
        self.places = {node_id(name): Place(name) for name in names}
        self.cut: set[NodeId] = set()
        self.loses: Callable[[Message], bool] = lambda _: False
        self.meet()

    def __getitem__(self, name: str) -> Place:
        return self.places[node_id(name)]

    def meet(self) -> None:
        """Tell everybody who is there, and who is cut off."""
        for own, place in self.places.items():
            others = {node: other for node, other in self.places.items() if node != own}
            place.steward.members(
                {node: Peer(one.name, lost=node in self.cut) for node, one in others.items()}, place.now
            )
        self.flow()

    def flow(self) -> None:
        """Deliver all messages, and those that come of that."""
        for _ in range(10_000):
            for place in self.places.values():
                place.settle()
            on_their_way = [(place, *one) for place in self.places.values() for one in place.out]
            if not on_their_way:
                return
            for place in self.places.values():
                place.out = []
            for source, node, message in on_their_way:
                if self.loses(message):
                    continue
                if source.own not in self.cut and node not in self.cut and node in self.places:
                    target = self.places[node]
                    target.steward.heard(source.own, decode_message(encode_message(message)), target.now)
        raise AssertionError("messages without end")

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        """Let time pass until something is so."""
        end_ns = min(place.now_ns for place in self.places.values()) + int(seconds * SECOND_NS)
        while not condition():
            nexts = [at_ns for place in self.places.values() if (at_ns := _due_ns(place)) is not None]
            now_ns = max(min(nexts), *(place.now_ns for place in self.places.values()))
            assert now_ns < end_ns, "not in time"
            for place in self.places.values():
                place.now_ns = now_ns
                place.steward.tick(place.now)
            self.flow()

    def owner(self, identity: bytes) -> Place | None:
        """Return who runs it, of those that are not cut off; None: nobody."""
        found = [
            place
            for node, place in self.places.items()
            if node not in self.cut
            and (hosted := place.steward.hosted.get(identity)) is not None
            and hosted.runner is not None
        ]
        return found[0] if len(found) == 1 else None


def _due_ns(place: Place) -> int | None:
    times = [place.steward.deadline_ns]
    wall_ns = place.steward.wall_deadline_ns
    times.append(None if wall_ns is None else wall_ns - WALL_NS)
    return min((at_ns for at_ns in times if at_ns is not None), default=None)


__all__ = [
    "ANN",
    "BOB",
    "CODE",
    "ONE",
    "OTHER",
    "OTHER_CODE",
    "PROGRAM",
    "THREE",
    "TWO",
    "WALL_NS",
    "Add",
    "Answered",
    "Asked",
    "Boom",
    "Counter",
    "Elsewhere",
    "Group",
    "Hang",
    "Later",
    "Letter",
    "Notes",
    "Place",
    "Quit",
    "Receipt",
    "Refusal",
    "Seek",
    "Spoil",
    "Sum",
    "encode",
    "items",
    "letter",
    "node_id",
    "notice",
    "receipts",
    "refusals",
    "started",
    "told_nodes",
]
