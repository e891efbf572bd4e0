# SPDX-License-Identifier: Apache-2.0
"""Where a peer is, against docs/spec/relay.md, section 5."""

from collections.abc import Callable

import pytest

from atoll.base.ids import Endpoint
from atoll.device.nic.whereabouts import MARKS_TO_ASK, MARKS_TO_MOVE, SILENT_ASKS, SUGGESTED_MAX, Whereabouts

HOME: Endpoint = ("192.0.2.1", 1)
AWAY: Endpoint = ("192.0.2.2", 2)
THIRD: Endpoint = ("192.0.2.3", 3)


def proven(endpoint: Endpoint = HOME) -> Whereabouts:
    where = Whereabouts()
    assert where.list((endpoint,), up=False)
    assert where.marked(endpoint)
    return where


def test_the_first_listed_place_is_a_guess() -> None:
    where = Whereabouts()
    assert where.known() == ()
    assert where.list((HOME, AWAY), up=False)
    assert not where.list((HOME, AWAY), up=False)
    assert (where.endpoint, where.proven, where.known()) == (HOME, False, (HOME, AWAY))


def test_a_list_moves_no_live_session() -> None:
    where = proven()
    assert where.list((AWAY,), up=True)
    assert (where.endpoint, where.proven, where.known()) == (HOME, True, (HOME, AWAY))
    assert where.list((THIRD,), up=False)
    assert (where.endpoint, where.proven, where.known()) == (THIRD, False, (THIRD, HOME))
    assert where.list((), up=False)
    assert where.endpoint == THIRD, "an empty list says nothing"


def test_a_call_gives_a_place_only_to_who_has_none() -> None:
    where = Whereabouts()
    assert where.called(AWAY)
    assert (where.endpoint, where.proven) == (AWAY, False)
    where = proven()
    assert not where.called(HOME)
    assert where.proven
    assert not where.called(AWAY)
    assert (where.endpoint, where.proven) == (HOME, False)


@pytest.mark.parametrize(
    ("source", "moves"), [(HOME, False), (AWAY, True), (THIRD, False)], ids=["first", "listed", "elsewhere"]
)
def test_an_answer_moves_a_guess_to_where_we_called(source: Endpoint, moves: bool) -> None:
    where = Whereabouts()
    where.list((HOME, AWAY), up=False)
    assert where.answered(source) is moves
    assert where.endpoint == (AWAY if moves else HOME)


def test_an_answer_moves_nothing_that_is_proven() -> None:
    where = proven()
    where.list((AWAY,), up=True)
    assert not where.answered(AWAY)
    assert where.endpoint == HOME


def test_an_answer_is_a_place_for_who_has_none() -> None:
    where = Whereabouts()
    assert where.answered(AWAY)
    assert where.endpoint == AWAY


def test_the_first_mark_decides_over_a_guess() -> None:
    where = Whereabouts()
    where.list((HOME,), up=False)
    assert where.marked(AWAY)
    assert (where.endpoint, where.good, where.proven) == (AWAY, AWAY, True)
    assert not where.marked(AWAY), "no news"


def test_marks_in_a_row_move_what_is_proven() -> None:
    where = proven()
    assert [where.marked(AWAY) for _ in range(MARKS_TO_MOVE)] == [False] * (MARKS_TO_MOVE - 1) + [True]
    assert (where.endpoint, where.good, where.rival) == (AWAY, AWAY, None)


@pytest.mark.parametrize("between", [HOME, THIRD], ids=["the old place", "yet another"])
def test_a_mark_from_elsewhere_breaks_the_row(between: Endpoint) -> None:
    where = proven()
    for _ in range(10):
        for _ in range(MARKS_TO_MOVE - 1):
            assert not where.marked(AWAY)
        assert not where.marked(between)
    assert where.endpoint == HOME


def test_a_rival_is_asked_from_its_second_mark_on() -> None:
    where = proven()
    asked: list[tuple[Endpoint, ...]] = []
    for _ in range(MARKS_TO_ASK):
        asked.append(where.asked())
        where.marked(AWAY)
    assert asked == [()] * MARKS_TO_ASK
    assert where.asked() == (AWAY,)
    where.marked(HOME)
    assert where.asked() == ()


def test_after_a_call_from_elsewhere_the_true_place_is_proven_again() -> None:
    """A relay that takes the frame off a call makes one mark decide, and that is the peer's own."""
    where = proven()
    steps: list[Callable[[], bool]] = [lambda: where.called(AWAY), lambda: where.marked(HOME)]
    for _ in range(5):
        for step in steps:
            step()
        assert (where.endpoint, where.proven) == (HOME, True)


