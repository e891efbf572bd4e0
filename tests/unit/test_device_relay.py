# SPDX-License-Identifier: Apache-2.0
"""Three engines, one of them the relay: delivery over labels, and every reason to refuse."""

from collections.abc import Callable

import pytest

from atoll.base.ids import DIRECT
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.device.nic.frame import FRAME_KIND, Heading, pack_label
from atoll.device.nic.limits import ARRIVAL_LABELS_MAX, FORWARD_LABELS_MAX, METER_BURST_BYTES_MIN, METER_NS
from atoll.device.nic.messages import AdmitPeer, ExpelPeer
from atoll.overlay.orders import (
    DropArrivalLabel,
    DropForwardLabel,
    DropTransmitLabel,
    SetArrivalLabel,
    SetForwardLabel,
    SetRoute,
)
from atoll.overlay.reports import RelayMetered, SessionUp
from tests.unit.nic_world import ANY_RATE, Datagram, World, key, reforged

MESSAGE = b"\x91\x05"
A, R, B = 0, 1, 2


def triple(*, relay_bytes_s: int = ANY_RATE, rate_bytes_s: int = ANY_RATE) -> World:
    """A and B, with labels over R both ways."""
    world = World(3, relay_bytes_s=relay_bytes_s)
    world.introduce()
    world.lease(A, R, B, rate_bytes_s=rate_bytes_s)
    world.lease(B, R, A, rate_bytes_s=rate_bytes_s)
    world.run(SECOND_NS)
    return world


def metered(world: World) -> list[RelayMetered]:
    return [report for report in world.reports[R] if isinstance(report, RelayMetered)]


def between(world: World, one: int, other: int) -> Callable[[Datagram], bool]:
    ends = {world.at[one], world.at[other]}
    return lambda datagram: {datagram[0], datagram[1]} == ends


def test_a_packet_goes_over_the_relay_and_nobody_in_between_can_read_it() -> None:
    world = triple()
    world.order(A, SetRoute(world.node(B), 0, world.node(R)))
    before = len(world.sent)
    secret = b"a secret of sixteen bytes or more"
    world.send(A, B, secret)
    hops = world.sent[before:]
    assert [(source, to) for source, to, _ in hops] == [(world.at[A], world.at[R]), (world.at[R], world.at[B])]
    assert world.packets(B) == [secret]
    assert all(datagram.startswith(FRAME_KIND) and secret not in datagram for _, _, datagram in hops)
    assert hops[0][2][20:] == hops[1][2][20:]
    assert len(hops[0][2]) == len(hops[1][2])
    assert world.packets(R) == []
    assert all(world.dropped(index) == {} for index in (A, R, B))


def test_each_tag_has_its_route_and_an_unknown_one_that_of_tag_0() -> None:
    world = triple()
    world.order(A, SetRoute(world.node(B), 0, world.node(R)), SetRoute(world.node(B), 1, DIRECT))
    firsts: list[tuple[str, int]] = []
    for tag in (0, 1, 2, 63):
        before = len(world.sent)
        world.send(A, B, bytes([tag]), tag=tag)
        firsts.append(world.sent[before][1])
    assert firsts == [world.at[R], world.at[B], world.at[R], world.at[R]]
    assert len(world.packets(B)) == 4


def test_a_copy_is_the_same_ciphertext_and_one_arrives() -> None:
    world = triple()
    world.order(A, SetRoute(world.node(B), 0, DIRECT, world.node(R)))
    world.send(A, B, b"twice")
    assert world.packets(B) == [b"twice"]
    assert world.dropped(B) == {"session-replayed": 1}
    world.lost = between(world, A, B)
    world.send(A, B, b"once")
    assert world.packets(B) == [b"twice", b"once"]
    world.order(A, SetRoute(world.node(B), 0, DIRECT, DIRECT))
    world.lost = lambda _: False
    world.send(A, B, b"not twice on one path")
    assert world.dropped(B) == {"session-replayed": 1}


