# SPDX-License-Identifier: Apache-2.0
"""Engines back to back: sessions, packets and control messages, queues, roaming, evidence, hostile input."""

from random import Random

import pytest

from atoll.base.errors import UsageError
from atoll.base.ids import DIRECT, Endpoint
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.device.nic.engine import Engine
from atoll.device.nic.frame import FRAME_HEADER_BYTES, Heading
from atoll.device.nic.limits import (
    CONTROL_BURST,
    COUNTERS_NS,
    FLOW_NS,
    OUTBOX_MAX,
    PACKETS_RECENT_MAX,
    PACKETS_WAITING_MAX,
    RECENT_NS,
    STAMP_AHEAD_NS,
    TAGS_MAX,
    TRANSMIT_LABELS_MAX,
)
from atoll.device.nic.messages import (
    AdmitPeer,
    EndpointSeen,
    EngineOrder,
    ExpelPeer,
    NicCounters,
    PacketReceived,
    SendPacket,
    Timestamp,
)
from atoll.device.nic.whereabouts import MARKS_TO_MOVE
from atoll.overlay.orders import (
    DropArrivalLabel,
    DropForwardLabel,
    DropTransmitLabel,
    SendControl,
    SetArrivalLabel,
    SetForwardLabel,
    SetRoute,
    SetTransmitLabel,
)
from atoll.overlay.reports import ControlReceived, FlowSeen, SessionDown, SessionUp
from atoll.overlay.session import Sessions
from tests.unit.nic_world import GROUP, WALL_NS, World, ipv6, key, node_of

MESSAGE = b"\x91\x05"


def pair() -> World:
    world = World(2)
    world.introduce()
    return world


def flows(world: World, index: int) -> list[FlowSeen]:
    return [report for report in world.reports[index] if isinstance(report, FlowSeen)]


def test_two_peers_have_a_session_and_say_so_once() -> None:
    world = pair()
    for index in (0, 1):
        ups = [report for report in world.reports[index] if isinstance(report, SessionUp)]
        assert ups == [SessionUp(world.node(1 - index), 1)]
    world.introduce()  # Orders are idempotent.
    world.run(10 * SECOND_NS)
    assert sum(isinstance(report, SessionUp) for report in world.reports[0]) == 1


def test_packets_and_control_messages_arrive() -> None:
    world = pair()
    for length in (0, 1, 7, 8, 1240):
        world.send(0, 1, bytes(length))
    world.say(1, 0, MESSAGE)
    assert world.packets(1) == [bytes(length) for length in (0, 1, 7, 8, 1240)]
    assert world.heard(0) == [(DIRECT, MESSAGE)]
    assert world.dropped(0) == world.dropped(1) == {}
    datagrams = [datagram for _, to, datagram in world.sent if to == world.at[1] and datagram[0] == 4]
    assert all(len(datagram) % 16 == 0 for datagram in datagrams)


def test_packets_with_other_addresses_are_not_sent() -> None:
    world = pair()
    before = len(world.sent)
    stranger = node_of(99)
    for packet in (
        world.packet(1, 0),
        ipv6(stranger, world.node(1), b"x"),
        ipv6(world.node(0), stranger, b"x"),
        world.packet(0, 1) + b"x",
        b"",
        bytes(10_000),
    ):
        world.order(0, SendPacket(world.node(1), 0, packet))
    world.order(0, SendPacket(stranger, 0, ipv6(world.node(0), stranger, b"x")))
    assert len(world.sent) == before
    assert world.dropped(0) == {"packet-foreign": 6, "order-refused": 1}


