# SPDX-License-Identifier: Apache-2.0
"""The past of one environment: any event of it, forwards and backwards, with the state and what the event did.

What can be gone back to is what the recording went on from: a checkpoint, at which the living machine was written down
and read back. From the nearest one before, records are applied again, at most CHECKPOINT_EVENTS events. States that a
replay passes are kept as well, but only where the recording has such a checkpoint: anywhere else a machine that was
read back could differ from one that lived on, say in two fields that hold the same list.

The unit is the *step*: one item with all that followed from it inside the environment, or a timer, or a change. Most
steps are one event; one that makes nested environments talk to each other is several, which happen together or not at
all. "The state at event N" is the state after the step that N is in. Steps without an event, such as confirmations,
belong to the one after them.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, final

import msgspec

from atoll.base.errors import CorruptError, UsageError
from atoll.base.units import MIB
from atoll.env.app import Program
from atoll.env.chain import Block, unpack_body
from atoll.env.environment import Environment
from atoll.env.history import DIGEST_BYTES, Body, Entry, Snapshot, decode_body
from atoll.env.records import Began, Effect
from atoll.env.state import State
from atoll.env.stepping import Replica, See, Sight, Start
from atoll.env.walls import OPEN, Walls

__all__ = ["Moment", "Past", "Shelf", "Summary", "flat", "state_of"]

STARTS_MAX: Final = 64  # Limit. Checkpoints in memory; the one that was used longest ago goes.
STARTS_BYTES_MAX: Final = 256 * MIB  # Limit. Of their states together: four of the largest.
_HEAD: Final = msgspec.msgpack.Decoder(State)


class Shelf(Protocol):
    """Where a journal lies."""

    @property
    def first(self) -> int:
        """Number of the first block that is kept."""
        ...

    @property
    def last(self) -> int:
        """Number of the last one."""
        ...

    @property
    def first_event(self) -> int:
        """Number of the first event that is kept."""
        ...

    @property
    def last_event(self) -> int:
        """Number of the last one."""
        ...

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Numbers of the blocks after which there is a snapshot, rising."""
        ...

    def block_of(self, event: int) -> int:
        """Return the number of the block that holds an event which is kept."""
        ...

    def block(self, number: int) -> Block:
        """Return a block that is kept.

        Raises:
            CorruptError: It is not what was written.
        """
        ...

    def snapshot(self, number: int) -> Snapshot:
        """Return a snapshot.

        Raises:
            CorruptError: It is not what was written.
        """
        ...

    def program(self, code: bytes) -> Program:
        """Return the program of a code's digest.

        Raises:
            UserError: It is not here, or cannot be loaded.
        """
        ...


