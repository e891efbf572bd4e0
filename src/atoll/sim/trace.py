# SPDX-License-Identifier: Apache-2.0
"""What happened, as one digest: two runs are the same run exactly when their digests are equal.

Every call into a program, every datagram sent, every fault is one record: time, node, kind, bytes. Records go through
a rolling BLAKE2b; the newest few may be kept for people to read.
"""

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from struct import Struct
from typing import Final, final

from atoll.base.units import SECOND_NS
from atoll.sim.limits import TRACE_BUFFER_BYTES

__all__ = ["WORLD", "Happened", "Kind", "Trace"]

WORLD: Final = -1  # In the place of a node's index: it happened to no single node.
_SHOWN_BYTES: Final = 16
_header: Final = Struct("<QhhBI")


class Kind(IntEnum):
    """Kinds of records."""

    START = 1
    RECEIVE = 2
    TICK = 3
    SEND = 4
    ACT = 5
    FAULT = 6
    INJECT = 7


@dataclass(frozen=True, slots=True)
class Happened:
    """One record.

    Attributes:
        at_ns: World time.
        node: Index of the node, or WORLD.
        peer: Index of the other end of a datagram, or WORLD when there is none, or none of ours.
        kind: What it was.
        content: The datagram received, sent or injected; the name of an act or fault; else empty.
    """

    at_ns: int
    node: int
    peer: int
    kind: Kind
    content: bytes

    def __str__(self) -> str:
        where = "world" if self.node == WORLD else f"node {self.node}"
        other = "" if self.peer == WORLD else f"{self.peer:>3}"
        if self.kind in {Kind.ACT, Kind.FAULT}:
            shown = self.content.decode(errors="replace")
        else:
            shown = f"{len(self.content)} B {self.content[:_SHOWN_BYTES].hex()}" if self.content else ""
        seconds, rest_ns = divmod(self.at_ns, SECOND_NS)
        return f"{seconds:6}.{rest_ns // 1000:06} s  {where:>8}  {self.kind.name.lower():8}{other:3}  {shown}".rstrip()


@final
class Trace:
    """The rolling digest, and the newest records.

    Args:
        keep: How many records to keep for ``kept``; 0 costs nothing.
    """

    __slots__ = ("_buffer", "_hash", "_kept", "count")

    def __init__(self, keep: int = 0) -> None:
        self._buffer, self._hash = bytearray(), blake2b(digest_size=32, person=b"atolltrace")
        self._kept: deque[Happened] | None = deque(maxlen=keep) if keep else None
        self.count = 0  # Records so far. Read only.

    def add(self, at_ns: int, node: int, peer: int, kind: Kind, content: bytes) -> None:
        """Append one record."""
        buffer = self._buffer
        buffer += _header.pack(at_ns, node, peer, kind, len(content))
        buffer += content
        self.count += 1
        if len(buffer) >= TRACE_BUFFER_BYTES:
            self._hash.update(buffer)
            buffer.clear()
        if self._kept is not None:
            self._kept.append(Happened(at_ns, node, peer, kind, content))

    def digest(self) -> str:
        """Return the digest of all records so far, 64 hex digits."""
        self._hash.update(self._buffer)
        self._buffer.clear()
        return self._hash.hexdigest()

    def kept(self) -> tuple[Happened, ...]:
        """Return the newest records, oldest first."""
        return tuple(self._kept or ())
