# SPDX-License-Identifier: Apache-2.0
"""Path choice, rule by rule."""

import msgspec
import pytest

from atoll.base.units import SECOND_NS
from atoll.overlay.choice import (
    CLEAN_NS,
    EVEN_NS,
    HOLD_NS,
    LOAD_FULL,
    WILL_METERED,
    WILL_NEVER,
    Candidate,
    Decision,
    Incumbent,
    PathState,
    decide,
    direct,
    score_us,
    tcp_bits_s,
    through,
)
from atoll.overlay.messages import Link
from atoll.overlay.policy import Metric, Rule

R, S, T = b"relay-000R", b"relay-000S", b"relay-000T"
OK, SUSPECT, FAILED, UNKNOWN = PathState
LATENCY = Rule(Metric.LATENCY)
NOW_NS = 1_000 * SECOND_NS
KEY = b"pair"


def way(
    via: bytes = b"",
    rtt_ms: int = 50,
    loss: int = 0,
    state: PathState = OK,
    *,
    loss_in: int = 0,
    deviation_us: int = 0,
    load: int = 0,
    will: int = 2,
    slow: bool = False,
) -> Candidate:
    return Candidate(via, int(state), rtt_ms * 1_000, deviation_us, loss, loss_in, load, will, slow)


def used(via: bytes = b"", since_ns: int = 0, clean_ns: int = 0, even_ns: int = 0) -> Incumbent:
    return Incumbent(via, since_ns, since_ns, clean_ns, even_ns=even_ns)


def chosen(incumbent: Incumbent | None, *candidates: Candidate, rule: Rule = LATENCY) -> tuple[bytes, str]:
    decision = decide(incumbent, candidates, rule, KEY, NOW_NS)
    return decision.via, decision.cause


def verdicts(decision: Decision) -> dict[bytes, str]:
    return {ranked.candidate.via: ranked.verdict for ranked in decision.ranked}


# ---------------------------------------------------------------------- scores


def test_a_relayed_way_adds_up() -> None:
    first = Link(R, 10_000, 300, 100, 200, 0)
    second = Link(S, 20_000, 400, 1_000, 0, 1)
    assert through(first, second, 9, 1) == Candidate(R, 1, 30_000, 500, 1_090, 200, 9, 1)
    assert through(second, first, 9, 1).state == SUSPECT
    assert through(first, Link(S, 0, 0, 0, 0, 3), 0, 2).rtt_us == 0
    assert through(Link(R, 1, 0, 0, 0, 3), Link(S, 1, 0, 0, 0, 2), 0, 2).state == FAILED
    assert through(Link(R, 1, 0, 10_000, 0, 0), Link(S, 1, 0, 10_000, 0, 0), 0, 2).loss_out == 10_000
    assert direct(first) == Candidate(b"", 0, 10_000, 300, 100, 200, 0, 2)


def test_latency_score() -> None:
    assert score_us(way(rtt_ms=50), Metric.LATENCY) == 50_000
    assert score_us(way(rtt_ms=50, loss=3_000), Metric.LATENCY) == 350_000
    assert score_us(way(rtt_ms=50, loss_in=3_000), Metric.LATENCY) == 125_000
    assert score_us(way(R, 50, load=64), Metric.LATENCY) == 50_000
    assert score_us(way(R, 50, load=255), Metric.LATENCY) == 69_100


def test_the_loss_metric_puts_loss_first() -> None:
    assert score_us(way(rtt_ms=10, loss=100), Metric.LOSS) > score_us(way(rtt_ms=150), Metric.LOSS)
    assert score_us(way(rtt_ms=10), Metric.LOSS) < score_us(way(rtt_ms=11), Metric.LOSS)


def test_tcp_rate_follows_the_published_model() -> None:
    # sqrt(3/2) * segment / (rtt * sqrt(p)) at 1 %: 1.2247 * 9760 bit / (0.1 s * 0.1) = 1.195 Mbit/s, less time-outs.
    rate = tcp_bits_s(way(rtt_ms=100, loss=100))
    assert 1_080_000 < rate < 1_196_000
    assert tcp_bits_s(way(rtt_ms=0)) == 0
    assert tcp_bits_s(way(rtt_ms=100)) == tcp_bits_s(way(rtt_ms=100, loss=50)), "too small to be told from nothing"
    assert tcp_bits_s(way(rtt_ms=1, loss=3_000)) < tcp_bits_s(way(rtt_ms=31)) // 50
    assert tcp_bits_s(way(loss=10_000)) > 0
    slow, fast = way(rtt_ms=200), way(rtt_ms=20)
    assert score_us(slow, Metric.THROUGHPUT) > 9 * score_us(fast, Metric.THROUGHPUT)
    assert score_us(way(rtt_ms=0), Metric.THROUGHPUT) > score_us(way(rtt_ms=10_000, loss=9_000), Metric.THROUGHPUT)


