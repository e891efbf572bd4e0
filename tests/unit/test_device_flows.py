# SPDX-License-Identifier: Apache-2.0
"""Which flows control is asked for, how often, and which tag their packets get before and after it answers."""

from struct import pack

import pytest

from atoll.base.ids import DIRECT
from atoll.device.nic.access import Traffic
from atoll.device.nic.limits import (
    FLOW_ASK_NS,
    FLOW_IDLE_NS,
    FLOW_QUESTIONS_BURST,
    FLOW_QUESTIONS_PER_S,
    FLOWS_MAX,
)
from atoll.device.nic.messages import FlowOpened, FlowOwned, Report, SetTraffic
from atoll.overlay.orders import SetRoute
from tests.unit.nic_world import World, ipv6, node_of

TCP, UDP, ICMP6 = 6, 17, 58
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
WEB, DB = node_of(1), node_of(2)
RSYNC, SSH = 1, 2  # Numbers of programs.
RULES = SetTraffic(
    (
        (b"", 0, 0, 65535, -1, 200, 3, RSYNC),  # Small packets of one program, ...
        (b"", 0, 0, 65535, -1, 0, 2, RSYNC),  # ... its others, ...
        (b"", TCP, 22, 22, -1, 0, 1, SSH),  # ... those of another one to a port, ...
        (b"", 0, 873, 873, -1, 0, 5, 0),  # ... and a port, whoever uses it.
    ),
    asks=True,
)


def packet(protocol: int, source_port: int, target_port: int, flags: int = ACK) -> bytes:
    if protocol == TCP:
        rest = pack(">HHIIBBHHH", source_port, target_port, 0, 0, 5 << 4, flags, 0, 0, 0)
    else:
        rest = pack(">HHHH", source_port, target_port, 8, 0)
    made = bytearray(ipv6(WEB, DB, rest))
    made[6] = protocol
    return bytes(made)


class Told:
    """The rules, and what was asked about them."""

    def __init__(self, order: SetTraffic = RULES) -> None:
        self.reports: list[Report] = []
        self.traffic = Traffic(self.reports)
        self.traffic.set(order)
        self.now_ns = 1

    def tag(self, made: bytes, size: int = 1000) -> int:
        return self.traffic.tag(DB, made, size, 0, self.now_ns)

    def asked(self) -> list[FlowOpened]:
        got = [report for report in self.reports if isinstance(report, FlowOpened)]
        self.reports.clear()
        return got

    def answer(self, made: bytes, *programs: int, tag: int = -1) -> None:
        self.traffic.learn(FlowOwned(made[6], made[24:44], programs, tag))


def test_without_rules_by_program_nobody_is_asked() -> None:
    told = Told(SetTraffic(((b"", 0, 873, 873, -1, 0, 5, 0),)))
    assert told.traffic.is_active
    assert told.tag(packet(TCP, 40_000, 873, SYN)) == 5
    assert told.asked() == []
    assert not Traffic([]).is_active


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_new_flow_is_asked_for_once_and_then_has_its_programs_tag(protocol: int) -> None:
    told, made = Told(), packet(protocol, 40_000, 80, SYN)
    assert told.tag(made) == 0
    assert told.asked() == [FlowOpened(protocol, made[24:44])]
    assert told.tag(packet(protocol, 40_000, 80)) == 0  # The answer is on its way.
    told.answer(made, RSYNC)
    assert told.tag(packet(protocol, 40_000, 80)) == 2
    assert told.tag(packet(protocol, 40_000, 80), size=200) == 3  # All that a rule names must hold.
    assert told.traffic.tag(DB, bytearray(packet(protocol, 40_000, 80)), 9000, 0, told.now_ns) == 2
    assert told.asked() == []


def test_rules_without_a_program_hold_for_all_and_in_their_order() -> None:
    told, made = Told(), packet(TCP, 40_000, 873)
    assert told.tag(made) == 5
    told.answer(made)
    assert told.tag(made) == 5
    told.answer(made, RSYNC)
    assert told.tag(made) == 2
    told.answer(made, SSH)
    assert told.tag(made) == 5
    login = packet(TCP, 40_000, 22)
    told.tag(login)
    told.answer(login, SSH, RSYNC)
    assert (told.tag(login), told.tag(login, size=100)) == (2, 3)


def test_a_tag_given_by_hand_stands_above_all_rules() -> None:
    told, made = Told(SetTraffic((), asks=True)), packet(UDP, 40_000, 873)
    assert told.traffic.is_active
    assert told.tag(made) == 0
    told.answer(made, tag=1)
    assert told.tag(made) == 1
    told = Told()
    told.tag(made)
    told.answer(made, RSYNC, tag=0)
    assert told.tag(made) == 0


def test_one_udp_socket_is_one_flow_and_one_connection_of_tcp_is() -> None:
    told = Told()
    for port in (80, 81):
        told.tag(packet(UDP, 40_000, port))
        told.tag(packet(TCP, 40_000, port))
    assert [report.protocol for report in told.asked()] == [UDP, TCP, TCP]


@pytest.mark.parametrize("made", [packet(ICMP6, 40_000, 80), packet(UDP, 40_000, 80)[:43]])
def test_what_has_no_ports_is_nobodys_flow(made: bytes) -> None:
    told = Told()
    assert told.tag(made, size=len(made)) == 0
    assert told.asked() == []


