# SPDX-License-Identifier: Apache-2.0
"""Links: each kind of behaviour by itself, and how impairments combine."""

from itertools import pairwise
from random import Random

import pytest

from atoll.base.errors import UsageError
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.sim.link import CLEAR, WHOLE, Burst, Jitter, Link, LinkSpec

MS = MILLISECOND_NS


def link_of(spec: LinkSpec, seed: int = 1) -> Link:
    return Link(spec, Random(seed))


def share_lost(link: Link, count: int = 20_000, gap_ns: int = MS) -> float:
    return sum(not link.offer(100, at * gap_ns) for at in range(count)) / count


def test_a_clear_link_only_delays() -> None:
    link = link_of(LinkSpec(delay_ns=5 * MS))
    assert [link.offer(100, at) for at in (0, 7, 7)] == [(5 * MS,), (5 * MS + 7,), (5 * MS + 7,)]
    assert link.delay_ns == 5 * MS


def test_a_series_replaces_the_delay_from_its_first_entry_on() -> None:
    link = link_of(LinkSpec(delay_ns=1 * MS, series=((SECOND_NS, 30 * MS), (2 * SECOND_NS, 10 * MS))))
    times = [0, SECOND_NS - 1, SECOND_NS, 2 * SECOND_NS - 1, 2 * SECOND_NS + 25 * MS]
    assert [link.offer(1, at)[0] - at for at in times] == [1 * MS, 1 * MS, 30 * MS, 30 * MS, 10 * MS]
    assert link_of(LinkSpec(delay_ns=9 * MS, series=((0, 2 * MS),))).offer(1, 0) == (2 * MS,)


def test_a_delay_that_falls_does_not_let_datagrams_overtake() -> None:
    link = link_of(LinkSpec(series=((0, 30 * MS), (10 * MS, 5 * MS))))
    assert link.offer(1, 9 * MS) == (39 * MS,)
    assert link.offer(1, 11 * MS) == (39 * MS,)
    plain = link_of(CLEAR)
    plain.impair("slow", LinkSpec(delay_ns=50 * MS))
    assert plain.offer(1, 0) == (50 * MS,)
    plain.mend("slow")
    assert plain.offer(1, 10 * MS) == (50 * MS,)


@pytest.mark.parametrize("jitter", [Jitter.UNIFORM, Jitter.BELL, Jitter.HEAVY])
def test_jitter_has_its_mean_and_never_undercuts_the_delay(jitter: Jitter) -> None:
    link = link_of(LinkSpec(delay_ns=20 * MS, jitter_ns=4 * MS, jitter=jitter))
    extra = [link.offer(1, at * SECOND_NS)[0] - at * SECOND_NS - 20 * MS for at in range(20_000)]
    assert min(extra) >= 0
    assert sum(extra) / len(extra) == pytest.approx(4 * MS, rel=0.05)
    if jitter is Jitter.HEAVY:
        assert max(extra) > 10 * 4 * MS
    else:
        assert max(extra) <= 2 * 4 * MS


def test_chance_loss_is_as_stated_and_layers_combine() -> None:
    link = link_of(LinkSpec(loss=1000))
    assert share_lost(link) == pytest.approx(0.10, abs=0.01)
    link.impair("more", LinkSpec(loss=5000))
    assert link.loss == pytest.approx(5500, abs=1)
    link = link_of(LinkSpec(loss=1000))
    link.impair("more", LinkSpec(loss=5000))
    assert share_lost(link) == pytest.approx(0.55, abs=0.015)
    assert share_lost(link_of(LinkSpec(loss=WHOLE))) == 1
    assert share_lost(link_of(CLEAR)) == 0


def test_bursts_lose_in_runs_and_by_the_share_of_bad_time() -> None:
    burst = Burst(good_ns=900 * MS, bad_ns=100 * MS, seed=3)
    link = link_of(LinkSpec(burst=burst))
    arrived = [bool(link.offer(1, at * MS)) for at in range(400_000)]
    assert arrived.count(False) / len(arrived) == pytest.approx(0.10, abs=0.03)
    runs = sum(1 for before, after in pairwise(arrived) if before and not after)
    assert arrived.count(False) / runs > 50  # Independent loss would give runs of about 1.1.


def test_bursts_of_one_seed_strike_all_their_links_at_once_whatever_the_traffic() -> None:
    spec = LinkSpec(burst=Burst(good_ns=50 * MS, bad_ns=50 * MS, seed=9))
    busy, sparse = link_of(spec, seed=1), link_of(spec, seed=2)
    seen = {at: bool(busy.offer(1, at * MS)) for at in range(10_000)}
    assert all(bool(sparse.offer(1, at * MS)) == seen[at] for at in range(0, 10_000, 97))
    other = link_of(LinkSpec(burst=Burst(good_ns=50 * MS, bad_ns=50 * MS, seed=10)))
    assert any(bool(other.offer(1, at * MS)) != seen[at] for at in range(10_000))


def test_bursts_begin_in_the_good_state_at_their_onset() -> None:
    link = link_of(CLEAR)
    link.impair("burst", LinkSpec(burst=Burst(good_ns=SECOND_NS, bad_ns=SECOND_NS, seed=1, since_ns=500 * SECOND_NS)))
    assert link.offer(1, 500 * SECOND_NS - 1)
    assert any(not link.offer(1, 500 * SECOND_NS + at * 100 * MS) for at in range(100))


