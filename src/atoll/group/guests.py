# SPDX-License-Identifier: Apache-2.0
"""Which guests the group has: stock WireGuard clients, such as a telephone, that no member's software runs on. Pure.

A guest has a key and so an address as members do, but it states nothing, probes nothing and relays nothing. What is
said of it are statements of members, and they are in force or void as those are. To serve it takes the private key of
its gateway, which is no member: members have it sealed for them, one by one, and their packet devices alone open it.
Normative text: docs/spec/membership.md, section 11.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from atoll.base.ids import NodeId, PublicKey, node_id_of
from atoll.base.member import NAME_CHARS_MAX
from atoll.group.limits import GUESTS_MAX
from atoll.group.statement import AdmitGuest, Body, Gateway, RemoveGuest

__all__ = ["Guest", "GuestList", "free_name", "listed"]


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest.

    Attributes:
        public_key: X25519, 32 bytes.
        gateway: The key that it knows as its one peer.
        name: Unique among members and guests.
    """

    public_key: bytes
    gateway: bytes
    name: str

    @property
    def node(self) -> NodeId:
        """Its id, from which its address follows."""
        return node_id_of(PublicKey(self.public_key))


@dataclass(frozen=True, slots=True)
class GuestList:
    """What the statements in force come to.

    Attributes:
        guests: In order of admission, at most GUESTS_MAX.
        shares: By gateway: the members that have its private key, each with what was sealed for it.
    """

    guests: tuple[Guest, ...]
    shares: dict[bytes, dict[bytes, bytes]]


def listed(bodies: Iterable[Body], taken: Iterable[str]) -> GuestList:
    """Return the guests of these statements.

    Args:
        bodies: In force, in an order that depends on nothing but their set.
        taken: Names of the members, who come first.
    """
    asked: dict[bytes, AdmitGuest] = {}
    removed: set[bytes] = set()
    shares: dict[bytes, dict[bytes, bytes]] = {}
    for body in bodies:
        match body:
            case AdmitGuest(public_key):
                asked.setdefault(public_key, body)
            case RemoveGuest(public_key):
                removed.add(public_key)
            case Gateway(public_key, pairs):
                held = shares.setdefault(public_key, {})
                for node, box in pairs:
                    held.setdefault(node, box)
            case _:
                pass
    names = dict.fromkeys(taken)
    guests: list[Guest] = []
    for public_key, body in asked.items():
        if public_key in removed or len(guests) == GUESTS_MAX:
            continue
        name = free_name(body.name, names)
        names[name] = None
        guests.append(Guest(public_key, body.gateway, name))
    return GuestList(tuple(guests), shares)


def free_name(name: str, taken: dict[str, None]) -> str:
    """Return the name, or with the first number behind it that makes it one not taken."""
    free, number = name, 1
    while free in taken:  # At most as often as there are names taken.
        number += 1
        suffix = f"-{number}"
        free = name[: NAME_CHARS_MAX - len(suffix)].rstrip("-") + suffix
    return free
