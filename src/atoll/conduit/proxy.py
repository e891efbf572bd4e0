# SPDX-License-Identifier: Apache-2.0
"""The proxy: one local port through which programs that know SOCKS5 or HTTP CONNECT reach any member by its name.

A client is told yes only when the member has said yes, and a refusal there is a refusal here. This node itself is
reached over its own loopback, without a detour. What may be asked for is decided in ``proxy_wire`` and ``names``, and
what is answered in ``proxy_answer``.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, final

from atoll.base.errors import LimitError, UserError
from atoll.conduit.dial import dial, dial_self
from atoll.conduit.forward import Carriers, Listener, reset, splice
from atoll.conduit.forward_udp import Flows
from atoll.conduit.limits import (
    PROXY_HANDSHAKE_S,
    PROXY_LINGER_S,
    READ_BYTES_MAX,
)
from atoll.conduit.names import Book, Missing
from atoll.conduit.proxy_answer import DENIALS, accepted, denied
from atoll.conduit.proxy_udp import ASSOCIATION_SOCKETS, Association
from atoll.conduit.proxy_wire import Command, Handshake, Refuse, Request, Say
from atoll.conduit.stream import BrokenStreamError, Reason

__all__ = ["Proxy"]


@final
class Proxy:
    """Listens on a local port and connects each client to the member that it names.

    Args:
        carriers: What carries the connections.
        flows: For datagrams.
        book: Says who is who now; asked for each request.
        tag: Policy tag of all that goes through it.
    """

    node: Final = None  # It leads to every member, so that it does not end with any of them.

    def __init__(self, carriers: Carriers, flows: Flows, book: Callable[[], Book], tag: int) -> None:
        self._carriers, self._flows, self._book, self.tag = carriers, flows, book, tag
        self._listener = Listener(self._serve)

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return self._listener.connections

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; return the address in use (``port`` 0: the system chooses one).

        Raises:
            UserError: A404, the address cannot be had.
        """
        return await self._listener.start(host, port)

    async def close(self) -> None:
        """Stop listening and reset what is open."""
        await self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client: socket.socket = writer.get_extra_info("socket")
        handshake = Handshake()
        try:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # One that vanished must not hold its place.
            async with asyncio.timeout(PROXY_HANDSHAKE_S):
                ended = await _asked(handshake, reader, writer)
            if isinstance(ended, Request):
                ended = await self._grant(ended, handshake.rest, reader, writer)
            if isinstance(ended, Refuse):
                await _refuse(ended.data, reader, writer)
        except OSError:  # The client is gone, or too slow: TimeoutError is one of them.
            pass
        finally:
            if not writer.is_closing():  # Else it was closed in order, and what it still has to send must leave.
                reset(writer)

    async def _grant(
        self, request: Request, rest: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Refuse | None:
        """Do what was asked, to its end; or return why not."""
        book = self._book()
        try:
            if request.command is Command.ASSOCIATE:
                await self._associate(request, reader, writer)
                return None
            node = book.locate(request.host)
            if isinstance(node, Missing):
                return _denial(request, node)
            if node == book.own.node:
                await self._reach_self(request, rest, reader, writer)
                return None
            far = await dial(self._carriers, node, request.port, self.tag)
        except BrokenStreamError as error:
            return _denial(request, error.reason)
        except (LimitError, UserError):
            return _denial(request, Reason.LIMIT)
        writer.write(accepted(request.speech))
        await splice(far, reader, writer, rest)
        return None

    async def _reach_self(
        self, request: Request, rest: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with self._listener.hold(1):
            far = await dial_self(request.port)
            writer.write(accepted(request.speech))
            await splice(far, reader, writer, rest)

    async def _associate(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay datagrams as long as the client keeps this connection (RFC 1928, sections 6 and 7)."""
        client: socket.socket = writer.get_extra_info("socket")
        own_host, client_host = str(client.getsockname()[0]), str(client.getpeername()[0])
        with self._listener.hold(ASSOCIATION_SOCKETS):
            association = Association(self._flows, self._book, self.tag, (client_host, request.port))
            try:
                address, port = await association.start(own_host)
                writer.write(accepted(request.speech, address, port))
                while await reader.read(READ_BYTES_MAX):
                    pass  # Nothing is said on it any more; what is said all the same means nothing.
                writer.close()
            finally:
                association.close()


async def _asked(
    handshake: Handshake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | Refuse | None:
    """Return the end of a handshake; None: the client ended before."""
    while data := await reader.read(READ_BYTES_MAX):
        for step in handshake.feed(data):
            if not isinstance(step, Say):
                return step
            writer.write(step.data)
    return None


def _denial(request: Request, why: Reason | Missing) -> Refuse:
    return Refuse(denied(request.speech, request.target, DENIALS[why]))


async def _refuse(data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(PROXY_LINGER_S):
        while await reader.read(READ_BYTES_MAX):
            pass
    writer.close()