# ---------------------------------------------------------------------- first choice, exclusion


def test_the_first_choice_takes_the_best() -> None:
    assert chosen(None, way(rtt_ms=90), way(R, 50)) == (R, "start")
    assert chosen(None, way(rtt_ms=50), way(R, 50)) == (b"", "start"), "direct among equals"


def test_without_candidates_it_is_direct() -> None:
    assert chosen(None) == (b"", "policy")
    assert chosen(used()) == (b"", "keep")
    assert chosen(used(R)) == (b"", "policy")


def test_forbidden_ways_are_not_used_even_when_nothing_else_works() -> None:
    no_relay, no_r = Rule(direct_only=True), Rule(forbidden=(R,))
    dead = way(state=FAILED)
    assert chosen(used(), dead, way(R), rule=no_relay) == (b"", "keep")
    assert chosen(used(), dead, way(R), rule=no_r) == (b"", "keep")
    assert chosen(used(R), way(), way(R, 1), rule=no_r) == (b"", "policy")
    decision = decide(None, [way(), way(R, 1)], no_r, KEY, NOW_NS)
    assert verdicts(decision) == {b"": "chosen", R: "forbidden"}


def test_a_member_that_will_not_relay_is_left() -> None:
    assert chosen(used(R), way(), way(R, 1, will=WILL_NEVER)) == (b"", "relay-gone")
    assert verdicts(decide(used(), [way(), way(R, 1, will=WILL_NEVER)], LATENCY, KEY, 0))[R] == "will not relay"


def test_metered_and_full_relays_only_when_nothing_else_will_do() -> None:
    for reserve in (way(R, 10, will=WILL_METERED), way(R, 10, load=LOAD_FULL)):
        assert chosen(used(), way(rtt_ms=300), reserve) == (b"", "keep")
        assert chosen(used(), way(state=FAILED), way(S, 300), reserve) == (S, "silent")
        assert chosen(used(), way(state=FAILED), way(S, 300, loss=4_000), reserve) == (R, "silent")
        assert chosen(used(), way(state=FAILED), reserve) == (R, "silent")
        assert chosen(used(R), way(S, 40), reserve) == (S, "better"), "left again when another will do"
        assert chosen(used(R, NOW_NS - HOLD_NS + 1), way(S, 40), reserve) == (R, "keep"), "but not at once"
        assert chosen(used(R), way(rtt_ms=40), reserve) == (b"", "recovered")


# ---------------------------------------------------------------------- urgent


@pytest.mark.parametrize("since_ns", [0, NOW_NS - 1])
def test_a_failed_way_is_left_at_once(since_ns: int) -> None:
    assert chosen(used(b"", since_ns), way(state=FAILED), way(R, 200)) == (R, "silent")
    assert chosen(used(R, since_ns), way(rtt_ms=200), way(R, 50, state=FAILED)) == (b"", "silent")
    assert chosen(used(b"", since_ns), way(state=FAILED), way(R, state=SUSPECT)) == (R, "silent")


def test_nobody_moves_when_everything_failed() -> None:
    assert chosen(used(R), way(rtt_ms=1, state=FAILED), way(R, 50, state=FAILED)) == (R, "keep")


def test_a_relay_of_which_nothing_is_heard_any_more_is_left() -> None:
    assert chosen(used(R, NOW_NS - 1), way(rtt_ms=200)) == (b"", "relay-gone")
    assert chosen(used(R, NOW_NS - 1), way(rtt_ms=200), way(R, state=UNKNOWN)) == (b"", "relay-gone")
    assert chosen(used(b"", NOW_NS - 1), way(state=UNKNOWN), way(R)) == (R, "start")


