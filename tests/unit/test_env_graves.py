# SPDX-License-Identifier: Apache-2.0
"""What is not taken up again is remembered, as far as there is room, and who speaks of it is told."""

import pytest

from atoll.env import graves as graves_module
from atoll.env.graves import Barred, Graves
from tests.unit.steward_world import ONE, OTHER, notice

A, B = b"a" * 16, b"b" * 16


def test_what_ended_here_is_told_as_it_was_and_what_ended_before_as_far_as_it_is_known() -> None:
    graves = Graves(ONE)
    ended = notice(ended=True)
    graves.end(ended)
    graves.bury(A)
    assert graves.is_buried(OTHER)
    assert graves.is_buried(A)
    assert not graves.is_buried(B)
    assert graves.over() == (ended,)
    assert graves.tombstone(OTHER) == ended
    told = graves.tombstone(A)
    assert (told.id, told.owner, told.ended) == (A, ONE, True)


def test_what_cannot_be_used_is_barred() -> None:
    graves = Graves(ONE)
    barred = Barred(A, "shop", "it is damaged")
    graves.bar(barred)
    assert (graves.barred(A), graves.barred(B)) == (barred, None)
    assert graves.all_barred() == (barred,)
    graves.release(A)
    graves.release(B)
    assert graves.all_barred() == ()


def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graves_module, "DIRECTORY_MAX", 2)
    monkeypatch.setattr(graves_module, "OVER_MAX", 1)
    graves = Graves(ONE)
    for identity in (A, B, OTHER):
        graves.end(notice(identity, ended=True))
    assert [graves.is_buried(identity) for identity in (A, B, OTHER)] == [False, True, True]
    assert [one.id for one in graves.over()] == [OTHER]
