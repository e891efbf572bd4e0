# SPDX-License-Identifier: Apache-2.0
"""Messages for environments that this node should run and does not: they change hands, or cannot go on now."""

from typing import Final, final

import msgspec

from atoll.env.limits import STRANDED_BYTES_MAX, STRANDED_MAX
from atoll.env.messages import AGE_UNSAID, Carried, Receipt, Routed

__all__ = ["Stranded"]

_Key = tuple[type[Routed], bytes, bytes, int]


@final
class Stranded:
    """What waits until it is known who runs them. Each is kept once, however often it is sent again.

    Attributes:
        size: Bytes of items that wait.
    """

    def __init__(self) -> None:
        self._waiting: Final[dict[_Key, Routed]] = {}
        self.size = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def keep(self, message: Routed) -> None:
        """Let a message wait, in place of the same one from before; without room it is dropped, and comes again."""
        key = (type(message), message.source, message.target, 0 if isinstance(message, Receipt) else message.first)
        before = self._waiting.pop(key, None)
        self.size += _size(message) - (0 if before is None else _size(before))
        if len(self._waiting) < STRANDED_MAX and self.size <= STRANDED_BYTES_MAX:
            self._waiting[key] = message
        else:
            self.size -= _size(message)

    def take(self, target: bytes) -> list[Routed]:
        """Take what waits for one environment, in the order in which it came. How old items are is not known now."""
        keys = [key for key in self._waiting if key[2] == target]
        taken = [self._waiting.pop(key) for key in keys]
        self.size -= sum(map(_size, taken))
        return [
            msgspec.structs.replace(message, age_ns=AGE_UNSAID) if isinstance(message, Carried) else message
            for message in taken
        ]


def _size(message: Routed) -> int:
    return len(message.items) if isinstance(message, Carried) else 0
