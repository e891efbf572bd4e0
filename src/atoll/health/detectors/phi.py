# SPDX-License-Identifier: Apache-2.0
"""How surprising a silence is: the accrual failure detector.

phi of a silence is -log10 of the chance that the next sign of life comes later still, if the times between them are
normally distributed with the mean and deviation of the newest thousand. At phi 1 one suspicion in ten is wrong, at 8
one in a hundred million.

The chance is that of the normal distribution, from a table of its quantiles: exact at each half of phi, and linear in
between (at most 0.02 off above phi 1). Akka computes it by a logistic approximation, which is good near the mean and
not far from it: where phi is 8 it says 9.3, and a threshold of 8 is passed at 5.2 deviations instead of 5.6. Cassandra
takes the times for exponentially distributed: phi is 0.434 times the silence over the mean, and no deviation matters.

Source: Hayashibara, Défago, Yared and Katayama, The phi Accrual Failure Detector, SRDS 2004.
"""

from bisect import bisect_right
from collections import deque
from math import isqrt
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.base.units import MILLISECOND_NS
from atoll.health.detectors.verdict import Verdict

__all__ = ["DEVIATION_MIN_NS", "INTERVALS_MIN", "PHI_WINDOW", "THRESHOLD", "PhiAccrual", "phi_of"]

PHI_WINDOW: Final = 1000  # Of the paper's experiments.
THRESHOLD: Final = 8000  # Thousandths. Cassandra's `phi_convict_threshold` and Akka's `threshold` by default.
DEVIATION_MIN_NS: Final = 100 * MILLISECOND_NS  # Akka's `min-std-deviation`: perfect regularity would convict a hiccup.
INTERVALS_MIN: Final = 8  # Ours. The paper starts when the window is full.

# Thousandths of a deviation beyond the mean at which phi is 0.5, 1, 1.5 ... 20: quantiles of the normal distribution.
# fmt: off
_DEVIATIONS: Final = (
    478, 1282, 1857, 2326, 2730, 3090, 3417, 3719, 4000, 4265, 4515, 4753, 4981, 5199, 5409, 5612, 5808, 5998,
    6182, 6361, 6536, 6706, 6872, 7034, 7193, 7349, 7501, 7651, 7797, 7941, 8083, 8222, 8359, 8494, 8627, 8757,
    8886, 9013, 9139, 9262,
)
# fmt: on
_STEP: Final = 500


def phi_of(deviations: int) -> int:
    """Return phi, thousandths, so many thousandths of a deviation beyond the mean.

    Up to the mean it is 0 (exactly, it is 301 there). Beyond 20,000 it goes on straight, which is less than it is.
    """
    if deviations <= 0:
        return 0
    number = min(bisect_right(_DEVIATIONS, deviations), len(_DEVIATIONS) - 1)
    below = _DEVIATIONS[number - 1] if number else 0
    return _STEP * number + _STEP * (deviations - below) // (_DEVIATIONS[number] - below)


@final
class PhiAccrual:
    """How overdue one component's next sign of life is.

    Args:
        window: How many intervals are remembered.
        threshold: phi from which it is suspected, thousandths.
        deviation_min_ns: Taken for the deviation where that is less.

    Raises:
        UsageError: One of them is no good.
    """

    def __init__(
        self, window: int = PHI_WINDOW, threshold: int = THRESHOLD, deviation_min_ns: int = DEVIATION_MIN_NS
    ) -> None:
        if window < INTERVALS_MIN or threshold < 1 or deviation_min_ns < 1:
            raise UsageError(
                f"phi over {window} intervals from {threshold}, deviation {deviation_min_ns} ns: give at least "
                f"{INTERVALS_MIN} intervals, 1 thousandth and 1 ns"
            )
        self._threshold, self._deviation_min_ns = threshold, deviation_min_ns
        self._intervals: Final = deque[int](maxlen=window)
        self._sum = self._squares = 0
        self._heard_ns: int | None = None

    def observe(self, at_ns: int) -> None:
        """Note a sign of life. One from before the last is taken for one that came with it."""
        if self._heard_ns is not None:
            at_ns = max(at_ns, self._heard_ns)
            interval_ns = at_ns - self._heard_ns
            if len(self._intervals) == self._intervals.maxlen:
                self._count(-self._intervals[0], self._intervals[0])
            self._intervals.append(interval_ns)
            self._count(interval_ns, interval_ns)
        self._heard_ns = at_ns

    def phi(self, now_ns: int) -> int | None:
        """Return how surprising the silence is, thousandths; None: fewer than INTERVALS_MIN intervals are known."""
        count = len(self._intervals)
        if count < INTERVALS_MIN or self._heard_ns is None:
            return None
        spread = isqrt(count * self._squares - self._sum * self._sum)  # The deviation, times `count`.
        beyond = count * (now_ns - self._heard_ns) - self._sum
        return phi_of(1000 * beyond // max(spread, count * self._deviation_min_ns))

    def verdict(self, now_ns: int) -> Verdict:
        """Return SLOW if phi has reached the threshold, WELL below."""
        phi = self.phi(now_ns)
        return Verdict.NOTHING if phi is None else Verdict.SLOW if phi >= self._threshold else Verdict.WELL

    def _count(self, more: int, interval_ns: int) -> None:
        self._sum += more
        self._squares += more * interval_ns
