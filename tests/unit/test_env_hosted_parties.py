# SPDX-License-Identifier: Apache-2.0
"""What one environment and its parties owe each other: what is asked for, sent again, confirmed and given up."""

import pytest

from atoll.env import inbox as inbox_module
from atoll.env.history import decode_body
from atoll.env.keepers import Peer
from atoll.env.limits import (
    AGAIN_NS,
    CONFIRM_ITEMS,
    CONFIRM_NS,
    DISK_RETRY_NS,
    DOUBT_NS,
    ITEMS_MAX,
    PARTY_KEPT_NS,
    RESEND_NS,
    RESEND_PARCELS_MAX,
    SLEW_PARTS,
)
from atoll.env.messages import FORGOTTEN, Carried, Notices, Receipt, Refusal
from atoll.env.orders import Say
from atoll.env.records import Arrived, Confirmed, Held
from tests.unit.steward_world import (
    ANN,
    BOB,
    OTHER,
    TWO,
    Add,
    Elsewhere,
    Place,
    items,
    notice,
    receipts,
    refusals,
    started,
)


def test_nothing_is_sent_again_before_the_opening_is_durable() -> None:
    before, identity = started()
    before.send(identity, 1, Add(2), ask=1)
    place = Place()
    place.is_restoring = False
    place.again(before)
    place.is_slow = True
    place.restore(place.restoring.pop())
    place.attach()
    assert not place.said(1)
    place.answer()
    place.hear(1, Receipt(ANN, identity, 0, again=True))
    assert place.responses(1)


def test_a_party_is_asked_for_what_is_missing_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "PARTIES_MAX", 1)
    place, identity = started()
    place.attach(BOB, 2)
    for _ in range(3):
        place.send(identity, 3, Add(1))
    assert receipts(place) == [(0, True)]
    place.hear(2, Carried(BOB, identity, 3, items(Add(1))))
    assert receipts(place, 2) == [(0, True)]
    place.tick(AGAIN_NS)
    place.send(identity, 3, Add(1))
    assert receipts(place)[-1] == (0, True)


def test_a_receipt_that_comes_again_and_again_is_recorded_once() -> None:
    place, identity = started()
    for first in range(1, 2 * CONFIRM_ITEMS, ITEMS_MAX):
        place.send(identity, first, *(Add(1) for _ in range(min(ITEMS_MAX, 2 * CONFIRM_ITEMS))), ask=first)
    place.is_full = True
    place.send(identity, 2 * CONFIRM_ITEMS + 1, Add(1))
    assert place.hosted(identity)._hold == "disk"  # pyright: ignore[reportPrivateUsage]
    for _ in range(100):
        place.hear(1, Receipt(ANN, identity, 2 * CONFIRM_ITEMS))
        place.tick(CONFIRM_NS)
    place.is_full = False
    place.tick(DISK_RETRY_NS)
    place.tick(CONFIRM_NS)
    assert [one.upto for one in place.records(identity) if isinstance(one, Confirmed)] == [2 * CONFIRM_ITEMS]


def test_everybody_is_sent_again_what_he_lacks_however_many_are_gone() -> None:
    place, identity = started()
    gone = [number.to_bytes(16, "big") for number in range(2 * RESEND_PARCELS_MAX)]
    for party in gone:
        place.attach(party, 2)
        place.hear(2, Carried(party, identity, 1, items(Add(1), ask=1)))
    place.send(identity, 1, Add(1), ask=1)
    before = len(place.said(1))
    for _ in range(3):
        place.tick(RESEND_NS)
    assert any(isinstance(one, Carried) for one in place.said(1)[before:])


def test_who_asks_again_at_once_is_sent_nothing_more() -> None:
    place, identity = started()
    place.send(identity, 1, Add(1), ask=1)
    before = len(place.said(1))
    for _ in range(5):
        place.hear(1, Receipt(ANN, identity, 0, again=True))
    assert len(place.said(1)) == before + 1
    place.now_ns += AGAIN_NS
    place.hear(1, Receipt(ANN, identity, 0, again=True))
    assert len(place.said(1)) == before + 2


