# SPDX-License-Identifier: Apache-2.0
"""The runner: results, failures that say how to repeat them, ranges of seeds."""

import pickle
from dataclasses import replace

import pytest

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.sim.checkers import Goal
from atoll.sim.failure import SimulationFailure, seconds
from atoll.sim.faults import Swarm
from atoll.sim.gossip import Gossip, gossip_scenario
from atoll.sim.runner import Scenario, parse_seeds, run, run_seeds
from atoll.sim.world import World

QUICK = Swarm(begin_ns=SECOND_NS, end_ns=5 * SECOND_NS, faults_max=4, length_max_ns=3 * SECOND_NS)


def quick() -> Scenario[Gossip]:
    return gossip_scenario(count=4, swarm=QUICK)


def hopeless() -> Scenario[Gossip]:
    def goals() -> list[Goal[Gossip]]:
        return [Goal("the moon", lambda _: "out of reach")]

    return replace(quick(), goals=goals, progress_ns=2 * SECOND_NS)


def test_a_run_reports_its_digest_counts_schedule_and_healing_time() -> None:
    result = run(quick(), 3)
    assert (result.seed, len(result.trace_digest)) == (3, 64)
    assert result.stats.sent > 50
    assert result.schedule.seed == 3
    assert 0 <= result.healed_ns <= 60 * SECOND_NS
    assert run(quick(), 3) == result
    assert run(quick(), 4).trace_digest != result.trace_digest


def test_a_goal_that_is_not_reached_is_a_failure_with_its_schedule_and_last_records() -> None:
    with pytest.raises(SimulationFailure) as caught:
        run(hopeless(), 3, keep=5)
    failure = caught.value
    assert str(failure) == "seed 3, 7.000000 s: the moon: out of reach. Repeat: make sim SEED=3"
    assert (failure.seed, failure.at_ns, failure.invariant) == (3, 7 * SECOND_NS, "the moon")
    assert failure.__notes__[0].startswith("seed 3: ")
    assert len(failure.__notes__) == 6
    assert str(pickle.loads(pickle.dumps(failure))) == str(failure)


def test_without_a_swarm_the_script_is_all_that_happens() -> None:
    def script(world: World[Gossip]) -> None:
        world.at(0, lambda: world.restart(1, reboot=True))

    result = run(replace(quick(), swarm=None, script=script), 1)
    assert (result.schedule.faults, result.stats.crashes) == ((), 1)


def test_a_range_of_seeds_reports_one_line_for_each_failure() -> None:
    lines: list[str] = []
    assert run_seeds(quick(), parse_seeds("1..3"), lines.append) == ()
    assert lines == []
    failures = run_seeds(replace(hopeless(), command="again {seed}"), parse_seeds("8..9"), lines.append)
    assert [failure.seed for failure in failures] == [8, 9]
    assert lines == [
        f"gossip: seed {seed}, 7.000000 s: the moon: out of reach. Repeat: again {seed}" for seed in (8, 9)
    ]


def test_seeds_are_one_or_a_range() -> None:
    assert list(parse_seeds("7")) == [7]
    assert parse_seeds("1..200") == range(1, 201)


@pytest.mark.parametrize("text", ["", "x", "1..", "..2", "2..1", "1..2..3", "-1", "0..1000000", "\u0661"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_seeds(text)


def test_times_are_exact_for_people() -> None:
    assert [seconds(at) for at in (0, 1_234_567_890, -500_000_000)] == ["0.000000 s", "1.234567 s", "-0.500000 s"]
