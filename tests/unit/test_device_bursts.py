# SPDX-License-Identifier: Apache-2.0
"""The fast path of the packet device: large packets of one kernel to another, and bursts against single datagrams."""

from collections.abc import Callable
from random import Random
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.ids import DIRECT
from atoll.device.nic.messages import PacketReceived
from atoll.device.nic.peers import Peer
from atoll.device.nic.segments import HEADER, HEADER_BYTES, KIND_TCP6, SEGMENTS_MAX, bulk_of, finished, marked
from atoll.overlay.orders import SetRoute
from tests.unit.nic_world import World

SIZE = 1_208


def tcp(world: World, source: int, target: int, payload: bytes, sequence: int = 7) -> bytes:
    head = pack(">HHIIBBHHH", 4000, 22, sequence, 77, 5 << 4, 0x10, 512, 0, 0)
    return world.packet(source, target, head + payload)[:6] + b"\x06" + world.packet(source, target, head + payload)[7:]


def joined(*hosts: int, count: int = 2) -> World:
    """Engines with sessions, of which some have a kernel behind them."""
    world = World(count)
    world.introduce()
    for number in hosts:
        world.engines[number].inlet.is_open = True
    return world


def give(world: World, number: int, packet: bytes, size: int = SIZE) -> None:
    """Let the kernel of a node send a large packet."""
    buffer = bytearray(packet)
    bulk = bulk_of((1, KIND_TCP6, 0, size, 0, 0), buffer, 0, len(buffer))
    assert bulk is not None
    world.engines[number].take_bulk(bulk, world.now_ns, world.wall_ns)
    world.settle()


def peers(world: World, number: int) -> list[Peer]:
    return list(world.engines[number]._peers.values())  # pyright: ignore[reportPrivateUsage] - their counts are inside.


def streams(world: World, number: int) -> list[bytes]:
    """What the kernel of a node was given, as (kind, payload)."""
    return [write[HEADER_BYTES + 60 :] for write in world.kernel[number]]


