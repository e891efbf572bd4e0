# SPDX-License-Identifier: Apache-2.0
"""What is refused because a party was forgotten is said when that is committed, and not before."""

import pytest

from atoll.env.doubts import Doubts
from atoll.env.messages import FORGOTTEN, Refusal

ME, ANN, BOB, EVE = b"m" * 16, b"a" * 16, b"b" * 16, b"e" * 16


def refusal(party: bytes, first: int, age_ns: int) -> Refusal:
    return Refusal(ME, party, FORGOTTEN, "so it is", first, age_ns=age_ns)


def test_a_refusal_is_said_when_its_block_is_committed_and_covers_no_more_than_when_it_was_judged() -> None:
    doubts = Doubts()
    assert doubts.due(9, 0) == []
    doubts.note(refusal(ANN, 4, 30), 7, 100)
    doubts.note(refusal(BOB, 1, 40), 8, 110)
    assert doubts.due(6, 120) == []
    assert doubts.due(7, 125) == [refusal(ANN, 4, 55)]
    assert doubts.due(9, 130) == [refusal(BOB, 1, 60)]
    assert doubts.due(9, 140) == []


def test_of_each_party_the_first_one_waits_so_that_who_says_it_again_does_not_wait_for_ever() -> None:
    doubts = Doubts()
    doubts.note(refusal(ANN, 4, 30), 7, 100)
    doubts.note(refusal(ANN, 4, 31), 8, 101)
    assert doubts.due(7, 100) == [refusal(ANN, 4, 30)]
    assert doubts.due(8, 101) == []


def test_so_many_wait_at_most_and_none_when_what_judged_them_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.doubts.DOUBTS_MAX", 2)
    doubts = Doubts()
    for party in (ANN, BOB, EVE):
        doubts.note(refusal(party, 1, 30), 7, 0)
    assert doubts.due(7, 0) == [refusal(ANN, 1, 30), refusal(BOB, 1, 30)]
    doubts.note(refusal(ANN, 1, 30), 7, 0)
    doubts.clear()
    assert doubts.due(7, 0) == []
