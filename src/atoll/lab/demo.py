# SPDX-License-Identifier: Apache-2.0
"""``atoll demo``: five real nodes on an emulated wide-area network, broken by a script, beside clients without it.

First the script is played in simulation (``twin``), then live. For each trouble two unmodified HTTP clients work at
once: *control* through a forward with the policy ``direct``, *atoll* through an ordinary one. The verdict compares
their waits with what is promised. Then two machines become slow (``slowness``), and in the end a program is kept
running that is moved and whose node is killed (``keeping``). All the while every node is asked for its status: who
calls a machine slow that is not breaks a promise.
"""

import asyncio
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import msgspec

from atoll.base.errors import LinkError, UserError
from atoll.lab import DemoOptions
from atoll.lab.clients import HttpClient, Waits, http_server
from atoll.lab.display import Lines, Row, Screen, Shown
from atoll.lab.keeping import KeepStage, keep_rows
from atoll.lab.kept import KeepReport, keep_lines
from atoll.lab.live import LiveGroup
from atoll.lab.scenario import AFFLICTABLE, SITES, Phase, SlowPhase, Trouble, demo_topology, phases, slow_phases
from atoll.lab.script import LEAD_S, Script
from atoll.lab.slowness import HEARTBEAT_S, SlowReport, SlowStage
from atoll.lab.twin import Twin, play
from atoll.lab.watching import Sighting, Watchman
from atoll.node.views import WhyView

__all__ = ["DEMO_SCHEMA", "Alarm", "DemoReport", "PhaseReport", "main", "perform"]

DEMO_SCHEMA: Final = "atoll.demo/1"


class PhaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one trouble did to both clients. Times in seconds.

    ``silence_s`` is the longest time without an answer, ``promised_s`` the most that is promised for atoll.
    """

    trouble: str
    title: str
    source: str
    target: str
    route: str
    cause: str
    took_s: float | None
    promised_s: float
    usual_s: float
    requests: int
    failed: int
    late: int
    silence_s: float
    control_requests: int
    control_failed: int
    control_late: int
    control_silence_s: float
    kept: bool


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that was well was called slow: when, seconds of script time; by whose status; and in what words."""

    at_s: float
    by: str
    node: str
    words: str


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict.

    ``slow``: the machines that became slow; ``alarms``: who else was called so; ``keeping``: the program that was kept.
    """

    schema: str = DEMO_SCHEMA
    seed: int
    speed: float
    faults: bool
    phases: tuple[PhaseReport, ...]
    simulated: Twin
    kept: bool
    slow: tuple[SlowReport, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    keeping: KeepReport | None = None


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two clients of one trouble."""

    phase: Phase
    atoll: HttpClient
    control: HttpClient


def main(options: DemoOptions) -> int:
    """Run the demo and print its verdict; return the exit status: 0 every promise kept, 1 not."""
    shown: Shown = Screen() if sys.stderr.isatty() and not options.as_json else Lines(quiet=options.as_json)
    with tempfile.TemporaryDirectory(prefix="atoll-") as directory:
        try:
            report = asyncio.run(perform(options, Path(directory), shown))
        except LinkError as error:
            raise UserError("A403", f"the demo could not run: {error}", fix="try again; atoll help A403") from error
    if options.as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        sys.stdout.write(verdict_text(report))
    return 0 if report.kept else 1


