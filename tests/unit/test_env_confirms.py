# SPDX-License-Identifier: Apache-2.0
"""Confirmations wait for each other, and for so long only that nobody has to."""

from atoll.env.confirms import Confirms
from atoll.env.limits import CONFIRM_ITEMS, CONFIRM_NS
from atoll.env.records import Confirmed

ANN, BOB = b"a" * 16, b"b" * 16


def test_confirmations_are_told_together_when_it_is_time() -> None:
    confirms = Confirms()
    confirms.heard(ANN, 0, 0, 1)
    assert confirms.due(CONFIRM_NS + 1) == [], "that was no news"
    for party, upto, now_ns in ((ANN, 3, 5), (BOB, 1, 6), (ANN, 2, 7)):
        confirms.heard(party, upto, 0, now_ns)
    assert (confirms.upto(ANN), confirms.upto(BOB), confirms.upto(b"c" * 16)) == (3, 1, 0)
    assert confirms.deadline_ns == 5 + CONFIRM_NS
    assert confirms.due(5 + CONFIRM_NS - 1) == []
    assert confirms.due(5 + CONFIRM_NS) == [Confirmed(ANN, 3), Confirmed(BOB, 1)]
    assert confirms.due(99 * CONFIRM_NS) == []
    assert confirms.upto(ANN) == 0


def test_that_of_many_items_waits_for_no_other() -> None:
    confirms = Confirms()
    confirms.heard(ANN, 9 + CONFIRM_ITEMS - 1, 9, 5)
    assert confirms.due(6) == []
    for _ in range(3):
        confirms.heard(ANN, 9 + CONFIRM_ITEMS, 9, 6)
    assert confirms.due(6) == [Confirmed(ANN, 9 + CONFIRM_ITEMS)]


def test_nothing_is_left_when_the_environment_goes() -> None:
    confirms = Confirms()
    confirms.heard(ANN, 1, 0, 0)
    confirms.clear()
    assert confirms.deadline_ns is None
    assert confirms.due(CONFIRM_NS) == []
