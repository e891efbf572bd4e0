# SPDX-License-Identifier: Apache-2.0
"""A component against its own past by median and MAD: the Hampel identifier, as it stands in the books.

A value is outside when it lies more than THRESHOLD robust deviations above the median of the newest. The robust
deviation is 1.4826 times the median distance from the median (MAD), which is the standard deviation where the values
are normally distributed, and which no half of them can move. ``gauge.py`` is what this room judges by; this is what it
grew from, and what it is measured against (bench/health.py).

Source: Hampel, The Influence Curve and its Role in Robust Estimation, JASA 69 (1974), for median and MAD; Iglewicz and
Hoaglin, How to Detect and Handle Outliers (1993), for the threshold of 3.5.
"""

from bisect import bisect_left, insort
from collections import deque
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.health.detectors.verdict import Verdict

__all__ = ["HISTORY_WINDOW", "KNOWN_MIN", "THRESHOLD", "History"]

THRESHOLD: Final = 3500  # Thousandths of a robust deviation.
HISTORY_WINDOW: Final = 200  # Ours, as all below.
KNOWN_MIN: Final = 50
SPREAD_EVERY: Final = 8  # Values between two computations of the MAD, which is the dear part.

_DEVIATION: Final = 14_826  # Ten thousandths.


@final
class History:
    """One component's newest values, of any unit.

    Args:
        window: How many are remembered, at least KNOWN_MIN.
        threshold: Beyond so many thousandths of a robust deviation a value is outside.

    Raises:
        UsageError: The window is too small, or the threshold is not positive.
    """

    def __init__(self, window: int = HISTORY_WINDOW, threshold: int = THRESHOLD) -> None:
        if window < KNOWN_MIN or threshold < 1:
            raise UsageError(f"a window of {window}, a threshold of {threshold}: give at least {KNOWN_MIN} and 1")
        self._threshold = threshold
        self._values: Final = deque[int](maxlen=window)
        self._ranked: Final[list[int]] = []
        self._since, self._spread = 0, 0

    def observe(self, value: int) -> Verdict:
        """Compare a value with those before it, and remember it."""
        distance = self.distance(value)
        if len(self._values) == self._values.maxlen:
            del self._ranked[bisect_left(self._ranked, self._values[0])]
        self._values.append(value)
        insort(self._ranked, value)
        self._since += 1
        if distance is None:
            return Verdict.NOTHING
        return Verdict.SLOW if distance > self._threshold else Verdict.WELL

    def distance(self, value: int) -> int | None:
        """Return how far above the median a value is, thousandths of a robust deviation; None: too few are known."""
        count = len(self._ranked)
        if count < KNOWN_MIN:
            return None
        middle = self._ranked[count // 2]
        if self._since >= SPREAD_EVERY or not self._spread:
            self._since = 0
            distances = sorted(abs(other - middle) for other in self._ranked)
            # At least a thousandth of the median: where all are alike, what is hardly different is no outlier.
            self._spread = max(_DEVIATION * distances[count // 2] // 10_000, abs(middle) // 1000, 1)
        return 1000 * (value - middle) // self._spread
