# SPDX-License-Identifier: Apache-2.0
"""Where guests run while the server waits for them: on its own processor.

To wake a process there costs a change of context, 8 us there and back on a virtual machine; on another processor, which
sleeps, it costs an interrupt each way, 46 us. As long as the server waits, nothing is lost by sharing; but both must be
kept there, or each wakes the other on the idle processor. A guest that takes longer than the server waits gets all
processors, and so does the server when it does something else.
"""

import ctypes
import os
from contextlib import suppress
from typing import Final, final

from atoll.domain.limits import GUEST_NEAR_ASKS

__all__ = ["Here", "Nearness"]

_cpu: Final = getattr(ctypes.PyDLL(None), "sched_getcpu", None)  # None: a C library without it.


@final
class Here:
    """The processor of the server."""

    def __init__(self) -> None:
        self.anywhere: Final = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
        self._held = -1
        self._is_of_use = len(self.anywhere) > 1 and _cpu is not None

    def hold(self) -> int:
        """Stay on this processor until ``rest``; return which it is, or -1: it is of no use to know."""
        if self._held < 0 and self._is_of_use:
            assert _cpu is not None
            self._held = int(_cpu())
            _keep(0, {self._held})
        return self._held

    def rest(self) -> None:
        """Run anywhere again. To be called when guests are not asked for now, and cheap when they were not."""
        if self._held >= 0:
            self._held = -1
            _keep(0, self.anywhere)


@final
class Nearness:
    """Of one guest.

    Args:
        pid: Of its process, which has one thread.
        here: The server.
    """

    def __init__(self, pid: int, here: Here) -> None:
        self._pid, self._here = pid, here
        self._near = -1  # The processor that it is kept on; -1: none.
        self._asks = 0  # Until it is looked again where the server is.

    def stay(self) -> None:
        """Keep both together for as long as the server waits, and some asks more."""
        cpu = self._here.hold()
        self._asks -= 1
        if self._asks < 0 and cpu != self._near:
            self._asks = GUEST_NEAR_ASKS
            self._near = cpu
            _keep(self._pid, {cpu})

    def let_run(self) -> None:
        """Let both run anywhere: the server goes on with others."""
        self._here.rest()
        self._asks = 0
        if self._near >= 0:
            self._near = -1
            _keep(self._pid, self._here.anywhere)


def _keep(pid: int, cpus: set[int]) -> None:
    with suppress(OSError):  # It has ended, or may not be told so: it only takes longer.
        os.sched_setaffinity(pid, cpus)