def test_packets_with_other_addresses_are_not_taken_from_a_peer() -> None:
    """A member whose device does not check what it sends."""
    world = World(1)
    mallory = Sessions(private_key=key(9), rng=Random(9), now_ns=world.now_ns)
    mallory.add_peer(world.engines[0].public_key)
    mallory.connect(world.engines[0].public_key, world.now_ns, WALL_NS)
    world.order(0, AdmitPeer(mallory.public_key))
    source = ("10.9.9.9", 9)
    world.receive(0, mallory.outbox.pop().datagram, source)
    mallory.receive(world.sent[-1][2], b"", world.now_ns, WALL_NS, under_load=False)
    world.receive(0, mallory.outbox.pop().datagram, source)
    here, there = world.node(0), node_of(9)
    plaintexts = {
        ipv6(there, here, b"fine"): None,
        ipv6(node_of(3), here, b"not his"): "packet-foreign",
        ipv6(there, node_of(3), b"not ours"): "packet-foreign",
        ipv6(there, here, bytes(50))[:64]: "packet-malformed",
        b"\x45" + bytes(39): "packet-malformed",
        b"\x91" + bytes(15): "packet-malformed",
        b"\xff" * 16: "packet-malformed",
        b"\x60": "packet-malformed",
    }
    for plaintext, reason in plaintexts.items():
        before = world.dropped(0)
        sealed = mallory.seal(world.engines[0].public_key, plaintext, world.now_ns, WALL_NS)
        assert sealed is not None
        world.receive(0, sealed, source)
        counted = {name: count - before.get(name, 0) for name, count in world.dropped(0).items()}
        assert {name for name, count in counted.items() if count} == ({reason} if reason else set())
    assert world.packets(0) == [b"fine"]
    assert world.heard(0) == []
    world.run(COUNTERS_NS)
    told = [report for report in world.reports[0] if isinstance(report, NicCounters)]
    assert told[-1].peers == {there: {"packet-foreign": 2, "packet-malformed": 5}}, "counted for who sent it"


def test_a_flood_of_control_messages_is_cut() -> None:
    world = pair()
    for _ in range(CONTROL_BURST + 50):
        world.say(0, 1, MESSAGE)
    assert len(world.heard(1)) == CONTROL_BURST
    assert world.dropped(1) == {"control-rate": 50}
    world.run(SECOND_NS)
    world.say(0, 1, MESSAGE)
    assert len(world.heard(1)) == CONTROL_BURST + 1
    world.run(COUNTERS_NS)
    told = [report for report in world.reports[1] if isinstance(report, NicCounters)]
    assert told[-1].peers == {world.node(0): {"control-rate": 50}}


def test_packets_wait_for_the_session_and_the_oldest_are_lost() -> None:
    world = World(2)
    world.lost = lambda _: True
    world.order(0, AdmitPeer(world.engines[1].public_key, (world.at[1],)))
    world.order(1, AdmitPeer(world.engines[0].public_key, ()))
    for number in range(PACKETS_WAITING_MAX + 4):
        world.send(0, 1, bytes([number]))
    assert world.dropped(0) == {"packet-overflow": 4}
    world.say(0, 1, MESSAGE)
    assert world.dropped(0)["control-unsent"] == 1
    world.lost = lambda _: False
    world.run(6 * SECOND_NS)  # One retry of the handshake.
    assert world.packets(1) == [bytes([number]) for number in range(4, PACKETS_WAITING_MAX + 4)]
    assert world.heard(1) == []


def test_nobody_calls_a_peer_that_is_nowhere() -> None:
    world = World(2)
    world.order(0, AdmitPeer(world.engines[1].public_key))
    world.run(60 * SECOND_NS)
    assert world.sent == []
    world.send(0, 1)
    assert world.sent == []
    assert world.dropped(0) == {"endpoint-unknown": 1}


def test_an_invited_peer_calls_and_is_not_called() -> None:
    world = World(2)
    world.order(0, AdmitPeer(world.engines[1].public_key, (world.at[1],), None, invited=True))
    world.run(30 * SECOND_NS)
    assert world.sent == []
    world.order(1, AdmitPeer(world.engines[0].public_key, (world.at[0],)))
    assert SessionUp(world.node(1), 1) in world.reports[0]


def test_listed_endpoints_are_tried_in_turn() -> None:
    world = World(2)
    dead = (("10.9.9.1", 1), ("10.9.9.2", 2))
    world.order(0, AdmitPeer(world.engines[1].public_key, (*dead, ("name.example", 3), world.at[1])))
    world.order(1, AdmitPeer(world.engines[0].public_key))
    world.run(12 * SECOND_NS)
    called = [to for source, to, datagram in world.sent if source == world.at[0] and datagram[0] == 1]
    assert called == [*dead, world.at[1]]
    assert SessionUp(world.node(1), 1) in world.reports[0]
    assert EndpointSeen(world.node(1), *world.at[1]) in world.reports[0]
    assert world.dropped(0) == {"endpoint-invalid": 1}
    world.send(0, 1)
    assert world.packets(1) == [b"hello"]


