# SPDX-License-Identifier: Apache-2.0
"""The demo's last two phases: a machine becomes slow while it answers every probe. It is found, named and avoided.

*Found*: another member's ``status`` calls it slow, and for the right reason. *Named*: ``atoll why`` of that member
names the right cause at that machine. *Avoided*: what went through the machine, or would have, goes elsewhere.

* *Stolen CPU*: the direct path of the client is dead, and the relay that took its place loses four fifths of its CPU
  (``lab/stealing.py``). The route has to leave it.
* *Slow disk*: one of two machines writes a hundred times as slowly (``lab/afflicted.py``). On both is a program that
  writes durably before it answers. The forward that leads to both has to take new connections to the other one; its
  control leads to the slow one alone.

Heartbeats find neither, which is shown beside it: the longest that any member did not hear of the machine.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final, final

import msgspec

from atoll.lab.clients import HttpClient, Visitor, Waits
from atoll.lab.display import Row, Shown
from atoll.lab.live import LiveGroup
from atoll.lab.scenario import Affliction, SlowPhase
from atoll.lab.script import LEAD_S, Script
from atoll.lab.watching import Sighting, Watchman
from atoll.node.views import DiagnosisView, SwitchView, WhyView

__all__ = ["HEARTBEAT_S", "WORDS", "Avoided", "Found", "SlowReport", "SlowStage", "left", "named", "told_slow"]

# Beginnings of what ``status`` says of a component (``node/reporting.py``), by what the machine suffers from.
WORDS: Final = {
    Affliction.STOLEN_CPU: ("held up for", "processor"),
    Affliction.SLOW_DISK: ("disk write",),
}
CAUSES: Final = {Affliction.STOLEN_CPU: "cpu", Affliction.SLOW_DISK: "disk"}
COMPONENTS: Final = {Affliction.STOLEN_CPU: "loop", Affliction.SLOW_DISK: "disk"}
LEARNT_S_MAX: Final = 40.0  # Limit. A node has learnt what its disk usually takes after 16 s.
AVOIDED_S_MAX: Final = 3.0  # The promise: so long after it was found nothing new goes there.
AFTER_S: Final = 2.0  # What was avoided is to stay so for as long.
QUIET_S: Final = 5.0  # How long each phase lasts without faults.
HEARTBEAT_S: Final = 5.0  # Who was heard within it, no heartbeat would call dead.
POLL_S: Final = 0.1


class SlowReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one machine that was slow. Times in seconds; those that end in ``_s`` count from the onset.

    Attributes:
        affliction: What it suffered from.
        title: The same for the table.
        node: The machine; empty: none was afflicted.
        source: Site of the client.
        target: Site of its server; for a slow disk, of the second one.
        found_s: When another member's status called it slow for the right reason; None: none did.
        found_by: That member.
        found_max_s: The promise.
        words: What its status said.
        cause: The first cause that ``why`` of that member named at the machine; empty: none.
        because: In words.
        unheard_s: The longest that any other member had not heard the machine.
        avoided_s: When its place was taken; None: never. ``avoided_max_s``: the promise.
        instead: What took it: a route, or another server.
        switch: Of a route: why it was changed.
        answer_s: Median time of the answers to what the client asked after ``avoided_s``; 0: there was none.
        control_answer_s: The same without atoll's help, since the onset.
        usual_s: Median time of an answer before the onset.
        requests: Of the client, or its connections; ``failed`` of them, ``late`` ones; its longest wait, ``silence_s``,
            and the most that is promised, ``silence_max_s``. ``control_...``: the same without atoll's help.
        kept: Whether every promise was.
    """

    affliction: str
    title: str
    node: str
    source: str
    target: str
    found_s: float | None
    found_by: str
    found_max_s: float
    words: str
    cause: str
    because: str
    unheard_s: float
    avoided_s: float | None
    avoided_max_s: float
    instead: str
    switch: str
    answer_s: float
    control_answer_s: float
    usual_s: float
    requests: int
    failed: int
    late: int
    silence_s: float
    silence_max_s: float
    control_requests: int
    control_failed: int
    control_late: int
    control_silence_s: float
    kept: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Who found the machine, and what was named. ``sighting`` None: nobody did. Seconds since the onset."""

    node: str
    sighting: Sighting | None = None
    found_s: float | None = None
    cause: str = ""
    because: str = ""
    unheard_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Avoided:
    """What took the machine's place, and what the clients saw. As in ``SlowReport``."""

    atoll: Waits
    control: Waits
    avoided_s: float | None = None
    instead: str = ""
    switch: str = ""
    answer_s: float = 0.0
    control_answer_s: float = 0.0


