# SPDX-License-Identifier: Apache-2.0
"""Median and MAD against their definitions, and that a spike does not hide the next one."""

from random import Random
from statistics import median

import pytest

from atoll.base.errors import UsageError
from atoll.health.detectors.history import HISTORY_WINDOW, KNOWN_MIN, SPREAD_EVERY, History
from atoll.health.detectors.verdict import Verdict


def drawn(count: int, seed: int = 1) -> list[int]:
    rng = Random(seed)
    return [int(rng.gauss(1_000_000, 20_000)) for _ in range(count)]


def taught(values: list[int]) -> History:
    history = History()
    for value in values:
        history.observe(value)
    return history


def test_the_distance_is_the_definition_s() -> None:
    values = drawn(HISTORY_WINDOW + 5 * SPREAD_EVERY)
    newest = values[-HISTORY_WINDOW:]
    middle = sorted(newest)[HISTORY_WINDOW // 2]
    deviation = 1.4826 * median(sorted(abs(value - middle) for value in newest))
    for value in (900_000, 1_000_000, 1_100_000):
        assert taught(values).distance(value) == pytest.approx(1000 * (value - middle) / deviation, rel=0.02, abs=2)


def test_what_is_usual_is_well_and_what_is_not_is_slow() -> None:
    history, rng = taught(drawn(1000)), Random(2)
    said = [history.observe(int(rng.gauss(1_000_000, 20_000))) for _ in range(1000)]
    assert said.count(Verdict.SLOW) <= 5
    assert history.observe(1_100_000) is Verdict.SLOW
    assert history.observe(500_000) is Verdict.WELL


def test_spikes_up_to_a_third_hide_no_other() -> None:
    history = History()
    for number, value in enumerate(drawn(600)):
        history.observe(value * (5 if number % 3 == 0 else 1))
    assert history.observe(2_000_000) is Verdict.SLOW


def test_nothing_is_judged_before_there_is_a_past() -> None:
    history = History()
    assert {history.observe(value) for value in [1] * KNOWN_MIN} == {Verdict.NOTHING}
    assert history.observe(10) is Verdict.SLOW


def test_where_all_are_alike_a_hair_more_is_no_outlier() -> None:
    history = taught([1_000_000] * 300)
    assert history.observe(1_003_000) is Verdict.WELL
    assert history.observe(1_004_000) is Verdict.SLOW


def test_what_was_is_forgotten() -> None:
    history = taught([1_000_000] * HISTORY_WINDOW + [3_000_000] * HISTORY_WINDOW)
    assert history.observe(3_000_000) is Verdict.WELL
    assert history.distance(1_000_000) == -666_667  # By the floor, a thousandth of the median.


def test_nonsense_is_refused() -> None:
    for window, threshold in ((KNOWN_MIN - 1, 1), (KNOWN_MIN, 0)):
        with pytest.raises(UsageError, match="give at least"):
            History(window, threshold)
