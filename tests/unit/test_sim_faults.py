# SPDX-License-Identifier: Apache-2.0
"""Faults: what each kind does to a world, and what a seed draws."""

import pytest

from atoll.base.errors import StorageError, UsageError
from atoll.base.units import SECOND_NS
from atoll.sim.faults import Fault, FaultKind, Schedule, Swarm, draw_schedule
from atoll.sim.gossip import Gossip, gossip_factory
from atoll.sim.link import Burst, Jitter, LinkSpec
from atoll.sim.topology import full_mesh
from atoll.sim.world import World

S = SECOND_NS
ALL = tuple(FaultKind)
OF_LINKS = ALL[: ALL.index(FaultKind.CRASH)]


def world_with(*faults: Fault) -> World[Gossip]:
    world = World(full_mesh(4), gossip_factory(4), seed=1)
    Schedule(1, (), faults, 10 * S).install(world)
    world.start_all()
    return world


def fault(kind: FaultKind, node: int, amount: int = 0) -> Fault:
    return Fault(kind, 2 * S, 4 * S, nodes=(node,), amount=amount)


def test_a_link_fault_strikes_its_links_for_its_time_only() -> None:
    hole = LinkSpec(blackhole=True)
    world = world_with(
        Fault(FaultKind.BLACKHOLE, 2 * S, 4 * S, ((0, 1),), impairment=hole),
        Fault(FaultKind.PARTITION, 3 * S, 5 * S, ((0, 1), (0, 2)), (0,), hole),
    )
    seen: list[tuple[bool, bool, bool]] = []
    for at in (1, 2, 3, 4, 5):
        world.run(at * S)
        seen.append((world.link(0, 1).blackholed, world.link(0, 2).blackholed, world.link(1, 0).blackholed))
    nothing = (False, False, False)
    assert seen == [nothing, (True, False, False), (True, True, False), (True, True, False), nothing]


def test_a_crash_lasts_until_its_end_and_then_the_computer_boots() -> None:
    world = world_with(fault(FaultKind.CRASH, 1))
    world.run(3 * S)
    assert world.program(1) is None
    world.run(4 * S)
    assert world.program(1) is not None
    assert world.clock(1).monotonic_ns() < 10 * S


def test_a_crash_may_wait_for_a_change_of_the_disk() -> None:
    world = world_with(fault(FaultKind.CRASH, 1, amount=2), fault(FaultKind.CRASH, 2, amount=1000))
    world.run(2 * S)
    assert world.program(1) is not None
    world.run(4 * S - 1)
    assert world.program(1) is None
    assert world.program(2) is not None
    world.run(10 * S)
    assert [world.boots(node) for node in range(4)] == [1, 2, 1, 1]
    for _ in range(1000):
        world.disk(2).append("f", b"")  # The cut that did not come was called off.


@pytest.mark.parametrize(("amount", "rebooted"), [(0, False), (1, True)])
def test_a_restart_is_of_the_process_or_of_the_computer(amount: int, *, rebooted: bool) -> None:
    world = world_with(Fault(FaultKind.RESTART, 2 * S, 2 * S, nodes=(3,), amount=amount))
    before_ns = world.clock(3).monotonic_ns()
    world.run(3 * S)
    assert world.boots(3) == 2
    assert (world.clock(3).monotonic_ns() != before_ns + 3 * S) == rebooted


def test_pause_drift_wall_step_and_full_disk_come_and_go() -> None:
    world = world_with(
        fault(FaultKind.PAUSE, 0),
        fault(FaultKind.DRIFT, 1, 300),
        fault(FaultKind.WALL_STEP, 2, -7 * S),
        fault(FaultKind.FULL_DISK, 3),
    )
    wall_ns = world.clock(2).wall_ns()
    world.run(3 * S)
    assert (world.paused(0), world.clock(1).drift_ppm, world.clock(2).wall_ns()) == (True, 300, wall_ns - 4 * S)
    with pytest.raises(StorageError):
        world.disk(3).append("f", b"x")
    world.run(4 * S)
    assert (world.paused(0), world.clock(1).drift_ppm, world.clock(2).wall_ns()) == (False, 0, wall_ns + 4 * S)
    world.disk(3).append("f", b"x")


