# SPDX-License-Identifier: Apache-2.0
"""The chat: who is here, what was missed, rooms in rooms, and where the members are."""

import pytest
from chat import HERE_S, Here, Join, Open, Room, Said, Say, Welcome, Where

import atoll
from atoll.env.stage import Stage


def test_everybody_hears_what_is_said() -> None:
    with Stage() as stage:
        room, ann, bob = stage.run(Room, "lobby"), stage.client(), stage.client()
        assert ann.call(room, Join("ann"), Welcome).members == ["ann"]
        assert bob.call(room, Join("bob"), Welcome).members == ["ann", "bob"]
        assert ann.call(room, Say("ann", "hello"), Said) == Said(1, "ann", "hello")
        assert ann.events() == bob.events() == [Said(1, "ann", "hello")]
        assert bob.call(room, Say("zoe", "hello")) == atoll.Failure("stranger", "zoe has not joined")


def test_who_comes_back_gets_what_was_missed() -> None:
    with Stage() as stage:
        room, ann, bob = stage.run(Room, "lobby"), stage.client(), stage.client()
        ann.call(room, Join("ann"))
        bob.call(room, Join("bob"))
        ann.call(room, Say("ann", "one"), Said)
        bob.send(room, Here("bob", 1))
        bob.send(room, Here("bob", leaves=True))
        ann.call(room, Say("ann", "two"), Said)
        assert bob.events() == [Said(1, "ann", "one")]
        room.crash()
        again = stage.client()
        welcome = again.call(room, Join("bob"), Welcome)
        assert welcome == Welcome(["ann", "bob"], [Said(2, "ann", "two")])
        again.send(room, Here("nobody"))


def test_who_is_silent_for_too_long_has_gone() -> None:
    with Stage() as stage:
        room, ann, bob = stage.run(Room, "lobby"), stage.client(), stage.client()
        ann.call(room, Join("ann"))
        bob.call(room, Join("bob"))
        for _ in range(4):
            stage.advance(HERE_S)
            ann.send(room, Here("ann"))
        ann.call(room, Say("ann", "anybody?"), Said)
        assert bob.events() == []
        assert ann.call(room, Join("ann"), Welcome).members == ["ann"]


def test_a_room_in_a_room_is_a_room() -> None:
    with Stage() as stage:
        room, ann = stage.run(Room, "lobby"), stage.client()
        ann.call(room, Open("side"), atoll.Done)
        side = room.nested("side")
        ann.call(side, Join("ann"), Welcome)
        ann.call(side, Say("ann", "psst"), Said)
        ann.call(room, Open("side"), atoll.Done)
        room.move("fra")
        assert room.state_of("side", Room).said == [Said(1, "ann", "psst")]
        assert room.state.said == []


def test_a_room_knows_where_its_members_are() -> None:
    with Stage() as stage:
        room, ann, bob, eva = stage.run(Room, "lobby"), stage.client(), stage.client(), stage.client()
        ann.call(room, Join("ann", "fra"))
        bob.call(room, Join("bob", "ash"))
        eva.call(room, Join("eva", "ash"))
        assert ann.call(room, Where(), Where) == Where({"fra": 1, "ash": 2}, "")
        room.move("ash")
        assert ann.call(room, Where(), Where).room == "ash"


def test_who_does_not_read_holds_up_nobody_and_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.channel.UNCONFIRMED_MAX", 2)
    monkeypatch.setattr("chat.KEPT", 3)
    with Stage() as stage:
        room, ann, bob = stage.run(Room, "lobby"), stage.client(), stage.client()
        ann.call(room, Join("ann"))
        bob.call(room, Join("bob"))
        bob.leave()
        for number in range(5):
            assert ann.call(room, Say("ann", str(number)), Said).number == number + 1
        assert [said.number for said in room.state.said] == [3, 4, 5]
