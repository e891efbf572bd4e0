# SPDX-License-Identifier: Apache-2.0
"""What waits for one environment: each item once, in order, within bounds; and what parties are told about it."""

import pytest

from atoll.base.errors import WireError
from atoll.base.units import KIB, SECOND_NS
from atoll.env import asking
from atoll.env import inbox as inbox_module
from atoll.env.changes import Matched
from atoll.env.channel import Channel
from atoll.env.environment import Environment
from atoll.env.inbox import Inbox
from atoll.env.limits import AGAIN_NS, DOUBT_NS, NESTING_MAX, PARCEL_BYTES, PARTY_KEPT_NS, TUPLE_BYTES_MAX
from atoll.env.messages import AGE_UNSAID, FORGOTTEN, Carried, Receipt, Refusal
from atoll.env.nesting import TOO_DEEP_TEXT
from atoll.env.parties import PATH_CHARS_MAX
from atoll.env.state import State
from tests.unit.steward_world import ANN, BOB, PROGRAM, Add, encode, items

ME = b"me".ljust(16)


NOW = 1_000_000 * SECOND_NS  # So long the environment has lived.


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(ME, "one")


def put(
    inbox: Inbox, first: int, *values: int, party: bytes = ANN, now_ns: int = AGAIN_NS, full: bool = False
) -> Receipt | Refusal | None:
    message = Carried(party, ME, first, items(*map(Add, values)))
    return inbox.put(message, Environment.blank(PROGRAM), now_ns, is_disk_full=full)


def known(*parties: bytes, forgot_ns: int = -1, received: int = 1) -> Environment:
    """Return an environment that knows these."""
    state = State(lived_ns=NOW, forgot_ns=forgot_ns, channels={party: Channel(received=received) for party in parties})
    return Environment(PROGRAM, state)


def test_it_begins_with_nothing(inbox: Inbox) -> None:
    assert not inbox


def test_items_wait_in_order_and_what_follows_them_is_expected(inbox: Inbox) -> None:
    assert put(inbox, 1, 5, 6) is None
    assert put(inbox, 3, 7) is None
    assert put(inbox, 1, 9, party=BOB) is None
    assert [(frame.party, frame.first, frame.count) for frame in (inbox.pop(), inbox.pop(), inbox.pop())] == [
        (ANN, 1, 2),
        (ANN, 3, 1),
        (BOB, 1, 1),
    ]
    assert not inbox


def test_what_came_before_is_confirmed_only_if_it_is_committed(inbox: Inbox) -> None:
    put(inbox, 1, 5, 6)
    assert put(inbox, 1, 5, 6) is None
    inbox.committed({ANN: 1}, known(ANN))
    assert put(inbox, 1, 5, 6) is None
    inbox.committed({ANN: 2}, known(ANN))
    assert put(inbox, 1, 5, 6) == Receipt(ME, ANN, 2)
    assert len([inbox.pop()]) == 1
    assert not inbox


def test_of_what_came_in_part_before_only_the_rest_waits(inbox: Inbox) -> None:
    assert inbox.put(Carried(ANN, ME, 1, items(Add(1), Add(2), Add(3))), known(ANN), 0, is_disk_full=False) is None
    rest = inbox.pop()
    assert (rest.first, rest.count, rest.items) == (2, 2, items(Add(2), Add(3)))
    assert put(inbox, 1, 1, 2, 3) is None, "all of it has come"
    assert put(inbox, 3, 3, 4) is None
    rest = inbox.pop()
    assert (rest.first, rest.count, rest.items) == (4, 1, items(Add(4)))
    assert not inbox
    refused = put(inbox, 4, 4, 5, full=True)
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.first) == ("disk-full", 5)


def test_what_is_missing_is_asked_for_now_and_then(inbox: Inbox) -> None:
    assert put(inbox, 2, 5) == Receipt(ME, ANN, 0, again=True)
    assert put(inbox, 3, 5, now_ns=2 * AGAIN_NS - 1) is None
    assert put(inbox, 3, 5, now_ns=2 * AGAIN_NS) == Receipt(ME, ANN, 0, again=True)
    assert put(inbox, 3, 5, now_ns=3 * AGAIN_NS, full=True) is None, "it was refused and comes later"
    assert not inbox


