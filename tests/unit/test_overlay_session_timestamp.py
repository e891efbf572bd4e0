# SPDX-License-Identifier: Apache-2.0
"""Timestamps rise whatever the wall clock does."""

import pytest

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.overlay.session.timestamp import Timestamps


def test_the_label_is_tai64n() -> None:
    # The paper's base: 2^62 + 10 s for the second 0 of 1970.
    stamp = Timestamps(0).following(1 << 30)
    assert stamp[:8] == ((1 << 62) + 10 + 1).to_bytes(8, "big")
    assert int.from_bytes(stamp[8:], "big") == (1 << 30) - SECOND_NS


def test_the_clock_is_rounded_down_to_a_grain() -> None:
    assert Timestamps(0).following((7 << 24) + 12345) == Timestamps(0).following(7 << 24)


def test_a_clock_that_stands_or_steps_back_gives_rising_stamps() -> None:
    stamps = Timestamps(0)
    walls = [10**18, 10**18, 10**18 - 10**15, 0, -5, 10**18 + 1, 10**18 + 10**9]
    made = [stamps.following(wall) for wall in walls]
    assert made == sorted(made)
    assert len({*made}) == len(made)
    assert {len(stamp) for stamp in made} == {12}


def test_a_floor_holds_over_a_restart() -> None:
    first = Timestamps(0)
    stamp = first.following(10**18)
    assert Timestamps(first.last_ns).following(10**15) > stamp


@pytest.mark.parametrize("floor", [-1, 1 << 63])
def test_a_floor_out_of_range_is_the_callers_bug(floor: int) -> None:
    with pytest.raises(UsageError):
        Timestamps(floor)
