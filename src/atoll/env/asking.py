# SPDX-License-Identifier: Apache-2.0
"""What handlers ask of their environment, and what comes of it: the half of the machine that runs no record.

Everything here changes state and collects effects. A handler asks through its ``Context``; the records that come in are
applied by ``environment.Environment``, which is the other half. The only code of an application that runs here is
that of an outer environment which intercepts what a nested one sends.
"""

from collections import deque
from heapq import nsmallest
from inspect import iscoroutinefunction
from typing import Any, Final

import msgspec

from atoll.base.errors import LimitError, UsageError
from atoll.env.app import App, Program
from atoll.env.changes import Failure, Request, Started
from atoll.env.channel import Channel
from atoll.env.context import Chance, Context, Operation, QueueFull
from atoll.env.limits import (
    NAME_CHARS_MAX,
    NESTED_MAX,
    NESTING_MAX,
    OPERATIONS_MAX,
    PARTIES_KNOWN_MAX,
    PARTIES_MAX,
    TUPLE_BYTES_MAX,
)
from atoll.env.nesting import TOO_DEEP_TEXT, misfit
from atoll.env.parties import PATH_CHARS_MAX, Ref
from atoll.env.records import TEXT_CHARS_MAX, Effect, Ended, Note, Resolve
from atoll.env.shelf import Shelf
from atoll.env.shelf import Told as ToldOfTuple
from atoll.env.space import Space
from atoll.env.state import Call, PutOff, State, Timer, Wanted
from atoll.env.texts import is_plain, plain, words_of
from atoll.env.tree import Live, Task, begun, revived
from atoll.env.tuples import TYPE_FIELD, Tuple

__all__ = ["NOTE_CHARS_MAX", "Asked", "Pending", "encoded"]

FORGOTTEN_AT_ONCE: Final = 64  # Limit. So many parties are forgotten for one that comes, where there are too many.
NOTE_CHARS_MAX: Final = 1_000  # Limit. One line of a log; the rest of it is cut off.

Pending = list[tuple[msgspec.Raw, int, int, str, str]]
"""Items for one party: event, ask, re, to, by."""


class _Named(msgspec.Struct, frozen=True):
    """What of a tuple says its type."""

    what: str = msgspec.field(name=TYPE_FIELD)


_encode: Final = msgspec.msgpack.Encoder().encode
_named: Final = msgspec.msgpack.Decoder(_Named)


