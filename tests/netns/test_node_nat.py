# SPDX-License-Identifier: Apache-2.0
"""Members behind NATs of each kind: who meets whom directly, and that the others are reached all the same.

::

    n1 [ee0 192.168.1.2]---[in0] router [ee0 10.77.0.2]---.
    n2 [ee0 192.168.2.2]---[in0] router [ee0 10.77.0.3]---[bridge]---[10.77.0.1 ee0] n0, which both can call
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import pytest

from atoll.node.views import WhyView
from tests.netns.lan import PORT, Host, hosts, run
from tests.process.node_world import until

pytestmark = pytest.mark.netns


@dataclass(frozen=True, slots=True)
class Nat:
    """What a router does with what leaves, and whom it lets in; Linux by itself knows only the last two kinds."""

    out: str = "masquerade"  # Keeps the port, if nobody else has it.
    lets_in: str = ""  # Of what was not called.


CALLED = "ip saddr @called"
FULL_CONE = Nat(lets_in="ip saddr 0.0.0.0/0")  # Anybody.
ADDRESS_RESTRICTED = Nat(lets_in=CALLED)  # Any port of an address that was called.
PORT_RESTRICTED = Nat()
SYMMETRIC = Nat(out="masquerade random,fully-random")  # Another port for each destination: nobody else can know it.
NATS = {
    "full cone": FULL_CONE,
    "address-restricted": ADDRESS_RESTRICTED,
    "port-restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
}

# Knocks at two ports of a machine outside until both have heard it; then says who got in, before the last word.
KNOCK = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 5000))
sock.settimeout(0.2)
heard = set()
while not {"called 6000", "called 6001"} <= heard:
    for port in (6000, 6001)[: 1 + ("called 6000" in heard)]:
        sock.sendto(b"knock", (sys.argv[1], port))
    try:
        heard.add(sock.recv(64).decode())
        if sys.argv[2] == "one" and "called 6000" in heard:
            break
    except TimeoutError:
        pass
sock.sendto(b"go", (sys.argv[1], 6000))
sock.settimeout(10)
while (said := sock.recv(64)) != b"end":
    heard.add(said.decode())
print(",".join(sorted(heard - {"called 6000", "called 6001"})))
"""
# Outside: answers those that knock; at "go" the places that were not called speak, and then the one that was.
ANSWER = """
import socket, selectors
def at(host, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock
called, other, stranger = at("10.77.0.1", 6000), at("10.77.0.1", 6001), at("10.77.0.99", 6000)
selector = selectors.DefaultSelector()
for sock in (called, other):
    selector.register(sock, selectors.EVENT_READ)
print("ready", flush=True)
seen = {}
while True:
    for key, _ in selector.select():
        sock = key.fileobj
        said, source = sock.recvfrom(64)
        seen[sock.getsockname()[1]] = source
        if said == b"go":
            other.sendto(b"another port", source)
            stranger.sendto(b"another address", source)
            called.sendto(b"end", source)
            print(len({port for _, port in seen.values()}), flush=True)
        else:
            sock.sendto(b"called %d" % sock.getsockname()[1], source)
"""

PING = """
import socket, struct, sys, time
sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
for _ in range(10):
    ends = time.monotonic() + 1.5
    try:
        sock.sendto(struct.pack("!BBHHH", 128, 0, 0, 7, 1), (sys.argv[1], 0))
        while True:  # Everything that this machine gets by ICMP comes here.
            sock.settimeout(max(0.001, ends - time.monotonic()))
            if sock.recv(2048)[0] == 129:
                sys.exit(0)
    except OSError:
        pass
sys.exit(1)
"""


