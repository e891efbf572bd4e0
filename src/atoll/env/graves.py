# SPDX-License-Identifier: Apache-2.0
"""What a node never takes up again: environments that have ended, and those whose journal here cannot be used."""

from dataclasses import dataclass
from typing import Final, final

from atoll.env.limits import DIRECTORY_MAX, OVER_MAX
from atoll.env.messages import Notice
from atoll.env.records import CODE_BYTES

__all__ = ["Barred", "Graves"]


@dataclass(frozen=True, slots=True)
class Barred:
    """An environment whose journal is here and cannot be used.

    Attributes:
        id: Its id.
        name: How people call it; its id in hexadecimal digits where the journal does not say.
        why: What is wrong with the journal.
    """

    id: bytes
    name: str
    why: str

    @property
    def reason(self) -> str:
        """Why it cannot run here."""
        return f"its journal on this node cannot be used: {self.why}"


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
        self._barred: Final[dict[bytes, Barred]] = {}  # No more than the recorder keeps.

    def bar(self, barred: Barred) -> None:
        """Never take an environment up, because the recorder has a journal of it that cannot be used.

        It would else begin anew here, and vote against what it has acknowledged.
        """
        self._barred[barred.id] = barred

    def barred(self, identity: bytes) -> Barred | None:
        """Return what is known of an environment whose journal here cannot be used; None: it is not such a one."""
        return self._barred.get(identity)

    def all_barred(self) -> tuple[Barred, ...]:
        """Return all of them, in the order in which they were found."""
        return tuple(self._barred.values())

    def release(self, identity: bytes) -> None:
        """Note that such a journal is put aside, because its environment has ended."""
        self._barred.pop(identity, None)

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
