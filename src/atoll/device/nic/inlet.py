# SPDX-License-Identifier: Apache-2.0
"""The door between the overlay and this machine's own network stack: a TUN device, seen from inside the engine.

Decides whose an inner packet is. One that came from a peer goes to the kernel, except what is spoken between nodes
(streams, flows and echo replies: control's). One that the kernel sends goes to the peer whose address it names; if
there is none, the program that sent it is told at once, by ICMPv6, and need not wait for a time-out.

Nothing here leaves the group: only packets from our overlay address to a member's pass, in either direction.

Source: RFC 4443, 3.1 (destination unreachable) and 2.4 (when not to answer, and how often).
"""

from struct import Struct
from typing import Final, final

from atoll.base.ids import GroupId, NodeId, packed_address_of, resolver_address
from atoll.device.nic.access import Access
from atoll.device.nic.counters import Counters
from atoll.device.nic.guests import Guest, Guests
from atoll.device.nic.limits import TUN_ERRORS_BURST, TUN_ERRORS_PER_S
from atoll.device.nic.meter import Meter
from atoll.device.nic.peers import Peer
from atoll.device.nic.plaintext import IPV6_HEADER_BYTES, IPV6_NIBBLE, is_whole
from atoll.device.nic.segments import ones_complement

__all__ = ["ADMINISTRATIVE", "NO_PORT", "NO_ROUTE", "Inlet", "too_big", "unreachable"]

_PORTS: Final = Struct(">HH")
_ICMP_ERROR: Final = Struct(">BBHI")
_IDENTIFIER_AT: Final = IPV6_HEADER_BYTES + 4  # Of an echo.
_IP: Final = Struct(">IHBB")
_TCP: Final = 6
_TCP_FLAGS_AT: Final = 53
_SYN_ACK: Final = 0x12
_SYN: Final = 0x02
_UDP: Final = 17
_ICMP6: Final = 58
_ECHO_REPLY: Final = 129
_UNREACHABLE: Final = 1
_TOO_BIG: Final = 2
_INFORMATIONAL: Final = 128  # ICMPv6 types from here on are no errors.
_MULTICAST: Final = 0xFF
_HOP_LIMIT: Final = 64
_QUOTED_BYTES_MAX: Final = 1280 - IPV6_HEADER_BYTES - _ICMP_ERROR.size  # RFC 4443: as much as fits the least MTU.

NO_ROUTE: Final = 0  # Code: nobody in the group has this address.
ADMINISTRATIVE: Final = 1  # Code: a rule forbids it.
NO_PORT: Final = 4  # Code: nobody listens there; a connection is refused.


