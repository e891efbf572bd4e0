# SPDX-License-Identifier: Apache-2.0
"""In which pieces items that came together are given, when one of them fails or nobody knows which."""

import msgspec
import pytest

from atoll.base.errors import CorruptError
from atoll.env.pieces import Pieces, take_all
from atoll.env.records import Arrived
from tests.unit.env_world import ANN, Actor, Recorded, Word, arrived, encode, go, item

THREE = encode([[1], [2], [3]])


def given(pieces: Pieces) -> tuple[int, list[list[int]]]:
    record, count = pieces.next()
    assert isinstance(record, Arrived)
    assert record.party == ANN
    items = msgspec.msgpack.decode(record.items)
    assert len(items) == count
    return record.first, items


def test_items_of_which_none_fails_are_given_together_and_as_they_came() -> None:
    pieces = Pieces(ANN, 5, 3, THREE)
    assert (pieces.first, pieces.last) == (5, 7)
    assert pieces.next() == (Arrived(ANN, 5, msgspec.Raw(THREE)), 3)
    assert pieces.took(7)
    assert pieces.took(7)


def test_what_is_behind_one_that_failed_is_given_next() -> None:
    pieces = Pieces(ANN, 5, 3, THREE)
    assert given(pieces) == (5, [[1], [2], [3]])
    assert not pieces.took(5)
    assert given(pieces) == (6, [[2], [3]])
    assert not pieces.took(6)
    assert given(pieces) == (7, [[3]])
    assert pieces.took(7)


def test_those_of_which_none_was_taken_are_given_one_by_one() -> None:
    pieces = Pieces(ANN, 5, 3, THREE)
    pieces.next()
    assert not pieces.took(4)
    for number in (5, 6):
        assert given(pieces) == (number, [[number - 4]])
        assert not pieces.took(number)
        assert not pieces.took(number), "to look twice makes no difference"
    assert given(pieces) == (7, [[3]])
    assert pieces.took(7)


def test_one_by_one_from_the_beginning_but_for_what_was_taken_before() -> None:
    pieces = Pieces(ANN, 5, 3, THREE, is_single=True)
    assert not pieces.took(5)
    assert given(pieces) == (6, [[2]])
    assert not pieces.took(6)
    assert Pieces(ANN, 5, 3, THREE, is_single=True).took(7)


def test_items_behind_a_gap_are_given_all_the_same() -> None:
    pieces = Pieces(ANN, 5, 3, THREE)
    assert not pieces.took(2), "nothing was given yet"
    assert given(pieces) == (5, [[1], [2], [3]])
    assert pieces.took(7)


def test_one_that_is_neither_taken_nor_has_failed_is_not_given_for_ever() -> None:
    pieces = Pieces(ANN, 5, 1, encode([[1]]))
    pieces.next()
    with pytest.raises(CorruptError, match="given alone"):
        pieces.took(4)


def test_a_piece_is_given_once() -> None:
    pieces = Pieces(ANN, 5, 3, THREE)
    pieces.next()
    with pytest.raises(AssertionError, match="not known"):
        pieces.next()


def test_whoever_serves_nobody_else_takes_all_at_once() -> None:
    recorded = Recorded(Actor)

    def fail(_: Actor, __: object) -> None:
        raise ValueError("no")

    take_all(recorded.runner, arrived(1, item(go(fail)), item(Word("a")), item(go(fail)), item(Word("b"))), 5)
    assert recorded.environment.fields()["heard"] == ["a", "b"]
    assert (recorded.runner.failures, recorded.environment.received(ANN)) == (2, 4)
