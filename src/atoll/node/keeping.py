# SPDX-License-Identifier: Apache-2.0
"""The roster on its way to the disk: written in the background, awaited by whoever tells a person that it counts."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, final

from atoll.base.errors import StorageError, UserError
from atoll.group.events import StoreRoster
from atoll.host.files import explain
from atoll.host.writer import NewestWriter
from atoll.node.limits import STORE_S_MAX
from atoll.node.state import ROSTER_NAME, StateDirectory

__all__ = ["RosterKeeper"]


@final
class RosterKeeper:
    """Writes each roster that the machine wants kept, and knows how the newest one stands.

    Args:
        state: Where the file is.
        stored: Called in the event loop with the outcome of each write (``Performer.stored``). A roster that a newer
            one replaced before its turn has none.
    """

    def __init__(self, state: StateDirectory, stored: Callable[[StoreRoster, StorageError | None], None]) -> None:
        self._path: Final = state.path / ROSTER_NAME
        self._stored: Final = stored
        self._writer: Final = NewestWriter(state.keep_roster)
        self._newest: StoreRoster | None = None  # While it is being written.
        self._told: Final = asyncio.Event()  # Set while nothing is on its way.
        self._told.set()
        self._refusal: StorageError | None = None

    def store(self, effect: StoreRoster) -> None:
        """Begin to write a roster."""
        self._newest = effect
        self._told.clear()
        self._writer.put(effect.roster, partial(self._ended, effect))

    def _ended(self, effect: StoreRoster, refused: StorageError | None) -> None:
        is_newest = effect is self._newest
        if is_newest:
            self._newest, self._refusal = None, refused
        self._stored(effect, refused)  # The machine may want another one kept at once: then it goes on.
        if self._newest is None:
            self._told.set()

    async def settled(self) -> None:
        """Wait until nothing is being written."""
        await self._writer.settled()

    async def confirm(self) -> None:
        """Return when everything that this node has stated so far is on disk, and so counts.

        Raises:
            UserError: A102 or A110, the disk refuses it or does not answer within STORE_S_MAX. What was stated waits,
                is tried again each second, and then counts after all; until then no other member hears of it.
        """
        directory = self._path.parent
        try:
            async with asyncio.timeout(STORE_S_MAX):
                await self._told.wait()
        except TimeoutError as error:
            raise UserError(
                "A110",
                f"the disk has not taken the roster within {STORE_S_MAX} s, so this does not count yet",
                where=str(self._path),
                fix=f"see what keeps the disk of {directory} busy; it counts by itself once it is written",
            ) from error
        if self._refusal is not None:
            told = explain(self._refusal, self._path)
            mend = "free some space for" if told.code == "A102" else "let this user write to"
            raise UserError(
                told.code,
                f"{told.sentence}, so this does not count yet",
                where=told.where,
                fix=f"{mend} {directory}; it counts by itself a second later, see: atoll status",
            ) from self._refusal
