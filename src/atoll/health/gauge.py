# SPDX-License-Identifier: Apache-2.0
"""Compares a component with its own past: what is too late for one answer, and what is too late for several in a row.

Theory of operation. A ring holds the newest 512 levels (levels.py), another how far each of them lay from the middle
that was known when it came, its *distance*. Every 256 samples, at first more often, the middle becomes the ring's
median, and two limits are set anew:

* an answer is *outside* when its distance is beyond 3.5 robust deviations and 1.6 times what 99 % of the past distances
  stayed within. The second is what makes one default do for a quiet series and for one that is full of spikes: a limit
  calibrates itself by how often it would have been passed;
* the newest eight are *late* when five of them are beyond the same kind of limit for the medians of eight. That is far
  lower: a median of eight wanders less than a single answer, and slow-downs of a third show.

What comes while they are late is not learnt, so that a fault does not become the norm while it lasts. Its owner, who
knows how long that has been, may ``accept`` that the past is another one. Distances are those from the *earlier*
middle, so that what a drift costs in accuracy is in the limits.

The deviation is 1.4826 times the median of the distances (Hampel 1974), and at least 0.2 octaves, 0.15 for runs: nobody
cares for one answer that takes 1.6 times as long, or for several that take 1.3 times, however quiet the component is.

The constants were chosen on labelled telemetry (bench/health.py, ADR 0035).
"""

from array import array
from typing import Final, final

from atoll.health.levels import OCTAVE

__all__ = ["LATE", "OUTSIDE", "RING", "Gauge"]

RING: Final = 512
REFRESH: Final = 256
RUN: Final = 8
FIRST: Final = 32  # Samples before which nothing is judged.
NEWEST_OUTSIDE: Final = 2  # Of the newest five: more of them are late as well.

OUTSIDE: Final = 1  # This answer.
LATE: Final = 2  # The newest eight, or three of the newest five are outside.

_FLOOR: Final = OCTAVE * 2 // 10
_RUN_FLOOR: Final = OCTAVE * 15 // 100
_DEVIATION: Final = 1483  # Thousandths: of a normal distribution's median distance.
_MEDIANS_MIN: Final = 8
_EARLY: Final = frozenset({FIRST // 2, FIRST, 48, 64, 96, 128, 192, 384})
_NEVER: Final = 1 << 30
_NEWEST_FIVE: Final = 0b11111
_NEWEST_RUN: Final = (1 << RUN) - 1


@final
class Gauge:
    """One component's past.

    Attributes:
        middle: Median level of the past.
        limit: Distance beyond which one answer is outside.
        run_limit: Distance beyond which five of eight make the run late.
        unlearnt: How many in a row were late, and are not learnt.
    """

    __slots__ = (
        "_accepts",
        "_block",
        "_distances",
        "_levels",
        "_medians",
        "_points",
        "_runs",
        "_seen",
        "limit",
        "middle",
        "run_limit",
        "unlearnt",
    )

    def __init__(self) -> None:
        self._levels = array("h")
        self._distances = array("h")
        self._medians = array("h")  # Of eight distances each.
        self._block: list[int] = []
        self._points = self._runs = 0  # The newest at bit 0: was it outside; was it beyond the runs' limit.
        self._seen = 0
        self._accepts = False
        self.unlearnt = self.middle = 0
        self.limit = self.run_limit = _NEVER

    def observe(self, level: int) -> int:
        """Take one more sample, in order; return what it says: OUTSIDE and LATE, added.

        Args:
            level: Of the latency, or of the latency per amount; 0 to 16,383.
        """
        distance = level - self.middle
        self._points = points = self._points << 1 & _NEWEST_FIVE | (distance > self.limit)
        self._runs = runs = self._runs << 1 & _NEWEST_RUN | (distance > self.run_limit)
        said = points & OUTSIDE
        if (runs or points) and self.is_late:
            said |= LATE
            if not self._accepts:
                self.unlearnt += 1
                return said
        elif self.unlearnt:
            self.unlearnt, self._accepts = 0, False
        self._learn(level, distance)
        return said

    def accept(self) -> None:
        """Learn what comes although it is late, until it is not."""
        self._accepts = True

    @property
    def is_late(self) -> bool:
        """Whether the newest samples were late."""
        return self._runs.bit_count() > RUN // 2 or self._points.bit_count() > NEWEST_OUTSIDE

    @property
    def is_taught(self) -> bool:
        """Whether there is a past to compare with."""
        return self._seen >= FIRST

    def _learn(self, level: int, distance: int) -> None:
        seen = self._seen
        self._seen = seen + 1
        if seen < RING:
            self._levels.append(level)
        else:
            self._levels[seen % RING] = level
        if seen >= FIRST // 2:  # Before there was no middle.
            if len(self._distances) < RING:
                self._distances.append(distance)
            else:
                self._distances[(seen - FIRST // 2) % RING] = distance
            self._block.append(distance)
            if len(self._block) == RUN:
                self._close_block(seen)
        if not (seen + 1) % REFRESH or seen + 1 in _EARLY:
            self._refresh()

    def _close_block(self, seen: int) -> None:
        median = sorted(self._block)[(RUN - 1) // 2]
        self._block.clear()
        if len(self._medians) < RING // RUN:
            self._medians.append(median)
        else:
            self._medians[seen // RUN % (RING // RUN)] = median

    def _refresh(self) -> None:
        """Set middle and limits from what is remembered."""
        self.middle = sorted(self._levels)[len(self._levels) // 2]
        distances = sorted(map(abs, self._distances))
        if len(distances) < FIRST // 2:
            return
        deviation = max(_FLOOR, _DEVIATION * distances[len(distances) // 2] // 1000)
        self.limit = max(deviation * 7 // 2, distances[len(distances) * 99 // 100] * 8 // 5)
        medians = sorted(map(abs, self._medians))
        if len(medians) < _MEDIANS_MIN:
            self.run_limit = self.limit
            return
        deviation = max(_RUN_FLOOR, _DEVIATION * medians[len(medians) // 2] // 1000)
        self.run_limit = max(deviation * 5 // 2, medians[len(medians) * 97 // 100] * 11 // 10)