@pytest.mark.parametrize("length", [1, SIZE, SIZE + 1, 44 * SIZE, 54 * SIZE - 3])
def test_a_large_packet_of_one_kernel_reaches_the_other_whole(length: int) -> None:
    world, payload = joined(0, 1), Random(length).randbytes(length)
    packet = tcp(world, 0, 1, payload)
    give(world, 0, packet)
    assert b"".join(streams(world, 1)) == payload
    assert len(world.kernel[1]) == -(-length // (49 * SIZE)), "one write for each burst that the kernel takes"
    assert not world.dropped(1)


def test_every_segment_is_counted_as_data() -> None:
    world = joined(0, 1)
    give(world, 0, tcp(world, 0, 1, bytes(10 * SIZE)))
    for number, counts in ((0, "data_sent"), (1, "data_seen")):
        (peer,) = peers(world, number)
        assert getattr(peer, counts) == {DIRECT: 10}


def test_it_goes_by_a_relay_that_reads_nothing() -> None:
    world, payload = joined(0, 2, count=3), Random(1).randbytes(20 * SIZE)
    world.lease(0, 1, 2)
    world.order(0, SetRoute(world.node(2), 0, world.node(1), None))
    before = len(world.sent)
    give(world, 0, tcp(world, 0, 2, payload))
    assert streams(world, 2) == [payload]
    hops = [(source, to) for source, to, _ in world.sent[before:]]
    assert hops == [(world.at[0], world.at[1])] * 20 + [(world.at[1], world.at[2])] * 20
    assert world.bursts == 2
    assert not any(payload[:100] in datagram for _, _, datagram in world.sent)


def test_what_is_lost_of_a_burst_is_all_that_is_missing() -> None:
    world, payload = joined(0, 1), Random(2).randbytes(10 * SIZE)
    seen: list[bytes] = []

    def lose_the_fifth(sent: tuple[object, object, bytes]) -> bool:
        seen.append(sent[2])
        return len(seen) == 5

    world.lost = lose_the_fifth
    give(world, 0, tcp(world, 0, 1, payload))
    assert streams(world, 1) == [payload[: 4 * SIZE], payload[5 * SIZE :]]


def test_by_two_ways_each_segment_comes_once() -> None:
    world, payload = joined(0, 2, count=3), Random(3).randbytes(5 * SIZE)
    world.lease(0, 1, 2)
    world.order(0, SetRoute(world.node(2), 0, DIRECT, world.node(1)))
    give(world, 0, tcp(world, 0, 2, payload))
    assert b"".join(streams(world, 2)) == payload
    (peer,) = (peer for peer in peers(world, 2) if peer.node == world.node(0))
    assert peer.data_seen == {}, "which of two ways was faster is chance"


def test_a_node_without_a_kernel_behind_it_gets_packets_with_their_checksums_done() -> None:
    world = joined(0)
    packet = tcp(world, 0, 1, b"x" * (2 * SIZE))
    give(world, 0, packet)
    got = [report.packet for report in world.reports[1] if isinstance(report, PacketReceived)]
    assert [one[60:] for one in got] == [b"x" * SIZE] * 2
    for one in got:
        undone = bytearray(one)
        undone[56:58] = finished(marked(one))[56:58]
        assert one[56:58] != bytes(2)


def test_without_a_session_the_first_segments_wait_for_it() -> None:
    world = World(2)
    world.lost = lambda _: True
    world.introduce()
    world.engines[0].inlet.is_open = world.engines[1].inlet.is_open = True
    give(world, 0, tcp(world, 0, 1, b"y" * (4 * SIZE)))
    assert world.kernel[1] == []
    world.lost = lambda _: False
    world.run(6_000_000_000)
    assert b"".join(streams(world, 1)) == b"y" * (4 * SIZE)


def test_a_packet_with_too_many_segments_is_none() -> None:
    world = joined(0, 1)
    packet = tcp(world, 0, 1, bytes(SEGMENTS_MAX + 1))
    with pytest.raises(Exception, match="segments"):
        give(world, 0, packet, size=1)


def spoil_nothing(_: Random, datagram: bytes) -> bytes:
    return datagram


def spoil_a_bit(random: Random, datagram: bytes) -> bytes:
    changed = bytearray(datagram)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def spoil_all(random: Random, datagram: bytes) -> bytes:
    return random.randbytes(len(datagram))


def cut_short(random: Random, datagram: bytes) -> bytes:
    return datagram[: random.randrange(len(datagram))] + bytes(0)


SPOILERS: list[Callable[[Random, bytes], bytes]] = [spoil_nothing] * 4 + [spoil_a_bit, spoil_all]


def flattened(world: World, number: int) -> list[tuple[bytes, bytes]]:
    """What a kernel was given: sequence number and payload of each byte run, whichever way it was joined."""
    found: list[tuple[bytes, bytes]] = []
    for write in world.kernel[number]:
        kind, size = HEADER.unpack_from(write)[1], HEADER.unpack_from(write)[3]
        packet = write[HEADER_BYTES:]
        first, payload = int.from_bytes(packet[44:48], "big"), packet[60:]
        step = size if kind else max(len(payload), 1)
        found += [
            ((first + at).to_bytes(4, "big"), payload[at : at + step]) for at in range(0, max(len(payload), 1), step)
        ]
    return found


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), relayed=st.booleans(), ordered=st.booleans(), has_kernel=st.booleans())
def test_a_burst_is_what_its_datagrams_are_one_by_one(
    seed: int, relayed: bool, ordered: bool, has_kernel: bool
) -> None:
    """Same reports, same drops, same bytes to the kernel, same datagrams on their way; whatever is in it."""
    worlds = [joined(0, *((2,) if has_kernel else ()), count=3) for _ in range(2)]
    for world in worlds:
        world.lease(0, 1, 2)
        if relayed:
            world.order(0, SetRoute(world.node(2), 0, world.node(1), None))
    random = Random(seed)
    sender, twin = worlds
    buffer = bytearray(tcp(sender, 0, 2, random.randbytes(random.randrange(1, 30 * SIZE))))
    bulk = bulk_of((1, KIND_TCP6, 0, SIZE, 0, 0), buffer, 0, len(buffer))
    assert bulk is not None
    for world in worlds:
        copied = bytearray(buffer)
        again = bulk_of((1, KIND_TCP6, 0, SIZE, 0, 0), copied, 0, len(copied))
        assert again is not None
        world.engines[0].take_bulk(again, world.now_ns, world.wall_ns)
    (to, data, size) = sender.engines[0].bursts[0]
    datagrams = [bytes(data[at : at + size]) for at in range(0, len(data), size)]
    for world in worlds:
        world.engines[0].bursts.clear()
    if ordered:  # As they were sent, most of them unspoilt: so they can be joined.
        made = [random.choice(SPOILERS if random.random() < 0.1 else [spoil_nothing])(random, one) for one in datagrams]
    else:
        made = [random.choice(SPOILERS)(random, random.choice(datagrams)) for _ in range(random.randrange(1, 40))]
    made = [one for one in made if len(one) == size] + [one for one in made if len(one) < size][:1]
    if not made:
        return
    there = sender.at.index(to)
    burst = bytearray().join(made)
    sender.engines[there].receive_burst(memoryview(burst), size, sender.at[0], sender.now_ns, sender.wall_ns)
    sender.take_bursts(there)
    sender.settle()
    for datagram in made:
        twin.receive(there, datagram, twin.at[0])
    for number in range(3):
        assert sender.dropped(number) == twin.dropped(number)
        assert flattened(sender, number) == flattened(twin, number)
        assert sender.reports[number] == twin.reports[number]


@pytest.mark.parametrize("size", [1, 4, 10, 31, 32])
def test_datagrams_too_short_for_what_they_claim_to_be_are_dropped(size: int) -> None:
    one, other = World(1), World(1)
    short = (b"\x04\0\0\0" + bytes(28))[:size]
    one.engines[0].receive_burst(memoryview(bytearray(short * 8)), size, ("10.6.6.6", 1), one.now_ns, one.wall_ns)
    for _ in range(8):
        other.receive(0, short, ("10.6.6.6", 1))
    assert one.dropped(0) == other.dropped(0)
