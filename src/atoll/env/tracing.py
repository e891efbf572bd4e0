# SPDX-License-Identifier: Apache-2.0
"""What led to it: from an event, a field or a reply back over dependencies to the inputs they came from.

After King and Chen, "Backtracking intrusions" (SOSP 2003). Objects are steps (an item with what followed from it),
fields of the state, timers and calls. A step depends on what came in; on the step that set the timer that it is, or
made the call that it answers; and on whatever last wrote the fields that it read. Only what happened before counts.

How reads and writes are known. While history is applied again, the application's classes tell of each attribute that
is read or set; what a touched field held before a step is compared with what it holds after it. So a handler that only
reads a field has not written it, and one that changes a list in place has. Of a field that holds a dictionary it is
known which keys were written; which were read is not, because a dictionary does not tell. Without the filter, a step
that read the field depends on the last writer of each of its keys: too many, but never too few. With the filter, keys
count that occur in what came in, or that the step itself wrote: few, and wrong where a key is computed.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import msgspec

from atoll.env.app import App, Program
from atoll.env.chain import Block
from atoll.env.comparing import plain_tuple
from atoll.env.history import Snapshot
from atoll.env.past import Past, Shelf
from atoll.env.plain_data import is_map, is_row
from atoll.env.records import Arrived, Began, Failed, Fired, Item, Post, Record
from atoll.env.stepping import Sight
from atoll.env.walls import OPEN, Walls

__all__ = ["Field", "History", "Reason", "Step", "Trace", "history_of", "named", "trace"]

KEYS_MAX: Final = 1_000  # Limit. A larger dictionary counts as one value: comparing it key by key costs too much.
_encode: Final = msgspec.msgpack.Encoder().encode
_raw_items: Final = msgspec.msgpack.Decoder(list[Item])
_raw_item: Final = msgspec.msgpack.Decoder(Item)

Field = tuple[str, str]
"""(path of the application, name of the field)."""
Key = bytes | None
"""An encoded key of a dictionary; None: the field is no dictionary, or all of it."""


@dataclass(slots=True)
class Step:
    """What one step of history did.

    Attributes:
        event: Number of its last event.
        now_ns: When.
        came: What came in, such as ``Bid``.
        what: The tuple, as plain data.
        party: Who sent it; empty: nobody.
        number: Number of the item in its channel, or of the timer; 0: neither.
        re: The call that it answers; 0: none.
        reads: Fields that were read.
        writes: Fields that were written, with the keys; None among them: the whole value.
        calls: Numbers of the calls that it made.
        timers: Numbers of the first and last timer that it set; (0, 0): none.
        sent: Items that it sent: (party, number).
    """

    event: int
    now_ns: int
    came: str
    what: Any
    party: bytes = b""
    number: int = 0
    re: int = 0
    reads: tuple[Field, ...] = ()
    writes: dict[Field, tuple[Key, ...]] = field(default_factory=dict[Field, tuple[Key, ...]])
    calls: tuple[int, ...] = ()
    timers: tuple[int, int] = (0, 0)
    sent: tuple[tuple[bytes, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one step led to another.

    Attributes:
        event: The later step.
        source: The earlier step.
        through: What connects them: a field, ``timer 3`` or ``call 7``.
    """

    event: int
    source: int
    through: str


@dataclass(frozen=True, slots=True)
class Trace:
    """What led to something.

    Attributes:
        steps: All steps that are part of it, the latest first.
        reasons: Why, by the later step; a step without any is there only because of what came in.
        unfiltered: How many steps there would be without the filter.
        all: How many steps history has up to there.
        begins: Event after which history was looked at; 0: from the begin.
    """

    steps: tuple[Step, ...]
    reasons: dict[int, tuple[Reason, ...]]
    unfiltered: int
    all: int
    begins: int


@dataclass(frozen=True, slots=True)
class History:
    """What every step did.

    Attributes:
        begins: Event after which it begins.
        steps: In order.
    """

    begins: int
    steps: list[Step]

    def step_of(self, event: int) -> Step | None:
        """Return the step that an event is in; None: it is not part of this history."""
        return next((step for step in self.steps if step.event >= event), None) if event > self.begins else None

    def writer_of(self, wanted: Field) -> Step | None:
        """Return the last step that wrote a field."""
        return next((step for step in reversed(self.steps) if wanted in step.writes), None)

    def sender_of(self, party: bytes, number: int) -> Step | None:
        """Return the step that sent item ``number`` to a party of which the first bytes are given."""
        return next(
            (step for step in self.steps for to, item in step.sent if item == number and to.startswith(party)), None
        )


def history_of(shelf: Shelf, first: int, last: int, walls: Walls = OPEN) -> History:
    """Apply history again and note what each step did.

    Args:
        shelf: The journal.
        first: Begin at the last checkpoint before this event.
        last: Stop after this event.
        walls: What stands around handlers.

    Raises:
        DivergedError: The replay differs.
        CorruptError: The journal is not what was written.
    """
    told = _Told()
    traced = _TracedShelf(shelf, told)
    try:
        past = Past(traced, walls)
        begins = past.start_before(first).events
        watch = _Watch(told)
        past.walk(begins + 1, last, watch.see)
    finally:
        told.end()
    return History(begins, watch.steps)


