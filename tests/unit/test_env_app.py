# SPDX-License-Identifier: Apache-2.0
"""An application class, looked at once: its handlers and types, and everything that cannot be is refused by name."""

from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import pytest

from atoll.base.errors import UserError
from atoll.env.app import App, intercept, migration, on, program_of
from atoll.env.changes import Failure, Matched, Request, Restored
from atoll.env.context import Context
from atoll.env.tuples import Tuple


class Bid(Tuple, frozen=True):
    amount: int


class Best(Tuple, frozen=True):
    amount: int


class Job(Tuple, frozen=True):
    name: str


class Point(msgspec.Struct):
    x: int = 0


@dataclass
class Pair:
    left: int = 0


class Auction(App):
    version: ClassVar[int] = 2
    shared: ClassVar[tuple[type[Tuple], ...]] = (Job,)
    best: int = 0
    names: list[str] = msgspec.field(default_factory=list[str])
    places: dict[str, Point | None] = msgspec.field(default_factory=dict[str, Point | None])
    both: tuple[int, str] = (0, "")
    row: tuple[int, ...] = ()
    pair: Pair | None = None

    @on(Bid)
    def bid(self, bid: Bid, _ctx: Context) -> Best:
        return Best(bid.amount)

    @on(Restored, Matched)
    async def later(self, event: Tuple, _ctx: Context) -> None:
        pass

    @migration(1)
    @staticmethod
    def from_1(fields: dict[str, Any]) -> dict[str, Any]:
        return fields

    @intercept
    def outside(self, request: Request, _ctx: Context) -> Tuple:
        return request


class Room(App):
    pass


def test_a_program_knows_its_classes_and_types() -> None:
    program = program_of(Auction, (Room,), (Best,))
    assert program.main.app is Auction
    assert program.main.name == "Auction"
    assert set(program.classes) == {"Auction", "Room"}
    assert program.types["Bid"] is Bid
    assert program.types["Job"] is Job  # Shared, so it can arrive.
    assert set(program.main.handlers) == {Bid, Restored, Matched}
    assert program.main.tasks == {Restored, Matched}
    assert program.main.apart == {Restored, Matched}
    assert program.main.shared == {"Job": Job}
    assert set(program.main.migrations) == {1}
    assert program.main.intercept is not None
    assert (program.classes["Room"].intercept, program.classes["Room"].shared) == (None, {})


def test_items_are_decoded_as_what_they_are() -> None:
    program = program_of(Auction, (), (Best,))
    [item] = program.items.decode(msgspec.msgpack.encode([[Best(3), 1, 0, "a", "b"]]))
    assert (item.event, item.ask, item.re, item.to, item.by) == (Best(3), 1, 0, "a", "b")
    assert program.event.decode(msgspec.msgpack.encode(Failure("timeout"))) == Failure("timeout")
    with pytest.raises(msgspec.ValidationError):
        program.items.decode(msgspec.msgpack.encode([[{"is": "Stranger"}]]))


class Foreign:
    pass


def _app(**fields: Any) -> type[App]:
    """Return an application class with fields: name=(type, default)."""
    kinds = {name: kind for name, (kind, _) in fields.items()}
    values = {name: value for name, (_, value) in fields.items() if value is not msgspec.NODEFAULT}
    meta: Any = type(App)
    made: type[App] = meta("Bad", (App,), {"__annotations__": kinds, "__module__": __name__, **values})
    return made


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ((int, msgspec.NODEFAULT), "has no default"),
        ((Foreign, None), "Foreign, which is not data"),
        ((list[Foreign], None), "Foreign"),
        ((dict[str, tuple[int, Foreign]], None), "Foreign"),
        ((tuple[Foreign, ...], None), "Foreign"),
        ((set[int], None), "a set"),
        ((frozenset[int], None), "a set"),
        ((int | list[set[str]], 0), "a set"),
        (("Nowhere", 0), "Nowhere"),
        ((int | Pair | dict[str, int], 0), "more than one dict-like type"),
        ((int, "three"), "a default is not of its field's type"),
        ((int, 1 << 70), "a default is not of its field's type"),
    ],
)
def test_a_field_that_cannot_be_kept_is_refused(field: tuple[Any, Any], reason: str) -> None:
    with pytest.raises(UserError, match="A601") as caught:
        program_of(_app(it=field))
    assert reason in str(caught.value)


class Tree(msgspec.Struct):
    below: list["Tree"] = []


class Grown(App):
    tree: Tree | None = None
    other: Tree | None = None


def test_a_type_that_holds_itself_is_looked_at_once() -> None:
    assert program_of(Grown).main.name == "Grown"


@pytest.mark.parametrize("version", [0, 1_000_001])
def test_a_foolish_version_is_refused(version: int) -> None:
    class Versioned(App):
        pass

    Versioned.version = version
    with pytest.raises(UserError, match=f"a version of {version}"):
        program_of(Versioned)


def test_two_handlers_of_a_type_are_refused() -> None:
    class Twice(App):
        @on(Bid)
        def one(self, bid: Bid, _ctx: Context) -> None:
            pass

        @on(Bid)
        def other(self, bid: Bid, _ctx: Context) -> None:
            pass

    with pytest.raises(UserError, match="two handlers take Bid, one of them is other"):
        program_of(Twice)


def test_two_types_of_a_name_are_refused() -> None:
    other = msgspec.defstruct("Other", [], bases=(Tuple,), frozen=True, tag="Bid")
    with pytest.raises(UserError, match="two types of tuples are called Bid"):
        program_of(Auction, (), (other,))  # type: ignore[arg-type]  # pyright: ignore  It is made here.


def test_what_is_no_tuple_is_refused() -> None:
    with pytest.raises(UserError, match=r"is no atoll\.Tuple"):
        program_of(Auction, (), (int,))  # type: ignore[arg-type]  # pyright: ignore  That is what is tested.


def test_an_interceptor_that_waits_is_refused() -> None:
    class Slow(App):
        @intercept
        async def outside(self, request: Request, _ctx: Context) -> Tuple:
            return request

    with pytest.raises(UserError, match="outside intercepts and cannot wait"):
        program_of(Slow)
