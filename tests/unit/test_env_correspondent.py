# SPDX-License-Identifier: Apache-2.0
"""A program outside: what it sends once, again, or no more, and what it is told."""

import msgspec
import pytest

from atoll.base.errors import UsageError, WireError
from atoll.base.units import SECOND_NS
from atoll.env.changes import Done, Failure
from atoll.env.correspondent import SIGN_EVERY, Came, Correspondent, GivenUp, Lost, Responded
from atoll.env.environment import Environment
from atoll.env.inbox import Inbox
from atoll.env.limits import ITEMS_MAX, NESTING_MAX, PARCEL_BYTES, RESEND_PARCELS_MAX, TUPLE_BYTES_MAX, UNCONFIRMED_MAX
from atoll.env.messages import FORGOTTEN, Carried, Receipt, Refusal
from atoll.env.nesting import TOO_LARGE
from atoll.env.parties import PATH_CHARS_MAX
from atoll.env.records import Item
from tests.unit.steward_world import PROGRAM

ME, SHOP, BANK = b"m" * 16, b"s" * 16, b"b" * 16
NOW = 1_000_000 * SECOND_NS
EVENT = b"\x81\xa2is\xa3Bid"

encode = msgspec.msgpack.Encoder().encode
items_of = msgspec.msgpack.Decoder(list[Item]).decode


def raw(event: object) -> msgspec.Raw:
    return msgspec.Raw(encode(event))


def asked(desk: Correspondent, party: bytes = SHOP) -> int:
    """Let a desk call a party; return the number of the call, with nothing left to be sent."""
    call = desk.call(party)
    desk.post(party, EVENT, call)
    desk.flush(NOW)
    desk.taken()
    return call


def carried(first: int, *items: Item, party: bytes = SHOP) -> Carried:
    return Carried(party, ME, first, encode(list(items)))


def test_what_is_posted_leaves_together_and_is_settled_when_it_is_confirmed() -> None:
    desk = Correspondent(ME)
    assert desk.is_settled(SHOP)
    desk.post(SHOP, EVENT)
    desk.post(SHOP, EVENT, to="rooms/lobby")
    assert not desk.is_settled(SHOP)
    desk.flush(NOW)
    (message,) = desk.taken()
    assert isinstance(message, Carried)
    assert (message.source, message.target, message.first) == (ME, SHOP, 1)
    assert [item.to for item in items_of(message.items)] == ["", "rooms/lobby"]
    assert desk.heard(Receipt(SHOP, ME, 1), NOW) == []
    assert not desk.is_settled(SHOP)
    desk.heard(Receipt(SHOP, ME, 2), NOW)
    assert desk.is_settled(SHOP)
    assert desk.taken() == []


