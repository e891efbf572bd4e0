# SPDX-License-Identifier: Apache-2.0
"""Who should keep a journal: as many as wanted, the reachable and the fast first, and never two where one is safer."""

import pytest

from atoll.base.ids import NodeId
from atoll.env.keepers import Kept, Peer, parted, wanted_holders
from atoll.env.messages import Notice

OWN, B, C, D, E = (NodeId(bytes([letter]) * 10) for letter in b"ABCDE")
ID = b"i" * 16
NONE: list[NodeId] = []


def wanted(
    holders: tuple[bytes, ...], peers: dict[NodeId, Peer], copies: int = 3, gone: tuple[NodeId, ...] = ()
) -> tuple[bytes, ...]:
    return wanted_holders(Kept(ID, OWN, holders, copies), peers, set(gone))


def peers(*nodes: NodeId, lost: tuple[NodeId, ...] = (), slow: tuple[NodeId, ...] = ()) -> dict[NodeId, Peer]:
    return {node: Peer(node.decode(), node in lost, "disk" if node in slow else "") for node in nodes}


def test_a_node_alone_keeps_it_alone() -> None:
    assert wanted((OWN,), {}) == (OWN,)


def test_three_are_made_as_soon_as_there_is_a_third_node() -> None:
    assert wanted((OWN,), peers(B)) == (OWN,)
    assert set(wanted((OWN,), peers(B, C))) == {OWN, B, C}


def test_two_are_made_when_somebody_asks_for_two() -> None:
    assert wanted((OWN,), peers(B), copies=2) == (OWN, B)


def test_one_copy_is_the_owners() -> None:
    assert wanted((OWN, B, C), peers(B, C), copies=1) == (OWN,)


def test_who_is_a_holder_stays_one_and_slow_or_lost_nodes_are_not_taken_first() -> None:
    assert wanted((OWN, C, D), peers(B, C, D, E)) == (OWN, C, D)
    assert wanted((OWN, C), peers(B, C, D, E, slow=(B, E))) == (OWN, C, D)
    assert wanted((OWN, C), peers(B, C, D, E, lost=(D, E))) == (OWN, C, B)
    assert set(wanted((OWN,), peers(B, C, slow=(B, C)))) == {OWN, B, C}, "slow is better than none"


def test_different_environments_choose_different_nodes() -> None:
    chosen = {
        wanted_holders(Kept(bytes([number]) * 16, OWN, (OWN,), 2), peers(B, C, D, E), set()) for number in range(64)
    }
    assert chosen == {(OWN, node) for node in (B, C, D, E)}


def test_a_holder_that_is_lost_stays_until_it_is_given_up_and_another_takes_its_place() -> None:
    assert wanted((OWN, B, C), peers(B, C, D, lost=(C,))) == (OWN, B, C)
    assert wanted((OWN, B, C), peers(B, C, D, lost=(C,)), gone=(C,)) == (OWN, B, D)


def test_a_holder_that_is_given_up_stays_where_nobody_can_take_its_place() -> None:
    assert set(wanted((OWN, B, C), peers(B, C, lost=(C,)), gone=(C,))) == {OWN, B, C}
    assert set(wanted((OWN, B, C), peers(B, C, lost=(B, C)), gone=(B, C))) == {OWN, B, C}


def test_who_is_no_member_any_more_goes_at_once() -> None:
    assert wanted((OWN, B, C), peers(B, D)) == (OWN, B, D)
    assert wanted((OWN, B, C), peers(B)) == (OWN, B), "what is a holder already is not given up for that"
    assert wanted((OWN, B, C), {}) == (OWN,)


def test_of_two_holders_one_is_not_given_up_only_because_there_is_no_third() -> None:
    assert wanted((OWN, B), peers(B)) == (OWN, B)
    assert wanted((OWN, B), peers(B, C, lost=(B, C)), gone=(B,)) == (OWN, B)


@pytest.mark.parametrize("copies", [1, 2, 3, 4, 5])
def test_the_owner_comes_first_and_nobody_twice(copies: int) -> None:
    found = wanted((B, OWN, C), peers(B, C, D, E), copies=copies)
    assert found[0] == OWN
    assert len(set(found)) == len(found) == copies


@pytest.mark.parametrize(
    ("owner", "holders", "members", "found"),
    [
        (B, (B,), peers(B, C), None),
        (B, (B,), peers(B, C, lost=(B,)), ([B], NONE)),
        (B, (), peers(B, lost=(B,)), ([B], NONE)),
        (B, (B, C, OWN), peers(B, C, lost=(B,)), None),
        (B, (B, C, OWN), peers(B, C, lost=(B, C)), ([B, C], [OWN])),
        (B, (B, C, D), peers(B, C, D, lost=(B, C)), ([B, C], [D])),
        (D, (B, C, D), peers(B, C, D, lost=(B, C)), None),
        (OWN, (OWN, B), peers(B, lost=(B,)), None),
        (b"", (OWN, B), peers(B, lost=(B,)), ([B], [OWN])),
        (B, (B, C, OWN), peers(C, lost=(C,)), ([C], [OWN])),
        (B, (B, C, OWN), peers(), (NONE, [OWN])),
        (B, (B, C), peers(), None),
    ],
)
def test_an_environment_waits_for_keepers_only_where_those_that_are_there_are_too_few(
    owner: bytes, holders: tuple[bytes, ...], members: dict[NodeId, Peer], found: tuple[list[NodeId], ...] | None
) -> None:
    lost = {node for node, peer in members.items() if peer.lost}
    assert parted(Notice(ID, 1, owner, "shop", "Shop", b"c" * 32, holders), OWN, members, lost) == found
