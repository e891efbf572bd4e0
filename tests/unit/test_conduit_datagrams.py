# SPDX-License-Identifier: Apache-2.0
"""Datagrams that are acknowledged: two of them and a network between them that loses what it is told to."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from atoll.base.errors import WireError
from atoll.base.ids import NODE_ID_BYTES, NodeId
from atoll.base.units import MILLISECOND_NS
from atoll.conduit.datagrams import (
    ACK_NS,
    BODY_BYTES_MAX,
    HELLO_NS,
    MESSAGE_BYTES_MAX,
    RTO_BEGIN_NS,
    SPAN_MAX,
    TRIES_MAX,
    WINDOW_BEGIN,
    WINDOW_MAX,
    ReliableDatagrams,
    bodies_of,
    messages_of,
)

A, B = NodeId(b"a" * NODE_ID_BYTES), NodeId(b"b" * NODE_ID_BYTES)
HOP_NS = 5 * MILLISECOND_NS


class Pair:
    """Two sides that have met; what one says reaches the other a hop later, unless it is lost."""

    def __init__(self, *, have_met: bool = True) -> None:
        self.now_ns = 1_000
        self.sides = {A: ReliableDatagrams(1), B: ReliableDatagrams(2)}
        self.came: dict[NodeId, list[bytes]] = {A: [], B: []}
        self.sent: list[tuple[NodeId, bytes]] = []
        self.lost: Callable[[NodeId, bytes], bool] = lambda _, __: False
        self._on_way: list[tuple[int, NodeId, bytes]] = []
        if have_met:
            assert not self.send(b"hello")
            self.run(2 * HOP_NS)
            self.sent.clear()

    def send(self, body: bytes, source: NodeId = A) -> bool:
        took = self.sides[source].send(_other(source), body, self.now_ns)
        self._drain()
        return took

    def begin_anew(self, side: NodeId, life: int) -> None:
        self.sides[side] = ReliableDatagrams(life)

    def run(self, duration_ns: int) -> None:
        end_ns = self.now_ns + duration_ns
        while True:
            due = [at for side in self.sides.values() if (at := side.deadline_ns) is not None]
            due += [at for at, _, _ in self._on_way[:1]]
            if not due or min(due) > end_ns:
                break
            self.now_ns = max(self.now_ns, *(min(due),))
            while self._on_way and self._on_way[0][0] <= self.now_ns:
                _, target, payload = self._on_way.pop(0)
                body = self.sides[target].receive(_other(target), payload, self.now_ns)
                if body is not None:
                    self.came[target].append(body)
            for side in self.sides.values():
                side.tick(self.now_ns)
            self._drain()
        self.now_ns = end_ns

    def _drain(self) -> None:
        for name, side in self.sides.items():
            for target, payload in side.outbox:
                assert target == _other(name)
                self.sent.append((target, payload))
                if not self.lost(target, payload):
                    self._on_way.append((self.now_ns + HOP_NS, target, payload))
            side.outbox.clear()


def _other(side: NodeId) -> NodeId:
    return B if side == A else A


def all_lost(target: NodeId, payload: bytes) -> bool:
    return True


def none_lost(target: NodeId, payload: bytes) -> bool:
    return False


def is_data(payload: bytes) -> bool:
    return payload[0] == 1


def test_what_is_said_arrives_once_and_is_acknowledged_without_a_word_of_its_own() -> None:
    pair = Pair()
    assert pair.send(b"hello")
    pair.run(HOP_NS)
    assert pair.send(b"back", source=B)
    pair.run(10 * RTO_BEGIN_NS)
    assert pair.came == {A: [b"back"], B: [b"hello"]}
    assert [is_data(payload) for _, payload in pair.sent] == [True, True, False], "the answer carries the first one's"
    assert all(side.deadline_ns is None for side in pair.sides.values())


def test_an_acknowledgement_waits_a_little_for_something_to_travel_with() -> None:
    pair = Pair()
    pair.send(b"hello")
    pair.run(HOP_NS + ACK_NS - 1)
    assert len(pair.sent) == 1
    pair.run(1)
    assert [target for target, _ in pair.sent] == [B, A]


def test_what_is_lost_is_sent_again_and_comes_once() -> None:
    pair = Pair()
    left = [1]
    pair.lost = lambda target, payload: target == B and is_data(payload) and left.pop() == 1 if left else False
    pair.send(b"hello")
    pair.run(RTO_BEGIN_NS + 2 * HOP_NS)
    assert pair.came[B] == [b"hello"]
    assert pair.sides[A].resent == 1


def test_a_lost_acknowledgement_makes_it_come_twice_but_be_given_once() -> None:
    pair = Pair()
    pair.lost = lambda target, _: target == A
    pair.send(b"hello")
    pair.run(2 * RTO_BEGIN_NS)
    assert sum(is_data(payload) for target, payload in pair.sent if target == B) > 1
    assert pair.came[B] == [b"hello"]


def test_a_gap_is_filled_as_soon_as_three_later_ones_are_acknowledged() -> None:
    pair = Pair()
    pair.lost = lambda _, payload: payload.endswith(b"first")
    pair.send(b"first")
    pair.lost = none_lost
    for number in range(3):
        pair.send(b"%d" % number)
    pair.run(HOP_NS)
    pair.send(b"so far", source=B)  # It carries the acknowledgement.
    pair.run(2 * HOP_NS)
    assert pair.came[B] == [b"0", b"1", b"2", b"first"], "far sooner than after a time-out"


def test_the_time_out_follows_the_round_trip() -> None:
    pair = Pair()
    for number in range(20):
        pair.send(b"%d" % number)
        pair.run(HOP_NS)
        pair.send(b"yes", source=B)
        pair.run(HOP_NS)
    pair.lost = all_lost
    began_ns = pair.now_ns
    pair.send(b"late")
    due_ns = pair.sides[A].deadline_ns
    assert due_ns is not None
    assert 30 * MILLISECOND_NS <= due_ns - began_ns < RTO_BEGIN_NS


def test_what_was_sent_twice_measures_nothing() -> None:
    pair = Pair()
    pair.lost = all_lost
    pair.send(b"hello")
    pair.lost = none_lost
    pair.run(2 * RTO_BEGIN_NS)
    assert pair.came[B] == [b"hello"]
    pair.send(b"more")
    assert pair.sides[A].deadline_ns == pair.now_ns + RTO_BEGIN_NS


def test_nothing_gets_further_ahead_of_what_is_missing_than_can_be_told() -> None:
    pair = Pair()
    pair.lost = lambda _, payload: payload.endswith(b"first")
    pair.send(b"first")
    count = 0
    while count <= SPAN_MAX and pair.send(b"more"):
        count += 1
        pair.run(1)
        pair.send(b"yes", source=B)
        pair.run(HOP_NS + 1)
    assert count == SPAN_MAX
    assert pair.sides[A].deadline_ns is not None


def test_tries_are_ever_further_apart_and_then_it_is_given_up() -> None:
    pair = Pair()
    times: list[int] = []

    def lost(_: NodeId, __: bytes) -> bool:
        times.append(pair.now_ns)
        return True

    pair.lost = lost
    pair.send(b"hello")
    pair.run(20 * RTO_BEGIN_NS)
    assert len(times) == TRIES_MAX
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[0] < gaps[-1]
    assert pair.sides[A].lost == 1
    assert not pair.send(b"more"), "there is nobody"
    pair.lost = none_lost
    pair.run(HELLO_NS)
    assert not pair.send(b"more"), "it asks first"
    pair.run(2 * HOP_NS)
    assert pair.send(b"more")
    pair.run(HOP_NS)
    assert pair.came[B] == [b"more"]


def test_who_is_heard_of_is_spoken_to_again() -> None:
    pair = Pair()
    pair.lost = lambda target, _: target == B
    pair.send(b"hello")
    pair.run(20 * RTO_BEGIN_NS)
    assert not pair.send(b"more")
    pair.send(b"here I am", source=B)
    pair.run(HOP_NS)
    assert pair.send(b"more")


def test_only_a_window_is_on_its_way() -> None:
    pair = Pair()
    pair.lost = all_lost
    assert [pair.send(b"x") for _ in range(WINDOW_BEGIN + 1)] == [True] * WINDOW_BEGIN + [False]


def test_the_window_grows_with_success_to_a_limit_and_halves_with_loss() -> None:
    pair = Pair()

    def room() -> int:
        count = 0
        while pair.send(b"x"):
            count += 1
        return count

    for _ in range(40):
        room()
        pair.run(4 * HOP_NS + ACK_NS)
    assert room() == WINDOW_MAX
    pair.run(4 * HOP_NS + ACK_NS)
    pair.lost = all_lost
    pair.send(b"x")
    pair.run(RTO_BEGIN_NS)
    pair.lost = none_lost
    pair.run(10 * RTO_BEGIN_NS)
    assert room() <= WINDOW_MAX // 2


def test_nothing_is_said_to_who_is_not_known_but_hello() -> None:
    pair = Pair(have_met=False)
    assert [pair.send(b"x") for _ in range(3)] == [False] * 3
    assert [payload[0] for _, payload in pair.sent] == [3]
    pair.run(HOP_NS)
    assert pair.send(b"who asked is known", source=B)
    pair.run(HOP_NS)
    assert pair.send(b"and who answered")


def test_a_side_that_begins_anew_asks_and_is_known_again() -> None:
    pair = Pair()
    for number in range(5):
        pair.send(b"%d" % number, source=B)
    pair.run(10 * HOP_NS)
    pair.begin_anew(B, 3)
    assert not pair.send(b"for another way", source=B)
    pair.run(2 * HOP_NS)
    assert pair.send(b"first of the second life", source=B)
    assert pair.send(b"to it")
    pair.run(10 * HOP_NS)
    assert pair.came[A][-1] == b"first of the second life"
    assert pair.came[B] == [b"to it"]


def test_what_was_for_one_life_is_not_given_to_the_next() -> None:
    pair = Pair()
    pair.lost = lambda target, _: target == A
    pair.send(b"the first life takes it")
    pair.run(HOP_NS)
    assert pair.came[B] == [b"the first life takes it"]
    pair.begin_anew(B, 3)
    pair.lost = none_lost
    pair.run(10 * RTO_BEGIN_NS)
    assert pair.came[B] == [b"the first life takes it"]
    assert pair.sides[A].lost == 1
    assert pair.send(b"to the second")
    pair.run(HOP_NS)
    assert pair.came[B][1:] == [b"to the second"]


def test_what_comes_late_of_a_life_that_is_over_is_not_heard() -> None:
    pair = Pair()
    pair.send(b"late")
    ((_, late),) = pair.sent
    pair.run(10 * HOP_NS)
    pair.begin_anew(A, 9)
    pair.send(b"hello")
    pair.run(2 * HOP_NS)
    pair.sent.clear()
    assert pair.send(b"once")
    ((_, again),) = pair.sent
    pair.run(HOP_NS)
    side = pair.sides[B]
    assert side.receive(A, late, pair.now_ns) is None
    assert side.receive(A, again, pair.now_ns) is None
    assert pair.came[B] == [b"late", b"once"]


def test_an_acknowledgement_for_the_life_before_is_none() -> None:
    pair = Pair()
    pair.send(b"before")
    pair.run(HOP_NS)
    pair.lost = all_lost
    pair.send(b"acknowledges number 1 of the first life", source=B)
    _, stale = pair.sent[-1]
    pair.lost = none_lost
    pair.begin_anew(A, 9)
    pair.send(b"hello")
    pair.run(2 * HOP_NS)
    pair.lost = all_lost
    assert pair.send(b"number 1 of the second")
    pair.lost = none_lost
    assert pair.sides[A].receive(B, stale, pair.now_ns) is None, "nor is it for this life"
    pair.run(2 * RTO_BEGIN_NS)
    assert pair.came[B][-1] == b"number 1 of the second", "it was still to be sent again"


def test_what_is_too_long_is_for_another_way() -> None:
    pair = Pair()
    assert not pair.send(bytes(BODY_BYTES_MAX + 1))
    assert pair.send(bytes(BODY_BYTES_MAX))


def test_who_is_no_member_any_more_is_forgotten() -> None:
    pair = Pair()
    pair.lost = all_lost
    pair.send(b"hello")
    pair.sides[A].keep(frozenset())
    assert pair.sides[A].deadline_ns is None


@pytest.mark.parametrize("payload", [b"", bytes(24), b"\x04" + b"\1" * 24, b"\1" + bytes(24)])
def test_nonsense_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        ReliableDatagrams(1).receive(A, payload, 0)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ((), 0),
        ((0,), 1),
        ((MESSAGE_BYTES_MAX,), 1),
        ((MESSAGE_BYTES_MAX, 0), 2),
        ((600, 600, 1), 1),
        ((600, 600, 2), 2),
        ((100,) * 20, 2),
    ],
)
def test_messages_share_as_few_bodies_as_hold_them(sizes: tuple[int, ...], count: int) -> None:
    messages = [bytes((at,)) * size for at, size in enumerate(sizes)]
    bodies = bodies_of(messages)
    assert len(bodies) == count
    assert all(len(body) <= BODY_BYTES_MAX for body in bodies)
    assert [message for body in bodies for message in messages_of(body)] == messages


@pytest.mark.parametrize("body", [b"\1", b"\1\0", b"\2\0x", b"\1\0x\0"])
def test_a_message_that_is_not_whole_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        messages_of(body)
