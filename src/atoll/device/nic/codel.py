# SPDX-License-Identifier: Apache-2.0
"""Controlled delay: when to tell senders that a queue stands, by how long its packets have waited.

Source: RFC 8289. Its names are kept, and its numbers.
"""

from math import isqrt
from typing import Final, final

from atoll.base.units import MILLISECOND_NS

__all__ = ["INTERVAL_NS", "TARGET_NS", "CoDel"]

TARGET_NS: Final = 5 * MILLISECOND_NS  # Who waits longer than this for an interval waits in a queue that stands.
INTERVAL_NS: Final = 100 * MILLISECOND_NS  # As long as most senders take to hear of a loss.
_SCALE: Final = 1 << 16  # Of the square root, in whole numbers.
_COUNT_MAX: Final = 1 << 20  # By then every packet is dropped.


@final
class CoDel:
    """The control law for one queue. Plain state, whole numbers."""

    __slots__ = ("_count", "_drop_next_ns", "_dropping", "_first_above_ns", "_last_count")

    def __init__(self) -> None:
        self._first_above_ns = self._drop_next_ns = 0
        self._count = self._last_count = 0
        self._dropping = False

    def drops(self, sojourn_ns: int, now_ns: int) -> bool:
        """Return whether the packet at hand is to be dropped, or marked.

        Args:
            sojourn_ns: How long it has waited.
            now_ns: Monotonic time, at least INTERVAL_NS.
        """
        is_due = self._stands(sojourn_ns, now_ns)
        if self._dropping:
            if not is_due:
                self._dropping = False
                return False
            if now_ns < self._drop_next_ns:
                return False
            self._count = min(self._count + 1, _COUNT_MAX)
            self._drop_next_ns = self._law(max(self._drop_next_ns, now_ns - INTERVAL_NS))
            return True
        if not is_due:
            return False
        self._dropping = True
        # Who was dropping a moment ago goes on at the rate that it had found.
        delta = self._count - self._last_count
        is_recent = now_ns - self._drop_next_ns < 16 * INTERVAL_NS
        self._count = delta if delta > 1 and is_recent else 1
        self._last_count = self._count
        self._drop_next_ns = self._law(now_ns)
        return True

    def _stands(self, sojourn_ns: int, now_ns: int) -> bool:
        """Return whether the queue has stood longer than the target for an interval."""
        if sojourn_ns < TARGET_NS:
            self._first_above_ns = 0
            return False
        if not self._first_above_ns:
            self._first_above_ns = now_ns + INTERVAL_NS
            return False
        return now_ns >= self._first_above_ns

    def _law(self, at_ns: int) -> int:
        return at_ns + INTERVAL_NS * _SCALE // isqrt(self._count * _SCALE * _SCALE)
