# SPDX-License-Identifier: Apache-2.0
"""Decides whether a machine at the end of a path, or on it, is ill: its CPU, memory, disk and clock by its own word.

An effect is needed, not a load: a CPU that is busy and quick is well. What makes a machine late makes its paths look
slow; whether it explains how slow is decided here as well.
"""

from typing import Final

from atoll.health.why.case import BUSY_SHARE_MIN, DISK, LATE, STOLEN_SHARE_MIN, WORK, Case, Machine, Symptom, above
from atoll.health.why.facts import Cause, Finding, HostFacts
from atoll.health.why.wording import load, per_cent, since, times_usual, took, turns, usually

__all__ = ["judge_machine"]

STOLEN_SHARE_ALONE: Final = 2_000  # 1/10000, where no effect was measured: a fifth, as for the verdict ``cpu``.
WAITING_SHARE_MIN: Final = 4_000  # 1/10000 of the time somebody waited for a CPU: batch jobs alone can do that.
OWN_SHARE_MIN: Final = 5_000  # 1/10000: half of a CPU is much for a node.
OWN_SHARE_LOW: Final = 2_000  # 1/10000: below it the node's own work does not make it late.
MEMORY_SHARE_MIN: Final = 1_000  # 1/10000 of the time stalled: a tenth, as for the verdict ``memory``.
MEMORY_SHARE_SURE: Final = 4_000  # 1/10000: so much stalls programs even where the node's own pages stayed.
CLOCK_MS_MIN: Final = 2_000  # Certificates, invitations and one-time passwords bear seconds, not more.
NAMES: Final = {"cpu": "CPU", "loop": "event loop", "work": "usual piece of work"}
CLOCK_US: Final = 1  # It costs no time; it breaks other things.


def judge_machine(case: Case, machine: Machine) -> None:
    """Check one machine, and note what it explains."""
    one, name = machine.facts, machine.name
    if one is None:
        what = "CPU, memory, disk and clock" if machine.is_end else "CPU and memory"
        case.unknown.append(f"{what} of {name}: it did not say")
        return
    excused = _judge_memory(case, machine, one)
    if machine.is_end:  # What a relay forwards it does not write, and nobody asks it for the time.
        excused = _judge_disk(case, machine, one) or excused
        _judge_clock(case, machine, one)
    _judge_cpu(case, machine, one, excused=excused)


def _judge_memory(case: Case, machine: Machine, one: HostFacts) -> bool:
    name, share, sick = machine.name, one.memory_share, machine.ailment("memory")
    if share is None and sick is None:
        case.unknown.append(f"memory of {name}: not measured")
        return False
    verdicts = (LATE.passed(one.late_us, one.late_usual_us), WORK.passed(one.work_us, one.work_usual_us))
    is_felt = True in verdicts or DISK.passed(one.disk_us, one.disk_usual_us) is True
    is_calm = False in verdicts and not is_felt
    much, sure = (share or 0) >= MEMORY_SHARE_MIN, (share or 0) >= MEMORY_SHARE_SURE
    if sick is None and (not much or (is_calm and not sure)):
        quick = ", and the node is not late" if much else ""
        case.clear(Cause.MEMORY, name, f"memory of {name}: programs wait for it {per_cent(share)} of the time{quick}")
        return False
    waits = f"waited for memory {per_cent(share)} of the time" if much else f"wait for memory {times_usual(sick)}"
    confidence = 90 if much and is_felt else 75 if sure else 60
    late_us, explains = _lateness(case, machine, one)
    case.name(
        Finding(
            Cause.MEMORY,
            name,
            f"Programs on {name} {waits}{since(sick)}{turns(one)}.",
            confidence,
            late_us,
            f"on {name} run: free -m; end what uses most of it, or add memory",
        ),
        *explains,
    )
    return is_felt


def _judge_disk(case: Case, machine: Machine, one: HostFacts) -> bool:
    name, sick = machine.name, machine.ailment("disk")
    verdict = DISK.passed(one.disk_us, one.disk_usual_us)
    if verdict is not True and sick is None:
        if verdict is None:
            why = "not measured" if one.disk_us is None else f"{took(one.disk_us)}, and what is usual is not known"
            case.unknown.append(f"disk of {name}: {why}")
        else:
            usual = usually(one.disk_usual_us)
            case.clear(Cause.DISK, name, f"disk of {name}: a durable write takes {took(one.disk_us)}{usual}")
        return False
    takes = f"{took(one.disk_us)}{usually(one.disk_usual_us)}" if verdict else times_usual(sick)
    waits = f"; programs waited for disks {per_cent(one.io_share)} of the time" if one.io_share else ""
    case.name(
        Finding(
            Cause.DISK,
            name,
            f"A durable write on {name} takes {takes}{since(sick)}{waits}.",
            90 if verdict else 65,
            above(one.disk_us, one.disk_usual_us) if verdict else 0,
            f"on {name} run: iostat -x 1; if no program writes that much, look for its errors in: dmesg",
        ),
        *((Symptom.ANSWERS,) if machine is case.there else ()),
    )
    return True


