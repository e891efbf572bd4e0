# SPDX-License-Identifier: Apache-2.0
"""The control machine of a node: the overlay's mesh, the group's roster, guests and health, tied together. Pure.

It adds no decisions of its own. It hands each input to the machine that it concerns, carries the others' messages over
the mesh's paths, turns the decided member list into orders for the packet device, and tells the mesh who is slow.
"""

from collections.abc import Sequence
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError
from atoll.base.ids import NodeId, PublicKey, node_id_of
from atoll.core.machine import MachineKind, Tick
from atoll.device.nic.messages import (
    AdmitPeer,
    CloseGateway,
    ExpelPeer,
    OpenGateway,
    RefuseGuest,
    ServeGuest,
)
from atoll.group.events import (
    DuplicateIdentity,
    GroupEffect,
    GroupInput,
    GroupNotice,
    GroupReceived,
    GuestsDecided,
    InvitePeer,
    MembersDecided,
    PeerLinked,
    PeerUnlinked,
    Removed,
    SendGroup,
    Sign,
    StoreRoster,
    UninvitePeer,
)
from atoll.group.group import Group
from atoll.group.messages import GROUP_TAGS
from atoll.health.members.bulletin import (
    Bulletin,
    BulletinInput,
    Found,
    HealthNotice,
    HealthReceived,
    Linked,
    Members,
    Shun,
    TellHealth,
    Unlinked,
)
from atoll.health.members.messages import HEALTH_TAGS
from atoll.overlay.guests import GUEST_TAGS, Guests, GuestsChanged, GuestsInput, TellMember
from atoll.overlay.mesh import Mesh
from atoll.overlay.messages import OVERLAY_TAGS
from atoll.overlay.orders import OverlayEffect, SendControl
from atoll.overlay.reports import (
    ControlReceived,
    EndpointSeen,
    FlowSeen,
    GuestDown,
    GuestUp,
    MembersChanged,
    NetworkChanged,
    NicRestarted,
    OverlayInput,
    PolicyChanged,
    RelayMetered,
    RelaysShunned,
    SessionDown,
    SessionUp,
    SizePassed,
    SizesAsked,
)

__all__ = ["KIND", "Control", "ControlEffect", "ControlInput"]

TAG_OFFSET: Final = 1  # The tag is the array's first item, a positive fixint.


ControlInput = OverlayInput | GroupInput | GuestUp | GuestDown | Found
ControlEffect = (
    OverlayEffect
    | AdmitPeer
    | ExpelPeer
    | OpenGateway
    | CloseGateway
    | ServeGuest
    | RefuseGuest
    | Sign
    | StoreRoster
    | Removed
    | DuplicateIdentity
    | GroupNotice
    | HealthNotice
)


class Admitted(msgspec.Struct):
    """What the packet device was told about one peer."""

    public_key: bytes
    endpoints: tuple[tuple[str, int], ...]
    invited: bool


class ControlState(msgspec.Struct):
    """Everything that a snapshot holds."""

    mesh: bytes
    group: bytes
    guests: bytes
    bulletin: bytes
    admitted: dict[bytes, Admitted]
    opened: dict[bytes, bytes]
    served: dict[bytes, bytes]
    unknown_messages: int = 0


