# SPDX-License-Identifier: Apache-2.0
"""What groups say to each other, inside sessions only. Normative text: docs/spec/membership.md, section 6.

The form is that of the overlay's messages: a MessagePack array whose first item is the integer tag; group 32 to 63.
``Hello`` and ``Refused`` ignore items that a later version may append, so that a version skew can always be named.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

import msgspec

from atoll.base.ids import KEY_BYTES
from atoll.base.member import Member
from atoll.core.codec import Codec
from atoll.core.machine import Tuple
from atoll.group.limits import CONTROL_BYTES_MAX
from atoll.group.statement import SIGNATURE_BYTES, Statement

__all__ = [
    "GROUP_TAGS",
    "LINE_BYTES",
    "PROTOCOL_MAX",
    "PROTOCOL_MIN",
    "REFUSED_CLASH",
    "REFUSED_DUPLICATE",
    "REFUSED_EXPIRED",
    "REFUSED_FULL",
    "REFUSED_PROOF",
    "REFUSED_REMOVED",
    "REFUSED_USED",
    "REFUSED_VERSION",
    "ROSTER_DIGEST_BYTES",
    "Digest",
    "GroupMessage",
    "Hello",
    "JoinAccept",
    "JoinRefused",
    "JoinRequest",
    "Line",
    "Push",
    "Refused",
    "Summary",
    "decode",
    "encode",
    "packed",
]

GROUP_TAGS: Final = range(32, 64)
PROTOCOL_MIN: Final = 1  # The oldest protocol between nodes that this code still speaks.
PROTOCOL_MAX: Final = 1  # The newest.

ROSTER_DIGEST_BYTES: Final = 16  # Spec.
LINE_BYTES: Final = 8  # Spec. Of keys and hashes in a summary: an accident costs a repeated push, nothing else.
PRODUCT_CHARS_MAX: Final = 32

# Spec. Why a peer or a joiner is refused.
REFUSED_EXPIRED: Final = 1
REFUSED_USED: Final = 2
REFUSED_REMOVED: Final = 3
REFUSED_FULL: Final = 4
REFUSED_VERSION: Final = 5
REFUSED_DUPLICATE: Final = 6
REFUSED_PROOF: Final = 7
REFUSED_CLASH: Final = 8

U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
U63 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
RosterDigest = Annotated[bytes, msgspec.Meta(min_length=ROSTER_DIGEST_BYTES, max_length=ROSTER_DIGEST_BYTES)]
Short = Annotated[bytes, msgspec.Meta(min_length=LINE_BYTES, max_length=LINE_BYTES)]
ShortOrNone = Annotated[bytes, msgspec.Meta(max_length=LINE_BYTES)]
Product = Annotated[str, msgspec.Meta(max_length=PRODUCT_CHARS_MAX)]


class Hello(Tuple, frozen=True, tag=32, forbid_unknown_fields=False):
    """The first message on each new link, from both ends.

    Attributes:
        protocol_min: Oldest protocol that the sender speaks.
        protocol_max: Newest.
        boot: Random number of the sender's process.
        started_s: When that process started, seconds since 1970 by its own clock.
        product: Version of the sender's product, for people.
    """

    protocol_min: U16
    protocol_max: U16
    boot: U63
    started_s: U63
    product: Product


class Refused(Tuple, frozen=True, tag=33, forbid_unknown_fields=False):
    """The sender will not work with the receiver: no common protocol, or two processes with the receiver's key.

    Attributes:
        code: REFUSED_VERSION or REFUSED_DUPLICATE.
        boot: For a duplicate: the process that must end. Others with that key ignore the message.
        protocol_min: Oldest protocol that the sender speaks.
        protocol_max: Newest.
        product: Version of the sender's product, for people.
    """

    code: U8
    boot: U63
    protocol_min: U16
    protocol_max: U16
    product: Product


class Digest(Tuple, frozen=True, tag=34):
    """What the sender's roster comes to, so that two can see whether theirs are the same. ``boot`` as in Hello."""

    boot: U63
    digest: RosterDigest


