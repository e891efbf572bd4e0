# SPDX-License-Identifier: Apache-2.0
"""A recorder in memory, with a journal of a small application that a runner has made."""

import asyncio
from hashlib import sha256

import msgspec

from atoll.domain.loading import Bundle
from atoll.domain.recorder.messages import Blocks, Code, Recorded, RefusedError, Snapshot
from atoll.domain.reviving import Archive
from atoll.env.chain import GENESIS, Block, Position, Sealed, Sealer, pack_body
from atoll.env.records import Arrived, Began, Held
from atoll.env.runner import Runner
from tests.unit.recorder_world import ENVIRONMENT, NODE, Hand
from tests.unit.steward_world import ANN, Add, items

SHOP = """
import atoll

class Add(atoll.Tuple):
    n: int

class Shop(atoll.App):
    n: int = 0

    @atoll.on(Add)
    def add(self, add: Add, ctx: atoll.Context) -> None:
        self.n += add.n
"""
BUNDLE = Bundle(1, "shop", "Shop", {"shop": SHOP}).encode()
NEXT = Bundle(1, "shop", "Shop", {"shop": SHOP.replace("self.n += add.n", "self.n += 10 * add.n")}).encode()
CODE, NEXT_CODE = sha256(BUNDLE).digest(), sha256(NEXT).digest()
HAND = Hand()
HOLDERS = (NODE, b"other-node")


class Shelf:
    """A recorder in memory, with a journal that a runner has made."""

    def __init__(self) -> None:
        self.code = {CODE: BUNDLE, NEXT_CODE: NEXT}
        self.code_error = Code.UNKNOWN
        self.sealed: list[Sealed] = []
        self.snapshots: dict[int, bytes] = {}
        self.at = GENESIS
        self.first = 1
        self.at_once = 2  # Blocks that one answer gives.

    async def read_code(self, digest: bytes) -> bytes:
        if digest not in self.code:
            raise RefusedError(self.code_error, "none")
        return self.code[digest]

    async def read_snapshot(self, environment: bytes, number: int) -> Snapshot:
        assert environment == ENVIRONMENT
        return Snapshot(1, number, b"h" * 32, self.snapshots[number], 1)

    async def read(self, environment: bytes, number: int) -> Blocks:
        assert environment == ENVIRONMENT
        items: tuple[Sealer | Sealed, ...] = tuple(self.sealed[number - 1 : number - 1 + self.at_once])
        return Blocks(1, (HAND.sealer, *items))

    def put(self, body: bytes, events: int, epoch: int = 1) -> None:
        block = Block(self.at.number + 1, epoch, self.at.events + 1, events, pack_body(body))
        sealed, self.at = HAND.seal(self.at, block)
        self.sealed.append(sealed)

    def recorded(self, **more: object) -> Recorded:
        given: dict[str, object] = {"snapshots": tuple(self.snapshots), **more}
        at = given.pop("at", self.at)
        assert isinstance(at, Position)
        return Recorded(ENVIRONMENT, "shop", self.first, at, **given)  # type: ignore[arg-type]  # As the test says.


def archive_of(shelf: Shelf) -> Archive:
    return Archive(shelf)


def written(*, checkpoint: bool = False, upgrade: bool = False) -> Shelf:
    """Return a journal of five blocks: it began, was told who keeps it, and added 1, 2, 3."""

    async def write() -> Shelf:
        shelf = Shelf()
        archive = archive_of(shelf)
        runner = Runner((await archive.code(CODE)).program, CODE)
        runner.epoch = 1

        def block() -> None:
            made = runner.block()
            assert made is not None
            shelf.put(made.body, made.events)
            if made.snapshot is not None:
                shelf.snapshots[made.number] = made.snapshot

        runner.take(Began(ENVIRONMENT, b"s" * 32, "shop", CODE, b"\x80", NODE), 1)
        block()
        runner.take(Held(HOLDERS, 2), 1)
        block()
        for n in (1, 2, 3):
            runner.take(Arrived(ANN, n, msgspec.Raw(items(Add(n)))), 1 + n)
            if n == 2 and upgrade:
                block()
                runner.upgrade((await archive.code(NEXT_CODE)).program, NEXT_CODE, 3)
            elif n == 2 and checkpoint:
                runner.checkpoint(3)
            block()
        return shelf

    return asyncio.run(write())
