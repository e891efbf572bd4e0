# SPDX-License-Identifier: Apache-2.0
"""The composite of mesh and group: who gets which input, and what the packet device is told about peers."""

from collections.abc import Sequence
from random import Random

import msgspec
import pytest

from atoll.base.errors import CorruptError
from atoll.base.ids import DIRECT, PublicKey, node_id_of
from atoll.base.member import Member
from atoll.base.units import MINUTE_NS, SECOND_NS
from atoll.core.machine import Tick
from atoll.device.nic.messages import AdmitPeer, ExpelPeer
from atoll.group.events import (
    GroupNotice,
    InviteIssued,
    RemoveAsked,
    Sign,
    Signed,
    Stored,
    StoreRoster,
    WallClock,
)
from atoll.group.identity import Identity, join_proof
from atoll.group.invite import invite_public_key
from atoll.group.messages import GROUP_TAGS, JoinRequest
from atoll.group.messages import encode as encode_group
from atoll.health.members.bulletin import Found, HealthNotice
from atoll.health.members.messages import HEALTH_TAGS, Ailment, Ailments, encode_ailments
from atoll.health.model import State
from atoll.lab.program import Blueprint
from atoll.node.control import KIND, Control, ControlEffect
from atoll.overlay.guests import GUEST_TAGS
from atoll.overlay.messages import OVERLAY_TAGS
from atoll.overlay.orders import SendControl
from atoll.overlay.reports import ControlReceived, NicRestarted, SessionDown, SessionUp
from tests.unit.node_unit_world import NOW_NS, WALL_S, control_of, plans

SECRET = bytes(range(16))
INVITED = invite_public_key(SECRET)


def admitted(effects: Sequence[ControlEffect]) -> dict[bytes, AdmitPeer]:
    return {effect.public_key: effect for effect in effects if isinstance(effect, AdmitPeer)}


def settle(control: Control, effects: list[ControlEffect], plan: Blueprint, now_ns: int) -> list[ControlEffect]:
    """Sign and store whatever is asked for, as the performer does; return all effects."""
    done, waiting = list[ControlEffect](), list(effects)
    while waiting:
        effect = waiting.pop(0)
        done.append(effect)
        if isinstance(effect, Sign):
            waiting += control.handle(Signed(effect.request_id, plan.identity.sign(effect.payload)), now_ns)
        elif isinstance(effect, StoreRoster):
            waiting += control.handle(Stored(effect.version), now_ns)
    return done


def test_the_first_effects_admit_every_other_member_where_the_roster_says() -> None:
    one, two, three = plans()
    _, effects = control_of(one)
    peers = admitted(effects)
    assert set(peers) == {two.member.public_key, three.member.public_key}
    assert peers[two.member.public_key].endpoints == two.member.endpoints
    assert not any(peer.invited for peer in peers.values())


def test_a_new_packet_device_is_told_of_every_peer_again_members_and_invited() -> None:
    one, *others = plans()
    control, _ = control_of(one)
    control.handle(InviteIssued(INVITED, WALL_S + 600), NOW_NS)
    effects = list(control.handle(NicRestarted(), NOW_NS + 1))
    peers = admitted(effects)
    assert set(peers) == {*(plan.member.public_key for plan in others), INVITED}
    assert [peer.public_key for peer in peers.values() if peer.invited] == [INVITED]
    first_other = next(i for i, effect in enumerate([*effects, None]) if not isinstance(effect, AdmitPeer))
    assert first_other == len(peers), "admissions come before what the mesh wants of those peers"


@pytest.mark.parametrize("payload", [b"", b"\x91", b"\x91\x7f", b"\x91\xff", b"\x00\x00\x01"])
def test_a_message_of_an_unknown_tag_is_counted_and_does_nothing(payload: bytes) -> None:
    one, two, _ = plans()
    control, _ = control_of(one)
    before = control.mesh.snapshot(), control.group.snapshot()
    assert list(control.handle(ControlReceived(two.member.node, DIRECT, payload), NOW_NS)) == []
    assert control.unknown_messages == 1
    assert (control.mesh.snapshot(), control.group.snapshot()) == before


