# SPDX-License-Identifier: Apache-2.0
"""What this node knows of the group: a set of signed statements that converges whatever the order of their arrival.

Theory of operation. The set only grows (two nodes that hold the same statements hold the same roster), and who is a
member is a function of the set (``verdict.py``). Each issuer's admissions and removals form a chain by digest, and are
taken in chain order, so what is held of an issuer has no holes. An issuer that signs two statements under one counter
*forks* its chain: both are kept and both count, because the honest cause is a restored backup, where dropping one would
lose members; beyond ``FORKS_MAX`` the smallest digests stay. Profiles are registers: the highest counter stays.
What a removal keeps of the removed one's history is exempt from those limits, so nobody can rewrite it afterwards.
Normative text: docs/spec/membership.md, sections 3 and 5.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from hashlib import blake2s
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError, LimitError
from atoll.base.ids import GroupId, NodeId
from atoll.base.member import Member
from atoll.group.form import FORM_VERSION, Form, KeptInvites, decode_form, encode_form
from atoll.group.guests import GuestList, free_name, listed
from atoll.group.limits import FORKS_MAX, HEADS_MAX, ISSUER_STATEMENTS_MAX, REMOVES_RESERVE, STATEMENTS_MAX
from atoll.group.messages import LINE_BYTES, ROSTER_DIGEST_BYTES, Line
from atoll.group.statement import (
    Admit,
    Body,
    Draft,
    Name,
    Profile,
    Remove,
    Statement,
    digest_of,
    statement_is_sound,
    verify,
)
from atoll.group.verdict import Entry, Verdict, judge, lineage

__all__ = ["Outcome", "Roster"]


class Outcome(StrEnum):
    """What became of a statement."""

    NEW = "new"
    KNOWN = "known"
    STALE = "stale"  # A newer profile, or enough forks with smaller digests, are here already.
    EARLY = "early"  # It rests on statements that are not here: ask for them.
    UNSOUND = "unsound"  # Breaks a rule of its kind.
    FORGED = "forged"  # The signature is not good in this group.
    FULL = "full"  # No room, not even after compaction.


@final
class Roster:
    """The statements of one group.

    Args:
        group: The group's id, which is the founder's signing key.
    """

    __slots__ = ("_digest", "_guests", "_log", "_named", "_profiles", "_shown", "_verdict", "group")

    def __init__(self, group: GroupId) -> None:
        self.group: Final = group
        self._log: dict[bytes, dict[bytes, Entry]] = {}  # By issuer, then digest.
        self._profiles: dict[bytes, Entry] = {}
        self._named: dict[bytes, None] = {bytes(group): None}  # Keys that any statement here admits, and the founder.
        self._verdict: Verdict | None = None
        self._shown: tuple[Member, ...] | None = None
        self._digest: bytes | None = None
        self._guests: GuestList | None = None

    def __len__(self) -> int:
        """Admissions and removals held; profiles do not count."""
        return sum(len(history) for history in self._log.values())

    # Taking statements in.

    def add(self, statement: Statement) -> Outcome:
        """Take in one statement, verified. Cost: one hash when known, and one signature check when it is new."""
        if not statement_is_sound(statement):
            return Outcome.UNSOUND
        if isinstance(statement.body, Name) and statement.issuer != self.group:
            return Outcome.UNSOUND
        entry = Entry(digest_of(self.group, statement), statement)
        if isinstance(statement.body, Profile):
            return self._add_profile(entry, statement.body)
        history = self._log.get(statement.issuer, {})
        if entry.digest in history:
            return Outcome.KNOWN
        if statement.issuer not in self._named:
            return Outcome.EARLY
        if statement.counter > 1:
            before = history.get(statement.previous)
            if before is None:
                return Outcome.EARLY
            if before.statement.counter != statement.counter - 1:
                return Outcome.UNSOUND
        surplus = self._surplus_fork(entry, history)
        if surplus == entry.digest:
            return Outcome.STALE
        if not self._signature_is_good(statement):
            return Outcome.FORGED
        if not self._has_room(statement.body):
            return Outcome.FULL
        self._insert(entry)
        if surplus is not None:
            self._evict(statement.issuer, surplus)
        return Outcome.NEW

    def _add_profile(self, entry: Entry, body: Profile) -> Outcome:
        issuer = entry.statement.issuer
        held = self._profiles.get(issuer)
        if held is not None:
            if held.digest == entry.digest:
                return Outcome.KNOWN
            if (entry.statement.counter, held.digest) < (held.statement.counter, entry.digest):
                return Outcome.STALE
        admitted = next((m for m in self._judged().admitted if m.signing_key == issuer), None)
        if admitted is None:
            return Outcome.EARLY
        if admitted.public_key != body.member.public_key:
            return Outcome.UNSOUND
        if not self._signature_is_good(entry.statement):
            return Outcome.FORGED
        self._profiles[issuer] = entry
        self._shown = self._digest = self._guests = None
        return Outcome.NEW

    def _signature_is_good(self, statement: Statement) -> bool:
        return verify(statement.issuer, statement.draft.payload(self.group), statement.signature)

    def _insert(self, entry: Entry) -> None:
        self._log.setdefault(entry.statement.issuer, {})[entry.digest] = entry
        if isinstance(entry.statement.body, Admit):
            self._named[entry.statement.body.member.signing_key] = None
        self._forget_derived()

    def _forget_derived(self) -> None:
        self._verdict, self._shown, self._digest, self._guests = None, None, None, None

    def _surplus_fork(self, entry: Entry, history: dict[bytes, Entry]) -> bytes | None:
        rivals = [e.digest for e in history.values() if e.statement.counter == entry.statement.counter]
        if len(rivals) < FORKS_MAX:
            return None
        kept: set[bytes] = set()
        for other in self._log.values():
            for by in other.values():
                body = by.statement.body
                if isinstance(body, Remove) and body.signing_key == entry.statement.issuer:
                    kept |= lineage([*history.values(), entry], body.heads)
        free = sorted(digest for digest in (*rivals, entry.digest) if digest not in kept)
        return free[-1] if len(free) > FORKS_MAX else None

    def _evict(self, issuer: bytes, digest: bytes) -> None:
        history = self._log[issuer]
        gone = [digest]
        for parent in gone:  # Grows while it is walked.
            del history[parent]
            gone += [e.digest for e in history.values() if e.statement.previous == parent]
        self._drop_orphans()

    def _drop_orphans(self) -> None:
        self._named = {key: None for key, _ in self._in_order()}
        self._log = {key: history for key, history in self._log.items() if key in self._named}
        self._forget_derived()

    def _has_room(self, body: Body) -> bool:
        room = STATEMENTS_MAX + (REMOVES_RESERVE if isinstance(body, Remove) else 0)
        if len(self) >= room:
            self.compact()
        return len(self) < room

    def compact(self) -> int:
        """Drop the statements that are void and that nothing in force rests on; return how many.

        ``members()`` stays as it was. Not done before there is need: a removal that is void now could come into force
        again when its voider is voided.
        """
        before = len(self)
        valid = self._judged().valid
        for issuer, history in self._log.items():
            kept = lineage(list(history.values()), [digest for digest in history if digest in valid])
            self._log[issuer] = {digest: entry for digest, entry in history.items() if digest in kept}
        self._drop_orphans()
        return before - len(self)

    # What it comes to.

    def _judged(self) -> Verdict:
        if self._verdict is None:
            histories = {issuer: self._history(issuer) for issuer in self._log}
            self._verdict = judge(self.group, histories)
            listed = {member.signing_key for member in self._verdict.admitted}
            self._profiles = {key: entry for key, entry in self._profiles.items() if key in listed}
        return self._verdict

    def _history(self, issuer: bytes) -> list[Entry]:
        return sorted(self._log.get(issuer, {}).values(), key=lambda e: (e.statement.counter, e.digest))

    def members(self) -> tuple[Member, ...]:
        """Return the members as shown, with unique names, in order of admission; at most MEMBERS_MAX."""
        if self._shown is None:
            self._shown = self._named_apart(self._judged().admitted)
        return self._shown

    def record(self, signing_key: bytes) -> Member | None:
        """Return what this member last said of itself, with the name that it asked for; None: not a member now."""
        admitted = next((m for m in self._judged().admitted if m.signing_key == signing_key), None)
        entry = self._profiles.get(signing_key)
        if admitted is None or entry is None:
            return admitted
        return entry.statement.body.member if isinstance(entry.statement.body, Profile) else admitted

    def _named_apart(self, admitted: Sequence[Member]) -> tuple[Member, ...]:
        asked = {member.signing_key: self.record(member.signing_key) or member for member in admitted}
        shown: dict[bytes, Member] = dict(asked)  # Fixes the order.
        taken: dict[str, None] = {}
        # Whoever takes a new name stands behind all who bear the one they were admitted under: none can be taken over.
        for renamed in (False, True):
            for member in admitted:
                now = asked[member.signing_key]
                if (now.name != member.name) == renamed:
                    name = free_name(now.name, taken)
                    taken[name] = None
                    shown[member.signing_key] = msgspec.structs.replace(now, name=name)
        return tuple(shown.values())

    def free_name(self, name: str) -> str:
        """Return the name that a new member or guest who asks for this one would get."""
        members, guests = self.members(), self.guests().guests
        return free_name(name, dict.fromkeys((*(m.name for m in members), *(guest.name for guest in guests))))

    def guests(self) -> GuestList:
        """Return the guests as shown, with names that no member has, and who may serve them."""
        if self._guests is None:
            valid = self._judged().valid
            bodies = (entry.statement.body for entry in self._every() if entry.digest in valid)
            self._guests = listed(bodies, (member.name for member in self.members()))
        return self._guests

    @property
    def name(self) -> str:
        """What the founder called the group; empty: nothing that is in force."""
        valid = self._judged().valid
        in_force = (entry.statement.body for entry in self._history(self.group) if entry.digest in valid)
        said = [body.name for body in in_force if isinstance(body, Name)]
        return said[-1] if said else ""  # Of a fork that with the greatest digest, wherever it came first.

    def find(self, node: bytes) -> Member | None:
        """Return the member with this node id, as shown; None: not a member now."""
        return next((member for member in self.members() if member.node == node), None)

    def is_removed(self, member: Member) -> bool:
        """Tell whether a removal in force names one of this record's keys."""
        return any(
            isinstance(entry.statement.body, Remove)
            and (entry.statement.body.node == member.node or entry.statement.body.signing_key == member.signing_key)
            for entry in self.removals()
        )

    def removals(self) -> tuple[Entry, ...]:
        """Return the removals in force, by issuer and counter."""
        return self._judged().removals

    def issuer_name(self, signing_key: bytes) -> str:
        """Return the name under which this key was admitted, for people; its first digits when it never was."""
        for entry in self._every():
            body = entry.statement.body
            if isinstance(body, Admit) and body.member.signing_key == signing_key:
                return body.member.name
        return signing_key.hex()[:8]

    def former(self) -> tuple[Member, ...]:
        """Return who was admitted once and is no member by that key now, as it was admitted."""
        keys = {member.signing_key for member in self.members()}
        found: dict[bytes, Member] = {}
        for entry in self._every():
            body = entry.statement.body
            if isinstance(body, Admit) and body.member.signing_key not in keys:
                found[body.member.signing_key] = body.member
        return tuple(found.values())

    def node_of(self, signing_key: bytes) -> NodeId | None:
        """Return the node that was admitted with this signing key, member or not; None: never admitted here."""
        for entry in self._every():
            body = entry.statement.body
            if isinstance(body, Admit) and body.member.signing_key == signing_key:
                return body.member.node
        return None

    def stands_without(self, signing_key: bytes, other: bytes) -> bool:
        """Tell whether this key would be admitted even if all that ``other`` ever said were void."""
        valid = self._judged().valid
        queue, seen = [bytes(self.group)], {bytes(self.group): True}
        for issuer in queue:  # Grows while it is walked.
            for entry in self._history(issuer) if issuer != other else ():
                body = entry.statement.body
                if entry.digest in valid and isinstance(body, Admit) and body.member.signing_key not in seen:
                    seen[body.member.signing_key] = True
                    queue.append(body.member.signing_key)
        return signing_key in seen

    def equivocators(self) -> tuple[bytes, ...]:
        """Return the issuers that signed two statements under one counter, in order of admission."""
        return tuple(
            issuer
            for issuer, history in self._in_order()
            if len({entry.statement.counter for entry in history}) < len(history)
        )

    def admitted_by(self, node: bytes) -> str:
        """Return the shown name of who admitted this member, for people; empty: not found."""
        valid = self._judged().valid
        for entry in self._every():
            body = entry.statement.body
            if entry.digest in valid and isinstance(body, Admit) and body.member.node == node:
                return self.issuer_name(entry.statement.issuer)
        return ""

    def version_text(self) -> str:
        """Return the version for people, such as ``57-a1b2c3``: two nodes with the same text have the same roster."""
        return f"{len(self) + len(self._profiles)}-{self.digest().hex()[:6]}"

    def digest(self) -> bytes:
        """Return the hash of all statements held, 16 bytes; signatures do not count."""
        if self._digest is None:
            self._judged()  # Drops the profiles of those who are members no more.
            digests = sorted(digest for history in self._log.values() for digest in history)
            profiles = sorted(entry.digest for entry in self._profiles.values())
            self._digest = _hash([*digests, b"profiles", *profiles], ROSTER_DIGEST_BYTES)
        return self._digest

    # Saying something oneself.

    def draft(self, issuer: bytes, body: Body) -> Draft:
        """Return the issuer's next statement, to be signed.

        Raises:
            LimitError: The issuer has used all its counters, or the roster is full of statements in force.
        """
        if isinstance(body, Profile):
            held = self._profiles.get(issuer)
            return Draft(issuer, 1 if held is None else held.statement.counter + 1, b"", body)
        if not self._has_room(body):
            raise LimitError("STATEMENTS_MAX", STATEMENTS_MAX)
        history = self._history(issuer)
        if not history:
            return Draft(issuer, 1, b"", body)
        top = history[-1]
        if top.statement.counter >= ISSUER_STATEMENTS_MAX:
            raise LimitError("ISSUER_STATEMENTS_MAX", ISSUER_STATEMENTS_MAX)
        return Draft(issuer, top.statement.counter + 1, top.digest, body)

    def heads(self, issuer: bytes) -> tuple[bytes, ...]:
        """Return the ends of what is held of this issuer, longest chains first, at most HEADS_MAX."""
        history = self._history(issuer)
        parents = {entry.statement.previous for entry in history}
        ends = [entry for entry in reversed(history) if entry.digest not in parents]
        return tuple(entry.digest for entry in ends[:HEADS_MAX])

    # Telling others.

    def _in_order(self) -> list[tuple[bytes, list[Entry]]]:
        """Return all issuers, each after one that admits it, with their histories."""
        queue, seen = [self.group], {bytes(self.group)}
        found: list[tuple[bytes, list[Entry]]] = []
        for issuer in queue:  # Grows while it is walked.
            history = self._history(issuer)
            found.append((issuer, history))
            for entry in history:
                body = entry.statement.body
                if isinstance(body, Admit) and body.member.signing_key not in seen:
                    seen.add(body.member.signing_key)
                    queue.append(GroupId(body.member.signing_key))
        return found

    def _every(self) -> Iterable[Entry]:
        return (entry for _, history in self._in_order() for entry in history)

    def statements(self) -> tuple[Statement, ...]:
        """Return all statements, each after those that it rests on, profiles last."""
        self._judged()
        profiles = sorted(self._profiles.items())
        return (*(entry.statement for entry in self._every()), *(entry.statement for _, entry in profiles))

    def lines(self) -> tuple[Line, ...]:
        """Return the summary: one line for each issuer, by key."""
        self._judged()
        keys = sorted({*self._log, *self._profiles})
        return tuple(self._line(key) for key in keys)

    def _line(self, issuer: bytes) -> Line:
        history = self._history(issuer)
        profile = self._profiles.get(issuer)
        return Line(
            issuer=issuer[:LINE_BYTES],
            top=history[-1].statement.counter if history else 0,
            log=_hash(sorted(entry.digest for entry in history), LINE_BYTES),
            serial=0 if profile is None else profile.statement.counter,
            profile=b"" if profile is None else profile.digest[:LINE_BYTES],
        )

    def compare(
        self, first: bytes, last: bytes, lines: Sequence[Line], *, thorough: bool = False
    ) -> tuple[tuple[Statement, ...], bool]:
        """Compare with another's summary of the issuers from ``first`` to ``last``.

        Args:
            first: Least first bytes of an issuer's key in the range.
            last: Greatest.
            lines: The other's.
            thorough: Also push what may be known to the other: the histories that it has more of, but which differ.

        Returns:
            The statements that the other seems to lack, in the order of ``statements``; and whether we may lack some.
        """
        self._judged()
        theirs = {line.issuer: line for line in lines}
        lacking, profiles, behind = list[Statement](), list[Statement](), False
        for issuer, history in self._in_order():
            if not first <= issuer[:LINE_BYTES] <= last:
                continue
            ours, profile = self._line(issuer), self._profiles.get(issuer)
            line = theirs.pop(ours.issuer, None) or Line(ours.issuer, 0, _hash([], LINE_BYTES), 0, b"")
            if ours.log != line.log:
                shared = [entry.digest for entry in history if entry.statement.counter <= line.top]
                they_lack_the_end = _hash(sorted(shared), LINE_BYTES) == line.log
                behind = behind or not they_lack_the_end
                if thorough or ours.top >= line.top:
                    # With a fork further down they get all: which part of it they lack cannot be told from a hash.
                    start = len(shared) if they_lack_the_end else 0
                    lacking += [entry.statement for entry in history[start:]]
            if ours.profile != line.profile:
                behind = behind or line.serial >= ours.serial
                if profile is not None and ours.serial >= line.serial:
                    profiles.append(profile.statement)
        return (*lacking, *profiles), behind or bool(theirs)

    # The durable form.

    def encode(self, *more: Statement, kept: KeptInvites | None = None) -> bytes:
        """Return the durable form, also used in snapshots.

        Args:
            more: Further statements that are not yet taken in.
            kept: The node's own invitations, for its own disk alone.
        """
        return encode_form(Form(FORM_VERSION, self.group, (*self.statements(), *more), kept))

    @classmethod
    def decode(cls, encoded: bytes) -> "Roster":
        """Make the roster from its durable form; every signature is checked again (0.15 ms each).

        Raises:
            CorruptError: It is not what ``encode`` wrote.
        """
        roster = cls.trusted(encoded)
        if not roster.is_signed():
            raise CorruptError("a roster with a statement that nobody signed")
        return roster

    def is_signed(self) -> bool:
        """Tell whether every statement held is sound and has a good signature: what ``add`` made sure of."""
        logged = [entry.statement for history in self._log.values() for entry in history.values()]
        profiles = [entry.statement for entry in self._profiles.values()]
        return all(statement_is_sound(s) and self._signature_is_good(s) for s in (*logged, *profiles))

    @classmethod
    def trusted(cls, encoded: bytes) -> "Roster":
        """Make the roster from its durable form without checking signatures: for our own journal.

        Raises:
            CorruptError: The bytes do not decode.
        """
        form = decode_form(encoded)
        roster = cls(GroupId(form.group))
        # Not through add: what was held stays held, also above the limit of forks.
        for statement in form.statements:
            entry = Entry(digest_of(roster.group, statement), statement)
            if isinstance(statement.body, Profile):
                roster._profiles[statement.issuer] = entry
            else:
                roster._insert(entry)
        return roster


def _hash(digests: Iterable[bytes], size_bytes: int) -> bytes:
    return blake2s(b"".join(digests), digest_size=size_bytes).digest()
