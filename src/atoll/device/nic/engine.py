# SPDX-License-Identifier: Apache-2.0
"""The packet device without sockets: takes orders and datagrams, gives datagrams and reports.

Theory of operation. All secrets of a node's data path live in here: the private key, the sessions, the label keys.
Control says what to do (orders) and hears what happened (reports), and never sees a key of a session. The engine
chooses nothing: by which way data goes is an order; only a handshake may try other ways, because without a session
control is blind.

Rules of this file:

* No clock, no socket, no entropy but ``rng``: the live process and the simulator run the same object.
* Nothing that comes from the network raises, and nothing in an order does either: both are dropped and counted. (The
  orders come from our own control process, but over a process boundary.)
"""

from random import Random
from typing import Final, final

from atoll.base.errors import WireError
from atoll.base.ids import (
    DIRECT,
    NODE_ID_BYTES,
    Endpoint,
    GroupId,
    NodeId,
    PublicKey,
    node_id_of,
    packed_address_of,
    resolver_address,
)
from atoll.device.nic.access import Traffic, tag_of
from atoll.device.nic.bursts import Bursts
from atoll.device.nic.config import EngineConfig
from atoll.device.nic.counters import Counters
from atoll.device.nic.evidence import Evidence
from atoll.device.nic.frame import FRAME_KIND, label_of
from atoll.device.nic.guest_bursts import OVERHEAD_BYTES
from atoll.device.nic.guests import Guest, Guests
from atoll.device.nic.inlet import ADMINISTRATIVE, NO_PORT, NO_ROUTE, Inlet, unreachable
from atoll.device.nic.limits import (
    COUNTERS_NS,
    PACKETS_WAITING_MAX,
    STAMP_AHEAD_NS,
    TUN_ERRORS_BURST,
    TUN_ERRORS_PER_S,
)
from atoll.device.nic.messages import (
    EngineOrder,
    FlowOwned,
    NicCounters,
    PacketReceived,
    Report,
    SendPacket,
    SetAccess,
    SetTraffic,
    Timestamp,
)
from atoll.device.nic.meter import Meter
from atoll.device.nic.outlet import Outlet
from atoll.device.nic.peers import Peer, Places, dropped_by
from atoll.device.nic.plaintext import (
    CONTROL_NIBBLE,
    QUESTION_NIBBLE,
    is_control,
    is_packet,
    is_whole,
    pad_control,
    pad_copied,
    unpad_control,
)
from atoll.device.nic.questions import Questions
from atoll.device.nic.relay import Arrival, Forward, Relay, source_of
from atoll.device.nic.segments import UNFINISHED, Bulk, finished, marked, packet_of, single_bulk
from atoll.device.nic.tables import Peers, Tables
from atoll.overlay.orders import ProbeSize, SendControl
from atoll.overlay.reports import ControlReceived, SessionDown, SessionUp
from atoll.overlay.session import DATA_KINDS, Established, Sessions
from atoll.overlay.sizes import BASE_BYTES

__all__ = ["Engine"]


_DEFAULT: Final = EngineConfig()


