# SPDX-License-Identifier: Apache-2.0
"""What led to an event is found back over fields, timers and calls, and nothing that came later is part of it."""

import msgspec
import pytest

import atoll
from atoll.env.changes import PeerSlow, Started
from atoll.env.records import Arrived, Fired, Item, Told
from atoll.env.tracing import History, Reason, Trace, history_of, trace
from tests.unit.past_world import ANN, BOB, CODE, MemoryShelf, arrived


class Set(atoll.Tuple):
    key: str
    value: int


class Get(atoll.Tuple):
    key: str


class Later(atoll.Tuple):
    pass


class Ask(atoll.Tuple):
    pass


class Value(atoll.Tuple):
    value: int


class Inner(atoll.App):
    seen: int = 0

    @atoll.on(Value)
    def take(self, event: Value, _ctx: atoll.Context) -> None:
        self.seen = event.value


class Table(atoll.App):
    held: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    last: int = 0
    asked: int = 0

    @atoll.on(Started)
    def start(self, _event: Started, _ctx: atoll.Context) -> None:
        self.last = 0

    @atoll.on(Set)
    def set(self, event: Set, _ctx: atoll.Context) -> None:
        if event.value < 0:
            raise ValueError
        self.held[event.key] = event.value
        self.last = event.value

    @atoll.on(Get)
    def get(self, event: Get, _ctx: atoll.Context) -> Value:
        return Value(self.held.get(event.key, 0))

    @atoll.on(Later)
    def later(self, _event: Later, ctx: atoll.Context) -> None:
        if ctx.sender is not None:
            ctx.after(0, Later())
        else:
            self.asked += 1

    @atoll.on(Ask)
    def ask(self, _event: Ask, ctx: atoll.Context) -> None:
        ctx.call(atoll.Ref(BOB), Get("x"), then=self.answered)

    def answered(self, answer: Value, _ctx: atoll.Context) -> None:
        self.last = answer.value

    @atoll.on(PeerSlow)
    def slow(self, _event: PeerSlow, ctx: atoll.Context) -> None:
        ctx.send(ctx.spawn(Inner, "inner"), Value(self.last))


def tup(name: str, **fields: object) -> dict[str, object]:
    return {"is": name, **fields}


def history(*more: object) -> History:
    """Return events: 1 start, 2 a=1, 3 b=2, 4 a=3, 5 get a, 6 get c."""
    shelf = MemoryShelf.of(Table, Inner)
    items = [tup("Set", key="a", value=1), tup("Set", key="b", value=2), tup("Set", key="a", value=3)]
    shelf.seal(arrived(ANN, 1, *items, tup("Get", key="a"), tup("Get", key="c")))
    for record in more:
        shelf.seal(record)  # type: ignore[arg-type]
    return history_of(shelf, 1, shelf.last_event)


def of(found: History, event: int, *, filtered: bool = True) -> Trace:
    step = found.step_of(event)
    assert step is not None
    return trace(found, step, filtered=filtered)


def events(found: Trace) -> list[int]:
    return [step.event for step in found.steps]


def test_a_step_knows_what_it_read_wrote_and_sent() -> None:
    step = history().step_of(4)
    assert step is not None
    assert (step.came, step.party, step.number, step.what["value"]) == ("Set", ANN, 3, 3)
    assert step.reads == (("", "held"),)
    assert step.writes == {("", "held"): (msgspec.msgpack.encode("a"),), ("", "last"): (None,)}
    assert step.sent == ((ANN, 3),)
    first = history().step_of(1)
    assert first is not None
    assert (first.came, set(first.writes)) == ("Began", {("", "held"), ("", "last"), ("", "asked")})


def test_a_reply_comes_from_what_wrote_the_key_that_was_asked_for() -> None:
    found = of(history(), 5)
    # Event 4 did not need event 2, but it touched the dictionary, and may have looked at the key that it wrote.
    assert events(found) == [5, 4, 2, 1]
    assert found.reasons[5] == (Reason(5, 1, "held"), Reason(5, 4, "held"))
    assert (found.unfiltered, found.all, found.begins) == (5, 5, 0)


