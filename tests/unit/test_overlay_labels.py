# SPDX-License-Identifier: Apache-2.0
"""Label leases: the three roles, their bounds, and what the packet device is told."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from atoll.base.units import SECOND_NS
from atoll.core.entropy import Draws
from atoll.overlay.labels import (
    ANSWER_GAP_NS,
    ATTEMPTS_MAX,
    GRACE_NS,
    LEASE_S,
    LEASES_MAX,
    REST_NS,
    RETRY_NS,
    LabelEffect,
    LabelMessage,
    Labels,
    LabelsConfig,
    Say,
)
from atoll.overlay.limits import MEMBERS_MAX, RELAYED_LABELS_MAX
from atoll.overlay.messages import LabelGrant, LabelNotice, LabelRefusal, LabelRequest
from atoll.overlay.orders import (
    DropArrivalLabel,
    DropForwardLabel,
    DropTransmitLabel,
    SetArrivalLabel,
    SetForwardLabel,
    SetTransmitLabel,
)

A, B, R, S, STRANGER = b"node-0000A", b"node-0000B", b"node-0000R", b"node-0000S", b"node-0000X"
LEASE_NS = LEASE_S * SECOND_NS


def linked(_node: bytes) -> bool:
    return True


def unlinked(_node: bytes) -> bool:
    return False


def machine(me: bytes, config: LabelsConfig | None = None, members: Sequence[bytes] = (A, B, R, S)) -> Labels:
    labels = Labels(me, Draws(b"seed" + me), config or LabelsConfig())
    labels.set_members(members)
    return labels


def said(effects: Sequence[LabelEffect]) -> list[tuple[bytes, LabelMessage]]:
    return [(effect.node, effect.message) for effect in effects if isinstance(effect, Say)]


def grant(label: int = 1, arrival: int = 2, target: bytes = B, lease_s: int = LEASE_S) -> LabelGrant:
    return LabelGrant(target, label, b"k" * 32, arrival, b"a" * 32, lease_s)


def notice(label: int = 3, arrival: int = 4, origin: bytes = A, lease_s: int = LEASE_S) -> LabelNotice:
    return LabelNotice(origin, label, b"k" * 32, arrival, b"a" * 32, lease_s)


def due(labels: Labels) -> int:
    assert labels.deadline_ns is not None
    return labels.deadline_ns


# ---------------------------------------------------------------------- asker


def test_wanting_asks_and_a_grant_installs_both_labels() -> None:
    labels = machine(A)
    assert labels.want(B, [R, S], 0) == (Say(R, LabelRequest(B)), Say(S, LabelRequest(B)))
    assert labels.usable(B, 0) == ()
    assert labels.handle(R, grant(), 1, linked) == (
        SetTransmitLabel(B, R, 1, b"k" * 32),
        SetArrivalLabel(2, b"a" * 32, R, B),
    )
    assert labels.usable(B, 1) == (R,)
    assert labels.want(B, [R, S], 2) == (), "wanting again asks nothing"


def test_an_unanswered_request_is_repeated_ever_more_slowly_and_then_rests() -> None:
    labels, times, now_ns = machine(A), [0], 0
    labels.want(B, [R], 0)
    for _ in range(2 * ATTEMPTS_MAX - 1):
        now_ns = due(labels)
        assert labels.tick(now_ns - 1) == ()
        assert said(labels.tick(now_ns)) == [(R, LabelRequest(B))]
        times.append(now_ns)
    waits = [later - sooner for sooner, later in pairwise(times)]
    expected = [RETRY_NS << at for at in range(ATTEMPTS_MAX - 1)]
    assert all(want <= wait <= want * 5 // 4 for want, wait in zip([*expected, REST_NS, *expected], waits, strict=True))


def test_a_lease_is_renewed_at_half_time_and_the_same_labels_need_no_order() -> None:
    labels = machine(A)
    labels.want(B, [R], 0)
    labels.handle(R, grant(), 0, linked)
    assert labels.tick(due(labels)) == (), "the deadline of the request is left over and harmless"
    now_ns = due(labels)
    assert LEASE_NS * 3 // 8 <= now_ns <= LEASE_NS // 2
    assert said(labels.tick(now_ns)) == [(R, LabelRequest(B))]
    assert labels.handle(R, grant(), now_ns, linked) == ()
    assert labels.usable(B, now_ns + LEASE_NS - 1) == (R,)
    assert labels.usable(B, now_ns + LEASE_NS) == ()


def test_other_labels_replace_the_old_ones() -> None:
    labels = machine(A)
    labels.want(B, [R], 0)
    labels.handle(R, grant(), 0, linked)
    assert labels.handle(R, grant(11, 12), 1, linked) == (
        DropArrivalLabel(2),
        SetTransmitLabel(B, R, 11, b"k" * 32),
        SetArrivalLabel(12, b"a" * 32, R, B),
    )
    assert labels.handle(R, grant(21, 12), 1, linked) == (
        SetTransmitLabel(B, R, 21, b"k" * 32),
        SetArrivalLabel(12, b"a" * 32, R, B),
    )
    assert labels.arrivals == {12: (B, R)}


def test_a_lease_that_is_not_renewed_lapses_while_the_asking_goes_on() -> None:
    labels = machine(A)
    labels.want(B, [R], 0)
    labels.handle(R, grant(), 0, linked)
    effects: list[LabelEffect] = []
    while due(labels) <= LEASE_NS:
        effects.extend(labels.tick(due(labels)))
    assert [one for one in effects if not isinstance(one, Say)] == [DropTransmitLabel(B, R), DropArrivalLabel(2)]
    assert len(said(effects)) >= ATTEMPTS_MAX
    assert labels.usable(B, LEASE_NS) == ()
    assert said(labels.tick(due(labels))) == [(R, LabelRequest(B))]


def test_an_unwanted_lease_is_used_to_its_end_but_not_renewed() -> None:
    labels = machine(A)
    labels.want(B, [R, S], 0)
    labels.handle(R, grant(), 0, linked)
    labels.want(B, [], 1)
    assert labels.usable(B, 2) == (R,)
    while labels.deadline_ns is not None:
        effects = labels.tick(labels.deadline_ns)
        assert said(effects) == []
    assert labels.leases == {}
    assert labels.arrivals == {}


def test_wanting_again_renews_what_is_old_at_once() -> None:
    labels = machine(A)
    labels.want(B, [R], 0)
    labels.handle(R, grant(), 0, linked)
    labels.want(B, [], 1)
    assert labels.want(B, [R], 2) == ()
    labels.want(B, [], 3)
    assert said(labels.want(B, [R], LEASE_NS * 3 // 4)) == [(R, LabelRequest(B))]


def test_only_members_relay_for_members() -> None:
    labels = machine(A)
    assert labels.want(B, [STRANGER, B, A], 0) == ()
    assert labels.want(STRANGER, [R], 0) == ()
    assert labels.want(A, [R], 0) == ()
    assert labels.leases == {}


def test_a_refusal_waits_and_keeps_what_is_held() -> None:
    labels = machine(A)
    labels.want(B, [R], 0)
    labels.handle(R, grant(), 0, linked)
    labels.tick(due(labels))
    labels.handle(R, LabelRefusal(B, 1), LEASE_NS // 2, linked)
    assert labels.usable(B, LEASE_NS // 2) == (R,)
    assert labels.tick(LEASE_NS // 2 + SECOND_NS) == ()
    assert LEASE_NS // 2 + REST_NS <= due(labels) <= LEASE_NS
    assert labels.handle(S, LabelRefusal(B, 1), 0, linked) == ()
    assert labels.rejected == {"refusal without request": 1}


def test_unlinked_is_asked_again_soon() -> None:
    labels = machine(A)
    labels.want(B, [R], 0)
    labels.handle(R, LabelRefusal(B, 3), 1, linked)
    labels.tick(SECOND_NS)
    assert 10 * SECOND_NS <= due(labels) < 13 * SECOND_NS


def test_suspicion_asks_at_once_but_not_twice_a_second() -> None:
    labels = machine(A)
    assert labels.suspect(B, R, 0) == ()
    labels.want(B, [R], 0)
    labels.handle(R, grant(), 1, linked)
    assert labels.suspect(B, R, 2) == ()
    assert said(labels.suspect(B, R, SECOND_NS)) == [(R, LabelRequest(B))]
    assert labels.suspect(B, R, 2 * SECOND_NS - 1) == ()


def test_suspicion_of_a_lease_held_as_target_asks_once() -> None:
    labels = machine(B)
    labels.handle(R, notice(), 0, linked)
    assert said(labels.suspect(A, R, 1)) == [(R, LabelRequest(A))]
    while due(labels) < LEASE_NS:
        assert labels.tick(due(labels)) == ()
    labels.tick(LEASE_NS)
    assert labels.leases == {}


def test_grants_and_notices_that_nobody_may_send_are_dropped() -> None:
    labels = machine(A)
    assert labels.handle(R, grant(), 0, linked) == ()
    assert labels.handle(STRANGER, notice(origin=B), 0, linked) == ()
    assert labels.handle(R, notice(origin=STRANGER), 0, linked) == ()
    assert labels.handle(R, notice(origin=A), 0, linked) == ()
    assert labels.handle(R, notice(origin=R), 0, linked) == ()
    assert labels.rejected == {"grant without request": 1, "not a member": 1, "notice for no member": 3}
    assert labels.leases == {}


def test_a_relay_cannot_take_over_the_arrival_label_of_another() -> None:
    labels = machine(A)
    labels.want(B, [R, S], 0)
    labels.handle(R, grant(1, 2), 0, linked)
    assert labels.handle(S, grant(5, 2), 0, linked) == ()
    assert labels.handle(S, notice(5, 2, origin=R), 0, linked) == ()
    assert labels.usable(B, 1) == (R,)
    assert R not in labels.leases


def test_lease_times_are_bounded_whatever_a_relay_says() -> None:
    labels = machine(A)
    labels.want(B, [R, S], 0)
    labels.handle(R, grant(lease_s=0), 0, linked)
    labels.handle(S, grant(3, 4, lease_s=65_535), 0, linked)
    assert labels.usable(B, 10 * SECOND_NS - 1) == (R, S)
    assert labels.usable(B, 10 * SECOND_NS) == (S,)
    assert labels.usable(B, 600 * SECOND_NS) == ()


def test_leases_are_bounded() -> None:
    nodes = [number.to_bytes(10, "big") for number in range(100)]
    labels = machine(A, members=nodes)
    assert len(labels.members) == MEMBERS_MAX
    for relay in nodes:
        for origin in nodes:
            labels.handle(relay, notice(arrival=len(labels.arrivals), origin=origin), 0, linked)
    assert sum(len(held) for held in labels.leases.values()) == LEASES_MAX == len(labels.arrivals)
    assert labels.want(nodes[0], nodes[40:48], 0) == ()
    assert labels.rejected["leases full"] > 0
    assert sum(len(held) for held in labels.leases.values()) == LEASES_MAX


# ---------------------------------------------------------------------- target


def test_a_notice_lets_the_target_answer_the_same_way() -> None:
    labels = machine(B)
    assert labels.handle(R, notice(), 0, linked) == (
        SetTransmitLabel(A, R, 3, b"k" * 32),
        SetArrivalLabel(4, b"a" * 32, R, A),
    )
    assert labels.usable(A, 1) == (R,)
    assert labels.handle(R, notice(), LEASE_NS // 2, linked) == ()
    assert labels.usable(A, LEASE_NS) == (R,)
    assert labels.tick(due(labels)) == ()
    assert labels.tick(due(labels)) == (DropTransmitLabel(A, R), DropArrivalLabel(4))
    assert labels.deadline_ns is None


def test_a_target_that_wants_the_relay_itself_asks_before_the_lease_ends() -> None:
    labels = machine(B)
    labels.handle(R, notice(), 0, linked)
    assert labels.want(A, [R], 1) == ()
    assert due(labels) <= LEASE_NS // 2
    assert said(labels.tick(LEASE_NS // 2)) == [(R, LabelRequest(A))]


# ---------------------------------------------------------------------- relay


def test_a_request_grants_notifies_and_forwards_both_ways() -> None:
    labels = machine(R, LabelsConfig(2, 1_000))
    effects = labels.handle(A, LabelRequest(B), 0, linked)
    forwards = [one for one in effects if isinstance(one, SetForwardLabel)]
    (to_b, from_r_notice), (to_a, from_r_grant) = said(effects)
    assert (to_a, to_b) == (A, B)
    assert isinstance(from_r_grant, LabelGrant)
    assert isinstance(from_r_notice, LabelNotice)
    g, n = from_r_grant, from_r_notice
    assert (g.target, n.origin, g.lease_s, n.lease_s) == (B, A, LEASE_S, LEASE_S)
    assert forwards == [
        SetForwardLabel(g.label, g.key, A, B, n.arrival_label, n.arrival_key, 1_000),
        SetForwardLabel(n.label, n.key, B, A, g.arrival_label, g.arrival_key, 1_000),
    ]
    assert len(dict.fromkeys([g.key, n.key, g.arrival_key, n.arrival_key])) == 4


def test_repeated_requests_from_either_end_renew_the_same_labels() -> None:
    labels = machine(R)
    first = said(labels.handle(A, LabelRequest(B), 0, linked))
    assert labels.handle(A, LabelRequest(B), ANSWER_GAP_NS - 1, linked) == (), "too soon"
    again = labels.handle(A, LabelRequest(B), ANSWER_GAP_NS, linked)
    assert said(again) == first
    assert len(again) == 2, "no new orders"
    mirrored = said(labels.handle(B, LabelRequest(A), 2 * ANSWER_GAP_NS, linked))
    ((_, notice_b), (_, grant_a)), ((_, notice_a), (_, grant_b)) = first, mirrored
    assert isinstance(grant_a, LabelGrant)
    assert isinstance(notice_a, LabelNotice)
    assert (grant_a.label, grant_a.arrival_label) == (notice_a.label, notice_a.arrival_label)
    assert isinstance(grant_b, LabelGrant)
    assert isinstance(notice_b, LabelNotice)
    assert (grant_b.label, grant_b.key) == (notice_b.label, notice_b.key)
    assert len(labels.pairs) == 1


def test_a_pair_that_nobody_renews_ends_after_lease_and_grace() -> None:
    labels = machine(R)
    labels.handle(A, LabelRequest(B), 0, linked)
    assert due(labels) == LEASE_NS + GRACE_NS
    assert labels.tick(LEASE_NS + GRACE_NS - 1) == ()
    dropped = labels.tick(LEASE_NS + GRACE_NS)
    assert [type(one) for one in dropped] == [DropForwardLabel, DropForwardLabel]
    assert (labels.pairs, labels.forwards, labels.deadline_ns) == ({}, {}, None)


def test_who_is_refused_and_why() -> None:
    def answer(labels: Labels, sender: bytes = A, target: bytes = B, *, links: bool = True) -> object:
        effects = labels.handle(sender, LabelRequest(target), 0, linked if links else unlinked)
        return said(effects)[0][1] if effects else None

    assert answer(machine(R, LabelsConfig(will=0))) == LabelRefusal(B, 1)
    assert answer(machine(R, LabelsConfig(budget_bytes_s=0))) == LabelRefusal(B, 2)
    assert answer(machine(R), links=False) == LabelRefusal(B, 3)
    assert answer(machine(R), target=STRANGER) == LabelRefusal(STRANGER, 3)
    assert answer(machine(R), sender=STRANGER) is None, "strangers get nothing, not even a no"
    assert answer(machine(R), target=A) is None
    assert answer(machine(R), target=R) is None
    assert isinstance(answer(machine(R, LabelsConfig(will=1))), LabelNotice)


def test_the_asker_must_be_linked_too() -> None:
    effects = machine(R).handle(A, LabelRequest(B), 0, lambda node: node == B)
    assert said(effects) == [(A, LabelRefusal(B, 3))]


def test_a_full_group_of_pairs_stays_within_the_table() -> None:
    nodes = [number.to_bytes(10, "big") for number in range(MEMBERS_MAX)]
    labels = machine(R, members=nodes)
    for asker in nodes:
        for target in nodes:
            labels.handle(asker, LabelRequest(target), 0, linked)
    assert len(labels.forwards) == MEMBERS_MAX * (MEMBERS_MAX - 1) <= RELAYED_LABELS_MAX


def test_a_full_table_refuses_new_pairs_only() -> None:
    labels = machine(R)
    labels.handle(A, LabelRequest(B), 0, linked)
    labels.forwards.update(dict.fromkeys(range(RELAYED_LABELS_MAX - 3), b""))
    assert len(said(labels.handle(A, LabelRequest(B), SECOND_NS, linked))) == 2
    assert said(labels.handle(A, LabelRequest(S), SECOND_NS, linked)) == [(A, LabelRefusal(S, 4))]


# ---------------------------------------------------------------------- budget


def test_load_follows_use_and_falls_asleep() -> None:
    labels = machine(R, LabelsConfig(2, 1_000_000))
    labels.handle(A, LabelRequest(B), 0, linked)
    label = next(iter(labels.forwards))
    for second in range(1, 30):
        labels.meter(label, 500_000, second * SECOND_NS)
    assert 120 <= labels.load(29 * SECOND_NS) <= 128
    assert labels.load(60 * SECOND_NS) == 0
    for _ in range(100):
        if due(labels) > LEASE_NS:
            break
        labels.tick(due(labels))
    assert due(labels) == LEASE_NS + GRACE_NS
    assert labels.load(60 * SECOND_NS) == 0
    assert labels.meter(12_345, 1_000, 61 * SECOND_NS) == (), "a label that ended"
    assert labels.meter(label, 0, 61 * SECOND_NS) == ()


def test_active_pairs_share_the_budget_and_idle_ones_do_not_count() -> None:
    nodes = [number.to_bytes(10, "big") for number in range(8)]
    labels = machine(R, LabelsConfig(2, 800), members=nodes)
    for target in nodes[1:]:
        labels.handle(nodes[0], LabelRequest(target), 0, linked)
    by_pair = {pair.for_low.label: key for key, pair in labels.pairs.items()}
    busy = list(by_pair)[:3]
    orders: list[LabelEffect] = []
    for second in range(1, 4):
        for label in busy:
            orders.extend(labels.meter(label, 100, second * SECOND_NS + 1))
        orders.extend(labels.tick(second * SECOND_NS + 1))
    assert {one.rate_bytes_s for one in orders[-14:] if isinstance(one, SetForwardLabel)} == {200}
    assert len({one.label for one in orders if isinstance(one, SetForwardLabel)}) == 14
    effects = [effect for second in range(5, 40) for effect in labels.tick(second * SECOND_NS)]
    assert {one.rate_bytes_s for one in effects[-14:] if isinstance(one, SetForwardLabel)} == {800}


def test_without_budget_left_new_pairs_are_refused_and_live_ones_renewed() -> None:
    labels = machine(R, LabelsConfig(2, 1_000))
    labels.handle(A, LabelRequest(B), 0, linked)
    label = next(iter(labels.forwards))
    for second in range(1, 40):
        labels.meter(label, 2_000, second * SECOND_NS)
    now_ns = 39 * SECOND_NS
    assert labels.load(now_ns) == 255
    assert said(labels.handle(A, LabelRequest(S), now_ns, linked)) == [(A, LabelRefusal(S, 2))]
    assert len(said(labels.handle(A, LabelRequest(B), now_ns, linked))) == 2


# ---------------------------------------------------------------------- removal, restart


def test_a_removed_member_loses_everything_in_all_roles() -> None:
    labels = machine(S, members=[A, B, R])
    labels.want(B, [R], 0)
    labels.handle(R, grant(), 0, linked)
    labels.want(R, [A], 0)
    labels.handle(A, LabelRequest(R), 0, linked)
    dropped = labels.forget(R)
    assert [type(one) for one in dropped] == [DropTransmitLabel, DropArrivalLabel, DropForwardLabel, DropForwardLabel]
    assert (labels.leases, labels.arrivals, labels.pairs, labels.forwards) == ({}, {}, {}, {})
    assert labels.handle(R, grant(), 0, linked) == ()
    assert labels.forget(R) == ()


def test_removing_one_member_leaves_the_others_alone() -> None:
    labels = machine(S, members=[A, B, R, STRANGER])
    labels.want(B, [R], 0)
    labels.handle(R, grant(), 0, linked)
    labels.handle(A, LabelRequest(B), 0, linked)
    assert labels.forget(STRANGER) == ()
    assert labels.usable(B, 1) == (R,)
    assert len(labels.pairs) == 1


def test_a_label_in_use_is_not_given_twice() -> None:
    labels, twin = machine(R), machine(R)
    twin.handle(A, LabelRequest(B), 0, linked)
    taken = next(iter(twin.forwards))
    labels.forwards[taken] = b"another pair"
    labels.handle(A, LabelRequest(B), 0, linked)
    assert labels.forwards[taken] == b"another pair"
    assert len(labels.forwards) == 3


def test_set_members_drops_those_that_are_gone() -> None:
    labels = machine(R)
    labels.handle(A, LabelRequest(B), 0, linked)
    assert labels.set_members([B, A, S]) == ()
    assert len(labels.set_members([B, S])) == 2
    assert list(labels.members) == [B, S]


def test_restate_gives_all_live_orders_again() -> None:
    labels = machine(S, members=[A, B, R])
    orders: list[LabelEffect] = []
    labels.want(B, [R], 0)
    orders.extend(labels.handle(R, grant(), 0, linked))
    orders.extend(one for one in labels.handle(A, LabelRequest(B), 0, linked) if not isinstance(one, Say))
    assert list(labels.restate(1)) == orders
    assert [type(one) for one in labels.restate(LEASE_NS)] == [SetForwardLabel, SetForwardLabel]


def test_a_restored_machine_goes_on_alike() -> None:
    labels = machine(S, members=[A, B, R])
    labels.want(B, [R], 0)
    labels.handle(R, grant(), 0, linked)
    labels.handle(A, LabelRequest(R), 0, linked)
    twin = msgspec.msgpack.decode(msgspec.msgpack.encode(labels), type=Labels)
    assert twin == labels
    for one in (labels, twin):
        one.meter(next(iter(one.forwards)), 5, 1)
    assert [labels.tick(due(labels)) for _ in range(5)] == [twin.tick(due(twin)) for _ in range(5)]
