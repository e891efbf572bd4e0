# SPDX-License-Identifier: Apache-2.0
"""Decides what a node tells the others of what is slow, and what it believes of what they tell: the bulletin.

Rules of the file:

* Only what lasts is told (``health/model.py``), and at most once a second.
* Of itself everybody is believed: who says that it is slow hurts nobody but itself.
* Of a third a member is *not* believed. What it says is kept, shown as its word, and changes nothing by itself. So one
  member cannot get another one shunned: whoever shuns has measured it itself, or has it from the accused.
* A node of which at least two members, and at least half of those that are linked, say that it is slow, takes that for
  true, whatever it measured itself, and tells so: the difference between what a machine sees of itself and what its
  clients see is a fault by itself (Huang et al., Gray Failure, HotOS 2017).
* However many are slow, at most half of the members are shunned as relays; those that were measured here come first,
  then the worst, and how bad one may look is bounded. Shunned means: taken when nothing else will do.
* Whoever is shunned stays so for a minute, so that nobody moves the others' routes more often by what it says.

A pure machine, part of ``node.Control``. What is measured comes in as ``Found``, decided by a ``Watch`` before.
"""

from collections.abc import Sequence
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError, UsageError, WireError
from atoll.base.units import MINUTE_NS, SECOND_NS
from atoll.core.machine import Tick, Tuple
from atoll.health.detectors.differential import clients_needed
from atoll.health.members.messages import AILMENTS_MAX, Ailment, Ailments, decode_ailments, encode_ailments
from atoll.health.model import State

__all__ = [
    "ANSWERS",
    "LINK",
    "SEEN",
    "Bulletin",
    "BulletinEffect",
    "BulletinInput",
    "Found",
    "HealthNotice",
    "HealthReceived",
    "Linked",
    "MemberHealth",
    "Members",
    "Shun",
    "TellHealth",
    "Unlinked",
    "Word",
]

GAP_NS: Final = SECOND_NS  # Limit. Between two tellings.
CREDIT_NS: Final = 4 * GAP_NS  # Limit. So many messages of a member at once, then one each GAP_NS; more are dropped.
REPEAT_NS: Final = 30 * SECOND_NS  # What got lost is said again so much later; nothing is said while all is well.
AGE_NS_MAX: Final = 3 * REPEAT_NS  # What was not said again for so long is true no more.
MEMBERS_MAX: Final = 64  # Limit. As of the group.
FOUND_MAX: Final = 256  # Limit. Faults that this node measures at a time; beyond it a new one is not noted.
SHUNNED_PARTS: Final = 2  # Of the members at most one in so many is shunned, rounded up.
STAY_NS: Final = MINUTE_NS  # So long one stays shunned.
INCUMBENT: Final = 2  # So much worse a rival must be to take its place then.
BADNESS_MAX: Final = 1000  # Hundredths of usual. Worse looks no worse: what is said of itself is easily said.
NOTICES_MAX: Final = 8  # Limit. For people, of what one member tells within NOTICES_NS.
NOTICES_NS: Final = MINUTE_NS
LINK: Final = "link"  # The direct path to a member.
ANSWERS: Final = "answers"  # How long a member takes to answer a question.
_PORT: Final = "program:"  # Beginning of the names of ports that members reach; other kinds are what programs report.
SEEN: Final = "seen"  # What a node says of itself when the others find it slow and it does not.
RELAYING: Final = frozenset(
    {"cpu", "work", "loop", "memory", "net", SEEN}
)  # Who is slow in these holds up what it relays.
_US_MAX: Final = 0xFFFF_FFFF


class Found(Tuple, frozen=True):
    """Input: what this node measures came into another state, or is in it still. Journalled.

    Attributes:
        of: The member that was measured; empty: this node.
        what: The component, as in ``Ailment``.
        state: ``SLOW`` or ``FAILED``; anything else: it is over.
        since_ns: Onset.
        usual_ns: What is usual.
        newest_ns: What it is now.
    """

    of: bytes
    what: str
    state: State
    since_ns: int
    usual_ns: int
    newest_ns: int


class HealthReceived(Tuple, frozen=True):
    """Input: a member sent a message with one of HEALTH_TAGS."""

    node: bytes
    payload: bytes


class Linked(Tuple, frozen=True):
    """Input: there is a session with this member, a new one perhaps."""

    node: bytes


class Unlinked(Tuple, frozen=True):
    """Input: there is none any more."""

    node: bytes


class Members(Tuple, frozen=True):
    """Input: the other members are these now."""

    nodes: tuple[bytes, ...]


class TellHealth(Tuple, frozen=True):
    """Effect: send this to a member by its best path. It may get lost."""

    node: bytes
    payload: bytes


