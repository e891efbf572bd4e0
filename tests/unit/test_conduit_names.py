# SPDX-License-Identifier: Apache-2.0
"""What names and addresses mean inside the overlay, and why one means nothing."""

import ipaddress

import pytest

from atoll.base.ids import GroupId, NodeId, address_of, packed_address_of
from atoll.base.member import Member
from atoll.conduit.names import Book, Missing, resolve

GROUP, OTHER_GROUP = GroupId(b"g" * 32), GroupId(b"h" * 32)
OWN, WEB, ATOLL = (Member(bytes([n]) * 32, bytes(32), name) for n, name in enumerate(("home", "web-1", "atoll")))
BOOK = Book(GROUP, "lab", OWN, (WEB, ATOLL))
STRANGER = NodeId(b"stranger--")


@pytest.mark.parametrize(
    "name", ["web-1", "WEB-1", "web-1.", "web-1.atoll", "Web-1.ATOLL.", "web-1.lab.atoll", "web-1.LAB.atoll."]
)
def test_a_member_has_three_names_in_any_case_with_or_without_a_dot(name: str) -> None:
    assert resolve(name, BOOK.members, "lab", OWN) == WEB.node
    assert BOOK.locate(name) == WEB.node


@pytest.mark.parametrize("name", ["home", "home.atoll", "home.lab.atoll"])
def test_this_node_is_found_though_it_is_not_among_the_members(name: str) -> None:
    assert BOOK.locate(name) == OWN.node


def test_a_member_comes_before_this_node_if_both_have_one_name() -> None:
    rival = Member(b"r" * 32, bytes(32), "home")
    assert resolve("home", (rival,), "lab", OWN) == rival.node


def test_a_member_may_be_called_like_the_top_level() -> None:
    assert BOOK.locate("atoll") == BOOK.locate("atoll.atoll") == BOOK.locate("atoll.lab.atoll") == ATOLL.node


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("nobody", Missing.UNKNOWN),
        ("nobody.atoll", Missing.UNKNOWN),
        ("web-1.other.atoll", Missing.UNKNOWN),
        ("x.web-1.lab.atoll", Missing.UNKNOWN),
        ("", Missing.UNKNOWN),
        (".", Missing.UNKNOWN),
        ("localhost", Missing.UNKNOWN),
        ("web-1..", Missing.OUTSIDE),
        (".atoll", Missing.UNKNOWN),
        ("web-1.lab", Missing.OUTSIDE),
        ("web-1.atoll.example", Missing.OUTSIDE),
        ("www.example.com", Missing.OUTSIDE),
        ("wéb.atoll", Missing.OUTSIDE),
        ("web-1.atoll" + "." * 300, Missing.OUTSIDE),
        ("127.0.0.1", Missing.OUTSIDE),
        ("::1", Missing.OUTSIDE),
        ("::ffff:127.0.0.1", Missing.OUTSIDE),
        (ipaddress.ip_address("192.0.2.1").packed, Missing.OUTSIDE),
        (ipaddress.ip_address("fe80::1").packed, Missing.OUTSIDE),
        (packed_address_of(OTHER_GROUP, WEB.node), Missing.OUTSIDE),
        (packed_address_of(GROUP, STRANGER), Missing.UNKNOWN),
        (address_of(GROUP, STRANGER), Missing.UNKNOWN),
        (b"", Missing.OUTSIDE),
    ],
)
def test_everything_else_is_unknown_or_outside(host: str | bytes, why: Missing) -> None:
    assert BOOK.locate(host) is why


@pytest.mark.parametrize("member", [OWN, WEB])
def test_an_overlay_address_is_found_as_text_and_as_bytes(member: Member) -> None:
    assert BOOK.locate(address_of(GROUP, member.node)) == member.node
    assert BOOK.locate(address_of(GROUP, member.node).upper()) == member.node
    assert BOOK.locate(BOOK.address(member.node)) == member.node


def test_an_address_with_a_scope_is_none() -> None:
    assert BOOK.locate(address_of(GROUP, WEB.node) + "%eth0") is Missing.UNKNOWN


def test_letters_that_become_ours_in_lower_case_are_not_ours() -> None:
    kelvin = Member(b"k" * 32, bytes(32), "k")
    assert resolve("K", (kelvin,), "lab", OWN) == kelvin.node
    assert resolve("\u212a", (kelvin,), "lab", OWN) is None
