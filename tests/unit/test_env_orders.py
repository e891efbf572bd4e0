# SPDX-License-Identifier: Apache-2.0
"""Orders are data: equal when they say the same, never changed, and the union is closed."""

from typing import get_args

import pytest

from atoll.env import orders
from atoll.env.messages import Receipt
from atoll.env.orders import (
    AskRecorder,
    Await,
    Create,
    FetchCode,
    Forget,
    Moment,
    Order,
    Prepare,
    RecorderOrder,
    Rest,
    Restore,
    Say,
    Spare,
    StoreSnapshot,
    TellNode,
    TellSession,
    Told,
)


def test_every_order_is_of_the_union_and_exported() -> None:
    kinds = {Create, AskRecorder, Await, Prepare, Rest, Restore, Spare, StoreSnapshot, Forget}
    kinds |= {FetchCode, TellNode, TellSession, Say, Told}
    assert set(get_args(Order)) == kinds
    assert {kind.__name__ for kind in kinds} | {"Moment", "Order", "RecorderOrder"} == set(orders.__all__)
    assert {kind.__name__ for kind in get_args(RecorderOrder)} >= {"Seal", "Keep", "CutFrom", "KeepPromise", "Left"}


def test_orders_are_compared_by_what_they_say_and_cannot_be_changed() -> None:
    assert Restore(b"i", 1, 2) == Restore(b"i", 1, 2) != Restore(b"i", 1, 3)
    assert Told(1, None) == Told(1, None, "")
    said = Receipt(bytes(16), bytes(16), 1)
    assert TellSession(1, said) == TellSession(1, said) != TellSession(2, said)
    for order in (Moment(1, 2), TellSession(1, said), Say(b"i", "text"), Create(b"i", "shop")):
        with pytest.raises(AttributeError):
            setattr(order, type(order).__match_args__[0], 0)
