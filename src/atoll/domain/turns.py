# SPDX-License-Identifier: Apache-2.0
"""When to send what a turn of the event loop brings: all of it together at its end, or the first of it at once.

A turn of the loop takes 20 us, and mostly there is one message in it for which somebody waits.
"""

import asyncio
from collections.abc import Callable
from typing import Final, final

__all__ = ["Turn"]


@final
class Turn:
    """Has something done once a turn, or twice when the first time cannot wait. Made and used in one event loop.

    Args:
        act: Does it; harmless when there is nothing to do.
    """

    __slots__ = ("_act", "_is_done", "_is_set", "_loop")

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Final = act
        self._loop: Final = asyncio.get_running_loop()
        self._is_set = self._is_done = False

    def later(self) -> None:
        """Have it done once this turn is over."""
        if not self._is_set:
            self._is_set = True
            self._loop.call_soon(self._end)

    def now(self) -> None:
        """Have it done at once; in a turn in which it was, once that is over."""
        self.later()
        if not self._is_done:
            self._is_done = True
            self._act()

    def _end(self) -> None:
        self._is_set = self._is_done = False
        self._act()
