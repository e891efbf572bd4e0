# SPDX-License-Identifier: Apache-2.0
"""What nodes say to each other about who owns an environment and what its journal holds, inside sessions only.

A letter is the environment's id (16 bytes) and one message: a MessagePack array whose first item is the integer tag, 96
to 111. Whatever is lost is said again, and whatever is said twice changes nothing.
"""

from typing import Annotated, Final

import msgspec

from atoll.base.errors import UsageError, WireError
from atoll.base.ids import NODE_ID_BYTES
from atoll.core.codec import Codec
from atoll.core.machine import Tuple
from atoll.env.limits import (
    HOLDERS_MAX,
    HOLDING_BYTES_MAX,
    NUMBER_MAX,
    PART_BYTES,
    SEALED_BYTES_MAX,
    SNAPSHOT_BYTES_MAX,
    STORE_BLOCKS_MAX,
)

__all__ = [
    "ENVIRONMENT_ID_BYTES",
    "HOLDING_TAGS",
    "Block",
    "Canvass",
    "HandOver",
    "HoldingMessage",
    "PartStored",
    "Prepare",
    "Prepared",
    "Promised",
    "SnapshotPart",
    "Store",
    "Stored",
    "decode",
    "encode",
    "is_question",
]

ENVIRONMENT_ID_BYTES: Final = 16
HOLDING_TAGS: Final = range(96, 112)
REASON_CHARS_MAX: Final = 500  # Limit. A sentence with a path in it.

U63 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]  # An epoch or a number of a block; 0: none.
Number = Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)]
Total = Annotated[int, msgspec.Meta(ge=1, le=SNAPSHOT_BYTES_MAX)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=SNAPSHOT_BYTES_MAX)]
Id = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
Holders = Annotated[tuple[Id, ...], msgspec.Meta(max_length=HOLDERS_MAX)]
SealedBytes = Annotated[bytes, msgspec.Meta(min_length=1, max_length=SEALED_BYTES_MAX)]
Part = Annotated[bytes, msgspec.Meta(max_length=PART_BYTES)]


