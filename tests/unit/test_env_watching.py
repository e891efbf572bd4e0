# SPDX-License-Identifier: Apache-2.0
"""Questions to the past are answered by the event, whatever lies between checkpoints."""

import msgspec
import pytest

import atoll
from atoll.base.errors import UserError
from atoll.env.app import program_of
from atoll.env.past import Past
from atoll.env.watching import NOTHING, Change, Expression, first_true, last_change
from tests.unit.past_world import ANN, MemoryShelf, arrived


class Set(atoll.Tuple):
    key: str
    value: int


class Inner(atoll.App):
    count: int = 0

    @atoll.on(Set)
    def set(self, _event: Set, _ctx: atoll.Context) -> None:
        self.count += 1


class Table(atoll.App):
    held: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    last: int = 0

    @atoll.on(Set)
    def set(self, event: Set, ctx: atoll.Context) -> None:
        self.held[event.key] = self.last = event.value
        if event.key == "in":
            ctx.send(ctx.spawn(Inner, "inner"), event)


def put(key: str, value: int) -> dict[str, object]:
    return {"is": "Set", "key": key, "value": value}


def past() -> Past:
    """Return a past of six events, one of which is two: 1..3 | 4 | 5..7."""
    shelf = MemoryShelf.of(Table, Inner)
    shelf.seal(arrived(ANN, 1, put("a", 1), put("b", 2), put("a", 1), ask=False))
    shelf.checkpoint()
    shelf.seal(arrived(ANN, 4, put("a", 3), ask=False))
    shelf.checkpoint()
    shelf.seal(arrived(ANN, 5, put("in", 4), put("b", 2), ask=False))
    return Past(shelf)


@pytest.mark.parametrize(
    ("text", "first", "last", "event"),
    [
        ("last > 1", 1, 7, 2),
        ("last > 1", 3, 7, 4),
        ("last > 1", 3, 3, None),
        ("held['in'] == 4", 1, 7, 6),
        ("nested['inner'].count", 1, 7, 6),
        ("any(value > 2 for value in held.values())", 1, 7, 4),
        ("(lambda one: one == 3)(last)", 1, 7, 4),
        ("missing", 1, 0, None),
    ],
)
def test_the_first_event_after_which_it_is_true(text: str, first: int, last: int, event: int | None) -> None:
    if last:
        assert first_true(past(), Expression(text), first, last) == event


@pytest.mark.parametrize(
    ("text", "last", "expected"),
    [
        ("last", 7, Change(7, "4", "2")),
        ("last", 6, Change(6, "3", "4")),
        ("last", 4, Change(4, "1", "3")),
        ("held.get('b')", 7, Change(2, "None", "2")),
        ("held['a']", 7, Change(4, "1", "3")),
        ("held", 6, Change(6, "{'a': 3, 'b': 2}", "{'a': 3, 'b': 2, 'in': 4}")),
        ("nested['inner'].count", 7, Change(6, "no value", "1")),
        ("held['never']", 7, None),
        ("last", 1, Change(1, "0", "1")),
        ("(i for i in (1,)).__class__", 7, None),
    ],
)
def test_the_last_event_that_changed_it(text: str, last: int, expected: Change | None) -> None:
    assert last_change(past(), Expression(text), last) == expected


def test_where_two_checkpoints_are_at_one_event_nothing_lies_between() -> None:
    shelf = MemoryShelf.of(Table)
    shelf.seal(arrived(ANN, 1, put("a", 1), ask=False))
    shelf.checkpoint()
    shelf.checkpoint()
    shelf.seal(arrived(ANN, 2, put("b", 1), ask=False))
    assert last_change(Past(shelf), Expression("held.get('a')"), 2) == Change(1, "None", "1")


@pytest.mark.parametrize("text", ["last >", "last = 1", "import os", "\0", "(" * 500])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="A501"):
        Expression(text)


def test_a_name_that_is_no_field_is_refused_with_those_that_are() -> None:
    with pytest.raises(UserError, match="there is no field best") as caught:
        first_true(past(), Expression("best > 1"), 1, 7)
    assert caught.value.where == "fields: held, last"


def test_a_field_that_an_upgrade_took_away_has_a_value_until_then() -> None:
    class Renamed(atoll.App):
        newest: int = 0

        @atoll.on(Set)
        def set(self, event: Set, _ctx: atoll.Context) -> None:
            self.newest = event.value

    Renamed.__name__ = "Table"
    shelf = MemoryShelf.of(Table, Inner)
    shelf.seal(arrived(ANN, 1, put("a", 1), put("b", 2), ask=False))
    shelf.programs[bytes(32)] = program_of(Renamed)
    shelf.runner.upgrade(shelf.programs[bytes(32)], bytes(32), shelf.now_ns)
    shelf.seal()
    shelf.seal(arrived(ANN, 3, put("c", 3), ask=False))
    looked_at, last = Past(shelf), shelf.last_event
    assert first_true(looked_at, Expression("last > 1"), 1, last) == last - 1
    assert first_true(looked_at, Expression("newest > 1"), 1, last) == last
    assert last_change(looked_at, Expression("last"), last) == Change(last - 1, "1", "2")
    with pytest.raises(UserError, match="there is no field best"):
        first_true(looked_at, Expression("best > last"), 1, last)


def test_there_are_no_builtins_but_harmless_ones() -> None:
    environment = past()
    with pytest.raises(UserError, match="there is no field open"):
        last_change(environment, Expression("open('x')"), 7)
    assert repr(NOTHING) == "no value"