def told_slow(phase: SlowPhase, found: Found, avoided: Avoided, *, faults: bool) -> SlowReport:
    """Return what became of a machine; without faults the promise is that nothing did."""
    atoll, control, sighting = avoided.atoll, avoided.control, found.sighting
    found_max_s = phase.found_max_ms / 1000
    avoided_max_s = found_max_s + AVOIDED_S_MAX
    silence_max_s = phase.silence_max_ms / 1000 + atoll.usual_s
    well = atoll.requests > 0 and atoll.failed == 0 and atoll.silence_s <= silence_max_s
    is_found = found.found_s is not None and found.found_s <= found_max_s
    is_avoided = avoided.avoided_s is not None and avoided.avoided_s <= avoided_max_s
    is_named = found.cause == CAUSES[phase.affliction]
    return SlowReport(
        affliction=phase.affliction.value,
        title=phase.title,
        node=found.node,
        source=phase.source,
        target=phase.target,
        found_s=found.found_s,
        found_by="" if sighting is None else sighting.by,
        found_max_s=found_max_s,
        words="" if sighting is None else sighting.words,
        cause=found.cause,
        because=found.because,
        unheard_s=found.unheard_s,
        avoided_s=avoided.avoided_s,
        avoided_max_s=avoided_max_s,
        instead=avoided.instead,
        switch=avoided.switch,
        answer_s=avoided.answer_s,
        control_answer_s=avoided.control_answer_s,
        usual_s=atoll.usual_s,
        requests=atoll.requests,
        failed=atoll.failed,
        late=atoll.late,
        silence_s=atoll.silence_s,
        silence_max_s=silence_max_s,
        control_requests=control.requests,
        control_failed=control.failed,
        control_late=control.late,
        control_silence_s=control.silence_s,
        kept=well and (not faults or (is_found and is_named and is_avoided)),
    )


