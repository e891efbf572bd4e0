# SPDX-License-Identifier: Apache-2.0
"""What an environment is between two events: everything that a snapshot holds, and nothing that is not data."""

from heapq import heapify, heappop, heappush
from typing import Annotated, Final, final

import msgspec

from atoll.base.errors import LimitError
from atoll.env.channel import Channel
from atoll.env.limits import TIMERS_MAX
from atoll.env.parties import PARTY_BYTES, Ref
from atoll.env.space import Space

__all__ = ["STATE_FORMAT", "Branch", "Call", "PutOff", "State", "Timer", "Timers", "Wanted"]

STATE_FORMAT: Final = 1
_STALE_SLACK: Final = 64  # Below this many stale entries a rebuild is not worth its walk.


class Timer(msgspec.Struct, frozen=True, array_like=True):
    """Something that is due.

    Attributes:
        at_ns: When.
        path: Which nested environment it belongs to.
        event: The encoded tuple that it gets, or that is the outcome of ``call``; empty: the call's time-out.
        period_ns: It is due again this long after; 0: once.
        call: Number of the call that has waited long enough.
        sender: Whose event it is, if it was put off; None: it is a timer that was set.
        ask: Number of the sender's call; 0: no response is wanted.
    """

    at_ns: int
    path: str
    event: bytes
    period_ns: int = 0
    call: int = 0
    sender: Ref | None = None
    ask: int = 0


@final
class Timers(msgspec.Struct, array_like=True):
    """All timers, first due first; equals in the order in which they were set.

    Attributes:
        set_count: Timers set so far; the number of the last one.
        live: Timer by number.
        queue: Heap of (at_ns, number), stale entries included.
    """

    set_count: int = 0
    live: dict[int, Timer] = msgspec.field(default_factory=dict[int, Timer])
    queue: list[tuple[int, int]] = msgspec.field(default_factory=list[tuple[int, int]])

    def add(self, timer: Timer) -> int:
        """Set a timer; return its number.

        Raises:
            LimitError: TIMERS_MAX are set.
        """
        if len(self.live) >= TIMERS_MAX:
            raise LimitError("timers_max", TIMERS_MAX)
        return self.owe(timer)

    def owe(self, timer: Timer) -> int:
        """Set a timer whatever the number of those that are set, for what has a limit of its own; return its number."""
        self.set_count += 1
        self._push(self.set_count, timer)
        return self.set_count

    def cancel(self, number: int) -> bool:
        """Take a timer back; False: it is not set."""
        if self.live.pop(number, None) is None:
            return False
        self._surface()
        return True

    def first(self) -> tuple[int, Timer] | None:
        """Return number and timer of what is due first; None: nothing is set."""
        return (self.queue[0][1], self.live[self.queue[0][1]]) if self.queue else None

    def fire(self, now_ns: int) -> tuple[int, Timer]:
        """Take the first timer out, or set it again if it has a period; return its number and what it was.

        The next beat of a period is the first one after ``now_ns``: an environment that was away for a day hears one
        beat, and not one for each second that it missed.
        """
        number = self.queue[0][1]
        timer = self.live.pop(number)
        heappop(self.queue)
        if timer.period_ns:
            missed = max(0, now_ns - timer.at_ns) // timer.period_ns
            at_ns = timer.at_ns + (missed + 1) * timer.period_ns
            self._push(number, msgspec.structs.replace(timer, at_ns=at_ns))
        else:
            self._surface()
        return number, timer

    def drop(self, path: str) -> None:
        """Take back all timers of a nested environment and of those inside it."""
        below = path + "/"
        gone = [number for number, timer in self.live.items() if timer.path == path or timer.path.startswith(below)]
        for number in gone:
            self.cancel(number)

    def _push(self, number: int, timer: Timer) -> None:
        self.live[number] = timer
        heappush(self.queue, (timer.at_ns, number))
        if len(self.queue) > 2 * len(self.live) + _STALE_SLACK:
            self.queue = [(held.at_ns, number) for number, held in self.live.items()]
            heapify(self.queue)
        self._surface()

    def _surface(self) -> None:
        """Drop stale entries until the first one is a timer that is set for this time."""
        while self.queue:
            at_ns, number = self.queue[0]
            timer = self.live.get(number)
            if timer is not None and timer.at_ns == at_ns:
                return
            heappop(self.queue)


