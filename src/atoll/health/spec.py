# SPDX-License-Identifier: Apache-2.0
"""Performance specifications as data, and whether a component keeps its own.

Four forms, from the simplest to the richest:

* ``Bound``: one number. Every answer within it.
* ``Line``: a start and a slope. More of it may take longer, in proportion.
* ``Curve``: points of latency against amount, straight lines between them.
* ``Quantiles``: such a share of the answers within so much, over a window: half within 5 ms and 99 % within 50 ms.

What an amount counts is the component's affair: bytes, rows, or the requests that were in progress, where latency is
specified against load. The simpler the specification, the more events are faults; whoever writes it chooses.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import isqrt
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.base.units import HOUR_NS
from atoll.core.machine import Tuple
from atoll.health.confidence import strength
from atoll.health.gauge import LATE, OUTSIDE
from atoll.health.levels import level_of

__all__ = ["LATENCY_NS_MAX", "Bound", "Ceiling", "Curve", "Line", "Promise", "Quantiles", "Shares", "Specification"]
__all__ += ["allowed_ns", "promise_of"]

LATENCY_NS_MAX: Final = 24 * HOUR_NS
AMOUNT_MAX: Final = 1 << 48  # Limit.
POINTS_MAX: Final = 128  # Limit. Of a curve.
QUANTILES_MAX: Final = 8  # Limit.
WINDOW_MAX: Final = 4096  # Limit. Samples: half a KB for each quantile.
ALL: Final = 10_000  # Of a share.
RUN: Final = 8
_NEWEST_RUN: Final = (1 << RUN) - 1
_PS: Final = 1000


class Bound(Tuple, frozen=True):
    """Every answer within so much.

    Attributes:
        latency_ns: 1 ns to a day.
    """

    latency_ns: int

    def __post_init__(self) -> None:
        """Check it."""
        _check_latency(self.latency_ns)


class Line(Tuple, frozen=True):
    """Every answer within a start, and so much more for each unit of the amount.

    Attributes:
        start_ns: 0 to a day.
        slope_ps: Picoseconds for each unit, 0 to a day: 10,000 for bytes at 100 MB a second. One of the two is not 0.
    """

    start_ns: int
    slope_ps: int

    def __post_init__(self) -> None:
        """Check it."""
        if not (0 <= self.start_ns <= LATENCY_NS_MAX and 0 <= self.slope_ps <= LATENCY_NS_MAX * _PS):
            raise UsageError(f"a line from {self.start_ns} ns by {self.slope_ps} ps: give 0 to a day for both")
        if not self.start_ns and not self.slope_ps:
            raise UsageError("a line that allows no time at all: give a start or a slope above 0")


class Curve(Tuple, frozen=True):
    """Every answer within what a curve has at its amount.

    Attributes:
        points: 1 to POINTS_MAX of (amount, latency_ns), amounts rising. Between two points the line that joins them
            holds; before the first, the first; beyond the last, the last two's line, but never less than the last.
    """

    points: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        """Check it."""
        if not 0 < len(self.points) <= POINTS_MAX:
            raise UsageError(f"a curve of {len(self.points)} points: give 1 to {POINTS_MAX}")
        for amount, latency_ns in self.points:
            _check_latency(latency_ns)
            if not 0 <= amount <= AMOUNT_MAX:
                raise UsageError(f"a curve at an amount of {amount}: give 0 to 2^48")
        if any(later <= earlier for (earlier, _), (later, _) in pairwise(self.points)):
            raise UsageError("a curve whose amounts do not rise: sort its points by amount, one for each")


class Quantiles(Tuple, frozen=True):
    """Such a share of the answers within so much, over the newest.

    Attributes:
        points: 1 to QUANTILES_MAX of (share in 1/10,000, latency_ns), both rising. Half within 5 ms and 99 % within
            50 ms are ((5000, 5_000_000), (9900, 50_000_000)).
        window: How many answers, up to WINDOW_MAX; so many that the last share leaves out at least one.
    """

    points: tuple[tuple[int, int], ...]
    window: int = 256

    def __post_init__(self) -> None:
        """Check it."""
        if not 0 < len(self.points) <= QUANTILES_MAX:
            raise UsageError(f"{len(self.points)} quantiles: give 1 to {QUANTILES_MAX}")
        for share, latency_ns in self.points:
            _check_latency(latency_ns)
            if not 0 < share < ALL:
                raise UsageError(f"a share of {share}: give 1 to {ALL - 1} ten thousandths; for all, a Bound")
        if any(later[0] <= earlier[0] or later[1] <= earlier[1] for earlier, later in pairwise(self.points)):
            raise UsageError("quantiles that do not rise: sort them by share, each later than the one before")
        least = -(-ALL // (ALL - self.points[-1][0]))
        if not least <= self.window <= WINDOW_MAX:
            raise UsageError(
                f"a window of {self.window} for a share of {self.points[-1][0]}: give {least} to {WINDOW_MAX}, "
                "or a lower share"
            )


Specification = Bound | Line | Curve | Quantiles


@final
class Ceiling:
    """Whether answers keep a specification that gives a bound for each one.

    Attributes:
        spec: What is to be kept.
        base: Level of the bound where the amount is 1.
        is_late: Whether more than half of the newest eight were beyond it.
    """

    __slots__ = ("_beyond", "base", "is_late", "spec")

    def __init__(self, spec: Bound | Line | Curve) -> None:
        self.spec = spec
        self.base = level_of(allowed_ns(spec, 1))
        self._beyond = 0
        self.is_late = False

    def levelled(self, level: int, amount: int) -> int:
        """Return a latency's level as it would be at an amount of 1, if it is as far from the bound."""
        if isinstance(self.spec, Bound):
            return level
        return max(0, level - level_of(allowed_ns(self.spec, amount)) + self.base)

    def observe(self, levelled: int) -> int:
        """Take one more answer; return what it says, as a gauge does: OUTSIDE and LATE, added."""
        is_beyond = levelled > self.base
        self._beyond = beyond = self._beyond << 1 & _NEWEST_RUN | is_beyond
        self.is_late = beyond.bit_count() > RUN // 2
        return LATE * self.is_late | OUTSIDE * is_beyond

    @property
    def strength(self) -> int:
        """How strongly it is broken, 0 to 99: how many of the newest eight are beyond."""
        return strength(self._beyond.bit_count(), RUN)


