# SPDX-License-Identifier: Apache-2.0
"""What came in and what it did is text that people read, whatever it was."""

from typing import Any

import msgspec
import pytest

from atoll.cli import past_text
from atoll.env.comparing import Difference
from atoll.env.history import Entry
from atoll.env.past import Moment
from atoll.env.records import (
    Arrived,
    Began,
    Checkpointed,
    Effect,
    Ended,
    Failed,
    Found,
    Item,
    Note,
    Opened,
    Post,
    Record,
    Told,
)
from atoll.env.revising import Revision
from atoll.env.tracing import Reason, Step, Trace

encode = msgspec.msgpack.encode
BID = msgspec.Raw(encode({"is": "Bid", "who": "ann"}))


def items(*of: Item) -> msgspec.Raw:
    return msgspec.Raw(encode(list(of)))


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (Arrived(bytes(16), 4, items(Item(BID), Item(BID, 3, 0, "room", "me"))), "Bid(who='ann')"),
        (Told(BID), "Bid(who='ann')"),
        (Failed(bytes(16), 4, "raised", "no", encode(Item(BID))), "Bid(who='ann') failed: raised, no"),
        (Failed(b"", 4, "killed", "long"), "a timer or change failed: killed, long"),
        (Checkpointed(), "Checkpointed()"),
        (Opened(bytes(10), "one", 2, "two"), f"Opened(node={'00' * 10}, name='one', epoch=2, before='two')"),
        (Found(3, (bytes(16),)), f"Found(number=3, parties=[{'00' * 16}])"),
        (Began(bytes(16), bytes(32), "x", bytes(32), encode({"best": 3})), "Began(name='x', id="),
    ],
)
def test_what_came_in_is_one_line(record: Record, text: str) -> None:
    assert past_text.came_text(past_text.came_in(record, -1)).startswith(text)


def test_an_item_says_where_it_comes_from_and_goes() -> None:
    record = Arrived(bytes(16), 4, items(Item(BID), Item(BID, 3, 7, "room", "me")))
    came = past_text.came_in(record, 1)
    assert {key: came[key] for key in ("number", "call", "answers", "to", "by")} == {
        "number": 5,
        "call": 3,
        "answers": 7,
        "to": "room",
        "by": "me",
    }


def moment(record: Record | None, effects: tuple[Effect, ...], state: dict[str, dict[str, Any]]) -> Moment:
    entry = None if record is None else Entry(0, 0, record)
    return Moment(3, 1, 5, 0, -1, 1_750_000_000_000_000_000, entry, effects, state, {"": {"a": 1, "b": 2}})


def test_an_event_shows_every_kind_of_effect_and_every_path() -> None:
    effects = (
        Note("hello"),
        Post(bytes(16), 1, 3, encode([Item(BID, 0, 9), Item(BID, 4), Item(BID)])),
        Ended(),
    )
    text = past_text.event(moment(Told(BID), effects, {"": {"a": 1, "b": 3}, "room": {"c": 5}}), 9)
    assert text.splitlines() == [
        "events 2 to 3 of 9  2025-06-15 15:06:40.000000  (block 5, record 0)",
        "  in       Bid(who='ann')",
        "  log      hello",
        "  reply    Bid(who='ann') to 00000000 item 1, call 9",
        "  ask      Bid(who='ann') to 00000000 item 2, call 4",
        "  send     Bid(who='ann') to 00000000 item 3",
        "  ended    {}",
        "  state",
        "    a  1",
        "  * b  3   was 2",
        "    room:",
        "  *   c  5",
    ]


def test_an_item_that_wants_no_answer_names_no_call() -> None:
    record = Arrived(bytes(16), 4, items(Item(BID)))
    assert "  from     00000000 item 4" in past_text.event(moment(record, (), {}), 9).splitlines()


def test_a_line_says_what_an_event_did() -> None:
    came = past_text.came_in(Told(msgspec.Raw(encode(5))), -1)
    effects: list[Effect] = [Note("x"), Post(bytes(16), 1, 2, encode([Item(BID), Item(BID)]))]
    assert past_text.line(0, 4, came, effects) == "4\t1970-01-01 00:00:00.000000\t5\tsent 2, log: x"
    assert past_text.line(0, 4, came, []).endswith("\t-")


def test_a_long_trace_is_cut_with_a_count() -> None:
    steps = tuple(Step(event, 0, "Bid", {"is": "Bid"}, bytes(16), event) for event in (3, 2, 1))
    reasons = {3: tuple(Reason(3, event, "best") for event in range(8))}
    found = Trace(steps, reasons, 5, 9, 4)
    assert past_text.traced(found, 2).splitlines() == [
        "event 3  1970-01-01 00:00:00.000000  Bid() from 00000000 item 3",
        "    because of best: event 3, 4, 5, 6, 7 and earlier ones",
        "event 2  1970-01-01 00:00:00.000000  Bid() from 00000000 item 2",
        "... and 1 more",
        "3 of 9 steps, from event 5 on; 5 without the filter",
    ]


def test_code_that_does_the_same_with_another_state_is_said_so() -> None:
    found = Revision(5, 0, None, (0, 0), (Difference("best", "3", "4"),))
    assert past_text.revised(found, "new.py").splitlines() == [
        "0 of 5 events differ with new.py",
        "the state at the end:",
        "  field  recorded  now",
        "  best   3         4",
    ]
    assert past_text.plain_revision(found)["first"] is None
