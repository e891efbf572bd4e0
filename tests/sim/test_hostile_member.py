# SPDX-License-Identifier: Apache-2.0
"""A member that lies: its links are the best of all, it says, and then it drops what it was given to relay.

It has every key that a member has, and a real node behind it. The others must find out by their own probes, end to end.
"""

from collections.abc import Container, Iterable
from typing import Self

import pytest

from atoll.base.ids import DIRECT, Endpoint, packed_address_of
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.device.nic.frame import FRAME_HEADER_BYTES, FRAME_KIND
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.traffic import Exchange, Traffic
from atoll.overlay.delivery import EXCESS_MAX
from atoll.overlay.evidence import Explanation
from atoll.overlay.messages import Link, LinkState, encode
from atoll.overlay.orders import SendControl
from atoll.sim import Jitter, LinkSpec, World, endpoint_of, mesh_of_matrix
from tests.unit import nic_world

ASKER, ANSWERER, LIAR, HONEST = range(4)
# Round trips, ms. The liar is where everybody would like a relay to be; the honest one is far away.
RTT_MS = ((0, 60, 10, 120), (60, 0, 10, 120), (10, 10, 0, 100), (120, 120, 100, 0))
BEGIN_NS = 5 * SECOND_NS
TURN_NS = 30 * SECOND_NS  # The liar begins to drop, or the direct path is cut.
END_NS = 45 * SECOND_NS
LAST_NS = END_NS + SECOND_NS  # The last answers have come.
HEALED_NS = 3 * SECOND_NS  # "A few seconds", with the liar; half a second is usual without.
LIE_NS = 200 * MILLISECOND_NS
ANY_LENGTH = range(1 << 16)
DATA_FRAME_BYTES = 116  # A packet of the exchange in its session and in a frame; probes have other lengths.
LATER_BOOT = (1 << 63) - 1  # Newer than what the real node below the liar says of itself.


class Outbox(list[tuple[Endpoint, bytes]]):
    """What the liar lets go out: from ``since_ns`` on none of the frames of these lengths that it should relay.

    With ``strips`` it takes off the frames instead, and hands the bare datagrams on as if they were its own. With
    ``every`` it lies only about each so many-th.
    """

    def __init__(
        self,
        world: World[SimulatedNode],
        since_ns: int,
        lengths: Container[int],
        *,
        strips: bool = False,
        every: int = 1,
    ) -> None:
        super().__init__()
        self._world, self._since_ns, self._lengths = world, since_ns, lengths
        self._strips, self._every, self._seen = strips, every, 0
        self.kept_back = 0

    def __iadd__(self, sent: Iterable[tuple[Endpoint, bytes]]) -> Self:  # type: ignore[misc, override]
        for endpoint, datagram in sent:
            lies = self._world.now_ns >= self._since_ns and len(datagram) in self._lengths
            self._seen += lies
            if not lies or not datagram.startswith(FRAME_KIND) or self._seen % self._every:
                self.append((endpoint, datagram))
            elif self._strips:
                self.append((endpoint, datagram[FRAME_HEADER_BYTES:]))
                self.kept_back += 1
            else:
                self.kept_back += 1
        return self


