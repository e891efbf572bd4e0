# SPDX-License-Identifier: Apache-2.0
"""Busy or slow, without peers: Little's law against what the component used to do at the same concurrency.

In any system that neither loses nor invents requests, W = L / lambda: the mean time in it is the mean number in it
over the rate at which they leave. That holds of a slow component as of a busy one. What differs is what L does to W. As
long as nothing waits, W does not depend on L; where nothing is idle, W grows as L does, since lambda can grow no more.
So the latency that was usual at each concurrency is remembered, as a *curve*, while all is well. Later:

* at a concurrency that the curve has, a latency of what is usual there is explained by the load: *busy*. A higher one
  is *slow*: the same concurrency, and fewer requests leave.
* at one that it has not, the load explains the latency only if it has truly grown: requests come at least twice as
  often as usual. At an unchanged rate a concurrency that grew is nothing but the latency itself.
* below one request at a time nothing waits for another, and the load explains nothing: a latency that is higher there
  comes with a rate that is lower, or lies above the curve.

Who reports no concurrency has it by the same law, from the latency and from how far apart the answers come.

Source: Little, A Proof for the Queuing Formula L = lambda W, Operations Research 9 (1961).
"""

from array import array
from typing import Final, final

from atoll.health.detectors.verdict import Verdict
from atoll.health.levels import OCTAVE

__all__ = ["BUSY", "Load"]

BUSY: Final = OCTAVE  # Requests come twice as often as usual.
OVER: Final = OCTAVE // 2  # Levels above the curve, where the caller has no better limit: 1.4 times.
HALVES: Final = 33  # Of octaves of concurrency, 1 to 2^16. More counts as that.
STEP: Final = 4  # By how many levels a usual value follows.

_UNKNOWN: Final = -(1 << 15)


@final
class Load:
    """One component's latency by concurrency.

    All in levels: a *gap* is that of the time from one answer to the next, ns; a concurrency is that of the mean number
    of requests in progress, below 0 where that is less than one. The latency is their sum.

    Attributes:
        gap: What is usual; None: nothing is known.
    """

    __slots__ = ("_curve", "_least", "gap")

    def __init__(self) -> None:
        self._curve: Final = array("h", [_UNKNOWN] * (1 + HALVES))  # First that of less than one at a time.
        self._least = HALVES  # The first place that is known.
        self.gap: int | None = None

    def learn(self, concurrency: int, gap: int) -> None:
        """Take for usual what is seen while all is well: medians, by single steps."""
        self.gap = gap if self.gap is None else _followed(self.gap, gap)
        place = _place(concurrency)
        self._least = min(self._least, place)
        usual, latency = self._curve[place], max(0, concurrency + gap)
        self._curve[place] = latency if usual == _UNKNOWN else _followed(usual, latency)

    def observe(self, concurrency: int, gap: int, over: int = OVER) -> Verdict:
        """Return what explains the latency: BUSY, or SLOW; WELL: it is no higher than where the least goes on.

        Args:
            concurrency: Its level.
            gap: Its level.
            over: How many levels above what is usual is higher.
        """
        if self.gap is None:
            return Verdict.NOTHING
        latency = concurrency + gap
        if latency - self._curve[self._least] <= over:
            return Verdict.WELL
        usual = self._curve[_place(concurrency)]
        explains = self.gap - gap >= BUSY if usual == _UNKNOWN else latency - usual <= over
        return Verdict.BUSY if explains else Verdict.SLOW


def _place(concurrency: int) -> int:
    return 0 if concurrency < 0 else 1 + min(2 * concurrency // OCTAVE, HALVES - 1)


def _followed(usual: int, seen: int) -> int:
    """Return a median that has taken one more step."""
    return min(usual + STEP, seen) if seen > usual else max(usual - STEP, seen)