async def perform(options: DemoOptions, directory: Path, shown: Shown) -> DemoReport:
    """Play the script of a seed, in simulation and live.

    Args:
        options: As asked for.
        directory: Empty, with a short path; keeps the nodes' state and logs.
        shown: Where the progress is shown.

    Raises:
        UserError: A node did not start.
        LinkError: The emulator ended.
    """
    faults = not options.no_faults
    twin = play(options.seed, faults=faults)
    shown.say(f"seed {options.seed}: the same script in simulation left the trace {twin.trace[:16]}")
    shown.say(f"starting {len(SITES)} nodes ({', '.join(SITES)}) on an emulated wide-area network ...")
    running = LiveGroup.running(SITES, demo_topology(), directory, seed=options.seed, afflictable=AFFLICTABLE)
    async with running as group:
        with http_server(group.served_by) as port:
            script, watchman = Script(options.speed), Watchman(group)
            slow_stage = SlowStage(group, watchman, shown, script, port)
            keep_stage = KeepStage(group, shown, script, directory / "copies")
            pairs = [await _clients(group, phase, port) for phase in phases(options.seed)]
            async with watchman.watching():
                stage = _Stage(group, shown, script, slow_stage, keep_stage)
                reports, slow, keeping = await stage.play(pairs, slow_phases(options.seed), faults=faults)
            alarms = tuple(_alarm(one, script) for one in watchman.besides(slow_stage.afflicted))
    return DemoReport(
        seed=options.seed,
        speed=options.speed,
        faults=faults,
        phases=reports,
        simulated=twin,
        kept=not alarms and keeping.kept and all(one.kept for one in reports) and all(one.kept for one in slow),
        slow=slow,
        alarms=alarms,
        keeping=keeping,
    )


def _alarm(one: Sighting, script: Script) -> Alarm:
    return Alarm(at_s=script.at_s(one.at_s), by=one.by, node=one.node, words=one.words)


async def _clients(group: LiveGroup, phase: Phase, port: int) -> _Pair:
    healed = await group.forward(phase.source, phase.target, port)
    control = await group.forward(phase.source, phase.target, port, tag="direct")
    return _Pair(phase, HttpClient(healed), HttpClient(control))


@final
class _Stage:
    """Plays the script on a live group."""

    def __init__(
        self, group: LiveGroup, shown: Shown, script: Script, slow_stage: SlowStage, keep_stage: KeepStage
    ) -> None:
        self._group, self._shown, self._script = group, shown, script
        self._slow_stage, self._keep_stage = slow_stage, keep_stage

    async def play(
        self, pairs: list[_Pair], slow_phases: tuple[SlowPhase, ...], *, faults: bool
    ) -> tuple[tuple[PhaseReport, ...], tuple[SlowReport, ...], KeepReport]:
        """Play all phases; return what each did, by onset: to paths, to machines, and to a program that was kept."""
        rows = [Row(pair.phase.title, f"{pair.phase.source} to {pair.phase.target}") for pair in pairs]
        slow_rows = [Row(phase.title, f"{phase.source} to {phase.target}") for phase in slow_phases]
        last_rows = keep_rows(faults=faults)
        drawing = asyncio.create_task(self._shown.follow([*rows, *slow_rows, *last_rows]))
        slowness = asyncio.create_task(self._slow_stage.play(slow_phases, slow_rows, faults=faults))
        try:
            work = (self._phase(pair, row, faults=faults) for pair, row in zip(pairs, rows, strict=True))
            reports = await asyncio.gather(*work)
            slow = await slowness
            keeping = await self._keep_stage.play(last_rows, faults=faults)
        finally:
            slowness.cancel()  # Whoever is stopped must run again before anything else ends.
            await asyncio.wait({slowness})
            drawing.cancel()
            with suppress(asyncio.CancelledError):
                await drawing
            for pair in pairs:
                pair.atoll.pacer.ask_to_stop()
                pair.control.pacer.ask_to_stop()
        return tuple(reports), slow, keeping

    async def _phase(self, pair: _Pair, row: Row, *, faults: bool) -> PhaseReport:
        phase = pair.phase
        await self._script.until(phase.begin_ms / 1000 - LEAD_S)
        pair.atoll.pacer.start()
        pair.control.pacer.start()
        await self._script.until(phase.begin_ms / 1000)
        struck_s = await self._strike(phase) if faults else None
        onset_s = asyncio.get_running_loop().time() if struck_s is None else struck_s
        row.state = "broken" if faults else "untouched"
        row.waits = lambda: _silences(pair, onset_s, asyncio.get_running_loop().time())
        await self._script.until(phase.end_ms / 1000)
        end_s = asyncio.get_running_loop().time()
        why = await self._group.why(phase.source, phase.target)
        if faults and phase.trouble is not Trouble.RELAY_KILLED:
            await self._group.emulator.mend(phase.trouble.value)
        atoll, control = pair.atoll.waits(onset_s, end_s), pair.control.waits(onset_s, end_s)
        pair.atoll.pacer.ask_to_stop()
        pair.control.pacer.ask_to_stop()
        healing = Healing.of(why, asyncio.get_running_loop().time() - onset_s)
        # A trouble that did not come proves nothing.
        report = told(phase, atoll, control, healing, came=not faults or struck_s is not None)
        row.state, row.route = "kept" if report.kept else "MISSED", report.route
        row.waits = lambda: (report.control_silence_s, report.silence_s)
        self._shown.say(_line(report))
        return report

    async def _strike(self, phase: Phase) -> float | None:
        """Break what the phase breaks; return when, in seconds of the monotonic clock, or None: it could not."""
        group, key = self._group, phase.trouble.value
        match phase.trouble:
            case Trouble.LOSS | Trouble.ONE_WAY_LOSS:
                both = phase.trouble is Trouble.LOSS
                at_ns = await group.emulator.impair(phase.source, phase.target, key, loss=phase.loss, both=both)
            case Trouble.BLACKHOLE:
                at_ns = await group.emulator.blackhole(phase.source, phase.target, key)
            case Trouble.RELAY_KILLED:
                why = await group.why(phase.source, phase.target)
                at_ns = int(asyncio.get_running_loop().time() * 1e9)
                if len(why.path) <= 2:
                    self._shown.say(f"no relay to kill: {phase.source} reaches {phase.target} directly")
                    return None
                group.kill(why.path[1])
        way = "->" if phase.trouble is Trouble.ONE_WAY_LOSS else "<->"
        self._shown.say(f"t={self._script.now_s():4.1f} s  {phase.title} {phase.source}{way}{phase.target}")
        return at_ns / 1e9


