# SPDX-License-Identifier: Apache-2.0
"""Who runs what in the group, as its nodes tell each other: environment by id and by name.

Of two notices about one environment the one of the higher epoch counts, and an end counts above all. Who has the
highest epoch is the owner, because a majority of the holders promised it that epoch; an older owner can still tell, but
not serve.
"""

from collections.abc import Iterable
from typing import Final, final

from atoll.env.limits import DIRECTORY_MAX
from atoll.env.messages import Notice

__all__ = ["Directory"]


@final
class Directory:
    """What this node knows. State only; it is told again by everybody when the node starts anew."""

    def __init__(self) -> None:
        self._notices: Final[dict[bytes, Notice]] = {}

    def note(self, notice: Notice) -> bool:
        """Take a notice; return whether it is news.

        At DIRECTORY_MAX environments one that has ended makes room; if none has, another one is not taken: programs
        that know its id still reach it where it runs.
        """
        known = self._notices.get(notice.id)
        if known is None:
            if len(self._notices) >= DIRECTORY_MAX and not self._make_room():
                return False
        elif known.ended or (notice.epoch < known.epoch and not notice.ended) or notice == known:
            return False
        self._notices[notice.id] = notice
        return True

    def _make_room(self) -> bool:
        """Forget one that has ended; return whether there was one. Who keeps it still knows."""
        gone = next((identity for identity, notice in self._notices.items() if notice.ended), None)
        if gone is None:
            return False
        del self._notices[gone]
        return True

    def find(self, party: bytes) -> Notice | None:
        """Return where an environment runs; None: unknown, or it has ended."""
        notice = self._notices.get(party)
        return None if notice is None or notice.ended else notice

    def ended(self, party: bytes) -> bool:
        """Return whether this is an environment that is over."""
        notice = self._notices.get(party)
        return notice is not None and notice.ended

    def named(self, name: str) -> Notice | None:
        """Return the environment of a name; of several, the one with the lowest id, so that all nodes mean the same."""
        found = [notice for notice in self._notices.values() if notice.name == name and not notice.ended]
        return min(found, key=lambda notice: notice.id) if found else None

    def all(self) -> Iterable[Notice]:
        """Return all environments that are not over, by name."""
        return sorted(
            (notice for notice in self._notices.values() if not notice.ended),
            key=lambda notice: (notice.name, notice.id),
        )
