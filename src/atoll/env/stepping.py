# SPDX-License-Identifier: Apache-2.0
"""An environment that is applied again, record by record, and can be looked at between any two items of a record.

How a look inside a record is possible. A record of many items is one input of the machine, and splitting it into
records of one item would not be the same input: what is sent would leave in other parcels, and limits that count
parcels would strike elsewhere. So the record is applied whole, and the decoder of the program hands its items out one
by one: when the machine asks for the next one, the one before is done, with everything that followed from it.

Each record's effects are compared with the recorded ones by the mark that the journal has of them, and each
checkpoint's state by its digest.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, SupportsIndex, final, overload

import msgspec

from atoll.base.errors import CorruptError, ProjectError, UsageError
from atoll.env.app import Program
from atoll.env.environment import Environment
from atoll.env.history import NO_MARK, Body, Entry, digest_after, mark_of
from atoll.env.records import Arrived, Checkpointed, Effect, Post, Upgraded
from atoll.env.walls import OPEN, HandlerKilled, Walls

__all__ = ["DivergedError", "Replica", "See", "Sight", "Start"]

_encode: Final = msgspec.msgpack.Encoder().encode
_raw_items: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Start:
    """Where a replay can begin: a recorded checkpoint, where the living machine went on from what was written.

    Attributes:
        number: Of its block.
        events: Number of the last event in it.
        code: SHA-256 of the code that ran then.
        digest: Of all effects up to there.
        state: The snapshot; empty: before the first record.
    """

    number: int
    events: int
    code: bytes
    digest: bytes
    state: bytes


@final
class DivergedError(ProjectError):
    """A replay did not repeat the recording.

    Args:
        what: ``effects``: what a record brought about; ``raised``: a handler fails that did not fail then; ``state``:
            what a checkpoint wrote; ``digest``: that of a block.
        place: Number of the block, and which of its records, from 0.
        events: First and last event of the record.
        expected: What is known of the recorded value.
        got: What came now.

    Attributes:
        effects: The effects that came now, with ``effects``.
        state: The state that came now, with ``state``.
    """

    def __init__(self, what: str, place: tuple[int, int], events: tuple[int, int], expected: str, got: str) -> None:
        super().__init__(what, place, events, expected, got)
        self.what: Final = what
        self.block, self.index = place
        self.first_event, self.event = events
        self.expected: Final = expected
        self.got: Final = got
        self.effects: tuple[Effect, ...] = ()
        self.state = b""

    def __str__(self) -> str:
        return (
            f"event {self.event} (block {self.block}, record {self.index}): {self.what} were {self.expected}, "
            f"and are {self.got}"
        )


@final
class Sight:
    """What can be seen between two steps. One object for a whole walk: take out of it what is to be kept.

    A step is an item with all that followed from it inside the environment, or another record; it may hold no event.

    Attributes:
        environment: The machine, to be read only.
        number: Number of the block.
        index: Which record of it, from 0.
        item: Which item of the record; -1: it is no record of items.
        entry: The record; None: no step was made yet, and this is where the walk begins.
        before: Number of the last event before the step.
        after: Number of the last event in it; equal to ``before``: nothing in it was an event.
    """

    __slots__ = ("_effects", "_marks", "after", "before", "entry", "environment", "index", "item", "number")

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.entry: Entry | None = None
        self.number = self.index = 0
        self.item = -1
        self.before = self.after = environment.events
        self._effects: Sequence[Effect] | None = None
        self._marks: tuple[int, dict[bytes, int]] = (0, {})

    def effects(self) -> tuple[Effect, ...]:
        """Return what this step alone brought about."""
        if self._effects is not None:
            return tuple(self._effects)
        environment = self.environment
        count, pending = self._marks
        posts: list[Effect] = []
        for party, items in environment.outgoing.items():
            done = pending.get(party, 0)
            if len(items) > done:
                first = environment.sent(party) + 1 + done
                posts.append(Post(party, first, len(items) - done, _encode(items[done:])))
        return (*environment.coming[count:], *posts)

    # For the replica.

    def began(self, at: tuple[int, int], entry: Entry) -> None:
        """A record is about to be applied."""
        (self.number, self.index), self.entry = at, entry
        self.before = self.after = self.environment.events
        self.item, self._effects, self._marks = -1, None, (0, {})

    def went_on(self, item: int) -> None:
        """An item of the record is done."""
        self.item, self.after = item, self.environment.events

    def passed(self) -> None:
        """What was seen of the item was told; the next one begins."""
        environment = self.environment
        self._marks = (len(environment.coming), {party: len(items) for party, items in environment.outgoing.items()})
        self.before = self.after

    def ended(self, effects: Sequence[Effect]) -> None:
        """The record is done, and these are its effects: what was not passed yet is of its last step."""
        self.after = self.environment.events
        count, pending = self._marks[0], dict(self._marks[1])
        left: list[Effect] = []
        for effect in effects:
            if not isinstance(effect, Post):
                if count:
                    count -= 1
                else:
                    left.append(effect)
                continue
            done = min(pending.get(effect.party, 0), effect.count)  # What goes to one party may leave in several.
            pending[effect.party] = pending.get(effect.party, 0) - done
            if done < effect.count:
                items = _raw_items.decode(effect.items)[done:]
                left.append(Post(effect.party, effect.first + done, len(items), _encode(items)))
        self._effects = left


See = Callable[[Sight], bool]
"""Gets each step; returns True when it has seen enough."""


@final
class Replica:
    """One environment that is applied again.

    Args:
        programs: Gives the program of a code's digest.
        start: Where to begin.
        walls: What stands around handlers.

    Attributes:
        environment: The machine; read only.
        checkpoint: The last one that was passed, or where it began.
        code: Digest of the code that runs it.
        digest: Of all effects so far.
        number: Number of the last block of which something was applied.
        index: How many of its records were applied; 0: all.
    """

    def __init__(self, programs: Callable[[bytes], Program], start: Start, walls: Walls = OPEN) -> None:
        self._programs, self._walls = programs, walls
        self.code, self.digest, self.number, self.index = start.code, start.digest, start.number, 0
        self.checkpoint = start
        self._watched = _Watched(None)
        program = self._use(start.code)
        blank = Environment.blank
        self.environment = Environment.restore(program, start.state) if start.state else blank(program)

    @property
    def following(self) -> int:
        """Number of the block of which something is to be applied next."""
        return self.number if self.index else self.number + 1

    @property
    def events(self) -> int:
        """Number of the last event."""
        return self.environment.events

    def redo(self, number: int, body: Body) -> None:
        """Apply what is left of a block.

        Raises:
            DivergedError: It does not do what it did.
            CorruptError: A state does not fit its code.
        """
        entries = body.entries
        for index in range(self.index, len(entries)):
            self._apply(number, index, entries[index])
        self._whole(number, body)

    def redo_to(self, number: int, body: Body, index: int) -> tuple[Effect, ...]:
        """Apply what is left of a block up to one of its records; return what that record brought about.

        Raises:
            DivergedError: As ``redo``.
            CorruptError: As ``redo``.
        """
        effects: Sequence[Effect] = ()
        for at in range(self.index, index + 1):
            effects = self._apply(number, at, body.entries[at])
        return tuple(effects)

    def show(self, number: int, body: Body, sight: Sight, see: See) -> bool:
        """Apply what is left of a block, and show each step; say whether it was enough.

        Stops at the end of the record in which ``see`` had seen enough.

        Raises:
            DivergedError: As ``redo``.
            CorruptError: As ``redo``.
            Exception: Whatever ``see`` raises, at the end of the record: it is not the machine's.
        """
        is_done = False
        failed: list[Exception] = []

        def show() -> None:
            nonlocal is_done
            if not is_done:
                try:
                    is_done = see(sight)
                except Exception as error:  # noqa: BLE001 -- it must not be taken for a handler's.
                    failed.append(error)
                    is_done = True

        for index in range(self.index, len(body.entries)):
            self._show((number, index), body.entries[index], sight, show)
            if is_done:
                break
        if failed:
            raise failed[0]
        if self.index == len(body.entries):
            self._whole(number, body)
        return is_done

    def _show(self, at: tuple[int, int], entry: Entry, sight: Sight, show: Callable[[], None]) -> None:
        record, environment, watched = entry.record, sight.environment, self._watched
        sight.began(at, entry)
        if not isinstance(record, Arrived):
            effects = self._apply(*at, entry)
            sight.environment = self.environment
            sight.ended(effects)
            show()
            return

        def look() -> None:
            self._walls.leave()  # Whoever looks is no handler.
            sight.went_on(environment.received(record.party) - record.first)
            show()
            sight.passed()
            self._walls.enter()

        watched.look = look
        try:
            effects = self._apply(*at, entry)
        finally:
            watched.look = None
        if watched.is_single():
            sight.went_on(environment.received(record.party) - record.first)
            sight.ended(effects)
            show()

    def _whole(self, number: int, body: Body) -> None:
        if body.digest != self.digest:
            place, events = (number, len(body.entries)), (self.events, self.events)
            raise DivergedError("digest", place, events, body.digest.hex(), self.digest.hex())
        self.number, self.index = number, 0

    def _apply(self, number: int, index: int, entry: Entry) -> Sequence[Effect]:
        self.number, self.index = number, index + 1
        record, environment = entry.record, self.environment
        if isinstance(record, Checkpointed):
            self._check_state(number, index, record)
            return ()
        if isinstance(record, Upgraded):
            self.environment = Environment.restore(self._use(record.code), environment.snapshot())
            return ()
        before = environment.events
        self._walls.enter()
        try:
            effects = environment.handle(record, entry.now_ns)
        except (Exception, SystemExit, HandlerKilled) as error:
            # The handler is a stranger's: whatever it raises now it did not raise then.
            got = f"{type(error).__name__}: {error}"
            place, events = (number, index), (before + 1, environment.events)
            raise DivergedError("raised", place, events, "no failure", got) from error
        finally:
            self._walls.leave()
        if effects:
            self.digest = digest_after(self.digest, effects)
            mark = mark_of(self.digest)
        else:
            mark = NO_MARK
        if mark != entry.mark:
            place, events = (number, index), (before + 1, environment.events)
            diverged = DivergedError("effects", place, events, _named(entry.mark), _named(mark))
            diverged.effects = tuple(effects)
            raise diverged
        return effects

    def _check_state(self, number: int, index: int, record: Checkpointed) -> None:
        try:
            state = self.environment.checkpoint()
        except UsageError as error:
            raise CorruptError(f"block {number}: what was written once cannot be written now: {error}") from error
        digest = sha256(state).digest()
        if record.digest not in (b"", digest):
            events = (self.events, self.events)
            diverged = DivergedError("state", (number, index), events, record.digest.hex(), digest.hex())
            diverged.state = state
            raise diverged
        self.checkpoint = Start(number, self.events, self.code, self.digest, state)

    def _use(self, code: bytes) -> Program:
        self.code = code
        program = self._programs(code)
        self._watched = _Watched(program.items)
        items: Any = self._watched
        return replace(program, items=items)


def _named(mark: int) -> str:
    return "none" if mark == NO_MARK else f"{mark:08x}"


class _Watched:
    """A decoder of items that tells when the machine is done with one of them.

    Attributes:
        look: Called after each item; None: nobody wants to know.
    """

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self.look: Callable[[], None] | None = None
        self._singles = -1  # How many were decoded alone; -1: the record decodes as a whole.

    def is_single(self) -> bool:
        """Say once whether the record was taken item by item, so that its last one was not told."""
        singles, self._singles = self._singles, -1
        return singles > 0

    def decode(self, raw: Any) -> Any:
        """Decode a list of items."""
        if self.look is None:
            return self._decoder.decode(raw)
        if self._singles > 0:
            self.look()
        if self._singles >= 0:
            self._singles += 1
            return self._decoder.decode(raw)
        self._singles = 0  # If it does not decode, the machine takes it item by item.
        items = self._decoder.decode(raw)
        self._singles = -1
        return _Items(items, self.look)


class _Items(list[Any]):
    """A list whose items are handed out one by one."""

    def __init__(self, items: list[Any], look: Callable[[], None]) -> None:
        super().__init__(items)
        self._look = look

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            yield item
            self._look()

    @overload
    def __getitem__(self, at: SupportsIndex) -> Any: ...

    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        found: Any = super().__getitem__(at)
        return _Items(found, self._look) if isinstance(at, slice) else found
