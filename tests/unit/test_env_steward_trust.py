# SPDX-License-Identifier: Apache-2.0
"""Whom a steward believes: a member speaks for its clients and for what it keeps, and for nothing else."""

import pytest

from atoll.base.errors import UserError
from atoll.base.ids import NodeId
from atoll.env.holding.messages import Canvass, HandOver, HoldingMessage, Promised, Stored
from atoll.env.holding.messages import Store as StoreMessage
from atoll.env.keepers import Peer
from atoll.env.limits import HOPS_MAX, OWNERLESS_NS, SILENT_NS
from atoll.env.messages import Carried, Letter, Notices, Receipt, Refusal
from tests.unit.steward_world import (
    ANN,
    ONE,
    OTHER,
    THREE,
    TWO,
    Add,
    Group,
    Place,
    items,
    letter,
    node_id,
    notice,
    told_nodes,
)


def test_nobody_speaks_in_the_name_of_what_runs_elsewhere() -> None:
    place = Place()
    identity = place.run()
    place.attach()
    place.hear(TWO, Notices((notice(holders=(TWO, node_id("four"))),)))
    for message in (Receipt(OTHER, ANN, 1), Refusal(OTHER, ANN, "unknown", "no", 1), Receipt(identity, ANN, 1)):
        place.hear(THREE, message)
    place.hear(THREE, Carried(OTHER, identity, 1, items(Add(1))))
    assert (place.said(1), place.counter(identity)["n"], place.steward.strange) == ([], 0, 4)
    place.hear(node_id("four"), Carried(OTHER, identity, 1, items(Add(1))))
    assert place.counter(identity)["n"] == 1, "a keeper may have taken over"


@pytest.mark.parametrize("copies", [1, 3])
def test_nobody_who_keeps_nothing_deposes_an_owner_that_lives(copies: int) -> None:
    group = Group("one", "two", "three", "four")
    one = group["one"]
    identity = one.run(copies=copies)
    group.until(lambda: len(one.hosted(identity).holding.holders) == copies)
    end_ns = one.now_ns + 3 * SILENT_NS
    group.until(lambda: one.now_ns >= end_ns)
    holders = one.hosted(identity).holding.holders
    stranger = next(node for node in group.places if node not in holders)
    for place in (group.places[NodeId(node)] for node in holders):
        for ended in (False, True):
            place.hear(stranger, Notices((notice(identity, stranger, epoch=2, ended=ended),)))
        known = place.steward.directory.find(identity)
        assert known is not None
        assert known.owner == one.own
        place.hear(stranger, letter(StoreMessage(2, 0, 0, (), 0, 1, counted=True), identity))
        assert place.hosted(identity).holding.owner == one.own
    assert group.owner(identity) is one


def test_nobody_who_keeps_nothing_speaks_for_a_client_that_is_here() -> None:
    place = Place()
    identity = place.run()
    place.attach()
    place.send(identity, 1, Add(1), ask=1)
    for message in (Carried(ANN, identity, 2, items(Add(1_000))), Receipt(ANN, identity, 1)):
        place.hear(TWO, message)
    assert (place.counter(identity)["n"], place.steward.strange) == (1, 2)
    place.send(identity, 2, Add(5), ask=2)
    assert place.counter(identity)["n"] == 6
    place.steward.detach(ANN, 1)
    place.hear(TWO, Carried(ANN, identity, 3, items(Add(10))))
    assert place.counter(identity)["n"] == 16, "it is behind the other node now"


def test_who_keeps_it_may_bring_what_came_for_it() -> None:
    group = Group("one", "two")
    one = group["one"]
    identity = one.run(copies=2)
    group.until(lambda: len(one.hosted(identity).holding.holders) == 2)
    one.hear(THREE, Notices((notice(owner=THREE),)))
    one.hear(TWO, Carried(OTHER, identity, 1, items(Add(1))))
    group.flow()
    assert one.counter(identity)["n"] == 1


def test_who_gave_it_away_says_who_has_it_now() -> None:
    group = Group("one", "two", "three")
    one, two, three = (group[name] for name in ("one", "two", "three"))
    identity = one.run(copies=1)
    group.flow()
    group.until(lambda: three.steward.directory.find(identity) is not None)
    honest = three.steward.directory.hear
    three.steward.directory.hear = (  # type: ignore[method-assign]  # What the new owner says of itself gets lost.
        lambda notice, node, now_ns: node != TWO and honest(notice, node, now_ns)
    )
    one.steward.move(identity, TWO, 9, one.now)
    group.until(lambda: group.owner(identity) is two)
    group.until(lambda: not one.hosted(identity).ran, seconds=1)
    found = three.steward.directory.find(identity)
    assert found is not None
    assert found.owner == TWO


