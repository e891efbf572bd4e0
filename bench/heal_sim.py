# SPDX-License-Identifier: Apache-2.0
"""Healing in simulation: 20 nodes on measured latencies; three pairs that talk lose their direct path at about one time.

A fault is a cut or 30 % loss, both ways, of the pair's direct path alone, or as well of the source's paths to half of
the other nodes, as a bad last hop or provider would do. A pair counts if at the end some relay has four clean links to
it: what no path can heal is not asked of anybody.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from random import Random
from typing import Final

from figures import Figure
from heal_outcome import Healing, Measured, by_kind, healed_share, percentile, times_s

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import packaged_regions
from atoll.lab.traffic import Exchange, Traffic
from atoll.sim import LinkSpec, World, mesh_of_regions

__all__ = ["simulated", "simulated_trial"]

NODES: Final = 20
PAIRS: Final = 3
SHARED: Final = 9  # Of the 18 others: half of what the source could relay through.
WARM_NS: Final = 6 * SECOND_NS  # Sessions, first measurements and one full link state; traffic in the last two of them.
LEAD_NS: Final = 2 * SECOND_NS
SPREAD_NS: Final = SECOND_NS  # The faults begin within it.
WATCH_NS: Final = 4 * SECOND_NS  # After the last fault.
LATE_NS: Final = 500 * MILLISECOND_NS  # For the last answers.
LOSS: Final = 3000
CLEAN: Final = 0.02
KINDS: Final = ("cut", "loss", "shared cut", "shared loss")
PROCESSES: Final = 2


def clean_relay(world: World[SimulatedNode], source: int, target: int) -> bool:
    """Return whether some relay reaches both ends, both ways, over links that lose nothing."""

    def clean(i: int, j: int) -> bool:
        links = world.link(i, j), world.link(j, i)
        return not any(link.blackholed or link.loss for link in links)

    return any(clean(source, via) and clean(via, target) for via in range(world.count) if via not in {source, target})


class Blow:
    """One fault on one pair that talks, from its planning to what came of it."""

    def __init__(self, world: World[SimulatedNode], traffic: Traffic, pair: tuple[int, int], rng: Random) -> None:
        self.source, self.target = pair
        self.kind = rng.choice(KINDS)
        self.at_ns = WARM_NS + rng.randrange(SPREAD_NS)
        self.was_direct = True
        self._world = world
        strangers = [node for node in range(NODES) if node not in pair]
        self._ends = [self.target, *(rng.sample(strangers, SHARED) if self.kind.startswith("shared") else ())]
        self._spec = LinkSpec(loss=LOSS) if self.kind.endswith("loss") else LinkSpec(blackhole=True)
        self._end_ns = WARM_NS + SPREAD_NS + WATCH_NS
        self._exchange: Exchange = traffic.begin(*pair, (WARM_NS - LEAD_NS, self._end_ns))
        world.at(self.at_ns, self._strike)

    def _strike(self) -> None:
        source, target = self._world.program(self.source), self._world.program(self.target)
        assert source is not None, "nobody is killed here"
        assert target is not None, "nobody is killed here"
        ways = source.control.mesh.via(target.node), target.control.mesh.via(source.node)
        self.was_direct = not any(ways)
        for end in self._ends:
            self._world.impair(self.source, end, "blow", self._spec)
            self._world.impair(end, self.source, "blow", self._spec)

    def outcome(self) -> Healing:
        """Return what came of it; call it after the run."""
        seen = self._exchange
        if self.kind.endswith("loss"):
            healed_ns = seen.healed_ns(self.at_ns, self._end_ns, SECOND_NS, CLEAN)
        else:
            healed_ns = seen.first_answer_ns(self.at_ns)
        before = [a - s for s, a in zip(seen.sent_ns, seen.answered_ns, strict=True) if 0 <= a < self.at_ns]
        return Healing(
            name=f"seed {self._world.seed}, {self.source}>{self.target}",
            kind=self.kind,
            took_s=None if healed_ns is None else (healed_ns - self.at_ns) / SECOND_NS,
            watched_s=(self._end_ns - self.at_ns) / SECOND_NS,
            rtt_s=statistics.median(before) / SECOND_NS,
        )


def simulated_trial(seed: int) -> tuple[list[Healing], list[str]]:
    """Run one seed; return what came of its faults, and why others do not count."""
    rng = Random(seed)
    plans = blueprints(NODES, 1)  # One group for all seeds: what varies is luck, faults and pairs.
    world = World(mesh_of_regions(packaged_regions(), count=NODES), factory_of(plans), seed=seed)
    traffic = Traffic(world, plans)
    nodes = rng.sample(range(NODES), 2 * PAIRS)
    blows = [Blow(world, traffic, pair, rng) for pair in zip(nodes[::2], nodes[1::2], strict=True)]
    world.start_all()
    world.run(WARM_NS + SPREAD_NS + WATCH_NS + LATE_NS)
    healings: list[Healing] = []
    left_out: list[str] = []
    for blow in blows:
        if not clean_relay(world, blow.source, blow.target):
            left_out.append(f"seed {seed}, {blow.source}>{blow.target}: no clean relay is left")
        elif not blow.was_direct:
            left_out.append(f"seed {seed}, {blow.source}>{blow.target}: was relayed before the fault")
        else:
            healings.append(blow.outcome())
    return healings, left_out


def simulated(seeds: Sequence[int]) -> Measured:
    """Run all seeds, on two processes."""
    began_s = time.monotonic()
    healings: list[Healing] = []
    left_out: list[str] = []
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for done, (healed, others) in enumerate(pool.imap_unordered(simulated_trial, seeds, chunksize=2), start=1):
            healings += healed
            left_out += others
            if done % 50 == 0:
                print(f"  sim: {done} of {len(seeds)} seeds, {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    what = f"simulated, {NODES} nodes, {len(seeds)} seeds"
    figures = [
        Figure(f"{what}: healed of {len(healings)}", "share", 1.0, healed_share(healings), at_most=False),
        Figure(f"{what}: median", "s", None, percentile(times_s(healings), 0.5)),
        Figure(f"{what}: p99", "s", 1.5, percentile(times_s(healings), 0.99)),
    ]
    extra: dict[str, object] = {
        "kinds": by_kind(healings),
        "left out": sorted(left_out),
        "wall_s": round(time.monotonic() - began_s, 1),
    }
    return Measured(figures, extra)