def test_no_message_holds_too_many_items_or_bytes() -> None:
    desk = Correspondent(ME)
    for _ in range(ITEMS_MAX + 1):
        desk.post(SHOP, EVENT)
    for _ in range(PARCEL_BYTES // TUPLE_BYTES_MAX + 1):
        desk.post(BANK, bytes(TUPLE_BYTES_MAX))
    desk.flush(NOW)
    messages = [message for message in desk.taken() if isinstance(message, Carried)]
    assert [(message.target, message.first) for message in messages] == [
        (SHOP, 1),
        (SHOP, ITEMS_MAX + 1),
        (BANK, 1),
        (BANK, PARCEL_BYTES // TUPLE_BYTES_MAX + 1),
    ]


def test_there_is_room_for_so_many_items() -> None:
    desk = Correspondent(ME)
    for _ in range(UNCONFIRMED_MAX):
        assert desk.has_room(SHOP)
        desk.post(SHOP, EVENT)
    assert not desk.has_room(SHOP)
    desk.flush(NOW)
    assert not desk.has_room(SHOP)


def test_what_nobody_would_take_is_not_sent() -> None:
    desk = Correspondent(ME)
    fix = "keep the data elsewhere, and send where it is"
    text = f"a tuple of {TUPLE_BYTES_MAX + 1} bytes; at most {TUPLE_BYTES_MAX} fit in one: {fix}"
    with pytest.raises(UsageError, match=text):
        desk.post(SHOP, bytes(TUPLE_BYTES_MAX + 1))
    with pytest.raises(UsageError, match="a path of 201 characters; a nested one has 200 at most"):
        desk.post(SHOP, EVENT, to="x" * (PATH_CHARS_MAX + 1))
    largest = encode({"is": "Bid", "data": bytes(TUPLE_BYTES_MAX - len(encode({"is": "Bid", "data": b""})) - 3)})
    assert len(largest) == TUPLE_BYTES_MAX
    desk.post(SHOP, largest, to="\U0001f3dd" * PATH_CHARS_MAX)
    desk.flush(NOW)
    [message] = desk.taken()
    assert isinstance(message, Carried)
    environment = Environment.blank(PROGRAM)
    assert Inbox(SHOP, "one").put(message, environment, 0, is_disk_full=False) is None, "all else is taken"


def test_what_somebody_does_not_take_for_its_size_keeps_nothing_else_back() -> None:
    desk = Correspondent(ME)
    call = desk.call(SHOP)
    desk.post(SHOP, EVENT)
    desk.post(SHOP, EVENT, call)
    desk.post(SHOP, EVENT)
    desk.flush(NOW)
    desk.remind(NOW)  # It goes twice, and neither copy is taken.
    desk.taken()
    refusal = Refusal(SHOP, ME, TOO_LARGE, "a tuple of more than 9 bytes", 1)
    text = "2 tuples that were sent never took effect: a tuple of more than 9 bytes"
    assert desk.heard(refusal, NOW) == [
        Lost(call, Failure(TOO_LARGE, "a tuple of more than 9 bytes")),
        GivenUp(SHOP, Failure(TOO_LARGE, text)),
    ]
    assert desk.heard(refusal, NOW) == [], "that was said"
    assert desk.is_settled(SHOP)
    desk.remind(NOW)
    [empty] = [one for one in desk.taken() if isinstance(one, Carried)]
    assert [(item.event, item.ask) for item in items_of(empty.items)] == [(raw(Done()), 0)] * 3


def test_a_call_has_one_response_and_others_cannot_give_it() -> None:
    desk = Correspondent(ME)
    call = asked(desk)
    assert desk.heard(carried(1, Item(raw(Done()), re=call), party=BANK), NOW) == []
    answer = carried(1, Item(raw(Done()), re=call))
    assert desk.heard(answer, NOW) == [Responded(call, raw(Done()))]
    assert desk.heard(answer, NOW) == []
    assert desk.taken() == [Receipt(ME, BANK, 1), Receipt(ME, SHOP, 1), Receipt(ME, SHOP, 1)]


def test_who_waits_no_more_is_not_told() -> None:
    desk = Correspondent(ME)
    call = asked(desk)
    desk.forget(call)
    desk.forget(call)
    assert desk.heard(carried(1, Item(raw(Done()), re=call)), NOW) == []


def test_what_comes_unasked_comes_once_and_in_order() -> None:
    desk = Correspondent(ME)
    one, two = Item(raw(Done()), by="rooms"), Item(raw(Failure("x")))
    assert desk.heard(carried(2, two), NOW) == []  # The first one is missing.
    assert desk.heard(carried(1, one), NOW) == [Came(SHOP, "rooms", raw(Done()))]
    assert desk.heard(carried(1, one, two), NOW) == [Came(SHOP, "", raw(Failure("x")))]
    assert desk.taken() == [Receipt(ME, SHOP, 0), Receipt(ME, SHOP, 1), Receipt(ME, SHOP, 2)]


def test_items_that_are_none_are_refused() -> None:
    with pytest.raises(WireError):
        Correspondent(ME).heard(Carried(SHOP, ME, 1, b"\xff"), NOW)


def test_what_is_missing_goes_again_when_it_is_asked_for() -> None:
    desk = Correspondent(ME)
    desk.post(SHOP, EVENT)
    desk.flush(NOW)
    (first,) = desk.taken()
    desk.heard(Receipt(SHOP, ME, 0, again=True), NOW)
    assert desk.taken() == [first]


def test_reminders_are_for_those_who_owe_something() -> None:
    desk = Correspondent(ME)
    call = asked(desk)
    desk.heard(Receipt(SHOP, ME, 1), NOW)
    desk.post(BANK, EVENT)
    desk.flush(NOW)
    (sent,) = desk.taken()
    desk.remind(NOW)
    assert desk.taken() == [Receipt(ME, SHOP, 0, again=True), Receipt(ME, BANK, 0), sent]
    desk.heard(carried(1, Item(raw(Done()), re=call)), NOW)
    desk.heard(Receipt(BANK, ME, 1), NOW)
    desk.taken()
    desk.remind(NOW)
    assert desk.taken() == []


def test_all_hear_now_and_then_where_it_is() -> None:
    desk = Correspondent(ME)
    asked(desk)
    desk.heard(Receipt(SHOP, ME, 1), NOW)
    desk.heard(carried(1, Item(raw(Done()), re=1)), NOW)
    desk.taken()
    for _ in range(SIGN_EVERY - 1):
        desk.remind(NOW)
        assert desk.taken() == []
    desk.remind(NOW)
    assert desk.taken() == [Receipt(ME, SHOP, 1, again=True)]


def test_a_refusal_ends_calls_whose_only_copy_it_threw_away() -> None:
    desk = Correspondent(ME)
    call = asked(desk)
    later = asked(desk)
    refusal = Refusal(SHOP, ME, "disk-full", "no room", first=1)
    assert desk.heard(refusal, NOW) == [Lost(call, Failure("disk-full", "no room"))]
    assert desk.heard(refusal, NOW) == []
    assert not desk.is_settled(SHOP)
    desk.remind(NOW)
    _, void, kept = desk.taken()
    assert isinstance(void, Carried)
    assert isinstance(kept, Carried)
    assert [(item.ask, item.event) for item in items_of(void.items)] == [(0, raw(Done()))]
    assert (void.first, kept.first) == (1, 2)
    assert items_of(kept.items)[0].ask == later
    desk.heard(Receipt(SHOP, ME, 2), NOW)
    assert desk.is_settled(SHOP)


def test_a_refusal_is_no_answer_when_there_is_another_copy() -> None:
    desk = Correspondent(ME)
    call = asked(desk)
    desk.remind(NOW)
    assert desk.heard(Refusal(SHOP, ME, "disk-full", "no room", first=1), NOW) == []
    assert desk.heard(Refusal(SHOP, ME, "disk-full", "no room", first=7), NOW) == []
    assert desk.heard(carried(1, Item(raw(Done()), re=call)), NOW) == [Responded(call, raw(Done()))]


def test_what_nobody_waits_for_is_given_up_only_where_nobody_is() -> None:
    desk = Correspondent(ME)
    for party in (SHOP, BANK):
        desk.post(party, EVENT)
    desk.flush(NOW)
    desk.taken()
    assert desk.heard(Refusal(SHOP, ME, "queue-full", "later", first=1), NOW) == []
    text = "1 tuples that were sent never took effect: no such environment"
    assert desk.heard(Refusal(BANK, ME, "unknown", "no such environment", first=1), NOW) == [
        GivenUp(BANK, Failure("unknown", text))
    ]
    assert desk.heard(Refusal(BANK, ME, "unknown", "no such environment", first=1), NOW) == [], "it is said once"
    assert not desk.is_settled(SHOP)
    assert desk.is_settled(BANK)
    desk.heard(Receipt(SHOP, ME, 0, again=True), NOW)
    (message,) = desk.taken()
    assert isinstance(message, Carried)
    assert bytes(items_of(message.items)[0].event) == EVENT
    desk.heard(Receipt(BANK, ME, 1), NOW)
    assert desk.is_settled(BANK)


def test_what_it_sends_says_what_is_settled_and_how_old_it_is() -> None:
    desk = Correspondent(ME)
    desk.post(SHOP, EVENT)
    desk.flush(NOW)
    desk.heard(Receipt(SHOP, ME, 1), NOW)
    desk.post(SHOP, EVENT)
    desk.flush(NOW)
    desk.remind(NOW + 5)
    said = [(one.first, one.settled, one.age_ns) for one in desk.taken() if isinstance(one, Carried)]
    assert said == [(1, 0, 0), (2, 1, 0), (2, 1, 5)]


def test_it_goes_on_with_one_who_has_forgotten_it() -> None:
    desk = Correspondent(ME)
    one, two = Item(raw(Done())), Item(raw(Failure("x")))
    assert len(desk.heard(carried(1, one), NOW)) == 1
    ahead = Carried(SHOP, ME, 9, encode([two]), settled=7)
    assert desk.heard(ahead, NOW) == [], "what comes after 7 is on its way"
    ahead = Carried(SHOP, ME, 9, encode([two]), settled=8)
    assert desk.heard(ahead, NOW) == [Came(SHOP, "", raw(Failure("x")))]
    assert desk.heard(ahead, NOW) == []


def test_what_may_have_been_taken_before_it_was_forgotten_is_given_up() -> None:
    desk = Correspondent(ME)
    call = desk.call(SHOP)
    desk.post(SHOP, EVENT, call)
    desk.post(SHOP, EVENT)
    desk.flush(NOW)
    later = desk.call(SHOP)
    desk.post(SHOP, EVENT, later)
    desk.flush(NOW)
    desk.taken()
    text = "it is not known whether this took effect: so it is"
    refusal = Refusal(SHOP, ME, FORGOTTEN, "so it is", 1)
    unsaid = "it is not known whether 1 tuples that were sent took effect: so it is"
    given_up = GivenUp(SHOP, Failure(FORGOTTEN, unsaid))
    assert desk.heard(refusal, NOW) == [Lost(call, Failure(FORGOTTEN, text)), given_up]
    assert desk.heard(refusal, NOW) == []
    assert not desk.is_settled(SHOP)
    desk.remind(NOW)
    [again] = [one for one in desk.taken() if isinstance(one, Carried)]
    assert (again.first, again.settled) == (3, 2)
    assert desk.heard(carried(1, Item(raw(Done()), re=later)), NOW) == [Responded(later, raw(Done()))]
    assert desk.heard(Refusal(SHOP, ME, FORGOTTEN, "so it is", 3), NOW) == [], "the response had come"


def test_what_nests_too_deep_to_be_read_is_lost_and_nothing_else() -> None:
    desk = Correspondent(ME)
    call, other = asked(desk), asked(desk)
    deep = msgspec.Raw(b"\x81\xa1x" + b"\x91" * NESTING_MAX + b"\xc0")
    news = desk.heard(carried(1, Item(deep), Item(deep, re=call), Item(deep, re=99), Item(raw(Done()), re=other)), NOW)
    assert news == [
        Lost(call, Failure("too-deep", "the response nests too deep to be read")),
        Responded(other, raw(Done())),
    ]
    assert desk.taken()[-1] == Receipt(ME, SHOP, 4)
    hopeless = Carried(SHOP, ME, 5, b"\x91\x95" + b"\x91" * 5_000 + b"\xc0\0\0\xa0\xa0")
    assert (desk.heard(hopeless, NOW), desk.taken()) == ([], [])


def test_what_goes_again_at_a_time_has_a_bound() -> None:
    desk = Correspondent(ME)
    for _ in range(RESEND_PARCELS_MAX + 1):
        asked(desk)
    desk.remind(NOW)
    assert [one.first for one in desk.taken() if isinstance(one, Carried)] == [*range(1, RESEND_PARCELS_MAX + 1)]


def test_strangers_do_not_fill_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.correspondent.PARTIES_MAX", 2)
    desk = Correspondent(ME)
    call = asked(desk)
    other = Item(raw(Done()))
    assert len(desk.heard(carried(1, other, party=BANK), NOW)) == 1
    assert desk.heard(carried(1, other, party=b"x" * 16), NOW) == []
    assert desk.heard(carried(1, Item(raw(Done()), re=call)), NOW) == [Responded(call, raw(Done()))]
