# SPDX-License-Identifier: Apache-2.0
"""What waits until one environment that runs here applies it, in which order, and what is in the block being filled."""

from collections import deque
from typing import Final, final

import msgspec

from atoll.env.confirms import Confirms
from atoll.env.facts import UNKNOWN, Ahead, Facts, Suspect, Waiting
from atoll.env.inbox import Inbox
from atoll.env.limits import TOLD_MAX
from atoll.env.messages import Carried, split_items
from atoll.env.orders import Moment
from atoll.env.pieces import Pieces
from atoll.env.records import Arrived, Failed, Fired, Forgotten, Held, Record
from atoll.env.runner import Runner
from atoll.env.slew import SlewedClock

__all__ = ["Filling"]

_DEADLY: Final = "the process that ran it did not survive it"


@final
class Filling:
    """A change of holders comes first, then what the node tells, then what parties sent, then timers.

    Args:
        facts: Of the environment.
        node: Name of this node.
        clock: Of the environment.

    Attributes:
        inbox: Frames of parties.
        confirms: What parties have confirmed.
        suspect: What the environment's process did not survive; None: nothing, as far as is known.
        holders: Who the holders shall be, from a block on that is not made yet; empty: no change.
        giving_up: The last block in which something is given up; 0: none.
        is_late: Whether the last ``fill`` has left something so that others have their turn first.
    """

    def __init__(self, facts: Facts, node: str, clock: SlewedClock) -> None:
        self._facts, self._clock = facts, clock
        self._told: Final[deque[Record]] = deque()
        self._receipts: dict[bytes, int] = {}
        self._is_change_due = False  # Whether it is to be told, in the block that it is proposed with.
        self.inbox: Final = Inbox(facts.id, node)
        self.confirms: Final = Confirms()
        self.suspect: Suspect | None = None
        self.holders: tuple[bytes, ...] = ()
        self.giving_up = 0
        self.is_late = False
        self._pieces: Pieces | None = None  # The frame at hand.

    @property
    def has_room(self) -> bool:
        """Whether news that can be dropped may wait as well."""
        return len(self._told) < TOLD_MAX

    def gives_up(self, party: bytes) -> bool:
        """Return whether it waits that something is given up which a party is owed."""
        return any(isinstance(record, Forgotten) and record.party == party for record in self._told)

    def tell(self, record: Record) -> None:
        """Let the environment hear of something, behind what it was told before."""
        self._told.append(record)

    def change(self, holders: tuple[bytes, ...]) -> None:
        """Let the environment hear who its holders are from the next block on."""
        self.holders, self._is_change_due = holders, True

    def clear(self) -> list[Carried]:
        """Throw away all that waits but the suspicion; return what goes to whoever runs it next."""
        self._told.clear()
        self.confirms.clear()
        self._receipts, self._pieces = {}, None
        self.holders, self._is_change_due, self.giving_up = (), False, 0
        return self.inbox.clear()

    def block(self, runner: Runner) -> Ahead | None:
        """Return the block of what was applied since the last one; None: nothing was."""
        self._look(runner)
        made = runner.block()
        if made is None:
            return None
        holders: tuple[bytes, ...] = ()
        if not self._is_change_due:  # Else the block does not tell of it yet.
            holders, self.holders = self.holders, ()
        receipts, self._receipts = self._receipts, {}
        return Ahead(made, receipts, holders)

    def fill(self, runner: Runner, now: Moment) -> None:
        """Apply what waits until the block is full, the runner is busy, others shall have their turn, or nothing waits.

        Args:
            runner: What runs.
            now: When this turn began.

        Raises:
            CorruptError: A handler is not deterministic: what was applied cannot be undone.
        """
        self.is_late = False
        if not runner.is_busy:
            self._look(runner)
            if self._is_change_due:
                self._is_change_due = False
                self._apply_news(runner, Held(self.holders, runner.copies), now)
        self._told.extend(self.confirms.due(now.ns))
        while self._told and self._has_time(runner, now):
            record = self._told.popleft()
            if runner.is_over and not isinstance(record, Held):
                continue
            if isinstance(record, Forgotten):
                self.giving_up = runner.number + 1
            self._apply_news(runner, record, now)
        while self._has_time(runner, now):
            if self._pieces is not None:  # Also when it is over: then they are refused.
                self._apply_piece(runner, self._pieces, now)
            elif runner.is_over:
                break
            elif self.inbox:
                self._apply_frame(runner, self.inbox.pop(), now)
            elif self._is_timer_due(runner, now):
                self._apply_timer(runner, now)
            else:
                break
        if self.is_late:
            self.is_late = bool(self._told or self._pieces or self.inbox) or self._is_timer_due(runner, now)

    def _is_timer_due(self, runner: Runner, now: Moment) -> bool:
        due_ns = runner.environment.deadline_ns
        return due_ns is not None and due_ns <= self._clock.read(now)

    def _has_time(self, runner: Runner, now: Moment) -> bool:
        """Return whether more can be applied, and others do not wait too long for it."""
        if runner.is_busy:
            return False
        if runner.is_over:
            return True  # No handler runs any more.
        if runner.is_block_full:
            return False
        self.is_late = runner.walls.is_late(now.ns)
        return not self.is_late

    def _look(self, runner: Runner) -> bool:
        """Note how far the frame at hand was taken; return whether nothing of it is left."""
        if runner.is_busy:
            return False
        if (pieces := self._pieces) is not None:
            received = runner.environment.received(pieces.party)
            if received >= pieces.first:
                self._receipts[pieces.party] = received
            if not pieces.took(received):
                return False
            self._pieces, suspect = None, self.suspect
            if suspect is not None and suspect.party == pieces.party:
                is_past = pieces.last >= suspect.first + suspect.count - 1
                self.suspect = None if is_past else suspect
        self.inbox.applied()
        return True

    def _apply_news(self, runner: Runner, record: Record, now: Moment) -> None:
        runner.walls.about(self._facts.id, UNKNOWN.party, UNKNOWN.first, UNKNOWN.count)
        runner.take(record, self._clock.read(now), now.ns)

    def _apply_frame(self, runner: Runner, frame: Waiting, now: Moment) -> None:
        """Apply a frame, all at once; one by one where the process before this one did not survive one of them."""
        party, first, count, items = frame.party, frame.first, frame.count, frame.items
        if self.suspect is not None and self.suspect.party == party:
            self._pieces = pieces = Pieces(party, first, count, items, is_single=True)
            if not self._look(runner):  # What was taken before is to blame for nothing.
                self._apply_piece(runner, pieces, now)
            return
        runner.walls.about(self._facts.id, party, first, count)
        if runner.take(Arrived(party, first, msgspec.Raw(items)), self._clock.read(now), now.ns):
            self._receipts[party] = first + count - 1  # What nearly all come to.
            self.inbox.applied()
            return
        self._pieces = Pieces(party, first, count, items)
        self._pieces.next()  # As it was given.
        self._look(runner)

    def _apply_piece(self, runner: Runner, pieces: Pieces, now: Moment) -> None:
        arrived, count = pieces.next()
        record: Record = arrived
        runner.walls.about(self._facts.id, arrived.party, arrived.first, count)
        if self.suspect == Suspect(arrived.party, arrived.first, count) and count == 1:
            item = split_items(bytes(arrived.items))[0]
            record = Failed(arrived.party, arrived.first, "killed", _DEADLY, item)
        runner.take(record, self._clock.read(now), now.ns)
        self._look(runner)

    def _apply_timer(self, runner: Runner, now: Moment) -> None:
        number = runner.environment.first_timer
        runner.walls.about(self._facts.id, b"", number, 1)
        if self.suspect == Suspect(b"", number, 1):
            runner.take(Failed(b"", number, "killed", _DEADLY), self._clock.read(now), now.ns)
            self.suspect = None
        else:
            runner.take(Fired(), self._clock.read(now), now.ns)
