# SPDX-License-Identifier: Apache-2.0
"""What an environment keeps for itself and others: tuples by key, with leases, and who wants to be told of new ones.

A ``Space`` is state only; it is part of its environment's snapshot, and one that was read back behaves as the one that
was written. It owns no clock: its environment puts ``deadline_ns`` into its own, and calls ``expire`` when that time
has come. What has run out and was not yet collected is still there, so that what ends, and in which order, depends on
the inputs alone; and to read ``deadline_ns`` changes nothing (``core.lease`` says why).

Tuples are kept as MessagePack gives them, whatever they were given as, so that a query sees the same before and after
a restore. Keys rise and are never used again, and watches have their numbers from the same row: so "oldest first" is
"by key", and everything that ends has one order.

Cost: ``put`` asks every watch; ``read`` and ``take`` look at the tuples of the types that the query names, or at all;
the rest is O(log n).
"""

from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias, final

import msgspec

from atoll.base.errors import LimitError, UsageError, WireError
from atoll.core.codec import Codec
from atoll.core.lease import Lease, LeaseTable
from atoll.env.limits import (
    LEASE_NS_MAX,
    LEASE_NS_MIN,
    SPACE_BYTES_MAX,
    SPACE_TUPLES_MAX,
    SPACE_WATCHES_MAX,
    TUPLE_BYTES_MAX,
    TUPLE_DEPTH_MAX,
)
from atoll.env.parties import PARTY_BYTES
from atoll.env.query import Query, types_of
from atoll.env.tuples import TYPE_FIELD, Tuple

__all__ = ["Ended", "Held", "Placed", "Plain", "Space", "Watch", "decode_tuple"]

Plain: TypeAlias = Mapping[str, object]
"""A tuple as untyped MessagePack decodes it, its type under ``is``. Never change one: the space may have it too."""

_encoder: Final = msgspec.msgpack.Encoder()
_CODEC: Final[Codec[dict[str, Any]]] = Codec(dict[str, Any], bytes_max=TUPLE_BYTES_MAX, name="tuple")


class Placed(NamedTuple):
    """What became of a tuple that was put.

    Attributes:
        key: Its key.
        expires_ns: When its lease ends; None: it has none.
        told: Number and watcher of the watches that match it, oldest first.
    """

    key: int
    expires_ns: int | None
    told: tuple[tuple[int, bytes], ...]


class Ended(NamedTuple):
    """Something whose lease has run out.

    Attributes:
        key: Key of the tuple, or number of the watch.
        owner: Whose it was, or who watched.
        value: The tuple; None: it was a watch.
        expires_ns: When its lease ended.
    """

    key: int
    owner: bytes
    value: Plain | None
    expires_ns: int


class Held(msgspec.Struct, array_like=True):
    """A tuple in a space.

    Attributes:
        value: Its plain form.
        owner: The party that put it, and may renew its lease; empty: the environment itself.
        size: Its encoding, bytes.
        lease: Until when it is there; None: until it is taken or deleted.
    """

    value: dict[str, Any]
    owner: bytes
    size: int
    lease: Lease | None


class Watch(msgspec.Struct, array_like=True):
    """Somebody who is told of every tuple that matches.

    Attributes:
        query: Which.
        watcher: The party; empty: the environment itself.
        lease: Until when; None: until ``unwatch``.
    """

    query: Query
    watcher: bytes
    lease: Lease | None


