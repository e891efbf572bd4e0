# SPDX-License-Identifier: Apache-2.0
"""What waits for one environment: each item once, in order, within bounds; and what parties are told about it."""

import pytest
from msgspec import Raw

from atoll.base.errors import WireError
from atoll.env import inbox as inbox_module
from atoll.env.environment import Environment
from atoll.env.facts import UNKNOWN, Suspect, Waiting
from atoll.env.inbox import Inbox, records_of
from atoll.env.limits import AGAIN_NS, PARCEL_BYTES
from atoll.env.messages import Carried, Receipt, Refusal
from atoll.env.records import Arrived, Failed, Rejoined
from tests.unit.steward_world import ANN, BOB, PROGRAM, Add, encode, items

ME = b"me".ljust(16)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(ME, "one")


def put(
    inbox: Inbox, first: int, *values: int, party: bytes = ANN, now_ns: int = AGAIN_NS, full: bool = False
) -> Receipt | Refusal | None:
    message = Carried(party, ME, first, items(*map(Add, values)))
    return inbox.put(message, Environment.blank(PROGRAM), now_ns, is_disk_full=full)


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
    inbox.committed({ANN: 1})
    assert put(inbox, 1, 5, 6) is None
    inbox.committed({ANN: 2})
    assert put(inbox, 1, 5, 6) == Receipt(ME, ANN, 2)
    assert len([inbox.pop()]) == 1
    assert not inbox


def test_what_is_missing_is_asked_for_now_and_then(inbox: Inbox) -> None:
    assert put(inbox, 2, 5) == Receipt(ME, ANN, 0, again=AGAIN_NS)
    assert put(inbox, 3, 5, now_ns=2 * AGAIN_NS - 1) is None
    assert put(inbox, 3, 5, now_ns=2 * AGAIN_NS) == Receipt(ME, ANN, 0, again=AGAIN_NS), "an answer may be on its way"
    assert put(inbox, 3, 5, now_ns=3 * AGAIN_NS, full=True) is None, "it was refused and comes later"
    assert not inbox


def knowing(party: bytes, received: int) -> Environment:
    """An environment that has taken so many items of a party."""
    environment = Environment.blank(PROGRAM)
    environment.handle(Rejoined(party, received), 1)
    return environment


def frames(inbox: Inbox) -> list[tuple[int, int]]:
    """Take everything: number of the first item, and how many."""
    return [(frame.first, frame.count) for frame in iter(lambda: inbox.pop() if inbox else None, None) if frame]


def test_who_was_forgotten_goes_on_when_it_answers_a_question(inbox: Inbox) -> None:
    environment = Environment.blank(PROGRAM)

    def said(kept: int, echo: int, now_ns: int = 2 * AGAIN_NS) -> Receipt | Refusal | None:
        message = Carried(ANN, ME, 7, items(Add(1)), kept=kept, echo=echo)
        return inbox.put(message, environment, now_ns, is_disk_full=False)

    asked = Receipt(ME, ANN, 0, again=AGAIN_NS)
    assert said(6, 0, AGAIN_NS) == asked, "it may be an old copy"
    assert said(6, 1) == asked, "in answer to somebody else"
    assert said(5, AGAIN_NS, 3 * AGAIN_NS) == asked, "something is missing before it"
    assert said(6, AGAIN_NS) is None
    assert put(inbox, 8, 2) is None
    assert frames(inbox) == [(7, 0), (7, 1), (8, 1)]
    assert said(6, AGAIN_NS) is None, "a second copy"
    assert frames(inbox) == []


def test_who_is_known_is_believed_that_its_numbers_go_on_further_ahead(inbox: Inbox) -> None:
    environment = knowing(ANN, 3)
    for first, kept, is_taken in ((9, 0, False), (9, 7, False), (9, 8, True)):
        message = Carried(ANN, ME, first, items(Add(1)), kept=kept)
        answer = inbox.put(message, environment, AGAIN_NS, is_disk_full=False)
        assert (answer is None) == (is_taken or kept == 7)
    assert frames(inbox) == [(9, 0), (9, 1)]


def test_who_runs_it_next_asks_who_was_forgotten_once_more(inbox: Inbox) -> None:
    inbox.put(Carried(ANN, ME, 9, items(Add(1)), kept=8), knowing(ANN, 3), AGAIN_NS, is_disk_full=False)
    assert inbox.clear() == [Carried(ANN, ME, 9, items(Add(1)))]


def test_records_of_a_frame_that_goes_on_and_of_one_that_was_deadly() -> None:
    items_ = items(Add(1), Add(2), Add(3))
    assert records_of(Waiting(ANN, 9, 0, b""), None, 3) == [(Rejoined(ANN, 8), UNKNOWN)]
    about = Suspect(ANN, 4, 3)
    assert records_of(Waiting(ANN, 4, 3, items_), Suspect(BOB, 1, 1), 3) == [(Arrived(ANN, 4, Raw(items_)), about)]
    singly = records_of(Waiting(ANN, 4, 3, items_), Suspect(ANN, 5, 1), 4)
    assert [(type(record), about.first) for record, about in singly] == [(Failed, 5), (Arrived, 6)]


def test_refusals_say_why_and_from_which_item_on(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "INBOX_ITEMS_MAX", 2)
    assert put(inbox, 1, 5, full=True) == Refusal(ME, ANN, "disk-full", "the disk of one refuses", 1)
    assert put(inbox, 1, 5, 6) is None
    assert put(inbox, 3, 7) == Refusal(ME, ANN, "queue-full", "2 items wait already", 3)
    inbox.pop()
    assert put(inbox, 3, 7) is None, "what was refused is still what comes next"
    large = Carried(BOB, ME, 1, encode([[{"is": "Add", "n": 1, "x": bytes(PARCEL_BYTES)}]]))
    said = inbox.put(large, Environment.blank(PROGRAM), 0, is_disk_full=False)
    assert isinstance(said, Refusal)
    assert said.code == "too-large"


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
    put(inbox, 1, 5)
    inbox.committed({ANN: 1})
    assert inbox.clear() == [Carried(ANN, ME, 1, items(Add(5)))]
    assert not inbox
    assert inbox.done == {}
    assert put(inbox, 1, 5) is None