def _judge_cpu(case: Case, machine: Machine, one: HostFacts, *, excused: bool) -> None:
    name, sick = machine.name, machine.ailment("cpu", "loop", "work")
    late = LATE.passed(one.late_us, one.late_usual_us)
    work = WORK.passed(one.work_us, one.work_usual_us)
    is_felt = late is True or work is True
    unmeasured = late is None and work is None
    stolen = (one.stolen_share or 0) >= (STOLEN_SHARE_ALONE if unmeasured else STOLEN_SHARE_MIN)
    if not is_felt and sick is None and not (stolen and unmeasured):
        if unmeasured:
            case.unknown.append(f"CPU of {name}: how late the node turns is not measured")
        else:
            case.clear(Cause.CPU, name, f"CPU of {name}: {load(one)}{turns(one)}")
        return
    loaded = (one.busy_share or 0) >= BUSY_SHARE_MIN or (one.waiting_share or 0) >= WAITING_SHARE_MIN
    if excused and work is not True and sick is None and not stolen and not loaded:
        return  # It waits for memory or the disk, which is told already.
    who, confidence, advice = _eater(one, name, stolen=stolen, loaded=loaded)
    slower = (
        f"; its {NAMES.get(sick.component, sick.component)} takes {times_usual(sick)}{since(sick)}"
        if sick is not None
        else ""
    )
    worked = f"; a fixed piece of work takes {took(one.work_us)}{usually(one.work_usual_us)}" if work else ""
    late_us, explains = _lateness(case, machine, one)
    cost_us = max(late_us, above(one.work_us, one.work_usual_us) if work else 0)
    case.name(
        Finding(
            Cause.CPU,
            name,
            f"{who}{slower}{turns(one)}{worked}.",
            confidence if is_felt else confidence - 20,
            cost_us,
            advice,
        ),
        *explains,
    )


def _eater(one: HostFacts, name: str, *, stolen: bool, loaded: bool) -> tuple[str, int, str]:
    """Return who takes a machine's CPU, how sure that is, and what to do."""
    if stolen:
        who = f"Others on the same hardware take {per_cent(one.stolen_share)} of the CPU of {name}"
        return who, 90, f"ask the provider of {name} for another host, or for a CPU that is not shared"
    own = one.own_share
    if own is not None and own >= OWN_SHARE_MIN and 2 * own >= (one.busy_share or 0):
        who = f"The node itself uses {per_cent(own)} of the CPU of {name}"
        return who, 85, f'send less through {name}: put relay = "never" into its atoll.toml, or give it more CPU'
    if loaded:
        return f"Programs keep the CPU of {name} busy ({load(one)})", 85, f"on {name} run: top"
    if own is not None and own < OWN_SHARE_LOW:
        who = f"The CPU of {name} is withheld although it asks for little ({load(one)})"
        return who, 60, f"on {name} run: vmstat 1; if it is idle there too, ask its provider for another host"
    return f"The CPU of {name} is late, and what takes it is not known", 50, f"on {name} run: top"


def _lateness(case: Case, machine: Machine, one: HostFacts) -> tuple[int, tuple[Symptom, ...]]:
    """Return how much of a round trip a machine's lateness is, and the symptoms that it explains."""
    late = LATE.passed(one.late_us, one.late_usual_us)
    late_us = 0 if late is False else above(one.late_us, one.late_usual_us)
    is_felt = late is True or WORK.passed(one.work_us, one.work_usual_us) is True
    explains = [Symptom.DOUBTFUL]
    if machine is case.there:
        explains.append(Symptom.ANSWERS)
    if Symptom.SLOW in case.symptoms:
        case.late_us[machine.name] = min(late_us, case.excess_us)
        if (machine.is_crowd and is_felt) or one.late_us is None or 2 * late_us >= case.excess_us:
            explains.append(Symptom.SLOW)
            late_us = late_us or case.excess_us
    return late_us, tuple(explains)


def _judge_clock(case: Case, machine: Machine, one: HostFacts) -> None:
    name = machine.name
    ahead_ms = None if machine is case.here else one.clock_ahead_ms
    stepped_s = one.clock_stepped_s
    unsure_ms = (case.path.rtt_us or 0) // 2_000  # The answer may have taken its time in one direction only.
    is_apart = ahead_ms is not None and abs(ahead_ms) > CLOCK_MS_MIN + unsure_ms
    if not is_apart and not stepped_s:
        if ahead_ms is not None:
            case.clear(Cause.CLOCK, name, f"clock of {name}: {took(abs(ahead_ms) * 1000)} from this one")
        elif stepped_s is not None:
            case.clear(Cause.CLOCK, name, f"clock of {name}: not set lately")
        elif machine is not case.here:
            case.unknown.append(f"clock of {name}: not compared")
        return
    parts: list[str] = []
    if is_apart and ahead_ms is not None:
        side = "ahead" if ahead_ms > 0 else "behind"
        parts.append(f"is {took(abs(ahead_ms) * 1000)} {side} of that of {case.here.name}")
    if stepped_s:
        parts.append(f"was set by {took(abs(stepped_s) * 1_000_000)} lately")
    because = f"The clock of {name} {' and '.join(parts)}, which breaks certificates, invitations and one-time codes."
    advice = "on both run: timedatectl; let both take the time from the same servers"
    case.name(Finding(Cause.CLOCK, name, because, 90, CLOCK_US, advice))