class Scene:
    """Two honest nodes that talk, a liar near to both, and an honest relay far away."""

    def __init__(
        self,
        seed: int,
        *,
        drops_from_ns: int,
        lengths: Container[int] = ANY_LENGTH,
        strips: bool = False,
        every: int = 1,
        end_ns: int = END_NS,
    ) -> None:
        self.plans = blueprints(len(RTT_MS), seed, records=True)
        matrix = [[one * 1000 for one in row] for row in RTT_MS]
        rest = LinkSpec(jitter_ns=MILLISECOND_NS, jitter=Jitter.UNIFORM)
        self.world = World(mesh_of_matrix(matrix, rest=rest), factory_of(self.plans), seed=seed, command="{seed}")
        self.traffic = Traffic(self.world, self.plans)
        self.exchange: Exchange = self.traffic.begin(ASKER, ANSWERER, (BEGIN_NS, end_ns))
        self.seen_by_liar: list[bytes] = []
        self.carried: list[bytes] = []  # Inner packets that came out at the liar.
        self.world.tap(self._see)
        self.world.start_all()
        self.outbox = Outbox(self.world, drops_from_ns, lengths, strips=strips, every=every)
        self.node(LIAR).outbox = self.outbox
        self.node(LIAR).heard = lambda _node, packet, _now_ns, _wall_ns: self.carried.append(packet)
        self.lies = 0
        self.world.at(SECOND_NS, self._lie)

    def node(self, index: int) -> SimulatedNode:
        program = self.world.program(index)
        assert program is not None
        return program

    def _see(self, _source: Endpoint, target: Endpoint, datagram: bytes) -> None:
        if target == endpoint_of(LIAR):
            self.seen_by_liar.append(datagram)

    def _lie(self) -> None:
        """Tell everybody of perfect links to everybody."""
        self.lies += 1
        others = [plan.member.node for index, plan in enumerate(self.plans) if index != LIAR]
        links = tuple(Link(node, 1, 0, 0, 0, 0) for node in others)
        lie = encode(LinkState(LATER_BOOT, self.lies, full=True, part=0, parts=1, load=0, will=2, links=links))

        def tell(program: SimulatedNode, now_ns: int, wall_ns: int) -> None:
            for node in others:
                program.engine.order(SendControl(node, DIRECT, lie), now_ns, wall_ns)
            program.outbox += program.engine.outbox
            program.engine.outbox.clear()

        self.world.act(LIAR, "lie", tell)
        self.world.at(self.world.now_ns + LIE_NS, self._lie)

    def cut(self) -> None:
        """Cut the direct path of the two, in both directions."""
        for source, target in ((ASKER, ANSWERER), (ANSWERER, ASKER)):
            self.world.impair(source, target, "cut", LinkSpec(blackhole=True))

    def vias(self) -> list[bytes]:
        """Return the ways that the asker's traffic went from the turn on, in order."""
        return [notice.via for at_ns, notice in self.node(ASKER).notices if at_ns >= self.asker_ns(TURN_NS)]

    def asker_ns(self, world_ns: int) -> int:
        return world_ns + self.world.clock(ASKER).monotonic_ns() - self.world.now_ns

    def explained(self) -> Explanation:
        now_ns = self.world.clock(ASKER).monotonic_ns()
        explanation = self.node(ASKER).control.mesh.explain(self.plans[ANSWERER].member.node, 0, now_ns)
        assert explanation is not None
        return explanation

    def chosen(self) -> bytes:
        return self.explained().chosen

    def best_told(self) -> bytes:
        """Return the way with the best score, whether it works or not."""
        scores = {one.via: one.score_us for one in self.explained().candidates}
        return min(scores, key=lambda via: scores[via] or 1 << 62)

    def read_nothing(self) -> None:
        """Check that the liar saw ciphertext only: every packet of the exchange holds both overlay addresses."""
        addresses = [packed_address_of(plan.group, plan.member.node) for plan in self.plans[:2]]
        for marker in (addresses[0] + addresses[1], addresses[1] + addresses[0]):
            assert not any(marker in datagram for datagram in self.seen_by_liar)
            assert not any(marker in packet for packet in self.carried)
            assert not any(marker in segment for segment in self.node(LIAR).segments())
        assert self.carried == []


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_liar_that_never_relays_does_not_keep_the_traffic(seed: int) -> None:
    """The direct path is cut while the liar looks best; the labels that it grants lead nowhere."""
    scene = Scene(seed, drops_from_ns=0)
    scene.world.at(TURN_NS, scene.cut)
    scene.world.run(TURN_NS)
    liar, honest = (scene.plans[index].member.node for index in (LIAR, HONEST))
    assert scene.best_told() == liar
    assert scene.chosen() == DIRECT, "it never carried anything, so nothing was given to it"
    scene.world.run(LAST_NS)
    scene.read_nothing()
    healed_ns = scene.exchange.healed_ns(TURN_NS, END_NS, SECOND_NS, 0.02)
    assert healed_ns is not None
    assert healed_ns - TURN_NS <= HEALED_NS
    assert scene.chosen() == honest
    assert liar not in scene.vias()
    assert scene.outbox.kept_back > 0, "it was asked, end to end"


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_liar_that_stops_relaying_loses_the_traffic(seed: int) -> None:
    """The liar is in use, and good, until the direct path is cut: from then on it drops everything."""
    scene = Scene(seed, drops_from_ns=TURN_NS)
    scene.world.at(TURN_NS, scene.cut)
    scene.world.run(TURN_NS - 1)
    liar, honest = (scene.plans[index].member.node for index in (LIAR, HONEST))
    assert scene.chosen() == liar, "it did relay, and saw every packet"
    assert any(datagram.startswith(FRAME_KIND) for datagram in scene.seen_by_liar)
    scene.world.run(LAST_NS)
    scene.read_nothing()
    healed_ns = scene.exchange.healed_ns(TURN_NS, END_NS, SECOND_NS, 0.02)
    assert healed_ns is not None
    assert healed_ns - TURN_NS <= HEALED_NS
    assert scene.chosen() == honest
    assert liar not in scene.vias()[-1:]
    assert scene.outbox.kept_back > 0


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_liar_that_relays_only_probes_loses_the_traffic(seed: int) -> None:
    """Nothing is cut: a clean direct path is there, and one's own probes through the liar look better still."""
    scene = Scene(seed, drops_from_ns=TURN_NS, lengths=(DATA_FRAME_BYTES,))
    liar = scene.plans[LIAR].member.node
    scene.world.run(TURN_NS - 1)
    assert scene.chosen() == liar
    scene.world.run(LAST_NS)
    scene.read_nothing()
    assert scene.outbox.kept_back > 0
    healed_ns = scene.exchange.healed_ns(TURN_NS, END_NS, SECOND_NS, 0.02)
    assert healed_ns is not None
    assert healed_ns - TURN_NS <= HEALED_NS
    assert scene.chosen() != liar
    assert next(one.reason for one in scene.explained().candidates if one.via == liar) in ("undelivered", "")