class Shun(Tuple, frozen=True):
    """Effect: let these members relay only where nobody else will do; all others as they would."""

    nodes: tuple[bytes, ...]


class HealthNotice(Tuple, frozen=True):
    """Effect: for people: a component of a member (empty: ours) is slow now, or is so no more.

    ``by`` is who says so: the member itself, or this node (its id).
    """

    of: bytes
    what: str
    slow: bool
    since_ns: int
    usual_us: int
    newest_us: int
    by: bytes


BulletinInput = Found | HealthReceived | Linked | Unlinked | Members | Tick
BulletinEffect = TellHealth | Shun | HealthNotice


class Word(Tuple, frozen=True):
    """One fault that somebody tells of a member.

    Attributes:
        by: Who: the member itself, this node, or a third.
        what: The component.
        failed: As in ``Ailment``.
        since_ns: Onset, by our clock.
        usual_us: What is usual.
        newest_us: What it was when it was told.
    """

    by: bytes
    what: str
    failed: bool
    since_ns: int
    usual_us: int
    newest_us: int


class MemberHealth(Tuple, frozen=True):
    """What is known of a member's health.

    Attributes:
        state: Ok, slow or failed: by its own word and our measurements alone.
        words: What these rest on, the worst first.
        hearsay: What third members say.
        shunned: Whether it relays only where nobody else will do.
    """

    state: State
    words: tuple[Word, ...]
    hearsay: tuple[Word, ...]
    shunned: bool


class Heard(msgspec.Struct, array_like=True):
    """What one member told last.

    Attributes:
        boot: Its life; ``former``: the one before, of which a packet may still come.
        sequence: Of the newest message; ``at_ns``: when it came.
        words: Of whom, and what.
        credit_ns: What it may still say; ``credit_at_ns``: as of when.
        notices: How many were given within NOTICES_NS since ``notices_ns``.
    """

    boot: int = -1
    former: int = -1
    sequence: int = -1
    at_ns: int = 0
    words: tuple[tuple[bytes, Word], ...] = ()
    credit_ns: int = CREDIT_NS
    credit_at_ns: int = 0
    notices: int = 0
    notices_ns: int = 0


class BulletinState(msgspec.Struct):
    """All that a snapshot holds."""

    own: bytes
    boot: int
    now_ns: int = 0
    sequence: int = 0
    members: tuple[bytes, ...] = ()
    linked: dict[bytes, bool] = {}
    found: dict[bytes, dict[str, Found]] = {}
    heard: dict[bytes, Heard] = {}
    said: tuple[tuple[bytes, str], ...] = ()  # Whose and which, as last told.
    said_ns: int | None = None
    due_ns: int | None = None
    shunned: dict[bytes, int] = {}  # Until when each stays so.
    dropped: int = 0


