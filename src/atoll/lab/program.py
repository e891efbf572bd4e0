# SPDX-License-Identifier: Apache-2.0
"""One whole node as a program of the simulator: the same control machine and packet engine as live, in one process.

Where the live node has two processes and a socket between them, here an order is a method call. What stays of the live
shell's work is signing, and the roster on disk before the answer; ``node/performer.py`` is the live twin.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, final

from atoll.base.errors import StorageError
from atoll.base.ids import Endpoint, GroupId, NodeId
from atoll.base.member import Member
from atoll.base.ports import Disk
from atoll.base.units import SECOND_NS
from atoll.core.entropy import Draws
from atoll.core.journal import Provenance, Recorder
from atoll.core.machine import Tick
from atoll.device.nic.engine import Engine
from atoll.device.nic.messages import (
    FlowOpened,
    GatewayShared,
    Listening,
    NicCounters,
    PacketReceived,
    SendPacket,
    Timestamp,
    TunLost,
)
from atoll.group.events import DuplicateIdentity, GroupNotice, Removed, Sign, Signed, Stored, StoreRoster
from atoll.group.group import Group, GroupOptions
from atoll.group.identity import Identity
from atoll.health.members.bulletin import HealthNotice
from atoll.node.control import KIND, Control, ControlEffect, ControlInput
from atoll.overlay.config import Config
from atoll.overlay.mesh import Mesh
from atoll.overlay.orders import RouteNotice, SendControl
from atoll.overlay.reports import ControlReceived

__all__ = ["Blueprint", "SimulatedNode"]

ROSTER: Final = "roster"
STAMP: Final = "timestamp"
TURN_INPUTS_MAX: Final = 1000  # Limit. As in the live performer.


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a simulated node is made from, the same at each boot.

    Attributes:
        identity: Its keys.
        member: Its record, with its simulated endpoint.
        group: The group.
        roster: Durable form to begin with; what the disk holds is newer.
        records: Whether to record the journal, so that it can be replayed afterwards.
    """

    identity: Identity
    member: Member
    group: GroupId
    roster: bytes
    records: bool = False


