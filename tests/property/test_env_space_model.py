# SPDX-License-Identifier: Apache-2.0
"""The tuple space against a model that keeps everything in plain lists, through any number of restores."""

from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atoll.base.units import SECOND_NS
from atoll.env.limits import LEASE_NS_MAX, LEASE_NS_MIN
from atoll.env.query import Everything, Query, field, matches, where
from atoll.env.space import Ended, Space

PARTIES = (b"", b"a" * 16, b"b" * 16)
NAMES = ("Bid", "Ask", "Note")

parties = st.sampled_from(PARTIES)
leases = st.one_of(st.none(), st.integers(0, 700 * SECOND_NS), st.sampled_from((2, 3)).map(lambda s: s * SECOND_NS))
plain = st.fixed_dictionaries(
    {"is": st.sampled_from(NAMES), "amount": st.sampled_from((0, 1, 2, True, 1.5, None, "1"))},
    optional={"tags": st.lists(st.sampled_from(("a", "b")), max_size=2), "pair": st.tuples(st.integers(0, 1))},
)
queries: st.SearchStrategy[Query] = st.sampled_from(
    (
        Everything(),
        *(where(name) for name in NAMES),
        where("Bid") | where("Note"),
        where("Ask", field("amount") > 0),
        field("amount") >= 1,
        field("tags").contains("a") | where("Bid"),
        ~where("Bid"),
        where("Gone"),
    )
)
picks = st.integers(0, 12)


@dataclass
class Thing:
    """A tuple, or a watch if it has a query. ``granted`` is the age of its lease."""

    key: int
    owner: bytes
    value: dict[str, Any]
    query: Query | None = None
    expires_ns: int | None = None
    granted: int = 0


class SpaceModel(RuleBasedStateMachine):
    """Everything that can be asked of a space, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.space = Space()
        self.now_ns = 0
        self.issued = 0
        self.grants = 0
        self.things: list[Thing] = []

    def _lease(self, thing: Thing, lease_ns: int | None) -> None:
        if lease_ns is None:
            return
        if thing.expires_ns is None:
            self.grants += 1
            thing.granted = self.grants
        thing.expires_ns = self.now_ns + min(max(lease_ns, LEASE_NS_MIN), LEASE_NS_MAX)

    def _new(self, owner: bytes, value: dict[str, Any], query: Query | None, lease_ns: int | None) -> Thing:
        self.issued += 1
        thing = Thing(self.issued, owner, value, query)
        self._lease(thing, lease_ns)
        self.things.append(thing)
        return thing

    def _matching(self, query: Query, limit: int) -> list[Thing]:
        return [one for one in self.things if one.query is None and matches(query, one.value)][:limit]

    @rule(value=plain, lease_ns=leases, owner=parties)
    def put(self, value: dict[str, Any], lease_ns: int | None, owner: bytes) -> None:
        placed = self.space.put(value, self.now_ns, lease_ns, owner)
        told = [(one.key, one.owner) for one in self.things if one.query is not None and matches(one.query, value)]
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
        thing = self._new(owner, kept, None, lease_ns)
        assert placed == (thing.key, thing.expires_ns, tuple(told))

    @rule(query=queries, watcher=parties, lease_ns=leases)
    def watch(self, query: Query, watcher: bytes, lease_ns: int | None) -> None:
        number = self.space.watch(query, watcher, self.now_ns, lease_ns)
        assert number == self._new(watcher, {}, query, lease_ns).key

    @rule(query=queries, limit=st.integers(0, 4))
    def read(self, query: Query, limit: int) -> None:
        found = self.space.read(query, limit)
        assert found == [(one.key, one.value) for one in self._matching(query, limit)]
        assert msgspec.msgpack.encode(found) == msgspec.msgpack.encode(
            [(one.key, one.value) for one in self._matching(query, limit)]
        )

    @rule(query=queries, limit=st.integers(0, 4))
    def take(self, query: Query, limit: int) -> None:
        expected = self._matching(query, limit)
        assert self.space.take(query, limit) == [(one.key, one.value) for one in expected]
        self.things = [one for one in self.things if one not in expected]

    @rule(key=picks)
    def delete(self, key: int) -> None:
        gone = [one for one in self.things if one.key == key and one.query is None]
        assert self.space.delete(key) is bool(gone)
        self.things = [one for one in self.things if one not in gone]

    @rule(number=picks, watcher=parties)
    def unwatch(self, number: int, watcher: bytes) -> None:
        gone = [one for one in self.things if one.key == number and one.query is not None and one.owner == watcher]
        assert self.space.unwatch(number, watcher) is bool(gone)
        self.things = [one for one in self.things if one not in gone]

    @rule(key=picks, owner=parties, lease_ns=leases.map(lambda lease_ns: lease_ns or 0))
    def renew(self, key: int, owner: bytes, lease_ns: int) -> None:
        things = [one for one in self.things if one.key == key and one.owner == owner]
        for one in things:
            self._lease(one, lease_ns)
        expected = things[0].expires_ns if things else None
        assert self.space.renew(key, owner, self.now_ns, lease_ns) == expected

    @rule(passed_ns=st.one_of(st.integers(0, 5).map(lambda s: s * SECOND_NS), st.integers(0, 700 * SECOND_NS)))
    def expire(self, passed_ns: int) -> None:
        self.now_ns += passed_ns
        due = [
            (one.expires_ns, one.granted, one)
            for one in self.things
            if one.expires_ns is not None and one.expires_ns <= self.now_ns
        ]
        due.sort(key=lambda entry: entry[:2])
        ended = self.space.expire(self.now_ns)
        assert ended == tuple(
            Ended(one.key, one.owner, one.value if one.query is None else None, at_ns) for at_ns, _, one in due
        )
        gone = [one for _, _, one in due]
        self.things = [one for one in self.things if one not in gone]

    @rule()
    def restore(self) -> None:
        snapshot = msgspec.msgpack.encode(self.space)
        self.space = msgspec.msgpack.decode(snapshot, type=Space)
        assert msgspec.msgpack.encode(self.space) == snapshot

    @invariant()
    def agrees(self) -> None:
        before = msgspec.msgpack.encode(self.space)
        times = [one.expires_ns for one in self.things if one.expires_ns is not None]
        assert self.space.deadline_ns == min(times, default=None)
        assert msgspec.msgpack.encode(self.space) == before
        tuples = [one for one in self.things if one.query is None]
        assert self.space.size == sum(len(msgspec.msgpack.encode(one.value)) for one in tuples)
        assert list(self.space.types) == list(dict.fromkeys(self.space.types))
        assert {name: list(keys) for name, keys in self.space.types.items()} == {
            name: [one.key for one in tuples if one.value["is"] == name]
            for name in NAMES
            if any(one.value["is"] == name for one in tuples)
        }
        assert len(self.space.leased) == len(times)


TestSpaceModel = SpaceModel.TestCase
