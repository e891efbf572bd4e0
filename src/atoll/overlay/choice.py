# SPDX-License-Identifier: Apache-2.0
"""Decides which way packets to one member go: direct, or through which one relay.

Rules of this file, in the order in which they bind:

1. A way that the tag's rule, the relay's will or its budget excludes is not used.
2. States come before numbers: ok, then suspect, then unknown, then failed.
3. A way in use that failed, vanished or loses a tenth of its packets is left at once. Nothing else is urgent.
4. Anything else waits until the way in use has been used for a minute, and must then be better by a clear margin.
5. Among relays that are about equally good each pair takes its own, so that not all pairs load the same one; and the
   direct path is taken again when it has been about as good as the relay, or better, for a minute.

Every function is pure. What must be remembered between two decisions is in ``Incumbent``.
"""

from collections.abc import Sequence
from enum import IntEnum
from hashlib import blake2s
from math import isqrt
from typing import Final, final

import msgspec

from atoll.base.ids import DIRECT
from atoll.base.units import SECOND_NS
from atoll.overlay.messages import Link
from atoll.overlay.policy import Metric, Rule

__all__ = [
    "CLEAN_LOSS_MAX",
    "CLEAN_NS",
    "HOLD_NS",
    "LOAD_FULL",
    "URGENT_LOSS",
    "WILL_METERED",
    "WILL_NEVER",
    "WILL_YES",
    "Candidate",
    "Decision",
    "Incumbent",
    "PathState",
    "Ranked",
    "decide",
    "direct",
    "score_us",
    "tcp_bits_s",
    "through",
]

SHARE: Final = 10_000  # Losses are counted in parts of this.
HOLD_NS: Final = 60 * SECOND_NS  # Limit. At most one switch a minute and pair, unless the path in use fails.
CLEAN_NS: Final = 60 * SECOND_NS  # The direct path is trusted again after this long without fault.
CLEAN_LOSS_MAX: Final = 100  # 1/10000: below 1 % a path is clean.
POOR_LOSS: Final = 500  # 1/10000: from 5 % on a path no longer "will do", and metered relays are considered.
URGENT_LOSS: Final = 1_000  # 1/10000: from 10 % on, in either direction, the path in use is left without waiting.
LOSS_OUT_US: Final = 1_000_000  # Cost of certain loss: about TCP's least retransmission time-out after a lost tail.
LOSS_IN_US: Final = 250_000  # The way back is the other end's choice, so it counts a quarter.
LOSS_FIRST: Final = 16  # How much more a loss weighs under the loss metric: 1 % is worth 160 ms.
LOAD_FREE: Final = 64  # Up to a quarter of its budget a relay's load changes nothing: idle noise moves no route.
LOAD_FULL: Final = 255  # No budget left.
LOAD_STEP_US: Final = 100  # Each further step of load costs this; at most 19.1 ms, less than rule "30 ms longer".
MARGIN_PARTS: Final = 50  # A rival must be better by 2 % (RON took 5 %, which forgoes much of the gain: ADR 0007) ...
MARGIN_US_MIN: Final = 1_000  # ... by at least this (loopback and LAN paths differ by less than anyone feels) ...
MARGIN_SIGMA_PARTS: Final = 6  # ... and by a sixth of the two paths' common deviation.
MARGIN_SIGMA_SHARE: Final = 20  # ... of which more than 5 % of the score is not asked: such a gain is worth a try.
MARGIN_PARTS_THROUGHPUT: Final = 5  # The TCP model multiplies errors of loss and latency; RON waited for half.
EVEN_NS: Final = 60 * SECOND_NS  # So long a direct path must have been about as good as the relay in use, or better.
FAR_BETTER: Final = 2  # A direct path that is never clean is taken again if it costs half of the way in use.
NEAR_PARTS: Final = 200  # Ways within 0.5 % of the best score are equals ...
NEAR_US_MIN: Final = 500  # ... or within half a millisecond, by which scores of a busy machine stray each second ...
NEAR_US_MAX: Final = 20_000  # ... but a clean path 30 ms longer is never the equal of one that loses 30 %.

