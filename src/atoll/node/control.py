# SPDX-License-Identifier: Apache-2.0
"""The control machine of a node: the overlay's mesh and the group's roster, tied together. Pure; one journal.

It adds no decisions of its own. It hands each input to the machine that it concerns, carries the group's messages over
the mesh's paths, and turns the decided member list into orders for the packet device.
"""

from collections.abc import Sequence
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError
from atoll.base.ids import NodeId, PublicKey, node_id_of
from atoll.core.machine import MachineKind, Tick
from atoll.device.nic.messages import AdmitPeer, ExpelPeer
from atoll.group.events import (
    DuplicateIdentity,
    GroupEffect,
    GroupInput,
    GroupNotice,
    GroupReceived,
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
from atoll.overlay.mesh import Mesh
from atoll.overlay.messages import OVERLAY_TAGS
from atoll.overlay.orders import OverlayEffect, SendControl
from atoll.overlay.reports import (
    ControlReceived,
    FlowSeen,
    MembersChanged,
    NicRestarted,
    OverlayInput,
    RelayMetered,
    SessionDown,
    SessionUp,
)

__all__ = ["KIND", "Control", "ControlEffect", "ControlInput"]

TAG_OFFSET: Final = 1  # The tag is the array's first item, a positive fixint.


ControlInput = OverlayInput | GroupInput
ControlEffect = OverlayEffect | AdmitPeer | ExpelPeer | Sign | StoreRoster | Removed | DuplicateIdentity | GroupNotice


class Admitted(msgspec.Struct):
    """What the packet device was told about one peer."""

    public_key: bytes
    endpoints: tuple[tuple[str, int], ...]
    invited: bool


class ControlState(msgspec.Struct):
    """Everything that a snapshot holds."""

    mesh: bytes
    group: bytes
    admitted: dict[bytes, Admitted]
    unknown_messages: int = 0


@final
class Control:
    """Mesh and group of one node.

    Args:
        mesh: The overlay's machine.
        group: The membership machine of the same node.
    """

    def __init__(self, mesh: Mesh, group: Group) -> None:
        self.mesh: Final = mesh
        self.group: Final = group
        self.admitted: dict[bytes, Admitted] = {}
        self.unknown_messages = 0
        self._group_due_ns = group.deadline_ns  # Kept, because the group's inputs are rare and its deadline costs.

    @property
    def deadline_ns(self) -> int | None:
        """The nearer deadline of the two machines, ns; None: neither waits."""
        mesh, group = self.mesh.deadline_ns, self._group_due_ns
        if mesh is None or group is None:
            return mesh if group is None else group
        return min(mesh, group)

    def handle(self, event: ControlInput, now_ns: int) -> Sequence[ControlEffect]:
        """Apply one input; return what to do, in order."""
        match event:
            case ControlReceived(node, _, payload):
                tag = payload[TAG_OFFSET] if len(payload) > TAG_OFFSET else -1
                if tag in OVERLAY_TAGS:
                    return self.mesh.handle(event, now_ns)
                if tag in GROUP_TAGS:
                    return self._group(GroupReceived(node, payload), now_ns)
                self.unknown_messages += 1  # A newer member's message, or garbage: nothing that we may act on.
                return ()
            case Tick():
                return self._tick(now_ns)
            case SessionUp(node, _):
                return [*self.mesh.handle(event, now_ns), *self._group(PeerLinked(node), now_ns)]
            case SessionDown(node):
                return [*self.mesh.handle(event, now_ns), *self._group(PeerUnlinked(node), now_ns)]
            case NicRestarted():
                return [*self._admissions(), *self.mesh.handle(event, now_ns)]
            case FlowSeen() | RelayMetered() | MembersChanged():
                return self.mesh.handle(event, now_ns)
            case _:
                return self._group(event, now_ns)

    def _tick(self, now_ns: int) -> Sequence[ControlEffect]:
        effects: list[ControlEffect] = []
        if self.mesh.deadline_ns is not None and now_ns >= self.mesh.deadline_ns:
            effects += self.mesh.handle(Tick(), now_ns)
        if self._group_due_ns is not None and now_ns >= self._group_due_ns:
            effects += self._group(Tick(), now_ns)
        return effects

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

    def _admissions(self) -> list[ControlEffect]:
        return [AdmitPeer(p.public_key, p.endpoints, None, invited=p.invited) for p in self.admitted.values()]

    def snapshot(self) -> bytes:
        """Return the whole state as MessagePack bytes."""
        return msgspec.msgpack.encode(
            ControlState(self.mesh.snapshot(), self.group.snapshot(), self.admitted, self.unknown_messages)
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
        control = cls(Mesh.restore(state.mesh), Group.restore(state.group))
        control.admitted = state.admitted
        control.unknown_messages = state.unknown_messages
        return control


KIND: Final[MachineKind[ControlInput, ControlEffect]] = MachineKind(
    name="control", version=4, inputs=ControlInput, effects=ControlEffect, restore=Control.restore
)
