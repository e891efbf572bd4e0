# SPDX-License-Identifier: Apache-2.0
"""What waits to go from one process to the other, in two classes, and what happens when the other is slow.

Policy, the same in both directions: everything but packets is *urgent*. Urgent items go first, in order, and are never
dropped. Packets are dropped, oldest first, when too many wait: they are the network's, and it may lose them. When too
many urgent items wait the owner must stop making them: the device stops reading its sockets (the operating system then
drops datagrams, as any busy machine does), and control takes a device that no longer takes orders for dead. The order
to end goes as the last packet: what waits is sent before it.
"""

from collections import deque
from typing import Final, final

from atoll.device.nic.limits import IPC_BYTES_MAX, PACKETS_QUEUED_MAX, URGENT_QUEUED_MAX
from atoll.device.nic.messages import join_items

__all__ = ["ITEM_BYTES_MAX", "Backlog"]

_HEADER_BYTES: Final = 5
ITEM_BYTES_MAX: Final = IPC_BYTES_MAX - _HEADER_BYTES


@final
class Backlog:
    """Encoded items on their way into batches of at most IPC_BYTES_MAX."""

    __slots__ = ("_batch", "_packets", "_urgent")

    def __init__(self) -> None:
        self._urgent: Final[deque[bytes]] = deque()
        self._packets: Final[deque[bytes]] = deque()
        self._batch: bytes | None = None

    @property
    def is_full(self) -> bool:
        """Whether the owner must stop making urgent items."""
        return len(self._urgent) >= URGENT_QUEUED_MAX

    @property
    def is_relieved(self) -> bool:
        """Whether the owner may go on; half of the limit, so that it does not stop and go for each item."""
        return len(self._urgent) <= URGENT_QUEUED_MAX // 2

    def __bool__(self) -> bool:
        return bool(self._batch or self._urgent or self._packets)

    def put_urgent(self, item: bytes) -> None:
        """Add an item of at most ITEM_BYTES_MAX that may not be lost."""
        assert len(item) <= ITEM_BYTES_MAX
        self._urgent.append(item)

    def put_packet(self, item: bytes) -> bool:
        """Add a packet; return whether an older one was dropped for it."""
        assert len(item) <= ITEM_BYTES_MAX
        self._packets.append(item)
        if len(self._packets) <= PACKETS_QUEUED_MAX:
            return False
        self._packets.popleft()
        return True

    def batch(self) -> bytes | None:
        """Return the next batch, the same one until ``sent``; None: nothing waits."""
        if self._batch is None:
            items: list[bytes] = []
            room = IPC_BYTES_MAX - _HEADER_BYTES
            for queue in (self._urgent, self._packets):
                while queue and len(queue[0]) <= room:
                    room -= len(queue[0])
                    items.append(queue.popleft())
            self._batch = join_items(items) if items else None
        return self._batch

    def sent(self) -> None:
        """Note that the last batch is on its way."""
        self._batch = None

    def clear(self) -> None:
        """Forget everything."""
        self._urgent.clear()
        self._packets.clear()
        self._batch = None
