# SPDX-License-Identifier: Apache-2.0
"""Two nodes over a channel that loses, repeats and reorders: they always meet again, and nothing arrives twice."""

from heapq import heappop, heappush
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.overlay.session import Data, Sessions
from atoll.overlay.session.limits import PREVIOUS_MAX
from tests.unit.session_world import SOURCE, WALL_NS


class Ends:
    """Two nodes, what each was given, and the rules that always hold."""

    def __init__(self, seed: int) -> None:
        self.now_ns = 0
        self.nodes = tuple(Sessions(private_key=bytes([n] * 32), rng=Random(seed + n), now_ns=0) for n in (1, 2))
        self.keys = tuple(node.public_key for node in self.nodes)
        for way in (0, 1):
            self.nodes[way].add_peer(self.keys[1 - way], psk=bytes(range(32)))
        self.sent: list[list[bytes]] = [[], []]
        self.got: list[dict[bytes, int]] = [{}, {}]
        self.missing = [0, 0]
        self.counts = [(0, 0), (0, 0)]

    def drain(self, way: int) -> list[bytes]:
        node = self.nodes[way]
        assert all(outgoing.public_key in (None, self.keys[1 - way]) for outgoing in node.outbox)
        drained = [outgoing.datagram for outgoing in node.outbox]
        node.outbox.clear()
        return drained

    def send(self, way: int) -> list[bytes]:
        text = f"packet {len(self.sent[way])} of {way}".encode()
        datagram = self.nodes[way].seal(self.keys[1 - way], text, self.now_ns, WALL_NS + self.now_ns)
        if datagram is not None:
            self.sent[way].append(text.ljust(-(-len(text) // 16) * 16, b"\0"))
        return [*self.drain(way), *([] if datagram is None else [datagram])]

    def connect(self, way: int) -> list[bytes]:
        self.nodes[way].connect(self.keys[1 - way], self.now_ns, WALL_NS + self.now_ns)
        return self.drain(way)

    def deliver(self, way: int, datagram: bytes, *, under_load: bool = False) -> list[bytes]:
        """Give a datagram to the node that ``way`` sends to; return what that one sends at once."""
        event = self.nodes[1 - way].receive(datagram, SOURCE, self.now_ns, WALL_NS + self.now_ns, under_load)
        if isinstance(event, Data):
            assert event.public_key == self.keys[way]
            self.missing[way] += event.gap_delta
            text = bytes(event.plaintext)
            if text:
                assert text in self.sent[way]
                self.got[way][text] = self.got[way].get(text, 0) + 1
                assert self.got[way][text] == 1
        return self.drain(1 - way)

    def tick(self, way: int) -> list[bytes]:
        node = self.nodes[way]
        node.tick(self.now_ns, WALL_NS + self.now_ns)
        assert node.deadline_ns is None or node.deadline_ns > self.now_ns
        return self.drain(way)

    def check(self) -> None:
        for way, node in enumerate(self.nodes):
            counts = node.loss_counts(self.keys[1 - way])
            assert counts[0] >= self.counts[way][0]
            assert counts[1] >= self.counts[way][1]
            assert counts[0] >= counts[1]
            self.counts[way] = counts
            held = len(node._local.table.keypairs)  # pyright: ignore[reportPrivateUsage] - a bound to be checked.
            assert held <= 2 + PREVIOUS_MAX

    def heal(self) -> None:
        """Serve both without loss for a while; then there must be a session that works both ways."""
        for node in self.nodes:
            node.expired.clear()
        for _ in range(20):
            queue = [(way, datagram) for way in (0, 1) for datagram in (*self.tick(way), *self.send(way))]
            while queue:
                way, datagram = queue.pop(0)
                queue += [(1 - way, answer) for answer in self.deliver(way, datagram)]
            self.now_ns += SECOND_NS
        assert all(self.nodes[way].established(self.keys[1 - way]) for way in (0, 1))
        for way in (0, 1):
            before = len(self.got[way])
            for datagram in self.send(way):
                self.deliver(way, datagram)
            assert len(self.got[way]) == before + 1


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.integers(0, 60),
    delay_ms=st.integers(0, 400),
    pause_ms=st.sampled_from([300, 700, 4_000, 31_000]),
    load=st.sampled_from([0, 50]),
)
def test_any_channel_ends_in_working_sessions(seed: int, loss: int, delay_ms: int, pause_ms: int, load: int) -> None:
    ends, rng = Ends(seed), Random(seed)
    under_way: list[tuple[int, int, int, bytes]] = []  # Arrival, tie-break, way, datagram.
    serial = 0

    def put(way: int, datagrams: list[bytes]) -> None:
        nonlocal serial
        for datagram in datagrams:
            for _ in range(1 + (rng.randrange(100) < 10)):
                serial += 1
                if rng.randrange(100) >= loss:
                    arrival_ns = ends.now_ns + rng.randrange(delay_ms + 1) * MILLISECOND_NS
                    heappush(under_way, (arrival_ns, serial, way, datagram))

    put(0, ends.connect(0))
    put(1, ends.connect(1))
    for _ in range(500):  # Minutes to hours: several renewals.
        until_ns = ends.now_ns + pause_ms * MILLISECOND_NS
        while (
            next_ns := min(
                [node.deadline_ns for node in ends.nodes if node.deadline_ns is not None]
                + [arrival_ns for arrival_ns, *_ in under_way[:1]],
                default=until_ns,
            )
        ) < until_ns:
            ends.now_ns = max(ends.now_ns, next_ns)
            for way in (0, 1):
                put(way, ends.tick(way))
            while under_way and under_way[0][0] <= ends.now_ns:
                _, _, way, datagram = heappop(under_way)
                put(1 - way, ends.deliver(way, datagram, under_load=rng.randrange(100) < load))
            ends.check()
        ends.now_ns = until_ns
        for way in (0, 1):
            put(way, ends.send(way))
    ends.heal()
    if loss == 0 and load == 0 and pause_ms < SECOND_NS // MILLISECOND_NS:
        for way in (0, 1):  # Renewals lose nothing: all but the packets still under way arrived.
            assert len(ends.sent[way]) - len(ends.got[way]) <= 2 + delay_ms // pause_ms


class Channel(RuleBasedStateMachine):
    """The channel as an adversary: it decides what arrives, when, and how often."""

    datagrams: Bundle[tuple[int, bytes]] = Bundle("datagrams")

    def __init__(self) -> None:
        super().__init__()
        self.ends = Ends(7)
        self.under_way: list[tuple[int, bytes]] = []

    def _put(self, way: int, datagrams: list[bytes]) -> None:
        self.under_way += [(way, datagram) for datagram in datagrams]

    @rule(way=st.integers(0, 1))
    def connect(self, way: int) -> None:
        self._put(way, self.ends.connect(way))

    @rule(way=st.integers(0, 1))
    def send(self, way: int) -> None:
        self._put(way, self.ends.send(way))

    @rule(target=datagrams, place=st.integers(0, 1000))
    def take(self, place: int) -> tuple[int, bytes]:
        if not self.under_way:
            self._put(0, self.ends.send(0))
        return self.under_way.pop(place % len(self.under_way)) if self.under_way else (0, b"")

    @rule(datagram=consumes(datagrams), under_load=st.booleans())
    def deliver(self, datagram: tuple[int, bytes], under_load: bool) -> None:
        self._put(1 - datagram[0], self.ends.deliver(*datagram, under_load=under_load))

    @rule(datagram=datagrams)
    def deliver_and_keep_a_copy(self, datagram: tuple[int, bytes]) -> None:
        self._put(1 - datagram[0], self.ends.deliver(*datagram))

    @rule(datagram=datagrams)
    def reflect(self, datagram: tuple[int, bytes]) -> None:
        way, content = datagram
        before = self.ends.got[1 - way].copy()
        self._put(way, self.ends.deliver(1 - way, content))
        assert self.ends.got[1 - way] == before

    @rule(seconds=st.sampled_from([1, 6, 30, 121, 181, 1000]))
    def wait(self, seconds: int) -> None:
        self.ends.now_ns += seconds * SECOND_NS
        for way in (0, 1):
            self._put(way, self.ends.tick(way))

    @invariant()
    def holds(self) -> None:
        self.ends.check()

    def teardown(self) -> None:
        self.ends.heal()


TestChannel = Channel.TestCase
TestChannel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
