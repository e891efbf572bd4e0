# SPDX-License-Identifier: Apache-2.0
"""Gives the heads of this node's journals to all other members, and keeps theirs.

A recorder that is taken over can write another past, and seal it. It cannot make the others forget what they were told:
``atoll audit verify`` compares. The newest committed head of each journal that has grown is told every few seconds,
which costs each member one small write. What is not committed may be cut off after a change of hands, and would
contradict a sound journal then. Of the others only the owner of an environment is believed, or any member could say
that the journal of another is not what it was.
"""

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from typing import Final, Protocol, final

from atoll.base.errors import LimitError, LinkError
from atoll.base.ids import NodeId
from atoll.domain.limits import HEADS_S
from atoll.domain.recorder.messages import Done, KeptHead, RefusedError
from atoll.env.chain import Link, Seal, Sealer, is_certified, seal_payload, signed_by
from atoll.env.messages import HeadTold, encode_message

__all__ = ["Heads"]

log: Final = logging.getLogger("atoll.envs")


class Keeps(Protocol):
    """What is needed of the recorder."""

    def keep_head(self, node: bytes, kept: KeptHead) -> Awaitable[Done]:
        """Keep a head that a node showed."""
        ...


class News(Protocol):
    """What is needed of the clerk."""

    def news(self) -> dict[bytes, tuple[Link, Seal]]:
        """Take the newest seals of blocks that are committed."""
        ...


class Around(Protocol):
    """What is needed of the server."""

    @property
    def recorder(self) -> Keeps:
        """The recorder."""
        ...

    @property
    def sealer(self) -> Sealer:
        """What it seals as."""
        ...

    def others(self) -> Iterable[NodeId]:
        """Return the other members."""
        ...

    def owner(self, identity: bytes) -> bytes:
        """Return who runs an environment; empty: it is not known."""
        ...

    def knows(self, sealer: Sealer) -> bool:
        """Tell whether a sealer is a member's."""
        ...

    def tell_node(self, node: NodeId, payload: bytes) -> None:
        """Send a message to another node; it may be lost."""
        ...


@final
class Heads:
    """The heads of one node's journals, and those of others.

    Args:
        server: Whose they are.
        clerk: Knows what was sealed.
    """

    def __init__(self, server: Around, clerk: News) -> None:
        self._server, self._clerk = server, clerk

    async def run(self) -> None:
        """Tell, again and again, as long as the server lives."""
        while True:
            await asyncio.sleep(HEADS_S)
            self.tell()

    def tell(self) -> None:
        """Tell what is new."""
        sealer = self._server.sealer
        for identity, (link, seal) in self._clerk.news().items():
            message = encode_message(HeadTold(identity, link, seal.signature, sealer))
            for node in self._server.others():
                self._server.tell_node(node, message)

    async def hear(self, node: NodeId, told: HeadTold) -> None:
        """Keep what another node tells of an environment that it runs, if its own recorder has sealed it."""
        sealer = told.sealer
        is_true = (
            sealer.node == node == self._server.owner(told.id)
            and self._server.knows(sealer)
            and is_certified(sealer)
            and signed_by(sealer.recorder, seal_payload(told.id, told.link.head), told.signature)
        )
        if not is_true:
            return
        try:
            await self._server.recorder.keep_head(node, KeptHead(told.id, told.link, told.signature))
        except (RefusedError, LinkError, LimitError) as error:
            log.warning("a head of another node's journal is not kept: %s", error)