def _silences(pair: _Pair, onset_s: float, now_s: float) -> tuple[float, float]:
    return pair.control.waits(onset_s, now_s).silence_s, pair.atoll.waits(onset_s, now_s).silence_s


@dataclass(frozen=True, slots=True)
class Healing:
    """What the overlay did about a trouble: its first change of route since, as a later one answers a later trouble."""

    route: str
    cause: str = ""
    took_s: float | None = None

    @staticmethod
    def of(why: WhyView, since_s: float) -> "Healing":
        """Return it from a node's own history, whatever its order; ``since_s``: how long ago the trouble began."""
        since = [switch for switch in why.history if switch.cause != "start" and switch.ago_s <= since_s]
        if not since:
            return Healing("->".join(why.path))
        first = max(since, key=lambda switch: switch.ago_s)
        relays = () if first.after is None else (first.after,)
        return Healing("->".join((why.source, *relays, why.target)), first.cause, first.took_s)


def told(phase: Phase, atoll: Waits, control: Waits, healing: Healing, *, came: bool) -> PhaseReport:
    """Return what a trouble did to both clients; the promise is kept only if it ``came`` and somebody was there."""
    promised_s = phase.silence_max_ms / 1000 + atoll.usual_s
    return PhaseReport(
        trouble=phase.trouble.value,
        title=phase.title,
        source=phase.source,
        target=phase.target,
        route=healing.route,
        cause=healing.cause,
        took_s=healing.took_s,
        promised_s=promised_s,
        usual_s=atoll.usual_s,
        requests=atoll.requests,
        failed=atoll.failed,
        late=atoll.late,
        silence_s=atoll.silence_s,
        control_requests=control.requests,
        control_failed=control.failed,
        control_late=control.late,
        control_silence_s=control.silence_s,
        kept=came and atoll.requests > 0 and atoll.failed == 0 and atoll.silence_s <= promised_s,
    )


