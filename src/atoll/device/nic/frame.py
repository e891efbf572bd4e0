# SPDX-License-Identifier: Apache-2.0
"""The relay frame: how a datagram travels between two members over a third. Normative text: docs/spec/relay.md.

The kind continues WireGuard's 1 to 4, so that one socket carries both and the first four bytes tell them apart.
"""

from hashlib import blake2s
from hmac import compare_digest
from typing import Final

from atoll.base.errors import UsageError

__all__ = [
    "FRAME_BYTES_MIN",
    "FRAME_HEADER_BYTES",
    "FRAME_KIND",
    "LABEL_END",
    "LABEL_KEY_BYTES",
    "head_frame",
    "inner_of",
    "is_authentic",
    "label_of",
    "pack_frame",
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


def pack_frame(label: bytes, key: bytes, inner: bytes) -> bytes:
    """Return the frame.

    Args:
        label: As ``pack_label`` gives it.
        key: 32 bytes, known to the two ends of this hop.
        inner: A WireGuard datagram.
    """
    mac = blake2s(label + inner[:_COVERED_BYTES], key=key, digest_size=_MAC_BYTES).digest()
    return b"".join((FRAME_KIND, label, mac, inner))


def head_frame(frame: memoryview, label: bytes, key: bytes) -> None:
    """Write the header of a frame whose datagram is in its place already; arguments as those of ``pack_frame``."""
    covered = label + bytes(frame[FRAME_HEADER_BYTES:_COVERED_END])
    frame[:4] = FRAME_KIND
    frame[4:_MAC_AT] = label
    frame[_MAC_AT:FRAME_HEADER_BYTES] = blake2s(covered, key=key, digest_size=_MAC_BYTES).digest()


def label_of(frame: bytes | memoryview) -> int | None:
    """Return the label; None: not a frame that could hold a datagram of ours."""
    if len(frame) < FRAME_BYTES_MIN or bytes(frame[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + 4]) not in _INNER_KINDS:
        return None
    return int.from_bytes(frame[4:_MAC_AT], "little")


def is_authentic(frame: bytes | memoryview, key: bytes) -> bool:
    """Return whether the frame's MAC was made with this key. Call ``label_of`` first."""
    covered = bytes(frame[4:_MAC_AT]) + bytes(frame[FRAME_HEADER_BYTES:_COVERED_END])
    mac = blake2s(covered, key=key, digest_size=_MAC_BYTES).digest()
    return compare_digest(mac, frame[_MAC_AT:FRAME_HEADER_BYTES])


def inner_of(frame: bytes) -> bytes:
    """Return the datagram in the frame."""
    return frame[FRAME_HEADER_BYTES:]
