# SPDX-License-Identifier: Apache-2.0
"""Members behind NATs of each kind: who meets whom directly, and that the others are reached all the same.

::

    n1 [ee0 192.168.1.2]---[in0] router [ee0 10.77.0.2]---.
    n2 [ee0 192.168.2.2]---[in0] router [ee0 10.77.0.3]---[bridge]---[10.77.0.1 ee0] n0, which both can call
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager

import msgspec
import pytest

from atoll.node.views import WhyView
from tests.netns.lan import PORT, Host, hosts, run
from tests.process.node_world import until

pytestmark = pytest.mark.netns

# What a router does with what leaves. Linux keeps the port and lets in only what was called: a port-restricted cone.
CONE = "masquerade"
# Another port for each destination: nobody else can know it.
SYMMETRIC = "masquerade random,fully-random"

PING = """
import socket, struct, sys
sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sock.settimeout(2)
for _ in range(10):
    try:
        sock.sendto(struct.pack("!BBHHH", 128, 0, 0, 7, 1), (sys.argv[1], 0))
        while sock.recv(2048)[0] != 129:
            pass
        sys.exit(0)
    except OSError:
        pass
sys.exit(1)
"""


@contextmanager
def routed(host: Host, number: int, nat: str) -> Generator[str]:
    """Put a router between a machine and the Ethernet; yield the router's namespace."""
    router, outside = f"{host.namespace}r", host.ip
    inside = f"192.168.{number}"
    run("ip", "netns", "add", router)
    try:
        run("ip", "-n", host.namespace, "link", "set", "ee0", "netns", router)
        run("ip", "-n", router, "address", "add", f"{outside}/24", "dev", "ee0")
        run("ip", "-n", router, "link", "add", "in0", "type", "veth", "peer", "name", "ee0", "netns", host.namespace)
        run("ip", "-n", router, "address", "add", f"{inside}.1/24", "dev", "in0")
        for device in ("lo", "ee0", "in0"):
            run("ip", "-n", router, "link", "set", device, "up")
        host.inside("ip", "address", "add", f"{inside}.2/24", "dev", "ee0")
        host.inside("ip", "link", "set", "ee0", "up")
        host.inside("ip", "route", "add", "default", "via", f"{inside}.1")
        within = ("ip", "netns", "exec", router)
        run(*within, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        run(*within, "nft", "add", "table", "ip", "nat")
        run(*within, "nft", "add chain ip nat out { type nat hook postrouting priority 100; }")
        run(*within, "nft", f"add rule ip nat out oifname ee0 {nat}")
        # What was not called is not let in, and not answered either.
        run(*within, "nft", "add chain ip nat in { type filter hook input priority 0; }")
        run(*within, "nft", "add rule ip nat in iifname ee0 ct state new drop")
        host.ip = f"{inside}.2"
        yield router
    finally:
        run("ip", "netns", "del", router)


@contextmanager
def group(first: str, second: str) -> Generator[tuple[Host, Host, Host, str]]:
    """Found a group of one machine that all can call, and two behind NATs; and yield the second's router as well."""
    with hosts(3) as (public, one, two), routed(one, 1, first), routed(two, 2, second) as router:
        invite = public.up("--tun").invite
        assert invite is not None
        one.up("--tun", invite)
        two.up("--tun", public.atoll("invite").stdout.split()[-1])
        yield public, one, two, router


def way(host: Host, name: str) -> tuple[str, str | None]:
    return next(((peer.state, peer.via) for peer in host.status().peers if peer.name == name), ("", None))


def seen_at(host: Host, name: str) -> str | None:
    return next((peer.endpoint for peer in host.status().peers if peer.name == name), None)


def direct(host: Host, name: str) -> str:
    """Return how the direct path stands, whether or not it is used yet: a path that is new waits for its turn."""
    said = host.atoll("why", name, "--json")
    if said.returncode:
        return said.stderr
    seen = msgspec.json.decode(said.stdout, type=WhyView)
    return next(candidate.state for candidate in seen.candidates if candidate.via is None)


def test_two_behind_cones_meet_directly() -> None:
    with group(CONE, CONE) as (public, one, two, _):
        until(lambda: direct(one, "n2") == direct(two, "n1") == "ok", "the two meet", wait_s=40)
        one.inside(sys.executable, "-c", PING, two.address)
        assert way(public, "n1") == ("ok", None)
        assert way(public, "n2") == ("ok", None)


def test_one_behind_a_symmetric_nat_is_reached_by_a_relay() -> None:
    relayed = ("degraded", "n0")
    with group(CONE, SYMMETRIC) as (_, one, two, _):
        until(lambda: way(one, "n2") == way(two, "n1") == relayed, "the relay", wait_s=40)
        one.inside(sys.executable, "-c", PING, two.address)
        until(lambda: direct(one, "n2") == direct(two, "n1") == "failed", "no direct path", wait_s=40)


def test_a_new_address_from_the_provider_is_survived() -> None:
    with group(CONE, CONE) as (_, one, two, router):
        until(lambda: direct(one, "n2") == direct(two, "n1") == "ok", "the two meet", wait_s=40)
        # Linux forgets what it masqueraded with the address that is gone.
        run("ip", "-n", router, "address", "del", "10.77.0.3/24", "dev", "ee0")
        run("ip", "-n", router, "address", "add", "10.77.0.33/24", "dev", "ee0")
        one.inside(sys.executable, "-c", PING, two.address)
        new = f"10.77.0.33:{PORT}"
        until(lambda: (seen_at(one, "n2"), direct(one, "n2")) == (new, "ok"), "they meet again", wait_s=40)
