# SPDX-License-Identifier: Apache-2.0
"""Busy, slow and well by Little's law, for a server whose queue is known exactly."""

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.health.detectors.load import Load
from atoll.health.detectors.verdict import Verdict
from atoll.health.levels import level_of

SERVERS = 8
SERVICE_NS = 10 * MILLISECOND_NS


def at(concurrency: float, slower: float = 1.0) -> tuple[int, int]:
    """Return (concurrency, gap) of eight servers with so many requests in progress: W = L / lambda, exactly."""
    rate_s = min(concurrency, SERVERS) * SECOND_NS / (SERVICE_NS * slower)
    gap = level_of(int(SECOND_NS / rate_s))
    return level_of(int(concurrency / rate_s * SECOND_NS)) - gap, gap


def calibrated(*concurrencies: float) -> Load:
    load = Load()
    for _ in range(100):
        for concurrency in concurrencies:
            load.learn(*at(concurrency))
    return load


def test_nothing_is_known_at_first() -> None:
    assert Load().observe(*at(4)) is Verdict.NOTHING


def test_as_long_as_nothing_waits_all_is_well() -> None:
    load = calibrated(0.5, 2, 4)
    assert {load.observe(*at(concurrency)) for concurrency in (0.5, 1, 2, 4, 8)} == {Verdict.WELL}


def test_a_queue_that_was_seen_before_is_busy_and_the_same_queue_served_slowly_is_slow() -> None:
    load = calibrated(2, 4, 8, 16, 32, 64)
    assert load.observe(*at(64)) is Verdict.BUSY
    assert load.observe(*at(64, slower=1.2)) is Verdict.BUSY  # Within what is left open.
    assert load.observe(*at(64, slower=2)) is Verdict.SLOW


def test_a_slow_one_without_a_queue_is_slow_though_more_are_in_progress() -> None:
    load = calibrated(1, 2, 4)
    assert load.observe(*at(2, slower=2)) is Verdict.SLOW
    assert load.observe(*at(8, slower=3)) is Verdict.SLOW  # So many were never seen, and they come no faster.


def test_a_queue_that_was_never_seen_is_busy_only_if_requests_come_twice_as_often() -> None:
    load = calibrated(2)
    assert load.observe(*at(64)) is Verdict.BUSY  # 800 a second, 200 were usual.
    nearly = calibrated(6)
    assert nearly.observe(*at(64)) is Verdict.SLOW  # 800, and 600 were usual: nobody can know.


def test_below_one_at_a_time_nothing_waits() -> None:
    load = calibrated(0.1)
    concurrency, gap = at(0.1, slower=3)
    assert load.observe(concurrency - 3 * 128, gap - 3 * 128) is Verdict.WELL
    assert load.observe(concurrency, gap) is Verdict.SLOW


def test_what_is_usual_follows_and_the_ends_of_the_scale_are_taken() -> None:
    load = Load()
    for gap in (1000, 1100, 900):
        load.learn(40 * 128, gap)
    assert load.gap == 1000
    load.learn(-40 * 128, 100)
    assert load.observe(-40 * 128, 100) is Verdict.WELL
    assert load.observe(1 << 20, 1 << 20) is Verdict.SLOW