@dataclass(frozen=True, slots=True)
class Moment:
    """One step, and the state after it.

    Attributes:
        event: Number of the last event in it.
        before: Number of the last event before it.
        number: Its block.
        index: Which record of it, from 0.
        item: Which item of the record; -1: it has no items.
        now_ns: When, ns since 1970.
        entry: The record; None: the state before the first event that is kept.
        effects: What this step brought about.
        state: Declared state by path, as plain data.
        was: The state before it.
    """

    event: int
    before: int
    number: int
    index: int
    item: int
    now_ns: int
    entry: Entry | None
    effects: tuple[Effect, ...]
    state: dict[str, dict[str, Any]]
    was: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a whole replay found.

    Attributes:
        first: Number of the first event that was applied.
        last: Of the last.
        blocks: Blocks that were applied.
        records: Records in them.
        checkpoints: Checkpoints whose state was the recorded one.
        digest: Of all effects, equal to the recorded one.
        since_ns: When the first of these records was applied, ns since 1970.
        until_ns: When the last was.
    """

    first: int
    last: int
    blocks: int
    records: int
    checkpoints: int
    digest: bytes
    since_ns: int
    until_ns: int


@final
class Past:
    """One journal, made to live again.

    Args:
        shelf: The journal.
        walls: What stands around handlers.

    Attributes:
        shelf: The journal.
        first: Number of the first event whose state can be shown; 0: the state before the first event.
        last: Number of the last event.

    Raises:
        CorruptError: The journal begins in the middle, and has no snapshot to begin from.
    """

    def __init__(self, shelf: Shelf, walls: Walls = OPEN) -> None:
        self.shelf: Final = shelf
        self._walls: Final = walls
        self._starts: dict[int, Start] = {}  # By block.
        self._replica: Replica | None = None
        self._snapshots: Final = tuple(number for number in shelf.snapshots if number >= shelf.first - 1)
        if shelf.first > 1 and not self._snapshots:
            raise CorruptError(f"the journal begins with block {shelf.first}, and there is no snapshot before it")
        self._beginning: Final = (0,) if shelf.first == 1 else ()
        self._lowest: Final = self._starts_before(0)[0]
        self.first: Final = self._events_to(self._lowest)
        self.last: Final = shelf.last_event

    # Any moment.

    def state_at(self, event: int) -> Moment:
        """Return the step that an event is in, and the state after it.

        Raises:
            UsageError: That event is not kept.
            DivergedError: The replay does not do what the recording did.
            CorruptError: What is kept is not what was written, or does not fit the code.
        """
        if event == self.first:
            replica = self._replica_from(self._start(self._lowest))
            return _moment(Sight(replica.environment), {})
        found: list[Moment] = []
        was: dict[str, dict[str, Any]] = {}

        def see(sight: Sight) -> bool:
            nonlocal was
            if sight.after >= event:
                found.append(_moment(sight, was))
                return True
            if sight.after == event - 1:
                was = state_of(sight.environment)
            return False

        self.walk(event, event, see)
        (moment,) = found
        if moment.before < event - 1:  # A step of several events: the state before it was not looked at.
            return replace(moment, was=self.state_at(moment.before).state)
        return moment

    def walk(self, first: int, last: int, see: See) -> bool:
        """Show the steps from event ``first`` to ``last``, and before them those that share the block of ``first``.

        The first call shows where it begins, with ``entry`` None.

        Args:
            first: An event after the first moment.
            last: Of the last step to show.
            see: Returns True when it has seen enough.

        Returns:
            Whether it had seen enough.

        Raises:
            UsageError: Those events are not kept.
            DivergedError: As ``state_at``.
            CorruptError: As ``state_at``.
        """
        if not self.first < first <= last <= self.last:
            raise UsageError(f"events {first} to {last}; {self.first + 1} to {self.last} are kept")
        replica = self._near(first)
        target = self.shelf.block_of(first)
        while replica.following < target:
            self._redo(replica)
        sight = Sight(replica.environment)
        is_enough = see(sight)

        def show(sight: Sight) -> bool:
            nonlocal is_enough
            is_enough = see(sight)
            return is_enough or sight.after >= last

        while not is_enough and replica.events < last:
            replica.show(replica.following, self._body(replica.following), sight, show)
            self._note(replica)
        self._replica = replica
        return is_enough

    def chunks(self, last: int) -> Iterator[tuple[int, int]]:
        """Return the first and last event between each two checkpoints, the newest first, up to event ``last``."""
        for number in reversed(self._starts_before(last)):
            start = self._events_to(number)
            yield start + 1, last
            last = start

    def redo(self, last: int | None = None) -> Summary:
        """Apply everything up to a block, and compare all that can be compared.

        Args:
            last: Number of the last block; None: all.

        Raises:
            DivergedError: As ``state_at``.
            CorruptError: As ``state_at``.
        """
        replica = self._replica_from(self._start(self._lowest))
        first, records, checkpoints = replica.events + 1, 0, 0
        begin = replica.following
        end = self.shelf.last if last is None else last
        since_ns = next((entry.now_ns for entry in self._body(begin).entries), 0) if begin <= end else 0
        while replica.following <= end:
            checkpoint = replica.checkpoint
            records += self._redo(replica)
            checkpoints += replica.checkpoint is not checkpoint
        self._replica = replica
        return Summary(
            first=first,
            last=replica.events,
            blocks=end - begin + 1,
            records=records,
            checkpoints=checkpoints,
            digest=replica.digest,
            since_ns=since_ns,
            until_ns=replica.environment.now_ns,
        )

    def effects_of(self, number: int, index: int) -> tuple[Effect, ...]:
        """Return what a record brought about, whatever its block did after it.

        Raises:
            DivergedError: As ``state_at``; also when it is this record that differs.
            CorruptError: As ``state_at``.
        """
        block = self.shelf.block(number)
        replica = self._replica_from(self.start_before(block.first_event))
        while replica.following < number:
            self._redo(replica)
        return replica.redo_to(number, self._body(number), index)

    def bodies(self, first: int, last: int) -> Iterator[tuple[int, Body]]:
        """Return number and records of blocks, in order; nothing of them is applied."""
        for number in range(first, last + 1):
            yield number, self._body(number)

    def start_before(self, event: int) -> Start:
        """Return the last checkpoint before an event."""
        return self._start(self._starts_before(event)[-1])

    def event_at(self, now_ns: int) -> int:
        """Return the last event that was not after a time; the first moment, if that is later."""
        numbers = self._starts_before(self.last)
        later = bisect_right(numbers, now_ns, 1, key=lambda number: _HEAD.decode(self._start(number).state).now_ns)
        start = self._start(numbers[later - 1])
        event = start.events
        for number, body in self.bodies(start.number + 1, self.shelf.last):
            late = next((entry for entry in body.entries if entry.now_ns > now_ns), None)
            if late is None:
                block = self.shelf.block(number)
                event = block.first_event + block.events - 1
                continue
            return self._last_by(number, now_ns, event)
        return event

    def _last_by(self, number: int, now_ns: int, event: int) -> int:
        """Return the last event in a block that was not after a time; ``event`` if there is none."""
        block = self.shelf.block(number)
        if not block.events:
            return event

        def see(sight: Sight) -> bool:
            nonlocal event
            if sight.entry is not None and sight.environment.now_ns > now_ns:
                return True
            event = max(event, sight.after)
            return False

        self.walk(block.first_event, block.first_event + block.events - 1, see)
        return event

    # Getting there.

    def _near(self, event: int) -> Replica:
        """Return a replica before an event, as near as there is one."""
        start = self.start_before(event)
        replica, self._replica = self._replica, None  # What an error leaves in the middle is of no use.
        if replica is not None and start.events <= replica.events < event:
            return replica
        return self._replica_from(start)

    def _replica_from(self, start: Start) -> Replica:
        self._replica = None
        return Replica(self.shelf.program, start, self._walls)

    def _redo(self, replica: Replica) -> int:
        """Apply what is left of the block at hand; return how many records it has."""
        body = self._body(replica.following)
        replica.redo(replica.following, body)
        self._note(replica)
        return len(body.entries)

    def _body(self, number: int) -> Body:
        return decode_body(unpack_body(self.shelf.block(number).body))

    def _note(self, replica: Replica) -> None:
        """Keep the checkpoint that was passed."""
        start = replica.checkpoint
        if start.number not in self._starts:
            self._keep(start)

    def _keep(self, start: Start) -> None:
        self._starts[start.number] = start
        size = sum(len(one.state) for one in self._starts.values())
        while len(self._starts) > STARTS_MAX or (size > STARTS_BYTES_MAX and len(self._starts) > 1):
            size -= len(self._starts.pop(next(iter(self._starts))).state)

    def _starts_before(self, event: int) -> list[int]:
        """Return the blocks after which there is a checkpoint before an event, rising; at least the first there is."""
        numbers = sorted({*self._snapshots, *self._starts, *self._beginning})
        return numbers[:1] + [number for number in numbers[1:] if self._events_to(number) < event]

    def _events_to(self, number: int) -> int:
        """Return the number of the last event up to a block."""
        if number < self.shelf.first:
            return self.shelf.first_event - 1
        block = self.shelf.block(number)
        return block.first_event + block.events - 1

    def _start(self, number: int) -> Start:
        start = self._starts.pop(number, None)
        if start is None:
            start = self._genesis() if number == 0 else self._snapshot(number)
        self._keep(start)
        return start

    def _genesis(self) -> Start:
        record = self._body(1).entries[0].record if self._body(1).entries else None
        if not isinstance(record, Began):
            raise CorruptError("block 1 does not begin the environment")
        return Start(0, 0, record.code, bytes(DIGEST_BYTES), b"")

    def _snapshot(self, number: int) -> Start:
        snapshot = self.shelf.snapshot(number)
        try:
            events = _HEAD.decode(snapshot.state).events
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptError(f"the snapshot after block {number} does not decode: {error}") from error
        return Start(number, events, snapshot.code, snapshot.digest, snapshot.state)


def state_of(environment: Environment) -> dict[str, dict[str, Any]]:
    """Return the declared state of an environment and of those nested in it, by path, as plain data."""
    return {path: environment.fields(path) for path in environment.apps()}


def flat(state: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of all paths in one dictionary, those of nested applications as ``rooms/lobby:count``."""
    return {
        f"{path}:{name}" if path else name: value for path, fields in state.items() for name, value in fields.items()
    }


def _moment(sight: Sight, was: dict[str, dict[str, Any]]) -> Moment:
    return Moment(
        event=sight.after,
        before=sight.before,
        number=sight.number,
        index=sight.index,
        item=sight.item,
        now_ns=sight.environment.now_ns,
        entry=sight.entry,
        effects=() if sight.entry is None else sight.effects(),
        state=state_of(sight.environment),
        was=was,
    )
