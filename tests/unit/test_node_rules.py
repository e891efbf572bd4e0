# SPDX-License-Identifier: Apache-2.0
"""The rules of atoll.toml: how they are read, what they come to, and that a mistake is told with its line."""

import tomllib

import pytest

from atoll.base.errors import UserError
from atoll.base.ids import GroupId
from atoll.base.member import Member
from atoll.conduit.names import Book
from atoll.conduit.opening import TCP_PORT
from atoll.device.nic.messages import SetTraffic
from atoll.node.rules import Rules, access_order, parse_rules, policy_of, programs_of, traffic_order, verdict
from atoll.overlay.policy import DEFAULT_POLICY, TAG_LATENCY, TAG_THROUGHPUT, Metric

WEB, DB, FAR = (Member(bytes([n]) * 32, bytes([n]) * 32, name) for n, name in enumerate(("web", "db", "far"), 1))
PHONE = b"p" * 10
BOOK = Book(GroupId(bytes(32)), "lab", DB, (WEB, DB, FAR), (("phone", PHONE),))  # type: ignore[arg-type]

FILE = """
listen = "0.0.0.0:7747"
access = [
  "deny  web -> db:22",
  "allow web -> db:5432/tcp",
  "allow * -> *:8000-8010",
  "allow phone -> db:*",
]

[[traffic]]
port = 873
tag = "throughput"

[[traffic]]
to = "far"
protocol = "udp"
size = 200
dscp = 46
tag = "loss"

[tags.latency]
avoid = ["far"]
copy = 256
"""


def read(text: str = FILE) -> Rules:
    return parse_rules(tomllib.loads(text), text, "atoll.toml")


@pytest.mark.parametrize(
    ("source", "protocol", "port", "allowed", "line"),
    [
        ("web", "tcp", 22, False, 4),
        ("web", "tcp", 5432, True, 5),
        ("web", "udp", 5432, False, None),
        ("far", "tcp", 5432, False, None),
        ("far", "udp", 8010, True, 6),
        ("far", "tcp", 8011, False, None),
        ("phone", "tcp", 22, True, 7),
    ],
)
def test_the_first_rule_that_matches_counts(
    source: str, protocol: str, port: int, allowed: bool, line: int | None
) -> None:
    found = verdict(read(), source, "db", protocol, port)
    assert (found.allowed, None if found.rule is None else found.rule.line) == (allowed, line)


def test_without_rules_everything_is_allowed_and_with_some_nothing_else() -> None:
    assert verdict(read("name = 'x'"), "web", "db", "tcp", 1).allowed
    assert not verdict(read('access = ["allow web -> db:2"]'), "web", "db", "tcp", 1).allowed
    assert verdict(read('access = ["deny web -> db:2"]\naccess-default = "allow"'), "web", "db", "tcp", 1).allowed


def test_rules_about_other_machines_and_unknown_ones_are_not_ours_to_apply() -> None:
    text = 'access = ["allow web -> far:1", "allow nobody -> db:2", "allow * -> db:3"]'
    assert access_order(read(text), "db", BOOK).entries == ((b"", 0, 3, 3, True),)


def test_names_are_looked_up() -> None:
    order = access_order(read(), "db", BOOK)
    assert order.entries == (
        (WEB.node, 0, 22, 22, False),
        (WEB.node, 6, 5432, 5432, True),
        (b"", 0, 8000, 8010, True),
        (PHONE, 0, 0, 65535, True),
    )
    assert not order.default
    *forwards, rsync, far = traffic_order(read(), BOOK).entries
    assert (rsync, far) == ((b"", 0, 873, 873, -1, 0, 2, 0), (FAR.node, 17, 0, 65535, 46, 200, 3, 0))
    assert forwards == [(b"", 6, TCP_PORT, TCP_PORT, tag, 0, tag, 0) for tag in range(4)], "they name their own tag"
    assert traffic_order(Rules(), BOOK).entries == ()
    assert not traffic_order(read(), BOOK).asks


