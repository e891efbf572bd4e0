# SPDX-License-Identifier: Apache-2.0
"""Hedged requests: when an answer is late, somebody else is asked as well, and the first answer counts.

Late is what nine in ten of the last answers were not. So that hedging cannot double the load of a service that is slow
for everybody, the second requests are held to a share of all.

Source: Dean and Barroso, The Tail at Scale, CACM 56(2), 2013.
"""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar, final

__all__ = ["EXTRA_SHARE", "Hedge"]

Answer = TypeVar("Answer")

LATE_SHARE: Final = 0.9
KEPT: Final = 128  # Latencies of the newest answers.
KEPT_MIN: Final = 8  # With fewer nothing is known to be late.
EXTRA_SHARE: Final = 0.1  # Of all requests, those that may be asked twice; and a burst of BURST.
BURST: Final = 4.0


@final
class Hedge(Generic[Answer]):
    """Asks one of several equal services, and another one when the answer is late.

    Args:
        extra_share: How many second requests may be made, as a share of all.
    """

    def __init__(self, extra_share: float = EXTRA_SHARE) -> None:
        self._extra_share = extra_share
        self._credit = BURST
        self._newest: deque[float] = deque()
        self._sorted: list[float] = []
        self.asked = self.asked_twice = 0

    @property
    def late_s(self) -> float | None:
        """When an answer is late, seconds; None: too few are known."""
        if len(self._sorted) < KEPT_MIN:
            return None
        return self._sorted[min(len(self._sorted) - 1, int(LATE_SHARE * len(self._sorted)))]

    async def ask(self, services: Sequence[Callable[[], Awaitable[Answer]]]) -> Answer:
        """Return the first answer; who is still asked then is cancelled.

        Args:
            services: In the order in which they are to be asked, at least one; idempotent.

        Raises:
            Exception: What the last one to fail raised, when all did.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self.asked += 1
        self._credit = min(BURST, self._credit + self._extra_share)
        waiting = deque(services)
        running = {asyncio.ensure_future(waiting.popleft()())}
        error: BaseException | None = None
        try:
            while running:
                late_s = self.late_s if waiting and self._credit >= 1 else None
                left_s = None if late_s is None else max(0.0, began_s + late_s - loop.time())
                done, running = await asyncio.wait(running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    if (error := one.exception()) is None:
                        self._note(loop.time() - began_s)
                        return one.result()
                if waiting and (done or self._credit >= 1):  # After a failure the next one is no extra.
                    if not done:
                        self._credit -= 1
                        self.asked_twice += 1
                    running.add(asyncio.ensure_future(waiting.popleft()()))
        finally:
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        assert error is not None
        raise error

    def _note(self, latency_s: float) -> None:
        if len(self._newest) == KEPT:
            self._sorted.remove(self._newest.popleft())
        self._newest.append(latency_s)
        insort(self._sorted, latency_s)
