# SPDX-License-Identifier: Apache-2.0
"""The composite overlay machine in a tiny world: healing, restoring, hostile members, stalls, snapshots, reading."""

from statistics import median

import msgspec
import pytest

from atoll.base.errors import CorruptError, UsageError
from atoll.base.ids import DIRECT
from atoll.base.member import RelayWill
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.core.machine import Tick
from atoll.overlay.config import Config, will_number
from atoll.overlay.limits import (
    COPY_BUDGET_NS,
    COPY_NS_MAX,
    COPY_REFILL_SHARE,
    FAST_PAIRS_MAX,
    HISTORY_MAX,
    PATHS_PER_PAIR_MAX,
)
from atoll.overlay.mesh import KIND, Mesh
from atoll.overlay.messages import LabelGrant, LabelNotice, LabelRefusal, Link, LinkState, Probe, decode, encode
from atoll.overlay.orders import RouteNotice, SendControl, SetRoute, SetTransmitLabel
from atoll.overlay.pair import PROVED_NS
from atoll.overlay.path import ASK
from atoll.overlay.policy import DEFAULT_RULES, TAG_DIRECT, TAG_LATENCY, TAG_LOSS, Metric, Policy, Rule
from atoll.overlay.reports import (
    ControlReceived,
    FlowSeen,
    MembersChanged,
    NicRestarted,
    PolicyChanged,
    RelayMetered,
    RelaysShunned,
    SessionDown,
    SessionUp,
)
from tests.unit.mesh_world import World, ident, member, square

DIRECT_MS = 40


def world(seed: int = 1, count: int = 5, jitter_ms: int = 2) -> World:
    """Nodes 0 and 1 with a direct path that is better than any relay."""
    delays = square(count, seed, 25, 60)
    delays[0][1] = delays[1][0] = DIRECT_MS
    return World(delays, seed, jitter_ms)


def under_traffic(seed: int = 1, count: int = 5) -> World:
    made = world(seed, count)
    made.run(4)
    made.start_flow(0, 1)
    made.run(5)
    return made


def test_a_blackhole_under_traffic_is_left_within_a_third_of_a_second() -> None:
    healed: list[float] = []
    for seed in range(8):
        made = under_traffic(seed)
        assert made.routes[0, 1].via == DIRECT
        cut_ns = made.now_ns
        made.change(0, 1, cut=True)
        made.run(3)
        found = made.first_reply_s(cut_ns)
        assert found is not None
        healed.append(found)
        notices = [(notice.cause, notice.before, notice.took_ns) for at, _, notice in made.notices if at > cut_ns]
        assert len(notices) == 2
        for cause, before, took_ns in notices:
            assert (cause, before) == ("silent", DIRECT)
            assert 0 < took_ns < SECOND_NS
    assert median(healed) <= 0.3 + 2 * DIRECT_MS / 1_000
    assert max(healed) <= 1.0


@pytest.mark.parametrize("both", [True, False])
def test_thirty_percent_loss_is_left_within_a_second(both: bool) -> None:
    calm: list[float] = []
    for seed in range(5):
        made = under_traffic(seed, 4)
        start_ns = made.now_ns
        made.change(0, 1, loss=3_000, both=both)
        made.run(7)
        found = made.calm_s(start_ns)
        assert found is not None
        calm.append(found)
        assert made.routes[0, 1].via != DIRECT
        assert made.routes[0, 1].also is None
    assert median(calm) <= 1.0
    assert max(calm) <= 2.5


def test_a_one_way_cut_is_left_by_both_ends() -> None:
    made = under_traffic(3)
    cut_ns = made.now_ns
    made.change(0, 1, cut=True, both=False)
    made.run(3)
    found = made.first_reply_s(cut_ns)
    assert found is not None
    assert found <= 1.0


def copying_ns(made: World) -> list[int]:
    """How long each stretch of copies from node 0 to node 1 lasted."""
    stretches: list[int] = []
    began_ns: int | None = None
    for at_ns, i, effect in made.trace or ():
        if i == 0 and isinstance(effect, SetRoute) and effect.node == made.ids[1] and effect.tag == 0:
            if effect.also is not None and began_ns is None:
                began_ns = at_ns
            elif effect.also is None and began_ns is not None:
                stretches.append(at_ns - began_ns)
                began_ns = None
    assert began_ns is None
    return stretches


