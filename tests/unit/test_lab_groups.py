# SPDX-License-Identifier: Apache-2.0
"""Simulated groups: the same from the same seed, and rosters that a real node would believe."""

import pytest

from atoll.group.roster import Roster
from atoll.lab.groups import blueprints, identity_of, roster_of


@pytest.mark.parametrize("count", [1, 2, 20])
def test_a_roster_admits_exactly_the_members(count: int) -> None:
    plans = blueprints(count, 9)
    roster = Roster.decode(plans[0].roster)
    assert {member.node for member in roster.members()} == {plan.member.node for plan in plans}
    assert [plan.member.name for plan in plans] == [f"n{index}" for index in range(count)]
    assert all(plan.group == roster.group for plan in plans)
    assert len({plan.member.endpoints for plan in plans}) == count


def test_a_seed_is_a_group() -> None:
    assert [plan.roster for plan in blueprints(3, 1)] == [plan.roster for plan in blueprints(3, 1)]
    assert blueprints(3, 1)[0].group != blueprints(3, 2)[0].group
    assert identity_of(1, 2).public_key == identity_of(1, 2).public_key
    assert len({identity_of(seed, index).public_key for seed in range(5) for index in range(5)}) == 25


def test_names_are_given_as_far_as_there_are_any() -> None:
    assert [plan.member.name for plan in blueprints(3, 1, names=("one", "two"))] == ["one", "two", "n2"]


def test_every_identity_signs_for_itself() -> None:
    identities = [identity_of(3, index) for index in range(2)]
    members = [plan.member for plan in blueprints(2, 3)]
    assert roster_of(identities, members).find(identities[1].node) == members[1]
