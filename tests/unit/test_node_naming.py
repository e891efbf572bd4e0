# SPDX-License-Identifier: Apache-2.0
"""Names that nobody had to choose, and the rule for the others."""

import pytest

from atoll.base.errors import UserError
from atoll.core.entropy import Draws
from atoll.group.identity import name_is_good
from atoll.node.naming import checked_name, group_name


def test_a_group_is_called_the_same_by_everybody_who_knows_its_id() -> None:
    assert group_name(Draws(bytes(32))) == group_name(Draws(bytes(32)))


def test_group_names_are_names_and_differ() -> None:
    names = {group_name(Draws(seed.to_bytes(32, "big"))) for seed in range(200)}
    assert len(names) > 150
    assert all(name_is_good(name) and name.count("-") == 1 for name in names)


@pytest.mark.parametrize("name", ["a", "one", "node-7", "0", "x" * 32])
def test_a_good_name_is_taken(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "-", "-a", "a-", "A", "a b", "a.b", "ä", "x" * 33, "a\n", "🦩"])
def test_a_bad_name_is_told_with_one_that_would_do(name: str) -> None:
    with pytest.raises(UserError) as refused:
        checked_name(name)
    assert refused.value.code == "A211"
    proposed = refused.value.fix.rpartition("--name ")[2]
    assert name_is_good(proposed)


def test_a_bad_name_is_told_with_the_option_that_gave_it() -> None:
    with pytest.raises(UserError) as refused:
        checked_name("Blue Heron", "--group-name")
    assert refused.value.fix == "choose for example: --group-name blue-heron"
