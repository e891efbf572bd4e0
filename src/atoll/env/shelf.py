# SPDX-License-Identifier: Apache-2.0
"""The space of one environment with its rules: what its application sees of it, and what other parties may.

A ``Space`` keeps plain tuples and knows nobody. Here they become the types of the program, and each request of another
party is answered: only types that the application shares, only for a while, and never more than one response holds.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, TypeAlias

import msgspec

from atoll.base.errors import LimitError, UsageError
from atoll.base.units import SECOND_NS
from atoll.env.app import AppClass
from atoll.env.changes import (
    Done,
    Failure,
    LeaseLost,
    Matched,
    Matches,
    Placed,
    Put,
    Read,
    Renew,
    Take,
    Unwatch,
    Watch,
    Watching,
)
from atoll.env.limits import LEASE_NS_DEFAULT, LEASE_NS_MAX, SPACE_READ_BYTES
from atoll.env.parties import Ref
from atoll.env.query import Query, types_of
from atoll.env.space import Placed as PlacedHere
from atoll.env.space import Plain, Space
from atoll.env.tuples import TYPE_FIELD, Tuple

__all__ = ["HOLDERS", "REQUESTS", "Shelf", "SpaceRequest", "Told", "lease_ns_of", "typed", "typed_inside"]

SpaceRequest: TypeAlias = Put | Read | Take | Watch | Unwatch | Renew
REQUESTS: Final[frozenset[type[Tuple]]] = frozenset((Put, Read, Take, Watch, Unwatch, Renew))
HOLDERS: Final[frozenset[type[Tuple]]] = frozenset((Matched, Matches, LeaseLost))
"""Types that hold further tuples, which a program shall see as what they are."""

Types: TypeAlias = Mapping[str, type[Tuple]]
Told: TypeAlias = tuple[Matched, Ref | None]
"""What is to be told of a tuple that was put, and to whom; None: to the environment of the space itself."""

_encode: Final = msgspec.msgpack.Encoder().encode


class Shelf:
    """One environment's space, as it and others use it.

    Args:
        kind: The environment's class: it says what is shared.
        types: Tuple type by name, as the program knows them.
        space: Its tuples and watches.
        watchers: By number of a watch, which nested environment of its party watches; outermost ones are left out.
    """

    __slots__ = ("_kind", "_types", "space", "watchers")

    def __init__(self, kind: AppClass, types: Types, space: Space, watchers: dict[int, str]) -> None:
        self._kind, self._types = kind, types
        self.space, self.watchers = space, watchers

    # For the environment itself.

    def put(
        self, event: Tuple | Plain, now_ns: int, lease_ns: int | None, owner: bytes = b""
    ) -> tuple[int, list[Told]]:
        """Place a tuple; return its key, and who is to be told.

        Raises:
            LimitError: It is too large, or the space is full.
            UsageError: It is no tuple.
        """
        placed = self.space.put(event, now_ns, lease_ns, owner)
        return placed.key, self._told(placed)

    def _told(self, placed: PlacedHere) -> list[Told]:
        if not placed.told:
            return []
        plain = self.space.tuples[placed.key].value
        return [
            (Matched(number, placed.key, plain), Ref(party, self.watchers.get(number, "")) if party else None)
            for number, party in placed.told
        ]

    def read(self, query: Query, limit: int) -> list[Any]:
        """Return tuples that match, oldest first, each of its type, or a dict if the program does not know that.

        Raises:
            UsageError: The limit is negative.
        """
        return [typed(plain, self._types) for _, plain in self.space.read(query, limit)]

    def take(self, query: Query, limit: int) -> list[Any]:
        """Return what ``read`` would, and remove it.

        Raises:
            UsageError: The limit is negative.
        """
        return [typed(plain, self._types) for _, plain in self.space.take(query, limit)]

    def count(self, query: Query) -> int:
        """Return how many tuples match."""
        return len(self.space.read(query, len(self.space.tuples)))

    def unwatch(self, number: int, watcher: bytes = b"") -> bool:
        """End a watch. False: it is over, or is not this party's."""
        is_over = self.space.unwatch(number, watcher)
        if is_over:
            self.watchers.pop(number, None)
        return is_over

    def drop(self, number: int) -> None:
        """End a watch whose watcher cannot be told of what it missed."""
        self.unwatch(number, self.space.watches[number].watcher)

    def expire(self, until_ns: int) -> list[LeaseLost]:
        """Remove what has run out; return what the environment itself has lost so, in order."""
        lost: list[LeaseLost] = []
        for ended in self.space.expire(until_ns):
            self.watchers.pop(ended.key, None)
            if not ended.owner:
                lost.append(LeaseLost(ended.key, ended.value))
        return lost

    # For others.

    def serve(self, request: SpaceRequest, sender: Ref, now_ns: int) -> tuple[Tuple, list[Told]]:
        """Answer a request; return the response, and who is to be told of what was put."""
        match request:
            case Put(event, lease_s):
                return self._put(event, lease_ns_of(lease_s), sender, now_ns)
            case Read(query, limit) | Take(query, limit):
                return self._refused(query) or self._matches(query, limit, take=isinstance(request, Take)), []
            case Watch(query, lease_s):
                return self._refused(query) or self._watch(query, lease_ns_of(lease_s), sender, now_ns), []
            case Unwatch(number):
                return Done() if self._is_of(number, sender) and self.unwatch(number, sender.party) else _NOTHING, []
            case _:
                return self._renew(request, sender, now_ns), []

    def _put(self, event: Any, lease_ns: int, sender: Ref, now_ns: int) -> tuple[Tuple, list[Told]]:
        name = str(event.get(TYPE_FIELD)) if isinstance(event, dict) else ""  # pyright: ignore  A stranger's.
        kind = self._kind.shared.get(name)
        if kind is None:
            return _forbidden(self._kind.name, name), []
        try:
            value: Tuple = msgspec.convert(event, kind)
            placed = self.space.put(value, now_ns, lease_ns, sender.party)
        except LimitError as error:
            return Failure("queue-full", str(error)), []
        except (msgspec.ValidationError, UsageError, RecursionError) as error:
            return Failure("unexpected", str(error)), []
        assert placed.expires_ns is not None
        return Placed(placed.key, placed.expires_ns), self._told(placed)

    def _matches(self, query: Query, limit: int, *, take: bool) -> Matches | Failure:
        if limit < 0:
            return Failure("unexpected", f"a limit of {limit} tuples")
        room, plain, more = SPACE_READ_BYTES, list[Plain](), False
        for key, value in self.space.read(query, limit):
            room -= self.space.tuples[key].size
            if room < 0 and plain:  # One always fits: TUPLE_BYTES_MAX is for what programs send.
                more = True
                break
            plain.append(value)
            if take:
                self.space.delete(key)
        return Matches(tuple(plain), more)

    def _watch(self, query: Query, lease_ns: int, sender: Ref, now_ns: int) -> Watching | Failure:
        try:
            number = self.space.watch(query, sender.party, now_ns, lease_ns)
        except LimitError as error:
            return Failure("queue-full", str(error))
        if sender.path:
            self.watchers[number] = sender.path
        lease = self.space.watches[number].lease
        assert lease is not None
        return Watching(number, lease.expires_ns)

    def _renew(self, request: Renew, sender: Ref, now_ns: int) -> Placed | Failure:
        if not self._is_of(request.key, sender):
            return _NOTHING
        expires_ns = self.space.renew(request.key, sender.party, now_ns, lease_ns_of(request.lease_s))
        return _NOTHING if expires_ns is None else Placed(request.key, expires_ns)

    def _is_of(self, key: int, sender: Ref) -> bool:
        """Return whether this is a tuple, or a watch of just this environment of the party's tree."""
        return key not in self.space.watches or self.watchers.get(key, "") == sender.path

    def _refused(self, query: Query) -> Failure | None:
        """Return why a query must not be asked here; None: it may. One that names no types could mean any."""
        names = types_of(query)
        if names is None:
            return _forbidden(self._kind.name, "tuples of every type")
        for name in names:
            if name not in self._kind.shared:
                return _forbidden(self._kind.name, name)
        return None


