# SPDX-License-Identifier: Apache-2.0
"""History through changed code: the first difference is named, and the rest is counted."""

import msgspec
import pytest

import atoll
from atoll.base.errors import CorruptError, UserError
from atoll.env.app import App, Program, program_of
from atoll.env.changes import PeerSlow, Started
from atoll.env.comparing import Difference
from atoll.env.past import Past
from atoll.env.records import Confirmed, Failed, Fired, Told
from atoll.env.revising import revise
from atoll.env.walls import HandlerKilled
from tests.unit.past_world import ANN, CODE, MemoryShelf, arrived


class Add(atoll.Tuple):
    number: int


class Sum(atoll.Tuple):
    total: int


class Adder(atoll.App):
    total: int = 0

    @atoll.on(Add)
    def add(self, event: Add, ctx: atoll.Context) -> Sum:
        if event.number < 0:
            raise ValueError("negative")
        self.total += event.number
        if event.number == 50:
            ctx.after(0, Add(1))
        return Sum(self.total)


def _capped(self: Adder, event: Add, ctx: atoll.Context) -> Sum:
    if event.number == 7:
        raise ValueError("seven")
    self.total = min(self.total + abs(event.number), 20)
    return Sum(self.total)


def changed() -> Program:
    class Adder(atoll.App):
        total: int = 0
        add = atoll.on(Add)(_capped)

    return program_of(Adder)


def add(number: int) -> dict[str, object]:
    return {"is": "Add", "number": number}


def history(app: type[App] = Adder) -> MemoryShelf:
    shelf = MemoryShelf.of(app)
    shelf.seal(arrived(ANN, 1, add(1), add(2)), Confirmed(ANN, 1))
    shelf.checkpoint()
    shelf.seal(arrived(ANN, 3, add(-4), add(7), add(20)), arrived(ANN, 6, add(50)))
    shelf.seal(Fired())
    return shelf


def test_the_same_code_gives_the_same_history() -> None:
    shelf = history()
    found = revise(Past(shelf), shelf.programs[CODE], 1, 7)
    assert (found.events, found.differing, found.first, found.failed, found.state) == (7, 0, None, (1, 1), ())


def test_the_first_difference_is_named_and_the_rest_counted() -> None:
    found = revise(Past(history()), changed(), 1, 7)
    assert (found.events, found.differing, found.failed) == (7, 4, (1, 1))
    assert found.first is not None
    assert found.first.event == 3
    assert found.first.record == arrived(ANN, 3, add(-4))
    assert found.first.differences[0] == Difference("sent[0]['event']['is']", "'Failure'", "'Sum'")
    assert found.state == (Difference("total", "81", "20"),)


def test_it_stops_after_an_event_and_begins_at_a_checkpoint() -> None:
    assert revise(Past(history()), changed(), 1, 2).events == 2
    found = revise(Past(history()), changed(), 4, 4)
    assert (found.events, found.differing) == (2, 2)


def test_an_upgrade_of_history_is_made_by_the_recorded_side_alone() -> None:
    shelf = history()
    other = bytes(reversed(CODE))
    shelf.programs[other] = changed()
    shelf.runner.upgrade(shelf.programs[other], other, shelf.now_ns)
    shelf.seal()
    shelf.seal(arrived(ANN, 7, add(1)))
    found = revise(Past(shelf), changed(), 8, 8)
    assert found.events == 1
    assert revise(Past(shelf), changed(), 1, 8).state == ()


def test_a_failed_timer_is_not_given_again() -> None:
    class Late(atoll.App):
        @atoll.on(Add)
        def add(self, event: Add, ctx: atoll.Context) -> None:
            if ctx.sender is None:
                raise ValueError
            ctx.after(0, event)

    shelf = MemoryShelf.of(Late)
    shelf.seal(arrived(ANN, 1, add(1)), Fired())
    assert any(isinstance(entry.record, Failed) for _, body in Past(shelf).bodies(1, 1) for entry in body.entries)
    assert revise(Past(shelf), shelf.programs[CODE], 1, 2).failed == (1, 0)


def test_recorded_code_that_fails_now_is_no_history() -> None:
    shelf = history()
    shelf.programs[CODE] = changed()
    with pytest.raises(CorruptError, match="event 4: the recorded code fails"):
        revise(Past(shelf), changed(), 4, 7)


def test_a_state_that_does_not_fit_the_changed_code_is_refused() -> None:
    class Adder(atoll.App):
        version = 0 + 2
        total: int = 0

    with pytest.raises(UserError, match="A607"):
        revise(Past(history()), program_of(Adder), 4, 7)


def test_while_a_coroutine_waits_no_checkpoint_is_made() -> None:
    class Waits(atoll.App):
        total: int = 0

        @atoll.on(Add)
        async def add(self, event: Add, ctx: atoll.Context) -> Sum:
            await ctx.sleep(0)
            if event.number < 0:
                raise ValueError
            self.total += event.number
            return Sum(self.total)

    shelf = MemoryShelf.of(Waits)
    shelf.seal(arrived(ANN, 1, add(1), add(-2), add(3)), Fired(), Fired(), Fired())
    found = revise(Past(shelf), shelf.programs[CODE], 1, shelf.last_event)
    assert (found.differing, found.failed, found.state) == (0, (1, 0), ())


