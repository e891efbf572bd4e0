# SPDX-License-Identifier: Apache-2.0
"""The simulated twin of the demo: one seed, one trace; the direct way suffers, the healed one hardly."""

from functools import cache

import pytest

from atoll.lab.scenario import Trouble, phases
from atoll.lab.twin import Twin, play


@cache
def played(seed: int = 3, *, faults: bool = True) -> Twin:
    """Play once for all tests of this file: a run takes seconds."""
    return play(seed, faults=faults)


def test_one_seed_is_one_run_and_tells_of_every_phase() -> None:
    assert played() == play(3)
    assert [one.trouble for one in played().phases] == [phase.trouble.value for phase in phases(3)]
    assert played(7).trace != played().trace


def test_the_direct_way_feels_what_the_healed_one_leaves() -> None:
    loss, one_way, hole, _ = played().phases
    assert 0.2 < loss.control_loss < 0.8
    assert 0.2 < one_way.control_loss < 0.6
    assert hole.control_loss == 1.0
    for told in (loss, one_way, hole):
        assert told.loss < told.control_loss / 2


@pytest.mark.parametrize("seed", [3, 7])
def test_the_relay_in_use_is_killed_and_left_within_its_promise(seed: int) -> None:
    killed, told = phases(seed)[-1], played(seed).phases[-1]
    assert (told.trouble, told.came) == (Trouble.RELAY_KILLED.value, True)
    assert told.control_loss == 1.0, "the direct way is dead all the while"
    assert 0 < told.silence_s <= killed.silence_max_ms / 1000 + 0.5  # A round trip beyond the promise is allowed.


def test_faults_are_what_makes_the_difference() -> None:
    quiet = played(faults=False)
    assert quiet.trace != played().trace
    assert not any(one.came for one in quiet.phases)
