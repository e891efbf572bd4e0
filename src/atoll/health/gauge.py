# SPDX-License-Identifier: Apache-2.0
"""Compares a component with its own past: what is too late for one answer, and what is too late for several in a row.

Theory of operation. A ring holds the newest 512 levels (levels.py), another how far each of them lay from the middle
that was known when it came, its *distance*. Every 256 samples, at first more often, the middle becomes the ring's
median, and two limits are set anew:

* an answer is *outside* when its distance is beyond 3.5 robust deviations and 1.6 times what 99 % of the past distances
  stayed within; or when it takes 32 times as long as usual. The second is what makes one default do for a quiet series
  and for one that is full of spikes: a limit calibrates itself by how often it would have been passed;
* the newest eight are *late* when five of them are beyond the same kind of limit for the medians of eight. That is far
  lower: a median of eight wanders less than a single answer, and slow-downs of a third show.

What comes while they are late is not learnt, so that a fault does not become the norm while it lasts; and an answer
that is outside is learnt only once a later one is not, so that a fault's first answers do not, either. Its owner, who
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

ODD: Final = 1  # So many odd answers among few do not set the limit: of less than a hundred, one says nothing of 99 %.
MOST: Final = 5 * OCTAVE  # What takes 32 times as long as usual is outside, whatever the past.

OUTSIDE: Final = 1  # This answer.
LATE: Final = 2  # The newest eight, or three of the newest five are outside.

_FLOOR: Final = OCTAVE * 2 // 10
_RUN_FLOOR: Final = OCTAVE * 15 // 100
_DEVIATION: Final = 1483  # Thousandths: of a normal distribution's median distance.
_MEDIANS_MIN: Final = 8
_BEFORE: Final = FIRST // 2  # Samples before there is a middle; their distances mean nothing.
_REFRESHES: Final = (_BEFORE, FIRST, 48, 64, 96, 128, 192, 256, 384, RING)  # Later each REFRESH.
_NEVER: Final = 1 << 30
_NEWEST_FIVE: Final = 0b11111
_NEWEST_RUN: Final = (1 << RUN) - 1
_RING_ZEROS: Final = bytes(2 * RING)
_RING_MASK: Final = RING - 1  # Both are powers of two.
_RUN_MASK: Final = RUN - 1


@final
class Gauge:
    """One component's past.

    Attributes:
        middle: Median level of the past.
        limit: Distance beyond which one answer is outside.
        run_limit: Distance beyond which five of eight make the run late.
        unlearnt: How many in a row were late, and are not learnt.
        is_late: Whether the newest samples were late.
    """

    __slots__ = (
        "_accepts",
        "_distances",
        "_due",
        "_held",
        "_least",
        "_levels",
        "_medians",
        "_points",
        "_runs",
        "_seen",
        "is_late",
        "limit",
        "middle",
        "run_limit",
        "unlearnt",
    )

    def __init__(self) -> None:
        self._held: tuple[tuple[int, int], ...] = ()  # Outside, at most NEWEST_OUTSIDE of them: one more is late.
        self._levels = array("h", _RING_ZEROS)
        self._distances = array("h", _RING_ZEROS)  # Of the same samples, at the same places.
        self._medians = array("h")  # Of eight distances each; those of the first _BEFORE samples are left out.
        self._points = self._runs = 0  # The newest at bit 0: was it outside; was it beyond the runs' limit.
        self._seen = 0  # Samples that were learnt.
        self._due = _BEFORE
        self._accepts = self.is_late = False
        self.unlearnt = self.middle = 0
        self.limit = self.run_limit = self._least = _NEVER

    def observe(self, level: int) -> int:
        """Take one more sample, in order; return what it says: OUTSIDE and LATE, added.

        Args:
            level: Of the latency, or of the latency per amount; 0 to 16,383.
        """
        distance = level - self.middle
        said = 0
        # Of most components most samples are below both limits, and so were the newest: then there is nothing to note.
        if distance > self._least or self._runs or self._points:
            said = self._note(distance)
            if said and not self._accepts:
                self._held = () if said & LATE else (*self._held, (level, distance))
                return said
            if self._held:
                held, self._held = self._held, ()
                for one in held:
                    self._learn(*one)
        self._learn(level, distance)
        return said

    def _learn(self, level: int, distance: int) -> None:
        seen = self._seen
        at = seen & _RING_MASK
        self._levels[at] = level
        self._distances[at] = distance
        self._seen = seen = seen + 1
        if not seen & _RUN_MASK:
            self._close_block(at)
            if seen == self._due:
                self._refresh()

    def accept(self) -> None:
        """Learn what comes although it is late, until it is not."""
        self._accepts = True

    @property
    def beyond(self) -> int:
        """How many of the newest eight were beyond a limit."""
        return max(self._runs.bit_count(), self._points.bit_count())

    @property
    def is_taught(self) -> bool:
        """Whether there is a past to compare with."""
        return self._seen >= FIRST

    def _note(self, distance: int) -> int:
        """Note whether a sample is beyond the limits; return what it says with the newest others."""
        self._points = points = self._points << 1 & _NEWEST_FIVE | (distance > self.limit)
        self._runs = runs = self._runs << 1 & _NEWEST_RUN | (distance > self.run_limit)
        self.is_late = is_late = runs.bit_count() > RUN // 2 or points.bit_count() > NEWEST_OUTSIDE
        if is_late:
            self.unlearnt += not self._accepts
            return points & OUTSIDE | LATE
        self.unlearnt, self._accepts = 0, False
        return points & OUTSIDE

    def _close_block(self, at: int) -> None:
        if self._seen <= _BEFORE:
            return
        median = sorted(self._distances[at - RUN + 1 : at + 1])[(RUN - 1) // 2]
        if len(self._medians) < RING // RUN:
            self._medians.append(median)
        else:
            self._medians[at // RUN] = median

    def _refresh(self) -> None:
        """Set middle and limits from what is remembered."""
        seen = self._seen
        self._due = next((due for due in _REFRESHES if due > seen), seen + REFRESH)
        self.middle = sorted(self._levels[:seen])[min(seen, RING) // 2]
        if seen < FIRST:
            return
        first = _BEFORE if seen <= RING else 0
        distances = sorted(map(abs, self._distances[first:seen]))
        deviation = max(_FLOOR, _DEVIATION * distances[len(distances) // 2] // 1000)
        most = len(distances)
        tail = distances[min(most * 99 // 100, most - 1 - ODD)]
        self.limit = self.run_limit = min(MOST, max(deviation * 7 // 2, tail * 8 // 5))
        medians = sorted(map(abs, self._medians))
        if len(medians) >= _MEDIANS_MIN:
            deviation = max(_RUN_FLOOR, _DEVIATION * medians[len(medians) // 2] // 1000)
            self.run_limit = min(MOST, max(deviation * 5 // 2, medians[len(medians) * 97 // 100] * 11 // 10))
        self._least = min(self.limit, self.run_limit)
