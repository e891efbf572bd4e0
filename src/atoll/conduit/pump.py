# SPDX-License-Identifier: Apache-2.0
"""Bytes between two sockets of the kernel, at the speed of the kernel: a few system calls for a quarter of a MiB.

asyncio's streams copy each byte twice more and move 64 KiB at a time. Here one buffer serves all connections: it is
filled and emptied within one turn of the loop, and only what the other side does not take at once is kept aside.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from struct import pack
from typing import Final, final

from atoll.base.ids import NodeId
from atoll.conduit.far import both_ways
from atoll.conduit.limits import PUMP_BYTES_MAX
from atoll.conduit.stream import BrokenStreamError, Reason
from atoll.conduit.timing import Timing

__all__ = ["RESET_ON_CLOSE", "InnerConnection", "Pump", "hold_back", "let_go", "reset", "reset_socket", "taken_over"]

RESET_ON_CLOSE: Final = pack("ii", 1, 0)  # SO_LINGER of zero seconds: close sends RST, not FIN.


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once: the other side sees a reset."""
    connection: socket.socket = writer.get_extra_info("socket")
    if connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


def reset_socket(connection: socket.socket) -> None:
    """Close a connection so that the other side sees a reset. Harmless when repeated."""
    if connection.fileno() >= 0:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        connection.close()


def hold_back(writer: asyncio.StreamWriter) -> None:
    """Keep asyncio from reading anything; to be called in the turn in which it announces a connection.

    Python 3.11.2 (Debian 12's) begins to read right after that turn, paused or not; so it is paused once more before
    anything can have been read.
    """
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)

    def again() -> None:
        if not transport.is_reading():  # Else it was let go meanwhile.
            transport.resume_reading()
            transport.pause_reading()

    transport.pause_reading()
    asyncio.get_running_loop().call_soon(again)


def let_go(writer: asyncio.StreamWriter) -> None:
    """Let asyncio read a connection that was held back."""
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.resume_reading()


def taken_over(writer: asyncio.StreamWriter) -> socket.socket:
    """Return the socket of a connection from which asyncio has read nothing, and which it now lets go.

    Raises:
        OSError: No file is left for the duplicate; the connection is as it was.
    """
    connection: socket.socket = writer.get_extra_info("socket")
    taken = connection.dup()
    taken.settimeout(0)
    writer.transport.abort()
    return taken


@final
class InnerConnection:
    """A connection of the kernel with a member; a ``FarEnd`` as well, for those who do not pump.

    Args:
        connection: Connected; does not block; owned from now on.
        node: The member.
        is_opener: Whether the member's verdict is still to come.
    """

    def __init__(self, connection: socket.socket, node: NodeId, *, is_opener: bool) -> None:
        self.socket: Final = connection
        self.node: Final = node
        self.is_broken = False  # By us: the end that is then read is none.
        self._verdict_due = is_opener
        self._ends = 0
        self._loop = asyncio.get_running_loop()

    async def accepted(self) -> None:
        """Wait for the member's verdict.

        Raises:
            BrokenStreamError: It refused, or broke the connection.
        """
        if not self._verdict_due:
            return
        said = await self._received(1)
        self._verdict_due = False
        if said != b"\0":
            known = bool(said) and said[0] in Reason.__members__.values()
            raise BrokenStreamError(Reason(said[0]) if known else Reason.RESET)

    async def read(self, size_max: int) -> bytes:
        """Return 1 to ``size_max`` bytes; b"" at the end.

        Raises:
            BrokenStreamError: The connection was refused or broke.
        """
        await self.accepted()
        data = await self._received(size_max)
        self._ends += not data
        return data

    async def write(self, data: bytes) -> None:
        """Take bytes, once there is room for them.

        Raises:
            BrokenStreamError: The connection broke.
        """
        try:
            await self._loop.sock_sendall(self.socket, data)
        except OSError as error:
            raise BrokenStreamError(Reason.RESET) from error

    def write_end(self) -> None:
        """Close the sending half."""
        with suppress(OSError):  # It is broken, which the reader is told.
            self.socket.shutdown(socket.SHUT_WR)
        self._ends += 1

    def close(self) -> None:
        """End it; with a reset where a half has not ended. Harmless when repeated."""
        if self._ends == 2 and not self.is_broken:
            self.socket.close()
        else:
            reset_socket(self.socket)

    def break_off(self) -> None:
        """End it at once, whoever is reading or writing: they see it broken, and close it."""
        self.is_broken = True
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Say whether an end that was just read is one.

        Raises:
            BrokenStreamError: It is a break.
        """
        if self.is_broken:
            raise BrokenStreamError(Reason.UNREACHABLE)

    async def _received(self, size_max: int) -> bytes:
        try:
            data = await self._loop.sock_recv(self.socket, size_max)
        except OSError as error:
            raise BrokenStreamError(Reason.RESET) from error
        if not data:
            self.check()
        return data


@final
class Pump:
    """Copies between sockets; one for a node."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(PUMP_BYTES_MAX))  # Zero pages cost no memory before they are used.

    async def splice(
        self, near: socket.socket, far: InnerConnection, first: bytes = b"", timing: Timing | None = None
    ) -> None:
        """Copy both ways until both have ended, or reset both sides as soon as one breaks.

        Args:
            near: Connected; does not block; owned from now on.
            far: The member's side; its verdict is waited for before anything of it reaches ``near``.
            first: Goes ahead to ``far``.
            timing: Of the program behind ``near``.
        """

        def end(is_whole: bool) -> None:  # noqa: FBT001 - the shape that ``both_ways`` calls.
            for side in (near, far.socket):
                if is_whole:
                    side.close()
                else:
                    reset_socket(side)

        await both_ways(self._copy_up(near, far, first, timing), self._copy_down(far, near, timing), end)

    async def _copy_up(self, near: socket.socket, far: InnerConnection, first: bytes, timing: Timing | None) -> None:
        if first:
            await far.write(first)
        await self._copy(near, far.socket, None if timing is None else timing.answered)
        if timing is not None:
            timing.ended()
        far.socket.shutdown(socket.SHUT_WR)

    async def _copy_down(self, far: InnerConnection, near: socket.socket, timing: Timing | None) -> None:
        await far.accepted()
        await self._copy(far.socket, near, None if timing is None else timing.handed)
        far.check()
        near.shutdown(socket.SHUT_WR)
        if timing is not None:
            timing.handed_end()

    async def _copy(self, source: socket.socket, target: socket.socket, note: Callable[[], bool] | None) -> None:
        """Copy to the end of ``source``; ``note`` each chunk for as long as that returns True."""
        loop, view = asyncio.get_running_loop(), self._view
        while True:
            try:
                count = source.recv_into(view)
            except (BlockingIOError, InterruptedError):
                await _readable(loop, source)
                continue
            if not count:
                break
            try:
                sent = target.send(view[:count])
            except (BlockingIOError, InterruptedError):
                sent = 0
            if note is not None and not note():
                note = None
            if sent < count:
                await loop.sock_sendall(target, bytes(view[sent:count]))
            else:
                await asyncio.sleep(0)  # The others' turn.


async def _readable(loop: asyncio.AbstractEventLoop, source: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    number = source.fileno()
    loop.add_reader(number, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(number)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
