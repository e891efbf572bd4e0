# SPDX-License-Identifier: Apache-2.0
"""The accounts of the demo's bidders: what was acknowledged must be in the books, once, and in one history."""

import pytest

from atoll.lab.bidders import Account, account_of, first_answer
from atoll.lab.bids import Books
from atoll.lab.clients import Request

BOOKS = Books({"ann": 3, "bob": 2}, 5, 0, 0)
ANN = ("ann", {1: 1, 2: 3, 3: 5}, 0)
BOB = ("bob", {1: 2, 2: 4}, 0)


def test_bids_that_are_all_in_the_books_once_are_fair() -> None:
    account = account_of(BOOKS, (ANN, BOB))
    assert account == Account(acknowledged=5, failed=0, lost=0, doubled=0, rivals=0)
    assert account.is_fair


def test_a_bid_that_was_acknowledged_and_is_not_in_the_books_is_lost() -> None:
    assert account_of(Books({"ann": 3, "bob": 1}, 4, 0, 0), (ANN, BOB)).lost == 1
    assert account_of(Books({"ann": 3}, 3, 0, 0), (ANN, BOB)).lost == 2
    assert account_of(Books({"ann": 3, "bob": 2}, 4, 0, 1), (ANN, BOB)).lost == 1, "a gap before the last one"


def test_two_bids_in_one_place_were_taken_by_two_owners() -> None:
    account = account_of(BOOKS, (ANN, ("bob", {1: 2, 2: 5}, 0)))
    assert (account.rivals, account.lost, account.is_fair) == (1, 0, False)


def test_doubles_are_those_of_the_books_and_have_no_place() -> None:
    account = account_of(Books({"ann": 3, "bob": 2}, 5, 2, 0), (ANN, ("bob", {1: 0, 2: 0}, 0)))
    assert (account.doubled, account.rivals, account.is_fair) == (2, 0, False)


def test_a_failure_or_nobody_there_is_not_fair() -> None:
    assert not account_of(BOOKS, (ANN, ("bob", {1: 2, 2: 4}, 1))).is_fair
    assert not account_of(BOOKS, ()).is_fair


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ((), None),
        ((Request(1.0, 3.0, answered=True),), None),  # It was on its way already.
        ((Request(2.5, 3.0, answered=False),), None),
        ((Request(2.6, 3.4, answered=True), Request(2.5, 3.5, answered=True)), 3.4),
    ],
)
def test_only_what_was_asked_after_an_instant_is_an_answer(
    requests: tuple[Request, ...], expected: float | None
) -> None:
    assert first_answer(requests, 2.0) == expected
