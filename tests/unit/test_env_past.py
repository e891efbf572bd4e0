# SPDX-License-Identifier: Apache-2.0
"""Any event can be gone to, in any order, with the state it had and what it did."""

import msgspec
import pytest

import atoll
from atoll.base.errors import CorruptError, UsageError
from atoll.env.chain import Block, pack_body
from atoll.env.changes import Started
from atoll.env.history import encode_body
from atoll.env.past import STARTS_MAX, Past, flat, state_of
from atoll.env.records import Confirmed, Note, Post
from atoll.env.stepping import DivergedError, Sight
from tests.unit.past_world import ANN, BOB, START_NS, STEP_NS, MemoryShelf, arrived


class Add(atoll.Tuple):
    number: int


class Share(atoll.Tuple):
    pass


class Part(atoll.App):
    got: int = 0

    @atoll.on(Add)
    def add(self, event: Add, _ctx: atoll.Context) -> None:
        self.got += event.number


class Adder(atoll.App):
    total: int = 0

    @atoll.on(Add)
    def add(self, event: Add, ctx: atoll.Context) -> None:
        self.total += event.number
        ctx.log(f"plus {event.number}")

    @atoll.on(Share)
    def share(self, _event: Share, ctx: atoll.Context) -> None:
        part = ctx.spawn(Part, "part")
        ctx.send(part, Add(self.total))
        ctx.send(part, Add(1))


def add(number: int) -> dict[str, object]:
    return {"is": "Add", "number": number}


def history() -> MemoryShelf:
    """Return a history of 12 events in six blocks, with two checkpoints and blocks without an event."""
    shelf = MemoryShelf.of(Adder, Part)
    shelf.seal(arrived(ANN, 1, add(1), add(2), add(3), ask=False))
    shelf.seal(Confirmed(ANN, 0))
    shelf.seal(arrived(ANN, 4, add(4), ask=False), arrived(BOB, 1, add(5), ask=False))
    shelf.checkpoint()
    shelf.seal(arrived(ANN, 5, {"is": "Share"}, add(6), ask=False), Confirmed(ANN, 0))
    shelf.checkpoint()
    shelf.seal(arrived(BOB, 2, add(7), add(8), add(9), ask=False))
    return shelf


TOTALS = [0, 1, 3, 6, 10, 15, 15, 15, 15, 21, 28, 36, 45]


@pytest.mark.parametrize("order", [range(13), range(12, -1, -1), (12, 3, 11, 0, 7, 8, 1, 12)])
def test_a_state_is_the_same_whatever_was_looked_at_before(order: list[int]) -> None:
    past = Past(history())
    assert (past.first, past.last) == (0, 12)
    for event in order:
        moment = past.state_at(event)
        assert flat(moment.state).get("total", 0) == TOTALS[event]
        if event:
            assert flat(moment.was)["total"] == TOTALS[moment.before]
            assert moment.before < event <= moment.event


def test_a_moment_says_what_came_in_what_it_did_and_where_it_is() -> None:
    moment = Past(history()).state_at(2)
    assert (moment.event, moment.before, moment.number, moment.index, moment.item) == (2, 1, 1, 1, 1)
    assert moment.effects == (Note("plus 2"),)
    assert moment.now_ns == START_NS + 2 * STEP_NS
    assert moment.entry is not None


def test_events_that_happen_together_are_one_step() -> None:
    past = Past(history())
    moments = [past.state_at(event) for event in (6, 7, 8)]
    assert moments[0] == moments[1] == moments[2]
    assert (moments[0].before, moments[0].event) == (5, 8)
    assert flat(moments[0].state) == {"total": 15, "part:got": 16}
    assert flat(moments[0].was) == {"total": 15}


def test_the_beginning_has_no_step() -> None:
    moment = Past(history()).state_at(0)
    assert (moment.entry, moment.effects, moment.state, moment.event) == (None, (), {}, 0)


def test_what_is_not_kept_is_refused() -> None:
    past = Past(history())
    for event in (-1, 13):
        with pytest.raises(UsageError, match="1 to 12 are kept"):
            past.state_at(event)
    with pytest.raises(UsageError):
        past.walk(5, 4, lambda _: True)


def test_a_journal_that_was_shortened_begins_at_its_snapshot() -> None:
    shelf = history()
    shelf.prune(4)
    past = Past(shelf)
    assert (past.first, past.last) == (5, 12)
    assert flat(past.state_at(12).state)["total"] == 45
    assert flat(past.state_at(5).state) == {"total": 15}
    assert past.state_at(5).entry is None
    with pytest.raises(UsageError):
        past.state_at(4)
    summary = past.redo()
    assert (summary.first, summary.last, summary.blocks, summary.checkpoints) == (6, 12, 3, 1)
    shelf.kept.clear()
    with pytest.raises(CorruptError, match="there is no snapshot before it"):
        Past(shelf)


