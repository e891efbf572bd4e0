# SPDX-License-Identifier: Apache-2.0
"""What the recorder and its users say to each other: requests with a number, and one answer to each under that number.

On the stream between them a message is its length, 4 bytes, and one MessagePack tuple. Decoding is total and raises
only ``WireError``, in both directions: either process may be the one that went mad. No request changes or removes a
sealed block before its retention; ``Cut``, ``Restart`` and ``Forget`` move blocks aside and keep them.
"""

from enum import StrEnum
from typing import Annotated, Final, final

import msgspec

from atoll.base.errors import ProjectError, WireError
from atoll.base.ids import NODE_ID_BYTES
from atoll.core.codec import Codec
from atoll.core.machine import Tuple
from atoll.domain.limits import (
    CODE_BYTES_MAX,
    KEPT_SNAPSHOT_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    READ_BYTES_MAX,
)
from atoll.env.chain import (
    GENESIS,
    HEAD_BYTES,
    Block,
    From0,
    From1,
    Head,
    Id,
    Key,
    Link,
    Node,
    Position,
    Seal,
    Sealed,
    Sealer,
    Signature,
)
from atoll.env.limits import NAME_CHARS_MAX

__all__ = [
    "Answer",
    "Append",
    "Appended",
    "Ask",
    "Blocks",
    "Certify",
    "Code",
    "Content",
    "Create",
    "Cut",
    "Done",
    "Forget",
    "Greeting",
    "Inbox",
    "Keep",
    "KeepCode",
    "KeepHead",
    "KeepSnapshot",
    "Kept",
    "KeptHead",
    "List",
    "Listed",
    "Promise",
    "Read",
    "ReadCode",
    "ReadSnapshot",
    "Recorded",
    "Refused",
    "RefusedError",
    "Request",
    "Restart",
    "Retain",
    "Retained",
    "Snapshot",
    "Starting",
    "Taken",
    "decode_answer",
    "decode_request",
    "encode_answer",
    "encode_request",
]

LENGTH_BYTES: Final = 4
WORDS_CHARS_MAX: Final = 500  # Limit. A sentence with a path in it.

RequestId = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Digest = Annotated[bytes, msgspec.Meta(min_length=HEAD_BYTES, max_length=HEAD_BYTES)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS_MAX)]


@final
class Code(StrEnum):
    """Why a request is refused. Stable: programs decide by it."""

    FULL = "full"  # The disk has no room, or a quota is used up.
    IO = "io"  # The disk refused for another reason.
    NUMBER = "number"  # Not the number that comes next, or none that is kept.
    EPOCH = "epoch"  # Below what was promised, or promised to another node.
    CHAIN = "chain"  # A head that does not follow.
    SIGNATURE = "signature"  # A seal or a certificate that does not check, or this recorder has no certificate yet.
    UNKNOWN = "unknown"  # No such environment, snapshot or code.
    EXISTS = "exists"
    LIMIT = "limit"  # A named limit; the words say which.
    CORRUPT = "corrupt"  # What is on disk is not what was written; the words say where.
    DIGEST = "digest"  # Content that has another digest than was said.


class RefusedError(ProjectError):
    """The recorder refused a request; nothing was changed.

    Args:
        code: Why, for programs.
        words: Why, for people.
    """

    def __init__(self, code: Code, words: str) -> None:
        super().__init__(code, words)
        self.code: Final = code
        self.words: Final = words

    def __str__(self) -> str:
        return f"{self.code}: {self.words}"


class Ask(Tuple, frozen=True):
    """Base of all requests. ``id`` is the asker's own number for it."""

    id: RequestId


class Certify(Ask, frozen=True):
    """Control only: whose recorder this is. The certificate is of the key in ``Greeting``; see ``env.chain.Sealer``."""

    node: Node
    signing_key: Key
    certificate: Signature


class List(Ask, frozen=True):
    """Tell of all environments; ``Listed`` answers."""


