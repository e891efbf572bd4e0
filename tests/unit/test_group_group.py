# SPDX-License-Identifier: Apache-2.0
"""The membership machine: news, repair, removal, invitations, version skew and twins, in a world without packets."""

from itertools import pairwise

import msgspec
import pytest

from atoll.base.errors import CorruptError, UsageError
from atoll.base.member import Member
from atoll.base.units import HOUR_NS, MINUTE_NS, SECOND_NS
from atoll.core.machine import Tick
from atoll.group import (
    DuplicateIdentity,
    Group,
    GroupInput,
    GroupOptions,
    GroupReceived,
    MembersDecided,
    PeerLinked,
    PeerUnlinked,
    ProfileChanged,
    RemoveAsked,
    Removed,
    Roster,
    SendGroup,
    Sign,
    Signed,
    Stored,
    StoreRoster,
    founding_roster,
    invite_public_key,
)
from atoll.group.limits import (
    PENDING_MAX,
    RESTATE_NS,
    SUMMARY_GAP_NS,
    SYNC_MESSAGES_MAX,
    TWIN_GRACE_NS,
)
from atoll.group.messages import (
    REFUSED_DUPLICATE,
    Digest,
    Hello,
    JoinRefused,
    Push,
    Refused,
    Summary,
    decode,
    encode,
)
from atoll.group.statement import Admit, Draft, signed
from tests.unit.group_world import WALL_S, Process, World, identity, record


def same(processes: list[Process]) -> bool:
    return len({process.group.roster.digest() for process in processes}) == 1


def settle(world: World) -> None:
    world.advance(3 * SECOND_NS)


# A copy of a machine says where the machine is.


def moved(seed: int, host: str) -> Member:
    return msgspec.structs.replace(record(seed), endpoints=((host, 41641),))


def test_what_a_copy_said_of_us_is_put_right_when_we_hear_of_it() -> None:
    world = World()
    first, second = world.found(1)
    own, false = moved(1, "192.0.2.1"), moved(1, "192.0.2.9")
    world.give(second, ProfileChanged(own))
    settle(world)
    copy = world.start("copy", 1, second.disk, boot=77, member=false)
    world.link(copy, first)
    settle(world)
    assert first.decided == (false,)
    del world.processes["copy"]
    world.link(second, first)
    world.advance(RESTATE_NS + SECOND_NS)
    assert first.decided == (own,)
    assert second.group.own == own
    rest = len(second.said(Sign))
    world.advance(HOUR_NS)
    assert len(second.said(Sign)) == rest, "said once, it needs not be said again"


