# SPDX-License-Identifier: Apache-2.0
"""``make sim``: whole groups under a swarm of faults, each from one seed; then everything heals and must work again.

After them nodes that run environments, from the same seeds (``environments``).

    python -m atoll.lab.sim --seed 1..200 [--only group|environments] [--nodes 5] [--trace]

A failure prints its seed, when and what, the schedule of faults, and the command that repeats it.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, final

from atoll.base.errors import DivergenceError, ProjectError, UsageError
from atoll.base.units import MILLISECOND_NS, MINUTE_NS, SECOND_NS
from atoll.core.replay import replay
from atoll.lab import environments
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import packaged_regions
from atoll.lab.traffic import Traffic
from atoll.node.control import KIND
from atoll.sim import (
    ClocksForward,
    FaultKind,
    Goal,
    Result,
    Scenario,
    SendBudget,
    SimulationFailure,
    Swarm,
    Topology,
    World,
    mesh_of_regions,
    parse_seeds,
    run,
)

__all__ = ["group_scenario", "main"]

NODES: Final = 5
NODES_MAX: Final = 20  # The packaged table has 20 regions.
DATAGRAMS_S_MAX: Final = (
    700  # Limit. Of one pair and both ends, at the fastest: two paths at 50 a second, bursts, copies.
)
TALKING_PAIRS: Final = 2
TALK_NS: Final = 200 * MILLISECOND_NS
FOREVER_NS: Final = 10 * MINUTE_NS  # Longer than any run.
COMMAND: Final = "python -m atoll.lab.sim"
WITHIN_NS: Final = 2 * MINUTE_NS  # After healing: a session that broke is made again within WireGuard's own times.


@final
class NobodyStops:
    """No member is told to stop: nobody was removed, and no two processes share a key."""

    name = "no member is expelled by mistake"
    every_ns = SECOND_NS

    def check(self, world: World[SimulatedNode]) -> str | None:
        """Look at every node that is up."""
        for index, node in _nodes(world):
            if node.stopped:
                return f"node {index} was told to stop"
        return None


@final
class Replays:
    """What each node decided can be decided again from its journal, byte for byte."""

    name = "every journal replays"
    every_ns = 20 * SECOND_NS

    def check(self, world: World[SimulatedNode]) -> str | None:
        """Replay the newest life of every node."""
        for index, node in _nodes(world):
            try:
                replay({KIND.name: KIND}, node.segments())
            except (DivergenceError, ProjectError) as error:
                return f"node {index}: {error}"
        return None


def _nodes(world: World[SimulatedNode]) -> Iterator[tuple[int, SimulatedNode]]:
    for index in range(world.count):
        node = world.program(index)
        if node is not None:
            yield index, node


def _paths_work(world: World[SimulatedNode]) -> str | None:
    """Every member reaches every other one: a session, and a path that is ok."""
    for index, node in _nodes(world):
        now_ns = world.clock(index).monotonic_ns()
        for other in node.control.mesh.members():
            report = node.control.mesh.peer_report(other, now_ns)
            if report is None or not report.session or report.state not in {"ok", "degraded"}:
                state = "unknown" if report is None else f"{report.state} ({report.why})"
                return f"node {index} sees {other.hex()} as {state}"
    return None


def _rosters_agree(world: World[SimulatedNode]) -> str | None:
    """All members hold the same statements."""
    digests = {index: node.control.group.roster.digest() for index, node in _nodes(world)}
    first = digests[min(digests)]
    different = [index for index, digest in digests.items() if digest != first]
    return f"nodes {different} differ from node {min(digests)}" if different else None


def group_scenario(nodes: int = NODES, kinds: Sequence[FaultKind] = tuple(FaultKind)) -> Scenario[SimulatedNode]:
    """Return the scenario: a group on measured latencies, a swarm of faults for a minute, then peace.

    Args:
        nodes: Members, 2 to 20.
        kinds: Faults that may occur.
    """
    programs: list[Traffic] = []  # Of the run under way; runs come one after the other.

    def talk(world: World[SimulatedNode]) -> None:
        """Let programs of two pairs talk all the time: an active pair decides otherwise than an idle one."""
        traffic = Traffic(world, blueprints(nodes, world.seed))
        programs[:] = [traffic]
        for source in range(0, min(nodes - 1, 2 * TALKING_PAIRS), 2):
            traffic.begin(source, source + 1, (3 * SECOND_NS, FOREVER_NS), interval_ns=TALK_NS)

    def answered(world: World[SimulatedNode]) -> str | None:
        for exchange in programs[0].exchanges:
            first_ns = exchange.first_answer_ns(world.now_ns - SECOND_NS)
            if first_ns is None:
                return f"node {exchange.source} had no answer of node {exchange.target} for a second"
        return None

    def topology(seed: int) -> Topology:
        del seed  # The network is the same for all; what goes wrong in it is not.
        return mesh_of_regions(packaged_regions(), count=nodes)

    return Scenario(
        name=f"group of {nodes}",
        topology=topology,
        factory=lambda seed: factory_of(blueprints(nodes, seed, records=True)),
        swarm=Swarm(kinds=tuple(kinds), begin_ns=5 * SECOND_NS, end_ns=65 * SECOND_NS),
        checkers=lambda: (ClocksForward(), SendBudget(DATAGRAMS_S_MAX * nodes * nodes), NobodyStops(), Replays()),
        goals=lambda: (
            Goal("every path works", _paths_work),
            Goal("the rosters agree", _rosters_agree),
            Goal("programs get answers", answered),
        ),
        script=talk,
        progress_ns=WITHIN_NS,
        command="make sim SEED={seed}" if nodes == NODES else f"{COMMAND} --seed {{seed}} --nodes {nodes}",
    )


def main(arguments: Sequence[str] | None = None, say: Callable[[str], object] = print) -> int:
    """Run the seeds that the command line names; return the exit status: 0 all held, 1 some did not, 2 usage."""
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Run a simulated group under a swarm of faults, from each of these seeds.",
    )
    parser.add_argument("--seed", default="1..20", help="one seed, or a range such as 1..200")
    parser.add_argument("--nodes", type=int, default=NODES, help=f"members, 2 to {NODES_MAX}")
    parser.add_argument("--only", choices=("group", "environments"), help="one kind of world; both if left out")
    parser.add_argument("--trace", action="store_true", help="print each run's digest and schedule")
    options = parser.parse_args(arguments)
    try:
        seeds = parse_seeds(options.seed)
    except UsageError as error:
        say(f"error A501: {error}\n  fix     use one seed, or a range such as 1..200")
        return 2
    if not 2 <= options.nodes <= NODES_MAX:
        say(f"error A501: {options.nodes} nodes\n  fix     use 2 to {NODES_MAX}")
        return 2
    failed = 0
    if options.only != "environments":
        failed += _groups(seeds, options.nodes, say, is_traced=options.trace)
    if options.only != "group":
        failed += _environments(seeds, say, is_traced=options.trace)
    return 1 if failed else 0


def _groups(seeds: Sequence[int], nodes: int, say: Callable[[str], object], *, is_traced: bool) -> int:
    """Run groups; return how many failed."""
    scenario = group_scenario(nodes)
    failed = 0
    healed_ns: list[int] = []
    for seed in seeds:
        try:
            result: Result = run(scenario, seed)
        except SimulationFailure as failure:
            failed += 1
            _complain(failure, say)
            continue
        healed_ns.append(result.healed_ns)
        if is_traced:
            say(f"seed {seed} {result.trace_digest} healed in {result.healed_ns / SECOND_NS:.2f} s")
            say(str(result.schedule))
    healed_ns.sort()
    if healed_ns:
        say(
            f"healed within {healed_ns[len(healed_ns) // 2] / SECOND_NS:.2f} s (median), "
            f"{healed_ns[-1] / SECOND_NS:.2f} s (worst)"
        )
    say(f"{len(seeds) - failed} seeds held, {failed} failed")
    return failed


def _environments(seeds: Sequence[int], say: Callable[[str], object], *, is_traced: bool) -> int:
    """Run nodes with environments; return how many failed."""
    failed = 0
    for seed in seeds:
        try:
            story = environments.tell(seed)
        except SimulationFailure as failure:
            failed += 1
            _complain(failure, say)
            continue
        if is_traced:
            say(f"seed {seed} {story.digest()}")
            say("\n".join(story.world.schedule))
    say(f"environments: {len(seeds) - failed} seeds held, {failed} failed")
    return failed


def _complain(failure: SimulationFailure, say: Callable[[str], object]) -> None:
    say(str(failure))
    for note in getattr(failure, "__notes__", ()):
        say(note)


if __name__ == "__main__":
    sys.exit(main())
