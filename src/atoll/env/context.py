# SPDX-License-Identifier: Apache-2.0
"""What a handler may ask: time, randomness, ids, and to send, call, wait, keep tuples, spawn.

Nothing here reads the world. Time is that of the input at hand, randomness and ids follow from the environment's seed
and the number of the event, and what is asked of others is an effect whose answer is a later event. So a replay gives
a handler exactly what it got.
"""

from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, final
from uuid import UUID

import msgspec

from atoll.base.errors import LimitError, UsageError
from atoll.base.units import SECOND_NS
from atoll.env.limits import CALL_TIMEOUT_S, SPACE_READ_MAX, TOKEN_BYTES_MAX, WAIT_S_MAX
from atoll.env.parties import PARTY_BYTES, PATH_CHARS_MAX, Ref
from atoll.env.query import Query, where
from atoll.env.shelf import Shelf, lease_ns_of
from atoll.env.texts import is_plain
from atoll.env.tuples import Tuple

if TYPE_CHECKING:
    from atoll.env.app import App

__all__ = ["Asker", "Chance", "Context", "Kernel", "Operation", "QueueFull"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class QueueFull(Exception):  # noqa: N818 -- as asyncio and queue call it.
    """Too much is on its way already; the handler decides what to leave out, or raises and undoes everything."""


@final
class Asker(msgspec.Struct, frozen=True, array_like=True):
    """Who waits for a response: keep it in state to respond later with ``ctx.reply(answer, to=asker)``.

    Attributes:
        who: The party.
        call: Number of its call.
    """

    who: Ref
    call: int


@final
class Operation:
    """A call under way. ``await`` it in a coroutine: it gives the response, or a ``Failure``; never raises.

    Attributes:
        number: Of the call.
        outcome: What came; None: nothing yet.
    """

    __slots__ = ("number", "outcome")

    def __init__(self, number: int, outcome: Tuple | None = None) -> None:
        self.number, self.outcome = number, outcome

    def __await__(self) -> Generator["Operation", None, Any]:
        if self.outcome is None:
            yield self
        return self.outcome


@final
class Chance:
    """What was drawn in the event at hand. No state: the next event draws from its own number."""

    __slots__ = ("count", "event", "generator")

    def __init__(self) -> None:
        self.event = self.count = -1
        self.generator: Random | None = None

    def turn(self, event: int) -> None:
        """Begin anew if this is another event than before."""
        if event != self.event:
            self.event, self.count, self.generator = event, 0, None


class Kernel(Protocol):
    """What a context needs of its environment, which is told the path of the nested one that asks."""

    now_ns: int
    seed: bytes
    events: int
    chance: Chance

    def post(self, source: str, to: Ref, event: Tuple, *, ask: int = 0, re: int = 0) -> None:
        """Send a tuple."""
        ...

    def call(self, source: str, to: Ref | str, event: Tuple, timeout_ns: int, then: str) -> Operation:
        """Send a tuple whose response is wanted."""
        ...

    def search(self, source: str, name: str, event: Tuple, *, everyone: bool) -> None:
        """Send a tuple to whoever has a name when it leaves."""
        ...

    def resolve(self, source: str, name: str, timeout_ns: int, then: str) -> Operation:
        """Ask who has a name."""
        ...

    def after(self, source: str, delay_ns: int, event: Tuple, period_ns: int) -> int:
        """Set a timer."""
        ...

    def wait(self, source: str, delay_ns: int) -> Operation:
        """Set a timer that a coroutine awaits."""
        ...

    def cancel(self, number: int) -> bool:
        """Take a timer back."""
        ...

    def spawn(self, source: str, app: "type[App]", name: str, fields: dict[str, Any]) -> Ref:
        """Make a nested environment."""
        ...

    def end(self, path: str) -> bool:
        """End an environment and what is nested in it."""
        ...

    def note(self, source: str, text: str) -> None:
        """Write a line to the log."""
        ...

    def own(self, source: str) -> Ref:
        """Return how others name an environment of this tree."""
        ...

    def put(self, source: str, event: Tuple, lease_ns: int | None) -> int:
        """Place a tuple, and tell who watches."""
        ...

    def shelf(self, source: str) -> Shelf:
        """Return the space of an environment of this tree."""
        ...


class _Gone:
    """What the context of a coroutine that was given up has for an environment."""

    def __getattr__(self, name: str) -> NoReturn:
        raise UsageError(f"this coroutine was given up, and {name} comes too late")


@final
class Context:
    """The second argument of every handler.

    Args:
        kernel: The environment.
        path: The nested environment whose handler runs.

    Attributes:
        path: As above; empty: the outermost.
        sender: Who sent the tuple; None: a timer or a change.
        ask: Number of the sender's call; 0: no response is wanted.
        replied: Whether it was answered, or deferred.
    """

    __slots__ = ("_kernel", "ask", "path", "replied", "sender")

    def __init__(self, kernel: Kernel, path: str, sender: Ref | None = None, ask: int = 0) -> None:
        self._kernel, self.path, self.sender, self.ask = kernel, path, sender, ask
        self.replied = False

    def cut(self) -> None:
        """Let nothing that is asked from here on reach the environment."""
        gone: Any = _Gone()
        self._kernel = gone

    # Time and chance.

    @property
    def now_ns(self) -> int:
        """Time of this event, ns since 1970; the same during one event, and never less than in the one before."""
        return self._kernel.now_ns

    def now(self) -> datetime:
        """Return the time of this event in UTC."""
        return _EPOCH + timedelta(microseconds=self._kernel.now_ns // 1000)

    @property
    def event_number(self) -> int:
        """Number of this event in the life of the environment, from 1."""
        return self._kernel.events

    @property
    def random(self) -> Random:
        """A generator of this event's own; the same on replay. Not for secrets: the journal holds its seed."""
        chance = self._kernel.chance
        chance.turn(self._kernel.events)
        if chance.generator is None:
            chance.generator = Random(self._entropy(b"random", 32))
        return chance.generator

    def token(self, size_bytes: int = 16) -> bytes:
        """Return 1 to 64 bytes that nobody else has: an id. Not a secret.

        Raises:
            UsageError: Another size.
        """
        if not 1 <= size_bytes <= TOKEN_BYTES_MAX:
            raise UsageError(f"a token of {size_bytes} bytes")
        chance = self._kernel.chance
        chance.turn(self._kernel.events)
        chance.count += 1
        return self._entropy(b"token %d" % chance.count, size_bytes)

    def uuid(self) -> UUID:
        """Return a UUID, version 4 in form."""
        return UUID(bytes=self.token(16), version=4)

    def _entropy(self, purpose: bytes, size_bytes: int) -> bytes:
        kernel = self._kernel
        return blake2b(b"%d|%s" % (kernel.events, purpose), key=kernel.seed, digest_size=size_bytes).digest()

    # Others.

    @property
    def me(self) -> Ref:
        """How others reach this environment."""
        return self._kernel.own(self.path)

    def send(self, to: Ref | str, event: Tuple) -> None:
        """Send a tuple; it takes effect once, or never if whoever is to get it ends before.

        Args:
            to: Who gets it. A name is looked up when this event counts: ``auction``, ``auction/rooms/lobby``, or
                ``app:Auction`` for one of all environments of that class, in turn. If nobody has it, the log says so.
            event: The tuple.

        Raises:
            QueueFull: Too much is on its way to that party, or too many names are looked up.
            UsageError: It is no name.
        """
        if isinstance(to, str):
            self._kernel.search(self.path, to, event, everyone=False)
        else:
            self._kernel.post(self.path, _known(to), event)

    def publish(self, name: str, event: Tuple) -> None:
        """Send a tuple to everybody who has a name, as in ``send``, when this event counts.

        Raises:
            QueueFull: Too many names are looked up.
            UsageError: It is no name.
        """
        self._kernel.search(self.path, name, event, everyone=True)

    def resolve(
        self, name: str, *, timeout_s: float = CALL_TIMEOUT_S, then: Callable[..., Any] | None = None
    ) -> Operation:
        """Ask who has a name, as in ``send``: the outcome is a ``Resolved``, or a ``Failure``.

        Names can change hands; a ``Ref`` names one environment for ever. Arguments and errors as of ``call``.
        """
        return self._kernel.resolve(self.path, name, _ns(timeout_s), "" if then is None else then.__name__)

    def reply(self, answer: Tuple, *, to: Asker | None = None) -> None:
        """Respond to the call at hand, or to one that was deferred. Without effect when no response is wanted.

        Raises:
            UsageError: The call at hand was answered before.
            QueueFull: Too much is on its way to that party.
        """
        if to is not None:
            asker = _asker(to)
            self._kernel.post(self.path, asker.who, answer, re=asker.call)
            return
        if self.replied:
            raise UsageError("this call was answered before")
        self.replied = True
        if self.ask and self.sender is not None:
            self._kernel.post(self.path, self.sender, answer, re=self.ask)

    def defer(self) -> Asker | None:
        """Respond later: return who waits, to be kept in state; None: no response is wanted."""
        self.replied = True
        return None if not self.ask or self.sender is None else Asker(self.sender, self.ask)

    def call(
        self,
        to: Ref | str,
        event: Tuple,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        then: Callable[..., Any] | None = None,
    ) -> Operation:
        """Send a tuple and have exactly one outcome: the response, or a ``Failure``.

        Args:
            to: Who is to respond. A name, as in ``send``, is looked up when this event counts.
            event: The tuple.
            timeout_s: How long to wait, up to WAIT_S_MAX, and to AWAIT_S_MAX if a coroutine waits.
            then: A method of this application that gets the outcome, as a handler does. In a coroutine leave it out and
                ``await`` what is returned.

        Raises:
            QueueFull: Too many calls wait, or too much is on its way to that party.
            UsageError: A foolish time-out, no name, or ``then`` is no plain method.
        """
        to = to if isinstance(to, str) else _known(to)
        return self._kernel.call(self.path, to, event, _ns(timeout_s), "" if then is None else then.__name__)

    # Timers.

    def after(self, delay_s: float, event: Tuple) -> int:
        """Get a tuple after a time; return the timer's number.

        Raises:
            QueueFull: Too many timers are set.
            UsageError: A foolish time.
        """
        return self._kernel.after(self.path, _ns(delay_s), event, 0)

    def every(self, period_s: float, event: Tuple) -> int:
        """Get a tuple again and again; return the timer's number. Beats that were missed are left out.

        Raises:
            QueueFull: Too many timers are set.
            UsageError: A foolish time.
        """
        period_ns = _ns(period_s)
        if period_ns < SECOND_NS // 1000:
            raise UsageError(f"a period of {period_s} s")
        return self._kernel.after(self.path, period_ns, event, period_ns)

    def cancel(self, timer: int) -> bool:
        """Take a timer back; False: it is over, or was never set."""
        return self._kernel.cancel(timer)

    def sleep(self, delay_s: float) -> Operation:
        """Wait, in a coroutine, up to AWAIT_S_MAX: ``await ctx.sleep(5)``.

        Raises:
            QueueFull: Too many timers are set.
            UsageError: A foolish time.
        """
        return self._kernel.wait(self.path, _ns(delay_s))

    # The space of this environment.

    def put(self, event: Tuple, *, lease_s: float | None = None) -> int:
        """Place a tuple in this environment's space; return its key.

        Args:
            event: The tuple.
            lease_s: How long it stays, brought within 1 s and 10 min, unless ``renew`` makes it longer; then comes a
                ``LeaseLost``. None: until it is taken or deleted.

        Raises:
            QueueFull: The space is full.
            UsageError: The tuple is too large, or cannot be written.
        """
        return self._kernel.put(self.path, event, None if lease_s is None else lease_ns_of(lease_s))

    def read(self, which: Query | type[Tuple], *, limit: int = SPACE_READ_MAX) -> list[Any]:
        """Return tuples that match, oldest first: each of its type, or a dict if the program does not know that."""
        return self._kernel.shelf(self.path).read(_query(which), limit)

    def take(self, which: Query | type[Tuple], *, limit: int = 1) -> list[Any]:
        """Return what ``read`` would, and remove it."""
        return self._kernel.shelf(self.path).take(_query(which), limit)

    def count(self, which: Query | type[Tuple]) -> int:
        """Return how many tuples match."""
        return self._kernel.shelf(self.path).count(_query(which))

    def delete(self, key: int) -> bool:
        """Remove a tuple; False: it is not there."""
        return self._kernel.shelf(self.path).space.delete(key)

    def watch(self, which: Query | type[Tuple], *, lease_s: float | None = None) -> int:
        """Get a ``Matched`` for each tuple that is put here from now on and matches; return the watch's number.

        Args:
            which: A query, or a type.
            lease_s: As in ``put``; None: until ``unwatch``.

        Raises:
            QueueFull: There are too many.
        """
        lease_ns = None if lease_s is None else lease_ns_of(lease_s)
        try:
            return self._kernel.shelf(self.path).space.watch(_query(which), b"", self._kernel.now_ns, lease_ns)
        except LimitError as error:
            raise QueueFull(str(error)) from error

    def unwatch(self, number: int) -> bool:
        """End a watch of this environment's own; False: it is over."""
        return self._kernel.shelf(self.path).unwatch(number)

    def renew(self, key: int, *, lease_s: float) -> bool:
        """Let what this environment put or watches last so long from now; False: it is gone, or somebody else's."""
        space = self._kernel.shelf(self.path).space
        return space.renew(key, b"", self._kernel.now_ns, lease_ns_of(lease_s)) is not None

    # Environments.

    def spawn(self, app: "type[App]", name: str, **fields: Any) -> Ref:
        """Make an environment inside this one, with these fields set; return how to reach it. One that exists is kept.

        Raises:
            UsageError: A foolish name, or a class that the program does not know.
            QueueFull: There are too many.
        """
        return self._kernel.spawn(self.path, app, name, fields)

    def end(self, nested: str = "") -> bool:
        """End an environment nested in this one, by name, with everything in it; without a name: this one."""
        path = self.path if not nested else f"{self.path}/{nested}" if self.path else nested
        return self._kernel.end(path)

    def log(self, text: str) -> None:
        """Write a line to the environment's log, once the event counts."""
        self._kernel.note(self.path, text)


def _known(to: Any) -> Ref:
    """Return a reference that a program holds, if it is one: it may have made it itself.

    Raises:
        UsageError: It names nobody.
    """
    if not isinstance(to, Ref) or not isinstance(to.party, bytes) or not isinstance(to.path, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"{to!r} is no reference")
    if len(to.party) != PARTY_BYTES or len(to.path) > PATH_CHARS_MAX or not is_plain(to.path):
        raise UsageError(f"{to!r} is no reference: {PARTY_BYTES} bytes, and a path of {PATH_CHARS_MAX} characters")
    return to


def _asker(to: Any) -> Asker:
    """Return somebody who waits, as a program has kept it.

    Raises:
        UsageError: It is nobody who waits.
    """
    if not isinstance(to, Asker) or not isinstance(to.call, int) or not 0 < to.call < 1 << 63:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"{to!r} is nobody who asks")
    _known(to.who)
    return to


def _query(which: Query | type[Tuple]) -> Query:
    return where(which) if isinstance(which, type) else which


def _ns(seconds: float) -> int:
    if not 0 <= seconds <= WAIT_S_MAX:
        raise UsageError(f"a time of {seconds} s")
    return round(seconds * SECOND_NS)
