# SPDX-License-Identifier: Apache-2.0
"""Going backwards gives what going forwards gave, whatever the history and whatever the steps."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

import atoll
from atoll.env.past import Moment, Past
from atoll.env.records import Confirmed, Fired
from tests.unit.past_world import ANN, BOB, MemoryShelf, arrived


class Put(atoll.Tuple):
    key: str
    value: int


class Put2(atoll.Tuple):
    value: int


class Room(atoll.App):
    held: list[int] = msgspec.field(default_factory=list[int])

    @atoll.on(Put2)
    def put(self, event: Put2, _ctx: atoll.Context) -> Put2:
        self.held.append(event.value)
        return Put2(len(self.held))


class Shop(atoll.App):
    held: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    drawn: int = 0

    @atoll.on(Put)
    def put(self, event: Put, ctx: atoll.Context) -> Put:
        if event.value == 13:
            raise ValueError("unlucky")
        self.held[event.key] = event.value
        self.drawn = ctx.random.randrange(1_000)
        if event.value % 5 == 0:
            ctx.after(0.001, Put2(event.value))
        if event.value % 7 == 0:
            ctx.send(ctx.spawn(Room, event.key), Put2(event.value))
        return event

    @atoll.on(Put2)
    async def late(self, event: Put2, ctx: atoll.Context) -> None:
        await ctx.sleep(0.001)
        self.held["late"] = event.value


def put(key: str, value: int) -> dict[str, Any]:
    return {"is": "Put", "key": key, "value": value}


PUTS: st.SearchStrategy[dict[str, Any]] = st.builds(put, st.sampled_from("ab"), st.integers(0, 20))
Step = tuple[bytes, list[dict[str, Any]]] | str
RECORDS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.sampled_from((ANN, BOB)), st.lists(PUTS, min_size=1, max_size=6)),
    st.sampled_from(("fire", "confirm", "seal", "checkpoint")),
)


def recorded(script: list[Step]) -> MemoryShelf:
    shelf = MemoryShelf.of(Shop, Room)
    numbers = {ANN: 0, BOB: 0}
    for step in script:
        if isinstance(step, tuple):
            party, events = step
            shelf.take(arrived(party, numbers[party] + 1, *events))
            numbers[party] += len(events)
        elif step == "fire":
            shelf.take(Fired())
        elif step == "confirm":
            shelf.take(Confirmed(ANN, 2))
        elif step == "seal" and shelf.runner.has_news:
            shelf.seal()
        elif step == "checkpoint" and shelf.environment.is_quiescent:
            shelf.checkpoint()
    if shelf.runner.has_news:
        shelf.seal()
    return shelf


@given(st.lists(RECORDS, max_size=20), st.lists(st.integers(0, 10_000), max_size=12))
def test_backwards_gives_what_forwards_gave(script: list[Step], jumps: list[int]) -> None:
    shelf = recorded(script)
    forwards = Past(shelf)
    seen: dict[int, Moment] = {event: forwards.state_at(event) for event in range(forwards.last + 1)}
    past = Past(shelf)
    past.redo()
    for jump in (*jumps, *range(past.last, -1, -1)):
        event = jump % (past.last + 1)
        assert past.state_at(event) == seen[event]
        assert Past(shelf).state_at(event) == seen[event]


@given(st.lists(RECORDS, max_size=20))
def test_a_walk_sees_each_effect_once_and_the_whole_replay_is_the_recording(script: list[Step]) -> None:
    shelf = recorded(script)
    past = Past(shelf)
    assert past.redo().digest == shelf.runner.digest
    if not past.last:
        return
    numbers: dict[bytes, int] = {ANN: 0, BOB: 0}
    events = 0

    def see(sight: Any) -> bool:
        nonlocal events
        assert sight.entry is None or sight.before >= events
        events = sight.after
        for effect in sight.effects() if sight.entry is not None else ():
            if hasattr(effect, "party"):
                assert effect.first == numbers[effect.party] + 1
                numbers[effect.party] += effect.count
        return False

    Past(shelf).walk(1, past.last, see)
    assert numbers == {party: shelf.environment.confirmed(party) + shelf.environment.owes(party) for party in numbers}
