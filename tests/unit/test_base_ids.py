# SPDX-License-Identifier: Apache-2.0
"""Ids and addresses follow from keys alone."""

import ipaddress

import pytest

from atoll.base.errors import UsageError
from atoll.base.ids import GroupId, NodeId, PublicKey, address_of, node_id_of, packed_address_of

KEY = PublicKey(bytes(range(32)))
GROUP = GroupId(bytes(32))


def test_the_id_of_a_key_is_fixed_for_ever() -> None:
    # A vector: changing the derivation moves every node to another address.
    assert node_id_of(KEY).hex() == "58fb41d2da5654ae9a99"


def test_the_address_of_a_node_is_fixed_for_ever() -> None:
    assert address_of(GROUP, node_id_of(KEY)) == "fdfd:2594:dd0f:58fb:41d2:da56:54ae:9a99"


def test_an_address_is_a_unique_local_one_and_ends_in_the_node_id() -> None:
    node = node_id_of(KEY)
    packed = packed_address_of(GROUP, node)
    assert ipaddress.IPv6Address(packed) in ipaddress.IPv6Network("fd00::/8")
    assert packed[6:] == node


def test_groups_have_different_prefixes() -> None:
    node = node_id_of(KEY)
    assert packed_address_of(GROUP, node)[:6] != packed_address_of(GroupId(b"\1" * 32), node)[:6]


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"{size} bytes"):
        node_id_of(PublicKey(bytes(size)))


@pytest.mark.parametrize("size", [0, 9, 11])
def test_an_id_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"{size} bytes"):
        packed_address_of(GROUP, NodeId(bytes(size)))
