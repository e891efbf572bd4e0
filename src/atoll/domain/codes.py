# SPDX-License-Identifier: Apache-2.0
"""Code that goes from node to node: asked for where it is missing, given where it is there, at a named rate.

To ask takes 60 bytes, and code is up to 4 MiB. So each node is given one code after the other, no faster than
GIVEN_BYTES_PER_S, and what it asks for twice meanwhile it is given once.

Who wants to know whether others have code asks them for it: what was given was there. That costs the code once more,
which an upgrade does not notice, and no message of its own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol, final

from atoll.base.errors import LimitError, LinkError
from atoll.base.ids import NodeId
from atoll.domain.limits import CODE_AGAIN_S, CODE_S_MAX, CODE_SHOWN_S, GIVEN_BYTES_PER_S, GIVING_MAX
from atoll.domain.recorder.messages import Done, RefusedError
from atoll.env.limits import CODE_CHUNK_BYTES_MAX
from atoll.env.messages import CodeGiven, CodeWanted, encode_message

__all__ = ["Codes"]

log: Final = logging.getLogger("atoll.envs")


class Keeps(Protocol):
    """What is needed of the recorder."""

    async def read_code(self, digest: bytes) -> bytes:
        """Return an archive of code."""
        ...

    def keep_code(self, digest: bytes, content: bytes) -> Awaitable[Done]:
        """Have an archive of code kept."""
        ...


class Around(Protocol):
    """What is needed of the server."""

    @property
    def recorder(self) -> Keeps:
        """The recorder."""
        ...

    def tell_node(self, node: NodeId, payload: bytes) -> None:
        """Send a message to another node; it may be lost."""
        ...

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Do this beside everything else."""
        ...


@dataclass(eq=False, slots=True)
class _Watch:
    """Somebody wants to know which of some nodes have code."""

    nodes: tuple[NodeId, ...]
    have: dict[NodeId, None] = field(default_factory=dict[NodeId, None])
    news: asyncio.Event = field(default_factory=asyncio.Event)


@final
class Codes:
    """The code that one node gives and gets.

    Args:
        server: Whose recorder has it.
    """

    def __init__(self, server: Around) -> None:
        self._server: Final = server
        self._giving: Final[dict[NodeId, dict[bytes, None]]] = {}  # What each node waits for, in order.
        self._wanted: Final[dict[bytes, dict[asyncio.Future[None], tuple[NodeId, ...]]]] = {}  # And who was asked.
        self._watches: Final[dict[bytes, list[_Watch]]] = {}

    # Giving.

    def asked(self, node: NodeId, code: bytes) -> None:
        """Give code to a node that asks for it, unless it is about to get it or asks for too much; it asks again."""
        waiting = self._giving.setdefault(node, {})
        if code in waiting or len(waiting) >= GIVING_MAX:
            return
        waiting[code] = None
        if len(waiting) == 1:
            self._server.spawn(self._give(node, waiting))

    async def _give(self, node: NodeId, waiting: dict[bytes, None]) -> None:
        """Give a node what it waits for, in order and at the rate.

        What is not here, or is too long, is passed over at once, and the node is not told: it asks others as well, and
        again. So the rate bounds what is sent, and GIVING_MAX how much is looked for in a row.
        """
        try:
            while waiting:
                code = next(iter(waiting))
                content = await self._read(code)
                if 0 < len(content) <= CODE_CHUNK_BYTES_MAX:
                    self._server.tell_node(node, encode_message(CodeGiven(code, content)))
                    await asyncio.sleep(len(content) / GIVEN_BYTES_PER_S)
                del waiting[code]
        finally:
            del self._giving[node]

    async def _read(self, code: bytes) -> bytes:
        try:
            return await self._server.recorder.read_code(code)
        except (RefusedError, LinkError, LimitError):
            return b""  # It is not here, or not now.

    # Getting.

    async def given(self, node: NodeId, code: bytes, content: bytes) -> None:
        """Have code kept that another node gives, if it was asked for it."""
        for watch in self._watches.get(code, ()):
            if node in watch.nodes and sha256(content).digest() == code:
                watch.have[node] = None
                watch.news.set()
        if not any(node in asked for asked in self._wanted.get(code, {}).values()):
            return
        try:
            await self._server.recorder.keep_code(code, content)
        except (RefusedError, LinkError, LimitError) as error:
            log.warning("code that another node sent is not kept: %s", error)
            return
        for waiting in self._wanted.get(code, {}):
            if not waiting.done():
                waiting.set_result(None)

    async def fetch(self, code: bytes, nodes: Iterable[NodeId]) -> None:
        """Have code in the recorder, from one of the nodes that may have it if need be.

        Raises:
            TimeoutError: It did not come in time.
            LinkError: The recorder is lost.
        """
        try:
            await self._server.recorder.read_code(code)
        except RefusedError:
            await self._ask(code, tuple(nodes))

    async def shown(self, code: bytes, nodes: Iterable[NodeId], count: int) -> bool:
        """Wait until so many of these nodes have shown that they have code, by giving it; False: not in CODE_S_MAX."""
        watch = _Watch(tuple(nodes))
        self._watches.setdefault(code, []).append(watch)
        try:
            async with asyncio.timeout(CODE_S_MAX):
                while len(watch.have) < count:
                    watch.news.clear()
                    for node in watch.nodes:
                        if node not in watch.have:
                            self._server.tell_node(node, encode_message(CodeWanted(code)))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(CODE_SHOWN_S):
                            await watch.news.wait()
        except TimeoutError:
            return False
        finally:
            self._watches[code].remove(watch)
            if not self._watches[code]:
                del self._watches[code]
        return True

    async def _ask(self, code: bytes, nodes: tuple[NodeId, ...]) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(code, {})[waiting] = nodes
        try:
            async with asyncio.timeout(CODE_S_MAX):
                while not waiting.done():
                    for node in nodes:
                        self._server.tell_node(node, encode_message(CodeWanted(code)))
                    await asyncio.wait([waiting], timeout=CODE_AGAIN_S)
        finally:
            del self._wanted[code][waiting]
            if not self._wanted[code]:
                del self._wanted[code]
