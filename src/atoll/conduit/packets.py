# SPDX-License-Identifier: Apache-2.0
"""Inner packets: IPv6 with UDP or ICMPv6 echo, as plain bytes. Decides what is a well-formed one.

Only what our own conduits speak: no extension headers, no fragments. Everything else is a ``WireError``, counted and
dropped by the caller. The policy tag travels in the traffic class, above the two ECN bits. Source: RFC 8200, RFC 768,
RFC 4443.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from atoll.base.errors import UsageError, WireError
from atoll.conduit.limits import INNER_BYTES_MAX

__all__ = ["HEADERS_BYTES", "TAG_MAX", "EchoPacket", "UdpPacket", "build_echo", "build_udp", "parse", "reset_for"]

HEADERS_BYTES: Final = 48  # IPv6 and UDP (or ICMPv6 echo, of the same length).
TAG_MAX: Final = 63  # Six bits of the traffic class.

_IP: Final = Struct(">IHBB16s16s")
_UDP: Final = Struct(">HHHH")
_ECHO: Final = Struct(">BBHHH")
_IP_BYTES: Final = _IP.size
_ADDRESS_BYTES: Final = 16
_HOP_LIMIT: Final = 64
_TCP: Final = Struct(">HHIIBBHHH")
_NEXT_TCP: Final = 6
_NEXT_UDP: Final = 17
_NEXT_ICMP: Final = 58
_ECHO_REQUEST: Final = 128
_ECHO_REPLY: Final = 129
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_SEQUENCES: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class UdpPacket:
    """An inner UDP datagram.

    Attributes:
        source: Overlay address, 16 bytes.
        target: Overlay address, 16 bytes.
        tag: Policy tag, 0 to 63.
        source_port: 0 to 65535.
        target_port: 0 to 65535.
        payload: At most INNER_BYTES_MAX - HEADERS_BYTES bytes.
    """

    source: bytes
    target: bytes
    tag: int
    source_port: int
    target_port: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class EchoPacket:
    """An inner ICMPv6 echo request or reply; fields as in ``UdpPacket``."""

    source: bytes
    target: bytes
    tag: int
    is_reply: bool
    identifier: int
    sequence: int
    payload: bytes


def build_udp(packet: UdpPacket) -> bytes:
    """Return the bytes of an inner UDP packet.

    Raises:
        UsageError: A field is out of its range.
    """
    length = _UDP.size + len(packet.payload)
    head = _ip_header(packet.source, packet.target, packet.tag, length, _NEXT_UDP)
    if not (0 <= packet.source_port <= 0xFFFF and 0 <= packet.target_port <= 0xFFFF):
        raise UsageError(f"ports {packet.source_port} and {packet.target_port}")
    # A sum of 16-bit words may be taken in any order, so the header fields enter as integers.
    rest = packet.source_port + packet.target_port + 2 * length + _NEXT_UDP
    checksum = _checksum(packet.source + packet.target, packet.payload, rest)
    return head + _UDP.pack(packet.source_port, packet.target_port, length, checksum) + packet.payload


def build_echo(packet: EchoPacket) -> bytes:
    """Return the bytes of an inner ICMPv6 echo packet.

    Raises:
        UsageError: A field is out of its range.
    """
    length = _ECHO.size + len(packet.payload)
    head = _ip_header(packet.source, packet.target, packet.tag, length, _NEXT_ICMP)
    if not (0 <= packet.identifier <= 0xFFFF and 0 <= packet.sequence <= 0xFFFF):
        raise UsageError(f"identifier {packet.identifier}, sequence {packet.sequence}")
    kind = _ECHO_REPLY if packet.is_reply else _ECHO_REQUEST
    rest = (kind << 8) + packet.identifier + packet.sequence + length + _NEXT_ICMP
    checksum = _checksum(packet.source + packet.target, packet.payload, rest)
    return head + _ECHO.pack(kind, 0, checksum, packet.identifier, packet.sequence) + packet.payload


def parse(packet: bytes) -> UdpPacket | EchoPacket:
    """Return the parsed packet.

    Raises:
        WireError: Not an IPv6 packet of exactly its own length, another protocol, or a wrong checksum. Nothing else.
    """
    if not HEADERS_BYTES <= len(packet) <= INNER_BYTES_MAX:
        raise WireError("inner packet length")
    first, length, next_header, _, source, target = _IP.unpack_from(packet)
    if first >> 28 != 6:
        raise WireError("inner packet is not IPv6")
    if length != len(packet) - _IP_BYTES:
        raise WireError("inner packet length")
    if next_header not in {_NEXT_UDP, _NEXT_ICMP}:
        raise WireError("inner protocol")
    # The sum of everything with its checksum in place is a multiple of 65535.
    if _sum(packet[8:], length + next_header) % 0xFFFF:
        raise WireError("inner checksum")
    tag = first >> 22 & TAG_MAX
    payload = packet[HEADERS_BYTES:]
    if next_header == _NEXT_UDP:
        source_port, target_port, udp_length, checksum = _UDP.unpack_from(packet, _IP_BYTES)
        if udp_length != length or checksum == 0:  # RFC 8200, 8.1: a UDP checksum is not optional in IPv6.
            raise WireError("inner UDP header")
        return UdpPacket(source, target, tag, source_port, target_port, payload)
    kind, code, _, identifier, sequence = _ECHO.unpack_from(packet, _IP_BYTES)
    if kind not in {_ECHO_REQUEST, _ECHO_REPLY} or code:
        raise WireError("inner ICMPv6 type")
    return EchoPacket(source, target, tag, kind == _ECHO_REPLY, identifier, sequence, payload)


def reset_for(packet: bytes) -> bytes | None:
    """Return what answers a TCP packet where nothing speaks TCP: a reset (RFC 9293, 3.5.2). None: nothing does."""
    if len(packet) < _IP_BYTES + _TCP.size:
        return None
    first, length, next_header, _, source, target = _IP.unpack_from(packet)
    if first >> 28 != 6 or length != len(packet) - _IP_BYTES or next_header != _NEXT_TCP:
        return None
    source_port, target_port, sequence, acknowledged, offset, flags, _, _, _ = _TCP.unpack_from(packet, _IP_BYTES)
    if flags & _RST:
        return None
    if flags & _ACK:
        fields = (target_port, source_port, acknowledged, 0, 0x50, _RST)
    else:
        data = max(0, length - (offset >> 4) * 4)
        end = (sequence + data + bool(flags & _SYN) + bool(flags & _FIN)) % _SEQUENCES
        fields = (target_port, source_port, 0, end, 0x50, _RST | _ACK)
    plain = _TCP.pack(*fields, 0, 0, 0)
    head = _ip_header(target, source, first >> 22 & TAG_MAX, len(plain), _NEXT_TCP)
    return head + _TCP.pack(*fields, 0, _checksum(target + source, plain, len(plain) + _NEXT_TCP), 0)


def _ip_header(source: bytes, target: bytes, tag: int, length: int, next_header: int) -> bytes:
    if len(source) != _ADDRESS_BYTES or len(target) != _ADDRESS_BYTES:
        raise UsageError(f"addresses of {len(source)} and {len(target)} bytes")
    if not 0 <= tag <= TAG_MAX:
        raise UsageError(f"tag {tag}")
    if length > INNER_BYTES_MAX - _IP_BYTES:
        raise UsageError(f"an inner payload of {length} bytes")
    return _IP.pack(6 << 28 | tag << 22, length, next_header, _HOP_LIMIT, source, target)


def _sum(words: bytes, rest: int) -> int:
    # 2^16 is 1 modulo 65535, so the big-endian integer is congruent to the sum of its 16-bit words: one division
    # in C instead of a loop in Python. An odd length is padded with a zero byte.
    return (int.from_bytes(words) << 8 * (len(words) & 1)) + rest


def _checksum(addresses: bytes, payload: bytes, rest: int) -> int:
    # 65535 where the remainder is 0: the form that UDP asks for, and that a verifier of ICMPv6 accepts as well.
    return 0xFFFF - (_sum(addresses, rest) + _sum(payload, 0)) % 0xFFFF
