# SPDX-License-Identifier: Apache-2.0
"""One computer of the simulation: its recorder, its clocks, and the process that has the steward, life after life.

``Process`` does what ``domain.server`` does live, with the same steward, clerk and archive.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol, final

from atoll.base.errors import CorruptError, LinkError, ProjectError, UsageError, WireError
from atoll.base.ids import NodeId
from atoll.base.units import SECOND_NS
from atoll.domain.clerk import Clerk
from atoll.domain.recorder import messages as to
from atoll.domain.recorder.messages import RefusedError
from atoll.domain.reviving import Archive, MissingCodeError
from atoll.domain.warming import Warming
from atoll.env.app import Program
from atoll.env.beginning import Wanted
from atoll.env.chain import Sealer
from atoll.env.graves import Barred
from atoll.env.holding import Holding
from atoll.env.holding.events import HoldingInput
from atoll.env.keepers import Peer
from atoll.env.messages import (
    Carried,
    CodeGiven,
    CodeWanted,
    Message,
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
    RecorderOrder,
    Rest,
    Restore,
    Say,
    Spare,
    StoreSnapshot,
    TellNode,
    TellSession,
    Told,
)
from atoll.env.steward import Steward
from atoll.lab.stewards.recorder import Later, RecorderEnd, Signatures, SimRecorder

__all__ = ["GIVEN_UP", "Computer", "Process", "Session", "Surroundings"]

GIVEN_UP: Final = "given up"  # What is counted when an environment says that something may be lost.

FETCH_NS: Final = 2 * SECOND_NS
FETCHES_MAX: Final = 15  # Limit. As in ``domain.server``.
RETRY_NS: Final = SECOND_NS
IDLE_NS: Final = 60 * SECOND_NS


class Session(Protocol):
    """A client's end of a connection."""

    def heard(self, message: Carried | Receipt | Refusal) -> None:
        """Take a message."""
        ...

    def lost(self) -> None:
        """The connection has ended."""
        ...


class Surroundings(Protocol):
    """What a computer needs of the world."""

    now_ns: int

    def after(self, span_ns: int, action: Callable[[], object]) -> None:
        """Do this later."""
        ...

    def below(self, bound: int) -> int:
        """Draw a number."""
        ...

    def disk_ns(self, computer: "Computer") -> int:
        """Return how long the disk takes."""
        ...

    def refuses(self, computer: "Computer") -> bool:
        """Return whether the disk refuses."""
        ...

    def send(self, source: "Computer", target: NodeId, payload: bytes) -> None:
        """Carry bytes to another computer."""
        ...

    def tally(self, what: str) -> None:
        """Count what happened."""
        ...

    def leaves(self, message: Message, computer: "Computer") -> None:
        """Look at what leaves a steward."""
        ...

    def looked(self, process: "Process") -> None:
        """Look at a steward after each input."""
        ...

    def forgets(self, computer: "Computer", identity: bytes) -> None:
        """Look at a journal that is about to be put aside."""
        ...

    def asked(self, computer: "Computer", order: RecorderOrder) -> None:
        """Take note of what a recorder is asked for."""
        ...

    def failed(self, invariant: str, detail: str) -> Exception:
        """Return the failure to raise."""
        ...

    def seed_of(self, purpose: str) -> bytes:
        """Return 32 bytes."""
        ...


