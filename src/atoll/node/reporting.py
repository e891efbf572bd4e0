# SPDX-License-Identifier: Apache-2.0
"""Turns what the machines know into the views of the local API. Pure reads; decides nothing."""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import msgspec

from atoll.base.ids import DIRECT, Endpoint, NodeId, address_of
from atoll.base.member import Member
from atoll.base.units import MICROSECOND_NS, MILLISECOND_NS, SECOND_NS
from atoll.base.version import __version__
from atoll.device.nic.messages import NicCounters
from atoll.domain.messages import Alive
from atoll.health.members.bulletin import ANSWERS, LINK, SEEN, Word
from atoll.health.members.programs import PROGRAM
from atoll.health.members.vitals import Vitals
from atoll.health.model import State
from atoll.node.addresses import endpoint_text
from atoll.node.control import Control
from atoll.node.views import CandidateView, ComponentView, PeerView, RelayView, StatusView, SwitchView, WhyView
from atoll.overlay.evidence import CandidateReport, Explanation, PeerReport, Switch
from atoll.overlay.policy import TAG_NAMES

__all__ = ["Around", "RelayMeter", "name_of", "status_view", "why_view"]

SHARE: Final = 10_000  # Shares are told in 1/10000 inside.
HEARSAY_MAX: Final = 64  # Limit. Of what third members say of one.
US_PER_MS: Final = 1000
_RELAY: Final = re.compile(r"\brelay ([0-9a-f]{8})\b")  # As ``overlay/choice.py`` writes evidence.
METER_NS: Final = 5 * SECOND_NS
METER_REPORTS_MAX: Final = 4096  # Limit. Two reports a second of 400 labels for METER_NS.


@final
class RelayMeter:
    """What this node forwards, as its packet device reports it."""

    def __init__(self) -> None:
        self.forwarded_bytes = 0
        self._recent: deque[tuple[int, int, int]] = deque(maxlen=METER_REPORTS_MAX)  # (at_ns, label, bytes)

    def note(self, label: int, forwarded_bytes: int, now_ns: int) -> None:
        """Add one report."""
        self.forwarded_bytes += forwarded_bytes
        self._recent.append((now_ns, label, forwarded_bytes))

    def bytes_s(self, now_ns: int) -> int:
        """Return the rate over the last METER_NS."""
        recent = sum(size for at_ns, _, size in self._recent if now_ns - at_ns < METER_NS)
        return recent * SECOND_NS // METER_NS

    def labels(self, now_ns: int) -> int:
        """Return how many labels carried something within METER_NS; a pair that talks both ways uses two."""
        return len({label for at_ns, label, size in self._recent if size and now_ns - at_ns < METER_NS})


_NOTHING: Final = NicCounters({})
_NONE_RUNS: Final = Alive()


@dataclass(frozen=True, slots=True)
class Around:
    """What the views need besides the machines.

    Attributes:
        control: The machines.
        now_ns: Monotonic time.
        started_ns: When the node started.
        group_name: Name of the group.
        listen: Underlay address in use.
        endpoints: Where each member was last heard.
        meter: What we forwarded.
        warnings: Sentences for people.
        device: What the packet device uses of this machine.
        dropped: What the packet device dropped, and how much of it came from each member.
        environments: What the server of environments says of itself.
        vitals: What this node measures; None: it measures nothing yet.
        clock_stepped_s: By how much the wall clock was set lately.
    """

    control: Control
    now_ns: int
    started_ns: int
    group_name: str
    listen: str
    endpoints: Mapping[bytes, Endpoint]
    meter: RelayMeter
    warnings: tuple[str, ...] = ()
    device: str = ""
    dropped: NicCounters = _NOTHING
    environments: Alive = _NONE_RUNS
    vitals: Vitals | None = None
    clock_stepped_s: int = 0


def name_of(control: Control, node: bytes) -> str:
    """Return a member's name; the hex id of a node that is none."""
    member = control.group.roster.find(node)
    return member.name if member is not None else node.hex()


