# SPDX-License-Identifier: Apache-2.0
"""The fast path of guests against the usual one, with the compiled loop and without: both make the same of anything."""

from collections.abc import Callable
from random import Random
from struct import pack, unpack_from

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.compiled import COMPILED
from atoll.base.ids import NodeId, packed_address_of, resolver_address
from atoll.device.nic.limits import GUEST_BURST_BYTES
from atoll.device.nic.segments import (
    FLAG_NEEDS_SUM,
    HEADER,
    HEADER_BYTES,
    KIND_NONE,
    KIND_TCP6,
    KIND_UDP,
    Joint,
    bulk_of,
    finish,
    follows,
)
from atoll.overlay.orders import SetGuest
from tests.unit.nic_world import GROUP, World, node_of
from tests.unit.test_device_guests import AT, GATEWAY_PUBLIC, PHONE, Phone, guest_id, orders_of

NODE, MEMBER, GUEST = node_of(1), node_of(2), guest_id(PHONE)
TCP, UDP, ICMP6 = 6, 17, 58
STEP, SIZE = 1_000, 968


def served(*, compiled: bool) -> tuple[World, Phone]:
    """Return a world in which the first node, with a kernel behind it, serves a guest that is connected."""
    world = World(2, compiled=compiled)
    world.introduce()
    world.order(0, *orders_of(1))
    world.engines[0].inlet.is_open = True
    phone = Phone(world)
    phone.connect(0)
    world.order(1, SetGuest(phone.node, world.node(0)))
    world.sent.clear()
    return world, phone


def ip(protocol: int, body: bytes, source: bytes = GUEST, target: bytes = NODE) -> bytes:
    addresses = b"".join(packed_address_of(GROUP, NodeId(node)) for node in (source, target))
    return pack(">IHBB", 6 << 28, len(body), protocol, 64) + addresses + body


