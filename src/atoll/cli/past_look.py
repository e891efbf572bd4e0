# SPDX-License-Identifier: Apache-2.0
"""What ``atoll replay NAME`` shows: one moment, a walk, an answer of a watch, all of it, or other code's history."""

import linecache
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pdb import Pdb
from typing import Any, NoReturn, final

import click

from atoll.base.errors import UserError
from atoll.cli import past_text
from atoll.domain.causes import TimedWalls
from atoll.domain.limits import REVISED_S_MAX
from atoll.domain.loading import bundle_of, load
from atoll.domain.shelves import DiskShelf
from atoll.env.app import AppClass, Handler, Program
from atoll.env.chain import Block
from atoll.env.context import Context
from atoll.env.history import Snapshot
from atoll.env.past import Moment, Past
from atoll.env.revising import revise
from atoll.env.stepping import DivergedError, Sight
from atoll.env.watching import Change, Expression, first_true, last_change

__all__ = ["Chosen", "Look", "debug"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the command line says.

    Attributes:
        at: A time to look at.
        event: An event to look at.
        until: A number or a time to stop at.
        show: Whether each event is to be printed.
        stop: An expression; look for the first event after which it is true.
        changed: An expression; look for the last event that changed it.
        new: Code to run history through.
        pdb: Whether to stop in the handler.
    """

    at: str | None = None
    event: int | None = None
    until: str | None = None
    show: bool = False
    stop: str | None = None
    changed: str | None = None
    new: str | None = None
    pdb: bool = False


@final
class Look:
    """Looks at one past.

    Args:
        past: The past.
        shelf: Its journal.
        event_of: Returns the event that a number or a time means.
        json: Writes JSON; None: text is wanted.
    """

    def __init__(
        self,
        past: Past,
        shelf: DiskShelf,
        event_of: Callable[[str], int],
        json: Callable[[Any], str] | None,
    ) -> None:
        self._past, self._shelf, self._event_of, self._json = past, shelf, event_of, json

    def show(self, chosen: Chosen) -> None:
        """Show what the options ask for.

        Raises:
            UserError: A501, they name no event or no field; A607, A602, the code does not fit.
            DivergedError: The replay differs.
        """
        past, at = self._past, chosen.at if chosen.event is None else str(chosen.event)
        begin = None if at is None else self._event_of(at)
        end = past.last if chosen.until is None else self._event_of(chosen.until)
        first = max(past.first + 1, begin or 0)
        if begin is not None and begin > end:
            where = f"begin: event {begin}"
            raise UserError("A501", f"it ends with event {end}, before it begins", where=where, fix="a later --until")
        if chosen.new is not None:
            self._revised(chosen.new, first, end)
        elif chosen.stop is not None:
            found = first_true(past, Expression(chosen.stop), first, end) if first <= end else None
            if found is None:
                self._nothing(f"no event from {first} to {end} makes it true: {chosen.stop}", (first, end))
            self._answer(found, is_traced=chosen.pdb)
        elif chosen.changed is not None:
            self._changed(chosen, begin if chosen.until is None and begin is not None else end)
        elif first <= end and (chosen.show or (begin is not None and chosen.until is not None)):
            self._walk(first, end)
        elif at is not None or chosen.until is not None or chosen.pdb or chosen.show:
            self._answer(end if begin is None else begin, is_traced=chosen.pdb)
        else:
            self._all()

    def _answer(self, event: int, change: Change | None = None, *, is_traced: bool) -> None:
        self._moment(self._past.state_at(event), change)
        if is_traced:
            debug(self._shelf, event)

    def _nothing(self, sentence: str, events: tuple[int, int]) -> NoReturn:
        """Say that no event is meant, and end with status 1."""
        if self._json is None:
            click.echo(sentence, err=True)
        else:
            click.echo(self._json({"schema": past_text.PAST_SCHEMA, "event": None, "looked": events}))
        click.get_current_context().exit(1)

    def _moment(self, moment: Moment, change: Change | None = None) -> None:
        if self._json is None:
            click.echo(past_text.event(moment, self._past.last))
            return
        more = {} if change is None else {"was": change.was, "became": change.became}
        click.echo(self._json(past_text.plain_moment(moment) | more))

    def _changed(self, chosen: Chosen, last: int) -> None:
        text = chosen.changed or ""
        change = last_change(self._past, Expression(text), last) if last > self._past.first else None
        if change is None:
            self._nothing(f"no event up to {last} changed it: {text}", (self._past.first + 1, last))
        if self._json is None:
            click.echo(f"{text}  {change.was} -> {change.became}")
        self._answer(change.event, change, is_traced=chosen.pdb)

    def _walk(self, first: int, last: int) -> None:
        def see(sight: Sight) -> bool:
            if sight.entry is not None and sight.after >= first and sight.after > sight.before:
                came, effects = past_text.came_in(sight.entry.record, sight.item), sight.effects()
                if self._json is None:
                    click.echo(past_text.line(sight.environment.now_ns, sight.after, came, effects))
                else:
                    click.echo(self._json(past_text.plain_event(sight.after, came, effects)))
            return False

        self._past.walk(first, last, see)
        if self._json is None:
            self._moment(self._past.state_at(last))

    def _all(self) -> None:
        began_ns = time.perf_counter_ns()
        summary = self._past.redo()
        took_ns = time.perf_counter_ns() - began_ns
        if self._json is not None:
            events = {"first": summary.first, "last": summary.last}
            plain = {**events, "blocks": summary.blocks, "checkpoints": summary.checkpoints, "took_ns": took_ns}
            click.echo(self._json({"schema": "atoll.replay-environment/1", **plain, "digest": summary.digest}))
            return
        lived_ns = summary.until_ns - summary.since_ns
        click.echo(past_text.replayed(self._shelf.journal.name, summary, took_ns, lived_ns))

    def _revised(self, target: str, first: int, last: int) -> None:
        program = load(bundle_of(target)).program
        with TimedWalls(REVISED_S_MAX) as walls:
            found = revise(self._past, program, first, last, walls)
        if self._json is not None:
            click.echo(self._json(past_text.plain_revision(found)))
        else:
            click.echo(past_text.revised(found, target))
        if found.differing or found.state:
            click.get_current_context().exit(1)


def debug(shelf: DiskShelf, event: int, debugger: Pdb | None = None) -> None:
    """Run the handler of an event once more, in the debugger.

    Args:
        shelf: The journal.
        event: Number of the event.
        debugger: Which one; None: that of the terminal.
    """
    traced = _Traced(shelf, event, debugger or Pdb(nosigint=True))
    try:
        Past(traced).state_at(event)
    except DivergedError as error:
        if not (traced.has_stopped and error.first_event <= event <= error.event):
            raise
        click.echo("the handler did not end as it did then: the debugger was left, or has changed something", err=True)
    if not traced.has_stopped:
        click.echo(f"no handler runs in event {event}", err=True)


class _Traced:
    """A journal whose code stops in the debugger at one event."""

    def __init__(self, shelf: DiskShelf, event: int, debugger: Pdb) -> None:
        self._shelf, self._event, self._debugger = shelf, event, debugger
        self.first, self.last = shelf.first, shelf.last
        self.first_event, self.last_event = shelf.first_event, shelf.last_event
        self.snapshots = shelf.snapshots
        self.has_stopped = False

    def block_of(self, event: int) -> int:
        return self._shelf.block_of(event)

    def block(self, number: int) -> Block:
        return self._shelf.block(number)

    def snapshot(self, number: int) -> Snapshot:
        return self._shelf.snapshot(number)

    def program(self, code: bytes) -> Program:
        for name, source in self._shelf.bundle(code).files.items():
            # Without a time it is never looked up on disk, where there may be another file of that name.
            linecache.cache[f"{name}.py"] = (len(source), None, source.splitlines(keepends=True), f"{name}.py")
        program = self._shelf.program(code)
        classes = {name: self._stopping(kind) for name, kind in program.classes.items()}
        return replace(program, classes=classes, main=classes[program.main.name])

    def _stopping(self, kind: AppClass) -> AppClass:
        handlers = {
            type_: self._stop_in(handler, is_task=type_ in kind.tasks) for type_, handler in kind.handlers.items()
        }
        return replace(kind, handlers=handlers)

    def _stop_in(self, handler: Handler, *, is_task: bool) -> Handler:
        def stopping(app: Any, event: Any, context: Context) -> Any:
            if context.event_number != self._event:
                return handler(app, event, context)
            self.has_stopped = True
            if is_task:
                return _StoppingTask(handler(app, event, context), self._debugger)
            return _stopped(self._debugger, handler, app, event, context)

        return stopping


def _stopped(debugger: Pdb, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in the debugger, and leave whoever traces this process as it was."""
    tracer = sys.gettrace()
    try:
        return debugger.runcall(function, *arguments)
    finally:
        sys.settrace(tracer)


class _StoppingTask:
    """A coroutine whose first part runs in the debugger."""

    def __init__(self, coroutine: Any, debugger: Pdb) -> None:
        self._coroutine = coroutine
        self._debugger: Pdb | None = debugger

    def send(self, value: Any) -> Any:
        debugger, self._debugger = self._debugger, None
        return self._coroutine.send(value) if debugger is None else _stopped(debugger, self._coroutine.send, value)

    def close(self) -> None:
        self._coroutine.close()
