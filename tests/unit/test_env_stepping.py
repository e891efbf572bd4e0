# SPDX-License-Identifier: Apache-2.0
"""A record is applied whole and seen item by item, and what differs from the recording is said at once."""

from hashlib import sha256
from typing import Any

import msgspec
import pytest

import atoll
from atoll.base.errors import CorruptError
from atoll.env.chain import unpack_body
from atoll.env.changes import Started
from atoll.env.history import NO_MARK, Body, Entry, decode_body
from atoll.env.past import Past
from atoll.env.records import Checkpointed, Effect, Fired, Note, Post
from atoll.env.stepping import DivergedError, Replica, Sight
from tests.unit.past_world import ANN, BOB, CODE, MemoryShelf, arrived


class Add(atoll.Tuple):
    number: int


class Sum(atoll.Tuple):
    total: int


class Adder(atoll.App):
    total: int = 0

    @atoll.on(Add)
    def add(self, event: Add, ctx: atoll.Context) -> Sum:
        self.total += event.number
        ctx.log(f"plus {event.number}")
        if event.number == 9:
            ctx.send(atoll.Ref(BOB), Sum(self.total))
        if event.number == 100:
            ctx.after(0, Add(1))
        return Sum(self.total)


def add(number: int) -> dict[str, Any]:
    return {"is": "Add", "number": number}


def body_of(shelf: MemoryShelf, number: int) -> Body:
    return decode_body(unpack_body(shelf.block(number).body))


def replica_of(shelf: MemoryShelf) -> Replica:
    return Replica(shelf.program, Past(shelf).start_before(0))


def looked_at(shelf: MemoryShelf) -> list[tuple[int, int, tuple[Effect, ...]]]:
    """Return (item, total, effects) of every step."""
    found: list[tuple[int, int, tuple[Effect, ...]]] = []
    replica = replica_of(shelf)
    sight = Sight(replica.environment)

    def see(sight: Sight) -> bool:
        found.append((sight.item, sight.environment.fields()["total"], sight.effects()))
        return False

    for number in range(1, shelf.last + 1):
        assert not replica.show(number, body_of(shelf, number), sight, see)
    return found


def merged(effects: list[tuple[Effect, ...]]) -> tuple[list[str], dict[bytes, list[Any]]]:
    """Return the log, and what every party gets with its number."""
    log: list[str] = []
    sent: dict[bytes, list[Any]] = {}
    for effect in (effect for some in effects for effect in some):
        match effect:
            case Note(text):
                log.append(text)
            case Post(party, first, count, items):
                raw = msgspec.msgpack.decode(items)
                assert len(raw) == count
                sent.setdefault(party, []).extend(zip(range(first, first + count), raw, strict=True))
            case _:
                pytest.fail(str(effect))
    return log, sent


def test_each_item_is_seen_with_the_state_after_it_and_what_it_did_alone() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(1), add(9), add(3)), arrived(ANN, 4, add(9)))
    steps = looked_at(shelf)
    assert [(item, total) for item, total, _ in steps] == [(-1, 0), (0, 1), (1, 10), (2, 13), (0, 22)]
    log, sent = merged([effects for _, _, effects in steps])
    assert log == ["plus 1", "plus 9", "plus 3", "plus 9"]
    assert [number for number, _ in sent[ANN]] == [1, 2, 3, 4]
    assert [number for number, _ in sent[BOB]] == [1, 2]
    assert [len(effects) for _, _, effects in steps] == [0, 2, 3, 2, 3]


def test_items_that_were_taken_before_are_not_seen_again() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(1), add(2)), arrived(ANN, 1, add(1), add(2), add(4)))
    assert [(item, total) for item, total, _ in looked_at(shelf)] == [(-1, 0), (0, 1), (1, 3), (2, 7)]


def test_a_record_that_is_taken_item_by_item_is_seen_so() -> None:
    """One item that does not decode as what the code knows makes the machine take the record in another way."""
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(1), {"is": "Foreign"}, add(3)))
    shelf.seal(arrived(ANN, 4, {"is": "Foreign"}))
    steps = looked_at(shelf)
    assert [(item, total) for item, total, _ in steps] == [(-1, 0), (0, 1), (1, 1), (2, 4), (0, 4)]
    log, sent = merged([effects for _, _, effects in steps])
    assert log == ["plus 1", "plus 3"]
    assert [number for number, _ in sent[ANN]] == [1, 2, 3, 4]


def test_what_was_sent_before_the_last_item_is_not_its_own() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(9), {"is": "Foreign"}, {"is": "Foreign"}))
    steps = looked_at(shelf)
    assert [len(effects) for _, _, effects in steps] == [0, 3, 1, 1]


def test_an_error_of_who_looks_is_no_failure_of_a_handler() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(1), add(2)))
    replica = replica_of(shelf)

    def see(sight: Sight) -> bool:
        raise BrokenPipeError(sight.after)

    with pytest.raises(BrokenPipeError):
        replica.show(1, body_of(shelf, 1), Sight(replica.environment), see)


def test_what_was_decoded_alone_ends_with_its_record() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, {"is": "Foreign"}), arrived(ANN, 2, add(1), add(2)))
    assert [item for item, _, _ in looked_at(shelf)] == [-1, 0, 0, 1]


def test_a_timer_is_a_step() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(100)), Fired())
    assert [(item, total) for item, total, _ in looked_at(shelf)][1:] == [(0, 100), (-1, 101)]
    assert shelf.environment.timers_set == 1


