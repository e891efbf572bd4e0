# SPDX-License-Identifier: Apache-2.0
"""Which packets the rules let in, what a sender is told, and which tag a packet gets."""

from struct import pack

import pytest

from atoll.base.ids import DIRECT, packed_address_of
from atoll.base.units import SECOND_NS
from atoll.device.nic.access import Access, Traffic
from atoll.device.nic.limits import UDP_FLOW_S, UDP_FLOWS_MAX
from atoll.device.nic.messages import PacketReceived, Report, SendPacket, SetAccess, SetTraffic
from atoll.overlay.orders import SetRoute
from tests.unit.nic_world import GROUP, World, ipv6, node_of

TCP, UDP, ICMP6 = 6, 17, 58
SYN, SYN_ACK, ACK, RST = 0x02, 0x12, 0x10, 0x04
WEB, DB = node_of(1), node_of(2)


def packet(protocol: int, source_port: int, target_port: int, flags: int = SYN) -> bytes:
    if protocol == TCP:
        rest = pack(">HHIIBBHHH", source_port, target_port, 0, 0, 5 << 4, flags, 0, 0, 0)
    elif protocol == UDP:
        rest = pack(">HHHH", source_port, target_port, 8, 0)
    else:
        rest = bytes(8)
    made = bytearray(ipv6(WEB, DB, rest))
    made[6] = protocol
    return bytes(made)


def access(*entries: tuple[bytes, int, int, int, bool], default: bool = False) -> Access:
    made = Access()
    made.set(SetAccess(entries, default))
    return made


def test_without_rules_nothing_is_looked_at() -> None:
    assert not Access().is_active
    assert not access(default=True).is_active
    assert not access((WEB, TCP, 1, 2, True), default=True).is_active
    assert access((WEB, TCP, 1, 2, False), default=True).is_active


@pytest.mark.parametrize(
    ("source", "protocol", "port", "admitted"),
    [
        (WEB, TCP, 5432, True),
        (WEB, TCP, 5433, False),
        (WEB, UDP, 5432, False),
        (DB, TCP, 5432, False),
        (DB, UDP, 53, True),
        (WEB, TCP, 53, True),
    ],
)
def test_what_opens_something_is_judged(source: bytes, protocol: int, port: int, admitted: bool) -> None:
    rules = access((WEB, TCP, 5432, 5432, True), (b"", 0, 53, 53, True))
    assert rules.admits(source, packet(protocol, 40_000, port), 0) is admitted


@pytest.mark.parametrize("flags", [SYN_ACK, ACK, RST])
def test_what_belongs_to_a_connection_passes(flags: int) -> None:
    assert access().admits(WEB, packet(TCP, 5432, 40_000, flags), 0)


def test_errors_and_echoes_pass_and_what_has_no_ports_follows_rules_about_everything() -> None:
    assert access().admits(WEB, packet(ICMP6, 0, 0), 0)
    odd = packet(132, 0, 0)
    assert not access((WEB, 0, 1, 65535, True)).admits(WEB, odd, 0)
    assert access((WEB, 0, 0, 65535, True)).admits(WEB, odd, 0)
    assert not access().admits(WEB, packet(UDP, 1, 2)[:42], 0)


@pytest.mark.parametrize("header", [0, 43, 44, 51, 60, 135, 139, 140])
def test_what_hides_its_ports_passes_only_where_nothing_is_forbidden(header: int) -> None:
    """The kernel puts fragments together, and looks behind other headers: there may be any port."""
    plain = packet(TCP, 40_000, 22)
    hidden = plain[:6] + bytes((header,)) + plain[7:]
    no_shell = access((b"", TCP, 22, 22, False), default=True)
    assert not no_shell.admits(WEB, plain, 0)
    assert not no_shell.admits(WEB, hidden, 0)
    assert access((WEB, 0, 0, 0xFFFF, True), (b"", TCP, 22, 22, False), default=True).admits(WEB, hidden, 0)
    assert access((DB, TCP, 22, 22, False), default=True).admits(WEB, hidden, 0)
    assert not access((WEB, TCP, 80, 80, True)).admits(WEB, hidden, 0)
    assert access((WEB, 0, 0, 0xFFFF, True)).admits(WEB, hidden, 0)