def trace(history: History, wanted: Step, *, filtered: bool = True, without: Collection[Field] = ()) -> Trace:
    """Walk back from a step.

    Args:
        history: Up to the step at least.
        wanted: Where to begin.
        filtered: Whether only those keys of dictionaries count that occur in what came in.
        without: Fields that are not followed, such as counters that everything touches.
    """
    found = _Index(history, wanted.event, without).back(wanted, filtered=filtered)
    others = _Index(history, wanted.event, ()).back(wanted, filtered=False)
    steps = sorted(found, key=lambda event: -event)
    by_event = {step.event: step for step in history.steps}
    return Trace(
        steps=tuple(by_event[event] for event in steps),
        reasons={event: tuple(found[event]) for event in steps},
        unfiltered=len(others),
        all=sum(step.event <= wanted.event for step in history.steps),
        begins=history.begins,
    )


class _Index:
    """Who wrote, set and called what, by time."""

    def __init__(self, history: History, last: int, without: Collection[Field]) -> None:
        self._without = without
        self._writers: dict[Field, dict[Key, list[int]]] = {}  # Events that wrote it, rising, by key.
        self._calls: dict[int, int] = {}
        self._timers: list[tuple[int, int, int]] = []
        self._steps = {step.event: step for step in history.steps if step.event <= last}
        for step in self._steps.values():
            for written, keys in step.writes.items():
                by_key = self._writers.setdefault(written, {})
                for key in keys:
                    by_key.setdefault(key, []).append(step.event)
            for call in step.calls:
                self._calls[call] = step.event
            if step.timers[1]:
                self._timers.append((*step.timers, step.event))

    def back(self, wanted: Step, *, filtered: bool) -> dict[int, list[Reason]]:
        """Return every step that led to one, with the reasons that lead further back from it."""
        found: dict[int, list[Reason]] = {}
        waiting = [wanted.event]
        while waiting:
            event = waiting.pop()
            if event in found:
                continue
            found[event] = list(self._reasons(self._steps[event], filtered=filtered))
            waiting += [reason.source for reason in found[event]]
        return found

    def _reasons(self, step: Step, *, filtered: bool) -> Iterator[Reason]:
        if step.re and step.re in self._calls:
            yield Reason(step.event, self._calls[step.re], f"call {step.re}")
        if step.number and not step.party:
            for first, last, event in self._timers:
                if first <= step.number <= last and event < step.event:
                    yield Reason(step.event, event, f"timer {step.number}")
        for read in step.reads:
            if read in self._without:
                continue
            for writer in self._before(step, read, filtered=filtered):
                yield Reason(step.event, writer, named(read))

    def _before(self, step: Step, read: Field, *, filtered: bool) -> Iterable[int]:
        """Return the events that wrote what a step may have read of a field."""
        by_key = self._writers.get(read, {})
        whole = _last_before(by_key.get(None, ()), step.event)
        keys: Iterable[Key] = _keys_in(step, read) if filtered else by_key
        parts = [_last_before(by_key[key], step.event) for key in keys if key is not None and key in by_key]
        return sorted({event for event in (whole, *parts) if event and event >= whole})


def _last_before(events: Sequence[int], event: int) -> int:
    """Return the last of some events, which rise, that is before another; 0: there is none."""
    at = bisect_left(events, event)
    return events[at - 1] if at else 0


def _keys_in(step: Step, read: Field) -> set[bytes]:
    """Return the encoded keys that occur in what came in, or that the step wrote."""
    found = {key for key in step.writes.get(read, ()) if key is not None}
    waiting: list[Any] = [step.what, step.party]
    while waiting:
        value = waiting.pop()
        if is_map(value):
            waiting += value.values()
        elif is_row(value):
            waiting += value
        found.add(_encode(value))
    return found


def named(read: Field) -> str:
    """Return a field as ``FIELD``, of a nested application as ``PATH:FIELD``."""
    path, name = read
    return f"{path}:{name}" if path else name


