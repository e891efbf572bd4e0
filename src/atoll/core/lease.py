# SPDX-License-Identifier: Apache-2.0
"""Who still holds what: leases as data, in a bounded table that a snapshot can hold.

A lease is the right to one slot until a time. Its handle names the slot (``id``) and the grant (``generation``), so a
handle that outlived its lease is refused even when the slot has a new holder. The table owns no clock: its machine
puts ``deadline_ns`` into its own, and calls ``expire`` when a ``Tick`` comes. A lease whose time has come but that was
not yet collected still counts as held, so that what expires, and in which order, depends on the inputs alone.

Cost: every operation is O(log n) amortised. Renewing leaves the old entry in the queue; stale entries are dropped when
they surface, and the queue is rebuilt when more than half of it is stale. Both happen inside the operations and never
in ``deadline_ns``: reading a deadline must not change the snapshot, or a replay that reads it less often would differ.
"""

from heapq import heapify, heappop, heappush
from typing import Final

import msgspec

from atoll.base.errors import LimitError, UsageError

__all__ = ["Lease", "LeaseTable"]

_STALE_SLACK: Final = 16  # Below this many stale entries a rebuild is not worth its walk.


class Lease(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A handle: the right to slot ``id`` until ``expires_ns``.

    Attributes:
        id: Slot, 0 to the table's ``leases_max - 1``. Reused after the lease ended.
        generation: Number of the grant in its table, from 1; never reused.
        expires_ns: First moment at which the lease no longer holds, on the machine's clock.
    """

    id: int
    generation: int
    expires_ns: int


class LeaseTable(msgspec.Struct):
    """All leases of one kind. State only: put it into the state of the machine that grants them.

    Attributes:
        leases_max: Most leases held at a time, at least 1; the reason belongs to the limit that is passed here.
        held: Lease by slot.
        free: Slots that were used and given back, last one out first.
        granted: Grants so far.
        queue: Heap of (expires_ns, generation, id), the oldest first, stale entries included.
    """

    leases_max: int
    held: dict[int, Lease] = msgspec.field(default_factory=dict[int, Lease])
    free: list[int] = msgspec.field(default_factory=list[int])
    granted: int = 0
    queue: list[tuple[int, int, int]] = msgspec.field(default_factory=list[tuple[int, int, int]])

    @property
    def deadline_ns(self) -> int | None:
        """When the next lease expires; None: no lease is held. Call ``expire`` then."""
        return self.queue[0][0] if self.queue else None

    def grant(self, now_ns: int, duration_ns: int) -> Lease:
        """Grant a lease on a free slot.

        Raises:
            LimitError: ``leases_max`` leases are held. Nothing changed; the caller refuses its one request.
            UsageError: The duration is not positive.
        """
        if duration_ns <= 0:
            raise UsageError(f"a lease of {duration_ns} ns")
        if len(self.held) >= self.leases_max:
            raise LimitError("leases_max", self.leases_max)
        slot = self.free.pop() if self.free else len(self.held)
        self.granted += 1
        return self._hold(Lease(slot, self.granted, now_ns + duration_ns))

    def renew(self, lease: Lease, now_ns: int, duration_ns: int) -> Lease | None:
        """Let a held lease last until ``now_ns + duration_ns``, also when that is sooner; return the new handle.

        Returns:
            None when the lease is no longer held: the holder has to ask for a new one.

        Raises:
            UsageError: The duration is not positive.
        """
        if duration_ns <= 0:
            raise UsageError(f"a lease of {duration_ns} ns")
        if not self.holds(lease):
            return None
        return self._hold(Lease(lease.id, lease.generation, now_ns + duration_ns))

    def release(self, lease: Lease) -> bool:
        """End a lease before its time. False when it was no longer held, which is harmless."""
        if not self.holds(lease):
            return False
        self._end(lease.id)
        return True

    def holds(self, lease: Lease) -> bool:
        """Return whether this grant still has its slot. An older handle of a renewed lease still counts."""
        held = self.held.get(lease.id)
        return held is not None and held.generation == lease.generation

    def expire(self, now_ns: int) -> tuple[Lease, ...]:
        """End every lease whose time has come; return them by time, then by age."""
        ended: list[Lease] = []
        while (deadline_ns := self.deadline_ns) is not None and deadline_ns <= now_ns:
            slot = self.queue[0][2]
            ended.append(self.held[slot])
            self._end(slot)
        return tuple(ended)

    def _hold(self, lease: Lease) -> Lease:
        self.held[lease.id] = lease
        heappush(self.queue, (lease.expires_ns, lease.generation, lease.id))
        if len(self.queue) > 2 * len(self.held) + _STALE_SLACK:
            self.queue = [(held.expires_ns, held.generation, held.id) for held in self.held.values()]
            heapify(self.queue)
        self._surface()
        return lease

    def _end(self, slot: int) -> None:
        del self.held[slot]
        self.free.append(slot)
        self._surface()
        assert len(self.held) + len(self.free) <= self.leases_max

    def _surface(self) -> None:
        """Drop stale entries until the first one is a lease that is held with this time."""
        while self.queue:
            expires_ns, generation, slot = self.queue[0]
            held = self.held.get(slot)
            if held is not None and held.generation == generation and held.expires_ns == expires_ns:
                return
            heappop(self.queue)
