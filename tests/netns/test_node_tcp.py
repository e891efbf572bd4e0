# SPDX-License-Identifier: Apache-2.0
"""A network that lets only TCP through: a member joins over it, falls back to it, and leaves it again."""

import re
import sys
from collections.abc import Generator

import pytest

from tests.netns.lan import Host, hosts
from tests.netns.test_node_nat import PING, seen_at
from tests.process.node_world import until

pytestmark = pytest.mark.netns

OVER = "tcp/10.77.0.1:443"

# Asks without a pause, and prints the longest time without an answer.
ASKING = """
import select, socket, struct, sys, time
sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
heard, longest, number = time.monotonic(), 0.0, 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    number += 1
    sock.sendto(struct.pack("!BBHHH", 128, 0, 0, 7, number & 0xFFFF), (sys.argv[1], 0))
    if select.select([sock], [], [], 0.02)[0] and sock.recv(2048)[0] == 129:
        longest = max(longest, time.monotonic() - heard)
        heard = time.monotonic()
print(max(longest, time.monotonic() - heard), flush=True)
"""


def wall(host: Host) -> None:
    """Let no UDP in or out, without a word."""
    host.inside("nft", "add", "table", "inet", "wall")
    for name, hook, device in (("in", "input", "iifname"), ("out", "output", "oifname")):
        host.inside("nft", f"add chain inet wall {name} {{ type filter hook {hook} priority 0; }}")
        host.inside("nft", f"add rule inet wall {name} {device} ee0 meta l4proto udp drop")


def open_up(host: Host) -> None:
    host.inside("nft", "delete", "table", "inet", "wall")


@pytest.fixture
def pair() -> Generator[tuple[Host, Host]]:
    with hosts(2) as (one, two):
        one.up("--tun", "--tcp", "443")
        assert one.ready is not None
        assert one.ready.listen == "udp/10.77.0.1:7747, tcp/10.77.0.1:443"
        yield one, two


def join(one: Host, two: Host) -> None:
    assert one.ready is not None
    assert one.ready.invite is not None
    two.up("--tun", one.ready.invite)


def linked(one: Host, two: Host) -> bool:
    return all(peer.state == "ok" for host in (one, two) for peer in host.status().peers)


def test_a_member_joins_over_tcp_alone_and_takes_udp_when_it_passes(pair: tuple[Host, Host]) -> None:
    one, two = pair
    wall(two)
    join(one, two)
    until(lambda: linked(one, two), "the two linked", wait_s=40)
    assert seen_at(two, "n0") == OVER
    assert re.fullmatch(r"tcp/10\.77\.0\.2:\d+", seen_at(one, "n1") or "")
    two.inside(sys.executable, "-c", PING, one.address)
    one.inside(sys.executable, "-c", PING, two.address)
    open_up(two)
    until(lambda: (seen_at(two, "n0"), seen_at(one, "n1")) == ("10.77.0.1:7747", "10.77.0.2:7747"), "UDP", wait_s=40)
    two.inside(sys.executable, "-c", PING, one.address)


def test_when_udp_stops_passing_tcp_takes_over_and_connections_stay(pair: tuple[Host, Host]) -> None:
    one, two = pair
    join(one, two)
    until(lambda: linked(one, two), "the two linked", wait_s=40)
    with two.python(ASKING, one.address) as asking:
        assert asking.stdin is not None
        assert asking.stdout is not None
        try:
            assert asking.stdout.readline() == "ready\n"
            wall(two)
            until(lambda: seen_at(two, "n0") == OVER and linked(one, two), "TCP", wait_s=40)
            asking.stdin.write("enough\n")
            asking.stdin.flush()
            # About 0.8 s here; the bound only tells a change of path from a new handshake.
            assert float(asking.stdout.readline()) < 4
        finally:
            asking.terminate()


def test_a_port_that_cannot_be_had_is_an_error_that_says_so(pair: tuple[Host, Host]) -> None:
    _, two = pair
    with two.python(
        "import socket,sys; s=socket.create_server(('', 443)); print(1, flush=True); sys.stdin.read()"
    ) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == "1\n"
        refused = two.atoll("up", "--tcp", "443", "--listen", "10.77.0.2:7747")
        it.terminate()
    assert refused.returncode != 0
    assert "A105" in refused.stderr
    assert "--tcp PORT" in refused.stderr