def test_control_goes_by_exactly_the_named_path_and_says_how_it_came() -> None:
    world = triple()
    world.order(A, SetRoute(world.node(B), 0, world.node(R)))
    world.say(A, B, MESSAGE, DIRECT)
    world.say(A, B, MESSAGE, world.node(R))
    assert world.heard(B) == [(DIRECT, MESSAGE), (world.node(R), MESSAGE)]
    world.order(A, DropTransmitLabel(world.node(B), world.node(R)))
    world.say(A, B, MESSAGE, world.node(R))
    world.send(A, B)
    assert len(world.heard(B)) == 2
    assert world.packets(B) == []
    assert world.dropped(A) == {"path-unknown": 2}


def test_a_relayed_packet_moves_no_endpoint() -> None:
    world = triple()
    world.order(A, SetRoute(world.node(B), 0, world.node(R)))
    world.send(A, B)
    before = len(world.sent)
    world.send(B, A)
    assert world.sent[before][1] == world.at[A]


def a_frame(world: World) -> bytes:
    """A frame of A to R that did not arrive."""
    world.lost = lambda _: True
    world.order(A, SetRoute(world.node(B), 0, world.node(R)))
    world.send(A, B, b"framed")
    world.lost = lambda _: False
    return world.sent[-1][2]


def test_a_relay_passes_on_only_what_is_right() -> None:
    world = triple()
    frame = a_frame(world)
    source = world.at[A]
    wrong = [
        (frame, ("10.6.6.6", 6), "frame-source"),
        (frame, world.at[B], "frame-source"),
        (reforged(frame, mac=bytes(8)), source, "frame-forged"),
        (reforged(frame, label=pack_label(77)), source, "label-unknown"),
        (reforged(frame, inner=frame[20:36] + bytes(15)), source, "frame-malformed"),
        (reforged(frame, inner=b"\x05\0\0\0" + frame[24:]), source, "frame-malformed"),
    ]
    for datagram, claimed, reason in wrong:
        before = len(world.sent), world.dropped(R).get(reason, 0)
        world.receive(R, datagram, claimed)
        assert (len(world.sent), world.dropped(R).get(reason, 0)) == (before[0], before[1] + 1), reason
    world.run(SECOND_NS)
    assert metered(world) == []  # What fails costs no budget.
    world.receive(R, frame, source)
    assert world.packets(B) == [b"framed"]


def test_a_label_that_ended_is_refused() -> None:
    world = triple()
    frame = a_frame(world)
    world.order(R, DropForwardLabel(1 + 16 * A + B))
    world.receive(R, frame, world.at[A])
    assert world.packets(B) == []
    assert world.dropped(R) == {"label-unknown": 1}


def test_a_relay_serves_nobody_whom_it_expelled() -> None:
    for gone in (A, B):
        world = triple()
        frame = a_frame(world)
        world.order(R, ExpelPeer(world.engines[gone].public_key))
        world.receive(R, frame, world.at[A])
        assert world.packets(B) == []
        assert world.dropped(R) == {"label-unknown": 1}


def test_labels_over_an_expelled_relay_do_not_come_back_with_it() -> None:
    world = triple()
    world.order(A, ExpelPeer(world.engines[R].public_key))
    world.order(A, AdmitPeer(world.engines[R].public_key, (world.at[R],)))
    world.say(A, B, MESSAGE, world.node(R))
    assert world.heard(B) == []
    assert world.dropped(A) == {"path-unknown": 1}


def test_a_relay_passes_on_nothing_to_a_target_that_is_nowhere() -> None:
    world = World(3)
    world.order(R, AdmitPeer(world.engines[A].public_key, (world.at[A],)), AdmitPeer(world.engines[B].public_key))
    world.order(R, SetForwardLabel(5, key(1), world.node(A), world.node(B), 6, key(2), ANY_RATE))
    world.receive(R, Heading(5, key(1)).pack(b"\x04\0\0\0" + bytes(28)), world.at[A])
    assert world.dropped(R) == {"endpoint-unknown": 1}


