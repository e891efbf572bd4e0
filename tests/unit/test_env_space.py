# SPDX-License-Identifier: Apache-2.0
"""The tuple space: what is put is read, taken, told of and ends, oldest first, within its limits."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from atoll.base.errors import LimitError, UsageError, WireError
from atoll.base.units import MINUTE_NS, SECOND_NS
from atoll.env.limits import (
    LEASE_NS_DEFAULT,
    LEASE_NS_MAX,
    LEASE_NS_MIN,
    SPACE_BYTES_MAX,
    SPACE_TUPLES_MAX,
    SPACE_WATCHES_MAX,
    TUPLE_BYTES_MAX,
    TUPLE_DEPTH_MAX,
)
from atoll.env.query import Everything, field, where
from atoll.env.space import Ended, Held, Placed, Space, decode_tuple
from atoll.env.tuples import Tuple

ALICE, BOB = b"a" * 16, b"b" * 16


class Bid(Tuple, frozen=True):
    who: str
    amount: int


class Ask(Tuple, frozen=True):
    amount: int


def _restored(space: Space) -> Space:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(space), type=Space)


def _amounts(found: list[tuple[int, Any]]) -> list[int]:
    return [value["amount"] for _, value in found]


def test_what_is_put_is_read_oldest_first() -> None:
    space = Space()
    assert space.read(Everything(), 9) == []
    assert space.put(Bid("alice", 3), 0) == Placed(1, None, ())
    assert space.put({"is": "Ask", "amount": 2}, 0).key == 2
    assert space.put(Bid("bob", 1), 0).key == 3
    assert space.read(where(Bid), 9) == [
        (1, {"is": "Bid", "who": "alice", "amount": 3}),
        (3, {"is": "Bid", "who": "bob", "amount": 1}),
    ]
    assert _amounts(space.read(Everything(), 9)) == [3, 2, 1]
    assert _amounts(space.read(field("amount") < 3, 9)) == [2, 1]
    assert _amounts(space.read(where(Bid) | where(Ask) | where("Gone"), 9)) == [3, 2, 1]
    assert _amounts(space.read(where(Ask) | where("Gone"), 9)) == [2]
    assert space.read(where("Gone"), 9) == []
    assert _amounts(space.read(Everything(), 2)) == [3, 2]
    assert space.read(Everything(), 0) == []
    with pytest.raises(UsageError, match="a limit of -1"):
        space.read(Everything(), -1)


def test_what_is_taken_is_gone_and_its_key_is_not_used_again() -> None:
    space = Space()
    for amount in range(4):
        space.put(Ask(amount), 0)
    assert space.take(where(Ask, field("amount") > 0), 2) == [
        (2, {"is": "Ask", "amount": 1}),
        (3, {"is": "Ask", "amount": 2}),
    ]
    assert _amounts(space.read(where(Ask), 9)) == [0, 3]
    assert space.delete(1)
    assert not space.delete(1)
    assert _amounts(space.take(Everything(), 9)) == [3]
    assert (space.size, space.types, space.tuples) == (0, {}, {})
    assert space.put(Ask(9), 0).key == 5


def test_a_tuple_is_kept_as_a_restore_would_give_it() -> None:
    space = Space()
    when = datetime(2001, 5, 20, tzinfo=UTC)
    items: list[int] = [1]
    space.put({"is": "Odd", "pair": (1, 2), "raw": bytearray(b"x"), "when": when, "items": items, "map": {3: {}}}, 0)
    items.append(2)
    expected: dict[str, Any] = {"is": "Odd", "pair": [1, 2], "raw": b"x", "when": when, "items": [1], "map": {3: {}}}
    assert space.read(Everything(), 1) == [(1, expected)]
    assert _restored(space).read(Everything(), 1) == [(1, expected)]


def test_a_lease_ends_a_tuple() -> None:
    space = Space()
    placed = space.put(Ask(1), 100, 2 * SECOND_NS, ALICE)
    assert placed.expires_ns == space.deadline_ns == 100 + 2 * SECOND_NS
    assert space.expire(99 + 2 * SECOND_NS) == ()
    before = msgspec.msgpack.encode(space)
    assert space.deadline_ns == 100 + 2 * SECOND_NS
    assert msgspec.msgpack.encode(space) == before
    assert space.expire(100 + 2 * SECOND_NS) == (Ended(1, ALICE, {"is": "Ask", "amount": 1}, 100 + 2 * SECOND_NS),)
    assert space.read(Everything(), 9) == []
    assert (space.size, space.types, space.leased) == (0, {}, {})
    assert _restored(space).deadline_ns is None


def test_leases_are_brought_within_the_bounds() -> None:
    space = Space()
    assert LEASE_NS_MIN < LEASE_NS_DEFAULT < LEASE_NS_MAX
    assert space.put(Ask(1), 5, 0).expires_ns == 5 + LEASE_NS_MIN
    assert space.put(Ask(1), 5, 1 << 70).expires_ns == 5 + LEASE_NS_MAX
    assert space.put(Ask(1), 5, LEASE_NS_DEFAULT).expires_ns == 5 + LEASE_NS_DEFAULT
    assert space.renew(1, b"", 5, 1 << 70) == 5 + LEASE_NS_MAX


def test_only_the_owner_renews() -> None:
    space = Space()
    space.put(Ask(1), 0, 2 * SECOND_NS, ALICE)
    assert space.renew(1, BOB, 0, MINUTE_NS) is None
    assert space.renew(1, b"", 0, MINUTE_NS) is None
    assert space.renew(1, ALICE, SECOND_NS, MINUTE_NS) == SECOND_NS + MINUTE_NS
    assert space.expire(MINUTE_NS) == ()
    assert space.renew(1, ALICE, MINUTE_NS, 0) == MINUTE_NS + LEASE_NS_MIN
    assert len(space.expire(MINUTE_NS + LEASE_NS_MIN)) == 1
    assert space.renew(1, ALICE, MINUTE_NS, MINUTE_NS) is None


def test_renewing_gives_a_lease_to_what_had_none() -> None:
    space = Space()
    space.put(Ask(1), 0)
    number = space.watch(Everything(), ALICE, 0, None)
    assert space.renew(1, b"", 0, 2 * SECOND_NS) == 2 * SECOND_NS
    assert space.renew(number, ALICE, 0, 3 * SECOND_NS) == 3 * SECOND_NS
    assert [one.key for one in space.expire(MINUTE_NS)] == [1, number]


def test_a_released_lease_does_not_end_what_comes_after() -> None:
    space = Space()
    space.put(Ask(1), 0, 2 * SECOND_NS)
    space.take(Everything(), 1)
    assert space.deadline_ns is None
    space.put(Ask(2), 0, 5 * SECOND_NS)
    assert space.expire(2 * SECOND_NS) == ()
    assert [one.key for one in space.expire(5 * SECOND_NS)] == [2]


def test_watchers_are_told_of_what_matches_oldest_first() -> None:
    space = Space()
    space.put(Ask(9), 0)
    every = space.watch(Everything(), ALICE, 0, None)
    asks = space.watch(where(Ask, field("amount") > 5), BOB, 0, MINUTE_NS)
    bids = space.watch(where(Bid), b"", 0, None)
    assert (every, asks, bids) == (2, 3, 4)
    assert space.put(Ask(6), 0) == Placed(5, None, ((every, ALICE), (asks, BOB)))
    assert space.put(Bid("bob", 6), 0).told == ((every, ALICE), (bids, b""))
    assert not space.unwatch(every, BOB)
    assert space.unwatch(every, ALICE)
    assert not space.unwatch(every, ALICE)
    assert space.put(Ask(5), 0).told == ()
    assert space.unwatch(asks, BOB)
    assert space.leased == {}
    assert space.put(Ask(6), 0).told == ()


def test_watches_end_and_are_renewed_as_tuples_are() -> None:
    space = Space()
    number = space.watch(where(Ask), ALICE, 0, 2 * SECOND_NS)
    assert space.renew(number, BOB, 0, MINUTE_NS) is None
    assert space.renew(number, ALICE, 0, 3 * SECOND_NS) == 3 * SECOND_NS
    assert space.expire(2 * SECOND_NS) == ()
    assert space.expire(3 * SECOND_NS) == (Ended(number, ALICE, None, 3 * SECOND_NS),)
    assert space.put(Ask(1), 0).told == ()


def test_what_ends_together_ends_by_time_and_then_by_age() -> None:
    space = Space()
    for lease_s in (3, 2, 3):
        space.put(Ask(lease_s), 0, lease_s * SECOND_NS)
    watch = space.watch(where(Ask), ALICE, 0, 2 * SECOND_NS)
    assert [one.key for one in _restored(space).expire(MINUTE_NS)] == [2, watch, 1, 3]
    assert [one.key for one in space.expire(MINUTE_NS)] == [2, watch, 1, 3]


def test_a_full_space_refuses_and_changes_nothing() -> None:
    space = Space()
    big = {"is": "Big", "data": b"x" * (TUPLE_BYTES_MAX - 40)}
    while space.size + TUPLE_BYTES_MAX <= SPACE_BYTES_MAX:
        space.put(big, 0)
    space.put({"is": "Big", "data": b"x" * (SPACE_BYTES_MAX - space.size - 40)}, 0)
    before = msgspec.msgpack.encode(space)
    with pytest.raises(LimitError, match=f"space_bytes_max is {SPACE_BYTES_MAX}"):
        space.put(big, 0, MINUTE_NS)
    assert msgspec.msgpack.encode(space) == before
    space.take(Everything(), 1)
    space.put(big, 0)


def test_the_number_of_tuples_is_bounded() -> None:
    held = Held({"is": "A"}, b"", 0, None)
    space = Space(tuples=dict.fromkeys(range(1, SPACE_TUPLES_MAX + 1), held))
    with pytest.raises(LimitError, match=f"space_tuples_max is {SPACE_TUPLES_MAX}"):
        space.put(Ask(1), 0)


def test_the_number_of_watches_is_bounded() -> None:
    space = Space()
    for _ in range(SPACE_WATCHES_MAX):
        space.watch(where(Ask), ALICE, 0, MINUTE_NS)
    with pytest.raises(LimitError, match=f"space_watches_max is {SPACE_WATCHES_MAX}"):
        space.watch(where(Ask), ALICE, 0, MINUTE_NS)
    assert space.unwatch(1, ALICE)
    assert space.watch(where(Ask), ALICE, 0, MINUTE_NS) == SPACE_WATCHES_MAX + 1


def _nested(depth: int) -> dict[str, Any]:
    inner: Any = []
    for level in range(depth - 2):
        inner = {"deeper": inner} if level % 2 else [inner]
    return {"is": "Deep", "inner": inner}


def test_the_depth_of_a_tuple_is_bounded() -> None:
    space = Space()
    assert space.put(_nested(TUPLE_DEPTH_MAX), 0).key == 1
    assert _restored(space) == space
    with pytest.raises(UsageError, match="nested too deep"):
        space.put(_nested(TUPLE_DEPTH_MAX + 1), 0)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({}, "without a type"),
        ({"is": ""}, "without a type"),
        ({"is": 1}, "without a type"),
        ({"is": "A", "b": object()}, "cannot be written"),
        ({"is": "A", "b": 1 << 64}, "cannot be written"),
        ({"is": "A", "b": "\ud800"}, "cannot be written"),
        ({"is": "A", 1: 2}, "does not decode"),
        ({"is": "A", "b": {((1,),): 2}}, "nested too deep"),
        (_nested(5_000), "cannot be written"),
        ([], "does not decode"),
    ],
)
def test_what_is_no_tuple_is_refused(value: Any, what: str) -> None:
    space = Space()
    with pytest.raises(UsageError, match=what):
        space.put(value, 0)
    assert space == Space()


def test_a_tuple_that_is_too_large_is_refused() -> None:
    with pytest.raises(LimitError, match=f"tuple_bytes_max is {TUPLE_BYTES_MAX}"):
        Space().put({"is": "Big", "data": b"x" * TUPLE_BYTES_MAX}, 0)


def test_an_owner_is_a_party_or_nobody() -> None:
    space = Space()
    with pytest.raises(UsageError, match="a party of 3 bytes"):
        space.put(Ask(1), 0, None, b"bob")
    with pytest.raises(UsageError, match="a party of 3 bytes"):
        space.watch(Everything(), b"bob", 0, None)
    assert space == Space()


def test_a_strangers_tuple_is_decoded_or_refused() -> None:
    assert decode_tuple(msgspec.msgpack.encode(Ask(1))) == {"is": "Ask", "amount": 1}
    for payload in (b"", b"\x90", b"\x80", b"\x81\xa2is\xa0", b"\x81\xa2is\x01", b"\x81\xa2is\xa1A\x00"):
        with pytest.raises(WireError, match="tuple"):
            decode_tuple(payload)
    deep = b"\x82\xa2is\xa1A\xa1b" + b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(WireError, match="tuple does not decode"):
        decode_tuple(deep)
    with pytest.raises(WireError, match="tuple too long"):
        decode_tuple(bytes(TUPLE_BYTES_MAX + 1))
