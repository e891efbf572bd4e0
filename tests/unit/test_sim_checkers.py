# SPDX-License-Identifier: Apache-2.0
"""Generic checkers: each one seen to hold and to fail."""

import pytest

from atoll.base.units import SECOND_NS
from atoll.sim.checkers import ClocksForward, SendBudget, reachable, relays_between
from atoll.sim.failure import SimulationFailure
from atoll.sim.gossip import CountsAreTrue, Gossip, gossip_factory
from atoll.sim.link import LinkSpec
from atoll.sim.topology import full_mesh
from atoll.sim.world import World

HOLE = LinkSpec(blackhole=True)


def world_of(count: int = 4) -> World[Gossip]:
    world = World(full_mesh(count), gossip_factory(count), seed=1)
    world.start_all()
    return world


def test_clocks_may_only_go_back_by_a_reboot() -> None:
    world = world_of()
    world.watch(ClocksForward())
    world.run(SECOND_NS)
    world.restart(0, reboot=True)
    world.set_drift(1, -10_000)
    world.step_wall(2, -SECOND_NS)
    world.run(2 * SECOND_NS)
    world.clock(3).reboot(0)
    with pytest.raises(SimulationFailure, match="never go back: node 3 shows"):
        world.run(3 * SECOND_NS)


def test_a_send_budget_is_counted_by_the_second() -> None:
    world = world_of()
    world.watch(SendBudget(40))
    world.run(10 * SECOND_NS)
    tight = SendBudget(3)
    world.watch(tight)
    with pytest.raises(SimulationFailure, match="datagrams in a second, 3 allowed"):
        world.run(20 * SECOND_NS)


def test_a_count_beyond_its_owner_s_is_found() -> None:
    world = world_of()
    world.watch(CountsAreTrue())
    world.run(5 * SECOND_NS)
    program = world.program(2)
    assert program is not None
    program.counts[1] += 1000
    with pytest.raises(SimulationFailure, match="no count exceeds its owner's: node 1 counted to"):
        world.run(6 * SECOND_NS)


def test_reachable_means_directly_or_through_one_other_both_ways() -> None:
    world = world_of()
    assert relays_between(world, 0, 1) == (2, 3)
    world.impair(0, 1, "hole", HOLE)
    assert reachable(world, 0, 1)
    world.impair(2, 1, "hole", HOLE)
    assert relays_between(world, 1, 0) == (3,)
    world.pause(3)
    assert not reachable(world, 0, 1)
    world.resume(3)
    world.impair(0, 3, "lossy", LinkSpec(loss=9999))
    assert reachable(world, 1, 0)
    world.crash(3)
    assert not reachable(world, 1, 0)
    world.mend(0, 1, "hole")
    assert reachable(world, 1, 0)
    world.crash(1)
    assert not reachable(world, 1, 0)
