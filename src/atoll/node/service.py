# SPDX-License-Identifier: Apache-2.0
"""One running node: the machines, the packet device and the conduits, started and ended in order.

Rules of the file: it waits and carries, it decides nothing about paths or membership. Everything that the control
machine must know goes through ``Performer.feed``; everything that it wants done comes out of there.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, final

import msgspec

from atoll.base.errors import LinkError, StorageError, UserError
from atoll.base.ids import Endpoint, GroupId, NodeId, PublicKey, node_id_of
from atoll.base.member import Member
from atoll.base.ports import Clock
from atoll.base.units import SECOND_NS
from atoll.base.version import __version__
from atoll.conduit.names import Book
from atoll.conduit.nameserver import NameServer
from atoll.conduit.stack import Stack
from atoll.conduit.stream import Kind, Reason, Service, Stream
from atoll.core.journal import Provenance, Recorder, Suspension
from atoll.device.nic.client import NicClient
from atoll.device.nic.messages import (
    EndpointSeen,
    ExpelPeer,
    FlowOpened,
    GatewayShared,
    Listening,
    NicCounters,
    Order,
    PacketReceived,
    Report,
    SendPacket,
    ShareGateway,
    Timestamp,
    TunLost,
)
from atoll.device.nic.orphan import DOOR_NAME
from atoll.domain.limits import SERVER_MEMBERS_MAX
from atoll.domain.messages import MemberSeen
from atoll.domain.recorder.launch import Owner
from atoll.group.events import DuplicateIdentity, ProfileChanged, Removed, StoreRoster, WallClock
from atoll.group.group import Group, GroupOptions
from atoll.group.identity import Identity
from atoll.health.members.bulletin import LINK
from atoll.host.journal_files import JournalFiles
from atoll.host.network import NetworkWatch
from atoll.host.owners import Lived, Owners
from atoll.host.writer import NewestWriter
from atoll.node.addresses import endpoint_text, listed_text, listening, own_member
from atoll.node.asking import ask_key
from atoll.node.clockwatch import ClockWatch
from atoll.node.control import KIND, Control, ControlEffect, ControlInput
from atoll.node.device import Device
from atoll.node.environments import Environments
from atoll.node.inner import Inner
from atoll.node.keeping import RosterKeeper
from atoll.node.limits import STORE_S_MAX
from atoll.node.performer import Performer
from atoll.node.private import Door, Private
from atoll.node.programs import Programs
from atoll.node.reporting import Around, RelayMeter, name_of
from atoll.node.rules import Rules, Verdict, access_order, policy_of, programs_of, traffic_order, verdict
from atoll.node.sensing import Senses
from atoll.node.state import Settings, StateDirectory
from atoll.node.tunnel import Tunnel
from atoll.overlay.config import Config
from atoll.overlay.mesh import Mesh
from atoll.overlay.orders import RouteNotice
from atoll.overlay.reports import NetworkChanged, NicRestarted, PolicyChanged, RelayMetered

__all__ = ["Node", "Plan"]

log: Final = logging.getLogger("atoll.node")

HOUSEKEEPING_S: Final = 1.0  # The wall clock to the group, the journal to disk.
NUDGING_CAUSES: Final = frozenset({"silent", "lossy", "relay-gone"})  # Switches away from a way that lost packets.
BOOT_BITS: Final = 63
SHARE_S_MAX: Final = 5.0  # For a thousandth of that in work.


def _stamp_ended(refused: StorageError | None) -> None:
    if refused is not None:
        log.warning("the handshake timestamp cannot be kept: %s", refused)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a node starts from; everything in it is already durable.

    Attributes:
        state: Its directory.
        identity: Its keys.
        settings: As kept.
        group: The group.
        roster: Durable form.
        clock: Time.
        keeps_journal: Whether decisions are recorded.
    """

    state: StateDirectory
    identity: Identity
    settings: Settings
    group: GroupId
    roster: bytes
    clock: Clock
    keeps_journal: bool = True