def test_programs_are_numbered_by_name_and_asked_for() -> None:
    text = "".join(
        f'[[traffic]]\nprogram = "{program}"\nto = "{to}"\ntag = "{tag}"\n'
        for program, to, tag in (("rsync", "far", "throughput"), ("ssh", "nobody", "direct"), ("rsync", "*", "loss"))
    )
    rules = read(text + '[[traffic]]\nport = 873\ntag = "latency"\n')
    assert programs_of(rules) == ("rsync", "ssh")
    order = traffic_order(rules, BOOK)
    assert [(entry[0], *entry[6:]) for entry in order.entries if entry[2] != TCP_PORT] == [
        (FAR.node, 2, 1),
        (b"", 3, 1),
        (b"", 0, 0),
    ]
    assert order.asks
    assert traffic_order(Rules(), BOOK, asks=True) == SetTraffic((), asks=True)


def test_connections_of_members_are_judged_by_the_port_that_they_lead_to() -> None:
    order = access_order(read(), "db", BOOK, open=True)
    assert order.entries[0] == (b"", 6, TCP_PORT, TCP_PORT, True)
    assert order.entries[1:] == access_order(read(), "db", BOOK).entries


def test_tags_change_what_the_overlay_does() -> None:
    policy = policy_of(read(), BOOK)
    assert policy.rule(TAG_LATENCY).forbidden == (FAR.node,)
    assert policy.rule(TAG_LATENCY).copy_bytes == 256
    assert policy.rule(TAG_THROUGHPUT) == DEFAULT_POLICY.rule(TAG_THROUGHPUT)
    assert policy_of(Rules(), BOOK) == DEFAULT_POLICY
    assert policy_of(read('[tags.loss]\nmetric = "throughput"'), BOOK).rule(3).metric is Metric.THROUGHPUT


@pytest.mark.parametrize(
    ("text", "said", "where"),
    [
        ('access = ["allow web db:1"]', "no access rule", "atoll.toml:1"),
        ('\naccess = [\n"allow web -> db:9-1"]', "no range of ports", "atoll.toml:3"),
        ('access = ["allow web -> db:70000"]', "no range of ports", "atoll.toml:1"),
        ('access = ["allow Web -> db:1"]', "cannot be a name", "atoll.toml:1"),
        ('access = "allow * -> *:1"', "not of the right form", "atoll.toml"),
        ('access-default = "maybe"', "access-default is 'maybe'", "atoll.toml:1"),
        ('[[traffic]]\nport = 1\ntag = "fast"', "tag is 'fast'", "atoll.toml:1"),
        ('[[traffic]]\nport = "9-1"\ntag = "loss"', "port is '9-1'", "atoll.toml:1"),
        ('[[traffic]]\nports = 1\ntag = "loss"', "unknown key 'ports'", "atoll.toml:1"),
        ('[[traffic]]\ndscp = 64\ntag = "loss"', "traffic: ", "atoll.toml:1"),
        ('[[traffic]]\nprotocol = "sctp"\ntag = "loss"', "protocol is 'sctp'", "atoll.toml:1"),
        (
            'name = 1\n[[traffic]]\ntag = "loss"\n\n[[traffic]]\nprogram = 1\ntag = "loss"',
            "program is 1",
            "atoll.toml:5",
        ),
        ('[[traffic]]\nprogram = ""\ntag = "loss"', "program is ''", "atoll.toml:1"),
        ('traffic = [{program = "/usr/bin/ssh", tag = "loss"}]', "program is '/usr/bin/ssh'", "atoll.toml"),
        ("[traffic]\nport = 1", "not of the right form", "atoll.toml"),
        ("[tags.fast]\ncopy = 1", "no tag 'fast'", "atoll.toml"),
        ("[tags.loss]\ncopies = 1", "unknown key 'copies'", "atoll.toml"),
        ("[tags.loss]\ncopy = 99999", "tags.loss: ", "atoll.toml"),
        ('[tags.loss]\nmetric = "best"', "tags.loss: ", "atoll.toml"),
        ("tags = 1", "not of the right form", "atoll.toml"),
        ("access = [" + ",".join(f'"allow * -> *:{n}"' for n in range(300)) + "]", "too many", "atoll.toml"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, said: str, where: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read(text)
    assert (caught.value.code, caught.value.where) == ("A501", where)
    assert caught.value.fix
