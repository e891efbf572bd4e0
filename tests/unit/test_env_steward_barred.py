# SPDX-License-Identifier: Apache-2.0
"""A journal that cannot be used is never taken up, keeps its name, and is put aside when its environment has ended."""

import msgspec
import pytest

from atoll.base.errors import UsageError, UserError
from atoll.env.graves import Barred
from atoll.env.keepers import Peer
from atoll.env.limits import AWAITED_NS, NOTICE_NS
from atoll.env.messages import Notices
from atoll.env.orders import Forget
from tests.unit.steward_world import ONE, OTHER, TWO, Place, notice, told_nodes

BARRED = Barred(OTHER, "other", "block 3: its chain does not check")


def barred(**members: Peer) -> Place:
    place = Place()
    place.steward.graves.bar(BARRED)
    place.members(**members)
    return place


def test_its_name_is_kept_until_somebody_ends_it() -> None:
    place = barred(two=Peer("two"))
    with pytest.raises(UserError, match="A606") as caught:
        place.run("other")
    assert BARRED.why in caught.value.where
    with pytest.raises(UsageError, match="it runs elsewhere, or may"):
        place.steward.put_aside(OTHER, place.now)
    place.tick(2 * NOTICE_NS)
    place.steward.put_aside(OTHER, place.now)
    place.settle()
    assert place.got(Forget) == [Forget(OTHER)]
    ((node, message),) = [(node, said) for node, said in told_nodes(place) if isinstance(said, Notices)]
    assert (node, [(one.id, one.ended) for one in message.notices]) == (TWO, [(OTHER, True)])
    place.run("other")


def test_what_runs_elsewhere_is_ended_there_and_put_aside_here() -> None:
    place = barred(two=Peer("two"))
    known = notice(holders=(TWO, ONE))
    place.hear(TWO, Notices((known,)))
    place.tick(2 * NOTICE_NS)
    with pytest.raises(UsageError, match="it runs elsewhere, or may"):
        place.steward.put_aside(OTHER, place.now)
    place.hear(TWO, Notices((msgspec.structs.replace(known, ended=True),)))
    assert place.got(Forget) == [Forget(OTHER)]
    assert place.steward.graves.barred(OTHER) is None
    assert place.steward.graves.is_buried(OTHER)
    place.run("other")


def test_nothing_is_put_aside_before_it_is_known_who_is_there() -> None:
    place = Place()
    place.steward.graves.bar(BARRED)
    with pytest.raises(UsageError, match="it runs elsewhere, or may"):
        place.steward.put_aside(OTHER, place.now)
    place.members()
    place.steward.put_aside(OTHER, place.now)


def test_only_what_cannot_be_used_is_put_aside() -> None:
    place = barred()
    identity = place.run("shop")
    with pytest.raises(UsageError):
        place.steward.put_aside(identity, place.now)


def test_a_node_that_cannot_use_its_journal_does_not_count_among_those_that_could_run_it() -> None:
    place = barred(two=Peer("two"), three=Peer("three"))
    known = notice(holders=(TWO, ONE))
    place.hear(TWO, Notices((known,)))
    place.members(two=Peer("two", lost=True), three=Peer("three"))
    place.now_ns += AWAITED_NS
    stuck = place.steward.stuck(known, place.now)
    assert stuck is not None
    assert (stuck.awaited, stuck.left) == (("two",), ())
