# SPDX-License-Identifier: Apache-2.0
"""Who is who: keys, node ids, overlay addresses.

A node *is* its X25519 public key. Its ``NodeId`` is 80 bits of the key's hash, and its overlay address is
``fd`` + 40 bits of group + 80 bits of NodeId (RFC 4193 layout: an own /48 for each group), so that an address can be
checked against a key by anybody, with no directory.
"""

import ipaddress
from hashlib import blake2s
from typing import Final, NewType

from atoll.base.errors import UsageError

__all__ = [
    "DIRECT",
    "ENDPOINT_HOST_CHARS_MAX",
    "KEY_BYTES",
    "NODE_ID_BYTES",
    "TCP_PREFIX",
    "Endpoint",
    "GroupId",
    "NodeId",
    "PublicKey",
    "Via",
    "address_of",
    "is_tcp",
    "node_id_of",
    "packed_address_of",
    "resolver_address",
]

KEY_BYTES: Final = 32
NODE_ID_BYTES: Final = 10
ENDPOINT_HOST_CHARS_MAX: Final = 45  # The longest textual IPv6 address; TCP_PREFIX fits before what is written today.
TCP_PREFIX: Final = "tcp/"  # Spec. Begins the host of an endpoint that is reached over TCP.

PublicKey = NewType("PublicKey", bytes)  # X25519, 32 bytes.
NodeId = NewType("NodeId", bytes)  # 10 bytes.
GroupId = NewType("GroupId", bytes)  # 32 bytes: the founder's Ed25519 public key.

Via = NewType("Via", bytes)  # How to reach a node: DIRECT, or the NodeId of the one relay.
DIRECT: Final = Via(b"")

_RESOLVER_ID: Final = NodeId(b"\0\0\0\0\0\0\0\0\0\x53")  # Spec. ``::53``; to find a key with this id takes 2^80 tries.

Endpoint = tuple[str, int]  # Numeric host and UDP port of the underlay; with TCP_PREFIX before the host: TCP port.


def is_tcp(endpoint: Endpoint) -> bool:
    """Return whether an endpoint is reached over TCP."""
    return endpoint[0].startswith(TCP_PREFIX)


def node_id_of(public_key: PublicKey) -> NodeId:
    """Return the 10-byte id of a node.

    Raises:
        UsageError: The key is not 32 bytes.
    """
    if len(public_key) != KEY_BYTES:
        raise UsageError(f"a public key of {len(public_key)} bytes")
    return NodeId(blake2s(public_key, digest_size=NODE_ID_BYTES, person=b"atollid1").digest())


def packed_address_of(group: GroupId, node: NodeId) -> bytes:
    """Return the overlay IPv6 address of a node in a group, 16 bytes.

    Raises:
        UsageError: The id is not 10 bytes.
    """
    if len(node) != NODE_ID_BYTES:
        raise UsageError(f"a node id of {len(node)} bytes")
    return b"\xfd" + blake2s(group, digest_size=5, person=b"atollgr1").digest() + node


def resolver_address(group: GroupId) -> bytes:
    """Return the address at which each node answers for names, 16 bytes: the same in a whole group."""
    return packed_address_of(group, _RESOLVER_ID)


def address_of(group: GroupId, node: NodeId) -> str:
    """Return the overlay IPv6 address of a node as text."""
    return str(ipaddress.IPv6Address(packed_address_of(group, node)))