class Create(Ask, frozen=True):
    """Begin a journal; ``Done`` answers.

    Attributes:
        environment: Its id; known already: ``exists``.
        name: What people call it.
        at: What the first block follows: where a snapshot stands that is kept next. For a journal that is here already,
            and for one of which nothing may be lost in between, there is ``Restart``.
    """

    environment: Id
    name: Name
    at: Position = GENESIS


class Append(Ask, frozen=True):
    """Seal a block with this recorder's key and keep it; ``Appended`` answers when it is durable."""

    environment: Id
    block: Block


class Keep(Ask, frozen=True):
    """Keep a block that another node's recorder sealed; ``Kept`` answers when it is durable.

    Chain, seal and certificate are checked here; that the signing key is that node's, the asker knows from the roster.
    """

    environment: Id
    sealer: Sealer
    block: Block
    seal: Seal


class Cut(Ask, frozen=True):
    """Take the blocks from this number on out of the journal, into a file of their own; ``Done`` answers."""

    environment: Id
    number: From1


class Promise(Ask, frozen=True):
    """Seal no block of an earlier epoch, and promise this one to no other node; ``Done`` answers when durable.

    Refused as ``epoch``: an epoch below the one that was promised or has begun, and one that is another node's.

    Attributes:
        environment: Its id.
        epoch: From now on.
        node: Whose it is; empty: nobody's yet, and it can be promised once more.
    """

    environment: Id
    epoch: From1
    node: Annotated[bytes, msgspec.Meta(max_length=NODE_ID_BYTES)] = b""


class KeepSnapshot(Ask, frozen=True):
    """Keep the state after block ``number``; ``Done`` answers when it is durable."""

    environment: Id
    number: From0
    content: Annotated[bytes, msgspec.Meta(max_length=KEPT_SNAPSHOT_BYTES_MAX)]


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """A state that a recorder signed, as ``Snapshot`` gives it.

    Attributes:
        content: The state.
        sealer: Whose recorder signed it.
        signature: By which, over the head of the block after which it was taken as well.
    """

    content: Annotated[bytes, msgspec.Meta(max_length=KEPT_SNAPSHOT_BYTES_MAX)]
    sealer: Sealer
    signature: Signature


class Restart(Ask, frozen=True):
    """Let a journal begin anew, in one step; ``Done`` answers. What there was is put aside; what was promised stays.

    Signature and certificate are checked here; that the signing key is that node's, the asker knows from the roster.
    Without a snapshot nobody can go on from what there was: when that is refused it is done before the next block.

    Attributes:
        environment: Its id.
        at: What the first block follows from now on: where the snapshot stands. Without one, GENESIS.
        floor: Epoch and number of a block that the journal had, to be remembered; a lower one than before changes
            nothing.
        snapshot: The state after that block, which is signed anew; None: there is none.
    """

    environment: Id
    at: Position = GENESIS
    floor: tuple[From0, From0] = (0, 0)
    snapshot: Taken | None = None


class ReadSnapshot(Ask, frozen=True):
    """Give back a state; ``Snapshot`` answers.

    Attributes:
        environment: Its id.
        number: Block after which it was taken.
        upto: The newest will do that was not taken later.
    """

    environment: Id
    number: From0
    upto: bool = False


class Read(Ask, frozen=True):
    """Give back blocks from ``number`` on; ``Blocks`` answers.

    About ``bytes_max`` bytes of them and at most ``blocks_max``, but at least one.
    """

    environment: Id
    number: From1
    bytes_max: Annotated[int, msgspec.Meta(ge=1, le=READ_BYTES_MAX)] = READ_BYTES_MAX
    blocks_max: From1 = (1 << 63) - 1


class KeepCode(Ask, frozen=True):
    """Keep an archive of code under its SHA-256; ``Done`` answers. Kept already: nothing."""

    digest: Digest
    content: Annotated[bytes, msgspec.Meta(max_length=CODE_BYTES_MAX)]


class ReadCode(Ask, frozen=True):
    """Give back an archive of code; ``Content`` answers."""

    digest: Digest


