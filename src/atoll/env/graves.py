# SPDX-License-Identifier: Apache-2.0
"""What a node never takes up again: environments that have ended, and those whose journal here cannot be used."""

from typing import Final, final

from atoll.env.limits import DIRECTORY_MAX, OVER_MAX
from atoll.env.messages import Notice
from atoll.env.records import CODE_BYTES

__all__ = ["Graves"]


@final
class Graves:
    """The environments that one node does not take up. State only.

    Args:
        own: This node.
    """

    def __init__(self, own: bytes) -> None:
        self._own: Final = own
        self._over: Final[dict[bytes, Notice]] = {}
        self._buried: Final[dict[bytes, None]] = {}
        self._barred: Final[dict[bytes, None]] = {}

    def bar(self, identity: bytes) -> None:
        """Never take an environment up, because the recorder has a journal of it that cannot be used."""
        self._barred[identity] = None

    def is_barred(self, identity: bytes) -> bool:
        """Return whether the recorder has a journal of it that cannot be used."""
        return identity in self._barred

    def bury(self, identity: bytes) -> None:
        """Remember an environment that has ended, as the recorder knows it: who still speaks of it is told so.

        If it was taken up again its journal would begin with the block in which this node alone held it.
        """
        while len(self._buried) >= DIRECTORY_MAX:
            del self._buried[next(iter(self._buried))]
        self._buried[identity] = None

    def is_buried(self, identity: bytes) -> bool:
        """Return whether it has ended here."""
        return identity in self._buried

    def end(self, notice: Notice) -> None:
        """Remember an environment that has just ended here, and what is to be said of it."""
        while len(self._over) >= OVER_MAX:
            del self._over[next(iter(self._over))]
        self._over[notice.id] = notice
        self.bury(notice.id)

    def over(self) -> tuple[Notice, ...]:
        """Return what is to be said of those that have ended here lately."""
        return tuple(self._over.values())

    def tombstone(self, identity: bytes) -> Notice:
        """Return what to say to who still speaks of one that has ended."""
        known = self._over.get(identity)
        if known is not None:
            return known
        return Notice(identity, 0, self._own, "ended", "", bytes(CODE_BYTES), (), ended=True)
