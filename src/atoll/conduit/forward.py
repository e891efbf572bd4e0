# SPDX-License-Identifier: Apache-2.0
"""TCP forwards: a local port whose connections come out at a port of another member. Both ends of it.

Each accepted connection is one of kernel TCP where both sides have it (``kernel``), else one stream. What one side
does, the other side sees: a half-close as a half-close, a reset as a reset; a refusal at the far end as a reset,
because the local connection was accepted before anybody could know.

A forward to several members tries one after the other, and waits for a yes before it reads anything from the program:
so no byte is lost on the way to the next one. What stands is never moved.
"""

import asyncio
import errno
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import final

from atoll.base.errors import LimitError, UserError
from atoll.base.ids import NodeId
from atoll.conduit.dial import LOOPBACK, Carriers, dial, dial_self
from atoll.conduit.far import FarEnd, both_ways, end_service
from atoll.conduit.kernel import Allow
from atoll.conduit.limits import (
    DIAL_TIMEOUT_S,
    FORWARD_CONNECTIONS_MAX,
    PROXY_VERDICT_S,
    READ_BYTES_MAX,
    TARGET_VERDICT_S,
    TARGETS_MAX,
)
from atoll.conduit.pump import InnerConnection, hold_back, let_go, reset, taken_over
from atoll.conduit.stream import BrokenStreamError, Kind, Reason, Service, Stream
from atoll.conduit.timing import Timed, Timing, untold

__all__ = [
    "LOOPBACK",
    "Carriers",
    "Listener",
    "Order",
    "Targets",
    "TcpForward",
    "TcpService",
    "as_given",
    "local_port_taken",
    "reset",
    "splice",
]


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


Order = Callable[[tuple[NodeId, ...]], Sequence[NodeId]]
"""Return the same members, that one first which a new connection should try first; called at each try."""


