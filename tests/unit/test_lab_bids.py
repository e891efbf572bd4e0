# SPDX-License-Identifier: Apache-2.0
"""The demo's lot takes each bid once, and its books show what came twice or is missing, whatever happens to it."""

from pathlib import Path

import pytest

from atoll.domain.loading import bundle_of, load
from atoll.env.changes import Failure
from atoll.env.stage import Stage, UnexpectedAnswerError
from atoll.lab import bids
from atoll.lab.bids import BIDDERS_MAX, Bid, Books, Look, Lot, Taken


def test_each_bid_has_one_place_in_one_history() -> None:
    with Stage() as stage:
        lot, ann, bob = stage.run(Lot), stage.client(), stage.client()
        assert ann.call(lot, Bid("ann", 1, 5), Taken) == Taken(1, 1, 5)
        assert bob.call(lot, Bid("bob", 1, 4), Taken) == Taken(1, 2, 5)
        assert ann.call(lot, Bid("ann", 2, 9), Taken) == Taken(2, 3, 9)
        assert ann.call(lot, Look(), Books) == Books({"ann": 2, "bob": 1}, 3, 0, 0)
        assert (lot.state.winner, lot.state.best) == ("ann", 9)


def test_a_bid_that_comes_twice_is_counted_and_changes_nothing_else() -> None:
    with Stage() as stage:
        lot, ann = stage.run(Lot), stage.client()
        ann.call(lot, Bid("ann", 1, 5), Taken)
        digest = lot.state.digest
        assert ann.call(lot, Bid("ann", 1, 50), Taken) == Taken(1, 0, 5)
        assert ann.call(lot, Look(), Books) == Books({"ann": 1}, 1, 1, 0)
        assert lot.state.digest == digest


def test_bids_that_are_missing_before_one_are_counted() -> None:
    with Stage() as stage:
        lot, ann = stage.run(Lot), stage.client()
        ann.call(lot, Bid("ann", 3, 5), Taken)
        assert ann.call(lot, Look(), Books) == Books({"ann": 3}, 1, 0, 2)


def test_it_goes_on_after_a_move_and_a_crash_and_knows_where_it_ran() -> None:
    with Stage() as stage:
        lot, ann = stage.run(Lot), stage.client()
        ann.call(lot, Bid("ann", 1, 5), Taken)
        lot.move("ash")
        ann.call(lot, Bid("ann", 2, 6), Taken)
        lot.crash()
        assert ann.call(lot, Bid("ann", 3, 7), Taken) == Taken(3, 3, 7)
        assert len(lot.state.ran_on) == 2
        assert lot.state.ran_on[0] == "ash"


def test_there_is_a_most_of_bidders() -> None:
    with Stage() as stage:
        lot, ann = stage.run(Lot), stage.client()
        for at in range(BIDDERS_MAX):
            ann.call(lot, Bid(f"n{at}", 1, 1), Taken)
        with pytest.raises(UnexpectedAnswerError):
            ann.call(lot, Bid("more", 1, 1), Taken)
        assert isinstance(ann.call(lot, Bid("more", 1, 1)), Failure)
        assert ann.call(lot, Bid("n0", 2, 1), Taken).place == BIDDERS_MAX + 1


def test_it_is_one_file_that_a_node_can_load() -> None:
    bundle = bundle_of(str(Path(bids.__file__)))
    assert (bundle.app, list(bundle.files), bundle.needs) == ("Lot", ["bids"], ())
    assert load(bundle).program.main.name == "Lot"
