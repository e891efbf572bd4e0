# SPDX-License-Identifier: Apache-2.0
"""Frames on a local stream: a length, 4 bytes, and as many bytes. Those of one turn of the loop leave together."""

import asyncio
from collections.abc import Callable, Generator
from struct import Struct
from typing import Final, cast, final

from atoll.base.errors import WireError
from atoll.domain.limits import SERVER_FRAME_BYTES_MAX, UNREAD_BYTES_MAX
from atoll.domain.turns import Turn

__all__ = ["FrameConnection", "Frames"]

_LENGTH: Final = Struct("<I")


@final
class Frames:
    """What comes on a stream, cut into frames.

    Args:
        bytes_max: Longest frame.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max: Final = bytes_max
        self._came = bytearray()

    def feed(self, data: bytes) -> Generator[bytes]:
        """Take what came next; yield the frames that are whole now, in order.

        Each is cut out when it is asked for, and nothing is taken before the first is. Whoever stops before the last
        one gets the rest with what comes next.

        Raises:
            WireError: A frame is too long, after those before it; the stream is to be ended.
        """
        came, at = self._came, 0
        came += data
        end = len(came)
        try:
            while end - at >= _LENGTH.size:
                size = _LENGTH.unpack_from(came, at)[0]
                if size > self._bytes_max:
                    raise WireError("frame length")
                begin = at + _LENGTH.size
                if end - begin < size:
                    break
                at = begin + size
                yield bytes(came[begin:at])
        finally:
            del came[:at]


@final
class FrameConnection(asyncio.Protocol):
    """One end of a stream of frames.

    Args:
        take: Gets each frame. A ``WireError`` of it ends the connection.
        made: Called once it is open.
        lost: Called once it has ended.
        taken: Called after frames that came together were all taken.
        is_patient: It is not cut off when the other end does not read: it is a process of this node, which both ends
            of the connection end with.
    """

    def __init__(
        self,
        take: Callable[["FrameConnection", bytes], None],
        made: Callable[["FrameConnection"], None] | None = None,
        lost: Callable[["FrameConnection"], None] | None = None,
        taken: Callable[[], None] | None = None,
        *,
        is_patient: bool = False,
    ) -> None:
        self._is_patient: Final = is_patient
        self._take, self._made, self._lost, self._taken = take, made, lost, taken
        self._transport: asyncio.Transport | None = None
        self._frames: Final = Frames(SERVER_FRAME_BYTES_MAX)
        self._queue: list[bytes] = []
        self._queue_bytes = 0
        self._turn: Final = Turn(self._flush)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (called by the loop)."""
        # Not asserted: a client may run on another loop, and uvloop's transports derive from nothing of asyncio's.
        self._transport = cast("asyncio.Transport", transport)  # A stream's is one, by the contract of the loop.
        if self._made is not None:
            self._made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End (called by the loop)."""
        del exc
        self._transport = None
        if self._lost is not None:
            self._lost(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes (called by the loop)."""
        try:
            for frame in self._frames.feed(data):
                self._take(self, frame)
        except WireError:
            self.close()
        if self._taken is not None:
            self._taken()

    def send(self, frame: bytes) -> None:
        """Send a frame; nothing happens when the connection has ended.

        A receiver that does not read is cut off at UNREAD_BYTES_MAX, unless this end is patient: what it missed is sent
        again when it comes back.
        """
        if self._transport is None:
            return
        if not self._is_patient and self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self._transport.abort()
            return
        self._put(frame)

    def offer(self, frame: bytes) -> bool:
        """Send a frame that may be lost, if what was not read leaves room for it; return whether it was sent."""
        if self._transport is None:
            return False
        unread = self._transport.get_write_buffer_size() + self._queue_bytes
        if unread + len(frame) > UNREAD_BYTES_MAX:
            return False
        self._put(frame)
        return True

    def _put(self, frame: bytes) -> None:
        self._queue.append(_LENGTH.pack(len(frame)))
        self._queue.append(frame)
        self._queue_bytes += len(frame)
        self._turn.later()

    def hurry(self) -> None:
        """Let what was sent leave now, if it is the first of this turn."""
        self._turn.now()

    def close(self) -> None:
        """End the connection once what was sent has left."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def pause(self, *, paused: bool) -> None:
        """Stop reading for now, or go on."""
        if self._transport is not None and not self._transport.is_closing():
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _flush(self) -> None:
        queue, self._queue, self._queue_bytes = self._queue, [], 0
        if self._transport is not None and queue:
            self._transport.write(b"".join(queue))