def said_from(world: World, source: Endpoint) -> bytes:
    """Let node 0 say something directly that reaches node 1 from another address; return the datagram."""
    world.lost = lambda _: True
    world.say(0, 1, MESSAGE)
    sealed = world.sent[-1][2]
    world.lost = lambda _: False
    world.receive(1, sealed, source)
    return sealed


def endpoints_seen(world: World, since: int = 0) -> list[EndpointSeen]:
    return [report for report in world.reports[1][since:] if isinstance(report, EndpointSeen)]


def test_an_endpoint_roams_with_fresh_marks_in_a_row() -> None:
    world = pair()
    world.say(0, 1, MESSAGE)
    world.run(2 * SECOND_NS)
    moved = ("10.7.7.7", 77)
    for _ in range(MARKS_TO_MOVE - 1):
        sealed = said_from(world, moved)
        for _ in range(MARKS_TO_MOVE):  # Replays move nothing, and damaged packets neither.
            world.receive(1, sealed, moved)
            world.receive(1, sealed[:-1] + bytes([sealed[-1] ^ 1]), moved)
        world.send(1, 0)
        assert world.sent[-1][1] == world.at[0]
    said_from(world, moved)
    world.send(1, 0)
    assert world.sent[-1][1] == moved
    world.run(2 * SECOND_NS)
    assert endpoints_seen(world) == [EndpointSeen(world.node(0), *world.at[0]), EndpointSeen(world.node(0), *moved)]


def test_data_alone_move_nothing() -> None:
    world = pair()
    for _ in range(10 * MARKS_TO_MOVE):
        world.lost = lambda _: True
        world.send(0, 1)
        world.receive(1, world.sent[-1][2], ("10.7.7.7", 77))
    world.lost = lambda _: False
    assert len(world.packets(1)) == 10 * MARKS_TO_MOVE
    world.send(1, 0)
    assert world.sent[-1][1] == world.at[0]


def test_both_places_are_asked_before_a_move() -> None:
    world = pair()
    world.say(0, 1, MESSAGE)
    moved = ("10.7.7.7", 77)
    for marks, asked in ((1, [world.at[0]]), (2, [world.at[0], moved])):
        said_from(world, moved)
        before = len(world.sent)
        world.lost = lambda _: True
        world.say(1, 0, MESSAGE)
        world.lost = lambda _: False
        assert [to for _, to, _ in world.sent[before:]] == asked, marks
        assert len({datagram for _, _, datagram in world.sent[before:]}) == len(asked), "sealed anew, no copy"


def test_moves_are_reported_once_a_second() -> None:
    world = pair()
    world.say(0, 1, MESSAGE)
    world.run(2 * SECOND_NS)
    before = len(world.reports[1])
    for number in range(100):
        for _ in range(MARKS_TO_MOVE):
            said_from(world, (f"10.7.7.{number}", 7))
        world.run(10 * MILLISECOND_NS)
    world.run(3 * SECOND_NS)
    seen = endpoints_seen(world, before)
    assert seen == [EndpointSeen(world.node(0), f"10.7.7.{number}", 7) for number in (0, 99)]


def test_a_way_that_was_not_taken_is_no_evidence() -> None:
    """What was said over a relay and comes bare, and what was said directly and comes in a frame."""
    world = World(3)
    world.introduce()
    world.lease(0, 2, 1)
    world.lost = lambda sent: sent[0] == world.at[2]
    world.say(0, 1, MESSAGE, world.node(2))
    bare = world.frames()[-1][2][FRAME_HEADER_BYTES:]
    world.lost = lambda _: True
    world.say(0, 1, MESSAGE)
    direct = world.sent[-1][2]
    world.lost = lambda _: False
    label = 1 + 16 * 0 + 1
    world.receive(1, bare, world.at[2])
    world.receive(1, Heading(label + 1000, key(150 + label)).pack(direct), world.at[2])
    assert world.heard(1) == []
    assert world.dropped(1)["way-false"] == 2