class KeptHead(msgspec.Struct, frozen=True, array_like=True):
    """How far a journal is that another node keeps: evidence, should that node show another past later.

    Attributes:
        environment: Whose journal.
        link: What the head of a block is made of.
        signature: Of its seal; the asker has checked it.
    """

    environment: Id
    link: Link
    signature: Signature


class KeepHead(Ask, frozen=True):
    """Keep the head of a journal that node ``node`` showed; ``Done`` answers when it is durable."""

    node: Node
    kept: KeptHead


class Forget(Ask, frozen=True):
    """Let go of an environment: it is not listed any more; ``Done`` answers.

    Attributes:
        environment: Its id.
        ended: It has come to its end: its files are put aside under ``ended``, and ``List`` says so from now on. Else
            it must be one of which nothing was ever kept, and its files are deleted.
    """

    environment: Id
    ended: bool = True


class Retain(Ask, frozen=True):
    """Let go of what is not needed to replay the blocks from ``number`` on; ``Retained`` answers.

    Attributes:
        environment: Its id.
        number: Of the block.
        bytes_min: So many bytes of the newest blocks stay as well.
    """

    environment: Id
    number: From1
    bytes_min: From0 = 0


Request = (
    Append
    | Keep
    | List
    | Create
    | Cut
    | Promise
    | Restart
    | KeepSnapshot
    | ReadSnapshot
    | Read
    | KeepCode
    | ReadCode
    | KeepHead
    | Forget
    | Retain
    | Certify
)


class Starting(Tuple, frozen=True):
    """To control, before the greeting: what is kept is being checked, which takes longer the more there is.

    Attributes:
        checked: Journals that were checked so far.
    """

    checked: From0


class Greeting(Tuple, frozen=True):
    """The first message on each connection, but for ``Starting`` on control's.

    Attributes:
        recorder: The recorder's Ed25519 key.
        product: Version of the program.
        sealer: What it seals as; None: it has no certificate yet, and refuses to seal.
    """

    recorder: Key
    product: str
    sealer: Sealer | None = None


class Done(Tuple, frozen=True):
    """It was done, and is durable."""

    id: RequestId


class Recorded(msgspec.Struct, frozen=True, array_like=True):
    """One environment as its files say.

    Attributes:
        environment: Its id.
        name: What people call it.
        first: Number of the first block that is kept; one above the last when there is none.
        at: Where the journal stands.
        promised_epoch: The epoch promised last; 0: none.
        promised_to: The node that it was promised to; empty: none.
        snapshots: Numbers of the blocks after which there is a snapshot, rising.
        damage: What is wrong with its files, with the place; empty: nothing. Then every request for it but ``Forget``
            is refused with ``corrupt``, and of the other fields only the id counts, and the name if there is one.
        floor: Epoch and number of the newest block that was ever here and was put aside by ``Restart``; zeros: none.
    """

    environment: Id
    name: str
    first: From1
    at: Position
    promised_epoch: From0 = 0
    promised_to: bytes = b""
    snapshots: tuple[From0, ...] = ()
    damage: str = ""
    floor: tuple[From0, From0] = (0, 0)

    @property
    def is_blank(self) -> bool:
        """Whether nothing of it was ever kept, but perhaps a promise."""
        return not (self.damage or self.at.number or self.snapshots or any(self.floor))


class Listed(Tuple, frozen=True):
    """All environments, by id.

    Attributes:
        id: Of the request.
        environments: Those that are kept.
        ended: Ids of those that have come to their end, the newest ENDED_MAX, oldest first.
    """

    id: RequestId
    environments: tuple[Recorded, ...]
    ended: tuple[Id, ...] = ()


class Appended(Tuple, frozen=True):
    """The block is sealed and durable.

    Attributes:
        id: Of the request.
        number: Of the block.
        seal: Its seal.
        before: Head of the block before it.
    """

    id: RequestId
    number: From1
    seal: Seal
    before: Head


class Kept(Tuple, frozen=True):
    """The block of another node is durable here."""

    id: RequestId
    number: From1


