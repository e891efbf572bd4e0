# SPDX-License-Identifier: Apache-2.0
"""What the journal of an environment is as bytes, and who can prove what of it. Pure: the recorder moves the bytes.

A journal is a row of *blocks*. Each block's head is a hash over the block and the head before it, and the head is
signed (*sealed*) by the recorder that wrote the block: so no block can be changed, left out or put in by anybody who
does not hold that key, the environment's own programs included. On disk a journal is a row of *segments*; each begins
with a manifest that says where in the chain it stands and who wrote it. Normative text:
docs/spec/environment-journal.md.

Rules of this file:

* Reading is total: any bytes give whole frames, a torn tail, or a ``CorruptError`` that names the offset. Frames are
  those of ``core.journal``: no single changed byte can pass for a torn tail.
* Frames say that bytes are what was written; only ``Verifier`` says that they are what was *sealed*. Whoever replays
  may leave signatures out: the chain is checked all the same, and one seal at its end covers all of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from struct import Struct
from typing import Annotated, Final, final
from zlib import crc32

import msgspec
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from atoll.base.errors import CorruptError, UsageError, UserError, WireError
from atoll.base.ids import KEY_BYTES, NODE_ID_BYTES
from atoll.core.codec import Codec
from atoll.env.limits import BLOCK_FRAME_BYTES_MAX, NAME_CHARS_MAX, RECORDS_BYTES_MAX

__all__ = [
    "BODY_BYTES_MAX",
    "FORMAT",
    "GENESIS",
    "HEAD_BYTES",
    "ID_BYTES",
    "MAGIC",
    "SIGNATURE_BYTES",
    "Block",
    "ChainError",
    "Fault",
    "Frame",
    "From0",
    "From1",
    "Head",
    "Id",
    "Key",
    "Link",
    "Manifest",
    "Node",
    "Position",
    "Seal",
    "Sealed",
    "Sealer",
    "Signature",
    "TornTail",
    "Verifier",
    "certificate_payload",
    "encode_frame",
    "is_certified",
    "link_of",
    "manifest_payload",
    "pack_body",
    "position_after",
    "read",
    "read_frames",
    "seal_payload",
    "segment_start",
    "signed_by",
    "unpack_body",
]

# Constants of docs/spec/environment-journal.md.
MAGIC: Final = b"\x89ATB\r\n\x1a\n"
FORMAT: Final = 1
ID_BYTES: Final = 16
HEAD_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
BODY_BYTES_MAX: Final = RECORDS_BYTES_MAX + 1
_CHAIN: Final = b"atoll-chain-1"
_SEAL: Final = b"atoll-seal-1"
_CERTIFICATE: Final = b"atoll-recorder-1"
_MANIFEST: Final = b"atoll-manifest-1"
_NUMBERS: Final = Struct("<QQQI")
_FRAME: Final = Struct("<II")  # Length in 24 bits with its check byte; CRC-32 of place and content.
_TORN_ZEROS: Final = 16  # Each frame ends with a signature, so it never ends in so many zeros by itself.
_RAW, _ZSTD = b"\0", b"\1"  # First byte of a body.
_LEVEL: Final = 1
_COMPRESSED_BYTES_MIN: Final = 128  # Below this compression costs more time than it saves bytes.

Id = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
Node = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Head = Annotated[bytes, msgspec.Meta(min_length=HEAD_BYTES, max_length=HEAD_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
From0 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
From1 = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where in its chain a journal stands: what the next block must follow.

    Attributes:
        number: Number of the last block; 0: none yet.
        epoch: Epoch of the last block; 0: none yet.
        events: Number of the last event.
        head: Head of the last block, 32 bytes; zeros: none yet.
    """

    number: From0
    epoch: From0
    events: From0
    head: Head


GENESIS: Final = Position(0, 0, 0, bytes(HEAD_BYTES))