class Block(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A block on its way from one journal to another.

    Attributes:
        number: From 1.
        epoch: In which it was sealed.
        holders: Empty, or who the holders are from this block on.
        sealed: The block, its seal and who sealed it; only recorders look inside.
    """

    number: Number
    epoch: Number
    holders: Holders
    sealed: SealedBytes


Blocks = Annotated[tuple[Block, ...], msgspec.Meta(max_length=STORE_BLOCKS_MAX)]


class Store(Tuple, frozen=True, tag=96):
    """From the owner: blocks to keep; without blocks only a sign of life.

    Attributes:
        epoch: The owner's.
        before_number: Number of the block before the first one; 0: there is none.
        before_epoch: Its epoch. A receiver without exactly that block takes nothing.
        blocks: Without a gap.
        committed: Up to here a majority has all.
        sent_ns: The owner's clock, for nobody but itself: it is repeated in the answer.
        counted: The owner counts on what the receiver keeps. Else it is told only to learn that it is no holder.
    """

    epoch: Number
    before_number: Count
    before_epoch: Count
    blocks: Blocks
    committed: Count
    sent_ns: U63
    counted: bool


class Stored(Tuple, frozen=True, tag=97):
    """The answer to ``Store``.

    Attributes:
        epoch: The sender's. A higher one than the owner's ends that ownership.
        accepted: Whether the block before was there.
        number: If accepted, the last block that is the owner's and kept; else the last one that may be the owner's.
        echo_ns: ``sent_ns`` of the newest message that was heard; of a refusal, of the one that was refused.
    """

    epoch: Count
    accepted: bool
    number: Count
    echo_ns: U63


class Canvass(Tuple, frozen=True, tag=98):
    """The sender would own the environment.

    Attributes:
        epoch: In which.
        last_number: Last block of its journal.
        last_epoch: Its epoch.
        trial: It only asks who would vote for it, so that a node that was cut off does not end a good ownership.
        transfer: The owner itself asked it to.
    """

    epoch: Number
    last_number: Count
    last_epoch: Count
    trial: bool
    transfer: bool


class Promised(Tuple, frozen=True, tag=99):
    """The answer to ``Canvass``.

    Attributes:
        epoch: The sender's.
        asked: Epoch of the canvass.
        trial: As there.
        granted: The sender votes for the receiver, or would.
    """

    epoch: Count
    asked: Count
    trial: bool
    granted: bool


class HandOver(Tuple, frozen=True, tag=100):
    """From the owner to a holder that was told everything: stand for election as soon as it is on the disk.

    Attributes:
        epoch: The owner's; in another one the message is void.
        wanted: Who shall be the holders when that is done; empty: as they are.
        upto: Number of the owner's last block.
        promised: The sender owns nothing any more: it has promised itself to the receiver in the next epoch, and that
            is on its disk. So it need not be asked.
    """

    epoch: Number
    wanted: Holders
    upto: Count = 0
    promised: bool = False


class SnapshotPart(Tuple, frozen=True, tag=101):
    """From the owner to a node that lacks more than the owner's journal goes back.

    Attributes:
        epoch: The owner's.
        number: Block after which the snapshot was taken.
        number_epoch: That block's epoch.
        holders: Who held the environment after it.
        offset: First byte of this part.
        total: Bytes of the whole snapshot.
        payload: The part.
        sent_ns: As in ``Store``.
    """

    epoch: Number
    number: Number
    number_epoch: Number
    holders: Holders
    offset: Offset
    total: Total
    payload: Part
    sent_ns: U63


class PartStored(Tuple, frozen=True, tag=102):
    """The answer to ``SnapshotPart``.

    Attributes:
        epoch: The sender's.
        number: Of the snapshot.
        offset: Bytes of it that are here without a gap: what comes next.
        echo_ns: As in ``Stored``.
    """

    epoch: Count
    number: Number
    offset: Offset
    echo_ns: U63


class Prepare(Tuple, frozen=True, tag=103):
    """From the owner to a holder: it is about to hand over, so have the environment restored by then.

    Attributes:
        epoch: The owner's; in another one the message is void.
    """

    epoch: Number


class Prepared(Tuple, frozen=True, tag=104):
    """The answer to ``Prepare``.

    Attributes:
        epoch: The sender's.
        failed: Why it cannot be restored there; empty: it is.
    """

    epoch: Count
    failed: Annotated[str, msgspec.Meta(max_length=REASON_CHARS_MAX)] = ""


HoldingMessage = Store | Stored | Canvass | Promised | HandOver | SnapshotPart | PartStored | Prepare | Prepared


def is_question(message: HoldingMessage) -> bool:
    """Return whether a message asks for something that changes nothing at the receiver, so any member may send it."""
    return isinstance(message, Canvass) and message.trial


_codec: Final = Codec[HoldingMessage](HoldingMessage, bytes_max=HOLDING_BYTES_MAX, name="holding message")


def encode(environment: bytes, message: HoldingMessage) -> bytes:
    """Return the letter's bytes, at most 16 + HOLDING_BYTES_MAX of them.

    Raises:
        UsageError: The environment's id is not 16 bytes, or the message breaks its bounds.
    """
    if len(environment) != ENVIRONMENT_ID_BYTES:
        raise UsageError(f"an environment id of {len(environment)} bytes")
    return environment + _codec.encode(message)


def decode(letter: bytes) -> tuple[bytes, HoldingMessage]:
    """Return the environment's id and the message in these bytes.

    Raises:
        WireError: Too short, too long, not MessagePack, unknown tag, wrong types or out of range. Nothing else.
    """
    if len(letter) < ENVIRONMENT_ID_BYTES:
        raise WireError("holding letter too short")
    return letter[:ENVIRONMENT_ID_BYTES], _codec.decode(letter[ENVIRONMENT_ID_BYTES:])
