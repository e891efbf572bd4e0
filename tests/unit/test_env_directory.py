# SPDX-License-Identifier: Apache-2.0
"""Who runs what, as far as is known here: the higher epoch counts, and an end counts above all."""

import pytest

from atoll.env import directory as directory_module
from atoll.env.directory import Directory
from atoll.env.messages import Notice

A, B = b"a" * 16, b"b" * 16
ONE, TWO = b"1" * 10, b"2" * 10


def notice(party: bytes = A, epoch: int = 1, owner: bytes = ONE, name: str = "shop", *, ended: bool = False) -> Notice:
    return Notice(party, epoch, owner, name, "Shop", b"c" * 32, (owner,), ended)


def test_what_is_told_is_found_by_id_and_by_name() -> None:
    directory = Directory()
    assert directory.find(A) is None
    assert directory.named("shop") is None
    assert not directory.ended(A)
    assert directory.note(notice())
    assert directory.find(A) == directory.named("shop") == notice()


def test_the_same_again_is_no_news() -> None:
    directory = Directory()
    directory.note(notice())
    assert not directory.note(notice())


def test_a_higher_epoch_counts_and_a_lower_one_does_not() -> None:
    directory = Directory()
    directory.note(notice(epoch=2, owner=TWO))
    assert not directory.note(notice(epoch=1))
    assert directory.find(A) == notice(epoch=2, owner=TWO)
    assert directory.note(notice(epoch=3))
    assert directory.find(A) == notice(epoch=3)


def test_of_one_epoch_what_was_said_last_counts() -> None:
    directory = Directory()
    directory.note(notice())
    assert directory.note(notice(name="store"))
    assert directory.named("shop") is None
    assert directory.named("store") is not None


def test_an_end_counts_above_all_and_is_never_taken_back() -> None:
    directory = Directory()
    directory.note(notice(epoch=5))
    assert directory.note(notice(epoch=4, ended=True))
    assert directory.ended(A)
    assert directory.find(A) is None
    assert directory.named("shop") is None
    assert not directory.note(notice(epoch=9))
    assert not list(directory.all())


def test_of_two_of_one_name_all_nodes_mean_the_same() -> None:
    for order in ((A, B), (B, A)):
        directory = Directory()
        for party in order:
            directory.note(notice(party))
        assert directory.named("shop") == notice(A)


def test_all_are_listed_by_name() -> None:
    directory = Directory()
    for party, name in ((B, "ann"), (A, "zoe"), (b"c" * 16, "ann")):
        directory.note(notice(party, name=name))
    directory.note(notice(b"d" * 16, name="bob", ended=True))
    assert [(one.name, one.id) for one in directory.all()] == [("ann", B), ("ann", b"c" * 16), ("zoe", A)]


def test_more_than_the_limit_are_not_taken_but_those_that_are_known_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "DIRECTORY_MAX", 1)
    directory = Directory()
    assert directory.note(notice(A))
    assert not directory.note(notice(B))
    assert directory.find(B) is None
    assert directory.note(notice(A, epoch=2))