def test_what_waits_while_its_party_is_forgotten_is_taken_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.asking.PARTIES_MAX", 2)
    monkeypatch.setattr("atoll.env.environment.LIVED_STEP_NS", PARTY_KEPT_NS)
    monkeypatch.setattr("atoll.env.hosted.BLOCKS_AHEAD_MAX", 1)
    place, identity = started()
    for session, party in enumerate((ANN, BOB, OTHER), 1):
        place.attach(party, session)

    def add(session: int, first: int, n: int) -> None:
        party = (ANN, BOB, OTHER)[session - 1]
        place.hear(session, Carried(party, identity, first, items(Add(n)), settled=first - 1))

    add(1, 1, 1)
    add(2, 1, 10)
    before = place.counter(identity)["n"]
    place.now_ns += PARTY_KEPT_NS
    place.is_slow = True
    add(2, 2, 100)  # Its block is on its way to the disk, so the others wait; ANN is still known.
    add(3, 1, 1000)  # For whom ANN is forgotten.
    add(1, 2, 10000)
    for _ in range(3):
        place.answer()
    assert place.counter(identity)["n"] == before + 11100
    assert receipts(place)[-1] == (2, False)


def test_what_was_taken_of_a_parcel_counts_once_though_its_party_is_forgotten_while_the_rest_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("atoll.env.asking.PARTIES_MAX", 2)
    monkeypatch.setattr("atoll.env.environment.LIVED_STEP_NS", PARTY_KEPT_NS)
    monkeypatch.setattr("atoll.env.hosted.BLOCKS_AHEAD_MAX", 1)
    place, identity = started()
    for session, party in enumerate((ANN, BOB, OTHER), 1):
        place.attach(party, session)
    place.send(identity, 1, Add(1), Add(10))
    place.hear(2, Carried(BOB, identity, 1, items(Add(0))))
    place.now_ns += PARTY_KEPT_NS
    place.is_slow = True
    place.hear(2, Carried(BOB, identity, 2, items(Add(0)), settled=1))  # While this is on its way, the others wait.
    place.hear(3, Carried(OTHER, identity, 1, items(Add(0))))  # For whom ANN is forgotten.
    place.hear(1, Carried(ANN, identity, 1, items(Add(1), Add(10), Add(100)), age_ns=PARTY_KEPT_NS))
    for _ in range(3):
        place.answer()
    assert place.counter(identity)["n"] == 111
    assert receipts(place)[-1] == (3, False)


def forgotten_ahead(monkeypatch: pytest.MonkeyPatch) -> tuple[Place, bytes, Carried]:
    """Return a node whose environment has forgotten ANN in a block that is on its way, and what it has heard of her."""
    monkeypatch.setattr("atoll.env.asking.PARTIES_MAX", 1)
    monkeypatch.setattr("atoll.env.environment.LIVED_STEP_NS", PARTY_KEPT_NS)
    place, identity = started()
    place.attach()
    place.attach(BOB, 2)
    place.send(identity, 1, Add(1))
    place.now_ns += PARTY_KEPT_NS
    place.is_slow = True
    place.hear(2, Carried(BOB, identity, 1, items(Add(0))))  # For whom ANN is forgotten, in a block on its way.
    late = Carried(ANN, identity, 2, items(Add(10)), settled=1, age_ns=PARTY_KEPT_NS)
    place.hear(1, late)
    return place, identity, late


def test_nobody_hears_that_he_was_forgotten_before_that_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    place, identity, late = forgotten_ahead(monkeypatch)
    place.now_ns += AGAIN_NS
    place.hear(1, late)
    assert refusals(place) == []
    place.answer()
    [refusal] = [one for one in place.said(1) if isinstance(one, Refusal)]
    assert (refusal.code, refusal.first, refusal.age_ns) == (FORGOTTEN, 2, DOUBT_NS + AGAIN_NS)
    place.hear(1, late)
    assert refusals(place) == [FORGOTTEN, FORGOTTEN], "now it is said at once"
    assert place.counter(identity)["n"] == 1