@final
class Shares:
    """Whether answers keep quantiles. Broken is a quantile whose window has more answers beyond it than it leaves out.

    So an answer alone is never outside, and while the window fills, it is broken once the full one would be.

    Attributes:
        spec: What is to be kept.
        base: Level of the first quantile that is broken; of the last one, where none is.
        is_late: Whether one is broken.
    """

    __slots__ = ("_allowed", "_beyond", "_counts", "_full", "_last", "_levels", "base", "is_late", "spec")

    def __init__(self, spec: Quantiles) -> None:
        self.spec = spec
        self._levels: Final = [level_of(latency_ns) for _, latency_ns in spec.points]
        self._allowed: Final = [spec.window * (ALL - share) // ALL for share, _ in spec.points]
        self._beyond: Final = [0] * len(self._levels)  # The newest answer at bit 0.
        self._counts: Final = [0] * len(self._levels)
        self._full: Final = (1 << spec.window) - 1
        self._last: Final = spec.window - 1
        self.base = self._levels[-1]
        self.is_late = False

    def levelled(self, level: int, amount: int) -> int:
        """Return the level: quantiles are of latencies, whatever the amounts."""
        del amount
        return level

    def observe(self, levelled: int) -> int:
        """Take one more answer; return LATE or 0."""
        broken = None
        for number, bound in enumerate(self._levels):
            beyond = self._beyond[number]
            is_beyond = levelled > bound
            self._counts[number] += is_beyond - (beyond >> self._last)
            self._beyond[number] = beyond << 1 & self._full | is_beyond
            if broken is None and self._counts[number] > self._allowed[number]:
                broken = bound
        self.is_late = broken is not None
        self.base = self._levels[-1] if broken is None else broken
        return LATE * self.is_late

    @property
    def strength(self) -> int:
        """How strongly the worst is broken, 0 to 99: by how much more than is allowed by chance."""
        excesses = [
            (max(0, count - allowed), isqrt(allowed) + 1)
            for count, allowed in zip(self._counts, self._allowed, strict=True)
        ]
        return max(strength(excess, excess + chance) for excess, chance in excesses)


Promise = Ceiling | Shares


def promise_of(spec: Specification) -> Promise:
    """Return what watches a specification."""
    return Shares(spec) if isinstance(spec, Quantiles) else Ceiling(spec)


def allowed_ns(spec: Bound | Line | Curve, amount: int) -> int:
    """Return how long an answer of an amount may take, at least 1."""
    if isinstance(spec, Bound):
        return spec.latency_ns
    if isinstance(spec, Line):
        return max(1, spec.start_ns + amount * spec.slope_ps // _PS)
    return _on_curve(spec.points, amount)


def _on_curve(points: Sequence[tuple[int, int]], amount: int) -> int:
    # Compared as points: one with this amount and the longest latency lies after all that have it.
    after = bisect_right(points, (amount, LATENCY_NS_MAX))
    if after == 0 or len(points) == 1:
        return points[0][1]
    right_at = min(after, len(points) - 1)
    (left, low_ns), (right, high_ns) = points[right_at - 1], points[right_at]
    found_ns = low_ns + (amount - left) * (high_ns - low_ns) // (right - left)
    return found_ns if after < len(points) else max(found_ns, high_ns)


def _check_latency(latency_ns: int) -> None:
    if not 0 < latency_ns <= LATENCY_NS_MAX:
        raise UsageError(f"a latency of {latency_ns} ns: give more than 0 and at most a day, in ns")