class Snapshot(Tuple, frozen=True):
    """A state, checked against what was written, and where the journal stood then.

    Attributes:
        id: Of the request.
        number: Of the block after which it was taken.
        head: Of that block.
        content: The state.
        epoch: Of that block.
        events: Number of its last event.
        sealer: Whose recorder signed the state; None only where no recorder did.
        signature: By which.
    """

    id: RequestId
    number: From0
    head: Head
    content: bytes
    epoch: From0 = 0
    events: From0 = 0
    sealer: Sealer | None = None
    signature: bytes = b""

    @property
    def at(self) -> Position:
        """Where the journal stands after that block."""
        return Position(self.number, self.epoch, self.events, self.head)


class Blocks(Tuple, frozen=True):
    """Blocks in order, each row of one sealer's behind its ``Sealer``; nothing: there are none yet."""

    id: RequestId
    items: tuple[Sealer | Sealed, ...]


class Content(Tuple, frozen=True):
    """An archive of code, checked against its digest."""

    id: RequestId
    content: bytes


class Retained(Tuple, frozen=True):
    """What is kept now.

    Attributes:
        id: Of the request.
        first: Number of the first block.
        base: Block after which the oldest snapshot stands from which the blocks can be replayed; 0: they go back to
            the beginning.
    """

    id: RequestId
    first: From1
    base: From0 = 0


class Refused(Tuple, frozen=True):
    """It was not done, and nothing was changed.

    Attributes:
        id: Of the request.
        code: Why, for programs.
        words: Why, for people.
    """

    id: RequestId
    code: Code
    words: str

    @staticmethod
    def of(request: int, error: RefusedError) -> "Refused":
        """Return the answer to a request that failed so."""
        return Refused(request, error.code, error.words[:WORDS_CHARS_MAX])


Answer = Starting | Greeting | Done | Appended | Kept | Refused | Listed | Snapshot | Blocks | Content | Retained

_requests: Final = Codec[Request](Request, bytes_max=MESSAGE_BYTES_MAX, name="recorder request")
_answers: Final = Codec[Answer](Answer, bytes_max=MESSAGE_BYTES_MAX, name="recorder answer")


def encode_request(request: Request) -> bytes:
    """Return the bytes of a request as they travel, length first.

    Raises:
        UsageError: It does not fit its types, or is too long.
    """
    return _framed(_requests.encode(request))


def encode_answer(answer: Answer) -> bytes:
    """Return the bytes of an answer as they travel, length first. Raises ``UsageError`` like ``encode_request``."""
    return _framed(_answers.encode(answer))


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(LENGTH_BYTES, "little") + content


def decode_request(content: bytes | memoryview) -> Request:
    """Return the request in these bytes, without its length.

    Raises:
        WireError: They are none. Nothing else.
    """
    return _requests.decode(content)


def decode_answer(content: bytes | memoryview) -> Answer:
    """Return the answer in these bytes, without its length.

    Raises:
        WireError: They are none. Nothing else.
    """
    return _answers.decode(content)


@final
class Inbox:
    """Cuts a stream of bytes into messages. At most one whole message and what was added last is held."""

    def __init__(self) -> None:
        self._buffer: Final = bytearray()
        self._at = 0

    def __len__(self) -> int:
        """Bytes that are not taken yet."""
        return len(self._buffer) - self._at

    def add(self, data: bytes | memoryview) -> None:
        """Take in the next bytes, which may be something else afterwards."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer.extend(data)

    def clear(self) -> None:
        """Forget what was not taken."""
        self._buffer.clear()
        self._at = 0

    def take(self) -> bytes | None:
        """Return the content of the next message; None: it is not whole yet.

        Raises:
            WireError: It is longer than MESSAGE_BYTES_MAX. Nothing after it can be read.
        """
        begin = self._at + LENGTH_BYTES
        if begin > len(self._buffer):
            return None
        size = int.from_bytes(self._buffer[self._at : begin], "little")
        if size > MESSAGE_BYTES_MAX:
            raise WireError("recorder message too long")
        if begin + size > len(self._buffer):
            return None
        self._at = begin + size
        return bytes(memoryview(self._buffer)[begin : self._at])
