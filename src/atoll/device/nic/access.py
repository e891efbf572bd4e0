# SPDX-License-Identifier: Apache-2.0
"""Which packets of members and guests this machine's network stack may get, and which tag its own packets get.

Decides by tables that control sets. Only what opens something is looked at: the first packet of a TCP connection, and
UDP packets. Whatever belongs to a connection passes, and so do errors and echoes; a UDP packet also passes when it
answers one of ours. Everything else follows the default. With the tables empty nothing is looked at.

Fragments and packets with extension headers may hide anything: the kernel finds behind them what is not looked for
here. So they pass only where nothing is forbidden to their sender.
"""

from collections import OrderedDict
from collections.abc import Sequence
from struct import Struct
from typing import Final, final

from atoll.base.units import SECOND_NS
from atoll.device.nic.flows import Entry, Flows
from atoll.device.nic.limits import UDP_FLOW_S, UDP_FLOWS_MAX
from atoll.device.nic.messages import FlowOwned, Report, SetAccess, SetTraffic

__all__ = ["Access", "Traffic", "tag_of"]

_PORTS: Final = Struct(">HH")
_TCP: Final = 6
_UDP: Final = 17
_ICMP6: Final = 58
_PORTS_AT: Final = 40
_PORTS_END: Final = _PORTS_AT + _PORTS.size
_TCP_FLAGS_AT: Final = 53
_SYN_ACK: Final = 0x12
_SYN: Final = 0x02

# Extension headers: hop-by-hop, routing, fragment, authentication, destination, mobility, host identity, shim6.
_HIDING: Final = frozenset((0, 43, 44, 51, 60, 135, 139, 140))

_Entry = tuple[bytes, int, int, int, bool]


@final
class Access:
    """The rules about what comes in.

    Attributes:
        is_active: Whether anything can be refused at all.
    """

    __slots__ = ("_default", "_entries", "_flows", "is_active")

    def __init__(self) -> None:
        self._entries: tuple[_Entry, ...] = ()
        self._default = True
        self._flows: Final[OrderedDict[tuple[bytes, bytes], int]] = OrderedDict()
        self.is_active = False

    def set(self, order: SetAccess) -> None:
        """Replace the rules."""
        self._entries, self._default = order.entries, order.default
        self.is_active = not order.default or any(not entry[4] for entry in order.entries)
        if not self.is_active:
            self._flows.clear()

    def note(self, node: bytes, packet: bytes | bytearray | memoryview, now_ns: int) -> None:
        """Remember that we sent a packet, if an answer to it must pass."""
        if packet[6] == _UDP and len(packet) >= _PORTS_END:
            key = (node, bytes(packet[_PORTS_AT:_PORTS_END]))
            self._flows[key] = now_ns + UDP_FLOW_S * SECOND_NS
            self._flows.move_to_end(key)
            if len(self._flows) > UDP_FLOWS_MAX:
                self._flows.popitem(last=False)

    def admits(self, node: bytes, packet: bytes | memoryview, now_ns: int) -> bool:
        """Return whether a packet from a member or guest may be handed to this machine's network stack."""
        protocol = packet[6]
        if protocol == _ICMP6:
            return True
        if protocol in _HIDING:
            return self._allows_all(node)
        if protocol == _TCP:
            if len(packet) > _TCP_FLAGS_AT and packet[_TCP_FLAGS_AT] & _SYN_ACK != _SYN:
                return True
        elif protocol == _UDP and len(packet) >= _PORTS_END:
            answers = (node, bytes(packet[_PORTS_AT + 2 : _PORTS_END]) + bytes(packet[_PORTS_AT : _PORTS_AT + 2]))
            if self._flows.get(answers, 0) > now_ns:
                return True
        port = -1
        if protocol in {_TCP, _UDP} and len(packet) >= _PORTS_END:
            port = _PORTS.unpack_from(packet, _PORTS_AT)[1]
        return self.allows(node, protocol, port)

    def _allows_all(self, node: bytes) -> bool:
        for source, kind, first, last, allow in self._entries:
            if source in {b"", node}:
                if not allow:
                    return False
                if not kind and (first, last) == (0, 0xFFFF):
                    return True
        return self._default

    def allows(self, node: bytes, protocol: int, port: int) -> bool:
        """Return what the rules say; a port of -1 is none, and only rules about all ports match it."""
        for source, kind, first, last, allow in self._entries:
            everything = not kind and (first, last) == (0, 0xFFFF)
            if source in {b"", node} and (everything or (kind in {0, protocol} and first <= port <= last)):
                return allow
        return self._default


@final
class Traffic:
    """The rules about which tag a packet of this machine gets.

    Args:
        reports: What control is to be asked is put there.

    Attributes:
        is_active: Whether there are any, or control wants to know of flows.
    """

    __slots__ = ("_entries", "_flows", "is_active")

    def __init__(self, reports: list[Report]) -> None:
        self._entries: Sequence[Entry] = ()  # Those that hold for a flow of which no program is known.
        self._flows: Final = Flows(reports)
        self.is_active = False

    def set(self, order: SetTraffic) -> None:
        """Replace the rules."""
        self._flows.set(order)
        self._entries = self._flows.entries_of(())
        self.is_active = bool(order.entries) or order.asks

    def learn(self, order: FlowOwned) -> None:
        """Take whose a flow is."""
        self._flows.learn(order)

    def tag(self, node: bytes, packet: bytes | bytearray | memoryview, size: int, dscp: int, now_ns: int) -> int:
        """Return the tag of a packet.

        Args:
            node: Whom it is for.
            packet: Its beginning, headers at least.
            size: Its length, bytes.
            dscp: Of its traffic class; the tag when no rule matches.
            now_ns: Monotonic time.
        """
        protocol, entries = packet[6], self._entries
        ports = _PORTS.unpack_from(packet, _PORTS_AT) if protocol in {_TCP, _UDP} and size >= _PORTS_END else (-1, -1)
        if self._flows.is_active and ports[0] >= 0:
            flow = self._flows.find(packet, now_ns)
            if flow is not None:
                if flow.tag >= 0:
                    return flow.tag
                entries = flow.entries
        for target, kind, first, last, wanted_dscp, size_max, tag in entries:
            if (
                (not target or target == node)
                and kind in {0, protocol}
                and (any(first <= port <= last for port in ports) or (first, last) == (0, 0xFFFF))
                and wanted_dscp in {-1, dscp}
                and (not size_max or size <= size_max)
            ):
                return tag
        return dscp


def tag_of(packet: bytes | bytearray) -> int:
    """Return the policy tag: the traffic class without its ECN bits (RFC 8200, 7; RFC 2474)."""
    return (packet[0] << 4 & 0xF0 | packet[1] >> 4) >> 2