def test_without_the_filter_every_key_counts() -> None:
    assert events(of(history(), 5, filtered=False)) == [5, 4, 3, 2, 1]
    assert events(of(history(), 6)) == [6, 1]


def test_fields_can_be_left_out() -> None:
    found = history()
    step = found.step_of(5)
    assert step is not None
    without = trace(found, step, without=[("", "held")])
    assert (events(without), without.unfiltered) == ([5], 5)


def test_a_field_and_an_item_name_a_step() -> None:
    found = history()
    for step, event in ((found.writer_of(("", "last")), 4), (found.sender_of(ANN[:3], 4), 5)):
        assert step is not None
        assert step.event == event
    assert found.writer_of(("", "never")) is None
    assert found.sender_of(BOB, 1) is None
    assert found.step_of(7) is None


def test_a_timer_comes_from_who_set_it() -> None:
    found = history(arrived(ANN, 6, tup("Later")), Fired())
    assert found.steps[-1].came == "Fired"
    trace_ = of(found, 8)
    assert events(trace_) == [8, 7, 1]
    assert Reason(8, 7, "timer 1") in trace_.reasons[8]


def test_an_answer_comes_from_who_asked() -> None:
    item = Item(msgspec.Raw(msgspec.msgpack.encode(tup("Value", value=9))), 0, 1)
    answer = Arrived(BOB, 1, msgspec.Raw(msgspec.msgpack.encode([item])))
    found = history(arrived(ANN, 6, tup("Ask")), answer)
    assert events(of(found, 8)) == [8, 7]
    assert of(found, 8).reasons[8] == (Reason(8, 7, "call 1"),)
    assert found.steps[-1].re == 1


def test_nested_environments_have_fields_of_their_own() -> None:
    change = Told(msgspec.Raw(msgspec.msgpack.encode(PeerSlow("a", True, "x"))))
    found = history(change)
    step = found.writer_of(("inner", "seen"))
    assert step is not None
    assert (step.came, step.event) == ("Told", 8)
    assert events(of(found, 8)) == [8, 4, 2, 1]
    assert of(found, 8).reasons[8] == (Reason(8, 4, "last"),)


def test_a_failure_is_a_step_and_its_fields_have_paths() -> None:
    found = history(arrived(ANN, 6, tup("Set", key="a", value=-1)), arrived(ANN, 7, tup("Later")), Fired())
    assert [step.came for step in found.steps[-3:]] == ["Failed (raised)", "Later", "Fired"]
    assert found.steps[-3].what["value"] == -1


def test_a_failed_timer_has_no_item() -> None:
    class Fails(atoll.App):
        @atoll.on(Later)
        def later(self, _event: Later, ctx: atoll.Context) -> None:
            if ctx.sender is None:
                raise ValueError
            ctx.after(0, Later())

    shelf = MemoryShelf.of(Fails)
    shelf.seal(arrived(ANN, 1, tup("Later"), 5), Fired())
    found = history_of(shelf, 1, shelf.last_event)
    assert [(step.came, step.what) for step in found.steps] == [("Later", {"is": "Later"}), ("Failed (raised)", None)]
    assert events(of(found, 2)) == [2, 1]


def test_history_may_begin_at_a_checkpoint() -> None:
    shelf = MemoryShelf.of(Table, Inner)
    shelf.seal(arrived(ANN, 1, tup("Set", key="a", value=1)))
    shelf.checkpoint()
    shelf.seal(arrived(ANN, 2, tup("Get", key="a")))
    found = history_of(shelf, 3, 3)
    assert found.begins == 2
    assert found.step_of(2) is None
    assert of(found, 3).begins == 2


