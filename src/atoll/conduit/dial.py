# SPDX-License-Identifier: Apache-2.0
"""Connections to any member by its name, this node included: opened only when the far side has said yes."""

import asyncio
from dataclasses import dataclass
from typing import Final, final

from atoll.base.ids import NodeId
from atoll.conduit.far import FarEnd
from atoll.conduit.kernel import InnerTcp
from atoll.conduit.limits import DIAL_TIMEOUT_S, PROXY_VERDICT_S, READ_BYTES_MAX
from atoll.conduit.pump import Pump, reset
from atoll.conduit.stream import BrokenStreamError, Kind, Reason, Service
from atoll.conduit.streams import StreamHost

__all__ = ["LOOPBACK", "Carriers", "dial", "dial_self"]

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Carriers:
    """By what connections reach members.

    Attributes:
        own: This node, which is reached over its own loopback.
        streams: QUIC, which always works.
        kernel: Kernel TCP, where it can be had.
        pump: Of the node.
    """

    own: NodeId
    streams: StreamHost
    kernel: InnerTcp
    pump: Pump


async def dial(carriers: Carriers, node: NodeId, port: int, tag: int) -> FarEnd:
    """Return a connection to a port of another member, which it has accepted.

    Raises:
        BrokenStreamError: It refused, or said nothing in time.
        LimitError: Too many connections or streams.
    """
    stream = await carriers.kernel.open(node, tag, port) or carriers.streams.open(node, tag, Service(Kind.TCP, port))
    try:
        async with asyncio.timeout(PROXY_VERDICT_S):
            await stream.accepted()
    except TimeoutError as error:
        stream.close()
        raise BrokenStreamError(Reason.UNREACHABLE) from error
    except BaseException:  # A refusal, or a cancellation: in any case it must not stay open.
        stream.close()
        raise
    return stream


async def dial_self(port: int) -> FarEnd:
    """Return a connection to a port of this node's own loopback.

    Raises:
        BrokenStreamError: Nobody listens there.
    """
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=READ_BYTES_MAX)
    except OSError as error:
        raise BrokenStreamError(Reason.REFUSED) from error
    return _OwnEnd(reader, writer)


@final
class _OwnEnd:
    """A connection to this node's own loopback, as ``splice`` wants the far side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader: Final = reader
        self._writer: Final = writer
        self._ends = 0

    async def read(self, size_max: int) -> bytes:
        data = await self._reader.read(size_max)
        self._ends += not data
        return data

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def write_end(self) -> None:
        self._writer.write_eof()
        self._ends += 1

    def close(self) -> None:
        if self._ends == 2:
            self._writer.close()
        else:
            reset(self._writer)
