# SPDX-License-Identifier: Apache-2.0
"""An environment of a tree: written, read, migrated from version to version, and its coroutines closed without harm."""

from typing import Any, ClassVar

import msgspec
import pytest

from atoll.base.errors import CorruptError, UsageError
from atoll.env.app import App, Program, migration, program_of
from atoll.env.changes import Done
from atoll.env.context import Context, Operation
from atoll.env.environment import Environment
from atoll.env.plain_data import MapKey
from atoll.env.shelf import Shelf
from atoll.env.space import Space
from atoll.env.state import Branch, State
from atoll.env.tree import Task, begun, revived, written
from atoll.env.tuples import Tuple
from tests.unit.env_world import encode


class Count(App):
    count: int = 0
    other: Any = None


class Even(App):
    count: int = 0

    def __post_init__(self) -> None:
        if self.count % 2:
            raise ValueError("it is odd")


class Third(App):
    version: ClassVar[int] = 3
    total: int = 0

    @migration(1)
    @staticmethod
    def from_1(fields: dict[str, Any]) -> dict[str, Any]:
        return {"sum": fields["count"]}

    @staticmethod
    @migration(2)
    def from_2(fields: dict[str, Any]) -> dict[str, Any]:
        return {"total": fields["sum"]}


class Cell(msgspec.Struct, frozen=True):
    x: int


class Grid(App):
    version: ClassVar[int] = 2
    cells: dict[Cell, int] = msgspec.field(default_factory=dict[Cell, int])

    @migration(1)
    @staticmethod
    def from_1(fields: dict[str, Any]) -> dict[str, Any]:
        return {"cells": {cell: 2 * value for cell, value in fields["cells"].items()}}


class Broken(App):
    version: ClassVar[int] = 4
    total: int = 0

    @migration(2)
    @staticmethod
    def from_2(_fields: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("sum")

    @migration(3)
    @staticmethod
    def from_3(_fields: dict[str, Any]) -> dict[str, Any]:
        return {"total": "many"}


def _revived(app: type[App], version: int, fields: object, name: str = "") -> App:
    program = program_of(app)
    branch = Branch(name or app.__name__, version, msgspec.Raw(encode(fields)))
    return revived(Environment.blank(program), program, "", branch).app


def test_a_state_is_read_as_it_was_written() -> None:
    program = program_of(Count)
    kernel = Environment.blank(program)
    live = begun(kernel, program.main, "a", {"count": 3})
    assert written(live) == Branch("Count", 1, msgspec.Raw(encode({"count": 3, "other": None})), None, {})
    assert revived(kernel, program, "a", written(live)).app == Count(3)
    live.shelf = Shelf(program.main, program.types, Space(), {1: "b"})
    back = revived(kernel, program, "a", written(live))
    assert back.shelf is not None
    assert (back.shelf.watchers, back.context.path) == ({1: "b"}, "a")


def test_an_environment_cannot_begin_with_foolish_fields() -> None:
    program: Program = program_of(Count)
    with pytest.raises(UsageError, match="Count cannot begin so: its field count is int, and 'many' came"):
        begun(Environment.blank(program), program.main, "", {"other": [], "count": "many"})
    program = program_of(Even)
    with pytest.raises(UsageError, match="Even cannot begin so: it is odd"):
        begun(Environment.blank(program), program.main, "", {"count": 3})


def test_a_state_is_migrated_step_by_step() -> None:
    assert _revived(Third, 1, {"count": 7}) == Third(7)
    assert _revived(Third, 2, {"sum": 7}) == Third(7)
    assert _revived(Third, 3, {"total": 7, "gone": 1}) == Third(7)
    assert _revived(Third, 3, {}) == Third(0)


def test_a_state_whose_keys_are_structs_is_migrated_and_shown() -> None:
    assert _revived(Grid, 1, {"cells": {Cell(1): 3}}) == Grid({Cell(1): 6})
    program = program_of(Grid)
    environment = Environment(
        program, State(branches={"": Branch("Grid", 2, msgspec.Raw(encode({"cells": {Cell(1): 3}})))})
    )
    assert environment.fields() == {"cells": {MapKey(x=1): 3}}


@pytest.mark.parametrize(
    ("app", "version", "fields", "reason"),
    [
        (Broken, 1, {}, "has version 1, the code has 4 and no migration from 1"),
        (Broken, 2, {}, "the migration of Broken from 2 fails: KeyError"),
        (Broken, 3, {}, "does not fit its code"),
        (Broken, 4, {"total": "many"}, "does not fit its code"),
        (Broken, 5, {}, "has version 5, the code has 4"),
        (Broken, 1, [1], "does not fit its code"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(app: type[App], version: int, fields: object, reason: str) -> None:
    with pytest.raises(CorruptError, match=reason):
        _revived(app, version, fields)


def test_a_class_that_the_code_does_not_have_is_refused() -> None:
    with pytest.raises(CorruptError, match="no application class Gone"):
        _revived(Count, 1, {}, "Gone")


def test_a_field_that_holds_no_data_is_named() -> None:
    program = program_of(Count)
    live = begun(Environment.blank(program), program.main, "", {})
    live.app.other = object()  # type: ignore[attr-defined]  # pyright: ignore  It is a Count.
    with pytest.raises(UsageError, match=r"Count\.other holds what is no data"):
        written(live)


class _Scene:
    """What a coroutine does when it is closed."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def run(self, ctx: Context, *, stubborn: bool = False) -> Tuple | None:
        try:
            await Operation(1)
        except GeneratorExit:
            if stubborn:
                await Operation(2)
        finally:
            self.seen.append("closed")
            ctx.send(ctx.me, Done())
        return None


@pytest.mark.parametrize("stubborn", [False, True])
def test_the_clean_up_of_a_coroutine_that_is_given_up_has_no_effect(stubborn: bool) -> None:
    scene = _Scene()
    environment = Environment.blank(program_of(Count))
    context = Context(environment, "")
    coroutine = scene.run(context, stubborn=stubborn)
    coroutine.send(None)
    Task.close([Task(coroutine, context)])
    if stubborn:  # It had to be asked twice.
        Task.close([Task(coroutine, context)])
    assert scene.seen == ["closed"]
