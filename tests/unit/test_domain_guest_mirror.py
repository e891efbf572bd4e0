# SPDX-License-Identifier: Apache-2.0
"""What the server keeps of a guest's channels is what the guest has, and rubbish is not taken over."""

from random import Random

import msgspec
import pytest

from atoll.base.errors import CorruptError, WireError
from atoll.domain.guest.mirror import Mirror
from atoll.env.channel import Channel, Parcel
from atoll.env.limits import PARTIES_MAX
from atoll.env.records import Confirmed, Ended, Note, Post
from atoll.env.state import State
from tests.unit.env_world import Actor, World, arrived, item

ANN, BOB = b"a" * 16, b"b" * 16
encode = msgspec.msgpack.Encoder().encode


def _post(first: int, count: int = 1, party: bytes = ANN) -> Post:
    return Post(party, first, count, encode([[1]] * count))


def _state(**channels: Channel) -> bytes:
    return encode(State(channels={name.encode() * 16: channel for name, channel in channels.items()}))


def test_what_goes_in_and_out_is_counted() -> None:
    mirror = Mirror()
    mirror.took(ANN, 2, 2)
    mirror.sent([_post(1, 2), Note("n"), Ended(), _post(3), _post(1, party=BOB)])
    mirror.confirm(ANN, 2)
    mirror.confirm(b"c" * 16, 7)
    assert (mirror.received(ANN), mirror.confirmed(ANN), mirror.owes(ANN)) == (2, 2, 1)
    assert mirror.taken() == {ANN: 2, BOB: 0}
    assert mirror.owed() == (_post(3), _post(1, party=BOB))
    assert (mirror.received(b"c" * 16), mirror.confirmed(b"c" * 16), mirror.owes(b"c" * 16)) == (0, 0, 0)
    mirror.confirm(ANN, 99)
    assert mirror.confirmed(ANN) == 3


def test_it_is_what_a_snapshot_says() -> None:
    world = World(Actor)
    mirror = Mirror()
    rng = Random(4)
    for first in range(1, 40):
        party = rng.choice((ANN, BOB))
        at = mirror.received(party) + 1
        effects = world.put(arrived(at, item({"is": "Nobody"}, ask=first), party=party))
        mirror.took(party, world.environment.received(party), at)
        mirror.sent(effects)
        if rng.random() < 0.3:
            upto = rng.randrange(at + 1)
            world.put(Confirmed(party, upto))
            mirror.confirm(party, upto)
    again = Mirror.of(world.environment.snapshot())
    assert mirror.owed() == again.owed() == world.environment.owed()
    assert mirror.taken() == again.taken() == world.environment.taken()
    for party in (ANN, BOB):
        assert mirror.confirmed(party) == again.confirmed(party) == world.environment.confirmed(party)


def test_a_party_that_was_forgotten_begins_anew() -> None:
    mirror = Mirror()
    mirror.sent([_post(1)])
    with pytest.raises(WireError, match="owed"):
        mirror.forget([ANN])
    mirror.confirm(ANN, 1)
    mirror.forget([ANN, BOB])
    assert mirror.taken() == {}
    mirror.sent([_post(1)])
    mirror.confirm(ANN, 1)
    mirror.sent([_post(1)])  # Forgotten, and known again in the same event.
    assert mirror.owes(ANN) == 1


@pytest.mark.parametrize(
    "post",
    [_post(2), _post(0), Post(ANN, 1, 2, encode([[1]])), Post(ANN, 1, 1, b"\xc1"), Post(b"x", 1, 1, encode([[1]]))],
)
def test_items_that_do_not_follow_are_refused(post: Post) -> None:
    with pytest.raises(WireError):
        Mirror().sent([post])


def test_lines_and_numbers_have_bounds() -> None:
    mirror = Mirror()
    with pytest.raises(WireError, match="line"):
        mirror.sent([Note("x" * 1001)])
    mirror.took(ANN, 3, 3)
    for upto in (2, 9):
        with pytest.raises(WireError, match="nobody sent"):
            mirror.took(ANN, upto, 4)


def test_parties_have_a_bound() -> None:
    mirror = Mirror({number.to_bytes(16, "big"): Channel() for number in range(2 * PARTIES_MAX)})
    with pytest.raises(WireError, match="parties"):
        mirror.took(ANN, 1, 1)


@pytest.mark.parametrize(
    "state",
    [
        b"\xc1",
        b"\x91" * 2000,
        _state(a=Channel(sent=-1)),
        _state(a=Channel(received=-1)),
        _state(ab=Channel()),
        _state(a=Channel(sent=3, outbox=[Parcel(2, 1, b"")])),
        _state(a=Channel(sent=3, outbox=[Parcel(2, 0, b""), Parcel(2, 2, b"")])),
        _state(a=Channel(sent=3, outbox=[Parcel(1, 1, b""), Parcel(3, 1, b"")])),
        _state(a=Channel(sent=-4, outbox=[Parcel(-5, 2, b"")])),
    ],
)
def test_channels_that_cannot_be_are_refused(state: bytes) -> None:
    with pytest.raises(CorruptError):
        Mirror.of(state)
