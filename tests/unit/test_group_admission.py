# SPDX-License-Identifier: Apache-2.0
"""Invitations from the inviter's side: who is admitted, who is refused and why, and what waits for the disk."""

import pytest

from atoll.base.ids import node_id_of
from atoll.base.member import Member
from atoll.base.units import HOUR_NS, MINUTE_NS, SECOND_NS
from atoll.group import (
    GroupEffect,
    GroupReceived,
    InviteIssued,
    InvitePeer,
    Joined,
    JoinFailed,
    RemoveAsked,
    SendGroup,
    Sign,
    Stored,
    UninvitePeer,
    WallClock,
    founding_roster,
    invite_public_key,
    join_proof,
)
from atoll.group.limits import (
    INVITES_MAX,
    ISSUER_STATEMENTS_MAX,
    PENDING_MAX,
)
from atoll.group.messages import (
    JoinRefused,
    JoinRequest,
    Push,
    decode,
    encode,
)
from atoll.group.statement import Admit, Remove, signed
from tests.unit.group_world import WALL_S, World, identity, record


def settle(world: World) -> None:
    world.advance(3 * SECOND_NS)


def test_an_invitation_makes_a_member() -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    joining = world.join(first, 7)
    assert isinstance(joining.log[-1], Joined)
    assert second.names() == ["m0", "m7"]
    assert first.said(InvitePeer)
    assert [n.sentence for n in first.notices("joined")][-1] == "m7 joined the group"
    seventh = world.start("m7", 7, joining.disk)
    assert seventh.names() == ["m0", "m1"]


def test_a_taken_name_is_told_apart_at_admission() -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    joining = world.join(first, 7, member=record(7, "m1"))
    seventh = world.start("m7", 7, joining.disk, member=record(7, "m1"))
    assert seventh.group.own.name == "m1-2"
    world.link(seventh, second)
    settle(world)
    assert second.names() == ["m0", "m1-2"]


def test_an_accept_waits_for_the_disk() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    founder.disk_works = False
    joining = world.join(founder, 7)
    world.advance(3 * SECOND_NS)
    assert not joining.said(Joined)
    founder.disk_works = True
    world.give(founder, Stored(10_000))
    world.run()
    assert isinstance(joining.log[-1], Joined)


def test_an_invitation_belongs_to_the_first() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.join(founder, 7, secret=b"s" * 16)
    thief = world.joiner(founder, 8, b"s" * 16)
    world.link(thief, founder)
    world.run()
    assert thief.log[-1] == JoinFailed("A204", "inviter at x: the inviter says that another machine joined with it")
    again = world.joiner(founder, 7, b"s" * 16)  # Its answer was lost; it asks again.
    world.link(again, founder)
    world.run()
    assert isinstance(again.log[-1], Joined)
    assert len(founder.group.roster) == 2


@pytest.mark.parametrize("step_s", [0, -3600])
def test_an_invitation_expires_whatever_the_wall_clock_does(step_s: int) -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    world.advance(9 * MINUTE_NS)
    world.give(founder, WallClock(WALL_S + 540 + step_s))
    world.advance(2 * MINUTE_NS)
    late = world.joiner(founder, 7, b"s" * 16)
    world.link(late, founder)
    world.run()
    assert late.log[-1] == JoinFailed("A203", "inviter at x: the inviter says that it has expired")
    # After an hour nobody answers any more.
    world.advance(HOUR_NS)
    assert founder.log[-1] == UninvitePeer(invite_public_key(b"s" * 16))
    later = world.joiner(founder, 7, b"s" * 16)
    world.link(later, founder)
    world.run()
    assert founder.group.counts["stranger"] == 1


def test_a_wall_clock_that_jumps_ahead_expires_it() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    world.give(founder, WallClock(WALL_S + 601))  # It slept: the monotonic clock stood still.
    late = world.joiner(founder, 7, b"s" * 16)
    world.link(late, founder)
    world.run()
    assert isinstance(late.log[-1], JoinFailed)


