# SPDX-License-Identifier: Apache-2.0
"""Rules of ``atoll.toml`` between real nodes: who reaches what, who is told so, and what ``atoll can`` says of it."""

import sys
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from atoll.node.views import CanView
from tests.netns.lan import Host, hosts
from tests.process.node_world import until

pytestmark = pytest.mark.netns

RULES = """
access = [
  "allow n0 -> n1:5432",
  "deny n0 -> n1:53/udp",
]
"""

SERVE = """
import socket, sys, threading
def serve(port):
    listener = socket.create_server((sys.argv[1], port), family=socket.AF_INET6)
    while True:
        listener.accept()[0].sendall(b"hello")
for port in (5432, 22):
    threading.Thread(target=serve, args=(port,), daemon=True).start()
answerer = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
answerer.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    data, source = answerer.recvfrom(100)
    answerer.sendto(data, source)
"""

CONNECT = """
import errno, socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=15) as connection:
        print(connection.recv(10).decode())
except OSError as error:
    print(errno.errorcode.get(error.errno, "timed out"))
"""

ASK = """
import errno, socket, sys
asker = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
asker.settimeout(15)
asker.connect((sys.argv[1], int(sys.argv[2])))
asker.send(b"?")
try:
    print(asker.recv(10).decode())
except OSError as error:
    print(errno.errorcode.get(error.errno, "timed out"))
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Host, Host, Path]]:
    rules = tmp_path_factory.mktemp("rules") / "atoll.toml"
    rules.write_text(RULES)
    with hosts(2) as (one, two):
        invite = one.up("--tun").invite
        assert invite is not None
        two.up("--tun", invite, "--config", str(rules))
        until(lambda: all(peer.state == "ok" for peer in one.status().peers), "the two linked")
        with two.python(SERVE, two.address) as server, one.python(SERVE, one.address) as other:
            try:
                for each in (server, other):
                    assert each.stdout is not None
                    assert each.stdout.readline() == "ready\n"
                yield one, two, rules
            finally:
                server.terminate()
                other.terminate()


def tries(host: Host, program: str, address: str, port: int) -> str:
    return host.inside(sys.executable, "-c", program, address, str(port)).strip()


def can(host: Host, *words: str) -> tuple[int, CanView]:
    done = host.atoll("can", *words, "--json")
    return done.returncode, msgspec.json.decode(done.stdout, type=CanView)


def test_what_a_rule_allows_works_and_what_none_allows_is_refused_at_once(pair: tuple[Host, Host, Path]) -> None:
    one, two, _ = pair
    until(lambda: tries(one, CONNECT, two.address, 5432) == "hello", "the rule about this member")
    assert tries(one, CONNECT, two.address, 22) == "EACCES"  # And no time-out.
    assert tries(one, ASK, two.address, 53) == "EACCES"
    assert tries(two, CONNECT, one.address, 22) == "hello"  # The other way it has no rules.
    assert tries(two, ASK, one.address, 53) == "?"  # The answer to a question of our own passes.


def test_who_asks_is_told_the_rule_wherever_it_stands(pair: tuple[Host, Host, Path]) -> None:
    one, two, _ = pair
    for host, told_by in ((one, "n1"), (two, None)):
        status, seen = can(host, "n0", "n1:5432")
        assert (status, seen.allowed, seen.rule, seen.line) == (0, True, "allow n0 -> n1:5432", "atoll.toml:3")
        assert seen.told_by == told_by
        status, seen = can(host, "n0 -> n1:53/udp")
        assert (status, seen.allowed, seen.line) == (1, False, "atoll.toml:4")
        assert can(host, "n0", "->", "n1:22")[1].rule == ""
    assert can(two, "n1", "n0:22")[1].allowed
    said = one.atoll("can", "n0", "n1:22").stdout
    assert said == "deny  n0 -> n1:22/tcp  no rule matches; this is the default (as n1 says)\n"
    assert one.atoll("can", "nobody", "n1:22").returncode == 1
    assert one.atoll("can", "n0", "n1").returncode == 2


def test_forwards_follow_the_rules_too(pair: tuple[Host, Host, Path]) -> None:
    one, two, _ = pair
    with two.python(SERVE, "::1") as loopback:
        assert loopback.stdout is not None
        assert one.atoll("forward", "tcp", "15432", "n1:22").returncode == 0
        assert tries(one, CONNECT, "127.0.0.1", 15432) in {"ECONNRESET", ""}
        loopback.terminate()


def test_rules_are_changed_while_the_node_runs_and_kept(pair: tuple[Host, Host, Path]) -> None:
    one, two, rules = pair
    rules.write_text('access = ["allow n0 -> n1:22", "allow phone -> n1:1-9"]\n')
    assert two.atoll("config", "apply", "--config", str(rules)).returncode == 0
    assert tries(one, CONNECT, two.address, 22) == "hello"
    assert tries(one, CONNECT, two.address, 5432) == "EACCES"
    wrong = rules.with_name("wrong.toml")
    wrong.write_text('access = ["allow n0 to n1"]\n')
    refused = two.atoll("config", "apply", "--config", str(wrong))
    assert refused.returncode == 2
    assert "wrong.toml:1" in refused.stderr
    assert tries(one, CONNECT, two.address, 22) == "hello"
    _, nic = two.processes()
    two.inside("kill", "-9", str(nic))
    until(lambda: tries(one, CONNECT, two.address, 22) == "hello", "the new packet device")
    assert tries(one, CONNECT, two.address, 5432) == "EACCES"
