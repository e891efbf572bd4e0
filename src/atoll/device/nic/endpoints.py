# SPDX-License-Identifier: Apache-2.0
"""Which claimed addresses may be sent to, and how an address looks as bytes.

Members claim their endpoints themselves, so nothing in a claim is trusted: a name would make the socket ask a name
server, and a multicast address would make one packet many.
"""

from ipaddress import IPv6Address, ip_address

from atoll.base.ids import TCP_PREFIX, Endpoint, is_tcp

__all__ = ["numeric_endpoint", "packed_endpoint"]


def numeric_endpoint(endpoint: Endpoint) -> Endpoint | None:
    """Return the endpoint in the one spelling that sockets report; None: it is no unicast address."""
    host, port = endpoint
    try:
        address = ip_address(host.removeprefix(TCP_PREFIX))
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255" or not 0 < port < 1 << 16:
        return None
    return (TCP_PREFIX * is_tcp(endpoint) + str(address), port)


def packed_endpoint(endpoint: Endpoint) -> bytes:
    """Return address and port as bytes, 6 or 18 of them for numeric hosts; never raises."""
    host, port = endpoint
    try:
        packed = ip_address(host).packed
    except ValueError:
        packed = host.encode("utf-8", "replace")
    return packed + (port & 0xFFFF).to_bytes(2, "big")
