# SPDX-License-Identifier: Apache-2.0
"""The fast path of guests: what is joined, what stays alone, and what goes the usual way."""

from struct import pack

import pytest

from atoll.base.units import SECOND_NS
from atoll.device.nic.guest_bursts import OVERHEAD_BYTES, ends_of
from atoll.device.nic.limits import GUEST_BURST_BYTES
from atoll.device.nic.messages import PacketReceived, SetAccess
from atoll.device.nic.segments import (
    FLAG_NEEDS_SUM,
    HEADER,
    HEADER_BYTES,
    KIND_NONE,
    KIND_TCP6,
    bulk_of,
    finished,
    marked,
)
from atoll.overlay.orders import YieldGuest
from tests.unit.nic_world import World, ipv6, node_of
from tests.unit.test_device_guests import AT, GATEWAY_PUBLIC, PHONE, Phone, guest_id, linked, orders_of

SIZE = 1_220
TCP_AT = 40


@pytest.fixture(params=[True, False], ids=["compiled", "python"])
def world(request: pytest.FixtureRequest) -> World:
    """Two engines; the first has a kernel behind it and serves the guest."""
    world = World(2, compiled=request.param)
    world.introduce()
    world.order(0, *orders_of(1))
    world.engines[0].inlet.is_open = True
    return world


def segment(sequence: int, size: int = SIZE, *, node: int = 1, flags: int = 0x10) -> bytes:
    """Return one TCP segment of the guest, its checksum done."""
    head = pack(">HHIIBBHHH", 4000, 22, sequence, 77, 5 << 4, flags, 512, 0, 0)
    made = bytearray(ipv6(guest_id(PHONE), node_of(node), head + bytes([sequence % 251]) * size))
    made[6] = 6
    total = sum(made[8:40:2]) * 256 + sum(made[9:40:2]) + len(made) - TCP_AT + 6
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    made[56:58] = pack(">H", total)
    return finished(marked(bytes(made)))


def stream(count: int, **options: int) -> list[bytes]:
    return [segment(7 + number * SIZE, **options) for number in range(count)]


def say(phone: Phone, packets: list[bytes], at: tuple[str, int] = AT) -> None:
    """Let packets come in one burst."""
    world = phone.world
    sealed: list[bytes] = []
    for packet in packets:
        made = phone.sessions.seal(GATEWAY_PUBLIC, packet, world.now_ns, world.wall_ns)
        assert made is not None
        sealed.append(made)
    data = bytearray().join(sealed)
    world.engines[0].receive_burst(memoryview(data), len(sealed[0]), at, world.now_ns, world.wall_ns)
    world.take_bursts(0)
    world.settle()


def writes(world: World) -> list[tuple[int, int, int]]:
    """Return (flags, kind, payload) of each write to the kernel."""
    return [(*HEADER.unpack_from(write)[:2], len(write) - HEADER_BYTES - 60) for write in world.kernel[0]]


def test_a_stream_becomes_one_write_that_the_kernel_need_not_check(world: World) -> None:
    say(linked(world), stream(40))
    assert writes(world) == [(FLAG_NEEDS_SUM, KIND_TCP6, 40 * SIZE)]
    assert not world.dropped(0)


def test_a_wrong_sum_stays_wrong_and_alone(world: World) -> None:
    packets = stream(9)
    packets[4] = packets[4][:-1] + bytes([packets[4][-1] ^ 1])
    say(linked(world), packets)
    assert writes(world) == [
        (FLAG_NEEDS_SUM, KIND_TCP6, 4 * SIZE),
        (0, KIND_NONE, SIZE),
        (FLAG_NEEDS_SUM, KIND_TCP6, 4 * SIZE),
    ]
    assert world.kernel[0][1][HEADER_BYTES:] == packets[4]


def test_what_opens_a_connection_goes_by_itself_and_a_keepalive_nowhere(world: World) -> None:
    say(linked(world), [segment(6, flags=2), *stream(3), b""])
    assert writes(world) == [(0, KIND_NONE, SIZE), (FLAG_NEEDS_SUM, KIND_TCP6, 3 * SIZE)]
    assert not world.dropped(0)


