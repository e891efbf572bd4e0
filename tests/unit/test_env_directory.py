# SPDX-License-Identifier: Apache-2.0
"""Who runs what, as far as is known here: the higher epoch counts, an end above all, and not everybody is believed."""

import msgspec
import pytest

from atoll.env import directory as directory_module
from atoll.env.directory import Directory
from atoll.env.limits import NAMED_AT_ONCE_NS, OWNERLESS_NS, SILENT_NS
from atoll.env.messages import Notice

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
ONE, TWO, THREE = b"1" * 10, b"2" * 10, b"3" * 10


def notice(
    party: bytes = A,
    epoch: int = 1,
    owner: bytes = ONE,
    name: str = "shop",
    *,
    holders: tuple[bytes, ...] = (),
    ended: bool = False,
    app: str = "Shop",
) -> Notice:
    return Notice(party, epoch, owner, name, app, b"c" * 32, holders or (owner,), ended)


def test_what_is_told_is_found_by_id_and_by_name() -> None:
    directory = Directory()
    assert directory.find(A) is None
    assert directory.named("shop") is None
    assert not directory.ended(A)
    assert directory.note(notice(), 0)
    assert directory.find(A) == directory.named("shop") == notice()


def test_the_same_again_is_no_news() -> None:
    directory = Directory()
    directory.note(notice(), 0)
    assert not directory.note(notice(), 0)


def test_a_higher_epoch_counts_and_a_lower_one_does_not() -> None:
    directory = Directory()
    directory.note(notice(epoch=2, owner=TWO), 0)
    assert not directory.note(notice(epoch=1), 0)
    assert directory.find(A) == notice(epoch=2, owner=TWO)
    assert directory.note(notice(epoch=3), 0)
    assert directory.find(A) == notice(epoch=3)


def test_of_one_epoch_what_was_said_last_counts() -> None:
    directory = Directory()
    directory.note(notice(), 0)
    assert directory.note(notice(name="store"), 0)
    assert directory.named("shop") is None
    assert directory.named("store") is not None


def test_an_end_counts_above_all_and_is_never_taken_back() -> None:
    directory = Directory()
    directory.note(notice(epoch=5), 0)
    assert directory.note(notice(epoch=4, ended=True), 0)
    assert directory.ended(A)
    assert directory.find(A) is None
    assert directory.named("shop") is None
    assert not directory.note(notice(epoch=9), 0)
    assert not list(directory.all())


def test_of_those_that_began_at_once_under_one_name_all_nodes_mean_the_same() -> None:
    for order in ((A, B, C), (B, C, A), (C, B, A)):
        directory = Directory()
        for late_ns, party in enumerate(order):
            directory.note(notice(party), late_ns * NAMED_AT_ONCE_NS // 3)
        assert directory.named("shop") == notice(A)


def test_a_name_stays_with_who_had_it_first_for_as_long_as_that_is_known() -> None:
    directory = Directory()
    directory.note(notice(C), 0)
    for late, party in enumerate((B, A), 1):
        directory.note(notice(party), late * NAMED_AT_ONCE_NS)
    assert directory.named("shop") == notice(C)
    directory.note(notice(A, epoch=2), 9 * NAMED_AT_ONCE_NS)
    directory.note(notice(C, epoch=2), 9 * NAMED_AT_ONCE_NS)
    assert directory.named("shop") == notice(C, epoch=2)
    directory.note(notice(C, epoch=3, ended=True), 9 * NAMED_AT_ONCE_NS)
    assert directory.named("shop") == notice(B), "the next one that was called so"
    directory.note(notice(B, epoch=2, ended=True), 9 * NAMED_AT_ONCE_NS)
    assert directory.named("shop") == notice(A, epoch=2)


def test_nobody_comes_to_a_name_step_by_step() -> None:
    directory = Directory()
    for late, party in enumerate((C, B, A)):
        directory.note(notice(party), late * (NAMED_AT_ONCE_NS - 1))
    assert directory.named("shop") == notice(B), "the one behind it began too late after the first"


def test_who_changes_its_name_comes_after_those_that_are_called_so() -> None:
    directory = Directory()
    directory.note(notice(A, name="mine"), 0)
    directory.note(notice(B), NAMED_AT_ONCE_NS)
    directory.note(notice(A), 2 * NAMED_AT_ONCE_NS)
    assert directory.named("shop") == notice(B)
    assert directory.named("mine") is None


def test_all_are_listed_by_name() -> None:
    directory = Directory()
    for party, name in ((B, "ann"), (A, "zoe"), (b"c" * 16, "ann")):
        directory.note(notice(party, name=name), 0)
    directory.note(notice(b"d" * 16, name="bob", ended=True), 0)
    assert [(one.name, one.id) for one in directory.all()] == [("ann", B), ("ann", b"c" * 16), ("zoe", A)]


def test_more_than_the_limit_are_not_taken_but_those_that_are_known_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "DIRECTORY_MAX", 1)
    directory = Directory()
    assert directory.hear(notice(A), ONE, 0)
    assert not directory.hear(notice(B, owner=TWO), TWO, 0)
    assert directory.find(B) is None
    assert directory.hear(notice(A, epoch=2), ONE, 0)


