# SPDX-License-Identifier: Apache-2.0
"""The adversary: awake only when told, and every kind of attack arrives."""

from random import Random

from atoll.base.ids import Endpoint
from atoll.base.ports import Disk
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.sim.hostile import Hostile
from atoll.sim.limits import HOSTILE_SEEN_MAX
from atoll.sim.link import LinkSpec
from atoll.sim.program import endpoint_of
from atoll.sim.topology import full_mesh
from atoll.sim.world import World


class Talker:
    """Says something unmistakable to its neighbour every 10 ms."""

    def __init__(self, index: int, _disk: Disk, _seed: bytes) -> None:
        self.outbox: list[tuple[Endpoint, bytes]] = []
        self.deadline_ns: int | None = None
        self.index, self.said = index, 0
        self.received: list[tuple[bytes, Endpoint]] = []

    def start(self, now_ns: int, wall_ns: int) -> None:
        del wall_ns
        self.deadline_ns = now_ns

    def receive(self, datagram: bytes, source: Endpoint, now_ns: int, wall_ns: int) -> None:
        del now_ns, wall_ns
        self.received.append((datagram, source))

    def tick(self, now_ns: int, wall_ns: int) -> None:
        del wall_ns
        self.deadline_ns = now_ns + 10 * MILLISECOND_NS
        self.said += 1
        self.outbox.append((endpoint_of(1 - self.index), b"node %d says %08d" % (self.index, self.said)))


def attacked(seed: int, *, talk: bool = True) -> tuple[World[Talker], Hostile[Talker]]:
    world = World(full_mesh(2, LinkSpec(delay_ns=MILLISECOND_NS)), Talker, seed=seed)
    hostile = Hostile(world, Random(seed))
    if talk:
        world.start_all()
    return world, hostile


def test_it_is_silent_until_woken_and_after_it_sleeps() -> None:
    world, hostile = attacked(1)
    world.run(SECOND_NS)
    assert (hostile.sent, world.stats.injected) == (0, 0)
    hostile.wake("a", 100)
    hostile.wake("b", 100)
    world.run(11 * SECOND_NS)
    assert 1800 < hostile.sent < 2200
    assert world.stats.injected == hostile.sent
    hostile.sleep("a")
    hostile.sleep("b")
    hostile.sleep("b")
    world.run(20 * SECOND_NS)
    assert hostile.sent < 2202


def test_every_attack_arrives() -> None:
    world, hostile = attacked(2)
    hostile.wake("a", 500)
    world.run(10 * SECOND_NS)
    received = [program.received for program in world.programs()]
    honest = [{(b"node %d says %08d" % (1 - i, said), endpoint_of(1 - i)) for said in range(2000)} for i in (0, 1)]
    foul = [datagram for i in (0, 1) for datagram in received[i] if datagram not in honest[i]]
    replays = sum(len(received[i]) - len(set(received[i])) for i in (0, 1))
    assert replays > 100
    assert any(source not in {endpoint_of(0), endpoint_of(1)} for _, source in foul)
    assert any(source == endpoint_of(0) for _, source in foul)
    assert any(b"says" in datagram and len(datagram) < 20 for datagram, _ in foul)  # Cut short.
    assert any(b"says" in datagram and len(datagram) > 20 for datagram, _ in foul)  # Prolonged.
    assert any(datagram[:4] == b"\4\0\0\0" for datagram, _ in foul)  # Looks like ours.
    assert any(len(datagram) > 1500 for datagram, _ in foul)
    assert any(datagram == b"" for datagram, _ in foul)
    misdirected = [datagram for datagram, _ in received[0] if datagram.startswith(b"node 0 says")]
    assert misdirected
    assert hostile.remembered_count == HOSTILE_SEEN_MAX


def test_it_attacks_even_where_nothing_was_ever_heard() -> None:
    world, hostile = attacked(3, talk=False)
    hostile.wake("a", 100)
    world.run(SECOND_NS)
    assert hostile.sent > 50
    assert world.stats.deaf > 0
