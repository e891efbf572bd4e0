# SPDX-License-Identifier: Apache-2.0
"""A node's own idea of time: its monotonic clock starts anywhere and drifts; its wall clock may also be stepped."""

from collections.abc import Callable
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.sim.limits import DRIFT_PPM_MAX

__all__ = ["EPOCH_NS", "NodeClock"]

EPOCH_NS: Final = 1_767_225_600 * SECOND_NS  # World time 0 is the first of January 2026, for the wall clocks.
_MILLION: Final = 1_000_000


@final
class NodeClock:
    """The clocks of one node, as a function of the world's time.

    Args:
        now: Reads the world's time, ns.
        start_ns: What the monotonic clock shows now; at least 0.
    """

    __slots__ = ("_anchor_ns", "_now", "_shown_ns", "_wall_ahead_ns", "drift_ppm")

    def __init__(self, now: Callable[[], int], start_ns: int) -> None:
        self._now = now
        self._anchor_ns, self._shown_ns = now(), start_ns
        self._wall_ahead_ns = EPOCH_NS + self._anchor_ns - start_ns
        self.drift_ppm = 0  # How much faster than the world it runs, millionths. Read only.

    def monotonic_ns(self) -> int:
        """Return the node's monotonic time now."""
        return self.monotonic_at(self._now())

    def wall_ns(self) -> int:
        """Return the node's wall time now."""
        return self.monotonic_at(self._now()) + self._wall_ahead_ns

    @property
    def wall_ahead_ns(self) -> int:
        """What wall time is ahead of monotonic time."""
        return self._wall_ahead_ns

    @property
    def shift_ns(self) -> int | None:
        """What monotonic time is ahead of world time, or None while it drifts."""
        return None if self.drift_ppm else self._shown_ns - self._anchor_ns

    def monotonic_at(self, world_ns: int) -> int:
        """Return what the monotonic clock shows at a world time that is not before the last change of drift."""
        passed_ns = world_ns - self._anchor_ns
        return self._shown_ns + passed_ns + passed_ns * self.drift_ppm // _MILLION

    def world_at(self, monotonic_ns: int) -> int:
        """Return the first world time, not before now, at which the monotonic clock shows this or more."""
        wanted_ns = monotonic_ns - self._shown_ns
        world_ns = self._anchor_ns + wanted_ns * _MILLION // (_MILLION + self.drift_ppm)
        while self.monotonic_at(world_ns) < monotonic_ns:  # Rounding: at most two steps.
            world_ns += 1
        return max(world_ns, self._now())

    def set_drift(self, drift_ppm: int) -> None:
        """From now on run this much faster (or slower) than the world, millionths; time shown does not jump.

        Raises:
            UsageError: More than DRIFT_PPM_MAX either way.
        """
        if abs(drift_ppm) > DRIFT_PPM_MAX:
            raise UsageError(f"a drift of {drift_ppm} ppm")
        now_ns = self._now()
        self._anchor_ns, self._shown_ns = now_ns, self.monotonic_at(now_ns)
        self.drift_ppm = drift_ppm

    def step_wall(self, by_ns: int) -> None:
        """Set the wall clock forward, or back if negative."""
        self._wall_ahead_ns += by_ns

    def reboot(self, start_ns: int) -> None:
        """Begin the monotonic clock anew, as a restart of the computer does; the wall clock goes on."""
        now_ns = self._now()
        self._wall_ahead_ns += self.monotonic_at(now_ns) - start_ns
        self._anchor_ns, self._shown_ns = now_ns, start_ns
