# SPDX-License-Identifier: Apache-2.0
"""Large packets cut and put together again, against the plain definitions of the checksum and of the headers."""

from struct import pack, unpack_from

from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import WireError
from atoll.device.nic.segments import (
    FLAG_NEEDS_SUM,
    HEADER,
    HEADER_BYTES,
    IPV6_BYTES,
    KIND_ECN,
    KIND_NONE,
    KIND_TCP6,
    KIND_UDP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    SEGMENTS_MAX,
    TCP_SUM_AT,
    UNFINISHED_NIBBLE,
    Joint,
    apart,
    bulk_of,
    finished,
    marked,
)

ADDRESSES = bytes.fromhex("fd00aabb00000000000000000000000100000000000000000000000000000000")
ROOM = 7  # The packet does not begin at the buffer's.


def ones(data: bytes) -> int:
    """The sum of RFC 1071 as it stands there."""
    total = sum(unpack_from(f">{len(data + bytes(len(data) % 2)) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


def pseudo(packet: bytes) -> bytes:
    return packet[8:40] + pack(">IHBB", len(packet) - IPV6_BYTES, 0, 0, packet[6])


def tcp(payload: bytes, *, sequence: int = 1, flags: int = 0x10, options: bytes = b"") -> bytearray:
    length = 20 + len(options)
    head = pack(">HHIIBBHHH", 4000, 22, sequence, 77, length // 4 << 4, flags, 512, 0, 0) + options
    return bytearray(pack(">IHBB", 0x6 << 28, length + len(payload), PROTOCOL_TCP, 64) + ADDRESSES + head + payload)


def udp(payload: bytes) -> bytearray:
    head = pack(">HHHH", 4000, 53, 8 + len(payload), 0)
    return bytearray(pack(">IHBB", 0x6 << 28, 8 + len(payload), PROTOCOL_UDP, 64) + ADDRESSES + head + payload)


def is_summed(packet: bytes) -> bool:
    return ones(pseudo(packet) + packet[IPV6_BYTES:]) == 0xFFFF


def cut(kind: int, packet: bytearray, size: int) -> list[bytes]:
    buffer = bytearray(ROOM) + packet
    bulk = bulk_of((FLAG_NEEDS_SUM, kind, 0, size, 0, 0), buffer, ROOM, len(buffer))
    assert bulk is not None
    made = [bytes(buffer[start:until]) for start, until in bulk.segments()]
    assert len(made) == bulk.count
    return made


def unmarked(packet: bytes) -> bytes:
    """As the receiver hands it to the kernel, checksum undone."""
    assert packet[0] >> 4 == UNFINISHED_NIBBLE
    return bytes((0x60 | packet[0] & 0x0F,)) + packet[1:]


PAYLOADS = st.binary(min_size=1, max_size=3000)
OPTIONS = st.sampled_from([b"", bytes(range(12)), bytes(40)])
SEQUENCES = st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 3000, 2**32 - 1))


@given(payload=PAYLOADS, size=st.integers(24, 1500), options=OPTIONS, sequence=SEQUENCES, flags=st.integers(0, 255))
def test_each_tcp_segment_is_what_a_stack_would_have_sent(
    payload: bytes, size: int, options: bytes, sequence: int, flags: int
) -> None:
    made = cut(KIND_TCP6, tcp(payload, sequence=sequence, flags=flags, options=options), size)
    assert b"".join(one[IPV6_BYTES + 20 + len(options) :] for one in made) == payload
    for number, one in enumerate(made):
        first, last = number == 0, number == len(made) - 1
        kept = (0xFF if last else 0xFF & ~0x09) & (0xFF if first else 0xFF & ~0x80)
        wanted = tcp(
            payload[number * size : (number + 1) * size],
            sequence=(sequence + number * size) % 2**32,
            flags=flags & kept,
            options=options,
        )
        done = finished(one)
        assert is_summed(done)
        assert done[:56] + done[58:] == wanted[:56] + wanted[58:]


@given(payload=PAYLOADS, size=st.integers(24, 1500))
def test_each_udp_datagram_is_whole(payload: bytes, size: int) -> None:
    for number, one in enumerate(cut(KIND_UDP, udp(payload), size)):
        done = finished(one)
        assert is_summed(done)
        wanted = udp(payload[number * size : (number + 1) * size])
        assert done[:46] + done[48:] == wanted[:46] + wanted[48:]
        assert done[46:48] != bytes(2), "zero would say that there is no checksum"


@given(
    payload=PAYLOADS,
    size=st.integers(24, 1500),
    options=OPTIONS,
    sequence=SEQUENCES,
    flags=st.sampled_from([16, 24, 0x90]),
)
def test_what_was_cut_is_put_together_again(
    payload: bytes, size: int, options: bytes, sequence: int, flags: int
) -> None:
    packet = tcp(payload, sequence=sequence, flags=flags, options=options)
    made, joint = cut(KIND_TCP6, packet, size), Joint()
    for one in made:
        assert joint.add(memoryview(unmarked(one)))
    pieces = joint.take()
    assert list(apart(pieces)) == [finished(one) for one in made]
    whole = b"".join(pieces)
    needs, kind, head_bytes, segment, start, offset = HEADER.unpack_from(whole)
    assert (needs, start, offset, head_bytes) == (FLAG_NEEDS_SUM, IPV6_BYTES, TCP_SUM_AT, 60 + len(options))
    if len(made) == 1:
        assert (kind, segment) == (KIND_NONE, 0)
    else:
        assert (kind, segment) == (KIND_TCP6 | (KIND_ECN if flags & 0x80 else 0), size)
    done = finished(marked(whole[HEADER_BYTES:]))
    assert is_summed(done)
    assert done[:56] + done[58:] == packet[:56] + packet[58:]
    assert joint.take() == []


@given(
    header=st.tuples(*[st.integers(0, 255)] * 2, *[st.integers(0, 0xFFFF)] * 4),
    packet=st.one_of(st.binary(max_size=200), PAYLOADS.map(tcp), PAYLOADS.map(udp)),
)
def test_no_header_makes_more_segments_than_the_limit_or_reaches_outside_the_packet(
    header: tuple[int, int, int, int, int, int], packet: bytes
) -> None:
    buffer = bytearray(ROOM) + packet
    try:
        bulk = bulk_of(header, buffer, ROOM, len(buffer))
    except WireError:
        return
    if bulk is None:
        return
    ends = [ROOM + bulk.head_bytes]
    for start, until in bulk.segments():
        assert ROOM <= start < until <= len(buffer)
        assert start + bulk.head_bytes == ends[-1]
        ends.append(until)
    assert ends[-1] == len(buffer)
    assert 1 <= len(ends) - 1 <= SEGMENTS_MAX


@given(st.lists(st.one_of(st.binary(max_size=120), PAYLOADS.map(tcp), PAYLOADS.map(udp)), max_size=8))
def test_whatever_comes_is_joined_or_refused(packets: list[bytes]) -> None:
    joint = Joint()
    for packet in packets:
        if not joint.add(memoryview(bytes(packet))):
            joint.take()
    joint.take()