@contextmanager
def routed(nat: Nat, *behind: Host) -> Generator[str]:
    """Put a router between machines and the Ethernet, at the place of the first; yield the router's namespace."""
    first = behind[0]
    router, outside, number = f"{first.namespace}r", first.ip, first.namespace.rpartition("-")[2]
    inside = f"192.168.{number}"
    run("ip", "netns", "add", router)
    try:
        run("ip", "-n", first.namespace, "link", "set", "ee0", "netns", router)
        run("ip", "-n", router, "address", "add", f"{outside}/24", "dev", "ee0")
        run("ip", "-n", router, "link", "add", "in0", "type", "bridge")
        run("ip", "-n", router, "address", "add", f"{inside}.1/24", "dev", "in0")
        for device in ("lo", "ee0", "in0"):
            run("ip", "-n", router, "link", "set", device, "up")
        for at, host in enumerate(behind, 2):
            if host is not first:
                host.inside("ip", "link", "del", "ee0")
            port = f"port{at}"
            run("ip", "-n", router, "link", "add", port, "type", "veth", "peer", "name", "ee0", "netns", host.namespace)
            run("ip", "-n", router, "link", "set", port, "master", "in0", "up")
            host.ip = f"{inside}.{at}"
            host.inside("ip", "address", "add", f"{host.ip}/24", "dev", "ee0")
            host.inside("ip", "link", "set", "ee0", "up")
            host.inside("ip", "route", "add", "default", "via", f"{inside}.1")
        within = ("ip", "netns", "exec", router)
        run(*within, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        run(*within, "nft", _rules(nat, first.ip))
        yield router
    finally:
        run("ip", "netns", "del", router)


def _rules(nat: Nat, target: str) -> str:
    back = f"iifname ee0 meta l4proto udp {nat.lets_in} dnat to {target};" if nat.lets_in else ""
    return f"""
        table ip nat {{
            set called {{ type ipv4_addr; size 1024; flags dynamic, timeout; }}
            chain note {{
                type filter hook forward priority 0;
                oifname ee0 meta l4proto udp update @called {{ ip daddr timeout 60s }}
            }}
            chain out {{ type nat hook postrouting priority 100; oifname ee0 {nat.out}; }}
            chain back {{ type nat hook prerouting priority -100; {back} }}
            # What is not let in is not answered either.
            chain in {{ type filter hook input priority 0; iifname ee0 ct state new drop; }}
        }}
    """


@contextmanager
def group(first: Nat, second: Nat) -> Generator[tuple[Host, Host, Host, str]]:
    """Found a group of one machine that all can call, and two behind NATs; and yield the second's router as well."""
    with hosts(3) as (public, one, two), routed(first, one), routed(second, two) as router:
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


@pytest.mark.parametrize(
    ("nat", "got_in", "ports"),
    [
        ("full cone", "another address,another port", 1),
        ("address-restricted", "another port", 1),
        ("port-restricted", "", 1),
    ],
)
def test_the_routers_here_are_of_the_kind_that_they_are_called(nat: str, got_in: str, ports: int) -> None:
    assert who_gets_in(NATS[nat], "one") == (got_in, ports)


def test_the_symmetric_router_here_shows_two_ports_to_two_places_and_lets_in_neither_of_the_others() -> None:
    assert who_gets_in(SYMMETRIC, "two") == ("", 2)
    assert who_gets_in(PORT_RESTRICTED, "two") == ("another port", 1), "the port that was called, that is"


def who_gets_in(nat: Nat, calls: str) -> tuple[str, int]:
    """Return which places outside get in that were not called, and how many ports the two that were see."""
    with hosts(2) as (public, one), routed(nat, one):
        public.inside("ip", "address", "add", "10.77.0.99/24", "dev", "ee0")
        with public.python(ANSWER) as answer:
            try:
                assert answer.stdout is not None
                assert answer.stdout.readline() == "ready\n"
                heard = one.inside(sys.executable, "-c", KNOCK, public.ip, calls).strip()
                return heard, int(answer.stdout.readline())
            finally:
                answer.kill()


@pytest.mark.parametrize(
    ("first", "second"),
    [("full cone", "symmetric"), ("address-restricted", "symmetric")],
)
def test_two_behind_nats_meet_directly(first: str, second: str) -> None:
    with group(NATS[first], NATS[second]) as (public, one, two, _):
        until(lambda: direct(one, "n2") == direct(two, "n1") == "ok", "the two meet", wait_s=40)
        one.inside(sys.executable, "-c", PING, two.address)
        assert way(public, "n1") == ("ok", None)
        assert way(public, "n2") == ("ok", None)


@pytest.mark.parametrize("first", ["port-restricted", "symmetric"])
def test_one_behind_a_symmetric_nat_is_reached_by_a_relay(first: str) -> None:
    relayed = ("degraded", "n0")
    with group(NATS[first], SYMMETRIC) as (_, one, two, _):
        until(lambda: way(one, "n2") == way(two, "n1") == relayed, "the relay", wait_s=40)
        one.inside(sys.executable, "-c", PING, two.address)
        until(lambda: direct(one, "n2") == direct(two, "n1") == "failed", "no direct path", wait_s=40)


def test_two_behind_one_nat_meet_inside() -> None:
    """The router sends nothing back in that came from within, so their outer addresses are of no use to each other."""
    with hosts(3) as (public, one, two), routed(PORT_RESTRICTED, one, two):
        invite = public.up("--tun").invite
        assert invite is not None
        one.up("--tun", invite)
        two.up("--tun", public.atoll("invite").stdout.split()[-1])
        until(lambda: direct(one, "n2") == direct(two, "n1") == "ok", "the two meet", wait_s=40)
        assert (seen_at(one, "n2"), seen_at(two, "n1")) == (f"{two.ip}:{PORT}", f"{one.ip}:{PORT}")
        one.inside(sys.executable, "-c", PING, two.address)


def test_two_behind_cones_meet_directly_and_survive_a_new_address_from_the_provider() -> None:
    with group(PORT_RESTRICTED, PORT_RESTRICTED) as (public, one, two, router):
        until(lambda: direct(one, "n2") == direct(two, "n1") == "ok", "the two meet", wait_s=40)
        one.inside(sys.executable, "-c", PING, two.address)
        assert way(public, "n1") == way(public, "n2") == ("ok", None)
        # Linux forgets what it masqueraded with the address that is gone.
        run("ip", "-n", router, "address", "del", "10.77.0.3/24", "dev", "ee0")
        run("ip", "-n", router, "address", "add", "10.77.0.33/24", "dev", "ee0")
        one.inside(sys.executable, "-c", PING, two.address)
        new = f"10.77.0.33:{PORT}"
        until(lambda: (seen_at(one, "n2"), direct(one, "n2")) == (new, "ok"), "they meet again", wait_s=40)