class Block(msgspec.Struct, frozen=True, array_like=True):
    """What was applied between two seals.

    Attributes:
        number: From 1, rising by 1.
        epoch: From 1, never falling: whose turn it was to write.
        first_event: Number of the first event in it, from 1.
        events: How many, 0 for a block of records that are no events (a confirmation, a change of holders).
        body: Their records, as ``pack_body`` gives them.
    """

    number: From1
    epoch: From1
    first_event: From1
    events: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
    body: Annotated[bytes, msgspec.Meta(min_length=1, max_length=BODY_BYTES_MAX)]


class Link(msgspec.Struct, frozen=True, array_like=True):
    """What a head is made of: shows which block it is the head of, without the block.

    A seal signs a head alone, so whoever is told a number together with a head would have to believe it.

    Attributes:
        before: Head of the block before, 32 bytes.
        number: Of the block.
        epoch: Of the block.
        first_event: Of the block.
        events: Of the block.
        body: SHA-256 of its body as it is stored, 32 bytes.
    """

    before: Head
    number: From1
    epoch: From1
    first_event: From1
    events: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
    body: Head

    @property
    def head(self) -> bytes:
        """Head of the chain with this block, 32 bytes."""
        numbers = _NUMBERS.pack(self.number, self.epoch, self.first_event, self.events)
        return sha256(b"".join((_CHAIN, self.before, numbers, self.body))).digest()


class Seal(msgspec.Struct, frozen=True, array_like=True):
    """What makes a block final.

    Attributes:
        head: Head of the chain with this block, 32 bytes.
        signature: The recorder's, over ``seal_payload``, 64 bytes.
    """

    head: Head
    signature: Signature


