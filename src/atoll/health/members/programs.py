# SPDX-License-Identifier: Apache-2.0
"""Judges how quick the programs of one machine are that other members reach, each port by its own past.

Theory of operation. The watch judges the latencies; here is decided what is one, and what is told of the judgement.

*Late answers.* Beside the first bytes that came, these count, of programs that have ever answered:

* a connection that waits OVERDUE_TIMES as long as its caller's longest answer of late, and OVERDUE_NS at least. It
  counts once, and again each time that it has waited twice as long if the program has answered nobody since: then it is
  the program that hangs, and not this request. It waits if bytes were handed and not answered; or without any where
  this caller's newest answer was one that nobody asked for, as of a server that greets;
* a connection that was given up after OVERDUE_NS, if the program has answered nobody since it began to wait;
* a refusal, for REFUSED_NS, but one in that time: who is refused comes again at once, and the watch would take that for
  more load. For the same reason a wait is not counted each second.

*Callers.* One caller can make its own answers late at will: by half a request, or by requests that take long by their
nature. So what several use is told to be slow only if answers come late to two of them: the newest of each, by their
median, nearer to what is late now than to what is usual. It is told no more once only one is left to whom they do, and
another's newest are all in time. Who was not answered for WITNESS_NS is no witness; of a program that only one uses,
that one's word is all there is. And two members that both want to accuse a program can.

*Excuses.* Who hears that a program is slow goes elsewhere with new connections. Then nothing of it is measured any
more, and it would be slow for ever: silence is no recovery (model.py). So a slow program of which nothing was measured
for QUIET_NS is *excused*: it is told to be well, so that somebody tries it. If it then answers late once, it is slow
again at once, with its old onset, and not after another five seconds; if it answers in time, it is excused until its
recovery is sure.

Pure: part of ``Vitals``.
"""

from collections import deque
from dataclasses import dataclass
from math import isqrt
from typing import Final, final

import msgspec

from atoll.base.units import HOUR_NS, MILLISECOND_NS, MINUTE_NS, SECOND_NS
from atoll.health.members.bulletin import Found
from atoll.health.model import TOLD, State
from atoll.health.spec import Bound
from atoll.health.watch import Standing, Watch

__all__ = ["CALLERS_MAX", "PROGRAM", "PROGRAMS_MAX", "PROGRAM_FLOOR_NS", "UNNAMED", "WAITS_MAX", "Call", "Programs"]

PROGRAM: Final = "program"  # Of ``program:PORT``.
PROGRAM_FLOOR_NS: Final = 20 * MILLISECOND_NS
PROGRAMS_MAX: Final = 64  # Limit. Ports; one more is not watched until one is forgotten.
CALLERS_MAX: Final = 64  # Limit. Of one port; for one more the one is forgotten that was heard longest ago.
WAITS_MAX: Final = 4096  # Limit. Connections that wait; of one more only its answer counts.
FORGOTTEN_NS: Final = HOUR_NS  # A port of which nothing was measured for so long is forgotten.
QUIET_NS: Final = MINUTE_NS
WITNESS_NS: Final = 5 * MINUTE_NS
NEWEST: Final = 5  # Answers of a caller that say how it is served.
OVERDUE_NS: Final = 3 * SECOND_NS  # Of which a second may be error: pieces of a request are told so seldom.
OVERDUE_TIMES: Final = 2
LONGEST_FADES: Final = 64  # The longest answer is forgotten by 1/64 with each one; a stall stays not for ever.
REFUSED_NS: Final = 5 * SECOND_NS  # What a connection may take that is accepted in the end.
LATE_PERCENT: Final = 125  # Of what is usual; less is not late, whatever the watch says.


@dataclass(frozen=True, slots=True)
class Call:
    """Whose connection something was measured of.

    Attributes:
        caller: Node id of the member.
        number: The connection's, unique as long as it lasts.
        is_asked: Whether the program has been handed bytes.
        is_over: Whether it ended.
    """

    caller: bytes
    number: int
    is_asked: bool = True
    is_over: bool = False


UNNAMED: Final = Call(b"", 0)


