# SPDX-License-Identifier: Apache-2.0
"""How the simulator says that something is wrong, and how to see it again."""

from typing import Final, final

from atoll.base.errors import ProjectError
from atoll.base.units import SECOND_NS

__all__ = ["SimulationFailure", "seconds"]


def seconds(at_ns: int) -> str:
    """Return a time for people, such as ``12.000345 s``; exact integers, no rounding by floats."""
    sign = "-" if at_ns < 0 else ""
    whole, rest_ns = divmod(abs(at_ns), SECOND_NS)
    return f"{sign}{whole}.{rest_ns // 1000:06} s"


@final
class SimulationFailure(ProjectError):  # noqa: N818 (the failure is the program's, not an error of the simulator)
    """An invariant did not hold, or progress was not made in time.

    Args:
        seed: The whole cause.
        at_ns: World time of the discovery.
        invariant: Its name.
        detail: What was seen instead; one line.
        command: Repeats exactly this run.
    """

    def __init__(self, seed: int, at_ns: int, invariant: str, detail: str, command: str) -> None:
        super().__init__(seed, at_ns, invariant, detail, command)
        self.seed: Final = seed
        self.at_ns: Final = at_ns
        self.invariant: Final = invariant
        self.detail: Final = detail
        self.command: Final = command

    def __str__(self) -> str:
        return f"seed {self.seed}, {seconds(self.at_ns)}: {self.invariant}: {self.detail}. Repeat: {self.command}"
