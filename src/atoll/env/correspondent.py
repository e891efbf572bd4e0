# SPDX-License-Identifier: Apache-2.0
"""A party that is no environment: what a program outside has sent, what it waits for, and what goes again.

Sans I/O: whoever has the connection hands in what comes and sends what ``taken`` gives. Times are of one clock, which
goes on while the machine sleeps, in ns. Numbers are never given twice, so an old copy of a frame that comes late cannot
be taken for a new one.

A refusal ends a call only if its frame was sent once: then there is no other copy that could be taken. Its number goes
on with nothing in it. Else one of the copies may have been taken, or will be, and the call waits on for its response or
its time-out. What was sent without a call is given up only where nobody is who could take it, or where nobody ever will
because it is too large; of that no copy counts. It is refused before it leaves; this is for who takes less.

An environment may have forgotten this party, and say that it cannot know whether it has taken something before. That is
given up, and the program hears so.
"""

from dataclasses import dataclass
from typing import Final, final

import msgspec

from atoll.base.errors import UsageError, WireError
from atoll.env.changes import Done, Failure
from atoll.env.channel import Channel, Parcel
from atoll.env.limits import (
    ITEMS_MAX,
    PARCEL_BYTES,
    PARTIES_MAX,
    RESEND_PARCELS_MAX,
    UNCONFIRMED_MAX,
)
from atoll.env.messages import FORGOTTEN, Carried, Receipt, Refusal
from atoll.env.nesting import TOO_DEEP, TOO_LARGE, are_shallow, misfit
from atoll.env.parties import PATH_CHARS_MAX
from atoll.env.records import Item
from atoll.env.resends import doubtful_upto

__all__ = ["Came", "Correspondent", "GivenUp", "Lost", "News", "Responded"]

SIGN_EVERY: Final = 4  # With a reminder each half second: what comes unasked is 2 s late after a move, at most.

_encode: Final = msgspec.msgpack.Encoder().encode
_items: Final = msgspec.msgpack.Decoder(list[Item])
_VOID: Final = Item(msgspec.Raw(_encode(Done())))  # Nobody handles it, and nobody is answered.


