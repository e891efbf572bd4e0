# SPDX-License-Identifier: Apache-2.0
"""A tiny world for tests of the overlay: some Mesh machines, a virtual clock, links with delay, jitter and loss, and
request/response flows. Everything follows from one seed. The full simulator is room ``sim``; this is a fixture.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

from atoll.base.ids import DIRECT, NodeId, PublicKey, node_id_of
from atoll.base.member import Member
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.core.machine import Tick
from atoll.overlay.config import Config
from atoll.overlay.mesh import Mesh
from atoll.overlay.orders import (
    DropForwardLabel,
    DropTransmitLabel,
    OverlayEffect,
    RouteNotice,
    SendControl,
    SetForwardLabel,
    SetRoute,
    SetTransmitLabel,
)
from atoll.overlay.reports import ControlReceived, FlowSeen, MembersChanged, OverlayInput, SessionUp

FLOW_NS: Final = 50 * MILLISECOND_NS
Way = tuple[int, int, bytes]  # From, to, via.


@dataclass
class Line:
    """One direction of one underlay link. ``loss`` in 1/10000."""

    delay_ns: int
    jitter_ns: int = 0
    loss: int = 0
    cut: bool = False


@dataclass
class Counts:
    """Data packets between two nodes as one of them counts them."""

    sent: int = 0
    received: int = 0
    seen: set[int] = field(default_factory=set[int])
    fresh: int = 0


@dataclass
class Request:
    """One request of a flow."""

    sent_ns: int
    answered_ns: int | None = None


def member(number: int) -> Member:
    return Member(bytes([number]) * 32, bytes([100 + number]) * 32, f"n{number}")


def ident(number: int) -> NodeId:
    return node_id_of(PublicKey(member(number).public_key))


class World:
    """N nodes. ``delays_ms[i][j]`` is the one-way delay from i to j."""

    def __init__(self, delays_ms: Sequence[Sequence[int]], seed: int, jitter_ms: int = 1) -> None:
        self.random = Random(seed)
        self.now_ns = 1_000 * SECOND_NS
        self.count = len(delays_ms)
        self.ids = [ident(number) for number in range(self.count)]
        self.numbers: dict[bytes, int] = {node: number for number, node in enumerate(self.ids)}
        self.lines = {
            (i, j): Line(delays_ms[i][j] * MILLISECOND_NS, jitter_ms * MILLISECOND_NS)
            for i in range(self.count)
            for j in range(self.count)
            if i != j
        }
        self.meshes = [
            Mesh(Config(node=self.ids[i], boot=1), self.random.randbytes(16), self.now_ns) for i in range(self.count)
        ]
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.serial = 0
        self.labels: set[tuple[int, int, int]] = set()  # (sender, target, relay)
        self.forwards: list[dict[int, tuple[int, int]]] = [{} for _ in range(self.count)]  # label -> (source, target)
        self.routes: dict[tuple[int, int], SetRoute] = {}
        self.notices: list[tuple[int, int, RouteNotice]] = []
        self.counts: dict[tuple[int, int], Counts] = {}
        self.requests: list[Request] = []
        self.data_sent: Counter[Way] = Counter()
        self.data_seen: Counter[Way] = Counter()
        self.sent_probes = 0
        self.trace: list[tuple[int, int, OverlayEffect]] | None = None
        self.liars: dict[int, Callable[[SendControl], SendControl]] = {}
        self.paused_until_ns = [0] * self.count
        self.due_ns = [0] * self.count
        for i in range(self.count):
            others = tuple(sorted((member(j) for j in range(self.count) if j != i), key=lambda one: one.node))
            self.feed(i, MembersChanged(others))
        for i in range(self.count):
            for j in range(self.count):
                if i != j:
                    self.feed(i, SessionUp(self.ids[j], 1))

    def at(self, when_ns: int, call: Callable[[], None]) -> None:
        self.serial += 1
        heapq.heappush(self.queue, (when_ns, self.serial, call))

    def feed(self, number: int, event: OverlayInput) -> None:
        if self.paused_until_ns[number] > self.now_ns:
            self.at(self.paused_until_ns[number], lambda: self.feed(number, event))
            return
        for effect in self.meshes[number].handle(event, self.now_ns):
            if self.trace is not None:
                self.trace.append((self.now_ns, number, effect))
            self.perform(number, effect)
        deadline_ns = self.meshes[number].deadline_ns
        self.due_ns[number] = 1 << 63 if deadline_ns is None else deadline_ns

    def pause(self, number: int, pause_ns: int) -> None:
        """Stop a node: its inputs and its Tick come when the pause ends."""
        self.paused_until_ns[number] = self.now_ns + pause_ns
        self.due_ns[number] = max(self.due_ns[number], self.now_ns + pause_ns)

    def perform(self, i: int, effect: OverlayEffect) -> None:
        match effect:
            case SendControl():
                self.sent_probes += 1
                lie = self.liars.get(i)
                sent = effect if lie is None else lie(effect)
                target = self.numbers[sent.node]
                way = (i, target, sent.via)
                told = self.data_sent[way]
                self.carry(
                    i,
                    target,
                    sent.via,
                    lambda: self.feed(
                        target, ControlReceived(self.ids[i], sent.via, sent.payload, told, self.data_seen[way])
                    ),
                )
            case SetRoute(node, tag):
                if tag == 0:
                    self.routes[i, self.numbers[node]] = effect
            case SetTransmitLabel(node, relay):
                self.labels.add((i, self.numbers[node], self.numbers[relay]))
            case DropTransmitLabel(node, relay):
                self.labels.discard((i, self.numbers[node], self.numbers[relay]))
            case SetForwardLabel(label, _, source, target_id):
                self.forwards[i][label] = (self.numbers[source], self.numbers[target_id])
            case DropForwardLabel(label):
                self.forwards[i].pop(label, None)
            case RouteNotice():
                self.notices.append((self.now_ns, i, effect))
            case _:
                pass

    def carry(self, i: int, j: int, via: bytes, deliver: Callable[[], None]) -> None:
        if via == DIRECT:
            self.hop(i, j, deliver)
            return
        relay = self.numbers[via]
        if (i, j, relay) in self.labels:
            self.hop(i, relay, lambda: self.forward(i, relay, j, deliver))

    def forward(self, i: int, relay: int, j: int, deliver: Callable[[], None]) -> None:
        if (i, j) in self.forwards[relay].values():
            self.hop(relay, j, deliver)

    def hop(self, i: int, j: int, deliver: Callable[[], None]) -> None:
        line = self.lines[i, j]
        if line.cut or self.random.randrange(10_000) < line.loss:
            return
        self.at(self.now_ns + line.delay_ns + self.random.randrange(line.jitter_ns + 1), deliver)

    def run(self, seconds: float) -> None:
        end_ns = self.now_ns + int(seconds * SECOND_NS)
        while True:
            due_ns = min(self.due_ns)
            number = self.due_ns.index(due_ns)
            if self.queue and self.queue[0][0] <= due_ns:
                when_ns, _, call = self.queue[0]
                if when_ns > end_ns:
                    break
                heapq.heappop(self.queue)
                self.now_ns = max(self.now_ns, when_ns)
                call()
                continue
            if due_ns > end_ns:
                break
            self.now_ns = max(self.now_ns, due_ns)
            self.feed(number, Tick())
        self.now_ns = end_ns

    # Data.

    def start_flow(self, i: int, j: int, gap_ms: int = 20) -> None:
        """Send a request from i to j each ``gap_ms``; j answers each. Both count, and report every 50 ms."""
        for one, other in ((i, j), (j, i)):
            self.counts[one, other] = Counts()
            self.at(self.now_ns + self.random.randrange(FLOW_NS), partial(self.report, one, other))
        self.at(self.now_ns, lambda: self.request(i, j, gap_ms))

    def request(self, i: int, j: int, gap_ms: int) -> None:
        request = Request(self.now_ns)
        self.requests.append(request)
        self.send(i, j, lambda: self.send(j, i, lambda: self.answered(request)))
        self.at(self.now_ns + gap_ms * MILLISECOND_NS, lambda: self.request(i, j, gap_ms))

    def answered(self, request: Request) -> None:
        request.answered_ns = self.now_ns

    def send(self, i: int, j: int, deliver: Callable[[], None]) -> None:
        counts = self.counts[i, j]
        counts.sent += 1
        counts.fresh = 1
        number = counts.sent
        route = self.routes[i, j]
        if route.also is None:
            way = (i, j, route.via)
            self.data_sent[way] += 1
            self.carry(i, j, route.via, lambda: self.receive(j, i, number, deliver, way))
            return
        for via in (route.via, route.also):
            self.carry(i, j, via, lambda: self.receive(j, i, number, deliver, None))

    def receive(self, i: int, j: int, number: int, deliver: Callable[[], None], way: Way | None) -> None:
        counts = self.counts[i, j]
        if number in counts.seen:
            return
        counts.seen.add(number)
        counts.received += 1
        if way is not None:
            self.data_seen[way] += 1
        deliver()

    def report(self, i: int, j: int) -> None:
        counts = self.counts[i, j]
        if counts.received or counts.fresh:
            event = FlowSeen(self.ids[j], counts.fresh, counts.received)
            counts.received, counts.fresh = 0, 0
            self.feed(i, event)
        self.at(self.now_ns + FLOW_NS, lambda: self.report(i, j))

    # What a test asks.

    def change(self, i: int, j: int, *, loss: int | None = None, cut: bool | None = None, both: bool = True) -> None:
        for pair in ((i, j), (j, i)) if both else ((i, j),):
            line = self.lines[pair]
            line.loss = line.loss if loss is None else loss
            line.cut = line.cut if cut is None else cut

    def first_reply_s(self, since_ns: int) -> float | None:
        """Time from ``since_ns`` to the first reply to a request that was sent after it."""
        replies = [one.answered_ns for one in self.requests if one.sent_ns > since_ns and one.answered_ns is not None]
        return (min(replies) - since_ns) / SECOND_NS if replies else None

    def calm_s(self, since_ns: int, window_s: float = 2.0, share: float = 0.02) -> float | None:
        """Time from ``since_ns`` to the first window in which less than ``share`` of the requests were lost."""
        after = [one for one in self.requests if one.sent_ns > since_ns]
        window_ns = int(window_s * SECOND_NS)
        for start in after:
            if start.sent_ns + window_ns > self.now_ns - SECOND_NS:
                return None
            inside = [one for one in after if start.sent_ns <= one.sent_ns < start.sent_ns + window_ns]
            if sum(one.answered_ns is None for one in inside) < share * len(inside):
                return (start.sent_ns - since_ns) / SECOND_NS
        return None


def square(count: int, seed: int, low_ms: int, high_ms: int) -> list[list[int]]:
    """Symmetric one-way delays, uniform in a range."""
    random = Random(seed)
    delays = [[0] * count for _ in range(count)]
    for i in range(count):
        for j in range(i):
            delays[i][j] = delays[j][i] = random.randint(low_ms, high_ms)
    return delays
