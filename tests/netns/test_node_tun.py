# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs over ``atoll up --tun``: the machine's own network stack is joined to the overlay."""

import os
import re
import signal
import sys
from collections.abc import Generator

import pytest

from tests.netns.lan import PORT, Host, hosts
from tests.process.node_world import until

pytestmark = pytest.mark.netns

PING = """
import socket, struct, sys
ping = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
ping.settimeout(10)
for number in range(int(sys.argv[2])):
    sent = struct.pack("!BBHHH", 128, 0, 0, 77, number) + b"from the kernel"
    ping.sendto(sent, (sys.argv[1], 0))
    while (reply := ping.recv(2048))[0] != 129:
        pass
    assert reply[4:] == sent[4:], reply
"""

SERVE = """
import socket, sys
listener = socket.create_server((sys.argv[1], 8000), family=socket.AF_INET6)
print("ready", flush=True)
connection, _ = listener.accept()
while data := connection.recv(65536):
    connection.sendall(data)
"""

EXCHANGE = """
import os, socket, sys
connection = socket.create_connection((sys.argv[1], 8000), timeout=20)
connection.settimeout(20)
for line in sys.stdin:
    sent = os.urandom(int(line))
    import threading
    threading.Thread(target=connection.sendall, args=(sent,)).start()
    got = b""
    while len(got) < len(sent):
        got += connection.recv(65536)
    print("same" if got == sent else "different", flush=True)
"""

CONNECT = """
import socket, sys, time
began = time.monotonic()
try:
    socket.create_connection((sys.argv[1], 8000), timeout=15)
except OSError as error:
    print(type(error).__name__, error.errno, time.monotonic() - began < 10)
"""


# Says how long each datagram is that a program gets.
HEAR = """
import socket, sys
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 5000))
print("ready", flush=True)
while True:
    print(len(sock.recv(65_535)), flush=True)
"""
# Three datagrams with a wrong checksum, one that is cut into fragments, and one of five bytes.
WRONG = """
import socket, struct, sys
source, target = (socket.inet_pton(socket.AF_INET6, one) for one in sys.argv[1:])
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
for size in (3, 700, 1200):
    udp = struct.pack("!HHHH", 5000, 5000, 8 + size, 0x1234) + bytes(size)
    raw.sendto(struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + source + target + udp, (sys.argv[2], 0))
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.sendto(bytes(4000), (sys.argv[2], 5000))
sock.sendto(bytes(5), (sys.argv[2], 5000))
"""


@pytest.fixture(scope="module")
def pair() -> Generator[tuple[Host, Host]]:
    with hosts(2) as (one, two):
        invite = one.up("--tun").invite
        assert invite is not None
        two.up("--tun", invite)
        until(lambda: all(peer.state == "ok" for peer in one.status().peers), "the two linked")
        yield one, two


def test_ping_goes_through_the_overlay(pair: tuple[Host, Host]) -> None:
    one, two = pair
    one.inside(sys.executable, "-c", PING, two.address, "3")
    one.inside(sys.executable, "-c", PING, one.address, "1")  # A node reaches itself.


def test_only_the_groups_prefix_is_routed(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    routes = [line for line in one.inside("ip", "-6", "route").splitlines() if one.device in line]
    ours = [line.split()[0] for line in routes if not line.startswith("fe80")]
    assert ours == [":".join(one.address.split(":")[:3]) + "::/48"]
    assert one.device not in one.inside("ip", "route")


def test_another_overlay_on_the_machine_keeps_its_own_prefix(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    before = one.inside("ip", "-6", "route"), one.inside("ip", "route")
    other = Host(one.namespace.rpartition("-")[0], 0, one.state / "other")
    other.up("--tun", listen=f"{one.ip}:{PORT + 1}")
    try:
        routes = [line.split() for line in one.inside("ip", "-6", "route").splitlines() if "fe80" not in line]
        prefixes = {
            device: ":".join(host.address.split(":")[:3]) + "::/48"
            for host in (one, other)
            for device in (host.device,)
        }
        assert {line[line.index("dev") + 1]: line[0] for line in routes} == prefixes
        assert len(set(prefixes.values())) == 2
    finally:
        assert other.atoll("down").returncode == 0
    until(
        lambda: (one.inside("ip", "-6", "route"), one.inside("ip", "route")) == before, "nothing left of the other one"
    )


def test_a_connection_carries_every_byte_and_outlives_the_packet_device(pair: tuple[Host, Host]) -> None:
    one, two = pair
    with two.python(SERVE, two.address) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        with one.python(EXCHANGE, two.address) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            for size in (1, 1_000, 3_000_000):
                client.stdin.write(f"{size}\n")
                client.stdin.flush()
                assert client.stdout.readline() == "same\n"
            _, nic = one.processes()
            os.kill(nic, signal.SIGKILL)
            client.stdin.write("100000\n")
            client.stdin.flush()
            assert client.stdout.readline() == "same\n"
            client.stdin.close()
    assert re.search(r"inet6 " + one.address, one.inside("ip", "-6", "address", "show", one.device))


def test_an_address_that_no_member_has_is_refused_at_once(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    nobody = ":".join([*one.address.split(":")[:3], "1", "2", "3", "4", "5"])
    with one.python(CONNECT, nobody) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "OSError 101 True\n"  # ENETUNREACH, and no time-out.


def test_what_is_wrong_inside_reaches_no_program_and_what_was_cut_does(pair: tuple[Host, Host]) -> None:
    """A wrong checksum is the kernel's to find, and must stay one on the way; fragments are the kernel's to join."""
    one, two = pair
    with two.python(HEAR, two.address) as heard:
        assert heard.stdout is not None
        assert heard.stdout.readline() == "ready\n"
        one.inside(sys.executable, "-c", WRONG, one.address, two.address)
        assert [heard.stdout.readline() for _ in range(2)] == ["4000\n", "5\n"]
        heard.kill()
    errors = two.inside("grep", "-E", "^(Udp6InCsumErrors|Ip6ReasmOKs)", "/proc/net/snmp6").split()
    assert dict(zip(errors[::2], map(int, errors[1::2]), strict=True)) == {"Udp6InCsumErrors": 3, "Ip6ReasmOKs": 1}


def test_an_interface_that_is_taken_away_comes_back(pair: tuple[Host, Host]) -> None:
    one, two = pair
    one.inside("ip", "link", "del", one.device)
    until(lambda: one.address in one.inside("ip", "-6", "address"), "another interface")
    one.inside(sys.executable, "-c", PING, two.address, "1")


def test_down_takes_the_interface_away() -> None:
    with hosts(1) as (one,):
        one.up("--tun")
        assert one.device in one.inside("ip", "link")
        assert one.atoll("down").returncode == 0
        assert "POINTOPOINT" not in one.inside("ip", "link")
        assert one.atoll("up", "--json").returncode == 0
        assert "POINTOPOINT" in one.inside("ip", "link"), "the choice is kept"
        assert one.atoll("down").returncode == 0
        assert one.atoll("up", "--no-tun", "--json").returncode == 0
        assert "POINTOPOINT" not in one.inside("ip", "link")