def test_answers_to_our_own_questions_pass_for_a_while() -> None:
    rules = access()
    rules.note(WEB, packet(UDP, 40_000, 53), 0)
    answer = packet(UDP, 53, 40_000)
    assert rules.admits(WEB, answer, (UDP_FLOW_S - 1) * SECOND_NS)
    assert not rules.admits(DB, answer, 0)
    assert not rules.admits(WEB, packet(UDP, 53, 40_001), 0)
    assert not rules.admits(WEB, answer, (UDP_FLOW_S + 1) * SECOND_NS)


def test_questions_are_forgotten_beyond_the_limit() -> None:
    rules = access()
    for number in range(UDP_FLOWS_MAX + 1):
        rules.note(WEB, packet(UDP, number % 65_536, 53), 0)
    assert not rules.admits(WEB, packet(UDP, 53, 0), 0)
    assert rules.admits(WEB, packet(UDP, 53, 1), 0)


def test_a_sender_is_told_that_a_rule_forbids_it() -> None:
    world = World(2)
    world.introduce()
    for engine in world.engines:
        engine.inlet.is_open = True
    world.order(1, SetAccess((), default=False))
    world.engines[0].take_tun(packet(TCP, 40_000, 22), world.now_ns, world.wall_ns, unfinished=False)
    world.settle()
    assert world.kernel[1] == []
    assert world.engines[1].counters.dropped["access-denied"] == 1
    (told,) = world.kernel[0]
    assert (told[16], told[50], told[51]) == (ICMP6, 1, 1)  # Unreachable, administratively prohibited.
    assert told[18:34] == packed_address_of(GROUP, DB)


def test_who_connects_to_a_machine_without_a_network_stack_is_refused() -> None:
    world = World(2)
    world.introduce()
    world.engines[0].inlet.is_open = True
    world.reports[1].clear()
    for made in (packet(TCP, 40_000, 22), packet(TCP, 40_000, 22, ACK), packet(UDP, 40_000, 22)):
        world.engines[0].take_tun(made, world.now_ns, world.wall_ns, unfinished=False)
        world.settle()
    assert world.engines[1].counters.dropped["stack-missing"] == 1
    (told,) = world.kernel[0]
    assert (told[16], told[50], told[51]) == (ICMP6, 1, 4)  # Unreachable, port.
    assert told[18:34] == packed_address_of(GROUP, DB)
    assert [report.packet[6] for report in world.reports[1] if isinstance(report, PacketReceived)] == [TCP, UDP]


def test_rules_change_at_once() -> None:
    world = World(2)
    world.introduce()
    for engine in world.engines:
        engine.inlet.is_open = True
    for default, count in ((False, 0), (True, 1)):
        world.order(1, SetAccess((), default=default))
        world.engines[0].take_tun(packet(TCP, 40_000, 22), world.now_ns, world.wall_ns, unfinished=False)
        world.settle()
        assert len(world.kernel[1]) == count


@pytest.mark.parametrize(
    ("made", "size", "dscp", "tag"),
    [
        (packet(TCP, 40_000, 873), 100, 0, 2),
        (packet(TCP, 873, 40_000), 100, 0, 2),  # The server's half of it.
        (packet(UDP, 40_000, 873), 100, 0, 2),
        (packet(UDP, 40_000, 6000), 100, 46, 3),
        (packet(UDP, 40_000, 6000), 300, 46, 46),
        (packet(UDP, 40_000, 6000), 100, 0, 0),
        (packet(ICMP6, 0, 0), 100, 1, 1),
    ],
)
def test_the_first_rule_about_a_packet_gives_its_tag(made: bytes, size: int, dscp: int, tag: int) -> None:
    reports: list[Report] = []
    traffic = Traffic(reports)
    traffic.set(SetTraffic(((b"", 0, 873, 873, -1, 0, 2, 0), (WEB, UDP, 0, 65535, 46, 200, 3, 0))))
    assert traffic.is_active
    assert traffic.tag(WEB, made, size, dscp, 0) == tag
    assert not reports  # No rule is about a program, so nobody is asked for one.


def test_only_small_packets_of_a_tag_go_twice() -> None:
    world = World(3)
    world.introduce()
    world.lease(0, 2, 1)
    relay = node_of(3)
    world.order(0, SetRoute(DB, 0, DIRECT, relay, 200))
    for size in (100, 400):
        world.sent.clear()
        world.order(0, SendPacket(DB, 0, ipv6(WEB, DB, bytes(size))))
        ways = {to for source, to, datagram in world.sent if source == world.at[0] and len(datagram) > size}
        assert ways == ({world.at[1], world.at[2]} if size == 100 else {world.at[1]})
