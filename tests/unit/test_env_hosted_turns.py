# SPDX-License-Identifier: Apache-2.0
"""An environment that takes long lets others have their turn, keeps what it has done, and goes on when told."""

from atoll.env.limits import DOUBT_NS
from atoll.env.messages import FORGOTTEN, Carried
from atoll.env.orders import Await, Rest
from atoll.env.places import HandlerFailedError
from atoll.env.records import Arrived, Failed
from tests.unit.steward_world import BOB, Add, Boom, Elsewhere, Notes, Place, items, refusals


def begun(patience: int) -> tuple[Place, bytes]:
    """Return a node whose environment may handle so much in a turn, and a client."""
    walls = Notes()
    place = Place(walls=walls)
    identity = place.run()
    place.attach()
    place.settle()
    walls.patience = patience
    place.now_ns += 1
    return place, identity


def resume(place: Place, identity: bytes) -> None:
    place.now_ns += 1
    place.steward.resume(identity, place.now)
    place.settle()


def test_what_was_done_is_kept_before_the_rest_is() -> None:
    place, identity = begun(1)
    place.send(identity, 1, Boom(), Add(1), Boom(), Add(2), ask=1)
    assert place.got(Rest) == [Rest(identity, place.now_ns)]
    assert not place.responses(1), "it is half undone"
    resume(place, identity)
    assert [one["is"] for one in place.responses(1)] == ["Failure"]
    while len(place.responses(1)) < 4:
        rests = len(place.got(Rest))
        resume(place, identity)
        assert len(place.responses(1)) == 4 or len(place.got(Rest)) == rests + 1
    assert [one.get("n") for one in place.responses(1)] == [None, 1, None, 3]
    kinds = [type(one) for one in place.records(identity) if isinstance(one, Arrived | Failed)]
    assert kinds == [Failed, Arrived, Failed, Arrived]


def test_until_it_is_told_to_go_on_it_applies_nothing() -> None:
    place, identity = begun(1)
    place.send(identity, 1, Add(1), ask=1)
    place.is_slow = True
    place.now_ns += 1
    place.send(identity, 2, Add(1), ask=2)
    place.send(identity, 3, Add(1), ask=3)
    hosted = place.hosted(identity)
    assert place.got(Rest) == [Rest(identity, place.now_ns)]
    assert place.counter(identity)["n"] == 2
    place.now_ns += 1
    place.answer()  # What is committed now makes room, and the time is another one.
    place.steward.tick(place.now)
    place.settle()
    assert [one["n"] for one in place.responses(1)] == [1, 2], "but a block is made of what was done"
    assert hosted.wall_deadline_ns is None
    assert len(place.got(Rest)) == 1
    resume(place, identity)
    assert [one["n"] for one in place.responses(1)] == [1, 2, 3]
    resume(place, identity)
    assert len(place.got(Rest)) == 1, "nothing was left"


def test_one_that_has_no_part_in_a_turn_any_more_does_not_rest() -> None:
    place, identity = begun(1)
    place.send(identity, 1, Add(1), ask=1)
    place.send(identity, 2, Add(1), ask=2)
    assert place.got(Rest)
    hosted = place.hosted(identity)
    hosted.end()
    place.settle()
    assert hosted.runner is None
    resume(place, identity)


def test_what_runs_elsewhere_is_waited_for_and_not_rested_for() -> None:
    place, at = Place(), Elsewhere()
    identity = place.run(at=at)
    place.attach()
    at.is_slow = True
    at.failure = HandlerFailedError("killed", "it is dead", is_known=False)
    place.send(identity, 1, Add(1), ask=1)
    assert (place.got(Await), place.got(Rest)) == ([Await(identity)], [])
    at.is_slow = False
    resume(place, identity)
    assert [one["code"] for one in place.responses(1)] == ["killed"]


def test_nobody_is_told_that_he_was_forgotten_by_what_may_be_half_undone() -> None:
    place, at = Place(), Elsewhere()
    identity = place.run(at=at)
    place.attach()
    place.attach(BOB, 2)
    at.is_slow = True
    place.send(identity, 1, Add(1), ask=1)
    assert at.running is not None
    environment, _, _ = at.running
    environment.forgot_ns = 0
    old = Carried(BOB, identity, 1, items(Add(1)), 0, 0, 4 * DOUBT_NS)
    place.hear(2, old)
    assert refusals(place, 2) == []
    at.is_slow = False
    resume(place, identity)
    place.hear(2, old)
    assert refusals(place, 2) == [FORGOTTEN]
