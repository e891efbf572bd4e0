# SPDX-License-Identifier: Apache-2.0
"""What a machine's past looks like as bytes, and how to record it. Pure: the shell moves the bytes to and from disk.

A journal is a row of *segments*. Each starts with a header and a whole snapshot, so old segments can be dropped and a
replay can start at any of them; then come the records, one for each input: when, what, and a digest of every effect
since the recording began. Normative text: docs/spec/journal.md.

Rules of this file:

* Recording never changes what the machine does and never makes a node stop. What cannot be recorded suspends the
  recording under a named cause; ``resume`` starts a new segment that says it follows a gap.
* Reading is total: any bytes give whole records, a torn tail, or a ``CorruptError`` that names the offset. A tail is
  *torn* when the bytes end inside a frame or are zeros to the end, which is what a crash leaves; anything else that
  does not check is corruption. No single changed byte can pass for a torn tail, because a length carries its own
  check and is believed only after that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from struct import Struct
from typing import Annotated, Final, Generic, TypeVar, final
from zlib import crc32

import msgspec

from atoll.base.errors import CorruptError, UsageError, UserError, WireError
from atoll.core.codec import Codec
from atoll.core.limits import INPUT_BYTES_MAX, PENDING_BYTES_MAX, SEGMENT_BYTES_MAX, SNAPSHOT_BYTES_MAX
from atoll.core.machine import Machine, MachineKind

__all__ = [
    "DIGEST_BYTES",
    "FORMAT",
    "MAGIC",
    "MARK_BYTES",
    "Append",
    "Header",
    "Origin",
    "Provenance",
    "Record",
    "Recorder",
    "SegmentStart",
    "Suspension",
    "TornTail",
    "digest_after",
    "encode_effects",
    "encode_raised",
    "read",
]

In = TypeVar("In")
Out = TypeVar("Out")

# Constants of docs/spec/journal.md.
MAGIC: Final = b"\x89ATJ\r\n\x1a\n"
FORMAT: Final = 1
DIGEST_BYTES: Final = 16
MARK_BYTES: Final = 8  # How much of the digest each record holds: enough against chance, and nobody forges a journal.
_RAISED: Final = b"\xc1"  # Never the first byte of MessagePack: the machine raised, and the exception's name follows.
_HEAD: Final = Struct("<II")  # Length in 24 bits with its check byte; CRC-32 of sequence and content.
_RECORD: Final = Struct(f"<q{MARK_BYTES}s")
_HEADER_BYTES_MAX: Final = 4096
_FRAME_BYTES_MAX: Final = max(SNAPSHOT_BYTES_MAX, INPUT_BYTES_MAX + _RECORD.size)

_encode: Final = msgspec.msgpack.Encoder().encode


class Origin(StrEnum):
    """Why a segment starts."""

    START = "start"  # The first of a run: a new process, a new machine.
    ROLLOVER = "rollover"  # The one before was full; nothing is missing between the two.
    RESUMED = "resumed"  # Recording was suspended; inputs are missing before this segment.


class Header(msgspec.Struct, frozen=True, array_like=True):
    """Who recorded a segment and where it stands.

    Attributes:
        format: Version of the journal's form, ``FORMAT``; always the first item.
        kind: Name of the machine kind.
        version: Version of the machine kind.
        product: Version of the program that recorded.
        node: Name of the node, for people.
        wall_ns: Wall time when the run began, ns since 1970.
        started_ns: The machine's clock at that moment, so that wall time = wall_ns + now_ns - started_ns.
        origin: Why the segment starts.
        sequence: Inputs recorded or missed before this snapshot; the first record is number ``sequence + 1``.
        digest: Digest of all effects of the run so far, 16 bytes; zeros at the start and after a gap.
    """

    format: int
    kind: Annotated[str, msgspec.Meta(max_length=64)]
    version: int
    product: Annotated[str, msgspec.Meta(max_length=64)]
    node: Annotated[str, msgspec.Meta(max_length=256)]
    wall_ns: int
    started_ns: int
    origin: Origin
    sequence: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    digest: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class _Format(msgspec.Struct, frozen=True, array_like=True):
    """The first item of any header, whatever follows it in later formats."""

    format: int


_header_codec: Final = Codec[Header](Header, bytes_max=_HEADER_BYTES_MAX, name="journal header")
_format_codec: Final = Codec[_Format](_Format, bytes_max=_HEADER_BYTES_MAX, name="journal header")


@dataclass(frozen=True, slots=True)
class Record:
    """One input of a machine.

    Attributes:
        sequence: Number of the input, from 1, rising by 1 within a segment.
        now_ns: The machine's clock at the input.
        payload: The encoded input.
        mark: First 8 bytes of the digest of all effects up to and including this input's.
        offset: Where its frame begins in the bytes that were read.
    """

    sequence: int
    now_ns: int
    payload: bytes
    mark: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """The beginning of a segment as read: everything a replay needs to start here.

    Attributes:
        header: Who recorded the segment and where it stands.
        snapshot: State of the machine before the first record.
        offset: Where the segment begins in the bytes that were read.
    """

    header: Header
    snapshot: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class TornTail:
    """The bytes end inside a frame, or in zeros: the writer was stopped. Always the last item.

    Attributes:
        offset: End of the last whole record, or of the last whole segment when not even a snapshot follows.
    """

    offset: int


@dataclass(frozen=True, slots=True)
class Append:
    """Bytes for the shell to store, in order.

    Attributes:
        segment: Number of the segment within this run, from 0. A higher number than before: begin a new file.
        payload: Append these bytes to it.
    """

    segment: int
    payload: bytes


class Suspension(StrEnum):
    """Why nothing is being recorded."""

    INPUT = "input-not-recordable"  # It does not encode, or is longer than INPUT_BYTES_MAX.
    EFFECT = "effect-not-recordable"
    SNAPSHOT = "snapshot-too-large"
    BEHIND = "shell-behind"  # PENDING_BYTES_MAX were recorded and not taken.
    STORAGE = "storage"  # The shell could not store: disk full, read-only, no permission.


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who records: copied into every header.

    Attributes:
        product: Version of the program.
        node: Name of the node, for people.
        wall_ns: Wall time when the run began, ns since 1970.
        started_ns: The machine's clock at that moment.
    """

    product: str
    node: str
    wall_ns: int
    started_ns: int