def test_loss_is_left_at_once_in_either_direction() -> None:
    since_ns = NOW_NS - 1
    assert chosen(used(b"", since_ns), way(loss=3_000), way(R, 80)) == (R, "lossy")
    assert chosen(used(b"", since_ns), way(loss_in=3_000), way(R, 80)) == (R, "lossy")
    assert chosen(used(b"", since_ns), way(loss=3_000, state=SUSPECT), way(R, 80)) == (R, "lossy")
    assert chosen(used(b"", since_ns), way(loss=900), way(R, 51)) == (b"", "keep"), "below a tenth it can wait"
    assert chosen(used(b"", since_ns), way(loss=3_000), way(R, 51, loss=2_000)) == (b"", "keep"), "not much better"
    assert chosen(used(b"", since_ns), way(loss=3_000), way(R, 400)) == (b"", "keep"), "the cure is worse"


def test_mere_suspicion_moves_nothing() -> None:
    assert chosen(used(b"", NOW_NS - 1), way(state=SUSPECT), way(R, 20)) == (b"", "keep")


# ---------------------------------------------------------------------- better, hold-down, hysteresis


def test_a_better_way_waits_for_the_minute() -> None:
    assert chosen(used(b"", NOW_NS - HOLD_NS + 1), way(rtt_ms=100), way(R, 50)) == (b"", "keep")
    assert chosen(used(b"", NOW_NS - HOLD_NS), way(rtt_ms=100), way(R, 50)) == (R, "better")


def test_a_way_that_became_slow_is_named_so() -> None:
    assert chosen(Incumbent(b"", 0, 0, 0, 30_000), way(rtt_ms=100), way(R, 50)) == (R, "slow")
    assert chosen(Incumbent(b"", 0, 0, 0, 90_000), way(rtt_ms=100), way(R, 50)) == (R, "better")


def test_the_margin_is_two_percent_a_millisecond_or_a_sixth_of_the_deviation() -> None:
    assert chosen(used(), way(rtt_ms=200), way(R, 197))[0] == b""
    assert chosen(used(), way(rtt_ms=200), way(R, 196))[0] == R
    assert chosen(used(), way(rtt_ms=3), way(R, 2))[0] == R
    assert chosen(used(), Candidate(b"", 0, 3_000, 0, 0, 0), Candidate(R, 0, 2_001, 0, 0, 0))[0] == b""
    assert chosen(used(), way(rtt_ms=200, deviation_us=30_000), way(R, 192, deviation_us=40_000))[0] == b""
    assert chosen(used(), way(rtt_ms=200, deviation_us=30_000), way(R, 191, deviation_us=40_000))[0] == R
    assert chosen(used(), way(rtt_ms=200, deviation_us=6_000_000), way(R, 191))[0] == b""
    assert chosen(used(), way(rtt_ms=200, deviation_us=6_000_000), way(R, 190))[0] == R, "a twentieth is always enough"


def test_throughput_asks_for_a_fifth() -> None:
    rule = Rule(Metric.THROUGHPUT)
    assert chosen(used(), way(rtt_ms=100), way(R, 82), rule=rule)[0] == b""
    assert chosen(used(), way(rtt_ms=100), way(R, 75), rule=rule)[0] == R


def test_a_suspect_rival_is_not_better() -> None:
    assert chosen(used(), way(rtt_ms=200), way(R, 20, state=SUSPECT)) == (b"", "keep")
    assert chosen(used(R), way(rtt_ms=10, state=SUSPECT), way(R, 200), way(S, 20, state=SUSPECT)) == (R, "keep")


# ---------------------------------------------------------------------- return, spread


def test_direct_is_taken_again_after_a_clean_minute() -> None:
    clean_ns = NOW_NS - CLEAN_NS
    assert chosen(used(R, 0, clean_ns), way(rtt_ms=50), way(R, 80)) == (b"", "recovered")
    assert chosen(used(R, 0, clean_ns + 1), way(rtt_ms=50), way(R, 80)) == (R, "keep")
    assert chosen(used(R, 0, -1), way(rtt_ms=50), way(R, 80)) == (R, "keep")
    assert chosen(used(R, NOW_NS - HOLD_NS + 1, clean_ns), way(rtt_ms=50), way(R, 80)) == (R, "keep")
    assert chosen(used(R, 0, clean_ns), way(rtt_ms=50, state=SUSPECT), way(R, 80)) == (R, "keep")


