# SPDX-License-Identifier: Apache-2.0
"""A node's clocks: offset, drift, steps, reboot."""

import pytest

from atoll.base.errors import UsageError
from atoll.base.ports import Clock
from atoll.base.units import HOUR_NS, SECOND_NS
from atoll.sim.clock import EPOCH_NS, NodeClock


class World:
    """Just a time."""

    def __init__(self) -> None:
        self.now_ns = 0

    def read(self) -> int:
        return self.now_ns


def test_a_clock_without_drift_is_a_shift() -> None:
    world = World()
    clock = NodeClock(world.read, 5 * SECOND_NS)
    port: Clock = clock
    world.now_ns = SECOND_NS
    assert port.monotonic_ns() == 6 * SECOND_NS
    assert port.wall_ns() == EPOCH_NS + SECOND_NS
    assert clock.shift_ns == 5 * SECOND_NS
    assert clock.world_at(7 * SECOND_NS) == 2 * SECOND_NS
    assert clock.world_at(0) == SECOND_NS  # The past means now.


@pytest.mark.parametrize("drift_ppm", [-10_000, -500, 137, 10_000])
def test_drift_changes_the_pace_without_a_jump(drift_ppm: int) -> None:
    world = World()
    clock = NodeClock(world.read, 5 * SECOND_NS)
    world.now_ns = 3 * SECOND_NS
    before = clock.monotonic_ns()
    clock.set_drift(drift_ppm)
    assert clock.monotonic_ns() == before
    assert clock.shift_ns is None
    world.now_ns += HOUR_NS
    assert clock.monotonic_ns() - before == HOUR_NS + HOUR_NS * drift_ppm // 1_000_000
    assert clock.wall_ns() == clock.monotonic_ns() + clock.wall_ahead_ns


@pytest.mark.parametrize("drift_ppm", [-10_000, -3, 0, 7, 10_000])
def test_world_at_is_the_first_time_that_shows_it(drift_ppm: int) -> None:
    world = World()
    clock = NodeClock(world.read, 123_456_789)
    clock.set_drift(drift_ppm)
    for wanted in range(200_000_000, 200_000_400):
        at = clock.world_at(wanted)
        assert clock.monotonic_at(at) >= wanted > clock.monotonic_at(at - 1)


def test_steps_move_only_the_wall_clock() -> None:
    world = World()
    clock = NodeClock(world.read, SECOND_NS)
    clock.step_wall(-HOUR_NS)
    assert (clock.monotonic_ns(), clock.wall_ns()) == (SECOND_NS, EPOCH_NS - HOUR_NS)


def test_a_reboot_begins_monotonic_time_anew_and_keeps_wall_time() -> None:
    world = World()
    clock = NodeClock(world.read, 50 * SECOND_NS)
    clock.step_wall(7)
    clock.set_drift(100)
    world.now_ns = 10 * SECOND_NS
    wall_ns = clock.wall_ns()
    clock.reboot(3)
    assert (clock.monotonic_ns(), clock.wall_ns()) == (3, wall_ns)


def test_drift_is_bounded() -> None:
    with pytest.raises(UsageError):
        NodeClock(World().read, 0).set_drift(10_001)
