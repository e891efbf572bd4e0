# SPDX-License-Identifier: Apache-2.0
"""TCP forwards: a local port whose connections come out at a port of another member. Both ends of it.

Each accepted connection is one of kernel TCP where both sides have it (``kernel``), else one stream. What one side
does, the other side sees: a half-close as a half-close, a reset as a reset; a refusal at the far end as a reset,
because the local connection was accepted before anybody could know.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

from atoll.base.errors import LimitError, UserError
from atoll.base.ids import NodeId
from atoll.conduit.far import FarEnd, both_ways, end_service
from atoll.conduit.kernel import Allow, InnerTcp
from atoll.conduit.limits import DIAL_TIMEOUT_S, FORWARD_CONNECTIONS_MAX, READ_BYTES_MAX
from atoll.conduit.pump import RESET_ON_CLOSE, Pump, hold_back, let_go, taken_over
from atoll.conduit.stream import BrokenStreamError, Kind, Reason, Service, Stream
from atoll.conduit.streams import StreamHost

__all__ = [
    "LOOPBACK",
    "Carriers",
    "Listener",
    "ReachSelf",
    "TcpForward",
    "TcpService",
    "local_port_taken",
    "reset",
    "splice",
]

LOOPBACK: Final = "127.0.0.1"


def local_port_taken(protocol: str, local: str, error: OSError) -> UserError:
    """Return the error of a forward that cannot listen."""
    if error.errno == errno.EADDRINUSE:
        sentence, fix = f"the local port is in use: {protocol} {local}", "choose another local port, or end its owner"
    else:
        sentence, fix = (
            f"cannot listen on {protocol} {local}",
            "choose an address of this machine and a port above 1023",
        )
    return UserError("A404", sentence, where=f"{protocol} {local}: {error.strerror or error}", fix=fix)


ServeClient = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]
"""Serve one local connection, and close it."""


ReachSelf = Callable[[int], Awaitable[FarEnd]]
"""Connect to a port of this node's own loopback; BrokenStreamError: nobody listens there."""