_NOTHING: Final = Failure("unknown", "there is no such tuple or watch of yours")


def _forbidden(kind: str, what: str) -> Failure:
    return Failure("forbidden", f"{kind} does not share {what[:100]}")


def lease_ns_of(lease_s: float | None) -> int:
    """Return a duration that somebody gave in seconds; the space brings it within its limits. Whatever the number."""
    if lease_s is None:
        return LEASE_NS_DEFAULT
    return round(min(max(lease_s, 0.0) * SECOND_NS, LEASE_NS_MAX)) if isfinite(lease_s) else LEASE_NS_MAX


def typed(plain: Plain, types: Types) -> Any:
    """Return a tuple as its type, or as a dict of its own if the program does not know that, or knows it otherwise."""
    encoded = _encode(plain)
    kind = types.get(str(plain.get(TYPE_FIELD)))
    if kind is not None:
        try:
            return msgspec.msgpack.decode(encoded, type=kind)
        except msgspec.ValidationError:
            pass
    return msgspec.msgpack.decode(encoded)


def typed_inside(event: Tuple, types: Types) -> Tuple:
    """Return one of HOLDERS with the tuples that it holds typed; what a stranger put in their place stays as it is."""
    match event:
        case Matches(tuples):
            return msgspec.structs.replace(event, tuples=tuple(_typed_any(one, types) for one in tuples))
        case Matched(_, _, held) | LeaseLost(_, held):
            return msgspec.structs.replace(event, event=_typed_any(held, types))
        case _:
            return event


def _typed_any(held: Any, types: Types) -> Any:
    return typed(held, types) if isinstance(held, dict) else held  # pyright: ignore[reportUnknownArgumentType]  As above.