def test_what_has_ended_makes_room_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "DIRECTORY_MAX", 2)
    directory = Directory()
    directory.note(notice(A), 0)
    directory.note(notice(B), 0)
    directory.note(msgspec.structs.replace(notice(B), ended=True), 0)
    assert directory.note(notice(C), 0)
    assert [one.id for one in directory.all()] == [A, C]


def test_what_runs_here_takes_the_place_of_the_newest_of_who_has_brought_in_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directory_module, "DIRECTORY_MAX", 3)
    directory = Directory()
    directory.hear(notice(A, owner=TWO, name="two"), TWO, 0)
    directory.hear(notice(B, owner=THREE, name="three"), THREE, 0)
    directory.hear(notice(C, owner=TWO, name="more"), TWO, 0)
    assert directory.note(notice(b"d" * 16, name="own"), 0)
    assert [one.name for one in directory.all()] == ["own", "three", "two"]
    assert directory.named("more") is None
    assert directory.named("own") is not None


def test_a_node_takes_the_room_of_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "DIRECTORY_TOLD_MAX", 2)
    directory = Directory()
    heard = [directory.hear(notice(party, owner=TWO), TWO, 0) for party in (A, B, C)]
    assert heard == [True, True, False]
    given_away = notice(A, owner=THREE, epoch=2, holders=(TWO, THREE))
    assert directory.hear(given_away, TWO, 0)
    assert not directory.hear(notice(C, owner=TWO), TWO, 0), "it counts as its own all the same"
    assert directory.hear(notice(b"d" * 16, owner=THREE), THREE, 0)
    assert directory.hear(msgspec.structs.replace(notice(B, owner=TWO), ended=True), TWO, 0)
    assert directory.hear(notice(C, owner=TWO), TWO, 0)


def test_what_a_node_ran_that_left_is_forgotten_unless_a_member_keeps_it() -> None:
    directory = Directory()
    directory.hear(notice(A, owner=TWO), TWO, 0)
    directory.hear(notice(B, owner=TWO, holders=(TWO, THREE)), TWO, 0)
    directory.hear(notice(C, owner=THREE), THREE, 0)
    directory.part({TWO}, {ONE, THREE})
    assert [one.id for one in directory.all()] == [B, C]
    assert not directory.knows(A)


def test_the_name_of_what_nobody_runs_any_more_becomes_free() -> None:
    directory = Directory()
    directory.hear(notice(A, owner=TWO, holders=(TWO, THREE)), TWO, 0)
    directory.prune({ONE, TWO, THREE}, OWNERLESS_NS)
    directory.prune({ONE, THREE}, OWNERLESS_NS - 1)
    assert directory.named("shop") is not None
    directory.prune({ONE, THREE}, OWNERLESS_NS)
    assert directory.named("shop") is None
    assert directory.hear(notice(A, owner=THREE, epoch=2), THREE, OWNERLESS_NS), "who keeps it may run it yet"


# Who is believed.


def kept(directory: Directory, *holders: bytes) -> None:
    """Let ONE run A, kept by these."""
    assert directory.hear(notice(A, holders=(ONE, *holders)), ONE, 0)


