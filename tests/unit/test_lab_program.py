# SPDX-License-Identifier: Apache-2.0
"""The simulated node: the same machines as live, and what of it outlives a crash or a full disk."""

from random import Random

from atoll.base.units import SECOND_NS
from atoll.group.events import RemoveAsked
from atoll.group.roster import Roster
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.sim import LinkSpec, World, full_mesh
from atoll.sim.disk import DISK_BYTES, SimDisk

WALL_NS = 1_800_000_000 * SECOND_NS


def world_of(count: int = 3, *, records: bool = False) -> World[SimulatedNode]:
    plans = blueprints(count, 4, records=records)
    return World(full_mesh(count, LinkSpec(delay_ns=5_000_000)), factory_of(plans), seed=4, command="{seed}")


def nodes_of(world: World[SimulatedNode]) -> list[SimulatedNode]:
    found = [world.program(index) for index in range(world.count)]
    return [node for node in found if node is not None]


def sessions(node: SimulatedNode, now_ns: int) -> int:
    reports = [node.control.mesh.peer_report(other, now_ns) for other in node.control.mesh.members()]
    return sum(report is not None and report.session for report in reports)


def test_a_node_that_has_not_started_wants_nothing() -> None:
    node = SimulatedNode(blueprints(1, 1)[0], SimDisk(Random(1)), bytes(32))
    assert node.deadline_ns is None
    node.start(0, WALL_NS)
    assert node.outbox == [], "alone, it calls nobody"


def test_a_group_shakes_hands_and_agrees() -> None:
    world = world_of()
    world.start_all()
    world.run(10 * SECOND_NS)
    for index, node in enumerate(nodes_of(world)):
        assert sessions(node, world.clock(index).monotonic_ns()) == 2
    assert len({node.control.group.roster.digest() for node in nodes_of(world)}) == 1


def remove(world: World[SimulatedNode], by: int, whom: int) -> None:
    target = blueprints(world.count, 4)[whom].member.node
    world.act(by, "remove", lambda node, now, wall: node.feed(RemoveAsked(target), now, wall))


def test_a_removed_node_stops_and_the_rest_agree() -> None:
    world = world_of()
    world.start_all()
    world.run(10 * SECOND_NS)
    remove(world, 0, 2)
    world.run(40 * SECOND_NS)
    one, two, three = nodes_of(world)
    assert three.stopped
    assert three.deadline_ns is None
    assert not one.stopped
    assert {m.node for m in one.control.group.roster.members()} == {one.node, two.node}
    assert one.control.group.roster.digest() == two.control.group.roster.digest()


def test_what_was_decided_outlives_a_crash() -> None:
    world = world_of()
    world.start_all()
    world.run(10 * SECOND_NS)
    remove(world, 0, 2)
    world.kill(0)  # At once: it is on the disk, or nobody was told.
    world.run(12 * SECOND_NS)
    world.start(0)
    world.run(60 * SECOND_NS)
    node = world.program(0)
    assert node is not None
    assert len(node.control.group.roster.members()) == 2
    third = world.program(2)
    assert third is None or third.stopped or sessions(third, world.clock(2).monotonic_ns()) == 0


def test_a_full_disk_keeps_the_old_roster_until_it_has_room() -> None:
    plan = blueprints(3, 4)[0]
    disk = SimDisk(Random(1))
    node = SimulatedNode(plan, disk, bytes(32))
    node.start(0, WALL_NS)
    disk.capacity_bytes = 0
    target = blueprints(3, 4)[2].member.node
    node.feed(RemoveAsked(target), SECOND_NS, WALL_NS)
    assert target in node.control.admitted
    disk.capacity_bytes = DISK_BYTES
    now_ns = SECOND_NS
    while target in node.control.admitted and now_ns < 60 * SECOND_NS:
        now_ns = max(now_ns + 1, node.deadline_ns or now_ns)
        node.tick(now_ns, WALL_NS + now_ns)
    assert target not in node.control.admitted
    assert len(Roster.decode(disk.read("roster")).members()) == 2


def test_a_node_records_only_when_asked() -> None:
    for records in (True, False):
        world = world_of(records=records)
        world.start_all()
        world.run(5 * SECOND_NS)
        assert all(bool(node.segments()[0]) == records for node in nodes_of(world))
