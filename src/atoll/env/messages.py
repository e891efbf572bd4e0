# SPDX-License-Identifier: Apache-2.0
"""What goes between parties, on whatever carries it: from a client to its node, and from node to node.

Everything here may be lost, repeated or come late; the numbers in it make that harmless. Normative text:
docs/spec/environments.md.
"""

from typing import Annotated, Final

import msgspec

from atoll.base.errors import WireError
from atoll.base.ids import NODE_ID_BYTES
from atoll.core.codec import Codec
from atoll.core.machine import Tuple
from atoll.env.chain import Link, Sealer, Signature
from atoll.env.limits import (
    CARRIED_BYTES_MAX,
    CLASS_CHARS_MAX,
    CODE_CHUNK_BYTES_MAX,
    HOLDERS_MAX,
    HOPS_MAX,
    ITEMS_MAX,
    MESSAGE_BYTES_MAX,
    NAME_CHARS_MAX,
    NESTING_MAX,
    NOTICES_MAX,
    NUMBER_MAX,
    PARCEL_BYTES,
    PART_BYTES,
    PASSED_ON_BYTES,
    SNAPSHOT_BYTES_MAX,
)
from atoll.env.nesting import are_shallow
from atoll.env.parties import PARTY_BYTES
from atoll.env.records import CODE_BYTES, Item

__all__ = [
    "AGE_UNSAID",
    "FORGOTTEN",
    "Answered",
    "Asked",
    "Carried",
    "CodeGiven",
    "CodeWanted",
    "HeadTold",
    "Letter",
    "Message",
    "Notice",
    "Notices",
    "Receipt",
    "Refusal",
    "Routed",
    "StateGiven",
    "StateOffered",
    "StateWanted",
    "TooDeepError",
    "count_items",
    "decode_message",
    "encode_message",
    "join_items",
    "parcels_of",
    "split_items",
]

Party = Annotated[bytes, msgspec.Meta(min_length=PARTY_BYTES, max_length=PARTY_BYTES)]
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Number = Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)]
Epoch = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
ItemNumber = Annotated[int, msgspec.Meta(ge=1, le=1 << 62)]  # So that those behind it are numbers, too.
Node = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
Code = Annotated[bytes, msgspec.Meta(min_length=CODE_BYTES, max_length=CODE_BYTES)]
Hops = Annotated[int, msgspec.Meta(ge=0, le=HOPS_MAX)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS_MAX)]
ClassName = Annotated[str, msgspec.Meta(max_length=CLASS_CHARS_MAX)]


FORGOTTEN: Final = "forgotten"

AGE_UNSAID: Final = (1 << 62) + 1
"""Age of what another one passes on that has waited there: who has sent it knows, and says it again."""


class Carried(Tuple, frozen=True, tag=64):
    """Items from a party to a party.

    Attributes:
        source: Who sends.
        target: Who is to take them.
        first: Number of the first one in their channel.
        items: Encoded list of at most ITEMS_MAX ``Item``.
        hops: Nodes that have passed it on, which they do while the target changes hands.
        settled: No item up to this number is on its way any more: the target has it, or it was given up.
        age_ns: How long ago the items were made.
    """

    source: Party
    target: Party
    first: ItemNumber
    items: Annotated[bytes, msgspec.Meta(max_length=CARRIED_BYTES_MAX)]
    hops: Hops = 0
    settled: Count = 0
    age_ns: Count = 0


class Receipt(Tuple, frozen=True, tag=65):
    """A party has taken items for good. Also how a client says where it is, and that it waits.

    Attributes:
        source: Who has taken them.
        target: Who sent them.
        upto: Number of the last one.
        again: What follows is missing here: send it again now.
        hops: As of ``Carried``.
    """

    source: Party
    target: Party
    upto: Count
    again: bool = False
    hops: Hops = 0


