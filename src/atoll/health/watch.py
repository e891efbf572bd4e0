# SPDX-License-Identifier: Apache-2.0
"""Watches many components: takes samples, compares each with its own past and with its peers, and tells what changes.

Theory of operation. A sample goes to its component's gauge (gauge.py), which says whether it is outside, and whether
the newest are late. What that is worth depends on four questions, which are only asked when something is late:

* *Is it busy?* Requests that come half as far apart as they used to explain a latency that grew: then waiting is what
  takes the time (Little 1961: W = L / lambda), and the component is not to blame. Without a change of pace it is slow.
* *Is everybody slow?* If at least half of the other components of its kind are late as well, the cause is common: the
  network they share, the load, the observer's machine. Nobody is accused.
* *Is the observer slow?* Its own loop's lateness gives it doubt (doubt.py); a doubtful observer has no evidence.
* *How much may be shunned?* However many are slow, at most a stated share of a kind is (``shunned``), the worst first.

And one that is asked once a second of kinds that are declared alike: is a component twice as slow as its peers' median?
(The Tail at Store, FAST 2016, has the same ratio.) It may have been slow since before it was first seen.

An answer of twice the amount may take twice as long. So each half octave of amounts has an *offset*, learnt as a median
by single steps, which is taken off before the gauge sees the level: a regression of latency on amount that assumes no
form (Perseus, FAST 2023, fits a polynomial).

A component's name is ``kind:which``; components of one kind are each other's peers.
"""

from array import array
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Final, final

from atoll.base.errors import LimitError, UsageError
from atoll.base.units import HOUR_NS, SECOND_NS
from atoll.core.machine import Tuple
from atoll.health.doubt import Doubt
from atoll.health.gauge import LATE, OUTSIDE, Gauge
from atoll.health.levels import OCTAVE, level_of, value_of
from atoll.health.model import Condition, Sign, State, Terms, advance

__all__ = ["COMPONENTS_MAX", "Cause", "Change", "Standing", "Watch"]

COMPONENTS_MAX: Final = 100_000  # Limit. 300 MB of gauges.
NAME_CHARS_MAX: Final = 200
LATENCY_NS_MAX: Final = 24 * HOUR_NS
CHANGES_MAX: Final = 4096  # Limit. Not taken yet; beyond it the oldest goes.
PEERS_MIN: Final = 3  # Fewer others say nothing of what is usual.
PEER_RATIO: Final = OCTAVE
PEERS_NS: Final = SECOND_NS  # How often components are compared with each other.
BUSY: Final = OCTAVE  # Requests come twice as often as usual.
NEWEST: Final = 8
ACCEPT_NS: Final = 24 * HOUR_NS  # What has been slow for so long, and for so many samples, is what it is.
ACCEPT_MIN: Final = 256
AMOUNTS: Final = 96  # Halves of octaves (up to one and a half times, up to twice), to 2^48.
OFFSET_STEP: Final = 2
PACE_STEP: Final = 4
FRESH_NS: Final = 10 * SECOND_NS  # Whose newest sample is older says nothing of now.


class Cause(Tuple, frozen=True):
    """Why a component's state is what it is, in numbers.

    Attributes:
        by: What speaks against it (``history``, ``peers``, ``specification``) or for it (``busy``, ``common``,
            ``doubt``).
        usual_ns: Median latency of its past, or of its peers where these speak.
        newest_ns: Median of the newest eight.
        samples: How many it rests on.
    """

    by: str
    usual_ns: int
    newest_ns: int
    samples: int


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
    """How a component stands now."""

    component: str
    state: State
    since_ns: int
    usual_ns: int
    newest_ns: int
    samples: int


_UNKNOWN: Final = -(1 << 15)