def test_the_removed_cannot_be_invited_back() -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    world.give(first, RemoveAsked(second.node))
    joining = world.join(first, 1, secret=b"s" * 16)
    assert isinstance(joining.log[-1], JoinFailed)
    assert joining.log[-1].code == "A206"


def test_half_an_identity_is_a_clash() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    half = Member(identity(0).public_key, identity(7).signing_key, "m7")
    joining = world.join(founder, 7, member=half)
    assert isinstance(joining.log[-1], JoinFailed)
    assert joining.log[-1].code == "A207"


def test_a_full_group_admits_nobody() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    for seed in range(1, 64):
        assert isinstance(world.join(founder, seed).log[-1], Joined)
    last = world.join(founder, 64)
    assert isinstance(last.log[-1], JoinFailed)
    assert last.log[-1].code == "A209"
    assert len(founder.decided) == 63


def test_an_issuer_without_counters_admits_nobody() -> None:
    world = World()
    roster = founding_roster(identity(0), record(0))
    removed = Remove(identity(99).node, identity(99).signing_key, ())
    for _ in range(ISSUER_STATEMENTS_MAX - 2):
        roster.add(signed(roster.group, roster.draft(roster.group, removed), identity(0).sign))
    roster.add(signed(roster.group, roster.draft(roster.group, Admit(record(1))), identity(0).sign))
    founder = world.start("m0", 0, roster)
    joining = world.join(founder, 7)
    assert isinstance(joining.log[-1], JoinFailed)
    assert joining.log[-1].code == "A209"
    again = world.joiner(founder, 7, (7).to_bytes(16, "big"))
    world.link(again, founder)
    world.run()
    assert isinstance(again.log[-1], JoinFailed)
    world.give(founder, RemoveAsked(identity(1).node))
    assert [notice.code for notice in founder.notices("full")] == ["A209"]  # Said once.


def test_many_bearers_at_once_wait_or_are_refused() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    group, answers = founder.group, list[GroupEffect]()
    for seed in range(1, PENDING_MAX + 4):
        key = invite_public_key(bytes([seed]) * 16)
        request = JoinRequest(1, 1, record(seed), join_proof(identity(seed), key, record(seed)), 0)
        group.handle(InviteIssued(key, WALL_S + 600), 0)
        answers += group.handle(GroupReceived(node_id_of(key), encode(request)), 0)
    sent = [decode(effect.payload) for effect in answers if isinstance(effect, SendGroup)]
    assert sent == [JoinRefused(4, 1, 1)] * 2
    assert len([effect for effect in answers if isinstance(effect, Sign)]) == 1


def test_a_member_may_join_again() -> None:
    world = World()
    first, _ = world.found(1)
    settle(world)
    size = len(first.group.roster)
    joining = world.join(first, 1, secret=b"s" * 16)
    assert isinstance(joining.log[-1], Joined)
    assert len(first.group.roster) == size


def test_a_bearer_that_talks_nonsense() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    joining = world.joiner(founder, 7, b"s" * 16)
    world.invite(founder, b"s" * 16)
    world.give(founder, GroupReceived(joining.node, encode(Push(()))))
    assert founder.group.counts == {"bearer out of place": 1}
    for request, code in (
        (JoinRequest(1, 1, record(7), bytes(64), 0), 7),
        (JoinRequest(2, 9, record(7), bytes(64), 0), 5),
    ):
        world.give(founder, GroupReceived(joining.node, encode(request)))
        sent = founder.log[-1]
        assert isinstance(sent, SendGroup)
        assert decode(sent.payload) == JoinRefused(code, 1, 1)


def test_invitations_are_bounded() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    for number in range(INVITES_MAX + 3):
        world.now_ns += SECOND_NS
        world.give(founder, InviteIssued(number.to_bytes(32, "big"), WALL_S + 10_000))
    assert founder.said(UninvitePeer) == [UninvitePeer(number.to_bytes(32, "big")) for number in range(3)]
