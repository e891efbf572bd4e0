# SPDX-License-Identifier: Apache-2.0
"""What nobody expected is told once for each kind, and counted always."""

import logging

import pytest

from atoll.domain.oddities import KINDS_MAX, Oddities

log = logging.getLogger("atoll.test")


def test_each_kind_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    oddities = Oddities(log, "a client")
    for message, error in ((b"", KeyError("a")), (b"x", KeyError("b")), ("", KeyError("c")), (b"", ValueError("d"))):
        oddities.note(message, error)
    assert [record.message for record in caplog.records] == [
        "a message of a client was dropped: bytes",
        "a message of a client was dropped: str",
        "a message of a client was dropped: bytes",
    ]
    assert oddities.count == 4
    assert "KeyError" in caplog.text, "with where it was raised"


def test_kinds_have_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    oddities = Oddities(log, "another node")
    for number in range(KINDS_MAX + 5):
        oddities.note(b"", type(f"Odd{number}Error", (Exception,), {})())
    assert len(caplog.records) == KINDS_MAX
    assert oddities.count == KINDS_MAX + 5