def test_a_whole_replay_compares_everything() -> None:
    shelf = history()
    summary = Past(shelf).redo()
    assert (summary.first, summary.last, summary.blocks, summary.records, summary.checkpoints) == (1, 12, 7, 10, 2)
    assert summary.digest == shelf.runner.digest
    assert summary.since_ns == START_NS + STEP_NS
    assert summary.until_ns == shelf.now_ns
    assert Past(shelf).redo(3).last == 5


def test_a_replay_without_a_block_has_nothing_to_compare() -> None:
    shelf = history()
    shelf.prune(6)
    shelf.blocks.clear()
    assert Past(shelf).redo().blocks == 0


def test_a_walk_ends_when_enough_was_seen() -> None:
    past = Past(history())
    seen: list[int] = []

    def see(sight: Sight) -> bool:
        seen.append(sight.after)
        return sight.after >= 3

    assert past.walk(2, 12, see)
    assert seen == [0, 0, 1, 2, 3]
    assert past.walk(1, 12, lambda _: True)
    assert not past.walk(1, 12, lambda _: False)


def test_checkpoints_cut_history_into_chunks_the_newest_first() -> None:
    assert list(Past(history()).chunks(12)) == [(10, 12), (6, 9), (1, 5)]
    assert list(Past(history()).chunks(7)) == [(6, 7), (1, 5)]


def test_checkpoints_are_passed_where_their_snapshots_are_gone() -> None:
    shelf = history()
    shelf.kept.clear()
    past = Past(shelf)
    assert list(past.chunks(12)) == [(1, 12)]
    past.redo()
    assert list(past.chunks(12)) == [(10, 12), (6, 9), (1, 5)]
    assert past.start_before(12).number == 6


def test_so_many_checkpoints_stay_in_memory() -> None:
    shelf = MemoryShelf.of(Adder, Part)
    for number in range(STARTS_MAX + 5):
        shelf.seal(arrived(ANN, number + 1, add(1), ask=False))
        shelf.checkpoint()
    shelf.kept.clear()
    past = Past(shelf)
    past.redo()
    assert len(list(past.chunks(past.last))) == STARTS_MAX  # The newest is none before it, and the begin is read again.


@pytest.mark.parametrize(
    ("steps", "event"),
    [(-1, 0), (0, 0), (1, 0), (2, 3), (3, 3), (4, 4), (5, 5), (6, 9), (7, 9), (8, 12), (1_000, 12)],
)
def test_a_time_names_the_last_event_that_was_not_after_it(steps: int, event: int) -> None:
    past = Past(history())
    assert past.event_at(START_NS + steps * STEP_NS) == event


def test_what_one_record_did_can_be_had() -> None:
    past = Past(history())
    assert past.effects_of(3, 1) == (Note("plus 5"),)
    assert past.effects_of(7, 0)[0] == Note("plus 7")


def test_a_divergence_leaves_nothing_that_is_used_again() -> None:
    shelf = history()
    good = shelf.blocks[0]
    bad = MemoryShelf.of(Adder, Part)
    bad.seal(arrived(ANN, 1, add(1), add(2), add(4), ask=False))
    shelf.blocks[0] = bad.blocks[0]
    past = Past(shelf)
    assert flat(past.state_at(3).state)["total"] == 7
    shelf.blocks[0] = msgspec.structs.replace(good, body=pack_body(encode_body(bytes([1] * 16), [])))
    with pytest.raises(CorruptError, match="does not begin the environment"):
        Past(shelf).state_at(0)
    entries = [*next(iter(Past(bad).bodies(1, 1)))[1].entries][:1]
    shelf.blocks[0] = msgspec.structs.replace(good, body=pack_body(encode_body(bytes([1] * 16), entries)))
    past = Past(shelf)
    for _ in range(2):
        with pytest.raises(DivergedError):
            past.state_at(2)


def test_a_snapshot_that_does_not_decode_is_named() -> None:
    shelf = history()
    shelf.kept[4] = msgspec.structs.replace(shelf.kept[4], state=b"\x01")
    with pytest.raises(CorruptError, match="the snapshot after block 4 does not decode"):
        Past(shelf).state_at(8)


def test_a_state_is_that_of_every_path() -> None:
    class Greets(atoll.App):
        said: str = ""

        @atoll.on(Started)
        def start(self, _event: Started, ctx: atoll.Context) -> None:
            self.said = "hello"
            ctx.send(atoll.Ref(ANN), Add(1))

    shelf = MemoryShelf.of(Greets)
    shelf.seal()
    moment = Past(shelf).state_at(1)
    assert state_of(shelf.environment) == moment.state == {"": {"said": "hello"}}
    assert isinstance(moment.effects[0], Post)
    assert moment.was == {}
    assert isinstance(shelf.block(1), Block)
