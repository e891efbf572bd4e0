# SPDX-License-Identifier: Apache-2.0
"""The tables are what their comments say: checked against the exact distributions, and stable to the bit."""

from itertools import pairwise
from math import exp, log
from random import Random
from statistics import NormalDist

import pytest

from atoll.sim.quantiles import BELL, EXPONENTIAL, HEAVY, UNIFORM, spread


@pytest.mark.parametrize("table", [BELL, EXPONENTIAL, HEAVY, UNIFORM])
def test_tables_rise_from_zero_and_have_mean_1024(table: tuple[int, ...]) -> None:
    assert len(table) == 129
    assert table[0] == 0
    assert list(table) == sorted(table)
    mean = sum((low + high) / 2 for low, high in pairwise(table)) / 128
    assert mean == pytest.approx(1024, abs=0.5)


def test_tables_have_the_shape_of_their_distribution() -> None:
    normal = NormalDist()
    for step in range(8, 121):
        share = step / 128
        assert EXPONENTIAL[step] == pytest.approx(-log(1 - share) * 1024, rel=0.02)
        assert BELL[step] == pytest.approx((3 + normal.inv_cdf(share)) * 1024 / 3, rel=0.02)
        assert HEAVY[step] / HEAVY[64] == pytest.approx(exp(normal.inv_cdf(share)), rel=0.02)


def test_spread_scales_and_repeats() -> None:
    draws = [spread(HEAVY, 1_000_000, Random(seed)) for seed in range(5)]
    assert draws == [1601379, 192754, 3211681, 285364, 283681]  # If this moves, every recorded seed means another run.
    assert spread(UNIFORM, 0, Random(1)) == 0
