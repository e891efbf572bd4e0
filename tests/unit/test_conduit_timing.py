# SPDX-License-Identifier: Apache-2.0
"""A connection to a program of this machine is told of while it waits for the first byte, then once, then never."""

import pytest

from atoll.base.ids import NodeId
from atoll.base.units import SECOND_NS
from atoll.conduit import timing as timing_module
from atoll.conduit.timing import RETOLD_NS, Served, Timing

CALLER = NodeId(b"C" * 10)


class Clock:
    """Time as a test says, ns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 1000 * SECOND_NS
        monkeypatch.setattr(timing_module, "monotonic_ns", lambda: self.now_ns)


def test_an_answer_is_timed_from_the_last_bytes_and_the_rest_of_the_connection_is_not_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, told = Clock(monkeypatch), list[Served]()
    timing = Timing(CALLER, 80, told.append)
    clock.now_ns += 5
    timing.connected()
    clock.now_ns += 7
    assert timing.handed()
    clock.now_ns += 11
    assert timing.handed()
    clock.now_ns += 13
    assert not timing.answered()
    number = told[0].number
    assert told == [
        Served(CALLER, number, 80, 5),
        Served(CALLER, number, 80, 5, is_asked=True),
        Served(CALLER, number, 80, 5, 13, is_asked=True),
    ]
    assert not timing.handed()
    assert not timing.answered()
    timing.handed_end()
    timing.ended()
    assert len(told) == 3
    Timing(CALLER, 80, told.append).connected()
    assert told[3].number != number


def test_a_long_request_is_told_of_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(monkeypatch), list[Served]()
    timing = Timing(CALLER, 80, told.append)
    timing.connected()
    for _ in range(25):
        timing.handed()
        clock.now_ns += RETOLD_NS // 10
    assert len(told) == 1 + 3
    timing.handed_end()
    assert len(told) == 1 + 3 + 1, "its end is told of at once"
    assert all(one.is_asked for one in told[1:])


def test_the_end_of_a_request_without_a_byte_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(monkeypatch), list[Served]()
    timing = Timing(CALLER, 80, told.append)
    timing.connected()
    clock.now_ns += SECOND_NS
    timing.handed_end()
    assert len(told) == 1
    clock.now_ns += 3
    timing.answered()
    assert (told[1].first_byte_ns, told[1].is_asked) == (3, False)
    timing.handed_end()
    assert len(told) == 2


def test_an_end_without_an_answer_is_told_of_once() -> None:
    told: list[Served] = []
    timing = Timing(CALLER, 80, told.append)
    timing.connected()
    timing.ended()
    timing.ended()
    assert [one.is_over for one in told] == [False, True]


def test_a_refusal_is_told_of_once() -> None:
    told: list[Served] = []
    timing = Timing(CALLER, 80, told.append)
    timing.refused()
    timing.ended()
    assert told == [Served(CALLER, told[0].number, 80, None, is_over=True)]
