# SPDX-License-Identifier: Apache-2.0
"""Decides how a decision is told: pure reads of a pair for ``status`` and ``why``. Changes nothing."""

from typing import Final

import msgspec

from atoll.base.ids import DIRECT
from atoll.base.units import SECOND_NS
from atoll.overlay.choice import CLEAN_NS, HOLD_NS, PathState, Ranked, decide, tcp_bits_s
from atoll.overlay.evidence import CandidateReport, Explanation, PeerReport
from atoll.overlay.pair import Pair, Surroundings

__all__ = ["explain", "peer_report"]

_WORDS: Final = ("ok", "suspect", "failed", "unknown")


def peer_report(pair: Pair, now_ns: int) -> PeerReport:
    """Return how a member stands on the path of its default traffic."""
    route = next(iter(pair.routes.values()))
    via = route.incumbent.via
    path = pair.paths.get(via)
    direct = pair.paths.get(DIRECT)
    heard = [one.heard_ns for one in pair.paths.values() if one.heard_ns >= 0]
    if path is None or path.state == PathState.UNKNOWN:
        state, why = "connecting", "no session yet" if not pair.session else "no answer yet"
    elif path.state == PathState.FAILED:
        state, why = "away", path.reason
    elif path.bad:
        state, why = "degraded", path.reason
    elif via and direct is not None and direct.state != PathState.OK:
        state, why = "degraded", f"relayed: direct is {direct.reason}"
    elif via:
        state, why = "ok", f"relayed: {route.cause}"
    else:
        state, why = "ok", "direct"
    measured = path is not None and path.predicted_us > 0
    return PeerReport(
        pair.node,
        pair.session,
        state,
        why,
        via,
        path.predicted_us if path is not None and measured else None,
        path.deviation_us if path is not None and measured else None,
        path.loss_out() if path is not None and measured else None,
        path.loss_in() if path is not None and measured else None,
        max(heard) if heard else None,
        pair.active(now_ns),
        pair.copy is not None,
    )


def explain(pair: Pair, around: Surroundings, tag: int, now_ns: int) -> Explanation | None:
    """Return why packets of a tag take the path that they take; None: the tag has no route."""
    route = pair.routes.get(tag)
    if route is None:
        return None
    incumbent = msgspec.structs.replace(route.incumbent)  # ``watch`` notes; a read must not.
    candidates = pair.candidates(around, now_ns)
    rule = around.config.policy.rule(tag)
    incumbent.watch(candidates, rule, now_ns)
    decision = decide(incumbent, candidates, rule, pair.key, now_ns)
    usable = around.usable(pair.node, now_ns)
    reports = tuple(_candidate(pair, one, incumbent.via, usable, now_ns) for one in decision.ranked)
    return Explanation(
        pair.node,
        tag,
        incumbent.via,
        route.since_ns,
        route.cause,
        route.evidence,
        decision.evidence,
        reports,
        tuple(route.history),
        _next(pair, incumbent.via, incumbent.since_ns, incumbent.clean_ns, now_ns),
    )


def _candidate(pair: Pair, ranked: Ranked, chosen: bytes, usable: tuple[bytes, ...], now_ns: int) -> CandidateReport:
    one = ranked.candidate
    path = pair.paths.get(one.via)
    measured = path is not None and path.predicted_us > 0
    known = one.rtt_us > 0
    return CandidateReport(
        one.via,
        one.via == chosen,
        pair.ready(one.via, usable, now_ns),
        _WORDS[one.state] if 0 <= one.state < len(_WORDS) else "unknown",
        path.reason if path is not None else "",
        one.rtt_us if known else None,
        one.deviation_us if known else None,
        one.loss_out if known else None,
        one.loss_in if known else None,
        ranked.score_us if known else None,
        tcp_bits_s(one) if known else None,
        one.load,
        "end-to-end" if measured else "links",
        ranked.verdict,
        path.lost_words(now_ns) if path is not None and measured else "",
    )


def _next(pair: Pair, via: bytes, since_ns: int, clean_ns: int, now_ns: int) -> str:
    path = pair.paths.get(via)
    if path is not None and path.state == PathState.FAILED:
        return "No path answers; all are tried, and the first that answers is taken."
    if pair.suspicion_ns >= 0:
        return "A path in use is under suspicion; it is left as soon as another one answers."
    if via and clean_ns < 0:
        return "Direct is taken again once it has been below 1 % loss for 60 s."
    if via:
        left_s = max(0, -(-(CLEAN_NS - (now_ns - clean_ns)) // SECOND_NS))
        return f"Direct is taken again if it stays clean for another {left_s} s."
    held_ns = since_ns + HOLD_NS - now_ns
    if held_ns > 0:
        return f"A better path is taken in {-(-held_ns // SECOND_NS)} s at the earliest, a failed one is left at once."
    return "A path that is clearly better is taken; a failed one is left at once."
