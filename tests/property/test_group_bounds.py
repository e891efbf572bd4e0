# SPDX-License-Identifier: Apache-2.0
"""The roster at its real bounds. Not a unit test only because a thousand signatures take half a second."""

import pytest

from atoll.base.errors import LimitError
from atoll.base.ids import GroupId
from atoll.base.member import Member
from atoll.group import Group, GroupNotice, GroupOptions, GroupReceived, Identity
from atoll.group.limits import ISSUER_STATEMENTS_MAX, STATEMENTS_MAX
from atoll.group.messages import Push, encode
from atoll.group.roster import Outcome, Roster
from atoll.group.statement import Admit, Body, Draft, Remove, digest_of, signed


def identity(seed: int) -> Identity:
    return Identity(seed.to_bytes(2, "big") * 32)


def record(seed: int) -> Member:
    who = identity(seed)
    return Member(who.public_key, who.signing_key, f"m{seed}")


GROUP = GroupId(identity(0).signing_key)


def flood(roster: Roster, by: int, counters: range, previous: bytes) -> None:
    """Let one member admit strangers; the chain is made here, because asking for each draft would be quadratic."""
    who = identity(by)
    for counter in counters:
        statement = signed(
            GROUP, Draft(who.signing_key, counter, previous, Admit(record(1000 * (by + 1) + counter))), who.sign
        )
        assert roster.add(statement) is Outcome.NEW
        previous = digest_of(GROUP, statement)


def say(roster: Roster, by: int, body: Body) -> Outcome:
    return roster.add(signed(GROUP, roster.draft(identity(by).signing_key, body), identity(by).sign))


def test_a_full_roster_is_bounded_and_can_be_cleaned() -> None:
    roster = Roster(GROUP)
    for seed in range(4):
        assert say(roster, 0, Admit(record(seed))) is Outcome.NEW
    flood(roster, 1, range(1, ISSUER_STATEMENTS_MAX + 1), b"")
    with pytest.raises(LimitError, match="ISSUER_STATEMENTS_MAX"):
        roster.draft(identity(1).signing_key, Admit(record(99)))
    flood(roster, 2, range(1, STATEMENTS_MAX - len(roster) + 1), b"")
    assert len(roster) == STATEMENTS_MAX

    # No room for an admission, neither our own nor another's.
    with pytest.raises(LimitError, match="STATEMENTS_MAX"):
        roster.draft(identity(3).signing_key, Admit(record(99)))
    late = signed(GROUP, Draft(identity(3).signing_key, 1, b"", Admit(record(99))), identity(3).sign)
    assert roster.add(late) is Outcome.FULL

    # A running member says so once, whoever floods it.
    options = GroupOptions(roster.encode(), record(3), 7, 1_800_000_000, "0.1.0", bytes(32))
    group = Group.create(options, 0)
    group.start(0)
    effects = [*group.handle(GroupReceived(identity(0).node, encode(Push((late, late)))), 0)]
    assert [effect.code for effect in effects if isinstance(effect, GroupNotice)] == ["A209"]

    # Room for removals still; and once a flood is void, its room is free again.
    for seed in (1, 2):
        body = Remove(identity(seed).node, identity(seed).signing_key, ())
        assert say(roster, 3, body) is Outcome.NEW
    assert [member.name for member in roster.members()] == ["m0", "m3"]
    assert say(roster, 3, Admit(record(99))) is Outcome.NEW
    assert len(roster) == 7
    assert [member.name for member in roster.members()] == ["m0", "m3", "m99"]
    assert Roster.decode(roster.encode()).members() == roster.members()
