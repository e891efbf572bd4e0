# SPDX-License-Identifier: Apache-2.0
"""The group as a Python program sees it: who is there, how to reach them, what changes."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, final

import msgspec

from atoll.base.errors import UserError
from atoll.client.connection import Writer, joined
from atoll.client.datagrams import Datagrams
from atoll.client.environments import Desk, RemoteEnvironment
from atoll.host.places import default_state
from atoll.node.api import call, open_call
from atoll.node.state import SOCKET_NAME
from atoll.node.views import EventView, PeerView, StatusView

__all__ = ["Event", "Group", "join"]

EVENTS_WAITING_MAX: Final = 1024  # Limit. News that a program has not taken yet; at it the oldest goes.

Event = EventView


def join(state: str | Path | None = None) -> "Group":
    """Return the group of the node that runs on this machine, to be used with ``async with``.

    Args:
        state: The node's state directory; None: ``ATOLL_STATE``, or the one that ``atoll up`` uses by itself.
    """
    chosen = state if state is not None else os.environ.get("ATOLL_STATE") or default_state()
    return Group(Path(chosen).expanduser())


@final
class Group:
    """One group, through one node.

    Args:
        state: The node's state directory.

    Attributes:
        name: The group's name.
        node: This machine's name in it.
        address: This machine's overlay address.
    """

    def __init__(self, state: Path) -> None:
        self._state, self._path = state, state / SOCKET_NAME
        self.name = self.node = self.address = ""
        self._peers: dict[str, PeerView] = {}
        self._waiting: list[asyncio.Queue[EventView | None]] = []
        self._follower: asyncio.Task[None] | None = None
        self._news: asyncio.StreamWriter | None = None
        self._desk: Desk | None = None
        self._opening: Final = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Attach.

        Raises:
            UserError: A401, no node runs here.
        """
        reader, self._news = await open_call(self._path, "events")
        await self._refresh()
        self._follower = asyncio.get_running_loop().create_task(self._follow(reader))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach. Connections and endpoints that are still open stay open; what environments were sent is delivered."""
        if self._desk is not None:
            await self._desk.__aexit__(kind, error, trace)
        if self._news is not None:
            self._news.close()
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)

    @property
    def peers(self) -> Mapping[str, PeerView]:
        """The other members by name, as of the last news (some tenths of a second ago)."""
        return MappingProxyType(self._peers)

    async def open_connection(
        self, node: str, port: int, *, tag: str = "latency"
    ) -> tuple[asyncio.StreamReader, Writer]:
        """Connect to a TCP port of a member's loopback, this machine's included, over the healing paths.

        Args:
            node: Name or overlay address.
            port: 1 to 65535.
            tag: What the path is chosen for: latency, direct, throughput or loss.

        Returns:
            As ``asyncio.open_connection``: a reader and a writer. A break is a ConnectionResetError, never an end.

        Raises:
            UserError: A210, no such member; A430, no address of the overlay; A405, A431, A432 or A499, it did not
                answer, refused, forbids it, or a limit is reached; A401, no node runs here.
        """
        frames, raw = await self._attached("connect", {"host": node, "port": port, "tag": tag})
        return joined(frames, raw, (node, port))

    async def open_datagram_endpoint(self, *, tag: str = "latency") -> Datagrams:
        """Open an endpoint for datagrams to any member.

        Raises:
            UserError: A401, no node runs here.
        """
        return Datagrams(*await self._attached("datagrams", {"tag": tag}))

    async def environment(self, name: str) -> RemoteEnvironment:
        """Return the environment of a name, on whichever node it runs, now and later.

        Args:
            name: As ``atoll env list`` shows it; after a slash, one that is nested in it: ``lobby/side``.

        Raises:
            UserError: A609, there is none as far as this node knows; A401 or A611, no node runs environments here.
        """
        outer, _, path = name.partition("/")
        async with self._opening:
            if self._desk is None:
                self._desk = await Desk(self._state).__aenter__()
        found = await self._desk.environment(outer)
        return found.nested(path) if path else found

    async def move(self, name: str, node: str) -> None:
        """Let another node run an environment; who uses it notices a pause.

        Raises:
            UserError: A608, it could not be moved; A609, A610, A611 or A401, as the error says.
        """
        await call(self._path, "env.move", {"name": name, "node": node})

    async def observe(self, *samples: tuple[str, float] | tuple[str, float, float]) -> None:
        """Report how quick components of this program are; a slow one shows in ``atoll status`` of all members.

        A program that measures often uses ``atoll.health`` by itself, or reports many samples at a time.

        Args:
            samples: At most 1000: component (``kind:which``, such as ``db:orders``), latency in seconds, amount (1).

        Raises:
            UserError: A501, what names no component; A499, there are too many; A401, no node runs here.
        """
        names = ("component", "latency_s", "amount")
        told = [dict(zip(names, sample, strict=False)) for sample in samples]
        await call(self._path, "observe", {"samples": told})

    async def events(self) -> AsyncIterator[Event]:
        """Give news of the members as they come, from the call of this on; ends when the node does."""
        queue: asyncio.Queue[EventView | None] = asyncio.Queue()
        self._waiting.append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._waiting.remove(queue)

    async def _attached(
        self, method: str, params: Mapping[str, Any]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await open_call(self._path, method, params)
        return reader, writer

    async def _refresh(self) -> None:
        status = msgspec.json.decode(await call(self._path, "status"), type=StatusView)
        self.name, self.node, self.address = status.group, status.name, status.address
        self._peers = {peer.name: peer for peer in status.peers}

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                event = msgspec.json.decode(line, type=_News).ok
                if event is None or event.what == "alive":
                    continue
                await self._refresh()
                self._tell(event)
        except (OSError, ValueError, UserError, msgspec.DecodeError):
            pass  # The node is gone, or another one is there: no more news.
        finally:
            self._tell(None)

    def _tell(self, event: EventView | None) -> None:
        for queue in self._waiting:
            if queue.qsize() >= EVENTS_WAITING_MAX:
                queue.get_nowait()
            queue.put_nowait(event)


class _News(msgspec.Struct, frozen=True):
    ok: EventView | None = None
