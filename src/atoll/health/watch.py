# SPDX-License-Identifier: Apache-2.0
"""Watches many components: takes samples, compares each with its own past and with its peers, and tells what changes.

Theory of operation. A sample goes to its component's gauge (gauge.py), which says whether it is outside, and whether
the newest are late. What that is worth depends on four questions, which are only asked when something is late:

* *Is it busy?* Little's law gives how many requests are in progress, from the latency and from how far apart answers
  come; if the latency is usual for so many, the load explains it (load.py), and the component is not to blame.
* *Is everybody slow?* If at least half of the other components of its kind are late as well, the cause is common: the
  network they share, the load, the observer's machine. Nobody is accused.
* *Is the observer slow?* Its own loop's lateness gives it doubt (doubt.py); a doubtful observer has no evidence.
* *How much may be shunned?* However many are slow, at most a stated share of a kind is (``shunned``), the worst first.

And one that is asked once a second of kinds that are declared alike: is a component twice as slow as its peers' median
(peers.py)? It may have been slow since before it was first seen.

A component whose specification is declared (spec.py) is judged by that, and its gauge only learns.

An answer of twice the amount may take twice as long. So each half octave of amounts has an *offset*, learnt as a median
by single steps, which is taken off before the gauge sees the level: a regression of latency on amount that assumes no
form (Perseus, FAST 2023, fits a polynomial).

A component's name is ``kind:which``; components of one kind are each other's peers.
"""

from array import array
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, final

from atoll.base.errors import LimitError, UsageError
from atoll.base.units import HOUR_NS, MILLISECOND_NS, SECOND_NS
from atoll.core.machine import Tuple
from atoll.health.confidence import combined, strength
from atoll.health.detectors.load import Load
from atoll.health.detectors.peers import PEER_RATIO, PEERS_MIN, PeerRatio, reference
from atoll.health.detectors.verdict import Verdict
from atoll.health.doubt import Doubt
from atoll.health.gauge import FIRST, LATE, Gauge
from atoll.health.levels import level_of, value_of
from atoll.health.model import Condition, Sign, State, Terms, advance
from atoll.health.spec import LATENCY_NS_MAX, Bound, Curve, Promise, Specification, promise_of

__all__ = ["COMPONENTS_MAX", "LATENCY_NS_MAX", "Cause", "Change", "Standing", "Watch"]

COMPONENTS_MAX: Final = 100_000  # Limit. 300 MB of gauges.
NAME_CHARS_MAX: Final = 200
CHANGES_MAX: Final = 4096  # Limit. Not taken yet; beyond it the oldest goes.
PEERS_NS: Final = SECOND_NS  # How often components are compared with each other.
NEWEST: Final = 8
ACCEPT_NS: Final = 24 * HOUR_NS  # What has been slow for so long, and for so many samples, is what it is.
ACCEPT_MIN: Final = 256
AMOUNTS: Final = 96  # Halves of octaves (up to one and a half times, up to twice), to 2^48.
OFFSET_STEP: Final = 2
FRESH_NS: Final = 10 * SECOND_NS  # Whose newest sample is older says nothing of now.
COUNTED_MAX: Final = 64  # Limit. Of larger kinds, who is late is counted anew at most each COUNTED_NS.
COUNTED_NS: Final = 100 * MILLISECOND_NS


class Cause(Tuple, frozen=True):
    """Why a component's state is what it is, in numbers.

    Not the ``Cause`` of ``why/facts.py``: that is what makes a path slow, one of a list.

    Attributes:
        by: What speaks against it (``history``, ``peers``, ``specification``) or for it (``busy``, ``common``,
            ``doubt``).
        usual_ns: Median latency of its past, or of its peers where these speak, or what was specified.
        newest_ns: Median of the newest eight. With an amount, both are for an amount of 1 where that was specified by a
            line or a curve, and for a usual amount where it was learnt.
        samples: How many it rests on.
        confidence: How sure it is that it is slower than it should be, 0 to 100 (confidence.py); 0: nothing says so.
        evidence: Which tests speak against it: ``history``, ``specification``, ``peers``; ``load`` beside them, where
            the load is known not to explain it.
    """

    by: str
    usual_ns: int
    newest_ns: int
    samples: int
    confidence: int = 0
    evidence: tuple[str, ...] = ()


