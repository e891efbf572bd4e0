# SPDX-License-Identifier: Apache-2.0
"""What one environment refuses as ``forgotten``, and has not said yet: it forgets in a state that is ahead of the disk.

Who hears such a refusal gives up what it covers. If the forgetting were undone, because another node goes on from an
older block, what was given up could have been taken. So a refusal leaves as everything does: when the block with what
it was judged by is committed.
"""

from typing import Final, final

import msgspec

from atoll.env.limits import DOUBTS_MAX
from atoll.env.messages import Refusal

__all__ = ["Doubts"]


@final
class Doubts:
    """Refusals that wait; of each party the first one, for what it refuses comes again."""

    def __init__(self) -> None:
        self._waiting: Final[dict[bytes, tuple[int, int, Refusal]]] = {}  # From which block on; since when.

    def note(self, refusal: Refusal, number: int, now_ns: int) -> None:
        """Let a refusal wait; with DOUBTS_MAX of them it is dropped, and made again.

        Args:
            refusal: It.
            number: Of the block after which the environment is, or will be, as it was judged by.
            now_ns: Monotonic.
        """
        if len(self._waiting) < DOUBTS_MAX:
            self._waiting.setdefault(refusal.target, (number, now_ns, refusal))

    def due(self, committed: int, now_ns: int) -> list[Refusal]:
        """Take what may be said; what was too young for it is no older now, so the age that each says has grown.

        Args:
            committed: Number of the last block that is committed.
            now_ns: Monotonic.
        """
        if not self._waiting:  # Asked with each block.
            return []
        due = [one for one in self._waiting.values() if one[0] <= committed]
        for _, _, refusal in due:
            del self._waiting[refusal.target]
        return [
            msgspec.structs.replace(refusal, age_ns=refusal.age_ns + now_ns - since_ns) for _, since_ns, refusal in due
        ]

    def clear(self) -> None:
        """Forget what waits: it was judged by what does not run here any more."""
        self._waiting.clear()
