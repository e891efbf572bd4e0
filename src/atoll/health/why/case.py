# SPDX-License-Identifier: Apache-2.0
"""Decides what is wrong with a path before anybody asks why, and keeps what is found: the record of one diagnosis.

A *case* has symptoms. Causes are named in it, each with the symptoms that it explains; what is left over in the end is
told as UNKNOWN. See ``diagnosis.py``.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from atoll.health.why.facts import Cause, Diagnosis, Facts, Fault, Finding, HostFacts
from atoll.health.why.wording import (
    REASON_CHARS_MAX,
    bounded,
    listed,
    number,
    round_trip,
    shares_lost,
    since,
    times_usual,
    took,
    word,
)

__all__ = [
    "BUSY_SHARE_MIN",
    "DISK",
    "FIRST",
    "LATE",
    "LOSS_SHARE_MIN",
    "STOLEN_SHARE_MIN",
    "WORK",
    "Case",
    "Limit",
    "Machine",
    "Symptom",
    "above",
    "note_symptoms",
]

SLOW_US_MIN: Final = 3_000  # A round trip: less is the noise of two schedulers ...
SLOW_PERCENT: Final = 125  # ... and of usual; routes that differ by less come and go without anybody's doing.
LOSS_SHARE_MIN: Final = 100  # 1/10000: below 1 % a path counts as clean (docs/explanation/choosing.md).
CROWD_MIN: Final = 2  # So many other links must be slow, and more than half, before it is their common end.
BUSY_SHARE_MIN: Final = 8_500  # 1/10000 of the CPU's time: from here on a queue grows to several times the work.
STOLEN_SHARE_MIN: Final = 1_000  # 1/10000 of the CPU's time: what a busy neighbour takes.

RELEVANT: Final = ("slow", "failed")  # A stutter is one late answer, and nobody is told of it.


class Symptom(Enum):
    """What somebody may notice."""

    SILENT = 0  # Nothing comes.
    SLOW = 1  # The round trip.
    LOSSY = 2
    DOUBTFUL = 3  # The path is degraded, and no number says why.
    ANSWERS = 4  # The far node takes its time to answer questions.
    SERVICE = 5  # The port that was asked about.


@dataclass(frozen=True, slots=True)
class Limit:
    """When a number is bad: beyond ``least_us`` above usual and ``percent`` of it; alone from ``alone_us`` on."""

    least_us: int
    percent: int
    alone_us: int

    def passed(self, newest: int | None, usual: int | None) -> bool | None:
        """Return whether it is bad; None: that cannot be said."""
        if newest is None:
            return None
        if newest < self.least_us:
            return False
        if usual is None:
            return True if newest >= self.alone_us else None
        return newest - usual >= self.least_us and newest * 100 >= usual * self.percent


_NEVER: Final = 1 << 200
LATE: Final = Limit(10_000, 300, 50_000)  # Less is what schedulers do; so late was not run (``doubt.LATE_NS``).
WORK: Final = Limit(50, 160, _NEVER)  # Clock rates and shared cores make 1.4; no time is bad by itself.
DISK: Final = Limit(10_000, 300, 500_000)  # A spinning disk takes 10 to 30 ms; none that is well takes half a second.
FIRST: Final = Limit(200_000, 200, 3_000_000)  # Programs differ: alone only what nobody waits for gladly.


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine on the way. ``is_crowd``: most of its other links are slow as well."""

    name: str
    facts: HostFacts | None
    is_end: bool = True
    is_crowd: bool = False

    @property
    def is_judged(self) -> bool:
        """Whether it is known if it is late."""
        one = self.facts
        if one is None:
            return False
        idle = one.busy_share is not None and one.busy_share < BUSY_SHARE_MIN
        kept = one.stolen_share is not None and one.stolen_share < STOLEN_SHARE_MIN
        return LATE.passed(one.late_us, one.late_usual_us) is not None or (one.late_us is None and idle and kept)

    def ailment(self, *components: str) -> Fault | None:
        """Return the first that lasts, of these components."""
        ailments = () if self.facts is None else self.facts.ailments
        return next((one for one in ailments if one.component in components and one.state in RELEVANT), None)


