# SPDX-License-Identifier: Apache-2.0
"""A connection to a program of this machine is told of when it stands, and at the program's first byte; never again."""

from atoll.conduit.timing import Served, Timing


def test_a_connection_is_told_of_twice_at_most() -> None:
    told: list[Served] = []
    timing = Timing(80, told.append)
    timing.connected()
    assert timing.handed()
    assert timing.handed()
    assert not timing.answered()
    assert not timing.handed()
    assert not timing.answered()
    first, second = told
    assert (first.port, first.first_byte_ns, second.port, second.connect_ns) == (80, None, 80, first.connect_ns)
    assert first.connect_ns is not None
    assert second.first_byte_ns is not None
    assert first.connect_ns >= 0
    assert second.first_byte_ns >= 0


def test_a_refusal_is_told_of_once() -> None:
    told: list[Served] = []
    Timing(80, told.append).refused()
    assert told == [Served(80, None, None)]
