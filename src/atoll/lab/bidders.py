# SPDX-License-Identifier: Apache-2.0
"""Clients of the demo's lot, which bid all the time, and the accounts: what was lost, or done twice, of what they did.

A bid that was acknowledged must be in the lot's books, once. A bidder does not wait for one answer before it makes the
next bid, so that the longest time without an answer is how long the lot paused, whatever the round trip is.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from atoll.client.environments import CallError, Desk, RemoteEnvironment
from atoll.lab.bids import Bid, Books, Look, Taken
from atoll.lab.clients import Request, Waits, waits_of

__all__ = ["Account", "Bidder", "account_of", "bidding"]

PACE_S: Final = 0.05  # From one bid to the next.
CALL_S: Final = 30.0  # What a patient program waits before it calls a bid failed.
IN_FLIGHT_MAX: Final = 256  # Limit. Twelve seconds of bids that wait for an answer; then no more are made.
END_S: Final = 15.0  # Limit. For the answers to the last bids.


@final
class Bidder:
    """Bids again and again.

    Args:
        who: Its name.
        lot: Where it bids.

    Attributes:
        who: As given.
        requests: Its bids that have ended.
        places: By number of each bid that was acknowledged: its place in the history.
        failures: What became of others, by their number, in words.
    """

    def __init__(self, who: str, lot: RemoteEnvironment) -> None:
        self.who: Final = who
        self._lot = lot
        self._last = 0
        self.requests: Final[list[Request]] = []
        self.places: Final[dict[int, int]] = {}
        self.failures: Final[dict[int, str]] = {}
        self._waiting: Final[set[asyncio.Task[None]]] = set()
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._news = asyncio.Event()
        self._is_ending = False

    async def run(self) -> None:
        """Bid until ``end`` or until cancelled."""
        try:
            while not self._is_ending:
                await self._room.acquire()
                self._last += 1
                self._waiting.add(asyncio.create_task(self._bid(self._last)))
                await asyncio.sleep(PACE_S)
        except asyncio.CancelledError:
            for task in tuple(self._waiting):
                task.cancel()
            raise

    async def end(self) -> None:
        """Make no further bid, and wait for the answers, up to END_S; those that do not come then have failed."""
        self._is_ending = True
        if self._waiting:
            _, late = await asyncio.wait(tuple(self._waiting), timeout=END_S)
            for task in late:
                task.cancel()

    def waits(self, onset_s: float, end_s: float) -> Waits:
        """Return what this client saw between two instants of the loop's clock."""
        return waits_of(tuple(self.requests), onset_s, end_s)

    async def answered(self, since_s: float, give_up_s: float) -> float | None:
        """Wait for the answer to a bid that was made after an instant; return when it came, or None: not in time."""
        try:
            async with asyncio.timeout_at(give_up_s):
                while (at_s := first_answer(self.requests, since_s)) is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None
        return at_s

    async def books(self) -> Books:
        """Ask for the accounts.

        Raises:
            CallError: There was no answer.
        """
        return await self._lot.call(Look(), Books, timeout_s=CALL_S)

    async def _bid(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        began_s, is_answered = loop.time(), False
        try:
            taken = await self._lot.call(Bid(self.who, number, number), Taken, timeout_s=CALL_S)
            self.places[number] = taken.place
            is_answered = True
        except CallError as error:
            self.failures[number] = str(error)
        except asyncio.CancelledError:
            self.failures[number] = "no answer when the demo ended"
            raise
        finally:
            self.requests.append(Request(began_s, loop.time(), is_answered))
            self._news.set()
            self._room.release()
            current = asyncio.current_task()
            assert current is not None, "it runs in a task of its own"
            self._waiting.discard(current)


@asynccontextmanager
async def bidding(states: Mapping[str, Path], name: str) -> AsyncGenerator[tuple[Bidder, ...]]:
    """Have a bidder at each of these nodes while the block lasts.

    Args:
        states: State directory by name of the node, which is the bidder's name, too.
        name: Of the lot.

    Raises:
        UserError: A609 or A611, the lot cannot be reached.
    """
    async with AsyncExitStack() as stack:
        bidders: list[Bidder] = []
        for who, state in states.items():
            desk = await stack.enter_async_context(Desk(state))
            bidders.append(Bidder(who, await desk.environment(name)))
        running = [asyncio.create_task(bidder.run()) for bidder in bidders]
        try:
            yield tuple(bidders)
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)


def first_answer(requests: Sequence[Request], since_s: float) -> float | None:
    """Return when the first answer came to what was asked after an instant; None: there was none."""
    return min((one.ended_s for one in requests if one.answered and one.began_s > since_s), default=None)


@dataclass(frozen=True, slots=True)
class Account:
    """What became of all bids so far.

    Attributes:
        acknowledged: Bids whose answer came.
        failed: Bids that got a failure in its place.
        lost: Of those acknowledged, how many are not in the books.
        doubled: Bids that were applied more than once.
        rivals: Places in the history that were given to two bids: two owners were heard, each with a history.
    """

    acknowledged: int
    failed: int
    lost: int
    doubled: int
    rivals: int

    @property
    def is_fair(self) -> bool:
        """Whether each bid had its effect once, in one history."""
        return self.acknowledged > 0 and not (self.failed or self.lost or self.doubled or self.rivals)


def account_of(books: Books, bidders: Sequence[tuple[str, Mapping[int, int], int]]) -> Account:
    """Return the accounts.

    Args:
        books: What the lot has, asked for after the answers came.
        bidders: Of each: its name, places by number of bids that were acknowledged, and how many have failed.
    """
    places = [place for _, taken, _ in bidders for place in taken.values() if place]
    missing = sum(number > books.last.get(who, 0) for who, taken, _ in bidders for number in taken)
    return Account(
        acknowledged=sum(len(taken) for _, taken, _ in bidders),
        failed=sum(failed for _, _, failed in bidders),
        lost=missing + books.missed,
        doubled=books.doubled,
        rivals=len(places) - len(set(places)),
    )
