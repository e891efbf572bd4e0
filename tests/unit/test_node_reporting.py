# SPDX-License-Identifier: Apache-2.0
"""What the views say: names instead of ids, seconds instead of nanoseconds, None for what is not known."""

import re
from dataclasses import replace

import msgspec

from atoll.base.ids import DIRECT, NodeId
from atoll.base.units import SECOND_NS
from atoll.cli import render
from atoll.device.nic.messages import NicCounters
from atoll.domain.messages import Alive, Datagrams
from atoll.group.messages import REFUSED_DUPLICATE, Hello, Refused, encode
from atoll.health.members.bulletin import Found
from atoll.health.members.messages import Ailment, Ailments, encode_ailments
from atoll.health.model import State
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import SITES, demo_topology
from atoll.node.reporting import Around, RelayMeter, name_of, pace, status_view, why_view
from atoll.node.views import PeerView, StatusView, WhyView
from atoll.overlay.reports import ControlReceived, SessionUp
from atoll.sim import LinkSpec, World
from tests.unit.node_unit_world import NOW_NS, WALL_S, control_of, plans


def around_of(world: World[SimulatedNode], index: int) -> Around:
    node = world.program(index)
    assert node is not None
    return Around(
        control=node.control,
        now_ns=world.clock(index).monotonic_ns(),
        started_ns=world.clock(index).monotonic_ns() - 90 * SECOND_NS,
        group_name="blue-heron",
        listen="udp/127.0.0.1:7747",
        endpoints={},
        meter=RelayMeter(),
    )


def node_of(world: World[SimulatedNode], index: int) -> NodeId:
    return blueprints(len(SITES), 5, names=SITES)[index].member.node


def running(seconds: int, *, cut: bool = False) -> World[SimulatedNode]:
    world = World(demo_topology(), factory_of(blueprints(len(SITES), 5, names=SITES)), seed=5, command="none {seed}")
    world.start_all()
    world.run(5 * SECOND_NS)
    if cut:
        for one, other in ((0, 2), (2, 0)):
            world.impair(one, other, "cut", LinkSpec(blackhole=True))
    world.run(seconds * SECOND_NS)
    return world


def test_a_node_alone_with_its_roster_knows_names_and_nothing_else() -> None:
    one, two, _ = plans()
    control, _ = control_of(one)
    meter = RelayMeter()
    around = Around(control, NOW_NS + SECOND_NS, NOW_NS, "g", "udp/x", {two.member.node: ("::1", 7)}, meter, ("full",))
    view = status_view(around)
    assert (view.name, view.uptime_s, view.warnings, view.degraded) == ("one", 1.0, ("full",), True)
    assert [peer.name for peer in view.peers] == ["three", "two"]
    for peer in view.peers:
        assert (peer.session, peer.rtt_ms, peer.loss, peer.last_heard_s, peer.via) == (False, None, None, None, None)
    assert view.peers[1].endpoint == "[::1]:7"
    assert view.peers[0].endpoint is None
    assert msgspec.json.decode(msgspec.json.encode(view), type=StatusView) == view


def test_a_healthy_group_is_all_ok_with_numbers() -> None:
    world = running(20)
    view = status_view(around_of(world, 0))
    assert [peer.name for peer in view.peers] == sorted(name for name in SITES if name != "fra")
    assert not view.degraded
    for peer in view.peers:
        assert (peer.state, peer.via, peer.session) == ("ok", None, True)
        assert peer.rtt_ms is not None
        assert 5 < peer.rtt_ms < 300
        assert peer.loss == 0.0
        assert peer.last_heard_s is not None
        assert peer.last_heard_s < 3
    assert view.uptime_s == 90.0
    assert not view.address.endswith(view.peers[0].address)


def test_what_a_member_sent_and_was_dropped_is_told_of_it_alone() -> None:
    world = running(20)
    around = replace(
        around_of(world, 0), dropped=NicCounters({"tun-queue": 2}, {node_of(world, 1): {"packet-foreign": 7}})
    )
    assert status_view(around).dropped == {"tun-queue": 2}
    told = {peer.name: peer.dropped for peer in status_view(around).peers}
    assert told.pop(SITES[1]) == {"packet-foreign": 7}
    assert not any(told.values())