def test_a_receiver_takes_only_what_its_relay_hands_over() -> None:
    world = triple()
    frame = a_frame(world)
    world.lost = between(world, R, B)
    world.receive(R, frame, world.at[A])
    onward = world.sent[-1][2]
    world.lost = lambda _: False
    wrong = [
        (onward, world.at[A], "frame-source"),
        (reforged(onward, mac=bytes(8)), world.at[R], "frame-forged"),
        (frame, world.at[R], "label-unknown"),
    ]
    for datagram, claimed, reason in wrong:
        world.receive(B, datagram, claimed)
        assert world.dropped(B)[reason] == 1
    world.order(B, DropArrivalLabel(1001 + 16 * A + B))
    world.receive(B, onward, world.at[R])
    assert world.dropped(B)["label-unknown"] == 2
    assert world.packets(B) == []


def test_a_label_has_a_rate_and_says_what_it_carried() -> None:
    world = triple(rate_bytes_s=10_000)
    world.order(A, SetRoute(world.node(B), 0, world.node(R)))
    for _ in range(30):
        world.send(A, B, bytes(1_000))
    size = len(world.frames()[0][2])
    passed = METER_BURST_BYTES_MIN // size
    assert len(world.packets(B)) == passed
    assert world.dropped(R) == {"relay-rate": 30 - passed}
    world.run(METER_NS)
    label = 1 + 16 * A + B
    assert metered(world) == [RelayMetered(label, passed * size, 30 - passed)]
    world.run(10 * SECOND_NS)
    assert len(metered(world)) == 1
    world.send(A, B)
    world.run(SECOND_NS)
    assert len(metered(world)) == 2


def test_reports_of_one_label_keep_their_distance() -> None:
    world = triple()
    world.order(A, SetRoute(world.node(B), 0, world.node(R)))
    for _ in range(200):
        world.send(A, B)
        world.run(10 * MILLISECOND_NS)
    world.run(SECOND_NS)
    assert 4 <= len(metered(world)) <= 6
    sizes = sum(len(datagram) for _, to, datagram in world.frames() if to == world.at[R])
    assert sum(report.forwarded_bytes for report in metered(world)) == sizes


