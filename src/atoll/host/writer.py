# SPDX-License-Identifier: Apache-2.0
"""Writes one file in the background, so that a slow disk keeps nobody waiting: one write at a time, the newest wins.

``fsync`` takes milliseconds on a good disk and seconds on a busy one; in the event loop it would delay every probe, and
a delayed probe looks like a lost path.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, TypeVar, final

from atoll.base.errors import StorageError

__all__ = ["NewestWriter", "Outcome"]

Content = TypeVar("Content")
Outcome = Callable[[StorageError | None], None]


@final
class NewestWriter(Generic[Content]):
    """One file and the newest content that it should have. Of the event loop's thread alone.

    At most one write runs and at most one content waits for it, so there is nothing here that could grow.

    Args:
        write: Writes durably and blocks, in another thread; never twice at a time. Raises ``StorageError``.
    """

    def __init__(self, write: Callable[[Content], None]) -> None:
        self._write: Final = write
        self._running: asyncio.Future[None] | None = None
        self._next: tuple[Content, Outcome] | None = None

    def put(self, content: Content, outcome: Outcome) -> None:
        """Have this written as soon as the write under way has ended.

        Args:
            content: Of the whole file.
            outcome: Called in the event loop with what became of it; None: it is on disk. Never called for a content
                that a newer one replaced before its turn, because the newer one's outcome says more.
        """
        self._next = (content, outcome)
        if self._running is None:
            self._begin()

    async def settled(self) -> None:
        """Wait until nothing is being written and nothing waits, all outcomes told."""
        while self._running is not None:
            await asyncio.wait((self._running,))

    def _begin(self) -> None:
        if self._next is None:
            return
        (content, outcome), self._next = self._next, None
        self._running = asyncio.get_running_loop().run_in_executor(None, self._write, content)
        self._running.add_done_callback(partial(self._ended, outcome))

    def _ended(self, outcome: Outcome, written: "asyncio.Future[None]") -> None:
        self._running = None
        self._begin()
        refused: StorageError | None = None
        try:
            written.result()
        except StorageError as error:
            refused = error
        outcome(refused)