def test_two_that_are_never_told_of_each_other_contradict_each_other_ever_more_seldom() -> None:
    world = World()
    first, second = world.found(1)
    copy = world.start("copy", 1, second.disk, boot=77, member=moved(1, "192.0.2.9"))
    world.lost = lambda _from, _to, payload: isinstance(decode(payload), Refused)
    began = len(second.said(Sign)) + len(copy.said(Sign))
    for _ in range(24 * 60):
        for process in (second, copy):
            world.link(process, first)
            world.advance(MINUTE_NS // 2)
    said = len(second.said(Sign)) + len(copy.said(Sign)) - began
    assert 4 <= said <= 30


# Start.


def test_a_founder_starts_alone() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    assert founder.said(MembersDecided) == [MembersDecided((), founder.group.roster.version_text())]
    assert founder.group.deadline_ns is None
    assert founder.group.own == record(0)
    assert founder.group.group == identity(0).signing_key


def test_a_start_with_another_record_tells_the_others() -> None:
    world = World()
    first, second = world.found(1)
    moved = msgspec.structs.replace(record(1), endpoints=(("192.0.2.9", 41641),))
    again = world.start("m1", 1, second.disk, boot=77, member=moved)
    world.link(again, first)
    world.run()
    assert first.decided == (moved,)


def test_a_start_refuses_what_is_not_sound() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    with pytest.raises(UsageError):
        world.start("m0", 0, founder.disk, member=record(0, "m0\n"))
    with pytest.raises(CorruptError):
        world.start("m0", 0, b"\x93")
    with pytest.raises(UsageError):
        world.give(founder, ProfileChanged(record(1)))
    with pytest.raises(UsageError):
        world.give(founder, ProfileChanged(record(0, "m0\n")))


def test_who_is_in_no_roster_stops_at_once() -> None:
    world = World()
    stranger = world.start("m5", 5, founding_roster(identity(0), record(0)))
    assert stranger.log == [Removed(b"", "")]
    assert stranger.group.deadline_ns is None
    world.give(stranger, Tick())
    assert stranger.log == [Removed(b"", "")]


def test_time_does_not_go_back() -> None:
    world = World()
    founder = world.start("m0", 0, founding_roster(identity(0), record(0)))
    world.now_ns = SECOND_NS
    world.give(founder, Tick())
    world.now_ns = 0
    with pytest.raises(UsageError):
        world.give(founder, Tick())


# News and repair.


def test_news_reach_all_at_once() -> None:
    world = World()
    processes = world.found(1, 2, 3)
    world.run()
    assert same(processes)
    world.give(processes[2], ProfileChanged(record(2, "renamed")))
    world.run()
    assert same(processes)
    assert processes[0].names() == ["m1", "m3", "renamed"]


def test_news_wait_for_the_disk() -> None:
    world = World()
    first, second = world.found(1)
    world.run()
    first.disk_works = False
    world.give(first, ProfileChanged(record(0, "renamed")))
    world.run()
    assert second.names() == ["m0"]
    # Neither news from others nor a repair give it away, and what is stored for others has it too.
    world.give(second, ProfileChanged(record(1, "other")))
    world.advance(MINUTE_NS)
    assert second.names() == ["m0"]
    assert first.group.roster.digest() == second.group.roster.digest()
    store = first.said(StoreRoster)[-1]
    assert isinstance(store, StoreRoster)
    assert [member.name for member in Roster.decode(store.roster).members()] == ["renamed", "other"]
    world.give(first, Stored(store.version))
    world.run()
    assert second.names() == ["renamed"]


def test_a_profile_that_is_the_same_says_nothing() -> None:
    world = World()
    first, _ = world.found(1)
    world.run()
    before = len(first.log)
    world.give(first, ProfileChanged(record(0)))
    assert len(first.log) == before


def test_what_was_lost_is_repaired_by_digests() -> None:
    world = World()
    processes = world.found(1, 2, 3)
    settle(world)
    world.lost = lambda _from, to, _payload: to is processes[3]
    world.give(processes[1], RemoveAsked(identity(2).node))
    world.give(processes[0], ProfileChanged(record(0, "renamed")))
    settle(world)
    world.lost = lambda _from, _to, _payload: False
    assert processes[3].names() == ["m0", "m1", "m2"]
    world.advance(21 * SECOND_NS)
    assert processes[3].names() == ["m1", "renamed"]
    assert same([processes[0], processes[1], processes[3]])


def test_news_go_round_where_not_all_are_linked() -> None:
    world = World()
    processes = [*world.found(1, 2, 3, 4, 5)]
    for process in processes:
        process.sessions = {}
        for other in processes:
            world.give(process, PeerUnlinked(other.node))
    for left, right in pairwise(processes):
        world.link(left, right)
    settle(world)
    world.give(processes[0], ProfileChanged(record(0, "renamed")))
    world.run()
    assert processes[5].names() == ["m1", "m2", "m3", "m4", "renamed"]


def test_a_large_difference_comes_in_portions() -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    first.sessions, second.sessions = {}, {}
    world.give(first, PeerUnlinked(second.node))
    world.give(second, PeerUnlinked(first.node))
    roster = first.group.roster
    for seed in range(100, 480):
        assert (
            roster.add(signed(roster.group, roster.draft(roster.group, Admit(record(seed))), identity(0).sign)) == "new"
        )
    world.link(first, second)
    world.run()
    pushes = [e for e in first.said(SendGroup) if isinstance(e, SendGroup) and isinstance(decode(e.payload), Push)]
    assert len(pushes) == SYNC_MESSAGES_MAX
    world.advance(5 * SUMMARY_GAP_NS)
    assert same([first, second])


def test_what_is_asked_is_bounded() -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    nothing = encode(Summary(answer=True, first=bytes(8), last=b"\xff" * 8, lines=()))
    before = len(first.log)
    for _ in range(500):
        world.give(first, GroupReceived(second.node, nothing))
    world.run()
    assert len(first.log) - before <= SYNC_MESSAGES_MAX + 1
    before = len(first.log)
    for number in range(100):
        world.give(first, GroupReceived(second.node, encode(Digest(1, number.to_bytes(16, "big")))))
    assert len(first.log) - before <= 1


def test_idle_costs_next_to_nothing() -> None:
    world = World()
    processes = world.found(*range(1, 50))
    settle(world)
    bytes_before, count_before = world.sent_bytes, world.sent_count
    world.advance(10 * MINUTE_NS)
    assert same(processes)
    # Padding and tag of WireGuard, its header, UDP and IPv4: at most 76 bytes on each.
    bits = 8 * (world.sent_bytes - bytes_before + 76 * (world.sent_count - count_before))
    assert bits // (600 * len(processes)) <= 60  # bit/s of each node; 1000 are allowed.


# Removal.


def test_a_removal_reaches_all_and_the_removed() -> None:
    world = World()
    processes = world.found(1, 2, 3)
    settle(world)
    world.give(processes[1], RemoveAsked(identity(3).node))
    world.run()
    assert [process.names() for process in processes[:3]] == [["m1", "m2"], ["m0", "m2"], ["m0", "m1"]]
    assert processes[3].log[-1] == Removed(identity(1).node, "m1")
    assert processes[3].group.deadline_ns is None
    assert Roster.decode(processes[3].disk).find(identity(3).node) is None
    again = world.start("m3", 3, processes[3].disk)  # It does not come back by a restart.
    assert again.log == [Removed(identity(1).node, "m1")]


def test_a_member_that_heard_tells_the_removed() -> None:
    world = World()
    processes = world.found(1, 2)
    settle(world)
    remover, witness, removed = processes
    world.lost = lambda sender, to, _payload: sender is remover and to is removed
    world.give(remover, PeerUnlinked(witness.node))
    world.give(remover, PeerUnlinked(removed.node))
    world.give(remover, RemoveAsked(removed.node))
    world.run()
    assert witness.names() == ["m0", "m2"]
    # The witness hears of it, from the remover itself or from anybody, and says why before it ends the session.
    world.link(remover, witness)
    world.run()
    assert witness.names() == ["m0"]
    assert removed.log[-1] == Removed(identity(0).node, "m0")


def test_disowning_tells_the_guests() -> None:
    world = World()
    processes = world.found(1)
    settle(world)
    world.join(processes[1], 2)
    guest = world.start("m2", 2, processes[1].disk)
    for process in processes:
        world.link(guest, process)
    settle(world)
    world.give(processes[0], RemoveAsked(identity(1).node, disown=True))
    world.run()
    assert processes[0].names() == []
    assert guest.log[-1] == Removed(b"", "")


def test_nobody_disowns_what_it_stands_on() -> None:
    world = World()
    processes = world.found(1)
    settle(world)
    world.give(processes[1], RemoveAsked(identity(0).node, disown=True))
    assert [notice.node for notice in processes[1].notices("refused")] == [identity(0).node]
    world.run()
    assert processes[0].names() == ["m1"]
    world.give(processes[1], RemoveAsked(identity(0).node))
    world.run()
    assert processes[1].names() == []
    assert processes[0].log[-1] == Removed(identity(1).node, "m1")


def test_leaving() -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    world.give(second, RemoveAsked(identity(1).node))
    world.run()
    assert second.log[-1] == Removed(identity(1).node, "m1")
    assert first.names() == []


def test_removing_nobody() -> None:
    world = World()
    first, _ = world.found(1)
    world.give(first, RemoveAsked(identity(9).node))
    assert first.group.counts["removal of no member"] == 1


def test_own_statements_wait_in_a_bounded_queue() -> None:
    world = World()
    options = GroupOptions(founding_roster(identity(0), record(0)).encode(), record(0), 1, WALL_S, "0.1.0", bytes(32))
    group = Group.create(options, 0)
    group.start(0)
    effects = [e for _ in range(2 * PENDING_MAX) for e in group.handle(RemoveAsked(identity(0).node), 0)]
    assert [type(e).__name__ for e in effects] == ["Sign", "GroupNotice"]
    for number in range(2 * PENDING_MAX):
        group.handle(ProfileChanged(record(0, f"n{number}")), 0)
    assert group.handle(Signed(99, bytes(64)), 0) == []
    # A bad signature costs the statement and nothing else: the next one is asked for.
    (following,) = group.handle(Signed(1, bytes(64)), 0)
    assert isinstance(following, Sign)
    assert group.counts == {"signature out of place": 1, "own statement forged": 1}
    good = identity(0).sign(following.payload)
    (store,) = group.handle(Signed(following.request_id, good), 0)
    assert isinstance(store, StoreRoster)
    assert [type(e) for e in group.handle(Stored(store.version - 1), 0)] == []
    assert group.handle(Stored(store.version), 0) == [Removed(identity(0).node, "m0")]
    assert world.now_ns == 0


# Strangers and garbage.


def test_strangers_and_garbage_are_counted() -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    before, counted = len(first.log), first.group.counts
    world.give(first, GroupReceived(b"s" * 10, encode(Push(()))))
    world.give(first, PeerLinked(b"s" * 10))
    world.give(first, GroupReceived(second.node, b"\x91\x20"))
    world.give(first, GroupReceived(second.node, encode(JoinRefused(1, 1, 1))))
    assert len(first.log) == before
    counts = {reason: count - counted.get(reason, 0) for reason, count in first.group.counts.items()}
    reasons = ["link with a stranger", "stranger", "group message does not decode", "member out of place"]
    assert counts == dict.fromkeys(reasons, 1)


def test_a_forged_push_changes_nothing() -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    forged = Draft(identity(0).signing_key, 9, b"p" * 32, Admit(record(9))).with_signature(bytes(64))
    before = first.group.roster.encode()
    world.give(first, GroupReceived(second.node, encode(Push((forged,)))))
    assert first.group.roster.encode() == before
    assert first.group.counts["statement early"] == 1


def test_a_fork_is_reported_once() -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    issuer = identity(0)
    for seed in (20, 21, 22):
        fork = signed(first.group.group, Draft(issuer.signing_key, 1, b"", Admit(record(seed))), issuer.sign)
        world.give(second, GroupReceived(first.node, encode(Push((fork,)))))
    assert [notice.sentence for notice in second.notices("equivocation")] == [
        "m0 signed two different statements under one number; both count"
    ]


# Versions and twins.


@pytest.mark.parametrize(("low", "high", "older"), [(2, 3, "this node"), (0, 0, "m1")])
def test_a_version_skew_is_named(low: int, high: int, older: str) -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    before = len(first.log)
    for _ in range(2):
        world.give(first, GroupReceived(second.node, encode(Hello(low, high, 1001, WALL_S, "9.9"))))
    world.give(first, GroupReceived(second.node, encode(Digest(1001, bytes(16)))))
    sent = [decode(e.payload) for e in first.log[before:] if isinstance(e, SendGroup)]
    assert sent == [Refused(5, 1001, 1, 1, "0.1.0")] * 2
    (notice,) = first.notices("version")
    assert notice.code == "A208"
    assert notice.fix == f"upgrade atoll on {older}"
    assert first.group.counts["other protocol"] == 1
    # The other side's word for it.
    for _ in range(2):
        world.give(second, GroupReceived(first.node, encode(Refused(5, 1001, low, high, "9.9"))))
    assert len(second.notices("version")) == 1
    assert (first.group.skewed, second.group.skewed) == ((second.node,), (first.node,))
    world.give(
        first, GroupReceived(second.node, encode(Hello(1, max(high, 1), 1001, WALL_S, "9.9")))
    )  # It was upgraded.
    assert first.group.skewed == ()


def test_a_restart_is_no_twin() -> None:
    world = World()
    first, second = world.found(1)
    settle(world)
    again = world.start("again", 1, second.disk, boot=5)
    world.link(again, first)
    # A packet of the process before, late by almost the grace.
    world.now_ns += TWIN_GRACE_NS - 1
    world.give(first, GroupReceived(second.node, encode(Digest(1001, first.group.roster.digest()))))
    world.processes.pop("m1")
    world.advance(HOUR_NS)
    third = world.start("third", 1, second.disk, boot=3)
    world.link(third, first)
    world.processes.pop("again")
    world.advance(HOUR_NS)
    assert first.notices("twin") == []
    assert not again.said(DuplicateIdentity)
    assert not third.said(DuplicateIdentity)


@pytest.mark.parametrize("boot", [1, 10**9])
@pytest.mark.parametrize("newer_first", [False, True])
def test_of_twins_the_one_started_later_stops(*, boot: int, newer_first: bool) -> None:
    world = World()
    first, older = world.found(1)
    settle(world)
    world.now_ns += MINUTE_NS
    newer = world.start("twin", 1, older.disk, boot=boot)
    order = [newer, older] if newer_first else [older, newer]
    for _ in range(4):  # Each takes the session from the other, again and again.
        for process in order:
            if not process.said(DuplicateIdentity):
                world.link(process, first)
                world.advance(15 * SECOND_NS)
    assert newer.log[-1] == DuplicateIdentity(identity(0).node, "m0")
    assert not older.said(DuplicateIdentity)
    assert older.group.deadline_ns is not None
    (notice,) = first.notices("twin")
    assert notice.code == "A207"
    assert len(older.notices("twin")) <= 1


def test_twins_that_share_a_session_are_found_by_their_digests() -> None:
    world = World()
    first, older = world.found(1)
    settle(world)
    newer = world.start("twin", 1, older.disk, boot=9)
    world.link(newer, first)
    world.run()
    world.now_ns += TWIN_GRACE_NS
    world.give(first, GroupReceived(older.node, encode(Digest(1001, first.group.roster.digest()))))
    world.run()
    assert newer.said(DuplicateIdentity)
    assert not older.said(DuplicateIdentity)
    assert first.group.twinned(world.now_ns) == (older.node,)
    world.give(older, GroupReceived(first.node, encode(Refused(REFUSED_DUPLICATE, 9, 1, 1, "0.1.0"))))
    assert older.group.twinned(world.now_ns) == (older.node,)
    world.processes.pop(newer.name)
    world.advance(2 * MINUTE_NS)
    assert first.group.twinned(world.now_ns) == older.group.twinned(world.now_ns) == ()


def test_a_twin_that_lost_the_session_is_told_when_it_has_it_again() -> None:
    world = World()
    first, older = world.found(1)
    settle(world)
    newer = world.start("twin", 1, older.disk, boot=9)
    world.link(newer, first)
    world.run()
    world.now_ns += TWIN_GRACE_NS
    first.sessions[older.node] = older  # It shook hands last, so what is said to the key reaches the older alone.
    world.give(first, GroupReceived(older.node, encode(Digest(1001, first.group.roster.digest()))))
    world.advance(3 * SECOND_NS)
    assert not newer.said(DuplicateIdentity)
    first.sessions[newer.node] = newer
    world.advance(SECOND_NS)
    assert newer.said(DuplicateIdentity)
    assert not older.said(DuplicateIdentity)
    assert len(first.notices("twin")) == 1


def test_all_members_tell_the_same_twin_to_stop() -> None:
    world = World()
    processes = world.found(1, 2)
    settle(world)
    older, newer = Hello(1, 1, 70, WALL_S + 100, "0.1.0"), Hello(1, 1, 9, WALL_S + 200, "0.1.0")
    for process, order in ((processes[0], (older, newer)), (processes[1], (newer, older))):
        before = len(process.log)
        for delay_s, hello in ((0, order[0]), (1, order[1]), (7, order[0])):
            effects = process.group.handle(
                GroupReceived(processes[2].node, encode(hello)), world.now_ns + delay_s * SECOND_NS
            )
            process.log += effects
        sent = [decode(e.payload) for e in process.log[before:] if isinstance(e, SendGroup)]
        assert sent == [Refused(6, 9, 1, 1, "0.1.0")]


# State.


def test_a_snapshot_goes_on_as_if_nothing_had_happened() -> None:
    world = World()
    first, second, third = world.found(1, 2)
    settle(world)
    world.invite(first, b"s" * 16)
    world.lost = lambda _from, _to, _payload: True
    world.give(second, ProfileChanged(record(1, "renamed")))
    world.give(third, RemoveAsked(identity(1).node))
    world.run()
    copy = Group.restore(first.group.snapshot())
    assert copy.snapshot() == first.group.snapshot()
    assert copy.deadline_ns == first.group.deadline_ns
    inputs: list[GroupInput] = [
        GroupReceived(third.node, encode(Push(third.group.roster.statements()[-1:]))),
        GroupReceived(third.node, encode(Digest(3, bytes(16)))),
        RemoveAsked(identity(1).node),
        ProfileChanged(record(0, "zero")),
        PeerLinked(third.node),
        Tick(),
    ]
    for delay, event in enumerate(inputs):
        now_ns = world.now_ns + delay * 30 * SECOND_NS
        assert list(copy.handle(event, now_ns)) == list(first.group.handle(event, now_ns))
    assert copy.snapshot() == first.group.snapshot()


def test_a_snapshot_that_does_not_decode() -> None:
    with pytest.raises(CorruptError):
        Group.restore(b"\x80\x80")
    with pytest.raises(CorruptError):
        Group.restore(b"")


def test_no_secret_is_in_a_snapshot() -> None:
    world = World()
    _, second = world.found(1)
    world.join(second, 7, secret=b"not in the state")
    snapshot = second.group.snapshot()
    assert bytes(invite_public_key(b"not in the state")) in snapshot
    assert b"not in the state" not in snapshot
    assert identity(1).exchange_secret not in snapshot
