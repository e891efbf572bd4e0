# SPDX-License-Identifier: Apache-2.0
"""What the world keeps for each node beside its program, and what it counts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, final

from atoll.base.ids import Endpoint
from atoll.sim.clock import NodeClock
from atoll.sim.disk import SimDisk
from atoll.sim.limits import DATAGRAM_BYTES_MAX
from atoll.sim.link import Link
from atoll.sim.program import ProgramT, endpoint_of

__all__ = ["Station", "Stats", "StrangerSocket"]


@dataclass(slots=True)
class Stats:
    """What the world counted. Datagrams sent end as exactly one of delivered, lost, unroutable, deaf or in flight.

    Attributes:
        sent: Datagrams that programs sent.
        delivered: Datagrams given to a program, injected ones and duplicates included.
        lost: Lost on a link.
        unroutable: Sent to an endpoint where nobody is.
        deaf: Arrived at a node that was down, or paused with a full buffer.
        injected: Put on the wire by a stranger.
        ticks: Deadlines served.
        crashes: Programs that were ended, by a power cut or a kill.
    """

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    unroutable: int = 0
    deaf: int = 0
    injected: int = 0
    ticks: int = 0
    crashes: int = 0


@final
class Station(Generic[ProgramT]):
    """Everything about one node but its program's own state."""

    __slots__ = (
        "armed_ns",
        "backlog",
        "backlog_bytes",
        "boots",
        "clock",
        "disk",
        "endpoint",
        "index",
        "links",
        "paused",
        "program",
        "stuck",
    )

    def __init__(self, index: int, clock: NodeClock, disk: SimDisk, count: int) -> None:
        self.index, self.endpoint = index, endpoint_of(index)
        self.clock, self.disk = clock, disk
        self.program: ProgramT | None = None  # None: down.
        self.links: list[Link | None] = [None] * count  # Made when first used.
        self.armed_ns: int | None = None  # World time of the timer that counts.
        self.paused = False
        self.backlog: list[tuple[bytes, Endpoint, int]] = []
        self.backlog_bytes = self.boots = self.stuck = 0


@final
class StrangerSocket:
    """A ``Datagrams`` port outside the group."""

    __slots__ = ("_inject", "_source")

    def __init__(self, inject: Callable[[Endpoint, Endpoint, bytes], None], source: Endpoint) -> None:
        self._inject, self._source = inject, source

    def send(self, to: Endpoint, datagram: bytes) -> None:
        """Put one datagram on the wire."""
        self._inject(self._source, to, datagram[:DATAGRAM_BYTES_MAX])
