# SPDX-License-Identifier: Apache-2.0
"""Who runs what in the group, as its nodes tell each other: environment by id and by name.

Of two notices about one environment the one of the higher epoch counts, and an end counts above all. Who has the
highest epoch is the owner, because a majority of the holders promised it that epoch; an older owner can still tell, but
not serve.

Not everybody is believed. A node speaks for itself, and only who keeps an environment, by the last notice that was
believed, may say who runs it now or that it has ended: ownership passes to a holder and to nobody else. Who claims an
environment that it does not keep is believed when a keeper says the same, or when its owner has been silent for long.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from atoll.env.limits import DIRECTORY_MAX, SILENT_NS
from atoll.env.messages import Notice

__all__ = ["Directory", "keepers_of"]


@dataclass(slots=True)
class _Known:
    """What is known of one environment.

    Attributes:
        notice: What is believed.
        heard_ns: When its owner said so last, monotonic.
        claim: What another node says of itself that was no holder then; None: nothing.
    """

    notice: Notice
    heard_ns: int
    claim: Notice | None = None


@final
class Directory:
    """What this node knows. State only; it is told again by everybody when the node starts anew.

    Attributes:
        doubted: Notices that were not believed.
    """

    def __init__(self) -> None:
        self._known: Final[dict[bytes, _Known]] = {}
        self.doubted = 0

    def hear(self, notice: Notice, node: bytes, now_ns: int) -> bool:
        """Take a notice of another node, if it is to be believed; return whether it is news."""
        known = self._known.get(notice.id)
        speaks_for_itself = notice.owner == node and not notice.ended
        if known is None or known.notice.ended:
            is_believed = speaks_for_itself
        else:
            said = known.notice
            is_believed = node in keepers_of(said) or (speaks_for_itself and now_ns >= known.heard_ns + SILENT_NS)
            if notice.epoch == said.epoch and notice.owner != said.owner and not notice.ended:
                is_believed = False  # An epoch has one owner.
            if speaks_for_itself and not is_believed and notice.epoch > said.epoch:
                known.claim = notice
            if is_believed and node == notice.owner == said.owner:
                known.heard_ns = now_ns
        if not is_believed:
            self.doubted += 1
            return False
        return self.note(notice, now_ns)

    def note(self, notice: Notice, now_ns: int) -> bool:
        """Take a notice that is true; return whether it is news.

        At DIRECTORY_MAX environments one that has ended makes room; if none has, another one is not taken: programs
        that know its id still reach it where it runs.
        """
        known = self._known.get(notice.id)
        if known is None:
            if len(self._known) >= DIRECTORY_MAX and not self._make_room():
                return False
            self._known[notice.id] = _Known(notice, now_ns)
            return True
        said = known.notice
        if said.ended or (notice.epoch < said.epoch and not notice.ended) or notice == said:
            return False
        claim, known.notice, known.heard_ns, known.claim = known.claim, notice, now_ns, None
        if claim is not None and claim.owner in keepers_of(notice) and claim.epoch > notice.epoch and not notice.ended:
            known.notice = claim  # It came before the notice that made its sender a holder.
        return True

    def _make_room(self) -> bool:
        """Forget one that has ended; return whether there was one. Who keeps it still knows."""
        gone = next((identity for identity, known in self._known.items() if known.notice.ended), None)
        if gone is None:
            return False
        del self._known[gone]
        return True

    def knows(self, party: bytes) -> bool:
        """Return whether anything is known of an environment."""
        return party in self._known

    def find(self, party: bytes) -> Notice | None:
        """Return where an environment runs; None: unknown, or it has ended."""
        known = self._known.get(party)
        return None if known is None or known.notice.ended else known.notice

    def ended(self, party: bytes) -> bool:
        """Return whether this is an environment that is over."""
        known = self._known.get(party)
        return known is not None and known.notice.ended

    def named(self, name: str) -> Notice | None:
        """Return the environment of a name; of several, the one with the lowest id, so that all nodes mean the same."""
        found = [notice for notice in self._alive() if notice.name == name]
        return min(found, key=lambda notice: notice.id) if found else None

    def all(self) -> Iterable[Notice]:
        """Return all environments that are not over, by name."""
        return sorted(self._alive(), key=lambda notice: (notice.name, notice.id))

    def _alive(self) -> Iterable[Notice]:
        return [known.notice for known in self._known.values() if not known.notice.ended]


def keepers_of(notice: Notice) -> tuple[bytes, ...]:
    """Return who may say something about an environment, by a notice about it."""
    return (notice.owner, *notice.holders)