def test_data_are_counted_by_their_way() -> None:
    world = World(3)
    world.introduce()
    world.lease(0, 2, 1)
    relay, target = world.node(2), world.node(1)
    lost = iter([True, True, False, False, False])
    for _ in range(5):
        world.lost = lambda sent: sent[0] == world.at[0] and next(lost)
        world.send(0, 1)
    world.lost = lambda _: False
    world.now_ns += RECENT_NS + 1
    world.order(0, SetRoute(target, 0, relay))
    for _ in range(4):
        world.send(0, 1)
    world.now_ns += RECENT_NS + 1
    world.order(0, SetRoute(target, 0, DIRECT, relay))  # By two ways at once: the count of neither.
    for _ in range(3):
        world.send(0, 1)
    world.say(0, 1, MESSAGE)
    world.say(0, 1, MESSAGE, relay)
    counted = [(one.via, one.data_sent, one.data_seen) for one in world.reports[1] if isinstance(one, ControlReceived)]
    assert counted == [(DIRECT, 5, 3), (relay, 4, 4)]


def test_what_a_failed_way_lost_is_sent_again_by_the_new_one_and_comes_once() -> None:
    world = World(3)
    world.introduce()
    world.lease(0, 2, 1)
    relay, target = world.node(2), world.node(1)
    world.send(0, 1, b"old")
    world.now_ns += RECENT_NS + 1
    world.send(0, 1, b"came")
    world.lost = lambda sent: (sent[0], sent[1]) == (world.at[0], world.at[1])
    world.send(0, 1, b"lost")
    world.send(0, 1, b"tagged", tag=1)
    world.order(0, SetRoute(target, 0, DIRECT, relay))
    assert world.packets(1) == [b"old", b"came", b"lost"]  # Neither what is old, nor what has another route.
    assert world.dropped(1)["session-replayed"] == 1
    before = len(world.frames())
    world.order(0, SetRoute(target, 0, relay))
    assert len(world.frames()) == before  # Once.
    world.lost = lambda _: False
    world.say(0, 1, MESSAGE)
    world.say(0, 1, MESSAGE, relay)
    counted = [(one.via, one.data_sent, one.data_seen) for one in world.reports[1] if isinstance(one, ControlReceived)]
    assert counted == [(DIRECT, 2, 2), (relay, 0, 1)]  # Sent directly: the old one, and the one that was tagged.


def test_no_more_than_the_limit_is_sent_again() -> None:
    world = World(3)
    world.introduce()
    world.lease(0, 2, 1)
    world.lost = lambda sent: (sent[0], sent[1]) == (world.at[0], world.at[1])
    for number in range(PACKETS_RECENT_MAX + 3):
        world.send(0, 1, bytes((number,)))
    world.order(0, SetRoute(world.node(1), 0, world.node(2)))
    assert world.packets(1) == [bytes((number,)) for number in range(3, PACKETS_RECENT_MAX + 3)]


def test_an_authentic_call_from_elsewhere_is_answered_there() -> None:
    world = pair()
    restarted = Engine(
        private_key=key(1),
        group=GROUP,
        rng=Random(77),
        now_ns=world.now_ns,
        wall_ns=WALL_NS,
    )
    later_ns = world.now_ns + 30 * SECOND_NS
    restarted.order(AdmitPeer(world.engines[1].public_key, (world.at[1],)), later_ns, WALL_NS + later_ns)
    moved = ("10.7.7.7", 77)
    world.now_ns = later_ns
    world.receive(1, restarted.outbox[0][1], moved)
    assert world.sent[-1][1] == moved
    assert world.sent[-1][2][0] == 2
    response = world.sent[-1][2]
    world.receive(1, restarted.outbox[0][1], ("10.8.8.8", 88))  # A replay is not answered.
    assert world.sent[-1][2] == response
    world.send(1, 0)
    assert world.sent[-1][1] == world.at[0], "a call may have come through a relay: it moves nothing"
    restarted.receive(response, world.at[1], later_ns, WALL_NS + later_ns)
    restarted.outbox.clear()
    restarted.order(SendControl(world.node(1), DIRECT, MESSAGE), later_ns, WALL_NS + later_ns)
    world.receive(1, restarted.outbox[0][1], moved)
    world.send(1, 0)
    assert world.sent[-1][1] == moved, "its first word does"


def test_a_duplicate_dies_in_the_window() -> None:
    world = pair()
    world.send(0, 1)
    world.receive(1, world.sent[-1][2], world.at[0])
    assert world.packets(1) == [b"hello"]
    assert world.dropped(1) == {"session-replayed": 1}


