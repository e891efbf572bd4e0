# SPDX-License-Identifier: Apache-2.0
"""The live clocks keep the contract of ``base.ports.Clock``."""

import time

import pytest

from atoll.base.ports import Clock
from atoll.host.clock import SystemClock


def test_the_measuring_clock_never_goes_back() -> None:
    clock: Clock = SystemClock()
    readings = [clock.monotonic_ns() for _ in range(1000)]
    assert readings == sorted(readings)
    assert readings[-1] > readings[0]


def test_sleep_counts() -> None:
    # On Linux the clock that counts sleep is never behind the one that does not.
    awake_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert SystemClock().monotonic_ns() >= awake_ns


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux only")
def test_it_is_the_clock_that_counts_sleep_compiled_or_not() -> None:
    before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    now_ns = SystemClock().monotonic_ns()
    assert before_ns <= now_ns <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_the_wall_clock_is_the_computers() -> None:
    before_ns = time.time_ns()
    assert before_ns <= SystemClock().wall_ns() <= time.time_ns()