def test_no_tag_belongs_to_two_machines() -> None:
    tags = [*OVERLAY_TAGS, *GUEST_TAGS, *GROUP_TAGS, *HEALTH_TAGS]
    assert len(tags) == len(set(tags))


def test_garbage_behind_every_known_tag_never_raises() -> None:
    one, two, _ = plans()
    control, _ = control_of(one)
    rng = Random(1)
    for step in range(2000):
        tag = rng.choice([*OVERLAY_TAGS, *GUEST_TAGS, *GROUP_TAGS, *HEALTH_TAGS])
        payload = bytes([0x90 + rng.randrange(16), tag]) + rng.randbytes(rng.randrange(60))
        control.handle(ControlReceived(two.member.node, DIRECT, payload), NOW_NS + step)


def test_a_session_is_told_to_both_machines() -> None:
    one, two, _ = plans()
    control, _ = control_of(one)
    effects = list(control.handle(SessionUp(two.member.node, 1), NOW_NS))
    tags = {effect.payload[1] for effect in effects if isinstance(effect, SendControl)}
    assert tags & set(GROUP_TAGS), "the group says hello"
    report = control.mesh.peer_report(two.member.node, NOW_NS)
    assert report is not None
    assert report.session
    control.handle(SessionDown(two.member.node), NOW_NS + 1)
    report = control.mesh.peer_report(two.member.node, NOW_NS + 1)
    assert report is not None
    assert not report.session


def test_the_deadline_is_the_nearer_one_and_ticks_never_spin() -> None:
    one, two, three = plans()
    control, _ = control_of(one)
    for plan in (two, three):
        control.handle(SessionUp(plan.member.node, 1), NOW_NS)
    now_ns, ticks = NOW_NS, 0
    while now_ns < NOW_NS + 10 * SECOND_NS:
        due_ns = control.deadline_ns
        assert due_ns is not None
        nearest = [d for d in (control.mesh.deadline_ns, control.group.deadline_ns) if d is not None]
        assert due_ns == min(nearest)
        now_ns = max(now_ns, due_ns)
        control.handle(Tick(), now_ns)
        ticks += 1
        assert ticks < 20_000
    assert ticks > 10


def test_an_early_tick_does_nothing() -> None:
    one, _, _ = plans()
    control, _ = control_of(one)
    control.handle(Tick(), NOW_NS)
    due_ns = control.deadline_ns
    if due_ns is not None and due_ns > NOW_NS:
        assert list(control.handle(Tick(), due_ns - 1)) == []


def test_an_invited_peer_is_admitted_for_handshakes_and_expelled_when_its_time_is_over() -> None:
    one, _, _ = plans()
    control, _ = control_of(one)
    effects = list(control.handle(InviteIssued(INVITED, WALL_S + 600), NOW_NS))
    assert AdmitPeer(INVITED, (), None, invited=True) in effects
    assert control.admitted[node_id_of(INVITED)].invited
    now_ns, end_ns = NOW_NS, NOW_NS + 120 * MINUTE_NS
    expelled: list[ExpelPeer] = []
    while not expelled and now_ns < end_ns:
        now_ns = max(now_ns, control.deadline_ns or end_ns)
        expelled += [e for e in control.handle(Tick(), now_ns) if isinstance(e, ExpelPeer)]
    assert expelled == [ExpelPeer(INVITED)]
    assert node_id_of(INVITED) not in control.admitted
    assert list(control.handle(NicRestarted(), now_ns)).count(AdmitPeer(INVITED, (), None, invited=True)) == 0


def join_request(identity: Identity, name: str) -> bytes:
    member = Member(identity.public_key, identity.signing_key, name, (("192.0.2.7", 7747),))
    return encode_group(JoinRequest(1, 1, member, join_proof(identity, INVITED, member), 0))