TCP_SEGMENT_BITS: Final = 8 * 1_220  # What fits a 1280-byte inner packet.
TCP_LOSS_MIN: Final = 50  # 1/10000. Two hundred probes cannot tell less than 0.5 % from nothing.
TCP_TIMEOUT_US: Final = 200_000  # Least retransmission time-out of the systems in use.
TCP_BITS_S_MAX: Final = 10**12
THROUGHPUT_BITS: Final = 8 << 20  # The score under the throughput metric is the time for 1 MiB.
SCORE_US_MAX: Final = (1 << 62) - 1

WILL_NEVER: Final = 0
WILL_METERED: Final = 1
WILL_YES: Final = 2


class PathState(IntEnum):
    """State of a path, as in ``Link.state``."""

    OK = 0
    SUSPECT = 1
    FAILED = 2
    UNKNOWN = 3


_RANK_OK, _RANK_SUSPECT, _RANK_UNKNOWN, _RANK_FAILED, _RANK_EXCLUDED = range(5)
_RANK: Final = {
    int(PathState.OK): _RANK_OK,
    int(PathState.SUSPECT): _RANK_SUSPECT,
    int(PathState.UNKNOWN): _RANK_UNKNOWN,
    int(PathState.FAILED): _RANK_FAILED,
}


@final
class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """One way to a member, with what is known of it.

    Attributes:
        via: Empty for direct, else the relay's id.
        state: A ``PathState``; of two hops the worse.
        rtt_us: Predicted round trip; 0: never measured.
        deviation_us: Its deviation.
        loss_out: Loss towards the member, in 1/10000.
        loss_in: Loss from the member, in 1/10000.
        load: The relay's load, 0 to 255; 0 for direct.
        will: The relay's will, 0 never, 1 metered, 2 yes; 2 for direct.
        slow: Whether the relay is a slow machine, which is taken only where nobody else will do.
    """

    via: bytes
    state: int
    rtt_us: int
    deviation_us: int
    loss_out: int
    loss_in: int
    load: int = 0
    will: int = WILL_YES
    slow: bool = False


@final
class Ranked(msgspec.Struct, frozen=True, array_like=True):
    """One candidate as a decision saw it. ``verdict`` is a short text from a fixed list."""

    candidate: Candidate
    score_us: int
    verdict: str


@final
class Decision(msgspec.Struct, frozen=True, array_like=True):
    """What ``decide`` found.

    Attributes:
        via: The way to use.
        cause: ``keep`` when it is the way in use; else one of the causes of ``RouteNotice``.
        evidence: Short text with the numbers.
        ranked: All candidates, best first.
    """

    via: bytes
    cause: str
    evidence: str
    ranked: tuple[Ranked, ...]


@final
class Incumbent(msgspec.Struct):
    """The way in use and what must be remembered about it.

    Attributes:
        via: The way in use.
        since_ns: When it came into use.
        switched_ns: When it was last changed; 0: never.
        clean_ns: Since when the direct path has been ok and below 1 % loss; -1: it is not. Kept by ``watch``.
        score_us: Its score when it was chosen; tells a path that became slow from a rival that became better.
        sound_ns: Since when the direct path has been ok, whatever its loss; -1: it is not.
        even_ns: Since when the direct path has been the way in use's equal or better; -1: it costs more.
    """

    via: bytes
    since_ns: int
    switched_ns: int = 0
    clean_ns: int = -1
    score_us: int = 0
    sound_ns: int = -1
    even_ns: int = -1

    def watch(self, candidates: Sequence[Candidate], rule: Rule, now_ns: int) -> None:
        """Note how the direct path is; call it before each ``decide``, and whenever its state changes."""
        home = next((one for one in candidates if not one.via), None)
        if home is None:
            return
        current = next((one for one in candidates if one.via == self.via), home)
        sound = home.state == PathState.OK
        clean = sound and _loss(home) < CLEAN_LOSS_MAX
        least_us = score_us(current, rule.metric)
        even = score_us(home, rule.metric) <= least_us + _near_us(least_us)
        self.sound_ns = _since(self.sound_ns, now_ns, holds=sound)
        self.clean_ns = _since(self.clean_ns, now_ns, holds=clean)
        self.even_ns = _since(self.even_ns, now_ns, holds=even)

    def take(self, decision: Decision, now_ns: int) -> bool:
        """Follow a decision; return True when the way in use changed."""
        for ranked in decision.ranked:
            if ranked.candidate.via == decision.via and (decision.via != self.via or self.score_us == 0):
                self.score_us = ranked.score_us
        if decision.via == self.via:
            return False
        self.via, self.since_ns, self.switched_ns, self.even_ns = decision.via, now_ns, now_ns, -1
        return True


