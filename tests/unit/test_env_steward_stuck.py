# SPDX-License-Identifier: Apache-2.0
"""What nobody can run keeps its name until somebody says that it is lost: by a removal, or where it is kept."""

import pytest

from atoll.base.errors import UsageError, UserError
from atoll.env.beginning import Stuck
from atoll.env.keepers import Peer
from atoll.env.limits import AWAITED_NS
from atoll.env.messages import Notices
from tests.unit.steward_world import ONE, OTHER, THREE, TWO, Group, Place, notice, told_nodes

LOST = {"two": Peer("two", lost=True), "three": Peer("three")}


def refused(place: Place, name: str = "other") -> UserError:
    with pytest.raises(UserError) as caught:
        place.run(name)
    return caught.value


def test_the_only_copy_on_a_node_that_is_lost_keeps_its_name_until_that_node_is_removed() -> None:
    place = Place()
    place.members(two=Peer("two"), three=Peer("three"))
    place.hear(TWO, Notices((notice(),)))
    assert refused(place).where == "", "it runs"
    place.members(**LOST)
    place.tick(AWAITED_NS - 1)
    assert refused(place).where == "", "its path may heal"
    place.tick(1)
    assert refused(place).where == "it cannot run without two, which cannot be reached"
    assert refused(place).fix.endswith("atoll remove two")
    place.members(three=Peer("three"))
    place.run("other")


def test_what_too_few_are_left_of_is_given_up_where_it_is_kept() -> None:
    group = Group("one", "two", "three")
    one, two = group["one"], group["two"]
    identity = one.run("shop", copies=3)
    group.until(lambda: len(one.hosted(identity).holding.holders) == 3)
    group.until(lambda: len(two.hosted(identity).holding.holders) == 3)
    with pytest.raises(UsageError, match="somebody can run it"):
        two.steward.give_up(identity, two.now)
    two.members(one=Peer("one", lost=True), three=Peer("three", lost=True))
    with pytest.raises(UsageError, match="somebody can run it"):
        two.steward.give_up(identity, two.now)
    two.now_ns += AWAITED_NS
    assert refused(two, "shop").fix.endswith("atoll env stop shop --anyway, on two")
    two.steward.give_up(identity, two.now)
    two.settle()
    assert identity not in two.steward.hosted
    ends = [one for _, message in told_nodes(two) if isinstance(message, Notices) for one in message.notices]
    assert [one.id for one in ends if one.ended] == [identity, identity], "both others are told"
    two.run("shop")


def test_only_who_keeps_it_gives_it_up() -> None:
    place = Place()
    place.members(**LOST)
    place.hear(TWO, Notices((notice(),)))
    with pytest.raises(UsageError, match="not kept here"):
        place.steward.give_up(OTHER, place.now)


def test_what_is_kept_here_and_of_which_nobody_tells_is_known_to_wait() -> None:
    group = Group("one", "two", "three")
    one, two = group["one"], group["two"]
    identity = one.run("shop", copies=3)
    group.until(lambda: len(one.hosted(identity).holding.holders) == 3)
    group.until(lambda: len(two.hosted(identity).holding.holders) == 3)
    fresh = Place("two")
    fresh.again(two)
    assert fresh.steward.failed(fresh.now) == (), "nobody has said yet who is there"
    fresh.members(one=Peer("one", lost=True), three=Peer("three"))
    assert fresh.steward.failed(fresh.now) == (), "three and it can choose one"
    fresh.members(one=Peer("one", lost=True), three=Peer("three", lost=True))
    fresh.now_ns += AWAITED_NS
    (waiting,) = fresh.steward.failed(fresh.now)
    assert set(waiting.holders) == {ONE, TWO, THREE}
    assert fresh.steward.stuck(waiting, fresh.now) == Stuck("shop", ("one", "three"), ("two",))
    assert refused(fresh, "shop").where == "it cannot run without one, three, which cannot be reached"