@final
class Node:
    """One node, from ``start`` to ``stop``; ``ended`` completes when it must stop by itself.

    Args:
        plan: What it starts from.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._clock = plan.clock
        self._started_ns = plan.clock.monotonic_ns()
        self._clock_watch = ClockWatch(plan.clock.wall_ns(), self._started_ns)
        self._loop = asyncio.get_running_loop()
        self.ended: Final[asyncio.Future[UserError | None]] = self._loop.create_future()
        self._nic = NicClient(self._hear, self._nic_lost, plan.state.path / DOOR_NAME)
        self._device = Device(
            self._nic,
            plan.group,
            plan.identity,
            relay_bytes_s=plan.settings.relay_bytes_s,
            stamp_ns=plan.state.timestamp_ns(),
        )
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._endpoints: dict[bytes, Endpoint] = {}
        self._meter = RelayMeter()
        self._dropped = NicCounters({})
        self._listen: tuple[Endpoint, ...] = ()
        self._control: Control | None = None
        self._performer: Performer | None = None
        self._senses: Senses | None = None
        self._keeper = RosterKeeper(plan.state, self._roster_ended)
        self._stamp_writer = NewestWriter(plan.state.keep_timestamp)
        self._tun_warning = ""
        self._sharing: asyncio.Future[GatewayShared] | None = None
        self._names = NameServer(plan.group, self.book, self._send_packet)
        self.departed: Callable[[NodeId], None] = lambda _: None  # Called with each member that is one no more.
        self._network: NetworkWatch | None = None
        self._rules = plan.settings.rules
        self._enforced: tuple[object, ...] = ()  # What the packet device was last told of them.
        self._programs: Final = Programs(self._owners, self._nic.order, self._spawn)
        self.stack: Final = Stack(group=plan.group, own=plan.identity.node, send=self._send_packet, allow=self._allow)
        self.inner: Final = Inner(
            plan.group,
            plan.identity,
            self.stack.inner,
            lambda node: self.control.group.roster.find(node) is not None,
            made=self._made_private,
            listening=self._enforce,
        )

        self.environments: Final = Environments(
            plan.state.path,
            plan.settings.name,
            Owner(plan.identity.node, plan.identity.signing_key, plan.identity.sign),
            self.stack.streams,
            self._spawn,
            reaches=self._reaches,
            group=plan.group,
            nic=self._nic,
        )
        self.stack.answer(Kind.ENVIRONMENTS, self._serve_environments)

    # Life.

    async def start(self) -> None:
        """Start the device, then the machines; on return the node calls its members.

        Raises:
            UserError: A105, no address; A108, the roster is damaged; A111, no TUN device; others from the state
                directory.
            LinkError: The packet device did not start.
        """
        if self._plan.settings.tun:
            self.inner.tunnel = Tunnel(self._plan.group, self._plan.identity.node)
        wanted = listening(self._plan.settings)
        self._listen = await self._device.start(wanted)
        self._attach_tun()
        if any(not port for _, port in wanted):  # The next life must be found where this one was.
            bound = ",".join(endpoint_text(endpoint) for endpoint in self._listen)
            self._plan.state.keep_settings(msgspec.structs.replace(self._plan.settings, listen=bound))
        now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        member = self._own_member()
        config = Config(
            node=member.node,
            boot=secrets.randbits(BOOT_BITS),
            relay=member.relay,
            relay_bytes_s=member.relay_bytes_s,
        )
        group = Group.create(
            GroupOptions(
                roster=self._plan.roster,
                own=member,
                boot=config.boot,
                started_s=wall_ns // SECOND_NS,
                product=__version__,
                seed=secrets.token_bytes(32),
            ),
            now_ns,
        )
        control = self._control = Control(Mesh(config, secrets.token_bytes(32), now_ns), group)
        self.stack.kernel.use(self.inner.socket, partial(ask_key, self.stack.streams), control.mesh.life)
        first = control.start(now_ns)
        self._performer = self._recorded(control, now_ns, wall_ns)
        self._performer.begin(first)
        self._enforce()
        self._arm()
        self._spawn(self._keep_house())
        self._senses = Senses(self._plan.state.path, self._clock, control.mesh, self._processes, self.feed)
        self._spawn(self._senses.run())
        self.stack.timed = self._senses.served
        self.environments.members(*self._members_seen())
        self.environments.begin()
        self._network = NetworkWatch(self._network_changed)

    def _recorded(self, control: Control, now_ns: int, wall_ns: int) -> Performer:
        journal = self._open_journal()
        provenance = Provenance(__version__, self._plan.settings.name, wall_ns, now_ns)
        recorder: Recorder[ControlInput, ControlEffect] = Recorder(
            KIND, control, provenance, sequence=0 if journal is None else journal.sequence
        )
        if journal is None:
            recorder.suspend(Suspension.STORAGE)
        return Performer(
            recorder,
            clock=self._clock,
            identity=self._plan.identity,
            store=self._keeper.store,
            order=self._order,
            name_of=lambda node: name_of(control, node),
            listener=self,
            journal=journal,
        )

    def _open_journal(self) -> JournalFiles | None:
        if not self._plan.keeps_journal:
            return None
        try:
            return JournalFiles(self._plan.state.journal)
        except StorageError as error:
            log.warning("no journal is kept: %s", error)
            return None

    async def stop(self) -> None:
        """Let the disk finish, then end the conduits, the device and the journal, in this order. Twice is harmless."""
        await self.environments.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(TimeoutError):  # What a roster lets us say is said while the device is still there.
            async with asyncio.timeout(STORE_S_MAX):
                await self._keeper.settled()
                await self._stamp_writer.settled()
        if self._network is not None:
            self._network.close()
        await self.stack.close()
        await asyncio.sleep(0)  # The orders of the last streams leave in this turn.
        if self._timer is not None:
            self._timer.cancel()
        await self._nic.stop()
        await self.inner.close()
        if self._performer is not None:
            self._performer.close()

    # What the local API reads and does.

    @property
    def control(self) -> Control:
        """The machines, for pure reads."""
        assert self._control is not None, "the node has not started"
        return self._control

    @property
    def senses(self) -> Senses:
        """What this node measures of itself and of the others."""
        assert self._senses is not None, "the node has not started"
        return self._senses

    @property
    def plan(self) -> Plan:
        """What the node started from."""
        return self._plan

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where members may reach this node, best first."""
        return self._own_member().endpoints

    @property
    def mode(self) -> str:
        """How programs of this machine get in: ``rootless``, or the name of the TUN interface."""
        tunnel = self.inner.tunnel
        return "rootless" if tunnel is None else f"tun {tunnel.name}"

    def seen_at(self, node: NodeId) -> str | None:
        """Return where a member or a client was last seen, for people; None: not seen."""
        endpoint = self._endpoints.get(node)
        return None if endpoint is None else endpoint_text(endpoint)

    def loop_time(self) -> float:
        """Return the loop's clock, seconds."""
        return self._loop.time()

    async def pause(self, wait_s: float) -> None:
        """Wait."""
        await asyncio.sleep(wait_s)

    def end_soon(self) -> None:
        """End the node in order, once this turn of the loop is over."""
        self._end(None)

    def fail(self, error: UserError) -> None:
        """End the node, and say why."""
        self._end(error)

    def book(self) -> Book:
        """Return who is who now."""
        group = self.control.group
        guests = tuple((guest.name, guest.node) for guest in group.roster.guests().guests)
        return Book(self.plan.group, self.plan.settings.group_name, group.own, group.roster.members(), guests)

    def around(self) -> Around:
        """Return everything that the views are made of, as of now."""
        performer, network, now_ns = self._performer, self.inner.network, self._clock.monotonic_ns()
        self._clock_watch.look(self._clock.wall_ns(), now_ns)
        set_back = self._clock_watch.warning(now_ns)
        return Around(
            control=self.control,
            now_ns=now_ns,
            started_ns=self._started_ns,
            group_name=self._plan.settings.group_name,
            listen=listed_text(self._listen),
            device=self._device.text("no TUN device" if network is None else network.offloads),
            endpoints=self._endpoints,
            meter=self._meter,
            dropped=self._dropped,
            environments=self.environments.alive,
            vitals=None if self._senses is None else self._senses.vitals,
            warnings=(
                *(() if performer is None else performer.warnings),
                *((self._tun_warning,) if self._tun_warning else ()),
                *self._device.warnings(),
                *self._unknown_programs(),
                *(() if set_back is None else (set_back,)),
                *self._unmeasured(),
            ),
            clock_stepped_s=self._clock_watch.stepped_s(now_ns),
        )

    def feed(self, event: ControlInput) -> None:
        """Hand an input to the control machine."""
        assert self._performer is not None, "the node has not started"
        self._performer.feed(event)
        self._arm()

    # Rules.

    def change_rules(self, rules: Rules) -> None:
        """Take other rules, from now on and for later lives.

        Raises:
            UserError: A102 or A110, the disk refused; nothing has changed.
        """
        settings = msgspec.structs.replace(self._plan.settings, rules=rules)
        self._plan.state.keep_settings(settings)
        self._plan, self._rules = replace(self._plan, settings=settings), rules
        self._enforce()

    def judged(self, source: str, protocol: str, port: int) -> tuple[Verdict, Rules]:
        """Return whether a machine may reach a port of this one, and by which rules."""
        return verdict(self._rules, source, self.control.group.own.name, protocol, port), self._rules

    def _allow(self, node: NodeId, protocol: str, port: int) -> bool:
        return self.judged(self.book().called(node), protocol, port)[0].allowed

    def _enforce(self) -> None:
        """Give the rules to the packet device and to the overlay, if what they mean has changed."""
        book = self.book()
        traffic = traffic_order(self._rules, book, asks=self._programs.is_tagging)
        orders = (access_order(self._rules, book.own.name, book, open=self.inner.is_listening), traffic)
        self._programs.want(programs_of(self._rules))
        if orders != self._enforced:
            self._enforced = orders
            for order in orders:
                self._nic.order(order)
        policy = policy_of(self._rules, book)
        if policy != self.control.mesh.config.policy:
            self.feed(PolicyChanged(policy))

    # The roster and the disk.

    async def confirm(self) -> None:
        """Return when everything that this node has stated so far is on disk, and so counts.

        Raises:
            UserError: A102 or A110, see ``RosterKeeper.confirm``.
        """
        await self._keeper.confirm()

    def _roster_ended(self, effect: StoreRoster, refused: StorageError | None) -> None:
        assert self._performer is not None
        self._performer.stored(effect, refused)
        self._arm()

    # The device.

    def _unmeasured(self) -> tuple[str, ...]:
        fault = "" if self._senses is None else self._senses.disk_fault
        return (f"the disk cannot be measured: {fault}",) if fault else ()

    def _unknown_programs(self) -> tuple[str, ...]:
        owners = self._owners()
        named = programs_of(self._rules)
        if owners is None or not owners.is_blind or not named:
            return ()
        return (
            f"rules for {', '.join(named)} do not hold: this kernel does not tell whose sockets are whose (ss -tu)",
        )

    def _processes(self) -> tuple[int, ...]:
        """Return the processes whose work is this node's, besides this one."""
        return (*(() if self._nic.pid is None else (self._nic.pid,)), *self.environments.pids)

    async def _serve_environments(self, stream: Stream, service: Service) -> None:
        if self.control.group.roster.find(stream.node) is None:  # An invited machine has a session, too.
            stream.refuse(Reason.FORBIDDEN)
            return
        await self.environments.serve(stream, service)

    def _members_seen(self) -> tuple[tuple[MemberSeen, ...], str]:
        """Return the other members as environments are to see them, and why this machine is slow."""
        control, now_ns = self.control, self._clock.monotonic_ns()
        own, seen = control.group.own.node, list[MemberSeen]()
        for member in control.group.roster.members():
            if member.node != own:
                report = control.mesh.peer_report(member.node, now_ns)
                lost = report is None or report.state == "away"
                seen.append(MemberSeen(member.node, member.name, member.signing_key, lost, self._ailing(member.node)))
        former = [MemberSeen(one.node, one.name, one.signing_key, former=True) for one in control.group.roster.former()]
        return (*seen, *former)[:SERVER_MEMBERS_MAX], self._ailing(own)

    def _reaches(self, node: NodeId) -> bool:
        report = self.control.mesh.peer_report(node, self._clock.monotonic_ns())
        return report is not None and report.session and report.state != "away"

    def _ailing(self, node: NodeId) -> str:
        """Return what of a machine is slow by its own word, such as ``disk``; paths and programs do not count."""
        words = self.control.bulletin.health(node).words
        return ", ".join(dict.fromkeys(word.what for word in words if ":" not in word.what and word.what != LINK))

    def _own_member(self) -> Member:
        return own_member(self._plan.identity, self._plan.settings, self._listen)

    def _network_changed(self) -> None:
        """This machine moved: say where it is now, by all ways."""
        self.feed(NetworkChanged())
        member = self._own_member()
        if member.endpoints:  # Else there is no network, and who hears nothing need not hear that.
            self.feed(ProfileChanged(member))

    def _order(self, order: Order) -> None:
        if isinstance(order, ExpelPeer):
            node = node_id_of(PublicKey(order.public_key))
            self.stack.forget(node)
            self.departed(node)
        self._nic.order(order)

    def _send_packet(self, node: NodeId, tag: int, packet: bytes) -> None:
        self._nic.order(SendPacket(node, tag, packet))

    def _hear(self, reports: Sequence[Report]) -> None:
        for report in reports:
            match report:
                case PacketReceived(node, packet):
                    self._take_packet(NodeId(node), packet)
                case GatewayShared():
                    if self._sharing is not None and not self._sharing.done():
                        self._sharing.set_result(report)
                case EndpointSeen(node, host, port):
                    self._endpoints[node] = (host, port)
                    if self._performer is not None:
                        self._performer.feed(report)
                case NicCounters():
                    self._dropped = report
                case Timestamp(wall_ns):
                    self._stamp_writer.put(self._device.reserved(wall_ns), _stamp_ended)
                case TunLost(error):
                    self._tun_lost(error)
                case FlowOpened():
                    self._programs.ask(report)
                case Listening():
                    pass
                case _:
                    if isinstance(report, RelayMetered):
                        self._meter.note(report.label, report.forwarded_bytes, self._clock.monotonic_ns())
                    if self._performer is not None:
                        self._performer.feed(report)
        self._arm()

    def _take_packet(self, node: NodeId, packet: bytes) -> None:
        if self._names.takes(packet):
            self._names.receive(node, packet)
        elif self.control.group.roster.find(node) is None:
            self.stack.receive_from_guest(node, packet)
        else:
            self.stack.receive(node, packet)

    async def share_gateway(self, gateway: bytes, recipients: Sequence[PublicKey]) -> GatewayShared:
        """Have the packet device seal a gateway's private key for members; it never leaves that process in the open.

        Args:
            gateway: Its public key; empty: a new one.
            recipients: The members' public keys.

        Raises:
            UserError: A403, it does not answer; A214, another request is under way.
        """
        if self._sharing is not None:
            raise UserError("A214", "another client is being added", fix="try again in a second")
        self._sharing = self._loop.create_future()
        try:
            self._nic.order(ShareGateway(gateway, tuple(recipients)))
            async with asyncio.timeout(SHARE_S_MAX):
                return await self._sharing
        except TimeoutError as error:
            raise UserError("A403", "the packet device does not answer", fix="try again; atoll logs") from error
        finally:
            self._sharing = None

    def _nic_lost(self, reason: str) -> None:
        if not self._device.ended(self._clock.monotonic_ns()):
            self._end(UserError("A403", "the packet device keeps ending", fix="read the node's log: atoll logs"))
            return
        log.warning("the packet device is lost (%s); it is started again", reason)
        self._spawn(self._restart_nic())

    async def _restart_nic(self) -> None:
        try:
            await self._device.start((*self._listen, *self._device.told.missing))
        except UserError as error:
            self._end(error)
        except (LinkError, OSError) as error:  # OSError: no more file descriptors, say. Without a device it is no node.
            self._end(UserError("A403", str(error), fix="read the node's log: atoll logs"))
        else:
            log.info("the packet device is back")
            self._attach_tun()
            self.environments.attach()
            self.feed(NicRestarted())
            self._enforced = ()
            self._enforce()

    def _attach_tun(self) -> None:
        """Hand the TUN device to a packet device that has just started."""
        network = self.inner.network
        if network is not None:
            network.attach(self._nic)

    def _made_private(self) -> None:
        with suppress(LinkError):  # The packet device is being started again, and gets it then.
            self._attach_tun()

    async def private_door(self) -> Door | None:
        """Return how to enter the private network, which is made if need be; None: the whole machine has the overlay.

        Raises:
            UserError: A112, the system forbids it.
        """
        network = await self.inner.ready(fresh=True)
        return network.door(self._plan.settings.group_name) if isinstance(network, Private) else None

    def _owners(self) -> Owners | None:
        network = self.inner.network
        return None if network is None else network.owners

    def tag_program(self, root: Lived, tag: int) -> str:
        """Give a tag to the packets of a process and all below it, from now on; return the mark for its environment.

        Raises:
            UserError: A499, too many have one.
        """
        mark = self._programs.give_tag(root, tag)
        self._enforce()
        return mark

    def _tun_lost(self, reason: str) -> None:
        """Somebody took the interface away: make it again, or say that it is gone."""
        log.warning("the TUN device is gone (%s); it is made again", reason)
        tunnel = self.inner.tunnel
        if tunnel is None:  # The private one, which nobody can take away but with all that is in it.
            return
        try:
            tunnel.renew()
            self._attach_tun()
        except UserError as error:
            self._tun_warning = f"{error.code}: {error.sentence}; fix: {error.fix}"
        except LinkError as error:  # It is being restarted, and will be given this one then.
            log.warning("%s", error)

    # Time.

    def _arm(self) -> None:
        if self._performer is None:
            return
        deadline_ns = self._performer.deadline_ns
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline_ns is not None:
            wait_s = max(0, deadline_ns - self._clock.monotonic_ns()) / SECOND_NS
            self._timer = self._loop.call_later(wait_s, self._tick)

    def _tick(self) -> None:
        assert self._performer is not None
        deadline_ns = self._performer.deadline_ns
        if deadline_ns is not None and self._clock.monotonic_ns() >= deadline_ns:
            self._performer.tick()
        self._arm()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            wall_ns = self._clock.wall_ns()
            self._clock_watch.look(wall_ns, self._clock.monotonic_ns())
            self.feed(WallClock(wall_ns // SECOND_NS))
            assert self._performer is not None
            self._performer.keep()
            self._programs.keep(self._loop.time())
            self._enforce()  # A name may mean another machine now.
            self.environments.members(*self._members_seen())
            self.environments.look()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, error: UserError | None) -> None:
        if not self.ended.done():
            self.ended.set_result(error)

    # What the performer tells (performer.Listener).

    def route_changed(self, notice: RouteNotice) -> None:
        """Resend at once what the path just left has lost."""
        if notice.cause in NUDGING_CAUSES:
            self.stack.nudge(NodeId(notice.node))

    def copies_began(self, node: bytes) -> None:
        """Resend at once: from now on copies take another path."""
        self.stack.nudge(NodeId(node))

    def removed(self, effect: Removed) -> None:
        """We are a member no more."""
        who = effect.name or "the group"
        self._end(
            UserError(
                "A206",
                f"this node was removed from the group by {who}",
                where=f"{self._plan.state.path}",
                fix="to come back, ask a member for an invitation and start with: atoll up --state NEW_DIR INVITE",
            )
        )

    def duplicated(self, effect: DuplicateIdentity) -> None:
        """Another process has our key, and was there first."""
        self._end(
            UserError(
                "A207",
                "another running node has this node's key",
                where=f"reported by {effect.name or effect.reporter.hex()}",
                fix="stop one of the two; a copy of a machine needs its own: atoll up --state NEW_DIR INVITE",
            )
        )
