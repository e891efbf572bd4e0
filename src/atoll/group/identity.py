# SPDX-License-Identifier: Apache-2.0
"""Who a node is: its two secret keys, what follows from them, and which names it may bear. Pure.

Only the shell that reads the identity file and the packet device hold an ``Identity``. The membership machine never
does: it asks for signatures (``Sign``), so that its journal can be shown to others.
"""

import re
from typing import Final, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from atoll.base.errors import UsageError
from atoll.base.ids import KEY_BYTES, GroupId, NodeId, PublicKey, node_id_of
from atoll.base.member import NAME_CHARS_MAX, NAME_PATTERN, Member
from atoll.group.roster import Outcome, Roster
from atoll.group.statement import Admit, Draft, Name, join_payload, signed

__all__ = ["IDENTITY_BYTES", "Identity", "founding_roster", "join_proof", "name_from", "name_is_good"]

IDENTITY_BYTES: Final = 2 * KEY_BYTES
FALLBACK_NAME: Final = "node"

_NAME: Final = re.compile(NAME_PATTERN)
_NOT_A_NAME: Final = re.compile(r"[^a-z0-9]+")


@final
class Identity:
    """The two key pairs of one node.

    Args:
        secret: 64 bytes from the operating system's generator: 32 for X25519, then 32 for Ed25519.

    Raises:
        UsageError: Another length.
    """

    __slots__ = ("_secret", "_signing", "public_key", "signing_key")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != IDENTITY_BYTES:
            raise UsageError(f"an identity of {len(secret)} bytes")
        self._secret: Final = secret
        self._signing: Final = Ed25519PrivateKey.from_private_bytes(secret[KEY_BYTES:])
        exchange = X25519PrivateKey.from_private_bytes(secret[:KEY_BYTES])
        self.public_key: Final = PublicKey(exchange.public_key().public_bytes_raw())
        self.signing_key: Final = self._signing.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"Identity({self.node.hex()})"  # Never the secret: this may reach a log.

    @property
    def node(self) -> NodeId:
        """The node id that follows from the X25519 key."""
        return node_id_of(self.public_key)

    @property
    def secret(self) -> bytes:
        """All 64 secret bytes, for the identity file only."""
        return self._secret

    @property
    def exchange_secret(self) -> bytes:
        """The 32-byte X25519 secret, for the packet device only."""
        return self._secret[:KEY_BYTES]

    def sign(self, payload: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of these bytes: the answer to the effect ``Sign``."""
        return self._signing.sign(payload)


def founding_roster(identity: Identity, member: Member, name: str = "") -> Roster:
    """Found a group: return a roster of one, whose ``group`` is the founder's signing key.

    Args:
        identity: The founder.
        member: The founder's record; its keys must be the identity's.
        name: What the group is called; empty: nothing, so that each member shows what follows from its id.

    Raises:
        UsageError: The record has other keys, or is not sound; or the name is none.
    """
    if (member.public_key, member.signing_key) != (identity.public_key, identity.signing_key):
        raise UsageError("a founder's record with the keys of another")
    roster = Roster(GroupId(identity.signing_key))
    statement = signed(roster.group, Draft(identity.signing_key, 1, b"", Admit(member)), identity.sign)
    if roster.add(statement) is not Outcome.NEW:
        raise UsageError(f"a founder's record that is not sound: {member.name!r} at {member.endpoints!r}")
    if name:
        named = signed(roster.group, roster.draft(identity.signing_key, Name(name)), identity.sign)
        if roster.add(named) is not Outcome.NEW:
            raise UsageError(f"a group called {name!r}")
    return roster


def join_proof(identity: Identity, invite_public_key: bytes, member: Member) -> bytes:
    """Return the 64-byte proof of a join request: the record, signed for one invitation."""
    return identity.sign(join_payload(invite_public_key, member))


def name_is_good(name: str) -> bool:
    """Tell whether a member may bear this name: a DNS label in lower case, 1 to 32 characters."""
    return len(name) <= NAME_CHARS_MAX and _NAME.fullmatch(name) is not None


def name_from(host_name: str) -> str:
    """Return the nearest good name to a machine's host name; ``node`` when nothing of it can be used."""
    label = _NOT_A_NAME.sub("-", host_name.split(".", 1)[0].lower()).strip("-")
    return label[:NAME_CHARS_MAX].strip("-") or FALLBACK_NAME