@final
class SimulatedNode:
    """A node under simulation; implements ``sim.Program``.

    Args:
        blueprint: Who it is.
        disk: What outlives a crash.
        seed: 32 bytes, new at each boot.

    Attributes:
        outbox: Datagrams to send; the world clears it.
        heard: Called with each inner packet that came: (member, packet, monotonic ns, wall ns).
        notices: Route changes so far, with their time.
        ailing: What became slow or well so far, the same.
        journal: Recorded segments, when the blueprint asks for them.
        stopped: Set once the group told this node to stop.
    """

    def __init__(self, blueprint: Blueprint, disk: Disk, seed: bytes) -> None:
        self._blueprint, self._disk, self._draws = blueprint, disk, Draws(seed)
        self.outbox: list[tuple[Endpoint, bytes]] = []
        self.heard: Callable[[NodeId, bytes, int, int], None] | None = None
        self.notices: list[tuple[int, RouteNotice]] = []
        self.warnings: list[GroupNotice] = []
        self.ailing: list[tuple[int, HealthNotice]] = []
        self.journal: list[bytes] = []
        self.stopped = False
        self._unstored: StoreRoster | None = None
        self._engine: Engine | None = None
        self._control: Control | None = None
        self._machine: Recorder[ControlInput, ControlEffect] | Control | None = None

    @property
    def node(self) -> NodeId:
        """Its id."""
        return self._blueprint.member.node

    @property
    def control(self) -> Control:
        """The machines, for checks."""
        assert self._control is not None, "the node has not started"
        return self._control

    @property
    def engine(self) -> Engine:
        """The packet device, for checks."""
        assert self._engine is not None, "the node has not started"
        return self._engine

    @property
    def deadline_ns(self) -> int | None:
        """The nearer deadline of device and machines."""
        if self._engine is None or self._machine is None or self.stopped:
            return None
        due_ns = self._machine.deadline_ns
        return self._engine.deadline_ns if due_ns is None else min(due_ns, self._engine.deadline_ns)

    def start(self, now_ns: int, wall_ns: int) -> None:
        """Begin, from the disk where it holds something."""
        blueprint = self._blueprint
        self._engine = Engine(
            private_key=blueprint.identity.exchange_secret,
            group=blueprint.group,
            rng=Random(self._draws.bits(256)),
            now_ns=now_ns,
            wall_ns=wall_ns,
            wall_floor_ns=int.from_bytes(self._stored(STAMP), "big"),
        )
        config = Config(node=self.node, boot=self._draws.bits(63))
        group = Group.create(
            GroupOptions(
                roster=self._stored(ROSTER) or blueprint.roster,
                own=blueprint.member,
                boot=self._draws.bits(63),
                started_s=wall_ns // SECOND_NS,
                product="simulated",
                seed=self._draws.token(32),
            ),
            now_ns,
        )
        control = self._control = Control(Mesh(config, self._draws.token(32), now_ns), group)
        first = control.start(now_ns)
        provenance = Provenance("simulated", blueprint.member.name, wall_ns, now_ns)
        self._machine = Recorder(KIND, control, provenance) if blueprint.records else control
        answers = deque(answer for effect in first if (answer := self._perform(effect, now_ns, wall_ns)) is not None)
        self._feed(answers, now_ns, wall_ns)
        self._settle(now_ns, wall_ns)

    def receive(self, datagram: bytes, source: Endpoint, now_ns: int, wall_ns: int) -> None:
        """Take one datagram."""
        self.engine.receive(datagram, source, now_ns, wall_ns)
        self._settle(now_ns, wall_ns)

    def tick(self, now_ns: int, wall_ns: int) -> None:
        """Do what is due."""
        engine, machine = self.engine, self._machine
        assert machine is not None, "the node has not started"
        if now_ns >= engine.deadline_ns:
            engine.tick(now_ns, wall_ns)
        due_ns = machine.deadline_ns
        if due_ns is not None and now_ns >= due_ns:
            if self._unstored is not None and (stored := self._store(self._unstored)) is not None:
                self.feed(stored, now_ns, wall_ns)
            self.feed(Tick(), now_ns, wall_ns)
        self._settle(now_ns, wall_ns)

    def send(self, node: NodeId, tag: int, packet: bytes, now_ns: int, wall_ns: int) -> None:
        """Send an inner packet to a member, as a conduit would."""
        self.engine.order(SendPacket(node, tag, packet), now_ns, wall_ns)
        self._settle(now_ns, wall_ns)

    def feed(self, event: ControlInput, now_ns: int, wall_ns: int) -> None:
        """Hand one input to the control machine and do what it decides."""
        machine, engine = self._machine, self._engine
        assert machine is not None, "the node has not started"
        assert engine is not None, "the node has not started"
        answers: deque[ControlInput] | None = None
        for effect in machine.handle(event, now_ns):
            if isinstance(effect, SendControl):  # Nearly all effects are.
                engine.order(effect, now_ns, wall_ns)
            elif (answer := self._perform(effect, now_ns, wall_ns)) is not None:
                answers = answers or deque()
                answers.append(answer)
        if answers is not None:
            self._feed(answers, now_ns, wall_ns)

    def segments(self) -> tuple[bytes, ...]:
        """Return the recording of this boot so far."""
        if isinstance(self._machine, Recorder):
            self.journal += [append.payload for append in self._machine.drain()]
        return (b"".join(self.journal),)

    def _feed(self, waiting: deque[ControlInput], now_ns: int, wall_ns: int) -> None:
        machine = self._machine
        assert machine is not None, "the node has not started"
        for _ in range(TURN_INPUTS_MAX):
            if not waiting:
                return
            for effect in machine.handle(waiting.popleft(), now_ns):
                answer = self._perform(effect, now_ns, wall_ns)
                if answer is not None:
                    waiting.append(answer)

    def _settle(self, now_ns: int, wall_ns: int) -> None:
        """Carry reports to the machines and their orders back until both are silent, then take what goes out."""
        engine = self.engine
        while engine.reports:
            reports, engine.reports[:] = tuple(engine.reports), ()
            for report in reports:
                match report:
                    case ControlReceived():  # First, because nearly all reports are.
                        self.feed(report, now_ns, wall_ns)
                    case PacketReceived(node, packet):
                        if self.heard is not None:
                            self.heard(NodeId(node), packet, now_ns, wall_ns)
                    case Timestamp(stamp_ns):
                        self._keep(STAMP, stamp_ns.to_bytes(8, "big"))
                    case NicCounters() | Listening() | TunLost() | GatewayShared() | FlowOpened():
                        pass
                    case _:
                        self.feed(report, now_ns, wall_ns)
        if engine.outbox:
            self.outbox += engine.outbox
            engine.outbox.clear()

    def _perform(self, effect: ControlEffect, now_ns: int, wall_ns: int) -> ControlInput | None:
        match effect:
            case RouteNotice():
                self.notices.append((now_ns, effect))
            case Sign(request_id, payload):
                return Signed(request_id, self._blueprint.identity.sign(payload))
            case StoreRoster():
                return self._store(effect)
            case Removed() | DuplicateIdentity():
                self.stopped = True
            case GroupNotice():
                self.warnings.append(effect)
            case HealthNotice():
                self.ailing.append((now_ns, effect))
            case _:
                self.engine.order(effect, now_ns, wall_ns)
        return None

    def _store(self, effect: StoreRoster) -> Stored | None:
        """Write the roster so that a crash leaves the old or the new one; None: the disk refused, tried again later."""
        self._unstored = None if self._keep(ROSTER, effect.roster) else effect
        return Stored(effect.version) if self._unstored is None else None

    def _keep(self, name: str, content: bytes) -> bool:
        try:
            self._disk.write(f"{name}.new", content)
            self._disk.sync(f"{name}.new")
            self._disk.rename(f"{name}.new", name)
        except StorageError:
            return False
        return True

    def _stored(self, name: str) -> bytes:
        try:
            return self._disk.read(name)
        except StorageError:
            return b""
