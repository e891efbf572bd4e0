# SPDX-License-Identifier: Apache-2.0
"""Latency against throughput, by regression on the component's own data: what it may take at this throughput.

Every 15 seconds are one *point*: the mean latency and the amount done. A polynomial is fitted to the points of a day,
both axes in levels; points that lie 3.5 robust deviations off are dropped, and it is fitted again. Above it lies the
*upper prediction bound*, below which a new point falls with a chance of 95 % or 99.9 %. The slow-down ratio of a point
is its latency over the bound. An *event* is when that is above 1 for at least half of the points of the newest five
minutes; while it lasts nothing is learnt. A throughput beyond those that were seen counts as the nearest of them:
a polynomial says nothing there.

Of Perseus it has the regression, the bounds, the ratio and the event. Perseus drops outliers by PCA and DBSCAN over a
whole node's drives, and keeps a daily score of risk; ours sees one component, and a robust deviation does for that.

The sums are exact (whole numbers and fractions), so that a fit gives the same bound on every computer.

Source: Lu and others, Perseus: A Fail-Slow Detection Framework for Cloud Storage Systems, FAST 2023.
"""

from array import array
from collections.abc import Sequence
from fractions import Fraction
from math import isqrt, lcm
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.health.detectors.verdict import Verdict
from atoll.health.levels import level_of

__all__ = ["BOUND_95", "BOUND_999", "DAY", "POINT_NS", "SPAN", "Regression"]

POINT_NS: Final = 15 * SECOND_NS  # Ours.
DAY: Final = 5760  # Points.
SPAN: Final = 20  # Points: five minutes.
BOUND_95: Final = 1645  # Thousandths of a deviation, one-sided.
BOUND_999: Final = 3090
DEGREE: Final = 3  # Ours, as all below. In logarithms a floor and a slope meet in a bend, which a parabola misses.
POINTS_MIN: Final = 40  # Before, nothing is judged.
FIT_EVERY: Final = 240  # Points: an hour.
OUTLYING: Final = 3500  # Thousandths of a robust deviation.

_DEVIATION: Final = 1483  # Thousandths: of a normal distribution's median distance.


@final
class Regression:
    """One component's.

    Args:
        bound: BOUND_95 or BOUND_999, or another number of thousandths of a deviation.
        points: How many are remembered, POINTS_MIN to DAY.

    Attributes:
        over: The newest point's slow-down ratio, in levels: positive is above the bound. None: not judged.

    Raises:
        UsageError: One of them is no good.
    """

    def __init__(self, bound: int = BOUND_999, points: int = DAY) -> None:
        if bound < 1 or not POINTS_MIN <= points <= DAY:
            raise UsageError(f"a bound of {bound}, {points} points: give at least 1, and {POINTS_MIN} to {DAY}")
        self._bound, self._most = bound, points
        self._xs, self._ys = array("h"), array("h")
        self._learnt, self._due = 0, POINTS_MIN
        self._fit: _Fit | None = None
        self._events = 0  # The newest points at bit 0: was it over the bound.
        self._begin_ns: int | None = None
        self._count = self._latency_ns = self._amount = 0
        self.over: int | None = None
        self._verdict = Verdict.NOTHING

    def observe(self, latency_ns: int, amount: int, at_ns: int) -> Verdict:
        """Take one answer; return the verdict of the newest point, which is the newest full 15 seconds with an answer.

        A time from before the last point began counts for that one.
        """
        if self._begin_ns is None:
            self._begin_ns = at_ns
        elif at_ns - self._begin_ns >= POINT_NS:
            self._close()
            self._begin_ns = at_ns
        self._count += 1
        self._latency_ns += latency_ns
        self._amount += amount
        return self._verdict

    def _close(self) -> None:
        x, y = level_of(self._amount), level_of(self._latency_ns // self._count)
        self._count = self._latency_ns = self._amount = 0
        if self._fit is not None:
            self.over = y - self._fit.bound(x, self._bound)
            self._events = self._events << 1 & (1 << SPAN) - 1 | (self.over > 0)
            self._verdict = Verdict.SLOW if 2 * self._events.bit_count() >= SPAN else Verdict.WELL
        if self._verdict is Verdict.SLOW:
            return
        if self._learnt < self._most:
            self._xs.append(x)
            self._ys.append(y)
        else:
            self._xs[self._learnt % self._most], self._ys[self._learnt % self._most] = x, y
        self._learnt += 1
        if self._learnt == self._due:
            self._due += FIT_EVERY
            self._fit = _fitted(self._xs, self._ys)


@final
class _Fit:
    """A polynomial of least squares, and how far off new points fall."""

    def __init__(self, xs: Sequence[int], ys: Sequence[int]) -> None:
        self._centre, self._least, self._most = sum(xs) // len(xs), min(xs), max(xs)
        degree = min(DEGREE, len(set(xs)) - 1)
        us = [x - self._centre for x in xs]
        powers = [sum(u**power for u in us) for power in range(2 * degree + 1)]
        self._inverse = _inverted([powers[row : row + degree + 1] for row in range(degree + 1)])
        moments = [sum(u**power * y for u, y in zip(us, ys, strict=True)) for power in range(degree + 1)]
        coefficients = [sum(a * m for a, m in zip(row, moments, strict=True)) for row in self._inverse]
        # Whole numbers over one denominator: a fit asks for thousands of values, and fractions are slow.
        self._denominator = lcm(*(a.denominator for a in coefficients))
        self._numerators = [int(a * self._denominator) for a in reversed(coefficients)]
        squares = sum((y - self.at(x)) ** 2 for x, y in zip(xs, ys, strict=True))
        self._variance = max(Fraction(1), Fraction(squares, len(xs) - degree - 1))  # At least the scale's own step.

    def at(self, x: int) -> int:
        """Return the level that is to be expected."""
        u, y = x - self._centre, 0
        for numerator in self._numerators:
            y = y * u + numerator
        return y // self._denominator

    def bound(self, x: int, deviations: int) -> int:
        """Return the upper prediction bound, so many thousandths of a deviation above."""
        x = min(max(x, self._least), self._most)
        terms = [(x - self._centre) ** power for power in range(len(self._numerators))]
        products = [sum(a * term for a, term in zip(row, terms, strict=True)) for row in self._inverse]
        leverage = sum(product * term for product, term in zip(products, terms, strict=True))
        return self.at(x) + isqrt(int(deviations * deviations * self._variance * (1 + leverage))) // 1000


def _fitted(xs: Sequence[int], ys: Sequence[int]) -> _Fit:
    first = _Fit(xs, ys)
    distances = [abs(y - first.at(x)) for x, y in zip(xs, ys, strict=True)]
    most = max(1, OUTLYING * _DEVIATION * sorted(distances)[len(distances) // 2] // 1_000_000)
    kept = [(x, y) for x, y, distance in zip(xs, ys, distances, strict=True) if distance <= most]
    return _Fit([x for x, _ in kept], [y for _, y in kept])


def _inverted(matrix: list[list[int]]) -> list[list[Fraction]]:
    """Return the inverse of a positive definite matrix of whole numbers, exactly (Gauss and Jordan)."""
    size = len(matrix)
    rows = [
        [Fraction(a) for a in row] + [Fraction(at == number) for at in range(size)] for number, row in enumerate(matrix)
    ]
    for pivot in range(size):
        rows[pivot] = [a / rows[pivot][pivot] for a in rows[pivot]]
        for number in range(size):
            if number != pivot:
                factor = rows[number][pivot]
                rows[number] = [a - factor * b for a, b in zip(rows[number], rows[pivot], strict=True)]
    return [row[size:] for row in rows]
