# SPDX-License-Identifier: Apache-2.0
"""A process that speaks UDP with members by itself, and the ports at which nobody else of this machine may speak."""

from struct import pack

import pytest

from atoll.base.ids import NodeId
from atoll.base.units import SECOND_NS
from atoll.device.nic.segments import Bulk
from atoll.overlay.orders import SetRoute
from tests.unit.nic_world import World, ipv6

PORT = 4433
ICMP_ADMINISTRATIVE = bytes((1, 1))


def udp(source: NodeId, target: NodeId, ports: tuple[int, int] = (PORT, PORT), payload: bytes = b"hello") -> bytes:
    return ipv6(source, target, pack(">HHHH", *ports, 8 + len(payload), 0) + payload)


def linked(count: int = 2, *, ported: tuple[int, ...] = (0, 1)) -> World:
    world = World(count)
    world.introduce()
    for index in ported:
        world.engines[index].inlet.port = PORT
    return world


def speak(world: World, packet: bytes, index: int = 0) -> None:
    world.engines[index].take_ported(packet, world.now_ns, world.wall_ns)
    world.settle()


def test_its_packets_reach_that_of_the_member_and_not_control() -> None:
    world = linked()
    packet = udp(world.node(0), world.node(1))
    speak(world, packet)
    assert world.engines[1].inlet.port_outbox == [packet]
    assert world.packets(1) == []
    assert world.kernel[1] == []


def test_they_take_the_way_and_count_as_all_packets_do() -> None:
    world = linked(3, ported=(0, 2))
    world.lease(0, 1, 2)
    before = len(world.frames())
    world.order(0, SetRoute(world.node(2), 0, world.node(1)))
    speak(world, udp(world.node(0), world.node(2)))
    assert len(world.engines[2].inlet.port_outbox) == 1
    assert len(world.frames()) > before


def test_without_such_a_process_they_are_controls() -> None:
    world = linked(ported=(0,))
    speak(world, udp(world.node(0), world.node(1)))
    assert len(world.packets(1)) == 1


@pytest.mark.parametrize("ports", [(PORT, PORT + 1), (PORT + 1, PORT)])
def test_it_speaks_at_its_own_port_only(ports: tuple[int, int]) -> None:
    world = linked()
    speak(world, udp(world.node(0), world.node(1), ports))
    assert world.dropped(0)["port-foreign"] == 1
    assert world.engines[1].inlet.port_outbox == []
    assert world.packets(1) == []


def test_it_speaks_in_no_other_name_to_members_only_and_whole() -> None:
    world = linked(3)
    good = udp(world.node(0), world.node(1))
    for packet in (
        udp(world.node(2), world.node(1)),
        udp(world.node(0), NodeId(b"nobody....")),
        good + b"!",
        good[:50],
        good[:30],
        b"",
    ):
        speak(world, packet)
    assert world.dropped(0)["port-foreign"] == 6
    assert world.engines[1].inlet.port_outbox == []


def test_a_member_that_is_away_is_not_called_for_its_sake() -> None:
    world = World(2)
    world.lost = lambda _: True
    world.introduce()
    world.engines[0].inlet.port = PORT
    before = len(world.sent)
    speak(world, udp(world.node(0), world.node(1)))
    assert world.dropped(0)["port-unlinked"] == 1
    assert len(world.sent) == before


@pytest.mark.parametrize("ports", [(PORT, 9), (9, PORT)])
def test_no_program_speaks_at_the_nodes_ports(ports: tuple[int, int]) -> None:
    world = linked()
    for engine in world.engines:
        engine.inlet.is_open, engine.inlet.ports = True, frozenset({PORT})
    before = len(world.sent)
    packet = udp(world.node(0), world.node(1), ports)
    world.engines[0].take_tun(packet, world.now_ns, world.wall_ns, unfinished=False)
    world.settle()
    assert len(world.sent) == before
    assert world.dropped(0)["tun-reserved"] == 1
    (told,) = world.kernel[0]
    assert told[10 + 40 : 10 + 42] == ICMP_ADMINISTRATIVE


def test_nor_does_a_large_packet_of_a_program() -> None:
    world = linked()
    world.engines[0].inlet.is_open, world.engines[0].inlet.ports = True, frozenset({PORT})
    packet = bytearray(udp(world.node(0), world.node(1), payload=bytes(2_000)))
    before = len(world.sent)
    bulk = Bulk(packet, 0, len(packet), 48, 1_000)
    world.engines[0].take_bulk(bulk, world.now_ns, world.wall_ns)
    world.settle()
    assert len(world.sent) == before
    assert world.dropped(0)["tun-reserved"] == 1


def test_other_ports_are_the_programs() -> None:
    world = linked()
    for engine in world.engines:
        engine.inlet.is_open, engine.inlet.ports = True, frozenset({PORT})
    packet = udp(world.node(0), world.node(1), (5_000, 6_000))
    world.engines[0].take_tun(packet, world.now_ns, world.wall_ns, unfinished=False)
    world.settle()
    assert world.kernel[1][0][10:] == packet
    world.run(SECOND_NS)
    assert "tun-reserved" not in world.dropped(0)
