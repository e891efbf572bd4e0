# SPDX-License-Identifier: Apache-2.0
"""Decides what the next round trip on one path will probably be, from those seen before.

No single memory fits all paths. On a quiet path with jitter the best prediction is a long average; on a path whose
delay jumps and then stays, it is the newest sample, and an average of ten would follow a jump for ten samples. So
several averages with different memories run side by side, each is charged with its own recent errors, and the one with
the longest memory that errs hardly more than the best speaks for the path (ADR 0007).

Two things follow without further rules. A single outlier charges all averages once, and the short ones a second time
when it is gone, so the long ones go on speaking. A lasting shift charges the long ones with every sample, so a short
one takes over within a few samples: seconds when idle, a fraction of one under traffic. Memories are counts of
samples, not times, because what is learned about a path grows with samples.
"""

from typing import Final, final

import msgspec

from atoll.base.units import SECOND_NS

__all__ = ["FLOOR_NS", "MEMORIES", "RTT_US_MAX", "Latency"]

RTT_US_MAX: Final = 0xFFFF_FFFF  # Spec. A link's round trip has 32 bits on the wire.
MEMORIES: Final = (1024, 128, 16, 4, 2, 1)  # Samples, longest first. At 1024 idle jitter moves a prediction by a 45th.
ERROR_MEMORY: Final = 64  # Samples. Shorter gives the word by luck; longer is slow to hand over after a shift.
CLIPPED_MEMORY_MIN: Final = 16  # Averages this long or longer ...
CLIP_ERRORS: Final = 5  # ... move for one sample as if it were at most five mean errors away: spikes say little.
# A longer memory may err a third more than the best and still speaks. On pure noise the newest sample errs 41 % more
# than a long average, the next shortest memory 15 %, so that mere luck hardly ever gives them the word.
TOLERANCE_PARTS: Final = 3
TOLERANCE_SAMPLES: Final = 4  # With n samples it may err 4/n more: after so few, a lead in errors is mostly luck.
FLOOR_NS: Final = 10 * SECOND_NS  # ``floor_us`` covers between one and two of these.
_SHIFT: Final = 10  # Averages carry 10 fraction bits, so that a 256th of a small difference is not rounded away.


@final
class Latency(msgspec.Struct):
    """An estimate of one path's round trip, integers in us.

    Attributes:
        samples: How many were taken.
    """

    samples: int = 0
    _means: list[int] = []
    _errors: list[int] = []
    _floor_us: int = 0
    _floor_before_us: int = 0
    _floor_ns: int = 0

    def add(self, rtt_us: int, now_ns: int) -> None:
        """Take one measured round trip.

        Args:
            rtt_us: Round trip, us; clipped to 1 to 2^32 - 1.
            now_ns: Monotonic time, ns; only ``floor_us`` depends on it.
        """
        rtt_us = min(max(rtt_us, 1), RTT_US_MAX)
        value = rtt_us << _SHIFT
        count = self.samples = self.samples + 1
        if count == 1:
            self._means, self._errors = [value] * len(MEMORIES), [0] * len(MEMORIES)
            self._floor_us, self._floor_before_us, self._floor_ns = rtt_us, rtt_us, now_ns
            return
        means, errors = self._means, self._errors
        charge = ERROR_MEMORY if count > ERROR_MEMORY else count - 1
        for at, memory in enumerate(MEMORIES):  # The hottest loop of the overlay: comparisons, not min and max.
            mean, error = means[at], errors[at]
            difference = value - mean
            errors[at] = error = error + ((difference if difference >= 0 else -difference) - error) // charge
            if memory >= CLIPPED_MEMORY_MIN:
                bound = CLIP_ERRORS * error
                if difference > bound:
                    difference = bound
                elif difference < -bound:
                    difference = -bound
            means[at] = mean + difference // (min(count, memory))
        if now_ns - self._floor_ns >= FLOOR_NS:
            self._floor_before_us, self._floor_us, self._floor_ns = self._floor_us, rtt_us, now_ns
        elif rtt_us < self._floor_us:
            self._floor_us = rtt_us

    def outlook(self) -> tuple[int, int]:
        """Return ``predicted_us`` and ``deviation_us`` for the price of one."""
        if not self.samples:
            return 0, 0
        at = self._speaker()
        # For a normal distribution the standard deviation is sqrt(pi/2), about 5/4, times the mean absolute error.
        return max(self._means[at] >> _SHIFT, 1), self._errors[at] * 5 // 4 >> _SHIFT

    @property
    def predicted_us(self) -> int:
        """The next round trip, us; 0: never measured."""
        return self.outlook()[0]

    @property
    def deviation_us(self) -> int:
        """How far single round trips stray from ``predicted_us``, us, on the scale of a standard deviation."""
        return self.outlook()[1]

    @property
    def floor_us(self) -> int:
        """The shortest round trip of the last 10 to 20 seconds, us; 0: never measured.

        On a path that we load ourselves it is nearer to what the path takes than any average: queues come and go.
        """
        return min(self._floor_us, self._floor_before_us)

    def _speaker(self) -> int:
        """Return the index of the average that speaks: the longest memory within the tolerance of the least error."""
        errors = self._errors
        least = min(errors)
        bound = least + max(least // TOLERANCE_PARTS, least * TOLERANCE_SAMPLES // self.samples)
        for at, error in enumerate(errors):
            if error <= bound:
                return at
        raise AssertionError("the least error is within the bound of itself")
