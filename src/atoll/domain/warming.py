# SPDX-License-Identifier: Apache-2.0
"""Runners of environments that this node will own in a moment: restored beforehand, so that a move does not wait.

A state of 2 MB takes 25 ms to restore, more than all else that a move does. When the moment comes only the blocks since
then are applied. A block that was not committed may be another one by then; so what waits is used only if the journal
still has the epoch that it had at its last block, which by Raft's rules means that all before it is the same.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, final

from atoll.base.errors import ProjectError
from atoll.domain.limits import WARM_ROUNDS_MAX, WARM_SLICE_S
from atoll.domain.recorder.messages import Recorded
from atoll.domain.reviving import Archive
from atoll.env.holding import Holding
from atoll.env.runner import Runner
from atoll.env.walls import OPEN, Walls

__all__ = ["Warming"]

FIRST_EPOCH: Final = 1  # Whoever begins an environment owns it in this one, and no record says so.


@final
class _Pace:
    """As much rest as work: what is made beforehand takes twice as long, and calls meanwhile hardly any longer."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._sleep: Final = sleep
        self._since_s = time.perf_counter()

    async def rest(self) -> None:
        """Let others run; after some work, for as long as that took."""
        worked_s = time.perf_counter() - self._since_s
        if worked_s < WARM_SLICE_S:
            await self._sleep(0)
            return
        await self._sleep(worked_s)
        self._since_s = time.perf_counter()


@final
class Warming:
    """The runners that wait.

    Args:
        archive: Restores them.
        listed: Returns what the recorder keeps.
        holding: Returns the part of this node in an environment; None: it has none.
        walls: What stands around handlers.
        sleep: Waits so many seconds: nobody waits for what is made here, so it leaves others as much time as it takes.
    """

    def __init__(
        self,
        archive: Archive,
        listed: Callable[[], Awaitable[tuple[Recorded, ...]]],
        holding: Callable[[bytes], Holding | None],
        walls: Walls = OPEN,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._archive, self._listed, self._holding, self._walls = archive, listed, holding, walls
        self._sleep: Final = sleep
        self._ready: Final[dict[bytes, Runner]] = {}

    def has(self, identity: bytes) -> bool:
        """Return whether a runner of an environment waits."""
        return identity in self._ready

    async def make(self, identity: bytes) -> None:
        """Have a runner wait that has what the journal has. One at a time for each environment; no ``take`` meanwhile.

        Raises:
            ProjectError: It cannot be restored, as ``Archive.runner`` says.
        """
        runner = await self._made(identity, self._ready.pop(identity, None), _Pace(self._sleep))
        if runner is not None:
            self._ready[identity] = runner

    async def _made(self, identity: bytes, runner: Runner | None, pace: "_Pace") -> Runner | None:
        try:
            if runner is not None and not self._is_of_journal(identity, runner):
                runner.close()
                runner = None
            for _ in range(WARM_ROUNDS_MAX):  # What comes meanwhile is applied as well, so that little is left.
                holding = self._holding(identity)
                number = 0 if holding is None else holding.durable
                if runner is None:
                    recorded = next((one for one in await self._listed() if one.environment == identity), None)
                    if recorded is None or not number:
                        return None  # It begins here when it is ours, from nothing.
                    runner = await self._archive.runner(recorded, number, self._walls, pace.rest)
                elif number <= runner.number:
                    break
                else:
                    await self._archive.follow(runner, identity, number, pace.rest)
        except BaseException:
            if runner is not None:
                runner.close()
            raise
        return runner

    def put(self, identity: bytes, runner: Runner) -> None:
        """Let a runner wait that has run here: what it lacks when it is asked for is less than all."""
        self.drop(identity)
        self._ready[identity] = runner

    async def take(self, identity: bytes, number: int) -> Runner | None:
        """Return the runner of an environment in its state after a block; None: none waits that could be used."""
        runner = self._ready.pop(identity, None)
        if runner is None:
            return None
        try:
            if runner.number <= number and self._is_of_journal(identity, runner):
                await self._archive.follow(runner, identity, number)
                return runner
        except (ProjectError, ValueError):
            pass  # Whoever restores it from the beginning finds out what is wrong, and says it.
        except BaseException:
            runner.close()
            raise
        runner.close()
        return None

    def _is_of_journal(self, identity: bytes, runner: Runner) -> bool:
        holding = self._holding(identity)
        return holding is not None and holding.epoch_of(runner.number) == (runner.epoch or FIRST_EPOCH)

    def drop(self, identity: bytes) -> None:
        """Let go of a runner that is not needed."""
        runner = self._ready.pop(identity, None)
        if runner is not None:
            runner.close()

    def close(self) -> None:
        """Let go of all."""
        for identity in tuple(self._ready):
            self.drop(identity)
