# SPDX-License-Identifier: Apache-2.0
"""Forwards, the proxy and attached programs over the kernel's TCP, by nodes without root; QUIC where it is not had."""

import json
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoll.node.limits import STOCK_SOCKETS
from tests.netns.lan import Host, hosts
from tests.process.node_world import until

pytestmark = pytest.mark.netns

# Sends back what comes, to its end, as many connections as there are.
ECHO = """
import socket, threading
def serve(connection):
    try:
        while data := connection.recv(65536):
            connection.sendall(data)
    except ConnectionError:
        pass
    connection.close()
listener = socket.create_server(("127.0.0.1", 8000))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

# Sends so many bytes, then ends its half; says what came back.
EXCHANGE = """
import os, socket, sys, threading
try:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as connection:
        sent = os.urandom(int(sys.argv[2]))
        broken = []
        def send():
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
            except OSError as error:  # The reader is then told of an end: an error is told once.
                broken.append(error)
        sender = threading.Thread(target=send)
        sender.start()
        got = b""
        while data := connection.recv(65536):
            got += data
        sender.join()
        if broken:
            raise ConnectionResetError
        print("same" if got == sent else "different")
except OSError as error:
    print(type(error).__name__)
"""

# So many connections at once, one byte there and back on each; says on how many.
MANY = """
import socket, sys
open_ = [socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) for _ in range(int(sys.argv[2]))]
for one in open_:
    one.sendall(b"x")
print(sum(one.recv(1) == b"x" for one in open_))
"""

# The same through a proxy.
THROUGH_PROXY = """
import socket
with socket.create_connection(("127.0.0.1", 1080), timeout=20) as connection:
    connection.sendall(b"CONNECT n0:8000 HTTP/1.1\\r\\n\\r\\n")
    said = b""
    while b"\\r\\n\\r\\n" not in said:
        said += connection.recv(1000)
    connection.sendall(b"hello")
    print(said.split()[1].decode(), connection.recv(5).decode())
"""

ATTACHED = """
import asyncio, sys, atoll
async def main():
    async with atoll.join(sys.argv[1]) as group:
        reader, writer = await group.open_connection("n1", 8000)
        writer.write(b"hello")
        print((await reader.readexactly(5)).decode())
        writer.close()
asyncio.run(main())
"""

# One byte there and back each 20 ms until a line comes; says how long the longest wait was, s.
ASK = """
import socket, sys, threading, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
worst, over = 0.0, threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
first = True
for _ in range(10_000):
    began = time.monotonic()
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
    if first:
        print("ready", flush=True)
        first = False
    worst = max(worst, time.monotonic() - began)
    if over.wait(0.02):
        break
print(worst)
"""

# Any program of a member's machine: it has the overlay as its network, and not the key.
POSE = """
import socket, sys
with socket.create_connection((sys.argv[1], 4432), timeout=20) as connection:
    connection.sendall(bytes((1, 1, 8000 >> 8, 8000 & 255, 0)) + bytes(16))
    print(connection.recv(10).hex())
"""

SOCKETS = """
for line in open("/proc/net/tcp6").readlines()[1:]:
    print(*line.split()[1:4])
