# SPDX-License-Identifier: Apache-2.0
"""The group's name server: what it says of names and addresses, and that no bytes make it raise."""

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.ids import GroupId, address_of
from atoll.base.member import Member
from atoll.conduit.names import Book
from atoll.conduit.resolver import QUERY_BYTES_MAX, answer

MEMBERS = tuple(Member(bytes([n]) * 32, bytes([100 + n]) * 32, f"n{n}") for n in (1, 2, 3))
BOOK = Book(GroupId(bytes(32)), "heron", MEMBERS[0], MEMBERS)


def asked(name: str, kind: str = "AAAA") -> dns.message.Message:
    said = answer(dns.message.make_query(name, kind).to_wire(), BOOK)
    assert said is not None
    assert len(said) <= QUERY_BYTES_MAX
    return dns.message.from_wire(said)


@pytest.mark.parametrize("name", ["n2.atoll", "N2.Heron.aToll", "n2.heron.atoll"])
def test_a_member_has_its_address(name: str) -> None:
    said = asked(name)
    assert said.rcode() == dns.rcode.NOERROR
    assert said.flags & dns.flags.AA
    assert [rrset.to_text().split()[-1] for rrset in said.answer] == [address_of(BOOK.group, MEMBERS[1].node)]


def test_an_address_has_its_name() -> None:
    said = asked(dns.reversename.from_address(address_of(BOOK.group, MEMBERS[2].node)).to_text(), "PTR")
    assert [rrset.to_text().split()[-1] for rrset in said.answer] == ["n3.heron.atoll."]


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("n2.heron.atoll", "A", dns.rcode.NOERROR),
        ("heron.atoll", "AAAA", dns.rcode.NOERROR),
        ("nobody.heron.atoll", "AAAA", dns.rcode.NXDOMAIN),
        ("n2.other.atoll", "AAAA", dns.rcode.NXDOMAIN),
        ("example.org", "AAAA", dns.rcode.REFUSED),
        ("n2", "AAAA", dns.rcode.REFUSED),
        ("1.ip6.arpa", "PTR", dns.rcode.NXDOMAIN),
    ],
)
def test_what_there_is_not_is_told_at_once(name: str, kind: str, rcode: dns.rcode.Rcode) -> None:
    said = asked(name, kind)
    assert (said.rcode(), said.answer) == (rcode, [])
    assert bool(said.authority) is (rcode != dns.rcode.REFUSED), "how long a no is good for"


def test_an_answer_is_no_question() -> None:
    query = dns.message.make_query("n2.atoll", "AAAA")
    query.flags |= dns.flags.QR
    assert answer(query.to_wire(), BOOK) is None


@given(st.binary(max_size=QUERY_BYTES_MAX))
def test_no_bytes_raise(query: bytes) -> None:
    answer(query, BOOK)


@given(st.data())
def test_a_damaged_query_is_answered_or_not(data: st.DataObject) -> None:
    query = bytearray(dns.message.make_query("n2.heron.atoll", "AAAA", use_edns=True).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        query[data.draw(st.integers(0, len(query) - 1))] = data.draw(st.integers(0, 255))
    said = answer(bytes(query), BOOK)
    assert said is None or said[:2] == bytes(query[:2])
