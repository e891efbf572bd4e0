# SPDX-License-Identifier: Apache-2.0
"""The far side of a connection, whatever carries it, and what is the same for every carrier."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Protocol

from atoll.conduit.stream import BrokenStreamError, Reason

__all__ = ["FarEnd", "both_ways", "end_service", "read_exactly"]


class _Readable(Protocol):
    async def read(self, size_max: int) -> bytes: ...


class FarEnd(_Readable, Protocol):
    """What ``splice`` needs of the other side; a ``Stream`` is one. Broken: BrokenStreamError or OSError."""

    async def read(self, size_max: int) -> bytes:
        """Return 1 to ``size_max`` bytes; b"" at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Take bytes, once there is room for them."""
        ...

    def write_end(self) -> None:
        """Close the sending half."""
        ...

    def close(self) -> None:
        """End it; with a reset where a half has not ended."""
        ...


async def read_exactly(source: _Readable, size: int) -> bytes:
    """Return exactly ``size`` bytes.

    Raises:
        BrokenStreamError: As ``read``; or it ended before (RESET).
    """
    data = b""
    while len(data) < size:
        chunk = await source.read(size - len(data))
        if not chunk:
            raise BrokenStreamError(Reason.RESET)
        data += chunk
    return data


async def both_ways(
    up: Coroutine[None, None, None], down: Coroutine[None, None, None], end: Callable[[bool], None]
) -> None:
    """Copy both ways until both have ended, or one breaks.

    Args:
        up: Copies one way.
        down: Copies the other way.
        end: Is called at the end in any case, to close both sides; with whether both ways had ended as they should.
    """
    tasks = asyncio.ensure_future(up), asyncio.ensure_future(down)
    is_whole = False
    try:
        await asyncio.gather(*tasks)
        is_whole = True
    except (BrokenStreamError, OSError):
        pass  # One side broke; the other is told by ``end``.
    finally:
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:  # A cancellation may come here too, and must not leave either side open.
            end(is_whole)


async def end_service(server: asyncio.Server | None, tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Stop listening, and end what is being served."""
    if server is not None:
        server.close()
    ending = tuple(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