def encode_effects(effects: Sequence[object]) -> bytes:
    """Return the bytes of a list of effects that the digest covers."""
    return _encode(effects)


def encode_raised(error: Exception) -> bytes:
    """Return what the digest covers when the machine raised instead: a recording of its own bug replays too."""
    return _RAISED + type(error).__name__.encode()


def digest_after(before: bytes, effects: bytes) -> bytes:
    """Return the digest of a run after one more input: BLAKE2b-128 over the digest before it and its effects."""
    return blake2b(before + effects, digest_size=DIGEST_BYTES).digest()


def _frame(content: bytes, sequence: int) -> bytes:
    """Return a frame: length with check byte, CRC-32, content. The CRC starts from the frame's place in the run."""
    size = len(content)
    check = (size ^ size >> 8 ^ size >> 16 ^ 0x5A) & 0xFF
    return _HEAD.pack(size | check << 24, crc32(content, sequence & 0xFFFF_FFFF)) + content


@final
class Recorder(Generic[In, Out]):
    """A machine that is recorded: use it in the place of the machine, and ``drain`` it now and then.

    Args:
        kind: The machine's kind; replay finds it by name and version.
        machine: The machine, not used by anybody else from now on.
        provenance: Who records.
        sequence: Number of the last input in older segments of the same journal, so that numbers stay unique there.
        segment_bytes_max: Size at which a new segment starts, bytes; at least 1.

    Source: docs/spec/journal.md, sections 2 and 4.
    """

    def __init__(
        self,
        kind: MachineKind[In, Out],
        machine: Machine[In, Out],
        provenance: Provenance,
        *,
        sequence: int = 0,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
    ) -> None:
        if not 1 <= segment_bytes_max <= SEGMENT_BYTES_MAX or sequence < 0:
            raise UsageError(f"a recorder with segments of {segment_bytes_max} bytes from input {sequence}")
        self._kind = kind
        self._machine = machine
        self._provenance = provenance
        self._inputs: Codec[In] = Codec(kind.inputs, bytes_max=INPUT_BYTES_MAX, name=f"{kind.name} input")
        self._segment_bytes_max = segment_bytes_max
        self._segment = -1
        self._records_bytes = 0
        self._pending: list[tuple[int, bytearray]] = []
        self._digest = bytes(DIGEST_BYTES)
        self.sequence = sequence  # Number of the last input.
        self.pending_bytes = 0  # Recorded and not yet drained.
        self.suspended: Suspension | None = None  # Why nothing is being recorded; None: recording.
        self._begin(Origin.START)

    @property
    def deadline_ns(self) -> int | None:
        """The machine's deadline."""
        return self._machine.deadline_ns

    @property
    def digest(self) -> bytes:
        """Digest of all effects since the run began or recording resumed, 16 bytes."""
        return self._digest

    def snapshot(self) -> bytes:
        """Return the machine's snapshot."""
        return self._machine.snapshot()

    def handle(self, event: In, now_ns: int) -> Sequence[Out]:
        """Apply one input to the machine and record it; return the machine's effects unchanged.

        Raises:
            Exception: Whatever the machine raises, which is a bug in it. The input is recorded, so a replay shows it.
        """
        self.sequence += 1
        if self.suspended is not None:
            return self._machine.handle(event, now_ns)
        try:
            payload = self._inputs.encode(event)
        except UsageError:
            self.suspend(Suspension.INPUT)
            return self._machine.handle(event, now_ns)
        try:
            effects = self._machine.handle(event, now_ns)
        except Exception as error:
            self._record(now_ns, payload, encode_raised(error))
            raise
        try:
            encoded = _encode(effects)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
            self.suspend(Suspension.EFFECT)
        else:
            self._record(now_ns, payload, encoded)
        return effects

    def drain(self) -> tuple[Append, ...]:
        """Take what was recorded since the last call, in order; the shell stores it."""
        if not self.pending_bytes:
            return ()
        taken = tuple(Append(segment, bytes(payload)) for segment, payload in self._pending)
        # The current segment goes on in a new buffer.
        self._pending = [] if self.suspended is not None else [(self._segment, bytearray())]
        self.pending_bytes = 0
        return tuple(append for append in taken if append.payload)

    def suspend(self, cause: Suspension) -> None:
        """Stop recording and forget what was not drained; the machine goes on. Call ``resume`` to record again."""
        self.suspended = cause
        self._pending = []
        self.pending_bytes = 0

    def resume(self) -> None:
        """Record again, in a new segment that says it follows a gap. Without effect while recording."""
        if self.suspended is None:
            return
        self.suspended = None
        self._digest = bytes(DIGEST_BYTES)
        self._begin(Origin.RESUMED)

    def _record(self, now_ns: int, payload: bytes, effects: bytes) -> None:
        self._digest = digest = digest_after(self._digest, effects)
        frame = _frame(_RECORD.pack(now_ns, digest[:MARK_BYTES]) + payload, self.sequence)
        self._pending[-1][1].extend(frame)
        self.pending_bytes += len(frame)
        self._records_bytes += len(frame)
        if self._records_bytes >= self._segment_bytes_max:
            self._begin(Origin.ROLLOVER)
        elif self.pending_bytes > PENDING_BYTES_MAX:
            self.suspend(Suspension.BEHIND)

    def _begin(self, origin: Origin) -> None:
        """Start a segment with the machine's state of now."""
        snapshot = self._machine.snapshot()
        if len(snapshot) > SNAPSHOT_BYTES_MAX:
            self.suspend(Suspension.SNAPSHOT)
            return
        about = self._provenance
        header = Header(
            format=FORMAT,
            kind=self._kind.name,
            version=self._kind.version,
            product=about.product,
            node=about.node,
            wall_ns=about.wall_ns,
            started_ns=about.started_ns,
            origin=origin,
            sequence=self.sequence,
            digest=self._digest,
        )
        payload = MAGIC + _frame(_encode(header), 0) + _frame(snapshot, self.sequence)
        self._segment += 1
        self._records_bytes = 0
        self._pending.append((self._segment, bytearray(payload)))
        self.pending_bytes += len(payload)
        if self.pending_bytes > PENDING_BYTES_MAX:
            self.suspend(Suspension.BEHIND)


