# SPDX-License-Identifier: Apache-2.0
"""The name server of a node, at the address that is the same for the whole group: packets in, packets out.

Each node answers for itself, so a question never leaves the machine that asks it, or that serves the guest who does.
Who may ask is decided by who can send a packet there: programs of this machine, and guests that this node serves.
"""

from collections.abc import Callable
from typing import Final, final

from atoll.base.errors import WireError
from atoll.base.ids import GroupId, NodeId, resolver_address
from atoll.conduit.names import Book
from atoll.conduit.packets import UdpPacket, build_udp, parse
from atoll.conduit.resolver import answer
from atoll.conduit.streams import SendPacket

__all__ = ["NameServer"]

_PORT: Final = 53


@final
class NameServer:
    """Answers questions about names.

    Args:
        group: The group, for the address.
        book: Returns who is who now.
        send: Takes answers: (who asked, policy tag, packet).
    """

    def __init__(self, group: GroupId, book: Callable[[], Book], send: SendPacket) -> None:
        self._address: Final = resolver_address(group)
        self._book, self._send = book, send

    def takes(self, packet: bytes) -> bool:
        """Return whether an inner packet is for the name server."""
        return packet[24:40] == self._address

    def receive(self, node: NodeId, packet: bytes) -> None:
        """Answer a packet for which ``takes`` holds, if it is a question. Never raises."""
        try:
            asked = parse(packet)
        except WireError:
            return
        if not isinstance(asked, UdpPacket) or asked.target_port != _PORT:
            return
        said = answer(asked.payload, self._book())
        if said is not None:
            back = UdpPacket(self._address, asked.source, asked.tag, _PORT, asked.source_port, said)
            self._send(node, asked.tag, build_udp(back))