class Refusal(Tuple, frozen=True, tag=66):
    """Items cannot be taken.

    Attributes:
        source: The party that was to take them.
        target: Who sent them.
        code: As of ``changes.Failure``; with TOO_LARGE no copy of it is ever taken. Or FORGOTTEN: the source has
            forgotten the target, and may have taken what begins with ``first``, and all before it.
        text: For people.
        first: Number of the first one: the frame that begins with it was thrown away. Another copy of it may yet be
            taken; of what came before it nothing is said.
        hops: As of ``Carried``.
        age_ns: With FORGOTTEN: so is what is as old as this, or older.
    """

    source: Party
    target: Party
    code: str
    text: str
    first: Count = 0
    hops: Hops = 0
    age_ns: Count = 0


class Notice(msgspec.Struct, frozen=True, array_like=True):
    """Where an environment runs.

    Attributes:
        id: The environment.
        epoch: In which it was so; a higher one counts.
        owner: The node that runs it.
        name: How people call it.
        app: Class of the application.
        code: SHA-256 of its code.
        holders: Nodes that keep its journal.
        ended: It is over.
    """

    id: Party
    epoch: Epoch
    owner: Node
    name: Name
    app: ClassName
    code: Code
    holders: Annotated[tuple[Node, ...], msgspec.Meta(max_length=HOLDERS_MAX)]
    ended: bool = False


class Notices(Tuple, frozen=True, tag=67):
    """What a node knows of its own environments."""

    notices: Annotated[tuple[Notice, ...], msgspec.Meta(max_length=NOTICES_MAX)]


class CodeWanted(Tuple, frozen=True, tag=68):
    """Send me this code."""

    code: Code


class CodeGiven(Tuple, frozen=True, tag=69):
    """Code, whole; the receiver checks its hash."""

    code: Code
    content: Annotated[bytes, msgspec.Meta(max_length=CODE_CHUNK_BYTES_MAX)]


class Asked(Tuple, frozen=True, tag=71):
    """Do something to an environment that runs with you; ``Answered`` answers.

    Attributes:
        number: Of the sender's; it is repeated in the answer.
        verb: What.
        params: Of the verb, as JSON.
    """

    number: Count
    verb: str
    params: Annotated[bytes, msgspec.Meta(max_length=CODE_CHUNK_BYTES_MAX * 2)]


class Answered(Tuple, frozen=True, tag=72):
    """What came of it.

    Attributes:
        number: As asked.
        ok: As JSON; empty: it failed.
        code: Of the error's catalogue; the rest as of a ``UserError``.
    """

    number: Count
    ok: Annotated[bytes, msgspec.Meta(max_length=CARRIED_BYTES_MAX)]
    code: str = ""
    sentence: str = ""
    where: str = ""
    fix: str = ""


class Letter(Tuple, frozen=True, tag=70):
    """Something about who owns an environment; ``content`` is what ``holding.messages.encode`` gives."""

    content: Annotated[bytes, msgspec.Meta(max_length=CARRIED_BYTES_MAX)]


class HeadTold(Tuple, frozen=True, tag=76):
    """How far a journal is that the sender's recorder seals: evidence, should that node show another past later.

    Attributes:
        id: The environment.
        link: What the head of a block is made of that the sender has sealed and that is committed.
        signature: Of its seal.
        sealer: Whose key that is.
    """

    id: Party
    link: Link
    signature: Signature
    sealer: Sealer


class StateOffered(Tuple, frozen=True, tag=73):
    """From the node that runs an environment to those that keep it: there is a snapshot.

    Attributes:
        id: The environment.
        number: Block after which it was taken.
    """

    id: Party
    number: Number


class StateWanted(Tuple, frozen=True, tag=74):
    """Send me a part of that snapshot.

    Attributes:
        id: The environment.
        number: As offered.
        offset: First byte.
    """

    id: Party
    number: Number
    offset: Annotated[int, msgspec.Meta(ge=0, le=SNAPSHOT_BYTES_MAX)]


class StateGiven(Tuple, frozen=True, tag=75):
    """A part of a snapshot. The receiver checks the whole against its own journal.

    Attributes:
        id: The environment.
        number: As wanted.
        offset: As wanted.
        total: Bytes of the whole; 0: it is gone.
        payload: The part.
    """

    id: Party
    number: Number
    offset: Annotated[int, msgspec.Meta(ge=0, le=SNAPSHOT_BYTES_MAX)]
    total: Annotated[int, msgspec.Meta(ge=0, le=SNAPSHOT_BYTES_MAX)]
    payload: Annotated[bytes, msgspec.Meta(max_length=PART_BYTES)] = b""