def test_until_a_place_is_proven_all_that_may_be_it_are_asked() -> None:
    where = Whereabouts()
    where.list((HOME, AWAY), up=False)
    for number in range(SUGGESTED_MAX + 1):
        where.suggest((f"198.51.100.{number}", 9))
    newest = [(f"198.51.100.{number}", 9) for number in range(SUGGESTED_MAX, 0, -1)]
    asked = [where.asked() for _ in range(4)]
    assert asked == [(*newest, AWAY), tuple(newest), (*newest, AWAY), tuple(newest)]
    assert where.known() == (HOME, AWAY, *newest)
    assert where.marked(newest[0])  # It was there.
    assert where.endpoint == newest[0]
    assert where.asked() == ()


def test_a_suggestion_moves_nothing_by_itself_and_ends_with_the_next_mark() -> None:
    where = proven()
    where.suggest(AWAY)
    assert (where.endpoint, where.proven, where.asked()) == (HOME, True, (AWAY,))
    where.marked(HOME)
    assert where.asked() == ()


def test_a_proven_place_that_fell_silent_is_not_asked_alone() -> None:
    """Whoever got himself taken for the direct way must keep bringing marks, or the listed places come into play."""
    where = Whereabouts()
    where.list((HOME,), up=False)
    where.marked(AWAY)
    assert [where.asked() for _ in range(SILENT_ASKS - 1)] == [()] * (SILENT_ASKS - 1)
    assert where.asked() == (HOME,)
    where.marked(AWAY)
    assert where.asked() == ()


# TCP, the last resort.

OVER: Endpoint = ("tcp/192.0.2.1", 443)
OVER_TOO: Endpoint = ("tcp/192.0.2.1", 7747)
CALLER: Endpoint = ("tcp/192.0.2.1", 50_000)


def carried() -> Whereabouts:
    where = Whereabouts()
    where.list((HOME, AWAY, OVER), up=False)
    assert where.marked(CALLER)
    return where


def test_what_is_listed_over_tcp_is_no_guess() -> None:
    where = Whereabouts()
    assert where.list((OVER, HOME), up=False)
    assert not where.list((HOME, OVER), up=False), "the order of the two kinds says nothing"
    assert (where.endpoint, where.listed, where.listed_tcp, where.known()) == (HOME, (HOME,), (OVER,), (HOME,))
    where = Whereabouts()
    where.list((OVER,), up=False)
    assert where.endpoint is None


def test_tcp_is_asked_only_after_a_long_silence_each_place_in_turn() -> None:
    where = Whereabouts()
    where.list((HOME, OVER, OVER_TOO), up=False)
    before = [where.asked() for _ in range(SILENT_ASKS - 1)]
    assert not any(OVER in places or OVER_TOO in places for places in before)
    assert {place for _ in range(4) for place in where.asked()} == {OVER, OVER_TOO}
    where.marked(HOME)
    assert where.asked() == ()


def test_an_answer_over_tcp_is_a_place() -> None:
    where = Whereabouts()
    where.list((HOME, OVER), up=False)
    assert where.answered(OVER)
    assert where.is_carried
    assert not where.proven


def test_while_tcp_is_in_use_each_place_over_udp_is_tried_and_the_first_that_answers_wins() -> None:
    where = carried()
    assert {where.trial() for _ in range(4)} == {HOME, AWAY}
    assert not where.passed(OVER), "another stream is no better"
    assert where.passed(AWAY)
    assert (where.endpoint, where.proven, where.is_carried) == (AWAY, True, False)
    assert not where.passed(HOME), "nothing is asked while UDP is in use"


def test_a_connection_that_ended_is_forgotten() -> None:
    where = carried()
    where.lost(OVER)
    assert where.endpoint == CALLER, "that was another one"
    where.lost(CALLER)
    assert (where.endpoint, where.proven, where.good) == (HOME, False, None)
    where = proven(OVER_TOO)
    for _ in range(MARKS_TO_ASK):
        where.marked(CALLER)
    assert where.asked() == (CALLER,)
    where.list((HOME,), up=True)
    where.lost(CALLER)
    assert (where.endpoint, where.rival) == (OVER_TOO, None)
    where.lost(OVER_TOO)
    assert (where.endpoint, where.proven) == (HOME, False)


def test_marks_over_tcp_move_nothing_while_udp_is_heard() -> None:
    where = proven()
    assert not any(where.marked(CALLER) for _ in range(10 * MARKS_TO_MOVE))
    assert where.asked() == ()
    for _ in range(SILENT_ASKS):
        where.asked()
    assert [where.marked(CALLER) for _ in range(MARKS_TO_MOVE)] == [False] * (MARKS_TO_MOVE - 1) + [True]
    assert where.is_carried
