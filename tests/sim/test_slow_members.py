# SPDX-License-Identifier: Apache-2.0
"""Slow members in a whole simulated group: who is believed, who is avoided, and what a liar can do."""

from atoll.base.ids import DIRECT
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.health.members.bulletin import Found
from atoll.health.members.messages import Ailment, Ailments, encode_ailments
from atoll.health.model import State
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import packaged_regions
from atoll.lab.traffic import Traffic
from atoll.overlay.orders import SendControl
from atoll.sim import LinkSpec, World, mesh_of_regions

COUNT = 6
MS = MILLISECOND_NS


def group(seed: int) -> tuple[World[SimulatedNode], Traffic]:
    plans = blueprints(COUNT, seed)
    world: World[SimulatedNode] = World(mesh_of_regions(packaged_regions(), count=COUNT), factory_of(plans), seed=seed)
    return world, Traffic(world, plans)


def program(world: World[SimulatedNode], index: int) -> SimulatedNode:
    found = world.program(index)
    assert found is not None
    return found


def find(world: World[SimulatedNode], index: int, found: Found) -> None:
    world.act(index, found.what, lambda node, now_ns, wall_ns: node.feed(found, now_ns, wall_ns))


def relay_between(world: World[SimulatedNode], source: int, target: int) -> int:
    """Return which node relays between two; -1: none."""
    via = program(world, source).control.mesh.via(program(world, target).node)
    return next((index for index in range(COUNT) if program(world, index).node == via), -1)


def under_a_cut(seed: int) -> tuple[World[SimulatedNode], int]:
    """Nodes 0 and 1 talk and cannot reach each other directly; return the world and their relay."""
    world, traffic = group(seed)
    traffic.begin(0, 1, (3 * SECOND_NS, 600 * SECOND_NS), interval_ns=200 * MS)
    world.start_all()
    world.run(10 * SECOND_NS)
    for one, other in ((0, 1), (1, 0)):
        world.impair(one, other, "cut", LinkSpec(blackhole=True))
    world.run(25 * SECOND_NS)
    relay = relay_between(world, 0, 1)
    assert relay >= 0
    return world, relay


def test_a_relay_that_says_that_its_processor_is_taken_away_is_left_within_seconds() -> None:
    for seed in range(1, 4):
        world, relay = under_a_cut(seed)
        since_ns = world.clock(relay).monotonic_ns() - 5 * SECOND_NS
        find(world, relay, Found(b"", "cpu", State.SLOW, since_ns, MS, 4 * MS))
        world.run(world.now_ns + 3 * SECOND_NS)
        assert relay_between(world, 0, 1) not in (relay, -1), f"seed {seed}"
        assert program(world, 0).notices[-1][1].cause == "slow-relay"


def test_a_liar_moves_nothing_but_its_own_traffic() -> None:
    world, relay = under_a_cut(4)
    liar = next(index for index in range(2, COUNT) if index != relay)
    accused = program(world, relay).node
    lie = encode_ailments(
        Ailments(
            7,
            1000,
            tuple(
                Ailment(accused, what, failed=False, age_s=60, usual_us=1_000, newest_us=900_000)
                for what in ("cpu", "link", "answers")
            ),
        )
    )

    def tell(node: SimulatedNode, now_ns: int, wall_ns: int) -> None:
        for other in node.control.mesh.members():
            node.engine.order(SendControl(other, DIRECT, lie), now_ns, wall_ns)
        node.feed(Found(accused, "link", State.SLOW, now_ns, MS, 900 * MS), now_ns, wall_ns)

    world.act(liar, "lie", tell)
    world.run(world.now_ns + 30 * SECOND_NS)
    assert relay_between(world, 0, 1) == relay
    for index in range(COUNT):
        if index not in (relay, liar):
            health = program(world, index).control.bulletin.health(accused)
            assert (health.state, health.shunned) == (State.OK, False)
            assert health.hearsay, "it came"
    assert program(world, relay).control.bulletin.health(accused).words == ()


def test_everybody_slow_still_has_relays() -> None:
    world, _ = under_a_cut(5)
    for index in range(2, COUNT):
        now_ns = world.clock(index).monotonic_ns()
        find(world, index, Found(b"", "cpu", State.SLOW, now_ns - 5 * SECOND_NS, MS, 4 * MS))
    world.run(world.now_ns + 10 * SECOND_NS)
    assert relay_between(world, 0, 1) >= 0
    shunned = [
        node
        for node in program(world, 0).control.mesh.members()
        if program(world, 0).control.bulletin.health(node).shunned
    ]
    assert len(shunned) == 3


def test_a_member_that_was_started_again_is_heard_at_once() -> None:
    world, _ = group(6)
    world.start_all()
    world.run(10 * SECOND_NS)
    slow = Found(b"", "cpu", State.SLOW, 0, MS, 4 * MS)
    find(world, 2, slow)
    world.run(world.now_ns + 200 * SECOND_NS)  # It says so again and again, and counts.
    world.restart(2, reboot=False)
    world.run(world.now_ns + 120 * SECOND_NS)
    accused = program(world, 2).node
    assert program(world, 0).control.bulletin.health(accused).state is State.OK, "what it told before is too old"
    find(world, 2, slow)
    world.run(world.now_ns + 3 * SECOND_NS)
    for index in (0, 1, 3, 4, 5):
        health = program(world, index).control.bulletin.health(accused)
        assert (health.state, health.shunned) == (State.SLOW, True), f"node {index}"