def test_evidence_of_flow_is_fresh_and_bounded() -> None:
    world = pair()
    world.run(10 * SECOND_NS)
    world.say(0, 1, MESSAGE)
    world.run(SECOND_NS)
    assert flows(world, 0) == flows(world, 1) == []
    losses = iter([False, True, True] + [False] * 100)
    world.lost = lambda datagram: datagram[0] == world.at[0] and next(losses)
    start_ns = world.now_ns
    for _ in range(50):
        world.send(0, 1)
        world.run(10 * MILLISECOND_NS)
    span_ns = world.now_ns - start_ns
    for index, name in ((0, "sent"), (1, "received")):
        counted = flows(world, index)
        assert len(counted) <= span_ns // FLOW_NS + 1
        assert counted[0] == FlowSeen(world.node(1 - index), *((1, 0) if name == "sent" else (0, 1)))
    world.run(SECOND_NS)
    assert sum(flow.sent for flow in flows(world, 0)) == 50
    assert sum(flow.received for flow in flows(world, 1)) == 48
    count = len(flows(world, 1))
    world.run(60 * SECOND_NS)
    assert len(flows(world, 1)) == count


def test_a_packet_may_confirm_a_session() -> None:
    """The keepalive that should have done it was lost."""
    world = World(2)
    world.order(1, AdmitPeer(world.engines[0].public_key))
    world.lost = lambda datagram: datagram[2][0] in {4, 6}
    world.order(0, AdmitPeer(world.engines[1].public_key, (world.at[1],)))
    assert not any(isinstance(report, SessionUp) for report in world.reports[1])
    world.send(1, 0, b"waits")
    world.lost = lambda _: False
    world.send(0, 1, b"confirms")
    assert SessionUp(world.node(0), 1) in world.reports[1]
    assert world.packets(1) == [b"confirms"]
    assert world.packets(0) == [b"waits"]


def test_a_peer_that_called_is_called_back_when_it_falls_silent() -> None:
    world = World(2)
    world.order(1, AdmitPeer(world.engines[0].public_key))
    world.order(0, AdmitPeer(world.engines[1].public_key, (world.at[1],)))
    world.lost = lambda _: True
    before = len(world.sent)
    world.run(300 * SECOND_NS)
    called = [to for source, to, datagram in world.sent[before:] if source == world.at[1] and datagram[0] == 1]
    assert len(called) > 10
    assert set(called) == {world.at[0]}


def test_old_initiations_replayed_without_end_keep_no_session_from_renewal() -> None:
    """The first calls us to a place where nobody answers; the retry, and what is due later, go to where the peer is."""
    world = World(2)
    world.introduce()
    first = next(datagram for source, _, datagram in world.sent if source == world.at[0] and datagram[0] == 1)
    world.run(130 * SECOND_NS)  # A newer one was answered since.
    eavesdropper = ("10.9.9.9", 9)
    for number in range(1_000):
        world.run(SECOND_NS)
        world.receive(1, first, eavesdropper)
        payload = number.to_bytes(2, "big")
        world.send(number % 2, 1 - number % 2, payload)
        assert world.packets(1 - number % 2)[-1] == payload
    assert not any(isinstance(report, SessionDown) for report in world.reports[0] + world.reports[1])
    called = [to for source, to, datagram in world.sent if source == world.at[1] and datagram[0] == 1]
    assert eavesdropper in called
    assert len(called) <= 1_000 // 5 + 10


def test_a_session_ends_and_comes_again() -> None:
    world = pair()
    world.lost = lambda _: True
    world.run(200 * SECOND_NS)
    assert world.reports[0].count(SessionDown(world.node(1))) == 1
    world.lost = lambda _: False
    world.run(120 * SECOND_NS)
    assert SessionUp(world.node(1), 2) in world.reports[0]
    assert SessionUp(world.node(0), 2) in world.reports[1]
    world.send(0, 1)
    assert world.packets(1) == [b"hello"]


def test_an_idle_session_goes_on_for_an_hour() -> None:
    world = pair()
    world.run(3_600 * SECOND_NS)
    assert not any(isinstance(report, SessionDown) for report in world.reports[0] + world.reports[1])


