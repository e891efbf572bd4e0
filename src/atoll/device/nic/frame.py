# SPDX-License-Identifier: Apache-2.0
"""The relay frame: how a datagram travels between two members over a third. Normative text: docs/spec/relay.md.

The kind continues WireGuard's 1 to 4, so that one socket carries both and the first four bytes tell them apart.
"""

from hashlib import blake2s
from hmac import compare_digest
from typing import Any, Final, Protocol, final

from atoll.base.compiled import COMPILED
from atoll.base.errors import UsageError

__all__ = [
    "FRAME_BYTES_MIN",
    "FRAME_HEADER_BYTES",
    "FRAME_KIND",
    "LABEL_END",
    "LABEL_KEY_BYTES",
    "Heading",
    "inner_of",
    "label_of",
    "pack_label",
]

FRAME_KIND: Final = b"\x05\x00\x00\x00"
LABEL_END: Final = 1 << 63  # Labels are below this.
LABEL_KEY_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 20  # Kind, label, MAC.
INNER_BYTES_MIN: Final = 32  # An empty data packet, the shortest datagram of WireGuard.
FRAME_BYTES_MIN: Final = FRAME_HEADER_BYTES + INNER_BYTES_MIN

_INNER_KINDS: Final = frozenset(kind.to_bytes(4, "little") for kind in (1, 2, 3, 4, 6))
_MAC_BYTES: Final = 8
_MAC_AT: Final = 12
_COVERED_BYTES: Final = 16  # Of the inner datagram: kind, receiver and counter of a data packet.
_COVERED_END: Final = FRAME_HEADER_BYTES + _COVERED_BYTES


def pack_label(label: int) -> bytes:
    """Return the 8 bytes of a label.

    Raises:
        UsageError: It is not in 0 to LABEL_END - 1.
    """
    if not 0 <= label < LABEL_END:
        raise UsageError("a label out of range")
    return label.to_bytes(8, "little")


class _Label(Protocol):
    """The compiled form of a heading. What the arguments are stands in ``native/src/label.c``."""

    def head(self, *arguments: Any) -> None:
        """Do ``Heading.head_all``."""
        ...

    def run(self, *arguments: Any) -> int:
        """Do ``Heading.run``."""
        ...


@final
class Heading:
    """A label and its key, made ready: the keyed hash of the label is done once and not for each frame.

    Args:
        label: 0 to LABEL_END - 1.
        key: 32 bytes, known to the two ends of this hop.
        compiled: Whether the compiled loops are used, if they are installed.

    Attributes:
        compiled: The compiled form; None: there is none.

    Raises:
        UsageError: The label is out of range.
    """

    __slots__ = ("_begins", "_keyed", "compiled")

    def __init__(self, label: int, key: bytes, *, compiled: bool = True) -> None:
        packed = pack_label(label)
        self._begins: Final = FRAME_KIND + packed
        self._keyed: Final = blake2s(packed, key=key, digest_size=_MAC_BYTES)
        self.compiled: Final[_Label | None] = (
            COMPILED.Label(self._begins, key) if compiled and COMPILED is not None else None
        )

    def _header(self, covered: bytes | memoryview) -> bytes:
        mac = self._keyed.copy()
        mac.update(covered)
        return self._begins + mac.digest()

    def pack(self, inner: bytes) -> bytes:
        """Return the frame that carries a WireGuard datagram."""
        return self._header(inner[:_COVERED_BYTES]) + inner

    def head(self, frame: memoryview) -> None:
        """Write the header of a frame whose datagram is in its place already."""
        frame[:FRAME_HEADER_BYTES] = self._header(frame[FRAME_HEADER_BYTES:_COVERED_END])

    def is_on(self, frame: bytes | memoryview) -> bool:
        """Return whether a frame has this label, and the MAC was made with this key. Call ``label_of`` first."""
        return compare_digest(self._header(frame[FRAME_HEADER_BYTES:_COVERED_END]), frame[:FRAME_HEADER_BYTES])

    def head_all(self, frames: memoryview, step: int) -> None:
        """Write the headers of frames that stand back to back, ``step`` bytes apart, their datagrams in place."""
        if self.compiled is not None:
            self.compiled.head(frames, step)
            return
        for at in range(0, len(frames), step):
            self.head(frames[at : at + step])

    def run(self, frames: memoryview, size: int, onward: "Heading | None" = None) -> int:
        """Return where the frames end that are like the first one; give them the heading that they go on with.

        They have this label, a right MAC, and the first one's kind of datagram.

        Args:
            frames: Back to back.
            size: Length of each but the last.
            onward: None: leave them as they are.
        """
        if self.compiled is not None:
            return self.compiled.run(frames, size, None if onward is None else onward.compiled)
        kind = bytes(frames[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + 4])
        for at in range(0, len(frames), size):
            frame = frames[at : at + size]
            if (
                len(frame) < FRAME_BYTES_MIN
                or frame[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + 4].tobytes() != kind
                or not self.is_on(frame)
            ):
                return at
            if onward is not None:
                onward.head(frame)
        return len(frames)


def label_of(frame: bytes | memoryview) -> int | None:
    """Return the label; None: not a frame that could hold a datagram of ours."""
    if len(frame) < FRAME_BYTES_MIN or bytes(frame[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + 4]) not in _INNER_KINDS:
        return None
    return int.from_bytes(frame[4:_MAC_AT], "little")


def inner_of(frame: bytes) -> bytes:
    """Return the datagram in the frame."""
    return frame[FRAME_HEADER_BYTES:]