def _since(since_ns: int, now_ns: int, *, holds: bool) -> int:
    if not holds:
        return -1
    return now_ns if since_ns < 0 else since_ns


def direct(link: Link) -> Candidate:
    """Return the direct path as a candidate."""
    return Candidate(DIRECT, link.state, link.rtt_us, link.deviation_us, link.loss_out, link.loss_in)


def through(first: Link, second: Link, load: int, will: int, *, slow: bool = False) -> Candidate:
    """Return the way through one relay.

    Args:
        first: Our link to the relay; its ``node`` is the relay.
        second: The relay's link to the target, as the relay said.
        load: The relay's load, 0 to 255.
        will: The relay's will.
        slow: Whether the relay is a slow machine.
    """
    state = first.state if _rank(first.state) >= _rank(second.state) else second.state
    measured = first.rtt_us and second.rtt_us
    return Candidate(
        first.node,
        state,
        first.rtt_us + second.rtt_us if measured else 0,
        isqrt(first.deviation_us**2 + second.deviation_us**2),
        first.loss_out + second.loss_out - first.loss_out * second.loss_out // SHARE,
        first.loss_in + second.loss_in - first.loss_in * second.loss_in // SHARE,
        load,
        will,
        slow,
    )


def _rank(state: int) -> int:
    return _RANK.get(state, _RANK_UNKNOWN)


