# SPDX-License-Identifier: Apache-2.0
"""Guests of the packet device: whose packets are taken, where they go, and what a member may say for one."""

from random import Random

import pytest

from atoll.base.ids import Endpoint, NodeId, PublicKey, node_id_of, packed_address_of, resolver_address
from atoll.base.units import SECOND_NS
from atoll.device.nic.limits import GUEST_BURST_BYTES
from atoll.device.nic.messages import (
    CloseGateway,
    EngineOrder,
    GatewayShared,
    OpenGateway,
    PacketReceived,
    RefuseGuest,
    SendPacket,
    ServeGuest,
    ShareGateway,
)
from atoll.overlay.orders import SetGuest, YieldGuest
from atoll.overlay.reports import GuestDown, GuestUp
from atoll.overlay.session import Data, PrivateKey, Sessions, open_box, seal_box
from tests.unit.nic_world import GROUP, WALL_NS, World, ipv6, key, node_of

GATEWAY = key(200)
GATEWAY_PUBLIC = PrivateKey(GATEWAY).public
PHONE, PAD = key(201), key(202)
AT: Endpoint = ("10.9.9.9", 5000)


def public(secret: bytes) -> bytes:
    return PrivateKey(secret).public


def guest_id(secret: bytes) -> NodeId:
    return node_id_of(PublicKey(public(secret)))


def box_for(number: int) -> bytes:
    box = seal_box(public(key(number)), GATEWAY, PrivateKey(key(99)))
    assert box is not None
    return box


def orders_of(number: int) -> tuple[EngineOrder, ...]:
    """Return what makes an engine, by its key's number, serve both guests."""
    opened = OpenGateway(GATEWAY_PUBLIC, box_for(number))
    return (opened, ServeGuest(public(PHONE), GATEWAY_PUBLIC), ServeGuest(public(PAD), GATEWAY_PUBLIC))


class Phone:
    """A client of its own protocol stack, at an endpoint of its own."""

    def __init__(self, world: World, secret: bytes = PHONE, at: Endpoint = AT) -> None:
        self.world, self.at = world, at
        self.node = guest_id(secret)
        self.sessions = Sessions(private_key=secret, rng=Random(7), now_ns=world.now_ns, prefers_aes=False)
        self.sessions.add_peer(GATEWAY_PUBLIC)
        self.received: list[bytes] = []

    def connect(self, number: int) -> None:
        self.sessions.connect(GATEWAY_PUBLIC, self.world.now_ns, self.world.wall_ns)
        self.exchange(number)

    def exchange(self, number: int) -> None:
        """Give an engine what we say, and take what it says to us, until both are silent."""
        waiting = True
        while waiting:
            waiting = False
            for outgoing in self.sessions.outbox[:]:
                self.world.receive(number, outgoing.datagram, self.at)
            self.sessions.outbox.clear()
            for source, to, datagram in self.world.sent[:]:
                if to == self.at:
                    self.world.sent.remove((source, to, datagram))
                    got = self.sessions.receive(datagram, b"x", self.world.now_ns, self.world.wall_ns, False)
                    if isinstance(got, Data) and got.plaintext:
                        self.received.append(got.plaintext[: 40 + int.from_bytes(got.plaintext[4:6], "big")])
                    waiting = True

    def send(self, number: int, packet: bytes) -> None:
        sealed = self.sessions.seal(GATEWAY_PUBLIC, packet, self.world.now_ns, self.world.wall_ns)
        assert sealed is not None
        self.world.receive(number, sealed, self.at)
        self.exchange(number)


@pytest.fixture
def world() -> World:
    """Two engines that are linked; the first serves both guests."""
    world = World(2)
    world.introduce()
    world.order(0, *orders_of(1))
    return world


def packets(world: World, number: int) -> list[tuple[bytes, bytes]]:
    return [(r.node, r.packet) for r in world.reports[number] if isinstance(r, PacketReceived)]


def linked(world: World, number: int = 0) -> Phone:
    phone = Phone(world)
    phone.connect(number)
    return phone


def test_a_box_opens_for_its_recipient_alone() -> None:
    box = box_for(1)
    assert open_box(PrivateKey(key(1)), box) == GATEWAY
    assert open_box(PrivateKey(key(2)), box) is None
    assert open_box(PrivateKey(key(1)), box[:-1]) is None
    assert open_box(PrivateKey(key(1)), bytes(80)) is None
    assert seal_box(bytes(32), GATEWAY, PrivateKey(key(99))) is None