def test_what_is_not_asked_for_cannot_be_answered() -> None:
    told, made = Told(), packet(TCP, 40_000, 80)
    told.answer(made, tag=1)
    assert told.tag(made) == 0


def test_a_missing_answer_is_asked_for_again_but_not_at_once() -> None:
    told, made = Told(), packet(TCP, 40_000, 80)
    told.tag(made)
    told.now_ns += FLOW_ASK_NS - 1
    told.tag(made)
    assert len(told.asked()) == 1
    told.now_ns += 1
    told.tag(made)
    assert len(told.asked()) == 1


def test_a_port_that_was_silent_is_asked_for_again_and_keeps_its_tag_meanwhile() -> None:
    told, made = Told(), packet(UDP, 40_000, 80)
    told.tag(made)
    told.answer(made, RSYNC)
    for _ in range(3):  # As long as it sends it is the same program's.
        told.now_ns += FLOW_IDLE_NS - 1
        assert told.tag(made) == 2
    assert len(told.asked()) == 1
    told.now_ns += FLOW_IDLE_NS
    assert told.tag(made) == 2
    assert len(told.asked()) == 1
    told.answer(made)
    assert told.tag(made) == 0


@pytest.mark.parametrize(("flags", "asked"), [(SYN, 1), (SYN_ACK, 0), (ACK, 0)])
def test_a_connection_that_is_opened_again_is_asked_for_again(flags: int, asked: int) -> None:
    told, made = Told(), packet(TCP, 40_000, 80, SYN)
    told.tag(made)
    told.answer(made, RSYNC)
    told.asked()
    told.now_ns += FLOW_ASK_NS
    assert told.tag(packet(TCP, 40_000, 80, flags)) == 2  # A repeated SYN goes by what is known already.
    assert len(told.asked()) == asked


def test_a_cut_packet_does_not_raise() -> None:
    told, made = Told(), packet(TCP, 40_000, 80, SYN)[:44]
    told.tag(made)
    told.answer(made, RSYNC)
    told.now_ns += FLOW_ASK_NS
    assert told.tag(made) == 2


def test_a_flood_of_flows_is_asked_for_at_a_bounded_rate() -> None:
    told = Told()
    for port in range(1_000):
        told.tag(packet(UDP, port, 80))
    assert len(told.asked()) == FLOW_QUESTIONS_BURST
    made = packet(UDP, 999, 80)
    told.now_ns += 1_000_000_000 // FLOW_QUESTIONS_PER_S
    told.tag(made)
    assert told.asked() == [FlowOpened(UDP, made[24:44])]


def test_a_known_flow_that_cannot_be_asked_for_keeps_what_it_has() -> None:
    told, made = Told(), packet(UDP, 7, 80)
    told.tag(made)
    told.answer(made, RSYNC)
    told.now_ns += FLOW_IDLE_NS
    for port in range(1_000, 1_000 + FLOW_QUESTIONS_BURST):
        told.tag(packet(UDP, port, 80))
    told.asked()
    assert told.tag(made) == 2
    assert told.asked() == []


def test_the_table_is_bounded_and_the_oldest_goes() -> None:
    told = Told()
    for port in range(FLOWS_MAX + 1):
        told.now_ns += 1_000_000_000 // FLOW_QUESTIONS_PER_S
        told.tag(packet(UDP, port, 80))
        told.answer(packet(UDP, port, 80), RSYNC)
    assert len(told.asked()) == FLOWS_MAX + 1
    assert told.tag(packet(UDP, 1, 80)) == 2
    told.now_ns += FLOW_ASK_NS
    assert told.tag(packet(UDP, 0, 80)) == 0
    assert told.asked() == [FlowOpened(UDP, packet(UDP, 0, 80)[24:44])]


def test_other_rules_make_all_answers_void() -> None:
    told, made = Told(), packet(TCP, 40_000, 80)
    told.tag(made)
    told.answer(made, RSYNC)
    told.traffic.set(RULES)
    assert told.tag(made) == 0
    assert len(told.asked()) == 2
    told.traffic.set(SetTraffic())
    assert not told.traffic.is_active


@pytest.mark.parametrize("answered", [False, True])
def test_the_device_sends_a_programs_packets_by_the_way_of_its_tag(answered: bool) -> None:
    world = World(3)
    world.introduce()
    world.lease(0, 2, 1)
    world.engines[0].inlet.is_open = True
    world.order(0, SetRoute(DB, 2, node_of(3)), RULES)
    made = packet(UDP, 40_000, 80) + bytes(1000)
    made = made[:4] + (len(made) - 40).to_bytes(2, "big") + made[6:]
    world.reports[0].clear()

    def sends() -> set[object]:
        world.sent.clear()
        world.engines[0].take_tun(made, world.now_ns, world.wall_ns, unfinished=False)
        world.settle()
        return {to for source, to, datagram in world.sent if source == world.at[0] and len(datagram) > 1000}

    assert sends() == {world.at[1]}
    assert world.reports[0].count(FlowOpened(UDP, made[24:44])) == 1
    if answered:
        world.order(0, FlowOwned(UDP, made[24:44], (RSYNC,)))
    assert sends() == {world.at[2] if answered else world.at[1]}
    world.order(0, SetRoute(DB, 2, DIRECT))
    assert sends() == {world.at[1]}