def test_what_the_server_of_environments_says_is_told() -> None:
    around = around_of(running(20), 0)
    assert status_view(around).environments == 0
    view = status_view(replace(around, environments=Alive(3, Datagrams(9, 4, 2, 1))))
    assert (view.environments, view.datagrams) == (3, {"sent": 9, "resent": 4, "lost": 2, "dropped": 1})


def test_a_warning_alone_is_degraded_enough_for_a_monitor() -> None:
    around = around_of(running(20), 0)
    assert not status_view(around).degraded
    assert status_view(replace(around, warnings=("the roster cannot be written",))).degraded


def test_copies_and_members_of_another_protocol_are_warned_of() -> None:
    one, two, three = plans()
    control, _ = control_of(one)
    around = Around(control, NOW_NS, NOW_NS, "g", "", {}, RelayMeter())
    assert status_view(around).warnings == ()
    for message, node in (
        (Refused(REFUSED_DUPLICATE, 8, 1, 1, "0.1.0"), two.member.node),
        (Hello(9, 9, 5, WALL_S, "9.9"), three.member.node),
    ):
        control.handle(SessionUp(node, 1), NOW_NS)
        control.handle(ControlReceived(node, DIRECT, encode(message)), NOW_NS)
    view = status_view(around)
    assert view.warnings == (
        "A207: two running processes use the key of one; end the one that started later",
        "A208: three and this node have no protocol in common; upgrade atoll on the older one",
    )
    assert view.degraded


def test_why_tells_names_the_rejected_and_the_history_of_a_cut() -> None:
    world = running(25, cut=True)
    around = around_of(world, 0)
    target = world.program(2)
    assert target is not None
    view = why_view(around, target.node, 0)
    assert view is not None
    assert (view.source, view.target, view.tag) == ("fra", "sin", "latency")
    assert len(view.path) == 3
    assert view.path[1] in SITES
    assert [candidate.via for candidate in view.candidates if candidate.chosen] == [view.path[1]]
    assert {candidate.via for candidate in view.candidates} <= {None, *SITES}
    assert view.history[-1].after == view.path[1]
    assert view.history[-1].before is None
    assert 0 < view.history[-1].ago_s < 25
    assert view.because
    peer = next(peer for peer in status_view(around).peers if peer.name == "sin")
    assert peer.via == view.path[1]
    assert peer.why
    assert msgspec.json.decode(msgspec.json.encode(view), type=WhyView) == view


def test_evidence_names_members_and_no_ids() -> None:
    world = running(25, cut=True)
    view = why_view(around_of(world, 0), node_of(world, 2), 0)
    assert view is not None
    told = " ".join([view.because, *(switch.evidence for switch in view.history)])
    assert f"relay {view.path[1]} ok" in told
    for index in range(len(SITES)):
        assert node_of(world, index).hex()[:8] not in told
    (peer,) = (peer for peer in status_view(around_of(world, 0)).peers if peer.name == "sin")
    assert re.fullmatch(r"relayed: direct is silent: silent, lost .* nothing heard for \d+ ms", peer.why)


def test_a_member_that_is_gone_has_an_age_and_no_numbers() -> None:
    world = running(20)
    world.crash(2)
    world.run(40 * SECOND_NS)
    around = around_of(world, 0)
    (peer,) = (peer for peer in status_view(around).peers if peer.name == "sin")
    assert (peer.state, peer.rtt_ms, peer.deviation_ms, peer.loss) == ("away", None, None, None)
    assert peer.last_heard_s is not None
    assert 15 < peer.last_heard_s < 25
    (line,) = (line for line in render.status(status_view(around)).splitlines() if line.startswith("sin "))
    assert re.fullmatch(r"sin +away +- +- +- +silent, last heard \d\d s ago", line)
    view = why_view(around, node_of(world, 2), 0)
    assert view is not None
    assert view.next == "No path answers; all are tried, and the first that answers is taken."
    assert " 0.0 ms" not in view.because