@final
class Computer:
    """One computer.

    Args:
        world: What is around it.
        index: Which.
        sealers: Of all computers, filled by and by.
        signatures: Of all computers.

    Attributes:
        process: What runs; None: nothing.
        paused: It gets no input.
        wall_ns: What its clock shows more than the world's.
        full: Its disk has no room.
        stalled_ns: Nothing is written until then.
        members: Who is there, as its overlay has it.
    """

    def __init__(self, world: Surroundings, index: int, sealers: dict[NodeId, Sealer], signatures: Signatures) -> None:
        self.world: Final = world
        self.index: Final = index
        self.id: Final = NodeId(bytes([index + 1]) * 10)
        self.name: Final = f"node-{index}"
        seed = world.seed_of(f"recorder {index}") + world.seed_of(f"node {index}")
        self.recorder: Final = SimRecorder(self.id, seed, self, signatures)
        self.sealers: Final = sealers
        sealers[self.id] = self.recorder.sealer
        self.process: Process | None = None
        self.boots = 0
        self.paused = False
        self._waiting: list[Callable[[], object]] = []
        self.wall_ns = 0
        self.full = False
        self.stalled_ns = 0
        self.members: dict[NodeId, Peer] = {}

    # As the disk of the recorder.

    def disk_ns(self) -> int:
        """Return how long the disk takes."""
        return self.world.disk_ns(self)

    def refuses(self) -> bool:
        """Return whether the disk refuses."""
        return self.world.refuses(self)

    def after(self, span_ns: int, action: Callable[[], object]) -> None:
        """Do this later."""
        self.world.after(span_ns, action)

    def below(self, bound: int) -> int:
        """Draw a number."""
        return self.world.below(bound)

    # Life.

    def now(self) -> Moment:
        """Return the time by both clocks."""
        return Moment(self.world.now_ns, BEGIN_NS + self.world.now_ns + self.wall_ns)

    def boot(self) -> None:
        """Start the process, if none runs."""
        if self.process is None:
            self.boots += 1
            self.process = Process(self)
            self.process.spawn(self.process.start())

    def kill(self, *, power: bool) -> None:
        """End the process; with the power the recorder goes too."""
        process, self.process = self.process, None
        self._waiting.clear()
        self.paused = False
        if process is not None:
            process.end()
        if power:
            self.recorder.cut_power()

    def put(self, action: Callable[["Process"], object]) -> None:
        """Give an input to the process that runs now, when it runs."""
        process = self.process
        if process is None:
            return

        def turn() -> None:
            if self.process is process:
                action(process)

        if self.paused:
            self._waiting.append(turn)
        else:
            turn()

    def resume(self) -> None:
        """Go on after a pause: all that waited comes at once."""
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn()


BEGIN_NS: Final = 1_800_000_000 * SECOND_NS  # When the world begins, by clocks that are right.