@final
class _Caller:
    """How one caller of a program is served."""

    __slots__ = ("greeted", "heard_ns", "longest_ns", "newest")

    def __init__(self) -> None:
        self.heard_ns = 0
        self.newest: deque[int] = deque(maxlen=NEWEST)
        self.longest_ns = 0  # Of the answers that came of late.
        self.greeted = False  # By the newest of them.

    def is_late(self, midway_ns: int) -> bool:
        return sorted(self.newest)[(len(self.newest) - 1) // 2] >= midway_ns

    def is_well(self, midway_ns: int) -> bool:
        return len(self.newest) == NEWEST and max(self.newest) < midway_ns


@final
class _Program:
    """What is known of one port."""

    __slots__ = (
        "answered_ns",
        "callers",
        "component",
        "excused_ns",
        "longest_ns",
        "measured_ns",
        "midway_ns",
        "refused_ns",
        "told",
    )

    def __init__(self, component: str) -> None:
        self.component = component
        self.callers: dict[bytes, _Caller] = {}
        self.measured_ns = self.answered_ns = 0  # When it was last, and when it answered anybody last.
        self.longest_ns = 0  # Of the answers that came of late, to anybody.
        self.refused_ns: int | None = None  # When that was counted last.
        self.excused_ns: int | None = None  # From which latency on it is slow again; None: it is not excused.
        self.midway_ns = 0  # What is late for its callers, from when it was told.
        self.told = State.OK

    def caller(self, name: bytes, now_ns: int) -> _Caller:
        """Return a caller, new if need be, that is heard now."""
        found = self.callers.get(name)
        if found is None:
            if len(self.callers) >= CALLERS_MAX:
                del self.callers[min(self.callers, key=lambda one: self.callers[one].heard_ns)]
            found = self.callers[name] = _Caller()
        found.heard_ns = now_ns
        return found

    def answered(self, name: bytes, latency_ns: int, now_ns: int) -> _Caller:
        """Note an answer, and return whom it came to."""
        caller = self.caller(name, now_ns)
        caller.longest_ns = _faded(caller.longest_ns, latency_ns)
        self.longest_ns = _faded(self.longest_ns, latency_ns)
        self.answered_ns = now_ns
        return caller

    def patience_ns(self, name: bytes) -> int:
        """Return how long a caller waits without being overdue; one that was never answered, as long as anybody."""
        known = self.callers.get(name)
        return OVERDUE_TIMES * (self.longest_ns if known is None or not known.longest_ns else known.longest_ns)


@final
class _Wait:
    """A connection that has not been answered."""

    __slots__ = ("caller", "due_ns", "is_asked", "port", "since_ns")

    def __init__(self, port: int, call: Call, now_ns: int) -> None:
        self.port, self.caller, self.is_asked = port, call.caller, call.is_asked
        self.since_ns = now_ns
        self.due_ns = 0  # How long it must have waited to count again; 0: it did not count.


@final
class Programs:
    """The programs of one machine, by port.

    Args:
        watch: Who judges them, as ``program:PORT``.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch: Final = watch
        self._programs: dict[int, _Program] = {}
        self._waits: dict[int, _Wait] = {}

    # What is measured.

    def served(self, port: int, latency_ns: int, call: Call, now_ns: int) -> None:
        """Note how long the program at a port took to answer; of a port beyond PROGRAMS_MAX nothing is kept."""
        self._waits.pop(call.number, None)
        program = self._programs.get(port)
        if program is None:
            if len(self._programs) >= PROGRAMS_MAX:
                return
            program = self._programs[port] = _Program(f"{PROGRAM}:{port}")
        program.answered(call.caller, latency_ns, now_ns).greeted = not call.is_asked
        self._observe(program, call.caller, latency_ns, now_ns)

    def unmeasured(self, port: int, call: Call, now_ns: int) -> None:
        """Note that the program at a port answered, and nobody knows in how long."""
        self._waits.pop(call.number, None)
        program = self._programs.get(port)
        if program is not None:
            program.answered_ns = now_ns

    def waits(self, port: int, call: Call, now_ns: int) -> None:
        """Note that a connection stands, or that its program was handed bytes just now."""
        if call.number in self._waits or len(self._waits) < WAITS_MAX:
            self._waits[call.number] = _Wait(port, call, now_ns)

    def ended(self, call: Call, now_ns: int, least_ns: int = 0) -> None:
        """Note that a connection ended without an answer; see ``found``."""
        wait = self._waits.pop(call.number, None)
        if wait is None or wait.due_ns:
            return
        program = self._programs.get(wait.port)
        if program is None or not self._is_owed(program, wait) or program.answered_ns > wait.since_ns:
            return
        usual = self._watch.specification(program.component)
        waited_ns = now_ns - wait.since_ns
        if waited_ns >= max(OVERDUE_NS, least_ns) and isinstance(usual, Bound) and waited_ns > usual.latency_ns:
            self._observe(program, wait.caller, waited_ns, now_ns)

    def refused(self, port: int, call: Call, now_ns: int) -> None:
        """Note that the program at a port took no connection. Of one that never answered it shows nothing."""
        program = self._programs.get(port)
        if program is None:
            return
        latency_ns = max(REFUSED_NS, program.patience_ns(call.caller))
        if program.refused_ns is not None and now_ns - program.refused_ns < REFUSED_NS:
            program.caller(call.caller, now_ns).newest.append(latency_ns)
        else:
            program.refused_ns = now_ns
            self._observe(program, call.caller, latency_ns, now_ns)

    # What follows.

    def standing(self, port: int) -> Standing | None:
        """Return how the program at a port stands; None: it was never measured."""
        standing = self._watch.standing(f"{PROGRAM}:{port}")
        return None if standing is None else self.shown(standing)

    def shown(self, standing: Standing) -> Standing:
        """Return how a component stands, of whatever kind: what only one of several callers says lasts is in doubt."""
        program = self._of(standing.component)
        if program is None or standing.state not in TOLD or program.told in TOLD or program.excused_ns is not None:
            return standing
        return msgspec.structs.replace(standing, state=State.STUTTER)

    def is_withheld(self, component: str) -> bool:
        """Return whether a component is a program that is not to be told slow, whatever the watch says."""
        program = self._of(component)
        return program is not None and program.told not in TOLD

    def found(self, now_ns: int, least_ns: int = 0) -> list[Found]:
        """Return which programs are slow, or slow no more, since this was last asked; to be asked once a second.

        Args:
            now_ns: Now.
            least_ns: What has waited less is not looked at, because this node itself is late.
        """
        self._look(now_ns, least_ns)
        waited_for = {wait.port for wait in self._waits.values()}
        told: list[Found] = []
        for port, program in tuple(self._programs.items()):
            standing = self._watch.standing(program.component)
            is_forgotten = now_ns - program.measured_ns >= FORGOTTEN_NS and port not in waited_for
            state = State.OK if is_forgotten or standing is None else self._told(program, standing, now_ns)
            if standing is not None and state is not program.told:  # None: it was measured, but never as what can be.
                program.told = state
                told.append(_found(standing, state))
            if is_forgotten:
                self._watch.forget(program.component)
                del self._programs[port]
        return told

    def _look(self, now_ns: int, least_ns: int) -> None:
        """Count what is overdue."""
        for wait in self._waits.values():
            program = self._programs.get(wait.port)
            if program is None or not self._is_owed(program, wait):
                continue
            waited_ns = now_ns - wait.since_ns
            if waited_ns < max(OVERDUE_NS, least_ns):
                continue
            if wait.due_ns:
                if program.answered_ns > wait.since_ns:
                    continue
                program.measured_ns = now_ns  # Which it is, as long as somebody waits.
            if waited_ns >= (wait.due_ns or program.patience_ns(wait.caller)):
                wait.due_ns = 2 * waited_ns
                self._observe(program, wait.caller, waited_ns, now_ns)

    def _observe(self, program: _Program, caller: bytes, latency_ns: int, now_ns: int) -> None:
        program.measured_ns = now_ns
        program.caller(caller, now_ns).newest.append(latency_ns)
        if program.excused_ns is not None and latency_ns >= program.excused_ns:
            program.excused_ns = None
        self._watch.observe(program.component, latency_ns, now_ns)

    def _told(self, program: _Program, standing: Standing, now_ns: int) -> State:
        """Return what is to be told of a program."""
        if standing.state not in TOLD:
            program.excused_ns = None
            return State.OK
        if program.told not in TOLD:
            program.midway_ns = _midway_ns(standing)
        if self._is_disputed(program, standing, now_ns):
            return State.OK
        if program.excused_ns is None and now_ns - program.measured_ns >= QUIET_NS:
            program.excused_ns = program.midway_ns
        return standing.state if program.excused_ns is None else State.OK

    def _is_disputed(self, program: _Program, standing: Standing, now_ns: int) -> bool:
        """Return whether its callers do not bear out that it is slow."""
        midway_ns = program.midway_ns
        witnesses = [one for one in program.callers.values() if now_ns - one.heard_ns < WITNESS_NS]
        if len(witnesses) < 2:
            return False
        late = sum(one.is_late(midway_ns) for one in witnesses)
        if program.told in TOLD:  # Then less is not enough: a fault may come and go, and its end is the watch's to say.
            well_ns = min(midway_ns, _midway_ns(standing))  # What got better is not well for that.
            return late == 1 and any(one.is_well(well_ns) for one in witnesses)
        return late < 2 or standing.newest_ns < _late_ns(standing)

    def _is_owed(self, program: _Program, wait: _Wait) -> bool:
        caller = program.callers.get(wait.caller)
        return wait.is_asked or (caller is not None and caller.greeted)

    def _of(self, component: str) -> _Program | None:
        kind, _, port = component.partition(":")
        return self._programs.get(int(port)) if kind == PROGRAM else None


def _faded(longest_ns: int, latency_ns: int) -> int:
    return max(latency_ns, longest_ns - longest_ns // LONGEST_FADES)


def _late_ns(standing: Standing) -> int:
    return max(PROGRAM_FLOOR_NS, standing.usual_ns * LATE_PERCENT // 100)


def _midway_ns(standing: Standing) -> int:
    """Return what is nearer to what is late now than to what is usual, as ratios go."""
    return max(_late_ns(standing), isqrt(standing.usual_ns * standing.newest_ns))


def _found(standing: Standing, state: State) -> Found:
    return Found(b"", standing.component, state, standing.since_ns, standing.usual_ns, standing.newest_ns)
