# SPDX-License-Identifier: Apache-2.0
"""Specifications as data: what each allows, when it is broken, and what is refused with what to do."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import UsageError
from atoll.base.units import MILLISECOND_NS
from atoll.health.gauge import LATE, OUTSIDE
from atoll.health.levels import level_of
from atoll.health.spec import (
    AMOUNT_MAX,
    LATENCY_NS_MAX,
    POINTS_MAX,
    QUANTILES_MAX,
    WINDOW_MAX,
    Bound,
    Curve,
    Line,
    Promise,
    Quantiles,
    Specification,
    allowed_ns,
    promise_of,
)

MS = MILLISECOND_NS
CURVE = Curve(((10, 1 * MS), (20, 3 * MS), (40, 4 * MS)))
HALF_AND_MOST = Quantiles(((5000, 5 * MS), (9900, 50 * MS)), window=200)


def said(promise: Promise, ms: float, amount: int = 1) -> int:
    return promise.observe(promise.levelled(level_of(int(ms * MS)), amount))


@pytest.mark.parametrize(
    ("amount", "allowed_ms"), [(0, 1), (10, 1), (15, 2), (20, 3), (30, 3.5), (40, 4), (60, 5), (10**9, 49_999_902)]
)
def test_a_curve_is_followed_and_goes_on_as_it_ended(amount: int, allowed_ms: float) -> None:
    assert allowed_ns(CURVE, amount) == pytest.approx(allowed_ms * MS, rel=0.2 if amount > 100 else 0)


def test_a_curve_that_falls_does_not_fall_below_its_last_point() -> None:
    assert allowed_ns(Curve(((1, 9 * MS), (2, 5 * MS))), 100) == 5 * MS
    assert allowed_ns(Curve(((7, 9 * MS),)), 100) == 9 * MS


def test_a_line_is_a_start_and_a_slope() -> None:
    assert allowed_ns(Line(MS, 10_000), 1000) == MS + 10_000
    assert allowed_ns(Line(0, 1), 1) == 1


@pytest.mark.parametrize("spec", [Bound(10 * MS), Line(10 * MS, 0), Curve(((1, 10 * MS),))])
def test_more_than_half_of_eight_beyond_a_bound_are_late(spec: Specification) -> None:
    promise = promise_of(spec)
    assert [said(promise, 9) for _ in range(8)] == [0] * 8
    assert [said(promise, 11) for _ in range(5)] == [OUTSIDE] * 4 + [OUTSIDE | LATE]
    assert promise.is_late
    assert promise.strength == 62
    assert [said(promise, 9) for _ in range(8)] == [LATE] * 3 + [0] * 5


def test_twice_the_work_may_take_twice_as_long() -> None:
    promise = promise_of(Line(0, 10_000_000))
    assert [said(promise, 10 * amount / 1000, amount) for amount in range(1, 1000)] == [0] * 999
    assert said(promise, 15, 1000) == OUTSIDE
    assert promise.levelled(level_of(20 * MS), 1000) == promise.base + level_of(20 * MS) - level_of(10 * MS)


def test_quantiles_are_broken_by_one_more_than_they_leave_out() -> None:
    promise = promise_of(HALF_AND_MOST)
    assert [said(promise, 4 if number % 3 else 6) for number in range(400)] == [0] * 400
    assert promise.strength == 0
    assert [said(promise, 60) for _ in range(3)] == [0, 0, LATE]
    assert promise.base == level_of(50 * MS)
    assert promise.is_late


def test_half_of_all_is_broken_without_a_single_slow_one() -> None:
    promise = promise_of(HALF_AND_MOST)
    for _ in range(200):
        said(promise, 4)
    assert [said(promise, 6) for _ in range(101)] == [0] * 100 + [LATE]
    assert promise.base == level_of(5 * MS)
    for _ in range(99):
        said(promise, 6)
    assert promise.strength > 80
    assert [said(promise, 4) for _ in range(100)] == [LATE] * 99 + [0]
    assert promise.base == level_of(50 * MS)


def test_the_tail_alone_is_broken() -> None:
    promise = promise_of(HALF_AND_MOST)
    for number in range(200):
        said(promise, 60 if number >= 197 else 4)
    assert promise.is_late
    assert promise.base == level_of(50 * MS)


@given(st.lists(st.sampled_from([1, 6, 60]), max_size=120))
def test_quantiles_are_what_counting_the_window_gives(latencies_ms: list[int]) -> None:
    window = 20
    promise = promise_of(Quantiles(((5000, 5 * MS), (9000, 50 * MS)), window))
    for number, ms in enumerate(latencies_ms, 1):
        said(promise, ms)
        newest = latencies_ms[max(0, number - window) : number]
        assert promise.is_late == (sum(one > 5 for one in newest) > 10 or sum(one > 50 for one in newest) > 2)


@pytest.mark.parametrize("spec", [Bound(1), Line(0, 5), CURVE, HALF_AND_MOST])
def test_they_are_data(spec: Specification) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=Specification) == spec
    assert promise_of(spec).spec == spec


@pytest.mark.parametrize(
    ("made", "fix"),
    [
        (lambda: Bound(0), "more than 0 and at most a day"),
        (lambda: Bound(LATENCY_NS_MAX + 1), "more than 0 and at most a day"),
        (lambda: Line(-1, 5), "give 0 to a day"),
        (lambda: Line(5, -1), "give 0 to a day"),
        (lambda: Line(0, 0), "give a start or a slope"),
        (lambda: Curve(()), "give 1 to"),
        (lambda: Curve(tuple((at, 1) for at in range(POINTS_MAX + 1))), "give 1 to"),
        (lambda: Curve(((5, 0),)), "more than 0 and at most a day"),
        (lambda: Curve(((-1, 5),)), "give 0 to"),
        (lambda: Curve(((AMOUNT_MAX + 1, 5),)), "give 0 to"),
        (lambda: Curve(((5, 5), (5, 6))), "sort its points"),
        (lambda: Quantiles(()), "give 1 to"),
        (lambda: Quantiles(tuple((at, at) for at in range(1, QUANTILES_MAX + 2))), "give 1 to"),
        (lambda: Quantiles(((5000, 0),)), "more than 0 and at most a day"),
        (lambda: Quantiles(((0, 5),)), "give 1 to 9999"),
        (lambda: Quantiles(((10_000, 5),)), "a Bound"),
        (lambda: Quantiles(((9000, 5), (5000, 6))), "sort them"),
        (lambda: Quantiles(((5000, 6), (9000, 6))), "sort them"),
        (lambda: Quantiles(((9900, 6),), window=99), "give 100 to"),
        (lambda: Quantiles(((9900, 6),), window=WINDOW_MAX + 1), "or a lower share"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(made: Callable[[], Specification], fix: str) -> None:
    with pytest.raises(UsageError, match=fix):
        made()
