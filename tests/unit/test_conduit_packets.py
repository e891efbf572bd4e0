# SPDX-License-Identifier: Apache-2.0
"""Inner packets: exact bytes, round trips, and nothing but WireError for anything else."""

import socket
from struct import pack, unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import UsageError, WireError
from atoll.conduit.limits import INNER_BYTES_MAX
from atoll.conduit.packets import HEADERS_BYTES, TAG_MAX, EchoPacket, UdpPacket, build_echo, build_udp, parse, reset_for

ADDRESS_A = socket.inet_pton(socket.AF_INET6, "fd00::1")
ADDRESS_B = socket.inet_pton(socket.AF_INET6, "fdff::2")

addresses = st.binary(min_size=16, max_size=16)
u16 = st.integers(0, 0xFFFF)
tags = st.integers(0, TAG_MAX)
payloads = st.binary(max_size=200)


def internet_checksum(data: bytes) -> int:
    """The textbook loop of RFC 1071, as the other witness."""
    total = 0
    padded = data + b"\0" * (len(data) % 2)
    for offset in range(0, len(padded), 2):
        total += padded[offset] << 8 | padded[offset + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@given(source=addresses, target=addresses, tag=tags, ports=st.tuples(u16, u16), payload=payloads)
def test_a_udp_packet_survives_the_round_trip(
    source: bytes, target: bytes, tag: int, ports: tuple[int, int], payload: bytes
) -> None:
    packet = UdpPacket(source, target, tag, *ports, payload)
    assert parse(build_udp(packet)) == packet


@given(tag=tags, is_reply=st.booleans(), identifier=u16, sequence=u16, payload=payloads)
def test_an_echo_survives_the_round_trip(
    tag: int, is_reply: bool, identifier: int, sequence: int, payload: bytes
) -> None:
    packet = EchoPacket(ADDRESS_A, ADDRESS_B, tag, is_reply, identifier, sequence, payload)
    assert parse(build_echo(packet)) == packet


@given(payload=payloads, ports=st.tuples(u16, u16))
def test_the_checksum_is_that_of_the_textbook(payload: bytes, ports: tuple[int, int]) -> None:
    built = build_udp(UdpPacket(ADDRESS_A, ADDRESS_B, 0, *ports, payload))
    pseudo = ADDRESS_A + ADDRESS_B + pack(">IHBB", len(built) - 40, 0, 0, 17)
    expected = internet_checksum(pseudo + built[40:46] + b"\0\0" + built[48:]) or 0xFFFF
    assert int.from_bytes(built[46:48]) == expected


def test_a_checksum_that_computes_to_zero_is_sent_as_ones() -> None:
    # The payload makes the sum 0xFFFF, whose complement is 0, which UDP reserves for "none".
    plain = build_udp(UdpPacket(ADDRESS_A, ADDRESS_B, 0, 1, 2, b"\0\0"))
    filler = plain[46:48]
    built = build_udp(UdpPacket(ADDRESS_A, ADDRESS_B, 0, 1, 2, filler))
    assert built[46:48] == b"\xff\xff"
    assert isinstance(parse(built), UdpPacket)


def test_the_tag_is_above_the_congestion_bits_of_the_traffic_class() -> None:
    built = build_udp(UdpPacket(ADDRESS_A, ADDRESS_B, 3, 1, 2, b""))
    assert (int.from_bytes(built[:2]) >> 4 & 0xFF) == 3 << 2
    assert built[0] >> 4 == 6


@given(st.binary(max_size=INNER_BYTES_MAX + 10))
def test_any_bytes_parse_or_raise_a_wire_error(data: bytes) -> None:
    try:
        parse(data)
    except WireError as error:
        assert error.reason.startswith("inner")  # noqa: PT017 -- Both outcomes are right; only another error is not.


@given(position=st.integers(0, 59), flip=st.integers(1, 255))
def test_a_flipped_bit_outside_tag_and_hop_limit_is_noticed(position: int, flip: int) -> None:
    built = bytearray(build_udp(UdpPacket(ADDRESS_A, ADDRESS_B, 1, 500, 600, b"payload12345")))
    built[position] ^= flip
    if position in {0, 1, 2, 3, 7}:  # Version, class and flow label; hop limit: outside the checksum.
        return
    with pytest.raises(WireError):
        parse(bytes(built))


GOOD = build_udp(UdpPacket(ADDRESS_A, ADDRESS_B, 0, 1, 2, b"x"))


@pytest.mark.parametrize(
    "packet",
    [
        GOOD[:-1],
        GOOD + b"\0",
        b"\x45" + GOOD[1:],
        GOOD[:6] + b"\x06" + GOOD[7:],
        GOOD[:46] + b"\0\0" + GOOD[48:],
        GOOD[:47],
        b"",
    ],
)
def test_a_malformed_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(WireError):
        parse(packet)


def test_other_icmp_types_are_refused() -> None:
    packet = bytearray(build_echo(EchoPacket(ADDRESS_A, ADDRESS_B, 0, False, 1, 2, b"")))
    packet[40] = 135
    checksum = (int.from_bytes(packet[42:44]) + (128 << 8) - (135 << 8)) % 0xFFFF
    packet[42:44] = checksum.to_bytes(2)
    with pytest.raises(WireError, match="type"):
        parse(bytes(packet))


@pytest.mark.parametrize(
    "packet",
    [
        UdpPacket(b"short", ADDRESS_B, 0, 1, 2, b""),
        UdpPacket(ADDRESS_A, ADDRESS_B, TAG_MAX + 1, 1, 2, b""),
        UdpPacket(ADDRESS_A, ADDRESS_B, 0, 65536, 2, b""),
        UdpPacket(ADDRESS_A, ADDRESS_B, 0, 1, -1, b""),
        UdpPacket(ADDRESS_A, ADDRESS_B, 0, 1, 2, bytes(INNER_BYTES_MAX - HEADERS_BYTES + 1)),
    ],
)
def test_a_field_out_of_range_is_the_callers_bug(packet: UdpPacket) -> None:
    with pytest.raises(UsageError):
        build_udp(packet)


def test_an_echo_out_of_range_is_the_callers_bug() -> None:
    with pytest.raises(UsageError):
        build_echo(EchoPacket(ADDRESS_A, ADDRESS_B, 0, False, 70_000, 0, b""))


def test_the_longest_packet_fits_exactly() -> None:
    packet = UdpPacket(ADDRESS_A, ADDRESS_B, 0, 1, 2, bytes(INNER_BYTES_MAX - HEADERS_BYTES))
    assert len(build_udp(packet)) == INNER_BYTES_MAX
    assert parse(build_udp(packet)) == packet


def tcp_packet(flags: int, payload: bytes = b"", tag: int = 0) -> bytes:
    tcp = pack(">HHIIBBHHH", 50_000, 4432, 1000, 2000, 0x50, flags, 100, 0, 0) + payload
    return pack(">IHBB16s16s", 6 << 28 | tag << 22, len(tcp), 6, 64, ADDRESS_A, ADDRESS_B) + tcp


@pytest.mark.parametrize(
    ("packet", "sequence", "acknowledged", "flags"),
    [
        (tcp_packet(0x02), 0, 1001, 0x14),  # A SYN counts as one byte.
        (tcp_packet(0x01, b"end"), 0, 1004, 0x14),
        (tcp_packet(0x18, b"data"), 2000, 0, 0x04),
    ],
)
def test_tcp_is_answered_with_a_reset_where_nothing_speaks_it(
    packet: bytes, sequence: int, acknowledged: int, flags: int
) -> None:
    reset = reset_for(packet)
    assert reset is not None
    assert (reset[8:24], reset[24:40], len(reset)) == (ADDRESS_B, ADDRESS_A, 60)
    assert unpack(">HHIIBB", reset[40:54]) == (4432, 50_000, sequence, acknowledged, 0x50, flags)
    pseudo = reset[8:40] + pack(">IHBB", 20, 0, 0, 6)
    assert internet_checksum(pseudo + reset[40:]) == 0


@pytest.mark.parametrize("packet", [b"", tcp_packet(0x04), tcp_packet(0x02)[:-1], b"\x40" + tcp_packet(0x02)[1:]])
def test_a_reset_and_what_is_no_tcp_are_not_answered(packet: bytes) -> None:
    assert reset_for(packet) is None
