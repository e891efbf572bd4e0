# SPDX-License-Identifier: Apache-2.0
"""What host names and addresses mean inside the overlay. Pure; the system's resolver is never asked.

A name is ``NODE``, ``NODE.atoll`` or ``NODE.GROUP.atoll``, in letters of either case, with or without one dot at the
end. An address is the IPv6 address of a member. Everything else is either unknown here or none of the overlay's
business, and the two are told apart, because a person mends them differently.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from atoll.base.ids import NODE_ID_BYTES, GroupId, NodeId, packed_address_of
from atoll.base.member import Member

__all__ = ["TOP", "Book", "Missing", "resolve"]

TOP: Final = "atoll"
"""The last label of every name of the overlay. It is no name of the public DNS, and never asked for there."""

_NAME_CHARS_MAX: Final = 255  # Limit of RFC 1035, and what one byte of length in SOCKS can say.
_SCOPE: Final = "%"  # RFC 4007. An overlay address has none, and ipaddress would let it pass.


class Missing(Enum):
    """Why a host is no member."""

    UNKNOWN = "unknown"  # It looks like one of ours; no member has that name or address.
    OUTSIDE = "outside"  # Another network's.


def resolve(name: str, members: Iterable[Member], group_name: str, own: Member) -> NodeId | None:
    """Return the node that a host name means, or None. Any text may be asked for.

    Args:
        name: ``NODE``, ``NODE.atoll`` or ``NODE.GROUP.atoll``; letters of either case, at most one dot at the end.
        members: All members as the group shows them, so that no two have one name.
        group_name: The group's name. Another group's names are unknown here.
        own: This node as the group shows it; found also when it is not, or not yet, among the members.
    """
    node, *above = _labels(name)
    if above not in ([], [TOP], [group_name, TOP]):
        return None
    found = next((member.node for member in members if member.name == node), None)
    return own.node if found is None and node == own.name else found


@final
@dataclass(frozen=True, slots=True)
class Book:
    """Who is who at one moment.

    Attributes:
        group: The group, for its addresses.
        group_name: Its name.
        own: This node, as the group shows it.
        members: All members, as the group shows them.
        guests: Names and ids of clients that no member's software runs on; reached by packets only.
    """

    group: GroupId
    group_name: str
    own: Member
    members: tuple[Member, ...]
    guests: tuple[tuple[str, NodeId], ...] = ()

    def locate(self, host: str | bytes) -> NodeId | Missing:
        """Return the node that a host means, this one included.

        Args:
            host: A name or an address as text, or an address as 4 or 16 bytes.
        """
        if isinstance(host, str):
            packed = _literal(host)
            if packed is None:
                node = resolve(host, self.members, self.group_name, self.own)
                if node is None:
                    return Missing.UNKNOWN if _is_ours(host) else Missing.OUTSIDE
                return node
            host = packed
        node = NodeId(host[-NODE_ID_BYTES:])
        if len(node) != NODE_ID_BYTES or packed_address_of(self.group, node) != host:
            return Missing.OUTSIDE
        is_here = node == self.own.node or any(member.node == node for member in self.members)
        return node if is_here else Missing.UNKNOWN

    def find(self, host: str | bytes) -> NodeId | Missing:
        """Return the member or the guest that a host means; as ``locate`` otherwise."""
        node = self.locate(host)
        if node is not Missing.UNKNOWN:
            return node
        if isinstance(host, str):
            label, *above = _labels(host)
            if above not in ([], [TOP], [self.group_name, TOP]):
                return node
            return next((guest for name, guest in self.guests if name == label), Missing.UNKNOWN)
        return next((guest for _, guest in self.guests if guest == host[-NODE_ID_BYTES:]), Missing.UNKNOWN)

    def called(self, node: NodeId) -> str:
        """Return the name of a member or guest."""
        members = ((member.name, member.node) for member in self.members)
        return next((name for name, known in (*members, *self.guests) if known == node), self.own.name)

    def address(self, node: NodeId) -> bytes:
        """Return the overlay address of a node, 16 bytes."""
        return packed_address_of(self.group, node)


def _labels(name: str) -> list[str]:
    if not name.isascii() or len(name) > _NAME_CHARS_MAX:  # Beyond ASCII, lower() may turn other letters into ours.
        return ["", ""]  # As a name that nobody can have.
    return name.lower().removesuffix(".").split(".")


def _is_ours(name: str) -> bool:
    labels = _labels(name)
    return len(labels) == 1 or labels[-1:] == [TOP]


def _literal(text: str) -> bytes | None:
    if _SCOPE in text:
        return None
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        return None
