# SPDX-License-Identifier: Apache-2.0
"""The simulated twin of the demo: one seed, one trace; the direct way suffers, the healed one hardly."""

from atoll.lab.scenario import phases
from atoll.lab.twin import play


def test_one_seed_is_one_run_and_tells_of_every_phase() -> None:
    first, second = play(3), play(3)
    assert first == second
    assert [one.trouble for one in first.phases] == [phase.trouble.value for phase in phases(3)]
    assert play(4).trace != first.trace


def test_the_direct_way_feels_what_the_healed_one_leaves() -> None:
    loss, one_way, hole, _ = play(3).phases
    assert 0.2 < loss.control_loss < 0.8
    assert 0.2 < one_way.control_loss < 0.6
    assert hole.control_loss == 1.0
    for told in (loss, one_way, hole):
        assert told.loss < told.control_loss / 2


def test_faults_are_what_makes_the_difference() -> None:
    assert play(3, faults=False).trace != play(3).trace