class Line(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the sender has of one issuer.

    Attributes:
        issuer: First 8 bytes of its signing key.
        top: Highest counter among its admissions and removals; 0: none.
        log: First 8 bytes of the hash of their digests.
        serial: Counter of its profile; 0: none.
        profile: First 8 bytes of the profile's digest; empty: none.
    """

    issuer: Short
    top: U63
    log: Short
    serial: U63
    profile: ShortOrNone


class Summary(Tuple, frozen=True, tag=35):
    """The sender's roster by issuer, for issuers whose first 8 bytes lie between ``first`` and ``last``, both included.

    An issuer in that range without a line is unknown to the sender. The receiver pushes what the sender lacks, and
    when ``answer`` is set and it lacks something itself, sends its own summary with ``answer`` not set.
    """

    answer: bool
    first: Short
    last: Short
    lines: tuple[Line, ...]


class Push(Tuple, frozen=True, tag=36):
    """Statements for the receiver's roster, each after those that it rests on."""

    statements: tuple[Statement, ...]


class JoinRequest(Tuple, frozen=True, tag=37):
    """From a joiner, in the session under the invitation's key: admit me.

    Attributes:
        protocol_min: Oldest protocol that the joiner speaks.
        protocol_max: Newest.
        member: The joiner's record, with its own keys.
        proof: Signature with the record's signing key (``statement.join_payload``).
        have: How many statements of the answer it has without a gap; the answer goes on from there.
    """

    protocol_min: U16
    protocol_max: U16
    member: Member
    proof: Signature
    have: U16


class JoinAccept(Tuple, frozen=True, tag=38):
    """A part of the roster that now has the joiner in it.

    Attributes:
        group: The group's id.
        digest: Of the whole roster; parts with another digest belong to another state of it.
        total: Statements in the whole roster.
        first: Index of the first statement in this message.
        statements: A run of them.
    """

    group: Key
    digest: RosterDigest
    total: U16
    first: U16
    statements: tuple[Statement, ...]


class JoinRefused(Tuple, frozen=True, tag=39):
    """The joiner is not admitted: one of the REFUSED codes. The protocol range is the sender's."""

    code: U8
    protocol_min: U16
    protocol_max: U16


GroupMessage = Hello | Refused | Digest | Summary | Push | JoinRequest | JoinAccept | JoinRefused

_codec: Final = Codec[GroupMessage](GroupMessage, bytes_max=CONTROL_BYTES_MAX, name="group message")


def encode(message: GroupMessage) -> bytes:
    """Return the message's bytes, at most CONTROL_BYTES_MAX of them."""
    return _codec.encode(message)


def decode(payload: bytes) -> GroupMessage:
    """Return the message in these bytes.

    Raises:
        WireError: Too long, not MessagePack, unknown tag, wrong types or out of range. Nothing else.
    """
    return _codec.decode(payload)


Item = TypeVar("Item", Statement, Line)
_sizer: Final = msgspec.msgpack.Encoder()


def packed(items: Sequence[Item], wrap: Callable[[int, tuple[Item, ...]], GroupMessage]) -> list[bytes]:
    """Return as few messages as hold the items in order; none for no items.

    Args:
        items: Each at most STATEMENT_BYTES_MAX when encoded.
        wrap: Makes a message of (index of the first item, items).
    """
    room = CONTROL_BYTES_MAX - len(encode(wrap(0xFFFF, ()))) - 2  # The array's header grows by up to 2 bytes.
    messages: list[bytes] = []
    start, used = 0, 0
    for index, item in enumerate(items):
        size = len(_sizer.encode(item))
        if used + size > room and index > start:
            messages.append(encode(wrap(start, tuple(items[start:index]))))
            start, used = index, 0
        used += size
    if start < len(items):
        messages.append(encode(wrap(start, tuple(items[start:]))))
    return messages
