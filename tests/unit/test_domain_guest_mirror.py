# SPDX-License-Identifier: Apache-2.0
"""What the server keeps of a guest's channels is what the guest has, and rubbish is not taken over."""

import msgspec
import pytest

from atoll.base.errors import CorruptError, WireError
from atoll.base.units import SECOND_NS
from atoll.domain.guest.mirror import Mirror
from atoll.env.channel import Channel, Parcel
from atoll.env.limits import NESTING_MAX, PARTIES_KNOWN_MAX, PARTY_SILENT_NS, UNCONFIRMED_MAX
from atoll.env.records import Ended, Item, Note, Post
from atoll.env.state import State

ANN, BOB = b"a" * 16, b"b" * 16
NOW = 1_000 * SECOND_NS
encode = msgspec.msgpack.Encoder().encode


def _post(first: int, count: int = 1, party: bytes = ANN) -> Post:
    return Post(party, first, count, encode([[1]] * count))


def _parcel(first: int, count: int = 1) -> Parcel:
    return Parcel(first, count, _post(first, count).items, NOW)


def _state(**channels: Channel) -> bytes:
    return encode(State(channels={name.encode() * 16: channel for name, channel in channels.items()}))


def test_what_goes_in_and_out_is_counted() -> None:
    mirror = Mirror()
    mirror.took(ANN, 2, 2, NOW)
    mirror.sent([_post(1, 2), Note("n"), Ended(), _post(3), _post(1, party=BOB)], NOW, NOW)
    mirror.confirm(ANN, 2, NOW)
    mirror.confirm(b"c" * 16, 7, NOW)
    assert (mirror.received(ANN), mirror.confirmed(ANN), mirror.owes(ANN)) == (2, 2, 1)
    assert mirror.taken() == {ANN: 2, BOB: 0}
    assert mirror.owed() == ((ANN, _parcel(3)), (BOB, _parcel(1)))
    assert (mirror.received(b"c" * 16), mirror.confirmed(b"c" * 16), mirror.owes(b"c" * 16)) == (0, 0, 0)
    mirror.confirm(ANN, 99, NOW)
    assert mirror.confirmed(ANN) == 3


def test_what_was_taken_with_a_lie_is_not_taken() -> None:
    mirror = Mirror()
    mirror.take_back()
    mirror.took(ANN, 2, 2, NOW)
    mirror.begin()
    mirror.take_back()
    assert mirror.received(ANN) == 2
    mirror.took(ANN, 3, 3, NOW)
    mirror.take_back()
    assert mirror.received(ANN) == 2


def test_numbers_for_a_party_that_was_forgotten_go_on() -> None:
    mirror = Mirror()
    mirror.sent([_post(1)], NOW, NOW)
    with pytest.raises(WireError, match="owed"):
        mirror.forget([ANN], NOW)
    mirror.confirm(ANN, 1, NOW)
    mirror.forget([ANN, BOB], NOW)
    assert mirror.taken() == {}
    assert mirror.forgot_ns == NOW
    with pytest.raises(WireError, match="order"):
        mirror.sent([_post(3)], NOW, NOW)  # No party that was forgotten got a number 2.
    mirror.sent([_post(2)], NOW, NOW)
    mirror.confirm(ANN, 2, NOW)
    mirror.forget([ANN], NOW)
    mirror.sent([_post(3)], NOW, NOW)
    assert (mirror.owes(ANN), mirror.confirmed(ANN)) == (1, 2)
    assert mirror.knows(ANN)
    mirror.sent([_post(1, party=BOB)], NOW, NOW)  # It was known anew before ANN was forgotten.
    assert mirror.parties == 2


def test_a_party_is_forgotten_with_what_it_has_not_taken_for_an_hour() -> None:
    mirror = Mirror()
    mirror.sent([_post(1)], NOW, NOW)
    with pytest.raises(WireError, match="owed"):
        mirror.forget([ANN], NOW + PARTY_SILENT_NS - 1)
    mirror.forget([ANN], NOW + PARTY_SILENT_NS)
    assert not mirror.knows(ANN)


def test_what_a_party_may_have_taken_is_given_up() -> None:
    mirror = Mirror()
    mirror.sent([_post(1), _post(2)], NOW, NOW)
    mirror.given_up(ANN, 1)
    mirror.given_up(BOB, 1)
    assert mirror.owed() == ((ANN, _parcel(2)),)


@pytest.mark.parametrize(
    "post",
    [_post(2), _post(0), Post(ANN, 1, 2, encode([[1]])), Post(ANN, 1, 1, b"\xc1"), Post(b"x", 1, 1, encode([[1]]))],
)
def test_items_that_do_not_follow_are_refused(post: Post) -> None:
    with pytest.raises(WireError):
        Mirror().sent([post], NOW, NOW)


