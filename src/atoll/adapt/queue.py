# SPDX-License-Identifier: Apache-2.0
"""A queue whose consumers get work at the rate at which they finish it; a slow one gets less, and holds up nothing.

The decision is ``health/credits.py``; here are the waiting and the books: who holds which record, so that a consumer
that ends gives back what it did not finish. A record is handed out at least once.

Source: Arpaci-Dusseau et al., Cluster I/O with River, IOPADS 1999, section 3.1.
"""

import asyncio
import secrets
from collections import deque
from types import TracebackType
from typing import Final, Generic, Self, TypeVar, final

from atoll.base.errors import UsageError
from atoll.core.entropy import SEED_BYTES, Draws
from atoll.health.credits import Credits

__all__ = ["Consumer", "DistributedQueue"]

Record = TypeVar("Record")

CREDITS: Final = 2  # One in work, one on the way.


@final
class DistributedQueue(Generic[Record]):
    """Hands records to consumers; of one event loop.

    Args:
        credit: Records that a consumer may hold unfinished, at least 1.
        seed: For tests that are to repeat; by default from the system.
    """

    def __init__(self, credit: int = CREDITS, seed: bytes | None = None) -> None:
        self._credits: Final[Credits[Consumer[Record]]] = Credits(
            credit, Draws(seed or secrets.token_bytes(SEED_BYTES))
        )
        self._returned: Final[deque[Record]] = deque()
        self._changed: Final = asyncio.Condition()
        self._closed = False
        self._held = 0

    async def put(self, record: Record) -> None:
        """Hand a record out; waits until somebody can take it. This is what holds a producer to the consumers' rate.

        Raises:
            UsageError: The queue is closed.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or (self._credits.is_ready and not self._returned))
            if self._closed:
                raise UsageError("the queue is closed")
            self._give(record)
            self._changed.notify_all()

    async def close(self) -> None:
        """Return when every record is finished; consumers then end. Records that nobody is left to take are lost."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._held and not self._returned)
            self._closed = True
            self._changed.notify_all()

    def consumer(self) -> "Consumer[Record]":
        """Return one more consumer, for ``async with`` and ``async for``; the next record finishes the last."""
        return Consumer(self)

    def _give(self, record: Record) -> None:
        chosen = self._credits.take()
        assert chosen is not None
        chosen.given.append(record)
        self._held += 1

    async def join(self, consumer: "Consumer[Record]") -> None:
        """Let a consumer take part."""
        async with self._changed:
            self._credits.join(consumer)
            self._give_again()

    async def leave(self, consumer: "Consumer[Record]") -> None:
        """Take a consumer out; others get what it did not finish."""
        async with self._changed:
            self._credits.leave(consumer)
            unfinished = [*consumer.unfinished, *consumer.given]
            self._held -= len(unfinished)
            self._returned.extend(unfinished)
            consumer.unfinished.clear()
            consumer.given.clear()
            self._give_again()

    async def next_for(self, consumer: "Consumer[Record]") -> Record:
        """Finish what a consumer has in work, and return its next record.

        Raises:
            StopAsyncIteration: The queue is closed.
        """
        async with self._changed:
            for _ in range(len(consumer.unfinished)):
                consumer.unfinished.popleft()
                self._held -= 1
                self._credits.finished(consumer)
            self._give_again()
            await self._changed.wait_for(lambda: bool(consumer.given) or self._closed)
            if not consumer.given:
                raise StopAsyncIteration
            record = consumer.given.popleft()
            consumer.unfinished.append(record)
            return record

    def _give_again(self) -> None:
        while self._returned and self._credits.is_ready:
            self._give(self._returned.popleft())
        self._changed.notify_all()


@final
class Consumer(Generic[Record]):
    """One consumer of a queue.

    Attributes:
        given: Records that it has not asked for yet.
        unfinished: Those in work.
    """

    def __init__(self, queue: DistributedQueue[Record]) -> None:
        self._queue = queue
        self.given: deque[Record] = deque()
        self.unfinished: deque[Record] = deque()

    async def __aenter__(self) -> Self:
        """Take part."""
        await self._queue.join(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave; what is not finished goes to others."""
        await self._queue.leave(self)

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Record:
        """Finish the last record and return the next one."""
        return await self._queue.next_for(self)