def test_packets_are_copied_while_a_path_is_suspected_and_no_longer() -> None:
    made = under_traffic(2)
    made.trace = []
    made.change(0, 1, loss=10_000)
    made.run(0.1)
    made.change(0, 1, loss=0)
    made.run(5)
    assert len(copying_ns(made)) == 1
    assert 50 * MILLISECOND_NS < copying_ns(made)[0] <= SECOND_NS


def test_copies_on_a_path_that_stays_lossy_are_rationed() -> None:
    made = World([[0, 10, 400], [10, 0, 400], [400, 400, 0]], 3)  # The only relay is much worse than the loss.
    made.run(6)
    made.start_flow(0, 1)
    made.run(6)
    made.trace = []
    made.change(0, 1, loss=300)
    made.run(60)
    made.change(0, 1, loss=0)
    made.run(5)
    assert made.routes[0, 1].via == DIRECT
    stretches = copying_ns(made)
    assert stretches
    assert max(stretches) <= COPY_NS_MAX + 20 * MILLISECOND_NS
    rest_ns = 65 * SECOND_NS - sum(stretches)
    assert sum(stretches) <= COPY_BUDGET_NS + rest_ns // COPY_REFILL_SHARE + 20 * MILLISECOND_NS


def test_a_relay_that_dies_in_use_is_left_too() -> None:
    made = under_traffic(1)
    made.change(0, 1, cut=True)
    made.run(5)
    relay = made.numbers[made.routes[0, 1].via]
    cut_ns = made.now_ns
    for other in range(made.count):
        if other != relay:
            made.change(relay, other, cut=True)
    made.run(3)
    found = made.first_reply_s(cut_ns)
    assert found is not None
    assert found <= 1.0


def test_a_relay_without_a_session_is_gone_at_once() -> None:
    made = under_traffic(1)
    made.change(0, 1, cut=True)
    made.run(5)
    relay = made.routes[0, 1].via
    made.feed(0, SessionDown(relay))
    assert made.routes[0, 1].via not in (relay, DIRECT)
    assert made.notices[-1][2].cause == "relay-gone"


def test_a_relay_that_is_found_slow_is_left_and_taken_again_when_it_is_well() -> None:
    made = under_traffic(1)
    made.change(0, 1, cut=True)
    made.run(10)
    relay = made.routes[0, 1].via
    assert relay != DIRECT
    made.feed(0, RelaysShunned((relay,)))
    made.run(2)
    other = made.routes[0, 1].via
    assert other not in (relay, DIRECT)
    assert made.notices[-1][2].cause == "slow-relay"
    made.feed(0, RelaysShunned(()))
    made.feed(0, SessionDown(other))
    made.run(2)
    assert made.routes[0, 1].via not in (other, DIRECT)


def test_the_newest_round_trip_of_the_direct_path_is_told() -> None:
    made = under_traffic(1)
    heard_ns, rtt_us = made.meshes[0].round_trip(made.ids[1]) or (0, 0)
    assert made.now_ns - SECOND_NS <= heard_ns <= made.now_ns
    assert 2 * DIRECT_MS * 1000 <= rtt_us <= 3 * DIRECT_MS * 1000
    assert made.meshes[0].round_trip(bytes(10)) is None


def test_direct_is_taken_again_after_a_clean_minute_and_not_before() -> None:
    made = under_traffic(2)
    made.change(0, 1, loss=3_000)
    made.run(10)
    assert made.routes[0, 1].via != DIRECT
    made.change(0, 1, loss=0)
    clean_ns = made.now_ns
    made.run(55)
    assert made.routes[0, 1].via != DIRECT
    made.run(45)
    assert made.routes[0, 1].via == DIRECT
    returned = [at for at, i, notice in made.notices if i == 0 and notice.cause == "recovered"]
    assert len(returned) == 1
    assert returned[0] - clean_ns >= 60 * SECOND_NS


def test_a_cut_of_an_idle_pair_is_healed_too() -> None:
    made = world(1)
    made.run(5)
    made.change(0, 1, cut=True)
    made.run(4)
    assert made.routes[0, 1].via != DIRECT


def detoured() -> World:
    """Nodes 0 and 1 with a round trip of 5 s; an idle pair that goes by relay 2 (0.8 s) and could go by 3 (1.2 s)."""
    made = World([[0, 2500, 200, 300], [2500, 0, 200, 300], [200, 200, 0, 100], [300, 300, 100, 0]], 3)
    made.run(150)
    assert [made.routes[pair].via for pair in ((0, 1), (1, 0))] == [ident(2)] * 2
    made.notices.clear()
    return made