@final
class Bulletin:
    """The bulletin of one node.

    Args:
        state: Of ``BulletinState(own, boot)``, or restored.
    """

    def __init__(self, state: BulletinState) -> None:
        self._state: Final = state
        self._effects: list[BulletinEffect] = []

    @classmethod
    def create(cls, own: bytes, boot: int) -> "Bulletin":
        """Make the machine of a node that starts now; ``boot`` is the number of this life, 0 to 2^63 - 1."""
        return cls(BulletinState(own, boot))

    @property
    def deadline_ns(self) -> int | None:
        """When a ``Tick`` is owed; None: never."""
        return self._state.due_ns

    @property
    def linked(self) -> tuple[bytes, ...]:
        """The members with which there is a session."""
        return tuple(self._state.linked)

    @property
    def dropped(self) -> int:
        """Messages that did not decode, came late, or came from nobody."""
        return self._state.dropped

    def handle(self, event: BulletinInput, now_ns: int) -> tuple[BulletinEffect, ...]:
        """Apply one input; return what to do, in order.

        Raises:
            UsageError: Time went back. Nothing that a member sends can raise.
        """
        state = self._state
        if now_ns < state.now_ns:
            raise UsageError(f"{type(event).__name__} at {now_ns} ns, after {state.now_ns} ns")
        state.now_ns = now_ns
        self._effects = []
        match event:
            case Found():
                self._note(event)
            case HealthReceived(node, payload):
                self._hear(node, payload)
            case Linked(node):
                if node in state.members:
                    state.linked[node] = True
                    if state.said:
                        self._tell(node)
            case Unlinked(node):
                state.linked.pop(node, None)
            case Members(nodes):
                self._members(nodes)
            case Tick():
                self._expire()
        self._look()
        self._publish()
        self._plan()
        return tuple(self._effects)

    def health(self, node: bytes) -> MemberHealth:
        """Return what is known of a member's health; of this node's own as well."""
        state = self._state
        words = [self._word(state.own, found) for found in state.found.get(node, {}).values()]
        hearsay: list[Word] = []
        for teller, heard in state.heard.items():
            told = [word for of, word in heard.words if of == node]
            (words if teller == node else hearsay).extend(told)
        words.sort(key=_badness, reverse=True)
        health = State.FAILED if any(word.failed for word in words) else State.SLOW if words else State.OK
        return MemberHealth(health, tuple(words), tuple(hearsay), node in state.shunned)

    def snapshot(self) -> bytes:
        """Return the whole state as MessagePack bytes."""
        return msgspec.msgpack.encode(self._state)

    @classmethod
    def restore(cls, snapshot: bytes) -> "Bulletin":
        """Make the machine from ``snapshot()`` bytes.

        Raises:
            CorruptError: The bytes do not decode.
        """
        try:
            return cls(msgspec.msgpack.decode(snapshot, type=BulletinState))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptError("a bulletin snapshot that does not decode") from error

    # Inputs.

    def _note(self, found: Found) -> None:
        state = self._state
        of = found.of or state.own
        if of != state.own and of not in state.members:
            return
        mine = state.found.setdefault(of, {})
        was = mine.get(found.what)
        if found.state in (State.SLOW, State.FAILED):
            if was is None and sum(map(len, state.found.values())) >= FOUND_MAX:
                state.dropped += 1
                if not mine:
                    del state.found[of]
                return
            mine[found.what] = found
            if was is None:
                self._notice(of, self._word(state.own, found), slow=True)
        elif mine.pop(found.what, None) is not None:
            self._notice(of, self._word(state.own, found), slow=False)
        if not mine:
            del state.found[of]

    def _hear(self, node: bytes, payload: bytes) -> None:
        state = self._state
        try:
            message = decode_ailments(payload)
        except WireError:
            state.dropped += 1
            return
        if node not in state.members or not self._takes(node, message):
            state.dropped += 1
            return
        words: dict[tuple[bytes, str], Word] = {}
        for one in message.ailments:
            if one.of in (node, state.own, *state.members):
                since_ns = max(0, state.now_ns - one.age_s * SECOND_NS)
                words[one.of, one.what] = Word(node, one.what, one.failed, since_ns, one.usual_us, one.newest_us)
        heard = state.heard[node]
        before, heard.words = heard.words, tuple((of, word) for (of, _), word in words.items())
        self._compare(node, before, heard.words)

    def _takes(self, node: bytes, message: Ailments) -> bool:
        """Return whether a message is news, and its sender has not said too much already; note that it came."""
        state = self._state
        heard = state.heard.setdefault(node, Heard())
        same = message.boot == heard.boot
        if message.boot == heard.former or (same and message.sequence <= heard.sequence):
            return False
        heard.credit_ns = min(CREDIT_NS, heard.credit_ns + state.now_ns - heard.credit_at_ns)
        heard.credit_at_ns = state.now_ns
        if heard.credit_ns < GAP_NS:
            return False
        heard.credit_ns -= GAP_NS
        if not same:
            heard.former, heard.boot = heard.boot, message.boot
        heard.sequence, heard.at_ns = message.sequence, state.now_ns
        return True

    def _compare(self, node: bytes, before: Sequence[tuple[bytes, Word]], after: Sequence[tuple[bytes, Word]]) -> None:
        """Give notice of what a member says of itself now and did not, or did and does not."""
        was = {word.what: word for of, word in before if of == node}
        now = {word.what: word for of, word in after if of == node}
        news = [(word, True) for what, word in now.items() if what not in was]
        news += [(word, False) for what, word in was.items() if what not in now]
        heard, now_ns = self._state.heard[node], self._state.now_ns
        if now_ns - heard.notices_ns >= NOTICES_NS:
            heard.notices, heard.notices_ns = 0, now_ns
        for word, slow in news[: max(0, NOTICES_MAX - heard.notices)]:
            heard.notices += 1
            self._notice(node, word, slow=slow)

    def _members(self, nodes: Sequence[bytes]) -> None:
        state = self._state
        state.members = tuple(node for node in nodes if node != state.own)[:MEMBERS_MAX]
        for kept in (state.linked, state.heard):
            for node in [node for node in kept if node not in state.members]:
                del kept[node]
        for node in [node for node in state.found if node != state.own and node not in state.members]:
            del state.found[node]

    def _expire(self) -> None:
        state = self._state
        for heard in state.heard.values():
            if state.now_ns - heard.at_ns >= AGE_NS_MAX:
                heard.words = ()  # Without a word to people: that nothing is heard any more is no recovery.

    # Decisions.

    def _look(self) -> None:
        """See whether the others find us slow, and whom to shun."""
        state = self._state
        own = state.found.get(state.own, {})
        accusers = [
            word
            for node, heard in state.heard.items()
            if node in state.linked
            for of, word in heard.words
            if of == state.own
        ]
        count = len({word.by for word in accusers})
        is_accused = count >= clients_needed(len(state.linked))
        finds = any(what in RELAYING and what != SEEN for what in own)
        if is_accused and not finds and SEEN not in own:
            worst = max(accusers, key=_badness)
            usual_ns, newest_ns = worst.usual_us * 1000, worst.newest_us * 1000
            self._note(Found(b"", SEEN, State.SLOW, worst.since_ns, usual_ns, newest_ns))
        elif SEEN in own and (not is_accused or finds):
            self._note(msgspec.structs.replace(own[SEEN], state=State.OK))
        before = tuple(sorted(state.shunned))
        self._choose()
        if (shunned := tuple(sorted(state.shunned))) != before:
            self._effects.append(Shun(shunned))

    def _choose(self) -> None:
        """Bring up to date who is shunned."""
        state = self._state
        state.shunned = {node: until for node, until in state.shunned.items() if node in state.members}
        slow: list[tuple[bool, int, bytes]] = []
        for node in state.members:
            ours = [self._word(state.own, one) for one in state.found.get(node, {}).values() if one.what == ANSWERS]
            heard = state.heard.get(node)
            its = [word for of, word in heard.words if of == node and word.what in RELAYING] if heard else []
            if ours or its:
                badness = max(_badness(word) for word in (*ours, *its))
                slow.append((bool(ours), badness * (INCUMBENT if node in state.shunned else 1), node))
        slow.sort(reverse=True)
        stay = {node: until for node, until in state.shunned.items() if until > state.now_ns}
        places = -(-len(state.members) // SHUNNED_PARTS) - len(stay)
        for _, _, node in slow:
            if node not in stay and places > 0:
                stay[node] = state.now_ns + STAY_NS
                places -= 1
        state.shunned = stay

    def _publish(self) -> None:
        """Tell the others if what there is to tell has changed, or is to be said again."""
        state = self._state
        to_tell = tuple((found.of, found.what) for found in self._to_tell())
        if state.said_ns is None and not to_tell:
            return
        since_ns = GAP_NS if state.said_ns is None else state.now_ns - state.said_ns
        if to_tell == state.said and (not to_tell or since_ns < REPEAT_NS):
            return
        if since_ns < GAP_NS:
            return
        state.said, state.said_ns = to_tell, state.now_ns
        for node in state.linked:
            self._tell(node)

    def _to_tell(self) -> list[Found]:
        """Return what fits a message, what matters most to the others first."""
        found = [one for mine in self._state.found.values() for one in mine.values()]
        return sorted(found, key=_order)[:AILMENTS_MAX]

    def _tell(self, node: bytes) -> None:
        state = self._state
        state.sequence += 1
        ailments = tuple(
            Ailment(
                found.of or state.own,
                found.what,
                found.state is State.FAILED,
                max(0, state.now_ns - found.since_ns) // SECOND_NS,
                min(found.usual_ns // 1000, _US_MAX),
                min(found.newest_ns // 1000, _US_MAX),
            )
            for found in self._to_tell()
        )
        message = Ailments(state.boot, state.sequence, ailments)
        self._effects.append(TellHealth(node, encode_ailments(message)))

    def _plan(self) -> None:
        state = self._state
        to_tell = tuple((found.of, found.what) for found in self._to_tell())
        dues = [heard.at_ns + AGE_NS_MAX for heard in state.heard.values() if heard.words]
        dues += [until for until in state.shunned.values() if until > state.now_ns]
        if state.said_ns is not None and to_tell != state.said:
            dues.append(state.said_ns + GAP_NS)
        elif state.said_ns is not None and to_tell:
            dues.append(state.said_ns + REPEAT_NS)
        state.due_ns = min(dues, default=None)

    def _word(self, by: bytes, found: Found) -> Word:
        usual_us, newest_us = min(found.usual_ns // 1000, _US_MAX), min(found.newest_ns // 1000, _US_MAX)
        return Word(by, found.what, found.state is State.FAILED, found.since_ns, usual_us, newest_us)

    def _notice(self, of: bytes, word: Word, *, slow: bool) -> None:
        whose = b"" if of == self._state.own else of
        self._effects.append(
            HealthNotice(whose, word.what, slow, word.since_ns, word.usual_us, word.newest_us, word.by)
        )


def _badness(word: Word) -> int:
    """Return how many hundredths of what is usual it takes, at most BADNESS_MAX."""
    return min(BADNESS_MAX, 100 * word.newest_us // max(1, word.usual_us))


def _order(found: Found) -> int:
    """Return when it is told: what keeps us from relaying first, what else is ours, others, what programs report."""
    if found.of:
        return 3
    if found.what in RELAYING:
        return 0
    if ":" not in found.what:
        return 1
    return 2 if found.what.startswith(_PORT) else 4