def test_all_labels_together_have_a_budget() -> None:
    world = triple(relay_bytes_s=10_000)
    for source, target in ((A, B), (B, A)):
        world.order(source, SetRoute(world.node(target), 0, world.node(R)))
        for _ in range(20):
            world.send(source, target, bytes(1_000))
    size = len(world.frames()[0][2])
    assert len(world.packets(A)) + len(world.packets(B)) == METER_BURST_BYTES_MIN // size
    assert world.dropped(R) == {"relay-budget": 40 - METER_BURST_BYTES_MIN // size}


def test_no_budget_is_no_relaying() -> None:
    world = triple(relay_bytes_s=0)
    world.receive(R, a_frame(world), world.at[A])
    assert world.packets(B) == []
    assert world.dropped(R) == {"relay-budget": 1}


def test_a_label_given_again_keeps_what_it_owes() -> None:
    world = triple(rate_bytes_s=10_000)
    world.order(A, SetRoute(world.node(B), 0, world.node(R)))
    for _ in range(20):
        world.send(A, B, bytes(1_000))
    world.lease(A, R, B, rate_bytes_s=10_000)
    before = len(world.packets(B))
    world.send(A, B, bytes(1_000))
    assert len(world.packets(B)) == before


def test_tables_of_labels_are_bounded() -> None:
    world = triple()
    for number in range(FORWARD_LABELS_MAX):
        world.order(R, SetForwardLabel(10_000 + number, key(1), world.node(A), world.node(B), 1, key(2), 1))
    assert world.dropped(R) == {"order-refused": 2}
    for number in range(ARRIVAL_LABELS_MAX):
        world.order(B, SetArrivalLabel(10_000 + number, key(1), world.node(R), world.node(A)))
    assert world.dropped(B) == {"order-refused": 1}


@pytest.mark.parametrize("direct_route", [True, False])
def test_a_session_comes_about_over_a_relay_alone(direct_route: bool) -> None:
    """A and B cannot reach each other, and hear from control only of labels."""
    world = World(3)
    world.lost = between(world, A, B)
    for one, other in ((A, R), (B, R), (R, A), (R, B)):
        world.order(one, AdmitPeer(world.engines[other].public_key, (world.at[other],)))
    listed = {A: (world.at[A],), B: (world.at[B],)} if direct_route else {A: (), B: ()}
    world.order(A, AdmitPeer(world.engines[B].public_key, listed[B]))
    world.order(B, AdmitPeer(world.engines[A].public_key, listed[A]))
    world.run(20 * SECOND_NS)
    assert SessionUp(world.node(B), 1) not in world.reports[A]
    if not direct_route:
        world.order(A, SetRoute(world.node(B), 0, world.node(R)))
        world.order(B, SetRoute(world.node(A), 0, world.node(R)))
    world.lease(B, R, A)
    world.lease(A, R, B)
    world.run(12 * SECOND_NS)
    assert SessionUp(world.node(B), 1) in world.reports[A]
    assert SessionUp(world.node(A), 1) in world.reports[B]
    world.say(A, B, MESSAGE, world.node(R))
    assert world.heard(B) == [(world.node(R), MESSAGE)]


def test_a_session_outlives_the_death_of_its_path_and_rekeys_over_another() -> None:
    world = triple()
    world.lost = between(world, A, B)
    for one, other in ((A, B), (B, A)):
        world.order(one, SetRoute(world.node(other), 0, world.node(R)))
    for _ in range(400):
        world.send(A, B, b"to")
        world.send(B, A, b"fro")
        world.run(SECOND_NS)
    assert world.packets(B) == [b"to"] * 400
    assert world.packets(A) == [b"fro"] * 400
    assert sum(isinstance(report, SessionUp) for report in world.reports[A]) == 2  # One with each peer.


def test_a_handshake_leaves_a_dead_route_that_control_keeps() -> None:
    """The route is stale: only the alternation of ways can bring the session back."""
    world = triple()
    world.lost = between(world, A, B)
    world.run(400 * SECOND_NS)
    before = len(world.packets(B))
    world.order(A, SetRoute(world.node(B), 0, world.node(R)))
    world.send(A, B, b"there again")
    world.run(12 * SECOND_NS)
    assert world.packets(B)[before:] == [b"there again"]


def test_a_cookie_for_a_relayed_call_goes_back_over_the_relay() -> None:
    world = World(3)
    world.lost = between(world, A, B)
    for one, other in ((A, R), (B, R), (R, A), (R, B)):
        world.order(one, AdmitPeer(world.engines[other].public_key, (world.at[other],)))
    world.order(B, AdmitPeer(world.engines[A].public_key))
    world.lease(B, R, A)
    world.order(A, AdmitPeer(world.engines[B].public_key))
    world.lost = lambda datagram: datagram[0] == world.at[R] and datagram[1] == world.at[B]
    world.lease(A, R, B)
    relayed = next(datagram for _, to, datagram in reversed(world.sent) if to == world.at[B])
    world.lost = lambda _: False
    before, dropped = len(world.sent), world.dropped(A)
    world.receive(B, relayed, world.at[R], under_load=True)
    hops = world.sent[before:]
    assert [(to, datagram[20]) for _, to, datagram in hops] == [(world.at[R], 3), (world.at[A], 3)]
    assert world.dropped(A) == dropped
    world.run(6 * SECOND_NS)  # The retry carries the cookie.
    assert SessionUp(world.node(A), 1) in world.reports[B]
