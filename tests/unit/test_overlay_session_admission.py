# SPDX-License-Identifier: Apache-2.0
"""Rates, and the bounded memory of sources."""

from atoll.base.units import SECOND_NS
from atoll.overlay.session.admission import Allowance, HandshakeLoad, SourceAllowances, network_of
from atoll.overlay.session.limits import (
    HANDSHAKES_PER_S_MAX,
    HANDSHAKES_PER_SOURCE_BURST,
    HANDSHAKES_PER_SOURCE_PER_S,
    SOURCE_BYTES_MAX,
    SOURCES_MAX,
)


def source(number: int) -> bytes:
    return number.to_bytes(4, "big") + b"\x12\x34"


def test_a_burst_then_the_rate() -> None:
    allowance = Allowance(per_s=10, burst=3)
    assert [allowance.take(0) for _ in range(5)] == [True, True, True, False, False]
    assert not allowance.is_full(SECOND_NS // 10)
    assert [allowance.take(SECOND_NS // 10) for _ in range(2)] == [True, False]
    assert allowance.is_full(SECOND_NS)
    assert [allowance.take(SECOND_NS) for _ in range(4)] == [True, True, True, False]


def test_over_a_long_flood_the_rate_holds() -> None:
    allowance = Allowance(per_s=20, burst=5)
    taken = sum(allowance.take(now_ns) for now_ns in range(0, 10 * SECOND_NS, SECOND_NS // 1000))
    assert taken in range(200, 206)


def test_each_source_has_its_own_allowance() -> None:
    sources = SourceAllowances()
    assert [sources.take(source(1), 0) for _ in range(7)].count(True) == HANDSHAKES_PER_SOURCE_BURST
    assert sources.take(source(2), 0)
    assert len(sources) == 2


def test_the_table_is_bounded_and_forgets_the_longest_silent() -> None:
    sources = SourceAllowances()
    assert all(sources.take(source(number), 0) for number in range(SOURCES_MAX))
    assert not sources.take(source(SOURCES_MAX), 1)  # Nobody is silent long enough.
    assert sources.take(source(0), 2)  # Those who are in stay in.
    later = 2 * SECOND_NS // HANDSHAKES_PER_SOURCE_PER_S
    assert sources.take(source(SOURCES_MAX), later)
    assert len(sources) == SOURCES_MAX
    assert sources.take(source(0), later)  # It was used later than source 1, so 1 had to go.


def test_a_sender_cannot_multiply_itself_by_ports_or_by_its_own_network() -> None:
    assert network_of(bytes([10, 0, 0, 1, 7, 7])) == bytes([10, 0, 0, 1])
    ipv6 = bytes.fromhex("20010db8000000010000000000000001")
    assert network_of(ipv6 + b"\0\1") == network_of(ipv6[:8] + bytes(8) + b"\x09\x09") == ipv6[:8]
    mapped = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])
    assert network_of(mapped + b"\0\1") == mapped
    assert network_of(b"") == b""
    assert len(network_of(bytes(1000))) == SOURCE_BYTES_MAX


def test_many_initiations_are_a_load_until_the_end_of_the_next_period() -> None:
    load = HandshakeLoad()
    for _ in range(HANDSHAKES_PER_S_MAX):
        load.note(SECOND_NS)
    assert not load.is_high(SECOND_NS)
    load.note(SECOND_NS)
    assert load.is_high(2 * SECOND_NS - 1)
    load.note(2 * SECOND_NS)
    assert not load.is_high(2 * SECOND_NS)