class Change(Tuple, frozen=True):
    """A component came into another state.

    Attributes:
        component: Its name.
        before: From where.
        after: To where.
        since_ns: Onset, where ``after`` is a performance fault.
        at_ns: When it was decided.
        told: Whether it is for others as well.
        cause: Evidence.
    """

    component: str
    before: State
    after: State
    since_ns: int
    at_ns: int
    told: bool
    cause: Cause


class Standing(Tuple, frozen=True):
    """How a component stands now; numbers as in a ``Cause``."""

    component: str
    state: State
    since_ns: int
    usual_ns: int
    newest_ns: int
    samples: int
    confidence: int = 0
    evidence: tuple[str, ...] = ()


_UNKNOWN: Final = -(1 << 15)


@final
class _Kind:
    """Components that are each other's peers."""

    __slots__ = ("at_ns", "entries", "fresh", "late")

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self.fresh = self.late = 0  # How many have a past and a new sample; how many of these are late.
        self.at_ns: int | None = None  # When these were counted.

    def is_late(self, entry: "_Entry", at_ns: int) -> bool:
        """Return whether at least half of the others are late as well."""
        if len(self.entries) <= PEERS_MIN:
            return False
        counted_ns = self.at_ns
        if len(self.entries) <= COUNTED_MAX or counted_ns is None or not 0 <= at_ns - counted_ns < COUNTED_NS:
            fresh = [one for one in self.entries if one.gauge.is_taught and at_ns - one.at_ns <= FRESH_NS]
            self.fresh, self.late, self.at_ns = len(fresh), sum(one.is_late for one in fresh), at_ns
        itself = entry.gauge.is_taught
        others, late = self.fresh - itself, self.late - (itself and entry.is_late)
        return others >= PEERS_MIN and 2 * late >= others


