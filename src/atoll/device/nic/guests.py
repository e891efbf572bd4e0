# SPDX-License-Identifier: Apache-2.0
"""Guests in the packet device: stock WireGuard clients whose packets this node takes in and gives out for the group.

Theory of operation. A *gateway* is a key pair that several members share, so that a guest, which knows one peer, can
be served by any of them. Its private key comes sealed for this node and is opened here; nobody else in this machine
sees it. Each gateway has its own sessions, beside those with members. A guest has one way, the direct one: it probes
nothing and relays nothing. Its packets are taken when they come from its own address, and go to this machine, to the
resolver, to another guest, or to a member through the session with that member, which checks that we do serve it.

We never call a guest: only it knows by whom it wants to be served, and a call of ours would take it from that member.

What a guest may cost is bounded: packets beyond its rate are dropped and counted, and nothing waits for one.
"""

from random import Random
from typing import Final, Protocol, final

from atoll.base.errors import LimitError, UsageError, WireError
from atoll.base.ids import KEY_BYTES, NODE_ID_BYTES, Endpoint, GroupId, NodeId, PublicKey, node_id_of, packed_address_of
from atoll.device.nic.counters import Counters
from atoll.device.nic.endpoints import packed_endpoint
from atoll.device.nic.limits import (
    GATEWAYS_MAX,
    GUEST_BURST_BYTES,
    GUEST_BYTES_S,
    GUESTS_MAX,
    SHARES_PER_ORDER_MAX,
)
from atoll.device.nic.messages import (
    CloseGateway,
    EndpointSeen,
    GatewayShared,
    OpenGateway,
    RefuseGuest,
    Report,
    ServeGuest,
    ShareGateway,
)
from atoll.device.nic.meter import Meter
from atoll.device.nic.outlet import Outlet
from atoll.device.nic.peers import Peer
from atoll.device.nic.plaintext import IPV6_HEADER_BYTES, IPV6_NIBBLE
from atoll.device.nic.segments import PADDING_BYTES_MAX, UNFINISHED, finished
from atoll.overlay.orders import DropGuest, SetGuest, YieldGuest
from atoll.overlay.reports import GuestDown, GuestUp
from atoll.overlay.session import (
    Burst,
    Data,
    Established,
    Outgoing,
    PrivateKey,
    Run,
    Sessions,
    open_box,
    seal_box,
)

__all__ = ["Guest", "GuestOrder", "Guests", "Host"]

_INITIATION: Final = b"\x01\0\0\0"
_RESPONSE: Final = 2
_ANSWERS: Final = {b"\x02\0\0\0": 8, b"\x03\0\0\0": 4, b"\x04\0\0\0": 4}  # Where the receiver's index stands.
_HANDSHAKE_BYTES_MIN: Final = 64

GuestOrder = OpenGateway | CloseGateway | ServeGuest | RefuseGuest | ShareGateway | SetGuest | DropGuest | YieldGuest


class Host(Protocol):
    """What guests need of the engine."""

    def from_guest(self, guest: "Guest", packet: bytes) -> None:
        """Take a packet that came out of a guest's session: whole, IPv6, and from its own address."""
        ...


@final
class Guest:
    """One guest that we may serve. Plain state.

    Attributes:
        public_key: X25519, 32 bytes.
        node: Its id.
        address: Its overlay address, 16 bytes.
        sessions: Those of its gateway.
        endpoint: Where it last was; None: never heard of.
        up: Whether control was told of a session.
        meter: Bytes from it.
    """

    __slots__ = ("address", "endpoint", "meter", "node", "public_key", "sessions", "up")

    def __init__(self, public_key: PublicKey, group: GroupId, sessions: Sessions) -> None:
        self.public_key: Final = public_key
        self.node: Final = node_id_of(public_key)
        self.address: Final = packed_address_of(group, self.node)
        self.sessions: Final = sessions
        self.endpoint: Endpoint | None = None
        self.up = False
        self.meter: Final = Meter(per_s=GUEST_BYTES_S, burst=GUEST_BURST_BYTES)


