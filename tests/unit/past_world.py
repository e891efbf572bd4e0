# SPDX-License-Identifier: Apache-2.0
"""Recorded environments for tests of the past: in memory, and on disk as a recorder writes them."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from atoll.domain.loading import FORMAT, Bundle, load
from atoll.domain.recorder.journal import BlockJournal, create_journal
from atoll.domain.recorder.messages import KeptHead
from atoll.env.app import App, Program, program_of
from atoll.env.chain import GENESIS, Block, Frame, Sealed, link_of, pack_body, read
from atoll.env.environment import Environment
from atoll.env.history import Snapshot, decode_snapshot
from atoll.env.pieces import take_all
from atoll.env.records import Arrived, Began, Item, Record
from atoll.env.runner import Runner
from tests.unit.recorder_world import ENVIRONMENT, key_in

CODE = bytes(range(32))
ANN = b"ann" + bytes(13)
BOB = b"bob" + bytes(13)
START_NS = 1_750_000_000_000_000_000
STEP_NS = 1_000_000

_encode = msgspec.msgpack.Encoder().encode

AUCTION = """
import atoll

class Bid(atoll.Tuple):
    who: str
    amount: int

class Best(atoll.Tuple):
    who: str
    amount: int

class Auction(atoll.App):
    best: int = 3
    who: str = ""
    bids: dict[str, int] = {}

    @atoll.on(Bid)
    def bid(self, bid: Bid, ctx):
        if bid.amount < 0:
            raise ValueError("no")
        self.bids[bid.who] = bid.amount
        if bid.amount > self.best:
            self.best, self.who = bid.amount, bid.who
            ctx.log(f"best is {self.best}")
        return Best(self.who, self.best)
"""


def began(code: bytes = CODE, **fields: Any) -> Began:
    return Began(ENVIRONMENT, bytes(32), "auction", code, _encode(fields))


def arrived(party: bytes, first: int, *events: Any, ask: bool = True) -> Arrived:
    """Return a record of items; each is a call under the number of the item."""
    items = [Item(msgspec.Raw(_encode(event)), first + at if ask else 0) for at, event in enumerate(events)]
    return Arrived(party, first, msgspec.Raw(_encode(items)))


def bid(who: str, amount: int) -> dict[str, Any]:
    return {"is": "Bid", "who": who, "amount": amount}


class MemoryShelf:
    """A journal in memory, made by a runner."""

    def __init__(self, programs: dict[bytes, Program], code: bytes = CODE) -> None:
        self.programs = programs
        self.runner = Runner(programs[code], code)
        self.runner.epoch = 1  # That of the blocks.
        self.blocks: list[Block] = []
        self.kept: dict[int, Snapshot] = {}
        self.now_ns = START_NS
        self.first, self.first_event = 1, 1

    @classmethod
    def of(cls, app: type[App], *nested: type[App]) -> "MemoryShelf":
        """Return the journal of a new environment."""
        shelf = cls({CODE: program_of(app, nested)})
        shelf.take(began())
        return shelf

    @property
    def last(self) -> int:
        return self.first + len(self.blocks) - 1

    @property
    def last_event(self) -> int:
        return self.first_event - 1 + sum(block.events for block in self.blocks)

    @property
    def snapshots(self) -> tuple[int, ...]:
        return tuple(self.kept)

    def take(self, *records: Record) -> None:
        for record in records:
            self.now_ns += STEP_NS
            take_all(self.runner, record, self.now_ns)

    @property
    def environment(self) -> Environment:
        """The machine that was recorded."""
        environment = self.runner.environment
        assert isinstance(environment, Environment)
        return environment

    def seal(self, *records: Record) -> None:
        """Apply records and make a block of what was applied."""
        self.take(*records)
        made = self.runner.block()
        assert made is not None
        self.runner.release(made.number)
        self.blocks.append(Block(made.number, 1, made.first_event, made.events, pack_body(made.body)))
        if made.snapshot is not None:
            self.kept[made.number] = decode_snapshot(made.snapshot)

    def checkpoint(self) -> None:
        self.runner.checkpoint(self.now_ns)
        self.seal()

    def prune(self, number: int) -> None:
        """Let go of the blocks up to this one, after which there is a snapshot."""
        block = self.block(number)
        self.blocks = self.blocks[number - self.first + 1 :]
        self.first, self.first_event = number + 1, block.first_event + block.events
        self.kept = {at: kept for at, kept in self.kept.items() if at >= number}

    def block_of(self, event: int) -> int:
        return self.first + bisect_right([block.first_event for block in self.blocks], event) - 1

    def block(self, number: int) -> Block:
        return self.blocks[number - self.first]

    def snapshot(self, number: int) -> Snapshot:
        return self.kept[number]

    def program(self, code: bytes) -> Program:
        return self.programs[code]


class DiskWorld:
    """A state directory with the journal of one environment, as a recorder writes it."""

    def __init__(self, state: Path, source: str = AUCTION) -> None:
        self.state = state
        (state / "envs").mkdir(parents=True)
        (state / "code").mkdir()
        bundle = Bundle(FORMAT, "auction", "Auction", {"auction": source})
        loaded = load(bundle)
        self.code = loaded.code
        (state / "code" / f"{self.code.hex()}.atc").write_bytes(bundle.encode())
        self.directory = state / "envs" / ENVIRONMENT.hex()
        key = key_in(state)
        create_journal(self.directory, key, "auction", GENESIS)
        self.journal = BlockJournal(self.directory, key)
        self.memory = MemoryShelf({self.code: loaded.program}, self.code)
        self.memory.take(began(self.code))

    @property
    def segment(self) -> Path:
        return self.directory / "00000001.atb"

    def seal(self, *records: Record) -> None:
        self.memory.seal(*records)
        self.journal.append(self.memory.blocks[-1])
        self.journal.commit()

    def checkpoint(self) -> None:
        self.memory.checkpoint()
        self.journal.append(self.memory.blocks[-1])
        self.journal.commit()
        number = self.memory.last
        self.journal.keep_snapshot(number, self.memory.kept[number].encode())

    def bids(self, count: int, *, block: int = 4) -> None:
        """Let two parties bid, so many bids in a block."""
        numbers = dict.fromkeys((ANN, BOB), 0)
        for begin in range(0, count, block):
            party = (ANN, BOB)[begin // block % 2]
            name = party.rstrip(b"\0").decode()
            events: Sequence[Any] = [bid(name, begin + at) for at in range(min(block, count - begin))]
            self.seal(arrived(party, numbers[party] + 1, *events))
            numbers[party] += len(events)

    def sealed(self) -> list[Sealed]:
        """Return the blocks of the first segment, as they were sealed."""
        found = [frame.item for frame in read(self.segment.read_bytes()) if isinstance(frame, Frame)]
        return [item for item in found if isinstance(item, Sealed)]

    def head(self, number: int) -> KeptHead:
        """Return the head of a block as another node keeps it."""
        heads = [GENESIS.head, *(one.seal.head for one in self.sealed())]
        one = self.sealed()[number - 1]
        return KeptHead(ENVIRONMENT, link_of(heads[number - 1], one.block), one.seal.signature)
