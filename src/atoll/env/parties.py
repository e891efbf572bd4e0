# SPDX-License-Identifier: Apache-2.0
"""Who sends and receives: a party is an environment or a client, and a ``Ref`` is how a program names one.

A reference is data: it survives a move, a restart and a copy, because it names and does not point.
"""

from typing import Annotated, Final, NewType

import msgspec

__all__ = ["PARTY_BYTES", "PATH_CHARS_MAX", "PartyId", "Ref"]

PARTY_BYTES: Final = 16
PATH_CHARS_MAX: Final = 200  # Limit. Names of nested environments, joined by slashes.

PartyId = NewType("PartyId", bytes)  # 16 random bytes.


class Ref(msgspec.Struct, frozen=True, array_like=True):
    """A party, or an environment nested in one. Keep it in state, send it, compare it.

    Attributes:
        party: Id, 16 bytes.
        path: Which nested environment, such as ``rooms/lobby``; empty: the outermost.
    """

    party: Annotated[bytes, msgspec.Meta(min_length=PARTY_BYTES, max_length=PARTY_BYTES)]
    path: Annotated[str, msgspec.Meta(max_length=PATH_CHARS_MAX)] = ""
