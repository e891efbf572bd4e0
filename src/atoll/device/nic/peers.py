# SPDX-License-Identifier: Apache-2.0
"""What the packet device knows about one peer: where it is, by which way to send, what waits for its session.

Decides the order in which ways are tried for a handshake; all other choices of a way are control's.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final, final

from atoll.base.ids import DIRECT, KEY_BYTES, Endpoint, GroupId, NodeId, PublicKey, node_id_of, packed_address_of
from atoll.device.nic.frame import Heading
from atoll.device.nic.limits import (
    CONTROL_BURST,
    CONTROL_PER_S,
    PACKETS_RECENT_MAX,
    PACKETS_WAITING_MAX,
    TAGS_MAX,
    TRANSMIT_LABELS_MAX,
    WAYS_COUNTED_MAX,
)
from atoll.device.nic.meter import Meter
from atoll.device.nic.whereabouts import Whereabouts
from atoll.overlay.sizes import BASE_BYTES, LARGEST_BYTES

__all__ = ["DEFAULT_ROUTE", "DEFAULT_TAG", "Peer", "Places", "Route", "dropped_by"]

DEFAULT_TAG: Final = 0
Route = tuple[bytes, bytes | None, int]  # (via, also, copy_bytes), as in ``SetRoute``.
DEFAULT_ROUTE: Final[Route] = (DIRECT, None, 0)


@final
class Peer:
    """One peer. Plain state: the packet path of the engine works on it directly.

    Args:
        public_key: X25519, 32 bytes.
        group: The group, for addresses.
        own: Our id.

    Attributes:
        addresses_out: Our overlay address and the peer's, as they stand in a packet to it.
        addresses_in: The same in a packet from it.
        where: Where to send directly.
        psk: Shared with the peer; zeros: none.
        invited: Whether it is no member yet, so that we never call it.
        up: Whether control was told of a session.
        boot: How often it was.
        attempts: Handshakes started since the last session came about.
        routes: By policy tag.
        recent: (sent at, tag, way, datagram) of the last packets that went alone and by one way, oldest first.
        sizes: The longest inner packet, by way; what is not here carries BASE_BYTES.
        transmit: Labels by relay.
        tried: The place over UDP that was asked last while TCP is in use, and the token; None: none.
        waiting: (tag, packet) without a session, oldest first.
        data_sent: Data packets sent by each way, those not that went by two at once; modulo 2^32, as all that is told.
        data_seen: Data packets that came by each way.
        dropped: What came out of its session and was dropped, by reason: some of DROP_REASONS.
    """

    __slots__ = (
        "addresses_in",
        "addresses_out",
        "attempts",
        "boot",
        "control",
        "data_seen",
        "data_sent",
        "dropped",
        "endpoint_due_ns",
        "endpoint_told_ns",
        "flow_due_ns",
        "flow_received",
        "flow_sent",
        "flow_told_ns",
        "invited",
        "node",
        "psk",
        "public_key",
        "recent",
        "routes",
        "sizes",
        "transmit",
        "tried",
        "up",
        "waiting",
        "where",
    )

    def __init__(self, public_key: PublicKey, group: GroupId, own: NodeId) -> None:
        self.node: Final = node_id_of(public_key)
        self.public_key: Final = public_key
        ours, theirs = packed_address_of(group, own), packed_address_of(group, self.node)
        self.addresses_out: Final = ours + theirs
        self.addresses_in: Final = theirs + ours
        self.where: Final = Whereabouts()
        self.invited, self.psk = False, bytes(KEY_BYTES)
        self.up, self.boot, self.attempts = False, 0, 0
        self.routes: Final[dict[int, Route]] = {}
        self.recent: Final[deque[tuple[int, int, bytes, bytes]]] = deque(maxlen=PACKETS_RECENT_MAX)
        self.sizes: Final[dict[bytes, int]] = {}
        self.transmit: Final[dict[bytes, Heading]] = {}
        self.tried: tuple[Endpoint, int] | None = None
        self.waiting: Final[deque[tuple[int, bytes]]] = deque(maxlen=PACKETS_WAITING_MAX)
        self.control: Final = Meter(per_s=CONTROL_PER_S, burst=CONTROL_BURST)
        self.flow_sent = self.flow_received = 0
        self.data_sent: Final[dict[bytes, int]] = {}
        self.data_seen: Final[dict[bytes, int]] = {}
        self.dropped: Final[dict[str, int]] = {}
        self.flow_due_ns = self.endpoint_due_ns = 0  # 0: no report is due.
        self.flow_told_ns = self.endpoint_told_ns = -(1 << 63)

    def list_endpoints(self, listed: tuple[Endpoint, ...]) -> None:
        """Take what the peer now says about where it is. A live session stays where it is."""
        if self.where.list(listed, up=self.up):
            self.attempts = 0

    def route(self, tag: int) -> Route:
        """Return the route of a tag; without one, that of tag 0, which heals; without that, direct."""
        return self.routes.get(tag) or self.routes.get(DEFAULT_TAG) or DEFAULT_ROUTE

    def set_route(self, tag: int, route: Route) -> bool:
        """Set the route of a tag; False: no such tag."""
        if not 0 <= tag < TAGS_MAX:
            return False
        self.routes[tag] = route
        return True

    def size_of(self, via: bytes, also: bytes | None) -> int:
        """Return the longest inner packet that may go by a way, and by a second one."""
        size = self.sizes.get(via, BASE_BYTES)
        return size if also is None else min(size, self.sizes.get(also, BASE_BYTES))

    def set_size(self, via: bytes, size: int) -> bool:
        """Set the longest inner packet of a way; False: impossible, or too many ways."""
        if not BASE_BYTES <= size <= LARGEST_BYTES or (via not in self.sizes and len(self.sizes) >= WAYS_COUNTED_MAX):
            return False
        self.sizes[via] = size
        return True

    def set_transmit(self, relay: bytes, label: Heading) -> bool:
        """Set the label over a relay; False: too many."""
        if relay not in self.transmit and len(self.transmit) >= TRANSMIT_LABELS_MAX:
            return False
        self.transmit[relay] = label
        return True

    def count_sent(self, via: bytes, count: int = 1) -> None:
        """Count data packets that go by this way alone; less than 0: they are not to count after all."""
        _count(self.data_sent, via, count)

    def count_seen(self, via: bytes, packets: int = 1) -> None:
        """Count data packets that came by this way."""
        _count(self.data_seen, via, packets)

    def is_reachable(self) -> bool:
        """Return whether there is any way at all to try."""
        return self.where.endpoint is not None or bool(self.transmit) or bool(self.where.listed_tcp)

    def next_ways(self) -> tuple[tuple[bytes, Endpoint | None], ...]:
        """Return where the next handshake of ours goes, as (via, endpoint if direct), and count it.

        The first goes by the route of tag 0, with its copy. If that is not answered, relays and direct endpoints take
        turns, each in its order, because the route may have died together with the session; and from then on one place
        over TCP as well.
        """
        attempt = self.attempts
        self.attempts += 1
        directs = self.where.known()
        tcp = self.where.tcp() if attempt or not directs else None
        ways = self._ways(attempt, directs)
        return (*ways, (DIRECT, tcp)) if tcp is not None or not ways else ways

    def _ways(self, attempt: int, directs: tuple[Endpoint, ...]) -> tuple[tuple[bytes, Endpoint | None], ...]:
        via, also, _ = self.route(DEFAULT_TAG)
        if attempt == 0 and (directs if via == DIRECT else via in self.transmit):
            first = (via, self.where.endpoint if via == DIRECT else None)
            if also is None or also == via:
                return (first,)
            return (first, (also, self.where.endpoint if also == DIRECT else None))
        relays = tuple(self.transmit)
        if relays and (attempt % 2 == 1 or not directs):
            return ((relays[attempt // 2 % len(relays)], None),)
        if directs:
            return ((DIRECT, directs[(attempt // 2 if relays else attempt) % len(directs)]),)
        return ()


def dropped_by(peers: Iterable[Peer]) -> dict[bytes, dict[str, int]]:
    """Return what was dropped of each peer, those left out of whom nothing was."""
    return {peer.node: dict(peer.dropped) for peer in peers if peer.dropped}


def _count(counts: dict[bytes, int], via: bytes, count: int) -> None:
    before = counts.get(via)
    if before is not None or len(counts) < WAYS_COUNTED_MAX:
        counts[via] = ((before or 0) + count) & 0xFFFF_FFFF


@final
class Places:
    """Where all peers are.

    Args:
        by_key: All peers by public key, kept by the engine.
    """

    __slots__ = ("_by_key",)

    def __init__(self, by_key: dict[bytes, Peer]) -> None:
        self._by_key: Final = by_key

    def endpoints(self) -> dict[NodeId, Endpoint]:
        """Return where the peers are, as far as that is known or guessed."""
        return {peer.node: peer.where.endpoint for peer in self._by_key.values() if peer.where.endpoint is not None}

    def uses(self, endpoint: Endpoint) -> bool:
        """Return whether a peer is there, or may be."""
        return any(endpoint in (peer.where.endpoint, peer.where.rival) for peer in self._by_key.values())

    def lost(self, endpoint: Endpoint) -> None:
        """Note that the connection to this endpoint has ended."""
        for peer in self._by_key.values():
            peer.where.lost(endpoint)