"""

INNER_PORT = "1150"  # 4432 in hex.
ESTABLISHED, LISTENING = "01", "0A"
NOBODY = "02:00:00:00:00:99"  # An Ethernet address; what is sent there is lost in silence.


class Dark(Host):
    """A machine whose users may open no TUN device."""

    def command(self, *command: str) -> list[str]:
        shut = 'mount --bind /dev/null /dev/net/tun && exec "$@"'
        return super().command("unshare", "--mount", "sh", "-c", shut, "sh", *command)


@contextmanager
def serving(host: Host) -> Generator[None]:
    with host.python(ECHO) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def trio() -> Generator[tuple[Host, Host, Host]]:
    with hosts(3) as (one, two, three):
        three.__class__ = Dark
        for host in (one, two, three):
            invite = () if host is one else (invited(one),)
            host.up(*invite)
        until(
            lambda: all(peer.state == "ok" for host in (one, two, three) for peer in host.status().peers),
            "all are linked",
        )
        with serving(one), serving(two), serving(three):
            yield one, two, three


def invited(host: Host) -> str:
    return str(json.loads(host.atoll("invite", "--json").stdout)["invite"])


@contextmanager
def forward(host: Host, port: int, target: str, *options: str) -> Generator[int]:
    """Forward a port; yield the number of the forward."""
    done = host.atoll("forward", "tcp", str(port), f"{target}:8000", *options, "--json")
    assert done.returncode == 0, done.stderr
    number = int(json.loads(done.stdout)["id"])
    try:
        yield number
    finally:
        host.atoll("forward", "rm", str(number))


def carrier(host: Host, number: int) -> str:
    lines = host.atoll("forward", "list", "--json").stdout.splitlines()
    return str(next(view["carrier"] for view in map(json.loads, lines) if view["id"] == number))


def exchange(host: Host, port: int, size: int) -> str:
    return host.inside(sys.executable, "-c", EXCHANGE, str(port), str(size)).strip()


def in_private(host: Host, program: str, *arguments: str) -> str:
    """Run a program by ``atoll exec``."""
    command = host.command(
        sys.executable, "-m", "atoll.cli", "exec", "--state", str(host.state), "--", sys.executable, "-c", program
    )
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def opened_to(host: Host, target: Host) -> int:
    """Return how many connections of the kernel a machine has to the port of members on another one."""
    words = memoryview(socket.inet_pton(socket.AF_INET6, target.address)).cast("I")
    packed = "".join(f"{word:08X}" for word in words)  # As /proc has it: words in the machine's order.
    found = [line.split() for line in in_private(host, SOCKETS).splitlines()]
    return sum(remote == f"{packed}:{INNER_PORT}" and state == ESTABLISHED for _, remote, state in found)


def test_a_forward_goes_over_kernel_tcp_between_nodes_without_root(trio: tuple[Host, Host, Host]) -> None:
    one, two, _ = trio
    with forward(one, 15000, "n1", "--tag", "throughput") as number:
        assert [exchange(one, 15000, size) for size in (1, 3_000_000, 0)] == ["same"] * 3
        assert carrier(one, number) == "tcp"
        assert opened_to(one, two) >= 1, "the next connection is made already"


def test_there_are_more_connections_than_sockets_were_made_at_first(trio: tuple[Host, Host, Host]) -> None:
    one, _, _ = trio
    with forward(one, 15007, "n1") as number:
        assert one.inside(sys.executable, "-c", MANY, "15007", str(2 * STOCK_SOCKETS)) == f"{2 * STOCK_SOCKETS}\n"
        assert carrier(one, number) == "tcp"


def test_the_proxy_and_attached_programs_go_that_way_too(trio: tuple[Host, Host, Host]) -> None:
    one, two, _ = trio
    assert two.atoll("socks").returncode == 0
    assert two.inside(sys.executable, "-c", THROUGH_PROXY) == "200 hello\n"
    assert opened_to(two, one) >= 1
    assert one.inside(sys.executable, "-c", ATTACHED, str(one.state)) == "hello\n"


def test_a_member_without_such_a_network_is_reached_by_quic_and_reaches_others(trio: tuple[Host, Host, Host]) -> None:
    one, _, three = trio
    for host, target in ((one, "n2"), (three, "n0")):
        with forward(host, 15001, target) as number:
            assert exchange(host, 15001, 100_000) == "same"
            assert carrier(host, number) == "quic"


def test_rules_hold_for_the_port_that_is_reached(trio: tuple[Host, Host, Host], tmp_path: Path) -> None:
    one, two, _ = trio
    rules = tmp_path / "atoll.toml"
    with forward(one, 15002, "n1") as number:
        for text, seen in (
            ('access = ["allow n0 -> n1:8001"]', "ConnectionResetError"),
            ('access = ["allow n0 -> n1:8000"]', "same"),
            ('access-default = "allow"', "same"),
        ):
            rules.write_text(f"{text}\n")
            assert two.atoll("config", "apply", "--config", str(rules)).returncode == 0
            assert exchange(one, 15002, 1000) == seen
            assert carrier(one, number) == "tcp"


def test_a_port_where_nobody_listens_resets_the_connection(trio: tuple[Host, Host, Host]) -> None:
    one, _, _ = trio
    done = one.atoll("forward", "tcp", "15003", "n1:9", "--json")
    assert exchange(one, 15003, 10) == "ConnectionResetError"
    assert carrier(one, int(json.loads(done.stdout)["id"])) == "tcp"


def test_a_program_that_is_not_the_node_is_refused(trio: tuple[Host, Host, Host]) -> None:
    one, two, _ = trio
    with forward(one, 15004, "n1"):
        assert exchange(one, 15004, 1) == "same"
    assert in_private(one, POSE, two.address) == "03\n"


def test_connections_outlive_the_loss_of_their_path(trio: tuple[Host, Host, Host]) -> None:
    one, two, _ = trio
    with forward(one, 15005, "n1") as number:
        assert exchange(one, 15005, 1) == "same"
        with one.python(ASK, "15005") as asker:
            assert asker.stdin is not None
            assert asker.stdout is not None
            assert asker.stdout.readline() == "ready\n"
            for host, other in ((one, two), (two, one)):
                host.inside("ip", "neigh", "replace", other.ip, "lladdr", NOBODY, "dev", "ee0", "nud", "permanent")
            until(lambda: next(p.via for p in one.status().peers if p.name == "n1") == "n2", "the way by the third")
            assert exchange(one, 15005, 1_000_000) == "same"
            asker.stdin.write("\n")
            asker.stdin.flush()
            assert float(asker.stdout.readline()) > 0, "each byte came back"
        assert carrier(one, number) == "tcp"
        for host, other in ((one, two), (two, one)):
            host.inside("ip", "neigh", "del", other.ip, "dev", "ee0")


def test_a_member_that_was_started_again_is_found_again(trio: tuple[Host, Host, Host]) -> None:
    one, two, _ = trio
    with forward(one, 15006, "n1") as number:
        assert exchange(one, 15006, 1) == "same"
        assert two.atoll("down").returncode == 0
        two.up()
        until(lambda: exchange(one, 15006, 1000) == "same", "the forward works again")
        until(lambda: exchange(one, 15006, 1000) == "same" and carrier(one, number) == "tcp", "over kernel TCP")


def test_by_a_device_of_the_machine_it_is_the_machines_own_tcp() -> None:
    with hosts(2) as (one, two):
        one.up("--tun")
        two.up("--tun", invited(one))
        until(lambda: all(peer.state == "ok" for peer in one.status().peers), "the two linked")
        with serving(two), forward(one, 15000, "n1") as number:
            assert exchange(one, 15000, 1_000_000) == "same"
            assert carrier(one, number) == "tcp"
            listening = [line.split()[1:4] for line in two.inside("cat", "/proc/net/tcp6").splitlines()[1:]]
            assert any(local.endswith(f":{INNER_PORT}") and state == LISTENING for local, _, state in listening)
