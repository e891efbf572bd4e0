# SPDX-License-Identifier: Apache-2.0
"""The worked example: nodes that count, and gossip their counts. Small enough to read, whole enough to break.

Each node raises its own count about twice a second, makes it durable, and only then tells. A message holds all counts
that a node knows, behind a checksum; a receiver keeps the larger of two. So whatever is lost, doubled, replayed or
damaged, no count that anybody knows is ever larger than its owner's, and after healing all learn all.
"""

from collections.abc import Callable
from hashlib import blake2s
from struct import Struct
from typing import Final, final

from atoll.base.errors import StorageError
from atoll.base.ids import Endpoint
from atoll.base.ports import Disk
from atoll.base.units import MILLISECOND_NS
from atoll.core.entropy import Draws
from atoll.sim.checkers import ClocksForward, Goal, SendBudget
from atoll.sim.faults import Swarm
from atoll.sim.link import Jitter, LinkSpec
from atoll.sim.program import Factory, endpoint_of
from atoll.sim.runner import Scenario
from atoll.sim.topology import full_mesh
from atoll.sim.world import Checker, World

__all__ = ["CountsAreTrue", "Gossip", "gossip_factory", "gossip_scenario"]

_GOSSIP_NS: Final = 200 * MILLISECOND_NS
_GOSSIPS_PER_COUNT: Final = 3
_CHECK_BYTES: Final = 8
_own: Final = Struct("<Q")


class Gossip:
    """One node. Not final: tests plant bugs in it, to see them found.

    Args:
        index: Which one.
        count: How many there are.
        disk: Holds the node's own count in the file ``count``.
        seed: Whom it tells, and when.
    """

    def __init__(self, index: int, count: int, disk: Disk, seed: bytes) -> None:
        self.outbox: list[tuple[Endpoint, bytes]] = []
        self.deadline_ns: int | None = None
        self.counts = [0] * count  # What it knows; its own place is true.
        self.refused = 0  # Datagrams that were not ours.
        self._index, self._disk, self._draws, self._ticks = index, disk, Draws(seed), 0
        self._form = Struct(f"<{count}Q")

    def start(self, now_ns: int, wall_ns: int) -> None:
        """Read the own count back, if there is one."""
        del wall_ns
        if "count" in self._disk.names():
            (self.counts[self._index],) = _own.unpack(self._disk.read("count"))
        self.deadline_ns = now_ns + self._draws.below(_GOSSIP_NS)

    def receive(self, datagram: bytes, source: Endpoint, now_ns: int, wall_ns: int) -> None:
        """Learn from a message."""
        del source, now_ns, wall_ns
        body = datagram[_CHECK_BYTES:]
        if len(body) != self._form.size or _check(body) != datagram[:_CHECK_BYTES]:
            self.refused += 1
            return
        self.counts = [max(ours, theirs) for ours, theirs in zip(self.counts, self._form.unpack(body), strict=True)]

    def tick(self, now_ns: int, wall_ns: int) -> None:
        """Tell one other node; at every third time, count first."""
        del wall_ns
        self.deadline_ns = now_ns + 1 + _GOSSIP_NS // 2 + self._draws.below(_GOSSIP_NS)
        self._ticks += 1
        if self._ticks % _GOSSIPS_PER_COUNT == 0:
            self._raise_own()
        body = self._form.pack(*self.counts)
        other = (self._index + 1 + self._draws.below(len(self.counts) - 1)) % len(self.counts)
        self.outbox.append((endpoint_of(other), _check(body) + body))

    def _raise_own(self) -> None:
        raised = self.counts[self._index] + 1
        try:
            self._disk.write("count.new", _own.pack(raised))
            self._disk.sync("count.new")
            self._disk.rename("count.new", "count")
        except StorageError:
            return  # The disk is full: no count, and next time again.
        self.counts[self._index] = raised


@final
class CountsAreTrue:
    """Nobody knows a larger count than its owner: so no crash ever lost a count that was told."""

    name = "no count exceeds its owner's"
    every_ns = 0

    def check(self, world: World[Gossip]) -> str | None:
        """Compare what all know with what the owners that are up say."""
        programs = [(node, world.program(node)) for node in range(world.count)]
        highest = [max(column) for column in zip(*(p.counts for _, p in programs if p is not None), strict=True)]
        for node, owner in programs:
            if owner is not None and highest[node] > owner.counts[node]:
                return f"node {node} counted to {owner.counts[node]}, somebody knows {highest[node]}"
        return None


def gossip_factory(count: int) -> Factory[Gossip]:
    """Return the maker of programs for a world of this many nodes."""
    return lambda index, disk, seed: Gossip(index, count, disk, seed)


def gossip_scenario(count: int = 10, swarm: Swarm | None = None) -> Scenario[Gossip]:
    """Return the scenario: a mesh with some jitter and loss, any trouble, and in the end everybody knows everything."""

    def checkers() -> list[Checker[Gossip]]:
        return [CountsAreTrue(), ClocksForward(), SendBudget(20 * count)]

    def goals() -> list[Goal[Gossip]]:
        return [Goal("all counts reach all", _everybody_knows())]

    spec = LinkSpec(delay_ns=20 * MILLISECOND_NS, jitter_ns=2 * MILLISECOND_NS, jitter=Jitter.HEAVY, loss=100)
    return Scenario(
        name="gossip",
        topology=lambda _seed: full_mesh(count, spec),
        factory=lambda _seed: gossip_factory(count),
        swarm=swarm or Swarm(),
        checkers=checkers,
        goals=goals,
    )


def _everybody_knows() -> Callable[[World[Gossip]], str | None]:
    """Return a goal that takes the counts of the moment it is first asked, and waits until all know them."""
    wanted: list[int] = []

    def lacking(world: World[Gossip]) -> str | None:
        programs = world.programs()
        if not wanted:
            wanted.extend(program.counts[node] for node, program in enumerate(programs))
        for node, program in enumerate(programs):
            for owner, least in enumerate(wanted):
                if program.counts[owner] < least:
                    return f"node {node} knows {program.counts[owner]} of node {owner}, not {least}"
        return None

    return lacking


def _check(body: bytes) -> bytes:
    return blake2s(body, digest_size=_CHECK_BYTES, person=b"gossip").digest()
