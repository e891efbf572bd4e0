# SPDX-License-Identifier: Apache-2.0
"""The clock of the demo's script, which runs at a chosen speed."""

import asyncio
from typing import Final, final

__all__ = ["LEAD_S", "Script"]

LEAD_S: Final = 2.0  # A client works this long before its trouble, so that its usual time is known.


@final
class Script:
    """Counts script time from its making.

    Args:
        speed: 2: twice as fast as the clock.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began_s = asyncio.get_running_loop().time()

    def now_s(self) -> float:
        """Return the script time."""
        return self.at_s(asyncio.get_running_loop().time())

    def at_s(self, loop_s: float) -> float:
        """Return the script time of an instant of the loop's clock."""
        return (loop_s - self._began_s) * self._speed

    async def until(self, script_s: float) -> None:
        """Wait for a script time; return at once if it is over."""
        await asyncio.sleep(max(0.0, script_s - self.now_s()) / self._speed)
