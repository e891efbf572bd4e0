# SPDX-License-Identifier: Apache-2.0
"""Measures what a node's health is judged by: its loop, processor, memory and disk, and the paths to the others.

Rules of the file: it waits and measures; ``health/members/vitals.py`` judges. What that finds goes to the control
machine, as an input like any other.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from random import Random
from typing import Final, final

from atoll.base.errors import StorageError
from atoll.base.ports import Clock
from atoll.base.units import SECOND_NS
from atoll.conduit.timing import Served
from atoll.health.members.bulletin import Found
from atoll.health.members.programs import Call
from atoll.health.members.vitals import Vitals
from atoll.host.disk_trial import DiskTrial
from atoll.host.pressure import Pressure
from atoll.host.work_trial import work_ns
from atoll.node.facts import Paths
from atoll.overlay.mesh import Mesh

__all__ = ["Senses"]

log: Final = logging.getLogger("atoll.node")

TURN_S: Final = 0.25  # How often the loop's lateness is measured.
JITTER: Final = 0.25  # Of a turn.
LOOK_S: Final = 1.0  # How often what the system says, the work and the paths are.


@final
class Senses:
    """The senses of one node; ``run`` until it is cancelled.

    Args:
        directory: Where durable writes are measured.
        clock: Time.
        mesh: Whose paths are looked at.
        processes: Returns the node's other processes.
        tell: Takes what is found.

    Attributes:
        vitals: The judge.
        disk_fault: Why the disk could not be measured; empty: it could.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        mesh: Mesh,
        processes: Callable[[], Collection[int]],
        tell: Callable[[Found], None],
    ) -> None:
        self.vitals: Final = Vitals()
        self.disk_fault = ""
        self._rng = Random()
        self._clock, self._mesh, self._processes, self._tell = clock, mesh, processes, tell
        self._pressure = Pressure()
        self._trial = DiskTrial(directory)
        self._trying: asyncio.Task[None] | None = None
        self._hung_ns = 0  # How long the present trial of the disk had lasted when that was last told.
        self._paths = Paths()

    async def run(self) -> None:
        """Measure, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._turn())
                group.create_task(self._look())
        finally:
            if self._trying is not None:
                self._trying.cancel()
            self._trial.close()
            self._pressure.close()

    def served(self, served: Served) -> None:
        """Take how quick a program of this machine was."""
        call = Call(served.caller, served.number, is_asked=served.is_asked, is_over=served.is_over)
        self.vitals.served(served.port, served.connect_ns, served.first_byte_ns, self._clock.monotonic_ns(), call)

    async def _turn(self) -> None:
        """See how late the loop is, because a handler blocks or the machine does not run us."""
        while True:
            # Never in step with whatever takes the processor away in turns: it would look quick, or slow, for ever.
            wait_s = TURN_S * self._rng.uniform(1 - JITTER, 1 + JITTER)
            due_ns = self._clock.monotonic_ns() + int(wait_s * SECOND_NS)
            await asyncio.sleep(wait_s)
            now_ns = self._clock.monotonic_ns()
            self.vitals.turned(now_ns - due_ns, now_ns)
            self._look_at_disk(now_ns)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            now_ns = self._clock.monotonic_ns()
            self.vitals.read(self._pressure.read(self._processes()), now_ns)
            self.vitals.worked(work_ns(), now_ns)
            self._paths.look(self._mesh, self.vitals, now_ns)
            for found in self.vitals.found(now_ns):
                self._tell(found)

    def _look_at_disk(self, now_ns: int) -> None:
        if self._trying is not None and not self._trying.done():
            lasted_ns = self._trial.under_way_ns(now_ns)
            if lasted_ns >= self._hung_ns + SECOND_NS:  # It hangs: that shows before it ends, once a second.
                self._hung_ns = lasted_ns
                self.vitals.wrote(lasted_ns, now_ns)
        elif now_ns >= self.vitals.trial_due_ns():
            self.vitals.trial_began(now_ns)
            self._hung_ns = 0
            self._trying = asyncio.get_running_loop().create_task(self._try())

    async def _try(self) -> None:
        try:
            took_ns = await self._trial.measure()
        except StorageError as error:
            if not self.disk_fault:
                log.warning("the disk cannot be measured: %s", error)
            self.disk_fault = str(error)
            return
        self.disk_fault = ""
        if took_ns is not None:
            self.vitals.wrote(took_ns, self._clock.monotonic_ns())