class Odd(atoll.App):
    """Fails at what the recorded code takes: a timer, a change, too long, too large."""

    total: int = 0

    @atoll.on(Add)
    def add(self, event: Add, ctx: atoll.Context) -> Sum:
        match event.number:
            case 1 if ctx.sender is None:
                raise ValueError("a timer")
            case 2:
                raise HandlerKilled("it ran for long")
            case 7:
                raise MemoryError
            case _:
                return Sum(0)

    @atoll.on(PeerSlow)
    def slow(self, _event: PeerSlow, ctx: atoll.Context) -> None:
        raise ValueError(ctx.path)


Odd.__name__ = "Adder"


def test_handlers_of_changed_code_fail_as_they_would() -> None:
    shelf = history()
    shelf.seal(Told(msgspec.Raw(msgspec.msgpack.encode(PeerSlow("a", True, "x")))))
    found = revise(Past(shelf), program_of(Odd), 1, shelf.last_event)
    assert found.failed == (1, 3)
    timers = MemoryShelf.of(Adder)
    timers.seal(arrived(ANN, 1, add(50)), Fired())
    timers.programs[bytes(32)] = program_of(Timed)
    found = revise(Past(timers), program_of(Timed), 1, 2)
    assert (found.failed, found.state) == ((0, 1), (Difference("total", "51", "50"),))


def test_changed_code_that_ends_the_process_fails_and_whoever_interrupts_is_obeyed() -> None:
    raised: list[BaseException] = [SystemExit(3), GeneratorExit(), KeyboardInterrupt()]

    class Leaves(atoll.App):
        @atoll.on(Add)
        def add(self, _event: Add, _ctx: atoll.Context) -> Sum:
            raise raised.pop(0)

    Leaves.__name__ = "Adder"
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(1), add(2)))
    assert revise(Past(shelf), program_of(Leaves), 1, 2).failed == (0, 2)
    with pytest.raises(KeyboardInterrupt):
        revise(Past(shelf), program_of(Leaves), 1, 2)


@pytest.mark.parametrize(("then", "differing"), [(HandlerKilled("more than 2 s"), 0), (ValueError("no"), 1)])
def test_what_was_ended_then_and_is_ended_now_does_not_differ(then: BaseException, differing: int) -> None:
    raised = then

    class Loops(atoll.App):
        @atoll.on(Add)
        def add(self, _event: Add, _ctx: atoll.Context) -> Sum:
            raise raised

    shelf = MemoryShelf.of(Loops)
    shelf.seal(arrived(ANN, 1, add(1)))
    raised = HandlerKilled("more than 4 s")
    found = revise(Past(shelf), program_of(Loops), 1, 1)
    assert (found.differing, found.failed) == (differing, (1, 1))


class Timed(atoll.App):
    total: int = 0

    @atoll.on(Add)
    def add(self, event: Add, ctx: atoll.Context) -> Sum:
        if ctx.sender is None:
            raise ValueError("a timer")
        self.total += event.number
        ctx.after(0, Add(1))
        return Sum(self.total)


Timed.__name__ = "Adder"


def test_changed_code_that_fails_at_a_change_counts_it() -> None:
    class Listens(atoll.App):
        @atoll.on(PeerSlow)
        def slow(self, _event: PeerSlow, ctx: atoll.Context) -> None:
            pass

    shelf = MemoryShelf.of(Listens)
    shelf.seal(Told(msgspec.Raw(msgspec.msgpack.encode(PeerSlow("a", True, "x")))))
    Odd.__name__ = "Listens"
    try:
        assert revise(Past(shelf), program_of(Odd), 1, 1).failed == (0, 1)
    finally:
        Odd.__name__ = "Adder"


def test_changed_code_that_cannot_begin_is_refused() -> None:
    class Adder(atoll.App):
        @atoll.on(Started)
        def start(self, _event: Started, ctx: atoll.Context) -> None:
            raise ValueError(ctx.path)

    with pytest.raises(UserError, match="A602"):
        revise(Past(history()), program_of(Adder), 1, 7)


def test_a_failure_while_a_coroutine_waits_is_undone_to_the_last_checkpoint() -> None:
    class Waits(atoll.App):
        total: int = 0

        @atoll.on(Add)
        async def add(self, event: Add, ctx: atoll.Context) -> Sum:
            if event.number < 0:
                raise ValueError
            await ctx.sleep(5)
            return Sum(self.total)

    class Fails(Waits):
        @atoll.on(Sum)
        def fail(self, _event: Sum, _ctx: atoll.Context) -> None:
            raise ValueError

    Fails.__name__ = "Waits"
    shelf = MemoryShelf.of(Waits)
    shelf.seal(arrived(ANN, 1, add(1), {"is": "Sum", "total": 1}))
    assert revise(Past(shelf), program_of(Fails), 1, shelf.last_event).failed == (0, 1)


def test_items_that_only_get_other_numbers_do_not_differ() -> None:
    class Adder2(atoll.App):
        total: int = 0

        @atoll.on(Add)
        def add(self, event: Add, ctx: atoll.Context) -> Sum:
            if event.number < 0:
                raise ValueError("negative")
            if event.number == 1 and ctx.sender is not None:
                ctx.send(ctx.sender, event)
            self.total += event.number
            return Sum(self.total)

    Adder2.__name__ = "Adder"
    found = revise(Past(history()), program_of(Adder2), 1, 5)
    assert (found.events, found.differing, found.state) == (5, 1, ())
    assert found.first is not None
    assert found.first.differences[0].path == "sent[0]['event']['is']"
