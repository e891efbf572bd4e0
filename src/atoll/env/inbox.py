# SPDX-License-Identifier: Apache-2.0
"""What parties have sent to one environment and what is not applied yet: in order, each item once, and bounded."""

from collections import deque
from collections.abc import Mapping
from typing import Final, final

import msgspec

from atoll.env.facts import UNKNOWN, Suspect, Waiting
from atoll.env.limits import AGAIN_NS, INBOX_ITEMS_MAX, OWED_MAX, PARCEL_BYTES, PARTIES_MAX
from atoll.env.messages import Carried, Receipt, Refusal, count_items, join_items, parcels_of, split_items
from atoll.env.places import Running
from atoll.env.records import Arrived, Failed, Record, Rejoined

__all__ = ["DEADLY", "Inbox", "records_of"]

DEADLY: Final = "the process that ran it did not survive it"

_PARCEL_MAX: Final = PARCEL_BYTES + 5  # With the head of its list; a longer one holds one item that is too large.


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
        self._items = 0
        self._expected: dict[bytes, int] = {}  # Number of the next item of a party, those that wait counted.
        self._asked: dict[
            bytes, tuple[int, int]
        ] = {}  # When a party was asked last for what is missing; by which number.
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
        parcels = parcels_of(first, count := count_items(message.items), message.items)
        expected = self._expected.get(party) or environment.received(party) + 1
        if first > expected:
            if is_disk_full:
                return None  # What is missing was refused, and comes by itself later.
            if not self._goes_on(message, expected):
                return self._ask_again(party, now_ns)
        if first + count <= expected:  # All of it has come before; if it is committed, the receipt was lost.
            done = self.done.get(party, 0)
            return Receipt(self._identity, party, done) if done >= first + count - 1 else None
        if is_disk_full:
            return self._refusal(message, "disk-full", f"the disk of {self._name} refuses")
        if self._items + count > INBOX_ITEMS_MAX:
            return self._refusal(message, "queue-full", f"{INBOX_ITEMS_MAX} items wait already")
        if environment.owes(party) > OWED_MAX:
            return self._refusal(message, "queue-full", f"it has not read {OWED_MAX} responses")
        if max(len(one[2]) for one in parcels) > _PARCEL_MAX:
            return self._refusal(message, "too-large", f"a tuple of more than {PARCEL_BYTES} bytes")
        if first > expected:
            self._frames.append(Waiting(party, first, 0, b""))
            self._asked.pop(party, None)
        self._frames += (Waiting(party, *parcel) for parcel in parcels)
        self._items += count
        self._expected[party] = first + count
        return None

    def _goes_on(self, message: Carried, expected: int) -> bool:
        """Return whether nothing is missing before items, though they are not the next ones that are known of here.

        Of a party that is known, the source's word is enough: what it says that we took we did take, and so there never
        was anything with these numbers. One that is not known may have been forgotten, and this an old copy of what it
        sent before: it must be in answer to a question.
        """
        if message.kept != message.first - 1:
            return False
        return expected > 1 or message.echo == self._asked.get(message.source, (0, -1))[1]

    def _ask_again(self, party: bytes, now_ns: int) -> Receipt | None:
        """Ask a party for what is missing; not for each frame that comes too soon, or ever more would come."""
        asked_ns, number = self._asked.get(party, (-AGAIN_NS, max(now_ns, 1)))
        if now_ns < asked_ns + AGAIN_NS:
            return None
        if len(self._asked) >= PARTIES_MAX:
            self._asked.clear()
        self._asked[party] = now_ns, number  # The same one again: an answer may be on its way.
        return Receipt(self._identity, party, self.done.get(party, 0), again=number)

    def _refusal(self, message: Carried, code: str, text: str) -> Refusal:
        return Refusal(self._identity, message.source, code, text, message.first)

    def pop(self) -> Waiting:
        """Take what has waited longest; call ``applied`` when it is applied."""
        frame = self._frames.popleft()
        self._items -= frame.count
        return frame

    def applied(self) -> None:
        """Note that all that was popped is applied, so that the environment itself knows what comes next."""
        if not self._frames:
            self._expected.clear()

    def committed(self, done: Mapping[bytes, int]) -> None:
        """Note up to which number items of some parties are committed."""
        self.done.update(done)

    def clear(self) -> list[Carried]:
        """Forget everything; return what waits, so that it can go to whoever runs the environment next."""
        waiting = [
            Carried(frame.party, self._identity, frame.first, frame.items) for frame in self._frames if frame.count
        ]
        self._frames.clear()
        self._items = 0
        self._expected, self._asked, self.done = {}, {}, {}
        return waiting


def records_of(frame: Waiting, suspect: Suspect | None, received: int) -> list[tuple[Record, Suspect]]:
    """Return the records of a frame, with what each of them is about.

    Args:
        frame: The next one of its party.
        suspect: What the process before this one did not survive; items of that party are given one by one.
        received: Number of the last item that was taken of that party.
    """
    party = frame.party
    if not frame.count:
        return [(Rejoined(party, frame.first - 1), UNKNOWN)]
    if suspect is None or suspect.party != party:
        return [(Arrived(party, frame.first, msgspec.Raw(frame.items)), Suspect(party, frame.first, frame.count))]
    records: list[tuple[Record, Suspect]] = []
    for number, item in enumerate(split_items(frame.items), frame.first):
        if number <= received:
            continue
        is_guilty = suspect.count == 1 and number == suspect.first
        failed = Failed(party, number, "killed", DEADLY, bytes(item))
        records.append(
            (failed if is_guilty else Arrived(party, number, join_items((item,))), Suspect(party, number, 1))
        )
    return records