def mute(effect: SendControl) -> SendControl:
    """Answer nobody who asks for a label."""
    if isinstance(decode(effect.payload), LabelGrant | LabelRefusal | LabelNotice):
        return SendControl(effect.node, effect.via, b"\x90")
    return effect


def moves(made: World) -> dict[int, list[bytes]]:
    """The ways that 0 and 1 took to each other since ``detoured``."""
    found: dict[int, list[bytes]] = {0: [], 1: []}
    for _, i, notice in made.notices:
        if {i, made.numbers[notice.node]} == {0, 1} and notice.tag == 0:
            found[i].append(notice.via)
    return found


def test_a_far_slower_way_is_not_taken_while_a_better_one_gets_ready() -> None:
    made = detoured()
    for other in (0, 1, 3):
        made.change(2, other, cut=True)
    made.run(10)
    assert moves(made) == {0: [ident(3)], 1: [ident(3)]}


def test_a_better_way_that_does_not_get_ready_is_waited_for_only_as_long_as_it_would_save() -> None:
    made = detoured()
    made.liars[3] = mute
    for other in (0, 1, 3):
        made.change(2, other, cut=True)
    cut_ns = made.now_ns
    made.run(20)
    assert moves(made) == {0: [DIRECT], 1: [DIRECT]}
    assert made.notices[-1][0] - cut_ns <= 12 * SECOND_NS


def test_an_idle_pair_takes_a_better_relay_only_when_it_was_watched_for_a_while() -> None:
    made = World([[0, 100, 20], [100, 0, 20], [20, 20, 0]], 4)
    made.trace = []
    made.run(100)
    opened: dict[int, int] = {}
    for at_ns, i, effect in made.trace:
        if isinstance(effect, SendControl) and effect.via == ident(2):
            opened.setdefault(i, at_ns)
    taken = {i: at_ns for at_ns, i, notice in made.notices if notice.tag == 0}
    assert set(taken) == {0, 1}
    for i, at_ns in taken.items():
        assert at_ns - opened[i] >= PROVED_NS


@pytest.mark.parametrize(("gap_ms", "leaves"), [(2, False), (20, True)])
def test_a_queue_that_our_own_data_make_is_not_held_against_the_way(gap_ms: int, *, leaves: bool) -> None:
    """The direct path takes 40 ms and, while it is full of our data, 0 to 80 ms more; the relay takes 60."""
    made = World([[0, 20, 15], [20, 0, 15], [15, 15, 0]], seed=3)
    made.run(70)
    made.start_flow(0, 1, gap_ms)
    for pair in ((0, 1), (1, 0)):
        made.lines[pair].jitter_ns = 40 * MILLISECOND_NS
    made.run(40)
    assert (made.routes[0, 1].via != DIRECT) is leaves


def test_a_paused_peer_moves_nothing() -> None:
    made = World([[0, 40, 40], [40, 0, 40], [40, 40, 0]], 5)
    made.run(4)
    made.start_flow(0, 1)
    made.run(4)
    made.pause(1, 400 * MILLISECOND_NS)
    made.run(10)
    assert made.notices == []


def test_our_own_pause_moves_nothing_and_suspects_nobody() -> None:
    made = World([[0, 40, 40], [40, 0, 40], [40, 40, 0]], 5)
    made.run(4)
    made.start_flow(0, 1)
    made.run(4)
    mesh = made.meshes[0]
    made.run(0.01)
    deadline_ns = mesh.deadline_ns
    assert deadline_ns is not None
    effects = mesh.handle(Tick(), deadline_ns + 3 * SECOND_NS)
    assert not [effect for effect in effects if isinstance(effect, (SetRoute, RouteNotice))]
    report = mesh.peer_report(made.ids[1], deadline_ns + 3 * SECOND_NS)
    assert report is not None
    assert report.state == "ok"


def test_idle_twenty_minutes_with_jitter_change_nothing() -> None:
    made = World([[0 if i == j else 40 + 3 * abs(i - j) for i in range(4)] for j in range(4)], 9, jitter_ms=15)
    made.run(1_200)  # A whole day is measured by bench/heal.py.
    assert made.notices == []


def test_idle_pairs_send_little() -> None:
    made = World([[0 if i == j else 40 for i in range(4)] for j in range(4)], 9)
    made.run(30)
    before = made.sent_probes
    made.run(60)
    per_pair = (made.sent_probes - before) / 60 / 12
    assert per_pair <= 1.25


