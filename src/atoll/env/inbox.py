# SPDX-License-Identifier: Apache-2.0
"""What parties have sent to one environment and what is not applied yet: in order, each item once, and bounded."""

from collections import deque
from collections.abc import Mapping
from typing import Final, final

import msgspec

from atoll.base.units import KIB
from atoll.env.facts import Waiting
from atoll.env.limits import (
    AGAIN_NS,
    DOUBT_NS,
    INBOX_BYTES_MAX,
    INBOX_ITEMS_MAX,
    OWED_MAX,
    PARTIES_KNOWN_MAX,
    PARTIES_MAX,
    TUPLE_BYTES_MAX,
)
from atoll.env.messages import (
    AGE_UNSAID,
    FORGOTTEN,
    Carried,
    Receipt,
    Refusal,
    TooDeepError,
    count_items,
    join_items,
    parcels_of,
    split_items,
)
from atoll.env.nesting import TOO_DEEP, TOO_DEEP_TEXT, TOO_LARGE
from atoll.env.places import Running

__all__ = ["Inbox"]

_DONE_MAX: Final = 2 * PARTIES_KNOWN_MAX  # Limit. Parties in ``done`` beyond it are those that were forgotten.
_ITEM_BYTES_MAX: Final = (
    TUPLE_BYTES_MAX + 2 * KIB  # Limit. With its numbers, two paths of PATH_CHARS_MAX, and what ``Matched`` adds.
)


