# SPDX-License-Identifier: Apache-2.0
"""What one member of the group tells the others about itself, as every room sees it."""

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from atoll.base.ids import ENDPOINT_HOST_CHARS_MAX, KEY_BYTES, NodeId, PublicKey, node_id_of

__all__ = ["ENDPOINTS_MAX", "NAME_CHARS_MAX", "NAME_PATTERN", "Member", "RelayWill"]

NAME_CHARS_MAX: Final = 32
NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z"  # A DNS label, so that names can become host names.
ENDPOINTS_MAX: Final = 8

Host = Annotated[str, msgspec.Meta(min_length=1, max_length=ENDPOINT_HOST_CHARS_MAX)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class RelayWill(StrEnum):
    """Whether a member forwards for others."""

    NEVER = "never"
    METERED = "metered"  # Only when no other relay will do, and within the budget.
    YES = "yes"


class Member(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One member.

    Attributes:
        public_key: X25519 key, 32 bytes; the id and the address follow from it.
        signing_key: Ed25519 key, 32 bytes, for statements about membership.
        name: A DNS label, at most 32 characters; unique in the group as shown (the roster appends a suffix if not).
        endpoints: Underlay addresses to try, at most 8, best first; may be empty (the node calls out itself).
        relay: Whether it forwards for others.
        relay_bytes_s: Its budget for all forwarding, bytes per second, 0 = none.
    """

    public_key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    signing_key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    name: Annotated[str, msgspec.Meta(max_length=NAME_CHARS_MAX, pattern=NAME_PATTERN)]
    endpoints: Annotated[tuple[tuple[Host, Port], ...], msgspec.Meta(max_length=ENDPOINTS_MAX)] = ()
    relay: RelayWill = RelayWill.YES
    relay_bytes_s: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 2_500_000

    @property
    def node(self) -> NodeId:
        """Id of the member, derived from its key."""
        return node_id_of(PublicKey(self.public_key))