@final
class Case:
    """What is found in the course of one diagnosis.

    Attributes:
        symptoms: In words, in the order in which they are told.
        explained: Those for which a cause was found.
        late_us: How much of the round trip is the lateness of a machine, by its name.
    """

    def __init__(self, facts: Facts) -> None:
        path = self.path = facts.path
        self.facts = facts
        self.here = Machine(
            word(facts.here.name) or "this machine", facts.here, is_crowd=_is_crowd(path.slow_others, path.others)
        )
        there = facts.there_name or (facts.there.name if facts.there is not None else "")
        far_crowd = _is_crowd(path.far_slow_others, path.far_others)
        self.there = Machine(word(there) or "the other machine", facts.there, is_crowd=far_crowd)
        self.relay = Machine(word(facts.relay_name) or "the relay", facts.relay, is_end=False)
        self.machines = (self.here, self.there, self.relay) if path.relay else (self.here, self.there)
        via = (self.relay.name,) if path.relay else ()
        self.way = "path " + " -> ".join((self.here.name, *via, self.there.name))
        self.direct = f"path {self.here.name} -> {self.there.name}"
        self.symptoms: Final[dict[Symptom, str]] = {}
        self.explained: Final[set[Symptom]] = set()
        self.excess_us = 0
        self.late_us: Final[dict[str, int]] = {}
        self.unknown: Final[list[str]] = []
        self._found: Final[list[Finding]] = []
        self._well: Final[list[tuple[Cause, str, str]]] = []

    def name(self, finding: Finding, *explains: Symptom) -> None:
        """Add a cause, and the symptoms that it explains."""
        self._found.append(finding)
        self.explained.update(explains)

    def clear(self, cause: Cause, where: str, text: str) -> None:
        """Add what is well; ``where`` is a machine, or empty for the whole path."""
        self._well.append((cause, where, text))

    def found(self, where: str, *causes: Cause) -> list[Finding]:
        """Return what was found of these causes at one place."""
        return [one for one in self._found if one.where == where and one.cause in causes]

    @property
    def rest_us(self) -> int:
        """How much of the round trip's excess no machine accounts for."""
        return self.excess_us - sum(self.late_us.values())

    @property
    def slow_unexplained(self) -> bool:
        """Whether the round trip is slow and no cause was found yet."""
        return Symptom.SLOW in self.symptoms and Symptom.SLOW not in self.explained

    def told(self) -> Diagnosis:
        """Return all of it, in order, bounded and fit to be printed."""
        found = sorted(self._found, key=lambda one: (-one.weight_us, -one.confidence))
        left = [words for kind, words in self.symptoms.items() if kind not in self.explained]
        if left:
            found.append(self._unexplained("; ".join(left)))
        elif not found:
            found.append(self._nothing())
        names = {(one.cause, one.where) for one in found}
        causes = {one.cause for one in found}
        well = [text for cause, at, text in self._well if ((cause, at) not in names if at else cause not in causes)]
        symptom = "; ".join(self.symptoms.values()) or round_trip(self.path)
        findings = tuple(
            Finding(
                one.cause, one.where, bounded(one.because), one.confidence, number(one.weight_us), bounded(one.next)
            )
            for one in found
        )
        return Diagnosis(
            findings, tuple(map(bounded, well)), tuple(map(bounded, dict.fromkeys(self.unknown))), bounded(symptom)
        )

    def _unexplained(self, symptoms: str) -> Finding:
        silent = [machine.name for machine in self.machines if not machine.is_judged]
        missing = f", and it is not known how late {listed(silent)} ran" if silent else ""
        because = f"{symptoms[:1].upper()}{symptoms[1:]}: none of what was checked explains it{missing}."
        advice = (
            f"ask the other end, on {self.there.name} run: atoll why {self.here.name}"
            if self.there.facts is None
            else f"ask again while it lasts: atoll why {self.there.name}"
        )
        return Finding(Cause.UNKNOWN, self.way, because, 0, 0, advice)

    def _nothing(self) -> Finding:
        again = f"ask again when it is slow: atoll why {self.there.name}"
        if self.path.rtt_us is None:
            return Finding(Cause.UNKNOWN, self.way, "The round trip is not measured yet.", 0, 0, again)
        because = f"Nothing is wrong that this node can see: {round_trip(self.path)}."
        return Finding(Cause.NOTHING, self.way, because, 60 if self.unknown else 90, 0, again)


def note_symptoms(case: Case) -> None:
    """Establish what is wrong with the path, before anything is asked about why."""
    path, there = case.path, case.there.name
    if path.state in {"away", "connecting"}:  # What was once measured is true no more.
        ever = "any more" if path.state == "away" else "yet"
        reason = f" (direct: {word(path.direct_reason, REASON_CHARS_MAX)})" if path.direct_reason else ""
        case.symptoms[Symptom.SILENT] = f"nothing comes from {there} {ever}{reason}"
        return
    usual_us = _usual_us(case)
    if path.rtt_us is not None and usual_us is not None:
        excess_us = path.rtt_us - usual_us
        bound_us = max(SLOW_US_MIN, path.deviation_us or 0)  # One that strays that far is not known to be slower.
        if excess_us >= bound_us and path.rtt_us * 100 >= usual_us * SLOW_PERCENT:
            case.excess_us = excess_us
            case.symptoms[Symptom.SLOW] = f"round trip {took(path.rtt_us)}, usually {took(usual_us)}"
    if max(path.loss_out or 0, path.loss_in or 0) >= LOSS_SHARE_MIN:
        case.symptoms[Symptom.LOSSY] = f"{shares_lost(path.loss_out, path.loss_in)} are lost"
    if path.state == "degraded" and not path.relay and not case.symptoms:
        reason = word(path.direct_reason, REASON_CHARS_MAX) or "no reason known"
        case.symptoms[Symptom.DOUBTFUL] = f"the path to {there} is in doubt ({reason})"
    answers = case.here.ailment(f"answers:{there}")
    if answers is not None:
        case.symptoms[Symptom.ANSWERS] = f"answers of {there} take {times_usual(answers)}{since(answers)}"


def _usual_us(case: Case) -> int | None:
    """Return what is usual for the round trip, from the watch of the link where the path has no past of its own."""
    path = case.path
    link = None if path.relay else case.here.ailment(f"link:{case.there.name}")
    if path.usual_rtt_us is None and path.rtt_us is not None and link is not None and link.slower_percent > 100:
        return path.rtt_us * 100 // link.slower_percent
    return path.usual_rtt_us


def _is_crowd(slow: int, others: int) -> bool:
    return slow >= CROWD_MIN and 2 * slow > others


def above(newest: int | None, usual: int | None) -> int:
    """Return how much more than usual a number is; 0 where it is not, or not known."""
    return max(0, (newest or 0) - max(0, usual or 0))
