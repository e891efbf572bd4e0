# SPDX-License-Identifier: Apache-2.0
"""Connections with members over the kernel's own TCP, where both sides have the overlay as a network of the kernel.

Owns what is known of the members: who takes such connections, and with which key. A member is asked once, over its
streams; whoever takes none, or is not reached by this carrier, is reached by QUIC as before, and is asked again after
some minutes. Nothing of a program's bytes is sent before a connection stands, so falling back loses nothing.

A connection costs a round trip before its first byte. So that a program does not wait for it, one more is connected
beside each that is used, and taken by the next.

Source: ADR 0026.
"""

import asyncio
import hmac
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final, final

from atoll.base.errors import LimitError, LinkError, UserError, WireError
from atoll.base.ids import NODE_ID_BYTES, GroupId, NodeId, address_of, packed_address_of
from atoll.conduit.far import end_service, read_exactly
from atoll.conduit.limits import (
    DIAL_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    INNER_ABSENT_S,
    INNER_ASK_S,
    INNER_AVOID_S,
    INNER_BACKLOG,
    INNER_CONNECT_S,
    INNER_CONNECTIONS_MAX,
    INNER_OPENING_S,
    INNER_PER_PEER_MAX,
    INNER_SPARE_S,
    INNER_SPARES_MAX,
    INNER_WAIT_S,
    KEEPALIVE_S,
)
from atoll.conduit.opening import OPENING_BYTES, TCP_PORT, Opening
from atoll.conduit.pump import InnerConnection, Pump, hold_back, reset_socket, taken_over
from atoll.conduit.stream import BrokenStreamError, Reason
from atoll.conduit.timing import Timed, Timing, untold

__all__ = ["Allow", "Ask", "InnerService", "InnerTcp", "KeyFor", "Life", "MakeSocket"]

Allow = Callable[[NodeId, str, int], bool]
"""Policy of the serving side: (member, "tcp" or "udp", port) -> whether it may be reached."""

MakeSocket = Callable[[], Awaitable[socket.socket]]
"""Return a new TCP socket in the network of the overlay. Raises LinkError or UserError: there is none."""

Ask = Callable[[NodeId], Awaitable[bytes | None]]
"""Ask a member for its key; None: it takes no such connections. Raises LinkError: no answer."""

Life = Callable[[NodeId], int]
"""Return a number that a member has anew each time it starts."""

KeyFor = Callable[[NodeId], bytes | None]
"""Return the key that a node must show; None: it is no member."""

_LOOPBACK: Final = "127.0.0.1"
_ACCEPTED: Final = b"\0"
_DSCP_SHIFT: Final = 2  # The traffic class has the tag above its two ECN bits.
_BIND_LATER: Final = 24  # IP_BIND_ADDRESS_NO_PORT: the port is chosen when it is known to whom.
_THIN_LINEAR: Final = 16  # TCP_THIN_LINEAR_TIMEOUTS: see _prepared.


def _prepared(connection: socket.socket) -> None:
    """Set what all connections with members have.

    A path that died is left within a second. What was in flight on it is sent again by TCP's timer, which doubles each
    time; not for a connection with fewer than four packets in flight, so that a request is not late by twice the gap.
    """
    connection.settimeout(0)
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, _THIN_LINEAR, 1),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(IDLE_TIMEOUT_S * 1000)),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(KEEPALIVE_S)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(KEEPALIVE_S)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, int(IDLE_TIMEOUT_S / KEEPALIVE_S)),
    ):
        connection.setsockopt(level, option, value)


def _tag(connection: socket.socket, tag: int) -> None:
    connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tag << _DSCP_SHIFT)


