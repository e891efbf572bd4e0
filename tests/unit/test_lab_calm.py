# SPDX-License-Identifier: Apache-2.0
"""Switches of a healthy group, judged by the series that its links followed."""

import pytest

from atoll.base.errors import UsageError
from atoll.base.units import MILLISECOND_NS, MINUTE_NS, SECOND_NS
from atoll.lab.calm import HORIZON_NS, Series, Switched, filled, switches
from atoll.lab.groups import blueprints, factory_of
from atoll.sim import Jitter, LinkSpec, World

MS = 1000  # In microseconds.
SLICE_NS = 30 * SECOND_NS

Matrix = tuple[tuple[int, ...], ...]


def matrix(direct_ms: int, first_leg_ms: int = 40, second_leg_ms: int = 40) -> Matrix:
    """Round trips of three nodes: 0 and 1 directly, and the two legs of the way through 2."""
    return (
        (0, direct_ms * MS, first_leg_ms * MS),
        (direct_ms * MS, 0, second_leg_ms * MS),
        (first_leg_ms * MS, second_leg_ms * MS, 0),
    )


def played(series: Series, until_ns: int, settled_ns: int) -> tuple[Switched, ...]:
    plans = blueprints(3, 1)
    world = World(series.topology(), factory_of(plans), seed=1)
    world.start_all()
    world.run(until_ns)
    return switches(world, plans, series, settled_ns)


def test_a_gap_holds_what_was_known_and_a_leading_one_what_came_first() -> None:
    slices = [((0, 0), (5, 0)), ((0, 7), (0, 0)), ((0, -1), (6, 0))]
    assert filled(slices) == (((0, 7), (5, 0)), ((0, 7), (5, 0)), ((0, 7), (6, 0)))


def test_a_path_that_was_never_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        filled([((0, 0), (5, 0))])
    with pytest.raises(UsageError, match="no slices"):
        filled([])


def test_the_mean_of_a_way_weighs_each_slice_by_its_time() -> None:
    series = Series([matrix(100), matrix(400)], SLICE_NS)
    assert series.mean_us((0, 1), (0, SLICE_NS)) == 100 * MS
    assert series.mean_us((0, 1), (SLICE_NS * 2 // 3, SLICE_NS * 4 // 3)) == 250 * MS
    assert series.mean_us((0, 1), (0, 4 * SLICE_NS)) == 325 * MS, "the last slice holds"
    assert series.mean_us((0, 2, 1), (0, 4 * SLICE_NS)) == 80 * MS


def test_each_link_on_the_way_adds_its_mean_jitter_both_ways() -> None:
    jittery = LinkSpec(jitter=Jitter.UNIFORM, jitter_ns=3 * MILLISECOND_NS)
    series = Series([matrix(100)], SLICE_NS, rest=jittery)
    assert series.mean_us((0, 1), (0, 1)) == 106 * MS
    assert series.mean_us((0, 2, 1), (0, 1)) == 92 * MS


def test_both_directions_of_an_asymmetric_path_count_half() -> None:
    series = Series([((0, 100), (300, 0))], SLICE_NS)
    assert series.mean_us((0, 1), (0, 1)) == series.mean_us((1, 0), (0, 1)) == 200


@pytest.mark.parametrize("start_ns", [10 * SECOND_NS, -10 * SECOND_NS])
def test_the_network_and_the_judge_see_the_same_instant(start_ns: int) -> None:
    series = Series([matrix(100), matrix(400)], SLICE_NS, start_ns=start_ns)
    spec = series.topology().specs[0][1]
    turn_ns = start_ns + SLICE_NS
    assert spec.series == ((0, 50_000_000), (turn_ns, 200_000_000))
    assert series.mean_us((0, 1), (turn_ns - 2, turn_ns)) == 100 * MS
    assert series.mean_us((0, 1), (turn_ns, turn_ns + 2)) == 400 * MS
    assert series.mean_us((0, 1), (0, 1)) == 100 * MS


def test_a_first_slice_that_is_over_is_refused() -> None:
    with pytest.raises(UsageError):
        Series([matrix(100)], SLICE_NS, start_ns=-SLICE_NS)


def test_a_steady_network_has_no_switch() -> None:
    assert played(Series([matrix(50)], SLICE_NS), 3 * MINUTE_NS, MINUTE_NS) == ()


def test_a_lasting_shift_is_followed_and_borne_out() -> None:
    minutes = [matrix(50)] * 2 + [matrix(400)] * 3
    found = played(Series(minutes, MINUTE_NS), 5 * MINUTE_NS, MINUTE_NS)
    assert {(one.source, one.target, one.before, one.via) for one in found} == {(0, 1, None, 2), (1, 0, None, 2)}
    for one in found:
        assert 2 * MINUTE_NS < one.at_ns < 3 * MINUTE_NS
        assert (one.gain_us, one.false, one.held_gain_us, one.regretted) == (320 * MS, False, 320 * MS, False)


@pytest.mark.parametrize(("via", "gain_us", "false"), [(None, 0, False), (None, -1, True), (3, 0, True), (3, 1, False)])
def test_back_to_direct_an_equal_way_will_do(via: int | None, gain_us: int, false: bool) -> None:
    assert Switched(0, 1, 2, 4, via, "better", gain_us, 1).false is false
    assert Switched(0, 1, 2, 4, via, "better", 1, gain_us).regretted is false


def test_a_switch_that_a_later_slice_spoils_is_regretted_and_not_false() -> None:
    """It was right for the minute that it binds. Nobody could know the rest."""
    minutes = [matrix(50)] * 2 + [matrix(400)] * 2 + [matrix(400, 900, 900)] * 6
    series = Series(minutes, MINUTE_NS)
    found = [one for one in played(series, 10 * MINUTE_NS, MINUTE_NS) if one.via == 2]
    assert found
    for one in found:
        assert (one.gain_us, one.false) == (320 * MS, False)
        assert one.held_gain_us < one.gain_us


def test_a_shift_that_is_over_at_once_makes_the_switch_false() -> None:
    ten_s = [matrix(50)] * 12 + [matrix(400)] * 3 + [matrix(50, 400, 400)] * 12
    series = Series(ten_s, 10 * SECOND_NS)
    found = [one for one in played(series, 4 * MINUTE_NS, MINUTE_NS) if one.via == 2]
    assert found, "half a minute at eight times the latency is worth a switch when it begins"
    for one in found:
        assert one.false
        assert one.gain_us < 0


def test_what_happens_before_the_group_has_settled_does_not_count() -> None:
    minutes = [matrix(50)] * 2 + [matrix(400)] * 3
    series = Series(minutes, MINUTE_NS)
    assert len(played(series, 3 * MINUTE_NS, 3 * MINUTE_NS)) == 0 < len(played(series, 3 * MINUTE_NS, MINUTE_NS))


def test_a_switch_at_the_very_end_is_judged_by_what_would_have_come() -> None:
    minutes = [matrix(50)] * 2 + [matrix(400)] * 3
    (early, *_) = played(Series(minutes, MINUTE_NS), 5 * MINUTE_NS, MINUTE_NS)
    series = Series(minutes, MINUTE_NS)
    (found, *_) = played(series, early.at_ns + SECOND_NS, MINUTE_NS)
    assert HORIZON_NS > SECOND_NS
    assert found.gain_us == early.gain_us
