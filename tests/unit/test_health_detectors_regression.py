# SPDX-License-Identifier: Apache-2.0
"""Latency that goes with throughput is learnt, and what is above it for minutes is an event."""

from random import Random

import pytest

from atoll.base.errors import UsageError
from atoll.base.units import MILLISECOND_NS
from atoll.health.detectors.regression import BOUND_95, BOUND_999, DAY, POINT_NS, POINTS_MIN, SPAN, Regression
from atoll.health.detectors.verdict import Verdict
from atoll.health.levels import OCTAVE


class Disk:
    """One that takes longer the more is written, and a tenth of whose points are spikes if so wanted."""

    def __init__(
        self, bound: int = BOUND_999, points: int = DAY, spikes: float = 0.0, *, is_even: bool = False
    ) -> None:
        self.regression, self._rng, self._spikes, self._is_even = Regression(bound, points), Random(1), spikes, is_even
        self.now_ns = 0

    def run(self, points: int, slower: float = 1.0) -> list[Verdict]:
        """Return what is said at each point's end."""
        said = list[Verdict]()
        for _ in range(points):
            amount = 1 << 20 if self._is_even else int(2 ** self._rng.uniform(10, 24))
            latency_ns = MILLISECOND_NS * (1 + amount / 2_000_000) * self._rng.lognormvariate(0, 0.05) * slower
            latency_ns *= 30 if self._rng.random() < self._spikes else 1
            said.append(self.regression.observe(int(latency_ns), amount, self.now_ns))
            self.now_ns += POINT_NS
        return said


def test_more_work_that_takes_longer_is_well_and_the_same_work_that_does_is_an_event() -> None:
    disk = Disk()
    assert set(disk.run(600)[POINTS_MIN + 1 :]) == {Verdict.WELL}
    said = disk.run(SPAN, 1.6)
    assert said.index(Verdict.SLOW) == SPAN // 2  # Half of five minutes.
    assert disk.regression.over is not None
    assert 0 < disk.regression.over < OCTAVE
    assert disk.run(2 * SPAN)[-1] is Verdict.WELL


def test_an_event_that_lasts_does_not_become_the_norm() -> None:
    disk = Disk()
    disk.run(600)
    assert set(disk.run(3000, 1.6)[SPAN:]) == {Verdict.SLOW}


def test_spikes_are_dropped_from_the_fit_and_are_no_event() -> None:
    disk = Disk(spikes=0.1)
    assert Verdict.SLOW not in disk.run(1200)
    assert Verdict.SLOW in disk.run(SPAN, 1.6)


def test_the_lower_bound_is_the_nearer_one() -> None:
    near, far = Disk(BOUND_95), Disk()
    for disk in (near, far):
        disk.run(600)
    assert near.regression.over is not None
    assert far.regression.over is not None
    assert near.regression.over > far.regression.over


def test_of_points_that_new_ones_are_compared_with_so_many_are_above_as_the_bound_says() -> None:
    disk, above = Disk(BOUND_95), 0
    disk.run(2000)
    for _ in range(1000):
        disk.run(1)
        assert disk.regression.over is not None
        above += disk.regression.over > 0
    assert 25 <= above <= 90


def test_always_the_same_throughput_is_a_past_as_well() -> None:
    disk = Disk(is_even=True)
    assert set(disk.run(100)[POINTS_MIN + 1 :]) == {Verdict.WELL}
    assert Verdict.SLOW in disk.run(SPAN, 1.6)


def test_a_throughput_that_was_never_seen_counts_as_the_nearest() -> None:
    disk = Disk()
    disk.run(100)
    for _ in range(2 * SPAN):
        disk.regression.observe(30 * MILLISECOND_NS, 1 << 40, disk.now_ns)
        disk.now_ns += POINT_NS
    assert disk.regression.observe(1, 1, disk.now_ns) is Verdict.SLOW


def test_what_is_remembered_is_bounded_and_a_new_norm_is_learnt_once_it_is_within() -> None:
    disk = Disk(points=POINTS_MIN)
    disk.run(1000)
    assert set(disk.run(600, 0.5)[1:]) == {Verdict.WELL}
    assert Verdict.SLOW in disk.run(SPAN)


def test_nothing_is_said_before_there_is_a_fit_and_a_clock_that_goes_back_counts_for_now() -> None:
    regression = Regression()
    for number in range(1000):
        assert regression.observe(MILLISECOND_NS, 1, -number * POINT_NS) is Verdict.NOTHING
    assert regression.over is None


def test_nonsense_is_refused() -> None:
    for bound, points in ((0, DAY), (BOUND_95, POINTS_MIN - 1), (BOUND_95, DAY + 1)):
        with pytest.raises(UsageError, match="give at least 1"):
            Regression(bound, points)
