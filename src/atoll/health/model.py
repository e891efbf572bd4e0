# SPDX-License-Identifier: Apache-2.0
"""The fail-stutter model, exactly: the states of a component, what moves it between them, and who is told.

A *correctness fault* is an answer that is wrong, or never comes; it is absolute, and other rooms find it. A
*performance fault* is an answer that is right and later than the component's performance specification allows. It has
an *onset* (when it began), a *depth* (how much slower than specified) and a *persistence* (for how long).

``TRANSITIONS`` is the model; docs/explanation/fail-stutter.md is written from it, and a test holds the two together.

Source: Arpaci-Dusseau and Arpaci-Dusseau, Fail-Stutter Fault Tolerance, HotOS-VIII (2001).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from atoll.base.units import MINUTE_NS, SECOND_NS

__all__ = ["TOLD", "TRANSITIONS", "Condition", "Once", "Sign", "State", "Terms", "Transition", "advance"]


class State(StrEnum):
    """How a component performs."""

    UNKNOWN = "unknown"  # Nothing is specified, and too little was seen to learn it.
    OK = "ok"
    STUTTER = "stutter"  # Below its specification, perhaps for a moment only. Nobody is told.
    SLOW = "slow"  # Below it, and it lasts.
    FAILED = "failed"  # Slow for so long that policy promotes it; what that means is the listener's affair.


class Sign(StrEnum):
    """What the newest evidence says of the component against its specification."""

    WITHIN = "within"
    OUTSIDE = "outside"  # One answer was too late. It shows nothing yet.
    BELOW = "below"  # Several were.
    NOTHING = "nothing"  # Too little evidence; or it is explained by load, by a common cause or by the observer.


class Once(StrEnum):
    """What must hold beside the sign, for a transition."""

    AT_ONCE = "at once"
    FULL = "the reservoir is full"
    EMPTY = "the reservoir is empty"
    RECOVERED = "it was so for RECOVER"
    OVERDUE = "PROMOTE has passed since the onset"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the model: in ``before``, at one of ``signs``, if ``once`` holds, the component is ``after``."""

    before: State
    signs: tuple[Sign, ...]
    once: Once
    after: State


TRANSITIONS: Final = (
    Transition(State.UNKNOWN, (Sign.WITHIN, Sign.OUTSIDE), Once.AT_ONCE, State.OK),
    Transition(State.UNKNOWN, (Sign.BELOW,), Once.AT_ONCE, State.STUTTER),
    Transition(State.OK, (Sign.OUTSIDE, Sign.BELOW), Once.AT_ONCE, State.STUTTER),
    Transition(State.STUTTER, (Sign.BELOW,), Once.FULL, State.SLOW),
    Transition(State.STUTTER, (Sign.WITHIN,), Once.EMPTY, State.OK),
    Transition(State.SLOW, (Sign.WITHIN,), Once.RECOVERED, State.OK),
    Transition(State.SLOW, (Sign.BELOW,), Once.OVERDUE, State.FAILED),
    Transition(State.FAILED, (Sign.WITHIN,), Once.RECOVERED, State.OK),
)
TOLD: Final = frozenset({State.SLOW, State.FAILED})  # Entering or leaving one of these is told to others; else nothing.

_ROWS: Final = {(row.before, sign): row for row in TRANSITIONS for sign in row.signs}


class Terms(msgspec.Struct, frozen=True):
    """Policy: how long is long.

    Attributes:
        persist_ns: Size of the reservoir: a fault that lasts so long is told. It fills while the sign is ``BELOW`` and
            empties half as fast while it is ``WITHIN``, so a fault that comes and goes is told as well, later.
        recover_ns: So long within the specification, without a break, ends it.
        promote_ns: So long after its onset a fault that is still there is a failure; None: never.
    """

    persist_ns: int = 5 * SECOND_NS
    recover_ns: int = MINUTE_NS
    promote_ns: int | None = None


class Condition(msgspec.Struct, frozen=True):
    """Where a component stands.

    Attributes:
        state: Its state.
        since_ns: When that began, by the observer's clock; of a performance fault its onset.
        reservoir_ns: How full the reservoir is.
        sign: The newest sign that was not ``NOTHING``.
        sign_ns: Since when every sign was this one.
        at_ns: When it was given.
    """

    state: State = State.UNKNOWN
    since_ns: int = 0
    reservoir_ns: int = 0
    sign: Sign = Sign.NOTHING
    sign_ns: int = 0
    at_ns: int = 0

    @property
    def is_told(self) -> bool:
        """Whether others know of it."""
        return self.state in TOLD


def advance(before: Condition, sign: Sign, terms: Terms, now_ns: int) -> Condition:
    """Return where a component stands after one more sign. A sign holds until the next one.

    No evidence changes nothing: silence is neither a recovery nor a fault. A time from before the last sign is taken
    for the time of that one.
    """
    if sign is Sign.NOTHING:
        return before
    now_ns = max(now_ns, before.at_ns)
    reservoir_ns = before.reservoir_ns
    if before.sign is Sign.BELOW:
        reservoir_ns = min(terms.persist_ns, reservoir_ns + now_ns - before.at_ns)
    elif before.sign is Sign.WITHIN:
        reservoir_ns = max(0, reservoir_ns - (now_ns - before.at_ns) // 2)
    sign_ns = before.sign_ns if sign is before.sign else now_ns
    state, since_ns = before.state, before.since_ns
    row = _ROWS.get((state, sign))
    if row is not None:
        match row.once:
            case Once.AT_ONCE:
                holds = True
            case Once.FULL:
                holds = reservoir_ns >= terms.persist_ns
            case Once.EMPTY:
                holds = reservoir_ns == 0
            case Once.RECOVERED:
                holds = now_ns - sign_ns >= terms.recover_ns
            case Once.OVERDUE:
                holds = terms.promote_ns is not None and now_ns - since_ns >= terms.promote_ns
        if holds:
            if row.before not in _FAULTY or row.after not in _FAULTY:
                since_ns = now_ns
            state = row.after
    return Condition(state, since_ns, reservoir_ns, sign, sign_ns, now_ns)


_FAULTY: Final = frozenset({State.STUTTER, State.SLOW, State.FAILED})
