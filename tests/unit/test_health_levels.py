# SPDX-License-Identifier: Apache-2.0
"""The scale: exact against whole-number arithmetic, monotonic, and its own inverse."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.health.levels import OCTAVE, level_of, value_of


@given(st.integers(1, 1 << 60))
def test_a_level_is_at_most_one_step_below_the_logarithm(value: int) -> None:
    level = level_of(value)
    assert 2**level <= value**OCTAVE
    assert value**OCTAVE < 2 ** (level + 2)


@given(st.integers(1, 1 << 60), st.integers(0, 1 << 60))
def test_what_is_more_has_no_lower_level(value: int, more: int) -> None:
    assert level_of(value) <= level_of(value + more)


@given(st.integers(1, 1 << 60), st.integers(1, 20))
def test_twice_is_one_octave(value: int, octaves: int) -> None:
    assert level_of(value << octaves) == level_of(value) + octaves * OCTAVE


@given(st.integers(8 * OCTAVE, 60 * OCTAVE))
def test_a_value_is_at_its_level(level: int) -> None:
    assert level_of(value_of(level)) in {level, level - 1}


def test_what_is_not_positive_is_at_zero() -> None:
    assert level_of(0) == level_of(-5) == level_of(1) == 0
    assert value_of(-3) == value_of(0) == 1