class Asked:
    """The state of an environment, and what its handlers may ask (``context.Kernel``).

    Args:
        program: The code.
        state: What it is in. Taken over, not copied.

    Attributes:
        id: The environment as a party.
        name: How people call it.
        now_ns: Time of the input at hand or of the last one, ns since 1970.
        seed: From which all its randomness follows.
        events: Events so far.
        chance: What was drawn in the event at hand.
        lived_ns: As of ``State``.
        forgot_ns: As of ``State``.
        forgotten: Who was, by the record at hand or the last one.

    Raises:
        CorruptError: The state does not fit the code.
    """

    def __init__(self, program: Program, state: State) -> None:
        self._program: Final = program
        self.chance = Chance()
        self._load(state, self._tree(state))

    def _tree(self, state: State) -> dict[str, Live]:
        return {path: revived(self, self._program, path, branch) for path, branch in state.branches.items()}

    def _load(self, state: State, tree: dict[str, Live]) -> None:
        self.id, self.name, self.seed = state.id, state.name, state.seed
        self.now_ns = state.now_ns
        self.events: int = state.events
        self._channels, self._timers = state.channels, state.timers
        self._calls, self._called, self._wanted = state.calls, state.called, state.wanted
        self._live = tree
        self._spaces = {path: live.shelf.space for path, live in tree.items() if live.shelf is not None}
        self._effects: list[Effect] = []
        self._pending: dict[bytes, Pending] = {}
        self._local: deque[tuple[str, Ref, bytes, int, int]] = deque()
        self._waiting: dict[int, Task] = {}  # By number of the call that it awaits.
        self._is_over = False
        self._given_up: list[Task] = []  # Not closed while their clean-up could reach what lives.
        self._operations: dict[int, Operation] = {}
        self.lived_ns: int = state.lived_ns
        self.forgot_ns, self._floor = state.forgot_ns, state.floor
        self.forgotten: list[bytes] = []
        self._rested = state.events  # At the last moment of rest.
        self._bytes: int = 0  # Of items, since then.
        self._put_off: list[PutOff] = []
        for late in state.put_off:  # At rest coroutines may begin again: each of these is due now.
            self._timers.owe(Timer(self.now_ns, late.path, late.event, sender=late.sender, ask=late.ask))

    # What contexts ask.

    def post(self, source: str, to: Ref, event: Tuple, *, ask: int = 0, re: int = 0) -> None:
        """Send a tuple."""
        raw = encoded(event)
        if source:
            self._post_raw(source, to, raw, ask, re)
        elif re and (pending := self._pending.get(to.party)) is not None:
            pending.append((msgspec.Raw(raw), ask, re, to.path, source))  # What nearly all responses are, kept short.
        else:
            self._send(source, to, raw, ask, re)

    def _post_raw(self, source: str, to: Ref, raw: bytes, ask: int, re: int) -> None:
        if source:
            passed = self._passed(source, to, raw)
            if isinstance(passed, bytes):
                raw = passed
            elif re:
                raw = self._written(passed)
            else:
                if ask:
                    self._respond(to.path, Ref(self.id, source), passed, ask)
                return
        self._send(source, to, raw, ask, re)

    def _respond(self, source: str, to: Ref, answer: Tuple, re: int) -> None:
        """Respond for an application: no code of its tree is asked, so this cannot fail."""
        self._send(source, to, self._written(answer), 0, re)

    @staticmethod
    def _written(answer: Tuple) -> bytes:
        """Encode a response that no handler made. A failure whose text is too long is cut: nobody would take it whole.

        What a stranger has sent may be quoted in it, many times as long.
        """
        raw = _encode(answer)
        if len(raw) > TUPLE_BYTES_MAX and isinstance(answer, Failure):
            return _encode(Failure(plain(answer.code, NAME_CHARS_MAX), plain(answer.text, TEXT_CHARS_MAX)))
        return raw

    def _send(self, source: str, to: Ref, raw: bytes, ask: int, re: int) -> None:
        if to.party == self.id:
            self._local.append((source, to, raw, ask, re))
            return
        pending = self._pending.get(to.party)
        if pending is None:
            if to.party not in self._channels and not self._has_room():
                text = f"{PARTIES_KNOWN_MAX} parties are known, and none can be forgotten"
                if not re:
                    raise QueueFull(text)
                self.note("", f"no response to {to.party.hex()}: {text}")
                return
            channel, pending = self._channel(to.party), []
            self._pending[to.party] = pending
        else:
            channel = self._channels[to.party]
        if not re:  # Who asks too much and does not read the responses is not taken from any more (``hosted``).
            try:
                channel.room(len(pending))
            except LimitError as error:
                raise QueueFull(f"to {to.party.hex()}: {error}") from error
        pending.append((msgspec.Raw(raw), ask, re, to.path, source))

    def call(self, source: str, to: Ref | str, event: Tuple, timeout_ns: int, then: str) -> Operation:
        """Send a tuple whose response is wanted."""
        raw = encoded(event)
        if isinstance(to, str):
            return self._ask_for(Wanted(source, to, event=raw, ask=True), timeout_ns, then)
        operation = self._expect(source, timeout_ns, then, party=to.party)
        try:
            self._post_raw(source, to, raw, operation.number, 0)
        except BaseException:
            self._withdraw(operation.number)
            raise
        return operation

    def resolve(self, source: str, name: str, timeout_ns: int, then: str) -> Operation:
        """Ask who has a name."""
        return self._ask_for(Wanted(source, name, ask=True), timeout_ns, then)

    def search(self, source: str, name: str, event: Tuple, *, everyone: bool) -> None:
        """Send a tuple to whoever has a name when it leaves."""
        raw = encoded(event)
        wanted = self._sought(Wanted(source, name, event=raw, everyone=everyone))
        self._called += 1
        self._seek(self._called, wanted)

    def _ask_for(self, wanted: Wanted, timeout_ns: int, then: str) -> Operation:
        wanted = self._sought(wanted)
        operation = self._expect(wanted.path, timeout_ns, then, name=wanted.name)
        self._seek(operation.number, wanted)
        return operation

    def _sought(self, wanted: Wanted) -> Wanted:
        """Return a search with its name taken apart.

        Raises:
            UsageError: It is no name.
            QueueFull: OPERATIONS_MAX names are looked up already.
        """
        name, _, to = wanted.name.partition("/")
        if not name or len(name) > NAME_CHARS_MAX or len(to) > PATH_CHARS_MAX or not is_plain(wanted.name):
            raise UsageError(f"no environment is called {wanted.name[:NAME_CHARS_MAX]!r}")
        if len(self._wanted) >= OPERATIONS_MAX:
            raise QueueFull(f"{OPERATIONS_MAX} names are looked up already")
        return msgspec.structs.replace(wanted, name=name, to=to)

    def _seek(self, number: int, wanted: Wanted) -> None:
        self._wanted[number] = wanted
        self._effects.append(Resolve(number, wanted.name))

    def wait(self, source: str, delay_ns: int) -> Operation:
        """Set a timer that a coroutine awaits."""
        return self._expect(source, delay_ns, "")

    def _expect(self, source: str, timeout_ns: int, then: str, *, party: bytes = b"", name: str = "") -> Operation:
        if then:
            method = getattr(type(self._of(source).app), then, None)
            if not callable(method) or iscoroutinefunction(method):
                raise UsageError(f"{then} is no plain method of {self._of(source).kind.name}")
        if len(self._calls) >= OPERATIONS_MAX:
            raise QueueFull(f"{OPERATIONS_MAX} calls wait already")
        number = self._called + 1
        timer = self._set(Timer(self.now_ns + timeout_ns, source, b"", 0, number))
        self._called = number
        self._calls[number] = Call(party, source, timer, then, name)
        operation = self._operations[number] = Operation(number)
        return operation

    def _withdraw(self, number: int) -> None:
        """Take a call back that could not be made; whoever made it has heard so."""
        call = self._calls.pop(number, None)
        self._operations.pop(number, None)
        if call is not None:
            self._timers.cancel(call.timer)

    def after(self, source: str, delay_ns: int, event: Tuple, period_ns: int) -> int:
        """Set a timer."""
        raw = encoded(event)
        return self._set(Timer(self.now_ns + delay_ns, source, raw, period_ns))

    def _set(self, timer: Timer) -> int:
        self._of(timer.path)
        try:
            return self._timers.add(timer)
        except LimitError as error:
            raise QueueFull(str(error)) from error

    def cancel(self, number: int) -> bool:
        """Take a timer back."""
        timer = self._timers.live.get(number)
        return timer is not None and not timer.call and self._timers.cancel(number)

    def spawn(self, source: str, app: type[App], name: str, fields: dict[str, Any]) -> Ref:
        """Make a nested environment."""
        self._of(source)
        kind = self._program.classes.get(app.__name__)
        path = f"{source}/{name}" if source else name
        if kind is None or kind.app is not app:
            raise UsageError(f"the program does not know the application class {app.__name__}")
        if not name or "/" in name or len(name) > NAME_CHARS_MAX or len(path) > PATH_CHARS_MAX or not is_plain(name):
            raise UsageError(f"a nested environment called {name!r}")
        if path not in self._live:
            if len(self._live) > NESTED_MAX:
                raise QueueFull(f"{NESTED_MAX} environments are nested already")
            live = self._live[path] = begun(self, kind, path, fields)
            if Started in live.handlers:
                self._local.append((source, Ref(self.id, path), _encode(Started()), 0, 0))
        return Ref(self.id, path)

    def end(self, path: str) -> bool:
        """End an environment and what is nested in it."""
        if path not in self._live:
            return False
        if not path:
            self._is_over = True
            self._effects.append(Ended())
            return True
        below = path + "/"
        for gone in [one for one in self._live if one == path or one.startswith(below)]:
            del self._live[gone]
            self._spaces.pop(gone, None)
        self._timers.drop(path)
        self._put_off = [late for late in self._put_off if late.path != path and not late.path.startswith(below)]
        for number in [
            number for number, call in self._calls.items() if call.path == path or call.path.startswith(below)
        ]:
            self._abandon(number, Failure("ended", f"{path} has ended"))
        return True

    def note(self, source: str, text: str) -> None:
        """Write a line to the log."""
        line = f"{source}: {text}" if source else text
        self._effects.append(Note(plain(line, NOTE_CHARS_MAX)))

    def own(self, source: str) -> Ref:
        """Return how others name an environment of this tree."""
        return Ref(self.id, source)

    def put(self, source: str, event: Tuple, lease_ns: int | None) -> int:
        """Place a tuple, and tell who watches."""
        live = self._of(source)
        try:
            key, told = self.shelf(source).put(event, self.now_ns, lease_ns)
        except LimitError as error:
            raise QueueFull(str(error)) from error
        self._tell(live, told)
        return key

    def shelf(self, source: str) -> Shelf:
        """Return the space of an environment of this tree."""
        live = self._of(source)
        if live.shelf is None:
            live.shelf = Shelf(live.kind, self._program.types, Space(), {})
            self._spaces[source] = live.shelf.space
        return live.shelf

    def _tell(self, live: Live, told: list[ToldOfTuple]) -> None:
        """Tell who watches of a tuple. Who does not read what comes loses the watch, and learns it when he renews."""
        path = live.context.path
        for matched, watcher in told:
            try:
                self._post_raw(path, watcher or Ref(self.id, path), _encode(matched), 0, 0)
            except QueueFull as error:
                assert live.shelf is not None
                live.shelf.drop(matched.watch)
                self.note(path, f"watch {matched.watch} ended: {error}")

    def _of(self, path: str) -> Live:
        """Return an environment of the tree that asks for something.

        Raises:
            UsageError: It has ended in this event.
        """
        live = self._live.get(path)
        if live is None:
            raise UsageError(f"{path} has ended")
        return live

    def _passed(self, source: str, to: Ref, raw: bytes) -> bytes | Failure:
        """Return what becomes of something that a nested environment sends, after all those around it have seen it."""
        path = source
        while path:
            path = path.rpartition("/")[0]
            outer = self._live.get(path)
            if outer is None or outer.kind.intercept is None or self._is_inside(to, path):
                continue  # What stays inside does not pass the wall.
            request = Request(source, to.party, _named.decode(raw).what, raw)
            passed: Any = outer.kind.intercept(outer.app, request, Context(self, path))
            if isinstance(passed, Failure):
                return passed
            if isinstance(passed, Tuple) and not isinstance(passed, Request):
                raw = encoded(passed)
        return raw

    def _misfit(self, raw: bytes | msgspec.Raw, error: Exception) -> str:
        """Return why a tuple does not decode as what this program knows, for whoever sent it."""
        try:
            name = _named.decode(raw).what
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return "this is no tuple"
        if name not in self._program.types:
            return f"no tuple is called {plain(name, NAME_CHARS_MAX)!r} here"
        text = str(error) if isinstance(error, msgspec.DecodeError) else words_of(error, TEXT_CHARS_MAX)
        return f"{name}: {text.replace('$[0][0]', '$')}"

    def _is_inside(self, to: Ref, path: str) -> bool:
        """Return whether this is the environment of this path, or one within it."""
        return to.party == self.id and (not path or to.path == path or to.path.startswith(path + "/"))

    # Parts of it.

    def _channel(self, party: bytes) -> Channel:
        channel = self._channels.get(party)
        if channel is None:
            if len(self._channels) >= PARTIES_MAX:
                self._forget()
            channel = self._channels[party] = Channel(sent=self._floor, heard_ns=self.lived_ns)
        return channel

    @property
    def room(self) -> int:
        """How many parties that are not known can be known now."""
        return PARTIES_KNOWN_MAX - len(self._channels) + len(self._idle())

    def _has_room(self) -> bool:
        """Return whether one more party can be known; whoever can be forgotten for it is."""
        if len(self._channels) >= PARTIES_KNOWN_MAX:
            self._forget()
        return len(self._channels) < PARTIES_KNOWN_MAX

    def _forget(self) -> None:
        """Make room for one more party, and shorten a table that has grown: forget who can be, silent longest first."""
        count = min(len(self._channels) - PARTIES_MAX + 1, FORGOTTEN_AT_ONCE)
        for _, heard_ns, party in nsmallest(count, self._idle()):
            channel = self._channels.pop(party)
            if channel.unconfirmed:
                self.note("", f"given up: {channel.unconfirmed} tuples to {party.hex()}, who was silent for an hour")
            self._floor, self.forgot_ns = max(self._floor, channel.sent), max(self.forgot_ns, heard_ns)
            self.forgotten.append(party)

    def _idle(self) -> list[tuple[bool, int, bytes]]:
        """Return who can be forgotten: nothing is asked of it nor owed to it, or it was silent for an hour."""
        needed = {call.party for call in self._calls.values()} | self._pending.keys()
        return [
            (bool(channel.outbox), channel.heard_ns, party)
            for party, channel in self._channels.items()
            if party not in needed and channel.may_go(self.lived_ns)
        ]

    def _abandon(self, number: int, failure: Failure) -> None:
        """End a call whose outcome could not be handled; whom its coroutine was to answer hears so."""
        self._calls.pop(number, None)
        self._wanted.pop(number, None)
        self._operations.pop(number, None)
        task = self._waiting.pop(number, None)
        if task is not None:
            self._given_up.append(task)
            context = task.context
            if context.ask and context.sender is not None and not context.replied:
                self._respond(context.path, context.sender, failure, context.ask)
            context.cut()


def encoded(event: Tuple) -> bytes:
    """Return the bytes of a tuple that an application has made.

    Raises:
        UsageError: It is too large, or nests too deep.
        TypeError: It holds what cannot be written; others are raised by types of the program.
    """
    try:
        raw = _encode(event)
    except RecursionError as error:  # On another stack it might have been written: the answer is the same on each.
        raise UsageError(TOO_DEEP_TEXT) from error
    if len(raw) > NESTING_MAX and (failure := misfit(raw)) is not None:
        raise UsageError(failure.text)
    return raw
