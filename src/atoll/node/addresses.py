# SPDX-License-Identifier: Apache-2.0
"""Addresses of the underlay as people write them, and where this node is to be found.

``HOST:PORT`` is a UDP socket, ``tcp/HOST:PORT`` one over which TCP connections are taken; an IPv6 host stands in
brackets.
"""

import ipaddress
import re
from typing import Final

from atoll.base.errors import LinkError, UserError
from atoll.base.ids import TCP_PREFIX, Endpoint, is_tcp
from atoll.base.member import ENDPOINTS_MAX, Member
from atoll.group.identity import Identity
from atoll.host.addresses import reachable_endpoints
from atoll.host.tcp import TcpListener
from atoll.host.udp import UdpSocket
from atoll.node.state import Settings

__all__ = [
    "DEFAULT_PORT",
    "PORT_MAX",
    "endpoint_text",
    "free_default",
    "listed_text",
    "listening",
    "own_member",
    "parse_address",
    "parse_endpoint",
    "with_tcp",
]

DEFAULT_PORT: Final = 7747
PORT_MAX: Final = 0xFFFF

_PORT: Final = re.compile(r"[0-9]{1,5}")
# What the resolver takes without an exception of its own: labels of 1 to 63, or an IPv6 address with its zone.
_HOST: Final = re.compile(
    r"[0-9a-z_-]{1,63}(\.[0-9a-z_-]{1,63}){0,9}|[0-9a-f]{0,4}:[0-9a-f:.]{1,40}(%[0-9a-z_.-]{1,15})?",
    re.ASCII | re.IGNORECASE,
)


def parse_endpoint(text: str) -> Endpoint:
    """Return (host, port) of ``HOST:PORT``; an IPv6 host stands in brackets.

    Raises:
        UserError: A501, it is not that.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not _HOST.fullmatch(host) or not _PORT.fullmatch(port) or int(port) > PORT_MAX:
        raise UserError("A501", f"{text!r} is not HOST:PORT", fix="for example: 0.0.0.0:7747 or [::1]:7747")
    return host, int(port)


def parse_address(text: str) -> Endpoint:
    """Return (host, port) of ``HOST:PORT`` or ``tcp/HOST:PORT`` with a numeric host, as the underlay wants it.

    Raises:
        UserError: A501, it is not that: a name may lead elsewhere tomorrow, and members would be told it.
    """
    host, port = parse_endpoint(text.removeprefix(TCP_PREFIX))
    try:
        return TCP_PREFIX * text.startswith(TCP_PREFIX) + str(ipaddress.ip_address(host)), port
    except ValueError as error:
        raise UserError(
            "A501",
            f"{text!r} is not an IP address and a port",
            where=f"{host!r} is not numeric",
            fix="give the address itself, for example: 192.0.2.1:7747",
        ) from error


def endpoint_text(endpoint: Endpoint) -> str:
    """Return ``HOST:PORT`` or ``tcp/HOST:PORT``; an IPv6 host stands in brackets."""
    host, port = endpoint[0].removeprefix(TCP_PREFIX), endpoint[1]
    return TCP_PREFIX * is_tcp(endpoint) + (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def listed_text(endpoints: tuple[Endpoint, ...]) -> str:
    """Return endpoints for people, each with its transport."""
    return ", ".join(endpoint_text(one) if is_tcp(one) else f"udp/{endpoint_text(one)}" for one in endpoints)


def listening(settings: Settings) -> tuple[Endpoint, ...]:
    """Return where a node of these settings is to listen.

    Raises:
        UserError: A501, the settings hold something else.
    """
    return tuple(parse_address(text) for text in settings.listen.split(","))


def with_tcp(listen: str, port: int) -> str:
    """Return addresses to listen on with TCP at this port of each host; 0: without TCP.

    Raises:
        UserError: A501, an address is none; A105, the port cannot be had.
    """
    plain = [one for one in map(parse_address, listen.split(",")) if not is_tcp(one)]
    carried = [(TCP_PREFIX + host, port) for host in dict.fromkeys(host for host, _ in plain)] if port else []
    for one in carried:
        try:
            TcpListener(one).close()
        except LinkError as error:
            raise UserError(
                "A105",
                f"cannot listen on {endpoint_text(one)}",
                where=str(error),
                fix="end the program that has it, run as root for a port below 1024, or choose another: --tcp PORT",
            ) from error
    return ",".join(endpoint_text(one) for one in (*plain, *carried))


def free_default() -> str:
    """Return the addresses to listen on when nobody said.

    That is both families, the default port, or any if it is in use; and TCP at the same port where that is free.
    """
    for port in (DEFAULT_PORT, 0, 0):  # A free port of one family may be in use in the other.
        found: list[Endpoint] = []
        for host in ("0.0.0.0", "::"):  # noqa: S104 - a node is there to be called by its members.
            try:
                probe = UdpSocket((host, found[0][1] if found else port))
                found.append(probe.endpoint)
                probe.close()
            except LinkError as error:
                if str(error) == "EADDRINUSE":  # Half a node, on the other family alone, would puzzle everybody.
                    found.clear()
                    break
                continue  # This family is not to be had here.
        if found:
            plain = ",".join(endpoint_text(endpoint) for endpoint in found)
            try:
                return with_tcp(plain, found[0][1])
            except UserError:
                return plain
    return endpoint_text(("0.0.0.0", DEFAULT_PORT))  # noqa: S104 - as above; the device will say what is wrong.


def own_member(identity: Identity, settings: Settings, listen: tuple[Endpoint, ...]) -> Member:
    """Return a node's record as it tells it to the members; ``listen`` counts where nothing is advertised."""
    listed = tuple(parse_address(text) for text in settings.advertise)
    listed = listed or tuple(found for bound in listen for found in _reachable(bound))
    known = tuple(endpoint for endpoint in listed if endpoint[1])[:ENDPOINTS_MAX]  # Port 0: not bound yet.
    return Member(
        identity.public_key, identity.signing_key, settings.name, known, settings.relay, settings.relay_bytes_s
    )


def _reachable(bound: Endpoint) -> tuple[Endpoint, ...]:
    prefix = TCP_PREFIX * is_tcp(bound)
    found = reachable_endpoints((bound[0].removeprefix(TCP_PREFIX), bound[1]))
    return tuple((prefix + host, port) for host, port in found)
