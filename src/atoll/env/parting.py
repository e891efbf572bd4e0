# SPDX-License-Identifier: Apache-2.0
"""Where two histories part: the first input that is not the same in both.

Compared is what came in: tuples, failures, timers, changes, code; neither who sent it nor when, because two runs of one
program have other clients and other clocks. Confirmations, checkpoints and holders are no inputs of a program.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from atoll.env.past import Past
from atoll.env.records import Arrived, Began, Checkpointed, Confirmed, Failed, Held, Item, Opened, Record
from atoll.env.stepping import Sight

__all__ = ["Parting", "Place", "first_difference"]

_items: Final = msgspec.msgpack.Decoder(list[Item])
_item: Final = msgspec.msgpack.Decoder(Item)


@dataclass(frozen=True, slots=True)
class Place:
    """One input of a history.

    Attributes:
        number: Its block.
        index: Which record of it.
        item: Which item of the record; -1: it has none.
        record: The record.
    """

    number: int
    index: int
    item: int
    record: Record


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two histories part.

    Attributes:
        event: Number of the last event of the first input that differs, in the one history.
        other: In the other.
        one: What came in there.
        two: In the other.
    """

    event: int
    other: int
    one: Place
    two: Place


def first_difference(past: Past, other: Past) -> Parting | None:
    """Return where two histories part; None: the one is the begin of the other, or they are the same.

    Raises:
        DivergedError: A replay, up to there, differs from its recording.
        CorruptError: A journal is not what was written.
    """
    begins = _common(past, other)
    pairs = zip(_inputs(past, begins), _inputs(other, begins), strict=False)
    for (one, place), (two, there) in pairs:
        if one != two:
            return Parting(_event_at(past, place), _event_at(other, there), place, there)
    return None


def _common(past: Past, other: Past) -> int:
    """Return the number of the first block that is not the same in both, where they are copies of one journal."""
    begin, end = past.shelf.first, min(past.shelf.last, other.shelf.last)
    if other.shelf.first != begin:
        return 0
    number = begin
    while number <= end and past.shelf.block(number) == other.shelf.block(number):
        number += 1
    return number


def _inputs(past: Past, begin: int) -> Iterator[tuple[tuple[Any, ...], Place]]:
    """Return what is compared of each input, and where it is, from a block on."""
    for number, body in past.bodies(max(begin, past.shelf.first), past.shelf.last):
        for index, entry in enumerate(body.entries):
            match entry.record:
                case Arrived(_, _, raw):
                    for at, item in enumerate(_items.decode(raw)):
                        yield ("came", bytes(item.event), item.to), Place(number, index, at, entry.record)
                case Confirmed() | Checkpointed() | Held():
                    pass
                case record:
                    yield _essence(record), Place(number, index, -1, record)


def _essence(record: Record) -> tuple[Any, ...]:
    match record:
        case Began():
            return ("began", record.code, record.arguments)
        case Opened():
            return ("opened",)
        case Failed():
            item = _item.decode(record.item) if record.item else None
            return ("failed", record.code, None if item is None else bytes(item.event))
        case _:
            return (type(record).__name__, msgspec.structs.astuple(record))


def _event_at(past: Past, place: Place) -> int:
    """Return the number of the last event of an input, or of the last one before it if it has none."""
    block = past.shelf.block(place.number)
    found = block.first_event - 1

    def see(sight: Sight) -> bool:
        nonlocal found
        if sight.entry is not None and sight.number >= place.number:
            found = sight.after
            return (sight.number, sight.index, sight.item) == (place.number, place.index, place.item)
        return False

    if block.events:
        past.walk(block.first_event, block.first_event + block.events - 1, see)
    return max(found, past.first)
