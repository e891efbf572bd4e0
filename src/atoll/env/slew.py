# SPDX-License-Identifier: Apache-2.0
"""The time that an environment sees: the wall clock of the node that runs it, but it never goes back."""

from typing import Final, final

from atoll.env.limits import DOUBT_NS, SLEW_PARTS
from atoll.env.orders import Moment

__all__ = ["AGE_NS_MAX", "SlewedClock"]

AGE_NS_MAX: Final = 1 << 62


@final
class SlewedClock:
    """The time of one environment.

    While the clock of this node is behind it, because it was set or another node's was ahead, it goes on a little
    slower than time does: if it stood still, so would all time-outs and timers.
    """

    def __init__(self) -> None:
        self._ns = self._at_ns = 0  # The environment's time, and when that was, monotonic.
        self._unsure_ns = -1  # How long ago this time was is not known.

    def set(self, ns: int, now: Moment) -> None:
        """Go on from this time, ns since 1970, which was the last one elsewhere, or before."""
        self._ns, self._at_ns = ns, now.ns
        if now.wall_ns < ns - DOUBT_NS:
            self._unsure_ns = ns

    def read(self, now: Moment) -> int:
        """Return the environment's time, ns since 1970."""
        passed_ns = max(0, now.ns - self._at_ns)
        slewed_ns = self._ns + passed_ns * (SLEW_PARTS - 1) // SLEW_PARTS
        self._ns, self._at_ns = max(now.wall_ns, slewed_ns), now.ns
        return self._ns

    def age(self, at_ns: int, now: Moment) -> int:
        """Return how long ago that time was at most, ns; if nobody can know, AGE_NS_MAX."""
        if at_ns <= self._unsure_ns:
            return AGE_NS_MAX
        passed_ns = max(0, self.read(now) - at_ns)
        return min(passed_ns * SLEW_PARTS // (SLEW_PARTS - 1), AGE_NS_MAX)  # It may have gone slower than time.

    def when(self, due_ns: int) -> int:
        """Return by when it will be that time here at the latest, monotonic ns."""
        return self._at_ns + max(0, due_ns - self._ns) * SLEW_PARTS // (SLEW_PARTS - 1) + 1