def test_who_has_seen_enough_is_asked_no_more_and_the_record_is_finished() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(1), add(2)), arrived(ANN, 3, add(4)))
    replica = replica_of(shelf)
    seen: list[int] = []

    def see(sight: Sight) -> bool:
        seen.append(sight.after)
        return sight.after == 1

    assert replica.show(1, body_of(shelf, 1), Sight(replica.environment), see)
    assert seen == [0, 1]
    assert (replica.events, replica.following, replica.index) == (2, 1, 2)
    replica.redo(1, body_of(shelf, 1))
    assert (replica.events, replica.following, replica.index) == (3, 2, 0)
    assert replica.environment.apps()[""] == Adder(7)


def changed(body: Body, at: int, **changes: Any) -> Body:
    entries = list(body.entries)
    entries[at] = msgspec.structs.replace(entries[at], **changes)
    return Body(body.digest, tuple(entries))


def test_other_effects_are_a_divergence_with_the_effects_that_came() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(1)))
    body = changed(body_of(shelf, 1), 1, record=arrived(ANN, 1, add(2)))
    with pytest.raises(DivergedError, match=r"event 1 \(block 1, record 1\): effects were [0-9a-f]{8}") as caught:
        replica_of(shelf).redo(1, body)
    assert (caught.value.what, caught.value.first_event, caught.value.event) == ("effects", 1, 1)
    assert caught.value.effects[0] == Note("plus 2")
    with pytest.raises(DivergedError, match="effects were none"):
        replica_of(shelf).redo(1, changed(body_of(shelf, 1), 1, mark=NO_MARK))


def test_effects_that_do_not_come_are_a_divergence() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(Fired())
    with pytest.raises(DivergedError, match="effects were 00000001, and are none"):
        replica_of(shelf).redo(1, changed(body_of(shelf, 1), 1, mark=1))


@pytest.mark.parametrize("error", [ValueError(5), SystemExit(5)])
def test_a_handler_that_fails_now_is_a_divergence_with_its_cause(error: BaseException) -> None:
    class Fails(atoll.App):
        @atoll.on(Add)
        def add(self, _event: Add, _ctx: atoll.Context) -> None:
            if fails:
                raise error

    fails = False
    shelf = MemoryShelf.of(Fails)
    shelf.seal(arrived(ANN, 1, add(5), ask=False))
    fails = True
    replica = replica_of(shelf)
    expected = f"raised were no failure, and are {type(error).__name__}: 5"
    with pytest.raises(DivergedError, match=expected) as caught:
        replica.show(1, body_of(shelf, 1), Sight(replica.environment), lambda _: False)
    assert caught.value.__cause__ is error


def test_a_digest_of_a_block_is_compared() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal()
    with pytest.raises(DivergedError, match="digest were"):
        replica_of(shelf).redo(1, Body(bytes([1]) * 16, body_of(shelf, 1).entries))


def test_a_state_that_is_not_the_recorded_one_is_a_divergence() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(1)))
    shelf.checkpoint()
    replica = replica_of(shelf)
    replica.redo(1, body_of(shelf, 1))
    digest = sha256(b"other").digest()
    with pytest.raises(DivergedError, match=f"state were {digest.hex()}") as caught:
        replica.redo(2, changed(body_of(shelf, 2), 0, record=Checkpointed(digest)))
    assert caught.value.state == shelf.kept[2].state


def test_a_checkpoint_is_kept_and_one_without_a_digest_is_not_compared() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(1)))
    shelf.checkpoint()
    replica = replica_of(shelf)
    replica.redo(1, body_of(shelf, 1))
    replica.redo(2, changed(body_of(shelf, 2), 0, record=Checkpointed()))
    assert (replica.checkpoint.number, replica.checkpoint.events) == (2, 1)
    assert replica.checkpoint.state == shelf.kept[2].state


def test_a_state_that_cannot_be_written_now_is_named() -> None:
    class Waits(atoll.App):
        @atoll.on(Started)
        async def start(self, _event: Started, ctx: atoll.Context) -> None:
            await ctx.sleep(5)

    shelf = MemoryShelf.of(Waits)
    shelf.seal()
    body = body_of(shelf, 1)
    entries = (*body.entries, Entry(body.entries[0].now_ns, NO_MARK, Checkpointed()))
    with pytest.raises(CorruptError, match="cannot be written now"):
        replica_of(shelf).redo(1, Body(body.digest, entries))


def test_an_upgrade_goes_on_with_the_other_code() -> None:
    class Twice(Adder):
        @atoll.on(Sum)
        def more(self, _event: Sum, _ctx: atoll.Context) -> None:
            self.total *= 2

    Twice.__name__ = "Adder"
    shelf = MemoryShelf.of(Adder)
    other = bytes(reversed(CODE))
    shelf.programs[other] = MemoryShelf.of(Twice).programs[CODE]
    shelf.seal(arrived(ANN, 1, add(3)))
    shelf.runner.upgrade(shelf.programs[other], other, shelf.now_ns)
    shelf.seal()
    shelf.seal(arrived(ANN, 2, {"is": "Sum", "total": 0}))
    replica = replica_of(shelf)
    for number in (1, 2, 3):
        replica.redo(number, body_of(shelf, number))
    assert replica.environment.fields() == {"total": 6}
    assert replica.code == other


def test_a_replica_goes_to_one_record() -> None:
    shelf = MemoryShelf.of(Adder)
    shelf.seal(arrived(ANN, 1, add(1)), arrived(ANN, 2, add(2)))
    effects = replica_of(shelf).redo_to(1, body_of(shelf, 1), 1)
    assert effects[0] == Note("plus 1")
