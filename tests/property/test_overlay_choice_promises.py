# SPDX-License-Identifier: Apache-2.0
"""Promises of path choice that must hold for any candidates."""

from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.units import SECOND_NS
from atoll.overlay.choice import HOLD_NS, WILL_NEVER, WILL_YES, Candidate, Incumbent, PathState, decide
from atoll.overlay.estimate import RTT_US_MAX, Latency
from atoll.overlay.policy import Metric, Rule

RELAYS = [bytes([number]) * 10 for number in range(1, 7)]
RULES = st.builds(
    Rule, st.sampled_from(Metric), st.booleans(), st.lists(st.sampled_from(RELAYS), max_size=2).map(tuple)
)
LOSSES = st.one_of(st.just(0), st.integers(0, 10_000))
KEYS = st.binary(max_size=24)
TIMES = st.integers(0, 1_000 * SECOND_NS)


def candidates_of(via: bytes) -> st.SearchStrategy[Candidate]:
    return st.builds(
        Candidate,
        st.just(via),
        st.integers(0, 3),
        st.one_of(st.integers(0, 500_000), st.integers(0, RTT_US_MAX)),
        st.integers(0, 100_000),
        LOSSES,
        LOSSES,
        st.integers(0, 255) if via else st.just(0),
        st.integers(0, 2) if via else st.just(2),
    )


GROUPS = st.lists(st.sampled_from(RELAYS), unique=True, max_size=6).flatmap(
    lambda relays: st.tuples(candidates_of(b""), *(candidates_of(relay) for relay in relays))
)
INCUMBENTS = st.none() | st.builds(
    Incumbent, st.sampled_from([b"", *RELAYS]), TIMES, TIMES, st.integers(-1, 1_000 * SECOND_NS), st.integers(0, 10**9)
)


def usable(candidate: Candidate, rule: Rule) -> bool:
    return (
        candidate.state == PathState.OK
        and candidate.rtt_us > 0
        and rule.allows(candidate.via)
        and (not candidate.via or candidate.will != WILL_NEVER)
    )


@given(incumbent=INCUMBENTS, group=GROUPS, rule=RULES, key=KEYS, now_ns=TIMES)
def test_never_failed_nor_excluded_while_an_ok_way_exists(
    incumbent: Incumbent | None, group: tuple[Candidate, ...], rule: Rule, key: bytes, now_ns: int
) -> None:
    decision = decide(incumbent, group, rule, key, now_ns)
    by_via = {candidate.via: candidate for candidate in group}
    if any(usable(candidate, rule) for candidate in group):
        taken = by_via[decision.via]
        assert taken.state != PathState.FAILED
        assert rule.allows(taken.via)
        assert not taken.via or taken.will != WILL_NEVER
    assert rule.allows(decision.via)
    assert (decision.cause == "keep") == (incumbent is not None and decision.via == incumbent.via)
    assert [ranked.verdict for ranked in decision.ranked].count("chosen") <= 1


@given(incumbent=INCUMBENTS, group=GROUPS, rule=RULES, key=KEYS, now_ns=TIMES, seed=st.integers(0, 2**32))
def test_the_order_of_candidates_does_not_matter(
    incumbent: Incumbent | None, group: tuple[Candidate, ...], rule: Rule, key: bytes, now_ns: int, seed: int
) -> None:
    shuffled = list(group)
    Random(seed).shuffle(shuffled)
    before = msgspec.msgpack.encode(incumbent)
    assert decide(incumbent, group, rule, key, now_ns) == decide(incumbent, shuffled, rule, key, now_ns)
    assert msgspec.msgpack.encode(incumbent) == before, "decide remembers nothing"


@given(
    data=st.data(),
    metric=st.sampled_from(Metric),
    lossy_first=st.booleans(),
    incumbent=INCUMBENTS,
    key=KEYS,
    now_ns=TIMES,
)
def test_never_a_lossy_way_over_a_clean_one_30_ms_longer(
    data: st.DataObject, metric: Metric, *, lossy_first: bool, incumbent: Incumbent | None, key: bytes, now_ns: int
) -> None:
    rtt_us = data.draw(st.integers(1, 5_000_000))
    longer_us = data.draw(st.integers(0, 30_000))
    worse, less = data.draw(st.integers(3_000, 10_000)), data.draw(LOSSES)
    loss_out, loss_in = data.draw(st.sampled_from([(worse, less), (less, worse)]))
    deviations = st.integers(0, 1_000_000)
    lossy_via, clean_via = (
        (b"", RELAYS[0]) if lossy_first else (RELAYS[0], data.draw(st.sampled_from([b"", RELAYS[1]])))
    )
    lossy = Candidate(lossy_via, 0, rtt_us, data.draw(deviations), loss_out, loss_in)
    load = data.draw(st.integers(0, 254)) if clean_via else 0
    clean = Candidate(clean_via, 0, rtt_us + longer_us, data.draw(deviations), 0, 0, load, WILL_YES)
    assert decide(incumbent, [lossy, clean], Rule(metric), key, now_ns).via == clean_via


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), metric=st.sampled_from(Metric), jitter=st.integers(0, 20))
def test_noise_alone_moves_a_pair_at_most_away_and_back(seed: int, metric: Metric, jitter: int) -> None:
    """Equal paths, noise of up to 20 % of the round trip, 20 minutes of seconds, the product's own estimator."""
    rng, rule = Random(seed), Rule(metric)
    estimates = {via: Latency() for via in [b"", *RELAYS[:3]]}
    incumbent, switches = Incumbent(b"", 0), 0
    for second in range(1, 1_200):
        now_ns = second * SECOND_NS
        for estimate in estimates.values():
            estimate.add(round(rng.gauss(50_000, 500 * jitter)), now_ns)
        if second % 10 == 0:
            group = [Candidate(via, 0, one.predicted_us, one.deviation_us, 0, 0) for via, one in estimates.items()]
            incumbent.watch(group, rule, now_ns)
            switches += incumbent.take(decide(incumbent, group, rule, b"pair", now_ns), now_ns)
    assert switches <= 2  # Without hysteresis it is up to 19, one a minute.


@settings(max_examples=40, deadline=None)
@given(groups=st.lists(GROUPS, min_size=2, max_size=8), rule=RULES, key=KEYS)
def test_at_most_one_switch_a_minute_unless_the_way_fails(
    groups: list[tuple[Candidate, ...]], rule: Rule, key: bytes
) -> None:
    incumbent, switched_ns = Incumbent(b"", 0), -HOLD_NS
    for step, group in enumerate(groups):
        now_ns = step * 11 * SECOND_NS
        incumbent.watch(group, rule, now_ns)
        decision = decide(incumbent, group, rule, key, now_ns)
        if incumbent.take(decision, now_ns):
            if decision.cause in {"better", "slow", "recovered"}:
                assert now_ns - switched_ns >= HOLD_NS
            switched_ns = now_ns
