# SPDX-License-Identifier: Apache-2.0
"""How rosters become equal: news at once, then digests with one neighbour at a time. A sub-machine of ``group.py``.

A digest says whether two rosters are the same (it costs 43 bit/s when they are). When not, a summary by issuer says
where they differ, and each side pushes what the other lacks. Nothing is acknowledged: whatever is lost shows in the
next digest. Its methods return the messages to send, as (node, payload).
"""

from collections.abc import Sequence

import msgspec

from atoll.core.entropy import Draws
from atoll.group.limits import (
    DIGEST_INTERVAL_NS,
    FANOUT_MAX,
    SUMMARY_GAP_NS,
    SYNC_MESSAGES_MAX,
)
from atoll.group.messages import LINE_BYTES, Digest, Line, Push, Summary, encode, packed
from atoll.group.roster import Roster
from atoll.group.statement import Remove, Statement

__all__ = ["Exchange", "Letters", "Peer"]

Letters = list[tuple[bytes, bytes]]


class Peer(msgspec.Struct):
    """What is kept of a linked member.

    Attributes:
        skewed: It speaks no protocol of ours.
        summary_ns: When we last sent it a summary that asks for an answer.
        summary_due: Another one is owed when the gap is over.
        window_ns: Start of the time in which ``pushed`` counts.
        pushed: Messages of answers sent in that time.
    """

    skewed: bool = False
    summary_ns: int = -SUMMARY_GAP_NS
    summary_due: bool = False
    window_ns: int = -SUMMARY_GAP_NS
    pushed: int = 0


class Exchange(msgspec.Struct):
    """Linked members, and what is owed to them.

    Attributes:
        boot: Random number of this process, told with each digest.
        draws: Jitter, and the choice of neighbours.
        digest_due_ns: When the next digest goes out.
        peers: By node id.
    """

    boot: int
    draws: Draws
    digest_due_ns: int = 0
    peers: dict[bytes, Peer] = {}

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` has something to do; None: nobody is linked."""
        dues = [peer.summary_ns + SUMMARY_GAP_NS for peer in self.peers.values() if peer.summary_due]
        return min((self.digest_due_ns, *dues)) if self.peers else None

    def peer(self, node: bytes, now_ns: int) -> Peer:
        """Return the peer, linked from now on if it was not: a member may be heard before its link is reported."""
        if not self.peers:
            self._plan(now_ns)
        return self.peers.setdefault(node, Peer())

    def digest(self, node: bytes, roster: Roster) -> Letters:
        """Tell one peer what our roster comes to."""
        return [(node, encode(Digest(self.boot, roster.digest())))]

    def _plan(self, now_ns: int) -> None:
        # Jitter keeps the members from doing this in step.
        self.digest_due_ns = now_ns + DIGEST_INTERVAL_NS - self.draws.below(DIGEST_INTERVAL_NS // 4)

    def tick(self, roster: Roster, now_ns: int) -> Letters:
        """Send the summaries that are owed, and the digest if it is due."""
        letters: Letters = []
        for node, peer in self.peers.items():
            if peer.summary_due:
                letters += self.ask(node, roster, now_ns)
        if self.peers and now_ns >= self.digest_due_ns:
            self._plan(now_ns)
            neighbours = list(self.peers)
            letters += self.digest(neighbours[self.draws.below(len(neighbours))], roster)
        return letters

    def ask(self, node: bytes, roster: Roster, now_ns: int) -> Letters:
        """Send a peer our summary, to get what we lack and to learn what it lacks; at once or when the gap is over."""
        peer = self.peer(node, now_ns)
        peer.summary_due = now_ns < peer.summary_ns + SUMMARY_GAP_NS
        if peer.summary_due:
            return []
        peer.summary_ns = now_ns
        return [(node, payload) for payload in _summaries(roster, answer=True)]

    def answer(self, node: bytes, summary: Summary, roster: Roster, now_ns: int) -> Letters:
        """Push what a peer's summary shows it to lack, and ask back when it shows that we lack something."""
        peer = self.peer(node, now_ns)
        lacking, behind = roster.compare(summary.first, summary.last, summary.lines, thorough=not summary.answer)
        if now_ns >= peer.window_ns + SUMMARY_GAP_NS:
            peer.window_ns, peer.pushed = now_ns, 0
        messages = packed(lacking, _push_of)
        if behind and summary.answer:
            messages += _summaries(roster, answer=False)
        # The window bounds what a hostile member can make us send, whatever it asks and how often.
        room = max(0, SYNC_MESSAGES_MAX - peer.pushed)
        if len(messages) <= room:
            peer.pushed += len(messages)
            return [(node, payload) for payload in messages]
        if not room:
            return []
        # In order, as each statement rests on those before; but now and then from anywhere, so that one that lies
        # behind a long run of what the peer has already is not cut off for ever.
        start = self.draws.below(len(messages)) if self.draws.below(4) == 0 else 0
        peer.pushed = SYNC_MESSAGES_MAX
        letters = [(node, payload) for payload in messages[start : start + room]]
        return letters + self.digest(node, roster)  # Upon the digest it asks for the rest.

    def tell_all(self, statements: Sequence[Statement]) -> Letters:
        """Push own news to everybody linked."""
        return [(node, payload) for node in self.peers for payload in packed(statements, _push_of)]

    def pass_on(self, statements: Sequence[Statement], source: bytes) -> Letters:
        """Push news that came from one peer to others: removals to all, the rest to a few.

        Whoever is removed must not find a member that has not heard of it; all else may take a few digests. The removed
        is among those linked still, so it hears why.
        """
        urgent = [statement for statement in statements if isinstance(statement.body, Remove)]
        linked = [node for node in self.peers if node != source]
        candidates, chosen = list(linked), dict[bytes, bool]()
        while candidates and len(chosen) < FANOUT_MAX:
            chosen[candidates.pop(self.draws.below(len(candidates)))] = True
        return [
            (node, payload) for node in linked for payload in packed(statements if node in chosen else urgent, _push_of)
        ]


def _push_of(_: int, statements: tuple[Statement, ...]) -> Push:
    return Push(statements)


def _summaries(roster: Roster, *, answer: bool) -> list[bytes]:
    lines = roster.lines()

    def ranged(start: int, part: tuple[Line, ...]) -> Summary:
        # The parts share out the whole space of keys, so that an issuer without a line is known to be missing.
        end = start + len(part)
        first = lines[start].issuer if 0 < start < len(lines) else bytes(LINE_BYTES)
        last = _before(lines[end].issuer) if end < len(lines) else b"\xff" * LINE_BYTES
        return Summary(answer=answer, first=first, last=last, lines=part)

    return packed(lines, ranged)


def _before(key: bytes) -> bytes:
    return max(0, int.from_bytes(key, "big") - 1).to_bytes(len(key), "big")
