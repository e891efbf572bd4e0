# SPDX-License-Identifier: Apache-2.0
"""Finds out why it is slow to a member: asks all who know something, at once, and has the answers judged.

The judge is ``health/why/diagnosis.py``. Here are the questions: to the far member and to the relay, how their machines
are; to the mesh, what size of packets the way carries; and, where a port was named, to the far member, whether its
rules let us in and its program answers. Whoever does not answer in time is told as not known.
"""

import asyncio
from contextlib import suppress
from typing import Final, final

import msgspec

from atoll.base.errors import LimitError
from atoll.base.ids import DIRECT, NodeId
from atoll.base.units import MICROSECOND_NS, MILLISECOND_NS, SECOND_NS
from atoll.health.why.diagnosis import diagnose
from atoll.health.why.facts import Facts, Fault, Finding, HostFacts, ServiceFacts
from atoll.node.asking import ask_health
from atoll.node.facts import Standpoint, host_facts, path_facts
from atoll.node.reporting import name_of
from atoll.node.service import Node
from atoll.node.views import AilmentView, DiagnosisView, FindingView, HealthView, ServiceView
from atoll.overlay.reports import SizesAsked

__all__ = ["Diagnostics", "facts_told"]

WAIT_S: Final = 2.5  # Limit. For the others' answers; the command line waits for 10 s, and another node for 5.
SIZES_S: Final = 1.5  # For three tries of each size.
SIZES_STEP_S: Final = 0.1
CONNECT_S: Final = 1.0  # For our own connection to our own program.
KEPT_NS: Final = 5 * SECOND_NS  # What was found for one member is told to others for so long.
GAP_NS: Final = SECOND_NS  # Limit. Between two diagnoses for members.
US_PER_MS: Final = 1000

_SHARED: Final = frozenset(HostFacts.__struct_fields__) & frozenset(HealthView.__struct_fields__) - {"ailments"}


