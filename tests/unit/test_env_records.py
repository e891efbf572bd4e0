# SPDX-License-Identifier: Apache-2.0
"""Records and effects: each has its own number on disk, and nothing but a record is one."""

from typing import Any, get_args

import msgspec
import pytest

from atoll.env.records import FOUND_MAX, Effect, Ended, Failed, Fired, Found, Item, Note, Opened, Post, Record, Resolve
from tests.unit.env_world import ANN, ME, arrived, began, item

KINDS = {
    **dict(enumerate(("Began", "Arrived", "Confirmed", "Fired", "Told", "Failed", "Checkpointed", "Upgraded"), 1)),
    **dict(enumerate(("Opened", "Held", "Found", "Stopped", "Forgotten"), 9)),
}


def test_numbers_on_disk_do_not_change() -> None:
    assert {kind.__struct_config__.tag: kind.__name__ for kind in get_args(Record)} == KINDS
    effects: dict[int, type[Any]] = {1: Post, 2: Note, 3: Ended, 4: Resolve}
    assert {kind.__struct_config__.tag: kind for kind in get_args(Effect)} == effects


@pytest.mark.parametrize(
    "record",
    [
        began(best=3),
        arrived(7, item({"is": "Bid"}, 1), item({"is": "Bid"}, re=2, to="a", by="b")),
        Fired(),
        Failed(ANN, 3, "raised", "ValueError: no", b"item", search=4),
        Opened(b"n" * 10, "ams", 4, "fra", silent=True),
        Found(3, (ANN, ME)),
    ],
)
def test_a_record_survives_its_encoding(record: Record) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Record) == record


@pytest.mark.parametrize(
    "content",
    [[99], [], [2, b"short", 1, []], [3, ANN, -1], [6, b"", 0, "raised", "x" * 501], [11, 1, [ANN] * (FOUND_MAX + 1)]],
)
def test_what_is_no_record_does_not_decode(content: list[object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(content), type=Record)


def test_an_item_needs_only_its_event() -> None:
    short = msgspec.msgpack.decode(msgspec.msgpack.encode([{"is": "Bid"}]), type=Item)
    assert (short.ask, short.re, short.to, short.by) == (0, 0, "", "")