def test_an_expelled_peer_is_a_stranger() -> None:
    world = pair()
    world.send(0, 1)
    world.order(1, ExpelPeer(world.engines[0].public_key), ExpelPeer(key(77)))
    world.send(0, 1, b"again")
    assert world.packets(1) == [b"hello"]
    world.send(1, 0)
    assert world.packets(0) == []
    world.run(SECOND_NS)
    assert not any(isinstance(report, FlowSeen) for report in world.reports[1])
    assert world.dropped(1) == {"session-index-unknown": 1, "order-refused": 1}


def test_a_psk_must_be_the_same_at_both_ends() -> None:
    world = World(2)
    world.order(0, AdmitPeer(world.engines[1].public_key, (world.at[1],), key(5)))
    world.order(1, AdmitPeer(world.engines[0].public_key, (), key(6)))
    world.run(20 * SECOND_NS)
    assert not any(isinstance(report, SessionUp) for report in world.reports[0] + world.reports[1])
    world.order(1, AdmitPeer(world.engines[0].public_key, (), key(5)))
    world.run(20 * SECOND_NS)
    assert SessionUp(world.node(1), 1) in world.reports[0]


def test_handshake_timestamps_are_reserved_before_they_are_used() -> None:
    world = World(2)
    assert world.engines[0].reports == [Timestamp(WALL_NS + STAMP_AHEAD_NS)]
    world.introduce()
    world.run(1_000 * SECOND_NS)
    stamps = [report.wall_ns for report in world.reports[0] if isinstance(report, Timestamp)]
    assert stamps == sorted(stamps)
    assert stamps[-1] > world.wall_ns
    assert len(stamps) <= 1_000 * SECOND_NS // (STAMP_AHEAD_NS // 2) + 2


def test_timestamps_are_reserved_while_nothing_happens() -> None:
    world = World(1)
    world.run(1_000 * SECOND_NS)
    assert max(report.wall_ns for report in world.reports[0] if isinstance(report, Timestamp)) > world.wall_ns