@final
class Guests:
    """All gateways and guests of one node.

    Args:
        private_key: The node's own, for what is sealed for it.
        group: The group, for addresses.
        peers: All peers by node, kept by the engine.
        rng: Of the sessions.
        counters: Drops are counted here.
        reports: For control.
        outlet: The way out.
        host: Takes their packets.

    Attributes:
        compiled: Whether bursts go through the compiled loop, if it is installed; set before the first order.
    """

    __slots__ = (
        "_by_key",
        "_counters",
        "_gateways",
        "_group",
        "_guests",
        "_host",
        "_now_ns",
        "_outlet",
        "_peers",
        "_private",
        "_reports",
        "_rng",
        "_secrets",
        "_servers",
        "_wall_ns",
        "compiled",
    )

    def __init__(
        self,
        *,
        private_key: bytes,
        group: GroupId,
        peers: dict[bytes, Peer],
        rng: Random,
        counters: Counters,
        reports: list[Report],
        outlet: Outlet,
        host: Host,
    ) -> None:
        self._private: Final = PrivateKey(private_key)
        self._group, self._peers, self._rng = group, peers, rng
        self._counters, self._reports, self._outlet, self._host = counters, reports, outlet, host
        self._gateways: Final[dict[bytes, Sessions]] = {}
        self._secrets: Final[dict[bytes, bytes]] = {}  # Gateways' private keys, to be shared with further members.
        self._guests: Final[dict[bytes, Guest]] = {}
        self._by_key: Final[dict[bytes, Guest]] = {}
        self._servers: Final[dict[bytes, bytes]] = {}
        self._now_ns = self._wall_ns = 0
        self.compiled = True

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` is owed; None: never."""
        if not self._gateways:
            return None
        owed = [at for sessions in self._gateways.values() if (at := sessions.deadline_ns) is not None]
        return min(owed, default=None)

    # Orders.

    def apply(self, order: GuestOrder, now_ns: int, wall_ns: int) -> bool:
        """Apply one order; False: refused."""
        self._now_ns, self._wall_ns = now_ns, wall_ns
        match order:
            case OpenGateway(public_key, box):
                return self._open(public_key, box)
            case CloseGateway(public_key):
                self._close(public_key)
            case ServeGuest(public_key, gateway):
                return self._serve(PublicKey(public_key), gateway)
            case RefuseGuest(public_key):
                self._refuse(public_key)
            case ShareGateway():
                self._share(order)
            case SetGuest(node, server):
                return self._set(node, server)
            case DropGuest(node):
                self._servers.pop(node, None)
            case YieldGuest(node):
                guest = self._guests.get(node)
                if guest is not None:
                    guest.sessions.end(guest.public_key)
                    guest.up, guest.endpoint = False, None
        return True

    def _open(self, public_key: bytes, box: bytes) -> bool:
        if public_key in self._gateways:
            return True
        secret = open_box(self._private, box)
        if secret is None or len(self._gateways) >= GATEWAYS_MAX or PrivateKey(secret).public != public_key:
            return False
        self._secrets[public_key] = secret
        self._gateways[public_key] = Sessions(
            private_key=secret,
            rng=self._rng,
            now_ns=self._now_ns,
            prefers_aes=False,
            calls=False,
            compiled=self.compiled,
        )
        return True

    def _close(self, public_key: bytes) -> None:
        sessions = self._gateways.pop(public_key, None)
        self._secrets.pop(public_key, None)
        for guest in [guest for guest in self._guests.values() if guest.sessions is sessions]:
            self._refuse(guest.public_key)

    def _serve(self, public_key: PublicKey, gateway: bytes) -> bool:
        sessions = self._gateways.get(gateway)
        if sessions is None or len(self._guests) >= GUESTS_MAX:
            return False
        known = self._by_key.get(public_key)
        if known is not None and known.sessions is sessions:
            return True
        self._refuse(public_key)
        try:
            sessions.add_peer(public_key)
        except (LimitError, UsageError):
            return False
        guest = Guest(public_key, self._group, sessions)
        self._guests[guest.node] = self._by_key[public_key] = guest
        return True

    def _refuse(self, public_key: bytes) -> None:
        guest = self._by_key.pop(public_key, None)
        if guest is not None:
            del self._guests[guest.node]
            guest.sessions.remove_peer(public_key)

    def _set(self, node: bytes, server: bytes) -> bool:
        if server not in self._peers or (node not in self._servers and len(self._servers) >= GUESTS_MAX):
            return False
        self._servers[node] = server
        return True

    def _share(self, order: ShareGateway) -> None:
        """Seal a gateway's private key for members; that of a new one, if none is named."""
        secret = self._secrets.get(order.public_key) if order.public_key else self._rng.randbytes(KEY_BYTES)
        if secret is None:
            self._reports.append(GatewayShared(b"", ()))
            return
        boxes: list[tuple[bytes, bytes]] = []
        for recipient in order.recipients[:SHARES_PER_ORDER_MAX]:
            box = seal_box(recipient, secret, PrivateKey(self._rng.randbytes(KEY_BYTES)))
            if box is not None:
                boxes.append((recipient, box))
        self._reports.append(GatewayShared(PrivateKey(secret).public, tuple(boxes)))

    # From the network.

    def takes(self, datagram: bytes | memoryview) -> bool:
        """Return whether a datagram is for one of our gateways."""
        if not self._gateways or len(datagram) < 32:
            return False
        kind = bytes(datagram[:4])
        if kind == _INITIATION:
            whole = bytes(datagram)
            return len(whole) > _HANDSHAKE_BYTES_MIN and any(
                sessions.is_addressed(whole) for sessions in self._gateways.values()
            )
        at = _ANSWERS.get(kind)
        if at is None:
            return False
        index = int.from_bytes(datagram[at : at + 4], "little")
        return any(sessions.owns(index) for sessions in self._gateways.values())

    def receive(self, datagram: bytes, source: Endpoint, now_ns: int, wall_ns: int, *, under_load: bool) -> None:
        """Take a datagram for which ``takes`` holds; nothing in it can raise."""
        self._now_ns, self._wall_ns = now_ns, wall_ns
        sessions = self._sessions_of(datagram)
        if sessions is None:
            return
        got = sessions.receive(datagram, packed_endpoint(source), now_ns, wall_ns, under_load)
        for outgoing in sessions.outbox:
            self._speak(outgoing, source)
        sessions.outbox.clear()
        if got is None:
            return
        guest = self._by_key[got.public_key]
        if isinstance(got, Established) or got.confirms:
            self._linked(guest, source)
        if isinstance(got, Data):
            if got.gap_delta >= 0 and guest.endpoint != source:
                self._moved(guest, source)
            if got.plaintext:
                self.take(guest, got.plaintext)

    def open_run(self, run: Run, source: Endpoint, now_ns: int, wall_ns: int) -> tuple[Guest, int, int] | None:
        """Open the first data packets of a burst for which ``takes`` holds; nothing in them can raise.

        Args:
            run: As ``Sessions.open_run`` has it.
            source: Where they came from.
            now_ns: Monotonic time.
            wall_ns: Time since 1970.

        Returns:
            (whose they are, how many were opened, how many of these say that they continue the first one), and their
            plaintexts are for ``take``, but not those that say so: only our own nodes may, so they are dropped and
            counted. None: none, and the first one is for ``receive``, as is the one that follows those opened.
        """
        self._now_ns, self._wall_ns = now_ns, wall_ns
        sessions = self._sessions_of(bytes(run.data[:8]))
        opened = None if sessions is None else sessions.open_run(run, now_ns, wall_ns)
        if opened is None:
            return None
        public_key, count, joined = opened
        guest = self._by_key[public_key]
        if guest.endpoint != source:
            self._moved(guest, source)
        self._counters.drop("guest-malformed", joined)
        return guest, count, joined

    def _sessions_of(self, datagram: bytes) -> Sessions | None:
        if datagram.startswith(_INITIATION):
            return next((s for s in self._gateways.values() if s.is_addressed(datagram)), None)
        at = _ANSWERS[datagram[:4]]
        index = int.from_bytes(datagram[at : at + 4], "little")
        return next((s for s in self._gateways.values() if s.owns(index)), None)

    def _speak(self, outgoing: Outgoing, source: Endpoint | None) -> None:
        """Send what the sessions say: an answer to where the question came from, all else to where the guest is."""
        guest = None if outgoing.public_key is None else self._by_key.get(outgoing.public_key)
        if source is not None and (guest is None or outgoing.datagram[0] == _RESPONSE or guest.endpoint is None):
            self._outlet.emit(source, outgoing.datagram)
        elif guest is not None and guest.endpoint is not None:
            self._outlet.emit(guest.endpoint, outgoing.datagram)

    def _linked(self, guest: Guest, source: Endpoint) -> None:
        guest.up = True
        self._moved(guest, source)
        self._reports.append(GuestUp(guest.node, guest.sessions.newest_timestamp(guest.public_key)))

    def _moved(self, guest: Guest, source: Endpoint) -> None:
        guest.endpoint = source
        self._reports.append(EndpointSeen(guest.node, *source))

    def take(self, guest: Guest, plaintext: bytes) -> None:
        """Take what came out of a guest's session just now, not empty."""
        length = (plaintext[4] << 8 | plaintext[5]) + IPV6_HEADER_BYTES if len(plaintext) >= IPV6_HEADER_BYTES else 0
        if plaintext[0] >> 4 != IPV6_NIBBLE or not 0 < length <= len(plaintext) <= length + PADDING_BYTES_MAX:
            self._counters.drop("guest-malformed")
        elif plaintext[8:24] != guest.address:
            self._counters.drop("guest-foreign")
        elif not guest.meter.fits(length, self._now_ns):
            self._counters.drop("guest-rate")
        else:
            guest.meter.take(length, self._now_ns)
            self._host.from_guest(guest, plaintext[:length])

    # To guests.

    def find(self, address: bytes) -> "Guest | Peer | None":
        """Return the guest with this address, if we serve it, or the member that does; None: nobody."""
        node = address[-NODE_ID_BYTES:]
        guest = self._guests.get(node)
        if guest is not None and guest.up:
            return guest if guest.address == address else None
        server = self._servers.get(node)
        if server is None or packed_address_of(self._group, NodeId(node)) != address:
            return None
        return self._peers.get(server)

    def is_from(self, peer: Peer, address: bytes) -> bool:
        """Return whether a peer may hand us packets with this source: of a guest that it serves."""
        return self._servers.get(address[-NODE_ID_BYTES:]) == peer.node and self.find(address) is peer

    def guest(self, node: bytes) -> Guest | None:
        """Return a guest that we serve now, by its id."""
        guest = self._guests.get(node)
        return guest if guest is not None and guest.up else None

    def send(self, guest: Guest, packet: bytes, now_ns: int, wall_ns: int) -> None:
        """Send a packet to a guest; one whose checksum is undone gets it here, because a guest is no node of ours."""
        try:
            whole = finished(packet) if packet[0] >> 4 in UNFINISHED else packet
        except WireError:
            self._counters.drop("packet-malformed")
            return
        sealed = guest.sessions.seal(guest.public_key, whole, now_ns, wall_ns)
        if sealed is None:
            self._counters.drop("guest-unreachable")
        else:
            self._outlet.emit(guest.endpoint, sealed)
        if guest.sessions.outbox:
            self._say(guest.sessions)

    def seal_burst(self, guest: Guest, burst: Burst, now_ns: int, wall_ns: int) -> int | None:
        """Seal finished packets for a guest; return where the last datagram ends, None: there is no session now."""
        end = guest.sessions.seal_burst(guest.public_key, burst, now_ns, wall_ns)
        if guest.sessions.outbox:
            self._say(guest.sessions)
        return end

    # Time.

    def tick(self, now_ns: int, wall_ns: int) -> None:
        """Do what is due."""
        self._now_ns, self._wall_ns = now_ns, wall_ns
        for sessions in self._gateways.values():
            sessions.tick(now_ns, wall_ns)
            for public_key in sessions.expired:
                guest = self._by_key.get(public_key)
                if guest is not None and guest.up:
                    guest.up = False
                    self._reports.append(GuestDown(guest.node))
            sessions.expired.clear()
            self._say(sessions)

    def _say(self, sessions: Sessions) -> None:
        for outgoing in sessions.outbox:
            self._speak(outgoing, None)
        sessions.outbox.clear()
