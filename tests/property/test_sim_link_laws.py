# SPDX-License-Identifier: Apache-2.0
"""Laws of links that hold for any behaviour and any traffic."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.sim.clock import NodeClock
from atoll.sim.link import WHOLE, Burst, Jitter, Link, LinkSpec

SHARES = st.integers(0, WHOLE)
TIMES = st.integers(0, 10 * SECOND_NS)
BURSTS = st.builds(
    Burst,
    good_ns=st.integers(10 * MILLISECOND_NS, SECOND_NS),
    bad_ns=st.integers(10 * MILLISECOND_NS, SECOND_NS),
    loss_good=SHARES,
    loss_bad=SHARES,
    seed=st.integers(0, 9),
)


@st.composite
def specs(draw: st.DrawFn, *, reorders: bool = True) -> LinkSpec:
    jitter = draw(st.sampled_from(Jitter))
    series = sorted(draw(st.lists(st.tuples(TIMES, st.integers(0, SECOND_NS)), max_size=4)))
    return LinkSpec(
        delay_ns=draw(st.integers(0, SECOND_NS)),
        series=tuple(series),
        jitter_ns=0 if jitter is Jitter.NONE else draw(st.integers(1, SECOND_NS)),
        jitter=jitter,
        loss=draw(SHARES),
        burst=draw(st.none() | BURSTS),
        rate_bytes_s=draw(st.just(0) | st.integers(100, 10_000_000)),
        queue_bytes=draw(st.integers(0, 100_000)),
        blackhole=draw(st.integers(0, 9)) == 0,
        duplicate=draw(SHARES),
        reorder=draw(SHARES) if reorders else 0,
        corrupt=draw(SHARES),
    )


TRAFFIC = st.lists(st.tuples(st.integers(1, 1500), st.integers(0, 50 * MILLISECOND_NS)), max_size=60)
Steps = list[tuple[int, int, tuple[int, ...], int]]


def offers(link: Link, traffic: list[tuple[int, int]]) -> Steps:
    """Return (size, sent, arrivals, least delay) of each datagram; gaps between sendings add up."""
    now_ns, steps = 0, Steps()
    for size_bytes, gap_ns in traffic:
        now_ns += gap_ns
        arrivals = link.offer(size_bytes, now_ns)
        steps.append((size_bytes, now_ns, arrivals, link.delay_ns))
    return steps


@given(specs(), st.lists(specs(), max_size=3), TRAFFIC, st.integers())
def test_nothing_arrives_before_the_delay_and_at_most_twice(
    base: LinkSpec, faults: list[LinkSpec], traffic: list[tuple[int, int]], seed: int
) -> None:
    link = Link(base, Random(seed))
    for number, fault in enumerate(faults):
        link.impair(str(number), fault)
    for _, sent_ns, arrivals, delay_ns in offers(link, traffic):
        assert len(arrivals) <= 2
        assert list(arrivals) == sorted(arrivals)
        assert all(at_ns >= sent_ns + delay_ns for at_ns in arrivals)
        assert not (link.blackholed and arrivals)


@given(specs(reorders=False), TRAFFIC, st.integers())
def test_a_link_that_does_not_reorder_is_first_in_first_out(
    spec: LinkSpec, traffic: list[tuple[int, int]], seed: int
) -> None:
    firsts = [arrivals[0] for _, _, arrivals, _ in offers(Link(spec, Random(seed)), traffic) if arrivals]
    assert firsts == sorted(firsts)


@given(specs(), TRAFFIC, st.integers())
def test_equal_seeds_make_equal_links(spec: LinkSpec, traffic: list[tuple[int, int]], seed: int) -> None:
    assert offers(Link(spec, Random(seed)), traffic) == offers(Link(spec, Random(seed)), traffic)


@given(st.lists(specs(), min_size=1, max_size=4), TRAFFIC, st.integers(), st.randoms(use_true_random=False))
def test_mending_everything_in_any_order_leaves_the_base(
    faults: list[LinkSpec], traffic: list[tuple[int, int]], seed: int, order: Random
) -> None:
    link, untouched = Link(LinkSpec(delay_ns=5), Random(seed)), Link(LinkSpec(delay_ns=5), Random(seed))
    keys = [str(number) for number in range(len(faults))]
    for key, fault in zip(keys, faults, strict=True):
        link.impair(key, fault)
    order.shuffle(keys)
    for key in keys:
        link.mend(key)
    assert offers(link, traffic) == offers(untouched, traffic)


@given(st.integers(100, 100_000), st.integers(100, 20_000), TRAFFIC)
def test_a_rate_is_never_exceeded_and_its_queue_never_overrun(
    rate_bytes_s: int, queue_bytes: int, traffic: list[tuple[int, int]]
) -> None:
    link = Link(LinkSpec(rate_bytes_s=rate_bytes_s, queue_bytes=queue_bytes), Random(0))
    free_ns = 0
    for size_bytes, sent_ns, arrivals, _ in offers(link, traffic):
        waiting_ns = max(0, free_ns - sent_ns)
        if not arrivals:
            assert -(-waiting_ns * rate_bytes_s // SECOND_NS) + size_bytes > queue_bytes
            continue
        assert arrivals[0] - max(free_ns, sent_ns) == size_bytes * SECOND_NS // rate_bytes_s
        assert arrivals[0] - sent_ns <= queue_bytes * SECOND_NS // rate_bytes_s
        free_ns = arrivals[0]


@given(SHARES, SHARES, st.integers(0, 1 << 32))
def test_loss_over_many_packets_is_within_five_deviations(base: int, fault: int, seed: int) -> None:
    link, count = Link(LinkSpec(loss=base), Random(seed)), 2000
    link.impair("fault", LinkSpec(loss=fault))
    share = 1 - (1 - base / WHOLE) * (1 - fault / WHOLE)
    lost = sum(not link.offer(1, at) for at in range(count))
    deviation = (count * share * (1 - share)) ** 0.5
    assert abs(lost - count * share) <= 5 * deviation + 1


@given(
    st.lists(st.tuples(st.integers(0, 10 * SECOND_NS), st.integers(-10_000, 10_000)), max_size=10),
    st.integers(0, 1 << 50),
    st.integers(0, 10 * SECOND_NS),
)
def test_clocks_never_go_back_and_deadlines_are_never_early(
    changes: list[tuple[int, int]], start_ns: int, ahead_ns: int
) -> None:
    now = [0]
    clock = NodeClock(lambda: now[0], start_ns)
    for later_ns, drift_ppm in changes:
        before_ns = clock.monotonic_ns()
        now[0] += later_ns
        assert clock.monotonic_ns() >= before_ns
        clock.set_drift(drift_ppm)
        wanted_ns = clock.monotonic_ns() + ahead_ns
        at_ns = clock.world_at(wanted_ns)
        assert at_ns >= now[0]
        assert clock.monotonic_at(at_ns) >= wanted_ns
        assert at_ns == now[0] or clock.monotonic_at(at_ns - 1) < wanted_ns
