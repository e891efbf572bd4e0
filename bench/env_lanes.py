# SPDX-License-Identifier: Apache-2.0
"""Clients that call a ledger all the time with numbered operations, and the accounts at the end: part of bench/env.py.

One lane for each node: a client that attaches there and calls, one call after the other, for as long as it runs. A
number that was acknowledged must be in the ledger once; one whose call failed may be there or not, but not twice.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, final

from env_apps import Ask, Books, Put, Taken

from atoll.client.environments import CallError, Desk, RemoteEnvironment
from atoll.domain.shelves import DiskShelf, find_journal
from atoll.env.chain import unpack_body
from atoll.env.history import decode_body
from atoll.env.records import Began, Opened

__all__ = ["Lane", "Past", "compared", "lanes", "read_past"]

CALL_S: Final = 300.0
END_S: Final = 10.0  # Limit. For calls that are on their way at the end; what is not answered then is given up.
ANSWER_S: Final = 240.0  # Limit. For an answer after a move or a death; a longer one counts as none.


@final
class Lane:
    """One client.

    Attributes:
        sent: Number of the last call.
        unsure: Numbers whose call failed.
        failures: How often, by code.
        longest_s: The longest call that ended since this was last set to 0.
        is_running: Whether it still calls.
    """

    def __init__(self, number: int, environment: RemoteEnvironment) -> None:
        self._number, self._environment = number, environment
        self.sent = 0
        self.unsure: set[int] = set()
        self.failures: Counter[str] = Counter()
        self.longest_s = 0.0
        self.is_running = True
        self._answered = (0.0, 0.0)  # When the last call that was acknowledged was made, and when it was.
        self._news = asyncio.Event()
        self._is_ending = False

    async def run(self) -> None:
        """Call until ``end``."""
        try:
            await self._call()
        finally:
            self.is_running = False

    async def _call(self) -> None:
        while not self._is_ending:
            self.sent += 1
            began = time.perf_counter()
            try:
                taken = await self._environment.call(Put(self._number, self.sent), Taken, timeout_s=CALL_S)
            except CallError as error:
                self.unsure.add(self.sent)
                self.failures[error.failure.code] += 1
                await asyncio.sleep(0.01)
                continue
            assert taken.number == self.sent, f"{taken} answers call {self.sent}"
            ended = time.perf_counter()
            self.longest_s = max(self.longest_s, ended - began)
            self._answered = began, ended
            self._news.set()

    async def after(self, at_s: float) -> float | None:
        """Wait for the answer to a call that was made after a time; return when it came, or None: in ANSWER_S none."""
        try:
            async with asyncio.timeout(ANSWER_S):
                while self._answered[0] <= at_s:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None
        return self._answered[1]

    def end(self) -> None:
        """Make no call after this one."""
        self._is_ending = True

    async def books(self) -> Books:
        """Ask what the ledger has."""
        return await self._environment.call(Ask(), Books, timeout_s=CALL_S)


@asynccontextmanager
async def lanes(states: Sequence[Path], name: str) -> AsyncGenerator[list[Lane]]:
    """Have a lane at each node while the block lasts; at its end the calls on their way are waited for."""
    desks = [Desk(state) for state in states]
    opened: list[Desk] = []
    running: list[asyncio.Task[None]] = []
    try:
        made: list[Lane] = []
        for number, desk in enumerate(desks):
            opened.append(await desk.__aenter__())
            made.append(Lane(number, await desk.environment(name)))
        running = [asyncio.create_task(lane.run()) for lane in made]
        yield made
        for lane in made:
            lane.end()
        await asyncio.wait(running, timeout=END_S)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for desk in opened:
            await desk.__aexit__(None, None, None)


def compared(books: Books, made: Sequence[Lane]) -> dict[str, int]:
    """Return how many numbers were acknowledged, and how many of those are lost; and what the ledger saw twice."""
    acknowledged = lost = 0
    for number, lane in enumerate(made):
        held = books.lanes.get(number, [])
        there = {one for first, last in held for one in range(first, last + 1)}
        sure = set(range(1, lane.sent + 1)) - lane.unsure
        acknowledged += len(sure)
        lost += len(sure - there)
    return {
        "acknowledged": acknowledged,
        "lost": lost,
        "doubled": books.doubled,
        "out of order": books.disordered,
        "unsure": sum(len(lane.unsure) for lane in made),
    }


@final
class Past:
    """Who opened which epoch, by the journals of all holders.

    Attributes:
        owners: Nodes by epoch.
        faults: What cannot be, in words.
    """

    def __init__(self) -> None:
        self.owners: dict[int, set[bytes]] = {}
        self.faults: list[str] = []
        self._ends: dict[int, set[bytes]] = {}

    def read(self, state: Path, name: str) -> None:
        """Take in the journal that one node keeps."""
        shelf = DiskShelf(find_journal(state, name))
        epoch = 0
        for number in range(shelf.first, shelf.last + 1):
            block = shelf.block(number)
            body = decode_body(unpack_body(block.body))
            opened = [entry.record for entry in body.entries if isinstance(entry.record, Opened | Began)]
            for record in opened:
                began = record.epoch if isinstance(record, Opened) else block.epoch
                self.owners.setdefault(began, set()).add(record.node)
                if began != block.epoch:
                    self.faults.append(f"{state.name}: block {number} of epoch {block.epoch} opens {began}")
            if block.epoch < epoch:
                self.faults.append(f"{state.name}: block {number} goes back from epoch {epoch} to {block.epoch}")
            if block.epoch > epoch and not opened and number > shelf.first:
                self.faults.append(f"{state.name}: block {number} begins epoch {block.epoch} and nobody opens it")
            epoch = block.epoch
            self._ends.setdefault(number, set()).add(block.body)

    @property
    def doubles(self) -> list[int]:
        """Epochs that more than one node opened."""
        return [epoch for epoch, nodes in self.owners.items() if len(nodes) > 1]

    @property
    def forks(self) -> list[int]:
        """Numbers of blocks of which two are kept."""
        return [number for number, bodies in self._ends.items() if len(bodies) > 1]


def read_past(states: Sequence[Path], name: str) -> Past:
    """Read the journals of all holders, whose nodes have ended."""
    past = Past()
    for state in states:
        past.read(state, name)
    return past
