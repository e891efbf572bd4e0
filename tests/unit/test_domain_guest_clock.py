# SPDX-License-Identifier: Apache-2.0
"""In a guest all of Python's clocks show the time of the event."""

import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

import pytest

from atoll.domain.guard import put
from atoll.domain.guest.clock import Clock

_TIME = ("time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime")
_REPLACED: tuple[tuple[Any, str], ...] = (
    *((time, name) for name in _TIME),
    *((time, f"{name}_ns") for name in _TIME),
    *((time, name) for name in ("localtime", "gmtime", "ctime", "asctime", "strftime")),
    *((dt.datetime, name) for name in ("now", "utcnow")),
    (dt.date, "today"),
)
NOW_NS = 1_700_000_000_500_000_000


@pytest.fixture
def clock() -> Iterator[Clock]:
    kept: list[tuple[Any, str, Any]] = [(owner, name, owner.__dict__.get(name)) for owner, name in _REPLACED]
    made = Clock()
    made.install()
    made.ns = NOW_NS
    yield made
    for owner, name, value in kept:
        if value is None:  # datetime.utcnow is its own, datetime.today the date's.
            delattr(owner, name)
        else:
            put(owner, name, value)


def test_clocks_stand(clock: Clock) -> None:
    assert time.time() == time.monotonic() == time.clock_gettime(time.CLOCK_REALTIME) == NOW_NS / 1e9
    assert time.time_ns() == time.perf_counter_ns() == NOW_NS
    clock.ns += 1
    assert time.time_ns() == NOW_NS + 1


def test_what_is_said_of_now_is_said_of_the_event(clock: Clock) -> None:
    del clock
    then = dt.datetime(2023, 11, 14, 22, 13, 20, 500_000)  # noqa: DTZ001 - as it is without a zone.
    assert dt.datetime.now(dt.UTC).replace(tzinfo=None) == then
    assert dt.datetime.now().astimezone(dt.UTC).replace(tzinfo=None) == then
    assert vars(dt.datetime)["utcnow"].__get__(None, dt.datetime)().astimezone(dt.UTC).replace(tzinfo=None) == then
    assert dt.date.today().year == 2023  # noqa: DTZ011
    assert time.gmtime()[:6] == time.gmtime(NOW_NS / 1e9)[:6] == (2023, 11, 14, 22, 13, 20)
    assert time.strftime("%Y-%m-%d") == time.strftime("%Y-%m-%d", time.gmtime()) == "2023-11-14"
    assert time.asctime() == time.asctime(time.gmtime())
    assert time.ctime(None) == time.ctime(NOW_NS / 1e9)
    assert time.localtime() == time.localtime(NOW_NS / 1e9)