@final
class Process:
    """One life of the process that has the steward.

    Attributes:
        steward: Read only.
        seen: Up to which block of each environment the world has looked.
        is_ready: It knows what the recorder has, and listens; it may still be taking that up.
        failures: What did not work, for people.
    """

    def __init__(self, computer: Computer) -> None:
        self.computer: Final = computer
        self._world: Final = computer.world
        seed = self._world.seed_of(f"boot {computer.boots} of {computer.index}")
        self._seed: Final = seed
        self.steward: Final = Steward(computer.id, computer.name, seed)
        self.end_of_recorder: Final = RecorderEnd(computer.recorder)
        self.archive: Final = Archive(self.end_of_recorder)
        self._warming: Final = Warming(
            self.archive, self.end_of_recorder.environments, self._holding, sleep=lambda _: asyncio.sleep(0)
        )
        self._clerk: Final = Clerk(
            self.end_of_recorder, computer.recorder.sealer, self._knows, self._recorded, self._holding
        )
        self.seen: dict[bytes, int] = {}
        self.is_ready = False
        self.failures: list[str] = []
        self.outcomes: dict[int, Told] = {}
        self._sessions: dict[int, Session] = {}
        self._last_session = 0
        self._tasks: dict[int, Coroutine[Any, Any, None]] = {}
        self._last_task = 0
        self._armed_ns: int | None = None
        self._is_stirring = self._is_answered = False
        self._fetching: dict[bytes, int] = {}

    # Coroutines.

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this beside everything else."""
        self._last_task += 1
        self._tasks[self._last_task] = work
        self._step(self._last_task)

    def _step(self, number: int) -> None:
        work = self._tasks.get(number)
        if work is None:
            return
        while True:
            try:
                waits: Later[object] | None = work.send(None)
            except StopIteration:
                self._tasks.pop(number, None)
                return
            if waits is not None:
                waits.then(lambda: self.computer.put(lambda _: self._step(number)))
                return

    def end(self) -> None:
        """End everything."""
        self.end_of_recorder.is_closed = True
        tasks, self._tasks = self._tasks, {}
        for work in tasks.values():
            work.close()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.lost()

    async def start(self) -> None:
        """Find out which environments the recorder has, then listen, and take up one after the other."""
        computer, found = self.computer, list[to.Recorded]()
        listed = await self.end_of_recorder.listed()
        for identity in listed.ended:
            self.steward.graves.bury(identity)
        for recorded in listed.environments:
            if recorded.is_blank and recorded.promised_to in {b"", computer.id}:
                self._let_go(recorded.environment)
            else:
                self.steward.expected.expect(recorded.environment, recorded.name if recorded.at.number else "")
                found.append(recorded)
        self.is_ready = True
        self.steward.members(computer.members, computer.now())
        self.stir()
        for recorded in found:
            try:
                options, facts = await self.archive.options(recorded, computer.id, self._seed)
                self.steward.adopt(facts, options, computer.now())
            except (ProjectError, ValueError) as error:
                self.failures.append(f"{recorded.name} is not run: {error}")
                self.steward.expected.take(recorded.environment)
                self.steward.graves.bar(Barred(recorded.environment, recorded.name, str(error)))
            self.stir()
        self.steward.all_here(computer.now())
        self.stir()

    def _let_go(self, identity: bytes) -> None:
        """Have a journal deleted of which nothing was ever kept: it was begun, and nobody was told that it runs."""
        self.end_of_recorder.ask(lambda number: to.Forget(number, identity, ended=False), _ignored)

    # Inputs.

    def members(self, members: Mapping[NodeId, Peer]) -> None:
        """Learn who is there."""
        if self.is_ready:
            self.steward.members(members, self.computer.now())
            self.stir()

    def from_node(self, node: NodeId, payload: bytes) -> None:
        """Take bytes of another node."""
        if not self.is_ready:
            return
        message = decode_message(payload)
        match message:
            case CodeWanted(code):
                self.spawn(self._give_code(node, code))
            case CodeGiven(code, content):
                self.keep_code(code, content)
            case _:
                self.steward.heard(node, message, self.computer.now())
        self.stir()

    def attach(self, party: bytes, session: Session) -> int:
        """Let a client in; return the number of its session, 0: not now."""
        if not self.is_ready:
            return 0
        self._last_session += 1
        self._sessions[self._last_session] = session
        self.steward.attach(party, self._last_session, self.computer.now())
        self.stir()
        return self._last_session

    def from_client(self, session: int, message: Carried | Receipt) -> None:
        """Take a message of a client."""
        self.steward.heard(session, message, self.computer.now())
        self.stir()

    def command(self, action: Callable[[Steward, Moment], object]) -> bool:
        """Ask the steward for something; return whether it can be done."""
        try:
            action(self.steward, self.computer.now())
        except (UsageError, CorruptError):
            return False
        finally:
            self.stir()
        return True

    def create(self, wanted: Wanted, program: Program) -> bytes:
        """Begin an environment whose code is kept."""
        identity = self.steward.create(wanted, program, self.computer.now())
        self.stir()
        return identity

    def keep_code(self, code: bytes, content: bytes, then: Callable[[], object] | None = None) -> None:
        """Have code kept; then do something, unless it cannot be."""

        def told(answer: to.Answer | LinkError) -> None:
            if isinstance(answer, to.Done):
                self.computer.put(turn)

        def turn(process: "Process") -> None:
            if process is self and then is not None:
                then()

        self.end_of_recorder.ask(lambda number: to.KeepCode(number, code, content), told)

    # Orders.

    def stir(self) -> None:
        """Do what the steward wants done."""
        if self._is_stirring:
            return
        self._is_stirring = True
        while self._is_stirring:
            self._is_answered = False
            self._world.looked(self)
            orders = self.steward.orders()
            for forget in [order for order in orders if isinstance(order, Forget)]:
                self._world.forgets(self.computer, forget.id)
            for order in orders:
                self._obey(order)
            self._is_stirring = self._is_answered
        self._arm()

    def _obey(self, order: Order) -> None:
        ask = self.end_of_recorder.ask
        match order:
            case AskRecorder(identity, asked):
                self._clerk.obey(identity, asked)
                self._world.asked(self.computer, asked)
            case TellSession(session, message):
                self._world.leaves(message, self.computer)
                if session in self._sessions:
                    self._sessions[session].heard(decode_routed(encode_message(message)))
            case TellNode(node, message):
                self._world.leaves(message, self.computer)
                self._world.send(self.computer, node, encode_message(message))
            case Create(identity, name):
                self._create(identity, name)
            case Await() | Rest():
                raise AssertionError("all handlers run in this process")
            case Prepare(identity):
                self.spawn(self._prepare(identity))
            case Spare(identity, runner):
                self._warming.put(identity, runner)
            case Restore():
                self.spawn(self._restore(order))
            case StoreSnapshot(identity, at, snapshot):
                ask(lambda number: to.KeepSnapshot(number, identity, at, snapshot), self._stored)
            case FetchCode(code, node):
                self._fetch(code, node)
            case Forget(identity):
                ask(lambda number: to.Forget(number, identity), _ignored)
                self.steward.forget(identity)
                self.seen.pop(identity, None)
            case Say(_, text) if text.startswith("not known"):
                self._world.tally(GIVEN_UP)
            case Say():
                pass
            case Told(command):
                self.outcomes[command] = order

    def _stored(self, answer: to.Answer | LinkError) -> None:
        """Look at what a recorder says to a state that a steward has it keep."""
        if isinstance(answer, to.Refused) and answer.code is to.Code.DIGEST:
            raise self._world.failed(
                "a state that is stored is that of its block", f"{self.computer.name}: {answer.words}"
            )

    def _create(self, identity: bytes, name: str) -> None:
        """Have a journal begun; again and again while the disk refuses."""

        def told(answer: to.Answer | LinkError) -> None:
            if isinstance(answer, to.Refused) and answer.code != to.Code.EXISTS:
                self.computer.after(RETRY_NS, lambda: self.computer.put(again))

        def again(process: "Process") -> None:
            if process is self and identity in self.steward.hosted:
                self._create(identity, name)

        self.end_of_recorder.ask(lambda number: to.Create(number, identity, name), told)

    async def _prepare(self, identity: bytes) -> None:
        failed = ""
        try:
            await self._warming.make(identity)
        except (ProjectError, ValueError) as error:
            failed = str(error)
            if isinstance(error, MissingCodeError):
                self._miss(identity, error)
        self.steward.prepared(identity, failed, self.computer.now())
        self.stir()

    def _miss(self, identity: bytes, error: MissingCodeError) -> None:
        hosted = self.steward.hosted.get(identity)
        for node in () if hosted is None else hosted.holding.holders:
            if node != self.computer.id:
                self._world.send(self.computer, NodeId(node), encode_message(CodeWanted(error.code)))

    def _holding(self, identity: bytes) -> Holding | None:
        hosted = self.steward.hosted.get(identity)
        return None if hosted is None else hosted.holding

    async def _restore(self, order: Restore) -> None:
        failed, runner = "", None
        try:
            runner = await self._warming.take(order.id, order.number)
            self._world.tally("restored" if runner is None else "restored beforehand")
            if runner is None:
                found = await self.end_of_recorder.environments()
                recorded = next(one for one in found if one.environment == order.id)
                runner = await self.archive.runner(recorded, order.number)
        except (ProjectError, StopIteration, ValueError) as error:
            failed = str(error) or "it is not there"
            self.failures.append(failed)
            if isinstance(error, MissingCodeError):
                self._miss(order.id, error)
        self.steward.restored(order.id, order.epoch, runner, failed, self.computer.now())
        self.stir()

    async def _give_code(self, node: NodeId, code: bytes) -> None:
        try:
            content = await self.end_of_recorder.read_code(code)
        except (RefusedError, LinkError):
            return
        self._world.send(self.computer, node, encode_message(CodeGiven(code, content)))

    def _fetch(self, code: bytes, node: NodeId) -> None:
        tries = self._fetching[code] = self._fetching.get(code, 0) + 1
        if code in self.computer.recorder.code or tries > FETCHES_MAX:
            self._fetching.pop(code)
            return
        self._world.send(self.computer, node, encode_message(CodeWanted(code)))

        def again(process: "Process") -> None:
            if process is self:
                self._fetch(code, node)

        self.computer.after(FETCH_NS, lambda: self.computer.put(again))

    def _recorded(self, identity: bytes, event: HoldingInput) -> None:
        def turn(process: "Process") -> None:
            if process is self:
                self.steward.recorded(identity, event, self.computer.now())
                self._is_answered = True
                self.stir()

        self.computer.put(turn)

    def _knows(self, sealer: Sealer) -> bool:
        known = self.computer.sealers.get(NodeId(sealer.node))
        return known is not None and known.signing_key == sealer.signing_key

    # Time.

    def _arm(self) -> None:
        now, wait_ns = self.computer.now(), IDLE_NS
        if (due_ns := self.steward.deadline_ns) is not None:
            wait_ns = min(wait_ns, due_ns - now.ns)
        if (due_ns := self.steward.wall_deadline_ns) is not None:
            wait_ns = min(wait_ns, due_ns - now.wall_ns)
        at_ns = now.ns + max(0, wait_ns)
        if self._armed_ns is None or at_ns < self._armed_ns:
            self._armed_ns = at_ns
            self.computer.after(max(0, wait_ns), lambda: self.computer.put(lambda _: self._tick(at_ns)))

    def _tick(self, at_ns: int) -> None:
        if self._armed_ns != at_ns or self.computer.process is not self:
            return
        self._armed_ns = None
        self.steward.tick(self.computer.now())
        self.stir()


def decode_routed(payload: bytes) -> Carried | Receipt | Refusal:
    """Return a message for a client.

    Raises:
        WireError: It is none.
    """
    message = decode_message(payload)
    if not isinstance(message, Carried | Receipt | Refusal):
        raise WireError("message for a client")
    return message


def _ignored(_: object) -> None:
    """Nobody waits for it."""