class Sealer(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Whose key seals the blocks that follow.

    Attributes:
        node: Id of the node whose recorder it is, 10 bytes.
        recorder: The recorder's Ed25519 key, 32 bytes.
        signing_key: The node's Ed25519 key, 32 bytes; the group's roster says whether it is that node's.
        certificate: Signature by the node's key over ``certificate_payload``, 64 bytes.
    """

    node: Node
    recorder: Key
    signing_key: Key
    certificate: Signature


class Manifest(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first frame of each segment: whose journal it is, where in the chain it stands and who wrote it.

    Attributes:
        format: Version of the journal's form, ``FORMAT``; always the first item.
        environment: Its id, 16 bytes.
        name: What people call it.
        product: Version of the program that wrote the segment.
        at: What the first block of the segment follows.
        sealer: Who wrote the segment; blocks are sealed by it until a ``Sealer`` frame names another.
        signature: The sealer's, over ``manifest_payload``, 64 bytes.
    """

    format: int
    environment: Id
    name: Annotated[str, msgspec.Meta(max_length=NAME_CHARS_MAX)]
    product: Annotated[str, msgspec.Meta(max_length=64)]
    at: Position
    sealer: Sealer
    signature: Signature


class Sealed(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A block and its seal."""

    block: Block
    seal: Seal


class _Format(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first item of any manifest, whatever follows it in later formats."""

    format: int


_codec: Final = Codec[Manifest | Sealer | Sealed](
    Manifest | Sealer | Sealed, bytes_max=BLOCK_FRAME_BYTES_MAX, name="journal frame"
)
_format_codec: Final = Codec[_Format](_Format, bytes_max=BLOCK_FRAME_BYTES_MAX, name="journal manifest")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as read.

    Attributes:
        item: What is in it.
        offset: Where it begins; of a manifest, its magic.
        end: Where the next one begins.
    """

    item: Manifest | Sealer | Sealed
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class TornTail:
    """The bytes end inside a frame, or in zeros: the writer was stopped. Always the last item.

    Attributes:
        offset: End of the last whole frame.
    """

    offset: int


class Fault(StrEnum):
    """What of a journal does not check."""

    CHAIN = "chain"  # A head or a place in the chain is not what follows from what came before.
    NUMBER = "number"  # A block or an event is missing, or there twice.
    EPOCH = "epoch"  # Written by somebody whose turn was over.
    SIGNATURE = "signature"  # Not sealed by the key that is named.
    CERTIFICATE = "certificate"  # The key that is named is not that of a recorder of a known node.


@final
class ChainError(CorruptError):
    """A journal that reads well and is not what was sealed.

    Args:
        fault: What does not check.
        block: Number of the block, or of the next one where a manifest or a sealer does not check.
        place: Where it was found, such as an offset; empty: it came from elsewhere.
    """

    def __init__(self, fault: Fault, block: int, place: str = "") -> None:
        super().__init__(fault, block, place)
        self.fault: Final = fault
        self.block: Final = block
        self.place: Final = place

    def __str__(self) -> str:
        sentence = f"block {self.block}: its {self.fault} does not check"
        return f"{self.place}, {sentence}" if self.place else sentence


def pack_body(records: bytes) -> bytes:
    """Return the body of a block with these records: compressed, unless that makes it larger.

    Raises:
        UsageError: More than RECORDS_BYTES_MAX bytes.
    """
    if len(records) > RECORDS_BYTES_MAX:
        raise UsageError(f"a block of {len(records)} bytes, at most {RECORDS_BYTES_MAX}")
    if len(records) >= _COMPRESSED_BYTES_MIN:
        # One for each call: it may be used by one thread at a time only, and costs 10 us.
        packed = zstandard.ZstdCompressor(level=_LEVEL).compress(records)
        if len(packed) < len(records):
            return _ZSTD + packed
    return _RAW + records


def unpack_body(body: bytes) -> bytes:
    """Return the records of a block.

    Raises:
        CorruptError: They are not what ``pack_body`` gives, or more than RECORDS_BYTES_MAX bytes. Nothing is allocated
            for more.
    """
    kind, packed = body[:1], body[1:]
    if kind == _RAW and len(packed) <= RECORDS_BYTES_MAX:
        return packed
    if kind != _ZSTD:
        raise CorruptError(f"a body of {len(body)} bytes that is not one")
    try:
        # What the header announces is allocated at once, so it is judged first.
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= RECORDS_BYTES_MAX:
            raise CorruptError(f"a body of {size} bytes when unpacked, at most {RECORDS_BYTES_MAX}")
        return zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError, MemoryError) as error:
        raise CorruptError("a body that does not unpack") from error


def position_after(before: Position, block: Block) -> Position:
    """Return where a journal stands with one block more.

    Raises:
        ChainError: The block does not follow: NUMBER or EPOCH.
    """
    if block.number != before.number + 1 or block.first_event != before.events + 1:
        raise ChainError(Fault.NUMBER, block.number)
    if block.epoch < before.epoch:
        raise ChainError(Fault.EPOCH, block.number)
    return Position(block.number, block.epoch, before.events + block.events, link_of(before.head, block).head)


def link_of(before: bytes, block: Block) -> Link:
    """Return what the head of a block is made of.

    Args:
        before: Head of the block before it, 32 bytes.
        block: The block.
    """
    return Link(before, block.number, block.epoch, block.first_event, block.events, sha256(block.body).digest())


def seal_payload(environment: bytes, head: bytes) -> bytes:
    """Return what a seal signs."""
    return _SEAL + environment + head


def certificate_payload(node: bytes, recorder: bytes) -> bytes:
    """Return what a node's signing key signs to say that this is its recorder's key."""
    return _CERTIFICATE + node + recorder


def is_certified(sealer: Sealer) -> bool:
    """Tell whether a sealer's certificate was made by its signing key. Whose key that is, a roster says."""
    return signed_by(sealer.signing_key, certificate_payload(sealer.node, sealer.recorder), sealer.certificate)


def manifest_payload(manifest: Manifest) -> bytes:
    """Return what a manifest's signature signs: all of it, with zeros in that place."""
    return _MANIFEST + _codec.encode(msgspec.structs.replace(manifest, signature=bytes(SIGNATURE_BYTES)))


def signed_by(key: bytes, payload: bytes, signature: bytes) -> bool:
    """Tell whether this Ed25519 key signed these bytes. Never raises, whatever the key and the signature."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def encode_frame(item: Manifest | Sealer | Sealed, number: int) -> bytes:
    """Return one frame.

    Args:
        item: What is in it.
        number: The frame's place: the block's own number; of a sealer, that of the next block; of a manifest, 0.

    Raises:
        UsageError: It is longer than BLOCK_FRAME_BYTES_MAX.
    """
    content = _codec.encode(item)
    size = len(content)
    check = (size ^ size >> 8 ^ size >> 16 ^ 0x5A) & 0xFF
    return _FRAME.pack(size | check << 24, crc32(content, number & 0xFFFF_FFFF)) + content


def segment_start(manifest: Manifest) -> bytes:
    """Return the bytes that a segment begins with."""
    return MAGIC + encode_frame(manifest, 0)


def read(data: bytes) -> Iterator[Frame | TornTail]:
    """Read one segment, frame by frame. The first frame, if there is one, holds a ``Manifest``; no other does.

    Raises:
        CorruptError: Bytes that were not written so, with their offset. What came before is good.
        UserError: A301, a journal of another format.
    """
    if not data:
        return
    magic = data[: len(MAGIC)]
    if magic != MAGIC:
        if MAGIC.startswith(magic) or _zeros_from(data, 0):
            yield TornTail(0)
            return
        raise CorruptError("offset 0: no segment of an environment's journal begins here")
    content = _content_at(data, len(MAGIC), 0, 0)
    if content is None:
        yield TornTail(0)
        return
    manifest = _manifest_of(content)
    end = len(MAGIC) + _FRAME.size + len(content)
    yield Frame(manifest, 0, end)
    yield from read_frames(data[end:], manifest.at.number + 1, end)


def read_frames(data: bytes, number: int, base: int) -> Iterator[Frame | TornTail]:
    """Read from the middle of a segment.

    Args:
        data: Bytes of it, from the beginning of a frame.
        number: Number of the next block.
        base: Offset of ``data`` in the segment; offsets of what is returned count from the segment's begin.

    Raises:
        CorruptError: As ``read``.
    """
    offset = 0
    while offset < len(data):
        content = _content_at(data, offset, number, base)
        if content is None:
            yield TornTail(base + offset)
            return
        try:
            item = _codec.decode(content)
        except WireError as error:
            raise CorruptError(f"offset {base + offset}: {error.reason}") from error
        if isinstance(item, Manifest):
            raise CorruptError(f"offset {base + offset}: a second manifest")
        if isinstance(item, Sealed):
            if item.block.number != number:
                raise CorruptError(f"offset {base + offset}: block {item.block.number} in the place of {number}")
            number += 1
        end = offset + _FRAME.size + len(content)
        yield Frame(item, base + offset, base + end)
        offset = end


@final
class Verifier:
    """Checks that a journal is what was sealed: fed frame by frame, over as many segments as there are.

    Args:
        environment: Whose journal it must be; None: whose the first manifest says.
        position: Where it must begin; None: where the first manifest says.
        signatures: Whether seals and certificates are checked. Without, the chain is; then ``check_last`` checks one
            seal, which covers every block before it.
        trusts: Asked for each sealer whether its signing key is that of its node, such as from a roster; None: any is.
    """

    def __init__(
        self,
        environment: bytes | None = None,
        *,
        position: Position | None = None,
        signatures: bool = True,
        trusts: Callable[[Sealer], bool] | None = None,
    ) -> None:
        self._signatures: Final = signatures
        self._trusts: Final = trusts
        self._last: Seal | None = None
        self.environment = environment  # Whose journal it is, as soon as known.
        self.position = position  # Where it stands, as soon as known.
        self.manifest: Manifest | None = None  # The newest one.
        self.sealer: Sealer | None = None  # Who sealed what comes next.

    def feed(self, item: Manifest | Sealer | Sealed, place: str = "") -> None:
        """Take the next item.

        Args:
            item: As read, in order.
            place: Where it was found, for the error.

        Raises:
            ChainError: It is not what was sealed.
        """
        match item:
            case Manifest():
                self._begin(item, place)
            case Sealer():
                self._change(item, place)
            case _:
                self._extend(item, place)

    def check_last(self, place: str = "") -> None:
        """Check the last block's seal. Without a block, nothing.

        Raises:
            ChainError: It was not made by the sealer that is named.
        """
        if self._last is not None:
            assert self.position is not None, "a block was fed"
            self._check_seal(self._last, self.position.number, place)

    def _begin(self, manifest: Manifest, place: str) -> None:
        number = manifest.at.number + 1
        if self.environment not in (None, manifest.environment):
            raise ChainError(Fault.CHAIN, number, place)
        if self.position is not None and manifest.at != self.position:
            fault = Fault.NUMBER if manifest.at.number != self.position.number else Fault.CHAIN
            raise ChainError(fault, number, place)
        self.environment, self.position, self.manifest = manifest.environment, manifest.at, manifest
        self._change(manifest.sealer, place)
        if self._signatures and not signed_by(manifest.sealer.recorder, manifest_payload(manifest), manifest.signature):
            raise ChainError(Fault.SIGNATURE, number, place)

    def _change(self, sealer: Sealer, place: str) -> None:
        if sealer == self.sealer:
            return
        if self._signatures and not (is_certified(sealer) and (self._trusts is None or self._trusts(sealer))):
            number = 1 if self.position is None else self.position.number + 1
            raise ChainError(Fault.CERTIFICATE, number, place)
        self.sealer = sealer

    def _extend(self, sealed: Sealed, place: str) -> None:
        block, seal = sealed.block, sealed.seal
        if self.environment is None or self.position is None or self.sealer is None:
            raise UsageError("a block before a manifest, or before an environment, a position and a sealer")
        try:
            after = position_after(self.position, block)
        except ChainError as error:
            raise ChainError(error.fault, block.number, place) from error
        if after.head != seal.head:
            raise ChainError(Fault.CHAIN, block.number, place)
        if self._signatures:
            self._check_seal(seal, block.number, place)
        self.position, self._last = after, seal

    def _check_seal(self, seal: Seal, number: int, place: str) -> None:
        assert self.environment is not None, "a block was fed"
        assert self.sealer is not None, "a block was fed"
        if not signed_by(self.sealer.recorder, seal_payload(self.environment, seal.head), seal.signature):
            raise ChainError(Fault.SIGNATURE, number, place)


def _manifest_of(content: bytes) -> Manifest:
    try:
        found = _format_codec.decode(content).format
        if found != FORMAT:
            raise UserError(
                "A301",
                f"this journal has format {found}, and this atoll reads format {FORMAT}",
                where=f"offset {len(MAGIC)}",
                fix="replay it with the atoll version that recorded it",
            )
        item = _codec.decode(content)
    except WireError as error:
        raise CorruptError(f"offset {len(MAGIC)}: {error.reason}") from error
    assert isinstance(item, Manifest), "its tag was checked with its format"
    return item


def _content_at(data: bytes, offset: int, number: int, base: int) -> bytes | None:
    """Return the content of the frame at an offset; None when the bytes end inside it or are zeros to the end."""
    begin = offset + _FRAME.size
    if begin > len(data):
        return None
    word, checksum = _FRAME.unpack_from(data, offset)
    size = word & 0xFF_FFFF
    check = (size ^ size >> 8 ^ size >> 16 ^ 0x5A) & 0xFF
    if word >> 24 != check or not 1 <= size <= BLOCK_FRAME_BYTES_MAX:
        if _zeros_from(data, offset):
            return None
        raise CorruptError(f"offset {base + offset}: a length that does not check")
    end = begin + size
    if end > len(data):
        return None
    content = data[begin:end]
    if crc32(content, number & 0xFFFF_FFFF) != checksum:
        # A file system may have made the file longer before it wrote the end of what was to be in it.
        if size > _TORN_ZEROS and _zeros_from(data, end - _TORN_ZEROS):
            return None
        raise CorruptError(f"offset {base + offset}: content that does not check (block {number})")
    return content


def _zeros_from(data: bytes, offset: int) -> bool:
    return not data[offset:].strip(b"\0")