@final
class _Entry:
    """One component."""

    __slots__ = (
        "alike",
        "by",
        "condition",
        "count",
        "excuse",
        "floor",
        "gauge",
        "is_calm",
        "kind",
        "late_ns",
        "levels",
        "load",
        "name",
        "offsets",
        "peers",
        "promise",
        "times",
        "usual",
    )

    def __init__(self, name: str, kind: str, floor: int) -> None:
        self.name, self.kind = name, kind
        self.gauge = Gauge()
        self.floor = floor  # Level of what nobody would notice; 0: there is none.
        self.usual = 0  # Where there is: the median of the past, by single steps, for the gauge does not know it.
        self.promise: Promise | None = None  # What was declared; None: what is usual is learnt.
        self.condition = Condition()
        self.is_calm = False  # OK, and the newest sign was WITHIN: another one changes nothing.
        self.peers: int | None = None  # Median level of its peers, if they are so much quicker.
        self.alike = 0  # How many of them there are.
        self.by = self.excuse = ""  # What spoke last, and what explains the newest sample although it is late.
        self.load = Load()
        self.count = 0
        self.offsets: array[int] | None = None  # By half octave of the amount; None while all amounts were 1.
        self.late_ns = 0  # Since when it is late.
        self.levels = [0] * NEWEST  # Rings of the newest.
        self.times = [0] * NEWEST

    @property
    def newest(self) -> int:
        """Median of the newest levels."""
        known = sorted(self.levels[: self.count])
        return known[len(known) // 2] if known else 0

    @property
    def is_late(self) -> bool:
        """Whether the newest samples were later than specified, or than usual where nothing is."""
        return self.gauge.is_late if self.promise is None else self.promise.is_late

    @property
    def at_ns(self) -> int:
        """When the newest sample came."""
        return self.times[(self.count - 1) % NEWEST]

    @property
    def gap(self) -> int | None:
        """Level of how far apart in time the newest eight are; None: too few, or the clock went back."""
        span_ns = self.at_ns - self.times[self.count % NEWEST]
        return level_of(span_ns // (NEWEST - 1)) if self.count >= NEWEST and span_ns > 0 else None

    @property
    def explained(self) -> Verdict:
        """Whether the load explains the newest latencies."""
        gap = self.gap
        if gap is None:
            return Verdict.NOTHING
        return self.load.observe(self.newest - gap, gap, self.gauge.run_limit)

    def learnt(self) -> Bound | Curve | None:
        """Return what is usual at most for one answer."""
        if not self.gauge.is_taught:
            return None
        limit = self.gauge.middle + self.gauge.limit
        if self.offsets is None:
            return Bound(_latency_ns(limit))
        halves = [(half, offset) for half, offset in enumerate(self.offsets) if offset != _UNKNOWN]
        return Curve(tuple((_amount(half), _latency_ns(limit + offset)) for half, offset in halves))

    def raised(self, level: int) -> int:
        """Return what the gauge is to see of a level: what nobody would notice is all the same, however it varies."""
        if not self.count:
            self.usual = level
        elif not self.gauge.is_late:
            self.usual += OFFSET_STEP if level > self.usual else -OFFSET_STEP
        return max(level, self.floor)

    @property
    def middle(self) -> int:
        """Median level of its past."""
        return self.usual if self.floor and self.gauge.middle else self.gauge.middle

    def levelled(self, level: int, amount: int) -> int:
        """Return a level less what is usual for the amount."""
        offsets, gauge = self.offsets, self.gauge
        if offsets is None:
            offsets = self.offsets = array("h", [_UNKNOWN] * AMOUNTS)
            offsets[0] = 0
        if amount < 2:
            return level
        bits = amount.bit_length()
        half = 2 * bits + (amount >> bits - 2 & 1) - 3
        if half >= AMOUNTS:
            half = AMOUNTS - 1
        offset, middle = offsets[half], gauge.middle or level
        over = level - offset - middle
        if offset == _UNKNOWN:  # The first of its size: taken for usual.
            offset = offsets[half] = level - middle
        elif over and not gauge.is_late:
            offset += OFFSET_STEP if over > 0 else -OFFSET_STEP
            offsets[half] = offset
        return level - offset if level > offset else 0


@final
class Watch:
    """Components by name.

    Args:
        terms: How long is long.
        alike: Kinds whose components should be equally quick, such as disks of one make: these are compared.
        shunned_share: Of a kind, how many may be shunned at a time, in 1/100; at least one may, where there are
            PEERS_MIN others.
        floors_ns: By kind, what nobody would notice: a latency up to so many ns is no fault, however unusual.

    Attributes:
        changes: What was decided and not taken yet, oldest first.
        refused: Samples that were not taken, by reason: ``latency``, ``future``.
        doubt: The observer's own.
        due_ns: When the next ``tick`` does something.
    """

    def __init__(
        self,
        terms: Terms | None = None,
        *,
        alike: Collection[str] = (),
        shunned_share: int = 25,
        floors_ns: Mapping[str, int] | None = None,
    ) -> None:
        if not 0 <= shunned_share <= 50:
            raise UsageError(f"{shunned_share} % of a kind may not be shunned: at most half")
        self._terms: Final = terms or Terms()
        self._shunned_share: Final = shunned_share
        self._entries: Final[dict[str, _Entry]] = {}
        self._kinds: Final[dict[str, _Kind]] = {}
        self._alike: Final = dict.fromkeys(alike)  # In order: sets have none.
        self._ratio: Final = PeerRatio()
        self._floors: Final = {kind: level_of(floor_ns) for kind, floor_ns in (floors_ns or {}).items()}
        self.due_ns = 0
        self.doubt: Final = Doubt()
        self.changes: Final[deque[Change]] = deque(maxlen=CHANGES_MAX)
        self.refused: Final = {"latency": 0, "future": 0}

    def specify(self, component: str, spec: Specification | int | None) -> None:
        """Declare what a component promises.

        Args:
            component: Its name; it need not have been seen.
            spec: Its specification; a number is a ``Bound`` of so many ns. None: nothing, and what is usual is learnt.

        Raises:
            LimitError: There are COMPONENTS_MAX already.
            UsageError: The name or the number is no good.
        """
        promise = None if spec is None else promise_of(Bound(spec) if isinstance(spec, int) else spec)
        entry = self._entries.get(component) or self._enter(component)
        entry.promise = promise

    def observe(self, component: str, latency_ns: int, at_ns: int, amount: int = 1, now_ns: int | None = None) -> None:
        """Take a sample. One that cannot be is counted in ``refused`` and changes nothing.

        Args:
            component: ``kind:which``; new names are taken as they come.
            latency_ns: Of one answer.
            at_ns: When the answer came. Samples may come out of order; they are taken in the order in which they come.
            amount: How much was done, such as bytes; less than 1 is 1.
            now_ns: The observer's clock, if it is another time.

        Raises:
            LimitError: There are COMPONENTS_MAX already.
            UsageError: The name is empty or too long.
        """
        if not 0 <= latency_ns <= LATENCY_NS_MAX:
            self.refused["latency"] += 1
            return
        if now_ns is not None and at_ns > now_ns:
            self.refused["future"] += 1
            return
        entry = self._entries.get(component)
        if entry is None:
            entry = self._enter(component)
        level = level_of(latency_ns)
        promise = entry.promise
        if promise is not None:
            level = promise.levelled(level, amount)
            entry.gauge.observe(level)
            said = promise.observe(level)
        else:
            if amount > 1 or entry.offsets is not None:
                level = entry.levelled(level, amount)
            said = entry.gauge.observe(entry.raised(level) if entry.floor else level)
        count = entry.count
        at = count % NEWEST
        entry.levels[at] = level
        entry.times[at] = at_ns
        entry.count = count + 1
        if not at and not said:
            gap = entry.gap
            if gap is not None:
                entry.load.learn(level - gap, gap)
        if said or not entry.is_calm:
            self._judge(entry, said, at_ns)

    def tick(self, now_ns: int) -> None:
        """Compare components with their peers, once a second; more often is harmless."""
        if now_ns < self.due_ns:
            return
        self.due_ns = now_ns + PEERS_NS
        for kind in self._alike:
            if kind in self._kinds:
                self._compare(self._kinds[kind], now_ns)

    def standing(self, component: str) -> Standing | None:
        """Return how a component stands; None: it was never seen."""
        entry = self._entries.get(component)
        return None if entry is None else _standing(entry)

    def specification(self, component: str) -> Specification | None:
        """Return what a component is held to for one answer: what was declared, or else what it has taught so far.

        What is learnt is a ``Bound``; where amounts were reported a ``Curve``, one point for each half octave that was
        seen. It may be declared as it is, so that the norm moves no more. None: nothing was declared or learnt yet.
        """
        entry = self._entries.get(component)
        if entry is None:
            return None
        return entry.learnt() if entry.promise is None else entry.promise.spec

    def standings(self) -> Iterator[Standing]:
        """Yield how all stand, in the order in which they were first seen."""
        return map(_standing, self._entries.values())

    def shunned(self, kind: str) -> Sequence[str]:
        """Return which components of a kind are to be gone around, the worst first."""
        entries = self._kinds[kind].entries if kind in self._kinds else []
        slow = [entry for entry in entries if entry.condition.is_told]
        slow.sort(key=lambda entry: entry.middle - entry.newest)
        most = len(entries) * self._shunned_share // 100
        if self._shunned_share and len(entries) > PEERS_MIN:
            most = max(1, most)
        return [entry.name for entry in slow[:most]]

    def forget(self, component: str) -> None:
        """Forget a component that is no more."""
        entry = self._entries.pop(component, None)
        if entry is not None:
            kind = self._kinds[entry.kind].entries
            kind.remove(entry)
            if not kind:
                del self._kinds[entry.kind]

    def _enter(self, component: str) -> _Entry:
        if not 0 < len(component) <= NAME_CHARS_MAX:
            raise UsageError(f"a component's name has 1 to {NAME_CHARS_MAX} characters")
        if len(self._entries) >= COMPONENTS_MAX:
            raise LimitError("components", COMPONENTS_MAX)
        kind = component.partition(":")[0]
        entry = _Entry(component, kind, self._floors.get(kind, 0))
        self._entries[component] = entry
        self._kinds.setdefault(kind, _Kind()).entries.append(entry)
        return entry

    def _judge(self, entry: _Entry, said: int, at_ns: int) -> None:
        """Take one more sign of a component."""
        if entry.gauge.unlearnt <= 1:
            entry.late_ns = at_ns
        elif entry.gauge.unlearnt >= ACCEPT_MIN and at_ns - entry.late_ns >= ACCEPT_NS:
            entry.gauge.accept()
        sign, by = self._sign(entry, said, at_ns)
        entry.by = by or entry.by
        entry.excuse = by if sign is Sign.NOTHING else ""
        before = entry.condition
        after = entry.condition = advance(before, sign, self._terms, at_ns)
        entry.is_calm = (
            after.state is State.OK and sign is Sign.WITHIN and not after.reservoir_ns and entry.peers is None
        )
        if after.state is not before.state:
            told = before.is_told or after.is_told
            usual = entry.middle
            if entry.by == "specification" and entry.promise is not None:
                usual = entry.promise.base
            elif entry.by == "peers" and entry.peers is not None:
                usual = entry.peers
            evidence, confidence = _evidence(entry)
            cause = Cause(entry.by, value_of(usual), value_of(entry.newest), entry.count, confidence, evidence)
            self.changes.append(Change(entry.name, before.state, after.state, after.since_ns, at_ns, told, cause))

    def _sign(self, entry: _Entry, said: int, at_ns: int) -> tuple[Sign, str]:
        own = "history" if entry.promise is None else "specification"
        if said & LATE:
            if self.doubt.is_doubtful:
                return Sign.NOTHING, "doubt"
            if self._kinds[entry.kind].is_late(entry, at_ns):
                return Sign.NOTHING, "common"
            if entry.explained is Verdict.BUSY:
                return Sign.NOTHING, "busy"
            return Sign.BELOW, own
        if entry.peers is not None:
            return Sign.BELOW, "peers"
        if said:
            return Sign.OUTSIDE, own
        if entry.promise is None and not entry.gauge.is_taught:
            return Sign.NOTHING, ""
        return Sign.WITHIN, ""

    def _compare(self, kind: _Kind, now_ns: int) -> None:
        fresh = {
            entry.name: entry.newest
            for entry in kind.entries
            if entry.gauge.is_taught and now_ns - entry.at_ns <= FRESH_NS
        }
        slow = dict(self._ratio.observe(fresh))
        usual = reference(fresh.values()) if slow else 0
        for name in fresh:
            entry = self._entries[name]
            is_slow = name in slow and entry.newest > entry.floor
            entry.peers, entry.alike = (usual, len(fresh) - 1) if is_slow else (None, 0)
            if entry.peers is not None:
                self._judge(entry, 0, now_ns)


def _amount(half: int) -> int:
    """Return the least amount of a half octave."""
    bits, more = divmod(half + 3, 2)
    return (2 + more) << bits >> 2 if half else 1


def _latency_ns(level: int) -> int:
    return min(max(1, value_of(level)), LATENCY_NS_MAX)


def _standing(entry: _Entry) -> Standing:
    condition = entry.condition
    evidence, confidence = _evidence(entry)
    return Standing(
        entry.name,
        condition.state,
        condition.since_ns,
        value_of(entry.middle),
        value_of(entry.newest),
        entry.count,
        confidence,
        evidence,
    )


def _evidence(entry: _Entry) -> tuple[tuple[str, ...], int]:
    """Return which tests speak against a component now, and how sure that is."""
    if entry.excuse or not entry.count:
        return (), 0
    gauge, promise, found = entry.gauge, entry.promise, dict[str, int]()
    if promise is not None and promise.is_late:
        found["specification"] = promise.strength
    if gauge.is_late and (promise is None or promise.is_late):
        found["history"] = strength(gauge.beyond, NEWEST) * entry.count // (entry.count + FIRST)
    if entry.peers is not None:
        beyond = sum(level - entry.peers >= PEER_RATIO for level in entry.levels)
        found["peers"] = strength(beyond, NEWEST) * entry.alike // (entry.alike + 1)
    is_known = bool(found) and entry.explained is Verdict.SLOW
    return (*found, "load") if is_known else tuple(found), combined(found.values())
