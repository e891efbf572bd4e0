# SPDX-License-Identifier: Apache-2.0
"""``why`` in simulated groups: each kind of fault is named, nothing is where nothing was done, a seed is one trial."""

import pytest
from health_why import Kind, trial, unhurt

from atoll.health.why.facts import Cause

SEEDS = range(30, 40)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fault_of_each_kind_is_named_where_it_is(seed: int) -> None:
    outcome = trial(seed)
    assert outcome.kinds[0] == list(Kind)[seed % len(Kind)].value
    assert outcome.is_right, f"seed {seed}, {outcome.kinds}: {outcome.diagnosis.findings}"


def test_nothing_is_named_where_nothing_was_done() -> None:
    outcome = unhurt(7)
    assert [found.cause for found in outcome.diagnosis.findings] == [Cause.NOTHING]
    assert not outcome.is_wrong


def test_a_seed_is_one_trial() -> None:
    assert trial(35) == trial(35)
    assert trial(35) != trial(45)