def joined_by(control: Control, plan: Blueprint, *, late_s: int = 0, name: str = "four") -> list[ControlEffect]:
    """Let somebody with the invitation ask for membership."""
    identity = Identity(bytes([9]) * 64)
    now_ns = NOW_NS + late_s * SECOND_NS
    control.handle(WallClock(WALL_S + late_s), now_ns)
    bearer = node_id_of(INVITED)
    control.handle(SessionUp(bearer, 1), now_ns)
    request = ControlReceived(bearer, DIRECT, join_request(identity, name))
    return settle(control, list(control.handle(request, now_ns)), plan, now_ns)


def test_a_bearer_of_an_invitation_becomes_a_peer_under_its_own_key() -> None:
    one, _, _ = plans()
    control, _ = control_of(one)
    control.handle(InviteIssued(INVITED, WALL_S + 600), NOW_NS)
    effects = joined_by(control, one)
    newcomer = Identity(bytes([9]) * 64)
    stored = next(i for i, e in enumerate(effects) if isinstance(e, StoreRoster))
    admit = next(i for i, e in enumerate(effects) if isinstance(e, AdmitPeer))
    answer = next(i for i, e in enumerate(effects) if isinstance(e, SendControl) and e.node == node_id_of(INVITED))
    assert stored < admit
    assert stored < answer, "nobody is told of what is not on disk"
    assert control.admitted[newcomer.node].public_key == newcomer.public_key
    assert control.group.roster.find(newcomer.node) is not None
    assert [e.kind for e in effects if isinstance(e, GroupNotice)] == ["joined"]


def test_an_expired_invitation_admits_nobody() -> None:
    one, _, _ = plans()
    control, _ = control_of(one)
    control.handle(InviteIssued(INVITED, WALL_S + 600), NOW_NS)
    effects = joined_by(control, one, late_s=601)
    assert not any(isinstance(e, StoreRoster | AdmitPeer) for e in effects)
    refusals = [e for e in effects if isinstance(e, SendControl) and e.node == node_id_of(INVITED)]
    assert len(refusals) == 1, "it is told why"
    assert control.group.counts["join refused"] == 1


def test_a_refused_disk_keeps_a_newcomer_out_until_it_works_again() -> None:
    one, _, _ = plans()
    control, _ = control_of(one)
    control.handle(InviteIssued(INVITED, WALL_S + 600), NOW_NS)
    identity = Identity(bytes([9]) * 64)
    bearer = node_id_of(INVITED)
    effects = list(control.handle(ControlReceived(bearer, DIRECT, join_request(identity, "four")), NOW_NS))
    sign = next(e for e in effects if isinstance(e, Sign))
    effects = list(control.handle(Signed(sign.request_id, one.identity.sign(sign.payload)), NOW_NS))
    store = next(e for e in effects if isinstance(e, StoreRoster))
    assert not any(isinstance(e, AdmitPeer | SendControl) for e in effects)
    again = list(control.handle(ControlReceived(bearer, DIRECT, join_request(identity, "four")), NOW_NS + SECOND_NS))
    assert not any(isinstance(e, AdmitPeer | SendControl | StoreRoster) for e in again)
    effects = list(control.handle(Stored(store.version), NOW_NS + 2 * SECOND_NS))
    assert identity.public_key in admitted(effects)
    assert any(isinstance(e, SendControl) and e.node == bearer for e in effects)


def test_a_removed_member_is_expelled_from_the_device() -> None:
    one, two, _ = plans()
    control, _ = control_of(one)
    effects = settle(control, list(control.handle(RemoveAsked(two.member.node), NOW_NS)), one, NOW_NS)
    assert ExpelPeer(two.member.public_key) in effects
    assert two.member.node not in control.admitted
    assert control.mesh.peer_report(two.member.node, NOW_NS) is None
    assert two.member.public_key not in admitted(list(control.handle(NicRestarted(), NOW_NS)))


