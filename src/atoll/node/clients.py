# SPDX-License-Identifier: Apache-2.0
"""The methods about clients: machines with stock WireGuard software, such as a telephone, that reach the whole group.

A client's private key is made here, goes into the answer, and is kept nowhere. That of its gateway is made and sealed
by the packet device; this process sees only what is sealed.
"""

import ipaddress
import os
import re
from base64 import b64encode
from typing import Any, Final, final

import msgspec

from atoll.base.errors import UserError
from atoll.base.ids import KEY_BYTES, PublicKey, address_of, is_tcp, node_id_of, packed_address_of, resolver_address
from atoll.base.member import NAME_PATTERN
from atoll.conduit.limits import INNER_BYTES_MAX
from atoll.conduit.names import TOP
from atoll.device.nic.limits import GATEWAYS_MAX
from atoll.group.events import GuestAsked, GuestRemoveAsked
from atoll.group.guests import Guest
from atoll.group.limits import GUESTS_MAX
from atoll.node.addresses import endpoint_text, parse_address
from atoll.node.parameters import decoded
from atoll.node.reporting import name_of
from atoll.node.service import Node
from atoll.node.tunnel import PREFIX_BITS
from atoll.node.views import ClientConfigView, ClientView
from atoll.overlay.session import PrivateKey

__all__ = ["Clients"]

KEEPALIVE_S: Final = 25  # WireGuard's usual one: below the 30 s after which the shortest-lived mappings go.
ENDPOINTS_SHOWN_MAX: Final = 16  # Limit. Lines of a configuration; the first is in force, the others are at hand.
_NAME: Final = re.compile(NAME_PATTERN)