def test_afterwards_the_classes_are_as_they_were() -> None:
    shelf = MemoryShelf.of(Table)
    shelf.seal()
    history_of(shelf, 1, 1)
    assert "__getattribute__" not in vars(Table)
    assert "__setattr__" not in vars(Table)
    with pytest.raises(AttributeError):
        Table().never = 1  # type: ignore[attr-defined]


def test_a_large_dictionary_counts_as_one_value() -> None:
    class Wide(atoll.App):
        held: dict[int, int] = msgspec.field(default_factory=lambda: dict.fromkeys(range(1_001), 0))

        @atoll.on(Value)
        def put(self, event: Value, _ctx: atoll.Context) -> Value:
            self.held[event.value] = 1
            return event

    shelf = MemoryShelf.of(Wide)
    shelf.seal(arrived(ANN, 1, tup("Value", value=5), tup("Value", value=6)))
    found = history_of(shelf, 1, 2)
    assert found.steps[0].writes == {("", "held"): (None,)}
    assert events(of(found, 2)) == [2, 1]


def test_only_what_happened_before_counts_and_what_was_only_set_was_not_read() -> None:
    class Twice(atoll.App):
        now: int = 0
        rows: list[int] = msgspec.field(default_factory=list[int])

        @atoll.on(Value)
        def put(self, event: Value, ctx: atoll.Context) -> None:
            if event.value:
                self.now = event.value
                self.rows.append(event.value)
                ctx.after(0, Later())
            else:
                self.now = 0

        @atoll.on(Later)
        def later(self, _event: Later, ctx: atoll.Context) -> None:
            ctx.log(str(len(self.rows)))

    shelf = MemoryShelf.of(Twice)
    values = [tup("Value", value=[1]), tup("Value", value=1), tup("Value", value=2), tup("Value", value=0)]
    shelf.seal(arrived(ANN, 1, *values), Fired(), Fired(), arrived(ANN, 5, tup("Value", value=3)))
    found = history_of(shelf, 1, shelf.last_event)
    assert [set(step.reads) for step in found.steps[:3]] == [{("", "rows")}, {("", "rows")}, set()]
    assert events(of(found, 4)) == [4, 2, 1]
    assert of(found, 4).reasons[4] == (Reason(4, 1, "timer 1"), Reason(4, 2, "rows"))
    assert events(of(found, 1)) == [1]


def test_an_answer_to_a_call_before_history_begins_comes_from_nowhere() -> None:
    shelf = MemoryShelf.of(Table, Inner)
    shelf.seal(arrived(ANN, 1, tup("Ask")))
    shelf.checkpoint()
    item = Item(msgspec.Raw(msgspec.msgpack.encode(tup("Value", value=9))), 0, 1)
    shelf.seal(Arrived(BOB, 1, msgspec.Raw(msgspec.msgpack.encode([item]))))
    assert events(of(history_of(shelf, 3, 3), 3)) == [3]


def test_lists_are_looked_into_and_an_upgrade_tells_as_well() -> None:
    class Many(atoll.Tuple):
        keys: list[str]

    class Reads(atoll.App):
        held: dict[str, int] = msgspec.field(default_factory=dict[str, int])

        @atoll.on(Set)
        def set(self, event: Set, ctx: atoll.Context) -> None:
            self.held[event.key] = event.value
            try:
                self.other = ctx.path
            except AttributeError:
                ctx.log("no such field")

        @atoll.on(Many)
        def many(self, event: Many, ctx: atoll.Context) -> None:
            ctx.log(str([self.held[key] for key in event.keys]))

    shelf = MemoryShelf.of(Reads)
    items = [tup("Set", key=key, value=1) for key in "abc"]
    shelf.seal(arrived(ANN, 1, *items))
    shelf.runner.upgrade(shelf.programs[CODE], CODE, shelf.now_ns)
    shelf.seal()
    shelf.seal(arrived(ANN, 4, tup("Many", keys=["a", "c"])))
    found = history_of(shelf, 1, 4)
    assert found.steps[-1].reads == (("", "held"),)
    assert [reason.source for reason in of(found, 4).reasons[4]] == [1, 3]
