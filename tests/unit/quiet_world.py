# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""What the tests of simulated nodes share: surroundings in which nothing happens but what a test lets happen."""

from collections.abc import Callable
from hashlib import sha256
from heapq import heappop, heappush

import msgspec

from atoll.base.errors import LinkError
from atoll.base.ids import NodeId
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.domain.recorder.messages import Answer, Append, Appended, Create, Keep, Kept, Promise, Request
from atoll.env.beginning import Wanted
from atoll.env.chain import Block, Sealer, pack_body
from atoll.env.messages import Message, decode_message
from atoll.env.orders import RecorderOrder
from atoll.env.records import Arrived, Began, Held, Item, Opened, Record
from atoll.env.runner import Made, Runner
from atoll.env.tuples import Tuple
from atoll.lab.stewards.blueprint import bundle, loaded
from atoll.lab.stewards.checks import Checks, Truth
from atoll.lab.stewards.clients import Client
from atoll.lab.stewards.node import Computer, Process
from atoll.lab.stewards.recorder import Journal, RecorderEnd, Signatures

__all__ = ["Alone", "BrokenError", "Histories", "Quiet", "answer_of", "arrived", "encode"]

encode = msgspec.msgpack.Encoder().encode


class BrokenError(Exception):
    """Something does not hold.

    Attributes:
        invariant: What should.
    """

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(invariant, detail)
        self.invariant = invariant


