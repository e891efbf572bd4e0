# SPDX-License-Identifier: Apache-2.0
"""How deep something nests is said of its bytes; what is too deep fails where it is made, whatever the stack."""

import string
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest

from atoll.base.errors import UsageError, UserError, WireError
from atoll.env import nesting
from atoll.env.app import App, on, program_of
from atoll.env.context import Context
from atoll.env.limits import NESTING_MAX, TUPLE_BYTES_MAX
from atoll.env.messages import TooDeepError, count_items
from atoll.env.nesting import TOO_DEEP, TOO_LARGE, are_shallow, is_bounded, is_shallow, misfit
from atoll.env.parties import Ref
from atoll.env.tuples import Tuple
from tests.unit.env_world import BOB, Actor, Recorded, Word, go, said

T = TypeVar("T")
encode = msgspec.msgpack.encode
UNWRITABLE = 3_000  # So deep nothing can be written on any stack.


class Deep(Tuple):
    within: Any = None


class Keeper(App):
    kept: Any = None
    count: int = 0

    @on(Deep)
    def keep(self, deep: Deep, _: Context) -> None:
        self.kept = deep.within
        self.count += 1


def nested(depth: int) -> Any:
    """Return lists in each other, so many."""
    inner: Any = None
    for _ in range(depth):
        inner = [inner]
    return inner


