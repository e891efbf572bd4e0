# SPDX-License-Identifier: Apache-2.0
"""Twice the median of those that should be alike; and what half of a group that is slow hides."""

import pytest

from atoll.base.errors import UsageError
from atoll.health.detectors.peers import IASO_SHARE, MEDIAN, PeerRatio, reference
from atoll.health.levels import OCTAVE, level_of


def group(*took_ms: float) -> dict[str, int]:
    return {chr(ord("a") + number): level_of(int(ms * 1_000_000)) for number, ms in enumerate(took_ms)}


def test_twice_the_median_is_slow_the_worst_first() -> None:
    assert PeerRatio().observe(group(10, 11, 9, 19, 10, 10)) == []
    assert PeerRatio().observe(group(10, 20.5, 9, 10, 80, 10, 11)) == [("e", 3 * OCTAVE), ("b", OCTAVE + 4)]


def test_equals_are_told_by_name() -> None:
    assert [name for name, _ in PeerRatio().observe(group(10, 40, 10, 10, 10, 40))] == ["b", "f"]


def test_fewer_than_three_others_say_nothing() -> None:
    assert PeerRatio().observe({}) == []
    assert PeerRatio().observe(group(10, 10, 90)) == []
    assert [name for name, _ in PeerRatio().observe(group(10, 10, 10, 90))] == ["d"]


def test_half_that_are_slow_hide_behind_the_median_and_not_behind_the_30th_percentile() -> None:
    mostly_slow = group(10, 10, 10, 10, 90, 90, 90, 90, 90, 90)
    assert PeerRatio().observe(mostly_slow) == []
    assert len(PeerRatio(IASO_SHARE).observe(mostly_slow)) == 6


def test_all_slow_at_once_are_nobody() -> None:
    assert PeerRatio().observe(group(90, 90, 91, 92, 89)) == []


def test_the_reference_is_the_nearest_rank() -> None:
    assert reference([5, 1, 4, 2, 3]) == 3
    assert reference([7], 0) == reference([7]) == 7


def test_nonsense_is_refused() -> None:
    for share, ratio in ((-1, 1), (MEDIAN + 1, 1), (MEDIAN, 0)):
        with pytest.raises(UsageError, match="give 0 to 50"):
            PeerRatio(share, ratio)
