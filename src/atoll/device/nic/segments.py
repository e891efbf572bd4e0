# SPDX-License-Identifier: Apache-2.0
"""Large packets of the kernel: cut into segments on the way out, put together again on the way in.

Theory of operation. A TUN device that was opened with a virtio header hands over up to 64 KiB at once: one header and
the payload of many TCP segments or UDP datagrams, with the checksum left to do. That is where the speed comes from, so
nothing here touches payload. Each segment's header is written *in place*, right before its payload, over the end of the
payload before it. So a large packet is cut from its beginning to its end, and each segment must be used (sealed) before
the next one is asked for.

Between our own nodes a segment's checksum stays undone: the session authenticates every byte, and the kernel at the far
end is told that the checksum is still to be done if the packet goes on. Such a packet has first nibble 5, not 6, in our
plaintext (docs/spec/relay.md); ``finish`` does the sum for whoever needs it. Nibble 7 says in addition that the segment
continues the one sealed just before it, so that who opens both need not compare their headers.

Source: struct virtio_net_hdr, Virtual I/O Device 1.2, 5.1.6; RFC 8200 8.1; RFC 9293 3.1; RFC 768.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final, final

from atoll.base.errors import WireError
from atoll.device.nic.plaintext import take_packet

__all__ = [
    "CONTINUED_NIBBLE",
    "HEADER",
    "HEADER_BYTES",
    "UNFINISHED",
    "UNFINISHED_NIBBLE",
    "Bulk",
    "Joint",
    "apart",
    "bulk_of",
    "finish",
    "finished",
    "follows",
    "head_bytes_of",
    "is_right",
    "marked",
    "measure",
    "ones_complement",
    "packet_of",
    "single",
    "single_bulk",
]

HEADER: Final = Struct("<BBHHHH")  # flags, kind, bytes of headers, payload of a segment, checksum from, checksum at.
HEADER_BYTES: Final = HEADER.size
KIND_AT: Final = 1

FLAG_NEEDS_SUM: Final = 1
KIND_NONE: Final = 0
KIND_TCP6: Final = 4
KIND_UDP: Final = 5  # USO.
KIND_ECN: Final = 0x80  # TCP with CWR on its first segment only.

IPV6_BYTES: Final = 40
IPV6_NIBBLE: Final = 6
UNFINISHED_NIBBLE: Final = 5  # Spec. Of our plaintext: IPv6 whose checksum is undone.
CONTINUED_NIBBLE: Final = 7  # Spec. The same; and it continues the TCP segment in the packet before it.
UNFINISHED: Final = frozenset((UNFINISHED_NIBBLE, CONTINUED_NIBBLE))
UDP_BYTES: Final = 8
TCP_BYTES_MIN: Final = 20
PROTOCOL_TCP: Final = 6
PROTOCOL_UDP: Final = 17
TCP_SUM_AT: Final = 16
UDP_SUM_AT: Final = 6
FIN_PSH: Final = 0x09
CWR: Final = 0x80
_ACK: Final = 0x10
_ECE: Final = 0x40
_ECN: Final = 0x30  # Where the two bits stand in the second byte of an IPv6 header.
_TCP_SEQUENCE_AT: Final = IPV6_BYTES + 4
_TCP_FLAGS_AT: Final = IPV6_BYTES + 13
SUM_AT: Final = {PROTOCOL_TCP: TCP_SUM_AT, PROTOCOL_UDP: UDP_SUM_AT}
_PROTOCOLS: Final = {KIND_TCP6: PROTOCOL_TCP, KIND_UDP: PROTOCOL_UDP}
_LEAST_BYTES: Final = {PROTOCOL_TCP: TCP_BYTES_MIN, PROTOCOL_UDP: UDP_BYTES}
_LEAST: Final = {KIND_TCP6: TCP_BYTES_MIN, KIND_UDP: UDP_BYTES}

PACKET_BYTES_MAX: Final = IPV6_BYTES + 0xFFFF  # What an IPv6 header can say.
PADDING_BYTES_MAX: Final = 15  # Of stock WireGuard: up to the next multiple of 16.
SEGMENTS_MAX: Final = 128  # Limit. 64 KiB in segments of 512 bytes; the kernel makes no shorter ones of a stream.

_HALVES: Final = tuple((bits, (1 << bits) - 1) for bits in (5120, 2560, 1280))  # Multiples of 16.
_U16: Final = Struct(">H")
_U32: Final = Struct(">I")


def _folded(total: int) -> int:
    """Return a one's complement sum in 16 bits."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ones_complement(data: bytes | bytearray | memoryview) -> int:
    """Return a number that equals the one's complement sum of the data's 16-bit words.

    2^16 is 1 modulo 65535, so the sum of the words is the data as one number, modulo 65535. Its halves are added first,
    because that is cheaper than a division.
    """
    number = int.from_bytes(data, "big")
    if len(data) % 2:
        number <<= 8
    for bits, ones in _HALVES:
        if number > ones:
            number = (number >> bits) + (number & ones)
    rest = number % 0xFFFF
    return rest or (0xFFFF if number else 0)


