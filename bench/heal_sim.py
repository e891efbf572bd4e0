# SPDX-License-Identifier: Apache-2.0
"""How fast 20 simulated nodes heal, from many seeds: part ``sim`` of bench/heal.py.

Each seed strikes three pairs of one group at about the same moment, each in one of three ways: *cut* (the direct path
carries nothing, both ways), *loss* (it loses 30 % each way), *shared cut* (as a bad last hop would, the source loses
its direct path to ten members at once). Every destination that was struck has requests under way at 50 Hz, and every
one is measured; all of them are reachable, through a relay that was not struck, and that is checked. Healed: the
first answer to a request sent after the cut came, or from then on each window of a second loses less than 2 %.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final

from figures import Figure, percentile
from units import Plan, Result, run_units

from atoll.base.units import SECOND_NS
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import Blueprint
from atoll.lab.scenario import packaged_regions
from atoll.lab.traffic import Exchange, Traffic
from atoll.sim import LinkSpec, Topology, World, mesh_of_regions, reachable

NODES: Final = 20
STRIKES: Final = 3
SHARED: Final = 10  # Destinations that one shared cut takes.
WARM_NS: Final = 6 * SECOND_NS
TALK_NS: Final = 4 * SECOND_NS  # Requests begin then, two seconds before the first fault can come.
AFTER_NS: Final = 4 * SECOND_NS
END_NS: Final = WARM_NS + SECOND_NS + AFTER_NS
LOSS: Final = 3000
CLEAN: Final = 0.02
SEEDS_PER_UNIT: Final = 10
NEVER: Final = float("inf")


@dataclass(frozen=True)
class Strike:
    """One fault: what it is, when it comes, and the requests to each destination that it takes."""

    kind: str
    at_ns: int
    exchanges: Sequence[Exchange]


@cache
def setting() -> tuple[tuple[Blueprint, ...], Topology]:
    """Return one group and network for all seeds: what varies is luck, faults and pairs."""
    return blueprints(NODES, 1), mesh_of_regions(packaged_regions(), count=NODES)


def trial(seed: int) -> list[tuple[str, float]]:
    """Run one seed; return (kind, seconds until healed) of each destination struck, in order; NEVER for never."""
    rng, (plans, topology) = Random(seed), setting()
    world = World(topology, factory_of(plans), seed=seed)
    traffic = Traffic(world, plans)
    nodes = rng.sample(range(NODES), 2 * STRIKES)
    strikes: list[Strike] = []
    for source, target in zip(nodes[::2], nodes[1::2], strict=True):
        at_ns = WARM_NS + rng.randrange(SECOND_NS)
        kind = rng.choice(("cut", "loss", "shared cut"))
        spec = LinkSpec(loss=LOSS) if kind == "loss" else LinkSpec(blackhole=True)
        struck = [target]
        if kind == "shared cut":
            free = [node for node in range(NODES) if node != target and node not in nodes[::2]]
            struck += rng.sample(free, SHARED - 1)  # No other source: a path struck from both ends has two onsets.
        exchanges = [traffic.begin(source, other, (TALK_NS, END_NS)) for other in struck]
        strikes.append(Strike(kind, at_ns, exchanges))

        def strike(source: int = source, struck: list[int] = struck, spec: LinkSpec = spec) -> None:
            for other in struck:
                world.impair(source, other, "fault", spec)
                world.impair(other, source, "fault", spec)

        world.at(at_ns, strike)
    world.start_all()
    world.run(END_NS)
    assert all(reachable(world, one.source, one.target) for strike in strikes for one in strike.exchanges)
    world.run(END_NS + SECOND_NS)  # What is under way comes in.
    return [(strike.kind, _healed_s(strike, one)) for strike in strikes for one in strike.exchanges]


def _healed_s(strike: Strike, one: Exchange) -> float:
    if strike.kind == "loss":
        healed_ns = one.healed_ns(strike.at_ns, END_NS, SECOND_NS, CLEAN)
    else:
        healed_ns = one.first_answer_ns(strike.at_ns)
    return NEVER if healed_ns is None else (healed_ns - strike.at_ns) / SECOND_NS


def run_seeds(unit: int) -> Result:
    """Run SEEDS_PER_UNIT seeds; return (seed, kind, seconds or null) of each destination."""
    return [
        [seed, kind, None if seconds == NEVER else seconds]
        for seed in range(unit * SEEDS_PER_UNIT, (unit + 1) * SEEDS_PER_UNIT)
        for kind, seconds in trial(seed)
    ]


def simulated(seeds: int) -> tuple[list[Figure], dict[str, object]]:
    """Heal 20 nodes from so many seeds, rounded up to whole units."""
    units = -(-seeds // SEEDS_PER_UNIT)
    done = run_units(Plan("sim", run_seeds, range(units), {"seeds per unit": SEEDS_PER_UNIT}))
    rows = [row for unit in range(units) for row in done[unit]]
    times = [NEVER if row[2] is None else row[2] for row in rows]
    never = Counter(row[1] for row in rows if row[2] is None)
    what = f"simulated, {NODES} nodes, {units * SEEDS_PER_UNIT} seeds"
    by_kind = {
        kind: sorted(time for row, time in zip(rows, times, strict=True) if row[1] == kind)
        for kind in ("cut", "loss", "shared cut")
    }
    figures = [
        Figure(
            f"{what}: healed of {len(times)} destinations",
            "share",
            1.0,
            1.0 - never.total() / len(times),
            at_most=False,
        ),
        Figure(f"{what}: median", "s", None, percentile(times, 0.5)),
        Figure(f"{what}: p99", "s", 1.5, percentile(times, 0.99)),
        Figure(f"{what}: worst", "s", None, max(times)),
    ]
    kinds = {
        kind: {"destinations": len(some), "median": percentile(some, 0.5), "p99": percentile(some, 0.99)}
        for kind, some in by_kind.items()
        if some
    }
    slow = sorted({str(row[0]) for row in rows if row[2] is None or row[2] > 1.5}, key=int)
    return figures, {"by kind": kinds, "never healed, by kind": dict(never), "seeds with a time above 1.5 s": slow}
