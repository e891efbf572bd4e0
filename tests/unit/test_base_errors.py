# SPDX-License-Identifier: Apache-2.0
"""Errors keep their fields, say them, and survive a pickle (they cross process borders)."""

import pickle

import pytest

from atoll.base.errors import (
    CorruptError,
    DivergenceError,
    LimitError,
    PeerError,
    ProjectError,
    StorageError,
    UserError,
    WireError,
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (WireError("too long"), "too long"),
        (LimitError("leases_max", 4), "leases_max is 4"),
        (DivergenceError(7, "aa", "bb"), "input 7: recorded effects aa, replayed bb"),
        (
            UserError("A203", "this invitation expired", where="here", fix="atoll invite"),
            "A203: this invitation expired",
        ),
        (CorruptError("offset 3"), "offset 3"),
    ],
)
def test_an_error_says_its_fields_and_survives_a_pickle(error: ProjectError, text: str) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert str(error) == text
    assert (type(again), str(again), vars(again)) == (type(error), text, vars(error))


def test_handlers_can_tell_whose_fault_it_is() -> None:
    assert issubclass(WireError, PeerError)
    assert issubclass(CorruptError, StorageError)
    assert not issubclass(StorageError, PeerError)


def test_a_user_error_without_evidence_has_empty_fields() -> None:
    error = UserError("A101", "no")
    assert (error.where, error.fix) == ("", "")
