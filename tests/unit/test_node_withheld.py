# SPDX-License-Identifier: Apache-2.0
"""What waits for the disk and what does not: nothing is told early, nothing overtakes, probes go on."""

import pytest

from atoll.base.ids import DIRECT, PublicKey, node_id_of
from atoll.device.nic.messages import AdmitPeer, ExpelPeer
from atoll.group.events import Removed, Sign, StoreRoster
from atoll.group.messages import GROUP_TAGS
from atoll.node.control import ControlEffect
from atoll.node.limits import WITHHELD_MESSAGES_MAX
from atoll.node.withheld import Withheld
from atoll.overlay.messages import OVERLAY_TAGS
from atoll.overlay.orders import (
    DropArrivalLabel,
    DropForwardLabel,
    SendControl,
    SetArrivalLabel,
    SetForwardLabel,
    SetRoute,
    SetTransmitLabel,
)

OLD_KEY, NEW_KEY = bytes([1]) * 32, bytes([2]) * 32
OLD, NEW = node_id_of(PublicKey(OLD_KEY)), node_id_of(PublicKey(NEW_KEY))
KEY = bytes([7]) * 32
NEWS = SendControl(OLD, DIRECT, bytes((0x91, GROUP_TAGS[0])))
PROBE = SendControl(OLD, DIRECT, bytes((0x91, min(OVERLAY_TAGS))))


@pytest.fixture
def withheld() -> Withheld:
    """Return one whose device serves a peer, and in which the admission of another waits."""
    withheld = Withheld()
    withheld.note(AdmitPeer(OLD_KEY))
    assert withheld.take(AdmitPeer(NEW_KEY))
    return withheld


@pytest.mark.parametrize(
    "effect",
    [
        NEWS,
        AdmitPeer(NEW_KEY, (("192.0.2.1", 1),)),
        ExpelPeer(NEW_KEY),
        SetRoute(NEW, 0, DIRECT),
        SetRoute(OLD, 0, DIRECT, NEW),
        SetTransmitLabel(OLD, NEW, 5, KEY),
        SendControl(NEW, DIRECT, PROBE.payload),
        Removed(NEW, "new"),
    ],
)
def test_what_tells_of_the_roster_or_needs_the_new_peer_waits_in_order(
    withheld: Withheld, effect: ControlEffect
) -> None:
    assert withheld.take(effect)
    assert withheld.release() == [AdmitPeer(NEW_KEY), effect]
    assert withheld.release() == []
    assert not withheld.take(SetRoute(NEW, 0, DIRECT)), "it is admitted now"


@pytest.mark.parametrize(
    "effect",
    [
        PROBE,
        SendControl(OLD, DIRECT, b""),
        SendControl(OLD, DIRECT, b"\x91"),
        AdmitPeer(OLD_KEY, (("192.0.2.9", 9),)),
        AdmitPeer(KEY, invited=True),
        ExpelPeer(OLD_KEY),
        SetRoute(OLD, 0, DIRECT),
        DropForwardLabel(5),
        DropArrivalLabel(5),
        Sign(1, b"payload"),
        StoreRoster(1, NEW),
    ],
)
def test_everything_else_goes_on(withheld: Withheld, effect: ControlEffect) -> None:
    assert not withheld.take(effect)
    assert len(withheld) == 1


@pytest.mark.parametrize(
    ("made", "dropped"),
    [
        (SetForwardLabel(5, KEY, NEW, OLD, 6, KEY, 1), DropForwardLabel(5)),
        (SetArrivalLabel(5, KEY, NEW, OLD), DropArrivalLabel(5)),
    ],
)
def test_a_label_is_not_dropped_before_it_is_made(
    withheld: Withheld, made: ControlEffect, dropped: ControlEffect
) -> None:
    assert withheld.take(made)
    assert withheld.take(dropped)
    assert withheld.release()[1:] == [made, dropped]


def test_a_peer_that_was_expelled_waits_again_when_it_comes_back(withheld: Withheld) -> None:
    withheld.note(ExpelPeer(OLD_KEY))
    assert withheld.take(AdmitPeer(OLD_KEY))


def test_no_more_messages_wait_than_the_limit_and_the_oldest_are_kept(withheld: Withheld) -> None:
    for number in range(WITHHELD_MESSAGES_MAX + 3):
        assert withheld.take(SendControl(OLD, DIRECT, NEWS.payload + number.to_bytes(2, "big")))
    assert withheld.take(ExpelPeer(NEW_KEY)), "an order is never lost"
    assert (len(withheld), withheld.dropped) == (WITHHELD_MESSAGES_MAX + 2, 3)
    released = withheld.release()
    assert released[1] == SendControl(OLD, DIRECT, NEWS.payload + bytes(2))
    assert released[-1] == ExpelPeer(NEW_KEY)
    assert withheld.take(NEWS), "there is room again"