@final
class _Entry:
    __slots__ = (
        "bound",
        "by",
        "condition",
        "count",
        "gap",
        "gauge",
        "is_calm",
        "kind",
        "late_ns",
        "levels",
        "name",
        "offsets",
        "peers",
        "times",
    )

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.gauge = Gauge()
        self.bound: int | None = None  # Level that was declared; None: what is usual is learnt.
        self.condition = Condition()
        self.is_calm = False  # OK, and the newest sign was WITHIN: another one changes nothing.
        self.peers: int | None = None  # Median level of its peers, if they are so much quicker.
        self.by = ""
        self.gap: int | None = None  # Usual level of how far apart in time eight samples are.
        self.count = 0
        self.offsets: array[int] = array("h")  # By half octave of the amount; empty while all amounts were 1.
        self.late_ns = 0  # Since when it is late.
        self.levels = array("h", bytes(2 * NEWEST))  # Rings of the newest.
        self.times = array("q", bytes(8 * NEWEST))

    @property
    def newest(self) -> int:
        """Median of the newest levels."""
        known = sorted(self.levels[: min(self.count, NEWEST)])
        return known[len(known) // 2] if known else 0

    def beyond(self, bound: int, level: int) -> int:
        """Return what the newest level says against a bound, as a gauge does against its limits."""
        above = sum(one > bound for one in self.levels[: min(self.count, NEWEST)])
        return LATE if above > NEWEST // 2 else OUTSIDE if level > bound else 0

    @property
    def at_ns(self) -> int:
        """When the newest sample came."""
        return self.times[(self.count - 1) % NEWEST]

    @property
    def pace(self) -> int:
        """Level of how far apart in time the newest eight are."""
        return level_of(self.at_ns - self.times[self.count % NEWEST])


@final
class Watch:
    """Components by name.

    Args:
        terms: How long is long.
        alike: Kinds whose components should be equally quick, such as disks of one make: these are compared.
        shunned_share: Of a kind, how many may be shunned at a time, in 1/100; at least one may, where there are
            PEERS_MIN others.

    Attributes:
        changes: What was decided and not taken yet, oldest first.
        refused: Samples that were not taken, by reason: ``latency``, ``future``.
        doubt: The observer's own.
        due_ns: When the next ``tick`` does something.
    """

    def __init__(self, terms: Terms | None = None, *, alike: Collection[str] = (), shunned_share: int = 25) -> None:
        if not 0 <= shunned_share <= 50:
            raise UsageError(f"{shunned_share} % of a kind may not be shunned: at most half")
        self._terms: Final = terms or Terms()
        self._shunned_share: Final = shunned_share
        self._entries: Final[dict[str, _Entry]] = {}
        self._kinds: Final[dict[str, list[_Entry]]] = {}
        self._alike: Final = frozenset(alike)
        self.due_ns = 0
        self.doubt: Final = Doubt()
        self.changes: Final[deque[Change]] = deque(maxlen=CHANGES_MAX)
        self.refused: Final = {"latency": 0, "future": 0}

    def specify(self, component: str, latency_ns: int | None) -> None:
        """Declare what a component promises; None: nothing, and what is usual is learnt.

        Raises:
            LimitError: There are COMPONENTS_MAX already.
            UsageError: The name or the bound is no good.
        """
        if latency_ns is not None and not 0 < latency_ns <= LATENCY_NS_MAX:
            raise UsageError(f"a latency of {latency_ns} ns")
        entry = self._entries.get(component) or self._enter(component)
        entry.bound = None if latency_ns is None else level_of(latency_ns)

    def observe(
        self, component: str, latency_ns: int, at_ns: int, *, amount: int = 1, now_ns: int | None = None
    ) -> None:
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
        entry = self._entries.get(component) or self._enter(component)
        level = level_of(latency_ns)
        if (amount > 1 or entry.offsets) and entry.bound is None:
            level = self._without_amount(entry, level, amount)
        said = entry.gauge.observe(level)
        at = entry.count % NEWEST
        entry.levels[at] = level
        entry.times[at] = at_ns
        entry.count += 1
        if not at and not said:
            self._note_pace(entry)
        if entry.bound is not None:
            said = entry.beyond(entry.bound, level)
        if said or not entry.is_calm:
            self._judge(entry, said, at_ns)

    def tick(self, now_ns: int) -> None:
        """Compare components with their peers, once a second; more often is harmless."""
        if now_ns < self.due_ns:
            return
        self.due_ns = now_ns + PEERS_NS
        for kind in self._alike:
            self._compare(self._kinds.get(kind, ()), now_ns)

    def standing(self, component: str) -> Standing | None:
        """Return how a component stands; None: it was never seen."""
        entry = self._entries.get(component)
        return None if entry is None else _standing(entry)

    def standings(self) -> Iterator[Standing]:
        """Yield how all stand, in the order in which they were first seen."""
        return map(_standing, self._entries.values())

    def shunned(self, kind: str) -> Sequence[str]:
        """Return which components of a kind are to be gone around, the worst first."""
        entries = self._kinds.get(kind, [])
        slow = [entry for entry in entries if entry.condition.is_told]
        slow.sort(key=lambda entry: entry.gauge.middle - entry.newest)
        most = len(entries) * self._shunned_share // 100
        if self._shunned_share and len(entries) > PEERS_MIN:
            most = max(1, most)
        return [entry.name for entry in slow[:most]]

    def forget(self, component: str) -> None:
        """Forget a component that is no more."""
        entry = self._entries.pop(component, None)
        if entry is not None:
            self._kinds[entry.kind].remove(entry)

    def _enter(self, component: str) -> _Entry:
        if not 0 < len(component) <= NAME_CHARS_MAX:
            raise UsageError(f"a component's name has 1 to {NAME_CHARS_MAX} characters")
        if len(self._entries) >= COMPONENTS_MAX:
            raise LimitError("components", COMPONENTS_MAX)
        entry = _Entry(component, component.partition(":")[0])
        self._entries[component] = entry
        self._kinds.setdefault(entry.kind, []).append(entry)
        return entry

    @staticmethod
    def _without_amount(entry: _Entry, level: int, amount: int) -> int:
        """Return a level less what is usual for the amount."""
        bits = amount.bit_length()
        half = 0 if amount < 2 else min(2 * bits + (amount >> bits - 2 & 1) - 3, AMOUNTS - 1)
        if not entry.offsets:
            entry.offsets = array("h", [_UNKNOWN] * AMOUNTS)
            entry.offsets[0] = 0
        offset, middle = entry.offsets[half], entry.gauge.middle or level
        if offset == _UNKNOWN:  # The first of its size: taken for usual.
            offset = entry.offsets[half] = level - middle
        elif half and not entry.gauge.is_late and level - offset != middle:
            offset = entry.offsets[half] = offset + (OFFSET_STEP if level - offset > middle else -OFFSET_STEP)
        return max(0, level - offset)

    @staticmethod
    def _note_pace(entry: _Entry) -> None:
        """Follow how far apart requests usually are: a median by single steps."""
        if entry.count > NEWEST:
            pace = entry.pace
            if entry.gap is None:
                entry.gap = pace
            elif entry.gap != pace:
                entry.gap += PACE_STEP if pace > entry.gap else -PACE_STEP

    def _judge(self, entry: _Entry, said: int, at_ns: int) -> None:
        """Take one more sign of a component."""
        if entry.gauge.unlearnt <= 1:
            entry.late_ns = at_ns
        elif entry.gauge.unlearnt >= ACCEPT_MIN and at_ns - entry.late_ns >= ACCEPT_NS:
            entry.gauge.accept()
        sign, by = self._sign(entry, said, at_ns)
        entry.by = by or entry.by
        before = entry.condition
        after = entry.condition = advance(before, sign, self._terms, at_ns)
        entry.is_calm = (
            after.state is State.OK and sign is Sign.WITHIN and not after.reservoir_ns and entry.peers is None
        )
        if after.state is not before.state:
            told = before.is_told or after.is_told
            usual = {"specification": entry.bound, "peers": entry.peers}.get(entry.by)
            usual_ns = value_of(entry.gauge.middle if usual is None else usual)
            cause = Cause(entry.by, usual_ns, value_of(entry.newest), entry.count)
            self.changes.append(Change(entry.name, before.state, after.state, after.since_ns, at_ns, told, cause))

    def _sign(self, entry: _Entry, said: int, at_ns: int) -> tuple[Sign, str]:
        if said & LATE:
            if self.doubt.is_doubtful:
                return Sign.NOTHING, "doubt"
            if self._is_common(entry, at_ns):
                return Sign.NOTHING, "common"
            if entry.gap is not None and entry.count > NEWEST and entry.gap - entry.pace >= BUSY:
                return Sign.NOTHING, "busy"
            return Sign.BELOW, "history" if entry.bound is None else "specification"
        if entry.peers is not None:
            return Sign.BELOW, "peers"
        if said:
            return Sign.OUTSIDE, "history" if entry.bound is None else "specification"
        if entry.bound is None and not entry.gauge.is_taught:
            return Sign.NOTHING, ""
        return Sign.WITHIN, ""

    def _is_common(self, entry: _Entry, at_ns: int) -> bool:
        """Return whether at least half of the others of its kind are late as well."""
        others = [
            other
            for other in self._kinds[entry.kind]
            if other is not entry and other.gauge.is_taught and at_ns - other.at_ns <= FRESH_NS
        ]
        return len(others) >= PEERS_MIN and 2 * sum(other.gauge.is_late for other in others) >= len(others)

    def _compare(self, kind: Sequence[_Entry], now_ns: int) -> None:
        fresh = [entry for entry in kind if entry.gauge.is_taught and now_ns - entry.at_ns <= FRESH_NS]
        if len(fresh) <= PEERS_MIN:
            return
        middle = sorted(entry.newest for entry in fresh)[len(fresh) // 2]
        for entry in fresh:
            entry.peers = middle if entry.newest - middle >= PEER_RATIO else None
            if entry.peers is not None:
                self._judge(entry, 0, now_ns)


def _standing(entry: _Entry) -> Standing:
    condition = entry.condition
    return Standing(
        entry.name,
        condition.state,
        condition.since_ns,
        value_of(entry.gauge.middle),
        value_of(entry.newest),
        entry.count,
    )
