# SPDX-License-Identifier: Apache-2.0
"""What must hold while a world runs, what must come true after it healed, and who can reach whom at all.

The world itself always checks that time never goes back, that no program raises, that a tick moves its deadline, and
that outboxes, datagrams and traffic are bounded. The checkers here are asked for by a scenario.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, final

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.sim.program import ProgramT
from atoll.sim.world import World

__all__ = ["ClocksForward", "Goal", "SendBudget", "reachable", "relays_between"]


@final
@dataclass(frozen=True, slots=True)
class Goal(Generic[ProgramT]):
    """Something that must come true once nothing is broken any more.

    Attributes:
        name: What, in few words.
        lacking: Returns None when it is true, else what is missing, for people.
    """

    name: str
    lacking: Callable[[World[ProgramT]], str | None]


@final
class ClocksForward:
    """No node's monotonic clock goes back, except when its computer reboots."""

    name = "monotonic clocks never go back"
    every_ns = 100 * MILLISECOND_NS

    def __init__(self) -> None:
        self._shown: dict[int, tuple[int, int]] = {}  # By node: (boots, monotonic ns).

    def check(self, world: World[ProgramT]) -> str | None:
        """Compare with the last time of asking."""
        for node in range(world.count):
            boots, shown_ns = world.boots(node), world.clock(node).monotonic_ns()
            boots_before, before_ns = self._shown.get(node, (0, 0))
            if boots == boots_before and shown_ns < before_ns:
                return f"node {node} shows {shown_ns} ns after {before_ns} ns"
            self._shown[node] = (boots, shown_ns)
        return None


@final
class SendBudget:
    """All programs together send at most so many datagrams in a second.

    Args:
        datagrams_s_max: The budget.
    """

    name = "traffic stays within the budget"
    every_ns = SECOND_NS

    def __init__(self, datagrams_s_max: int) -> None:
        self._max, self._before = datagrams_s_max, 0

    def check(self, world: World[ProgramT]) -> str | None:
        """Count what was sent since the last time of asking."""
        sent, self._before = world.stats.sent - self._before, world.stats.sent
        return f"{sent} datagrams in a second, {self._max} allowed" if sent > self._max else None


def reachable(world: World[ProgramT], i: int, j: int) -> bool:
    """Return whether two nodes can talk at this moment, directly or through one other."""
    return _open(world, i, j) or bool(relays_between(world, i, j))


def relays_between(world: World[ProgramT], i: int, j: int) -> tuple[int, ...]:
    """Return the nodes through which two others could talk at this moment, both ways; ascending."""
    others = (node for node in range(world.count) if node not in {i, j})
    return tuple(node for node in others if _open(world, i, node) and _open(world, node, j))


def _open(world: World[ProgramT], i: int, j: int) -> bool:
    """Return whether both nodes run and neither direction between them is blackholed. Loss does not count."""
    awake = all(world.program(node) is not None and not world.paused(node) for node in (i, j))
    return awake and not (world.link(i, j).blackholed or world.link(j, i).blackholed)
