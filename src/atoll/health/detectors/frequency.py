# SPDX-License-Identifier: Apache-2.0
"""High values together with how often they come: adaptive detection at run time.

Of the newest values the 99th percentile is kept, and of the newest seconds how many answers came in each, as mean
and standard deviation. A second most of whose answers are above the percentile is *high*. If it also has fewer answers
than the mean less one deviation, the component is *slow*: it takes longer and does less. If it has more than the mean
and one deviation, the load has grown: *busy*, and the values of before are forgotten, because they say nothing of this
load. High alone is neither.

Whoever sends at a fixed rate, whatever the answers, never sees fewer of them, and this detector finds nothing there.

Source: Lu and others, One-Size-Fits-None: Understanding and Enhancing Slow-Fault Tolerance in Modern Distributed
Systems, NSDI 2025 (ADR). The sizes of the windows, and "most of" for its "continuous", are ours.
"""

from bisect import bisect_left, insort
from collections import deque
from math import isqrt
from typing import Final, final

from atoll.base.units import SECOND_NS
from atoll.health.detectors.verdict import Verdict

__all__ = ["SECONDS", "VALUES", "Frequency"]

VALUES: Final = 512  # Limit.
VALUES_MIN: Final = 100  # Fewer have no 99th percentile.
SECONDS: Final = 120  # Limit.
SECONDS_MIN: Final = 10
SHARE: Final = 99  # Hundredths.


@final
class Frequency:
    """One component's values, of any unit, and the times at which they came."""

    def __init__(self) -> None:
        self._values: Final = deque[int](maxlen=VALUES)
        self._ranked: Final[list[int]] = []
        self._counts: Final = deque[int](maxlen=SECONDS)
        self._newest: Final[list[int]] = []  # Values of the second that is not over; at most VALUES of them.
        self._count = self._high = 0
        self._begin_ns: int | None = None
        self._verdict = Verdict.NOTHING

    def observe(self, value: int, at_ns: int) -> Verdict:
        """Take one value; return the verdict of the newest full second. Times that go back count for the current."""
        if self._begin_ns is None:
            self._begin_ns = at_ns
        passed = (at_ns - self._begin_ns) // SECOND_NS
        if passed > 0:
            self._close()
            self._begin_ns += passed * SECOND_NS
            self._counts.extend([0] * min(passed - 1, SECONDS))  # Nothing came: that is a frequency as well.
        self._count += 1
        if len(self._ranked) >= VALUES_MIN and value > self._ranked[len(self._ranked) * SHARE // 100]:
            self._high += 1
        if len(self._newest) < VALUES:
            self._newest.append(value)
        return self._verdict

    def _close(self) -> None:
        """Judge the second that is over, and learn from it unless it was slow."""
        count, is_high = self._count, 2 * self._high > self._count
        self._verdict = Verdict.NOTHING
        if len(self._counts) >= SECONDS_MIN and len(self._ranked) >= VALUES_MIN:
            known, total = len(self._counts), sum(self._counts)
            spread = isqrt(known * sum(one * one for one in self._counts) - total * total)  # Times `known`.
            self._verdict = Verdict.WELL
            if is_high and known * count < total - spread:
                self._verdict = Verdict.SLOW
            elif is_high and known * count > total + spread:
                self._verdict = Verdict.BUSY
                self._values.clear()
                self._ranked.clear()
        if self._verdict is not Verdict.SLOW:
            self._counts.append(count)
            for value in self._newest:
                self._remember(value)
        self._newest.clear()
        self._count = self._high = 0

    def _remember(self, value: int) -> None:
        if len(self._values) == VALUES:
            del self._ranked[bisect_left(self._ranked, self._values[0])]
        self._values.append(value)
        insort(self._ranked, value)