@final
class Control:
    """Mesh, group, guests and bulletin of one node.

    Args:
        mesh: The overlay's machine.
        group: The membership machine of the same node.
        guests: Who serves whom; None: that of a node that starts now.
        bulletin: Who is slow; None: as well.
    """

    def __init__(
        self, mesh: Mesh, group: Group, guests: Guests | None = None, bulletin: Bulletin | None = None
    ) -> None:
        self.mesh: Final = mesh
        self.group: Final = group
        self.guests: Final = Guests.create(group.own.node) if guests is None else guests
        self.bulletin: Final = Bulletin.create(group.own.node, mesh.config.boot) if bulletin is None else bulletin
        self.admitted: dict[bytes, Admitted] = {}
        self._opened: dict[bytes, bytes] = {}  # Gateways that the packet device was told of, and what opens them.
        self._served: dict[bytes, bytes] = {}  # Guests that it was told of, and their gateways.
        self.unknown_messages = 0
        self._group_due_ns = group.deadline_ns  # Kept, because the group's inputs are rare and its deadline costs.

    @property
    def deadline_ns(self) -> int | None:
        """The nearest deadline of the machines, ns; None: none waits."""
        dues = (self.mesh.deadline_ns, self._group_due_ns, self.guests.deadline_ns, self.bulletin.deadline_ns)
        return min((due for due in dues if due is not None), default=None)

    def handle(self, event: ControlInput, now_ns: int) -> Sequence[ControlEffect]:
        """Apply one input; return what to do, in order."""
        match event:
            case ControlReceived(node, _, payload):
                tag = payload[TAG_OFFSET] if len(payload) > TAG_OFFSET else -1
                if tag in OVERLAY_TAGS:
                    return self.mesh.handle(event, now_ns)
                if tag in GUEST_TAGS:
                    return self._guests(event, now_ns)
                if tag in HEALTH_TAGS:
                    return self._health(HealthReceived(node, payload), now_ns)
                if tag in GROUP_TAGS:
                    return self._group(GroupReceived(node, payload), now_ns)
                self.unknown_messages += 1  # A newer member's message, or garbage: nothing that we may act on.
                return ()
            case Tick():
                return self._tick(now_ns)
            case SessionUp(node, _):
                linked = [*self.mesh.handle(event, now_ns), *self._group(PeerLinked(node), now_ns)]
                return [*linked, *self._guests(event, now_ns), *self._health(Linked(node), now_ns)]
            case SessionDown(node):
                unlinked = [*self.mesh.handle(event, now_ns), *self._group(PeerUnlinked(node), now_ns)]
                return [*unlinked, *self._guests(event, now_ns), *self._health(Unlinked(node), now_ns)]
            case NicRestarted():
                gone = [effect for node in self.bulletin.linked for effect in self._health(Unlinked(node), now_ns)]
                return [*self._admissions(), *self.mesh.handle(event, now_ns), *self._guests(event, now_ns), *gone]
            case GuestUp() | GuestDown():
                return self._guests(event, now_ns)
            case Found():
                return self._health(event, now_ns)
            case FlowSeen() | RelayMetered() | MembersChanged() | PolicyChanged():
                return self.mesh.handle(event, now_ns)
            case SizePassed() | EndpointSeen() | NetworkChanged() | RelaysShunned() | SizesAsked():
                return self.mesh.handle(event, now_ns)
            case _:
                return self._group(event, now_ns)

    def _tick(self, now_ns: int) -> Sequence[ControlEffect]:
        effects: list[ControlEffect] = []
        if self.mesh.deadline_ns is not None and now_ns >= self.mesh.deadline_ns:
            effects += self.mesh.handle(Tick(), now_ns)
        if self._group_due_ns is not None and now_ns >= self._group_due_ns:
            effects += self._group(Tick(), now_ns)
        if self.guests.deadline_ns is not None and now_ns >= self.guests.deadline_ns:
            effects += self._guests(Tick(), now_ns)
        if self.bulletin.deadline_ns is not None and now_ns >= self.bulletin.deadline_ns:
            effects += self._health(Tick(), now_ns)
        return effects

    def _health(self, event: BulletinInput, now_ns: int) -> list[ControlEffect]:
        effects: list[ControlEffect] = []
        for effect in self.bulletin.handle(event, now_ns):
            match effect:
                case TellHealth(node, payload):
                    effects.append(SendControl(node, self.mesh.via(node), payload))
                case Shun(nodes):
                    effects += self.mesh.handle(RelaysShunned(nodes), now_ns)
                case HealthNotice():
                    effects.append(effect)
        return effects

    def _guests(self, event: GuestsInput, now_ns: int) -> list[ControlEffect]:
        return [
            SendControl(effect.node, self.mesh.via(effect.node), effect.payload)
            if isinstance(effect, TellMember)
            else effect
            for effect in self.guests.handle(event, now_ns)
        ]

    def _group(self, event: GroupInput, now_ns: int) -> list[ControlEffect]:
        decided = self.group.handle(event, now_ns)
        self._group_due_ns = self.group.deadline_ns
        return self._perform(decided, now_ns)

    def start(self, now_ns: int) -> list[ControlEffect]:
        """Return the first effects: admit the members that the stored roster names. Call once, before any input."""
        decided = self.group.start(now_ns)
        self._group_due_ns = self.group.deadline_ns
        return self._perform(decided, now_ns)

    def _perform(self, decided: Sequence[GroupEffect], now_ns: int) -> list[ControlEffect]:
        effects: list[ControlEffect] = []
        for effect in decided:
            match effect:
                case SendGroup(node, payload):
                    effects.append(SendControl(node, self.mesh.via(node), payload))
                case MembersDecided(members, _):
                    wanted = {m.node: Admitted(m.public_key, m.endpoints, invited=False) for m in members}
                    effects += self._admit(wanted)
                    effects += self.mesh.handle(MembersChanged(members), now_ns)
                    effects += self._guests(MembersChanged(members), now_ns)
                    effects += self._health(Members(tuple(m.node for m in members)), now_ns)
                case GuestsDecided(guests, boxes):
                    effects += self._serve(dict(boxes), dict(guests))
                    ids = tuple(node_id_of(PublicKey(public_key)) for public_key, _ in guests)
                    effects += self._guests(GuestsChanged(ids), now_ns)
                case InvitePeer(public_key):
                    node = node_id_of(PublicKey(public_key))
                    self.admitted[node] = Admitted(public_key, (), invited=True)
                    effects.append(AdmitPeer(public_key, (), None, invited=True))
                case UninvitePeer(public_key):
                    self.admitted.pop(node_id_of(PublicKey(public_key)), None)
                    effects.append(ExpelPeer(public_key))
                case Sign() | StoreRoster() | Removed() | DuplicateIdentity() | GroupNotice():
                    effects.append(effect)
        return effects

    def _admit(self, wanted: dict[NodeId, Admitted]) -> list[ControlEffect]:
        effects: list[ControlEffect] = []
        for node, peer in list(self.admitted.items()):
            if not peer.invited and node not in wanted:
                del self.admitted[node]
                effects.append(ExpelPeer(peer.public_key))
        for node, peer in wanted.items():
            if self.admitted.get(node) != peer:
                self.admitted[node] = peer
                effects.append(AdmitPeer(peer.public_key, peer.endpoints, None, invited=False))
        return effects

    def _serve(self, boxes: dict[bytes, bytes], guests: dict[bytes, bytes]) -> list[ControlEffect]:
        """Order which gateways are open and who is served by them, as far as that changed."""
        used = dict.fromkeys(guests.values(), True)
        opened = {gateway: box for gateway, box in boxes.items() if gateway in used}
        served = {guest: gateway for guest, gateway in guests.items() if gateway in opened}
        effects: list[ControlEffect] = [RefuseGuest(guest) for guest in self._served if guest not in served]
        effects += [CloseGateway(gateway) for gateway in self._opened if gateway not in opened]
        effects += [OpenGateway(key, box) for key, box in opened.items() if self._opened.get(key) != box]
        effects += [ServeGuest(key, gateway) for key, gateway in served.items() if self._served.get(key) != gateway]
        self._opened, self._served = opened, served
        return effects

    def _admissions(self) -> list[ControlEffect]:
        return [
            *(AdmitPeer(p.public_key, p.endpoints, None, invited=p.invited) for p in self.admitted.values()),
            *(OpenGateway(gateway, box) for gateway, box in self._opened.items()),
            *(ServeGuest(guest, gateway) for guest, gateway in self._served.items()),
        ]

    def snapshot(self) -> bytes:
        """Return the whole state as MessagePack bytes."""
        return msgspec.msgpack.encode(
            ControlState(
                self.mesh.snapshot(),
                self.group.snapshot(),
                self.guests.snapshot(),
                self.bulletin.snapshot(),
                self.admitted,
                self._opened,
                self._served,
                self.unknown_messages,
            )
        )

    @classmethod
    def restore(cls, snapshot: bytes) -> "Control":
        """Make the machine from ``snapshot()`` bytes.

        Raises:
            CorruptError: The bytes do not decode.
        """
        try:
            state = msgspec.msgpack.decode(snapshot, type=ControlState)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptError("a control snapshot that does not decode") from error
        control = cls(
            Mesh.restore(state.mesh),
            Group.restore(state.group),
            Guests.restore(state.guests),
            Bulletin.restore(state.bulletin),
        )
        control.admitted = state.admitted
        control._opened, control._served = state.opened, state.served
        control.unknown_messages = state.unknown_messages
        return control


KIND: Final[MachineKind[ControlInput, ControlEffect]] = MachineKind(
    name="control", version=8, inputs=ControlInput, effects=ControlEffect, restore=Control.restore
)
