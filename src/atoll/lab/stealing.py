# SPDX-License-Identifier: Apache-2.0
"""Takes the CPU from processes in turns: what a hypervisor that gives the time to a neighbour looks like from inside.

They are stopped and continued, all together, in a duty cycle of CYCLE_S, which is that of Linux's own CPU quotas: a
container that may use a fifth of a CPU, and has used it, stands still for as long. No root is needed, and the operating
system tells nobody inside: its columns for stolen time stay empty, and what shows is only that everything is late.

Rules of the file: whoever was stopped is continued, whatever ends the block; and nothing is stopped for longer than
one turn at a time, or in turns for longer than STOLEN_S_MAX.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from atoll.lab.process import Process

__all__ = ["CYCLE_S", "STOLEN_PERCENT", "stolen"]

CYCLE_S: Final = 0.1
STOLEN_PERCENT: Final = 80  # Of each cycle.
STOLEN_S_MAX: Final = 120.0  # Limit. Longer than any phase of the demo, at the slowest speed, may look for it.


@asynccontextmanager
async def stolen(processes: Sequence[Process], percent: int = STOLEN_PERCENT) -> AsyncGenerator[None]:
    """Take the CPU from processes while the block lasts.

    Args:
        processes: All of one machine; their handles stay the caller's.
        percent: Share of the time in which they do not run, 1 to 99.
    """
    turns = asyncio.create_task(_turns(processes, CYCLE_S * percent / 100))
    try:
        yield
    finally:
        try:
            turns.cancel()
            await asyncio.wait({turns})
        finally:
            _resume(processes)  # Also if we were cancelled before the turns could end.


async def _turns(processes: Sequence[Process], away_s: float) -> None:
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + STOLEN_S_MAX
    try:
        while loop.time() < give_up_s:
            for one in processes:
                one.suspend()
            await asyncio.sleep(away_s)
            _resume(processes)
            await asyncio.sleep(CYCLE_S - away_s)
    finally:
        _resume(processes)


def _resume(processes: Sequence[Process]) -> None:
    for one in processes:
        one.resume()
