# SPDX-License-Identifier: Apache-2.0
"""The accrual detector against the paper's definition, and what it does with bad clocks."""

from math import erfc, log10, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import UsageError
from atoll.base.units import HOUR_NS, MILLISECOND_NS, SECOND_NS
from atoll.health.detectors.phi import INTERVALS_MIN, THRESHOLD, PhiAccrual, phi_of
from atoll.health.detectors.verdict import Verdict


def steady(window: int = 1000, deviation_min_ns: int = 1, beats: int = 1001) -> tuple[PhiAccrual, int]:
    """Return a detector whose intervals are 0.9 and 1.1 s by turns: mean 1 s, deviation 0.1 s; and the last time."""
    detector, at_ns = PhiAccrual(window, deviation_min_ns=deviation_min_ns), 0
    for number in range(beats):
        detector.observe(at_ns)
        at_ns += SECOND_NS + (1 if number % 2 else -1) * 100 * MILLISECOND_NS
    return detector, at_ns - SECOND_NS + 100 * MILLISECOND_NS * (1 if beats % 2 else -1)


@pytest.mark.parametrize(("phi", "silence_s"), [(1, 1.13), (3, 1.31), (5, 1.43), (8, 1.56), (12, 1.70)])
def test_phi_of_a_silence_is_as_published(phi: int, silence_s: float) -> None:
    detector, last_ns = steady()
    found = detector.phi(last_ns + int(silence_s * SECOND_NS))
    assert found == pytest.approx(1000 * phi, abs=150)


@given(st.integers(1282, 9262))
def test_phi_is_that_of_the_normal_distribution(deviations: int) -> None:
    assert phi_of(deviations) / 1000 == pytest.approx(-log10(erfc(deviations / 1000 / sqrt(2)) / 2), abs=0.02)


@given(st.integers(-5000, 30_000))
def test_more_silence_is_no_less_surprising(deviations: int) -> None:
    assert 0 <= phi_of(deviations) <= phi_of(deviations + 1)


def test_it_is_suspected_from_the_threshold_on_and_no_more_when_it_is_heard() -> None:
    detector, last_ns = steady()
    assert detector.verdict(last_ns + SECOND_NS) is Verdict.WELL
    assert detector.verdict(last_ns + SECOND_NS + 560 * MILLISECOND_NS) is Verdict.WELL
    assert detector.verdict(last_ns + SECOND_NS + 563 * MILLISECOND_NS) is Verdict.SLOW
    detector.observe(last_ns + 3 * SECOND_NS)
    assert detector.verdict(last_ns + 3 * SECOND_NS) is Verdict.WELL


def test_what_was_hardly_heard_is_not_judged() -> None:
    detector = PhiAccrual()
    assert detector.phi(HOUR_NS) is None
    for number in range(INTERVALS_MIN):
        detector.observe(number * SECOND_NS)
    assert detector.verdict(HOUR_NS) is Verdict.NOTHING
    detector.observe(INTERVALS_MIN * SECOND_NS)
    assert detector.verdict(HOUR_NS) is Verdict.SLOW


def test_the_window_forgets() -> None:
    detector, at_ns = PhiAccrual(10, deviation_min_ns=MILLISECOND_NS), 0
    for interval_ns in [60 * SECOND_NS] * 20 + [SECOND_NS] * 10:
        detector.observe(at_ns := at_ns + interval_ns)
    assert detector.verdict(at_ns + 2 * SECOND_NS) is Verdict.SLOW


def test_perfect_regularity_does_not_convict_a_hiccup() -> None:
    detector = PhiAccrual()
    for number in range(100):
        detector.observe(number * SECOND_NS)
    assert detector.verdict(99 * SECOND_NS + 1500 * MILLISECOND_NS) is Verdict.WELL
    assert detector.verdict(99 * SECOND_NS + 1600 * MILLISECOND_NS) is Verdict.SLOW


def test_a_clock_that_goes_back_stands_still() -> None:
    detector, last_ns = steady()
    detector.observe(5)
    assert detector.phi(last_ns) == 0
    assert detector.phi(5) == 0


def test_nonsense_is_refused() -> None:
    for window, threshold, deviation_min_ns in ((INTERVALS_MIN - 1, THRESHOLD, 1), (1000, 0, 1), (1000, THRESHOLD, 0)):
        with pytest.raises(UsageError, match="give at least"):
            PhiAccrual(window, threshold, deviation_min_ns)
