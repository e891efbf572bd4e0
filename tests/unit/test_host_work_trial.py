# SPDX-License-Identifier: Apache-2.0
"""The trial of work takes time; how much is the machine's affair."""

from time import perf_counter_ns

from atoll.host.work_trial import work_ns


def test_the_time_that_passed_is_told() -> None:
    began_ns = perf_counter_ns()
    took_ns = work_ns()
    assert 0 < took_ns <= perf_counter_ns() - began_ns