def test_partial_loss_within_bursts() -> None:
    link = link_of(LinkSpec(burst=Burst(good_ns=100 * MS, bad_ns=100 * MS, loss_good=1000, loss_bad=5000)))
    assert share_lost(link, count=100_000) == pytest.approx(0.3, abs=0.05)


def test_another_fault_on_the_link_does_not_restart_the_bursts() -> None:
    spec = LinkSpec(burst=Burst(good_ns=20 * MS, bad_ns=20 * MS, seed=4))
    quiet, disturbed = link_of(spec), link_of(spec)
    before = [bool(quiet.offer(1, at * MS)) for at in range(500)]
    after: list[bool] = []
    for at in range(500):
        if at == 250:
            disturbed.impair("slow", LinkSpec(delay_ns=MS))
        after.append(bool(disturbed.offer(1, at * MS)))
    assert before == after


def test_a_replaced_impairment_forgets_its_bursts() -> None:
    link = link_of(CLEAR)
    link.impair("bursts", LinkSpec(burst=Burst(good_ns=20 * MS, bad_ns=20 * MS)))
    assert not all(link.offer(1, at * MS) for at in range(1000))
    link.impair("bursts", LinkSpec(burst=Burst(good_ns=20 * MS, bad_ns=20 * MS, loss_bad=0)))
    assert all(link.offer(1, at * MS) for at in range(1000, 2000))


def test_a_rate_spaces_datagrams_and_its_queue_is_bounded() -> None:
    link = link_of(LinkSpec(delay_ns=MS, rate_bytes_s=1000, queue_bytes=300))
    assert [link.offer(100, 0) for _ in range(4)] == [
        (101 * MS,),
        (201 * MS,),
        (301 * MS,),
        (),
    ]
    assert link.offer(100, 100 * MS) == (401 * MS,)  # One has left the queue.
    assert link.offer(100, 10 * SECOND_NS) == (10 * SECOND_NS + 101 * MS,)


def test_the_narrowest_rate_counts() -> None:
    link = link_of(LinkSpec(rate_bytes_s=10_000))
    link.impair("narrow", LinkSpec(rate_bytes_s=1000, queue_bytes=100))
    link.impair("wide", LinkSpec(rate_bytes_s=50_000))
    assert link.offer(100, 0) == (100 * MS,)
    assert link.offer(100, 0) == ()


def test_a_blackhole_swallows_everything_until_mended() -> None:
    link = link_of(CLEAR)
    link.impair("a", LinkSpec(blackhole=True))
    link.impair("b", LinkSpec(blackhole=True))
    assert link.offer(1, 0) == ()
    assert link.blackholed
    link.mend("a")
    assert link.offer(1, 1) == ()
    link.mend("b")
    link.mend("b")
    assert link.offer(1, 2) == (2,)
    assert not link.blackholed


def test_mending_all_brings_the_base_back() -> None:
    link = link_of(LinkSpec(delay_ns=MS, loss=0))
    link.impair("a", LinkSpec(delay_ns=5 * MS, corrupt=WHOLE))
    assert list(link.impairments) == ["a"]
    assert link.delay_ns == 6 * MS
    assert link.corrupts
    link.mend_all()
    assert (link.impairments, link.delay_ns, link.corrupts) == ({}, MS, False)
    assert link.base.delay_ns == MS


def test_duplicates_come_twice_and_not_before_the_first() -> None:
    link = link_of(LinkSpec(delay_ns=MS, duplicate=WHOLE))
    for at in range(100):
        first, second = link.offer(1, at * SECOND_NS)
        assert at * SECOND_NS + MS == first <= second


def test_reordered_datagrams_are_overtaken() -> None:
    link = link_of(LinkSpec(delay_ns=MS, reorder=3000))
    times = [link.offer(1, at * 100_000)[0] for at in range(1000)]
    assert times != sorted(times)
    assert all(time >= at * 100_000 + MS for at, time in enumerate(times))


def test_corruption_flips_up_to_three_bits_of_its_share() -> None:
    link = link_of(LinkSpec(corrupt=5000))
    datagram = bytes(range(100))
    copies = [link.corrupted(datagram) for _ in range(2000)]
    flipped = [int.from_bytes(copy, "big") ^ int.from_bytes(datagram, "big") for copy in copies]
    assert {bits.bit_count() for bits in flipped} <= {0, 1, 2, 3}
    assert sum(bits != 0 for bits in flipped) / 2000 == pytest.approx(0.5, abs=0.05)
    assert all(len(copy) == 100 for copy in copies)
    assert link.corrupted(b"") == b""
    assert link_of(CLEAR).corrupted(datagram) is datagram


@pytest.mark.parametrize(
    "build",
    [
        lambda: LinkSpec(loss=-1),
        lambda: LinkSpec(corrupt=WHOLE + 1),
        lambda: LinkSpec(delay_ns=-1),
        lambda: LinkSpec(jitter_ns=1),
        lambda: LinkSpec(jitter=Jitter.BELL),
        lambda: LinkSpec(series=((5, 1), (4, 1))),
        lambda: LinkSpec(series=((5, -1),)),
        lambda: Burst(good_ns=1, bad_ns=SECOND_NS),
        lambda: Burst(good_ns=SECOND_NS, bad_ns=SECOND_NS, loss_bad=WHOLE + 1),
    ],
)
def test_impossible_behaviour_is_refused(build: object) -> None:
    assert callable(build)
    with pytest.raises(UsageError):
        build()
