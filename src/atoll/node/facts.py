# SPDX-License-Identifier: Apache-2.0
"""Collects what a diagnosis starts from: of this node, and of its way to another. Pure reads; decides nothing.

The simulator's nodes and the running ones are asked by the same functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from atoll.base.ids import DIRECT, Endpoint, is_tcp
from atoll.base.units import MICROSECOND_NS, SECOND_NS
from atoll.health.members.vitals import Vitals
from atoll.health.model import State
from atoll.health.watch import Standing
from atoll.health.why.facts import Fault, HostFacts, PathFacts
from atoll.node.control import Control
from atoll.node.reporting import name_of
from atoll.overlay.evidence import CandidateReport
from atoll.overlay.mesh import Mesh
from atoll.overlay.policy import TAG_NAMES
from atoll.overlay.sizes import LARGEST_BYTES

__all__ = ["Paths", "Standpoint", "host_facts", "path_facts"]

_ILL: Final = frozenset({State.STUTTER, State.SLOW, State.FAILED})


@final
class Paths:
    """Hands what the mesh measures of its paths to the vitals; once a second."""

    def __init__(self) -> None:
        self._heard: dict[bytes, int] = {}  # When each direct path was heard, as of the last look.
        self._members: tuple[bytes, ...] = ()

    def look(self, mesh: Mesh, vitals: Vitals, now_ns: int) -> None:
        """Hand over what is new."""
        members = mesh.members()
        for node in members:
            measured = mesh.round_trip(node)
            if measured is not None and self._heard.get(node) != measured[0]:
                self._heard[node] = measured[0]
                vitals.linked(node, measured[1], now_ns)
            report = mesh.peer_report(node, now_ns)
            if report is not None and report.rtt_us is not None and report.state != "away":
                vitals.travelled(node, report.rtt_us)
        for node in [node for node in self._members if node not in members]:
            self._heard.pop(node, None)
            vitals.forget(node)
        self._members = members


def host_facts(control: Control, vitals: Vitals, now_ns: int, clock_stepped_s: int = 0) -> HostFacts:
    """Return what a node says of its own machine, and what it finds slow of the others.

    Args:
        control: Its machines.
        vitals: What it measures.
        now_ns: Monotonic time.
        clock_stepped_s: How far its wall clock was set lately.
    """
    reading = vitals.reading
    standings = {standing.component: standing for standing in vitals.standings()}
    loop, work, disk = standings.get("loop"), standings.get("work"), vitals.disk(now_ns)
    ill = [(one.component, one) for one in standings.values() if one.state in _ILL]
    ill += [(f"{one.component.partition(':')[0]}:{name_of(control, of)}", one) for of, one in vitals.faults_of_others()]
    return HostFacts(
        name=control.group.own.name,
        busy_share=None if reading is None else reading.busy_share,
        stolen_share=None if reading is None else _sum(reading.stolen_share, reading.throttled_share),
        own_share=None if reading is None else reading.own_share,
        waiting_share=None if reading is None else reading.waiting_share,
        memory_share=None if reading is None else reading.memory_share,
        io_share=None if reading is None else reading.io_share,
        late_us=_newest_us(loop),
        late_usual_us=_usual_us(loop),
        work_us=_newest_us(work),
        work_usual_us=_usual_us(work),
        disk_us=_newest_us(disk),
        disk_usual_us=_usual_us(disk),
        clock_stepped_s=clock_stepped_s,
        ailments=tuple(_fault(name, one, now_ns) for name, one in ill),
    )


def _fault(name: str, standing: Standing, now_ns: int) -> Fault:
    return Fault(
        component=name,
        state=standing.state.value,
        since_s=max(0, now_ns - standing.since_ns) // SECOND_NS,
        slower_percent=100 * standing.newest_ns // max(1, standing.usual_ns),
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


def _newest_us(standing: Standing | None) -> int | None:
    return None if standing is None or not standing.samples else standing.newest_ns // MICROSECOND_NS


def _usual_us(standing: Standing | None) -> int | None:
    return None if standing is None or standing.usual_ns <= 1 else standing.usual_ns // MICROSECOND_NS


@dataclass(frozen=True, slots=True)
class Standpoint:
    """From where a way is looked at: one node's machines, what it measures, where its members are, and when."""

    control: Control
    vitals: Vitals
    endpoints: Mapping[bytes, Endpoint]
    now_ns: int


def path_facts(here: Standpoint, node: bytes, tag: int) -> PathFacts:
    """Return what is known of the way to a member; of one that is none, nothing."""
    mesh, vitals, now_ns = here.control.mesh, here.vitals, here.now_ns
    report, explanation = mesh.peer_report(node, now_ns), mesh.explain(node, tag, now_ns)
    if report is None or explanation is None:
        return PathFacts()
    ways = {one.via: one for one in explanation.candidates}
    used, direct = ways.get(explanation.chosen), ways.get(DIRECT)
    others = [one for one in explanation.candidates if one.via != explanation.chosen and one.state == "ok"]
    other = min(others, key=lambda one: one.score_us or 0, default=None)
    rule = mesh.config.policy.rule(tag)
    held, swallows, _ = mesh.sizes(node)
    slow, links = vitals.slow_links(node)
    away = report.state == "away"
    return PathFacts(
        state=report.state,
        relay=explanation.chosen != DIRECT,
        direct_state="" if direct is None else direct.state,
        direct_reason="" if direct is None else direct.reason,
        direct_rtt_us=_measured(direct),
        direct_loss_out=None if direct is None else direct.loss_out,
        direct_loss_in=None if direct is None else direct.loss_in,
        rtt_us=None if away or used is None else used.rtt_us,
        usual_rtt_us=vitals.usual_us(node),
        deviation_us=None if away or used is None else used.deviation_us,
        loss_out=None if away or used is None else used.loss_out,
        loss_in=None if away or used is None else used.loss_in,
        floor_us=vitals.floor_us(node),
        best_other_rtt_us=None if other is None else other.rtt_us,
        best_other_name="" if other is None or other.via == DIRECT else name_of(here.control, other.via),
        since_s=max(0, now_ns - explanation.since_ns) // SECOND_NS,
        cause=explanation.cause if explanation.chosen != DIRECT else "",
        forced=TAG_NAMES[tag] if rule.direct_only else "",
        carrier="tcp" if node in here.endpoints and is_tcp(here.endpoints[node]) else "udp",
        mtu=None if swallows is None else held,
        mtu_most=LARGEST_BYTES,
        large_lost=swallows,
        slow_others=slow,
        others=links,
    )


def _measured(way: CandidateReport | None) -> int | None:
    return None if way is None or way.state in {"failed", "unknown"} else way.rtt_us
