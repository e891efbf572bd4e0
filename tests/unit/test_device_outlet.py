# SPDX-License-Identifier: Apache-2.0
"""What leaves together, and that nothing else changes by that."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.base.ids import Endpoint
from atoll.device.nic.outlet import gathered
from atoll.host.udp import BURST_BYTES_MAX, BURST_DATAGRAMS_MAX

ONE: Endpoint = ("10.0.0.1", 1)
OTHER: Endpoint = ("10.0.0.2", 1)


def test_datagrams_of_one_length_to_one_endpoint_leave_together() -> None:
    outbox = [(ONE, b"aa"), (ONE, b"bb"), (OTHER, b"cc"), (OTHER, b"d"), (ONE, b"ee")]
    assert list(gathered(outbox)) == [(ONE, b"aabb", 2), (OTHER, b"cc", 2), (OTHER, b"d", 1), (ONE, b"ee", 2)]


def test_no_more_than_one_burst_takes() -> None:
    assert [len(data) for _, data, _ in gathered([(ONE, b"x")] * 100)] == [
        BURST_DATAGRAMS_MAX,
        100 - BURST_DATAGRAMS_MAX,
    ]
    large = bytes(30_000)
    assert [len(data) // 30_000 for _, data, _ in gathered([(ONE, large)] * 5)] == [BURST_BYTES_MAX // 30_000, 2, 1]


@given(st.lists(st.tuples(st.sampled_from((ONE, OTHER)), st.binary(min_size=1, max_size=3)), max_size=200))
def test_every_datagram_goes_where_it_was_to_in_its_order(outbox: list[tuple[Endpoint, bytes]]) -> None:
    cut = [(to, data[at : at + size]) for to, data, size in gathered(outbox) for at in range(0, len(data), size)]
    assert cut == outbox
