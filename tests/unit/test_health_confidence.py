# SPDX-License-Identifier: Apache-2.0
"""How sure: never certain, and surer the more speak."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.health.confidence import STRENGTH_MAX, combined, strength


def test_of_nothing_it_is_nothing_and_of_one_it_is_that_one() -> None:
    assert combined([]) == 0
    assert combined([62]) == 62
    assert combined([50, 50]) == 75


def test_a_test_that_all_samples_speak_for_is_not_certain() -> None:
    assert [strength(number, 8) for number in (0, 5, 8)] == [0, 62, STRENGTH_MAX]


@given(st.lists(st.integers(0, STRENGTH_MAX), max_size=4), st.integers(0, STRENGTH_MAX))
def test_one_more_makes_it_no_less_sure_and_never_certain(strengths: list[int], more: int) -> None:
    assert combined(strengths) <= combined([*strengths, more]) < 100
    assert combined([*strengths, more]) >= more - 1
