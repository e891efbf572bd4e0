# SPDX-License-Identifier: Apache-2.0
"""When what one node hosts is to be looked at. It has many, and most are idle: none is looked at for another one.

By each clock the times are in a heap. One that has changed stays in it until it comes up, because to find it there
would cost as much as to make the heap anew; it is known by not being the time that is noted beside it.
"""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Final, Protocol, final

from atoll.env.limits import DUES_SPARE

__all__ = ["Dues"]


class Due(Protocol):
    """What is needed of an environment."""

    @property
    def deadline_ns(self) -> int | None:
        """When it is to be looked at, monotonic; None: it need not."""
        ...

    @property
    def wall_deadline_ns(self) -> int | None:
        """The same by the wall clock, for its own timers."""
        ...


@final
class _Times:
    """When each is due by one clock."""

    def __init__(self) -> None:
        self._due: Final[dict[bytes, int]] = {}
        self._heap: list[tuple[int, bytes]] = []  # Each of the above, and some that hold no more.

    def note(self, identity: bytes, due_ns: int | None) -> None:
        """Note when one is due; None: it is not."""
        if due_ns is None:
            self._due.pop(identity, None)
        elif self._due.get(identity) != due_ns:
            self._due[identity] = due_ns
            heappush(self._heap, (due_ns, identity))
            if len(self._heap) > 2 * len(self._due) + DUES_SPARE:
                self._heap = [(at_ns, one) for one, at_ns in self._due.items()]
                heapify(self._heap)

    @property
    def first_ns(self) -> int | None:
        """When the first is due; None: none is."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def take(self, now_ns: int) -> list[bytes]:
        """Take those that are due, the first first; each is to be noted again."""
        taken: list[bytes] = []
        while (first_ns := self.first_ns) is not None and first_ns <= now_ns:
            identity = heappop(self._heap)[1]
            del self._due[identity]
            taken.append(identity)
        return taken


@final
class Dues:
    """When each is due, as after its last input. State only.

    Args:
        hosted: What is here, by id; read only.
    """

    def __init__(self, hosted: Mapping[bytes, Due]) -> None:
        self._hosted: Final = hosted
        self._changed: Final[dict[bytes, None]] = {}  # Had an input since they were looked at.
        self._times: Final = _Times()
        self._wall_times: Final = _Times()

    def changed(self, identity: bytes) -> None:
        """Note that one had an input, or is not here any more."""
        self._changed[identity] = None

    @property
    def first_ns(self) -> int | None:
        """When the first is due, monotonic; None: none is."""
        self._look()
        return self._times.first_ns

    @property
    def first_wall_ns(self) -> int | None:
        """The same by the wall clock."""
        self._look()
        return self._wall_times.first_ns

    def take(self, now_ns: int, wall_ns: int) -> tuple[bytes, ...]:
        """Take those that are due by either clock, the first first; they count as changed by what is done with them.

        Args:
            now_ns: Monotonic.
            wall_ns: Since 1970.
        """
        self._look()
        taken = dict.fromkeys((*self._times.take(now_ns), *self._wall_times.take(wall_ns)))
        self._changed.update(taken)
        return tuple(taken)

    def _look(self) -> None:
        for identity in self._changed:
            hosted = self._hosted.get(identity)
            self._times.note(identity, None if hosted is None else hosted.deadline_ns)
            self._wall_times.note(identity, None if hosted is None else hosted.wall_deadline_ns)
        self._changed.clear()