Routed = Carried | Receipt | Refusal
"""What goes from party to party."""

Message = (
    Carried
    | Receipt
    | Refusal
    | Notices
    | CodeWanted
    | CodeGiven
    | Asked
    | Answered
    | Letter
    | StateOffered
    | StateWanted
    | StateGiven
    | HeadTold
)


class TooDeepError(WireError):
    """What a party says nests deeper than NESTING_MAX."""


class _ExactItem(Item, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One that has nothing behind the fields that are known here, as nearly all do; nor anything that could hold it."""


_codec: Final = Codec[Message](Message, bytes_max=MESSAGE_BYTES_MAX, name="environment message")
_items: Final = msgspec.msgpack.Decoder(Annotated[list[Item], msgspec.Meta(min_length=1, max_length=ITEMS_MAX)])
_exact_items: Final = msgspec.msgpack.Decoder(
    Annotated[list[_ExactItem], msgspec.Meta(min_length=1, max_length=ITEMS_MAX)]
)
_raw_items: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


def encode_message(message: Message) -> bytes:
    """Return the bytes of a message."""
    return _codec.encode(message)


def decode_message(data: bytes) -> Message:
    """Return a message, which can be passed on; total.

    Raises:
        WireError: The bytes are none, or leave no room for the fields with which they would be passed on.
    """
    if len(data) > MESSAGE_BYTES_MAX - PASSED_ON_BYTES:
        raise WireError("environment message too long")
    return _codec.decode(data)


def split_items(items: bytes) -> list[bytes]:
    """Return each item of what ``count_items`` has counted, encoded."""
    return [msgspec.msgpack.encode(item) for item in _items.decode(items)]


def join_items(items: tuple[bytes, ...]) -> msgspec.Raw:
    """Return the list of such items."""
    return msgspec.Raw(msgspec.msgpack.encode([msgspec.Raw(item) for item in items]))


def parcels_of(first: int, count: int, items: bytes) -> list[tuple[int, int, bytes]]:
    """Return items as parcels that a message holds: number of the first one, how many, and their list.

    Args:
        first: Number of the first item.
        count: How many there are.
        items: Encoded list of them.
    """
    if count <= ITEMS_MAX and len(items) <= PARCEL_BYTES:
        return [(first, count, items)]
    parcels: list[tuple[int, int, bytes]] = []
    batch: list[msgspec.Raw] = []
    size = 0
    for item in _raw_items.decode(items):
        bytes_ = len(memoryview(item))
        if batch and (len(batch) == ITEMS_MAX or size + bytes_ > PARCEL_BYTES):
            parcels.append((first, len(batch), msgspec.msgpack.encode(batch)))
            first, batch, size = first + len(batch), [], 0
        batch.append(item)
        size += bytes_
    parcels.append((first, len(batch), msgspec.msgpack.encode(batch)))
    return parcels


def count_items(items: bytes) -> int:
    """Return how many items a party has sent, at least 1; they can be read at any place of any stack then.

    Raises:
        TooDeepError: One of them nests deeper than may be.
        WireError: It is no list of items, or too long a one.
    """
    try:
        exact = _exact_items.decode(items)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _count_longer(items)
    events = [item.event for item in exact]
    # Only events can nest, and what is that short cannot: 0.03 us for each, where a look at its bytes takes 0.2 us.
    if max(map(len, events)) > NESTING_MAX and not are_shallow(events):
        raise TooDeepError("items too deep")
    return len(exact)


def _count_longer(items: bytes) -> int:
    """Count items of which some have fields that this version does not know, in which anything may be; or refuse."""
    try:
        count = len(_items.decode(items))
        is_shallow = are_shallow(_raw_items.decode(items), NESTING_MAX + 1)
    except RecursionError as error:
        raise TooDeepError("items too deep") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError("items") from error
    if not is_shallow:
        raise TooDeepError("items too deep")
    return count