def test_a_handshake_is_reported_with_its_timestamp_and_again_when_it_is_renewed(world: World) -> None:
    phone = linked(world)
    (first,) = [r for r in world.reports[0] if isinstance(r, GuestUp)]
    assert (first.node, len(first.stamp)) == (phone.node, 12)
    world.now_ns += 121 * SECOND_NS
    phone.connect(0)
    _, second = [r for r in world.reports[0] if isinstance(r, GuestUp)]
    assert second.stamp > first.stamp


def test_a_guest_reaches_this_machine_a_member_and_another_guest(world: World) -> None:
    phone, pad = linked(world), Phone(world, PAD, ("10.9.9.8", 5000))
    pad.connect(0)
    phone.send(0, ipv6(phone.node, node_of(1), b"to its member"))
    assert packets(world, 0) == [(phone.node, ipv6(phone.node, node_of(1), b"to its member"))]
    world.order(1, SetGuest(phone.node, node_of(1)))
    phone.send(0, ipv6(phone.node, node_of(2), b"behind it"))
    assert packets(world, 1) == [(phone.node, ipv6(phone.node, node_of(2), b"behind it"))]
    phone.send(0, ipv6(phone.node, pad.node, b"to another"))
    pad.exchange(0)
    assert pad.received == [ipv6(phone.node, pad.node, b"to another")]


def test_members_reach_a_guest_by_the_one_that_serves_it(world: World) -> None:
    phone = linked(world)
    world.order(0, SendPacket(phone.node, 0, ipv6(node_of(1), phone.node, b"from its member")))
    world.order(1, SetGuest(phone.node, node_of(1)))
    world.order(1, SendPacket(phone.node, 0, ipv6(node_of(2), phone.node, b"from behind")))
    phone.exchange(0)
    assert phone.received == [
        ipv6(node_of(1), phone.node, b"from its member"),
        ipv6(node_of(2), phone.node, b"from behind"),
    ]


def test_a_question_for_a_name_goes_to_control_and_the_answer_back(world: World) -> None:
    phone = linked(world)
    resolver = NodeId(resolver_address(GROUP)[6:])
    phone.send(0, ipv6(phone.node, resolver, b"who"))
    assert packets(world, 0) == [(phone.node, ipv6(phone.node, resolver, b"who"))]
    world.order(0, SendPacket(phone.node, 0, ipv6(resolver, phone.node, b"that one")))
    phone.exchange(0)
    assert phone.received == [ipv6(resolver, phone.node, b"that one")]


def test_what_is_not_from_the_guests_own_address_is_dropped(world: World) -> None:
    phone = linked(world)
    phone.send(0, ipv6(node_of(2), node_of(1), b"I am n2"))
    phone.send(0, b"\x60" + bytes(20))
    assert packets(world, 0) == []
    assert world.engines[0].counters.dropped["guest-foreign"] == 1
    assert world.engines[0].counters.dropped["guest-malformed"] == 1


def test_a_guest_is_told_who_does_not_exist(world: World) -> None:
    phone = linked(world)
    nobody = ipv6(phone.node, node_of(77), b"hello")
    phone.send(0, nobody)
    (said,) = phone.received
    assert (said[6], said[40], said[41]) == (58, 1, 0)  # ICMPv6, unreachable, no route.
    assert said[8:24] == packed_address_of(GROUP, node_of(1))
    assert said.endswith(nobody)


def test_a_flood_is_metered(world: World) -> None:
    phone = linked(world)
    packet = ipv6(phone.node, node_of(1), bytes(8_000))
    count = GUEST_BURST_BYTES // len(packet) + 10
    for _ in range(count):
        phone.send(0, packet)
    assert 9 <= world.engines[0].counters.dropped["guest-rate"] <= 11
    assert len(packets(world, 0)) == count - world.engines[0].counters.dropped["guest-rate"]


def test_a_member_speaks_for_a_guest_only_if_it_serves_it(world: World) -> None:
    phone = linked(world)
    phone.send(0, ipv6(phone.node, node_of(2), b"unheard of"))
    assert packets(world, 1) == []
    assert world.engines[1].counters.dropped["packet-foreign"] == 1


def test_a_member_is_not_carried_on_to_a_third_one() -> None:
    world = World(3)
    world.introduce()
    world.order(0, *orders_of(1))
    phone = linked(world)
    for number in (1, 2):
        world.order(number, SetGuest(phone.node, node_of(1)))
    world.order(0, YieldGuest(phone.node), SetGuest(phone.node, node_of(2)))
    world.order(2, SendPacket(phone.node, 0, ipv6(node_of(3), phone.node, b"by the old way")))
    assert world.engines[0].counters.dropped["packet-foreign"] == 1
    assert packets(world, 1) == []


