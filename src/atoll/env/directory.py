# SPDX-License-Identifier: Apache-2.0
"""Who runs what in the group, as its nodes tell each other: environment by id and by name.

Of two notices about one environment the one of the higher epoch counts, and an end counts above all. Who has the
highest epoch is the owner, because a majority of the holders promised it that epoch; an older owner can still tell, but
not serve.

Not everybody is believed. A node speaks for itself, and only who keeps an environment, by the last notice that was
believed, may say who runs it now or that it has ended: ownership passes to a holder and to nobody else. Who claims an
environment that it does not keep is believed when a keeper says the same, or when its owner has been silent for long.

Nobody takes the room of others, nor their names: each node brings in so many environments and no more, and a name is
that of the first one that had it, for as long as that is known.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, final

from atoll.env.limits import DIRECTORY_MAX, DIRECTORY_TOLD_MAX, NAMED_AT_ONCE_NS, OWNERLESS_NS, SILENT_NS
from atoll.env.messages import Notice
from atoll.env.records import FOUND_MAX

__all__ = ["Directory", "keepers_of"]


@dataclass(slots=True)
class _Known:
    """What is known of one environment.

    Attributes:
        notice: What is believed.
        teller: Who brought it in, as its owner then. It counts as that node's whoever has it later: who gave it away
            could else fill the room of another one.
        heard_ns: When its owner said so last, monotonic.
        named_ns: When it was first called so.
        claim: What another node says of itself that was no holder then; None: nothing.
    """

    notice: Notice
    teller: bytes
    heard_ns: int
    named_ns: int
    claim: Notice | None = None


@final
class Directory:
    """What this node knows. State only; it is told again by everybody when the node starts anew.

    Attributes:
        doubted: Notices that were not believed.
    """

    def __init__(self) -> None:
        self._known: Final[dict[bytes, _Known]] = {}
        self._told: Final[dict[bytes, int]] = {}  # How many that are not over each node has brought in.
        self._names: Final[dict[str, tuple[bytes, int]]] = {}  # Whose each is, and since when it is somebody's.
        self._called: Final[dict[str, dict[bytes, None]]] = {}  # All of a name that are not over, first named first.
        self._of_app: Final[dict[str, list[bytes]]] = {}  # All of an application that are not over, sorted.
        self.doubted = 0

    def hear(self, notice: Notice, node: bytes, now_ns: int) -> bool:
        """Take a notice of another node, if it is to be believed; return whether it is news.

        At DIRECTORY_MAX environments one that has ended makes room. If none has, or the node has brought in
        DIRECTORY_TOLD_MAX, another one is not taken: programs that know its id still reach it where it runs.
        """
        known = self._known.get(notice.id)
        speaks_for_itself = notice.owner == node and not notice.ended
        if known is None:
            is_believed = speaks_for_itself and self._has_room(node)
        elif known.notice.ended:
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

        At DIRECTORY_MAX environments one that has ended makes room, or else the newest of the node that has brought in
        most: what this node itself runs or keeps is always known here.
        """
        known = self._known.get(notice.id)
        if known is None:
            while len(self._known) >= DIRECTORY_MAX:
                self._make_room()
            known = self._known[notice.id] = _Known(notice, notice.owner, now_ns, now_ns)
            if not notice.ended:
                self._told[notice.owner] = self._told.get(notice.owner, 0) + 1
                self._name(known)
                self._enlist(notice)
            return True
        said = known.notice
        if said.ended or (notice.epoch < said.epoch and not notice.ended) or notice == said:
            return False
        claim, known.claim = known.claim, None
        if claim is not None and claim.owner in keepers_of(notice) and claim.epoch > notice.epoch and not notice.ended:
            notice = claim  # It came before the notice that made its sender a holder.
        self._change(known, notice, now_ns)
        return True

    def _change(self, known: _Known, notice: Notice, now_ns: int) -> None:
        said, known.notice, known.heard_ns = known.notice, notice, now_ns
        if notice.ended:
            self._end(known)
        if notice.ended or notice.app != said.app:
            self._strike(said)
        if not notice.ended and notice.app != said.app:
            self._enlist(notice)
        if notice.ended or notice.name != said.name:
            self._free(said)
        if not notice.ended and notice.name != said.name:
            known.named_ns = now_ns
            self._name(known)

    # Room.

    def _has_room(self, node: bytes) -> bool:
        """Return whether a node may bring in one more."""
        if self._told.get(node, 0) >= DIRECTORY_TOLD_MAX:
            return False
        return len(self._known) < DIRECTORY_MAX or sum(self._told.values()) < len(self._known)

    def _make_room(self) -> None:
        """Forget one that has ended, of which who keeps it still knows; or else one of who has brought in most."""
        gone = next((identity for identity, known in self._known.items() if known.notice.ended), None)
        if gone is None:
            greedy = max(self._told, key=lambda node: (self._told[node], node))
            gone = next(identity for identity, known in reversed(self._known.items()) if known.teller == greedy)
        self._forget(gone)

    def _forget(self, identity: bytes) -> None:
        known = self._known.pop(identity)
        if not known.notice.ended:
            self._end(known)
            self._free(known.notice)
            self._strike(known.notice)

    def _end(self, known: _Known) -> None:
        """Count one less for who has brought it in."""
        self._told[known.teller] -= 1
        if not self._told[known.teller]:
            del self._told[known.teller]

    def part(self, gone: Collection[bytes], members: Collection[bytes]) -> None:
        """Forget what nodes that have left the group ran, unless a member keeps it and may run it.

        Args:
            gone: Who has left.
            members: Who is in the group, this node included.
        """
        for identity, known in tuple(self._known.items()):
            notice = known.notice
            if not notice.ended and notice.owner in gone and not any(node in members for node in notice.holders):
                self._forget(identity)

    def prune(self, members: Collection[bytes], now_ns: int) -> None:
        """Forget what nobody runs who is a member, and of which nothing was said for OWNERLESS_NS."""
        for identity, known in tuple(self._known.items()):
            notice = known.notice
            if not notice.ended and notice.owner not in members and now_ns >= known.heard_ns + OWNERLESS_NS:
                self._forget(identity)

    # Names.

    def _name(self, known: _Known) -> None:
        """Give an environment its name, unless another one has it already."""
        name, identity = known.notice.name, known.notice.id
        self._called.setdefault(name, {})[identity] = None
        first, since_ns = self._names.get(name, (identity, known.named_ns))
        if identity <= first and known.named_ns < since_ns + NAMED_AT_ONCE_NS:
            self._names[name] = identity, since_ns

    def _free(self, said: Notice) -> None:
        """Take the name of an environment from it; if it was the one that is meant, the next one is."""
        called = self._called.get(said.name)
        if called is None or said.id not in called:
            return
        del called[said.id]
        if not called:
            del self._called[said.name], self._names[said.name]
        elif self._names[said.name][0] == said.id:
            first = next(iter(called))
            self._names[said.name] = first, self._known[first].named_ns

    # Applications.

    def _enlist(self, notice: Notice) -> None:
        insort(self._of_app.setdefault(notice.app, []), notice.id)

    def _strike(self, notice: Notice) -> None:
        """Take an environment from those of its application."""
        ids = self._of_app[notice.app]
        del ids[bisect_left(ids, notice.id)]
        if not ids:
            del self._of_app[notice.app]

    def of_app(self, app: str) -> tuple[bytes, ...]:
        """Return the ids of those that run an application, in their order; at most FOUND_MAX."""
        return tuple(self._of_app.get(app, ())[:FOUND_MAX])

    # What is known.

    def heard(self, party: bytes, now_ns: int) -> None:
        """Note that the owner of an environment lives, which is this node."""
        if party in self._known:
            self._known[party].heard_ns = now_ns

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
        """Return the environment of a name; of several, the one that was heard of first."""
        found = self._names.get(name)
        return None if found is None else self._known[found[0]].notice

    def all(self) -> Iterable[Notice]:
        """Return all environments that are not over, by name."""
        alive = [known.notice for known in self._known.values() if not known.notice.ended]
        return sorted(alive, key=lambda notice: (notice.name, notice.id))


def keepers_of(notice: Notice) -> tuple[bytes, ...]:
    """Return who may say something about an environment, by a notice about it."""
    return (notice.owner, *notice.holders)
