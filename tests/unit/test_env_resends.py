# SPDX-License-Identifier: Apache-2.0
"""What is sent again: some at a time, and everybody gets his turn."""

from itertools import pairwise

from atoll.env.channel import Parcel
from atoll.env.limits import AGAIN_NS, PARTIES_MAX, RESEND_NS, RESEND_PARCELS_MAX
from atoll.env.resends import Resends

ANN, BOB, EVE = b"a" * 16, b"b" * 16, b"e" * 16


def owed(party: bytes, count: int) -> list[tuple[bytes, Parcel]]:
    return [(party, Parcel(first, 1, b"")) for first in range(1, count + 1)]


def always(_: bytes, __: Parcel) -> bool:
    return True


def test_it_is_time_a_while_after_something_was_sent_and_then_again_and_again() -> None:
    resends = Resends()
    assert not resends.is_due(99 * RESEND_NS)
    resends.sent(5)
    resends.sent(7)
    assert resends.deadline_ns == 5 + RESEND_NS
    assert not resends.is_due(5 + RESEND_NS - 1)
    assert resends.is_due(6 + RESEND_NS)
    assert resends.deadline_ns == 6 + 2 * RESEND_NS
    resends.clear()
    assert not resends.is_due(99 * RESEND_NS)


def test_many_who_never_confirm_do_not_keep_others_from_their_turn() -> None:
    resends = Resends()
    gone = [number.to_bytes(16, "big") for number in range(3 * RESEND_PARCELS_MAX)]
    all_of_it = [one for party in gone for one in owed(party, 1)] + owed(ANN, 1)
    turns = [resends.chosen(all_of_it, always) for _ in range(8)]
    assert all(len(turn) == RESEND_PARCELS_MAX for turn in turns)
    assert sum((ANN, Parcel(1, 1, b"")) in turn for turn in turns) == 2
    for one, two in pairwise(turns[:3]):
        assert not set(one) & set(two)


def test_of_each_party_the_oldest_goes_first() -> None:
    resends = Resends()
    all_of_it = owed(ANN, RESEND_PARCELS_MAX + 5) + owed(BOB, 2)
    assert resends.chosen(all_of_it, always) == owed(ANN, RESEND_PARCELS_MAX)
    assert resends.chosen(all_of_it, always)[:3] == [*owed(BOB, 2), *owed(ANN, 1)]
    assert resends.chosen([], always) == []
    assert resends.chosen(owed(BOB, 1), always) == owed(BOB, 1), "whose turn it was is gone"


def test_only_what_may_be_lost_goes_and_only_to_who_asks() -> None:
    resends = Resends()
    all_of_it = owed(ANN, 3) + owed(BOB, 3)
    assert resends.chosen(all_of_it, lambda _, parcel: parcel.first == 2, BOB) == [(BOB, Parcel(2, 1, b""))]
    assert resends.chosen(owed(ANN, 2 * RESEND_PARCELS_MAX), always, ANN) == owed(ANN, RESEND_PARCELS_MAX)


def test_who_asks_too_often_is_not_heard() -> None:
    resends = Resends()
    assert resends.may_ask(ANN, 0)
    assert not resends.may_ask(ANN, AGAIN_NS // 2 - 1)
    assert resends.may_ask(BOB, AGAIN_NS // 2 - 1)
    assert resends.may_ask(ANN, AGAIN_NS // 2)
    for number in range(PARTIES_MAX):
        assert resends.may_ask(number.to_bytes(16, "big"), AGAIN_NS)
    assert resends.may_ask(ANN, AGAIN_NS // 2), "so many are remembered, and no more"
