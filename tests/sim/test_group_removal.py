# SPDX-License-Identifier: Apache-2.0
"""A removed member that does not obey: nobody relays for it any more, in either direction."""

from collections.abc import Callable

import pytest

from atoll.base.ids import Endpoint, NodeId, packed_address_of
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.conduit import packets
from atoll.device.nic.frame import FRAME_KIND
from atoll.group.events import RemoveAsked
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import SITES, demo_topology
from atoll.sim import LinkSpec, World, endpoint_of

SPREAD_NS = 500 * MILLISECOND_NS  # A round trip, and what was on its way.


def program(world: World[SimulatedNode], index: int) -> SimulatedNode:
    found = world.program(index)
    assert found is not None
    return found


def say(world: World[SimulatedNode], source: int, target: int) -> None:
    """Send a packet from one to the other; a node that was removed goes on as if it had not heard of that."""
    node, group = program(world, target).node, program(world, source).control.group.group
    here, there = (packed_address_of(group, program(world, index).node) for index in (source, target))
    packet = packets.build_udp(packets.UdpPacket(here, there, 0, 1, 2, b"x"))
    world.act(source, "say", lambda node_, now_ns, wall_ns: node_.send(node, 0, packet, now_ns, wall_ns))


def chatter(world: World[SimulatedNode], span_ns: int) -> None:
    end_ns = world.now_ns + span_ns
    while world.now_ns < end_ns:
        say(world, 0, 2)
        say(world, 2, 0)
        world.run(world.now_ns + 50 * MILLISECOND_NS)


@pytest.mark.parametrize("remover", [0, 1])
def test_a_relay_passes_nothing_on_to_or_from_a_removed_member(remover: int) -> None:
    world = World(demo_topology(), factory_of(blueprints(len(SITES), 5)), seed=5, command="{seed}")
    for index in range(3):
        world.start(index)
    world.run(3 * SECOND_NS)
    for source, target in ((0, 2), (2, 0)):
        world.impair(source, target, "wall", LinkSpec(blackhole=True))
    heard: list[int] = []
    for index, other in ((0, 2), (2, 0)):
        program(world, index).heard = counting(heard, index, program(world, other).node)
    chatter(world, 10 * SECOND_NS)
    assert bytes(program(world, 0).control.mesh.via(program(world, 2).node)) == program(world, 1).node
    heard.clear()
    relayed: list[Endpoint] = []

    def tap(source: Endpoint, to: Endpoint, datagram: bytes) -> None:
        if source == endpoint_of(1) and datagram.startswith(FRAME_KIND):
            relayed.append(to)

    world.tap(tap)
    chatter(world, SECOND_NS)
    assert {endpoint_of(0), endpoint_of(2)} == set(relayed)
    assert {0, 2} == set(heard), "it works before"

    removed = program(world, 2).node
    world.act(remover, "remove", lambda node, now_ns, wall_ns: node.feed(RemoveAsked(removed), now_ns, wall_ns))
    world.run(world.now_ns + SPREAD_NS)
    relayed.clear()
    heard.clear()
    chatter(world, 5 * SECOND_NS)
    assert relayed == []
    assert heard == []
    assert program(world, 2).stopped, "it was told"
    assert program(world, 1).engine.dropped["label-unknown"] > 0, "it went on all the same"


def counting(heard: list[int], index: int, expected: NodeId) -> Callable[[NodeId, bytes, int, int], None]:
    def note(node: NodeId, _packet: bytes, _now_ns: int, _wall_ns: int) -> None:
        if node == expected:
            heard.append(index)

    return note