def test_nobody_hears_that_he_was_forgotten_by_what_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    place, identity, late = forgotten_ahead(monkeypatch)
    again = Place()
    again.now_ns = place.now_ns
    again.attach()
    again.again(place)  # Which goes on from what was durable.
    again.hear(1, late)
    assert refusals(place) == refusals(again) == []
    assert again.counter(identity)["n"] == 11


def test_what_a_party_may_have_taken_before_it_forgot_this_one_is_not_sent_again() -> None:
    place, identity = started()
    place.attach()
    for first in (1, 2):
        place.send(identity, first, Add(1), ask=first)
    assert [one.first for one in place.said(1) if isinstance(one, Carried)] == [1, 2]
    place.tick(RESEND_NS)
    again = [one for one in place.said(1) if isinstance(one, Carried)][2:]
    age_ns = RESEND_NS * SLEW_PARTS // (SLEW_PARTS - 1)
    assert [(one.first, one.settled, one.age_ns) for one in again] == [(1, 0, age_ns), (2, 0, age_ns)]
    for first in (1, 1, 0):
        place.hear(1, Refusal(ANN, identity, FORGOTTEN, "", first))
    place.hear(1, Refusal(ANN, identity, "queue-full", "", 2))
    assert [say.text for say in place.got(Say) if "forgot" in say.text] == [
        f"not known whether they came: 1 tuples to {ANN.hex()}, who forgot this one"
    ]
    place.tick(RESEND_NS)
    [last] = [one for one in place.said(1) if isinstance(one, Carried)][4:]
    assert (last.first, last.settled) == (2, 1)


def test_what_is_given_up_is_not_said_to_be_settled_before_that_is_durable() -> None:
    place, identity = started()
    place.attach()
    for first in (1, 2):
        place.send(identity, first, Add(1), ask=first)
    place.is_slow = True
    place.hear(1, Refusal(ANN, identity, FORGOTTEN, "", 1))
    place.hear(1, Receipt(ANN, identity, 0, again=True))
    [one] = [one for one in place.said(1) if isinstance(one, Carried)][2:]
    assert (one.first, one.settled) == (2, 0)
    place.answer()
    place.now_ns += AGAIN_NS
    place.hear(1, Receipt(ANN, identity, 0, again=True))
    [one] = [one for one in place.said(1) if isinstance(one, Carried)][3:]
    assert (one.first, one.settled) == (2, 1)


def test_new_parties_are_taken_however_many_came_while_handlers_were_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "PARTIES_KNOWN_MAX", 20)
    place, far = Place(), Elsewhere()
    identity = place.run(at=far)
    for number in range(1, 16):
        party = bytes([number]) * 16
        place.attach(party, number)
        far.is_slow = True
        place.hear(number, Carried(party, identity, 1, items(Add(1))))
        far.is_slow = False
        place.steward.resume(identity, place.now)
        place.settle()
        assert receipts(place, number) == [(1, False)]
    assert place.counter(identity)["n"] == 15
    assert not place.hosted(identity).filling.inbox._expected  # pyright: ignore[reportPrivateUsage]


def test_a_change_of_holders_goes_with_the_block_that_says_so() -> None:
    place, far = Place(), Elsewhere()
    identity = place.run(at=far)
    place.attach()
    far.is_slow = True
    place.hear(1, Carried(ANN, identity, 1, items(*(Add(1) for _ in range(ITEMS_MAX)))))  # As many as fill a block.
    hosted = place.hosted(identity)
    hosted.filling.change((place.own, TWO))
    far.is_slow = False
    place.steward.resume(identity, place.now)
    place.settle()
    [ahead] = hosted._ahead  # pyright: ignore[reportPrivateUsage]
    assert ahead.holders == (place.own, TWO)
    assert [type(entry.record) for entry in decode_body(ahead.made.body).entries] == [Arrived, Held]


def test_what_was_kept_here_has_its_name_whoever_else_was_heard_to_have_it() -> None:
    before = Place()
    identity = before.run("mine")
    place, other = Place(), bytes(16)
    place.members(two=Peer("two"))
    place.hear(TWO, Notices((notice(other, name="mine"),)))
    assert place.steward.named("mine") == other
    place.again(before)
    assert place.steward.named("mine") == identity