def test_a_relay_that_is_clearly_better_is_kept_though_direct_is_clean() -> None:
    """Away takes a margin; back takes a minute of being equal, which is half a per cent."""
    for relay_us, expected in ((80_000, (R, "keep")), (99_400, (R, "keep")), (99_600, (b"", "recovered"))):
        incumbent = used(R, 0, 0, -1)
        ways = way(rtt_ms=100), Candidate(R, 0, relay_us, 0, 0, 0)
        for now_ns in (NOW_NS - EVEN_NS, NOW_NS):
            incumbent.watch(ways, LATENCY, now_ns)
        assert chosen(incumbent, *ways) == expected


def test_one_chance_measurement_does_not_bring_direct_back() -> None:
    incumbent = used(R, 0, 0, -1)
    even, better = (way(rtt_ms=100), way(R, 100)), (way(rtt_ms=100), way(R, 99))
    for now_ns, ways, even_ns in ((1, even, 1), (2, even, 1), (3, better, -1), (4, even, 4)):
        incumbent.watch(ways, LATENCY, now_ns)
        assert incumbent.even_ns == even_ns
    incumbent.watch(even, LATENCY, NOW_NS - EVEN_NS + 1)
    incumbent.even_ns = NOW_NS - EVEN_NS + 1
    assert chosen(incumbent, *even) == (R, "keep")


def test_scores_that_stray_by_less_than_anyone_feels_do_not_keep_direct_from_coming_back() -> None:
    """On a busy machine the scores of two short ways cross each other every few seconds."""
    incumbent = used(R, 0, 0, -1)
    home, now, other = (Candidate(via, 0, rtt, 0, 0, 0) for via, rtt in ((b"", 1_250), (R, 890), (R, 1_290)))
    for second in range(61):
        incumbent.watch((home, other if second % 4 else now), LATENCY, NOW_NS - EVEN_NS + second * SECOND_NS)
    assert chosen(incumbent, home, now) == (b"", "recovered")


def test_from_a_relay_that_is_not_worth_it_to_one_that_is_or_else_to_direct() -> None:
    assert chosen(used(R, 0, 0), way(rtt_ms=100), way(R, 110), way(S, 50)) == (S, "better")
    assert chosen(used(R, 0, 0), way(rtt_ms=100), way(R, 110), way(S, 99)) == (b"", "recovered")
    assert chosen(used(R, 0, 0), way(rtt_ms=100), way(R, 80), way(S, 50)) == (S, "better")


def test_a_direct_path_that_is_never_clean_is_taken_again_for_a_large_gain() -> None:
    """Two per cent of loss on 20 ms are better than a clean relay of a second and a half."""
    dirty, slow = way(rtt_ms=20, loss=200), way(R, 1_500)
    since_ns = NOW_NS - CLEAN_NS
    for sound_ns, expected in ((-1, (R, "keep")), (since_ns + 1, (R, "keep")), (since_ns, (b"", "better"))):
        incumbent = used(R, 0, -1)
        incumbent.sound_ns = sound_ns
        assert chosen(incumbent, dirty, slow) == expected
    incumbent = used(R, 0, -1)
    incumbent.sound_ns = since_ns
    assert chosen(incumbent, dirty, way(R, 60)) == (R, "keep")


def test_a_direct_path_is_sound_while_it_works() -> None:
    incumbent = used(R, 0, -1)
    for now_ns, candidate, sound_ns in (
        (1, way(loss=500), 1),
        (2, way(), 1),
        (3, way(state=PathState.SUSPECT), -1),
        (4, way(), 4),
    ):
        incumbent.watch([candidate], LATENCY, now_ns)
        assert incumbent.sound_ns == sound_ns


def test_a_dirty_direct_path_does_not_hide_a_better_relay() -> None:
    assert chosen(used(R, 0, -1), way(rtt_ms=20), way(R, 200), way(S, 100)) == (S, "better")


def test_watch_keeps_since_when_direct_is_clean() -> None:
    incumbent = Incumbent(R, 0)
    for now_ns, candidate, expected in (
        (1, way(loss=99), 1),
        (2, way(), 1),
        (3, way(loss=100), -1),
        (4, way(loss_in=100), -1),
        (5, way(), 5),
        (6, way(R, state=FAILED), 5),
        (7, way(state=SUSPECT), -1),
    ):
        incumbent.watch([candidate], LATENCY, now_ns)
        assert incumbent.clean_ns == expected


