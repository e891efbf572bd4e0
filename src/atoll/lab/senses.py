# SPDX-License-Identifier: Apache-2.0
"""What simulated machines feel of themselves: the twin of ``node/sensing.py`` on the world's clock.

The loop's lateness is real: a node whose processor is taken away is *paused* by the world, in a duty cycle, and its
own timers are late by that, as its packets are. A disk, and what an operating system would say of its load, are models
with a few numbers that a scenario changes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp
from random import Random
from typing import Final, final

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.health.members.reading import SHARE_ONE, Reading
from atoll.health.members.vitals import Vitals
from atoll.lab.program import SimulatedNode
from atoll.node.facts import Paths
from atoll.sim import World

__all__ = ["Machine", "Senses"]

TURN_NS: Final = SECOND_NS // 4
LOOK_NS: Final = SECOND_NS
RETRY_NS: Final = MILLISECOND_NS  # How exactly the end of a pause is noticed.
CYCLE_NS: Final = 100 * MILLISECOND_NS  # Of a processor that is taken away in turns.
WORK_NS: Final = 80_000


@dataclass(slots=True)
class Machine:
    """What a scenario changes of one machine.

    Attributes:
        taken: Share of the time in which its processor is taken away, 0 to 0.95.
        tells_stolen: Whether its operating system is told so.
        busy: Share of its processors' time in which other programs run.
        queued_ns: How long the node waits behind them for its turn.
        memory: Share of the time in which programs wait for memory.
        disk_ns: Median of a durable write.
    """

    taken: float = 0.0
    tells_stolen: bool = True
    busy: float = 0.1
    queued_ns: int = 0
    memory: float = 0.0
    disk_ns: int = 2 * MILLISECOND_NS
    vitals: Vitals = field(default_factory=Vitals)
    paths: Paths = field(default_factory=Paths)


@final
class Senses:
    """The senses of all nodes of a world; make it before the world runs.

    Args:
        world: Where.
        seed: Cause of all noise.
    """

    def __init__(self, world: World[SimulatedNode], seed: int) -> None:
        self._world = world
        self._rng = Random(seed)
        self.machines: Final = tuple(Machine() for _ in range(world.count))
        for index in range(world.count):
            offset_ns = self._rng.randrange(TURN_NS)
            self._at(offset_ns + TURN_NS, self._turn, index)
            self._at(offset_ns + LOOK_NS, self._look, index)
            self._at(offset_ns + CYCLE_NS, self._take, index)

    def _at(self, in_ns: int, what: Callable[[int, int], None], index: int, due_ns: int | None = None) -> None:
        at_ns = self._world.now_ns + in_ns
        self._world.at(at_ns, lambda: what(index, at_ns if due_ns is None else due_ns))

    def _take(self, index: int, _: int) -> None:
        """Begin the next cycle of a processor that is taken away."""
        taken = self.machines[index].taken
        if taken:
            self._world.pause(index)
            self._at(int(CYCLE_NS * taken), self._give, index)
        # Not in step with the timers, or each would be late by the same.
        self._at(CYCLE_NS + self._rng.randrange(CYCLE_NS // 10), self._take, index)

    def _give(self, index: int, _: int) -> None:
        self._world.resume(index)

    def _turn(self, index: int, due_ns: int) -> None:
        machine = self.machines[index]
        noise_ns = self._about(300_000) + (self._about(machine.queued_ns) if machine.queued_ns else 0)

        def turn(node: SimulatedNode, now_ns: int, wall_ns: int) -> None:
            del node, wall_ns
            machine.vitals.turned(self._world.now_ns - due_ns + noise_ns, now_ns)
            if now_ns >= machine.vitals.trial_due_ns():
                machine.vitals.trial_began(now_ns)
                machine.vitals.wrote(self._about(machine.disk_ns), now_ns)

        if self._world.act(index, "turn", turn):
            self._at(TURN_NS, self._turn, index)
        else:
            self._at(RETRY_NS, self._turn, index, due_ns)

    def _look(self, index: int, due_ns: int) -> None:
        machine, vitals = self.machines[index], self.machines[index].vitals

        def look(node: SimulatedNode, now_ns: int, wall_ns: int) -> None:
            vitals.read(self._reading(machine), now_ns)
            vitals.worked(self._about(WORK_NS) + (machine.queued_ns // 50), now_ns)
            machine.paths.look(node.control.mesh, vitals, now_ns)
            for found in vitals.found(now_ns):
                node.feed(found, now_ns, wall_ns)

        if self._world.act(index, "look", look):
            self._at(LOOK_NS, self._look, index)
        else:
            self._at(RETRY_NS, self._look, index, due_ns)

    def _reading(self, machine: Machine) -> Reading:
        stolen = machine.taken if machine.tells_stolen else 0.0
        return Reading(
            busy_share=_share(machine.busy + self._rng.uniform(0, 0.05)),
            stolen_share=_share(stolen),
            own_share=_share(0.02),
            waiting_share=_share(0.9 if machine.queued_ns else 0.01),
            memory_share=_share(machine.memory),
            io_share=_share(0.01),
            throttled_share=0,
        )

    def _about(self, value_ns: int) -> int:
        return int(value_ns * exp(self._rng.gauss(0, 0.15)))


def _share(share: float) -> int:
    return min(SHARE_ONE, int(share * SHARE_ONE))
