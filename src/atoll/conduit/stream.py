# SPDX-License-Identifier: Apache-2.0
"""One reliable stream: what it is for, how it begins, how it may end. Owns the reader's buffer and the waiting.

On the wire a stream begins with the opener's header (``version u8 | kind u8 | port u16``); the acceptor's first byte
is its verdict (0 accepted, else a ``Reason``). The opener may write at once, without waiting for the verdict: a
refusal reaches it as ``BrokenStreamError`` at its first read. Normative text: docs/spec/streams.md.
"""

import asyncio
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, Protocol, final

from atoll.base.errors import LinkError, UsageError, WireError
from atoll.base.ids import NodeId
from atoll.conduit.limits import UNSENT_BYTES_MAX

__all__ = ["HEADER_BYTES", "BrokenStreamError", "Carrier", "Kind", "Reason", "Service", "Stream"]

_HEADER: Final = Struct(">BBH")
HEADER_BYTES: Final = _HEADER.size
_VERSION: Final = 1
_ACCEPTED: Final = 0


class Kind(IntEnum):
    """What the opener asks for."""

    TCP = 1  # A connection to a loopback port of the far machine.
    ECHO = 2  # The same bytes back.
    QUESTION = 3  # One question to the node itself, and its answer.
    ENVIRONMENTS = 4  # Messages to the server of environments.


class Reason(IntEnum):
    """Why a stream ended early; also the verdict byte and QUIC's application error code."""

    RESET = 1  # The other side gave up in mid-stream.
    REFUSED = 2  # Nothing listens on that port.
    FORBIDDEN = 3  # The far node does not forward to that port.
    NO_SERVICE = 4  # The far node does not know what was asked for.
    LIMIT = 5  # One of the far node's named limits.
    UNREACHABLE = 6  # No connection to the far node in time, or it was lost. Only ever found locally.


@dataclass(frozen=True, slots=True)
class Service:
    """What a stream is for; ``port`` is 0 where the kind needs none."""

    kind: Kind
    port: int = 0

    def encode(self) -> bytes:
        """Return the header, HEADER_BYTES of it."""
        return _HEADER.pack(_VERSION, self.kind, self.port)

    @classmethod
    def decode(cls, header: bytes) -> "Service":
        """Return the service named by HEADER_BYTES bytes.

        Raises:
            WireError: Another version or an unknown kind.
        """
        version, kind, port = _HEADER.unpack(header)
        if version != _VERSION or kind not in Kind.__members__.values():
            raise WireError("stream header")
        return cls(Kind(kind), port)


@final
class BrokenStreamError(LinkError):
    """The stream ended before its time.

    Args:
        reason: Why; decides what the local program is shown.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Final = reason

    def __str__(self) -> str:
        return f"stream {self.reason.name.lower()}"


class Carrier(Protocol):
    """What a stream needs of its connection. All calls return at once; ``stir`` sends what is due."""

    node: NodeId
    tag: int

    def put(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Queue bytes."""
        ...

    def unsent_bytes(self, stream_id: int, written_bytes: int) -> int:
        """Return how many queued bytes were not sent yet."""
        ...

    def took(self, stream_id: int, count: int) -> None:
        """The reader took bytes out of the buffer."""
        ...

    def cut(self, stream_id: int, code: int, *, sending: bool, receiving: bool) -> None:
        """End the named halves at once."""
        ...

    def done(self, stream_id: int) -> None:
        """Both halves have ended here; nothing more is asked of the carrier for this stream."""
        ...