def _pseudo(packet: bytes | bytearray | memoryview, length: int, protocol: int) -> int:
    """Return the sum of the pseudo-header, folded and not inverted: what a packet with an undone checksum carries."""
    return _folded(ones_complement(packet[8:IPV6_BYTES]) + length + protocol)


def marked(packet: bytes) -> bytes:
    """Return a packet whose checksum is undone with the nibble that says so."""
    return bytes((UNFINISHED_NIBBLE << 4 | packet[0] & 0x0F,)) + packet[1:]


def head_bytes_of(packet: bytes | bytearray | memoryview) -> int:
    """Return how many bytes of headers a TCP packet says that it has; it has at least those of the shortest."""
    return IPV6_BYTES + (packet[IPV6_BYTES + 12] >> 4) * 4


def is_finishable(packet: bytes | memoryview) -> bool:
    """Return whether a checksum that is undone stands where those of TCP and UDP do, without extension headers."""
    return len(packet) >= IPV6_BYTES + _LEAST_BYTES.get(packet[6], PACKET_BYTES_MAX)


def finished(packet: bytes) -> bytes:
    """Return a packet that ``marked`` made as it would have been.

    Raises:
        WireError: It is not TCP or UDP, or too short.
    """
    if len(packet) < IPV6_BYTES or not is_finishable(packet):
        raise WireError("checksum place")
    done = bytearray(packet[: IPV6_BYTES + (packet[4] << 8 | packet[5])])
    done[0] = IPV6_NIBBLE << 4 | packet[0] & 0x0F
    finish(done, IPV6_BYTES, SUM_AT[packet[6]])
    return bytes(done) + packet[len(done) :]


def packet_of(plaintext: bytes) -> tuple[bytes, bool]:
    """Return the IPv6 packet in a plaintext, its checksum done, and whether it went by two ways.

    Raises:
        WireError: There is none.
    """
    kind = plaintext[0] >> 4
    if kind in UNFINISHED:
        plaintext = finished(plaintext)
    elif kind != IPV6_NIBBLE:
        raise WireError("packet kind")
    return take_packet(plaintext)


def single(packet: memoryview) -> list[bytes | memoryview] | None:
    """Return the pieces of one write of a packet whose checksum is undone; None: it has no place for one."""
    if not is_finishable(packet):
        return None
    return [HEADER.pack(FLAG_NEEDS_SUM, KIND_NONE, 0, 0, IPV6_BYTES, SUM_AT[packet[6]]), packet]


def finish(packet: bytearray | memoryview, start: int, offset: int) -> None:
    """Do a checksum that was left undone; the field holds the sum of the pseudo-header.

    Args:
        packet: One IPv6 packet; changed.
        start: From where the sum goes, to the end of the packet.
        offset: Where it is written, from ``start`` on.

    Raises:
        WireError: The place is not in the packet.
    """
    if not IPV6_BYTES <= start <= start + offset <= len(packet) - 2:
        raise WireError("checksum place")
    total = _folded(ones_complement(packet[start:]))  # The pseudo-header is in the field, and so in this sum.
    _U16.pack_into(packet, start + offset, ~total & 0xFFFF or 0xFFFF)


def is_right(packet: bytes | memoryview) -> bool:
    """Return whether the checksum of one whole TCP packet without extension headers is that of its bytes."""
    length = len(packet) - IPV6_BYTES
    return _folded(_pseudo(packet, length, PROTOCOL_TCP) + ones_complement(packet[IPV6_BYTES:])) == 0xFFFF