def test_lines_and_numbers_have_bounds() -> None:
    mirror = Mirror()
    with pytest.raises(WireError, match="line"):
        mirror.sent([Note("x" * 1001)], NOW, NOW)
    mirror.took(ANN, 3, 3, NOW)
    for upto in (2, 9):
        with pytest.raises(WireError, match="nobody sent"):
            mirror.took(ANN, upto, 4, NOW)


def test_what_is_owed_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.domain.guest.mirror.GUEST_OWED_PARCELS_MAX", 3)
    mirror = Mirror(State(channels={BOB: Channel(sent=1, outbox=[_parcel(1)])}))
    mirror.sent([_post(1), _post(2)], NOW, NOW)
    for _ in range(2):
        with pytest.raises(WireError, match="owed"):
            mirror.sent([_post(3)], NOW, NOW)
    mirror.confirm(ANN, 1, NOW)
    mirror.sent([_post(3)], NOW, NOW)
    mirror.given_up(BOB, 1)
    mirror.sent([_post(4)], NOW, NOW)
    mirror.forget([ANN], NOW + PARTY_SILENT_NS)
    mirror.sent([_post(5), _post(6), _post(7)], NOW, NOW)
    with pytest.raises(WireError, match="owed"):
        mirror.sent([_post(8)], NOW, NOW)


def test_bytes_that_are_owed_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(_post(1).items)
    monkeypatch.setattr("atoll.domain.guest.mirror.GUEST_OWED_BYTES_MAX", 3 * size)
    mirror = Mirror(State(channels={BOB: Channel(sent=1, outbox=[_parcel(1)])}))
    mirror.sent([_post(1), _post(2)], NOW, NOW)
    with pytest.raises(WireError, match="owed"):
        mirror.sent([_post(3)], NOW, NOW)
    mirror.confirm(BOB, 1, NOW)
    mirror.sent([_post(3)], NOW, NOW)


def test_there_is_room_for_the_news_of_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.domain.guest.mirror.GUEST_OWED_PARCELS_MAX", 0)
    monkeypatch.setattr("atoll.domain.guest.mirror.GUEST_OWED_BYTES_MAX", 0)
    monkeypatch.setattr("atoll.domain.guest.mirror.FAILURES_MAX", 2)
    mirror = Mirror()
    with pytest.raises(WireError, match="owed"):
        mirror.sent([_post(1)], NOW, NOW)
    mirror.sent([_post(1), _post(2)], NOW, NOW, of_failure=True)
    with pytest.raises(WireError, match="owed"):
        mirror.sent([_post(3)], NOW, NOW, of_failure=True)


def test_only_responses_go_beyond_what_may_be_on_its_way() -> None:
    def items(count: int, *, re: int = 0) -> bytes:
        return encode([Item(msgspec.Raw(encode({"is": "X"})), re=re)] * count)

    mirror = Mirror()
    mirror.sent([Post(ANN, 1, UNCONFIRMED_MAX, items(UNCONFIRMED_MAX))], NOW, NOW)
    with pytest.raises(WireError, match="on their way"):
        mirror.sent([Post(ANN, UNCONFIRMED_MAX + 1, 1, items(1))], NOW, NOW)
    mirror.sent([Post(ANN, UNCONFIRMED_MAX + 1, 9, items(9, re=1))], NOW, NOW)
    assert mirror.owes(ANN) == UNCONFIRMED_MAX + 9


@pytest.mark.parametrize("depth", [NESTING_MAX + 1, 5_000])
def test_what_nests_too_deep_is_not_sent(depth: int) -> None:
    mirror = Mirror()
    mirror.sent([Post(ANN, 1, 1, b"\x91\x91" + b"\x91" * NESTING_MAX + b"\xc0")], NOW, NOW)
    with pytest.raises(WireError, match="items"):
        mirror.sent([Post(ANN, 2, 1, b"\x91\x91" + b"\x91" * depth + b"\xc0")], NOW, NOW)


def test_parties_have_a_bound() -> None:
    mirror = Mirror(State(channels={number.to_bytes(16, "big"): Channel() for number in range(2 * PARTIES_KNOWN_MAX)}))
    with pytest.raises(WireError, match="parties"):
        mirror.took(ANN, 1, 1, NOW)


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
        _state(a=Channel(sent=1, outbox=[Parcel(1, 1, b"", -1)])),
        encode(State(floor=-1)),
        encode(State(forgot_ns=-2)),
        encode(State(lived_ns=-1)),
    ],
)
def test_channels_that_cannot_be_are_refused(state: bytes) -> None:
    with pytest.raises(CorruptError):
        Mirror.of(state)
