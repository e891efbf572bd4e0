# SPDX-License-Identifier: Apache-2.0
"""Who sees what, and when their difference is an alarm."""

import pytest

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.health.detectors.differential import CLIENTS_MAX, LATELY_NS, Differential
from atoll.health.detectors.verdict import Verdict

OWN = ""
Said = tuple[str, Verdict, int]
WELL, BUSY, SLOW, NOTHING = Verdict.WELL, Verdict.BUSY, Verdict.SLOW, Verdict.NOTHING


def seen(*said: Said) -> Differential:
    """Return what is known after views at these seconds."""
    differential = Differential()
    for who, verdict, at_s in said:
        differential.observe(who, verdict, at_s * SECOND_NS)
    return differential


def alarm_s(differential: Differential, now_s: int) -> int | None:
    alarm_ns = differential.views(now_s * SECOND_NS).alarm_ns
    return None if alarm_ns is None else alarm_ns // SECOND_NS


def test_two_clients_that_see_slow_while_the_detector_sees_well_are_an_alarm_since_the_second() -> None:
    differential = seen((OWN, WELL, 1), ("a", SLOW, 2), ("b", SLOW, 5), ("a", SLOW, 9))
    assert alarm_s(differential, 10) == 5
    views = differential.views(10 * SECOND_NS)
    assert not views.is_agreed
    assert views.own is not None
    assert views.own.verdict is WELL
    assert [(one.by, one.since_ns // SECOND_NS, one.at_ns // SECOND_NS) for one in views.clients] == [
        ("a", 2, 9),
        ("b", 5, 5),
    ]


def test_one_client_alone_is_never_an_alarm_and_no_agreement_either() -> None:
    differential = seen((OWN, WELL, 1), *(("a", SLOW, at_s) for at_s in range(2, 50)))
    assert alarm_s(differential, 50) is None
    assert not differential.views(50 * SECOND_NS).is_agreed


def test_fewer_than_half_of_the_clients_are_no_alarm() -> None:
    three = [("c", WELL, 3), ("d", WELL, 3), ("e", BUSY, 3)]
    slow = [("a", SLOW, 2), ("b", SLOW, 2)]
    assert alarm_s(seen((OWN, WELL, 1), *slow, *three), 5) is None
    assert alarm_s(seen((OWN, WELL, 1), *slow, *three[:2]), 5) == 2


def test_a_detector_that_sees_it_too_or_says_nothing_is_no_difference() -> None:
    slow = [("a", SLOW, 2), ("b", SLOW, 2)]
    assert alarm_s(seen((OWN, SLOW, 1), *slow), 5) is None
    assert seen((OWN, SLOW, 1), *slow).views(5 * SECOND_NS).is_agreed
    assert alarm_s(seen(*slow), 5) is None
    assert seen(*slow).views(5 * SECOND_NS).own is None
    assert alarm_s(seen((OWN, WELL, 1), *slow, (OWN, BUSY, 4)), 5) is None


def test_an_alarm_begins_no_earlier_than_the_detector_s_view() -> None:
    assert alarm_s(seen((OWN, SLOW, 1), ("a", SLOW, 2), ("b", SLOW, 2), (OWN, WELL, 4)), 5) == 4


def test_views_that_are_old_do_not_count() -> None:
    differential = seen((OWN, WELL, 1), ("a", SLOW, 2), ("b", SLOW, 30))
    late_s = 2 + LATELY_NS // SECOND_NS
    assert alarm_s(differential, late_s) == 30
    assert alarm_s(differential, late_s + 1) is None
    assert [one.by for one in differential.views((late_s + 1) * SECOND_NS).clients] == ["b"]


def test_nothing_is_no_view_and_a_clock_that_goes_back_stands_still() -> None:
    differential = seen(("a", SLOW, 9), ("a", NOTHING, 10), ("a", WELL, 3))
    (view,) = differential.views(10 * SECOND_NS).clients
    assert (view.verdict, view.since_ns, view.at_ns) == (WELL, 9 * SECOND_NS, 9 * SECOND_NS)
    assert Differential().views(0).is_agreed


def test_one_client_too_many_replaces_the_one_not_heard_for_longest() -> None:
    differential = seen(*((str(number), WELL, 1) for number in range(CLIENTS_MAX)), ("0", WELL, 2), ("new", WELL, 3))
    names = {one.by for one in differential.views(3 * SECOND_NS).clients}
    assert len(names) == CLIENTS_MAX
    assert "1" not in names
    assert {"0", "new"} <= names


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match="give at least 1"):
        Differential(0)