@final
class _Held:
    """The connections with members that are open now, in both roles."""

    def __init__(self) -> None:
        self._open: set[InnerConnection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def of(self, node: NodeId) -> int:
        return sum(1 for one in self._open if one.node == node)

    def add(self, made: InnerConnection) -> InnerConnection:
        self._open = {one for one in self._open if one.socket.fileno() >= 0}
        self._open.add(made)
        return made

    def drop(self, node: NodeId | None) -> None:
        for one in tuple(self._open):
            if node is None or one.node == node:
                one.break_off()
                self._open.discard(one)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a member. Without a key: go by QUIC until then."""

    key: bytes | None
    until: float


@dataclass(frozen=True, slots=True)
class _Spare:
    """A connection without a purpose yet; the member's life in which it was made; when it is given up."""

    connection: socket.socket
    life: int
    timer: asyncio.TimerHandle


@final
class InnerTcp:
    """The opening side.

    Args:
        group: The group, for overlay addresses.
        own: This node.
        clock: Monotonic seconds.
    """

    def __init__(self, group: GroupId, own: NodeId, clock: Callable[[], float] = monotonic) -> None:
        self._group, self._own, self._clock = group, own, clock
        self._make: MakeSocket | None = None
        self._ask: Ask | None = None
        self._life: Life = lambda _: 0
        self._known: dict[NodeId, _Known] = {}  # Members only, and forgotten with them.
        self._asking: dict[NodeId, asyncio.Task[None]] = {}
        self._connecting: dict[asyncio.Task[socket.socket], NodeId] = {}
        self._spares: dict[tuple[NodeId, int], _Spare] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = _Held()

    def use(self, make: MakeSocket, ask: Ask, life: Life) -> None:
        """Use this carrier from now on; before, everything goes by QUIC."""
        self._make, self._ask, self._life = make, ask, life

    def expect(self, node: NodeId) -> None:
        """Say that connections to a member are to come, so that it is asked before the first one."""
        if self._ask is not None and self._fresh(node) is None:
            self._asked(node)

    async def open(self, node: NodeId, tag: int, port: int) -> InnerConnection | None:
        """Return a connection to a port of a member, whose verdict is still to come; None: go by QUIC."""
        if self._make is None:
            return None
        known = self._fresh(node)
        if known is None:
            await asyncio.wait((self._asked(node),), timeout=INNER_WAIT_S)
            known = self._fresh(node)
        if known is None or known.key is None or len(self._held) >= INNER_CONNECTIONS_MAX:
            return None
        connection = self._spare(node, tag) or await self._connected(node, tag)
        if connection is None:
            return None
        try:
            connection.send(Opening(port, tag, known.key).encode())  # Room for so few bytes there always is.
        except OSError:
            reset_socket(connection)
            return None
        self._spawn(self._provide(node, tag))
        return self._held.add(InnerConnection(connection, node, is_opener=True))

    def nudge(self, node: NodeId) -> None:
        """Say that the overlay has just left a bad path to a member: its first packets would come again in a second."""
        for task, target in tuple(self._connecting.items()):
            if target == node:
                task.cancel()

    def forget(self, node: NodeId) -> None:
        """End everything with a node that is no member any more."""
        self._known.pop(node, None)
        self._held.drop(node)
        for key in tuple(self._spares):
            if key[0] == node:
                self._drop_spare(key)

    async def close(self) -> None:
        """End everything."""
        self._make = None
        for task in (*self._tasks, *self._asking.values(), *self._connecting):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._asking.values(), *self._connecting, return_exceptions=True)
        for key in tuple(self._spares):
            self._drop_spare(key)
        self._held.drop(None)

    # Who takes it.

    def _fresh(self, node: NodeId) -> _Known | None:
        known = self._known.get(node)
        return None if known is None or self._clock() >= known.until else known

    def _asked(self, node: NodeId) -> "asyncio.Task[None]":
        task = self._asking.get(node)
        if task is None:
            task = self._asking[node] = asyncio.get_running_loop().create_task(self._learn(node))
            task.add_done_callback(lambda _: self._asking.pop(node, None))
        return task

    async def _learn(self, node: NodeId) -> None:
        assert self._make is not None
        assert self._ask is not None
        key, hold_s = None, INNER_ABSENT_S
        try:
            (await self._make()).close()  # Without one here there is nothing to ask.
            async with asyncio.timeout(INNER_ASK_S):
                key = await self._ask(node)
        except UserError:
            pass
        except (LinkError, LimitError, WireError, TimeoutError):
            hold_s = INNER_AVOID_S
        self._known[node] = _Known(key, float("inf") if key is not None else self._clock() + hold_s)

    def _avoid(self, node: NodeId) -> None:
        if node in self._known:
            self._known[node] = _Known(None, self._clock() + INNER_AVOID_S)

    # Connecting.

    async def _connected(self, node: NodeId, tag: int) -> socket.socket | None:
        assert self._make is not None
        try:
            async with asyncio.timeout(INNER_WAIT_S):
                made = await self._make()
        except (LinkError, UserError, TimeoutError):  # That is not the member's fault.
            return None
        task = asyncio.get_running_loop().create_task(self._connect(made, node, tag))
        self._connecting[task] = node
        try:
            await asyncio.wait((task,), timeout=INNER_CONNECT_S)
        except asyncio.CancelledError:
            task.add_done_callback(_discard)
            raise
        finally:
            del self._connecting[task]
            task.cancel()
        if not task.done():
            task.add_done_callback(_discard)
            self._avoid(node)
            return None
        if task.cancelled():  # The path was bad and is left: QUIC resends at once.
            return None
        match task.exception():
            case None:
                return task.result()
            case ConnectionRefusedError() | PermissionError():  # It was started again, and has not been asked yet.
                self._known.pop(node, None)
                self._asked(node)
            case _:
                self._avoid(node)
        return None

    async def _connect(self, connection: socket.socket, node: NodeId, tag: int) -> socket.socket:
        try:
            _prepared(connection)
            _tag(connection, tag)
            connection.setsockopt(socket.IPPROTO_IP, _BIND_LATER, 1)
            connection.bind((address_of(self._group, self._own), 0))
            await asyncio.get_running_loop().sock_connect(connection, (address_of(self._group, node), TCP_PORT))
        except BaseException:  # Cancelled, too.
            connection.close()
            raise
        return connection

    # Spares.

    def _spare(self, node: NodeId, tag: int) -> socket.socket | None:
        spare = self._spares.pop((node, tag), None)
        if spare is None:
            return None
        spare.timer.cancel()
        if spare.life == self._life(node):  # Else the member was started again, and knows nothing of it.
            try:
                spare.connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return spare.connection
            except OSError:
                pass  # It broke; an end is no better.
        spare.connection.close()
        return None

    async def _provide(self, node: NodeId, tag: int) -> None:
        key, life = (node, tag), self._life(node)
        if key in self._spares or len(self._spares) >= INNER_SPARES_MAX:
            return
        connection = await self._connected(node, tag)
        if connection is None:
            return
        if key in self._spares or self._make is None:
            connection.close()
            return
        timer = asyncio.get_running_loop().call_later(INNER_SPARE_S, self._drop_spare, key)
        self._spares[key] = _Spare(connection, life, timer)

    def _drop_spare(self, key: tuple[NodeId, int]) -> None:
        spare = self._spares.pop(key)
        spare.timer.cancel()
        spare.connection.close()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _discard(task: "asyncio.Task[socket.socket]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


@final
class InnerService:
    """The serving side: connects members to ports of this machine's loopback, and to nothing else.

    Args:
        group: The group.
        allow: The policy.
        pump: Of the node.
        timed: Is told how quick the programs are.
    """

    def __init__(self, group: GroupId, allow: Allow, pump: Pump, timed: Timed = untold) -> None:
        self._group, self._allow, self._pump, self._timed = group, allow, pump, timed
        self._key_for: KeyFor = lambda _: None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = _Held()

    @property
    def connections(self) -> int:
        """Connections open now, those that have not yet said what they are for among them."""
        return len(self._tasks)

    async def serve(self, listener: socket.socket, key_for: KeyFor) -> None:
        """Serve a socket in the network of the overlay, bound to this node's address there; owned from now on."""
        self._key_for = key_for
        self._server = await asyncio.start_server(self._accepted, sock=listener, backlog=INNER_BACKLOG)

    def forget(self, node: NodeId) -> None:
        """End everything with a node that is no member any more."""
        self._held.drop(node)

    async def close(self) -> None:
        """Stop listening and end what is open."""
        await end_service(self._server, self._tasks)

    def _accepted(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hold_back(writer)
        try:
            connection = taken_over(writer)
        except OSError:
            writer.transport.abort()
            return
        node = self._caller(connection)
        if node is None:
            reset_socket(connection)
            return
        made = self._held.add(InnerConnection(connection, node, is_opener=False))
        task = asyncio.get_running_loop().create_task(self._served(made))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _caller(self, connection: socket.socket) -> NodeId | None:
        """Return the member that calls. The packet device has compared the source address with the session's key."""
        try:
            host = str(connection.getpeername()[0])
            packed = socket.inet_pton(socket.AF_INET6, host)
        except OSError:  # Gone already, or an address with a scope.
            return None
        node = NodeId(packed[-NODE_ID_BYTES:])
        is_ours = packed == packed_address_of(self._group, node)
        return node if is_ours and self._key_for(node) is not None else None

    async def _served(self, caller: InnerConnection) -> None:
        try:
            dialled = await self._admitted(caller)
            if isinstance(dialled, Reason):
                with suppress(BrokenStreamError):
                    await caller.write(bytes((dialled,)))
                    caller.write_end()
                return
            near, timing = dialled
            try:
                await self._pump.splice(near, caller, _ACCEPTED, timing)
            finally:
                timing.ended()
        except (BrokenStreamError, TimeoutError):
            pass  # The member went away, or never said what it wanted.
        finally:
            caller.close()

    async def _admitted(self, caller: InnerConnection) -> tuple[socket.socket, Timing] | Reason:
        """Return the connection to the port that was asked for, with its timing, or why there is none."""
        if len(self._tasks) > INNER_CONNECTIONS_MAX or self._held.of(caller.node) > INNER_PER_PEER_MAX:
            return Reason.LIMIT
        async with asyncio.timeout(INNER_OPENING_S):
            data = await read_exactly(caller, OPENING_BYTES)
        try:
            opening = Opening.decode(data)
        except WireError:
            return Reason.NO_SERVICE
        key = self._key_for(caller.node)
        if key is None or not hmac.compare_digest(key, opening.key):
            return Reason.FORBIDDEN
        if opening.port == 0 or not self._allow(caller.node, "tcp", opening.port):
            return Reason.FORBIDDEN
        _prepared(caller.socket)
        _tag(caller.socket, opening.tag)
        return await _dialled(opening.port, Timing(caller.node, opening.port, self._timed))


async def _dialled(port: int, timing: Timing) -> tuple[socket.socket, Timing] | Reason:
    try:
        near = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError:
        return Reason.LIMIT
    try:
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            await asyncio.get_running_loop().sock_connect(near, (_LOOPBACK, port))
    except OSError as error:
        near.close()
        if isinstance(error, ConnectionError | TimeoutError):  # Else it is ours: no port is left, say.
            timing.refused()
        return Reason.REFUSED
    except BaseException:
        near.close()
        raise
    timing.connected()
    return near, timing
