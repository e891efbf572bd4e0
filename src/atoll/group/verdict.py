# SPDX-License-Identifier: Apache-2.0
"""Which statements are in force, and so who is a member: one pure function of the set of statements.

Theory of operation. Admissions only ever add, so they need no more than a walk from the founder. Removals take away,
also other removals, and under partition two members may remove each other at the same time; the plain fixpoint then
does not exist. So removals are settled as arguments are: one is *in force* when every removal that would void it is
itself void (the well-founded reading: an estimate from above and one from below, each computed from the other, until
they stop). What is left in dispute lies on circles, or behind them. Of the circles that nothing outside disputes, the
removal whose issuer is nearest to the founder takes effect, those that strike it are void, and the rest is settled
anew. So whatever a removed member signs afterwards, itself or through those it admits, cannot touch a remover that
stands nearer to the founder. A removal that strikes itself (it voids its own issuer's admission) is void.

Rules of this file: the result depends on the set alone, never on the order of arrival; every loop is bounded by a
constant of the specification, and what lies beyond a bound is void, the farthest from the founder first. Normative
text: docs/spec/membership.md, section 4.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from atoll.base.member import Member
from atoll.group.limits import CYCLE_MAX, CYCLE_ROUNDS_MAX, MEMBERS_MAX, VERDICT_ROUNDS_MAX
from atoll.group.statement import Admit, Remove, Statement

__all__ = ["Entry", "Histories", "Verdict", "judge", "lineage"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A statement and its digest."""

    digest: bytes
    statement: Statement


