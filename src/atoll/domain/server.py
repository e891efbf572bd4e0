# SPDX-License-Identifier: Apache-2.0
"""The process that runs environments: a steward between clients, other nodes, the recorder and control.

It carries and waits; the steward decides. Clients come by a socket that only this user can open, other nodes through
the packet device and, with what is large, through control: both know who they are. Everything is sent again by whoever
misses an answer, so an end at any moment loses nothing that was confirmed.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import Final, final

from atoll.base.errors import LimitError, LinkError, ProjectError, UserError, WireError
from atoll.base.ids import GroupId, NodeId
from atoll.base.units import SECOND_NS
from atoll.domain.adoption import Adoption, Victim
from atoll.domain.clerk import Clerk
from atoll.domain.codes import Codes
from atoll.domain.commands import Commands
from atoll.domain.datagrams import DatagramDoor
from atoll.domain.errands import Errands, answer_of
from atoll.domain.frames import FrameConnection
from atoll.domain.guest.guests import Guests
from atoll.domain.guest.machine import GuestPlace
from atoll.domain.heads import Heads
from atoll.domain.limits import LISTING_BYTES_MAX, REST_S_MAX, RETAINED_BYTES, SESSIONS_MAX, TURN_S_MAX, WARM_S
from atoll.domain.messages import (
    Alive,
    ClientMessage,
    Command,
    ControlMessage,
    Datagrams,
    Find,
    Found,
    FromNode,
    Hello,
    Members,
    MemberSeen,
    Outcome,
    ServerMessage,
    ToNode,
    Welcome,
    client_codec,
    control_codec,
    server_codec,
)
from atoll.domain.oddities import Oddities
from atoll.domain.recorder.client import RecorderClient
from atoll.domain.recorder.messages import Code, Done, RefusedError
from atoll.domain.reviving import Archive, MissingCodeError
from atoll.domain.shipping import Shipper
from atoll.domain.turns import Turn
from atoll.domain.warming import Warming
from atoll.env.chain import Sealer
from atoll.env.holding import Holding
from atoll.env.holding.events import Checkpointed, HoldingInput
from atoll.env.keepers import Peer
from atoll.env.messages import (
    Answered,
    Asked,
    CodeGiven,
    CodeWanted,
    HeadTold,
    Message,
    StateGiven,
    StateOffered,
    StateWanted,
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
from atoll.env.steward import Steward
from atoll.env.walls import OPEN, Walls

__all__ = ["Server", "now"]

log: Final = logging.getLogger("atoll.envs")

TIMER_SLACK_S: Final = 0.0005  # So much too late a timer may go off.
CREATE_AGAIN_S: Final = 1.0  # How soon a journal that could not be begun is tried again.
IDLE_S: Final = 60.0  # Longest wait without a look at the clocks, which may have been set.


def now() -> Moment:
    """Return the time by both clocks."""
    return Moment(monotonic_ns(), time_ns())


@final
class Server:
    """The environments of one node, live.

    Args:
        recorder: The recorder.
        sealer: What it seals as.
        name: Name of this node.
        seed: 32 bytes of entropy.
        walls: What stands around handlers.

    Attributes:
        steward: What decides; read only.
        guests: The processes of environments that have one of their own.
        archive: What the recorder keeps.
        adoption: Takes that up.
        ended: Completes when the server cannot go on.
    """

    def __init__(self, recorder: RecorderClient, sealer: Sealer, name: str, seed: bytes, walls: Walls = OPEN) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self.recorder, self.sealer, self.name = recorder, sealer, name
        self._walls: Final = walls
        self.steward: Final = Steward(NodeId(sealer.node), name, seed, walls)
        self.guests: Final = Guests()
        self.archive: Final = Archive(recorder, self.guests.place)
        self.warming: Final = Warming(self.archive, recorder.environments, self._holding, walls)
        self._cooling: dict[bytes, asyncio.TimerHandle] = {}
        self.adoption: Final = Adoption(self, seed, now)
        self._clerk: Final = Clerk(recorder, sealer, self.knows, self._recorded, self._holding)
        self._shipper: Final = Shipper(self, self._clerk.parcels)
        self._heads: Final = Heads(self, self._clerk)
        self._codes: Final = Codes(self)
        self._errands: Final = Errands(self)
        self.members: dict[NodeId, MemberSeen] = {}
        self._former: set[tuple[bytes, bytes]] = set()
        self._sessions: dict[int, FrameConnection] = {}
        self._parties: dict[int, bytes] = {}
        self._numbers: dict[FrameConnection, int] = {}
        self._told: dict[FrameConnection, None] = {}  # Just now.
        self._last_session = 0
        self._control: FrameConnection | None = None
        self._door: asyncio.Server | None = None
        self._datagrams: DatagramDoor | None = None
        self.commands: Final = Commands(self, now)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._odd_clients: Final = Oddities(log, "a client")
        self._odd_nodes: Final = Oddities(log, "another node")
        self._early: list[tuple[NodeId, bytes]] = []  # Of other nodes, before it is known what is here.
        self._early_bytes = 0
        self._odd_control: Final = Oddities(log, "control")
        self._is_stirring = False
        self._turn: Final = Turn(self._stir)
        self.ended: Final[asyncio.Future[str]] = self._loop.create_future()

    # Life.

    async def start(self, path: Path, before: Victim | None = None) -> None:
        """Take up every environment that the recorder has, and let clients in as soon as it is known which there are.

        Orders of control are taken before that, and beside it.

        Args:
            path: Of the unix socket for clients.
            before: What the process before this one did not survive; None: nothing.

        Raises:
            LinkError: The recorder is lost.
        """
        await self.adoption.list()
        early, self._early = self._early, []
        for node, payload in early:
            self._from_node(node, payload)
        self.stir()
        await self._listen(path)
        self.spawn(self._heads.run())
        await self.adoption.run(before)

    def let_go(self, identity: bytes) -> None:
        """Have a journal deleted in which nothing is."""
        self._have(partial(self.recorder.forget, identity, ended=False), "files are not deleted")

    async def beat(self) -> None:
        """Say every second that the loop turns."""
        while True:
            if self._control is not None:
                counts = Datagrams() if self._datagrams is None else self._datagrams.counts
                self._say(self._control, Alive(self.steward.running, counts))
            await asyncio.sleep(1)

    async def _listen(self, path: Path) -> None:
        """Serve clients at a unix socket that only this user can open."""
        path.unlink(missing_ok=True)
        self._door = await self._loop.create_unix_server(
            partial(FrameConnection, self._from_client, self._client_made, self._client_lost, self._stir), path
        )
        path.chmod(0o600)

    def controlled(self, connection: FrameConnection) -> None:
        """Take orders by this connection from now on."""
        self._control = connection

    def speak_through(self, device: socket.socket, group: GroupId) -> None:
        """Send small messages to other nodes by this connection to the packet device from now on."""
        addresses = group, NodeId(self.sealer.node)
        self._datagrams = DatagramDoor(
            device, addresses, take=self._from_node, carry=self._through_control, taken=self._stir
        )

    async def stop(self) -> None:
        """End what is under way; what is sealed stays."""
        if self._door is not None:
            self._door.close()
        if self._datagrams is not None:
            self._datagrams.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in tuple(self._sessions.values()):
            connection.close()
        self.warming.close()
        self.guests.close()

    # Clients.

    def _client_made(self, connection: FrameConnection) -> None:
        if len(self._sessions) >= SESSIONS_MAX:
            connection.close()
            return
        self._last_session += 1
        self._sessions[self._last_session] = connection
        self._numbers[connection] = self._last_session

    def _client_lost(self, connection: FrameConnection) -> None:
        session = self._numbers.pop(connection, None)
        if session is None:
            return
        del self._sessions[session]
        party = self._parties.pop(session, None)
        if party is not None:
            self.steward.detach(party, session)

    def _from_client(self, connection: FrameConnection, frame: bytes) -> None:
        session = self._numbers.get(connection)
        if session is None:
            return
        message = client_codec.decode(frame)
        try:
            self._take_client(connection, session, message)
        except WireError:
            raise
        except Exception as error:  # noqa: BLE001  A supervisor: what one client says costs no other anything.
            self._odd_clients.note(message, error)

    def _take_client(self, connection: FrameConnection, session: int, message: ClientMessage) -> None:
        match message:
            case Hello(party):
                if session in self._parties:
                    raise WireError("a second hello")
                self._parties[session] = party
                self._say(connection, Welcome(self.name))
                self.steward.attach(party, session, now())
            case Find(number, name):
                meant = self.steward.named(name)
                notice = self.steward.directory.find(meant)
                where = "" if notice is None else self.name_of(NodeId(notice.owner))
                self._say(connection, Found(number, meant, where))
            case _:
                self.steward.heard(session, message, now())

    @staticmethod
    def _say(connection: FrameConnection, message: ServerMessage) -> None:
        connection.send(server_codec.encode(message))

    # Control.

    def from_control(self, connection: FrameConnection, frame: bytes) -> None:
        """Take a frame of control's. Nothing that is in it raises: the server ends with this connection."""
        message: ControlMessage | None = None
        try:
            message = control_codec.decode(frame)
            match message:
                case Members(members, slow):
                    self._learn(members, slow)
                case FromNode(node, payload):
                    self._from_node(NodeId(node), payload)
                case Command():
                    self.spawn(self._command(connection, message))
        except Exception as error:  # noqa: BLE001  As above.
            self._odd_control.note(message, error)
        self.stir()

    def _learn(self, members: tuple[MemberSeen, ...], slow: str) -> None:
        self.members = {NodeId(member.node): member for member in members if not member.former}
        self._former = {(member.node, member.signing_key) for member in members if member.former}
        if self._datagrams is not None:
            self._datagrams.members(frozenset(self.members))
        peers = {node: Peer(member.name, member.lost, member.slow) for node, member in self.members.items()}
        self.steward.members(peers, now(), slow)

    def _from_node(self, node: NodeId, payload: bytes) -> None:
        """Take a message of another node's. Nothing that is in it raises."""
        if not self.adoption.is_listed:
            self._early_bytes += len(payload)
            if self._early_bytes <= LISTING_BYTES_MAX:  # What is beyond is said again.
                self._early.append((node, payload))  # It may be about what is here.
            return
        try:
            message = decode_message(payload)
        except WireError:
            self.steward.strange += 1
            return
        try:
            self._take_node(node, message)
        except Exception as error:  # noqa: BLE001  As above: it is one node's, and what carries it is everybody's.
            self._odd_nodes.note(message, error)

    def _take_node(self, node: NodeId, message: Message) -> None:
        match message:
            case CodeWanted(code):
                self._codes.asked(node, code)
            case CodeGiven(code, content):
                self.spawn(self._codes.given(node, code, content))
            case Asked() if not self.adoption.is_done:
                pass  # It asks again for as long as commands wait.
            case Asked():
                self._errands.asked(node, message)
            case Answered():
                self._errands.answered(node, message)
            case HeadTold():
                self.spawn(self._heads.hear(node, message))
            case StateOffered() | StateWanted() | StateGiven():
                self._shipper.heard(node, message)
            case _:
                self.steward.heard(node, message, now())

    async def _command(self, connection: FrameConnection, command: Command) -> None:
        try:
            await self.adoption.wait()
            ok = await answer_of(self.commands.obey(command.verb, command.params))
            outcome = Outcome(command.number, ok)
        except UserError as error:
            outcome = Outcome(command.number, b"", error.code, error.sentence, error.where, error.fix)
        self._say(connection, outcome)
        self.stir()

    async def ask_node(self, node: NodeId, verb: str, params: bytes) -> bytes:
        """Have another node do something to an environment that runs there; see ``Errands.ask``."""
        return await self._errands.ask(node, verb, params)

    def name_of(self, node: NodeId) -> str:
        """Return a node's name, or its id while that is not known."""
        if node == self.sealer.node:
            return self.name
        member = self.members.get(node)
        return node.hex() if member is None else member.name

    def tell_node(self, node: NodeId, payload: bytes) -> None:
        """Send a message to another node's server; it may be lost."""
        if self._datagrams is not None:
            self._datagrams.send(node, payload)
        else:
            self._through_control(node, payload)

    def _through_control(self, node: NodeId, payload: bytes) -> None:
        if self._control is not None:  # It drops what control has no room for: who misses an answer says it again.
            self._control.offer(server_codec.encode(ToNode(node, payload)))

    def keepers(self, identity: bytes) -> tuple[bytes, tuple[bytes, ...]]:
        """Return who owns an environment that is here, and who keeps it; empty: nobody, as far as is known."""
        hosted = self.steward.hosted.get(identity)
        return (b"", ()) if hosted is None else (hosted.holding.owner, hosted.holding.holders)

    def owner(self, identity: bytes) -> bytes:
        """Return who runs an environment, here or elsewhere; empty: it is not known."""
        notice = self.steward.directory.find(identity)
        return b"" if notice is None else notice.owner

    def others(self) -> tuple[NodeId, ...]:
        """Return the other members."""
        return tuple(self.members)

    def knows(self, sealer: Sealer) -> bool:
        """Tell whether a sealer is a member's, or was, by its signing key: who was removed has sealed what is kept."""
        if sealer.node == self.sealer.node:
            return sealer.signing_key == self.sealer.signing_key
        member = self.members.get(NodeId(sealer.node))
        is_member = member is not None and member.signing_key == sealer.signing_key
        return is_member or (sealer.node, sealer.signing_key) in self._former

    # Orders.

    def stir(self) -> None:
        """Do what the steward wants done, once this turn of the loop is over."""
        self._turn.later()

    def _stir(self) -> None:
        if self._is_stirring:
            return  # An order was answered on the spot; what came of it is done below.
        self._is_stirring = True
        try:
            while orders := self.steward.orders():
                for order in orders:
                    try:
                        self._obey(order)
                    except Exception:  # A supervisor: what follows is of other environments, and is to be done.
                        log.exception("an order cannot be obeyed: %s", type(order).__name__)
        finally:
            self._is_stirring = False
        for connection in self._told:
            connection.hurry()
        self._told.clear()
        if self._datagrams is not None:
            self._datagrams.hurry()
        self.guests.rest()
        self._arm()

    def _obey(self, order: Order) -> None:
        match order:
            case AskRecorder(identity, asked):
                self._clerk.obey(identity, asked)
            case TellSession(session, message):
                connection = self._sessions.get(session)
                if connection is not None:
                    connection.send(encode_message(message))
                    self._told[connection] = None
            case TellNode(node, message):
                self.tell_node(node, encode_message(message))
            case Create(identity, name):
                self._create(identity, name)
            case Await(identity):
                self._await(identity)
            case Rest(identity, since_ns):
                over_s = (monotonic_ns() - since_ns) / SECOND_NS - TURN_S_MAX
                self._loop.call_later(min(max(over_s, 0.0), REST_S_MAX), self._resume, identity)
            case Prepare(identity):
                self.spawn(self._prepare(identity))
            case Spare(identity, runner):
                self.warming.put(identity, runner)
                self._cool_later(identity)
            case Restore():
                self.spawn(self._restore(order))
            case StoreSnapshot():
                self.spawn(self._store_snapshot(order))
            case FetchCode(code, node):
                self.spawn(self._fetch(code, node))
            case Forget(identity):
                self._have(lambda: self.recorder.forget(identity), "files cannot be put aside")
                self.steward.forget(identity)
                self.warming.drop(identity)
            case Say(identity, text):
                self.commands.note(identity, text)
            case Told():
                self.commands.told(order)

    def _create(self, identity: bytes, name: str) -> None:
        """Have a journal begun; if the disk refuses, again in a while, as what is to be written there is."""

        def done(future: "asyncio.Future[Done]") -> None:
            error = None if future.cancelled() else future.exception()
            if error is None or (isinstance(error, RefusedError) and error.code is Code.EXISTS):
                return
            if isinstance(error, RefusedError):
                self.commands.refused(identity, error)
            log.error("a journal cannot be begun: %s", error)
            if not isinstance(error, LinkError):
                self._loop.call_later(CREATE_AGAIN_S, again)

        def again() -> None:
            if identity in self.steward.hosted:
                self._create(identity, name)

        try:
            self.recorder.create(identity, name).add_done_callback(done)
        except (LimitError, LinkError) as error:
            log.error("a journal cannot be begun: %s", error)  # noqa: TRY400 - the sentence is the message.

    @staticmethod
    def _have(ask: Callable[[], "asyncio.Future[Done]"], what: str) -> None:
        """Have the recorder do something of which nobody waits for the end."""
        try:
            ask().add_done_callback(_reported(what))
        except (LimitError, LinkError) as error:
            log.error("%s: %s", what, error)  # noqa: TRY400 - the sentence is the message.

    def _await(self, identity: bytes) -> None:
        """Come back when a handler that runs in a process of its own is done, dead or late."""
        hosted = self.steward.hosted.get(identity)
        place = None if hosted is None or hosted.runner is None else hosted.runner.place
        if isinstance(place, GuestPlace):
            self.guests.watch(place, partial(self._resume, identity))

    def _resume(self, identity: bytes) -> None:
        self.steward.resume(identity, now())
        self._stir()

    async def _fetch(self, code: bytes, node: NodeId) -> None:
        """Have code that what is kept here needs, however often it takes to ask: who has it may be lost tomorrow."""
        while any(hosted.facts.code == code for hosted in self.steward.hosted.values()):
            if await self._fetched(code, (node,)):
                return
            await asyncio.sleep(CREATE_AGAIN_S)

    async def code_shown(self, code: bytes, nodes: Sequence[NodeId], count: int) -> bool:
        """Wait until so many of these nodes have code; return whether they have."""
        return await self._codes.shown(code, nodes, count)

    async def _fetch_once(self, code: bytes, nodes: Sequence[NodeId]) -> None:
        await self._fetched(code, nodes)

    async def _fetched(self, code: bytes, nodes: Sequence[NodeId]) -> bool:
        try:
            await self._codes.fetch(code, nodes)
        except (TimeoutError, LinkError, LimitError) as error:
            names = ", ".join(map(self.name_of, nodes))
            log.warning("the code of an environment did not come from %s: %s", names, error)
            return False
        return True

    async def _prepare(self, identity: bytes) -> None:
        """Restore an environment that will be this node's in a moment."""
        failed = "it cannot be restored"
        try:
            try:
                await self.warming.make(identity)
            except MissingCodeError as error:
                await self._fetched(error.code, self._other_holders(identity))
                await self.warming.make(identity)
            failed = ""
            self._cool_later(identity)
        except (ProjectError, ValueError) as error:
            failed = str(error)
        finally:  # Whatever happens: what is to run here waits for the answer.
            self.steward.prepared(identity, failed, now())
            self.stir()

    def _cool_later(self, identity: bytes) -> None:
        """Let go of a runner that waits, WARM_S after it was wanted last."""
        before = self._cooling.pop(identity, None)
        if before is not None:
            before.cancel()
        self._cooling[identity] = self._loop.call_later(WARM_S, self._cool, identity)

    def _cool(self, identity: bytes) -> None:
        self._cooling.pop(identity, None)
        self.warming.drop(identity)

    def _other_holders(self, identity: bytes) -> tuple[NodeId, ...]:
        return tuple(NodeId(node) for node in self.keepers(identity)[1] if node != self.sealer.node)

    def _holding(self, identity: bytes) -> Holding | None:
        hosted = self.steward.hosted.get(identity)
        return None if hosted is None else hosted.holding

    async def _restore(self, order: Restore) -> None:
        """Restore an environment, and answer whatever happens: it is not tried again before."""
        failed, runner = "it cannot be restored", None
        try:
            runner = await self.warming.take(order.id, order.number)
            if runner is None:
                recorded = next(one for one in await self.recorder.environments() if one.environment == order.id)
                runner = await self.archive.runner(recorded, order.number, self._walls)
            failed = ""
        except (ProjectError, StopIteration, ValueError) as error:
            failed = str(error) or failed
            log.error("an environment cannot go on here: %s", failed)  # noqa: TRY400 - the sentence is the message.
            if isinstance(error, MissingCodeError):  # It is restored again in some seconds, and by then it may be here.
                self.spawn(self._fetch_once(error.code, self._other_holders(order.id)))
        finally:
            self.steward.restored(order.id, order.epoch, runner, failed, now())
            self.stir()

    async def _store_snapshot(self, order: StoreSnapshot) -> None:
        try:
            await self.recorder.keep_snapshot(order.id, order.number, order.snapshot)
        except (RefusedError, LinkError, LimitError) as error:
            log.warning("a snapshot is not kept: %s", error)
            self.commands.stored(order.id, order.number, error)
            return
        self.commands.stored(order.id, order.number)
        self._shipper.offer(order.id, order.number)
        await self.snapshot_kept(order.id, order.number)

    async def snapshot_kept(self, identity: bytes, number: int) -> None:
        """Let go of blocks that are old and not needed any more, now that there is a snapshot after this one."""
        try:
            retained = await self.recorder.retain(identity, number + 1, RETAINED_BYTES)
        except (RefusedError, LinkError, LimitError) as error:
            log.warning("old blocks are kept: %s", error)
            return
        if retained.base:
            self._recorded(identity, Checkpointed(retained.base))

    def _recorded(self, identity: bytes, event: HoldingInput) -> None:
        self.steward.recorded(identity, event, now())
        self._stir()  # At once: somebody waits for what is durable now.

    # Time and tasks.

    def _arm(self) -> None:
        """Set the timer, unless one is set that goes off sooner: it looks again then, which is cheaper."""
        at, wait_s = now(), IDLE_S
        if (due_ns := self.steward.deadline_ns) is not None:
            wait_s = min(wait_s, (due_ns - at.ns) / SECOND_NS)
        if (due_ns := self.steward.wall_deadline_ns) is not None:
            wait_s = min(wait_s, (due_ns - at.wall_ns) / SECOND_NS)
        when = self._loop.time() + max(0.0, wait_s)
        if self._timer is None or when < self._timer.when() - TIMER_SLACK_S:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.steward.tick(now())
        self._stir()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Do this beside everything else."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _reported(what: str) -> "partial[None]":
    return partial(_report, what)


def _report(what: str, future: "asyncio.Future[object]") -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.error("%s: %s", what, error)