@final
class Listener:
    """Listens on a local port and serves each connection in a task of its own, up to FORWARD_CONNECTIONS_MAX.

    Args:
        serve: Serves one connection, and closes it.
        unread: Whether nothing is to be read from a connection before ``serve`` says so (``pump.let_go``).
    """

    def __init__(self, serve: ServeClient, *, unread: bool = False) -> None:
        self._serve, self._unread = serve, unread
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = 0

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._tasks)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; return the address in use (``port`` 0: the system chooses one).

        Raises:
            UserError: A404, the address cannot be had.
        """
        try:
            self._server = await asyncio.start_server(self._accepted, host, port, limit=READ_BYTES_MAX)
        except OSError as error:
            raise local_port_taken("tcp", f"{host}:{port}", error) from error
        if not self._server.sockets:  # asyncio leaves out a socket that cannot be made, and does not say why.
            raise UserError(
                "A404",
                f"cannot listen on tcp {host}:{port}",
                where="no socket can be opened: this machine lacks the address family, or the node has no file left",
                fix="choose another address, or end some forwards: atoll forward list",
            )
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def close(self) -> None:
        """Stop listening and end what is open."""
        await end_service(self._server, self._tasks)

    @contextmanager
    def hold(self, sockets: int) -> Generator[None]:
        """Count more sockets that a connection needs, as long as the context lasts.

        Raises:
            LimitError: There would be more than FORWARD_CONNECTIONS_MAX of both.
        """
        if len(self._tasks) + self._held + sockets > FORWARD_CONNECTIONS_MAX:
            raise LimitError("FORWARD_CONNECTIONS_MAX", FORWARD_CONNECTIONS_MAX)
        self._held += sockets
        try:
            yield
        finally:
            self._held -= sockets

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) + self._held >= FORWARD_CONNECTIONS_MAX:
            reset(writer)
            return
        if self._unread:
            hold_back(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True, slots=True)
class Carriers:
    """By what connections reach members.

    Attributes:
        streams: QUIC, which always works.
        kernel: Kernel TCP, where it can be had.
        pump: Of the node.
    """

    streams: StreamHost
    kernel: InnerTcp
    pump: Pump


@final
class TcpForward:
    """Listens on a local port and forwards each connection to ``port`` of a member.

    Args:
        carriers: What carries the connections.
        node: The member.
        port: The port on the member's loopback.
        tag: Policy tag.
        reach_self: Connects to a port of this node, if that is the member; None: it is another one.

    Attributes:
        carrier: By what the newest connection goes: ``tcp`` or ``quic``; empty: there was none yet, or by neither.
    """

    def __init__(
        self, carriers: Carriers, node: NodeId, port: int, tag: int, *, reach_self: ReachSelf | None = None
    ) -> None:
        self._carriers, self.node, self.port, self.tag = carriers, node, port, tag
        self._reach_self = reach_self
        self._listener = Listener(self._forward, unread=True)
        self.carrier = ""

    @property
    def connections(self) -> int:
        """Connections open now."""
        return self._listener.connections

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; return the address in use (``port`` 0: the system chooses one).

        Raises:
            UserError: A404, the address cannot be had.
        """
        address = await self._listener.start(host, port)
        if self._reach_self is None:
            self._carriers.kernel.expect(self.node)
        return address

    async def close(self) -> None:
        """Stop listening and reset what is open."""
        await self._listener.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._reach_self is not None:
                let_go(writer)
                with self._listener.hold(1):
                    await splice(await self._reach_self(self.port), reader, writer)
            else:
                await self._carry(reader, writer)
        except (LimitError, BrokenStreamError):
            pass
        finally:
            if not writer.is_closing():  # It came to no connection.
                reset(writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carriers = self._carriers
        far = await carriers.kernel.open(self.node, self.tag, self.port)
        self.carrier = "quic" if far is None else "tcp"
        if far is None:
            stream = carriers.streams.open(self.node, self.tag, Service(Kind.TCP, self.port))
            let_go(writer)
            await splice(stream, reader, writer)
            return
        try:
            near = taken_over(writer)
        except OSError:  # No file is left.
            far.close()
        else:
            await carriers.pump.splice(near, far)


@final
class TcpService:
    """The serving side: connects incoming streams to ports of this machine's loopback, and to nothing else.

    Args:
        allow: The policy.
    """

    def __init__(self, allow: Allow) -> None:
        self._allow = allow

    async def serve(self, stream: Stream, service: Service) -> None:
        """Serve one stream until it ends."""
        if service.port == 0 or not self._allow(stream.node, "tcp", service.port):
            stream.refuse(Reason.FORBIDDEN)
            return
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(LOOPBACK, service.port, limit=READ_BYTES_MAX)
        except (OSError, TimeoutError):
            stream.refuse(Reason.REFUSED)
            return
        stream.accept()
        await splice(stream, reader, writer)


async def splice(
    stream: FarEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes = b""
) -> None:
    """Copy both ways until both have ended, or reset both sides as soon as one breaks; ``first`` goes ahead upwards."""

    def end(is_whole: bool) -> None:  # noqa: FBT001 - the shape that ``both_ways`` calls.
        stream.close()
        if is_whole:
            writer.close()
        else:
            reset(writer)

    await both_ways(_copy_up(stream, reader, first), _copy_down(stream, writer), end)


async def _copy_up(stream: FarEnd, reader: asyncio.StreamReader, first: bytes) -> None:
    if first:
        await stream.write(first)
    while data := await reader.read(READ_BYTES_MAX):
        await stream.write(data)
    stream.write_end()


async def _copy_down(stream: FarEnd, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read(READ_BYTES_MAX):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once: the other side sees a reset."""
    connection: socket.socket = writer.get_extra_info("socket")
    if connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()