def test_peers_answer_after_a_restart_with_the_clock_set_back() -> None:
    world = pair()
    world.run(SECOND_NS)
    floor_ns = max(report.wall_ns for report in world.reports[0] if isinstance(report, Timestamp))
    for wall_floor_ns, answered in ((0, False), (floor_ns, True)):
        restarted = Engine(
            private_key=key(1),
            group=GROUP,
            rng=Random(55),
            now_ns=0,
            wall_ns=WALL_NS // 2,
            wall_floor_ns=wall_floor_ns,
        )
        restarted.order(AdmitPeer(world.engines[1].public_key, (world.at[1],)), 0, WALL_NS // 2)
        before = len(world.sent)
        world.receive(1, restarted.outbox[0][1], world.at[0])
        assert (len(world.sent) > before) is answered


def test_counters_are_reported_when_they_change() -> None:
    world = pair()
    world.receive(0, b"\x07\0\0\0" + bytes(60), ("10.9.9.9", 9))
    world.run(60 * SECOND_NS)
    counted = [report for report in world.reports[0] if isinstance(report, NicCounters)]
    assert counted == [NicCounters({"session-malformed": 1})]


def refused() -> list[EngineOrder]:
    here, there, stranger = node_of(1), node_of(2), node_of(77)
    return [
        AdmitPeer(World(1).engines[0].public_key),  # Ourselves.
        SendControl(stranger, DIRECT, MESSAGE),
        SendControl(there, DIRECT, b""),
        SendControl(there, DIRECT, b"\x60" + bytes(39)),
        SendControl(there, DIRECT, b"\x91" * 1201),
        SetRoute(stranger, 0, DIRECT),
        SetRoute(there, TAGS_MAX, DIRECT),
        SetRoute(there, -1, DIRECT),
        SetTransmitLabel(stranger, there, 1, key(1)),
        SetTransmitLabel(there, stranger, -1, key(1)),
        SetTransmitLabel(there, stranger, 1 << 63, key(1)),
        SetTransmitLabel(there, stranger, 1, b""),
        SetTransmitLabel(there, stranger, 1, bytes(65)),
        SetArrivalLabel(1, b"", there, stranger),
        SetForwardLabel(-1, key(1), here, there, 1, key(2), 1),
        SetForwardLabel(1, key(1), here, there, -1, key(2), 1),
        SetForwardLabel(1, b"short", here, there, 1, key(2), 1),
        SetForwardLabel(1, key(1), here, there, 1, b"", 1),
        SetForwardLabel(1, key(1), here, there, 1, key(2), -1),
        SetForwardLabel(1, key(1), here, there, 1, key(2), 1 << 41),
    ]


@pytest.mark.parametrize("order", refused(), ids=repr)
def test_impossible_orders_are_refused_and_change_nothing(order: EngineOrder) -> None:
    world = pair()
    sent = len(world.sent)
    world.order(0, order)
    assert world.dropped(0) == {"order-refused": 1}
    assert len(world.sent) == sent
    world.send(0, 1)
    assert world.packets(1) == [b"hello"]


def test_dropping_what_is_not_there_is_no_fault() -> None:
    world = pair()
    stranger = node_of(77)
    world.order(
        0,
        DropTransmitLabel(stranger, stranger),
        DropTransmitLabel(world.node(1), stranger),
        DropForwardLabel(4),
        DropArrivalLabel(4),
        ExpelPeer(key(88)),
    )
    assert world.dropped(0) == {}


def test_tables_are_bounded() -> None:
    world = pair()
    for number in range(TRANSMIT_LABELS_MAX + 3):
        world.order(0, SetTransmitLabel(world.node(1), number.to_bytes(10, "big"), number, key(1)))
    assert world.dropped(0) == {"order-refused": 3}
    world.order(0, SetTransmitLabel(world.node(1), bytes(10), 9, key(2)))  # One that is there can be changed.
    assert world.dropped(0) == {"order-refused": 3}


def test_the_outbox_is_bounded_when_nobody_drains_it() -> None:
    world = pair()
    engine = world.engines[0]
    order = SendControl(world.node(1), DIRECT, MESSAGE)
    for _ in range(OUTBOX_MAX + 5):
        engine.order(order, world.now_ns, world.wall_ns)
    assert len(engine.outbox) == OUTBOX_MAX
    assert engine.dropped == {"outbox-full": 5}


def test_strangers_get_a_cookie_under_load_and_nothing_before() -> None:
    world = World(2)
    world.order(0, AdmitPeer(world.engines[1].public_key, (world.at[1],)))
    initiation = world.sent[-1][2]
    assert world.dropped(1) == {"session-peer-unknown": 1}
    before = len(world.sent)
    world.receive(1, initiation, world.at[0], under_load=True)
    assert [(to, datagram[0]) for _, to, datagram in world.sent[before:]] == [(world.at[0], 3)]


@pytest.mark.parametrize(
    "datagram", [b"", b"\0", b"\x05\0\0\0", b"\x04", b"\x01\0\0\0" * 37, bytes(2_000), b"\xff" * 148]
)
def test_hostile_datagrams_are_dropped_and_counted(datagram: bytes) -> None:
    world = pair()
    before = len(world.sent)
    world.receive(0, datagram, ("not an address", 1 << 20))
    assert sum(world.dropped(0).values()) == 1
    assert len(world.sent) == before


def test_a_private_key_of_another_length_is_a_bug_of_ours() -> None:
    with pytest.raises(UsageError):
        Engine(private_key=b"short", group=GROUP, rng=Random(1), now_ns=0, wall_ns=0)


def test_packets_carry_what_was_sent_in_order() -> None:
    world = pair()
    for number in range(200):
        world.send(0, 1, number.to_bytes(2, "big"))
    assert world.packets(1) == [number.to_bytes(2, "big") for number in range(200)]
    assert all(isinstance(report, PacketReceived) for report in world.reports[1][-200:])


def test_of_the_answers_to_echoes_control_sees_its_own() -> None:
    world = World(2)
    world.introduce()
    world.engines[0].inlet.is_open, world.engines[0].inlet.echo = True, 7
    for identifier in (7, 8):
        reply = bytearray(world.packet(1, 0, b"\x81\0\0\0\0" + bytes((identifier, 0, 1))))
        reply[6] = 58
        world.order(1, SendPacket(world.node(0), 0, bytes(reply)))
    assert [packet[5] for packet in world.packets(0)] == [7]
    assert len(world.kernel[0]) == 2
