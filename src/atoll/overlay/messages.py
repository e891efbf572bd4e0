# SPDX-License-Identifier: Apache-2.0
"""What overlays say to each other, inside sessions only. Normative text: docs/spec/control.md.

Every message is a MessagePack array of at most 15 items, so its first byte is 0x90 to 0x9f: the first nibble (9) tells
it from an inner IPv6 (6) or IPv4 (4) packet. The first item is the integer tag: overlay 1 to 23, guests 24 to 31,
group 32 to 63.
"""

from typing import Annotated, Final

import msgspec

from atoll.base.errors import WireError
from atoll.base.ids import ENDPOINT_HOST_CHARS_MAX, NODE_ID_BYTES
from atoll.core.machine import Tuple

__all__ = [
    "CONTROL_BYTES_MAX",
    "LINKS_PER_MESSAGE_MAX",
    "OVERLAY_TAGS",
    "LabelGrant",
    "LabelNotice",
    "LabelRefusal",
    "LabelRequest",
    "Link",
    "LinkState",
    "OverlayMessage",
    "Place",
    "Probe",
    "decode",
    "encode",
]

CONTROL_BYTES_MAX: Final = 1200  # Spec. Fits every path that carries IPv6 (1280) with our framing.
LINKS_PER_MESSAGE_MAX: Final = 36  # Spec. 36 links of at most 30 bytes fit CONTROL_BYTES_MAX.
OVERLAY_TAGS: Final = range(1, 24)

U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
U63 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Id = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
LabelKey = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Probe(Tuple, frozen=True, tag=1):
    """One measurement packet on one path; both ends send them, each at its own pace, and each echoes the other's.

    Round trip without clock sync: now - ``echo_sent_us`` - ``echo_held_us`` (all modulo 2^32 of the echoed party's own
    clock). Loss towards the peer: from ``seen_last`` and ``seen_bits``, which say which of the peer's probes arrived.
    A receiver expects the next probe on this path within ``interval_ms``; silence beyond that is evidence.

    Attributes:
        sequence: Counts probes on this path in this direction, from a random number, modulo 2^32.
        sent_us: Sender's monotonic clock, microseconds modulo 2^32.
        interval_ms: The sender's next probe on this path comes within this time.
        echo_sequence: The newest of the peer's probes seen on this path; 0: none yet.
        echo_sent_us: That probe's ``sent_us``.
        echo_held_us: How long it was held here before this echo.
        seen_bits: Bit i set: probe ``echo_sequence - i`` arrived; 32 bits.
        flags: Bit 0: answer at once, with a probe on the same path. Bit 1: this is such an answer. Bit 2: the interval
            is the sender's own wish, and the receiver should probe as often.
        data_sent: Data packets that the peer had sent on this path by its newest probe, as it said.
        data_seen: Those that had come by then.
    """

    sequence: U32
    sent_us: U32
    interval_ms: U16
    echo_sequence: U32
    echo_sent_us: U32
    echo_held_us: U32
    seen_bits: U32
    flags: U8
    data_sent: U32 = 0
    data_seen: U32 = 0


class Link(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One direct link as its sender sees it.

    Attributes:
        node: The far end.
        rtt_us: Predicted round trip; 0: never measured.
        deviation_us: Its deviation (standard-deviation scale).
        loss_out: Loss towards the far end, in 1/10000.
        loss_in: Loss from the far end, in 1/10000.
        state: 0 ok, 1 suspect, 2 failed, 3 unknown.
    """

    node: Id
    rtt_us: U32
    deviation_us: U32
    loss_out: U16
    loss_in: U16
    state: U8


class LinkState(Tuple, frozen=True, tag=2):
    """The sender's own links. ``full`` replaces all that was known; otherwise only the named links change.

    A full state larger than one message is sent in several with the same ``sequence`` and rising ``part``; the state
    is replaced when part ``parts - 1`` of an unbroken series has come. ``load`` is the sender's relay load, 0 to 255
    (255: no budget left); ``will`` is 0 never, 1 metered, 2 yes.
    """

    boot: U63
    sequence: U32
    full: bool
    part: U8
    parts: U8
    load: U8
    will: U8
    links: Annotated[tuple[Link, ...], msgspec.Meta(max_length=LINKS_PER_MESSAGE_MAX)]


class LabelRequest(Tuple, frozen=True, tag=3):
    """Ask the receiver to relay between the sender and ``target``, both ways."""

    target: Id


class LabelGrant(Tuple, frozen=True, tag=4):
    """Answer to the asker: packets for ``target`` under ``label``, authenticated with ``key``, will be forwarded.

    Packets from ``target`` will arrive under ``arrival_label`` (authenticated with ``arrival_key``). Lease ``lease_s``.
    """

    target: Id
    label: U63
    key: LabelKey
    arrival_label: U63
    arrival_key: LabelKey
    lease_s: U16


class LabelNotice(Tuple, frozen=True, tag=5):
    """To the target of a grant, the mirror of it: ``origin`` may now send to you through me, and you to it."""

    origin: Id
    label: U63
    key: LabelKey
    arrival_label: U63
    arrival_key: LabelKey
    lease_s: U16


class LabelRefusal(Tuple, frozen=True, tag=6):
    """No: ``reason`` 1 will not relay, 2 no budget, 3 not linked to the target, 4 table full."""

    target: Id
    reason: U8


class Place(Tuple, frozen=True, tag=7):
    """The sender sees a member at this address, which is not one that the member itself lists: it is behind a NAT."""

    node: Id
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=ENDPOINT_HOST_CHARS_MAX)]
    port: Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)]


OverlayMessage = Probe | LinkState | LabelRequest | LabelGrant | LabelNotice | LabelRefusal | Place

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[OverlayMessage]] = msgspec.msgpack.Decoder(OverlayMessage)


def encode(message: OverlayMessage) -> bytes:
    """Return the message's bytes, at most CONTROL_BYTES_MAX of them when its lists keep their limits."""
    return _encoder.encode(message)


def decode(payload: bytes) -> OverlayMessage:
    """Return the message in these bytes.

    Raises:
        WireError: Too long, not MessagePack, unknown tag, wrong types or out of range. Nothing else.
    """
    if len(payload) > CONTROL_BYTES_MAX:
        raise WireError("control message too long")
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("control message does not decode") from error
