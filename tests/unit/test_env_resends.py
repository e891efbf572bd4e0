# SPDX-License-Identifier: Apache-2.0
"""What is sent again: some at a time, and everybody gets his turn."""

from itertools import pairwise

import pytest

from atoll.env.channel import Parcel
from atoll.env.limits import AGAIN_NS, PARTIES_MAX, RESEND_NS, RESEND_PARCELS_MAX
from atoll.env.messages import FORGOTTEN, Refusal
from atoll.env.resends import Resends, doubtful_upto

ANN, BOB, EVE = b"a" * 16, b"b" * 16, b"e" * 16


def owed(party: bytes, count: int) -> list[tuple[bytes, Parcel]]:
    return [(party, Parcel(first, 1, b"")) for first in range(1, count + 1)]


def nothing(_: bytes) -> int:
    return 0


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


def test_it_is_no_time_any_more_when_all_is_confirmed_or_has_not_left_yet() -> None:
    resends = Resends()
    resends.sent(5)
    assert resends.is_due(5 + RESEND_NS)
    assert resends.chosen(owed(ANN, 2), {}, nothing) == owed(ANN, 2)
    assert resends.chosen(owed(ANN, 2), {}, lambda _: 2, ANN) == []
    assert resends.is_due(5 + 2 * RESEND_NS), "only one was asked for"
    assert resends.chosen(owed(ANN, 2) + owed(BOB, 1), {BOB: 1}, lambda _: 2) == []
    assert not resends.is_due(5 + 9 * RESEND_NS)
    resends.sent(7)
    assert resends.deadline_ns == 7 + RESEND_NS, "now it has left"


def test_many_who_never_confirm_do_not_keep_others_from_their_turn() -> None:
    resends = Resends()
    gone = [number.to_bytes(16, "big") for number in range(3 * RESEND_PARCELS_MAX)]
    all_of_it = [one for party in gone for one in owed(party, 1)] + owed(ANN, 1)
    turns = [resends.chosen(all_of_it, {}, nothing) for _ in range(8)]
    assert all(len(turn) == RESEND_PARCELS_MAX for turn in turns)
    assert sum((ANN, Parcel(1, 1, b"")) in turn for turn in turns) == 2
    for one, two in pairwise(turns[:3]):
        assert not set(one) & set(two)


def test_of_each_party_the_oldest_goes_first() -> None:
    resends = Resends()
    all_of_it = owed(ANN, RESEND_PARCELS_MAX + 5) + owed(BOB, 2)
    assert resends.chosen(all_of_it, {}, nothing) == owed(ANN, RESEND_PARCELS_MAX)
    assert resends.chosen(all_of_it, {}, nothing)[:3] == [*owed(BOB, 2), *owed(ANN, 1)]
    assert resends.chosen([], {}, nothing) == []
    assert resends.chosen(owed(BOB, 1), {}, nothing) == owed(BOB, 1), "whose turn it was is gone"


def test_only_what_may_be_lost_goes_and_only_to_who_asks() -> None:
    resends = Resends()
    all_of_it = owed(ANN, 3) + owed(BOB, 3)
    chosen = resends.chosen(all_of_it, {BOB: 3}, lambda party: 1 if party == BOB else 0, BOB)
    assert chosen == [(BOB, Parcel(2, 1, b""))], "the first one is confirmed, and the third has not left"
    assert resends.chosen(owed(ANN, 2 * RESEND_PARCELS_MAX), {}, nothing, ANN) == owed(ANN, RESEND_PARCELS_MAX)


def test_who_asks_too_often_is_not_heard() -> None:
    resends = Resends()
    assert resends.may_ask(ANN, 0)
    assert not resends.may_ask(ANN, AGAIN_NS // 2 - 1)
    assert resends.may_ask(BOB, AGAIN_NS // 2 - 1)
    assert resends.may_ask(ANN, AGAIN_NS // 2)
    for number in range(PARTIES_MAX):
        assert resends.may_ask(number.to_bytes(16, "big"), AGAIN_NS)
    assert resends.may_ask(ANN, AGAIN_NS // 2), "so many are remembered, and no more"


def test_one_that_is_gone_for_good_does_not_come_first_again_and_again() -> None:
    resends = Resends()
    gone = [number.to_bytes(16, "big") for number in range(RESEND_PARCELS_MAX - 1)]
    here = [bytes([255]) + number.to_bytes(15, "big") for number in range(200)]
    turns = 0
    while here:
        turns += 1
        chosen = resends.chosen([one for party in gone + here for one in owed(party, 1)], {}, nothing)
        here = [party for party in here if party not in {to for to, _ in chosen}]  # They confirm at once.
    assert turns <= 5


def test_nothing_is_kept_of_who_has_confirmed_all() -> None:
    resends = Resends()
    for number in range(9):
        resends.chosen(owed(number.to_bytes(16, "big"), 1) + owed(ANN, 1), {}, nothing)
    assert len(resends._turned) == 2  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("first", "age_ns", "upto"), [(0, 0, 0), (1, 0, 1), (9, 0, 3), (0, 20, 2), (3, 20, 3), (0, 99, 0)]
)
def test_what_may_have_been_taken_is_what_was_refused_and_what_is_as_old(first: int, age_ns: int, upto: int) -> None:
    old = [(ANN, Parcel(number, 1, b"", 10 * number)) for number in (1, 2, 3)]
    refusal = Refusal(ANN, EVE, FORGOTTEN, "", first, 0, age_ns)
    assert doubtful_upto([(BOB, Parcel(7, 1, b"")), *old], refusal, lambda made_ns: 40 - made_ns) == upto