class Quiet:
    """Time, a network that keeps what is sent, disks that do as they are told.

    Attributes:
        now_ns: Time; it goes on with ``run`` only.
        disk: How long all disks take, ns.
        full: Computers whose disk has no room.
        draws: What is drawn next; 0 when there is none.
        spans: Times that are drawn next, ns; the shortest when there is none.
        sent: What went from whom to whom.
        left: What left a steward.
        counts: How often what happened.
        asked_for: Orders to recorders.
        put_aside: Journals that were about to be.
        looks: How often a steward was looked at.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self.disk = 0
        self.full: list[Computer] = []
        self.draws: list[int] = []
        self.spans: list[int] = []
        self.sent: list[tuple[NodeId, NodeId, Message]] = []
        self.left: list[tuple[str, Message]] = []
        self.counts: dict[str, int] = {}
        self.asked_for: list[tuple[str, RecorderOrder]] = []
        self.put_aside: list[tuple[str, bytes]] = []
        self.looks = 0
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._number = 0
        self.sealers: dict[NodeId, Sealer] = {}
        self.signatures = Signatures()

    def computer(self, index: int = 0) -> Computer:
        return Computer(self, index, self.sealers, self.signatures)

    def run(self, span_ns: int = 0) -> None:
        """Let time pass, and do what is due."""
        until_ns = self.now_ns + span_ns
        while self._heap and self._heap[0][0] <= until_ns:
            self.now_ns, _, action = heappop(self._heap)
            action()
        self.now_ns = until_ns

    # What computers and clients need.

    def after(self, span_ns: int, action: Callable[[], object]) -> None:
        self._number += 1
        heappush(self._heap, (self.now_ns + span_ns, self._number, action))

    def below(self, bound: int) -> int:
        drawn = self.draws.pop(0) if self.draws else 0
        assert drawn < bound
        return drawn

    def span_ns(self, first_ms: int, last_ms: int) -> int:
        assert first_ms <= last_ms
        return self.spans.pop(0) if self.spans else first_ms * MILLISECOND_NS

    def disk_ns(self, computer: Computer) -> int:
        assert computer.world is self
        return self.disk

    def refuses(self, computer: Computer) -> bool:
        return computer in self.full

    def send(self, source: Computer, target: NodeId, payload: bytes) -> None:
        self.sent.append((source.id, target, decode_message(payload)))

    def tally(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def leaves(self, message: Message, computer: Computer) -> None:
        self.left.append((computer.name, message))

    def looked(self, process: Process) -> None:
        assert process.computer.world is self
        self.looks += 1

    def forgets(self, computer: Computer, identity: bytes) -> None:
        self.put_aside.append((computer.name, identity))

    def asked(self, computer: Computer, order: RecorderOrder) -> None:
        self.asked_for.append((computer.name, order))

    def failed(self, invariant: str, detail: str) -> Exception:
        return BrokenError(invariant, detail)

    def seed_of(self, purpose: str) -> bytes:
        return sha256(purpose.encode()).digest()


def answer_of(world: Quiet, end: RecorderEnd, request: Request) -> Answer:
    """Ask a recorder, and let time pass until it answers."""
    answers: list[Answer | LinkError] = []
    end.ask(lambda number: msgspec.structs.replace(request, id=number), answers.append)
    world.run(world.disk)
    (answer,) = answers
    assert not isinstance(answer, LinkError)
    return answer


def arrived(party: bytes, first: int, *events: Tuple, ask: int = 0) -> Arrived:
    """Return the record of items that came, each a call if ``ask``."""
    items = [Item(msgspec.Raw(encode(event)), ask and ask + at) for at, event in enumerate(events)]
    return Arrived(party, first, msgspec.Raw(encode(items)))


class Histories:
    """Three computers, and environments whose journals a test writes, sealed by the first one.

    Nothing runs there: a runner makes the blocks, and the recorders keep them, as far as the test says.

    Attributes:
        world: What is around them.
        computers: All three.
        clients: By their party.
        checks: What is tested.
        runners: By environment; each is in the state after the last block.
    """

    def __init__(self) -> None:
        self.world = Quiet()
        self.computers = [self.world.computer(index) for index in range(3)]
        self.clients: dict[bytes, Client] = {}
        self.checks = self.fresh()
        self.runners: dict[bytes, Runner] = {}
        self._numbers: dict[bytes, int] = {}

    def fresh(self) -> Checks:
        """Return checks that know nothing yet."""
        return Checks(self.computers, self.clients, self.world.signatures, self.world.failed)

    @property
    def holders(self) -> tuple[bytes, ...]:
        return tuple(computer.id for computer in self.computers)

    def client(self, index: int) -> Client:
        """Return a program outside."""
        party = bytes([0xC0 + index]) * 16
        made = self.clients[party] = Client(self.world, index, self.computers[0], party)
        return made

    def begin(self, app: str = "Counter", name: str = "counter") -> bytes:
        """Begin an environment on all three; nothing of it is checked yet."""
        found, identity = loaded(app), name.encode().ljust(16, b".")
        self.runners[identity] = Runner(found.program, found.code)
        for computer in self.computers:
            computer.recorder.code[found.code] = bundle(app)
            end = RecorderEnd(computer.recorder)
            answer_of(self.world, end, Create(1, identity, name))
            answer_of(self.world, end, Promise(2, identity, 1, self.computers[0].id))
        began = Began(identity, bytes(32), name, found.code, encode({}))
        opened = Opened(self.computers[0].id, self.computers[0].name, 1, silent=True)
        self.write(identity, began, Held(self.holders, 3), opened)
        return identity

    def write(self, identity: bytes, *records: Record, on: int = 3) -> Made:
        """Apply records, and have the block kept on so many computers."""
        runner = self.runners[identity]
        for record in records:
            runner.take(record, 5)
        return self.seal(identity, on=on)

    def checkpoint(self, identity: bytes) -> Made:
        """Write a state down."""
        self.runners[identity].checkpoint(5)
        return self.seal(identity)

    def seal(self, identity: bytes, *, on: int = 3) -> Made:
        """Have what was applied kept on so many computers."""
        made = self.runners[identity].block()
        assert made is not None, "something was applied"
        self.keep(identity, made.body, made.events, on=on)
        return made

    def keep(self, identity: bytes, body: bytes, events: int = 0, *, on: int = 3) -> None:
        """Put a block with these records behind the last one, sealed by the first computer; whatever it says."""
        at = self.journal(identity).position
        block = Block(at.number + 1, max(1, at.epoch), at.events + 1, events, pack_body(body))
        sealer = self.computers[0].recorder.sealer
        first, *others = (RecorderEnd(computer.recorder) for computer in self.computers[:on])
        appended = answer_of(self.world, first, Append(1, identity, block))
        assert isinstance(appended, Appended)
        for end in others:
            kept = answer_of(self.world, end, Keep(1, identity, sealer, block, appended.seal))
            assert isinstance(kept, Kept)

    def commit(self, identity: bytes) -> None:
        """Let the first computer say that all its blocks are committed."""
        checks, name = self.checks, identity.rstrip(b".").decode()
        truth = checks.truths.setdefault(identity, Truth(identity, name))
        journal = self.journal(identity)
        for number in range(len(truth.heads) + 1, journal.position.number + 1):
            checks._commit(truth, journal, number, (self.computers[0], self.holders))

    def journal(self, identity: bytes, index: int = 0) -> Journal:
        return self.computers[index].recorder.journals[identity]


class Alone:
    """One computer whose process is ready, and a client that is attached to it.

    Attributes:
        world: What is around it.
        computer: It.
        client: The client.
    """

    def __init__(self) -> None:
        self.world = Quiet()
        self.computer = self.world.computer()
        self.computer.boot()
        self.client = Client(self.world, 0, self.computer, bytes([0xC0]) * 16)
        self.world.run(SECOND_NS)
        self.client.keep()

    @property
    def process(self) -> Process:
        process = self.computer.process
        assert process is not None
        return process

    def plant(self, app: str = "Counter", name: str = "counter", copies: int = 1) -> bytes:
        """Begin an environment."""
        found, planted = loaded(app), list[bytes]()
        wanted = Wanted(name, found.code, encode({}), copies)
        process = self.process
        process.keep_code(found.code, bundle(app), lambda: planted.append(process.create(wanted, found.program)))
        self.world.run(SECOND_NS)
        return planted[0]
