# SPDX-License-Identifier: Apache-2.0
"""Timers: first due first, equals in the order in which they were set; and what a snapshot holds reads back."""

import msgspec
import pytest

from atoll.base.errors import LimitError
from atoll.env.limits import TIMERS_MAX
from atoll.env.parties import Ref
from atoll.env.space import Space
from atoll.env.state import Branch, Call, PutOff, State, Timer, Timers, Wanted


def _fired(timers: Timers, now_ns: int = 0) -> list[int]:
    numbers: list[int] = []
    while timers.first() is not None and len(numbers) < 20:
        numbers.append(timers.fire(now_ns)[0])
    return numbers


def test_the_first_due_comes_first_and_equals_in_order() -> None:
    timers = Timers()
    assert timers.first() is None
    for at_ns in (30, 10, 20, 10):
        timers.add(Timer(at_ns, "", b"x"))
    assert timers.first() == (2, Timer(10, "", b"x"))
    assert _fired(timers) == [2, 4, 3, 1]


def test_a_timer_that_is_taken_back_does_not_come() -> None:
    timers = Timers()
    for at_ns in (10, 20, 30):
        timers.add(Timer(at_ns, "", b"x"))
    assert timers.cancel(1)
    assert not timers.cancel(1)
    assert timers.cancel(3)
    assert _fired(timers) == [2]


def test_a_period_comes_again_and_leaves_out_what_was_missed() -> None:
    timers = Timers()
    timers.add(Timer(10, "", b"x", period_ns=10))
    assert timers.fire(10) == (1, Timer(10, "", b"x", 10))
    assert timers.first() == (1, Timer(20, "", b"x", 10))
    timers.fire(59)
    assert timers.first() == (1, Timer(60, "", b"x", 10))
    timers.fire(60)
    assert timers.first() == (1, Timer(70, "", b"x", 10))


def test_the_timers_of_what_ends_are_dropped() -> None:
    timers = Timers()
    for path in ("", "a", "a/b", "ab"):
        timers.add(Timer(10, path, b"x"))
    timers.drop("a")
    assert [timer.path for timer in timers.live.values()] == ["", "ab"]


def test_stale_entries_do_not_pile_up() -> None:
    timers = Timers()
    timers.add(Timer(1, "", b"x"))
    for at_ns in range(1_000):
        timers.cancel(timers.add(Timer(1_000 + at_ns, "", b"x")))
    assert len(timers.queue) < 100
    assert _fired(timers) == [1]


def test_too_many_timers_are_refused_but_not_what_is_owed() -> None:
    timer = Timer(1, "", b"x")
    timers = Timers(TIMERS_MAX, dict.fromkeys(range(1, TIMERS_MAX + 1), timer))
    with pytest.raises(LimitError, match="timers_max"):
        timers.add(timer)
    assert timers.owe(timer) == TIMERS_MAX + 1


def test_a_state_reads_back_as_it_was_written() -> None:
    space = Space()
    space.put({"is": "Job"}, 0)
    state = State(
        id=b"i" * 16,
        branches={
            "": Branch("App", 1, msgspec.Raw(b"\x80"), space, {2: "a"}),
            "a": Branch("Other", 3, msgspec.Raw(b"\x80")),
        },
        calls={1: Call(b"p" * 16, "a", 3, "then"), 2: Call(b"", "", 4, name="auction")},
        wanted={2: Wanted("", "auction", "rooms", b"x", ask=True)},
        put_off=[PutOff("", b"x", Ref(b"p" * 16), 7)],
    )
    state.timers.add(Timer(7, "", b"x", sender=Ref(b"p" * 16), ask=3))
    written = msgspec.msgpack.encode(state)
    assert msgspec.msgpack.encode(msgspec.msgpack.decode(written, type=State)) == written