@final
class Engine:
    """One node's packet device.

    After each call the caller sends what is in ``outbox``, hands ``reports`` to control, and clears both. ``tick`` is
    owed at ``deadline_ns``; late is harmless.

    Args:
        private_key: X25519, 32 bytes.
        group: The group, 32 bytes.
        rng: Of the sessions. ``SystemRandom`` in production.
        now_ns: Monotonic time of creation.
        wall_ns: Time since 1970.
        wall_floor_ns: The last ``Timestamp`` stored under this key; 0: none.
        limits: Bounds that the operator sets.

    Attributes:
        outbox: (endpoint, datagram) to send, in order.
        bursts: (endpoint, datagrams back to back, length of each but the last) to send, in order, before the next call.
        reports: For control, in order.
        counters: What was dropped here; the sessions count their own.
        inlet: The door to this machine's own network stack; closed unless the caller opens it.
        places: Where the peers are.
        public_key: Ours.
        node: Our id.

    Raises:
        UsageError: The key is not 32 bytes.
    Source: docs/spec/relay.md, ADR 0004.
    """

    __slots__ = (
        "_address",
        "_bursts",
        "_by_key",
        "_counted",
        "_counters_ns",
        "_evidence",
        "_guests",
        "_now_ns",
        "_outlet",
        "_peers",
        "_questions",
        "_refusals",
        "_relay",
        "_resolver",
        "_sessions",
        "_stamped_ns",
        "_tables",
        "_traffic",
        "_wall_ns",
        "bursts",
        "counters",
        "inlet",
        "node",
        "outbox",
        "places",
        "public_key",
        "reports",
    )

    def __init__(
        self,
        *,
        private_key: bytes,
        group: bytes,
        rng: Random,
        now_ns: int,
        wall_ns: int,
        wall_floor_ns: int = 0,
        limits: EngineConfig = _DEFAULT,
    ) -> None:
        self._sessions: Final = Sessions(
            private_key=private_key,
            rng=rng,
            now_ns=now_ns,
            wall_floor_ns=wall_floor_ns,
            prefers_aes=limits.prefers_aes,
            compiled=limits.compiled,
        )
        self.public_key: Final = PublicKey(self._sessions.public_key)
        self.node: Final[NodeId] = node_id_of(self.public_key)
        self.reports: Final[list[Report]] = []
        self.counters: Final = Counters()
        self._evidence: Final = Evidence(self.reports)
        self._peers: Final[dict[bytes, Peer]] = {}
        self._by_key: Final[dict[bytes, Peer]] = {}
        self.places: Final = Places(self._by_key)
        self._relay: Final = Relay(self._peers, self.counters, limits.relay_bytes_s, compiled=limits.compiled)
        self._outlet: Final = Outlet(self._peers, self._by_key, self.counters, self._evidence)
        self._questions: Final = Questions(self._by_key, self._seal, self._outlet, self.counters, self.reports)
        self._address: Final = packed_address_of(GroupId(group), self.node)
        self._resolver: Final = resolver_address(GroupId(group))
        self._guests: Final = Guests(
            private_key=private_key,
            group=GroupId(group),
            peers=self._peers,
            rng=rng,
            counters=self.counters,
            reports=self.reports,
            outlet=self._outlet,
            host=self,
        )
        self._guests.compiled = limits.compiled
        self._tables: Final = Tables(
            Peers(group=GroupId(group), own=self.node, by_node=self._peers, by_key=self._by_key),
            sessions=self._sessions,
            relay=self._relay,
            evidence=self._evidence,
            guests=self._guests,
            outlet=self._outlet,
            counters=self.counters,
        )
        self.inlet: Final = Inlet(GroupId(group), self.node, self._peers, self._guests, self.counters)
        self._traffic: Final = Traffic(self.reports)
        self._refusals: Final = Meter(per_s=TUN_ERRORS_PER_S, burst=TUN_ERRORS_BURST)
        self._bursts: Final = Bursts(
            self,
            by_key=self._by_key,
            sessions=self._sessions,
            relay=self._relay,
            outlet=self._outlet,
            inlet=self.inlet,
            guests=self._guests,
            counters=self.counters,
        )
        self.outbox: Final = self._outlet.outbox
        self.bursts: Final = self._outlet.bursts
        self._now_ns, self._wall_ns, self._counters_ns, self._stamped_ns = now_ns, wall_ns, now_ns + COUNTERS_NS, 0
        self._counted: dict[str, int] = {}
        self._stamp()

    @property
    def deadline_ns(self) -> int:
        """When ``tick`` is owed."""
        owed_ns = min(self._evidence.wake_ns, self._counters_ns)
        sessions_ns, guests_ns = self._sessions.deadline_ns, self._guests.deadline_ns
        if sessions_ns is not None:
            owed_ns = min(owed_ns, sessions_ns)
        return owed_ns if guests_ns is None else min(owed_ns, guests_ns)

    @property
    def dropped(self) -> dict[str, int]:
        """What was dropped so far, by reason, zeros left out; reasons of the sessions begin with ``session-``."""
        own = {reason: count for reason, count in self.counters.dropped.items() if count}
        theirs = self._sessions.counters.dropped.items()
        return own | {f"session-{reason}": count for reason, count in theirs if count}

    @property
    def is_linked(self) -> bool:
        """Whether there is a session with any peer."""
        return any(peer.up for peer in self._by_key.values())

    def tick(self, now_ns: int, wall_ns: int) -> None:
        """Do what is due."""
        self._now_ns, self._wall_ns = now_ns, wall_ns
        sessions = self._sessions
        sessions.tick(now_ns, wall_ns)
        for public_key in sessions.expired:
            peer = self._by_key[public_key]
            if peer.up:
                peer.up = False
                self.reports.append(SessionDown(peer.node))
        sessions.expired.clear()
        if sessions.outbox:
            self._speak()
        self._guests.tick(now_ns, wall_ns)
        self._evidence.flush(now_ns)
        if now_ns >= self._counters_ns:
            self._counters_ns = now_ns + COUNTERS_NS
            self._stamp()
            self._questions.ask_places()
            dropped = self.dropped
            if dropped != self._counted:
                self._counted = dropped
                self.reports.append(NicCounters(dropped, dropped_by(self._by_key.values())))

    # Orders.

    def order(self, order: EngineOrder, now_ns: int, wall_ns: int) -> None:
        """Obey one order. An impossible one is dropped and counted."""
        self._now_ns, self._wall_ns = now_ns, wall_ns
        if type(order) is SendPacket:  # The frequent ones first.
            self._order_packet(order)
        elif type(order) is SendControl:
            self._order_control(order)
        elif type(order) is ProbeSize:
            self._questions.ask_size(self._peers.get(order.node), order)
        elif type(order) is SetAccess:
            self.inlet.access.set(order)
        elif type(order) is SetTraffic:
            self._traffic.set(order)
        elif type(order) is FlowOwned:
            self._traffic.learn(order)
        elif not self._tables.apply(order, now_ns, wall_ns):
            self.counters.drop("order-refused")
        if self._sessions.outbox:
            self._speak()

    def _order_packet(self, order: SendPacket) -> None:
        peer, packet = self._peers.get(order.node), order.packet
        if peer is not None:
            if is_packet(packet, peer.addresses_out):
                self._send_packet(peer, order.tag, packet)
            else:
                self.counters.drop("packet-foreign")
            return
        found = self._guests.find(self._address[:6] + order.node) if len(order.node) == NODE_ID_BYTES else None
        if found is not None and is_packet(packet, packet[8:24] + self._address[:6] + order.node):
            self._send_on(found, order.tag, packet)
        elif order.node == self.node and is_packet(packet, self._resolver + self._address):
            self.inlet.outbox.append(packet)
        else:
            self.counters.drop("order-refused")

    def _order_control(self, order: SendControl) -> None:
        peer = self._peers.get(order.node)
        if peer is None or not is_control(order.payload):
            self.counters.drop("order-refused")
            return
        direct = order.via == DIRECT
        plaintext = pad_control(order.payload, peer.data_sent.get(order.via, 0), direct=direct)
        sealed = self._seal(peer, plaintext)
        if sealed is None:
            self.counters.drop("control-unsent")
            return
        self._outlet.send(peer, order.via, sealed)
        for other in peer.where.asked() if direct else ():
            # Sealed anew, or the copy that comes second would die as a replay and prove nothing.
            again = self._seal(peer, plaintext)
            if again is not None:
                self._outlet.emit(other, again)

    # Sending.

    def take_tun(self, packet: bytes, now_ns: int, wall_ns: int, *, unfinished: bool) -> None:
        """Take one packet of this machine's network stack; nothing in it can raise.

        Args:
            packet: IPv6.
            now_ns: Monotonic time.
            wall_ns: Time since 1970.
            unfinished: Its checksum, TCP's or UDP's, is undone.
        """
        self._now_ns, self._wall_ns = now_ns, wall_ns
        found: Peer | Guest | None = self.inlet.member_of(packet)
        if found is None:
            if self.inlet.is_query(packet):
                whole = finished(marked(packet)) if unfinished else packet
                self.reports.append(PacketReceived(self.node, whole))
                return
            found = self.inlet.peer_of(packet, now_ns)
            if found is None:
                return
        if not is_whole(packet):
            self.counters.drop("tun-malformed")
            return
        if self.inlet.refuses(packet, now_ns):
            return
        node = packet[30:40]
        if self.inlet.access.is_active:
            self.inlet.access.note(node, packet, now_ns)
        tag = self._tag(node, packet, len(packet))
        if len(packet) > BASE_BYTES and len(packet) > (size := self._size_of(found, tag)):
            bulk = single_bulk(packet)
            if bulk is None:
                self.inlet.refuse_size(packet, size, now_ns)
                return
            bulk.shorten(size)
            for start, until in bulk.segments():
                self._send_on(found, tag, bytes(bulk.buffer[start:until]))
        else:
            self._send_on(found, tag, marked(packet) if unfinished else packet)
        if self._sessions.outbox:
            self._speak()

    def take_ported(self, packet: bytes, now_ns: int, wall_ns: int) -> None:
        """Take one packet of the process that has ``inlet.port``; nothing in it can raise."""
        self._now_ns, self._wall_ns = now_ns, wall_ns
        peer = self.inlet.ported(packet)
        if peer is not None:
            self._send_packet(peer, tag_of(packet), packet)
            if self._sessions.outbox:
                self._speak()

    def take_bulk(self, bulk: Bulk, now_ns: int, wall_ns: int) -> None:
        """Take one large packet of this machine's network stack; nothing in it can raise.

        Args:
            bulk: Its buffer is changed.
            now_ns: Monotonic time.
            wall_ns: Time since 1970.
        """
        self._now_ns, self._wall_ns = now_ns, wall_ns
        head = bytes(bulk.buffer[bulk.start : bulk.start + bulk.head_bytes])
        found = self.inlet.member_of(head) or self.inlet.peer_of(memoryview(bulk.buffer)[bulk.start : bulk.end], now_ns)
        if found is None:
            return
        if self.inlet.refuses(head, now_ns):
            return
        tag = self._tag(head[30:40], head, len(head) + bulk.size)
        if self.inlet.access.is_active:
            self.inlet.access.note(head[30:40], head, now_ns)
        if self._is_cut_to_fit(found, tag, bulk) and not self._sent_at_once(found, tag, bulk):
            for start, until in bulk.segments():
                self._send_on(found, tag, bytes(bulk.buffer[start:until]))
        if self._sessions.outbox:
            self._speak()

    def _size_of(self, found: Peer | Guest, tag: int) -> int:
        if isinstance(found, Guest):
            return BASE_BYTES
        via, also, copy_bytes = found.route(tag)
        return found.size_of(via, None if copy_bytes else also)

    def _is_cut_to_fit(self, found: Peer | Guest, tag: int, bulk: Bulk) -> bool:
        """Cut a large packet into what its way carries; False: it cannot be, and the kernel was told."""
        size = self._size_of(found, tag)
        if bulk.shorten(size):
            return True
        self.inlet.refuse_size(memoryview(bulk.buffer)[bulk.start : bulk.end], size, self._now_ns)
        return False

    def _sent_at_once(self, found: Peer | Guest, tag: int, bulk: Bulk) -> bool:
        if isinstance(found, Guest):
            return self._bursts.guests.send(found, bulk, self._now_ns, self._wall_ns)
        via, also, copy_bytes = found.route(tag)
        once = also is None or also == via or bool(copy_bytes and bulk.head_bytes + bulk.size > copy_bytes)
        return once and self._bursts.send(found, via, bulk, self._now_ns, self._wall_ns)

    def _send_on(self, found: Peer | Guest, tag: int, packet: bytes) -> None:
        if isinstance(found, Guest):
            self._guests.send(found, packet, self._now_ns, self._wall_ns)
        else:
            self._send_packet(found, tag, packet)

    def _send_packet(self, peer: Peer, tag: int, packet: bytes) -> None:
        via, also, copy_bytes = peer.route(tag)
        if also == via or (copy_bytes and len(packet) > copy_bytes):
            also = None
        plaintext = packet if also is None else pad_copied(packet)
        sealed = self._sessions.seal(peer.public_key, plaintext, self._now_ns, self._wall_ns)
        if sealed is None:
            if len(peer.waiting) == PACKETS_WAITING_MAX:
                self.counters.drop("packet-overflow")
            peer.waiting.append((tag, packet))
            return
        self.count_flow(peer, sent=1)
        self._outlet.send(peer, via, sealed)
        if also is None:
            peer.count_sent(via)
            peer.recent.append((self._now_ns, tag, via, sealed))
        else:
            self._outlet.send(peer, also, sealed)

    def _speak(self) -> None:
        self._outlet.speak(self._sessions.outbox)
        self._sessions.outbox.clear()
        self._stamp()

    # Receiving.

    def receive(
        self, datagram: bytes, source: Endpoint, now_ns: int, wall_ns: int, *, under_load: bool = False
    ) -> None:
        """Take one datagram from the network; nothing in it can raise.

        Args:
            datagram: Its bytes.
            source: Where it came from: numeric host and port.
            now_ns: Monotonic time.
            wall_ns: Time since 1970.
            under_load: As ``Sessions.receive`` has it.
        """
        self._now_ns, self._wall_ns = now_ns, wall_ns
        self.take_datagram(datagram, source, under_load=under_load)

    def receive_burst(self, data: memoryview, size: int, source: Endpoint, now_ns: int, wall_ns: int) -> None:
        """Take datagrams of one source that stand back to back; nothing in them can raise.

        Args:
            data: Changed; must stay as it is afterwards until ``bursts`` and ``inlet.outbox`` are drained.
            size: Length of each but the last.
            source: As ``receive``; the times, too.
            now_ns: Monotonic time.
            wall_ns: Time since 1970.
        """
        self._now_ns, self._wall_ns = now_ns, wall_ns
        self._bursts.receive(data, size, source, now_ns, wall_ns)

    def take_datagram(self, datagram: bytes, source: Endpoint, *, under_load: bool = False) -> None:
        """Take one datagram as of now."""
        if datagram.startswith(FRAME_KIND):
            self._receive_frame(datagram, source, under_load=under_load)
        elif self._guests.takes(datagram):
            self._guests.receive(datagram, source, self._now_ns, self._wall_ns, under_load=under_load)
        elif datagram:
            self._open(datagram, source, None, under_load=under_load)
        else:
            self.counters.drop("datagram-empty")

    def _receive_frame(self, frame: bytes, source: Endpoint, *, under_load: bool) -> None:
        label = label_of(frame)
        if label is None:
            self.counters.drop("frame-malformed")
            return
        forward = self._relay.forwards.get(label)
        if forward is not None:
            passed = self._relay.pass_on(forward, frame, source, self._now_ns)
            if passed is not None:
                self._outlet.emit(*passed)
            self.meter(forward)
            return
        arrival = self._relay.arrivals.get(label)
        if arrival is None:
            self.counters.drop("label-unknown")
            return
        inner = self._relay.arrive(arrival, frame, source)
        if inner is not None:
            self._open(inner, source, arrival, under_load=under_load)

    def _open(self, datagram: bytes, source: Endpoint, arrival: Arrival | None, *, under_load: bool) -> None:
        """Give a datagram of kind 1 to 4 or 6 to the sessions, and what it holds to whom it is for."""
        sessions = self._sessions
        if datagram[:4] in DATA_KINDS and len(datagram) >= OVERHEAD_BYTES:
            opened = self.open_data(datagram, source, arrival)
            if opened is not None:
                peer, plaintext, gap_delta = opened
                self.take_plaintext(peer, plaintext, gap_delta, source, arrival)
            return
        got = sessions.receive(datagram, source_of(source, arrival), self._now_ns, self._wall_ns, under_load)
        if sessions.outbox:
            self._answer(source, arrival)
        if isinstance(got, Established):
            peer = self._by_key[got.public_key]
            if arrival is None and got.initiator:
                self._outlet.note_place(peer, news=peer.where.answered(source), now_ns=self._now_ns)
            self._established(peer)

    def open_data(self, datagram: bytes, source: Endpoint, arrival: Arrival | None) -> tuple[Peer, bytes, int] | None:
        """Open a data packet, and send and report what the sessions say of it.

        Returns:
            (peer, plaintext, gap delta); None: there is nothing in it.
        """
        opened = self._sessions.open_packet(datagram, self._now_ns, self._wall_ns)
        if self._sessions.outbox:
            self._answer(source, arrival)
        if opened is None:
            return None
        public_key, plaintext, _, gap_delta, confirms = opened
        peer = self._by_key[public_key]
        if confirms:
            self._established(peer)
        return (peer, plaintext, gap_delta) if plaintext else None

    def take_plaintext(
        self, peer: Peer, plaintext: bytes, gap_delta: int, source: Endpoint, arrival: Arrival | None
    ) -> None:
        """Take what a data packet held, not empty."""
        if plaintext[0] >> 4 == CONTROL_NIBBLE:
            self._take_control(peer, plaintext, gap_delta, source, arrival)
        elif plaintext[0] >> 4 == QUESTION_NIBBLE:
            if self._is_metered(peer):
                self._questions.take(peer, plaintext, source, arrival, self._now_ns)
        else:
            self._take_packet(peer, plaintext, DIRECT if arrival is None else arrival.relay)

    def count_flow(self, peer: Peer, *, sent: int = 0, received: int = 0) -> None:
        """Count packets of a peer, as evidence that data flow."""
        peer.flow_sent += sent
        peer.flow_received += received
        if not peer.flow_due_ns:
            self._evidence.flow(peer, self._now_ns)

    def meter(self, forward: Forward) -> None:
        """Report in time what went under a label."""
        if not forward.due_ns and (forward.forwarded_bytes or forward.dropped):
            self._evidence.forward(forward, self._now_ns)

    def _answer(self, source: Endpoint, arrival: Arrival | None) -> None:
        self._outlet.answer(self._sessions.outbox, source, arrival, self._now_ns)
        self._sessions.outbox.clear()
        self._stamp()

    def _take_packet(self, peer: Peer, plaintext: bytes, via: bytes) -> None:
        kind = plaintext[0] >> 4
        if kind in UNFINISHED and self.inlet.is_open and plaintext[8:40] == peer.addresses_in:
            self._bursts.deliver(peer, plaintext, via, self._now_ns)
            return
        try:
            packet, copied = packet_of(plaintext)
        except WireError:
            self.blame(peer, "packet-malformed")
            return
        if packet[8:40] == peer.addresses_in:
            if self.inlet.is_ported(packet):
                self.inlet.port_outbox.append(packet)
            else:
                self._deliver(peer.node, packet)
        elif not self._take_in_transit(peer, packet):
            self.blame(peer, "packet-foreign")
            return
        if not copied:
            peer.count_seen(via)
        self.count_flow(peer, received=1)

    def _deliver(self, node: NodeId, packet: bytes) -> None:
        """Hand a packet for this machine to its network stack, or to control."""
        for_kernel = self.inlet.takes(packet)
        if for_kernel and self.inlet.access.is_active and not self.inlet.access.admits(node, packet, self._now_ns):
            self.deny(packet)
            return
        if for_kernel:
            self.inlet.outbox.append(packet)
        elif self.inlet.is_call(packet):
            self.deny(packet, NO_PORT)
            return
        if not for_kernel or self.inlet.is_shared(packet):
            self.reports.append(PacketReceived(node, packet))

    def deny(self, packet: bytes, code: int = ADMINISTRATIVE) -> None:
        """Tell the sender of a packet that a rule forbids it, or why else; nothing is more puzzling than silence."""
        self.counters.drop("access-denied" if code == ADMINISTRATIVE else "stack-missing")
        back = self.inlet.owner(packet[8:24])
        if back is not None and self._refusals.fits(1, self._now_ns):
            self._refusals.take(1, self._now_ns)
            self._send_on(back, 0, unreachable(self._address, packet, code))

    def _tag(self, node: bytes, packet: bytes | bytearray, size: int) -> int:
        dscp = tag_of(packet)
        return self._traffic.tag(node, packet, size, dscp, self._now_ns) if self._traffic.is_active else dscp

    def _take_in_transit(self, peer: Peer, packet: bytes) -> bool:
        """Take a packet that a member sends for a guest of its own, or to one of ours; False: neither."""
        source, target = packet[8:24], packet[24:40]
        if source != peer.addresses_in[:16] and not self._guests.is_from(peer, source):
            return False
        if target == self._address:
            self._deliver(NodeId(source[6:]), packet)
            return True
        found = self._guests.find(target)
        if not isinstance(found, Guest):  # What a member sends us does not go on to a third one.
            return False
        self._guests.send(found, packet, self._now_ns, self._wall_ns)
        return True

    def from_guest(self, guest: Guest, packet: bytes) -> None:
        """Take a packet that came out of a guest's session: whole, IPv6, and from its own address."""
        target = packet[24:40]
        if target == self._address:
            self._deliver(guest.node, packet)
        elif target == self._resolver:
            self.reports.append(PacketReceived(guest.node, packet))
        elif (found := self.inlet.owner(target)) is not None:
            self._send_on(found, tag_of(packet), packet)
            if self._sessions.outbox:
                self._speak()
        else:
            self.counters.drop("guest-stranger")
            self._guests.send(guest, unreachable(self._address, packet, NO_ROUTE), self._now_ns, self._wall_ns)

    def _take_control(
        self, peer: Peer, plaintext: bytes, gap_delta: int, source: Endpoint, arrival: Arrival | None
    ) -> None:
        try:
            payload, sent, direct = unpad_control(plaintext)
        except WireError:
            self.blame(peer, "packet-malformed")
            return
        if direct != (arrival is None):  # A relay took the frame off, or put one on: no evidence of any way.
            self.counters.drop("way-false")  # Not the peer's: a relay's.
            return
        if direct and gap_delta >= 0:
            self._outlet.note_place(peer, news=peer.where.marked(source), now_ns=self._now_ns)
        if not self._is_metered(peer):
            return
        via = DIRECT if arrival is None else arrival.relay
        self.reports.append(ControlReceived(peer.node, via, payload, sent, peer.data_seen.get(via, 0)))

    def _is_metered(self, peer: Peer) -> bool:
        """Count a control message of a peer; False: they are too many."""
        if not peer.control.fits(1, self._now_ns):
            self.blame(peer, "control-rate")
            return False
        peer.control.take(1, self._now_ns)
        return True

    def blame(self, peer: Peer, reason: str) -> None:
        """Count something that a peer's session held: the peer sent it so, nobody else can have."""
        self.counters.drop(reason)
        peer.dropped[reason] = peer.dropped.get(reason, 0) + 1

    def _seal(self, peer: Peer, plaintext: bytes) -> bytes | None:
        return self._sessions.seal(peer.public_key, plaintext, self._now_ns, self._wall_ns)

    def _established(self, peer: Peer) -> None:
        peer.attempts = 0
        if not peer.up:
            peer.up = True
            peer.boot += 1
            self.reports.append(SessionUp(peer.node, peer.boot))
            self._tables.call(peer, self._now_ns, self._wall_ns)  # We may have learned only now where it is.
        waiting = list(peer.waiting)
        peer.waiting.clear()
        for tag, packet in waiting:
            self._send_packet(peer, tag, packet)

    def _stamp(self) -> None:
        """Reserve handshake timestamps ahead of their use, so that what is stored is never behind what was used."""
        used_ns = max(self._wall_ns, self._sessions.timestamp_ns)
        if used_ns + STAMP_AHEAD_NS // 2 > self._stamped_ns:
            self._stamped_ns = used_ns + STAMP_AHEAD_NS
            self.reports.append(Timestamp(self._stamped_ns))