def test_a_lying_relay_attracts_nothing_that_it_does_not_carry() -> None:
    made = world(4, count=4)
    liar = 3

    def lie(effect: SendControl) -> SendControl:
        message = decode(effect.payload)
        if isinstance(message, LinkState):
            links = tuple(Link(link.node, 100, 1, 0, 0, 0) for link in message.links)
            return SendControl(effect.node, effect.via, encode(msgspec.structs.replace(message, links=links)))
        return effect

    made.liars[liar] = lie
    made.change(liar, 1, cut=True)  # It says that it reaches node 1 in no time, and does not reach it at all.
    made.run(30)
    made.start_flow(0, 1)
    made.run(60)
    assert all(
        notice.via != made.ids[liar] or made.ids[1] not in (made.ids[i], notice.node) for _, i, notice in made.notices
    )
    cut_ns = made.now_ns
    made.change(0, 1, cut=True)
    made.run(3)
    found = made.first_reply_s(cut_ns)
    assert found is not None
    assert found <= 1.0
    assert made.routes[0, 1].via == made.ids[2]


def test_garbage_and_strangers_are_counted_and_change_nothing() -> None:
    made = world(1)
    made.run(3)
    mesh, now_ns = made.meshes[0], made.now_ns
    before = mesh.snapshot()
    peer, stranger = made.ids[1], ident(77)
    for event in (
        ControlReceived(peer, DIRECT, b"\x91\x63"),
        ControlReceived(peer, DIRECT, b""),
        ControlReceived(peer, DIRECT, b"\x91" * 1_300),
        ControlReceived(stranger, DIRECT, encode(Probe(1, 1, 1, 0, 0, 0, 0, ASK))),
        ControlReceived(peer, stranger, encode(Probe(1, 1, 1, 0, 0, 0, 0, ASK))),
        FlowSeen(stranger, 1, 1),
        SessionUp(stranger, 1),
    ):
        assert mesh.handle(event, now_ns) == ()
    assert mesh.handle(SessionDown(stranger), now_ns) == ()
    assert mesh.handle(RelayMetered(12345, 1_000, 0), now_ns) == ()
    assert sum(mesh.rejects().values()) >= 7
    assert len(mesh.snapshot()) < len(before) + 300


def test_a_member_cannot_open_paths_without_end() -> None:
    made = world(1, count=20)
    made.run(3)
    mesh = made.meshes[0]
    for number in range(2, 20):
        mesh.handle(ControlReceived(made.ids[1], made.ids[number], encode(Probe(1, 1, 50, 0, 0, 0, 1, 5))), made.now_ns)
    explained = mesh.explain(made.ids[1], 0, made.now_ns)
    assert explained is not None
    assert mesh.rejects()["too many paths"] == 18 - (PATHS_PER_PAIR_MAX - 1)


def test_the_direct_only_tag_never_leaves_the_direct_path() -> None:
    made = under_traffic(1)
    made.trace = []
    made.change(0, 1, cut=True)
    made.run(3)
    orders = [one for _, _, one in made.trace if isinstance(one, SetRoute)]
    assert orders
    assert all((one.tag, one.via, one.also) == (TAG_DIRECT, DIRECT, None) for one in orders if one.tag == TAG_DIRECT)


def test_only_so_many_pairs_are_probed_fast() -> None:
    made = world(1, count=FAST_PAIRS_MAX + 4)
    made.run(2)
    for number in range(1, made.count):
        made.feed(0, FlowSeen(made.ids[number], 1, 1))
    made.trace = []
    made.run(1.5)
    by_node: dict[bytes, int] = {}
    for _, i, effect in made.trace:
        if i == 0 and isinstance(effect, SendControl) and effect.via == DIRECT and effect.payload[1] == 1:
            by_node[effect.node] = by_node.get(effect.node, 0) + 1
    assert sum(count >= 20 for count in by_node.values()) <= FAST_PAIRS_MAX
    assert sum(count <= 15 for count in by_node.values()) >= 2


def test_a_restarted_device_gets_all_orders_again() -> None:
    made = under_traffic(1)
    made.change(0, 1, cut=True)
    made.run(3)
    effects = made.meshes[0].handle(NicRestarted(), made.now_ns)
    routes = {(one.node, one.tag): one.via for one in effects if isinstance(one, SetRoute)}
    assert routes[made.ids[1], 0] == made.routes[0, 1].via != DIRECT
    assert len(routes) == 4 * 4
    labels = [(one.node, one.relay) for one in effects if isinstance(one, SetTransmitLabel)]
    assert (made.ids[1], made.routes[0, 1].via) in labels


