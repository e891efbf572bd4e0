# SPDX-License-Identifier: Apache-2.0
"""The joiner's machine: losses, refusals, silence and lies."""

import pytest

from atoll.base.errors import CorruptError, UsageError
from atoll.base.ids import GroupId
from atoll.base.units import SECOND_NS
from atoll.core.machine import Tick
from atoll.group import (
    GroupReceived,
    Joined,
    JoinFailed,
    Joining,
    JoinOptions,
    PeerLinked,
    PeerUnlinked,
    Roster,
    SendGroup,
    founding_roster,
    invite_public_key,
    join_proof,
)
from atoll.group.limits import JOIN_CONNECT_NS, JOIN_NS_MAX, JOIN_STALL_NS
from atoll.group.messages import JoinAccept, JoinRefused, JoinRequest, decode, encode
from atoll.group.statement import Admit, signed
from tests.unit.group_world import World, identity, record

INVITER = identity(0)


def joining(**changes: object) -> Joining:
    key = invite_public_key(b"s" * 16)
    prefix = changes.get("prefix", INVITER.signing_key[:8])
    assert isinstance(prefix, bytes)
    proof = join_proof(identity(7), key, record(7))
    return Joining.create(JoinOptions(record(7), proof, INVITER.public_key, prefix, "192.0.2.1 port 1"), 0)


def accept(roster: Roster, **changes: object) -> GroupReceived:
    statements = roster.statements()
    fields: dict[str, object] = {
        "group": roster.group,
        "digest": roster.digest(),
        "total": len(statements),
        "first": 0,
        "statements": statements,
    }
    return GroupReceived(INVITER.node, encode(JoinAccept(**{**fields, **changes})))  # type: ignore[arg-type]  # By name.


def grown(*seeds: int) -> Roster:
    roster = founding_roster(INVITER, record(0))
    for seed in seeds:
        roster.add(signed(roster.group, roster.draft(roster.group, Admit(record(seed))), INVITER.sign))
    return roster


def refusal(machine: Joining, event: GroupReceived) -> JoinFailed:
    (effect,) = machine.handle(event, 0)
    assert isinstance(effect, JoinFailed)
    assert machine.deadline_ns is None
    assert machine.handle(Tick(), 0) == ()
    return effect


def test_joining_asks_until_it_is_answered() -> None:
    machine = joining()
    assert machine.deadline_ns == JOIN_CONNECT_NS
    assert machine.handle(PeerLinked(b"o" * 10), 1) == ()
    (asked,) = machine.handle(PeerLinked(INVITER.node), 1)
    assert isinstance(asked, SendGroup)
    request = decode(asked.payload)
    assert isinstance(request, JoinRequest)
    assert request.member == record(7)
    now_ns = machine.deadline_ns
    assert now_ns == SECOND_NS + 1
    assert machine.handle(Tick(), now_ns) == (asked,)
    assert machine.handle(PeerUnlinked(INVITER.node), now_ns) == ()
    assert machine.handle(PeerUnlinked(b"o" * 10), now_ns) == ()
    assert machine.deadline_ns == JOIN_STALL_NS + 1
    assert machine.handle(PeerLinked(INVITER.node), now_ns) == (asked,)
    (done,) = machine.handle(accept(grown(7)), now_ns)
    assert isinstance(done, Joined)
    assert Roster.decode(done.roster).find(identity(7).node) == record(7)
    assert machine.deadline_ns is None


def test_silence_ends() -> None:
    machine = joining()
    assert machine.handle(Tick(), JOIN_CONNECT_NS - 1) == ()
    (failed,) = machine.handle(Tick(), JOIN_CONNECT_NS)
    assert failed == JoinFailed("A205", "inviter at 192.0.2.1 port 1: no answer to the handshake")
    machine = joining()
    machine.handle(PeerLinked(INVITER.node), 0)
    (failed,) = machine.handle(Tick(), JOIN_STALL_NS)
    assert failed == JoinFailed("A205", "inviter at 192.0.2.1 port 1: it answered the handshake, then no more")


def test_an_inviter_that_never_finishes_ends_too() -> None:
    machine = joining()
    machine.handle(PeerLinked(INVITER.node), 0)
    now_ns = 0
    for number in range(100):
        now_ns = number * 10 * SECOND_NS
        effects = machine.handle(accept(grown(7), digest=number.to_bytes(16, "big"), total=9), now_ns)
        effects += machine.handle(Tick(), now_ns)
        if any(isinstance(effect, JoinFailed) for effect in effects):
            break
    assert now_ns == JOIN_NS_MAX


@pytest.mark.parametrize(
    ("code", "known"),
    [(1, "A203"), (2, "A204"), (3, "A206"), (4, "A209"), (5, "A208"), (7, "A208"), (8, "A207"), (99, "A208")],
)
def test_refusals_are_named(code: int, known: str) -> None:
    event = GroupReceived(INVITER.node, encode(JoinRefused(code, 1, 1)))
    assert refusal(joining(), event).code == known