def read(data: bytes) -> Iterator[SegmentStart | Record | TornTail]:
    """Read one or several segments one after the other, item by item, in the order of recording.

    The first item, if there is one, is a ``SegmentStart``.

    Raises:
        CorruptError: Bytes that were not written so, with their offset. What came before is good.
        UserError: A301, a journal of another format.
    """
    offset = 0
    while offset < len(data):
        start = _start_at(data, offset)
        if start is None:
            yield TornTail(offset)
            return
        item, offset = start
        yield item
        sequence = item.header.sequence
        while offset < len(data) and data[offset : offset + len(MAGIC)] != MAGIC:
            sequence += 1
            content = _content_at(data, offset, sequence)
            if content is None:
                yield TornTail(offset)
                return
            if len(content) <= _RECORD.size:
                raise CorruptError(f"offset {offset}: a record of {len(content)} bytes")
            now_ns, mark = _RECORD.unpack_from(content)
            yield Record(sequence, now_ns, content[_RECORD.size :], mark, offset)
            offset += _HEAD.size + len(content)


def _start_at(data: bytes, offset: int) -> tuple[SegmentStart, int] | None:
    """Return the segment start at an offset and the offset behind it; None when the bytes end before that."""
    magic = data[offset : offset + len(MAGIC)]
    if magic != MAGIC:
        if MAGIC.startswith(magic) or _zeros_from(data, offset):
            return None
        raise CorruptError(f"offset {offset}: no journal segment begins here")
    header_at = offset + len(MAGIC)
    head = _content_at(data, header_at, 0)
    if head is None:
        return None
    header = _header_of(head, header_at)
    snapshot_at = header_at + _HEAD.size + len(head)
    snapshot = _content_at(data, snapshot_at, header.sequence)
    if snapshot is None:
        return None
    return SegmentStart(header, snapshot, offset), snapshot_at + _HEAD.size + len(snapshot)


