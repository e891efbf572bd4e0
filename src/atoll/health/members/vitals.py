# SPDX-License-Identifier: Apache-2.0
"""Judges one node's own components, and what it measures of the other members: what its sensors say becomes ``Found``.

Pure: the shell brings what it measured and when. Of this node: ``cpu`` (how long a millisecond of work takes, by what
the operating system says of stolen and withheld time), ``work`` (how long a small piece of work really takes),
``memory`` (how long a millisecond takes with its stalls), ``loop`` (how late the event loop turns), ``disk`` (how
long a durable write takes), ``net`` (packets that its network cards dropped or damaged in a second, one a millisecond)
and ``program:PORT`` (how long a program takes to answer that other members reach). Of each other member: ``link`` (the
round trip of the direct path) and ``answers`` (how long it takes to answer a question, beyond the round trip).

What nobody would notice is no fault, however unusual: each kind has a *floor*, up to which nothing is.

This node's own components are judged without self-doubt, for its lateness is the very thing to be found; what it
measures of others is judged with it (``health/doubt.py``).
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, final

import msgspec

from atoll.base.units import MICROSECOND_NS, MILLISECOND_NS, MINUTE_NS, SECOND_NS
from atoll.health.members.bulletin import ANSWERS, LINK, Found
from atoll.health.members.programs import PROGRAM, PROGRAM_FLOOR_NS, UNNAMED, Call, Programs
from atoll.health.members.reading import Reading
from atoll.health.members.reported import Reported
from atoll.health.model import TOLD, State, Terms
from atoll.health.watch import Change, Standing, Watch

__all__ = ["FLOORS_NS", "Vitals"]

TERMS: Final = Terms()
REFRESH_NS: Final = 20 * SECOND_NS  # Numbers of a fault that lasts are told again so often.

DOUBT_TIMES: Final = 4  # A write that takes so often what the loop is late is slow all the same.

WORST_OF: Final = 4  # Turns, about a second. Who is held up in turns is in time now and then, by chance.
LOOP_FLOOR_NS: Final = 10 * MILLISECOND_NS
DISK_FLOOR_NS: Final = 5 * MILLISECOND_NS  # A disk that takes less is a good one.
NET_FLOOR_NS: Final = 100 * MILLISECOND_NS  # A hundred packets; cards drop some a second that nobody wanted.
LINK_FLOOR_NS: Final = MILLISECOND_NS
ANSWERS_FLOOR_NS: Final = 20 * MILLISECOND_NS
FLOORS_NS: Final = {
    "loop": LOOP_FLOOR_NS,
    "disk": DISK_FLOOR_NS,
    "net": NET_FLOOR_NS,
    LINK: LINK_FLOOR_NS,
    ANSWERS: ANSWERS_FLOOR_NS,
    PROGRAM: PROGRAM_FLOOR_NS,
}
CPU_NS: Final = MILLISECOND_NS  # What a piece of work that takes a millisecond takes.
CPU_BOUND_NS: Final = 1_250 * MICROSECOND_NS  # A fifth of the time stolen or withheld.
MEMORY_BOUND_NS: Final = 1_110 * MICROSECOND_NS  # A tenth of the time stalled.
WORK_LEARNT: Final = 64  # Pieces of work after which what is usual is known; twice that is slow from then on.
WHOLE: Final = 10_000
LEFT_MIN: Final = 100  # 1/10000 of the time that is left at least: shares are of several sources, and may add to more.

LONGER_PERCENT: Final = 140
PAST_EACH: Final = 10
PAST_MEDIANS: Final = 360

QUIET_NS: Final = MINUTE_NS  # What was measured longer ago says nothing of now.

EARLY_TRIALS: Final = 40  # Durable writes until the disk's usual time is known ...
EARLY_NS: Final = SECOND_NS // 2  # ... so far apart; as far while one is in doubt.
SLOW_NS: Final = 2 * SECOND_NS  # While it is slow.
CALM_NS: Final = 5 * SECOND_NS  # Else. 4 KiB over the same place: 70 MB a day, of which a cheap card bears decades.


@final
class Vitals:
    """Everything that one node measures.

    Args:
        terms: How long is long; None: TERMS.
    """

    def __init__(self, terms: Terms | None = None) -> None:
        self.own: Final = Watch(terms or TERMS, floors_ns=FLOORS_NS)
        self.others: Final = Watch(terms or TERMS, floors_ns=FLOORS_NS)
        self.own.specify("cpu", CPU_BOUND_NS)
        self.own.specify("memory", MEMORY_BOUND_NS)
        self._programs: Final = Programs(self.own)
        self._reported: Final = Reported(self.own)
        self.reading: Reading | None = None
        self.late_ns = 0
        self._turns: deque[int] = deque(maxlen=WORST_OF)
        self._work: list[int] | None = []  # Until it is learnt.
        self._heard_ns: dict[str, int] = {}  # When each component of another member was measured last.
        self._wrote_ns: int | None = None  # When the disk was.
        self._ways: dict[bytes, Past] = {}
        self._floors_us: dict[bytes, int] = {}  # The least direct round trip ever seen.
        self._refresh_ns = 0
        self._trials = 0
        self._trial_ns = 0  # When the last one began.

    # What is measured.

    def turned(self, late_ns: int, now_ns: int) -> None:
        """Note that a turn of the event loop began so much after it was due."""
        late_ns = max(0, late_ns)
        self.late_ns = late_ns
        self.others.doubt.turned(late_ns)
        self._turns.append(late_ns)
        self.own.observe("loop", max(self._turns), now_ns)

    def read(self, reading: Reading, now_ns: int) -> None:
        """Take what the operating system says of the time since the last such reading."""
        self.reading = reading
        taken = (reading.stolen_share or 0) + (reading.throttled_share or 0)
        self.own.observe("cpu", CPU_NS * WHOLE // max(LEFT_MIN, WHOLE - taken), now_ns)
        if reading.nic_errors is not None:
            self.own.observe("net", max(1, reading.nic_errors) * MILLISECOND_NS, now_ns)
        if reading.memory_share is not None:
            self.own.observe("memory", CPU_NS * WHOLE // max(LEFT_MIN, WHOLE - reading.memory_share), now_ns)

    def worked(self, took_ns: int, now_ns: int) -> None:
        """Note how long the same small piece of work took.

        Its speed goes up and down a little with the machine's clock, and nobody cares; so what is usual is learnt once,
        and twice of it is what is specified.
        """
        self.own.observe("work", took_ns, now_ns)
        if self._work is not None:
            self._work.append(took_ns)
            if len(self._work) == WORK_LEARNT:
                self.own.specify("work", 2 * sorted(self._work)[WORK_LEARNT // 2])
                self._work = None

    def wrote(self, latency_ns: int, now_ns: int) -> None:
        """Note how long a durable write took, or has taken so far.

        Where this node itself does not run, its thread waits for its turn, not for the disk: that shows nothing.
        """
        if self.others.doubt.is_doubtful and latency_ns < DOUBT_TIMES * self.late_ns:
            return
        self._wrote_ns = now_ns
        self.own.observe("disk", latency_ns, now_ns)

    def served(
        self, port: int, connect_ns: int | None, first_byte_ns: int | None, now_ns: int, call: Call = UNNAMED
    ) -> None:
        """Note how long a program of this machine took to take a connection of a member, and to say its first byte.

        Where this node itself does not run nothing is measured (as ``wrote``).

        Args:
            port: The program's.
            connect_ns: None: it took none.
            first_byte_ns: None: there is none yet, or there will be none.
            now_ns: Now.
            call: Whose connection it is.
        """
        if connect_ns is None:
            if not self.others.doubt.is_doubtful:
                self._programs.refused(port, call, now_ns)
        elif first_byte_ns is not None:
            latency_ns = connect_ns + first_byte_ns
            if latency_ns < self._least_ns:
                self._programs.unmeasured(port, call, now_ns)
            else:
                self._programs.served(port, latency_ns, call, now_ns)
        elif call.is_over:
            self._programs.ended(call, now_ns, self._least_ns)
        else:
            self._programs.waits(port, call, now_ns)

    @property
    def _least_ns(self) -> int:
        """What of a program's latency shows nothing if it is less, because this node itself is late; 0: all shows."""
        return DOUBT_TIMES * self.late_ns if self.others.doubt.is_doubtful else 0

    def reported(self, component: str, latency_ns: int, amount: int, now_ns: int) -> None:
        """Note what a program of this machine reports; see ``Reported.observe``, also for what it raises."""
        self._reported.observe(component, latency_ns, amount, now_ns)

    def travelled(self, node: bytes, rtt_us: int) -> None:
        """Note what a round trip to a member takes now by whatever way is in use; once a second."""
        self._ways.setdefault(node, Past()).add(rtt_us)

    def linked(self, node: bytes, rtt_us: int, now_ns: int) -> None:
        """Note the newest round trip of the direct path to a member."""
        self._floors_us[node] = min(rtt_us, self._floors_us.get(node, rtt_us))
        self._measured(f"{LINK}:{node.hex()}", rtt_us * MICROSECOND_NS, now_ns)

    def answered(self, node: bytes, latency_ns: int, now_ns: int) -> None:
        """Note how long a member took to answer a question, less the round trip."""
        self._measured(f"{ANSWERS}:{node.hex()}", latency_ns, now_ns)

    def _measured(self, component: str, latency_ns: int, now_ns: int) -> None:
        self._heard_ns[component] = now_ns
        self.others.observe(component, latency_ns, now_ns)

    def forget(self, node: bytes) -> None:
        """Forget a former member."""
        self._ways.pop(node, None)
        self._floors_us.pop(node, None)
        for component in (f"{LINK}:{node.hex()}", f"{ANSWERS}:{node.hex()}"):
            self.others.forget(component)
            self._heard_ns.pop(component, None)

    # What follows.

    def trial_due_ns(self) -> int:
        """Return when the next durable write should be measured: seldom, and often while it is in doubt."""
        standing = self.own.standing("disk")
        if self._trials < EARLY_TRIALS or standing is None:
            gap_ns = EARLY_NS
        elif standing.state in (State.SLOW, State.FAILED):
            gap_ns = SLOW_NS
        else:
            gap_ns = EARLY_NS if standing.state is State.STUTTER else CALM_NS
        return self._trial_ns + gap_ns

    def trial_began(self, now_ns: int) -> None:
        """Note that one is being measured."""
        self._trials += 1
        self._trial_ns = now_ns

    def found(self, now_ns: int) -> list[Found]:
        """Return what became slow or well since this was last asked, and, from time to time, what is slow still."""
        self.own.tick(now_ns)
        self.others.tick(now_ns)
        told = [_found(change) for watch in (self.own, self.others) for change in watch.changes if change.told]
        told = [one for one in told if not one.what.startswith(f"{PROGRAM}:")]  # ``Programs`` tells of these.
        self.own.changes.clear()
        self.others.changes.clear()
        told += self._unheard(now_ns)
        told += self._programs.found(now_ns, self._least_ns)
        told += self._reported.found(now_ns)
        if now_ns >= self._refresh_ns:
            self._refresh_ns = now_ns + REFRESH_NS
            known = {(one.of, one.what) for one in told}
            told += [one for one in self._slow() if (one.of, one.what) not in known]
        return told

    def _unheard(self, now_ns: int) -> list[Found]:
        """Forget what was slow and is measured no more: nobody knows whether it still is, and it would be for ever."""
        told: list[Found] = []
        for component in [one for one, heard_ns in self._heard_ns.items() if now_ns - heard_ns >= QUIET_NS]:
            standing = self.others.standing(component)
            if standing is not None and standing.state in TOLD:
                told.append(msgspec.structs.replace(_still(standing), state=State.OK))
                self.others.forget(component)
                del self._heard_ns[component]
        return told

    def _slow(self) -> list[Found]:
        return [
            _still(standing)
            for watch in (self.own, self.others)
            for standing in watch.standings()
            if standing.state in (State.SLOW, State.FAILED) and not self._programs.is_withheld(standing.component)
        ]

    def standings(self) -> Sequence[Standing]:
        """Return how this node's own components stand."""
        return [self._programs.shown(standing) for standing in self.own.standings()]

    def disk(self, now_ns: int) -> Standing | None:
        """Return how the disk stands; None: it was not measured lately."""
        is_fresh = self._wrote_ns is not None and now_ns - self._wrote_ns < QUIET_NS
        return self.own.standing("disk") if is_fresh else None

    def faults_of_others(self) -> Sequence[tuple[bytes, Standing]]:
        """Return what is slow of other members, as this node measures: whose, and how it stands."""
        slow = [one for one in self.others.standings() if one.state in TOLD]
        return [(_named(one.component)[0], one) for one in slow]

    def program(self, port: int) -> Standing | None:
        """Return how the program at a port of this machine stands; None: it was never measured."""
        return self._programs.standing(port)

    def link(self, node: bytes) -> Standing | None:
        """Return how the direct path to a member stands; None: it was never measured."""
        return self.others.standing(f"{LINK}:{node.hex()}")

    def usual_us(self, node: bytes) -> int | None:
        """Return the median round trip to a member over the past hour, whichever way was in use; None: not known."""
        past = self._ways.get(node)
        return None if past is None else past.middle

    def floor_us(self, node: bytes) -> int | None:
        """Return the least direct round trip to a member ever seen; None: there was none."""
        return self._floors_us.get(node)

    def slow_links(self, apart_from: bytes = b"") -> tuple[int, int]:
        """Return how many direct paths take clearly longer than usual now, whatever explains it, and of how many."""
        links = [
            standing
            for standing in self.others.standings()
            if standing.component.startswith(f"{LINK}:") and standing.component != f"{LINK}:{apart_from.hex()}"
        ]
        slow = sum(
            one.newest_ns > max(LINK_FLOOR_NS, one.usual_ns * LONGER_PERCENT // 100)
            for one in links
            if one.usual_ns > 1
        )
        return slow, len(links)


@final
class Past:
    """Medians of ten, of the past hour, and their median."""

    def __init__(self) -> None:
        self._newest: list[int] = []
        self._medians: deque[int] = deque(maxlen=PAST_MEDIANS)

    def add(self, value: int) -> None:
        """Take one more."""
        self._newest.append(value)
        if len(self._newest) == PAST_EACH:
            self._medians.append(sorted(self._newest)[PAST_EACH // 2])
            self._newest.clear()

    @property
    def middle(self) -> int | None:
        """The median; None: too few are known."""
        return sorted(self._medians)[len(self._medians) // 2] if self._medians else None


def _found(change: Change) -> Found:
    of, what = _named(change.component)
    return Found(of, what, change.after, change.since_ns, change.cause.usual_ns, change.cause.newest_ns)


def _still(standing: Standing) -> Found:
    of, what = _named(standing.component)
    return Found(of, what, standing.state, standing.since_ns, standing.usual_ns, standing.newest_ns)


def _named(component: str) -> tuple[bytes, str]:
    kind, _, which = component.partition(":")
    return (bytes.fromhex(which), kind) if kind in {LINK, ANSWERS} else (b"", component)