def test_take_follows_and_remembers() -> None:
    incumbent = used()
    decision = decide(incumbent, [way(rtt_ms=100), way(R, 50)], LATENCY, KEY, NOW_NS)
    assert incumbent.take(decision, NOW_NS)
    assert incumbent == Incumbent(R, NOW_NS, NOW_NS, 0, 50_000)
    assert not incumbent.take(decide(incumbent, [way(rtt_ms=100), way(R, 60)], LATENCY, KEY, NOW_NS), NOW_NS + 1)
    assert incumbent == Incumbent(R, NOW_NS, NOW_NS, 0, 50_000)


def test_pairs_spread_over_near_equal_relays() -> None:
    candidates = [way(state=FAILED), way(R, 200), way(S, 200), way(T, 201), way(b"relay-farr", 240)]
    picks = [decide(used(), candidates, LATENCY, bytes([pair]), NOW_NS).via for pair in range(200)]
    assert all(picks.count(relay) > 30 for relay in (R, S, T))
    assert picks.count(b"relay-farr") == 0
    without = [
        decide(used(), [one for one in candidates if one.via != S], LATENCY, bytes([p]), NOW_NS).via for p in range(200)
    ]
    assert all(after == before for before, after in zip(picks, without, strict=True) if before != S), (
        "only S's pairs move"
    )


def test_the_evidence_names_both_ways_and_the_numbers() -> None:
    decision = decide(used(), [way(rtt_ms=50, loss=3_010), way(R, 80)], LATENCY, KEY, NOW_NS)
    assert decision.evidence == (
        "relay 72656c61 ok, 80.0 ms, loss 0.0 % out 0.0 % in; before: direct ok, 50.0 ms, loss 30.1 % out 0.0 % in"
    )
    assert decide(None, [], LATENCY, KEY, 0).evidence == "no candidates"


def test_every_candidate_gets_a_verdict() -> None:
    candidates = [
        way(rtt_ms=100),
        way(b"relay-near", 99),
        way(b"relay-slow", 300),
        way(b"relay-loss", 20, loss=800),
        way(b"relay-susp", 20, state=SUSPECT),
        way(b"relay-fail", 20, state=FAILED),
        way(b"relay-unkn", 20, state=UNKNOWN),
        way(b"relay-zero", 0),
        way(b"relay-metr", 20, will=WILL_METERED),
        way(b"relay-same", 100),
    ]
    decision = decide(used(), candidates, LATENCY, KEY, NOW_NS)
    assert verdicts(decision) == {
        b"": "chosen",
        b"relay-near": "not enough better",
        b"relay-slow": "slower",
        b"relay-loss": "lossy",
        b"relay-susp": "suspect",
        b"relay-fail": "failed",
        b"relay-unkn": "unknown",
        b"relay-zero": "unknown",
        b"relay-metr": "held back",
        b"relay-same": "equal",
    }


def test_values_survive_the_journal() -> None:
    decision = decide(used(), [way(), way(R)], LATENCY, KEY, NOW_NS)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(decision), type=Decision) == decision
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(used(R)), type=Incumbent) == used(R)


def test_a_relay_that_is_a_slow_machine_is_left_at_once_for_any_that_will_do() -> None:
    fresh = used(R, NOW_NS - 1)
    assert chosen(fresh, way(state=FAILED), way(R, slow=True), way(S, 90)) == (S, "slow-relay")
    assert chosen(fresh, way(rtt_ms=90), way(R, slow=True)) == (b"", "slow-relay")


def test_a_slow_relay_is_kept_where_nobody_else_will_do() -> None:
    assert chosen(used(R), way(state=FAILED), way(R, slow=True)) == (R, "keep")
    assert chosen(used(R), way(state=FAILED), way(R, slow=True), way(S, 40, slow=True))[0] in (R, S)
    assert chosen(used(R, clean_ns=-1), way(loss=3_000), way(R, slow=True)) == (R, "keep"), "better than a third lost"
    assert chosen(used(R), way(state=FAILED), way(R, slow=True), way(S, will=WILL_METERED)) == (R, "keep")


def test_a_slow_relay_is_not_taken_and_the_verdict_says_so() -> None:
    decision = decide(None, [way(state=FAILED), way(R, 10, slow=True), way(S, 90)], LATENCY, KEY, NOW_NS)
    assert decision.via == S
    assert verdicts(decision)[R] == "slow machine"