def test_an_adversary_attacks_for_its_time_only() -> None:
    world = world_with(Fault(FaultKind.HOSTILE, 2 * S, 4 * S, amount=100))
    world.run(2 * S)
    assert world.stats.injected == 0
    world.run(4 * S)
    injected = world.stats.injected
    assert 150 < injected < 250
    world.run(10 * S)
    assert world.stats.injected == injected
    assert sum(program.refused for program in world.programs()) > 50


def test_schedules_of_a_seed_repeat_and_seeds_differ() -> None:
    schedules = [draw_schedule(Swarm(), full_mesh(6), seed) for seed in range(30)]
    assert schedules == [draw_schedule(Swarm(), full_mesh(6), seed) for seed in range(30)]
    assert len({str(schedule).partition(":")[2] for schedule in schedules}) == 30
    assert len({schedule.kinds for schedule in schedules}) > 25  # Swarm: which kinds there are is drawn, too.


def test_drawn_faults_are_of_their_kinds_within_bounds_and_seen_all_over_the_seeds() -> None:
    swarm = Swarm(begin_ns=3 * S, end_ns=30 * S, faults_max=20, length_min_ns=S, length_max_ns=5 * S)
    seen: dict[FaultKind, int] = dict.fromkeys(ALL, 0)
    for seed in range(200):
        schedule = draw_schedule(swarm, full_mesh(5).with_providers({"x": [0, 1]}), seed)
        assert len(schedule.faults) <= 20
        assert schedule.end_ns == 30 * S
        begins = [fault.begin_ns for fault in schedule.faults]
        assert begins == sorted(begins)
        for drawn in schedule.faults:
            seen[drawn.kind] += 1
            assert drawn.kind in schedule.kinds
            length_ns = drawn.end_ns - drawn.begin_ns
            assert 3 * S <= drawn.begin_ns <= drawn.end_ns <= 30 * S
            assert length_ns == 0 if drawn.kind is FaultKind.RESTART else S <= length_ns <= 5 * S
            assert bool(drawn.links) == (drawn.kind in OF_LINKS)
            assert all(i != j for i, j in drawn.links)
    assert all(seen.values())


def test_no_node_is_crashed_restarted_or_paused_while_it_already_is() -> None:
    lives = (FaultKind.CRASH, FaultKind.RESTART, FaultKind.PAUSE)
    dense = Swarm(kinds=lives, faults_max=100, length_min_ns=S)
    struck = 0
    for seed in range(30):
        spans: dict[int, list[tuple[int, int]]] = {}
        for drawn in draw_schedule(dense, full_mesh(3), seed).faults:
            others = spans.setdefault(drawn.nodes[0], [])
            assert all(drawn.begin_ns > end_ns for _, end_ns in others)
            others.append((drawn.begin_ns, drawn.end_ns))
            struck += 1
    assert struck > 100


@pytest.mark.parametrize(("correlation", "low", "high"), [(0, 0.0, 0.0), (5000, 0.42, 0.58), (10_000, 1.0, 1.0)])
def test_correlation_is_the_share_of_link_faults_that_strike_a_shared_fate(
    correlation: int, low: float, high: float
) -> None:
    swarm = Swarm(kinds=(FaultKind.LOSS,), faults_max=20, correlation=correlation)
    topology = full_mesh(6).with_providers({"cable": [2, 3]})
    faults = [drawn for seed in range(60) for drawn in draw_schedule(swarm, topology, seed).faults]
    shared = [drawn for drawn in faults if not drawn.where.startswith("path")]
    assert low <= len(shared) / len(faults) <= high
    for drawn in shared:
        name = drawn.where.partition(",")[0]
        fate = next(fate for fate in topology.fates if fate.name == name)
        way = [link for link in fate.links(6) if (link[0] in fate.members) == ("from" in drawn.where)]
        assert list(drawn.links) == (list(fate.links(6)) if "both ways" in drawn.where else way)
    assert all(len(drawn.links) <= 2 for drawn in faults if drawn not in shared)


