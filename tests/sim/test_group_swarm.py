# SPDX-License-Identifier: Apache-2.0
"""Whole groups under a swarm of faults, then peace and progress; and the demo's script in simulation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest

from atoll.base.errors import CorruptError, DivergenceError
from atoll.base.ids import NodeId, packed_address_of
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.conduit import packets
from atoll.core.replay import replay as replay_journal
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import SITES, demo_topology, phases
from atoll.lab.sim import group_scenario, main
from atoll.lab.twin import play
from atoll.node.control import KIND
from atoll.sim import FaultKind, SimulationFailure, World, run

SEEDS = range(1, 16)
TWIN_STOPPED_S = 45  # A copy is found when its elder's digest comes round, and told each second from then on.
TWIN_MENDED_S = 8  # Two handshakes, and the tries before them.


@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_survives_a_swarm_of_faults(seed: int) -> None:
    """A failure prints the seed, the schedule of faults and the command that repeats it."""
    result = run(group_scenario(), seed)
    assert result.seed == seed
    assert result.healed_ns >= 0


def test_one_seed_gives_one_trace() -> None:
    calm = group_scenario(3)
    assert run(calm, 5).trace_digest == run(calm, 5).trace_digest
    assert run(calm, 5).trace_digest != run(calm, 6).trace_digest


def test_a_failure_names_seed_and_command() -> None:
    """A group that is given no time to heal fails, and says how to see that again."""
    scenario = group_scenario(2, kinds=(FaultKind.BLACKHOLE,))
    impatient = replace(scenario, progress_ns=1)
    with pytest.raises(SimulationFailure) as failure:
        list(map(partial(run, impatient), SEEDS))
    seed = failure.value.seed
    assert str(failure.value).startswith(f"seed {seed}, ")
    assert str(failure.value).endswith(f"Repeat: python -m atoll.lab.sim --seed {seed} --nodes 2")
    assert "blackhole" in "".join(failure.value.__notes__), "the schedule of faults"


def test_the_command_says_what_it_wants() -> None:
    said: list[object] = []
    assert main(["--seed", "x"], said.append) == 2
    assert main(["--seed", "1", "--nodes", "1"], said.append) == 2
    assert main(["--seed", "1", "--nodes", "21"], said.append) == 2
    assert all("error A501" in str(line) and "fix" in str(line) for line in said)


def test_the_command_runs_and_counts() -> None:
    said: list[object] = []
    assert main(["--seed", "3", "--nodes", "2", "--trace"], said.append) == 0
    assert [str(line) for line in said if "seeds held" in str(line)] == [
        "1 seeds held, 0 failed",
        "environments: 1 seeds held, 0 failed",
    ]


@pytest.mark.parametrize("seed", [1, 7, 23, 1234])
def test_the_demo_in_simulation_keeps_its_promises(seed: int) -> None:
    twin = play(seed)
    script = phases(seed)
    assert [told.trouble for told in twin.phases] == [phase.trouble.value for phase in script]
    for phase, told in zip(script, twin.phases, strict=True):
        round_trip_s = 0.5  # More than any two sites of the demo are apart, over a relay.
        assert told.silence_s <= phase.silence_max_ms / 1000 + round_trip_s, f"seed {seed}: {told}"
        assert told.loss < 0.25, f"seed {seed}: {told}"
        assert told.control_silence_s >= told.silence_s or told.control_loss >= told.loss, f"seed {seed}: {told}"


def test_the_demo_in_simulation_without_faults_loses_nothing() -> None:
    for told in play(7, faults=False).phases:
        assert (told.loss, told.control_loss) == (0.0, 0.0)
        assert told.silence_s < 0.5


def test_a_simulated_node_decides_the_same_again_from_its_journal() -> None:
    world = World(demo_topology(), factory_of(blueprints(len(SITES), 3, records=True)), seed=3, command="{seed}")
    world.start_all()
    world.run(20_000_000_000)
    for index in range(world.count):
        node = world.program(index)
        assert node is not None
        segments = node.segments()
        assert replay_journal({KIND.name: KIND}, segments).inputs > 50
        torn = bytearray(segments[0])
        torn[len(torn) // 2] ^= 1
        with pytest.raises((CorruptError, DivergenceError)):
            replay_journal({KIND.name: KIND}, (bytes(torn),))


class Talks:
    """Packets between the first node and each other, both ways, ten times a second; when the last one came is kept."""

    def __init__(self, world: World[SimulatedNode], hub: int, others: Sequence[int]) -> None:
        self.world = world
        self.came_ns: dict[tuple[int, NodeId], int] = {}
        for other in others:
            for source, target in ((hub, other), (other, hub)):
                self.came_ns[target, _program(world, source).node] = 0
                self._say(source, _packet(world, source, target), _program(world, target).node)
        for end in (hub, *others):
            _program(world, end).heard = partial(self._heard, end)

    def _say(self, source: int, packet: bytes, target: NodeId) -> None:
        self.world.act(source, "talk", lambda program, now, wall: program.send(target, 0, packet, now, wall))
        self.world.at(self.world.now_ns + 100 * MILLISECOND_NS, partial(self._say, source, packet, target))

    def _heard(self, end: int, node: NodeId, _packet: bytes, _now_ns: int, _wall_ns: int) -> None:
        self.came_ns[end, node] = self.world.now_ns

    def flow(self) -> bool:
        return all(self.world.now_ns - came_ns < SECOND_NS for came_ns in self.came_ns.values())


def _program(world: World[SimulatedNode], index: int) -> SimulatedNode:
    program = world.program(index)
    assert program is not None
    return program


def _packet(world: World[SimulatedNode], source: int, target: int) -> bytes:
    group = _program(world, source).control.group.group
    here, there = (packed_address_of(group, _program(world, index).node) for index in (source, target))
    return packets.build_udp(packets.UdpPacket(here, there, 0, 1, 2, b"x"))


def _until(world: World[SimulatedNode], condition: Callable[[], bool], limit_s: int, what: str) -> None:
    end_ns = world.now_ns + limit_s * SECOND_NS
    while not condition():
        assert world.now_ns < end_ns, f"seed {world.seed}: not within {limit_s} s: {what}"
        world.run(world.now_ns + 100 * MILLISECOND_NS)


@pytest.mark.parametrize("seed", range(1, 7))
def test_of_twins_the_later_stops_and_the_elder_is_served_again_in_seconds(seed: int) -> None:
    """A copy of node 1, its directory and all, starts at the place of node 3; the others talk with node 1 meanwhile."""
    plans = list(blueprints(len(SITES), seed))
    plans[3] = plans[1]
    world = World(demo_topology(), factory_of(plans), seed=seed, command="{seed}")
    for index in range(3):
        world.start(index)
    world.run(70 * SECOND_NS)
    for name in world.disk(1).names():
        world.disk(3).write(name, world.disk(1).read(name))
    talks = Talks(world, 1, (0, 2))
    world.start(3)
    copy = _program(world, 3)
    _until(world, lambda: copy.stopped, TWIN_STOPPED_S, "the copy stops")
    world.kill(3)
    _until(world, talks.flow, TWIN_MENDED_S, "the elder is served")
    nodes = [_program(world, index) for index in range(3)]
    assert not any(node.stopped for node in nodes)
    assert {notice.code for node in nodes for notice in node.warnings} == {"A207"}