@final
class Stream:
    """A byte stream with a member: ordered, reliable, each half closed by itself, with back-pressure both ways.

    Made by ``StreamHost`` only. ``read`` and ``write`` may each be used by one task at a time. Always ``close`` it.
    """

    def __init__(self, carrier: Carrier, stream_id: int, *, opener: bool) -> None:
        self._carrier: Final = carrier
        self.stream_id: Final = stream_id
        self._buffer = bytearray()
        self._written_bytes = 0
        self._verdict_due = opener
        self._broken: BrokenStreamError | None = None
        self._unwanted = False  # The far side reads no more; what it sends still counts.
        self._sent_end = self._received_end = self._closed = False
        self._readable, self._writable = asyncio.Event(), asyncio.Event()

    @property
    def node(self) -> NodeId:
        """The member at the other end."""
        return self._carrier.node

    @property
    def tag(self) -> int:
        """The policy tag that its packets carry."""
        return self._carrier.tag

    async def accepted(self) -> None:
        """Wait for the far side's verdict. Only the opener may call it.

        Raises:
            BrokenStreamError: It refused, or became unreachable.
        """
        while self._verdict_due or self._broken is not None:
            await self._more()

    async def read(self, size_max: int) -> bytes:
        """Return 1 to ``size_max`` bytes as soon as there are any; b"" at the end of the stream.

        Raises:
            BrokenStreamError: The stream was refused, reset, or its connection lost.
        """
        if size_max < 1:
            raise UsageError(f"a read of {size_max} bytes")
        await self.accepted()
        while not self._buffer:
            if self._received_end:
                return b""
            await self._more()
        chunk = bytes(self._buffer[:size_max])
        del self._buffer[:size_max]
        self._carrier.took(self.stream_id, len(chunk))
        self._release_if_done()
        return chunk

    async def write(self, data: bytes) -> None:
        """Queue bytes to send; wait first while more than UNSENT_BYTES_MAX bytes are waiting already.

        Raises:
            BrokenStreamError: The far side reads no more, or the connection is lost.
            UsageError: After ``write_end``.
        """
        while True:
            self._check_writable()
            if self._carrier.unsent_bytes(self.stream_id, self._written_bytes) <= UNSENT_BYTES_MAX:
                break
            self._writable.clear()
            await self._writable.wait()
        self._written_bytes += len(data)
        self._carrier.put(self.stream_id, data, end=False)

    def write_end(self) -> None:
        """Close the sending half: the far side reads b"" after the last byte. Harmless when repeated."""
        if not self._sent_end and self._broken is None:
            self._sent_end = True
            self._carrier.put(self.stream_id, b"", end=True)
            self._release_if_done()

    def accept(self) -> None:
        """Say yes to the opener; the acceptor's first act."""
        self._written_bytes += 1
        self._carrier.put(self.stream_id, bytes([_ACCEPTED]), end=False)

    def refuse(self, reason: Reason) -> None:
        """Say no to the opener, and why; ends the stream."""
        self._carrier.put(self.stream_id, bytes([reason]), end=True)
        self._sent_end = True
        self.close(reason)

    def close(self, reason: Reason = Reason.RESET) -> None:
        """End whatever has not ended; a no-op on a stream whose both halves have. Harmless when repeated."""
        if self._closed:
            return
        if not (self._sent_end and self._received_end):
            self._carrier.cut(self.stream_id, int(reason), sending=not self._sent_end, receiving=not self._received_end)
            self.fail(BrokenStreamError(Reason.RESET))
        self._release()

    # What the connection tells the stream.

    def begin(self, service: Service) -> None:
        """Queue the opener's header."""
        header = service.encode()
        self._written_bytes += len(header)
        self._carrier.put(self.stream_id, header, end=False)

    def arrived(self, data: bytes, *, end: bool) -> None:
        """Take bytes from the network. Each of them is sooner or later reported to ``Carrier.took``."""
        if self._closed or self._broken is not None:
            self._carrier.took(self.stream_id, len(data))
            return
        if self._verdict_due and data:
            self._verdict_due = False
            verdict, data = data[0], data[1:]
            self._carrier.took(self.stream_id, 1)
            if verdict != _ACCEPTED:
                self._carrier.took(self.stream_id, len(data))
                self._refused(Reason(verdict) if verdict in Reason.__members__.values() else Reason.NO_SERVICE)
                return
        self._buffer += data
        if end:
            self._received_end = True
            if self._verdict_due:  # It ended without a verdict.
                self.fail(BrokenStreamError(Reason.RESET))
            self._release_if_done()
        self._readable.set()

    def unwanted(self) -> None:
        """The far side asked us to send no more."""
        self._unwanted = True
        self._writable.set()

    def fail(self, broken: BrokenStreamError) -> None:
        """End both halves at once: readers and writers get ``broken``. The first cause stands."""
        if self._broken is None:
            self._broken = broken
            self._verdict_due = False
            self._drop_buffer()
        self._readable.set()
        self._writable.set()

    def drained(self) -> None:
        """Wake the writer if there is room again."""
        if not self._writable.is_set():
            unsent = self._carrier.unsent_bytes(self.stream_id, self._written_bytes)
            if unsent <= UNSENT_BYTES_MAX // 2:
                self._writable.set()

    async def _more(self) -> None:
        if self._broken is not None:
            raise self._broken
        self._readable.clear()
        await self._readable.wait()
        if self._broken is not None:
            raise self._broken

    def _check_writable(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._unwanted:
            raise BrokenStreamError(Reason.RESET)
        if self._sent_end or self._closed:
            raise UsageError("a write after the end")

    def _refused(self, reason: Reason) -> None:
        self._carrier.cut(self.stream_id, int(reason), sending=not self._sent_end, receiving=True)
        self.fail(BrokenStreamError(reason))

    def _release_if_done(self) -> None:
        if self._sent_end and self._received_end and not self._buffer:
            self._release()

    def _release(self) -> None:
        if not self._closed:
            self._closed = True
            self._drop_buffer()
            self._carrier.done(self.stream_id)

    def _drop_buffer(self) -> None:
        self._carrier.took(self.stream_id, len(self._buffer))
        self._buffer.clear()