@final
class _Told:
    """What the classes tell: which fields are touched, and what they held before.

    Attributes:
        touched: By identity of the application and field: what it held when it was touched first in this step.
        read: Those that were read, and not only set.
        is_on: Whether what is touched now is told.
    """

    def __init__(self) -> None:
        self.touched: dict[int, dict[str, Any]] = {}
        self.read: dict[tuple[int, str], None] = {}
        self.is_on = False
        self._classes: dict[type[App], None] = {}

    def instrument(self, kind: type[App]) -> None:
        """Let a class tell."""
        if kind in self._classes:
            return
        self._classes[kind] = None
        names = frozenset(kind.__struct_fields__)
        plain_get: Callable[[Any, str], Any] = object.__getattribute__
        plain_set: Callable[[Any, str, Any], None] = msgspec.Struct.__setattr__

        def get(app: Any, name: str) -> Any:
            if name in names and self.is_on:
                self._touch(app, name, plain_get(app, name))
                self.read[id(app), name] = None
            return plain_get(app, name)

        def put(app: Any, name: str, value: Any) -> None:
            if name in names and self.is_on:
                self._touch(app, name, plain_get(app, name))
            plain_set(app, name, value)

        kind.__getattribute__ = get  # type: ignore[method-assign]
        kind.__setattr__ = put  # type: ignore[method-assign]

    def _touch(self, app: Any, name: str, value: Any) -> None:
        held = self.touched.setdefault(id(app), {})
        if name not in held:
            held[name] = _held(value)

    def take(self) -> tuple[dict[int, dict[str, Any]], dict[tuple[int, str], None]]:
        """Return what was touched and what was read since the last time."""
        touched, self.touched = self.touched, {}
        read, self.read = self.read, {}
        return touched, read

    def end(self) -> None:
        """Let the classes be as they were."""
        for kind in self._classes:
            del kind.__getattribute__
            del kind.__setattr__


def _held(value: Any) -> Any:
    """Return what a field holds so that it can be compared later: a dictionary by its encoded keys."""
    if is_map(value) and len(value) <= KEYS_MAX:
        return {_encode(key): _encode(inner) for key, inner in value.items()}
    return _encode(value)


def _written(before: Any, after: Any) -> tuple[Key, ...]:
    """Return the keys that were written; (None,): all of it; (): nothing was."""
    if is_map(before) and is_map(after):
        return tuple(key for key in {**before, **after} if before.get(key) != after.get(key))
    return () if before == after else (None,)


class _TracedShelf:
    """A journal whose code tells what it touches."""

    def __init__(self, shelf: Shelf, told: _Told) -> None:
        self._shelf, self._told = shelf, told
        self.first, self.last = shelf.first, shelf.last
        self.first_event, self.last_event = shelf.first_event, shelf.last_event
        self.snapshots = shelf.snapshots

    def block_of(self, event: int) -> int:
        return self._shelf.block_of(event)

    def block(self, number: int) -> Block:
        return self._shelf.block(number)

    def snapshot(self, number: int) -> Snapshot:
        return self._shelf.snapshot(number)

    def program(self, code: bytes) -> Program:
        program = self._shelf.program(code)
        for kind in program.classes.values():
            self._told.instrument(kind.app)
        return program


class _Watch:
    """Makes a ``Step`` of each step that is shown."""

    def __init__(self, told: _Told) -> None:
        self._told = told
        self._timers = 0
        self._due = 0
        self._names: dict[str, dict[str, Any]] = {}
        self.steps: list[Step] = []

    def see(self, sight: Sight) -> bool:
        """Take a step."""
        self._told.is_on = False
        environment = sight.environment
        touched, read = self._told.take()
        timers = environment.timers_set
        if sight.entry is not None and sight.after > sight.before:
            self.steps.append(self._step(sight, touched, read, timers))
        self._timers, self._due = timers, environment.first_timer
        self._told.is_on = True
        return False

    def _step(
        self, sight: Sight, touched: dict[int, dict[str, Any]], read: dict[tuple[int, str], None], timers: int
    ) -> Step:
        assert sight.entry is not None, "a step was made"
        step = Step(sight.after, sight.environment.now_ns, "", None)
        self._describe(step, sight.entry.record, sight.item)
        branches = sight.environment.apps()
        if isinstance(sight.entry.record, Began):
            step.writes = {(path, name): (None,) for path, app in branches.items() for name in app.__struct_fields__}
        reads: list[Field] = []
        for path, app in branches.items():
            for name, before in touched.get(id(app), {}).items():
                if (id(app), name) in read:
                    reads.append((path, name))
                if keys := _written(before, _held(getattr(app, name))):
                    step.writes[path, name] = keys
        step.reads = tuple(reads)
        if timers > self._timers:
            step.timers = (self._timers + 1, timers)
        posts = [effect for effect in sight.effects() if isinstance(effect, Post)]
        step.sent = tuple((post.party, post.first + at) for post in posts for at in range(post.count))
        step.calls = tuple(item.ask for post in posts for item in _raw_items.decode(post.items) if item.ask)
        return step

    def _describe(self, step: Step, record: Record, at: int) -> None:
        match record:
            case Arrived(party, first, raw):
                item = _raw_items.decode(raw)[at]
                step.party, step.number, step.re = party, first + at, item.re
                step.what = plain_tuple(item.event)
                step.came = str(step.what.get("is", "?")) if is_map(step.what) else "?"
            case Failed(party, number, code, _, encoded):
                step.party, step.number = party, number
                step.what = plain_tuple(_raw_item.decode(encoded).event) if encoded else None
                step.came = f"Failed ({code})"
            case Fired():
                step.number, step.came = self._due, "Fired"
            case _:
                step.came = type(record).__name__