def _header_of(content: bytes, offset: int) -> Header:
    try:
        found = _format_codec.decode(content).format
        if found != FORMAT:
            raise UserError(
                "A301",
                f"this journal has format {found}, and this atoll reads format {FORMAT}",
                where=f"offset {offset}",
                fix="replay it with the atoll version that recorded it",
            )
        return _header_codec.decode(content)
    except WireError as error:
        raise CorruptError(f"offset {offset}: {error.reason}") from error


def _content_at(data: bytes, offset: int, sequence: int) -> bytes | None:
    """Return the content of the frame at an offset; None when the bytes end inside it or are zeros to the end."""
    if offset + _HEAD.size > len(data):
        # Too short to be believed or disbelieved: a cut frame starts like this.
        return None
    word, checksum = _HEAD.unpack_from(data, offset)
    size = word & 0xFF_FFFF
    if word >> 24 != (size ^ size >> 8 ^ size >> 16 ^ 0x5A) & 0xFF or not 1 <= size <= _FRAME_BYTES_MAX:
        if _zeros_from(data, offset):
            return None
        raise CorruptError(f"offset {offset}: a length that does not check")
    begin = offset + _HEAD.size
    if begin + size > len(data):
        return None
    content = data[begin : begin + size]
    if crc32(content, sequence & 0xFFFF_FFFF) != checksum:
        raise CorruptError(f"offset {offset}: content that does not check (input {sequence})")
    return content


def _zeros_from(data: bytes, offset: int) -> bool:
    return not data[offset:].strip(b"\0")