@final
class Inbox:
    """The queue, and how far each party has come.

    Args:
        identity: Of the environment.
        name: Of this node, for people.

    Attributes:
        done: Number of the last item of a party that is committed.
    """

    def __init__(self, identity: bytes, name: str) -> None:
        self._identity, self._name = identity, name
        self._frames: deque[Waiting] = deque()
        self._items = self._bytes = 0
        self._expected: dict[bytes, int] = {}  # Number of the next item of a party, those that wait counted.
        self._new: set[bytes] = set()  # Parties that wait, and were not known when they came.
        self._asked: dict[bytes, int] = {}  # When a party was asked for what is missing, monotonic.
        self.done: dict[bytes, int] = {}

    def __bool__(self) -> bool:
        """Tell whether something waits."""
        return bool(self._frames)

    def put(
        self, message: Carried, environment: Running, now_ns: int, *, is_disk_full: bool
    ) -> Receipt | Refusal | None:
        """Take items of a party, if they are the next ones; return what is to be said to it at once, if anything.

        Args:
            message: The items.
            environment: What they are for, in the state that everything before what waits has made.
            now_ns: Monotonic.
            is_disk_full: Nothing can be recorded now.

        Raises:
            WireError: They are no items.
        """
        party, first = message.source, message.first
        try:
            count = count_items(message.items)
        except TooDeepError:
            return self._refusal(message, TOO_DEEP, TOO_DEEP_TEXT)
        expected = self._expected.get(party) or environment.received(party) + 1
        if first > expected and first != message.settled + 1:
            # While the disk refuses, what is missing was refused, and comes by itself later.
            return None if is_disk_full else self._ask_again(party, now_ns)
        if first + count <= expected:  # All of it has come before; if it is committed, the receipt was lost.
            done = self.done.get(party, 0)
            return Receipt(self._identity, party, done) if done >= first + count - 1 else None
        if first < expected:  # A part has come before.
            message = _rest(message, expected - first)
            first, count = expected, first + count - expected
        if is_disk_full:
            text = f"{self._name} cannot record it: its disk refuses, or its recorder has just ended"
            return self._refusal(message, "disk-full", text)
        if (since_ns := self._doubtful(message, environment)) is not None:
            if message.age_ns == AGE_UNSAID:
                return None  # Who has sent it says so again, and how old it is.
            text = "it has forgotten you, and may have taken this before"
            return Refusal(self._identity, party, FORGOTTEN, text, first, 0, since_ns)
        is_new = party not in self._new and not environment.knows(party)
        if is_new and self._is_crowded(environment):
            return self._refusal(message, "queue-full", f"{PARTIES_KNOWN_MAX} parties are known, and all came lately")
        if self._items + count > INBOX_ITEMS_MAX or self._bytes + len(message.items) > INBOX_BYTES_MAX:
            return self._refusal(message, "queue-full", f"{self._items} items of {self._bytes} bytes wait already")
        if environment.owes(party) > OWED_MAX:
            return self._refusal(message, "queue-full", f"it has not read {OWED_MAX} responses")
        if len(message.items) > TUPLE_BYTES_MAX and max(map(len, split_items(message.items))) > _ITEM_BYTES_MAX:
            return self._refusal(message, TOO_LARGE, f"a tuple of more than {TUPLE_BYTES_MAX} bytes")
        parcels = parcels_of(first, count, message.items)
        self._frames += (Waiting(party, *parcel, message.settled) for parcel in parcels)
        self._items += count
        self._bytes += len(message.items)
        self._expected[party] = first + count
        if is_new:
            self._new.add(party)
        return None

    def _is_crowded(self, environment: Running) -> bool:
        """Return whether no further party can be known, when those are that wait."""
        if environment.parties + len(self._new) < PARTIES_KNOWN_MAX:
            return False
        return len(self._new) >= environment.room

    def _doubtful(self, message: Carried, environment: Running) -> int | None:
        """Return from which age on items may have been taken before their party was forgotten; None: these were not."""
        if message.source in self._expected or environment.received(message.source) or environment.forgot_ns < 0:
            return None
        since_ns = max(DOUBT_NS, environment.lived_ns - environment.forgot_ns - DOUBT_NS)
        return since_ns if message.age_ns >= since_ns else None

    def _ask_again(self, party: bytes, now_ns: int) -> Receipt | None:
        """Ask a party for what is missing; not for each frame that comes too soon, or ever more would come."""
        if now_ns < self._asked.get(party, 0) + AGAIN_NS:
            return None
        if len(self._asked) >= PARTIES_MAX:
            self._asked.clear()
        self._asked[party] = now_ns
        return Receipt(self._identity, party, self.done.get(party, 0), again=True)

    def _refusal(self, message: Carried, code: str, text: str) -> Refusal:
        return Refusal(self._identity, message.source, code, text, message.first)

    def pop(self) -> Waiting:
        """Take what has waited longest; call ``applied`` when it is applied."""
        frame = self._frames.popleft()
        self._new.discard(frame.party)
        self._items -= frame.count
        self._bytes = max(0, self._bytes - len(frame.items)) if self._frames else 0
        return frame

    def applied(self) -> None:
        """Note that all that was popped is applied, so that the environment itself knows what comes next."""
        if not self._frames:
            self._expected.clear()
            self._new.clear()

    def committed(self, done: Mapping[bytes, int], environment: Running) -> None:
        """Note up to which number items of some parties are committed."""
        self.done.update(done)
        if len(self.done) > _DONE_MAX:
            self.done = {party: upto for party, upto in self.done.items() if environment.knows(party)}

    def clear(self) -> list[Carried]:
        """Forget everything; return what waits, so that it can go to whoever runs the environment next."""
        waiting = [
            Carried(frame.party, self._identity, frame.first, frame.items, 0, frame.settled, AGE_UNSAID)
            for frame in self._frames
        ]
        self._frames.clear()
        self._items = self._bytes = 0
        self._expected, self._asked, self.done = {}, {}, {}
        self._new.clear()
        return waiting


def _rest(message: Carried, known: int) -> Carried:
    """Return items without the first ones, which have come before.

    Who applies them would know that only as long as their party is not forgotten, and other items that wait may bring
    just that about.
    """
    items = join_items(tuple(split_items(message.items)[known:]))
    return msgspec.structs.replace(message, first=message.first + known, items=bytes(items))