def test_only_our_own_nodes_may_leave_a_checksum_undone(world: World) -> None:
    first, *others = stream(6)
    undone_ones = [b"\x50" + first[1:], *(b"\x70" + other[1:] for other in others)]
    say(linked(world), [*undone_ones, *stream(4)])
    assert writes(world) == [(FLAG_NEEDS_SUM, KIND_TCP6, 4 * SIZE)]
    assert world.dropped(0) == {"guest-malformed": 6}


def test_a_rule_is_asked_once_for_a_stream(world: World) -> None:
    phone = linked(world)
    world.order(0, SetAccess((), False))
    say(phone, [segment(6, flags=2), *stream(3)])
    assert writes(world) == [(FLAG_NEEDS_SUM, KIND_TCP6, 3 * SIZE)]
    assert world.dropped(0) == {"access-denied": 1}


def test_a_stream_beyond_the_rate_is_dropped_where_it_is_beyond(world: World) -> None:
    phone = linked(world)
    fits = GUEST_BURST_BYTES // (SIZE + 60)
    for _ in range(fits // 40):
        say(phone, stream(40))
    before = len(writes(world))
    say(phone, stream(40))
    assert len(writes(world)) == before + fits % 40
    assert world.dropped(0) == {"guest-rate": 40 - fits % 40}


def test_a_guest_that_moved_is_reported_and_answered_there(world: World) -> None:
    phone = linked(world)
    say(phone, stream(2), ("10.9.9.9", 6000))
    world.sent.clear()
    world.engines[0].take_tun(ipv6(node_of(1), phone.node, b"here"), world.now_ns, world.wall_ns, unfinished=False)
    world.settle()
    assert [to for _, to, _ in world.sent] == [("10.9.9.9", 6000)]


def test_what_goes_on_or_to_control_goes_the_usual_way(world: World) -> None:
    phone = linked(world)
    say(phone, stream(3, node=2))
    assert world.kernel[0] == []
    world.engines[0].inlet.is_open = False
    say(phone, stream(3))
    assert [report.packet for report in world.reports[0] if isinstance(report, PacketReceived)] == stream(3)


def give(world: World, phone: Phone) -> None:
    """Let the kernel send the guest a large packet."""
    head = pack(">HHIIBBHHH", 22, 4000, 7, 77, 5 << 4, 0x10, 512, 0, 0)
    packet = bytearray(ipv6(node_of(1), phone.node, head + bytes(10 * SIZE)))
    packet[6] = 6
    bulk = bulk_of((FLAG_NEEDS_SUM, KIND_TCP6, 0, SIZE, 0, 0), packet, 0, len(packet))
    assert bulk is not None
    world.engines[0].take_bulk(bulk, world.now_ns, world.wall_ns)
    world.settle()


def test_a_large_packet_goes_out_in_one_burst_with_checksums_done(world: World) -> None:
    phone = linked(world)
    give(world, phone)
    assert world.bursts == 1
    phone.exchange(0)
    assert len(phone.received) == 10
    assert all(packet == finished(marked(undone(packet))) for packet in phone.received)


def undone(packet: bytes) -> bytes:
    """Return a packet with the pseudo-header's sum where its checksum is."""
    total = sum(packet[8:40:2]) * 256 + sum(packet[9:40:2]) + len(packet) - TCP_AT + 6
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return packet[:56] + pack(">H", total) + packet[58:]


def test_without_a_session_each_segment_is_counted(world: World) -> None:
    phone = linked(world)
    world.now_ns += 181 * SECOND_NS  # Nobody has ticked yet: it looks alive.
    give(world, phone)
    assert world.dropped(0) == {"guest-unreachable": 10}
    world.order(0, YieldGuest(phone.node))
    give(world, phone)
    assert world.bursts == 0


@pytest.mark.parametrize(("length", "ends"), [(81, [50]), (100, [50, 100]), (131, [50, 100]), (132, [50, 100, 132])])
def test_ends_are_those_of_datagrams_that_can_be_data(length: int, ends: list[int]) -> None:
    assert ends_of(length, 50, OVERHEAD_BYTES) == ends