def test_schedules_read_well() -> None:
    faults = (
        Fault(FaultKind.LOSS, 0, S, ((0, 1),), impairment=LinkSpec(loss=1234)),
        Fault(FaultKind.DELAY, 0, S, tuple((0, j) for j in range(1, 9)), impairment=LinkSpec(delay_ns=S)),
        Fault(FaultKind.BURSTS, 0, S, ((0, 1),), impairment=LinkSpec(burst=Burst(good_ns=S, bad_ns=S // 2))),
        Fault(FaultKind.JITTER, 0, S, ((0, 1),), impairment=LinkSpec(jitter_ns=S, jitter=Jitter.BELL)),
        Fault(FaultKind.RATE, 0, S, ((0, 1),), impairment=LinkSpec(rate_bytes_s=9)),
        Fault(FaultKind.DAMAGE, 0, S, ((0, 1),), impairment=LinkSpec(reorder=9)),
        Fault(FaultKind.CRASH, 0, S, nodes=(3,)),
        Fault(FaultKind.CRASH, 0, S, nodes=(3,), amount=2),
        Fault(FaultKind.RESTART, 0, 0, nodes=(3,)),
        Fault(FaultKind.RESTART, 0, 0, nodes=(3,), amount=1),
        Fault(FaultKind.PAUSE, 0, S, nodes=(3,)),
        Fault(FaultKind.WALL_STEP, 0, S, nodes=(3,), amount=-S // 2),
        Fault(FaultKind.DRIFT, 0, S, nodes=(3,), amount=-5),
        Fault(FaultKind.HOSTILE, 0, S, amount=9, where="on the wire"),
    )
    lines = str(Schedule(5, (FaultKind.LOSS,), faults, S)).splitlines()
    assert lines[0] == "seed 5: 14 faults, all over by 1.000000 s; kinds: loss"
    shown = [line.partition(" s  ")[2] for line in lines[1:]]
    assert shown == [
        "loss      0>1: 12.3 %",
        "delay     0>1, 0>2, 0>3, 0>4, 0>5, 0>6 and 2 more: 1000 ms more",
        "bursts    0>1: 100.0 % for 500 ms after each 1000 ms, in the mean",
        "jitter    0>1: bell, mean 1000 ms",
        "rate      0>1: 9 B/s, queue 65536 B",
        "damage    0>1: duplicates 0, reorders 9, flips bits of 0 in 10000",
        "crash     node 3: power cut at once",
        "crash     node 3: power cut at change 2 of its disk",
        "restart   node 3: process",
        "restart   node 3: computer",
        "pause     node 3",
        "wall step node 3: by -0.500000 s",
        "drift     node 3: -5 ppm",
        "hostile   on the wire: 9 datagrams/s",
    ]
    assert str(Schedule(5, (), (), 0)).endswith("kinds: none")


@pytest.mark.parametrize(
    "build",
    [
        lambda: Schedule(1, (), (Fault(FaultKind.LOSS, 5, 4),), 9),
        lambda: Schedule(1, (), (Fault(FaultKind.LOSS, 5, 10),), 9),
        lambda: Schedule(1, (), (Fault(FaultKind.LOSS, 0, 0),) * 1001, 9),
        lambda: Swarm(length_min_ns=0),
        lambda: Swarm(begin_ns=5 * S, end_ns=5 * S + 1),
        lambda: Swarm(correlation=10_001),
        lambda: Swarm(faults_max=0),
        lambda: Swarm(kinds=()),
        lambda: draw_schedule(Swarm(), full_mesh(1), 1),
    ],
)
def test_impossible_schedules_are_refused(build: object) -> None:
    assert callable(build)
    with pytest.raises(UsageError):
        build()