def test_the_policy_direct_stays_direct() -> None:
    world = running(25, cut=True)
    target = world.program(2)
    assert target is not None
    view = why_view(around_of(world, 0), target.node, 1)
    assert view is not None
    assert (view.tag, view.path) == ("direct", ("fra", "sin"))


def test_why_knows_no_stranger() -> None:
    control, _ = control_of(plans()[0])
    around = Around(control, NOW_NS, NOW_NS, "g", "", {}, RelayMeter())
    assert why_view(around, plans(4)[3].member.node, 0) is None
    assert name_of(control, b"\x01" * 10) == "01" * 10


def test_a_relay_meter_forgets_what_is_old() -> None:
    meter = RelayMeter()
    meter.note(1, 1000, 0)
    meter.note(2, 4000, SECOND_NS)
    meter.note(3, 0, SECOND_NS)
    assert meter.forwarded_bytes == 5000
    assert (meter.bytes_s(2 * SECOND_NS), meter.labels(2 * SECOND_NS)) == (1000, 2)
    assert (meter.bytes_s(5 * SECOND_NS), meter.labels(5 * SECOND_NS)) == (800, 1)
    assert (meter.bytes_s(60 * SECOND_NS), meter.labels(60 * SECOND_NS)) == (0, 0)
    for at_ns in range(10_000):
        meter.note(1, 1, at_ns)
    assert meter.forwarded_bytes == 15_000
    assert meter.bytes_s(10_000) < 15_000, "bounded"


def test_a_slow_program_is_called_by_its_port() -> None:
    assert pace("program:8080", 320_000, 20_000) == "port 8080 answers after 320 ms, usually 20 ms"
    assert pace("program:8080", 320_000, 45_000) == "port 8080 answers after 320 ms, usually 45 ms"


def ailing(world: World[SimulatedNode], *told: tuple[int, int, str], by: int = 0) -> Around:
    """Return what node 0 sees once nodes have told what ails whom: (teller, of whom, what)."""
    around = around_of(world, by)
    for teller in sorted({teller for teller, _, _ in told}):
        ailments = tuple(
            Ailment(node_of(world, of), what, failed=False, age_s=200, usual_us=1_200, newest_us=1_912_000)
            for one, of, what in told
            if one == teller
        )
        message = encode_ailments(Ailments(9, 1, ailments))
        around.control.handle(ControlReceived(node_of(world, teller), DIRECT, message), around.now_ns)
    return around


def peer_in(view: StatusView, name: str) -> PeerView:
    return next(peer for peer in view.peers if peer.name == name)


def test_a_member_that_says_that_it_is_slow_is_slow_with_its_numbers() -> None:
    view = status_view(ailing(running(20), (1, 1, "disk")))
    slow = peer_in(view, SITES[1])
    assert (slow.state, slow.why) == ("slow", "disk write 1912 ms, usually 1.2 ms, for 3 min (its own word)")
    assert view.degraded
    assert {peer.state for peer in view.peers if peer is not slow} == {"ok"}


def test_what_third_members_say_is_told_by_why_alone_and_changes_no_state() -> None:
    world = running(20)
    around = ailing(world, (1, 2, "link"))
    assert peer_in(status_view(around), SITES[2]).state == "ok"
    view = why_view(around, node_of(world, 2), 0)
    assert view is not None
    assert view.hearsay == (f"{SITES[1]} says: round trip 1912 ms, usually 1.2 ms",)


def test_a_slow_direct_path_makes_a_member_slow_only_while_it_is_used() -> None:
    for cut, state in ((False, "slow"), (True, "degraded")):
        world = running(20, cut=cut)
        around = around_of(world, 0)
        found = Found(node_of(world, 2), "link", State.SLOW, around.now_ns, 20_000_000, 80_000_000)
        around.control.handle(found, around.now_ns)
        assert peer_in(status_view(around), SITES[2]).state == state


def test_what_the_others_find_of_this_machine_is_a_component_of_it() -> None:
    view = status_view(ailing(running(20), (1, 0, "link"), (2, 0, "link")))
    (seen,) = view.components
    assert (seen.name, seen.state, seen.by) == ("seen", "slow", "others")
    assert seen.text == "round trip, as the others find, 1912 ms, usually 1.2 ms"
    assert view.degraded