def summed(packet: bytes, at: int) -> bytes:
    """Return a packet with its checksum done."""
    made = bytearray(packet)
    made[at : at + 2] = bytes(2)
    whole = packet[8:40] + pack(">IHBB", len(packet) - 40, 0, 0, packet[6]) + made[40:] + bytes(len(made) % 2)
    total = sum(unpack_from(f">{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    made[at : at + 2] = pack(">H", ~total & 0xFFFF or 0xFFFF)
    return bytes(made)


def tcp(payload: bytes, sequence: int, flags: int = 0x10, options: bytes = b"", target: bytes = NODE) -> bytes:
    words = (5 + len(options) // 4) << 4
    head = pack(">HHIIBBHHH", 4000, 22, sequence, 77, words, flags, 512, 0, 0) + options
    return summed(ip(TCP, head + payload, target=target), 56)


def usual(random: Random, sequence: int) -> bytes:
    return tcp(random.randbytes(1_000), sequence)


def flagged(random: Random, sequence: int) -> bytes:
    return tcp(random.randbytes(1_000), sequence, random.choice((0x18, 0x11, 0x90)))


def ours(random: Random, sequence: int) -> bytes:
    """Return what only a member may send: its checksum undone, perhaps a continuation."""
    return bytes((random.choice((0x50, 0x70)),)) + tcp(random.randbytes(1_000), sequence)[1:]


def echo(random: Random, _: int) -> bytes:
    return summed(ip(ICMP6, bytes((128, 0, 0, 0)) + random.randbytes(8)), 42)


def wrong(random: Random, sequence: int) -> bytes:
    made = bytearray(tcp(bytes(1_000), sequence))
    made[random.randrange(len(made))] ^= 1 << random.randrange(8)
    return bytes(made)


MAKERS: list[Callable[[Random, int], bytes]] = [
    *[usual] * 20,
    lambda random, sequence: tcp(random.randbytes(random.randrange(1_001)), sequence),
    *[flagged] * 3,
    lambda random, sequence: tcp(random.randbytes(1_000), sequence, random.randrange(256)),
    lambda random, sequence: tcp(random.randbytes(1_000), sequence, 0x10, random.randbytes(12)),
    lambda random, sequence: tcp(random.randbytes(1_000), sequence + random.randrange(3)),
    lambda random, sequence: tcp(random.randbytes(1_000), sequence, target=MEMBER),
    lambda random, sequence: tcp(random.randbytes(1_000), sequence, target=node_of(random.choice((9, 10)))),
    lambda random, _: ip(UDP, random.randbytes(random.randrange(100))),
    lambda random, _: ip(UDP, random.randbytes(20), target=resolver_address(GROUP)[6:]),
    lambda random, _: ip(TCP, random.randbytes(1_020), source=MEMBER),
    lambda random, _: ip(random.randrange(256), random.randbytes(1_020)),
    lambda random, _: random.randbytes(random.randrange(1_100)),
    lambda random, _: b"\x60" + random.randbytes(random.randrange(1_100)),
    lambda _, __: b"",
    *[ours] * 3,
    echo,
    wrong,
]


def plaintexts(random: Random, count: int) -> list[bytes]:
    """Return what a client might send: mostly streams."""
    made: list[bytes] = []
    sequence = random.choice((7, 2**32 - 5_000))
    for _ in range(count):
        packet = random.choice(MAKERS)(random, sequence & 0xFFFF_FFFF)
        if len(packet) > 60:
            sequence += 1_000
        made.append(packet + bytes(random.choice((0, 0, 0, 0, 0, 7, 16))))
    return made


def grouped(random: Random, datagrams: list[bytes]) -> list[list[bytes]]:
    """Return bursts as a kernel makes them: of one length, and the last may be shorter."""
    bursts: list[list[bytes]] = []
    is_open = False
    for one in datagrams:
        if is_open and len(one) <= len(bursts[-1][0]) and random.randrange(20):
            bursts[-1].append(one)
        else:
            bursts.append([one])
        is_open = len(one) == len(bursts[-1][0]) and len(bursts[-1]) < 60
    return bursts


def unjoined(world: World, number: int) -> list[bytes]:
    """Return what a kernel was given, as it came from the guest: each packet, with its checksum done."""
    found: list[bytes] = []
    for write in world.kernel[number]:
        flags, kind, head_bytes, size, start, offset = HEADER.unpack_from(write)
        packet = bytearray(write[HEADER_BYTES:])
        if kind == KIND_NONE:
            if flags & FLAG_NEEDS_SUM:
                finish(packet, start, offset)
            found.append(bytes(packet))
            continue
        head, payload = packet[:head_bytes], packet[head_bytes:]
        sequence, kept = unpack_from(">I", head, 44)[0], head[53]
        for at in range(0, len(payload), size):
            one = head + payload[at : at + size]
            one[4:6] = pack(">H", len(one) - 40)
            one[44:48] = pack(">I", (sequence + at) & 0xFFFF_FFFF)
            one[53] = kept & (0xFF if at == 0 else 0x7F) & (0xFF if at + size >= len(payload) else 0xF6)
            found.append(summed(bytes(one), 56))
    return found


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), compiled=st.booleans(), full=st.booleans(), spoiled=st.booleans())
def test_a_burst_of_a_guest_is_what_its_datagrams_are_one_by_one(
    seed: int, compiled: bool, full: bool, spoiled: bool
) -> None:
    random = Random(seed)
    (world, phone), (twin, _) = served(compiled=compiled), served(compiled=False)
    now_ns, wall_ns = world.now_ns, world.wall_ns
    datagrams: list[bytes] = []
    for plaintext in plaintexts(random, random.randrange(1, 80)):
        sealed = phone.sessions.seal(GATEWAY_PUBLIC, plaintext, now_ns, wall_ns)
        assert sealed is not None
        datagrams.append(sealed)
    if spoiled:
        at = random.randrange(len(datagrams))
        changed = bytearray(datagrams[at])
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        datagrams[at] = bytes(changed)
        datagrams.insert(random.randrange(len(datagrams)), random.choice(datagrams))
    if full:
        left = random.randrange(30_000)
        for one in (world, twin):
            guest = one.engines[0]._guests.guest(GUEST)  # pyright: ignore[reportPrivateUsage] - its meter is inside.
            assert guest is not None
            guest.meter.take(GUEST_BURST_BYTES - left, now_ns)
    for burst in grouped(random, datagrams):
        source = (AT[0], AT[1] + (random.randrange(50) == 0))
        if len(burst) > 1:
            data = bytearray().join(burst)
            world.engines[0].receive_burst(memoryview(data), len(burst[0]), source, now_ns, wall_ns)
            world.take_bursts(0)
            world.settle()
        else:
            world.receive(0, burst[0], source)
        for datagram in burst:
            twin.receive(0, datagram, source)
    assert unjoined(world, 0) == unjoined(twin, 0)
    assert len(world.kernel[0]) <= len(twin.kernel[0])
    assert world.reports == twin.reports
    assert [world.dropped(number) for number in (0, 1)] == [twin.dropped(number) for number in (0, 1)]
    assert world.sent == twin.sent


def given_to_the_guest(packet: bytes, size: int, *, compiled: bool) -> World:
    """Let the node's kernel send a large packet."""
    world, _ = served(compiled=compiled)
    buffer = bytearray(packet)
    bulk = bulk_of((FLAG_NEEDS_SUM, KIND_TCP6 if packet[6] == TCP else KIND_UDP, 0, size, 0, 0), buffer, 0, len(buffer))
    assert bulk is not None
    world.engines[0].take_bulk(bulk, world.now_ns, world.wall_ns)
    assert len(world.engines[0].bursts) == 1
    world.settle()
    return world


def given_one_by_one(packet: bytes, size: int) -> tuple[World, Phone]:
    """Let the node's kernel send its segments, each by itself."""
    world, phone = served(compiled=False)
    buffer = bytearray(packet)
    bulk = bulk_of((FLAG_NEEDS_SUM, KIND_TCP6 if packet[6] == TCP else KIND_UDP, 0, size, 0, 0), buffer, 0, len(buffer))
    assert bulk is not None
    for start, until in bulk.segments():
        one = bytes((0x60,)) + bytes(buffer[start + 1 : until])
        world.engines[0].take_tun(one, world.now_ns, world.wall_ns, unfinished=True)
        world.settle()
    return world, phone


@settings(deadline=None)
@given(
    protocol=st.sampled_from((TCP, UDP)),
    flags=st.integers(0, 255),
    payload=st.binary(min_size=1, max_size=9_000),
    size=st.integers(100, 1_180),
    options=st.sampled_from((b"", bytes(12))),
)
def test_a_large_packet_for_a_guest_becomes_the_datagrams_of_its_segments(
    protocol: int, flags: int, payload: bytes, size: int, options: bytes
) -> None:
    head = pack(">HHHH", 22, 4000, 8, 0)
    if protocol == TCP:
        head = pack(">HHIIBBHHH", 22, 4000, 2**32 - 3_000, 77, (5 + len(options) // 4) << 4, flags, 512, 0, 0) + options
    packet = ip(protocol, head + payload, source=NODE, target=GUEST)
    world, phone = given_one_by_one(packet, size)
    for compiled in (True, False):
        assert given_to_the_guest(packet, size, compiled=compiled).sent == world.sent
    phone.exchange(0)
    assert all(summed(one, 56 if protocol == TCP else 46) == one for one in phone.received)
    assert b"".join(one[40 + len(head) :] for one in phone.received) == payload


def test_a_checksum_that_comes_out_as_zero_is_written_as_its_other_form() -> None:
    head = pack(">HHHH", 22, 4000, 108, 0)
    packet = ip(UDP, head + bytes(100), source=NODE, target=GUEST)
    packet = packet[:-2] + summed(packet, 46)[46:48]  # Now the sum of all words is 0xFFFF.
    world, phone = given_one_by_one(packet, 100)
    phone.exchange(0)
    assert [one[46:48] for one in phone.received] == [b"\xff\xff"]
    world, _ = given_one_by_one(packet, 100)
    for compiled in (True, False):
        assert given_to_the_guest(packet, 100, compiled=compiled).sent == world.sent


def compiled_follows() -> Callable[[memoryview, int, int, int, int], int] | None:
    return None if COMPILED is None else COMPILED.Batch.follows


def stood(packets: list[bytes]) -> tuple[memoryview, int]:
    """Return packets as they stand after they were opened, and the length of the last one."""
    cut = [packet[:SIZE] for packet in packets]
    data = bytearray().join(packet.ljust(STEP, b"\xee") for packet in cut)
    return memoryview(data), len(cut[-1])


@pytest.mark.usefixtures("compiled")
@settings(max_examples=300)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 12))
def test_both_count_the_same_segments_and_all_of_them_can_be_joined(seed: int, count: int) -> None:
    random, sequence = Random(seed), 2**32 - 2_000
    packets: list[bytes] = []
    payload = SIZE - 60 - random.choice((0, 0, 3, 15, 16, 300))
    first = tcp(random.randbytes(payload), sequence, random.choice((0x10, 0x10, 0x18, 0x90, 0x12)))
    for number in range(count):
        here = payload if random.randrange(8) else random.randrange(payload + 16)
        flags = 0x10 if random.randrange(8) else 0x18
        made = bytearray(first if not number else tcp(random.randbytes(here), sequence & 0xFFFF_FFFF, flags))
        if not random.randrange(8):  # Some field changed, its sum right all the same.
            made[random.choice((0, 1, 4, 5, 6, 8, 39, 40, 44, 47, 48, 52, 53, 54, 57, 58, 59))] ^= random.randrange(256)
            made = bytearray(summed(bytes(made), 56)) if random.randrange(2) else made
        sequence += here
        packets.append(bytes(made).ljust(SIZE, b"\0") if number < count - 1 else bytes(made))
    data, last = stood(packets)
    found = follows(data, STEP, SIZE, count, last)
    joint = Joint()
    for number in range(found):
        length = 40 + int.from_bytes(data[number * STEP + 4 : number * STEP + 6], "big")
        assert joint.add(data[number * STEP :][:length])
    compiled = compiled_follows()
    assert compiled is not None
    assert compiled(data, STEP, SIZE, count, last) == found


@given(st.binary(min_size=1, max_size=400), st.integers(1, 200), st.integers(1, 8))
def test_any_bytes_are_counted_without_harm(data: bytes, step: int, count: int) -> None:
    size, last = step, len(data) - step * (count - 1)
    if not 0 <= last <= size:
        return
    compiled = compiled_follows()
    found = follows(memoryview(data), step, size, count, last)
    assert 0 <= found <= count
    assert compiled is None or compiled(memoryview(data), step, size, count, last) == found


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("at", "value"), [(1, 0), (1, 59), (1, 151), (2, 0), (2, 61), (3, 0), (3, 4), (3, 70_000), (4, 61), (4, -1)]
)
def test_impossible_places_are_refused(at: int, value: int) -> None:
    compiled = compiled_follows()
    assert compiled is not None
    good: list[int] = [0, 60, 60, 3, 30]
    assert compiled(memoryview(bytes(150)), *good[1:]) == 0
    good[at] = value
    with pytest.raises(ValueError, match="stand so"):
        compiled(memoryview(bytes(150)), *good[1:])