def test_a_liar_that_steals_a_little_data_loses_the_traffic() -> None:
    """One packet in twelve, and no probe: it takes some hundred packets each way to tell that from chance."""
    end_ns = TURN_NS + 40 * SECOND_NS
    scene = Scene(1, drops_from_ns=TURN_NS, lengths=(DATA_FRAME_BYTES,), every=12, end_ns=end_ns)
    liar = scene.plans[LIAR].member.node
    scene.world.run(end_ns + SECOND_NS)
    assert scene.outbox.kept_back >= EXCESS_MAX
    assert scene.exchange.loss(TURN_NS, TURN_NS + 5 * SECOND_NS) > 0.02
    assert scene.exchange.loss(end_ns - 10 * SECOND_NS, end_ns) == 0
    assert scene.chosen() != liar


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_relay_that_takes_frames_off_loses_the_traffic(seed: int) -> None:
    """It hands on what it should relay as if it were the two themselves: they neither believe it nor use it."""
    scene = Scene(seed, drops_from_ns=TURN_NS, strips=True)
    scene.world.run(LAST_NS)
    scene.read_nothing()
    assert scene.outbox.kept_back > 0
    healed_ns = scene.exchange.healed_ns(TURN_NS, END_NS, SECOND_NS, 0.02)
    assert healed_ns is not None
    assert healed_ns - TURN_NS <= HEALED_NS
    assert scene.chosen() == DIRECT
    for one, other in ((ASKER, ANSWERER), (ANSWERER, ASKER)):
        places = scene.node(one).engine.places.endpoints()
        assert places[scene.plans[other].member.node] == endpoint_of(other)


def test_a_relay_that_takes_frames_off_does_not_become_the_direct_way() -> None:
    """It hands the datagram in a frame to its receiver bare, from its own address: as if the origin had moved there."""
    world = nic_world.World(3)
    world.introduce()
    origin, liar, target = range(3)
    world.lease(origin, liar, target)
    for _ in range(10):
        world.lost = lambda sent: sent[0] == world.at[liar]
        world.say(origin, target, b"\x91\x05", world.node(liar))
        frame = world.frames()[-1][2]
        world.lost = lambda _: False
        world.receive(target, frame[FRAME_HEADER_BYTES:], world.at[liar])
    world.say(target, origin, b"\x91\x06")
    assert world.sent[-1][1] == world.at[origin], "direct is where the origin is"


def test_the_packets_of_the_exchange_hold_the_marker() -> None:
    """What ``read_nothing`` looks for is there where a packet is open."""
    scene = Scene(1, drops_from_ns=END_NS)
    opened: list[bytes] = []
    scene.node(ANSWERER).heard = lambda _node, packet, _now_ns, _wall_ns: opened.append(packet)
    scene.world.run(BEGIN_NS + SECOND_NS)
    marker = b"".join(packed_address_of(plan.group, plan.member.node) for plan in scene.plans[:2])
    assert len(opened) > 10
    assert all(marker in packet for packet in opened)