@dataclass(frozen=True, slots=True)
class Responded:
    """The response to a call, encoded; the call is over."""

    call: int
    event: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Lost:
    """A call has no response and never took effect; the call is over. With the code FORGOTTEN it may have.

    With TOO_DEEP and an answer that cannot be read it has.
    """

    call: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Tuples that were sent without a call are not sent again.

    Attributes:
        party: To whom.
        failure: Why: FORGOTTEN, and it is not known whether they took effect; or TOO_LARGE, TOO_DEEP or ``unknown``,
            and they never did.
    """

    party: bytes
    failure: Failure


@dataclass(frozen=True, slots=True)
class Came:
    """A tuple that came unasked.

    Attributes:
        party: Who sent it.
        path: Which environment nested in it.
        event: The tuple, encoded.
    """

    party: bytes
    path: str
    event: msgspec.Raw


News = Responded | Lost | GivenUp | Came
Said = Carried | Receipt


@final
class _Line:
    """What there is with one party."""

    def __init__(self) -> None:
        self.channel: Final = Channel()
        self.pending: list[tuple[msgspec.Raw, int, int, str, str]] = []
        self.copies: dict[int, int] = {}  # How often a parcel was sent, by the number of its first item.
        self.void: dict[int, None] = {}  # Parcels with nothing in them.


@final
class Correspondent:
    """One party outside.

    Args:
        party: Its id, 16 random bytes.
    """

    def __init__(self, party: bytes) -> None:
        self.party: Final = party
        self._lines: dict[bytes, _Line] = {}
        self._calls: dict[int, bytes] = {}
        self._last = self._reminders = 0
        self._said: list[Said] = []

    def taken(self) -> list[Said]:
        """Take what is to be sent, in order; what cannot be sent now may be dropped, and goes again later."""
        said, self._said = self._said, []
        return said

    # What the program does.

    def has_room(self, target: bytes) -> bool:
        """Return whether one more item may be sent to a party."""
        line = self._line(target)
        return line.channel.unconfirmed + len(line.pending) < UNCONFIRMED_MAX

    def is_settled(self, target: bytes) -> bool:
        """Return whether a party has durably taken everything that was sent to it."""
        line = self._line(target)
        return not line.pending and all(parcel.first in line.void for parcel in line.channel.outbox)

    def call(self, target: bytes) -> int:
        """Begin a call: return its number, under which ``post`` sends it."""
        self._last += 1
        self._calls[self._last] = target
        return self._last

    def forget(self, call: int) -> None:
        """Wait no more for a response, such as after a time-out; it may still take effect."""
        self._calls.pop(call, None)

    def post(self, target: bytes, event: bytes, call: int = 0, to: str = "") -> None:
        """Send an encoded tuple with the next ``flush``.

        Args:
            target: The party.
            event: The tuple.
            call: As ``call`` gave it; 0: no response is wanted.
            to: Which environment nested in it.

        Raises:
            UsageError: It is too large to be taken by anybody, or nests too deep.
        """
        if (failure := misfit(event)) is not None:
            raise UsageError(failure.text)
        if len(to) > PATH_CHARS_MAX:
            raise UsageError(f"a path of {len(to)} characters; a nested one has {PATH_CHARS_MAX} at most")
        self._line(target).pending.append((msgspec.Raw(event), call, 0, to, ""))

    def flush(self, now_ns: int) -> None:
        """Send what was posted."""
        for party, line in self._lines.items():
            while line.pending:
                count = _count_of_parcel(line.pending)
                batch, line.pending = line.pending[:count], line.pending[count:]
                self._carry(party, line, line.channel.send(count, _encode(batch), now_ns), now_ns)

    def remind(self, now_ns: int) -> None:
        """Send again what is not confirmed, and ask again for what is waited for.

        Every SIGN_EVERY times all parties hear where this one is: one that has moved could not reach it otherwise.
        """
        asked = dict.fromkeys(self._calls.values())
        self._reminders += 1
        is_sign = self._reminders % SIGN_EVERY == 0
        for party, line in self._lines.items():
            if line.channel.outbox or party in asked or is_sign:
                again = is_sign or party in asked
                self._said.append(Receipt(self.party, party, line.channel.received, again=again))
                self._resend(party, line, now_ns)

    # What comes.

    def heard(self, message: Carried | Receipt | Refusal, now_ns: int) -> list[News]:
        """Take a message; return what the program should know.

        Raises:
            WireError: It makes no sense.
        """
        if message.source not in self._lines and len(self._lines) >= PARTIES_MAX:
            return []  # So many environments know this party; it hears those that it has dealt with.
        match message:
            case Carried():
                return self._carried(message)
            case Receipt():
                line = self._line(message.source)
                line.channel.confirm(message.upto)
                self._forget_copies(line)
                if message.again:
                    self._resend(message.source, line, now_ns)
                return []
            case Refusal(code=code) if code == FORGOTTEN:
                return self._forgotten(message, now_ns)
            case _:
                return self._refused(message)

    def _carried(self, message: Carried) -> list[News]:
        line = self._line(message.source)
        try:
            items = _items.decode(message.items)
        except RecursionError:
            return []  # As ``TOO_DEEP`` below, but there is no telling whom it was for: the others are heard on.
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise WireError("items") from error
        news: list[News] = []
        if message.first <= line.channel.received + 1 or message.first == message.settled + 1:
            skip = line.channel.news(message.first, len(items))
            for item in items[skip:]:
                line.channel.received += 1
                if not are_shallow((item.event,)):  # Of a node that checks nothing: no program is to run out of stack.
                    if self._calls.get(item.re) == message.source:
                        del self._calls[item.re]
                        news.append(Lost(item.re, Failure(TOO_DEEP, "the response nests too deep to be read")))
                elif not item.re:
                    news.append(Came(message.source, item.by, item.event))
                elif self._calls.get(item.re) == message.source:
                    del self._calls[item.re]
                    news.append(Responded(item.re, item.event))
        self._said.append(Receipt(self.party, message.source, line.channel.received))
        return news

    def _refused(self, message: Refusal) -> list[News]:
        line = self._line(message.source)
        outbox = line.channel.outbox
        at = next((at for at, parcel in enumerate(outbox) if parcel.first == message.first), None)
        is_too_large = message.code in {TOO_LARGE, TOO_DEEP}
        if at is None or (line.copies.get(message.first) != 1 and not is_too_large):
            return []
        parcel = outbox[at]
        items = _items.decode(parcel.payload)
        is_lost = is_too_large or message.code == "unknown"
        kept = [_VOID if item.ask or is_lost else item for item in items]
        outbox[at] = Parcel(parcel.first, parcel.count, _encode(kept), parcel.made_ns)
        if all(item is _VOID for item in kept):
            line.void[parcel.first] = None
        failure = Failure(message.code, message.text)
        calls = [item.ask for item in items if self._calls.pop(item.ask, None) is not None]
        news: list[News] = [Lost(call, failure) for call in calls]
        if is_lost and (count := sum(not item.ask and item != _VOID for item in items)):
            text = f"{count} tuples that were sent never took effect: {message.text}"
            news.append(GivenUp(message.source, Failure(message.code, text)))
        return news

    def _forgotten(self, message: Refusal, now_ns: int) -> list[News]:
        line, news = self._line(message.source), list[News]()
        failure = Failure(FORGOTTEN, f"it is not known whether this took effect: {message.text}")
        before = line.channel.outbox[:]
        owed = [(message.source, parcel) for parcel in before]
        count = line.channel.give_up(doubtful_upto(owed, message, lambda made_ns: now_ns - made_ns))
        for parcel in before[: len(before) - len(line.channel.outbox)]:
            items = _items.decode(parcel.payload)
            count -= sum(item == _VOID or item.ask != 0 for item in items)
            news += [Lost(item.ask, failure) for item in items if self._calls.pop(item.ask, None) is not None]
        self._forget_copies(line)
        if count:
            text = f"it is not known whether {count} tuples that were sent took effect: {message.text}"
            news.append(GivenUp(message.source, Failure(FORGOTTEN, text)))
        return news

    def _line(self, party: bytes) -> _Line:
        line = self._lines.get(party)
        if line is None:
            line = self._lines[party] = _Line()
        return line

    def _resend(self, party: bytes, line: _Line, now_ns: int) -> None:
        for parcel in line.channel.outbox[:RESEND_PARCELS_MAX]:
            self._carry(party, line, parcel, now_ns)

    def _carry(self, party: bytes, line: _Line, parcel: Parcel, now_ns: int) -> None:
        line.copies[parcel.first] = line.copies.get(parcel.first, 0) + 1
        settled, age_ns = line.channel.settled, max(0, now_ns - parcel.made_ns)
        self._said.append(Carried(self.party, party, parcel.first, parcel.payload, 0, settled, age_ns))

    @staticmethod
    def _forget_copies(line: _Line) -> None:
        outbox = line.channel.outbox
        first = outbox[0].first if outbox else line.channel.sent + 1
        for number in [number for number in line.copies if number < first]:
            del line.copies[number]
            line.void.pop(number, None)


def _count_of_parcel(pending: list[tuple[msgspec.Raw, int, int, str, str]]) -> int:
    """Return how many of these items leave together: at least one, and not more than one message may have."""
    count = size = 0
    for raw, *_ in pending[:ITEMS_MAX]:
        size += len(memoryview(raw))
        if count and size > PARCEL_BYTES:
            break
        count += 1
    return count
