# SPDX-License-Identifier: Apache-2.0
"""One component against its own past: what is found, how soon, and what is not."""

from math import log2
from random import Random

import pytest

from atoll.health.gauge import FIRST, LATE, MOST, NEWEST_OUTSIDE, OUTSIDE, RING, Gauge
from atoll.health.levels import OCTAVE, level_of

MIDDLE = level_of(10_000_000)


def taught(spread: int = 6, samples: int = 1000, seed: int = 1) -> tuple[Gauge, Random]:
    gauge, rng = Gauge(), Random(seed)
    for _ in range(samples):
        gauge.observe(int(rng.gauss(MIDDLE, spread)))
    return gauge, rng


def until_late(gauge: Gauge, levels: list[int]) -> int | None:
    """Return how many of these it takes."""
    return next((number for number, level in enumerate(levels, 1) if gauge.observe(level) & LATE), None)


def test_a_steady_component_is_within() -> None:
    gauge, rng = taught()
    assert sum(gauge.observe(int(rng.gauss(MIDDLE, 6))) & LATE for _ in range(5000)) == 0


@pytest.mark.parametrize(("factor", "soon"), [(20, 3), (5, 3), (2, 3), (1.5, 8)])
def test_a_slow_down_is_found(factor: float, soon: int) -> None:
    gauge, rng = taught()
    by = int(log2(factor) * OCTAVE)
    found = until_late(gauge, [int(rng.gauss(MIDDLE + by, 6)) for _ in range(20)])
    assert found is not None
    assert found <= soon


def test_a_slow_down_nobody_would_notice_is_not_told() -> None:
    gauge, rng = taught()
    by = OCTAVE // 16
    assert until_late(gauge, [int(rng.gauss(MIDDLE + by, 2)) for _ in range(500)]) is None


def test_one_late_answer_is_outside_and_not_late() -> None:
    gauge, _ = taught()
    assert gauge.observe(MIDDLE + 3 * OCTAVE) == OUTSIDE
    assert gauge.observe(MIDDLE) == 0


def test_spikes_that_come_all_the_time_are_the_norm() -> None:
    gauge, rng = Gauge(), Random(2)

    def draw() -> int:
        return int(rng.gauss(MIDDLE, 6)) + (2 * OCTAVE if rng.random() < 0.05 else 0)

    for _ in range(2000):
        gauge.observe(draw())
    assert sum(gauge.observe(draw()) & OUTSIDE for _ in range(2000)) <= 2
    assert gauge.observe(MIDDLE + 5 * OCTAVE) & OUTSIDE


def test_a_fault_does_not_become_the_norm_until_that_is_accepted() -> None:
    gauge, _ = taught()
    said = [gauge.observe(MIDDLE + OCTAVE) for _ in range(10 * RING)]
    assert all(one & LATE for one in said[8:])
    gauge.accept()
    for _ in range(2 * RING):
        gauge.observe(MIDDLE + OCTAVE)
    assert gauge.observe(MIDDLE + OCTAVE) == 0
    said = [gauge.observe(MIDDLE + 3 * OCTAVE) for _ in range(10 * RING)]  # The next fault is one again.
    assert all(one & LATE for one in said[8:])


def test_how_many_of_the_newest_are_beyond_is_known() -> None:
    gauge, _ = taught()
    assert (gauge.is_taught, gauge.beyond) == (True, 0)
    for _ in range(3):
        gauge.observe(MIDDLE + OCTAVE)
    assert (gauge.beyond, gauge.is_late) == (3, True)
    for _ in range(10):
        gauge.observe(MIDDLE + OCTAVE)
    assert gauge.beyond == 8
    for _ in range(8):
        gauge.observe(MIDDLE)
    assert (gauge.beyond, gauge.is_late) == (0, False)


def test_faster_is_no_fault() -> None:
    gauge, _ = taught()
    assert not any(gauge.observe(MIDDLE - 3 * OCTAVE) for _ in range(50))


def test_nothing_is_judged_before_there_is_a_past() -> None:
    gauge, rng = Gauge(), Random(3)
    assert not any(gauge.observe(rng.randrange(16_384)) for _ in range(31))
    assert not gauge.is_taught


def test_levels_at_the_ends_of_the_scale_are_taken() -> None:
    gauge, rng = Gauge(), Random(4)
    for _ in range(5000):
        gauge.observe(rng.choice((0, 16_383)))
    assert gauge.middle in {0, 16_383}


@pytest.mark.parametrize("quiet", range(FIRST, 130))
def test_a_faults_first_answers_do_not_become_the_limit_whenever_it_begins(quiet: int) -> None:
    rng = Random(quiet)
    gauge = Gauge()
    usual = level_of(5_000_000)
    for _ in range(quiet):
        gauge.observe(usual + rng.randrange(-5, 6))
    said = [gauge.observe(usual + 4 * OCTAVE) for _ in range(200)]
    assert all(one & LATE for one in said[NEWEST_OUTSIDE:])


@pytest.mark.parametrize("odd_ms", [20, 40, 80, 1000])
def test_one_odd_answer_among_few_does_not_blind(odd_ms: int) -> None:
    for seed in range(20):
        rng = Random(seed)
        past = [1.3 * rng.lognormvariate(0, 0.1) for _ in range(60)]
        past[rng.randrange(20, 60)] = odd_ms
        gauge = Gauge()
        for latency_ms in past:
            gauge.observe(level_of(int(latency_ms * 1e6)))
        said = [gauge.observe(level_of(100_000_000)) for _ in range(60)]
        assert said[-1] & LATE, f"seed {seed}"


def test_an_answer_that_was_odd_is_learnt_once_the_next_one_is_not() -> None:
    gauge = Gauge()
    usual = level_of(5_000_000)
    for number in range(2000):
        gauge.observe(usual + (3 * OCTAVE if number % 40 == 0 else number % 5))
    assert gauge.limit > 3 * OCTAVE, "one in forty is usual here"
    assert gauge.limit <= MOST
