# SPDX-License-Identifier: Apache-2.0
"""History through changed code: what came in then comes in again, and what the changed code makes of it is compared.

The recorded code and the changed one run side by side, item by item, each from its own state. Compared is what
leaves: to whom, what, in answer to which call, and lines of the log; not the numbers that items get on the way, which
all shift when one more is sent. An item whose handler failed then is given to the changed code once more: it may do
better. A failed timer or change is not, because the journal does not hold it.

What this cannot show: history holds the answers that the recorded code's own calls got. Changed code that asks for
something else gets no answer to that here, and its calls run into their time-outs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from atoll.base.errors import CorruptError, UserError
from atoll.env.app import Program
from atoll.env.comparing import Difference, differences, grouped_effects
from atoll.env.environment import Environment
from atoll.env.history import Entry
from atoll.env.past import Past, flat, state_of
from atoll.env.records import (
    TEXT_CHARS_MAX,
    Arrived,
    Began,
    Checkpointed,
    Effect,
    Failed,
    Fired,
    Record,
    Upgraded,
)
from atoll.env.stepping import Start
from atoll.env.walls import OPEN, HandlerKilled, Walls

__all__ = ["FirstDifference", "Revision", "revise"]

_KILLED: Final = "killed"
_encode: Final = msgspec.msgpack.Encoder().encode
_raw_items: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """Where the changed code first did something else.

    Attributes:
        event: The event, as the recording counts.
        now_ns: When, ns since 1970.
        record: What came in: of a record of items, the one item.
        differences: What differs in what left: as recorded, as it would be.
    """

    event: int
    now_ns: int
    record: Record
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Revision:
    """What became of history.

    Attributes:
        events: Events that were compared.
        differing: Of them, those whose effects differ.
        first: The first of those; None: none does.
        failed: Handlers that failed, as recorded and with the changed code.
        state: Fields in which the states at the end differ: as recorded, as it would be.
    """

    events: int
    differing: int
    first: FirstDifference | None
    failed: tuple[int, int]
    state: tuple[Difference, ...]


class _Side:
    """One of the two runs.

    Attributes:
        environment: The machine.
        failures: Handlers that failed.
    """

    def __init__(self, program: Program, start: Start, walls: Walls) -> None:
        self._program, self._walls = program, walls
        self._base = start.state
        self._since: list[tuple[Record, int]] = []
        self.failures = 0
        self.environment = self._restored()

    def take(self, record: Record, now_ns: int, then: Record | None = None) -> list[Effect]:
        """Apply a record; return what leaves. A handler that fails is undone, and its event counts as failed.

        Args:
            record: What came in.
            now_ns: When, ns since 1970.
            then: What was recorded of it. One that was ended then and is ended now did the same, whatever each took.
        """
        if isinstance(record, Checkpointed):
            self._rest()
            return []
        try:
            return self._handle(record, now_ns)
        except HandlerKilled as error:
            text = then.text if isinstance(then, Failed) and then.code == _KILLED else str(error)
            failed = (_KILLED, text)
        except MemoryError:
            failed = ("grown", "out of memory")
        except KeyboardInterrupt:
            raise  # Whoever looks has seen enough.
        except BaseException as error:  # noqa: BLE001 -- the handler is a stranger's: whatever it raises is its failure.
            failed = ("raised", f"{type(error).__name__}: {error}")
        self.failures += 1
        self.environment = self._restored()
        for before, then_ns in self._since:
            self._apply(before, then_ns)
        effects = self._handle(self._instead(record, failed), now_ns)
        self._rest()  # So the next one is undone from here, and not from the last recorded checkpoint.
        return effects

    def upgrade(self, program: Program) -> None:
        """Go on with other code, as the recording did."""
        self._base = self.environment.snapshot()
        self._program = program
        self.environment = self._restored()
        self._since.clear()

    def _instead(self, record: Record, failed: tuple[str, str]) -> Failed:
        code, text = failed[0], failed[1][:TEXT_CHARS_MAX]
        match record:
            case Arrived(party, first, raw):
                return Failed(party, first, code, text, bytes(_raw_items.decode(raw)[0]))
            case Fired():
                return Failed(b"", self.environment.first_timer, code, text)
            case Began():
                raise UserError("A602", f"{record.name} cannot begin", where=text, fix="mend its Started handler")
            case _:
                return Failed(b"", 0, code, text)

    def _handle(self, record: Record, now_ns: int) -> list[Effect]:
        effects = self._apply(record, now_ns)
        self._since.append((record, now_ns))
        return effects

    def _apply(self, record: Record, now_ns: int) -> list[Effect]:
        self._walls.enter()
        try:
            return list(self.environment.handle(record, now_ns))
        finally:
            self._walls.leave()

    def _rest(self) -> None:
        if self.environment.is_quiescent:
            self._base = self.environment.checkpoint()
            self._since.clear()

    def _restored(self) -> Environment:
        if not self._base:
            return Environment.blank(self._program)
        return Environment.restore(self._program, self._base)


def revise(past: Past, program: Program, first: int, last: int, walls: Walls = OPEN) -> Revision:
    """Run history through changed code.

    Args:
        past: The history.
        program: The changed code. Its state is migrated as by an upgrade, where history does not start at the begin.
        first: Begin at the last checkpoint before this event.
        last: Stop after this event.
        walls: What stands around handlers.

    Raises:
        UserError: A607, the state where it begins does not fit the changed code; A602, it cannot begin.
        CorruptError: The journal is not what was written.
    """
    shelf = past.shelf
    start = past.start_before(first)
    old = _Side(shelf.program(start.code), start, walls)
    try:
        new = _Side(program, start, walls)
    except CorruptError as error:
        raise UserError(
            "A607", "the state does not fit the changed code", where=str(error), fix="add a migration"
        ) from error
    compared = differing = failed = 0
    found: FirstDifference | None = None
    for entry, record, instead in _steps(past, start, last, old):
        before = old.environment.events
        if isinstance(record, Upgraded):
            old.upgrade(shelf.program(record.code))
            continue
        failed += isinstance(record, Failed)
        one, other = old.take(record, entry.now_ns), new.take(instead, entry.now_ns, record)
        if old.failures:
            raise CorruptError(f"event {old.environment.events}: the recorded code fails, and did not fail then")
        compared += old.environment.events - before
        if one == other:
            continue
        different = differences(grouped_effects(one), grouped_effects(other))
        if different:
            differing += max(old.environment.events - before, 1)
            found = found or FirstDifference(old.environment.events, entry.now_ns, instead, different)
    state = differences(flat(state_of(old.environment)), flat(state_of(new.environment)))
    return Revision(compared, differing, found, (failed, new.failures), state)


def _steps(past: Past, start: Start, last: int, old: _Side) -> Iterator[tuple[Entry, Record, Record]]:
    """Return each record, of records of items each item alone: as recorded, and as the changed code gets it."""
    for entry, record, instead in _all_steps(past, start):
        if old.environment.events >= last and last < past.last:
            return
        yield entry, record, instead


def _all_steps(past: Past, start: Start) -> Iterator[tuple[Entry, Record, Record]]:
    for _, body in past.bodies(start.number + 1, past.shelf.last):
        for entry in body.entries:
            match entry.record:
                case Arrived(party, first, raw):
                    for at, item in enumerate(_raw_items.decode(raw)):
                        single = Arrived(party, first + at, msgspec.Raw(_encode([item])))
                        yield entry, single, single
                case Failed(party, number, _, _, item) if party and item:
                    yield entry, entry.record, Arrived(party, number, msgspec.Raw(_encode([msgspec.Raw(item)])))
                case _:
                    yield entry, entry.record, entry.record
