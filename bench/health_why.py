# SPDX-License-Identifier: Apache-2.0
"""``atoll why`` in simulated groups that something was done to: does it name what was done?

A trial is a group of five on measured latencies, of which one machine or one path is hurt, or two; then one member is
asked why it is slow to another. Everything that the answer rests on is what the simulated nodes measured: their own
control machines, their own vitals, with the noise of their links, disks and loops. What a running node asks others over
streams is handed over here. One seed is one trial.

*Right*: the first cause that is named is one that was done, at the place where it was done. *Wrong*: it is another
one. Else it said that it does not know, or that nothing is wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from random import Random
from typing import Final

import msgspec

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.health.why.diagnosis import diagnose
from atoll.health.why.facts import Cause, Diagnosis, Facts, Finding, HostFacts, ServiceFacts
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import packaged_regions
from atoll.lab.senses import Senses
from atoll.lab.traffic import Traffic
from atoll.node.facts import Standpoint, host_facts, path_facts
from atoll.overlay.reports import SizesAsked
from atoll.sim import LinkSpec, World, mesh_of_regions

NODES: Final = 5
WARM_NS: Final = 80 * SECOND_NS  # The gauges need 32 samples of each path, one a second.
TALK_NS: Final = 200 * MILLISECOND_NS
ASK_AFTER_S: Final = (15, 40)
SIZES_NS: Final = 2 * SECOND_NS
FOREVER_NS: Final = 1000 * SECOND_NS
PORT: Final = 5432
TWO_CAUSES: Final = 0.25
SILENT_SHARE: Final = 0.05  # Trials in which the far member does not say how it is: it runs an older version, say.
MS: Final = MILLISECOND_NS


class Kind(Enum):
    """What is done."""

    HOP = "path hop"
    LOSS = "loss"
    DETOUR = "detour"
    MTU = "mtu"
    NAT = "nat"
    CPU = "cpu"
    DISK = "disk"
    CLOCK = "clock"
    RULE = "rule"
    PROGRAM = "program"


SECONDS: Final = {kind: [other for other in (Kind.CPU, Kind.DISK, Kind.CLOCK) if other is not kind] for kind in Kind}


@dataclass
class Done:
    """What was done: the cause that is to be named, and where; empty: anywhere."""

    cause: Cause
    where: str = ""

    def is_named_by(self, finding: Finding) -> bool:
        """Return whether a finding is about it."""
        return finding.cause is self.cause and self.where in finding.where


@dataclass
class Trial:
    """One group, the two members, and what was done."""

    world: World[SimulatedNode]
    senses: Senses
    rng: Random
    source: int
    target: int
    done: list[Done] = field(default_factory=list)
    service: ServiceFacts | None = None
    stepped_s: dict[int, int] = field(default_factory=dict)

    def impair(self, one: int, other: int, key: str, spec: LinkSpec, *, both: bool = True) -> None:
        """Hurt the path between two nodes."""
        self.world.impair(one, other, key, spec)
        if both:
            self.world.impair(other, one, key, spec)

    def impair_all_of(self, index: int, key: str, spec: LinkSpec, *, both: bool = True) -> None:
        """Hurt all paths of a node."""
        for other in range(NODES):
            if other != index:
                self.impair(other, index, key, spec, both=both)

    def delay_ns(self, one: int, other: int) -> int:
        """Return a round trip without faults."""
        specs = self.world.topology.specs
        return specs[one][other].delay_ns + specs[other][one].delay_ns

    def relayed_ns(self) -> int:
        """Return the best round trip through a relay."""
        return min(
            self.delay_ns(self.source, relay) + self.delay_ns(relay, self.target)
            for relay in range(NODES)
            if relay not in (self.source, self.target)
        )


def _hop(trial: Trial) -> None:
    direct_ns = trial.delay_ns(trial.source, trial.target)
    slack_ns = trial.relayed_ns() - direct_ns
    more_ns = int(slack_ns * 0.7)
    if more_ns > max(10 * MS, direct_ns * 0.4) and trial.rng.random() < 0.6:
        trial.impair(trial.source, trial.target, "hop", LinkSpec(delay_ns=more_ns), both=False)
    else:  # All ways of one end, so that no relay helps.
        end = trial.rng.choice((trial.source, trial.target))
        more_ns = int(direct_ns * trial.rng.uniform(0.5, 2.0)) + 20 * MS
        trial.impair_all_of(end, "hop", LinkSpec(delay_ns=more_ns), both=False)
    trial.done.append(Done(Cause.HOP))


def _loss(trial: Trial) -> None:
    share = trial.rng.randrange(300, 3000)
    trial.impair_all_of(trial.target, "loss", LinkSpec(loss=share), both=trial.rng.random() < 0.7)
    trial.done.append(Done(Cause.LOSS))


def _detour(trial: Trial) -> None:
    trial.impair(trial.source, trial.target, "detour", LinkSpec(blackhole=True))
    trial.done.append(Done(Cause.DETOUR))


def _mtu(trial: Trial) -> None:
    trial.impair(trial.source, trial.target, "mtu", LinkSpec(bytes_max=trial.rng.randrange(700, 1340)))
    trial.done.append(Done(Cause.MTU))


def _nat(trial: Trial) -> None:
    trial.done.append(Done(Cause.NAT))  # It was done before the world began.


def _cpu(trial: Trial) -> None:
    index = trial.rng.choice((trial.source, trial.target, trial.target))
    machine = trial.senses.machines[index]
    if trial.rng.random() < 0.7:
        machine.taken, machine.tells_stolen = trial.rng.uniform(0.5, 0.9), trial.rng.random() < 0.6
    else:
        machine.busy, machine.queued_ns = 0.97, trial.rng.randrange(60, 200) * MS
    trial.done.append(Done(Cause.CPU, f"n{index}"))


def _disk(trial: Trial) -> None:
    index = trial.rng.choice((trial.source, trial.target, trial.target))
    trial.senses.machines[index].disk_ns *= trial.rng.randrange(20, 200)
    trial.done.append(Done(Cause.DISK, f"n{index}"))


def _clock(trial: Trial) -> None:
    index = trial.rng.choice((trial.source, trial.target))
    by_s = trial.rng.choice((1, -1)) * trial.rng.randrange(5, 3600)
    trial.world.step_wall(index, by_s * SECOND_NS)
    if trial.rng.random() < 0.5:  # Else it was so before the node began.
        trial.stepped_s[index] = by_s
    trial.done.append(Done(Cause.CLOCK))


def _rule(trial: Trial) -> None:
    trial.service = ServiceFacts(port=PORT, allowed=False, rule="deny * -> *:5432", line="atoll.toml:7")
    trial.done.append(Done(Cause.RULE))


def _program(trial: Trial) -> None:
    if trial.rng.random() < 0.5:
        trial.service = ServiceFacts(port=PORT, allowed=True, listening=False)
    else:
        first_us = int(trial.rng.uniform(0.8, 8.0) * 1e6)
        trial.service = ServiceFacts(
            port=PORT,
            allowed=True,
            listening=True,
            connect_us=90,
            first_byte_us=first_us,
            first_byte_usual_us=trial.rng.randrange(2_000, 60_000),
        )
    trial.done.append(Done(Cause.PROGRAM))


STRIKES: Final[dict[Kind, Callable[[Trial], None]]] = {
    Kind.HOP: _hop,
    Kind.LOSS: _loss,
    Kind.DETOUR: _detour,
    Kind.MTU: _mtu,
    Kind.NAT: _nat,
    Kind.CPU: _cpu,
    Kind.DISK: _disk,
    Kind.CLOCK: _clock,
    Kind.RULE: _rule,
    Kind.PROGRAM: _program,
}


@dataclass(frozen=True)
class Outcome:
    """What came of one trial."""

    seed: int
    kinds: tuple[str, ...]
    diagnosis: Diagnosis
    is_right: bool
    is_wrong: bool
    all_named: bool
    in_vain: int  # Causes that are named, at any place of the list, and were not done.


def made(seed: int, kind: Kind | None) -> Trial:
    """Return a group that talks, whose gauges are taught."""
    rng = Random(seed)
    regions = packaged_regions()
    plans = blueprints(NODES, seed)
    homes = replace(regions, names=tuple(rng.sample(regions.names, NODES)))
    topology = mesh_of_regions(homes, count=NODES, rest=LinkSpec(loss=rng.randrange(0, 15)))
    world: World[SimulatedNode] = World(topology, factory_of(plans), seed=seed)
    trial = Trial(world, Senses(world, seed), rng, 0, 1)
    if kind in (Kind.DETOUR, Kind.NAT):  # A pair to which a relay is a way round.
        trial.source, trial.target = max(
            ((one, other) for one in range(NODES) for other in range(NODES) if one != other),
            key=lambda pair: _way_round(trial, *pair),
        )
    if kind is Kind.NAT:
        trial.impair(trial.source, trial.target, "nat", LinkSpec(blackhole=True))
    traffic = Traffic(world, plans)
    traffic.begin(trial.source, trial.target, (3 * SECOND_NS, FOREVER_NS), interval_ns=TALK_NS)
    world.start_all()
    world.run(WARM_NS)
    return trial


def _way_round(trial: Trial, one: int, other: int) -> float:
    trial.source, trial.target = one, other
    return trial.relayed_ns() / trial.delay_ns(one, other)


def asked(trial: Trial) -> Diagnosis:
    """Ask the source why it is slow to the target."""
    world, source, target = trial.world, trial.source, trial.target
    node, far = world.program(source), world.program(target)
    assert node is not None
    assert far is not None
    world.act(source, "why", lambda one, now_ns, wall_ns: one.feed(SizesAsked(far.node), now_ns, wall_ns))
    world.run(world.now_ns + SIZES_NS)
    now_ns = world.clock(source).monotonic_ns()
    vitals = trial.senses.machines[source].vitals
    path = path_facts(Standpoint(node.control, vitals, {}, now_ns), far.node, 0)
    slow, links = trial.senses.machines[target].vitals.slow_links(node.node)
    there = None
    if trial.rng.random() >= SILENT_SHARE:
        there = _host(trial, target)
        path = msgspec.structs.replace(path, far_slow_others=slow, far_others=links)
    via = node.control.mesh.via(far.node)
    relay = next((index for index in range(NODES) if via and world.programs()[index].node == via), None)
    return diagnose(
        Facts(
            here=_host(trial, source),
            there=there,
            there_name=f"n{target}",
            relay=None if relay is None else _host(trial, relay),
            relay_name="" if relay is None else f"n{relay}",
            path=path,
            service=trial.service,
        )
    )


def _host(trial: Trial, index: int) -> HostFacts:
    world = trial.world
    now_ns = world.clock(index).monotonic_ns()
    node = world.program(index)
    assert node is not None
    told = host_facts(node.control, trial.senses.machines[index].vitals, now_ns, trial.stepped_s.get(index, 0))
    if index == trial.source:
        return told
    ahead_ns = world.clock(index).wall_ns() - world.clock(trial.source).wall_ns()
    wrong_by_ms = trial.rng.randrange(-40, 41)  # The question's way there may be longer than the answer's way back.
    return msgspec.structs.replace(told, clock_ahead_ms=ahead_ns // MS + wrong_by_ms)


def trial(seed: int) -> Outcome:
    """Run one trial; kinds take turns."""
    kinds = list(Kind)
    kind = kinds[seed % len(kinds)]
    one = made(seed, kind)
    struck = [kind]
    STRIKES[kind](one)
    if one.rng.random() < TWO_CAUSES:
        second = one.rng.choice(SECONDS[kind])
        struck.append(second)
        STRIKES[second](one)
    if one.service is None and one.rng.random() < 0.3:  # Somebody names a port although it is well.
        one.service = ServiceFacts(
            port=PORT, allowed=True, listening=True, connect_us=100, first_byte_us=9_000, first_byte_usual_us=8_000
        )
    one.world.run(one.world.now_ns + one.rng.randrange(*ASK_AFTER_S) * SECOND_NS)
    return judged(seed, struck, one, asked(one))


def unhurt(seed: int) -> Outcome:
    """Run one trial in which nothing is done."""
    one = made(seed, None)
    one.world.run(one.world.now_ns + one.rng.randrange(*ASK_AFTER_S) * SECOND_NS)
    return judged(seed, [], one, asked(one))


def judged(seed: int, kinds: list[Kind], one: Trial, diagnosis: Diagnosis) -> Outcome:
    """Compare what was named with what was done."""
    named = [found for found in diagnosis.findings if found.cause not in (Cause.NOTHING, Cause.UNKNOWN)]
    first = next(iter(named), None)
    is_right = first is not None and any(done.is_named_by(first) for done in one.done)
    return Outcome(
        seed,
        tuple(kind.value for kind in kinds),
        diagnosis,
        is_right,
        first is not None and not is_right,
        all(any(done.is_named_by(found) for found in named) for done in one.done),
        sum(not any(done.is_named_by(found) for done in one.done) for found in named),
    )


def blames(outcome: Outcome) -> bool:
    """Return whether any cause is named."""
    return any(found.cause not in (Cause.NOTHING, Cause.UNKNOWN) for found in outcome.diagnosis.findings)
