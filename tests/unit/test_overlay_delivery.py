# SPDX-License-Identifier: Apache-2.0
"""Whether a path carries data: counts of both ends in, a verdict out."""

from itertools import accumulate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.overlay.delivery import (
    CONDEMNED_NS,
    CONDEMNED_NS_MAX,
    LOST_MIN,
    PENDING_MAX,
    REFORMED_PACKETS,
    SPAN_NS,
    SPAN_PACKETS_MIN,
    Delivery,
    Probed,
)

PACE_NS = 50 * MILLISECOND_NS
ALLOWANCE_NS = 25 * MILLISECOND_NS
MODULUS = 1 << 32


class Flow:
    """Reports of one path at a steady pace."""

    def __init__(self, *, sent: int = 0, seen: int = 0) -> None:
        self.delivery, self.now_ns, self.sent, self.seen = Delivery(), SECOND_NS, sent, seen
        self.step(0, 0)

    def step(self, sent: int, seen: int, allowance_ns: int = ALLOWANCE_NS, probes_lost: int = 0) -> bool:
        self.now_ns += PACE_NS
        probed = Probed(allowance_ns, probes_lost, probes_lost)
        self.sent, self.seen = (self.sent + sent) % MODULUS, (self.seen + seen) % MODULUS
        return self.delivery.report(self.sent, self.seen, probed, self.now_ns)

    @property
    def condemned(self) -> bool:
        return self.now_ns < self.delivery.until_ns

    def condemn(self) -> None:
        while not self.step(10, 0):
            assert not self.condemned

    def carry(self, packets: int) -> None:
        for _ in range(packets // 16 + 1):
            self.step(16, 16)


def test_a_path_that_loses_all_data_is_condemned_by_the_first_few() -> None:
    flow = Flow()
    assert [flow.step(1, 0) for _ in range(LOST_MIN + 1)] == [False] * LOST_MIN + [True]
    assert flow.condemned
    assert flow.delivery.lost_share == 10_000


def test_numbers_may_wrap_and_begin_anywhere() -> None:
    flow = Flow(sent=MODULUS - 2, seen=MODULUS - 9)
    assert [flow.step(1, 0) for _ in range(LOST_MIN + 1)] == [False] * LOST_MIN + [True]


def test_what_was_lost_before_the_first_report_counts_for_nothing() -> None:
    flow = Flow(sent=10_000, seen=5_000)
    for _ in range(100):
        assert not flow.step(5, 5)
    assert not flow.condemned


@pytest.mark.parametrize(("percent", "condemned"), [(2, False), (10, True), (50, True), (100, True)])
def test_by_share_of_loss(percent: int, condemned: bool) -> None:
    random, flow = Random(percent), Flow()
    for _ in range(200):
        flow.step(10, sum(random.randrange(100) >= percent for _ in range(10)))
    assert flow.condemned is condemned


@pytest.mark.parametrize("percent", [10, 30, 60])
def test_a_path_that_loses_probes_as_well_is_left_to_the_probes(percent: int) -> None:
    random, flow = Random(percent), Flow()
    for _ in range(400):
        flow.step(10, sum(random.randrange(100) >= percent for _ in range(10)), probes_lost=percent * 100)
        assert not flow.condemned


def test_a_few_lost_probes_are_no_excuse() -> None:
    flow = Flow()
    assert any(flow.step(5, 0, probes_lost=800) for _ in range(5))


@given(delays=st.lists(st.integers(0, 3), min_size=50, max_size=400), burst=st.integers(1, 40))
def test_packets_that_overtake_each_other_condemn_nothing(delays: list[int], burst: int) -> None:
    """Each report's data arrive up to three reports late; the allowance covers that."""
    arrivals = [0] * (len(delays) + 4)
    for at, late in enumerate(delays):
        arrivals[at + late] += burst
    delivery = Delivery()
    for at, seen in enumerate(accumulate(arrivals[: len(delays)])):
        delivery.report((at + 1) * burst, seen, Probed(3 * PACE_NS, 0, 0), at * PACE_NS)
        assert delivery.until_ns == 0
        assert len(delivery.pending) <= PENDING_MAX


def test_the_end_of_a_fast_flow_is_no_loss() -> None:
    flow = Flow()
    flow.step(500, 0, 2 * PACE_NS)  # All on their way.
    assert not flow.step(0, 250, 2 * PACE_NS)
    assert not flow.step(0, 250, 2 * PACE_NS)
    for _ in range(100):
        assert not flow.step(0, 0, 2 * PACE_NS)


def test_an_end_that_began_anew_condemns_nothing() -> None:
    flow = Flow()
    flow.carry(100)
    for sent, seen in ((0, 0), (100, 100), (200, 100), (300, 0), (300, 100)):  # The sender, both, the receiver.
        flow.sent, flow.seen = sent, seen
        assert not flow.step(0, 0)
        assert not flow.condemned


def test_each_time_it_lasts_longer_up_to_an_hour() -> None:
    flow = Flow()
    lasted: list[int] = []
    for _ in range(10):
        flow.condemn()
        lasted.append(flow.delivery.until_ns - flow.now_ns)
        flow.now_ns = flow.delivery.until_ns
    assert lasted[:3] == [CONDEMNED_NS, 2 * CONDEMNED_NS, 4 * CONDEMNED_NS]
    assert lasted[-1] == CONDEMNED_NS_MAX


def test_while_it_goes_on_losing_nothing_is_news_and_no_failure_is_added() -> None:
    flow = Flow()
    flow.condemn()
    assert not any(flow.step(10, 0) for _ in range(100))
    assert flow.condemned
    assert flow.delivery.failures == 1


def test_data_that_get_through_acquit() -> None:
    flow = Flow()
    flow.condemn()
    news = [flow.step(SPAN_PACKETS_MIN, SPAN_PACKETS_MIN) for _ in range(SPAN_NS // PACE_NS + 2)]
    assert news.count(True) == 1
    assert not flow.condemned
    assert flow.delivery.failures == 1


def test_long_service_makes_up_for_failures() -> None:
    flow = Flow()
    for _ in range(3):
        flow.condemn()
        flow.now_ns = flow.delivery.until_ns
    flow.carry(2 * REFORMED_PACKETS)
    assert flow.delivery.failures == 0