class _Add(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    endpoint: str = ""


class _Name(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


@final
class Clients:
    """The clients of the group, by way of one node.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    async def add(self, params: dict[str, Any]) -> ClientConfigView:
        """Make a client; its configuration, with the only copy of its private key, is the answer."""
        asked = decoded(params, _Add)
        self._check(asked.name)
        endpoints = self._endpoints(asked.endpoint)
        gateway, shares = await self._gateway()
        secret = os.urandom(KEY_BYTES)
        public_key = PrivateKey(secret).public
        self._node.feed(GuestAsked(public_key, gateway, asked.name, shares))
        await self._node.confirm()
        guest = next((g for g in self._node.control.group.roster.guests().guests if g.public_key == public_key), None)
        if guest is None:
            raise UserError("A209", "the roster has no room for another client", fix="remove one: atoll client rm NAME")
        view = self._view(guest)
        text = self._configuration(guest, secret, endpoints)
        return ClientConfigView(name=view.name, address=view.address, public_key=view.public_key, config=text)

    def _check(self, name: str) -> None:
        roster = self._node.control.group.roster
        guests = roster.guests().guests
        if not _NAME.fullmatch(name):
            raise UserError("A211", f"{name!r} cannot be a name", fix="use a to z, 0 to 9 and inner hyphens")
        if name in {member.name for member in roster.members()} | {guest.name for guest in guests}:
            raise UserError(
                "A215", f"the group has a {name!r} already", fix="choose another name; see: atoll client list"
            )
        if len(guests) >= GUESTS_MAX:
            raise UserError(
                "A209",
                f"the group has {GUESTS_MAX} clients, and no room for another",
                fix="remove one: atoll client rm NAME",
            )

    def _endpoints(self, asked: str) -> tuple[str, ...]:
        """Return where a client can reach the group, best first: this node, then the other members."""
        if asked:
            parse_address(asked)
        node = self._node
        group = node.control.group
        known = [*([asked] if asked else []), *(endpoint_text(e) for e in node.endpoints if not is_tcp(e))]
        for member in group.roster.members():
            if member.node != group.own.node:
                known += [endpoint_text(endpoint) for endpoint in member.endpoints if not is_tcp(endpoint)]
        if not known:
            raise UserError(
                "A213",
                "no member has an address at which a client could reach it",
                fix="say it: atoll client add NAME --endpoint HOST:PORT",
            )
        return tuple(dict.fromkeys(known))[:ENDPOINTS_SHOWN_MAX]

    async def _gateway(self) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
        """Return the gateway for a new client, and its key sealed for the members that have it not."""
        group = self._node.control.group
        guests = group.roster.guests()
        held = [gateway for gateway, boxes in guests.shares.items() if group.own.node in boxes]
        gateway = held[-1] if held else b""
        if not held and len({guest.gateway for guest in guests.guests}) >= GATEWAYS_MAX:
            raise UserError(
                "A216",
                "this machine has the key of none of the group's gateways, and there can be no more of them",
                fix="run it on a machine that has one: any that was a member when a client was last added",
            )
        boxes = guests.shares.get(gateway, {})
        lacking = [PublicKey(m.public_key) for m in group.roster.members() if m.node not in boxes]
        if not lacking:
            return gateway, ()
        shared = await self._node.share_gateway(gateway, lacking)
        if not shared.public_key:
            raise UserError("A403", "the packet device has not opened the gateway's key", fix="try again in a second")
        sealed = tuple((bytes(node_id_of(PublicKey(recipient))), box) for recipient, box in shared.boxes)
        return shared.public_key, sealed

    def _configuration(self, guest: Guest, secret: bytes, endpoints: tuple[str, ...]) -> str:
        """Return the text that WireGuard's own programs read."""
        node = self._node
        resolver = ipaddress.IPv6Address(resolver_address(node.plan.group))
        prefix = ipaddress.IPv6Network((packed_address_of(node.plan.group, guest.node), PREFIX_BITS), strict=False)
        first, *others = endpoints
        lines = [
            f"# {guest.name}.{node.plan.settings.group_name}.{TOP}",
            "[Interface]",
            f"PrivateKey = {b64encode(secret).decode()}",
            f"Address = {address_of(node.plan.group, guest.node)}/128",
            f"DNS = {resolver}, {node.plan.settings.group_name}.{TOP}",
            f"MTU = {INNER_BYTES_MAX}",
            "",
            "[Peer]",
            f"PublicKey = {b64encode(guest.gateway).decode()}",
            f"AllowedIPs = {prefix}",
            f"Endpoint = {first}",
            f"PersistentKeepalive = {KEEPALIVE_S}",
            *(f"# or: Endpoint = {other}" for other in others),
        ]
        return "\n".join(lines) + "\n"

    async def list(self, params: dict[str, Any]) -> tuple[ClientView, ...]:
        """List the clients, in the order of their admission."""
        decoded(params, _Nothing)
        return tuple(self._view(guest) for guest in self._node.control.group.roster.guests().guests)

    def _view(self, guest: Guest) -> ClientView:
        control = self._node.control
        server = control.guests.server(guest.node)
        here = server == control.group.own.node
        return ClientView(
            name=guest.name,
            address=address_of(self._node.plan.group, guest.node),
            public_key=b64encode(guest.public_key).decode(),
            served_by=None if server is None else control.group.own.name if here else name_of(control, server),
            endpoint=self._node.seen_at(guest.node) if here else None,
        )

    async def remove(self, params: dict[str, Any]) -> ClientView:
        """Revoke a client, everywhere and for good; answer when the disk has it."""
        name = decoded(params, _Name).name
        guests = self._node.control.group.roster.guests().guests
        guest = next((guest for guest in guests if guest.name == name), None)
        if guest is None:
            raise UserError(
                "A210",
                f"the group has no client {name!r}",
                where=f"clients: {', '.join(guest.name for guest in guests) or 'none yet'}",
                fix="see: atoll client list",
            )
        self._node.feed(GuestRemoveAsked(guest.public_key))
        await self._node.confirm()
        return self._view(guest)
