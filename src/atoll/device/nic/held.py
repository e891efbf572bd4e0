# SPDX-License-Identifier: Apache-2.0
"""Packets of this machine that wait here while the queue of the way out stands.

Decides who waits. What stands in the network card's queue is behind all that came before it; what waits here can be
overtaken. So large packets wait here, and small ones (a keystroke, a question for a name, an acknowledgement) go ahead,
but never one of a flow that has packets waiting: the order within a flow stays.
"""

from collections import deque
from typing import Final, final

from atoll.device.nic.limits import HELD_BYTES_MAX
from atoll.device.nic.plaintext import IPV6_HEADER_BYTES
from atoll.device.nic.segments import Bulk

__all__ = ["Held", "Lone", "size_of"]

Lone = tuple[bytes, bool]  # A packet, and whether its checksum is undone.

_PROTOCOL_AT: Final = 6
_ADDRESSES_AT: Final = 8
_PORTS_END: Final = IPV6_HEADER_BYTES + 4
_ITEM_BYTES: Final = 256  # What one costs besides its own bytes.


@final
class Held:
    """The queue, oldest first, of at most HELD_BYTES_MAX bytes."""

    __slots__ = ("_bytes", "_flows", "_items")

    def __init__(self) -> None:
        self._items: Final[deque[tuple[int, bytes, Bulk | Lone]]] = deque()
        self._flows: Final[dict[bytes, int]] = {}  # How many packets of each flow wait.
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def is_passing(self, packet: bytes) -> bool:
        """Return whether a small packet may go ahead of those that wait."""
        return _flow_of(packet) not in self._flows

    def add(self, item: Bulk | Lone, now_ns: int) -> bool:
        """Let a packet wait; its buffer may be used again. False: there is no room for it."""
        if isinstance(item, Bulk):
            packet = item.buffer[item.start : item.end]
            kept: Bulk | Lone = Bulk(packet, 0, len(packet), item.head_bytes, item.size)
            flow = _flow_of(packet)
        else:
            kept, flow = item, _flow_of(item[0])
        size = size_of(item)
        if self._bytes + size + _ITEM_BYTES > HELD_BYTES_MAX:
            return False
        self._bytes += size + _ITEM_BYTES
        self._flows[flow] = self._flows.get(flow, 0) + 1
        self._items.append((now_ns, flow, kept))
        return True

    def take(self) -> tuple[Bulk | Lone, int]:
        """Return the one that has waited longest, and since when. Only if there is one."""
        since_ns, flow, item = self._items.popleft()
        self._bytes -= size_of(item) + _ITEM_BYTES
        if self._flows[flow] == 1:
            del self._flows[flow]
        else:
            self._flows[flow] -= 1
        return item, since_ns

    def clear(self) -> None:
        """Forget all."""
        self._items.clear()
        self._flows.clear()
        self._bytes = 0


def size_of(item: Bulk | Lone) -> int:
    """Return the length of a packet."""
    return item.end - item.start if isinstance(item, Bulk) else len(item[0])


def _flow_of(packet: bytes | bytearray) -> bytes:
    """Return what the packets of one flow share: protocol, addresses, ports."""
    return bytes(packet[_PROTOCOL_AT : _PROTOCOL_AT + 1] + packet[_ADDRESSES_AT:_PORTS_END])