def as_given(nodes: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
    """Leave members in the order in which they were named."""
    return nodes


@dataclass(frozen=True, slots=True)
class Targets:
    """Where the connections of a forward may go.

    Attributes:
        nodes: 1 to TARGETS_MAX members, this node too, each once, the preferred first.
        port: The port on the loopback of each.
        order: Ranks them; not called for a single one.
    """

    nodes: tuple[NodeId, ...]
    port: int
    order: Order = as_given

    def __post_init__(self) -> None:
        """See that they are so many, and each another one."""
        assert 1 <= len(self.nodes) <= TARGETS_MAX
        assert len(dict.fromkeys(self.nodes)) == len(self.nodes)


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


@final
class TcpForward:
    """Listens on a local port and forwards each connection to a port of a member, or of one of several.

    Args:
        carriers: What carries the connections.
        targets: The members and the port.
        tag: Policy tag.

    Attributes:
        nodes: The members, the preferred first; at least one.
        carrier: By what the newest connection goes: ``tcp`` or ``quic``; empty: there was none yet, or by neither.
    """

    def __init__(self, carriers: Carriers, targets: Targets, tag: int) -> None:
        self._carriers, self.nodes, self.port, self.tag = carriers, targets.nodes, targets.port, tag
        self._order = targets.order
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
        for node in self.nodes:
            if node != self._carriers.own:
                self._carriers.kernel.expect(node)
        return address

    def drop(self, node: NodeId) -> bool:
        """Lead to a former member no more; return whether anybody is left. If not, ``close`` it."""
        left = tuple(one for one in self.nodes if one != node)
        self.nodes = left or self.nodes
        return bool(left)

    async def close(self) -> None:
        """Stop listening and reset what is open."""
        await self._listener.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            node, *others = self.nodes
            if others:
                await self._carry_to_best(reader, writer)
            else:
                await self._carry(node, reader, writer)
        except (LimitError, BrokenStreamError):
            pass
        finally:
            if not writer.is_closing():  # It came to no connection.
                reset(writer)

    async def _carry(self, node: NodeId, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a connection to the only member, without waiting for its yes."""
        carriers = self._carriers
        if node == carriers.own:
            with self._listener.hold(1):
                await self._join(await dial_self(self.port), reader, writer)
            return
        far = await carriers.kernel.open(node, self.tag, self.port)
        await self._join(far or carriers.streams.open(node, self.tag, Service(Kind.TCP, self.port)), reader, writer)

    async def _carry_to_best(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a connection to the best member that says yes; each is tried once."""
        tried: list[NodeId] = []
        while left := tuple(node for node in self.nodes if node not in tried):  # Anew: one may depart meanwhile.
            node = self._order(left)[0]
            tried.append(node)
            with ExitStack() as held:
                far = await self._accepted(node, TARGET_VERDICT_S if len(left) > 1 else PROXY_VERDICT_S, held)
                if far is not None:
                    await self._join(far, reader, writer)
                    return

    async def _accepted(self, node: NodeId, wait_s: float, held: ExitStack) -> FarEnd | None:
        """Return a connection that a member has said yes to; None: it said no, or nothing in time."""
        try:
            async with asyncio.timeout(wait_s):
                if node != self._carriers.own:
                    return await dial(self._carriers, node, self.port, self.tag)
                held.enter_context(self._listener.hold(1))
                return await dial_self(self.port)
        except (LimitError, BrokenStreamError, TimeoutError):
            return None

    async def _join(self, far: FarEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a local connection, from which nothing was read yet, over one to a member, until both have ended."""
        if not isinstance(far, InnerConnection):
            self.carrier = "quic" if isinstance(far, Stream) else ""
            let_go(writer)
            await splice(far, reader, writer)
            return
        self.carrier = "tcp"
        try:
            near = taken_over(writer)
        except OSError:  # No file is left.
            far.close()
        else:
            await self._carriers.pump.splice(near, far)


@final
class TcpService:
    """The serving side: connects incoming streams to ports of this machine's loopback, and to nothing else.

    Args:
        allow: The policy.
        timed: Is told how quick the programs are.
    """

    def __init__(self, allow: Allow, timed: Timed = untold) -> None:
        self._allow, self._timed = allow, timed

    async def serve(self, stream: Stream, service: Service) -> None:
        """Serve one stream until it ends."""
        if service.port == 0 or not self._allow(stream.node, "tcp", service.port):
            stream.refuse(Reason.FORBIDDEN)
            return
        timing = Timing(stream.node, service.port, self._timed)
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(LOOPBACK, service.port, limit=READ_BYTES_MAX)
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):  # Else it is ours: no file is left, say.
                timing.refused()
            stream.refuse(Reason.REFUSED)
            return
        timing.connected()
        try:
            stream.accept()
            await splice(stream, reader, writer, timing=timing)
        finally:
            timing.ended()


async def splice(
    stream: FarEnd,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    first: bytes = b"",
    timing: Timing | None = None,
) -> None:
    """Copy both ways until both have ended, or reset both sides as soon as one breaks.

    Args:
        stream: The member's side.
        reader: The program's side.
        writer: The same.
        first: Goes ahead upwards.
        timing: Of the program, if a member called it.
    """

    def end(is_whole: bool) -> None:  # noqa: FBT001 - the shape that ``both_ways`` calls.
        stream.close()
        if is_whole:
            writer.close()
        else:
            reset(writer)

    await both_ways(_copy_up(stream, reader, first, timing), _copy_down(stream, writer, timing), end)


async def _copy_up(stream: FarEnd, reader: asyncio.StreamReader, first: bytes, timing: Timing | None) -> None:
    note = None if timing is None else timing.answered
    if first:
        await stream.write(first)
    while data := await reader.read(READ_BYTES_MAX):
        if note is not None and not note():
            note = None
        await stream.write(data)
    if timing is not None:
        timing.ended()
    stream.write_end()


async def _copy_down(stream: FarEnd, writer: asyncio.StreamWriter, timing: Timing | None) -> None:
    note = None if timing is None else timing.handed
    while data := await stream.read(READ_BYTES_MAX):
        writer.write(data)
        if note is not None and not note():
            note = None
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    if timing is not None:
        timing.handed_end()
