# SPDX-License-Identifier: Apache-2.0
"""Two histories part at the first input that is not the same, however it was parcelled and whoever sent it."""

import msgspec

import atoll
from atoll.env.app import program_of
from atoll.env.changes import Moved, PeerSlow
from atoll.env.parting import first_difference
from atoll.env.past import Past
from atoll.env.records import Confirmed, Fired, Opened, Told
from tests.unit.past_world import ANN, BOB, MemoryShelf, arrived, began


class Add(atoll.Tuple):
    number: int


class Adder(atoll.App):
    total: int = 0

    @atoll.on(Add)
    def add(self, event: Add, ctx: atoll.Context) -> None:
        if event.number < 0:
            raise ValueError
        self.total += event.number
        if event.number == 50:
            ctx.after(0, Add(-1))

    @atoll.on(Moved, PeerSlow)
    def note(self, _event: atoll.Tuple, _ctx: atoll.Context) -> None:
        self.total += 100


def add(number: int) -> dict[str, object]:
    return {"is": "Add", "number": number}


def shelf_of(*records: object) -> MemoryShelf:
    shelf = MemoryShelf.of(Adder)
    for record in records:
        shelf.seal(record)  # type: ignore[arg-type]
    return shelf


def parted(one: MemoryShelf, other: MemoryShelf) -> tuple[int, int] | None:
    found = first_difference(Past(one), Past(other))
    return None if found is None else (found.event, found.other)


def test_the_same_inputs_in_other_parcels_of_others_are_the_same() -> None:
    one = shelf_of(arrived(ANN, 1, add(1), add(2)), Confirmed(ANN, 0), arrived(ANN, 3, add(3)))
    other = shelf_of(arrived(BOB, 1, add(1)), arrived(ANN, 1, add(2), add(3)))
    assert parted(one, other) is None
    assert parted(one, one) is None


def test_a_history_that_goes_on_has_not_parted() -> None:
    assert parted(shelf_of(arrived(ANN, 1, add(1))), shelf_of(arrived(ANN, 1, add(1), add(2)))) is None


def test_the_first_item_that_differs_is_named_in_both() -> None:
    one = shelf_of(arrived(ANN, 1, add(1), add(2), add(3)))
    other = shelf_of(arrived(ANN, 1, add(1)), arrived(ANN, 2, add(2), add(4)))
    found = first_difference(Past(one), Past(other))
    assert found is not None
    assert (found.event, found.other) == (3, 3)
    assert (found.one.number, found.one.index, found.one.item) == (1, 1, 2)
    assert (found.two.number, found.two.index, found.two.item) == (2, 0, 1)


def test_copies_are_compared_block_by_block_first() -> None:
    one, other = (shelf_of(arrived(ANN, 1, add(1)), arrived(ANN, 2, add(2))) for _ in range(2))
    one.seal(arrived(ANN, 3, add(3)))
    other.seal(arrived(ANN, 3, add(4)))
    assert parted(one, other) == (3, 3)


def test_one_that_was_shortened_is_compared_from_its_begin() -> None:
    one = shelf_of(arrived(ANN, 1, add(1)))
    one.checkpoint()
    one.seal(arrived(ANN, 2, add(2)))
    other = shelf_of(arrived(ANN, 1, add(1)))
    one.prune(2)
    assert parted(one, other) == (2, 0)


def test_failures_timers_and_changes_are_inputs() -> None:
    begin = (arrived(ANN, 1, add(50)),)
    moved = Told(msgspec.Raw(msgspec.msgpack.encode(Moved("a", "b"))))
    slow = Told(msgspec.Raw(msgspec.msgpack.encode(PeerSlow("a", True, "x"))))
    opened = Opened(bytes(10), "b", 2, "a")
    assert parted(shelf_of(*begin, moved), shelf_of(*begin, slow)) == (2, 2)
    assert parted(shelf_of(*begin, Fired()), shelf_of(*begin, Fired())) is None
    assert parted(shelf_of(*begin, Fired()), shelf_of(*begin, arrived(ANN, 2, add(-3)))) == (2, 2)
    assert parted(shelf_of(*begin, opened), shelf_of(*begin, Opened(bytes(10), "c", 3, "x"))) is None
    assert parted(shelf_of(*begin, opened), shelf_of(*begin, slow)) == (2, 2)


def test_a_block_without_an_event_can_be_where_they_part() -> None:
    one, other = MemoryShelf.of(Adder), MemoryShelf({bytes(32): program_of(Adder)}, bytes(32))
    other.take(began(bytes(32)))
    for shelf in (one, other):
        shelf.seal()
    assert parted(one, other) == (0, 0)
