# SPDX-License-Identifier: Apache-2.0
"""The fast path of the packet device: many packets at once, in buffers, in either direction.

What it does for each packet is what ``Engine`` does, in the same order, without making an object of it; whatever is not
plain data goes to the engine's own path. Nothing here is needed for a node to work: it is where the speed comes from.

Theory of operation. *Out*: a large packet of the kernel is cut in its buffer, each segment is sealed into the next
place of a second buffer, and the whole goes out in a few bursts. *In*: what the kernel received in one burst is opened
place by place into a third buffer; consecutive segments of a stream are put together again and written as one. *On*: a
relay changes the headers of a burst where it stands and sends it on. No payload is copied but by the cipher.
"""

from typing import Final, Protocol, final

from atoll.base.ids import DIRECT, Endpoint
from atoll.device.nic.counters import Counters
from atoll.device.nic.frame import FRAME_HEADER_BYTES, FRAME_KIND, label_of
from atoll.device.nic.guest_bursts import OVERHEAD_BYTES, GuestBursts, ends_of
from atoll.device.nic.guests import Guests
from atoll.device.nic.inlet import Inlet
from atoll.device.nic.outlet import Outlet, bursts_of
from atoll.device.nic.peers import Peer
from atoll.device.nic.plaintext import BLOCK_BYTES, IPV6_HEADER_BYTES, IPV6_NIBBLE
from atoll.device.nic.relay import Arrival, Forward, Relay
from atoll.device.nic.segments import CONTINUED_NIBBLE, UNFINISHED, Bulk, Joint, head_bytes_of, single
from atoll.host.udp import BURST_BYTES_MAX
from atoll.overlay.session import DATA_KINDS, Burst, Run, Sessions

__all__ = ["Bursts", "Slow"]

_BUFFER_BYTES: Final = 2 * 65_536 + 128 * (FRAME_HEADER_BYTES + OVERHEAD_BYTES)
_PADDING_BYTES_MAX: Final = 2 * BLOCK_BYTES - 1


class Slow(Protocol):
    """What the fast path needs of the engine."""

    def take_datagram(self, datagram: bytes, source: Endpoint) -> None:
        """Take one datagram by the usual path."""
        ...

    def take_plaintext(
        self, peer: Peer, plaintext: bytes, gap_delta: int, source: Endpoint, arrival: Arrival | None
    ) -> None:
        """Take what a data packet held, if it is not for the fast path."""
        ...

    def open_data(self, datagram: bytes, source: Endpoint, arrival: Arrival | None) -> tuple[Peer, bytes, int] | None:
        """Open a data packet, and send and report what the sessions say of it; None: there is nothing in it."""
        ...

    def count_flow(self, peer: Peer, *, sent: int = 0, received: int = 0) -> None:
        """Count packets of a peer, as evidence that data flow."""
        ...

    def blame(self, peer: Peer, reason: str) -> None:
        """Count something bad that a peer's session held."""
        ...

    def deny(self, packet: bytes) -> None:
        """Tell the sender of a packet that a rule forbids it."""
        ...

    def meter(self, forward: Forward) -> None:
        """Report in time what went under a label."""
        ...


