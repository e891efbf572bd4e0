# SPDX-License-Identifier: Apache-2.0
"""An application in the simulated world: requests at a steady pace, answers from the other end, and what got lost."""

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from struct import Struct
from typing import Final, final

from atoll.base.ids import NodeId, packed_address_of
from atoll.base.units import MILLISECOND_NS
from atoll.conduit.packets import UdpPacket, build_udp, parse
from atoll.lab.program import Blueprint, SimulatedNode
from atoll.sim import World

__all__ = ["Exchange", "Traffic"]

REQUEST_PORT: Final = 7001  # Answers come from it.
ANSWER_PORT: Final = 7002
INTERVAL_NS: Final = 20 * MILLISECOND_NS
_BODY: Final = Struct(">HQ")  # Number of the exchange, sequence of the request.


@final
class Exchange:
    """Requests from one node to another, one each ``interval_ns``, each answered at once.

    Attributes:
        sent_ns: World time of each request, by sequence.
        answered_ns: World time of its answer; -1: none (yet).
    """

    def __init__(self, source: int, target: int, interval_ns: int, tag: int) -> None:
        self.source, self.target, self.interval_ns, self.tag = source, target, interval_ns, tag
        self.sent_ns: list[int] = []
        self.answered_ns: list[int] = []

    def first_answer_ns(self, since_ns: int) -> int | None:
        """Return when the first answer to a request sent at or after ``since_ns`` came; None: none yet."""
        first = bisect_left(self.sent_ns, since_ns)
        return min((at_ns for at_ns in self.answered_ns[first:] if at_ns >= 0), default=None)

    def loss(self, from_ns: int, until_ns: int) -> float:
        """Return the share of requests sent in [from, until) that were never answered; 0.0 where none was sent."""
        window = [a for s, a in zip(self.sent_ns, self.answered_ns, strict=True) if from_ns <= s < until_ns]
        return sum(a < 0 for a in window) / len(window) if window else 0.0

    def silence_ns(self, from_ns: int, until_ns: int) -> int:
        """Return the longest time without an answer in a span."""
        inside = sorted(a for a in self.answered_ns if from_ns <= a <= until_ns)
        instants = [from_ns, *inside, until_ns]
        return max(later - earlier for earlier, later in pairwise(instants))

    def healed_ns(self, since_ns: int, until_ns: int, window_ns: int, loss_max: float) -> int | None:
        """Return from when on every window of requests loses less than a share; None: not before ``until_ns``.

        The instant is that of the last request whose window was still bad, so a single late loss counts.
        """
        bad_ns = since_ns
        for sent_ns in self.sent_ns:
            if since_ns <= sent_ns <= until_ns - window_ns and self.loss(sent_ns, sent_ns + window_ns) >= loss_max:
                bad_ns = sent_ns + self.interval_ns
        return bad_ns if bad_ns <= until_ns - window_ns - self.interval_ns else None


@final
class Traffic:
    """All exchanges of one world.

    Args:
        world: Where; its nodes need not have started yet.
        plans: The blueprints of its nodes, by index.
    """

    def __init__(self, world: World[SimulatedNode], plans: Sequence[Blueprint]) -> None:
        self._world = world
        self._group = plans[0].group
        self._nodes = [plan.member.node for plan in plans]
        self.exchanges: Final[list[Exchange]] = []

    def begin(
        self, source: int, target: int, span_ns: tuple[int, int], *, interval_ns: int = INTERVAL_NS, tag: int = 0
    ) -> Exchange:
        """Plan an exchange between two nodes, from and until these world times."""
        from_ns, until_ns = span_ns
        exchange = Exchange(source, target, interval_ns, tag)
        number = len(self.exchanges)
        self.exchanges.append(exchange)

        def ask() -> None:
            world = self._world
            if world.now_ns >= until_ns:
                return
            sequence = len(exchange.sent_ns)
            exchange.sent_ns.append(world.now_ns)
            exchange.answered_ns.append(-1)
            self._listen(target)
            world.act(source, "ask", lambda program, now, wall: self._ask(program, number, sequence, now, wall))
            world.at(world.now_ns + interval_ns, ask)

        self._world.at(from_ns, ask)
        return exchange

    def _ask(self, program: SimulatedNode, number: int, sequence: int, now_ns: int, wall_ns: int) -> None:
        exchange = self.exchanges[number]
        self._listen(exchange.source)
        target = self._nodes[exchange.target]
        packet = self._packet(
            program.node, target, exchange.tag, (ANSWER_PORT, REQUEST_PORT), _BODY.pack(number, sequence)
        )
        program.send(target, exchange.tag, packet, now_ns, wall_ns)

    def _listen(self, index: int) -> None:
        """Hear what the node's present life hears; a restarted node is a new program."""
        program = self._world.program(index)
        if program is not None and program.heard is None:
            program.heard = partial(self._heard, program)

    def _packet(self, source: NodeId, target: NodeId, tag: int, ports: tuple[int, int], body: bytes) -> bytes:
        addresses = packed_address_of(self._group, source), packed_address_of(self._group, target)
        return build_udp(UdpPacket(*addresses, tag, *ports, body))

    def _heard(self, program: SimulatedNode, node: NodeId, packet: bytes, now_ns: int, wall_ns: int) -> None:
        parsed = parse(packet)
        assert isinstance(parsed, UdpPacket), "only exchanges send packets here"
        body: tuple[int, int] = _BODY.unpack(parsed.payload)
        number, sequence = body
        if parsed.target_port == ANSWER_PORT:
            answered_ns = self.exchanges[number].answered_ns
            if answered_ns[sequence] < 0:
                answered_ns[sequence] = self._world.now_ns
            return
        answer = self._packet(program.node, node, parsed.tag, (REQUEST_PORT, ANSWER_PORT), parsed.payload)
        program.send(node, parsed.tag, answer, now_ns, wall_ns)