def test_a_restarted_device_is_no_loss_on_any_path() -> None:
    """Its sessions went with it, and come again as the first of a new count; the peers notice nothing."""
    made = under_traffic(1)
    mesh = made.meshes[0]
    mesh.handle(NicRestarted(), made.now_ns)
    for node in made.ids[1:]:
        report = mesh.peer_report(node, made.now_ns)
        assert report is not None
        assert (report.session, report.state) == (False, "connecting")
    made.run(2)
    for node in made.ids[1:]:
        made.feed(0, SessionUp(node, 1))  # The same number as that of the first session of the device before it.
    made.run(2)
    for node in made.ids[1:]:
        report = mesh.peer_report(node, made.now_ns)
        assert report is not None
        assert (report.session, report.state, report.loss_in) == (True, "ok", 0)


def test_orders_are_not_repeated() -> None:
    made = under_traffic(1)
    made.trace = []
    made.run(5)
    assert not [effect for _, _, effect in made.trace if isinstance(effect, SetRoute)]


def test_a_member_that_leaves_takes_everything_along() -> None:
    made = under_traffic(1)
    made.change(0, 1, cut=True)
    made.run(3)
    relay = made.routes[0, 1].via
    rest = tuple(member(j) for j in range(1, 5) if made.ids[j] != relay)
    made.feed(0, MembersChanged(rest))
    assert made.routes[0, 1].via != relay
    assert relay not in made.meshes[0].members()
    assert made.meshes[0].peer_report(relay, made.now_ns) is None
    made.feed(0, MembersChanged(()))
    assert made.meshes[0].members() == ()
    assert made.meshes[0].deadline_ns is None


def test_a_member_without_a_session_is_given_a_relay() -> None:
    made = world(1)
    made.run(4)
    made.feed(0, SessionDown(made.ids[1]))
    made.run(6)
    assert made.routes[0, 1].via != DIRECT
    report = made.meshes[0].peer_report(made.ids[1], made.now_ns)
    assert report is not None
    assert (report.session, report.state) == (False, "connecting")


def test_a_session_that_began_anew_forgets_the_old_numbers() -> None:
    made = world(1)
    made.run(4)
    made.feed(0, SessionUp(made.ids[1], 1))
    known = made.meshes[0].peer_report(made.ids[1], made.now_ns)
    assert known is not None
    assert known.rtt_us is not None
    made.feed(0, SessionUp(made.ids[1], 2))
    fresh = made.meshes[0].peer_report(made.ids[1], made.now_ns)
    assert fresh is not None
    assert fresh.rtt_us is None


def test_reports_tell_what_is_and_why() -> None:
    made = under_traffic(1)
    mesh = made.meshes[0]
    report = mesh.peer_report(made.ids[1], made.now_ns)
    assert report is not None
    assert (report.state, report.via, report.active, report.copying) == ("ok", DIRECT, True, False)
    assert report.rtt_us is not None
    assert abs(report.rtt_us - 2_000 * DIRECT_MS) < 4_000
    made.change(0, 1, loss=3_000)
    made.run(5)
    before = mesh.snapshot()
    report = mesh.peer_report(made.ids[1], made.now_ns)
    explained = mesh.explain(made.ids[1], 0, made.now_ns)
    assert report is not None
    assert report.state == "degraded"
    assert report.why.startswith("relayed: direct is ")
    assert explained is not None
    assert explained.chosen == made.routes[0, 1].via
    assert explained.cause in ("lossy", "silent")
    assert explained.history[-1].via == explained.chosen
    assert len(explained.history) <= HISTORY_MAX
    by_via = {one.via: one for one in explained.candidates}
    assert set(by_via) == {DIRECT, *made.ids[2:]}
    assert by_via[explained.chosen].chosen
    assert by_via[explained.chosen].ready
    assert by_via[explained.chosen].measured == "end-to-end"
    assert "probes out" in by_via[DIRECT].loss_evidence
    assert explained.next.endswith(".")
    assert mesh.snapshot() == before
    assert mesh.explain(made.ids[1], 15, made.now_ns) is None
    assert mesh.explain(ident(77), 0, made.now_ns) is None


