# SPDX-License-Identifier: Apache-2.0
"""What others may do with a space: only with what is shared, only for a while, and never more than a response holds."""

from typing import Any, ClassVar

import pytest

from atoll.base.errors import LimitError, UsageError
from atoll.base.units import SECOND_NS
from atoll.env.app import App, program_of
from atoll.env.changes import (
    Done,
    Failure,
    LeaseLost,
    Matched,
    Matches,
    Placed,
    Put,
    Read,
    Renew,
    Take,
    Unwatch,
    Watch,
    Watching,
)
from atoll.env.limits import (
    LEASE_NS_DEFAULT,
    LEASE_NS_MAX,
    LEASE_NS_MIN,
    SPACE_BYTES_MAX,
    SPACE_WATCHES_MAX,
    TUPLE_BYTES_MAX,
)
from atoll.env.parties import Ref
from atoll.env.query import Everything, Query, field, where
from atoll.env.shelf import Shelf, SpaceRequest, lease_ns_of, typed, typed_inside
from atoll.env.space import Space
from atoll.env.tuples import Tuple
from tests.unit.env_world import ANN, BOB

NOW = 1_000 * SECOND_NS


class Job(Tuple, frozen=True):
    name: str
    size: int = 0


class Secret(Tuple, frozen=True):
    word: str = ""


class Queue(App):
    shared: ClassVar[tuple[type[Tuple], ...]] = (Job,)


def _shelf() -> Shelf:
    program = program_of(Queue, (), (Secret,))
    return Shelf(program.main, program.types, Space(), {})


def _serve(shelf: Shelf, request: SpaceRequest, sender: bytes = ANN, path: str = "") -> Tuple:
    return shelf.serve(request, Ref(sender, path), NOW)[0]


def _plain(name: str, size: int = 0) -> dict[str, Any]:
    return {"is": "Job", "name": name, "size": size}


def test_the_environment_itself_has_no_walls() -> None:
    shelf = _shelf()
    assert shelf.put(Secret("x"), NOW, None) == (1, [])
    assert shelf.put(Job("a", 1), NOW, 5 * SECOND_NS) == (2, [])
    shelf.put({"is": "Strange", "deep": {"a": 1}}, NOW, None)
    assert shelf.read(Everything(), 9) == [Secret("x"), Job("a", 1), {"is": "Strange", "deep": {"a": 1}}]
    assert shelf.count(where(Job)) == 1
    assert shelf.take(where(Job), 9) == [Job("a", 1)]
    with pytest.raises(UsageError):
        shelf.read(Everything(), -1)
    with pytest.raises(LimitError):
        shelf.put(Secret("x" * TUPLE_BYTES_MAX), NOW, None)


def test_what_is_read_is_a_copy() -> None:
    shelf = _shelf()
    shelf.put({"is": "Strange", "list": [1]}, NOW, None)
    shelf.read(Everything(), 1)[0]["list"].append(2)
    assert shelf.read(Everything(), 1) == [{"is": "Strange", "list": [1]}]


def test_others_put_what_is_shared_and_always_with_a_lease() -> None:
    shelf = _shelf()
    assert _serve(shelf, Put(_plain("a", 1))) == Placed(1, NOW + LEASE_NS_DEFAULT)
    assert _serve(shelf, Put(_plain("b"), 0)) == Placed(2, NOW + LEASE_NS_MIN)
    assert _serve(shelf, Put(_plain("c"), 1e9)) == Placed(3, NOW + LEASE_NS_MAX)
    assert shelf.read(where(Job), 9) == [Job("a", 1), Job("b"), Job("c")]


@pytest.mark.parametrize("event", [{"is": "Secret"}, {"is": 3}, {}, None, [1], "Job", {"is": "x" * 500}])
def test_others_put_nothing_else(event: object) -> None:
    answer = _serve(_shelf(), Put(event))
    assert isinstance(answer, Failure)
    assert answer.code == "forbidden"
    assert len(answer.text) < 200


@pytest.mark.parametrize("event", [{"is": "Job"}, {"is": "Job", "name": 5}, {"is": "Job", "name": "a", "size": "b"}])
def test_a_tuple_that_its_type_does_not_allow_is_refused(event: object) -> None:
    answer = _serve(_shelf(), Put(event))
    assert isinstance(answer, Failure)
    assert answer.code == "unexpected"


