# SPDX-License-Identifier: Apache-2.0
"""What waits until it is known who runs an environment: each message once, within bounds."""

import pytest

from atoll.env import stranded as stranded_module
from atoll.env.messages import AGE_UNSAID, Carried, Receipt, Refusal
from atoll.env.stranded import Stranded
from tests.unit.steward_world import ANN, BOB, OTHER

ME = b"me".ljust(16)


def carried(first: int, size: int = 10, source: bytes = ANN) -> Carried:
    return Carried(source, ME, first, bytes(size))


def test_what_waits_is_taken_in_order_and_once() -> None:
    stranded = Stranded()
    said = Receipt(BOB, ME, 3), Refusal(BOB, ME, "unknown", "no", 1)
    for message in (carried(1), *said, carried(3), Receipt(ANN, OTHER, 1)):
        stranded.keep(message)
    taken = stranded.take(ME)
    assert [type(message) for message in taken] == [Carried, Receipt, Refusal, Carried]
    assert taken[1:3] == list(said)
    assert [message.age_ns for message in taken if isinstance(message, Carried)] == [AGE_UNSAID] * 2
    assert (len(stranded), stranded.size, stranded.take(ME)) == (1, 0, [])
    assert stranded.take(OTHER) == [Receipt(ANN, OTHER, 1)]


def test_what_is_sent_again_is_kept_once_as_it_was_last() -> None:
    stranded = Stranded()
    for size in (10, 30, 20):
        stranded.keep(carried(1, size))
    stranded.keep(carried(1, source=BOB))
    for upto in (1, 2):
        stranded.keep(Receipt(BOB, ME, upto))
    assert stranded.size == 30
    ann, bob, receipt = stranded.take(ME)
    assert isinstance(ann, Carried)
    assert (ann.source, len(ann.items), bob.source, receipt) == (ANN, 20, BOB, Receipt(BOB, ME, 2))


def test_no_more_waits_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stranded_module, "STRANDED_MAX", 3)
    monkeypatch.setattr(stranded_module, "STRANDED_BYTES_MAX", 100)
    stranded = Stranded()
    stranded.keep(carried(1, 60))
    stranded.keep(carried(2, 41))
    assert (len(stranded), stranded.size) == (1, 60)
    stranded.keep(carried(2, 40))
    assert (len(stranded), stranded.size) == (2, 100)
    stranded.keep(carried(1, 61))
    assert (len(stranded), stranded.size) == (1, 40), "the same one grew, and has no room any more"
    for number in range(5):
        stranded.keep(Receipt(number.to_bytes(16), ME, 1))
    assert len(stranded) == 3