def test_refusals_say_why_and_from_which_item_on(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "INBOX_ITEMS_MAX", 2)
    text = "one cannot record it: its disk refuses, or its recorder has just ended"
    assert put(inbox, 1, 5, full=True) == Refusal(ME, ANN, "disk-full", text, 1)
    assert put(inbox, 1, 5, 6) is None
    assert put(inbox, 3, 7) == Refusal(ME, ANN, "queue-full", "2 items of 33 bytes wait already", 3)
    inbox.pop()
    assert put(inbox, 3, 7) is None, "what was refused is still what comes next"
    large = Carried(BOB, ME, 1, encode([[{"is": "Add", "n": 1, "x": bytes(PARCEL_BYTES)}]]))
    said = inbox.put(large, Environment.blank(PROGRAM), 0, is_disk_full=False)
    assert isinstance(said, Refusal)
    assert said.code == "too-large"


@pytest.mark.parametrize("depth", [NESTING_MAX, 500, 960, 5_000])
def test_a_tuple_that_nests_too_deep_is_refused_and_what_comes_next_is_taken(inbox: Inbox, depth: int) -> None:
    deep = b"\x91\x95\x83\xa2is\xa3Add\xa1n\x01\xa2zz" + b"\x91" * depth + b"\xc0\x00\x00\xa0\xa0"
    said = inbox.put(Carried(ANN, ME, 1, deep), Environment.blank(PROGRAM), 0, is_disk_full=False)
    assert said == Refusal(ME, ANN, "too-deep", TOO_DEEP_TEXT, 1)
    assert not inbox
    assert put(inbox, 1, 5) is None


def test_what_is_no_list_of_items_is_not_taken(inbox: Inbox) -> None:
    with pytest.raises(WireError):
        inbox.put(Carried(ANN, ME, 1, b"\xc1"), Environment.blank(PROGRAM), 0, is_disk_full=False)
    assert not inbox


def test_when_all_is_applied_the_environment_says_what_comes_next(inbox: Inbox) -> None:
    put(inbox, 1, 5)
    put(inbox, 1, 5, party=BOB)
    inbox.pop()
    inbox.applied()
    assert put(inbox, 2, 6) is None, "something waits, so the next one is remembered here"
    inbox.pop()
    inbox.pop()
    inbox.applied()
    assert put(inbox, 1, 5) is None, "an environment that has taken nothing expects the first one"
    assert inbox.pop().first == 1


def test_what_waits_is_given_back_and_all_else_is_forgotten(inbox: Inbox) -> None:
    inbox.put(Carried(ANN, ME, 5, items(Add(5)), settled=4), known(ANN), 0, is_disk_full=False)
    inbox.committed({ANN: 1}, known(ANN))
    assert inbox.clear() == [Carried(ANN, ME, 5, items(Add(5)), settled=4, age_ns=AGE_UNSAID)]
    assert not inbox
    assert inbox.done == {}
    assert put(inbox, 1, 5) is None


def test_what_follows_what_is_settled_is_taken_though_nothing_before_it_is_known(inbox: Inbox) -> None:
    ahead = Carried(ANN, ME, 9, items(Add(1)), settled=8)
    assert inbox.put(ahead, known(), AGAIN_NS, is_disk_full=False) is None
    assert put(inbox, 10, 2) is None
    later = Carried(BOB, ME, 9, items(Add(1)), settled=7)
    assert inbox.put(later, known(), AGAIN_NS, is_disk_full=False) == Receipt(ME, BOB, 0, again=True)
    assert [(inbox.pop().first, inbox.pop().first), bool(inbox)] == [(9, 10), False]


@pytest.mark.parametrize(
    ("age_ns", "forgot_ns", "parties", "is_doubtful"),
    [
        (3 * DOUBT_NS, NOW - 4 * DOUBT_NS, (), True),
        (3 * DOUBT_NS, NOW - 4 * DOUBT_NS - 1, (), False),  # Who was forgotten was silent long before it was made.
        (3 * DOUBT_NS, NOW - 4 * DOUBT_NS, (ANN,), False),  # It is known what was taken of it.
        (2 * NOW, -1, (), False),  # Nobody was forgotten.
        (2 * NOW, 0, (), True),
        (DOUBT_NS - 1, NOW, (), False),  # Made so lately that who sent it cannot be forgotten yet.
    ],
)
def test_what_may_have_been_taken_before_its_party_was_forgotten_is_not_taken(
    inbox: Inbox, age_ns: int, forgot_ns: int, parties: tuple[bytes, ...], is_doubtful: bool
) -> None:
    message = Carried(ANN, ME, 2, items(Add(1)), settled=1, age_ns=age_ns)
    said = inbox.put(message, known(*parties, forgot_ns=forgot_ns), 0, is_disk_full=False)
    if is_doubtful:
        since_ns = NOW - forgot_ns - DOUBT_NS
        text = "it has forgotten you, and may have taken this before"
        assert said == Refusal(ME, ANN, FORGOTTEN, text, 2, age_ns=since_ns)
    else:
        assert said is None
    assert bool(inbox) is not is_doubtful


