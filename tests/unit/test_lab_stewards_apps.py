# SPDX-License-Identifier: Apache-2.0
"""Simulated applications: their state tells what happened to them, how often and in which order, also what is wrong."""

from typing import Any

import msgspec
import pytest

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.env.changes import Put, Take
from atoll.env.parties import Ref
from atoll.env.query import where
from atoll.env.records import Opened
from atoll.lab.stewards import apps
from tests.unit.env_world import ANN, BOB, Recorded, World, item, items_of, notes, said
from tests.unit.env_world import arrived as record_of

NODE = b"node-of-us"
TO_BOB = Ref(BOB)


def fields(world: World | Recorded) -> dict[str, Any]:
    return world.environment.fields()


def told(world: World, *events: Any, party: bytes = ANN) -> list[Any]:
    return said(world.send(*events, party=party, ask=1), party)


def test_an_operation_that_is_applied_twice_shows_and_so_does_the_order() -> None:
    world = World(apps.Counter)
    assert [answer["value"] for answer in told(world, apps.Add(1, 1), apps.Add(2, 1, 5), apps.Add(1, 3))] == [1, 6, 7]
    told(world, apps.Add(1, 2), apps.Add(1, 2))
    assert (fields(world)["done"], fields(world)["total"]) == ({1: [1, 3, 2, 2], 2: [1]}, 9)
    assert told(world, apps.Peek())[0]["value"] == 9
    assert fields(world)["total"] == 9


def test_what_fails_in_the_middle_leaves_nothing_behind() -> None:
    recorded = Recorded(apps.Counter)
    effects = recorded.send(apps.Add(1, 1), apps.Spoil(1, 2), apps.Add(1, 3), ask=1)
    assert [answer.get("code") for answer in said(effects)] == [None, "raised", None]
    assert (fields(recorded)["done"], fields(recorded)["total"]) == ({1: [1, 3]}, 2)
    assert recorded.environment.deadline_ns is None


def test_lives_are_counted() -> None:
    world = World(apps.Counter)
    world.put(Opened(NODE, "ams", 1))
    world.put(Opened(NODE, "fra", 2, before="ams"))
    world.put(Opened(NODE, "fra", 3, silent=True))
    assert fields(world)["lives"] == {"Started": 1, "Restored": 1, "Moved": 1}


def test_money_that_is_given_leaves_and_comes_with_a_number_that_shows_gaps_and_copies() -> None:
    world = World(apps.Bank)
    effects = world.send(apps.Transfer(1, 2, 30, TO_BOB), apps.Transfer(1, 5, 5, TO_BOB))
    assert [(event["serial"], event["amount"]) for event in said(effects, BOB)] == [(1, 30), (2, 5)]
    assert (fields(world)["money"], fields(world)["given"]) == (965, {BOB: 2})
    told(world, apps.Deposit(1, 7), apps.Deposit(3, 1), apps.Deposit(3, 1), party=BOB)
    assert (fields(world)["money"], fields(world)["got"]) == (974, {BOB: [1, 3, 3]})
    assert told(world, apps.Peek())[0]["value"] == 974


@pytest.mark.parametrize(("answer", "code"), [(apps.Sum(5), "ok"), (None, "timeout")])
def test_each_call_of_a_bank_has_one_outcome(answer: apps.Sum | None, code: str) -> None:
    world = World(apps.Bank, known=[apps.Sum])  # As a bundle does, which knows all of its module.
    effects = world.send(apps.Transfer(1, 3, 1, TO_BOB))
    assert (fields(world)["asked"], fields(world)["outcomes"]) == (1, 0)
    (number,) = [one.ask for one in items_of(effects, BOB) if one.ask]
    if answer is None:
        world.fire()
    else:
        world.respond(number, answer)
    assert (fields(world)["asked"], fields(world)["outcomes"], fields(world)["codes"]) == (1, 1, {code: 1})
    world.respond(number, apps.Sum(6))
    assert fields(world)["outcomes"] == 1


def test_a_bank_looks_for_another_by_its_kind_now_and_then() -> None:
    world = World(apps.Bank)
    world.send(apps.Transfer(1, 4, 1, TO_BOB))
    assert fields(world)["asked"] == 1
    world.send(apps.Transfer(1, 5, 1, TO_BOB))
    assert fields(world)["asked"] == 1


def test_timers_beat_and_one_that_is_early_shows() -> None:
    world = World(apps.Pulse)
    begin_ns = world.now_ns
    for _ in range(3):
        world.fire()
    assert (fields(world)["beats"], fields(world)["early"]) == (3, 0)
    assert fields(world)["last_ns"] == begin_ns + 3 * int(apps.TICK_S * SECOND_NS)
    told(world, apps.Tick())  # One that nobody set: it comes before the time of the last one is over.
    assert fields(world)["beats"] == 4
    world.put(Opened(NODE, "ams", 1))
    assert fields(world)["lives"] == {"Restored": 1}


def test_who_asks_for_an_answer_later_gets_it_then_and_one_that_comes_too_early_is_counted() -> None:
    world = World(apps.Pulse)
    assert told(world, apps.Later(1, 1, 200)) == []
    at_ns = world.now_ns + 200 * MILLISECOND_NS
    effects = world.fire()
    assert (world.now_ns, [answer["is"] for answer in said(effects)]) == (at_ns, ["Sum"])
    assert (fields(world)["done"], fields(world)["early"]) == ({1: [1]}, 0)
    world.send(apps.Due(1, 2, world.now_ns + 1, None))
    assert (fields(world)["done"], fields(world)["early"]) == ({1: [1, 2]}, 1)


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_relay_passes_an_operation_on_and_says_what_it_was_told(*, is_answered: bool) -> None:
    world = World(apps.Relay)
    effects = world.send(apps.Relayed(1, 5, TO_BOB, 2000), ask=1)
    (asked,) = items_of(effects, BOB)
    assert msgspec.msgpack.decode(asked.event) == {"is": "Add", "who": 1001, "number": 5, "amount": 1}
    assert (fields(world)["begun"], fields(world)["ended"]) == (1, 0)
    if is_answered:
        world.put(record_of(1, item(apps.Sum(9), re=asked.ask), party=BOB))
        assert fields(world)["ended"] == 0, "it sleeps a little"
    effects = world.fire()
    assert [answer.get("value", answer.get("code")) for answer in said(effects)] == [9 if is_answered else "timeout"]
    assert fields(world)["done"] == {1: [5]}
    assert fields(world)["answered"] == ({1001: [5]} if is_answered else {})
    assert (fields(world)["begun"], fields(world)["ended"]) == (1, 1)


def test_what_is_put_on_a_board_is_taken_once() -> None:
    world = World(apps.Board)
    told(world, Put(apps.Job(1, 1), 60.0), Put(apps.Job(1, 2), 60.0))
    taken = [told(world, Take(where(apps.Job)))[0]["tuples"] for _ in range(2)]
    assert [[job["number"] for job in jobs] for jobs in taken] == [[1], [2]]


@pytest.mark.parametrize("generation", [2, 3, 4])
def test_newer_code_says_which_it_is(generation: int) -> None:
    step = getattr(apps.Recording, f"to_{generation}")
    assert step({"total": 5, "generation": 1}) == {"total": 5, "generation": generation}


def test_a_log_line_now_and_then_has_something_random_in_it() -> None:
    world = World(apps.Counter)
    lines = notes(world.send(*(apps.Add(1, number) for number in range(1, 15))))
    assert [line.partition(":")[0] for line in lines] == ["7 of 1", "14 of 1"]
