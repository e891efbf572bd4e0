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
    StoreRoster,
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
from tests.unit.group_world import WALL_S, Process, World, identity, record


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


# From one process to the next.


def test_an_open_invitation_survives_its_inviter() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    assert b"s" * 16 not in founder.disk, "the secret is kept nowhere"
    again = world.restart(world.restart(founder))
    assert again.said(InvitePeer) == [InvitePeer(invite_public_key(b"s" * 16))]
    joining = world.joiner(again, 7, b"s" * 16)
    world.link(joining, again)
    world.run()
    assert isinstance(joining.log[-1], Joined)
    assert again.names() == ["m7"]


def test_a_used_invitation_stays_used_after_a_restart() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.join(founder, 7, secret=b"s" * 16)
    again = world.restart(founder)
    size = len(again.group.roster)
    thief = world.joiner(again, 8, b"s" * 16)
    world.link(thief, again)
    world.run()
    assert isinstance(thief.log[-1], JoinFailed)
    assert thief.log[-1].code == "A204"
    owner = world.joiner(again, 7, b"s" * 16)  # The answer died with the inviter; it asks again.
    world.link(owner, again)
    world.run()
    assert isinstance(owner.log[-1], Joined)
    assert len(again.group.roster) == size


@pytest.mark.parametrize("writes", range(4))
@pytest.mark.parametrize("is_member", [False, True])
def test_a_crash_at_any_write_serves_one_bearer_alone(writes: int, *, is_member: bool) -> None:
    """The inviter dies after so many writes; then a thief comes first, then the one who was there before."""
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    if is_member:
        world.join(founder, 7)
    world.invite(founder, b"s" * 16)
    founder.writes_left = writes
    first = world.joiner(founder, 7, b"s" * 16)
    world.link(first, founder)
    world.run()
    again = world.restart(founder)
    thief = world.joiner(again, 8, b"s" * 16)
    world.link(thief, again)
    world.run()
    second = world.joiner(again, 7, b"s" * 16)
    world.link(second, again)
    world.run()
    served = {7: first.said(Joined) + second.said(Joined), 8: thief.said(Joined)}
    assert [bool(served[7]), bool(served[8])] in ([True, False], [False, True])
    assert bool(first.said(Joined)) == (writes > 0), "with the first write whose it is is known, and it counts"


def test_bound_on_disk_but_not_admitted_may_ask_again() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    for secret in (b"a" * 16, b"b" * 16):
        world.invite(founder, secret)
    founder.writes_left = 0  # The first one's admission waits for the disk, the second one's for the first.
    for seed, secret in ((7, b"a" * 16), (8, b"b" * 16)):
        world.link(world.joiner(founder, seed, secret), founder)
    world.run()
    stores = [effect for effect in founder.said(StoreRoster) if isinstance(effect, StoreRoster)]
    world.give(founder, InviteIssued(invite_public_key(b"c" * 16), WALL_S + 600))  # So that both are written as bound.
    latest = founder.said(StoreRoster)[-1]
    assert isinstance(latest, StoreRoster)
    assert latest.version == stores[-1].version + 1
    founder.disk = latest.roster
    again = world.restart(founder)
    assert again.names() == ["m7"]
    thief = world.joiner(again, 9, b"b" * 16)
    owner = world.joiner(again, 8, b"b" * 16)
    for bearer in (thief, owner):
        world.link(bearer, again)
        world.run()
    assert isinstance(thief.log[-1], JoinFailed)
    assert thief.log[-1].code == "A204"
    assert isinstance(owner.log[-1], Joined)
    assert again.names() == ["m7", "m8"]


def test_a_member_that_joins_again_waits_until_the_use_is_on_disk() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.join(founder, 7)
    world.invite(founder, b"s" * 16)
    founder.disk_works = False
    again = world.joiner(founder, 7, b"s" * 16)
    world.link(again, founder)
    world.advance(3 * SECOND_NS)
    assert not again.said(Joined)
    use = founder.said(StoreRoster)[-1]
    assert isinstance(use, StoreRoster)
    world.invite(founder, b"t" * 16)  # A later version waits for the disk as well; ours does not wait for that one.
    world.give(founder, Stored(use.version))
    world.run()
    assert isinstance(again.log[-1], Joined)


