# SPDX-License-Identifier: Apache-2.0
"""The ledger: which blocks are in the journal, and what the recorder's answers change."""

import pytest

from atoll.env.holding.ledger import Ledger

A, B, C = (b"A" * 10, b"B" * 10, b"C" * 10)


def filled(*epochs: int) -> Ledger:
    """A ledger with these blocks, all durable."""
    ledger = Ledger()
    for number, epoch in enumerate(epochs, 1):
        ledger.append(number, epoch, ())
        assert ledger.settle(number, epoch, kept=True)
    return ledger


def test_an_empty_ledger_has_no_holders() -> None:
    ledger = Ledger()
    assert (ledger.holders, ledger.changed_number, ledger.last_epoch, ledger.rank) == ((), 0, 0, (0, 0))
    assert ledger.epoch_of(0) == 0
    assert ledger.epoch_of(1) is None


def test_epochs_by_number() -> None:
    ledger = filled(1, 1, 4, 4, 5)
    assert [ledger.epoch_of(number) for number in range(7)] == [0, 1, 1, 4, 4, 5, None]
    assert ledger.rank == (5, 5)


def test_a_hint_skips_the_epoch_that_differs() -> None:
    ledger = filled(1, 1, 4, 4, 5)
    assert [ledger.hint(number) for number in (9, 5, 4, 3, 2)] == [5, 4, 2, 2, 0]
    ledger.checkpoint(3)
    assert ledger.hint(3) == 3


def test_holders_follow_the_newest_block_and_a_cut_takes_them_back() -> None:
    ledger = Ledger()
    ledger.append(1, 1, (A,))
    ledger.append(2, 1, (A, B))
    ledger.append(3, 2, (A, B, C))
    assert (ledger.holders, ledger.changed_number) == ((A, B, C), 3)
    ledger.cut(2)
    assert (ledger.holders, ledger.changed_number, ledger.last, ledger.last_epoch) == ((A,), 1, 1, 1)
    ledger.cut(1)
    assert (ledger.holders, ledger.last, ledger.last_epoch) == ((), 0, 0)


def test_the_answer_to_a_write_that_was_cut_changes_nothing() -> None:
    ledger = filled(1)
    ledger.append(2, 1, ())
    ledger.append(3, 1, ())
    ledger.cut(3)
    ledger.append(3, 2, ())
    assert ledger.settle(3, 1, kept=True) is None  # Not the oldest.
    assert ledger.settle(2, 1, kept=True) is True
    assert ledger.settle(3, 1, kept=True) is False
    assert ledger.durable == 2
    assert ledger.settle(3, 2, kept=True) is True
    assert ledger.durable == 3
    assert ledger.settle(3, 2, kept=True) is None


def test_a_cut_of_durable_blocks_goes_back() -> None:
    ledger = filled(1, 1, 1)
    ledger.cut(2)
    assert (ledger.last, ledger.durable) == (1, 1)


def test_a_checkpoint_keeps_what_follows() -> None:
    ledger = Ledger()
    for number, epoch, holders in ((1, 1, (A,)), (2, 1, ()), (3, 1, (A, B)), (4, 2, ()), (5, 2, (A,))):
        ledger.append(number, epoch, holders)
        ledger.settle(number, epoch, kept=True)
    ledger.checkpoint(2)
    assert [ledger.epoch_of(number) for number in range(1, 6)] == [None, 1, 1, 2, 2]
    ledger.checkpoint(3)
    assert [ledger.epoch_of(number) for number in range(2, 6)] == [None, 1, 2, 2]
    assert ledger.configs[0].holders == (A, B)
    ledger.checkpoint(5)
    assert (ledger.last, ledger.last_epoch, ledger.holders, ledger.runs) == (5, 2, (A,), [])


def test_a_snapshot_takes_the_place_of_the_journal() -> None:
    ledger = filled(1, 1)
    ledger.append(3, 1, ())
    ledger.install(9, 4, (A, B))
    assert (ledger.base_number, ledger.last, ledger.durable, ledger.holders) == (9, 9, 9, (A, B))
    assert ledger.settle(3, 1, kept=True) is False
    other = filled(1, 1, 1)
    other.install(2, 2, (A,))
    assert (other.last, other.last_epoch) == (2, 2)


def test_what_a_node_ever_had_counts_for_its_rank() -> None:
    ledger = filled(1, 1)
    ledger.floor_epoch, ledger.floor_number = 3, 1
    assert ledger.rank == (3, 1)


def test_what_cannot_be_is_asserted() -> None:
    ledger = filled(1, 1)
    for number, epoch in ((7, 1), (3, 0)):
        with pytest.raises(AssertionError):
            ledger.append(number, epoch, ())
    for number in (0, 9):
        with pytest.raises(AssertionError):
            ledger.cut(number)
    with pytest.raises(AssertionError):
        ledger.checkpoint(9)
