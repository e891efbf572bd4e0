# SPDX-License-Identifier: Apache-2.0
"""Has the other holders keep the snapshots of an environment too, so that none of them replays from the beginning.

The node that runs it offers each snapshot that it has kept. A holder that has the block after which it was taken reads
it in parts, one part at a time and after everything else, checks it against that block in its own journal, and keeps
it. Whatever is lost is asked for again a few times; what does not come is made good by the next snapshot.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Final, Protocol, final

from atoll.base.errors import CorruptError, LimitError, LinkError
from atoll.base.ids import NodeId
from atoll.domain.limits import (
    SHIP_LOOK_S,
    SHIP_PART_S,
    SHIP_PAUSE_S,
    SHIP_TRIES,
    SHIPPED_AT_ONCE,
    SHIPPED_PENDING_MAX,
    STATE_BYTES_MAX,
)
from atoll.domain.parcels import Parcels, Part, open_state
from atoll.domain.recorder.messages import Blocks, Done, RefusedError
from atoll.env.chain import Block, Sealed, Sealer
from atoll.env.history import check_written, written_in
from atoll.env.holding.events import ReadSnapshot
from atoll.env.limits import PART_BYTES
from atoll.env.messages import StateGiven, StateOffered, StateWanted, encode_message

__all__ = ["Shipper", "Shipping"]

log: Final = logging.getLogger("atoll.envs")

Shipping = StateOffered | StateWanted | StateGiven
"""What nodes say to each other about it."""


class Keeps(Protocol):
    """What is needed of the recorder."""

    def read(self, environment: bytes, number: int, bytes_max: int) -> Awaitable[Blocks]:
        """Return blocks from a number on."""
        ...

    def keep_snapshot(self, environment: bytes, number: int, content: bytes) -> Awaitable[Done]:
        """Keep a state."""
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

    def keepers(self, identity: bytes) -> tuple[bytes, tuple[bytes, ...]]:
        """Return who owns an environment that is here, and who keeps it; empty: nobody, as far as is known."""
        ...

    def knows(self, sealer: Sealer) -> bool:
        """Tell whether a sealer is a member's."""
        ...

    def tell_node(self, node: NodeId, payload: bytes) -> None:
        """Send a message to another node; it may be lost."""
        ...

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Do this beside everything else."""
        ...

    async def snapshot_kept(self, identity: bytes, number: int) -> None:
        """Go on from there being a snapshot after a block."""
        ...


@dataclass(slots=True)
class _Coming:
    """A snapshot that is on its way here.

    Attributes:
        node: From whom.
        number: Block after which it was taken.
        part: The part that was asked for; None: none is.
        offset: Where that begins.
    """

    node: NodeId
    number: int
    part: "asyncio.Future[StateGiven] | None" = None
    offset: int = 0


@final
class Shipper:
    """The snapshots of one node that come and go.

    Args:
        server: Whose environments they are of.
        parcels: Gives snapshots away.
    """

    def __init__(self, server: Around, parcels: Parcels) -> None:
        self._server, self._parcels = server, parcels
        self._coming: dict[bytes, _Coming] = {}
        self._at_once: Final = asyncio.Semaphore(SHIPPED_AT_ONCE)

    def offer(self, identity: bytes, number: int) -> None:
        """Tell the other holders of a snapshot that is kept here."""
        _, holders = self._server.keepers(identity)
        for node in holders:
            if node != self._server.sealer.node:
                self._server.tell_node(NodeId(node), encode_message(StateOffered(identity, number)))

    def heard(self, node: NodeId, message: Shipping) -> None:
        """Take what another node says. Nothing that it holds raises."""
        own, (owner, holders) = self._server.sealer.node, self._server.keepers(message.id)
        match message:
            case StateOffered():
                if node == owner and node != own and own in holders:
                    self._offered(node, message)
            case StateWanted():
                if node in holders:
                    self._give(node, message)
            case _:
                self._given(node, message)

    def _give(self, node: NodeId, wanted: StateWanted) -> None:
        def told(part: Part | None) -> None:
            if part is None or (part.number, part.offset) != (wanted.number, wanted.offset):
                given = StateGiven(wanted.id, wanted.number, wanted.offset, 0)
            else:
                given = StateGiven(wanted.id, wanted.number, wanted.offset, part.total, part.payload)
            self._server.tell_node(node, encode_message(given))

        self._parcels.read(wanted.id, ReadSnapshot(node, wanted.number, wanted.offset, PART_BYTES), told)

    def _offered(self, node: NodeId, offered: StateOffered) -> None:
        if offered.id not in self._coming and len(self._coming) < SHIPPED_PENDING_MAX:
            self._coming[offered.id] = _Coming(node, offered.number)
            self._server.spawn(self._take(offered.id))

    def _given(self, node: NodeId, given: StateGiven) -> None:
        coming = self._coming.get(given.id)
        if coming is None or coming.part is None or coming.part.done():
            return
        if (node, given.number, given.offset) == (coming.node, coming.number, coming.offset):
            coming.part.set_result(given)

    async def _take(self, identity: bytes) -> None:
        """Get a snapshot, check it, keep it."""
        coming = self._coming[identity]
        try:
            async with self._at_once:
                block = await self._block(identity, coming.number)
                content = _checked(await self._whole(identity, coming), identity, block, self._server)
                await self._server.recorder.keep_snapshot(identity, coming.number, content)
                await self._server.snapshot_kept(identity, coming.number)
        except (TimeoutError, CorruptError, RefusedError, LinkError, LimitError) as error:
            log.info("a snapshot of another node is not kept: %s", error)
        finally:
            del self._coming[identity]

    async def _block(self, identity: bytes, number: int) -> Block:
        """Return the block after which a snapshot was taken, from the own journal, once it is there.

        Raises:
            TimeoutError: It does not come.
            LinkError: The recorder is lost.
        """
        for _ in range(SHIP_TRIES):
            try:
                items = (await self._server.recorder.read(identity, number, 1)).items
            except RefusedError:
                items = ()
            for item in items:
                if isinstance(item, Sealed) and item.block.number == number:
                    return item.block
            await asyncio.sleep(SHIP_LOOK_S)
        raise TimeoutError(f"block {number} is not here")

    async def _whole(self, identity: bytes, coming: _Coming) -> bytes:
        """Return what the other node gives, all parts together.

        Raises:
            TimeoutError: A part does not come.
            CorruptError: They do not fit together.
        """
        whole, total = bytearray(), 0
        while not total or len(whole) < total:
            given = await self._next(identity, coming, len(whole))
            if not 1 <= given.total <= STATE_BYTES_MAX or (total and given.total != total):
                raise CorruptError("it is gone")
            total = given.total
            whole += given.payload
            if not given.payload or len(whole) > total:
                raise CorruptError("its parts do not fit")
            await asyncio.sleep(SHIP_PAUSE_S)
        return bytes(whole)

    async def _next(self, identity: bytes, coming: _Coming, offset: int) -> StateGiven:
        coming.offset = offset
        for _ in range(SHIP_TRIES):
            coming.part = asyncio.get_running_loop().create_future()
            self._server.tell_node(coming.node, encode_message(StateWanted(identity, coming.number, offset)))
            await asyncio.wait((coming.part,), timeout=SHIP_PART_S)
            if coming.part.done():
                return coming.part.result()
        raise TimeoutError(f"the part at byte {offset} does not come")


def _checked(payload: bytes, identity: bytes, block: Block, server: Around) -> bytes:
    """Return the snapshot in what another node sent.

    The block says what state came of it; nodes only say whose the rest is. Whoever runs an environment can say in its
    journal as well who keeps it and which code it has, so it is trusted with that here.

    Raises:
        CorruptError: It is not the state after this block.
    """
    state, snapshot = open_state(payload, identity)
    if not server.knows(state.sealer):
        raise CorruptError("it was signed by somebody who is no member")
    if state.at.number != block.number:
        raise CorruptError(f"it is not of block {block.number}")
    check_written(snapshot, written_in(block))
    return state.content