@final
class Space(msgspec.Struct):
    """All tuples and watches of one environment.

    Attributes:
        issued: Keys and numbers given so far; the last one.
        size: Encodings of all tuples, bytes.
        tuples: Tuple by key, oldest first.
        types: By name of a type, the keys of its tuples, oldest first; no type without a tuple.
        watches: Watch by number, oldest first.
        leases: Those of tuples and watches.
        leased: Key or number by slot of its lease.
    """

    issued: int = 0
    size: int = 0
    tuples: dict[int, Held] = msgspec.field(default_factory=dict[int, Held])
    types: dict[str, dict[int, None]] = msgspec.field(default_factory=dict[str, dict[int, None]])
    watches: dict[int, Watch] = msgspec.field(default_factory=dict[int, Watch])
    leases: LeaseTable = msgspec.field(default_factory=lambda: LeaseTable(SPACE_TUPLES_MAX + SPACE_WATCHES_MAX))
    leased: dict[int, int] = msgspec.field(default_factory=dict[int, int])

    @property
    def deadline_ns(self) -> int | None:
        """When the next lease runs out; None: there is none. Call ``expire`` then."""
        return self.leases.deadline_ns

    def put(self, value: Plain | Tuple, now_ns: int, lease_ns: int | None = None, owner: bytes = b"") -> Placed:
        """Add a tuple.

        Args:
            value: The tuple, or its plain form. What is kept is a copy.
            now_ns: The environment's time.
            lease_ns: How long; brought within LEASE_NS_MIN and LEASE_NS_MAX. None: until it is taken or deleted.
            owner: The party that puts it, 16 bytes; empty: the environment itself.

        Raises:
            LimitError: The tuple is too large, or the space is full. Nothing changed.
            UsageError: It is no tuple (``decode_tuple`` says what that is), or the owner is no party.
        """
        plain, size = _plain(value)
        _check_party(owner)
        if len(self.tuples) >= SPACE_TUPLES_MAX:
            raise LimitError("space_tuples_max", SPACE_TUPLES_MAX)
        if self.size + size > SPACE_BYTES_MAX:
            raise LimitError("space_bytes_max", SPACE_BYTES_MAX)
        key = self._issue()
        lease = None if lease_ns is None else self._grant(key, now_ns, lease_ns)
        held = Held(plain, owner, size, lease)
        self.tuples[key] = held
        self.types.setdefault(plain[TYPE_FIELD], {})[key] = None
        self.size += size
        told = tuple((number, watch.watcher) for number, watch in self.watches.items() if watch.query.holds(plain))
        return Placed(key, None if lease is None else lease.expires_ns, told)

    def read(self, query: Query, limit: int) -> list[tuple[int, Plain]]:
        """Return key and plain form of the tuples that match, oldest first, at most ``limit``.

        Raises:
            UsageError: The limit is negative.
        """
        if limit < 0:
            raise UsageError(f"a limit of {limit} tuples")
        return list(islice(self._matching(query), min(limit, SPACE_TUPLES_MAX)))

    def take(self, query: Query, limit: int) -> list[tuple[int, Plain]]:
        """Return what ``read`` would, and remove it.

        Raises:
            UsageError: The limit is negative.
        """
        taken = self.read(query, limit)
        for key, _ in taken:
            self.delete(key)
        return taken

    def delete(self, key: int) -> bool:
        """Remove a tuple, whoever owns it. False: it is not there, which is harmless."""
        held = self.tuples.pop(key, None)
        if held is None:
            return False
        self._forget(key, held)
        self._release(held.lease)
        return True

    def watch(self, query: Query, watcher: bytes, now_ns: int, lease_ns: int | None) -> int:
        """Have a party told of every tuple that is put from now on and matches; return the watch's number.

        Args:
            query: Which tuples.
            watcher: The party, 16 bytes; empty: the environment itself.
            now_ns: The environment's time.
            lease_ns: How long, as in ``put``; None: until ``unwatch``.

        Raises:
            LimitError: The space has SPACE_WATCHES_MAX watches. Nothing changed.
            UsageError: The watcher is no party.
        """
        _check_party(watcher)
        if len(self.watches) >= SPACE_WATCHES_MAX:
            raise LimitError("space_watches_max", SPACE_WATCHES_MAX)
        number = self._issue()
        lease = None if lease_ns is None else self._grant(number, now_ns, lease_ns)
        self.watches[number] = Watch(query, watcher, lease)
        return number

    def unwatch(self, number: int, watcher: bytes) -> bool:
        """End a watch. False: it is over, or is not this party's, who must not know which."""
        watch = self.watches.get(number)
        if watch is None or watch.watcher != watcher:
            return False
        del self.watches[number]
        self._release(watch.lease)
        return True

    def copied(self, before: bytes, after: bytes) -> list[int]:
        """Be the space of a copy: no party outside is told of anything any more; return the watches that have ended.

        Args:
            before: The party whose tree this was; its own watches go on,
            after: as those of this one.
        """
        ended: list[int] = []
        for number, watch in tuple(self.watches.items()):
            if watch.watcher == before:
                watch.watcher = after
            elif watch.watcher:
                self.unwatch(number, watch.watcher)
                ended.append(number)
        return ended

    def renew(self, key: int, owner: bytes, now_ns: int, lease_ns: int) -> int | None:
        """Let a tuple or a watch last until ``lease_ns`` from now, also when that is sooner; return when that is.

        One that had no lease has one then.

        Args:
            key: Key of the tuple or number of the watch.
            owner: Who asks: only the owner of a tuple, or the watcher, may.
            now_ns: The environment's time.
            lease_ns: How long, as in ``put``.

        Returns:
            None when there is no such thing of this party's: it has to put or watch again.
        """
        thing = self.tuples.get(key) or self.watches.get(key)
        if thing is None or (thing.owner if isinstance(thing, Held) else thing.watcher) != owner:
            return None
        renewed = None if thing.lease is None else self.leases.renew(thing.lease, now_ns, _within(lease_ns))
        if renewed is None:  # It had none: what has a lease is held until it was collected.
            renewed = self._grant(key, now_ns, lease_ns)
        thing.lease = renewed
        return renewed.expires_ns

    def expire(self, now_ns: int) -> tuple[Ended, ...]:
        """Remove every tuple and watch whose lease has run out; return them by time, then by age of the lease."""
        ended: list[Ended] = []
        for lease in self.leases.expire(now_ns):
            key = self.leased.pop(lease.id)
            held = self.tuples.pop(key, None)
            if held is None:
                ended.append(Ended(key, self.watches.pop(key).watcher, None, lease.expires_ns))
            else:
                self._forget(key, held)
                ended.append(Ended(key, held.owner, held.value, lease.expires_ns))
        return tuple(ended)

    def _matching(self, query: Query) -> Iterator[tuple[int, Plain]]:
        for key in self._candidates(query):
            value = self.tuples[key].value
            if query.holds(value):
                yield key, value

    def _candidates(self, query: Query) -> Iterable[int]:
        """Return keys, oldest first, such that no tuple with another key can match."""
        names = types_of(query)
        if names is None:
            return self.tuples
        rows = [self.types[name] for name in names if name in self.types]
        return rows[0] if len(rows) == 1 else merge(*rows)

    def _issue(self) -> int:
        self.issued += 1
        return self.issued

    def _grant(self, key: int, now_ns: int, lease_ns: int) -> Lease:
        lease = self.leases.grant(now_ns, _within(lease_ns))
        self.leased[lease.id] = key
        return lease

    def _release(self, lease: Lease | None) -> None:
        if lease is not None:
            self.leases.release(lease)
            del self.leased[lease.id]

    def _forget(self, key: int, held: Held) -> None:
        """Take a tuple that is not there any more out of the index and the sum."""
        name = held.value[TYPE_FIELD]
        del self.types[name][key]
        if not self.types[name]:
            del self.types[name]
        self.size -= held.size
        assert self.size >= 0


