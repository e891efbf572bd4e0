# SPDX-License-Identifier: Apache-2.0
"""What a running node is made from: addresses as people write them, and its own record."""

import socket

import pytest

from atoll.base.errors import UserError
from atoll.base.member import ENDPOINTS_MAX, RelayWill
from atoll.lab.groups import identity_of
from atoll.node.addresses import (
    endpoint_text,
    free_default,
    listed_text,
    own_member,
    parse_address,
    parse_endpoint,
    with_tcp,
)
from atoll.node.state import Settings


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:7747", ("127.0.0.1", 7747)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ("::1:80", ("::1", 80)),
        ("localhost:80", ("localhost", 80)),
        ("a-b_c.example:80", ("a-b_c.example", 80)),
    ],
)
def test_an_endpoint_is_read(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":80",
        "host",
        "host:",
        "host:-1",
        "host:+1",
        "host: 1",
        "host:65536",
        "host:" + "9" * 5000,
        "host:٣",
        "a\0b:80",
        "a b:80",
        "a..b:80",
        ".:80",
        "é:80",
        "x" * 64 + ":80",
        "x." * 200 + "x:80",
        "[]:80",
        "[::1:80:",
    ],
)
def test_what_is_no_endpoint_is_told(text: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_endpoint(text)
    assert refused.value.code == "A501"
    assert refused.value.fix


@pytest.mark.parametrize(
    "text", ["localhost:80", "example.org:7747", "1.2.3:80", "256.1.1.1:80", "::g:80", "tcp/a:1", "tcp/tcp/1.2.3.4:1"]
)
def test_the_underlay_wants_numbers(text: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_address(text)
    assert refused.value.code == "A501"


@pytest.mark.parametrize(
    "endpoint", [("127.0.0.1", 7747), ("::1", 1), ("fd00::1", 65535), ("tcp/1.2.3.4", 443), ("tcp/::1", 443)]
)
def test_what_is_written_is_read_again(endpoint: tuple[str, int]) -> None:
    assert parse_address(endpoint_text(endpoint)) == endpoint


def settings(*advertise: str) -> Settings:
    return Settings(name="one", group_name="g", listen="0.0.0.0:0", advertise=advertise, relay=RelayWill.NEVER)


def test_an_own_record_says_what_is_advertised_or_else_what_is_bound() -> None:
    identity = identity_of(1, 0)
    bound = (("127.0.0.1", 7747),)
    member = own_member(identity, settings(), bound)
    assert (member.node, member.name, member.relay) == (identity.node, "one", RelayWill.NEVER)
    assert member.endpoints == bound
    assert own_member(identity, settings("192.0.2.7:1"), bound).endpoints == (("192.0.2.7", 1),)


def test_a_port_that_is_not_bound_yet_is_told_to_nobody() -> None:
    assert own_member(identity_of(1, 0), settings(), (("127.0.0.1", 0), ("127.0.0.1", 5))).endpoints == (
        ("127.0.0.1", 5),
    )


def test_no_more_addresses_are_told_than_a_record_holds() -> None:
    many = [f"192.0.2.{number}:1" for number in range(1, 20)]
    assert len(own_member(identity_of(1, 0), settings(*many), ()).endpoints) == ENDPOINTS_MAX


def test_people_see_the_transport() -> None:
    assert listed_text((("1.2.3.4", 5), ("tcp/::1", 443))) == "udp/1.2.3.4:5, tcp/[::1]:443"


def test_tcp_is_heard_at_each_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as refused:
            with_tcp("127.0.0.1:7747", port)
        assert (refused.value.code, refused.value.where) == ("A105", "EADDRINUSE")
    assert with_tcp("127.0.0.1:1,127.0.0.1:2,[::1]:1,tcp/127.0.0.1:9", port) == (
        f"127.0.0.1:1,127.0.0.1:2,[::1]:1,tcp/127.0.0.1:{port},tcp/[::1]:{port}"
    )
    assert with_tcp("127.0.0.1:1,tcp/127.0.0.1:9", 0) == "127.0.0.1:1"


def test_without_a_word_both_transports_are_heard() -> None:
    found = [parse_address(text) for text in free_default().split(",")]
    assert {host.startswith("tcp/") for host, _ in found} == {True, False}
    assert len({port for _, port in found}) == 1


def test_an_own_record_says_where_tcp_is_heard() -> None:
    bound = (("127.0.0.1", 7747), ("tcp/127.0.0.1", 443))
    assert own_member(identity_of(1, 0), settings(), bound).endpoints == bound