def test_a_changed_profile_is_admitted_anew_and_an_unchanged_one_is_not() -> None:
    one, _, _ = plans()
    moved = msgspec.structs.replace(one.member, endpoints=(("192.0.2.99", 7747),))
    control, effects = control_of(one, own=moved)
    assert any(isinstance(e, Sign) for e in effects), "our new address must be told"
    control, effects = control_of(one)
    assert not any(isinstance(e, Sign | StoreRoster) for e in effects), "a restart is no news"
    assert admitted(settle(control, effects, one, NOW_NS)).keys() == {
        peer.public_key for peer in control.admitted.values()
    }


def test_snapshot_and_restore_in_the_middle_of_everything_change_nothing() -> None:
    one, two, three = plans()
    control, _ = control_of(one)
    control.handle(InviteIssued(INVITED, WALL_S + 600), NOW_NS)
    for plan in (two, three):
        control.handle(SessionUp(plan.member.node, 1), NOW_NS)
    control.handle(ControlReceived(two.member.node, DIRECT, b"\x91\x7f"), NOW_NS)
    now_ns = NOW_NS
    for step in range(200):
        copy = Control.restore(control.snapshot())
        assert copy.snapshot() == control.snapshot()
        assert copy.deadline_ns == control.deadline_ns
        assert copy.unknown_messages == 1
        now_ns = max(now_ns, control.deadline_ns or now_ns)
        event = Tick() if step % 7 else SessionDown(two.member.node) if step % 2 else SessionUp(two.member.node, step)
        assert list(copy.handle(event, now_ns)) == list(control.handle(event, now_ns))
        control = copy  # So a difference that shows late shows too.


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x94\xc4\x00", b"\xff" * 40])
def test_a_damaged_snapshot_is_an_error_of_the_house(damage: bytes) -> None:
    with pytest.raises(CorruptError):
        Control.restore(damage)


def test_the_kind_restores_what_the_machine_wrote() -> None:
    control, _ = control_of(plans()[0])
    assert KIND.restore(control.snapshot()).snapshot() == control.snapshot()
    assert node_id_of(PublicKey(INVITED)) not in control.admitted


def test_who_says_that_it_is_slow_is_kept_from_relaying_and_what_ails_us_is_told() -> None:
    one, two, three = plans()
    control, _ = control_of(one)
    for plan in (two, three):
        control.handle(SessionUp(plan.member.node, 1), NOW_NS)
    said = encode_ailments(
        Ailments(7, 1, (Ailment(two.member.node, "cpu", failed=False, age_s=7, usual_us=1000, newest_us=4000),))
    )
    effects = list(control.handle(ControlReceived(two.member.node, DIRECT, said), NOW_NS + 1))
    assert [effect.what for effect in effects if isinstance(effect, HealthNotice)] == ["cpu"]
    assert control.bulletin.health(two.member.node).shunned
    effects = list(control.handle(Found(b"", "disk", State.SLOW, NOW_NS, 1_000_000, 90_000_000), NOW_NS + 2))
    told = [effect for effect in effects if isinstance(effect, SendControl)]
    assert {effect.node for effect in told} == {two.member.node, three.member.node}
    assert {effect.payload[1] for effect in told} == {HEALTH_TAGS[0]}
    restored = Control.restore(control.snapshot())
    assert restored.bulletin.health(two.member.node) == control.bulletin.health(two.member.node)
    assert restored.snapshot() == control.snapshot()
    assert control.deadline_ns is not None
    assert control.bulletin.linked
    effects = list(control.handle(NicRestarted(), NOW_NS + 3))
    assert not control.bulletin.linked, "the sessions went with the device"
    later_ns = NOW_NS + 100 * SECOND_NS
    control.handle(Tick(), later_ns)
    assert not control.bulletin.health(two.member.node).shunned, "it was not said again"