@final
class SlowStage:
    """Plays these phases on a live group, one after the other.

    Args:
        group: Whose nodes of ``AFFLICTABLE`` can be afflicted.
        watchman: Watches it.
        shown: Where the progress is shown.
        script: The script's clock.
        port: Loopback port of the server.

    Attributes:
        afflicted: The nodes that were, so far.
    """

    def __init__(self, group: LiveGroup, watchman: Watchman, shown: Shown, script: Script, port: int) -> None:
        self._group, self._watchman, self._shown, self._script, self._port = group, watchman, shown, script, port
        self.afflicted: Final[list[str]] = []
        self._unheard_s = 0.0

    async def play(self, phases: tuple[SlowPhase, ...], rows: list[Row], *, faults: bool) -> tuple[SlowReport, ...]:
        """Play the phases in order."""
        reports: list[SlowReport] = []
        for phase, row in zip(phases, rows, strict=True):
            report = await (self._stolen if phase.affliction is Affliction.STOLEN_CPU else self._disk)(
                phase, row, faults=faults
            )
            row.state, row.route = "kept" if report.kept else "MISSED", report.instead
            row.waits = partial(_final, report)
            reports.append(report)
        return tuple(reports)

    async def _stolen(self, phase: SlowPhase, row: Row, *, faults: bool) -> SlowReport:
        group, key = self._group, phase.affliction.value
        await self._script.until(phase.begin_ms / 1000 - LEAD_S)
        if faults:  # So that there is a relay.
            await group.emulator.blackhole(phase.source, phase.target, key)
        atoll = HttpClient(await group.forward(phase.source, phase.target, self._port))
        control = HttpClient(await group.forward(phase.source, phase.target, self._port, tag="direct"))
        atoll.pacer.start()
        control.pacer.start()
        await self._script.until(phase.begin_ms / 1000)
        why = await group.why(phase.source, phase.target)
        relay = why.path[1] if faults and len(why.path) > 2 else ""
        await self._learnt(relay, phase)
        onset_s = self._begin(phase, row, relay, f"relays {phase.source} to {phase.target}")
        row.waits = lambda: _silences(atoll, control, onset_s)
        found = Found("")
        if relay:
            async with group.stolen_cpu(relay):
                found = await self._look_for(phase, relay, onset_s)
                await self._watchman.until(lambda: self._via(phase) != relay, self._now() + AVOIDED_S_MAX)
                await asyncio.sleep(AFTER_S)
        else:
            await asyncio.sleep(QUIET_S)
        end_s, why = self._now(), await group.why(phase.source, phase.target)
        atoll.pacer.ask_to_stop()
        control.pacer.ask_to_stop()
        await group.emulator.mend(key)
        avoided_s, switch = left(why, relay, self._now() - onset_s)
        avoided = Avoided(
            atoll.waits(onset_s, end_s), control.waits(onset_s, end_s), avoided_s, "->".join(why.path), switch
        )
        return self._told(phase, found, avoided, faults=faults)

    async def _disk(self, phase: SlowPhase, row: Row, *, faults: bool) -> SlowReport:
        group = self._group
        await self._script.until(phase.begin_ms / 1000 - LEAD_S)
        living = group.living()
        node = next(name for name in group.afflictable if name in living and name not in self.afflicted)
        await self._learnt(node, phase)
        atoll = Visitor(await group.forward(phase.source, f"{node},{phase.target}", self._port))
        control = Visitor(await group.forward(phase.source, node, self._port))
        atoll.pacer.start()
        control.pacer.start()
        await asyncio.sleep(LEAD_S)
        onset_s = self._begin(phase, row, node if faults else "", "writes durably")
        row.waits = lambda: _silences(atoll, control, onset_s)
        found = Found("")
        if faults:
            with group.slow_disk(node):
                found = await self._look_for(phase, node, onset_s)
                await self._watchman.until(lambda: atoll.moved_s(node) is not None, self._now() + AVOIDED_S_MAX)
                await asyncio.sleep(AFTER_S)
        else:
            await asyncio.sleep(QUIET_S)
        end_s = self._now()
        atoll.pacer.ask_to_stop()
        control.pacer.ask_to_stop()
        moved_s = atoll.moved_s(node)
        since_s = end_s if moved_s is None else moved_s
        avoided = Avoided(
            atoll.waits(onset_s, end_s),
            control.waits(onset_s, end_s),
            None if moved_s is None or not faults else max(0.0, moved_s - onset_s),
            ",".join(atoll.hosts(since_s, end_s)) if faults else "",
            answer_s=atoll.answer_s(since_s, end_s),
            control_answer_s=control.answer_s(onset_s, end_s),
        )
        return self._told(phase, found, avoided, faults=faults)

    async def _learnt(self, node: str, phase: SlowPhase) -> None:
        """Wait until a node knows what is usual for itself: nothing can be called slow before."""
        give_up_s, said = self._now() + LEARNT_S_MAX, False
        while node and self._now() < give_up_s:
            components = {one.name: one for one in (await self._group.status(node)).components}
            one = components.get(COMPONENTS[phase.affliction])
            if one is not None and one.state == "ok":
                return
            if not said:
                said = True
                self._shown.say(f"           {phase.title}: waiting until {node} knows what is usual for it ...")
            await asyncio.sleep(POLL_S)

    def _begin(self, phase: SlowPhase, row: Row, node: str, which: str) -> float:
        """Say that it begins; return when, seconds of the monotonic clock."""
        row.state = "slow" if node else "untouched"
        self._unheard_s = 0.0
        if node:
            row.title = f"{phase.title}, {node}"
            self.afflicted.append(node)
            self._shown.say(
                f"t={self._script.now_s():4.1f} s  {phase.title}: {node}, which {which}; it answers every probe, and "
                f"it has to last to be told ..."
            )
        return self._now()

    async def _look_for(self, phase: SlowPhase, node: str, onset_s: float) -> Found:
        """Wait until another member's status calls a node slow, then ask that member why."""
        words, watchman = WORDS[phase.affliction], self._watchman

        def is_found() -> bool:
            self._listen(node)
            return watchman.first(node, onset_s, words) is not None

        await watchman.until(is_found, onset_s + phase.found_max_ms / 1000)
        sighting = watchman.first(node, onset_s, words)
        if sighting is None:
            return Found(node, unheard_s=self._unheard_s)
        found_s = sighting.at_s - onset_s
        self._shown.say(
            f"           {phase.title}: {sighting.by} calls {node} slow after {found_s:.1f} s: {sighting.words}"
        )
        diagnosis = (await self._group.why(sighting.by, node)).diagnosis
        cause, because = named(diagnosis, node)
        self._listen(node)
        return Found(node, sighting, found_s, cause, because, self._unheard_s)

    def _listen(self, node: str) -> None:
        """Note for how long others have not heard a node."""
        for by in self._group.names:
            peer = self._watchman.peer(by, node)
            if peer is not None and peer.last_heard_s is not None and not self._group.has_ended(by):
                self._unheard_s = max(self._unheard_s, peer.last_heard_s)

    def _via(self, phase: SlowPhase) -> str | None:
        peer = self._watchman.peer(phase.source, phase.target)
        return None if peer is None else peer.via

    def _told(self, phase: SlowPhase, found: Found, avoided: Avoided, *, faults: bool) -> SlowReport:
        report = told_slow(phase, found, avoided, faults=faults)
        self._shown.say(_line(report))
        return report

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def left(why: WhyView, relay: str, since_s: float) -> tuple[float | None, str]:
    """Return when a route first left a relay, seconds since the onset, and why; None: it did not, or is back there.

    Args:
        why: The source's own.
        relay: Which; empty: there was none.
        since_s: How long ago the onset was.
    """
    changes = [one for one in why.history if one.before == relay and one.ago_s <= since_s]
    if not relay or relay in why.path or not changes:
        return None, ""
    first = max(changes, key=_age)
    return since_s - first.ago_s, first.cause


def _age(change: SwitchView) -> float:
    return change.ago_s


def named(diagnosis: DiagnosisView | None, node: str) -> tuple[str, str]:
    """Return the first cause that was named at a machine, and in words."""
    findings = () if diagnosis is None else diagnosis.findings
    return next(((one.cause, one.because) for one in findings if one.where == node), ("", ""))


def _silences(atoll: HttpClient | Visitor, control: HttpClient | Visitor, onset_s: float) -> tuple[float, float]:
    now_s = monotonic()
    return control.waits(onset_s, now_s).silence_s, atoll.waits(onset_s, now_s).silence_s


def _final(report: SlowReport) -> tuple[float, float]:
    return report.control_silence_s, report.silence_s


def _line(report: SlowReport) -> str:
    if report.found_s is None:
        what = f"{report.node} was not found in {report.found_max_s:.0f} s" if report.node else "nobody was afflicted"
    else:
        avoided = f"after {report.avoided_s:.1f} s {report.instead}" if report.avoided_s is not None else "not avoided"
        what = f"named {report.cause or 'nothing'} at {report.node}; {avoided}"
    return f"           {report.title}: {what}; longest wait {report.silence_s:.2f} s"
