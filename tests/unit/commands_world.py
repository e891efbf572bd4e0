# SPDX-License-Identifier: Apache-2.0
"""What commands about environments need around them: a steward, a real recorder for code, and other nodes."""

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll.base.errors import UserError
from atoll.base.ids import NodeId
from atoll.domain.commands import Commands
from atoll.domain.guest.guests import Guests
from atoll.domain.loading import Bundle
from atoll.domain.messages import MemberSeen
from atoll.domain.recorder.client import RecorderClient
from atoll.domain.recorder.process import RecorderProcess
from atoll.domain.recorder.store import Store
from atoll.domain.reviving import Archive
from atoll.env.messages import Notice, Notices
from atoll.env.orders import StoreSnapshot, Told
from atoll.env.steward import Steward
from tests.unit.recorder_world import key_in
from tests.unit.steward_world import Place, node_id

WAIT_S = 20.0
TWO = node_id("two")
SOURCE = """
import atoll

class Add(atoll.Tuple):
    n: int

class Hang(atoll.Tuple):
    pass

class Shop(atoll.App):
    n: int = 0
    odd: object = None
    cells: dict[tuple[int, int], str] = {}

    @atoll.on(Add)
    def add(self, add: Add, ctx: atoll.Context) -> None:
        self.n += add.n
        if add.n == 13:
            self.odd = object()
        if add.n == 17:
            self.cells[1, 2] = "here"
        if add.n == 19:
            self.odd = "x" * (2 << 20)

    @atoll.on(Hang)
    async def hang(self, hang: Hang, ctx: atoll.Context) -> None:
        await ctx.sleep(60)
"""


def code(source: str = SOURCE) -> bytes:
    return Bundle(1, "shop", "Shop", {"shop": source.replace("odd: object", "odd: __import__('typing').Any")}).encode()


class Around:
    """What commands need: a steward whose recorder answers at once, and a real recorder for code."""

    def __init__(self, state: Path) -> None:
        self.place = Place()
        key = key_in(state)
        ours, theirs = socket.socketpair()
        self.process = RecorderProcess(theirs, Store(state, key), key)
        self.recorder = RecorderClient(ours)
        self.archive = Archive(self.recorder)
        self.guests = Guests()
        self.name = "one"
        self.members: dict[NodeId, MemberSeen] = {TWO: MemberSeen(TWO, "two", bytes(32))}
        self.asked: list[tuple[NodeId, str, bytes]] = []
        self.answer: bytes | UserError = b'{"there":1}'
        self.is_slow = False
        self.refused_snapshot: Exception | None = None
        self.is_storing = True  # A snapshot is kept, or refused, at once.
        self.spread: list[tuple[bytes, list[NodeId], int]] = []
        self.is_spread = True
        self.commands = Commands(self, lambda: self.place.now)

    @property
    def steward(self) -> Steward:
        return self.place.steward

    def name_of(self, node: NodeId) -> str:
        return self.name if node == self.place.own else self.members[node].name if node in self.members else node.hex()

    async def ask_node(self, node: NodeId, verb: str, params: bytes) -> bytes:
        self.asked.append((node, verb, params))
        if isinstance(self.answer, UserError):
            raise self.answer
        return self.answer

    async def code_shown(self, code: bytes, nodes: Sequence[NodeId], count: int) -> bool:
        self.spread.append((code, list(nodes), count))
        return self.is_spread

    def stir(self) -> None:
        if not self.is_slow:
            before = len(self.place.got(Told))
            stored = len(self.place.got(StoreSnapshot))
            self.place.settle()
            for told in self.place.got(Told)[before:]:
                self.commands.told(told)
            for order in self.place.got(StoreSnapshot)[stored:]:
                if self.is_storing:
                    self.commands.stored(order.id, order.number, self.refused_snapshot)

    async def do(self, verb: str, **params: Any) -> Any:
        """Obey, while the recorder works."""
        work = asyncio.ensure_future(self.commands.obey(verb, msgspec.json.encode(params)))
        while not work.done():
            self.process.turn(0)
            await asyncio.sleep(0)
        return json.loads(work.result())

    async def refused(self, verb: str, **params: Any) -> UserError:
        with pytest.raises(UserError) as caught:
            await self.do(verb, **params)
        return caught.value

    async def run(self, name: str = "shop", **params: Any) -> Any:
        return await self.do("run", **{"name": name, "bundle": code(), "copies": 1, **params})

    def elsewhere(self, name: str = "store", owner: NodeId = TWO) -> None:
        """Let an environment run on another node."""
        notice = Notice(b"e" * 16, 1, owner, name, "Store", b"c" * 32, (owner,))
        self.steward.heard(owner, Notices((notice,)), self.place.now)


def run(state: Path, test: Callable[[Around], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        around = Around(state)
        try:
            async with asyncio.timeout(WAIT_S):
                await test(around)
        finally:
            around.guests.close()
            around.recorder.close()
            while around.process.turn(0):
                pass
            around.process._store.close()  # pyright: ignore[reportPrivateUsage]

    asyncio.run(bounded())