def test_a_doubtful_copy_that_waited_elsewhere_is_dropped_for_its_sender_says_it_again(inbox: Inbox) -> None:
    message = Carried(ANN, ME, 2, items(Add(1)), settled=1, age_ns=AGE_UNSAID)
    assert inbox.put(message, known(forgot_ns=0), 0, is_disk_full=False) is None
    assert not inbox
    assert inbox.put(message, known(), 0, is_disk_full=False) is None
    assert inbox, "where nobody was forgotten it is taken"


def test_items_of_one_whose_items_wait_are_in_no_doubt(inbox: Inbox) -> None:
    environment = known(forgot_ns=NOW)
    for first, age_ns in ((1, 0), (2, 9 * DOUBT_NS)):
        message = Carried(ANN, ME, first, items(Add(1)), settled=first - 1, age_ns=age_ns)
        assert inbox.put(message, environment, 0, is_disk_full=False) is None


def test_a_party_too_many_is_refused(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (inbox_module, asking):
        monkeypatch.setattr(module, "PARTIES_KNOWN_MAX", 3)
    environment = known(b"a" * 16, b"b" * 16)
    for channel in environment._channels.values():  # pyright: ignore[reportPrivateUsage]
        channel.heard_ns = NOW

    def come(party: bytes) -> Receipt | Refusal | None:
        return inbox.put(Carried(party, ME, 2, items(Add(1)), settled=1), environment, 0, is_disk_full=False)

    assert come(b"c" * 16) is None
    assert come(b"d" * 16) == Refusal(ME, b"d" * 16, "queue-full", "3 parties are known, and all came lately", 2)
    assert come(b"a" * 16) is None, "who is known is served"
    environment.lived_ns += PARTY_KEPT_NS
    assert come(b"d" * 16) is None, "somebody can be forgotten for it"
    assert come(b"e" * 16) is None, "and for it, too"
    assert come(b"f" * 16) is not None
    assert [inbox.pop().party for _ in range(2)] == [b"c" * 16, b"a" * 16]
    assert come(b"f" * 16) is None, "one less waits"


def test_of_parties_that_are_forgotten_nothing_is_kept(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "_DONE_MAX", 2)
    inbox.committed({ANN: 1, BOB: 2}, known(ANN))
    assert inbox.done == {ANN: 1, BOB: 2}
    inbox.committed({b"c" * 16: 3}, known(ANN, b"c" * 16))
    assert inbox.done == {ANN: 1, b"c" * 16: 3}


def test_what_waits_has_bounds_in_bytes(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(items(Add(1)))
    monkeypatch.setattr(inbox_module, "INBOX_BYTES_MAX", 2 * size)
    assert put(inbox, 1, 1) is None
    assert put(inbox, 2, 2) is None
    said = put(inbox, 3, 3)
    assert isinstance(said, Refusal)
    assert said.code == "queue-full"
    inbox.pop()
    assert put(inbox, 3, 3) is None
    inbox.clear()
    assert put(inbox, 1, 1) is None


def test_a_tuple_among_others_has_a_bound_too(inbox: Inbox) -> None:
    def come(size: int) -> Receipt | Refusal | None:
        large = encode([[{"is": "Add", "n": 1}], [{"is": "Add", "n": 1, "x": bytes(size)}]])
        return inbox.put(Carried(BOB, ME, 1, large), Environment.blank(PROGRAM), 0, is_disk_full=False)

    said = come(TUPLE_BYTES_MAX + 2 * KIB)
    assert isinstance(said, Refusal)
    assert said.code == "too-large"
    assert come(TUPLE_BYTES_MAX - KIB) is None


def test_what_an_environment_may_send_is_taken_with_all_around_it(inbox: Inbox) -> None:
    held = {"is": "Big", "data": bytes(TUPLE_BYTES_MAX)}
    size = len(encode(held))
    held["data"] = bytes(2 * TUPLE_BYTES_MAX - size)
    assert len(encode(held)) == TUPLE_BYTES_MAX
    path = "\U0001f3dd" * PATH_CHARS_MAX
    matched = encode([[Matched((1 << 63) - 1, (1 << 63) - 1, held), (1 << 63) - 1, 0, path, path]])
    assert inbox.put(Carried(BOB, ME, 1, matched), Environment.blank(PROGRAM), 0, is_disk_full=False) is None
    assert inbox