Histories = Mapping[bytes, Sequence[Entry]]  # Of each issuer: its admissions and removals by (counter, digest).
_Removals = dict[bytes, Entry]  # By digest, in the order of the walk that found them.


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who is a member, and why.

    Attributes:
        admitted: Members as they were admitted, in order of admission (nearest to the founder first), at most 64.
        issuers: Signing keys that were ever validly admitted, in the same order.
        removals: Removals in force, by issuer and counter.
        valid: Digests of all statements in force.
    """

    admitted: tuple[Member, ...]
    issuers: tuple[bytes, ...]
    removals: tuple[Entry, ...]
    valid: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class _Walk:
    issuers: list[bytes]
    valid: list[Entry]
    removals: _Removals


def lineage(history: Sequence[Entry], heads: Iterable[bytes]) -> frozenset[bytes]:
    """Return the digests of the known statements among ``heads`` and of all that came before them."""
    previous = {entry.digest: entry.statement.previous for entry in history}
    kept: set[bytes] = set()
    for head in heads:
        step = head
        while step in previous and step not in kept:
            kept.add(step)
            step = previous[step]
    return frozenset(kept)


def judge(founder: bytes, histories: Histories) -> Verdict:
    """Return the verdict over a set of statements.

    Args:
        founder: The founder's signing key, which is the group's id.
        histories: Statements by issuer; each issuer's ordered by (counter, digest).
    """
    court = _Court(founder, histories)
    in_force = court.removals_in_force()
    walk = court.walk(in_force)
    order = sorted(in_force.values(), key=lambda entry: (entry.statement.issuer, entry.statement.counter, entry.digest))
    valid = frozenset(entry.digest for entry in (*walk.valid, *order))
    return Verdict(_listed(walk, order), tuple(walk.issuers), tuple(order), valid)


def _listed(walk: _Walk, removals: Sequence[Entry]) -> tuple[Member, ...]:
    bodies = [entry.statement.body for entry in removals]
    removed = {key for body in bodies if isinstance(body, Remove) for key in (body.node, body.signing_key)}
    bound: set[bytes] = set()
    listed: list[Member] = []
    for entry in walk.valid:
        body = entry.statement.body
        if not isinstance(body, Admit):
            continue
        keys = (body.member.public_key, body.member.signing_key)
        # The first to be admitted with a key keeps it: nobody can be re-bound to another's key, or the other way round.
        if keys[0] in bound or keys[1] in bound:
            continue
        bound.update(keys)
        if body.member.node not in removed and keys[1] not in removed and len(listed) < MEMBERS_MAX:
            listed.append(body.member)
    return tuple(listed)


@final
class _Court:
    def __init__(self, founder: bytes, histories: Histories) -> None:
        self._founder = founder
        self._histories = histories
        self._kept = {
            entry.digest: lineage(histories.get(entry.statement.body.signing_key, ()), entry.statement.body.heads)
            for history in histories.values()
            for entry in history
            if isinstance(entry.statement.body, Remove)
        }

    def walk(self, removals: _Removals) -> _Walk:
        """Follow the admissions from the founder, leaving out what these removals void. O(statements)."""
        cuts: dict[bytes, list[bytes]] = {}
        for digest, entry in removals.items():
            assert isinstance(entry.statement.body, Remove)
            cuts.setdefault(entry.statement.body.signing_key, []).append(digest)
        walk = _Walk([self._founder], [], {})
        seen = {self._founder}
        for issuer in walk.issuers:  # Grows while it is walked: a queue.
            cut = cuts.get(issuer, ())
            for entry in self._histories.get(issuer, ()):
                # A removal does not void itself: so a member can leave.
                if not all(entry.digest == by or entry.digest in self._kept[by] for by in cut):
                    continue
                walk.valid.append(entry)
                match entry.statement.body:
                    case Admit(member) if member.signing_key not in seen:
                        seen.add(member.signing_key)
                        walk.issuers.append(member.signing_key)
                    case Remove():
                        walk.removals[entry.digest] = entry
                    case _:
                        pass
        return walk

    def removals_in_force(self) -> _Removals:
        forced: _Removals = {}
        void: _Removals = {}
        certain, possible = self._settle(forced, void)
        for _ in range(CYCLE_ROUNDS_MAX):
            disputed = [digest for digest in possible if digest not in certain]
            if not disputed:
                break
            strikes = self._strikes(disputed[:CYCLE_MAX], certain, possible)
            first = _first_to_hold(strikes)
            void |= {digest: possible[digest] for digest, struck in strikes.items() if first in struck}
            forced = certain | {first: possible[first]}  # Unless it struck itself: void goes first.
            certain, possible = self._settle(forced, void)
        return certain

    def _settle(self, forced: _Removals, void: _Removals) -> tuple[_Removals, _Removals]:
        """Return (certain, possible) removals; the first is part of the second. More removals void more: antitone."""

        def valid_under(removals: _Removals) -> _Removals:
            found = self.walk(removals).removals | forced
            return {digest: entry for digest, entry in found.items() if digest not in void}

        possible = valid_under(forced)
        certain = forced
        for _ in range(VERDICT_ROUNDS_MAX):
            certain = valid_under(possible)
            if len(certain) == len(possible):
                break
            fewer = valid_under(certain)
            if len(fewer) == len(possible):
                break
            possible = fewer
        return certain, possible

    def _strikes(self, disputed: list[bytes], certain: _Removals, possible: _Removals) -> dict[bytes, set[bytes]]:
        """Return for each of those disputed which of them it would void."""
        strikes: dict[bytes, set[bytes]] = {}
        for digest in disputed:
            left = self.walk(certain | {digest: possible[digest]}).removals
            strikes[digest] = {other for other in disputed if other not in left}
        return strikes


def _first_to_hold(strikes: dict[bytes, set[bytes]]) -> bytes:
    """Return the first, in the order of the walk, that strikes back (also by way of others) at all that strike it."""
    reach = {digest: set(struck) for digest, struck in strikes.items()}
    for middle, beyond in reach.items():  # Warshall's closure; at most CYCLE_MAX^2 set unions.
        for struck in reach.values():
            if middle in struck:
                struck.update(beyond)
    return next(d for d in reach if all(other in reach[d] for other in reach if d in reach[other]))
