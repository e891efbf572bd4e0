# SPDX-License-Identifier: Apache-2.0
"""Run a scenario from a seed: trouble first, with every invariant checked; then heal, and demand progress."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, final

from atoll.base.errors import UsageError
from atoll.base.units import MILLISECOND_NS, MINUTE_NS
from atoll.sim.checkers import Goal
from atoll.sim.failure import SimulationFailure
from atoll.sim.faults import Schedule, Swarm, draw_schedule
from atoll.sim.limits import SEEDS_MAX
from atoll.sim.program import Factory, ProgramT
from atoll.sim.station import Stats
from atoll.sim.topology import Topology
from atoll.sim.world import COMMAND, Checker, World

__all__ = ["Result", "Scenario", "parse_seeds", "run", "run_seeds"]

_GOAL_STEP_NS: Final = 50 * MILLISECOND_NS  # How often goals are looked at: the resolution of ``healed_ns``.


def _nothing(_world: World[ProgramT]) -> None:
    """Script nothing."""


@final
@dataclass(frozen=True, slots=True)
class Scenario(Generic[ProgramT]):
    """What to run. Everything in it is made anew for each run, from the seed.

    Attributes:
        name: For people.
        topology: Makes the network of a seed.
        factory: Makes the maker of programs of a seed (where nodes share something, such as a group key).
        swarm: What may go wrong; None: nothing, and the trouble phase is empty.
        checkers: Makes the invariants.
        goals: Makes what must come true after healing.
        script: Called before the start; may schedule traffic and faults of its own.
        progress_ns: How long after healing the goals may take.
        command: Repeats a run.
    """

    name: str
    topology: Callable[[int], Topology]
    factory: Callable[[int], Factory[ProgramT]]
    swarm: Swarm | None
    checkers: Callable[[], Sequence[Checker[ProgramT]]]
    goals: Callable[[], Sequence[Goal[ProgramT]]]
    script: Callable[[World[ProgramT]], None] = _nothing
    progress_ns: int = MINUTE_NS
    command: str = COMMAND


@final
@dataclass(frozen=True, slots=True)
class Result:
    """A run in which everything held.

    Attributes:
        seed: Its cause.
        trace_digest: Equal for two runs exactly when everything in them was equal; 64 hex digits.
        stats: What the world counted.
        schedule: What went wrong.
        healed_ns: From the end of the last fault until all goals were true.
    """

    seed: int
    trace_digest: str
    stats: Stats
    schedule: Schedule
    healed_ns: int


def run(scenario: Scenario[ProgramT], seed: int, *, keep: int = 0) -> Result:
    """Run a scenario once.

    Args:
        scenario: What to run.
        seed: The whole cause of everything random.
        keep: How many records of the trace to keep; shown, newest last, as a note on the failure.

    Raises:
        SimulationFailure: Something did not hold, or a goal was not reached in time.
    """
    topology = scenario.topology(seed)
    world = World(topology, scenario.factory(seed), seed=seed, keep=keep, command=scenario.command)
    schedule = Schedule(seed, (), (), 0) if scenario.swarm is None else draw_schedule(scenario.swarm, topology, seed)
    try:
        return _run(scenario, world, schedule)
    except SimulationFailure as failure:
        failure.add_note(str(schedule))
        for happened in world.trace.kept():
            failure.add_note(str(happened))
        raise


def run_seeds(
    scenario: Scenario[ProgramT], seeds: Iterable[int], report: Callable[[str], object]
) -> tuple[SimulationFailure, ...]:
    """Run a scenario once for each seed; report one line for each failure, and return the failures."""
    failures: list[SimulationFailure] = []
    for seed in seeds:
        try:
            run(scenario, seed)
        except SimulationFailure as failure:
            failures.append(failure)
            report(f"{scenario.name}: {failure}")
    return tuple(failures)


def parse_seeds(text: str) -> range:
    """Return the seeds that ``7`` or ``1..200`` (both ends included) names.

    Raises:
        UsageError: Another form, an empty range, or more than SEEDS_MAX of them.
    """
    first, dots, last = text.partition("..")
    last = last if dots else first
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
        raise UsageError(f"seeds are written 7 or 1..200, not {text!r}")
    seeds = range(int(first), int(last) + 1)
    if not 1 <= len(seeds) <= SEEDS_MAX:
        raise UsageError(f"{text!r} names no seeds, or more than {SEEDS_MAX}")
    return seeds


def _run(scenario: Scenario[ProgramT], world: World[ProgramT], schedule: Schedule) -> Result:
    schedule.install(world)
    scenario.script(world)
    for checker in scenario.checkers():
        world.watch(checker)
    world.start_all()
    world.run(schedule.end_ns)
    world.heal()
    goals = scenario.goals()
    until_ns = world.now_ns + scenario.progress_ns
    while (lack := _lack(goals, world)) is not None:
        if world.now_ns >= until_ns:
            raise world.failure(*lack)
        world.run(min(until_ns, world.now_ns + _GOAL_STEP_NS))
    return Result(world.seed, world.trace.digest(), world.stats, schedule, world.now_ns - schedule.end_ns)


def _lack(goals: Sequence[Goal[ProgramT]], world: World[ProgramT]) -> tuple[str, str] | None:
    for goal in goals:
        lacking = goal.lacking(world)
        if lacking is not None:
            return goal.name, lacking
    return None