def _line(report: PhaseReport) -> str:
    return (
        f"           {report.title}: {report.source} reaches {report.target} by {report.route}; longest wait "
        f"{report.silence_s:.2f} s (direct {report.control_silence_s:.1f} s)"
    )


def verdict_text(report: DemoReport) -> str:
    """Return the closing table for people."""
    lines = [f"{'':<46}{'control':>14}{'atoll':>14}"]
    for phase in report.phases:
        name = f"{phase.title}, {phase.source} to {phase.target}"
        control_hurt, hurt = phase.control_late + phase.control_failed, phase.late + phase.failed
        route = "" if phase.took_s is None else f"   rerouted {phase.route} in {phase.took_s:.2f} s"
        kept = "" if phase.kept else f"   MISSED: promised {phase.promised_s:.2f} s"
        lines.append(
            f"{name:<32}{'longest wait':<14}{phase.control_silence_s:>12.2f} s{phase.silence_s:>12.2f} s{route}"
        )
        hurts = f"{control_hurt:>8} / {phase.control_requests:<3}{hurt:>8} / {phase.requests:<3}"
        lines.append(f"{'':<32}{'late or lost':<14}  {hurts}{kept}".rstrip())
    for slow in report.slow:
        lines += _slow_lines(slow)
    lines += [] if report.keeping is None else keep_lines(report.keeping)
    for alarm in report.alarms:
        lines.append(f"FALSE ALARM: {alarm.by} called {alarm.node} slow at t={alarm.at_s:.1f} s: {alarm.words}")
    if not report.faults and not report.alarms:
        lines.append("nobody was called slow")
    verdict = "every promise kept" if report.kept else "a promise was MISSED"
    lines.append(f"{verdict}   seed {report.seed}   repeat: atoll demo --seed {report.seed}     for real: atoll up")
    return "\n".join(lines) + "\n"


def _slow_lines(slow: SlowReport) -> list[str]:
    """Return the two lines of a machine that was slow."""
    name, what = f"{slow.title}, {slow.node}" if slow.node else slow.title, "longest wait"
    waits = f"{slow.control_silence_s:>12.2f} s{slow.silence_s:>12.2f} s"
    if not slow.node:
        return [f"{name:<32}{'longest wait':<14}{waits}{_missed(slow)}"]
    heartbeats = "nobody" if slow.unheard_s < HEARTBEAT_S else f"{slow.unheard_s:.2f} s"
    found = "nobody" if slow.found_s is None else f"{slow.found_s:.2f} s"
    words = f"   {slow.node}: {slow.words.partition(', for ')[0]}" if slow.words else ""
    avoided = f" after {slow.avoided_s:.2f} s" if slow.avoided_s is not None else ""
    if avoided and slow.switch:
        avoided = f"   rerouted {slow.instead}{avoided} ({slow.switch})"
    elif avoided:
        avoided = f"   new connections go to {slow.instead}{avoided}"
        what, waits = "then an answer", f"{slow.control_answer_s:>12.2f} s{slow.answer_s:>12.2f} s"
    return [
        f"{name:<32}{'found by':<14}{heartbeats:>14}{found:>14}{words}",
        f"{'':<32}{what:<14}{waits}{avoided}{_missed(slow)}",
    ]


def _missed(slow: SlowReport) -> str:
    if slow.kept:
        return ""
    found = f"found in {slow.found_max_s:.1f} s, avoided in {slow.avoided_max_s:.1f} s, " if slow.node else ""
    named = f"; named: {slow.cause or 'nothing'}" if slow.node else ""
    return f"   MISSED: promised {found}no wait above {slow.silence_max_s:.2f} s{named}"