def tcp_bits_s(candidate: Candidate) -> int:
    """Return the rate that one TCP connection would reach, bit/s, 0 where nothing is known.

    Source: Padhye, Firoiu, Towsley, Kurose, "Modeling TCP Throughput", SIGCOMM 1998, with b = 1. At low loss this is
    RON's sqrt(3/2) / (rtt * sqrt(p)); its second term, time-outs, is what makes a short path with 30 % loss slow.
    """
    if not candidate.rtt_us:
        return 0
    loss = min(max(candidate.loss_out + candidate.loss_in // 4, TCP_LOSS_MIN), SHARE)
    # All shares in 1/10000. sqrt(2p/3) and 3*sqrt(3p/8):
    congestion = isqrt(2 * loss * SHARE // 3)
    waiting = min(SHARE, 3 * isqrt(3 * loss * SHARE // 8))
    backoff = loss * (SHARE + 32 * loss * loss // SHARE) // SHARE
    segment_us = candidate.rtt_us * congestion // SHARE + TCP_TIMEOUT_US * waiting // SHARE * backoff // SHARE
    return min(TCP_SEGMENT_BITS * 1_000_000 // max(segment_us, 1), TCP_BITS_S_MAX)


def score_us(candidate: Candidate, metric: Metric) -> int:
    """Return the cost of a candidate under a metric, us; less is better. States and wills are not in it."""
    load_us = max(0, candidate.load - LOAD_FREE) * LOAD_STEP_US
    loss_us = candidate.loss_out * LOSS_OUT_US // SHARE + candidate.loss_in * LOSS_IN_US // SHARE
    if metric is Metric.LATENCY:
        return candidate.rtt_us + loss_us + load_us
    if metric is Metric.LOSS:
        return candidate.rtt_us + LOSS_FIRST * loss_us + load_us
    bits_s = tcp_bits_s(candidate)
    return min(THROUGHPUT_BITS * 1_000_000 // bits_s + load_us, SCORE_US_MAX) if bits_s else SCORE_US_MAX


class _Rated(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Sort key of one candidate: rank of its state, whether it is a reserve, its score, its id.

    ``least_us`` is how much less a rival's score must be for reasons of the metric alone.
    """

    rank: int
    reserve: bool
    score_us: int
    via: bytes
    least_us: int
    candidate: Candidate


def decide(
    incumbent: Incumbent | None, candidates: Sequence[Candidate], rule: Rule, pair_key: bytes, now_ns: int
) -> Decision:
    """Choose a way to one member.

    Args:
        incumbent: The way in use; None: none yet.
        candidates: Direct and the relays, in any order, each way once, at most 64.
        rule: Of the traffic's tag.
        pair_key: Names the pair, any bytes; pairs with other keys spread over other relays.
        now_ns: Monotonic time, ns.
    """
    rated = sorted(_rate(candidate, rule) for candidate in candidates)
    usable = [one for one in rated if one.rank < _RANK_EXCLUDED]
    will_do = any(not one.reserve and one.rank == _RANK_OK and _loss(one.candidate) < POOR_LOSS for one in usable)
    if not will_do:  # Then reserves compete like any other.
        usable.sort(key=lambda one: (one.rank, one.score_us, one.via))
    current = next((one for one in rated if incumbent is not None and one.via == incumbent.via), None)
    if not usable:
        return _told(DIRECT, "keep" if incumbent is not None and not incumbent.via else "policy", rated, current)
    best = _spread(usable, pair_key)
    if incumbent is None:
        return _told(best.via, "start", rated, current)
    cause = _urgency(current, best)
    if cause is None and current is not None and now_ns - incumbent.since_ns >= HOLD_NS:
        home = _home(current, usable, incumbent, now_ns)
        relays = [one for one in usable if one.via]
        if not best.via and incumbent.clean_ns < 0 and relays and not _far_better(best, current, incumbent, now_ns):
            best = _spread(relays, pair_key)  # A direct path that is not clean yet must not hide a better relay.
        cause = _improvement(current, best, incumbent, now_ns, will_do=will_do)
        # Away from a relay that is not worth it: to another only if that is worth it against direct too.
        if home is not None and (cause is None or best.score_us + _margin_us(home, best) > home.score_us):
            return _told(DIRECT, "recovered", rated, current)
    if cause is None:
        return _told(incumbent.via, "keep", rated, current)
    return _told(best.via, cause, rated, current)


def _rate(candidate: Candidate, rule: Rule) -> _Rated:
    score, relay = score_us(candidate, rule.metric), bool(candidate.via)
    parts = MARGIN_PARTS_THROUGHPUT if rule.metric is Metric.THROUGHPUT else MARGIN_PARTS
    rank, reserve = _rank(candidate.state), False
    if not rule.allows(candidate.via) or (relay and candidate.will == WILL_NEVER):
        rank = _RANK_EXCLUDED
    else:
        reserve = relay and (candidate.will == WILL_METERED or candidate.load >= LOAD_FULL or candidate.slow)
        if not candidate.rtt_us:
            rank = max(rank, _RANK_UNKNOWN)
    return _Rated(rank, reserve, score, candidate.via, max(score // parts, MARGIN_US_MIN), candidate)


def _loss(candidate: Candidate) -> int:
    return max(candidate.loss_out, candidate.loss_in)


def _near_us(score: int) -> int:
    return min(max(score // NEAR_PARTS, NEAR_US_MIN), NEAR_US_MAX)


def _margin_us(one: _Rated, other: _Rated) -> int:
    sigma_us = isqrt(one.candidate.deviation_us**2 + other.candidate.deviation_us**2)
    return max(one.least_us, min(sigma_us // MARGIN_SIGMA_PARTS, one.score_us // MARGIN_SIGMA_SHARE))


def _spread(usable: Sequence[_Rated], pair_key: bytes) -> _Rated:
    """Choose among the near-equals of the best: direct if it is one of them, else by rendezvous hash."""
    best = usable[0]
    bound_us = best.score_us + _near_us(best.score_us)
    equals = [
        one for one in usable if one.rank == best.rank and one.reserve == best.reserve and one.score_us <= bound_us
    ]
    if len(equals) == 1:
        return best
    return max(equals, key=lambda one: (not one.via, blake2s(pair_key + one.via, digest_size=8).digest(), one.via))


def _urgency(current: _Rated | None, best: _Rated) -> str | None:
    """Return why the way in use must be left now; None: it need not."""
    if current is None:
        return "relay-gone"
    if current.via == best.via:
        return None
    if current.rank == _RANK_EXCLUDED:
        return "relay-gone" if current.candidate.will == WILL_NEVER else "policy"
    if current.rank > best.rank and current.rank == _RANK_FAILED:
        return "silent"
    if current.rank == _RANK_UNKNOWN and best.rank < _RANK_UNKNOWN:
        return "relay-gone" if current.via else "start"
    if current.candidate.slow and not best.reserve and best.rank <= current.rank and not best.candidate.slow:
        return "slow-relay"
    loss, rival_loss = _loss(current.candidate), _loss(best.candidate)
    if (
        loss >= URGENT_LOSS
        and 2 * rival_loss <= loss
        and best.rank <= current.rank
        and best.score_us < current.score_us
    ):
        return "lossy"
    return None


def _improvement(current: _Rated, best: _Rated, incumbent: Incumbent, now_ns: int, *, will_do: bool) -> str | None:
    """Return why a working way should be left for a better one; None: it should not."""
    if current.via == best.via:
        return None
    if not best.via:  # Back to a clean direct path is ``_home``; to one that is never clean only for a large gain.
        return "better" if _far_better(best, current, incumbent, now_ns) else None
    if will_do and current.reserve and not best.reserve and _loss(best.candidate) < CLEAN_LOSS_MAX:
        return "better"
    if best.score_us + _margin_us(current, best) > current.score_us:
        return None
    return "slow" if incumbent.score_us and current.score_us > incumbent.score_us * 5 // 4 else "better"


def _far_better(home: _Rated, current: _Rated, incumbent: Incumbent, now_ns: int) -> bool:
    """Whether a direct path that works, but is never clean, is worth its losses."""
    sound = home.rank == _RANK_OK and 0 <= incumbent.sound_ns <= now_ns - CLEAN_NS
    return sound and FAR_BETTER * home.score_us <= current.score_us


def _home(current: _Rated, usable: Sequence[_Rated], incumbent: Incumbent, now_ns: int) -> _Rated | None:
    """Return direct if it has been clean for long enough and the relay in use is not clearly better; else None."""
    home = next((one for one in usable if not one.via), None)
    if not current.via or home is None or home.rank > _RANK_OK or not 0 <= incumbent.clean_ns <= now_ns - CLEAN_NS:
        return None
    # It took a margin to leave. To come back it takes a minute of being equal, so that no chance measurement ends what
    # is better. Between the two lies the band in which nothing moves.
    worth_it = not current.reserve and not 0 <= incumbent.even_ns <= now_ns - EVEN_NS
    return None if worth_it else home


def _told(via: bytes, cause: str, rated: Sequence[_Rated], current: _Rated | None) -> Decision:
    chosen = next((one for one in rated if one.via == via), None)
    ranked = tuple(Ranked(one.candidate, one.score_us, _verdict(one, chosen)) for one in rated)
    evidence = "no candidates" if chosen is None else _numbers(chosen)
    if current is not None and chosen is not None and chosen.via != current.via:
        evidence = f"{evidence}; before: {_numbers(current)}"
    return Decision(via, cause, evidence, ranked)


def _verdict(one: _Rated, chosen: _Rated | None) -> str:
    if chosen is not None and one.via == chosen.via:
        return "chosen"
    if one.rank == _RANK_EXCLUDED:
        return "will not relay" if one.candidate.will == WILL_NEVER else "forbidden"
    if one.rank:
        return {_RANK_SUSPECT: "suspect", _RANK_UNKNOWN: "unknown"}.get(one.rank, "failed")
    if _loss(one.candidate) >= POOR_LOSS:
        return "lossy"
    if chosen is None or one.score_us <= chosen.score_us + _near_us(chosen.score_us):
        if one.reserve:
            return "slow machine" if one.candidate.slow else "held back"
        return "not enough better" if chosen and _beats(one, chosen) else "equal"
    return "slower"


def _beats(one: _Rated, chosen: _Rated) -> bool:
    return one.score_us + _near_us(one.score_us) < chosen.score_us


def _numbers(one: _Rated) -> str:
    candidate = one.candidate
    state = {0: "ok", 1: "suspect", 2: "failed"}.get(candidate.state, "unknown")
    way = f"relay {candidate.via.hex()[:8]}" if candidate.via else "direct"
    if not candidate.rtt_us:
        return f"{way} {state}, not measured"
    rtt = f"{candidate.rtt_us // 1000}.{candidate.rtt_us // 100 % 10} ms"
    return f"{way} {state}, {rtt}, loss {_percent(candidate.loss_out)} out {_percent(candidate.loss_in)} in"


def _percent(share: int) -> str:
    return f"{share // 100}.{share // 10 % 10} %"
