# SPDX-License-Identifier: Apache-2.0
"""Asks every node of a group for its ``status``, again and again, and keeps who was called slow by whom, and when."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, final

from atoll.base.errors import UserError
from atoll.lab.live import LiveGroup
from atoll.node.views import PeerView, StatusView

__all__ = ["Sighting", "Watchman"]

LOOK_S: Final = 0.25
ANSWER_S_MAX: Final = 2.0  # Limit. A node whose CPU is stolen answers in tenths of a second.
SIGHTINGS_MAX: Final = 20_000  # Limit. Three slow machines, seen by four, for twenty minutes.


@dataclass(frozen=True, slots=True)
class Sighting:
    """A node was called slow: when, seconds of the loop's clock; by whom; which; and what it was said for."""

    at_s: float
    by: str
    node: str
    words: str


@final
class Watchman:
    """Watches all nodes of a group while ``watching`` lasts.

    Attributes:
        sightings: In the order in which they were seen.
    """

    def __init__(self, group: LiveGroup) -> None:
        self._group = group
        self._seen: dict[tuple[str, str], PeerView] = {}  # The newest, by who says it and of whom.
        self.sightings: Final[list[Sighting]] = []

    @asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Watch while the block lasts."""
        # No task group, which would wrap what the block raises.
        looks = [asyncio.create_task(self._look(name)) for name in self._group.names]
        try:
            yield
        finally:
            for look in looks:
                look.cancel()
            await asyncio.wait(looks)

    def peer(self, by: str, node: str) -> PeerView | None:
        """Return what one node says of another now; None: it has not been asked yet."""
        return self._seen.get((by, node))

    def first(self, node: str, since_s: float, words: Collection[str]) -> Sighting | None:
        """Return when a node was first called slow for one of these reasons; None: it was not."""
        return next((one for one in self.of(node, since_s) if any(word in one.words for word in words)), None)

    def of(self, node: str, since_s: float) -> list[Sighting]:
        """Return all sightings of a node since an instant."""
        return [one for one in self.sightings if one.node == node and one.at_s >= since_s]

    def besides(self, nodes: Collection[str]) -> tuple[Sighting, ...]:
        """Return who else was called slow than these, the first sighting by each."""
        found: dict[tuple[str, str], Sighting] = {}
        for one in self.sightings:
            if one.node not in nodes:
                found.setdefault((one.by, one.node), one)
        return tuple(found.values())

    async def until(self, condition: Callable[[], object], until_s: float) -> bool:
        """Wait for what is seen to fulfil a condition; return whether it did, by this instant of the loop's clock."""
        loop = asyncio.get_running_loop()
        while not condition():
            if loop.time() >= until_s:
                return False
            await asyncio.sleep(LOOK_S / 2)
        return True

    async def _look(self, name: str) -> None:
        while not self._group.has_ended(name):
            with suppress(UserError, TimeoutError):
                async with asyncio.timeout(ANSWER_S_MAX):
                    self._note(name, await self._group.status(name))
            await asyncio.sleep(LOOK_S)

    def _note(self, by: str, status: StatusView) -> None:
        at_s = asyncio.get_running_loop().time()
        for peer in status.peers:
            self._seen[by, peer.name] = peer
            if peer.state == "slow" and len(self.sightings) < SIGHTINGS_MAX:
                self.sightings.append(Sighting(at_s, by, peer.name, peer.why))
