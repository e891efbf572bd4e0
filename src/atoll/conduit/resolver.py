# SPDX-License-Identifier: Apache-2.0
"""Answers name queries about the group: the zone ``atoll.`` and the reverse zone of the group's addresses. Pure.

There is nothing else behind it: a name of another zone is refused, so that a program that can reach only the overlay
hears so at once. Answers live for some seconds, because members come, go and are renamed.

Source: RFC 1035, RFC 2308 (negative answers), RFC 3596 (AAAA, ip6.arpa).
"""

import ipaddress
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from atoll.base.ids import address_of
from atoll.conduit.names import TOP, Book

__all__ = ["QUERY_BYTES_MAX", "answer"]

QUERY_BYTES_MAX: Final = 512  # Limit of RFC 1035 for UDP; a question is a tenth of it. Longer: cut, and so no query.
TTL_S: Final = 5
_ZONE: Final = dns.name.from_text(TOP)
_REVERSE: Final = dns.name.from_text("ip6.arpa")
_SOA: Final = f"{TOP}. hostmaster.{TOP}. 1 3600 600 86400 {TTL_S}"


def answer(query: bytes, book: Book) -> bytes | None:
    """Return the answer to one query; None: it is none, and gets no answer.

    Args:
        query: As it came by UDP; any bytes.
        book: Who is who now.
    """
    try:
        asked = dns.message.from_wire(query, ignore_trailing=True)
        if asked.flags & dns.flags.QR or asked.opcode() != dns.opcode.QUERY or len(asked.question) != 1:
            return None
        said = dns.message.make_response(asked, recursion_available=False)
        said.flags |= dns.flags.AA
        _fill(said, asked.question[0], book)
        return said.to_wire(max_size=QUERY_BYTES_MAX)
    except (dns.exception.DNSException, ValueError, IndexError):  # What the library says of bytes that are no message.
        return None


def _fill(said: dns.message.Message, question: dns.rrset.RRset, book: Book) -> None:
    name = question.name
    if question.rdclass != dns.rdataclass.IN or not (name.is_subdomain(_ZONE) or name.is_subdomain(_REVERSE)):
        said.set_rcode(dns.rcode.REFUSED)
        return
    found = _reverse(name, book) if name.is_subdomain(_REVERSE) else _forward(name, book)
    if found is None:
        said.set_rcode(dns.rcode.NXDOMAIN)
    elif found and question.rdtype in {found[0], dns.rdatatype.ANY}:
        said.answer.append(dns.rrset.from_text(name, TTL_S, dns.rdataclass.IN, found[0], found[1]))
        return
    said.authority.append(dns.rrset.from_text(_ZONE, TTL_S, dns.rdataclass.IN, dns.rdatatype.SOA, _SOA))


def _forward(name: dns.name.Name, book: Book) -> tuple[dns.rdatatype.RdataType, str] | tuple[()] | None:
    """Return the one record that a name has; empty: the name exists and has none; None: it does not exist."""
    if name in {_ZONE, dns.name.from_text(f"{book.group_name}.{TOP}")}:
        return ()
    node = book.find(name.to_text())
    return (dns.rdatatype.AAAA, address_of(book.group, node)) if isinstance(node, bytes) else None


def _reverse(name: dns.name.Name, book: Book) -> tuple[dns.rdatatype.RdataType, str] | None:
    try:
        node = book.find(ipaddress.ip_address(dns.reversename.to_address(name)).packed)
    except dns.exception.SyntaxError:
        return None
    return (dns.rdatatype.PTR, f"{book.called(node)}.{book.group_name}.{TOP}.") if isinstance(node, bytes) else None
