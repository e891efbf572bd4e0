# SPDX-License-Identifier: Apache-2.0
"""What a program without a node may declare, and what it may not."""

import math

import pytest

from atoll import health
from atoll.base.errors import UsageError
from atoll.health import live


@pytest.fixture(autouse=True)
def watch(monkeypatch: pytest.MonkeyPatch) -> health.Watch:
    fresh = health.Watch()
    monkeypatch.setattr(live, "_watch", fresh)
    return fresh


def test_seconds_are_a_bound_and_anything_else_is_itself(watch: health.Watch) -> None:
    health.specify("disk:a", 0.02)
    assert watch.specification("disk:a") == health.Bound(20_000_000)
    health.specify("disk:a", 1)
    assert watch.specification("disk:a") == health.Bound(1_000_000_000)
    quantiles = health.Quantiles(((5000, 5_000_000), (9900, 50_000_000)))
    health.specify("disk:a", quantiles)
    assert watch.specification("disk:a") == quantiles
    health.specify("disk:a", None)
    assert watch.specification("disk:a") is None


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 86_401.0, 1e-12])
def test_seconds_that_cannot_be_are_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match="give more than 0 and at most a day"):
        health.specify("disk:a", seconds)


def test_what_cannot_be_is_counted_and_an_amount_that_cannot_be_is_one(watch: health.Watch) -> None:
    for latency_s in (math.nan, -1.0, -1e-12, math.inf, -math.inf, 1e9):
        health.observe("api:billing", latency_s)
    assert watch.refused == {"latency": 6, "future": 0}
    for amount in (math.nan, -1, 0, math.inf, -math.inf, 1e300):
        health.observe("api:billing", 0.01, amount)
    with health.timed("api:billing", 3):
        pass
    (standing,) = health.standings()
    assert standing.samples == 7
    assert [change.after for change in health.changes()] == []
    assert health.shunned("api") == []