def lists(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def deeper(frames: int, work: Callable[[], T]) -> T:
    """Do something with so many more frames on the stack."""
    return work() if not frames else deeper(frames - 1, work)


@pytest.mark.parametrize(
    ("data", "depth"),
    [
        (b"\x90", 1),
        (b"\x80", 1),
        (b"\x91\xc0", 1),
        (b"\x92\x90\x91\x90", 3),
        (b"\xdc\x00\x01\xdd\x00\x00\x00\x01\x90", 3),
        (b"\xde\x00\x01\xa1a\xdf\x00\x00\x00\x01\xa1b\x90", 3),
        (b"\x81\x91\x91\x01\xc0", 3),  # In a key.
        (b"\x93\xc4\x02\x91\x91\xd9\x02\x91\x91\x91\x01", 2),  # What looks like lists in bytes and texts is none.
        (b"\x95\xc7\x02\x05\x91\x91\xd4\x01\x91\xcd\x91\x91\xcb" + b"\x91" * 8 + b"\xa2\x91\x91", 1),
        (b"\x93\x90\xc5\x00\x01\x91\x91\xc6\x00\x00\x00\x01\x91", 2),
    ],
)
def test_the_depth_is_that_of_lists_and_maps_in_each_other(data: bytes, depth: int) -> None:
    for depth_max in range(1, 6):
        assert is_shallow(data, depth_max) == (depth <= depth_max)
        assert nesting._walked(data, depth_max) == (depth <= depth_max)  # pyright: ignore[reportPrivateUsage]
    assert are_shallow((msgspec.Raw(data), msgspec.Raw(b"\x01")), depth) is True
    assert depth == 1 or not are_shallow((msgspec.Raw(b"\x90" * 1), msgspec.Raw(data)), depth - 1)


def test_a_value_that_holds_none_is_as_flat_as_can_be() -> None:
    assert is_shallow(encode(b"\x91" * 1_000), 1)
    assert is_shallow(b"\x93" + 3 * encode(b"\x91" * 1_000), 1)
    looks = b"\x91" * 70 + b"\xc0" + encode(bytes(22)) + b"\xc0" * 5  # Seven values, if it were a list.
    assert is_shallow(encode(looks)), len(looks)
    assert is_shallow(b"\x91", 1)
    assert not is_shallow(b"\x91" * (NESTING_MAX + 1)), "and what is cut is looked at as far as it goes"
    assert is_shallow(b"\xdf\xff\xff\xff\xff" + b"\x80" * NESTING_MAX, 2)


@pytest.mark.parametrize("frames", [0, 700])
def test_the_answer_does_not_depend_on_the_stack(frames: int) -> None:
    wide = b"\xdc\x40\x00" + lists(NESTING_MAX - 1) * 0x4000
    for data in (lists(NESTING_MAX), wide, b"\x92" + lists(NESTING_MAX - 1) + lists(1)):
        assert deeper(frames, lambda data=data: is_shallow(data)) is True  # type: ignore[misc]
    for data in (lists(NESTING_MAX + 1), lists(990), lists(100_000), b"\x91" + wide, b"\x91" * 500 + wide):
        assert deeper(frames, lambda data=data: is_shallow(data)) is False  # type: ignore[misc]


def test_a_table_of_many_rows_is_not_walked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def walked(data: bytes, depth_max: int) -> bool:
        raise AssertionError(f"{len(data)} bytes, {depth_max}")

    monkeypatch.setattr(nesting, "_walked", walked)
    rows = [{"id": number, "name": "x" * 20, "tags": [1, 2]} for number in range(5_000)]
    assert is_shallow(encode({"is": "Rows", "rows": rows}))


def items(*events: bytes, behind: bytes = b"") -> bytes:
    head = b"\x95" if not behind else b"\x96"
    return b"\xdc" + len(events).to_bytes(2, "big") + b"".join(head + one + b"\0\0\xa0\xa0" + behind for one in events)


@pytest.mark.parametrize("frames", [0, 40, 80])
def test_items_that_nest_too_deep_are_refused_as_that(frames: int) -> None:
    flat = encode({"is": "Word", "text": string.ascii_letters * 2})
    unknown = b"\x82\xa2is\xa4Word\xa2zz"
    for events in ((lists(NESTING_MAX),), (flat,) * 40, (flat, unknown + lists(NESTING_MAX - 1)), (lists(2),) * 1_024):
        assert deeper(frames, lambda events=events: count_items(items(*events))) == len(events)  # type: ignore[misc]
        assert count_items(items(*events, behind=lists(NESTING_MAX))) == len(events), "of a later version"
    for depth in (NESTING_MAX, 500, 950, 975, 990, 5_000):
        for came in (items(flat, unknown + lists(depth)), items(flat, behind=lists(depth + 1))):
            with pytest.raises(TooDeepError):
                deeper(frames, lambda came=came: count_items(came))  # type: ignore[misc]
    with pytest.raises(WireError) as refused:
        count_items(b"\x91\x96\x01\x01")
    assert not isinstance(refused.value, TooDeepError)


def test_what_is_too_large_or_too_deep_says_what_to_do() -> None:
    assert misfit(encode(Deep(nested(NESTING_MAX - 1)))) is None
    large, deep = misfit(bytes(TUPLE_BYTES_MAX + 1)), misfit(encode(Deep(nested(NESTING_MAX))))
    assert large is not None
    assert deep is not None
    assert (large.code, deep.code) == (TOO_LARGE, TOO_DEEP)
    assert deep.text == "a tuple nests deeper than 64 (NESTING_MAX); keep what is deep as text, or flat"


class Leaf(Tuple):
    text: str
    many: dict[str, tuple[int, ...]]
    pair: tuple[int, bytes] | None = None


class Tree(Tuple):
    below: "list[Tree]"


class Loose(msgspec.Struct):
    n: int


WIDE = msgspec.defstruct("Wide", [(f"f{number}", int) for number in range(nesting.TYPES_MAX + 1)], tag=True)


@pytest.mark.parametrize(
    ("kind", "is_so"),
    [
        *((int, True), (Leaf, True), (list[Leaf | None], True), (Any, False), (Tree, False), (Loose, False)),
        *((list, False), (msgspec.Raw, False), (list[list[list[list[list[list[list[list[list[int]]]]]]]]], False)),
        (WIDE, False),
    ],
)
def test_a_type_says_whether_its_values_may_nest_deep(kind: Any, is_so: bool) -> None:
    assert is_bounded(kind) is is_so


DEEP = Deep(nested(NESTING_MAX))
MADE: list[Callable[[Actor, Context], object]] = [
    lambda _, ctx: ctx.send(Ref(BOB), DEEP),
    lambda _, ctx: ctx.send("auction", DEEP),
    lambda _, ctx: ctx.call(Ref(BOB), DEEP),
    lambda _, ctx: ctx.after(1, DEEP),
    lambda _, ctx: ctx.reply(DEEP),
    lambda _, ctx: ctx.send(Ref(BOB), Deep(nested(UNWRITABLE))),
    lambda _, ctx: ctx.spawn(Keeper, "inner", kept=nested(NESTING_MAX)),
]


@pytest.mark.parametrize("script", MADE)
def test_what_a_handler_makes_too_deep_fails_there(script: Any) -> None:
    world = Recorded(Actor, (Keeper,))
    [answer] = said(world.send(go(script), ask=1))
    assert answer["code"] == "raised"
    assert f"deeper than {NESTING_MAX} (NESTING_MAX)" in answer["text"]
    world.send(Word("on"))
    assert world.replayed().environment.snapshot() == world.environment.snapshot()


def test_a_handler_may_send_what_is_just_not_too_deep() -> None:
    def reply(_: Actor, ctx: Context) -> None:
        ctx.reply(Deep(nested(NESTING_MAX - 1)))

    [answer] = said(Recorded(Actor).send(go(reply), ask=1))
    assert answer["is"] == "Deep"


def test_a_state_that_nests_too_deep_is_not_written_and_its_field_is_named() -> None:
    world = Recorded(Keeper)
    world.send(Deep(nested(NESTING_MAX - 1)))
    assert world.environment.fields()["count"] == 1
    world.environment.checkpoint()
    world.send(Deep(nested(NESTING_MAX)))
    with pytest.raises(UsageError, match=r"Keeper\.kept nests deeper than 64 \(NESTING_MAX\)"):
        world.environment.snapshot()
    world.send(Deep())
    world.environment.checkpoint()


def test_a_state_begins_shallow() -> None:
    class Given(App):
        kept: Any = msgspec.field(default_factory=lambda: nested(NESTING_MAX))

    with pytest.raises(UserError, match="a default nests deeper than 64"):
        program_of(Given)
    with pytest.raises(UserError) as refused:
        Recorded(Keeper, kept=nested(NESTING_MAX))
    assert refused.value.code == "A602"
    assert "Keeper.kept nests deeper" in refused.value.where