@final
class Inlet:
    """The kernel's side of the engine.

    Args:
        group: The group.
        own: Our id.
        peers: All peers by node, kept by the engine.
        guests: Those of the group, and who serves them.
        counters: Drops are counted here.

    Attributes:
        access: The rules about what comes in from the group.
        own: Our address, 16 bytes.
        is_open: Whether there is a TUN device. Without one every packet is control's.
        ports: Inner UDP ports that are control's, whichever side has them.
        echo: Identifier of control's echo requests; -1: none.
        port: Inner UDP port of a process that speaks with members by itself; -1: there is none.
        port_outbox: Packets for that process, in order; the caller of the engine hands them over and clears them.
        outbox: For the kernel, in order: packets, and pieces of one write that begin with a virtio header; good until
            the next call of the engine, whose caller writes and clears them.
    """

    __slots__ = (
        "_counters",
        "_errors",
        "_guests",
        "_peers",
        "_resolver",
        "access",
        "echo",
        "is_open",
        "outbox",
        "own",
        "port",
        "port_outbox",
        "ports",
    )

    def __init__(
        self, group: GroupId, own: NodeId, peers: dict[bytes, Peer], guests: Guests, counters: Counters
    ) -> None:
        self.own: Final = packed_address_of(group, own)
        self._peers: Final = peers
        self._guests: Final = guests
        self._resolver: Final = resolver_address(group)
        self._counters: Final = counters
        self._errors: Final = Meter(per_s=TUN_ERRORS_PER_S, burst=TUN_ERRORS_BURST)
        self.access: Final = Access()
        self.is_open = False
        self.ports: frozenset[int] = frozenset()
        self.echo = -1
        self.port = -1
        self.port_outbox: Final[list[bytes]] = []
        self.outbox: Final[list[bytes | list[bytes | memoryview]]] = []

    def takes(self, packet: bytes) -> bool:
        """Return whether a checked packet from a peer is the kernel's."""
        return self.is_open and not self._is_controls(packet)

    def refuses(self, packet: bytes, now_ns: int) -> bool:
        """Refuse a packet of the kernel that is UDP of a port of control's, or any program could speak as the node."""
        if not self._is_controls(packet):
            return False
        self._counters.drop("tun-reserved")
        self.refuse(packet, ADMINISTRATIVE, now_ns)
        return True

    def _is_controls(self, packet: bytes) -> bool:
        if packet[6] != _UDP or len(packet) < IPV6_HEADER_BYTES + 8:
            return False
        source, target = _PORTS.unpack_from(packet, IPV6_HEADER_BYTES)
        return source in self.ports or target in self.ports

    def ported(self, packet: bytes) -> Peer | None:
        """Return the member that a packet of the process at ``port`` goes to; None: it goes nowhere, and is counted."""
        peer = self.member_of(packet)
        if peer is None or not is_whole(packet) or not self.is_ported(packet):
            self._counters.drop("port-foreign")
            return None
        if not peer.up:  # It is sent again; to call a member that is away, ever more rarely, is control's to decide.
            self._counters.drop("port-unlinked")
            return None
        return peer

    def is_ported(self, packet: bytes) -> bool:
        """Return whether a packet between us and a member is of ``port``, at both ends."""
        return (
            packet[6] == _UDP
            and len(packet) >= IPV6_HEADER_BYTES + 8
            and _PORTS.unpack_from(packet, IPV6_HEADER_BYTES) == (self.port, self.port)
        )

    def is_call(self, packet: bytes) -> bool:
        """Return whether a packet that ``takes`` leaves to control opens a connection: there is nobody to take it."""
        return packet[6] == _TCP and len(packet) > _TCP_FLAGS_AT and packet[_TCP_FLAGS_AT] & _SYN_ACK == _SYN

    def is_shared(self, packet: bytes) -> bool:
        """Return whether control wants to see a packet that ``takes`` gives to the kernel: an answer to its echo."""
        if packet[6] != _ICMP6 or len(packet) < _IDENTIFIER_AT + 2:
            return False
        return (
            packet[IPV6_HEADER_BYTES] == _ECHO_REPLY
            and packet[_IDENTIFIER_AT] << 8 | packet[_IDENTIFIER_AT + 1] == self.echo
        )

    def member_of(self, packet: bytes) -> Peer | None:
        """Return the member that a packet of the kernel is from us for; None: it is anything else, see ``peer_of``."""
        peer = self._peers.get(packet[30:IPV6_HEADER_BYTES])
        return peer if peer is not None and packet[8:IPV6_HEADER_BYTES] == peer.addresses_out else None

    def is_query(self, packet: bytes | memoryview) -> bool:
        """Return whether a packet of the kernel is from us, and for the one who answers for names: control."""
        return bytes(packet[8:40]) == self.own + self._resolver

    def peer_of(self, packet: bytes | memoryview, now_ns: int) -> Peer | Guest | None:
        """Return who takes a packet of the kernel: the member or guest that it is for, or the member that serves it.

        None: nobody, and its sender was told or did not mean us.
        """
        if len(packet) < IPV6_HEADER_BYTES or packet[0] >> 4 != IPV6_NIBBLE:
            self._counters.drop("tun-malformed")
            return None
        if packet[8:24] != self.own or packet[24] == _MULTICAST:
            self._counters.drop("tun-foreign")  # The kernel's own chatter: router solicitations, multicast reports.
            return None
        found = self.owner(bytes(packet[24:40]))
        if found is None:
            self._counters.drop("tun-stranger")
            self.refuse(packet, NO_ROUTE, now_ns)
        return found

    def owner(self, address: bytes) -> Peer | Guest | None:
        """Return the member or guest with this address, or the member that serves that guest; None: nobody."""
        peer = self._peers.get(address[6:])
        if peer is not None and peer.addresses_out[16:] == address:
            return peer
        return self._guests.find(address)

    def refuse_size(self, packet: bytes | memoryview, size: int, now_ns: int) -> None:
        """Tell the kernel how large packets to this address may be; it cuts them, or tells its program."""
        self._counters.drop("tun-too-big")
        if self._errors.fits(1, now_ns):
            self._errors.take(1, now_ns)
            self.outbox.append(too_big(bytes(packet[24:40]), bytes(packet[:_QUOTED_BYTES_MAX]), size))

    def refuse(self, packet: bytes | memoryview, code: int, now_ns: int) -> None:
        """Tell the kernel's program that its packet goes nowhere, if it is one that may be answered."""
        is_error = packet[6] == _ICMP6 and (len(packet) <= IPV6_HEADER_BYTES or packet[40] < _INFORMATIONAL)
        if is_error or not self._errors.fits(1, now_ns):
            return
        self._errors.take(1, now_ns)
        # From us, because there is no router here to whom it could belong.
        self.outbox.append(unreachable(self.own, bytes(packet[:_QUOTED_BYTES_MAX]), code))


def unreachable(own: bytes, packet: bytes, code: int) -> bytes:
    """Return what tells the sender of a packet that it goes nowhere (ICMPv6 type 1).

    Args:
        own: Address of who says so.
        packet: What it sent; its first _QUOTED_BYTES_MAX bytes are quoted.
        code: Why.
    """
    return _icmp_error(own, packet, _UNREACHABLE, code, 0)


def too_big(own: bytes, packet: bytes, size: int) -> bytes:
    """Return what tells the sender of a packet how large it may be (ICMPv6 type 2); arguments as ``unreachable``."""
    return _icmp_error(own, packet, _TOO_BIG, 0, size)


def _icmp_error(own: bytes, packet: bytes, kind: int, code: int, value: int) -> bytes:
    quoted = packet[:_QUOTED_BYTES_MAX]
    length = _ICMP_ERROR.size + len(quoted)
    addresses = own + packet[8:24]
    total = ones_complement(addresses + _ICMP_ERROR.pack(kind, code, 0, value) + quoted) + length + _ICMP6
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return (
        _IP.pack(IPV6_NIBBLE << 28, length, _ICMP6, _HOP_LIMIT)
        + addresses
        + _ICMP_ERROR.pack(kind, code, checksum, value)
        + quoted
    )