def owner_of(directory: Directory) -> bytes:
    found = directory.find(A)
    assert found is not None
    return found.owner


def test_a_node_speaks_for_itself() -> None:
    directory = Directory()
    assert not directory.hear(notice(A, owner=ONE), TWO, 0)
    assert not directory.hear(msgspec.structs.replace(notice(A), ended=True), ONE, 0), "of what was never there"
    assert directory.find(A) is None
    assert not directory.ended(A)
    assert directory.doubted == 2


def test_ownership_passes_to_a_holder() -> None:
    directory = Directory()
    kept(directory, TWO)
    assert not directory.hear(notice(A, owner=THREE, epoch=9), THREE, 0)
    assert owner_of(directory) == ONE
    assert directory.hear(notice(A, owner=TWO, epoch=2), TWO, 0)
    assert owner_of(directory) == TWO


def test_a_holder_may_say_who_owns_it_and_that_it_has_ended() -> None:
    directory = Directory()
    kept(directory, TWO)
    assert directory.hear(notice(A, owner=THREE, epoch=2), TWO, 0)
    assert owner_of(directory) == THREE
    ended = msgspec.structs.replace(notice(A, owner=THREE, epoch=2), ended=True)
    assert not directory.hear(ended, TWO, 0), "it keeps it no more"
    assert directory.hear(ended, THREE, 0)
    assert directory.ended(A)
    assert not directory.hear(notice(A, owner=THREE, epoch=3), THREE, 0)


def test_an_epoch_has_one_owner() -> None:
    directory = Directory()
    kept(directory, TWO)
    assert not directory.hear(notice(A, owner=TWO), TWO, 0)
    assert owner_of(directory) == ONE


def test_a_claim_that_came_before_its_sender_was_known_as_a_holder_counts_then() -> None:
    directory = Directory()
    kept(directory)
    claim = notice(A, owner=THREE, epoch=2, holders=(THREE,))
    assert not directory.hear(claim, THREE, 0)
    assert directory.hear(notice(A, holders=(ONE, TWO)), ONE, 0)
    assert owner_of(directory) == ONE
    assert not directory.hear(claim, THREE, 0)
    assert directory.hear(notice(A, holders=(ONE, THREE)), ONE, 0)
    assert directory.find(A) == claim


def test_a_stranger_is_believed_when_the_owner_was_silent_for_long() -> None:
    directory = Directory()
    kept(directory, TWO)
    assert not directory.hear(notice(A, holders=(ONE, TWO)), ONE, 7), "no news, but a sign of life"
    claim = notice(A, owner=THREE, epoch=2)
    assert not directory.hear(claim, THREE, 6 + SILENT_NS)
    assert not directory.hear(msgspec.structs.replace(claim, ended=True), THREE, 7 + SILENT_NS), "not that it has ended"
    assert directory.hear(claim, THREE, 7 + SILENT_NS)
    assert owner_of(directory) == THREE


def test_parties_are_meant_by_what_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory()
    directory.note(notice(B, name="one"), 0)
    directory.note(notice(A, name="two"), 0)
    directory.note(notice(C, name="three", app="Bank"), 0)
    assert (directory.of_app("Shop"), directory.of_app("Bank"), directory.of_app("Other")) == ((A, B), (C,), ())
    directory.note(notice(A, name="two", epoch=2, app="Bank"), 0)
    assert (directory.of_app("Shop"), directory.of_app("Bank")) == ((B,), (A, C))
    monkeypatch.setattr(directory_module, "FOUND_MAX", 1)
    assert directory.of_app("Bank") == (A,)
    directory.note(notice(A, name="two", epoch=2, app="Bank", ended=True), 0)
    assert directory.of_app("Bank") == (C,)
    directory.part((ONE,), (TWO,))
    assert (directory.of_app("Shop"), directory.of_app("Bank")) == ((), ())


def test_an_owner_that_is_known_to_live_was_not_silent() -> None:
    directory = Directory()
    kept(directory, TWO)
    directory.heard(A, SILENT_NS)
    directory.heard(B, SILENT_NS)
    assert not directory.hear(notice(A, owner=THREE, epoch=2), THREE, 2 * SILENT_NS - 1)
    assert not directory.knows(B)