@final
@dataclass(slots=True)
class Bulk:
    """A large packet in a buffer, and how to cut it.

    Attributes:
        buffer: Holds the packet; overwritten by ``segments``.
        start: Where the IPv6 header begins.
        end: Where the payload ends.
        head_bytes: All headers, IPv6 and transport.
        size: Payload bytes of each segment but the last.
    """

    buffer: bytearray
    start: int
    end: int
    head_bytes: int
    size: int

    def shorten(self, most: int) -> bool:
        """Cut into packets of at most so many bytes; False: it is UDP, whose datagrams are their program's affair."""
        if self.head_bytes + self.size <= most:
            return True
        if self.buffer[self.start + 6] != PROTOCOL_TCP:
            return False
        self.size = most - self.head_bytes
        return True

    def mark_congestion(self) -> bool:
        """Mark all segments with "congestion experienced" (RFC 3168); False: its sender does not understand that."""
        if not self.buffer[self.start + 1] & _ECN:
            return False
        self.buffer[self.start + 1] |= _ECN
        return True

    def drop_last(self) -> bool:
        """Take the last segment off; False: there is no other."""
        payload_bytes = self.end - self.start - self.head_bytes
        if payload_bytes <= self.size:
            return False
        self.end -= payload_bytes % self.size or self.size
        return True

    @property
    def count(self) -> int:
        """How many segments it makes."""
        return -(-(self.end - self.start - self.head_bytes) // self.size)

    def segments(self) -> Iterator[tuple[int, int]]:
        """Yield (from, until) of each segment in the buffer; good until the next one is asked for.

        Their checksums are undone, and their first nibble says so.
        """
        buffer, size, head_bytes, end = self.buffer, self.size, self.head_bytes, self.end
        head = bytearray(buffer[self.start : self.start + head_bytes])
        traffic = head[0] & 0x0F
        is_tcp = head[6] == PROTOCOL_TCP
        flags = head[_TCP_FLAGS_AT] if is_tcp else 0
        sequence = _U32.unpack_from(head, _TCP_SEQUENCE_AT)[0] if is_tcp else 0
        first, pack_into = self.start + head_bytes, _U32.pack_into
        for payload in range(first, end, size):
            until = payload + size
            if payload == first or until >= end:
                until = min(until, end)
                head[0] = UNFINISHED_NIBBLE << 4 | traffic
                measure(head, until - payload)
                if is_tcp:
                    kept = flags if until == end else flags & ~FIN_PSH
                    head[_TCP_FLAGS_AT] = kept if payload == first else kept & ~CWR
            elif payload == first + size and is_tcp:
                head[0] = CONTINUED_NIBBLE << 4 | traffic
                head[_TCP_FLAGS_AT] = flags & ~(FIN_PSH | CWR)
            if is_tcp:
                pack_into(head, _TCP_SEQUENCE_AT, sequence + (payload - first) & 0xFFFF_FFFF)
            at = payload - head_bytes
            buffer[at:payload] = head
            yield at, until


def measure(head: bytearray, payload_bytes: int) -> None:
    """Write into a header what depends on the length of its payload, with the checksum undone."""
    length, protocol = len(head) - IPV6_BYTES + payload_bytes, head[6]
    _U16.pack_into(head, 4, length)
    if protocol == PROTOCOL_UDP:
        _U16.pack_into(head, IPV6_BYTES + 4, length)
    _U16.pack_into(head, IPV6_BYTES + SUM_AT[protocol], _pseudo(head, length, protocol))


def bulk_of(header: tuple[int, int, int, int, int, int], buffer: bytearray, start: int, end: int) -> Bulk | None:
    """Return how to cut what the kernel handed over; None: it is one packet as it is.

    Args:
        header: As ``HEADER`` unpacks it.
        buffer: Holds the packet.
        start: Where its IPv6 header begins; below it there is room for nothing.
        end: Where it ends.

    Raises:
        WireError: Of a kind that we did not ask for, or its header contradicts it.
    """
    _, kind, _, size, _, _ = header
    kind &= ~KIND_ECN
    if kind == KIND_NONE:
        return None
    transport = start + IPV6_BYTES
    if kind not in _PROTOCOLS or end - start < IPV6_BYTES + UDP_BYTES or buffer[start + 6] != _PROTOCOLS[kind]:
        raise WireError("bulk kind")
    if kind == KIND_UDP:
        head_bytes = IPV6_BYTES + UDP_BYTES
    else:
        if end - transport < TCP_BYTES_MIN:
            raise WireError("bulk header")
        head_bytes = IPV6_BYTES + (buffer[transport + 12] >> 4) * 4
    if head_bytes < IPV6_BYTES + _LEAST[kind] or not size or not start + head_bytes < end <= start + PACKET_BYTES_MAX:
        raise WireError("bulk header")
    bulk = Bulk(buffer, start, end, head_bytes, size)
    if bulk.count > SEGMENTS_MAX:
        raise WireError("bulk segments")
    return bulk


def apart(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield the packets of one write that ``Joint`` or ``single`` made: cut again, their checksums done.

    Raises:
        WireError: By the length that a packet says it has, its checksum would stand beyond its end.
    """
    buffer = bytearray().join(pieces)
    _, kind, head_bytes, size, _, _ = HEADER.unpack_from(buffer)
    ends: Iterable[tuple[int, int]] = ((HEADER_BYTES, len(buffer)),)
    if kind != KIND_NONE:
        ends = Bulk(buffer, HEADER_BYTES, len(buffer), head_bytes, size).segments()
    for at, until in ends:
        yield finished(bytes(buffer[at:until]))


def single_bulk(packet: bytes) -> Bulk | None:
    """Return one TCP packet as what can be cut; None: it is none."""
    if len(packet) < IPV6_BYTES + TCP_BYTES_MIN or packet[6] != PROTOCOL_TCP:
        return None
    head_bytes = head_bytes_of(packet)
    if not IPV6_BYTES + TCP_BYTES_MIN <= head_bytes < len(packet):
        return None
    return Bulk(bytearray(packet), 0, len(packet), head_bytes, len(packet) - head_bytes)


def follows(data: memoryview, step: int, size: int, count: int, last: int) -> int:
    """Return how many packets are segments of one TCP stream with right checksums, each continuing the one before it.

    What is counted is what ``Joint`` would take. Stock software has sent them, so their checksums are done.

    Args:
        data: The packets, each with at most PADDING_BYTES_MAX bytes behind it.
        step: From the beginning of one to that of the next.
        size: Length of each but the last, padding included.
        count: How many there are.
        last: Length of the last one.
    """
    length = _segment_bytes(data[: size if count > 1 else last])
    if not length or data[_TCP_FLAGS_AT] & ~(FIN_PSH | CWR | _ACK | _ECE):
        return 0
    first = data[: head_bytes_of(data)].tobytes()
    sequence, total, found = _U32.unpack_from(first, _TCP_SEQUENCE_AT)[0], length - len(first), 1
    ended = bool(first[_TCP_FLAGS_AT] & FIN_PSH)
    while found < count and not ended:
        at = found * step
        packet = data[at : at + (size if found < count - 1 else last)]
        here = _continued_bytes(packet, first, sequence + total & 0xFFFF_FFFF)
        total += here - len(first)
        if not 0 < here <= length or total > 0xFFFF - len(first):
            break
        found += 1
        ended = here < length or bool(packet[_TCP_FLAGS_AT] & FIN_PSH)
    return found


def _segment_bytes(packet: memoryview) -> int:
    """Return the length without padding of a TCP segment whose checksum is right; 0: it is none."""
    if len(packet) < IPV6_BYTES + TCP_BYTES_MIN or packet[0] >> 4 != IPV6_NIBBLE or packet[6] != PROTOCOL_TCP:
        return 0
    length, head_bytes = IPV6_BYTES + (packet[4] << 8 | packet[5]), head_bytes_of(packet)
    if not IPV6_BYTES + TCP_BYTES_MIN <= head_bytes < length <= len(packet) <= length + PADDING_BYTES_MAX:
        return 0
    return length if is_right(packet[:length]) else 0


def _continued_bytes(packet: memoryview, first: bytes, sequence: int) -> int:
    """Return the length of the segment that has this sequence number in the stream of this header; 0: it is none."""
    head = packet[: len(first)].tobytes()
    if (
        head[6:_TCP_SEQUENCE_AT] != first[6:_TCP_SEQUENCE_AT]
        or head[_TCP_SEQUENCE_AT:48] != _U32.pack(sequence)
        or head[48:_TCP_FLAGS_AT] != first[48:_TCP_FLAGS_AT]
        or head[54:56] != first[54:56]
        or head[58:] != first[58:]
        or head[_TCP_FLAGS_AT] & ~FIN_PSH != first[_TCP_FLAGS_AT] & ~CWR
        or head[:4] != first[:4]
    ):
        return 0
    return _segment_bytes(packet)


@final
class Joint:
    """Puts consecutive segments of one stream together again, for one write to a TUN device.

    Only what ``Bulk`` could have cut: same flow, same headers, next sequence number, all but the last of one length.
    UDP datagrams are not joined: their receiver wants each by itself, and most kernels take them only so.
    """

    __slots__ = ("_head", "_sequence", "_size", "_total", "parts")

    def __init__(self) -> None:
        self.parts: list[bytes | memoryview] = []
        self._head = b""
        self._size = self._total = self._sequence = 0

    def add(self, packet: memoryview) -> bool:
        """Take one TCP segment with an undone checksum; False: it does not continue what is here, ``take`` that first.

        Args:
            packet: First nibble 6; must stay as it is until ``take``.
        """
        if not self.parts:
            return self._begin(packet)
        head_bytes = len(self._head)
        size = len(packet) - head_bytes
        if not 0 < size <= self._size or self._total + size > 0xFFFF - head_bytes:
            return False
        head, ours = bytes(packet[:head_bytes]), self._head
        if (
            _U32.unpack_from(head, _TCP_SEQUENCE_AT)[0] != self._sequence + self._total & 0xFFFF_FFFF
            or head[6:_TCP_SEQUENCE_AT] != ours[6:_TCP_SEQUENCE_AT]
            or head[:4] != ours[:4]
            or head[48:_TCP_FLAGS_AT] != ours[48:_TCP_FLAGS_AT]
            or head[54:56] != ours[54:56]
            or head[58:] != ours[58:]
            or head[_TCP_FLAGS_AT] & ~FIN_PSH != ours[_TCP_FLAGS_AT] & ~CWR
            or len(self.parts) > SEGMENTS_MAX
        ):
            return False
        self._append(packet, head[_TCP_FLAGS_AT])
        return True

    def follow(self, packet: memoryview) -> bool:
        """Take a segment that its sender marked as the continuation of the one taken last; False: it cannot be that.

        Its header is not looked at: whoever sealed both says that it is the last one's with the next sequence number.
        """
        head_bytes = len(self._head)
        size = len(packet) - head_bytes
        if not size or size != self._size or self._total + size > 0xFFFF - head_bytes or len(self.parts) > SEGMENTS_MAX:
            return False
        self.parts.append(packet[head_bytes:])
        self._total += size
        return True

    def extend(self, payload: memoryview, count: int) -> bool:
        """Take the payload of so many segments, back to back, each of which ``follow`` would take; False: not here."""
        if len(payload) != count * self._size or self._total + len(payload) > 0xFFFF - len(self._head):
            return False
        self.parts.append(payload)
        self._total += len(payload)
        return True

    def _begin(self, packet: memoryview) -> bool:
        if len(packet) < IPV6_BYTES + TCP_BYTES_MIN or packet[6] != PROTOCOL_TCP:
            return False
        head_bytes = head_bytes_of(packet)
        if not IPV6_BYTES + TCP_BYTES_MIN <= head_bytes < len(packet):
            return False
        head = bytes(packet[:head_bytes])
        if head[_TCP_FLAGS_AT] & ~(FIN_PSH | CWR | _ACK | _ECE):
            return False
        self._head, self._size, self._total = head, len(packet) - head_bytes, 0
        self._sequence = _U32.unpack_from(head, _TCP_SEQUENCE_AT)[0]
        self.parts.append(b"")
        self._append(packet, head[_TCP_FLAGS_AT])
        return True

    def _append(self, packet: memoryview, flags: int) -> None:
        payload = packet[len(self._head) :]
        self.parts.append(payload)
        self._total += len(payload)
        if flags & FIN_PSH or len(payload) < self._size:
            head = bytearray(self._head)
            head[_TCP_FLAGS_AT] |= flags & FIN_PSH
            self._head, self._size = bytes(head), 0  # Nothing follows.

    def take(self) -> list[bytes | memoryview]:
        """Return the pieces of one write, virtio header first, and begin anew; empty: there is nothing."""
        parts = self.parts
        if not parts:
            return parts
        head = bytearray(self._head)
        size = len(parts[1])
        measure(head, self._total)
        kind = KIND_NONE if len(parts) == 2 else KIND_TCP6 | (KIND_ECN if head[_TCP_FLAGS_AT] & CWR else 0)
        segment = 0 if kind == KIND_NONE else size
        parts[0] = HEADER.pack(FLAG_NEEDS_SUM, kind, len(head), segment, IPV6_BYTES, TCP_SUM_AT) + head
        self.parts, self._size = [], 0
        return parts
