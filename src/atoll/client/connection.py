# SPDX-License-Identifier: Apache-2.0
"""One connection to a member, with the faces of asyncio's own streams."""

import asyncio
from contextlib import suppress
from typing import Final, final

from atoll.base.errors import WireError
from atoll.conduit.stream import BrokenStreamError
from atoll.node.attached import framed, read_frame
from atoll.node.limits import FRAME_BYTES_MAX

__all__ = ["Writer", "joined"]

READER_BYTES_MAX: Final = 128 * 1024  # Limit. Twice that is read ahead; the rest waits at the sender.


@final
class _Pace(asyncio.ReadTransport):
    """Says when the program has read enough of what it was fed."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: Final = asyncio.Event()
        self.wanted.set()

    def pause_reading(self) -> None:
        self.wanted.clear()

    def resume_reading(self) -> None:
        self.wanted.set()


@final
class Writer:
    """The sending side, used as an ``asyncio.StreamWriter``.

    Args:
        raw: The connection to the node.
        peer: Node and port.
    """

    def __init__(self, raw: asyncio.StreamWriter, peer: tuple[str, int]) -> None:
        self._raw, self._peer = raw, peer
        self._ended = self._broken = False
        self._pump: asyncio.Task[None] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; ``drain`` waits until there is room for more.

        Raises:
            ConnectionResetError: The connection is broken or closed.
        """
        self._check()
        view = memoryview(data)
        for at in range(0, len(view), FRAME_BYTES_MAX):
            self._raw.write(framed(bytes(view[at : at + FRAME_BYTES_MAX])))

    async def drain(self) -> None:
        """Wait until most of what was written is on its way.

        Raises:
            ConnectionResetError: The connection is broken or closed.
        """
        self._check()
        await self._raw.drain()

    def write_eof(self) -> None:
        """End the sending direction; the other one goes on."""
        if not self._ended:
            self._check()
            self._ended = True
            self._raw.write(framed(b""))

    @staticmethod
    def can_write_eof() -> bool:
        """Return True: both directions end on their own."""
        return True

    def close(self) -> None:
        """End both directions. What the member still sends is not read."""
        if not self._raw.is_closing():
            with suppress(ConnectionResetError):
                self.write_eof()
        if self._pump is not None:
            self._pump.cancel()
        self._raw.close()

    def is_closing(self) -> bool:
        """Return whether it was closed."""
        return self._raw.is_closing()

    async def wait_closed(self) -> None:
        """Wait until it is closed."""
        with suppress(OSError):
            await self._raw.wait_closed()

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return ``peername``: (node, port); nothing else is known."""
        return self._peer if name == "peername" else default

    def fed_by(self, frames: asyncio.StreamReader) -> asyncio.StreamReader:
        """Return a reader of what comes from the node, until either end."""
        reader, pace = asyncio.StreamReader(READER_BYTES_MAX), _Pace()
        reader.set_transport(pace)
        self._pump = asyncio.get_running_loop().create_task(self._feed(reader, frames, pace))
        return reader

    async def _feed(self, reader: asyncio.StreamReader, frames: asyncio.StreamReader, pace: "_Pace") -> None:
        try:
            while content := await read_frame(frames):
                reader.feed_data(content)
                await pace.wanted.wait()
            if content is None:
                raise ConnectionResetError("the node is gone")
            reader.feed_eof()
        except (BrokenStreamError, WireError, ConnectionResetError) as error:
            self._broken = True
            reader.set_exception(ConnectionResetError(str(error)))

    def _check(self) -> None:
        if self._broken or self._raw.is_closing():
            raise ConnectionResetError("the connection is broken or closed")


def joined(
    frames: asyncio.StreamReader, raw: asyncio.StreamWriter, peer: tuple[str, int]
) -> tuple[asyncio.StreamReader, Writer]:
    """Return both sides of a connection whose call has been answered."""
    writer = Writer(raw, peer)
    return writer.fed_by(frames), writer
