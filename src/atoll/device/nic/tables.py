# SPDX-License-Identifier: Apache-2.0
"""What control told the packet device: who its peers are, their routes, and all labels.

Every order is idempotent. One that names a stranger, breaks a limit or holds something impossible is refused as a
whole; a refused order changes nothing.
"""

from dataclasses import dataclass
from typing import Final, final

from atoll.base.errors import LimitError, UsageError
from atoll.base.ids import GroupId, NodeId, PublicKey
from atoll.device.nic.counters import Counters
from atoll.device.nic.endpoints import numeric_endpoint
from atoll.device.nic.evidence import Evidence
from atoll.device.nic.guests import Guests
from atoll.device.nic.limits import KEEPALIVE_S
from atoll.device.nic.messages import (
    AdmitPeer,
    EngineOrder,
    ExpelPeer,
    FlowOwned,
    SendPacket,
    SetAccess,
    SetTraffic,
)
from atoll.device.nic.outlet import Outlet
from atoll.device.nic.peers import Peer
from atoll.device.nic.relay import Relay, is_label
from atoll.overlay.orders import (
    DropArrivalLabel,
    DropForwardLabel,
    DropTransmitLabel,
    ProbeSize,
    SendControl,
    SetArrivalLabel,
    SetForwardLabel,
    SetRoute,
    SetSize,
    SetTransmitLabel,
    SuggestEndpoint,
)
from atoll.overlay.session import Sessions

__all__ = ["Peers", "Tables"]

_NO_PSK: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Peers:
    """All peers under both of their names, and what makes a new one."""

    group: GroupId
    own: NodeId
    by_node: dict[bytes, Peer]
    by_key: dict[bytes, Peer]


@final
class Tables:
    """Applies orders to the tables that the packet path reads.

    Args:
        peers: Ours to change.
        sessions: Told who may have one, and whom to call.
        relay: Both tables of labels.
        evidence: Told of peers that are gone.
        guests: Has tables of its own.
        outlet: The way out.
        counters: Endpoints that are none are counted here.
    """

    __slots__ = ("_counters", "_evidence", "_guests", "_outlet", "_peers", "_relay", "_sessions")

    def __init__(
        self,
        peers: Peers,
        *,
        sessions: Sessions,
        relay: Relay,
        evidence: Evidence,
        guests: Guests,
        outlet: Outlet,
        counters: Counters,
    ) -> None:
        self._peers: Final = peers
        self._sessions: Final = sessions
        self._relay: Final = relay
        self._evidence: Final = evidence
        self._guests: Final = guests
        self._outlet: Final = outlet
        self._counters: Final = counters

    def apply(self, order: EngineOrder, now_ns: int, wall_ns: int) -> bool:
        """Apply one order; False: refused. Handshakes that it starts are in the sessions' outbox."""
        match order:
            case AdmitPeer():
                return self._admit(order, now_ns, wall_ns)
            case ExpelPeer(public_key):
                self._expel(public_key)
            case SetRoute():
                return self._set_route(order, now_ns)
            case SuggestEndpoint(node, host, port):
                peer, place = self._peers.by_node.get(node), numeric_endpoint((host, port))
                if peer is None or place is None:
                    return False
                peer.where.suggest(place)
            case SetSize(node, via, size):
                peer = self._peers.by_node.get(node)
                return peer is not None and peer.set_size(via, size)
            case SetTransmitLabel():
                return self._set_transmit(order, now_ns, wall_ns)
            case DropTransmitLabel(node, relay):
                peer = self._peers.by_node.get(node)
                if peer is not None:
                    peer.transmit.pop(relay, None)
            case SetForwardLabel():
                return self._relay.set_forward(order, now_ns)
            case DropForwardLabel(label):
                self._relay.forwards.pop(label, None)
            case SetArrivalLabel():
                return self._relay.set_arrival(order)
            case DropArrivalLabel(label):
                self._relay.arrivals.pop(label, None)
            case SendPacket() | SendControl() | ProbeSize() | SetAccess() | SetTraffic() | FlowOwned():
                return False  # Not about a table of ours.
            case _:
                return self._guests.apply(order, now_ns, wall_ns)
        return True

    def _admit(self, order: AdmitPeer, now_ns: int, wall_ns: int) -> bool:
        peers, psk = self._peers, order.psk or _NO_PSK
        peer = peers.by_key.get(order.public_key)
        if peer is None:
            try:
                self._sessions.add_peer(order.public_key, psk=psk, ours=True)
            except (LimitError, UsageError):  # Too many, or our own key.
                return False
            peer = Peer(PublicKey(order.public_key), peers.group, peers.own)
            peers.by_node[peer.node] = peers.by_key[peer.public_key] = peer
        listed = [numeric_endpoint(endpoint) for endpoint in order.endpoints]
        self._counters.drop("endpoint-invalid", listed.count(None))
        peer.list_endpoints(tuple(endpoint for endpoint in listed if endpoint is not None))
        peer.invited, peer.psk = order.invited, psk
        self.call(peer, now_ns, wall_ns)
        return True

    def call(self, peer: Peer, now_ns: int, wall_ns: int) -> None:
        """Keep a session with this peer from now on, if there is a way to it and we are the one to call."""
        calls = peer.is_reachable() and not peer.invited
        self._sessions.add_peer(peer.public_key, psk=peer.psk, keepalive_s=KEEPALIVE_S if calls else 0, ours=True)
        if calls:
            self._sessions.connect(peer.public_key, now_ns, wall_ns)

    def _expel(self, public_key: bytes) -> None:
        peer = self._peers.by_key.pop(public_key, None)
        if peer is None:
            return
        del self._peers.by_node[peer.node]
        self._sessions.remove_peer(public_key)
        self._relay.forget(peer.node)
        self._evidence.forget(peer)
        for other in self._peers.by_node.values():
            other.transmit.pop(peer.node, None)

    def _set_route(self, order: SetRoute, now_ns: int) -> bool:
        peer, tag = self._peers.by_node.get(order.node), order.tag
        if peer is None:
            return False
        before, beside, _ = peer.route(tag)
        if not peer.set_route(tag, (order.via, order.also, order.copy_bytes)):
            return False
        new = [way for way in (order.via, order.also) if way is not None and way not in {before, beside}]
        if new:
            self._outlet.resend(peer, tag, before, new, now_ns)
        return True

    def _set_transmit(self, order: SetTransmitLabel, now_ns: int, wall_ns: int) -> bool:
        peer = self._peers.by_node.get(order.node)
        if peer is None or not is_label(order.label, order.key):
            return False
        if not peer.set_transmit(order.relay, self._relay.heading(order.label, order.key)):
            return False
        if not peer.up:
            self.call(peer, now_ns, wall_ns)
        return True