def test_a_guest_moves_to_another_member_and_the_first_one_lets_go(world: World) -> None:
    phone = linked(world)
    world.order(1, *orders_of(2))
    world.now_ns += 130 * SECOND_NS
    phone.connect(1)
    stamps = [[r.stamp for r in world.reports[number] if isinstance(r, GuestUp)] for number in (0, 1)]
    assert stamps[1] > stamps[0]
    world.order(0, YieldGuest(phone.node), SetGuest(phone.node, node_of(2)))
    world.order(0, SendPacket(phone.node, 0, ipv6(node_of(1), phone.node, b"by the new one")))
    phone.exchange(1)
    assert phone.received == [ipv6(node_of(1), phone.node, b"by the new one")]


def test_a_handshake_from_before_it_moved_away_is_no_handshake(world: World) -> None:
    phone = Phone(world)
    phone.sessions.connect(GATEWAY_PUBLIC, world.now_ns, world.wall_ns)
    recorded = phone.sessions.outbox[0].datagram
    phone.exchange(0)
    world.order(0, YieldGuest(phone.node))
    world.now_ns += SECOND_NS
    world.sent.clear()
    world.receive(0, recorded, ("10.6.6.6", 1))
    assert [to for _, to, _ in world.sent if to == ("10.6.6.6", 1)] == []


def test_a_session_that_ends_is_reported(world: World) -> None:
    phone = linked(world)
    world.run(200 * SECOND_NS)
    assert [r.node for r in world.reports[0] if isinstance(r, GuestDown)] == [phone.node]


@pytest.mark.parametrize("order", [RefuseGuest(public(PHONE)), CloseGateway(GATEWAY_PUBLIC)])
def test_a_guest_that_is_refused_is_not_heard(world: World, order: EngineOrder) -> None:
    phone = linked(world)
    world.order(0, order)
    phone.send(0, ipv6(phone.node, node_of(1), b"still here"))
    world.now_ns += 130 * SECOND_NS
    phone.connect(0)
    assert packets(world, 0) == []
    assert len([r for r in world.reports[0] if isinstance(r, GuestUp)]) == 1


def test_a_gateway_whose_box_is_anothers_is_refused() -> None:
    world = World(2)
    world.order(0, OpenGateway(GATEWAY_PUBLIC, box_for(2)))
    world.order(0, OpenGateway(public(PAD), box_for(1)))  # It opens, and is another key.
    assert world.engines[0].counters.dropped["order-refused"] == 2
    world.order(0, ServeGuest(public(PHONE), GATEWAY_PUBLIC))
    assert world.engines[0].counters.dropped["order-refused"] == 3


def test_a_gateways_key_is_shared_without_being_seen() -> None:
    world = World(2)
    world.order(0, ShareGateway(b"", (public(key(1)), public(key(2)))))
    (made,) = [r for r in world.reports[0] if isinstance(r, GatewayShared)]
    assert [recipient for recipient, _ in made.boxes] == [public(key(1)), public(key(2))]
    for number, (_, box) in enumerate(made.boxes, start=1):
        secret = open_box(PrivateKey(key(number)), box)
        assert secret is not None
        assert public(secret) == made.public_key
    world.order(0, ShareGateway(made.public_key, (public(key(2)),)))  # Not opened yet.
    assert [r for r in world.reports[0] if isinstance(r, GatewayShared)][-1] == GatewayShared(b"", ())
    world.order(0, OpenGateway(made.public_key, made.boxes[0][1]), ShareGateway(made.public_key, (public(key(2)),)))
    again = [r for r in world.reports[0] if isinstance(r, GatewayShared)][-1]
    assert (again.public_key, again.boxes[0][0]) == (made.public_key, public(key(2)))


def test_strangers_cost_a_node_without_gateways_nothing() -> None:
    world = World(1)
    phone = Phone(world)
    phone.connect(0)
    assert world.engines[0].dropped["session-mac1-wrong"] == 1
    assert WALL_NS


def test_a_guest_is_never_called(world: World) -> None:
    phone = linked(world)
    world.order(0, SendPacket(phone.node, 0, ipv6(node_of(1), phone.node, b"and no answer")))
    world.sent.clear()
    world.run(100 * SECOND_NS)
    assert [datagram for _, to, datagram in world.sent if to == AT] == []