def test_the_words_for_what_comes_next_follow_the_state() -> None:
    made = under_traffic(1)
    words: list[str] = []

    def note() -> None:
        explained = made.meshes[0].explain(made.ids[1], 0, made.now_ns)
        assert explained is not None
        words.append(explained.next)

    made.run(60)
    note()
    made.change(0, 1, cut=True)
    made.run(0.14)
    note()
    made.run(3)
    note()
    made.change(0, 1, cut=False)
    made.run(30)
    note()
    assert "clearly better" in words[0]
    assert "suspicion" in words[1]
    assert "once it has been below" in words[2]
    assert "if it stays clean" in words[3]


def test_a_snapshot_restored_goes_on_in_the_same_way() -> None:
    made = under_traffic(6)
    made.change(0, 1, loss=3_000)
    made.run(0.5)
    mesh = made.meshes[0]
    snapshot = mesh.snapshot()
    twin = KIND.restore(snapshot)
    assert twin.snapshot() == snapshot
    assert twin.deadline_ns == mesh.deadline_ns
    for sequence in range(9_000, 9_200):
        now_ns = mesh.deadline_ns
        assert now_ns is not None
        event = ControlReceived(made.ids[1], DIRECT, encode(Probe(sequence, 5, 50, 0, 0, 0, 3, ASK)))
        for one in (Tick(), event):
            assert twin.handle(one, now_ns) == mesh.handle(one, now_ns)
    assert twin.snapshot() == mesh.snapshot()


def test_one_seed_one_trace() -> None:
    traces: list[list[tuple[int, int, object]]] = []
    for _ in range(2):
        made = world(11)
        made.trace = []
        made.run(3)
        made.start_flow(0, 1)
        made.run(2)
        made.change(0, 1, cut=True)
        made.run(2)
        traces.append([*made.trace])
    assert traces[0] == traces[1]


def test_time_never_goes_back() -> None:
    made = world(1)
    made.run(2)
    with pytest.raises(UsageError):
        made.meshes[0].handle(Tick(), 5)


def test_a_snapshot_of_garbage_is_corrupt() -> None:
    with pytest.raises(CorruptError):
        Mesh.restore(b"\x93\x01")


def test_a_lone_node_waits_for_nothing() -> None:
    mesh = Mesh(Config(node=ident(0), boot=1), b"seed", 0)
    assert mesh.deadline_ns is None
    assert mesh.handle(Tick(), 1) == ()
    assert mesh.relay_load(1) == 0


@pytest.mark.parametrize(("will", "number"), [(RelayWill.NEVER, 0), (RelayWill.METERED, 1), (RelayWill.YES, 2)])
def test_wills_have_the_numbers_of_the_wire(will: RelayWill, number: int) -> None:
    assert will_number(will) == number


def test_a_relay_that_the_operator_forbids_is_left_at_once() -> None:
    made = under_traffic(1)
    made.change(0, 1, cut=True)
    made.run(3)
    relay = made.routes[0, 1].via
    assert relay != DIRECT
    rule = Rule(Metric.LATENCY, forbidden=(relay,))
    made.feed(0, PolicyChanged(Policy(DEFAULT_RULES | {TAG_LATENCY: rule})))
    made.run(3)
    assert made.routes[0, 1].via not in {DIRECT, relay}
    made.feed(0, PolicyChanged(Policy(DEFAULT_RULES | {TAG_LATENCY: Rule(Metric.LATENCY, direct_only=True)})))
    assert made.routes[0, 1].via == DIRECT


def test_small_packets_of_a_tag_go_twice_if_the_operator_wants_that() -> None:
    made = under_traffic(1)
    made.trace = []
    made.feed(0, PolicyChanged(Policy(DEFAULT_RULES | {TAG_LOSS: Rule(Metric.LOSS, copy_bytes=200)})))
    made.run(3)
    ordered = [one for _, _, one in made.trace if isinstance(one, SetRoute) and one.node == made.ids[1]]
    (copied,) = [one for one in ordered if one.tag == TAG_LOSS]
    assert (copied.via, copied.copy_bytes) == (DIRECT, 200)
    assert copied.also not in {None, DIRECT}
    assert not [one for one in ordered if one.tag != TAG_LOSS]
    made.feed(0, PolicyChanged(Policy()))
    last = [one for _, _, one in made.trace if isinstance(one, SetRoute) and one.tag == TAG_LOSS][-1]
    assert (last.also, last.copy_bytes) == (None, 0)
