# SPDX-License-Identifier: Apache-2.0
"""Sizes in the packet device: what asks, what answers, and what is cut or refused to fit a way."""

from struct import pack

from atoll.base.ids import DIRECT
from atoll.device.nic.messages import SendPacket
from atoll.device.nic.segments import Bulk
from atoll.overlay.orders import ProbeSize, SetRoute, SetSize
from atoll.overlay.reports import SizePassed
from atoll.overlay.sizes import BASE_BYTES, LARGEST_BYTES
from tests.unit.nic_world import World, ipv6, node_of

ONE, TWO, THREE = node_of(1), node_of(2), node_of(3)
OVERHEAD, FRAME = 32, 20
TCP_HEAD = 20


def world(count: int = 2) -> World:
    made = World(count)
    made.introduce()
    for engine in made.engines:
        engine.inlet.is_open = True
    return made


def tcp(payload: bytes, *, flags: int = 0x10) -> bytes:
    made = bytearray(ipv6(ONE, TWO, pack(">HHIIBBHHH", 1, 2, 7, 9, 5 << 4, flags, 100, 0, 0) + payload))
    made[6] = 6
    return bytes(made)


def passed(made: World) -> list[int]:
    return [report.token for report in made.reports[0] if isinstance(report, SizePassed)]


def sent_lengths(made: World, number: int = 0) -> list[int]:
    return [len(datagram) for source, _, datagram in made.sent if source == made.at[number]]


def test_a_question_is_as_long_as_asked_and_is_answered() -> None:
    made = world()
    made.sent.clear()
    made.order(0, ProbeSize(TWO, DIRECT, 1408, 513))
    assert 1408 + OVERHEAD in sent_lengths(made)
    assert passed(made) == [513]
    assert made.kernel[1] == []


def test_a_question_that_does_not_arrive_is_not_answered() -> None:
    made = world()
    made.lost = lambda datagram: len(datagram[2]) > 1400
    made.order(0, ProbeSize(TWO, DIRECT, 1408, 1), ProbeSize(TWO, DIRECT, 1344, 2))
    assert passed(made) == [2]


def test_a_question_goes_by_the_way_it_is_about() -> None:
    made = world(3)
    made.lease(0, 2, 1)
    made.lease(1, 2, 0)
    made.sent.clear()
    made.order(0, ProbeSize(TWO, THREE, 1376, 9))
    assert passed(made) == [9]
    assert sent_lengths(made) == [1376 + OVERHEAD + FRAME]
    assert [to for source, to, _ in made.sent if source == made.at[1]] == [made.at[2]]  # The answer, too.


def test_impossible_orders_are_refused() -> None:
    made = world()
    for order in (
        ProbeSize(TWO, DIRECT, 9000, 1),
        ProbeSize(TWO, DIRECT, 1408, 70_000),
        ProbeSize(THREE, DIRECT, 1408, 1),
        SetSize(TWO, DIRECT, 9000),
        SetSize(TWO, DIRECT, 100),
        SetSize(THREE, DIRECT, 1408),
    ):
        made.order(0, order)
    assert made.engines[0].counters.dropped["order-refused"] == 6


def test_a_long_segment_is_cut_to_what_the_way_carries() -> None:
    made = world()
    payload = bytes(range(256)) * 5 + b"the end..."
    made.engines[0].take_tun(tcp(payload, flags=0x18), made.now_ns, made.wall_ns, unfinished=False)
    made.settle()
    assert max(sent_lengths(made)) <= BASE_BYTES + OVERHEAD
    written = b"".join(packet[10 + 40 + TCP_HEAD :] for packet in made.kernel[1])
    assert written == payload
    made.order(0, SetSize(TWO, DIRECT, LARGEST_BYTES))
    made.kernel[1].clear()
    made.engines[0].take_tun(tcp(payload), made.now_ns, made.wall_ns, unfinished=False)
    made.settle()
    (whole,) = made.kernel[1]
    assert len(whole) == 10 + 40 + TCP_HEAD + len(payload)


def bulk_of(payload_bytes: int, size: int) -> Bulk:
    packet = bytearray(tcp(bytes(payload_bytes)))
    return Bulk(packet, 0, len(packet), 40 + TCP_HEAD, size)


def test_a_large_packet_is_cut_finer_on_a_narrow_way() -> None:
    made = world()
    made.sent.clear()
    made.engines[0].take_bulk(bulk_of(30_000, 1348), made.now_ns, made.wall_ns)
    made.settle()
    assert max(sent_lengths(made)) == BASE_BYTES + OVERHEAD
    assert len(sent_lengths(made)) == -(-30_000 // (BASE_BYTES - 40 - TCP_HEAD))
    made.order(0, SetSize(TWO, DIRECT, LARGEST_BYTES))
    made.sent.clear()
    made.engines[0].take_bulk(bulk_of(30_000, 1348), made.now_ns, made.wall_ns)
    made.settle()
    assert max(sent_lengths(made)) == LARGEST_BYTES + OVERHEAD


def test_a_datagram_that_is_too_long_is_refused_with_the_size_that_is_not() -> None:
    made = world()
    long = ipv6(ONE, TWO, pack(">HHHH", 1, 2, 1308, 0) + bytes(1300))
    made.engines[0].take_tun(long, made.now_ns, made.wall_ns, unfinished=True)
    made.settle()
    assert made.kernel[1] == []
    (told,) = made.kernel[0]
    assert (told[10 + 6], told[50], told[51]) == (58, 2, 0)  # ICMPv6, packet too big.
    assert int.from_bytes(told[54:58], "big") == BASE_BYTES
    assert made.engines[0].counters.dropped["tun-too-big"] == 1
    made.order(0, SetSize(TWO, DIRECT, 1376))
    made.engines[0].take_tun(long, made.now_ns, made.wall_ns, unfinished=True)
    made.settle()
    assert len(made.kernel[1]) == 1


def test_two_ways_at_once_carry_what_the_narrower_one_does() -> None:
    made = world(3)
    made.lease(0, 2, 1)
    made.order(0, SetSize(TWO, DIRECT, LARGEST_BYTES), SetRoute(TWO, 0, DIRECT, THREE))
    made.sent.clear()
    made.engines[0].take_tun(tcp(bytes(1300)), made.now_ns, made.wall_ns, unfinished=False)
    made.settle()
    assert max(sent_lengths(made)) <= BASE_BYTES + 16 + OVERHEAD + FRAME
    made.order(0, SendPacket(TWO, 0, ipv6(ONE, TWO, b"short")))
    assert len(made.kernel[1]) == 3
