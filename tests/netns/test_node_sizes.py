# SPDX-License-Identifier: Apache-2.0
"""Path MTU between real kernels: large packets where they pass, and a link that swallows them in silence.

The bridge drops what is longer than its port's MTU and tells nobody. The hosts' devices cut bursts before that, or the
bridge would let them pass uncut.
"""

import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from atoll.overlay.sizes import LARGEST_BYTES
from tests.netns.lan import Host, cannot, hosts, run
from tests.process.node_world import until

pytestmark = pytest.mark.netns

MIB = 1 << 20
NARROW = 1400  # Carries an inner packet of 1312 or 1280 bytes, not one of 1408.

SERVE = """
import socket, sys
listener = socket.create_server((sys.argv[1], 9000), family=socket.AF_INET6)
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    while data := connection.recv(1 << 18):
        connection.sendall(data)
    connection.close()
"""

# Sends as long as it is told to go on, and checks what comes back.
TALK = """
import os, socket, sys, threading
piece = os.urandom(1 << 18)
connection = socket.create_connection((sys.argv[1], 9000), timeout=40)
for line in sys.stdin:
    count = int(line)
    sender = threading.Thread(target=lambda: [connection.sendall(piece) for _ in range(count)])
    sender.start()
    for _ in range(count):
        came = b""
        while len(came) < len(piece) and (data := connection.recv(len(piece) - len(came))):
            came += data
        if came != piece:
            sys.exit("not the same")
    print("same", flush=True)
"""

DATAGRAM = """
import socket, sys
asker = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
asker.settimeout(2)
asker.connect((sys.argv[1], 9001))
for _ in range(10):
    try:
        asker.send(bytes(int(sys.argv[2])))
        print(len(asker.recv(4096)))
        break
    except OSError:  # It did not come back; or the kernel tells how much passes, and cuts from now on.
        pass
"""

ECHO = """
import socket, sys
answerer = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
answerer.bind((sys.argv[1], 9001))
print("ready", flush=True)
while True:
    data, source = answerer.recvfrom(4096)
    answerer.sendto(data, source)
"""


@pytest.fixture
def pair() -> Generator[tuple[Host, Host]]:
    for tool in ("ethtool", "nft"):
        if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            cannot(f"needs {tool}")
    with hosts(2) as (one, two):
        for host in (one, two):
            host.inside("ethtool", "-K", "ee0", "tx-udp-segmentation", "off", "gso", "off")
        invite = one.up("--tun").invite
        assert invite is not None
        two.up("--tun", invite)
        until(lambda: all(peer.state == "ok" for peer in one.status().peers), "the two linked")
        two.inside("nft", "add", "table", "inet", "seen")
        two.inside("nft", "add chain inet seen in { type filter hook input priority 0; }")
        two.inside("nft", "add rule inet seen in meta l4proto udp meta length > 1400 counter")
        yield one, two


@contextmanager
def talking(one: Host, two: Host) -> Generator[Callable[[int], None]]:
    """Keep a connection between the two; what it yields sends and checks so many pieces."""
    with two.python(SERVE, two.address) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            with one.python(TALK, two.address) as talk:

                def exchange(count: int) -> None:
                    assert talk.stdin is not None
                    assert talk.stdout is not None
                    talk.stdin.write(f"{count}\n")
                    talk.stdin.flush()
                    assert talk.stdout.readline() == "same\n"

                try:
                    yield exchange
                finally:
                    talk.terminate()
        finally:
            server.terminate()


def narrow(host: Host) -> None:
    lan, _, number = host.namespace.rpartition("-")
    run("ip", "-n", lan, "link", "set", f"port{number}", "mtu", str(NARROW))


def long_ones(host: Host) -> int:
    said = host.inside("nft", "list", "table", "inet", "seen")
    return int(said.split("packets ")[1].split()[0])


def test_large_packets_are_used_where_they_pass(pair: tuple[Host, Host]) -> None:
    one, two = pair
    with talking(one, two) as exchange:

        def are_large() -> bool:
            before = long_ones(two)
            exchange(8)
            return long_ones(two) - before > MIB // LARGEST_BYTES

        until(are_large, "large packets")


@pytest.mark.parametrize("begins", ["narrow", "wide"])
def test_a_link_that_swallows_large_packets_is_survived(pair: tuple[Host, Host], begins: str) -> None:
    one, two = pair
    if begins == "narrow":
        narrow(two)
    with talking(one, two) as exchange:
        exchange(4)
        if begins == "wide":
            until(lambda: long_ones(two) > 0, "large packets")
            narrow(two)
        exchange(16)
        exchange(16)


@pytest.mark.parametrize("size", [1000, 1340, 4000])
def test_datagrams_of_any_size_pass_a_narrow_link(pair: tuple[Host, Host], size: int) -> None:
    one, two = pair
    narrow(two)
    with two.python(ECHO, two.address) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "ready\n"
            assert one.inside(sys.executable, "-c", DATAGRAM, two.address, str(size)).strip() == str(size)
        finally:
            server.terminate()