class Call(msgspec.Struct, frozen=True, array_like=True):
    """A call that waits for its response.

    Attributes:
        party: Who is to respond.
        path: The nested environment that called.
        timer: Number of the timer that ends it.
        then: Name of the method that gets the response; empty: a coroutine waits for it, or nobody does.
        name: Who is to respond, as the program named it; empty: it named a party, or this is a sleep.
    """

    party: bytes
    path: str
    timer: int
    then: str = ""
    name: str = ""


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """A search for whoever is meant by a name, and what is to be sent to them.

    Attributes:
        path: The nested environment that wants it.
        name: As it is searched.
        to: Which nested environment of whoever is found.
        event: The encoded tuple; empty: only who is found is of interest.
        ask: Whether a call of the search's number waits: for the response, or for who is found.
        everyone: Whether all get it, not one of them.
    """

    path: str
    name: str
    to: str = ""
    event: bytes = b""
    ask: bool = False
    everyone: bool = False


class PutOff(msgspec.Struct, frozen=True, array_like=True):
    """An event for a coroutine that could not begin; it is handled after the next checkpoint.

    Attributes:
        path: The nested environment whose event it is.
        event: The encoded tuple.
        sender: Who sent it; None: a timer, or a change.
        ask: Number of the sender's call; 0: no response is wanted.
    """

    path: str
    event: bytes
    sender: Ref | None = None
    ask: int = 0


class Branch(msgspec.Struct, array_like=True):
    """One environment of the tree.

    Attributes:
        app: Name of its class.
        version: Version of the class by which ``fields`` was written.
        fields: Its declared state, an encoded map by name.
        space: Its tuples and watches; None: it never had any, which most have not.
        watchers: By number of a watch, which nested environment of its party watches; outermost ones are left out.
    """

    app: str
    version: int
    fields: msgspec.Raw
    space: Space | None = None
    watchers: dict[int, str] = msgspec.field(default_factory=dict[int, str])


@final
class State(msgspec.Struct, array_like=True):
    """A snapshot of an environment, with everything nested in it.

    Attributes:
        format: ``STATE_FORMAT``; always the first item.
        id: The environment as a party.
        seed: From which its randomness follows.
        name: How people call it.
        events: Events so far: items, timers and changes that a handler was asked about.
        now_ns: Time of the last input, ns since 1970; never goes back.
        branches: The tree by path, outermost (empty path) first.
        channels: Channel by party.
        timers: What is due.
        calls: What is waited for, by number.
        called: Calls and searches so far; the number of the last one.
        wanted: Search by number.
        put_off: Events of coroutines that wait for a checkpoint, oldest first.
        lived_ns: Time between records, of each pause LIVED_STEP_NS at most; a clock that is set does not change it.
        forgot_ns: How long it had lived when the last one of those who were forgotten was heard of; -1: nobody was.
        floor: Number of the last item that was sent to any party that was forgotten.
    """

    format: int = STATE_FORMAT
    id: Annotated[bytes, msgspec.Meta(max_length=PARTY_BYTES)] = b""
    seed: bytes = b""
    name: str = ""
    events: int = 0
    now_ns: int = 0
    branches: dict[str, Branch] = msgspec.field(default_factory=dict[str, Branch])
    channels: dict[bytes, Channel] = msgspec.field(default_factory=dict[bytes, Channel])
    timers: Timers = msgspec.field(default_factory=Timers)
    calls: dict[int, Call] = msgspec.field(default_factory=dict[int, Call])
    called: int = 0
    wanted: dict[int, Wanted] = msgspec.field(default_factory=dict[int, Wanted])
    put_off: list[PutOff] = msgspec.field(default_factory=list[PutOff])
    lived_ns: int = 0
    forgot_ns: int = -1
    floor: int = 0