@pytest.mark.parametrize(("low", "high", "older"), [(2, 9, "this machine"), (0, 0, "the inviter")])
def test_a_version_skew_names_the_older(low: int, high: int, older: str) -> None:
    event = GroupReceived(INVITER.node, encode(JoinRefused(5, low, high)))
    failed = refusal(joining(), event)
    assert failed.where == (
        f"inviter at 192.0.2.1 port 1: protocols there {low} to {high}, here 1 to 1; upgrade atoll on {older}"
    )


def test_another_group_is_refused() -> None:
    assert refusal(joining(prefix=b"another1"), accept(grown(7))).code == "A202"


def test_a_list_that_lies_is_refused() -> None:
    without_us = refusal(joining(), accept(grown(6)))
    assert without_us.code == "A205"
    assert "lacks" in without_us.where
    roster = grown(7)
    forged = tuple(s.draft.with_signature(bytes(64)) for s in roster.statements())
    assert "does not verify" in refusal(joining(), accept(roster, statements=forged)).where
    other = Roster(GroupId(identity(9).signing_key))
    for seed in (9, 7):
        other.add(signed(other.group, other.draft(other.group, Admit(record(seed))), identity(9).sign))
    without_inviter = refusal(joining(prefix=identity(9).signing_key[:8]), accept(other))
    assert "lacks" in without_inviter.where


def test_garbage_is_ignored() -> None:
    machine = joining()
    roster = grown(7)
    for event in (
        GroupReceived(INVITER.node, b"\x90"),
        GroupReceived(b"o" * 10, encode(JoinRefused(1, 1, 1))),
        GroupReceived(INVITER.node, encode(JoinRequest(1, 1, record(7), bytes(64), 0))),
        accept(roster, total=0),
        accept(roster, total=60_000),
        accept(roster, first=1),
    ):
        assert machine.handle(event, 0) == ()
    with pytest.raises(UsageError):
        machine.handle(Tick(), -1)


def test_parts_come_in_any_order_and_are_asked_for_again() -> None:
    machine = joining()
    machine.handle(PeerLinked(INVITER.node), 0)
    roster = grown(5, 6, 7)
    parts = roster.statements()
    assert machine.handle(accept(roster, first=2, statements=parts[2:3]), 0) == ()
    assert machine.handle(accept(roster, first=0, statements=parts[:1]), 0) == ()
    due_ns = machine.deadline_ns
    assert due_ns == SECOND_NS // 4
    (asked,) = machine.handle(Tick(), due_ns)
    assert isinstance(asked, SendGroup)
    request = decode(asked.payload)
    assert isinstance(request, JoinRequest)
    assert request.have == 1
    copy = Joining.restore(machine.snapshot())
    for each in (machine, copy):
        assert each.handle(accept(roster, first=3, statements=parts[3:]), due_ns) == ()
        (done,) = each.handle(accept(roster, first=1, statements=parts[1:2]), due_ns)
        assert done == Joined(roster.group, roster.encode())
    with pytest.raises(CorruptError):
        Joining.restore(b"\x80\x80")


def test_a_roster_that_changes_meanwhile_is_gathered_anew() -> None:
    machine = joining()
    machine.handle(PeerLinked(INVITER.node), 0)
    assert machine.handle(accept(grown(7), statements=grown(7).statements()[:1]), 0) == ()
    later = grown(7, 8)
    assert machine.handle(accept(later, statements=later.statements()[:2]), 0) == ()
    (done,) = machine.handle(accept(later, first=2, statements=later.statements()[2:]), 0)
    assert done == Joined(later.group, later.encode())


def test_a_large_group_is_joined_over_a_bad_link() -> None:
    world = World()
    founder = world.start("m0", 0, grown(*range(100, 400)))
    drops = iter(range(10**9))
    world.lost = lambda _from, _to, _payload: next(drops) % 3 == 0
    world.give(founder, PeerLinked(b"?" * 10))
    machine = world.join(founder, 7)
    world.advance(20 * SECOND_NS)
    assert isinstance(machine.log[-1], JoinFailed)  # 64 members are the limit...
    assert machine.log[-1].code == "A209"
    world = World()
    roster = grown(*range(100, 160))
    for _ in range(4):
        for seed in range(100, 160):
            who = identity(seed)
            roster.add(signed(roster.group, roster.draft(who.signing_key, Admit(record(seed))), who.sign))
    founder = world.start("m0", 0, roster)
    assert len(roster) == 301
    world.lost = lambda _from, _to, _payload: next(drops) % 3 == 0
    machine = world.join(founder, 7)  # ...and 301 statements are no obstacle.
    world.advance(20 * SECOND_NS)
    assert isinstance(machine.log[-1], Joined)
    assert Roster.decode(machine.disk).digest() == founder.group.roster.digest()


def test_a_joiner_must_be_sound() -> None:
    with pytest.raises(UsageError):
        joining(prefix=b"short")
