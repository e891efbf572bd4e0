# SPDX-License-Identifier: Apache-2.0
"""Bursts of datagrams through the real kernel, on loopback, with its offloads and without."""

import select
from collections.abc import Generator

import pytest

from atoll.base.ids import Endpoint
from atoll.host.udp import (
    BURST_BYTES_MAX,
    BURST_DATAGRAMS_MAX,
    DATAGRAM_BYTES_MAX,
    RECEIVE_BYTES,
    Sent,
    UdpSocket,
)

pytestmark = pytest.mark.process

WAIT_S = 5.0


@pytest.fixture(params=["127.0.0.1", "127.0.0.1 compiled", "::1", "::1 compiled"])
def pair(request: pytest.FixtureRequest) -> Generator[tuple[UdpSocket, UdpSocket]]:
    host, _, compiled = request.param.partition(" ")
    if compiled:
        request.getfixturevalue("compiled")
    one, two = (UdpSocket((host, 0), bursts=True, compiled=bool(compiled)) for _ in range(2))
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
    buffer = bytearray(DATAGRAM_BYTES_MAX)
    assert pair[0].receive_burst(buffer) is None
    assert pair[0].receive_first(memoryview(buffer)) is None


def test_the_first_of_a_turn_is_returned_if_it_is_alone(pair: tuple[UdpSocket, UdpSocket]) -> None:
    one, two = pair
    buffer = memoryview(bytearray(DATAGRAM_BYTES_MAX))
    for alone in (b"one", bytes(9000)):
        assert one.send(two.endpoint, alone) is Sent.OK
        assert select.select([two], [], [], WAIT_S)[0]
        assert two.receive_first(buffer) == (alone, len(alone), one.endpoint)
    assert one.send_burst(two.endpoint, memoryview(b"aabbc"), 2) is Sent.OK
    assert select.select([two], [], [], WAIT_S)[0]
    assert two.receive_first(buffer) == (5, 2, one.endpoint)
    assert bytes(buffer[:5]) == b"aabbc"


def came(udp: UdpSocket, reads: int = 1000) -> list[tuple[list[bytes], Endpoint]]:
    """Return what is there: the datagrams of each burst, and its source."""
    buffer = memoryview(bytearray(RECEIVE_BYTES))
    found: list[tuple[list[bytes], Endpoint]] = []
    for start, end, size, source in udp.receive_bursts(buffer, reads):
        assert 0 <= start <= end <= RECEIVE_BYTES
        assert end - start <= DATAGRAM_BYTES_MAX
        found.append(([bytes(buffer[at : min(at + size, end)]) for at in range(start, end, size)], source))
    return found


def test_what_comes_one_by_one_is_put_together_as_the_kernel_would(pair: tuple[UdpSocket, UdpSocket]) -> None:
    one, two = pair
    other = UdpSocket((one.endpoint[0], 0))
    try:
        for sender, data in (
            (one, b"aaa"),
            (one, b"bbb"),
            (one, b"c"),  # A shorter one is the last.
            (one, b"d"),
            (one, b"eee"),  # A longer one is another burst's,
            (other, b"fff"),  # and so is another's.
            (other, b"ggg"),
            (other, b""),
            (one, b"hhh"),
        ):
            assert sender.send(two.endpoint, data) is Sent.OK
        mine, others = one.endpoint, other.endpoint
        assert came(two) == [
            ([b"aaa", b"bbb", b"c"], mine),
            ([b"d"], mine),
            ([b"eee"], mine),
            ([b"fff", b"ggg"], others),
            ([], others),
            ([b"hhh"], mine),
        ]
    finally:
        other.close()


def test_bursts_of_the_kernel_are_left_as_they_are(pair: tuple[UdpSocket, UdpSocket]) -> None:
    one, two = pair
    data = numbered(40, 1456, 1456)
    assert one.send(two.endpoint, data[:1456]) is Sent.OK
    for _ in range(2):
        assert one.send_burst(two.endpoint, memoryview(data), 1456) is Sent.OK
    assert one.send(two.endpoint, b"end") is Sent.OK
    found = came(two)
    assert [sum(map(len, burst)) for burst, _ in found] == [1456, len(data), len(data), 3]
    assert b"".join(found[1][0]) == data


def test_no_burst_is_longer_than_the_kernels(pair: tuple[UdpSocket, UdpSocket]) -> None:
    one, two = pair
    sent = [bytes([number]) * 20_000 for number in range(7)]
    for data in sent:
        assert one.send(two.endpoint, data) is Sent.OK
    found = came(two)
    assert [len(burst) for burst, _ in found] == [3, 3, 1]
    assert [datagram for burst, _ in found for datagram in burst] == sent


def test_reads_are_counted_and_the_rest_is_there_afterwards(pair: tuple[UdpSocket, UdpSocket]) -> None:
    one, two = pair
    for number in range(5):
        assert one.send(two.endpoint, bytes([number])) is Sent.OK
    assert [burst for burst, _ in came(two, 3)] == [[b"\0", b"\1", b"\2"]]
    assert [burst for burst, _ in came(two, 1)] == [[b"\3"]]
    assert [burst for burst, _ in came(two)] == [[b"\4"]]
    assert came(two) == []


def test_what_cannot_be_sent_is_told(pair: tuple[UdpSocket, UdpSocket]) -> None:
    one, two = pair
    other_family = "::1" if two.endpoint[0] == "127.0.0.1" else "127.0.0.1"
    for host in (other_family, "255.255.255.255", "ff02::1%nowhere"):
        assert one.send((host, two.endpoint[1]), b"lost") is Sent.REFUSED, host
    assert one.send(two.endpoint, bytes(DATAGRAM_BYTES_MAX + 1)) is Sent.TOO_LONG
    assert one.send(two.endpoint, b"came") is Sent.OK
    assert datagrams(two, 1) == [(b"came", one.endpoint)]


def test_each_datagram_goes_where_it_is_to_go_and_tells_where_it_came_from(pair: tuple[UdpSocket, UdpSocket]) -> None:
    one, two = pair
    three = UdpSocket((one.endpoint[0], 0), bursts=True)
    try:
        for number in range(6):
            assert one.send((two, three)[number % 2].endpoint, bytes([number])) is Sent.OK
        assert [source for _, source in datagrams(two, 3) + datagrams(three, 3)] == [one.endpoint] * 6
        for sender in (two, three, three, two):
            assert sender.send(one.endpoint, b"back") is Sent.OK
        assert [source for _, source in datagrams(one, 4)] == [
            two.endpoint,
            three.endpoint,
            three.endpoint,
            two.endpoint,
        ]
    finally:
        three.close()