def test_a_full_space_says_so() -> None:
    shelf = _shelf()
    for _ in range(SPACE_BYTES_MAX // TUPLE_BYTES_MAX):
        shelf.put(Secret("x" * (TUPLE_BYTES_MAX - 100)), NOW, None)
    answer = _serve(shelf, Put(_plain("x" * 10_000)))
    assert isinstance(answer, Failure)
    assert (answer.code, "space_bytes_max" in answer.text) == ("queue-full", True)


@pytest.mark.parametrize(
    "query", [Everything(), where(Secret), where(Job) | where(Secret), ~where(Job), field("a") == 1]
)
def test_others_ask_only_for_what_is_shared(query: Query) -> None:
    shelf = _shelf()
    shelf.put(Secret("x"), NOW, None)
    for request in (Read(query), Take(query), Watch(query)):
        answer = _serve(shelf, request)
        assert isinstance(answer, Failure)
        assert answer.code == "forbidden"
    assert (shelf.count(Everything()), shelf.space.watches) == (1, {})


def test_others_read_and_take() -> None:
    shelf = _shelf()
    for size in range(3):
        shelf.put(Job("a", size), NOW, None)
    assert _serve(shelf, Read(where(Job, field("size") > 0))) == Matches((_plain("a", 1), _plain("a", 2)))
    assert _serve(shelf, Take(where(Job))) == Matches((_plain("a", 0),))
    assert _serve(shelf, Take(where(Job), 9)) == Matches((_plain("a", 1), _plain("a", 2)))
    assert _serve(shelf, Read(where(Job))) == Matches(())
    assert _serve(shelf, Read(where(Job), -1)) == Failure("unexpected", "a limit of -1 tuples")


def test_a_response_holds_what_fits_and_one_always_does() -> None:
    shelf = _shelf()
    for name in ("a", "b", "c"):
        shelf.put(Job(name * (TUPLE_BYTES_MAX // 2 - 3_000)), NOW, None)
    shelf.put(Job("d" * (TUPLE_BYTES_MAX - 100)), NOW, None)
    sizes: list[tuple[int, bool]] = []
    while shelf.count(where(Job)):
        answer = _serve(shelf, Take(where(Job), 9))
        assert isinstance(answer, Matches)
        sizes.append((len(answer.tuples), answer.more))
    assert sizes == [(2, True), (1, True), (1, False)]


def test_who_watches_is_told() -> None:
    shelf = _shelf()
    assert _serve(shelf, Watch(where(Job, field("size") > 1), 60)) == Watching(1, NOW + 60 * SECOND_NS)
    assert _serve(shelf, Watch(where(Job)), BOB, "room") == Watching(2, NOW + LEASE_NS_DEFAULT)
    shelf.space.watch(where(Job), b"", NOW, None)
    key, told = shelf.put(Job("a", 1), NOW, None)
    assert told == [(Matched(2, key, _plain("a", 1)), Ref(BOB, "room")), (Matched(3, key, _plain("a", 1)), None)]
    _, told = shelf.serve(Put(_plain("b", 2)), Ref(BOB), NOW)
    assert [(matched.watch, to) for matched, to in told] == [(1, Ref(ANN)), (2, Ref(BOB, "room")), (3, None)]


def test_too_many_watches_are_refused() -> None:
    shelf = _shelf()
    for _ in range(SPACE_WATCHES_MAX):
        _serve(shelf, Watch(where(Job)))
    answer = _serve(shelf, Watch(where(Job)))
    assert isinstance(answer, Failure)
    assert answer.code == "queue-full"


def test_only_whose_it_is_renews_and_ends_it() -> None:
    shelf = _shelf()
    _serve(shelf, Put(_plain("a")))
    _serve(shelf, Watch(where(Job)), ANN, "room")
    nothing = Failure("unknown", "there is no such tuple or watch of yours")
    assert _serve(shelf, Renew(1, 60), BOB) == nothing
    assert _serve(shelf, Renew(1, 120)) == Placed(1, NOW + 120 * SECOND_NS)
    assert _serve(shelf, Renew(2, 120)) == nothing  # A watch belongs to one environment of the party's tree.
    assert _serve(shelf, Renew(2, 120), ANN, "room") == Placed(2, NOW + 120 * SECOND_NS)
    assert _serve(shelf, Renew(9)) == nothing
    assert _serve(shelf, Unwatch(2)) == nothing
    assert _serve(shelf, Unwatch(2), BOB, "room") == nothing
    assert _serve(shelf, Unwatch(2), ANN, "room") == Done()
    assert _serve(shelf, Unwatch(2), ANN, "room") == nothing
    assert shelf.watchers == {}


def test_only_the_environments_own_losses_are_told() -> None:
    shelf = _shelf()
    _serve(shelf, Put(_plain("theirs"), 5))
    _serve(shelf, Watch(where(Job), 5), ANN, "room")
    shelf.put(Job("own"), NOW, 5 * SECOND_NS)
    shelf.space.watch(where(Job), b"", NOW, 5 * SECOND_NS)
    assert shelf.expire(NOW) == []
    assert shelf.expire(NOW + 5 * SECOND_NS) == [LeaseLost(3, _plain("own")), LeaseLost(4, None)]
    assert shelf.watchers == {}


def test_a_watch_whose_watcher_cannot_be_told_is_dropped() -> None:
    shelf = _shelf()
    _serve(shelf, Watch(where(Job)), ANN, "room")
    shelf.drop(1)
    assert (shelf.space.watches, shelf.watchers) == ({}, {})


@pytest.mark.parametrize(
    ("lease_s", "lease_ns"),
    [
        (None, LEASE_NS_DEFAULT),
        (-5, 0),
        (1.5, 1_500_000_000),
        (1e300, LEASE_NS_MAX),
        (float("inf"), LEASE_NS_MAX),
        (float("nan"), LEASE_NS_MAX),
    ],
)
def test_whatever_the_seconds_they_become_a_lease(lease_s: float | None, lease_ns: int) -> None:
    assert lease_ns_of(lease_s) == lease_ns


def test_tuples_become_their_types() -> None:
    types = program_of(Queue).types
    assert typed(_plain("a"), types) == Job("a")
    assert typed({"is": "Job", "name": 5}, types) == {
        "is": "Job",
        "name": 5,
    }  # Of another version: better than nothing.
    assert typed({"is": "Other"}, types) == {"is": "Other"}
    assert typed_inside(Matches((_plain("a"), 5)), types) == Matches((Job("a"), 5))
    assert typed_inside(Matched(1, 2, _plain("a")), types) == Matched(1, 2, Job("a"))
    assert typed_inside(LeaseLost(1, None), types) == LeaseLost(1, None)
    assert typed_inside(Done(), types) == Done()
