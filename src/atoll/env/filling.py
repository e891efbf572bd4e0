# SPDX-License-Identifier: Apache-2.0
"""What waits until one environment that runs here applies it, in which order, and what is in the block being filled."""

from collections import deque
from typing import Final, final

import msgspec

from atoll.env.confirms import Confirms
from atoll.env.facts import UNKNOWN, Ahead, Facts, Suspect, Waiting
from atoll.env.inbox import Inbox
from atoll.env.limits import TOLD_MAX
from atoll.env.messages import Carried, join_items, split_items
from atoll.env.orders import Moment
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
        self._receipts = {}
        self.holders, self._is_change_due, self.giving_up = (), False, 0
        return self.inbox.clear()

    def block(self, runner: Runner) -> Ahead | None:
        """Return the block of what was applied since the last one; None: nothing was."""
        made = runner.block()
        if made is None:
            return None
        holders: tuple[bytes, ...] = ()
        if not self._is_change_due:  # Else the block does not tell of it yet.
            holders, self.holders = self.holders, ()
        receipts, self._receipts = self._receipts, {}
        return Ahead(made, receipts, holders)

    def fill(self, runner: Runner, now: Moment) -> None:
        """Apply what waits until the block is full, a handler runs elsewhere, or nothing waits.

        Raises:
            CorruptError: A handler is not deterministic: what was applied cannot be undone.
        """
        if not runner.is_busy:
            self.inbox.applied()
            if self._is_change_due:
                self._is_change_due = False
                self._apply_news(runner, Held(self.holders, runner.copies), now)
        self._told.extend(self.confirms.due(now.ns))
        while self._told and not runner.is_busy and not runner.is_block_full:
            record = self._told.popleft()
            if runner.is_over and not isinstance(record, Held):
                continue
            if isinstance(record, Forgotten):
                self.giving_up = runner.number + 1
            self._apply_news(runner, record, now)
        while not runner.is_busy and not runner.is_over and not runner.is_block_full:
            if self.inbox:
                frame = self.inbox.pop()
                self._apply_frame(runner, frame, now)
                self._receipts[frame.party] = frame.first + frame.count - 1
                if not runner.is_busy:  # What is being handled is not taken yet.
                    self.inbox.applied()
                continue
            due_ns = runner.environment.deadline_ns
            if due_ns is None or due_ns > self._clock.read(now):
                return
            self._apply_timer(runner, now)

    def _apply_news(self, runner: Runner, record: Record, now: Moment) -> None:
        runner.walls.about(self._facts.id, UNKNOWN.party, UNKNOWN.first, UNKNOWN.count)
        runner.take(record, self._clock.read(now))

    def _apply_frame(self, runner: Runner, frame: Waiting, now: Moment) -> None:
        """Apply items; one by one where the process before this one did not survive one of them."""
        suspect = self.suspect
        if suspect is None or suspect.party != frame.party:
            runner.walls.about(self._facts.id, frame.party, frame.first, frame.count)
            runner.take(Arrived(frame.party, frame.first, msgspec.Raw(frame.items)), self._clock.read(now))
            return
        for number, item in enumerate(split_items(frame.items), frame.first):
            if number <= runner.environment.received(frame.party):
                continue
            runner.walls.about(self._facts.id, frame.party, number, 1)
            if suspect.count == 1 and number == suspect.first:
                runner.take(Failed(frame.party, number, "killed", _DEADLY, bytes(item)), self._clock.read(now))
            else:
                runner.take(Arrived(frame.party, number, join_items((item,))), self._clock.read(now))
        if frame.first + frame.count >= suspect.first + suspect.count:
            self.suspect = None

    def _apply_timer(self, runner: Runner, now: Moment) -> None:
        number = runner.environment.first_timer
        runner.walls.about(self._facts.id, b"", number, 1)
        if self.suspect == Suspect(b"", number, 1):
            runner.take(Failed(b"", number, "killed", _DEADLY), self._clock.read(now))
            self.suspect = None
        else:
            runner.take(Fired(), self._clock.read(now))
