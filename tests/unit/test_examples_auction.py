# SPDX-License-Identifier: Apache-2.0
"""The auction: closing times, bids, the longer end, and notices."""

from datetime import timedelta

import pytest
from auction import BIDS_KEPT, LATE_S, Auction, Bid, Look, Lot, Offer, Outbid, Sold

import atoll
from atoll.env.stage import Stage


def test_the_best_bid_wins_when_the_time_is_over() -> None:
    with Stage() as stage:
        auction, ann, bob = stage.run(Auction), stage.client(), stage.client()
        assert ann.call(auction, Offer("chair", 600, reserve=5), Lot).wanted == 5
        assert ann.call(auction, Bid("chair", "ann", 5), Lot).who == "ann"
        lot = bob.call(auction, Bid("chair", "bob", 9), Lot)
        assert lot.history == (("ann", 5), ("bob", 9))
        assert ann.events() == [Outbid("chair", "bob", 9)]
        stage.advance(599)
        assert ann.call(auction, Look("chair"), Lot).is_open
        stage.advance(1)
        (sold,) = ann.events(Sold)
        assert (sold.lot.who, sold.lot.wanted, sold.lot.is_open) == ("bob", 10, False)
        assert bob.events() == [sold]
        assert auction.log == ("chair goes to bob",)


def test_what_nobody_wants_goes_to_nobody() -> None:
    with Stage() as stage:
        auction, ann = stage.run(Auction), stage.client()
        ann.call(auction, Offer("chair", 60))
        stage.advance(60)
        assert auction.log == ("chair goes to nobody",)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (Offer("chair", 5), "exists"),
        (Bid("table", "ann", 5), "unknown"),
        (Bid("chair", "ann", 4), "low"),
        (Look("table"), "unknown"),
    ],
)
def test_what_cannot_be_is_refused(event: atoll.Tuple, code: str) -> None:
    with Stage() as stage:
        auction, ann = stage.run(Auction), stage.client()
        ann.call(auction, Offer("chair", 600, reserve=5), Lot)
        failure = ann.call(auction, event)
        assert isinstance(failure, atoll.Failure)
        assert failure.code == code


def test_who_bids_late_gives_the_others_time() -> None:
    with Stage() as stage:
        auction, ann = stage.run(Auction), stage.client()
        ann.call(auction, Offer("chair", 600))
        stage.advance(599)
        assert ann.call(auction, Bid("chair", "ann", 1), Lot).closes == stage.now() + timedelta(seconds=LATE_S)
        stage.advance(LATE_S - 1)
        assert ann.call(auction, Look("chair"), Lot).is_open
        stage.advance(1)
        over = ann.call(auction, Bid("chair", "ann", 2))
        assert over == atoll.Failure("over", "chair")


def test_a_crash_and_a_move_change_nothing_for_bidders() -> None:
    with Stage() as stage:
        auction, ann, bob = stage.run(Auction), stage.client(), stage.client()
        ann.call(auction, Offer("chair", 600))
        ann.call(auction, Bid("chair", "ann", 1))
        auction.crash()
        bob.call(auction, Bid("chair", "bob", 2), Lot)
        auction.move("fra")
        stage.advance(600)
        assert [type(event) for event in ann.events()] == [Outbid, Sold]


def test_a_bidder_who_does_not_listen_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.channel.UNCONFIRMED_MAX", 2)
    with Stage() as stage:
        auction, ann, bob = stage.run(Auction), stage.client(), stage.client()
        ann.call(auction, Offer("chair", 600))
        for price in range(1, 7, 2):
            ann.leave()
            ann.send(auction, Bid("chair", "ann", price))
            assert bob.call(auction, Bid("chair", "bob", price + 1), Lot).who == "bob"
        assert auction.log == ("ann is not told: Outbid(lot='chair', who='bob', amount=6)",)


def test_history_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auction.BIDS_KEPT", 3)
    assert BIDS_KEPT > 3
    with Stage() as stage:
        auction, ann = stage.run(Auction), stage.client()
        ann.call(auction, Offer("chair", 600))
        for price in range(1, 6):
            ann.call(auction, Bid("chair", "ann", price), Lot)
        assert ann.call(auction, Look("chair"), Lot).history == (("ann", 3), ("ann", 4), ("ann", 5))
