# SPDX-License-Identifier: Apache-2.0
"""What a node keeps of one environment beside its machine: what it is, what waits for it, what is ahead of the disk."""

from dataclasses import dataclass
from typing import Final

import msgspec

from atoll.env.runner import Made

__all__ = ["OPENING", "UNKNOWN", "Ahead", "Facts", "Suspect", "Waiting"]


@dataclass(slots=True)
class Facts:
    """What is known of an environment everywhere.

    Attributes:
        id: As a party.
        name: How people call it.
        app: Class of its application.
        code: SHA-256 of its code.
        origin: Node that began it; empty: not known here.
    """

    id: bytes
    name: str
    app: str
    code: bytes
    origin: bytes = b""


class Waiting(msgspec.Struct, frozen=True):
    """A frame of a party that was not applied yet; fields as in ``Carried``."""

    party: bytes
    first: int
    count: int
    items: bytes
    settled: int = 0


class Ahead(msgspec.Struct, frozen=True):
    """A block that is proposed.

    Attributes:
        made: The block.
        receipts: Number of the last item of each party in it.
        holders: Who the holders are from it on; empty: it changes nothing.
    """

    made: Made
    receipts: dict[bytes, int]
    holders: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Suspect:
    """What was being handled when the process before this one ended.

    Attributes:
        party: Who sent the items; empty: a timer.
        first: Number of the first item, or of the timer; 0: the environment heard that it runs again.
        count: How many; 1: it is known which.
    """

    party: bytes
    first: int
    count: int


OPENING: Final = Suspect(b"", 0, 1)
UNKNOWN: Final = Suspect(b"", 0, 0)  # What it heard will not be said again as it was.
