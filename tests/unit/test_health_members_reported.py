# SPDX-License-Identifier: Apache-2.0
"""What programs report is judged like anything else, bounded, and forgotten when nobody reports it any more."""

import pytest

from atoll.base.errors import LimitError, UsageError
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.health.members.reported import QUIET_NS, REPORTED_MAX
from atoll.health.members.vitals import Vitals
from atoll.health.model import State

DB = "db:orders"


def reported(vitals: Vitals, seconds: int, now_ns: int, latency_ms: int = 10) -> int:
    """Report ten answers a second for so long; return when it is then."""
    for _ in range(10 * seconds):
        now_ns += SECOND_NS // 10
        vitals.reported(DB, latency_ms * MILLISECOND_NS, 1, now_ns)
    return now_ns


def test_a_slow_component_of_a_program_is_found_and_forgotten_when_the_program_is_gone() -> None:
    vitals = Vitals()
    now_ns = reported(vitals, 60, 0)
    assert vitals.found(now_ns) == []
    now_ns = reported(vitals, 10, now_ns, latency_ms=80)
    (found,) = vitals.found(now_ns)
    assert (found.of, found.what, found.state) == (b"", DB, State.SLOW)
    later_ns = now_ns + QUIET_NS - 1
    assert [one.state for one in vitals.found(later_ns)] == [State.SLOW], "told again, as it was"
    assert [(one.what, one.state) for one in vitals.found(now_ns + QUIET_NS)] == [(DB, State.OK)]
    assert DB not in {one.component for one in vitals.standings()}
    assert vitals.found(now_ns + 2 * QUIET_NS) == []


def test_one_that_was_well_is_forgotten_without_a_word() -> None:
    vitals = Vitals()
    now_ns = reported(vitals, 10, 0)
    assert vitals.found(now_ns + QUIET_NS) == []
    assert DB not in {one.component for one in vitals.standings()}


@pytest.mark.parametrize(
    "name", ["", "db", ":x", "db:", "DB:x", "db:" + "x" * 30, "db:\n", "cpu", "link:ab", "program:80", "answers:ab"]
)
def test_what_is_no_name_is_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(UsageError, match="use kind:which"):
        Vitals().reported(name, 1, 1, 1)


def test_components_are_bounded() -> None:
    vitals = Vitals()
    for number in range(REPORTED_MAX):
        vitals.reported(f"db:{number}", MILLISECOND_NS, 1, 1)
    with pytest.raises(LimitError):
        vitals.reported("db:more", MILLISECOND_NS, 1, 1)
    vitals.reported("db:7", MILLISECOND_NS, 1, 2)