def test_a_bearer_that_came_in_time_may_repeat_itself_when_it_is_over() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    founder.disk_works = False
    joining = world.joiner(founder, 7, b"s" * 16)
    world.link(joining, founder)
    world.run()
    world.advance(11 * MINUTE_NS)
    again = world.joiner(founder, 7, b"s" * 16)
    world.link(again, founder)
    world.run()
    assert not again.said(JoinFailed), "its admission is only waiting for the disk"
    world.give(founder, Stored(10_000))
    world.run()
    assert isinstance(again.log[-1], Joined)
    world.give(founder, Stored(20_000))
    assert len(founder.group.roster) == 2, "one admission, however often it asked"
    assert late(world, founder) == "", "a member already"


def test_what_is_over_can_still_be_written() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    world.advance(11 * MINUTE_NS)
    world.invite(founder, b"t" * 16)
    again = world.restart(founder)
    assert late(world, again) == "A203"
    assert late(world, again, b"t" * 16) == ""


def test_who_is_removed_after_it_joined_is_told_so() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.join(founder, 7, secret=b"s" * 16)
    world.give(founder, RemoveAsked(identity(7).node))
    size = len(founder.group.roster)
    back = world.joiner(founder, 7, b"s" * 16)
    world.link(back, founder)
    world.run()
    assert isinstance(back.log[-1], JoinFailed)
    assert back.log[-1].code == "A206"
    assert len(founder.group.roster) == size


def late(world: World, founder: Process, secret: bytes = b"s" * 16) -> str:
    """Ask with it now; return the code of the refusal, or nothing."""
    bearer = world.joiner(founder, 7, secret)
    world.link(bearer, founder)
    world.run()
    return bearer.log[-1].code if isinstance(bearer.log[-1], JoinFailed) else ""


@pytest.mark.parametrize(("restart_s", "ask_s", "code"), [(300, 599, ""), (300, 601, "A203"), (601, 602, "A203")])
def test_a_restart_does_not_prolong_an_invitation(restart_s: int, ask_s: int, code: str) -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    world.advance(restart_s * SECOND_NS)
    again = world.restart(founder)
    world.advance((ask_s - restart_s) * SECOND_NS)
    assert late(world, again) == code


def test_a_clock_set_back_between_two_processes_ends_all_that_were_open() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    world.wall_off_s = -3600
    again = world.restart(founder)
    assert late(world, again) == "A203"


def test_a_clock_that_was_adjusted_a_little_does_no_harm() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    world.wall_off_s = -59
    again = world.restart(founder)
    world.advance(500 * SECOND_NS)
    assert late(world, again) == ""


def test_a_clock_set_back_while_it_runs_adds_no_more_than_a_minute_at_a_crash() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    world.advance(5 * SECOND_NS)
    world.wall_off_s = -1800
    world.give(founder, WallClock(WALL_S + 5 - 1800))
    world.advance(9 * MINUTE_NS)
    again = world.restart(founder)
    world.advance(2 * MINUTE_NS)
    assert late(world, again) == "A203"


def test_the_disk_is_told_of_the_time_only_while_one_is_open() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    world.advance(HOUR_NS)
    assert len(founder.said(StoreRoster)) == 11
    used = world.restart(founder)
    world.join(used, 7, secret=b"t" * 16)
    writes = len(used.said(StoreRoster))
    world.advance(HOUR_NS)
    assert len(used.said(StoreRoster)) == writes


def test_what_was_forgotten_does_not_come_back() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.invite(founder, b"s" * 16)
    world.advance(69 * MINUTE_NS)
    again = world.restart(founder)
    assert late(world, again) == "A203"
    world.advance(2 * MINUTE_NS)
    assert again.log[-1] == UninvitePeer(invite_public_key(b"s" * 16))
    assert not world.restart(founder).said(InvitePeer)


def test_a_wall_clock_of_before_1970_can_be_written() -> None:
    world = World()
    world.wall_off_s = -WALL_S - 1000
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.give(founder, InviteIssued(invite_public_key(b"s" * 16), -400))
    world.restart(founder)


def test_two_bearers_with_one_key_between_them_are_told_apart_when_the_first_is_in() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    half = Member(identity(9).public_key, identity(7).signing_key, "m7")
    founder.disk_works = False  # While one admission waits, the other clashes with nobody yet.
    world.join(founder, 7)
    clash = world.joiner(founder, 7, b"s" * 16, member=half)
    world.invite(founder, b"s" * 16)
    world.link(clash, founder)
    founder.disk_works = True
    world.give(founder, Stored(10_000))
    world.advance(5 * SECOND_NS)
    assert isinstance(clash.log[-1], JoinFailed)
    assert clash.log[-1].code == "A207"
    assert len(founder.group.roster) <= 3
