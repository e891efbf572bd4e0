# SPDX-License-Identifier: Apache-2.0
"""The shares that follow from who is served next, on disks that take exactly so long for a block."""

import heapq

import pytest

from atoll.health.declustering import Declustering

DISKS = 8
BLOCKS = 2000
BLOCK_S = 1.0


def progress(slow: float, *, is_graduated: bool) -> list[float]:
    """Return each reader's blocks a second until the first one is through, when the last disk has this share."""
    shares = Declustering(BLOCKS, DISKS, 32, is_graduated=is_graduated)
    arrived: list[set[int]] = [set() for _ in range(DISKS)]
    taken = [0] * DISKS
    ready: list[tuple[float, int, tuple[int, int] | None]] = [(0.0, disk, None) for disk in range(DISKS)]
    idle: list[int] = []
    heapq.heapify(ready)
    while True:
        now_s, disk, read = heapq.heappop(ready)
        if read is not None:
            segment, block = read
            arrived[segment].add(block)
            while taken[segment] in arrived[segment]:
                arrived[segment].remove(taken[segment])
                taken[segment] += 1
                shares.took(segment)
            if shares.is_over(segment):
                return [count / now_s for count in taken]
        idle.append(disk)
        for one in tuple(idle):
            asked = shares.next_for(one)
            if asked is not None:
                idle.remove(one)
                took_s = BLOCK_S / (slow if one == DISKS - 1 else 1.0)
                heapq.heappush(ready, (now_s + took_s, one, asked))


@pytest.mark.parametrize("slow", [0.8, 0.5, 0.2, 0.1])
def test_the_loss_of_one_disk_is_spread_over_all(slow: float) -> None:
    rates = progress(slow, is_graduated=True)
    assert min(rates) == pytest.approx((DISKS - 1 + slow) / DISKS, rel=0.02)
    assert max(rates) == pytest.approx(min(rates), rel=0.02)


@pytest.mark.parametrize("slow", [0.8, 0.5, 0.2, 0.1])
def test_disks_that_take_turns_leave_it_with_two_readers(slow: float) -> None:
    rates = progress(slow, is_graduated=False)
    assert sorted(rates)[:2] == pytest.approx([(1 + slow) / 2] * 2, rel=0.03)
    assert sorted(rates)[2] > 0.97


def test_a_block_whose_disk_failed_is_read_from_the_other() -> None:
    shares = Declustering(10, 2, 4)
    asked = shares.next_for(0)
    assert asked is not None
    shares.failed(*asked)
    assert asked in [shares.next_for(1) for _ in range(4)]


def test_nobody_reads_further_ahead_than_the_limit() -> None:
    shares = Declustering(100, 2, 3)
    asked = [shares.next_for(disk) for disk in (0, 1) * 10]
    assert sum(one is not None for one in asked) == 6
    shares.took(0)
    assert shares.next_for(1) == (0, 3)