@final
class Diagnostics:
    """Of one running node.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._told: dict[tuple[NodeId, int], tuple[int, DiagnosisView]] = {}  # To members: when, what.
        self._finding: asyncio.Future[DiagnosisView] | None = None  # The one for a member that is under way.
        self._found_ns: int | None = None  # When the last one for a member began.

    async def diagnose_for_member(self, target: NodeId, tag: int) -> DiagnosisView | None:
        """Find it out because a member asks; None: too much was asked of this node lately.

        A question here makes questions to others, who count them as ours. So what was found is kept for a while, one
        is found out at a time, and at most one a second, whoever asks. Ports are left out: the far member would judge
        us, and not who asks.
        """
        clock = self._node.plan.clock
        now_ns, key = clock.monotonic_ns(), (target, tag)
        told = self._told.get(key)
        if told is not None and now_ns - told[0] < KEPT_NS:
            return told[1]
        if self._finding is not None or (self._found_ns is not None and now_ns - self._found_ns < GAP_NS):
            return None
        self._found_ns = now_ns
        self._finding = asyncio.ensure_future(self.diagnose(target, tag, 0, is_own=False))
        try:
            view = await self._finding
        finally:
            self._finding = None
        self._told = {one: kept for one, kept in self._told.items() if now_ns - kept[0] < KEPT_NS}
        self._told[key] = now_ns, view
        return view

    async def diagnose(self, target: NodeId, tag: int, port: int, *, is_own: bool = True) -> DiagnosisView:
        """Find out why it is slow from here to a member, and to a port of it unless 0; takes up to WAIT_S.

        Args:
            target: The member.
            tag: Of the packets.
            port: Of the member; 0: none.
            is_own: Whether somebody here asks; what others make us measure teaches us nothing.
        """
        node, clock = self._node, self._node.plan.clock
        around = node.around()
        report = around.control.mesh.peer_report(target, around.now_ns)
        explanation = around.control.mesh.explain(target, tag, around.now_ns)
        relay = NodeId(DIRECT if explanation is None else explanation.chosen)
        reached = report is not None and report.state in {"ok", "degraded"}
        (there, service), (between, _), _ = await asyncio.gather(
            self._asked(target, port, is_own=is_own) if reached else _nobody(),
            self._asked(relay, 0, is_own=is_own) if relay else _nobody(),
            self._sizes(target) if reached else _nothing(),
        )
        now_ns, vitals = clock.monotonic_ns(), node.senses.vitals
        path = path_facts(Standpoint(node.control, vitals, around.endpoints, now_ns), target, tag)
        if there is not None:
            told = there[1]
            path = msgspec.structs.replace(path, far_slow_others=told.slow_links, far_others=told.links)
        facts = Facts(
            here=self._here(),
            there=None if there is None else there[0],
            there_name=name_of(node.control, target),
            relay=None if between is None else between[0],
            relay_name=name_of(node.control, relay) if relay else "",
            path=path,
            service=service,
        )
        return _view(facts)

    async def tell(self, asker: NodeId, port: int) -> HealthView:
        """Say how this machine is to a member that asks, and how a port of it is that this member may reach."""
        node, clock = self._node, self._node.plan.clock
        service = await self._service(asker, port) if port else None
        facts, vitals = self._here(), node.senses.vitals
        slow, links = vitals.slow_links(asker)
        return HealthView(
            **{name: getattr(facts, name) for name in sorted(_SHARED)},
            ailments=tuple(
                AilmentView(
                    component=one.component, state=one.state, since_s=one.since_s, slower_percent=one.slower_percent
                )
                for one in facts.ailments
            ),
            wall_ms=clock.wall_ns() // MILLISECOND_NS,
            slow_links=slow,
            links=links,
            service=service,
        )

    def _here(self) -> HostFacts:
        around = self._node.around()
        return host_facts(around.control, self._node.senses.vitals, around.now_ns, around.clock_stepped_s)

    async def _asked(
        self, member: NodeId, port: int, *, is_own: bool
    ) -> "tuple[tuple[HostFacts, HealthView] | None, ServiceFacts | None]":
        clock = self._node.plan.clock
        before_ms, asked_ns = clock.wall_ns() // MILLISECOND_NS, clock.monotonic_ns()
        teaches = is_own and not port and self._node.stack.streams.stands(member, 0)
        view: HealthView | None = None
        with suppress(TimeoutError, LimitError):
            async with asyncio.timeout(WAIT_S):
                view = await ask_health(self._node.stack.streams, member, port)
        if view is None:
            return None, ServiceFacts(port=port) if port else None
        now_ns = clock.monotonic_ns()
        report = self._node.control.mesh.peer_report(member, now_ns)
        if teaches and report is not None and report.rtt_us is not None:
            beyond_ns = now_ns - asked_ns - report.rtt_us * MICROSECOND_NS
            self._node.senses.vitals.answered(member, max(1, beyond_ns), now_ns)
        middle_ms = (before_ms + clock.wall_ns() // MILLISECOND_NS) // 2
        host = facts_told(name_of(self._node.control, member), view, middle_ms)
        return (host, view), _service_told(port, view.service)

    async def _sizes(self, target: NodeId) -> None:
        """Have the way's sizes asked for, and wait for that."""
        node = self._node
        node.feed(SizesAsked(target))
        for _ in range(int(SIZES_S / SIZES_STEP_S)):
            await node.pause(SIZES_STEP_S)
            _, swallows, under_way = node.control.mesh.sizes(target)
            if swallows is not None and not under_way:
                return

    async def _service(self, asker: NodeId, port: int) -> ServiceView:
        """Try a port of this machine, if whoever asks may reach it."""
        node, loop = self._node, asyncio.get_running_loop()
        verdict, rules = node.judged(node.book().called(asker), "tcp", port)
        view = ServiceView(
            port=port,
            allowed=verdict.allowed,
            rule="" if verdict.rule is None else verdict.rule.text,
            line="" if verdict.rule is None else rules.place_of(verdict.rule),
        )
        if not verdict.allowed:
            return view
        began = loop.time()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
        except TimeoutError:  # It listens, and takes nobody.
            return msgspec.structs.replace(view, listening=True, connect_us=int(CONNECT_S * 1e6))
        except OSError:
            return msgspec.structs.replace(view, listening=False)
        connect_us = int((loop.time() - began) * 1e6)
        writer.transport.abort()
        standing = node.senses.vitals.program(port)
        return msgspec.structs.replace(
            view,
            listening=True,
            connect_us=connect_us,
            first_byte_us=None if standing is None else standing.newest_ns // MICROSECOND_NS,
            first_byte_usual_us=None if standing is None else standing.usual_ns // MICROSECOND_NS,
        )


async def _nobody() -> tuple[None, None]:
    return None, None


async def _nothing() -> None:
    return None


def facts_told(name: str, view: HealthView, own_wall_ms: int) -> HostFacts:
    """Return what a member said of its machine as facts.

    Args:
        name: The member's.
        view: What it said.
        own_wall_ms: What our own wall clock showed when it said so, as well as we know.
    """
    return HostFacts(
        **{name: getattr(view, name) for name in sorted(_SHARED)},
        name=name,
        ailments=tuple(Fault(one.component, one.state, one.since_s, one.slower_percent) for one in view.ailments),
        clock_ahead_ms=None if view.wall_ms is None else view.wall_ms - own_wall_ms,
    )


def _service_told(port: int, view: ServiceView | None) -> ServiceFacts | None:
    if not port:
        return None
    return ServiceFacts(port=port) if view is None else ServiceFacts(**msgspec.structs.asdict(view))


def _view(facts: Facts) -> DiagnosisView:
    found = diagnose(facts)
    return DiagnosisView(
        symptom=found.symptom,
        findings=tuple(_finding(one) for one in found.findings),
        not_it=found.not_it,
        unknown=found.unknown,
    )


def _finding(one: Finding) -> FindingView:
    return FindingView(
        cause=one.cause.value,
        where=one.where,
        because=one.because,
        confidence=one.confidence,
        costs_ms=one.weight_us / US_PER_MS if one.weight_us > 0 else None,
        next=one.next,
    )
