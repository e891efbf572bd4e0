# SPDX-License-Identifier: Apache-2.0
"""The methods for programs that stay attached: connections, datagrams, and news of the members."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, final

import msgspec

from atoll.base.errors import LimitError, UserError
from atoll.base.ids import NodeId
from atoll.conduit.correspondence import Correspondence
from atoll.conduit.dial import dial, dial_self
from atoll.conduit.far import FarEnd
from atoll.conduit.names import Missing
from atoll.conduit.proxy_answer import DENIALS
from atoll.conduit.stream import BrokenStreamError, Reason
from atoll.node.addresses import PORT_MAX
from atoll.node.attached import Upgrade, serve_datagrams, serve_stream
from atoll.node.limits import ATTACHED_MAX, EVENTS_ALIVE_S, EVENTS_INTERVAL_S
from atoll.node.parameters import decoded, tag_number
from atoll.node.reporting import name_of, status_view
from atoll.node.service import Node
from atoll.node.views import AttachedView, EventView, PeerView
from atoll.overlay.policy import TAG_NAMES

__all__ = ["Attachments"]


class _Connect(msgspec.Struct, forbid_unknown_fields=True):
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=PORT_MAX)]
    tag: str = TAG_NAMES[0]


class _Datagrams(msgspec.Struct, forbid_unknown_fields=True):
    tag: str = TAG_NAMES[0]


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


@final
class Attachments:
    """What programs of this user hold open through the node.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._held = 0

    async def connect(self, params: dict[str, Any]) -> Upgrade:
        """Connect to a port of a member, this node included; its yes or no is the answer."""
        asked = decoded(params, _Connect)
        tag, book = tag_number(asked.tag), self._node.book()
        node = book.locate(asked.host)
        if isinstance(node, Missing):
            raise _denied(node, asked)
        try:
            with self._holding():
                own = node == book.own.node
                far = await (dial_self(asked.port) if own else dial(self._node.stack.carriers, node, asked.port, tag))
        except BrokenStreamError as error:
            raise _denied(error.reason, asked) from error
        except LimitError as error:
            raise _denied(Reason.LIMIT, asked) from error
        return Upgrade(AttachedView(node=name_of(self._node.control, node)), partial(self._stream, far))

    async def datagrams(self, params: dict[str, Any]) -> Upgrade:
        """Open an endpoint that sends datagrams to any member and port, and takes the answers."""
        tag = tag_number(decoded(params, _Datagrams).tag)

        def make(answered: Callable[[NodeId, int, bytes], None]) -> Correspondence:
            return Correspondence(self._node.stack.flows, self._node.book, tag, answered)

        return Upgrade(AttachedView(), partial(self._datagrams, make))

    async def _stream(self, far: FarEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with self._holding():
                await serve_stream(far, reader, writer)
        finally:
            far.close()  # Harmless when repeated; needed when there was no room.

    async def _datagrams(
        self,
        make: Callable[[Callable[[NodeId, int, bytes], None]], Correspondence],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        with self._holding():
            await serve_datagrams(make, partial(name_of, self._node.control), reader, writer)

    @contextmanager
    def _holding(self) -> Generator[None]:
        if self._held >= ATTACHED_MAX:
            raise LimitError("ATTACHED_MAX", ATTACHED_MAX)
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def events(self, params: dict[str, Any]) -> AsyncIterator[msgspec.Struct]:
        """Tell what changes about the members, from now on."""
        decoded(params, _Nothing)
        return self._events()

    async def _events(self) -> AsyncIterator[msgspec.Struct]:
        before, told_at = self._peers(), self._node.loop_time()
        while True:
            await self._node.pause(EVENTS_INTERVAL_S)
            after = self._peers()
            news = list(_news(before, after))
            if not news and self._node.loop_time() - told_at >= EVENTS_ALIVE_S:
                news = [EventView(peer="", what="alive")]  # So that both ends find out when the other is gone.
            for event in news:
                told_at = self._node.loop_time()
                yield event
            before = after

    def _peers(self) -> dict[str, PeerView]:
        return {peer.name: peer for peer in status_view(self._node.around()).peers}


def _denied(why: Missing | Reason, asked: _Connect) -> UserError:
    denial = DENIALS[why]
    target = f"{asked.host} port {asked.port}"
    return UserError(denial.code, denial.sentence.format(target), where=target, fix=denial.fix)


def _news(before: dict[str, PeerView], after: dict[str, PeerView]) -> Iterator[EventView]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None and new is not None:
            yield EventView(peer=name, what="joined", after=new.state)
        elif new is None and old is not None:
            yield EventView(peer=name, what="left", before=old.state)
        elif old is not None and new is not None:
            if old.state != new.state:
                yield EventView(peer=name, what="state", before=old.state, after=new.state, why=new.why)
            if old.via != new.via:
                yield EventView(peer=name, what="path", before=old.via or "", after=new.via or "", why=new.why)
