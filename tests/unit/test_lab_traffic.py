# SPDX-License-Identifier: Apache-2.0
"""What an exchange of requests tells about a path: silence, loss, and when it was well again."""

import pytest

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.traffic import Exchange, Traffic
from atoll.sim import LinkSpec, World, full_mesh

MS = MILLISECOND_NS


def exchange(*answered_ms: int) -> Exchange:
    """Return an exchange with a request each 10 ms; -1: never answered."""
    one = Exchange(0, 1, 10 * MS, 0)
    one.sent_ns = [10 * MS * number for number in range(len(answered_ms))]
    one.answered_ns = [-1 if at < 0 else at * MS for at in answered_ms]
    return one


def test_silence_is_the_longest_gap_with_both_ends_counted() -> None:
    assert exchange(5, 15, 25).silence_ns(0, 30 * MS) == 10 * MS
    assert exchange(5, -1, -1, 35).silence_ns(0, 40 * MS) == 30 * MS
    assert exchange(-1, -1).silence_ns(0, 100 * MS) == 100 * MS
    assert exchange(5).silence_ns(0, 100 * MS) == 95 * MS
    assert exchange(5, 80).silence_ns(10 * MS, 20 * MS) == 10 * MS, "answers outside do not count"


def test_loss_is_the_share_of_requests_sent_in_a_span() -> None:
    one = exchange(5, -1, 25, -1)
    assert one.loss(0, 40 * MS) == 0.5
    assert one.loss(0, 10 * MS) == 0.0
    assert one.loss(10 * MS, 20 * MS) == 1.0
    assert one.loss(50 * MS, 60 * MS) == 0.0


def test_the_first_answer_is_to_a_request_sent_since() -> None:
    one = exchange(25, -1, 21, 35)
    assert one.first_answer_ns(0) == 21 * MS
    assert one.first_answer_ns(30 * MS) == 35 * MS
    assert one.first_answer_ns(31 * MS) is None


def test_healed_is_after_the_last_bad_window() -> None:
    well = exchange(*(10 * number + 5 for number in range(40)))
    assert well.healed_ns(0, 400 * MS, 100 * MS, 0.02) == 0
    answers = [10 * number + 5 for number in range(40)]
    answers[10] = -1
    assert exchange(*answers).healed_ns(0, 400 * MS, 100 * MS, 0.02) == 110 * MS
    assert exchange(*answers).healed_ns(0, 400 * MS, 100 * MS, 0.2) == 0
    assert exchange(*([-1] * 40)).healed_ns(0, 400 * MS, 100 * MS, 0.02) is None


def world_of() -> tuple[World[SimulatedNode], Traffic]:
    plans = blueprints(2, 1)
    world = World(full_mesh(2, LinkSpec(delay_ns=10 * MS)), factory_of(plans), seed=1, command="{seed}")
    return world, Traffic(world, plans)


def test_on_a_whole_link_every_request_is_answered_after_one_round_trip() -> None:
    world, traffic = world_of()
    one = traffic.begin(0, 1, (5 * SECOND_NS, 6 * SECOND_NS))
    world.start_all()
    world.run(7 * SECOND_NS)
    assert len(one.sent_ns) == 50
    times = [a - s for s, a in zip(one.sent_ns, one.answered_ns, strict=True)]
    assert min(times) >= 20 * MS
    assert max(times) < 25 * MS
    assert one.loss(5 * SECOND_NS, 6 * SECOND_NS) == 0.0


def test_what_a_dead_link_takes_is_lost_and_two_exchanges_do_not_mix() -> None:
    world, traffic = world_of()
    one = traffic.begin(0, 1, (5 * SECOND_NS, 7 * SECOND_NS))
    other = traffic.begin(1, 0, (5 * SECOND_NS, 6 * SECOND_NS), interval_ns=100 * MS)
    world.at(6 * SECOND_NS, lambda: world.impair(0, 1, "cut", LinkSpec(blackhole=True)))
    world.start_all()
    world.run(8 * SECOND_NS)
    assert one.loss(5 * SECOND_NS, 6 * SECOND_NS - 50 * MS) == 0.0
    assert one.loss(6 * SECOND_NS, 7 * SECOND_NS) == 1.0
    assert len(other.sent_ns) == 10
    assert other.loss(0, 5_800 * MS) == 0.0


def test_a_node_that_restarted_answers_again() -> None:
    world, traffic = world_of()
    one = traffic.begin(0, 1, (5 * SECOND_NS, 60 * SECOND_NS), interval_ns=100 * MS)
    world.start_all()
    world.at(10 * SECOND_NS, lambda: world.kill(1))
    world.at(11 * SECOND_NS, lambda: world.start(1))
    world.run(61 * SECOND_NS)
    assert one.loss(10 * SECOND_NS, 11 * SECOND_NS) == 1.0
    assert one.loss(50 * SECOND_NS, 59 * SECOND_NS) == pytest.approx(0.0)