def decode_tuple(payload: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Return the plain form of a tuple that a stranger sent: what ``Space.put`` takes.

    Raises:
        WireError: Longer than TUPLE_BYTES_MAX, not MessagePack, no map by texts, without a type under ``is``, nested
            deeper than TUPLE_DEPTH_MAX, or with a list for a key. Nothing else is ever raised.
    """
    plain = _CODEC.decode(payload)
    name = plain.get(TYPE_FIELD)
    if not isinstance(name, str) or not name:
        raise WireError("tuple without a type")
    if not _is_shallow(plain):
        raise WireError("tuple nested too deep")
    return plain


def _plain(value: Plain | Tuple) -> tuple[dict[str, Any], int]:
    """Return the plain form of a tuple and the length of its encoding."""
    try:
        payload = _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise UsageError(f"a tuple that cannot be written: {error}") from error
    if len(payload) > TUPLE_BYTES_MAX:
        raise LimitError("tuple_bytes_max", TUPLE_BYTES_MAX)
    try:
        return decode_tuple(payload), len(payload)
    except WireError as error:
        raise UsageError(f"this is no tuple: {error.reason}") from error


def _is_shallow(plain: dict[str, Any]) -> bool:
    """Return whether a tuple can be written and read at any place of any stack."""
    level: list[Any] = [plain]
    for _ in range(TUPLE_DEPTH_MAX):
        below: list[Any] = []
        for one in level:
            if one.__class__ is dict:
                if tuple in map(type, one):  # A key that is a list comes as a tuple, and may hold further ones.
                    return False
                one = one.values()  # noqa: PLW2901 -- what is in it, as in a list.
            below += [item for item in one if item.__class__ in {dict, list}]
        if not below:
            return True
        level = below
    return False


def _within(lease_ns: int) -> int:
    return min(max(lease_ns, LEASE_NS_MIN), LEASE_NS_MAX)


def _check_party(party: bytes) -> None:
    if len(party) not in {0, PARTY_BYTES}:
        raise UsageError(f"a party of {len(party)} bytes")