@final
class Bursts:
    """Packets by the dozen.

    Args:
        slow: The engine.
        by_key: All peers by public key, kept by the engine.
        sessions: Seal and open.
        relay: Its tables.
        outlet: The way out.
        inlet: The door to the kernel.
        guests: Those that we serve.
        counters: Drops are counted here.

    Attributes:
        guests: Does all this for guests.
    """

    __slots__ = (
        "_by_key",
        "_counters",
        "_guests",
        "_inlet",
        "_joint",
        "_now_ns",
        "_opened",
        "_outlet",
        "_relay",
        "_sealed",
        "_sessions",
        "_slow",
        "_wall_ns",
        "guests",
    )

    def __init__(
        self,
        slow: Slow,
        *,
        by_key: dict[bytes, Peer],
        sessions: Sessions,
        relay: Relay,
        outlet: Outlet,
        inlet: Inlet,
        guests: Guests,
        counters: Counters,
    ) -> None:
        self._slow, self._by_key, self._sessions, self._relay = slow, by_key, sessions, relay
        self._outlet, self._inlet, self._guests, self._counters = outlet, inlet, guests, counters
        self._sealed: Final = memoryview(bytearray(_BUFFER_BYTES))
        self._opened: Final = memoryview(bytearray(65_536))
        self._joint: Final = Joint()
        self.guests: Final = GuestBursts(guests, inlet, outlet, self._sealed)
        self._now_ns = self._wall_ns = 0  # Of the burst at hand.

    # Out.

    def send(self, peer: Peer, via: bytes, bulk: Bulk, now_ns: int, wall_ns: int) -> bool:
        """Send a large packet by one way; False: there is no session now, or it is too large, and nothing was done."""
        room = self._outlet.room_of(peer, via)
        if room is None:
            return True
        step = room + OVERHEAD_BYTES + bulk.head_bytes + bulk.size
        if bulk.count * step > len(self._sealed) or step > BURST_BYTES_MAX:
            return False
        cut = (bulk.start, bulk.end, bulk.head_bytes, bulk.size)
        burst = Burst(memoryview(bulk.buffer), bulk.segments(), self._sealed, room, step, cut)
        count = bulk.count
        end = self._sessions.seal_burst(peer.public_key, burst, now_ns, wall_ns)
        if end is None:
            return False
        for part in bursts_of(self._sealed[:end], step):
            self._outlet.send_burst(peer, via, part, step)
        peer.count_sent(via, count)
        self._slow.count_flow(peer, sent=count)
        return True

    # In.

    def receive(self, data: memoryview, size: int, source: Endpoint, now_ns: int, wall_ns: int) -> None:
        """Take the datagrams of one burst; nothing in them can raise.

        Args:
            data: Back to back; a relay's frames are changed in place.
            size: Length of each but the last.
            source: Where all came from.
            now_ns: Monotonic time.
            wall_ns: Time since 1970.
        """
        self._now_ns, self._wall_ns = now_ns, wall_ns
        at, end = 0, len(data)
        if not end:
            self._slow.take_datagram(b"", source)
        while at < end:
            rest = data[at:] if at else data
            kind = rest[:4].tobytes()
            taken = 0
            if kind in DATA_KINDS and min(size, end - at) >= OVERHEAD_BYTES:
                if self._guests.takes(rest):
                    taken = self.guests.take_run(rest, size, self._opened[at:], source, now_ns, wall_ns)
                elif end - at <= size:  # The last one, and mostly the only one.
                    self._open(rest, source, None)
                    break
                else:
                    taken = self._take_run(rest, size, 0, at, source, None)
            elif kind == FRAME_KIND:
                taken = self._take_frames(rest, size, at, source)
            if not taken:
                self._slow.take_datagram(bytes(rest[:size]), source)
            at += taken or size
        if self._joint.parts:
            self._flush()
        self.guests.flush()

    def _take_frames(self, frames: memoryview, size: int, place: int, source: Endpoint) -> int:
        """Take the first relay frame, and as many as can be taken with it; return how many bytes these are."""
        frame = frames[:size]
        label = label_of(frame)
        if label is None:
            self._slow.take_datagram(bytes(frame), source)
            return size
        forward = self._relay.forwards.get(label)
        if forward is not None:
            passed, target = self._relay.pass_run(forward, frames, size, source, self._now_ns)
            if target is not None:
                self._outlet.bursts.append((target, frames[:passed], size))
            self._slow.meter(forward)
            return passed
        arrival = self._relay.arrivals.get(label)
        if arrival is None or bytes(frame[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + 4]) not in DATA_KINDS:
            self._slow.take_datagram(bytes(frame), source)
            return size
        arrived = self._relay.arrive_run(arrival, frames, size, source)
        if arrived:
            return self._take_run(frames[:arrived], size, FRAME_HEADER_BYTES, place, source, arrival)
        return size

    def _take_run(  # tidy: allow parameters, one place in a burst.
        self, data: memoryview, size: int, head: int, place: int, source: Endpoint, arrival: Arrival | None
    ) -> int:
        """Open the first data packet, and as many as can be opened with it; return how many bytes these are."""
        ends = ends_of(len(data), size, head + OVERHEAD_BYTES)
        opened = self._sessions.open_run(Run(data, size, head, ends, self._opened[place:]), self._now_ns, self._wall_ns)
        if opened is None:
            self._open(data[head:size], source, arrival)
            return size
        public_key, count, done = opened
        peer, via = self._by_key[public_key], DIRECT if arrival is None else arrival.relay
        overhead, follow, joined = head + OVERHEAD_BYTES, self._joint.follow, 0
        begin, plaintexts = 0, self._opened[place:]
        if done:
            self._take_joined(peer, plaintexts, size - overhead, done, source, arrival)
            done += 1
            begin = done * size
        for end in ends[done:count]:
            plaintext = plaintexts[begin : end - overhead]
            is_next, begin = begin > 0, begin + size
            if is_next and plaintext[0] >> 4 == CONTINUED_NIBBLE and follow(plaintext):
                joined += 1
            else:
                self._take_opened(peer, plaintext, 0, source, arrival)
        if joined:
            peer.count_seen(via, joined)
            self._slow.count_flow(peer, received=joined)
        return count * size

    def _take_joined(  # tidy: allow parameters, one place in a burst.
        self, peer: Peer, joined: memoryview, size: int, count: int, source: Endpoint, arrival: Arrival | None
    ) -> None:
        """Take a plaintext of this size, and the payload of so many more that continue it, back to back behind it."""
        head_bytes = head_bytes_of(joined)
        until = size + count * (size - head_bytes)
        if joined[8:40].tobytes() == peer.addresses_in and self._inlet.is_open:
            self._flush()
            via = DIRECT if arrival is None else arrival.relay
            if self._deliver(peer, joined[:size], via) and self._joint.extend(joined[size:until], count):
                peer.count_seen(via, count)
                self._slow.count_flow(peer, received=count)
            else:
                self._counters.drop("access-denied", count)
            return
        bulk = Bulk(bytearray(joined[:until]), 0, until, head_bytes, size - head_bytes)
        for start, end in bulk.segments():
            self._take_opened(peer, memoryview(bulk.buffer)[start:end], 0, source, arrival)

    def _open(self, datagram: memoryview, source: Endpoint, arrival: Arrival | None) -> None:
        opened = self._slow.open_data(bytes(datagram), source, arrival)
        if opened is not None:
            peer, plaintext, gap_delta = opened
            self._take_opened(peer, memoryview(bytearray(plaintext)), gap_delta, source, arrival)

    def _take_opened(
        self, peer: Peer, plaintext: memoryview, gap_delta: int, source: Endpoint, arrival: Arrival | None
    ) -> None:
        if not len(plaintext):
            return
        for_us = plaintext[8:40].tobytes() == peer.addresses_in
        if for_us and plaintext[0] >> 4 in UNFINISHED and self._inlet.is_open:
            self._deliver(peer, plaintext, DIRECT if arrival is None else arrival.relay)
        else:
            self._flush()  # What came before it stays before it.
            self._slow.take_plaintext(peer, bytes(plaintext), gap_delta, source, arrival)

    def deliver(self, peer: Peer, plaintext: bytes, via: bytes, now_ns: int) -> None:
        """Hand a packet whose checksum is not done, and that is for us, to the kernel."""
        self._now_ns = now_ns
        self._deliver(peer, memoryview(bytearray(plaintext)), via)
        self._flush()

    def _deliver(self, peer: Peer, plaintext: memoryview, via: bytes) -> bool:
        """Hand a packet whose checksum is not done to the kernel, with those around it; False: it is not for it."""
        size = len(plaintext)
        length = (plaintext[4] << 8 | plaintext[5]) + IPV6_HEADER_BYTES if size >= IPV6_HEADER_BYTES else 0
        if not IPV6_HEADER_BYTES < length <= size <= length + _PADDING_BYTES_MAX:
            self._slow.blame(peer, "packet-malformed")
            return False
        packet = plaintext[:length]
        packet[0] = IPV6_NIBBLE << 4 | packet[0] & 0x0F
        if self._inlet.access.is_active and not self._inlet.access.admits(peer.node, packet, self._now_ns):
            self._slow.deny(bytes(packet))
            return False
        if not self._is_joined(packet):
            self._single(peer, packet)
        if size < length + BLOCK_BYTES:  # Else it went by two ways; see ``pad_copied``.
            peer.count_seen(via)
        self._slow.count_flow(peer, received=1)
        return True

    def _is_joined(self, packet: memoryview) -> bool:
        joint = self._joint
        if joint.add(packet):
            return True
        if not joint.parts:
            return False
        self._flush()
        return joint.add(packet)

    def _single(self, peer: Peer, packet: memoryview) -> None:
        parts = single(packet)
        if parts is None:
            self._slow.blame(peer, "packet-malformed")
        else:
            self._inlet.outbox.append(parts)

    def _flush(self) -> None:
        if self._joint.parts:
            self._inlet.outbox.append(self._joint.take())