def test_who_began_it_is_known_where_it_runs_after_a_move() -> None:
    group = Group("one", "two")
    one, two = group["one"], group["two"]
    identity = one.run(copies=1)
    group.flow()
    one.steward.move(identity, TWO, 9, one.now)
    group.until(lambda: group.owner(identity) is two)
    assert two.hosted(identity).facts.origin == ONE


def test_what_a_removed_member_ran_is_forgotten_and_its_name_is_free() -> None:
    place = Place()
    place.members(two=Peer("two"), three=Peer("three"))
    place.hear(TWO, Notices((notice(), notice(b"p" * 16, name="kept", holders=(TWO, THREE)))))
    place.members(three=Peer("three"))
    assert [one.name for one in place.steward.directory.all()] == ["kept"]
    place.run("other")
    with pytest.raises(UserError, match="A606"):
        place.run("kept")
    place.tick(OWNERLESS_NS)
    place.run("kept")


def test_an_end_that_somebody_tells_who_does_not_keep_it_is_not_believed() -> None:
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=1)
    one.hear(THREE, Notices((notice(identity, THREE, epoch=9, name="count", ended=True),)))
    assert identity in one.steward.hosted
    assert one.steward.directory.named("count") is not None
    assert one.steward.directory.doubted == 1
    fresh = Place("one")
    fresh.again(one)
    fresh.is_restoring = False
    fresh.hear(THREE, Notices((notice(identity, THREE, epoch=9, name="count"),)))
    assert fresh.steward.directory.find(identity) != notice(identity, THREE, epoch=9, name="count")


@pytest.mark.parametrize(
    "message",
    [
        StoreMessage(1 << 40, 0, 0, (), 0, 1, counted=True),
        Canvass(1 << 40, 1 << 40, 1 << 40, trial=False, transfer=True),
        Stored(1 << 40, accepted=False, number=0, echo_ns=0),
        Promised(1 << 40, 1, trial=True, granted=False),
        HandOver(1 << 40, (THREE,)),
    ],
)
def test_nobody_owns_or_deposes_who_has_nothing_to_do_with_it(message: HoldingMessage) -> None:
    place = Place()
    identity = place.run()
    epoch = place.hosted(identity).holding.epoch
    place.hear(THREE, letter(message, identity))
    assert place.hosted(identity).holding.epoch == epoch
    assert place.hosted(identity).runner is not None
    assert place.steward.strange == 1


def test_any_member_may_ask_whether_it_would_be_voted_for() -> None:
    place = Place()
    identity = place.run()
    place.hear(THREE, letter(Canvass(9, 0, 0, trial=True, transfer=False), identity))
    assert [type(one) for _, one in told_nodes(place) if isinstance(one, Letter)]
    assert place.steward.strange == 0


def test_what_is_passed_on_is_passed_on_only_so_often() -> None:
    place = Place()
    place.hear(TWO, Notices((notice(),)))
    for hops in range(HOPS_MAX + 1):
        place.hear(THREE, Carried(ANN, OTHER, 1, items(Add(1)), hops))
    assert [message.hops for _, message in told_nodes(place)] == list(range(1, HOPS_MAX + 1))


def test_where_a_client_is_says_its_own_node_best() -> None:
    place = Place()
    place.hear(TWO, Notices((notice(),)))
    where: list[bytes] = []
    for node, hops in ((THREE, 1), (node_id("four"), 0), (THREE, 1), (node_id("five"), 0)):
        place.hear(node, Carried(ANN, OTHER, 1, items(Add(1)), hops))
        place.orders.clear()
        place.hear(TWO, Receipt(OTHER, ANN, 1))
        where.append(told_nodes(place)[-1][0])
    assert where == [THREE, node_id("four"), node_id("four"), node_id("five")]


def test_when_all_who_kept_it_were_replaced_a_stranger_is_believed_after_a_while() -> None:
    before = Group("one", "two")
    identity = before["one"].run(copies=2)
    before.until(lambda: len(before["one"].hosted(identity).holding.holders) == 2)
    place = Place("two")
    place.again(before["two"])
    claim = Notices((notice(identity, THREE, epoch=9, name="count"),))
    place.hear(THREE, claim)
    assert place.steward.directory.find(identity) is None
    place.now_ns += SILENT_NS
    place.hear(THREE, Notices((notice(identity, THREE, epoch=9, name="count", ended=True),)))
    assert not place.steward.directory.ended(identity)
    place.hear(THREE, claim)
    assert place.steward.directory.find(identity) == claim.notices[0]
