# SPDX-License-Identifier: Apache-2.0
"""A rate with a burst, as a token bucket in integers.

Kept as the one time at which the bucket will be full again, so that it needs no timer and cannot drift.
"""

from typing import final

from atoll.base.units import SECOND_NS

__all__ = ["Meter"]


@final
class Meter:
    """Says whether so many units more are within the rate.

    Args:
        per_s: Units (bytes, messages) a second; 0: none at all.
        burst: Units at once after silence.
    """

    __slots__ = ("_burst", "_full_ns", "_per_s")

    def __init__(self, *, per_s: int, burst: int) -> None:
        self._per_s, self._burst = per_s, burst
        self._full_ns = 0

    def fits(self, units: int, now_ns: int) -> bool:
        """Return whether ``take`` may be called for so many units."""
        ahead_ns = self._full_ns - now_ns
        owed = ahead_ns * self._per_s // SECOND_NS if ahead_ns > 0 else 0
        return self._per_s > 0 and owed + units <= self._burst

    def take(self, units: int, now_ns: int) -> None:
        """Take them out of the bucket."""
        assert self._per_s > 0
        self._full_ns = max(self._full_ns, now_ns) + units * SECOND_NS // self._per_s

    def change(self, *, per_s: int, burst: int, now_ns: int) -> None:
        """Go on at another rate. What is owed stays owed, in units, so that a change gives nobody a fresh burst."""
        ahead_ns = max(self._full_ns - now_ns, 0)
        owed = ahead_ns * self._per_s // SECOND_NS
        self._per_s, self._burst = per_s, burst
        self._full_ns = now_ns + min(owed, burst) * SECOND_NS // per_s if per_s else now_ns
