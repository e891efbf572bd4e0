# SPDX-License-Identifier: Apache-2.0
"""Bursts of datagrams through the real kernel, on loopback, with its offloads and without."""

import select
from collections.abc import Generator

import pytest

from atoll.base.ids import Endpoint
from atoll.host.udp import BURST_BYTES_MAX, BURST_DATAGRAMS_MAX, DATAGRAM_BYTES_MAX, Sent, UdpSocket

pytestmark = pytest.mark.process

WAIT_S = 5.0


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Generator[tuple[UdpSocket, UdpSocket]]:
    one, two = (UdpSocket((request.param, 0), bursts=True) for _ in range(2))
    yield one, two
    one.close()
    two.close()


def datagrams(udp: UdpSocket, count: int) -> list[tuple[bytes, Endpoint]]:
    """Receive so many datagrams, cut where the kernel says."""
    found: list[tuple[bytes, Endpoint]] = []
    buffer = bytearray(DATAGRAM_BYTES_MAX)
    while len(found) < count:
        assert select.select([udp], [], [], WAIT_S)[0], f"{len(found)} of {count} came"
        while (burst := udp.receive_burst(buffer)) is not None:
            read, size, source = burst
            found += [(bytes(buffer[at : min(at + size, read)]), source) for at in range(0, read, size)]
    return found


def numbered(count: int, size: int, last: int) -> bytes:
    return b"".join(bytes([number]) * (last if number == count - 1 else size) for number in range(count))


@pytest.mark.parametrize(("count", "size", "last"), [(1, 1200, 7), (2, 1200, 1200), (44, 1456, 1), (64, 1000, 1000)])
@pytest.mark.parametrize("offload", [True, False])
def test_a_burst_arrives_as_the_datagrams_that_it_is(
    pair: tuple[UdpSocket, UdpSocket], count: int, size: int, last: int, offload: bool
) -> None:
    one, two = pair
    assert one.sends_bursts
    assert two.receives_bursts
    one.sends_bursts = offload
    data = numbered(count, size, last)
    assert one.send_burst(two.endpoint, memoryview(data), size) is Sent.OK
    found = datagrams(two, count)
    assert [datagram for datagram, _ in found] == [data[at : at + size] for at in range(0, len(data), size)]
    assert {source for _, source in found} == {one.endpoint}


def test_the_limits_are_the_kernels(pair: tuple[UdpSocket, UdpSocket]) -> None:
    one, two = pair
    size = BURST_BYTES_MAX // BURST_DATAGRAMS_MAX
    assert one.send_burst(two.endpoint, memoryview(bytes(size * BURST_DATAGRAMS_MAX)), size) is Sent.OK
    assert len(datagrams(two, BURST_DATAGRAMS_MAX)) == BURST_DATAGRAMS_MAX
    assert one.sends_bursts, "that was no reason to do without"
    assert one.send_burst(two.endpoint, memoryview(bytes(BURST_BYTES_MAX + 100)), 1400) is not Sent.OK


def test_single_datagrams_and_bursts_mix(pair: tuple[UdpSocket, UdpSocket]) -> None:
    one, two = pair
    assert one.send(two.endpoint, b"alone") is Sent.OK
    assert one.send_burst(two.endpoint, memoryview(b"aabbc"), 2) is Sent.OK
    assert one.send(two.endpoint, b"") is Sent.OK
    assert one.send(two.endpoint, b"end") is Sent.OK
    found = [datagram for datagram, _ in datagrams(two, 4)]
    assert found == [b"alone", b"aa", b"bb", b"c", b"end"], "an empty one is none"


def test_who_reads_single_datagrams_is_given_single_ones(pair: tuple[UdpSocket, UdpSocket]) -> None:
    with_bursts, _ = pair
    plain = UdpSocket((with_bursts.endpoint[0], 0))
    try:
        assert not plain.receives_bursts
        assert with_bursts.send_burst(plain.endpoint, memoryview(b"aabbc"), 2) is Sent.OK
        for wanted in (b"aa", b"bb", b"c"):
            assert select.select([plain], [], [], WAIT_S)[0]
            assert plain.receive() == (wanted, with_bursts.endpoint)
    finally:
        plain.close()


def test_nothing_there_is_nothing(pair: tuple[UdpSocket, UdpSocket]) -> None:
    assert pair[0].receive_burst(bytearray(DATAGRAM_BYTES_MAX)) is None
