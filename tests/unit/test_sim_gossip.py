# SPDX-License-Identifier: Apache-2.0
"""The worked example by itself: one node, no world."""

from random import Random

from atoll.sim.disk import SimDisk
from atoll.sim.gossip import Gossip
from atoll.sim.program import endpoint_of


def pair(disks: tuple[SimDisk, SimDisk]) -> tuple[Gossip, Gossip]:
    nodes = [Gossip(index, 2, disk, bytes([index] * 32)) for index, disk in enumerate(disks)]
    for node in nodes:
        node.start(0, 0)
    return nodes[0], nodes[1]


def test_it_counts_durably_before_it_tells() -> None:
    disks = (SimDisk(Random(0)), SimDisk(Random(1)))
    one, other = pair(disks)
    for _ in range(3):
        assert one.deadline_ns is not None
        one.tick(one.deadline_ns, 0)
    assert one.counts == [1, 0]
    to, message = one.outbox[-1]
    assert to == endpoint_of(1)
    other.receive(message, endpoint_of(0), 0, 0)
    assert other.counts == [1, 0]
    again = Gossip(0, 2, disks[0], bytes(32))
    again.start(0, 0)
    assert again.counts == [1, 0]


def test_it_refuses_what_is_not_a_message_and_never_unlearns() -> None:
    one, other = pair((SimDisk(Random(0)), SimDisk(Random(1))))
    one.tick(0, 0)
    early = one.outbox[-1][1]
    for _ in range(5):
        one.tick(0, 0)
    other.receive(one.outbox[-1][1], endpoint_of(0), 0, 0)
    learned = list(other.counts)
    other.receive(early, endpoint_of(0), 0, 0)
    for bad in (b"", early[:-1], early + b"\0", bytes([early[0] ^ 1]) + early[1:]):
        other.receive(bad, endpoint_of(0), 0, 0)
    assert (other.counts, other.refused) == (learned, 4)


def test_a_full_disk_stops_counting_and_nothing_else() -> None:
    disk = SimDisk(Random(0), 0)
    node = Gossip(0, 2, disk, bytes(32))
    node.start(0, 0)
    for _ in range(6):
        node.tick(0, 0)
    assert (node.counts, len(node.outbox)) == ([0, 0], 6)
