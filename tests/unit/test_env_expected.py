# SPDX-License-Identifier: Apache-2.0
"""Of a journal that is here and not taken up yet nothing is believed, nothing is said, and its name is its own."""

import msgspec
import pytest

from atoll.base.errors import UsageError, UserError
from atoll.env.expected import Expected
from atoll.env.graves import Barred
from atoll.env.holding.messages import Canvass
from atoll.env.keepers import Peer
from atoll.env.limits import NOTICE_NS
from atoll.env.messages import Carried, Notices, Refusal
from atoll.env.orders import Create
from tests.unit.steward_world import ANN, ONE, OTHER, THREE, TWO, Add, Place, items, letter, notice, started, told_nodes

NAMELESS = b"n" * 16


def expecting(**members: Peer) -> Place:
    """Return a node that has a journal of OTHER, which is called shop, and has not read it."""
    place = Place()
    place.steward.expected.expect(OTHER, "shop")
    place.members(**members)
    return place


def test_it_is_awaited_until_it_is_taken_up() -> None:
    expected = Expected()
    expected.expect(OTHER, "shop")
    expected.expect(NAMELESS, "")
    assert (len(expected), OTHER in expected, ANN in expected) == (2, True, False)
    assert (expected.named("shop"), expected.named("other"), expected.named("")) == ([OTHER], [], [])
    assert [expected.take(OTHER), expected.take(OTHER), expected.take(NAMELESS)] == [True, False, True]
    assert (len(expected), expected.named("shop")) == (0, [])


@pytest.mark.parametrize("is_known", [True, False])
def test_who_asks_for_a_vote_gets_none_and_it_does_not_begin_anew(*, is_known: bool) -> None:
    place = Place()
    place.members(two=Peer("two"))
    said = Notices((notice(owner=TWO, holders=(TWO, ONE)),))
    if is_known:
        place.hear(TWO, said)
    place.steward.expected.expect(OTHER, "shop")
    place.hear(TWO, said)
    for is_trial in (True, False):
        place.hear(TWO, letter(Canvass(9, 0, 0, trial=is_trial, transfer=False)))
    assert not place.got(Create)
    assert OTHER not in place.steward.hosted
    assert (place.steward.directory.find(OTHER) is not None) == is_known, "who may say so is in the journal"


def test_its_name_is_taken_and_means_it_whoever_says_that_he_has_one_of_that_name() -> None:
    place = expecting(two=Peer("two"))
    assert place.steward.named("shop") == OTHER
    place.hear(TWO, Notices((msgspec.structs.replace(notice(owner=TWO, holders=(TWO,)), id=NAMELESS, name="shop"),)))
    assert place.steward.named("shop") == OTHER
    with pytest.raises(UserError, match="A606"):
        place.run("shop")
    place.steward.expected.take(OTHER)
    assert place.steward.named("shop") == NAMELESS


def test_what_is_sent_to_it_is_not_refused_and_nobody_speaks_in_its_name() -> None:
    place = expecting(two=Peer("two"), three=Peer("three"))
    place.tick(2 * NOTICE_NS)
    place.attach()
    place.send(OTHER, 1, Add(1))
    assert place.said(1) == [], "it is sent again"
    here = place.run("here")
    strange = place.steward.strange
    place.hear(TWO, Carried(OTHER, here, 1, items(Add(5))))
    assert place.steward.strange == strange + 1
    assert place.counter(here)["n"] == 0
    place.hear(THREE, Carried(b"c" * 16, OTHER, 1, items(Add(5))))  # Which is a client of that node.
    assert not [said for _, said in told_nodes(place) if isinstance(said, Refusal)]
    place.steward.expected.take(OTHER)
    place.send(OTHER, 1, Add(1))
    assert [type(message) for message in place.said(1)] == [Refusal], "now it is known that there is none"


def test_when_it_is_taken_up_it_hears_who_was_lost_before() -> None:
    before, identity = started()
    place = Place()
    place.steward.expected.expect(identity, "count")
    place.members(two=Peer("two", lost=True), three=Peer("three"))
    place.again(before)
    assert identity not in place.steward.expected
    suspected = place.hosted(identity).holding._state.suspected  # pyright: ignore[reportPrivateUsage]
    assert list(suspected) == [TWO]
    assert place.steward.named("count") == identity


def test_what_turns_out_to_be_of_no_use_is_not_put_aside_before_others_have_said_again_what_they_run() -> None:
    place = expecting(two=Peer("two"))
    place.tick(2 * NOTICE_NS)
    place.steward.expected.take(OTHER)
    place.steward.graves.bar(Barred(OTHER, "shop", "block 3"))
    place.steward.all_here(place.now)
    with pytest.raises(UsageError, match="it runs elsewhere, or may"):
        place.steward.put_aside(OTHER, place.now)
    place.tick(2 * NOTICE_NS)
    place.steward.put_aside(OTHER, place.now)


def test_who_was_not_told_of_members_yet_knows_no_more_when_all_is_taken_up() -> None:
    place = Place()
    place.steward.graves.bar(Barred(OTHER, "shop", "block 3"))
    place.steward.all_here(place.now)
    place.tick(2 * NOTICE_NS)
    with pytest.raises(UsageError, match="it runs elsewhere, or may"):
        place.steward.put_aside(OTHER, place.now)