def status_view(around: Around) -> StatusView:
    """Return the answer of ``status``: members in the order of their names."""
    control, group = around.control, around.control.group
    own = group.own
    peers = tuple(_peer_view(around, m) for m in sorted(_others(control), key=lambda m: m.name))
    warnings = (*around.warnings, *_group_warnings(around))
    components = _component_views(around)
    return StatusView(
        version=__version__,
        name=own.name,
        node=own.node.hex(),
        address=address_of(group.group, own.node),
        group=around.group_name,
        roster_version=group.roster.version_text(),
        uptime_s=(around.now_ns - around.started_ns) / SECOND_NS,
        listen=around.listen,
        device=around.device,
        dropped=around.dropped.dropped,
        environments=around.environments.running,
        datagrams=msgspec.structs.asdict(around.environments.datagrams),
        peers=peers,
        relaying=RelayView(
            will=own.relay.value,
            bytes_s=around.meter.bytes_s(around.now_ns),
            budget_bytes_s=own.relay_bytes_s,
            pairs=-(-around.meter.labels(around.now_ns) // 2),
            forwarded_bytes=around.meter.forwarded_bytes,
        ),
        degraded=bool(warnings) or any(peer.state != "ok" for peer in peers) or any(map(is_slow, components)),
        warnings=warnings,
        components=components,
    )


def _group_warnings(around: Around) -> tuple[str, ...]:
    control, group = around.control, around.control.group
    twins = tuple(
        f"A207: two running processes use the key of {name_of(control, node)}; end the one that started later"
        for node in group.twinned(around.now_ns)
    )
    skewed = tuple(
        f"A208: {name_of(control, node)} and this node have no protocol in common; upgrade atoll on the older one"
        for node in group.skewed
    )
    return twins + skewed


def _others(control: Control) -> tuple[Member, ...]:
    own = control.group.own.node
    return tuple(m for m in control.group.roster.members() if m.node != own)


def is_slow(component: ComponentView) -> bool:
    """Tell whether a component has a performance fault that lasts."""
    return component.state in {State.SLOW, State.FAILED}


def _component_views(around: Around) -> tuple[ComponentView, ...]:
    """Return how this node's components stand, and what the others find of it and it does not."""
    known = () if around.vitals is None else around.vitals.standings()
    views = [
        ComponentView(
            name=one.component,
            state=one.state.value,
            since_s=None if one.state is State.UNKNOWN else (around.now_ns - one.since_ns) / SECOND_NS,
            usual_ms=one.usual_ns / MILLISECOND_NS if one.usual_ns > 1 else None,
            newest_ms=one.newest_ns / MILLISECOND_NS if one.samples else None,
            samples=one.samples,
            confidence=one.confidence,
            evidence=one.evidence,
            text=pace(one.component, one.newest_ns // MICROSECOND_NS, one.usual_ns // MICROSECOND_NS),
        )
        for one in known
    ]
    control = around.control
    views += [
        ComponentView(
            name=word.what,
            state=(State.FAILED if word.failed else State.SLOW).value,
            since_s=(around.now_ns - word.since_ns) / SECOND_NS,
            usual_ms=_ms(word.usual_us),
            newest_ms=_ms(word.newest_us),
            samples=0,
            by="others",
            text=pace(word.what, word.newest_us, word.usual_us),
        )
        for word in control.bulletin.health(control.group.own.node).words
        if word.what == SEEN
    ]
    return tuple(views)


def _peer_view(around: Around, member: Member) -> PeerView:
    control = around.control
    report = control.mesh.peer_report(member.node, around.now_ns)
    known = None if report is None or report.state == "away" else report  # What was once measured is true no more.
    endpoint = around.endpoints.get(member.node)
    state = "connecting" if report is None else report.state
    why = "no session yet" if report is None else _peer_why(around, member.node, report)
    health = control.bulletin.health(member.node)
    words = [word for word in health.words if word.what != LINK or (report is not None and report.via == DIRECT)]
    if words and state in {"ok", "degraded"}:
        state, why = "slow", "; ".join((*(_word(around, member, word) for word in words), *((why,) if why else ())))
    return PeerView(
        name=member.name,
        node=member.node.hex(),
        address=address_of(control.group.group, member.node),
        state=state,
        via=None if report is None or report.via == DIRECT else name_of(control, report.via),
        rtt_ms=None if known is None else _ms(known.rtt_us),
        deviation_ms=None if known is None else _ms(known.deviation_us),
        loss=None if known is None else _worse(known),
        why=why,
        last_heard_s=None
        if report is None or report.heard_ns is None
        else (around.now_ns - report.heard_ns) / SECOND_NS,
        session=report is not None and report.session,
        relay=member.relay.value,
        endpoint=None if endpoint is None else endpoint_text(endpoint),
        dropped=around.dropped.peers.get(member.node, {}),
    )


def _word(around: Around, member: Member, word: Word) -> str:
    """Return one fault in words, such as ``disk 1912 ms, usually 12 ms, for 3 min (its own word)``."""
    age_s = max(0, around.now_ns - word.since_ns) // SECOND_NS
    age = f"{age_s // 60} min" if age_s >= 60 else f"{age_s} s"
    by = " (its own word)" if word.by == member.node else ""
    return f"{pace(word.what, word.newest_us, word.usual_us)}, for {age}{by}"


_PACES: Final = {
    LINK: "round trip",
    ANSWERS: "answers after",
    SEEN: "round trip, as the others find,",
    "disk": "disk write",
    "loop": "held up for",
}
_RATIOS: Final = {"cpu": "processor", "work": "processor", "memory": "memory"}


def pace(what: str, newest_us: int, usual_us: int) -> str:
    """Return how fast a component is and was, such as ``disk write 1912 ms, usually 12 ms``."""
    if what == "net":
        return (
            f"network card drops or damages {newest_us // US_PER_MS} packets a second, usually {usual_us // US_PER_MS}"
        )
    if what in _RATIOS:
        return f"{_RATIOS[what]} {newest_us / max(1, usual_us):.1f} times as slow as usual"
    kind, _, which = what.partition(":")
    name = f"port {which} answers after" if kind == PROGRAM else _PACES.get(what, what)
    return f"{name} {_short_ms(newest_us)}, usually {_short_ms(usual_us)}"


def _short_ms(us: int) -> str:
    return f"{us / US_PER_MS:.0f} ms" if us >= 10 * US_PER_MS else f"{us / US_PER_MS:.1f} ms"


def _peer_why(around: Around, node: NodeId, report: PeerReport) -> str:
    if report.via == DIRECT:
        return "" if report.why == "direct" else report.why
    explanation = around.control.mesh.explain(node, 0, around.now_ns)
    if explanation is None:
        return report.why
    return f"{report.why}: {_named(around.control, explanation.evidence.partition('; ')[0])}"


def _named(control: Control, evidence: str) -> str:
    """Return evidence with the names of members, which the deciding rooms know by the beginning of their ids only."""
    names = {member.node.hex()[:8]: member.name for member in control.group.roster.members()}
    return _RELAY.sub(lambda found: f"relay {names.get(found[1], found[1])}", evidence)


def why_view(around: Around, node: NodeId, tag: int) -> WhyView | None:
    """Return the answer of ``why`` for the path from this node to a member; None: no such member or tag."""
    control = around.control
    explanation = control.mesh.explain(node, tag, around.now_ns)
    if explanation is None:
        return None
    source, target = control.group.own.name, name_of(control, node)
    relays = () if explanation.chosen == DIRECT else (name_of(control, explanation.chosen),)
    return WhyView(
        source=source,
        target=target,
        tag=TAG_NAMES[tag],
        path=(source, *relays, target),
        since_s=(around.now_ns - explanation.since_ns) / SECOND_NS,
        because=_named(control, _because(explanation)),
        candidates=tuple(_candidate_view(control, c) for c in explanation.candidates),
        history=tuple(_switch_view(around, s) for s in explanation.history),
        next=explanation.next,
        hearsay=tuple(
            f"{name_of(control, word.by)} says: {pace(word.what, word.newest_us, word.usual_us)}"
            for word in control.bulletin.health(node).hearsay[:HEARSAY_MAX]
        ),
    )


def _because(explanation: Explanation) -> str:
    parts = (explanation.cause, explanation.evidence, explanation.keeps)
    return "; ".join(part for part in parts if part)


def _candidate_view(control: Control, candidate: CandidateReport) -> CandidateView:
    return CandidateView(
        via=None if candidate.via == DIRECT else name_of(control, candidate.via),
        chosen=candidate.chosen,
        state=candidate.state,
        rtt_ms=_ms(candidate.rtt_us),
        loss_out=_share(candidate.loss_out),
        loss_in=_share(candidate.loss_in),
        score_ms=_ms(candidate.score_us),
        tcp_mbit_s=None if candidate.tcp_bits_s is None else candidate.tcp_bits_s / 1e6,
        verdict="; ".join(part for part in (candidate.verdict, candidate.loss_evidence) if part),
    )


def _switch_view(around: Around, switch: Switch) -> SwitchView:
    control = around.control
    return SwitchView(
        ago_s=(around.now_ns - switch.at_ns) / SECOND_NS,
        before=None if switch.before == DIRECT else name_of(control, switch.before),
        after=None if switch.via == DIRECT else name_of(control, switch.via),
        cause=switch.cause,
        evidence=_named(control, switch.evidence),
        took_s=switch.took_ns / SECOND_NS,
    )


def _worse(report: PeerReport) -> float | None:
    if report.loss_out is None or report.loss_in is None:
        return None
    return max(report.loss_out, report.loss_in) / SHARE


def _ms(us: int | None) -> float | None:
    return None if us is None else us / US_PER_MS


def _share(loss: int | None) -> float | None:
    return None if loss is None else loss / SHARE
