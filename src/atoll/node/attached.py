# SPDX-License-Identifier: Apache-2.0
"""Programs attached to the node: connections and datagrams that they hold through its local API.

After its answer the connection of a call is no longer lines of JSON but frames, in both directions: a length, four
bytes in network order, and as many bytes. Length 0 ends a direction; LENGTH_BROKEN says that the far side broke it, and
why. A unix socket has no reset of its own, and an end that was a break must not look like an end. Normative text:
docs/reference/api.md.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from struct import Struct
from typing import Final, final

import msgspec

from atoll.base.errors import WireError
from atoll.base.ids import NodeId
from atoll.conduit.correspondence import Correspondence
from atoll.conduit.far import FarEnd
from atoll.conduit.limits import READ_BYTES_MAX
from atoll.conduit.stream import BrokenStreamError, Reason
from atoll.node.limits import ATTACHED_UNREAD_BYTES_MAX, FRAME_BYTES_MAX

__all__ = [
    "LENGTH_BROKEN",
    "Letter",
    "Upgrade",
    "framed",
    "pack_letter",
    "read_frame",
    "serve_datagrams",
    "serve_stream",
    "unpack_letter",
]

LENGTH: Final = Struct(">I")
LENGTH_BROKEN: Final = 0xFFFF_FFFF
_PORT: Final = Struct(">H")


class Upgrade(msgspec.Struct, frozen=True):
    """An answer after which the connection is the method's own.

    Attributes:
        view: What is answered.
        serve: Serves the connection to its end.
    """

    view: msgspec.Struct
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Letter(msgspec.Struct, frozen=True):
    """One datagram: from whom or to whom, and its bytes."""

    host: str
    port: int
    payload: bytes


def framed(data: bytes) -> bytes:
    """Return one frame."""
    return LENGTH.pack(len(data)) + data


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """Return the content of the next frame, empty: the end of this direction; None: the connection is gone.

    Raises:
        BrokenStreamError: The other side says that it is broken.
        WireError: A length beyond FRAME_BYTES_MAX.
    """
    try:
        size = LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]
        if size == LENGTH_BROKEN:
            raise BrokenStreamError(_reason((await reader.readexactly(1))[0]))
        if size > FRAME_BYTES_MAX:
            raise WireError("frame length")
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, OSError):
        return None


def _reason(number: int) -> Reason:
    try:
        return Reason(number)
    except ValueError:
        return Reason.RESET


def pack_letter(letter: Letter) -> bytes:
    """Return a datagram as the content of one frame: length of the name, name, port, payload.

    Raises:
        WireError: A name longer than 255 bytes, or a port out of range.
    """
    name = letter.host.encode("utf-8", "replace")
    if len(name) > 0xFF or not 0 <= letter.port <= 0xFFFF:
        raise WireError("datagram address")
    return bytes((len(name),)) + name + _PORT.pack(letter.port) + letter.payload


def unpack_letter(content: bytes) -> Letter:
    """Return the datagram in a frame.

    Raises:
        WireError: It does not decode. Nothing else.
    """
    if not content or len(content) < 1 + content[0] + _PORT.size:
        raise WireError("datagram address")
    at = 1 + content[0]
    try:
        host = content[1:at].decode()
    except UnicodeDecodeError as error:
        raise WireError("datagram name") from error
    return Letter(host, _PORT.unpack_from(content, at)[0], content[at + _PORT.size :])


async def serve_stream(far: FarEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy between a program and a member, both ways, until both have ended or one broke."""
    up = asyncio.ensure_future(_copy_up(far, reader))
    down = asyncio.ensure_future(_copy_down(far, writer))
    try:
        await asyncio.gather(up, down)
    except (BrokenStreamError, WireError, OSError) as error:
        reason = error.reason if isinstance(error, BrokenStreamError) else Reason.RESET
        with suppress(OSError):
            writer.write(LENGTH.pack(LENGTH_BROKEN) + bytes((reason,)))
    finally:
        up.cancel()
        down.cancel()
        try:
            await asyncio.gather(up, down, return_exceptions=True)
        finally:
            far.close()
            writer.close()


async def _copy_up(far: FarEnd, reader: asyncio.StreamReader) -> None:
    while content := await read_frame(reader):
        await far.write(content)
    if content is None:  # The program died or closed without an end: that is a break, and the member must hear so.
        raise BrokenStreamError(Reason.RESET)
    far.write_end()


async def _copy_down(far: FarEnd, writer: asyncio.StreamWriter) -> None:
    while data := await far.read(READ_BYTES_MAX):
        writer.write(framed(data))
        await writer.drain()
    writer.write(framed(b""))


@final
class _Post:
    """The answers to one program's datagrams, as frames; dropped while it does not read."""

    def __init__(self, writer: asyncio.StreamWriter, name_of: Callable[[NodeId], str]) -> None:
        self._writer, self._name_of = writer, name_of

    def answered(self, node: NodeId, port: int, datagram: bytes) -> None:
        """Take one answer."""
        if self._writer.transport.get_write_buffer_size() <= ATTACHED_UNREAD_BYTES_MAX:
            self._writer.write(framed(pack_letter(Letter(self._name_of(node), port, datagram))))


async def serve_datagrams(
    make: Callable[[Callable[[NodeId, int, bytes], None]], Correspondence],
    name_of: Callable[[NodeId], str],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Carry a program's datagrams and the answers to them until it closes the connection."""
    letters = make(_Post(writer, name_of).answered)
    try:
        await letters.start()
        while content := await read_frame(reader):
            with suppress(WireError):  # As a datagram that is lost on its way.
                letter = unpack_letter(content)
                letters.send(letter.host, letter.port, letter.payload)
    except (BrokenStreamError, WireError):
        pass  # It speaks nonsense: the connection ends.
    finally:
        letters.close()
        writer.close()
