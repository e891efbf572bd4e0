# SPDX-License-Identifier: Apache-2.0
"""What waits for one environment: each item once, in order, within bounds; and what parties are told about it."""

import pytest

from atoll.base.errors import WireError
from atoll.env import inbox as inbox_module
from atoll.env.environment import Environment
from atoll.env.inbox import Inbox
from atoll.env.limits import AGAIN_NS, PARCEL_BYTES
from atoll.env.messages import Carried, Receipt, Refusal
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
    assert put(inbox, 2, 5) == Receipt(ME, ANN, 0, again=True)
    assert put(inbox, 3, 5, now_ns=2 * AGAIN_NS - 1) is None
    assert put(inbox, 3, 5, now_ns=2 * AGAIN_NS) == Receipt(ME, ANN, 0, again=True)
    assert put(inbox, 3, 5, now_ns=3 * AGAIN_NS, full=True) is None, "it was refused and comes later"
    assert not inbox


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
