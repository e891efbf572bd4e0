# SPDX-License-Identifier: Apache-2.0
"""Stock WireGuard software as a client of the group: it enters by any member, moves, reaches all, and is revoked.

::

    n0, n1 (atoll up --tun)      n2 (wireguard-go, and nothing of ours)
        \\          |             /
         `---------Ethernet-----'
"""

import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from atoll.node.views import ClientConfigView, ClientView
from tests.netns.lan import PORT, Host, cannot, hosts
from tests.process.node_world import until

pytestmark = pytest.mark.netns

MIB = 1 << 20

ECHO = """
import socket, sys
listener = socket.create_server((sys.argv[1], 9000), family=socket.AF_INET6)
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    while data := connection.recv(1 << 16):
        connection.sendall(data)
    connection.close()
"""

TALK = """
import hashlib, os, socket, sys, threading
address, size = sys.argv[1], int(sys.argv[2])
sent = os.urandom(size)
with socket.create_connection((address, 9000), timeout=20) as connection:
    threading.Thread(target=connection.sendall, args=(sent,)).start()
    came = bytearray()
    while len(came) < size and (data := connection.recv(1 << 16)):
        came += data
print(bytes(came) == sent)
"""

ASK = """
import dns.message, dns.query, sys
print(dns.query.udp(dns.message.make_query(sys.argv[1], "AAAA"), sys.argv[2], timeout=5).answer[0][0])
"""

LISTEN = """
import socket, sys
listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
listener.bind((sys.argv[1], 9001))
print("ready", flush=True)
print(listener.recvfrom(100)[1][0], flush=True)
"""

FORGE = """
import socket, struct, sys
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
addresses = b"".join(socket.inet_pton(socket.AF_INET6, address) for address in sys.argv[1:])
words = struct.unpack(">20H", addresses + struct.pack(">HHHH", 17, 9001, 9001, 8 + 8))
total = sum(words)
total = (total & 0xFFFF) + (total >> 16)
udp = struct.pack(">HHHH", 9001, 9001, 8, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
raw.sendto(struct.pack(">IHBB", 6 << 28, 8, 17, 64) + addresses + udp, (sys.argv[2], 0))
"""


CONNECT = """
import errno, socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=15)
except OSError as error:
    print(errno.errorcode.get(error.errno, "timed out"))
"""


class Phone:
    """A machine with wireguard-go and a configuration that ``atoll client add`` printed."""

    def __init__(self, host: Host, config: str) -> None:
        self.host = host
        self.device = f"wg{os.getpid()}"  # wireguard-go's socket is named after it, for all namespaces.
        lines = dict(line.split(" = ", 1) for line in config.splitlines() if " = " in line and not line.startswith("#"))
        self.address = lines["Address"].removesuffix("/128")
        self.prefix, self.resolver = lines["AllowedIPs"], lines["DNS"].partition(",")[0]
        self.gateway, self.mtu = lines["PublicKey"], lines["MTU"]
        # What `wg-quick strip` leaves, because `wg` knows no addresses and no names.
        self.stripped = "\n".join(
            line for line in config.splitlines() if not line.startswith(("Address", "DNS", "MTU", "#"))
        )

    @contextmanager
    def on(self, keys: Path) -> Generator[None]:
        """Run it."""
        (keys / "stripped.conf").write_text(self.stripped)
        command = self.host.command("wireguard-go", "-f", self.device)
        with (keys / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as daemon:
            try:
                until(lambda: self.device in self.host.inside("ip", "-br", "link"), "wireguard-go")
                self.host.inside("wg", "setconf", self.device, str(keys / "stripped.conf"))
                self.host.inside("ip", "address", "add", f"{self.address}/128", "dev", self.device, "nodad")
                self.host.inside("ip", "link", "set", self.device, "mtu", self.mtu, "up")
                self.host.inside("ip", "-6", "route", "add", self.prefix, "dev", self.device)
                yield
            finally:
                daemon.terminate()

    def call(self, host: Host) -> None:
        """Enter by another member."""
        self.host.inside("wg", "set", self.device, "peer", self.gateway, "endpoint", f"{host.ip}:{PORT}")


@pytest.fixture
def lan(tmp_path: Path) -> Generator[tuple[Host, Host, Phone]]:
    for tool in ("wg", "wireguard-go"):
        if shutil.which(tool) is None:
            cannot(f"needs {tool}")
    with hosts(3) as (one, two, third):
        invite = one.up("--tun").invite
        assert invite is not None
        two.up("--tun", invite)
        until(lambda: all(peer.state == "ok" for peer in one.status().peers), "the two linked")
        made = one.atoll("client", "add", "phone", "--json")
        assert made.returncode == 0, made.stderr
        phone = Phone(third, msgspec.json.decode(made.stdout, type=ClientConfigView).config)
        with phone.on(tmp_path):
            yield one, two, phone


@contextmanager
def serving(host: Host, address: str) -> Generator[None]:
    with host.python(ECHO, address) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.terminate()


def talk(host: Host, address: str, size: int = 1000) -> bool:
    with host.python(TALK, address, str(size)) as program:
        return program.communicate(timeout=60)[0] == "True\n"


def ask(phone: Phone, name: str) -> str:
    return phone.host.inside(sys.executable, "-c", ASK, name, phone.resolver).strip()


def clients(host: Host) -> list[ClientView]:
    said = host.atoll("client", "list", "--json").stdout
    return [msgspec.json.decode(line, type=ClientView) for line in said.splitlines()]


def pings(host: Host, address: str) -> bool:
    command = host.command("ping", "-6", "-c", "1", "-W", "2", address)
    return subprocess.run(command, check=False, capture_output=True, timeout=20).returncode == 0


def test_a_client_reaches_all_members_by_name_and_they_reach_it(lan: tuple[Host, Host, Phone]) -> None:
    one, two, phone = lan
    assert one.ready is not None
    assert ask(phone, f"n1.{one.ready.group}.atoll") == two.address
    assert ask(phone, "phone.atoll") == phone.address
    with serving(one, one.address), serving(two, two.address), serving(phone.host, phone.address):
        assert talk(phone.host, one.address, 4 * MIB)  # The member that it is connected to,
        assert talk(phone.host, two.address, 4 * MIB)  # and one behind that.
        assert talk(one, phone.address, 4 * MIB)
        assert talk(two, phone.address, 4 * MIB)
    (seen,) = clients(two)
    assert (seen.name, seen.served_by) == ("phone", "n0")


def test_a_client_reaches_itself_and_is_told_at_once_who_refuses(lan: tuple[Host, Host, Phone], tmp_path: Path) -> None:
    one, two, phone = lan
    until(lambda: pings(phone.host, two.address), "the way in")
    with serving(phone.host, phone.address):
        assert talk(phone.host, phone.address)
    rules = tmp_path / "atoll.toml"
    rules.write_text('access = ["deny phone -> *:22"]\naccess-default = "allow"\n')
    for host in (one, two):
        assert host.atoll("config", "apply", "--config", str(rules)).returncode == 0
        for port, told in ((8000, "ECONNREFUSED"), (22, "EACCES")):
            assert phone.host.inside(sys.executable, "-c", CONNECT, host.address, str(port)).strip() == told
    assert two.atoll("down").returncode == 0
    assert two.atoll("up", "--no-tun", "--json").returncode == 0
    until(lambda: pings(phone.host, two.address), "the member without a network stack in the group", wait_s=60)
    assert phone.host.inside(sys.executable, "-c", CONNECT, two.address, "8000").strip() == "ECONNREFUSED"


def test_a_client_moves_between_members_and_its_own_addresses(lan: tuple[Host, Host, Phone]) -> None:
    one, two, phone = lan
    with serving(one, one.address), serving(phone.host, phone.address):
        until(lambda: pings(phone.host, one.address), "the first way in")
        one.inside("ip", "link", "set", "ee0", "down")
        phone.call(two)
        # WireGuard itself shakes hands anew 15 s after it heard nothing.
        until(lambda: pings(phone.host, two.address), "the way in by the other member", wait_s=40)
        assert [seen.served_by for seen in clients(two)] == ["n1"]
        one.inside("ip", "link", "set", "ee0", "up")
        until(lambda: [seen.served_by for seen in clients(one)] == ["n1"], "the first member to let go", wait_s=40)
        assert talk(phone.host, one.address)
        assert talk(one, phone.address)
        phone.host.inside("ip", "address", "add", "10.77.0.99/24", "dev", "ee0")
        phone.host.inside("ip", "address", "del", f"{phone.host.ip}/24", "dev", "ee0")
        phone.host.inside("ip", "address", "add", "10.77.0.99/24", "dev", "ee0")
        until(lambda: pings(phone.host, one.address), "the client at its new address")
        (seen,) = clients(two)
        assert seen.endpoint is not None
        assert seen.endpoint.startswith("10.77.0.99:")
        assert talk(one, phone.address)


def test_a_client_that_is_removed_is_refused_by_everybody(lan: tuple[Host, Host, Phone]) -> None:
    one, two, phone = lan
    until(lambda: pings(phone.host, two.address), "the way in")
    assert two.atoll("client", "rm", "phone").returncode == 0
    until(lambda: not clients(one), "the news")
    assert not pings(phone.host, one.address)
    phone.call(two)
    phone.host.inside("ip", "link", "set", phone.device, "down")
    phone.host.inside("ip", "link", "set", phone.device, "up")
    phone.host.inside("ip", "-6", "route", "replace", phone.prefix, "dev", phone.device)
    assert not pings(phone.host, two.address)
    assert one.atoll("client", "rm", "phone").returncode == 1


def test_a_client_speaks_only_for_itself_and_is_told_who_does_not_exist(lan: tuple[Host, Host, Phone]) -> None:
    one, two, phone = lan
    until(lambda: pings(phone.host, one.address), "the way in")
    with one.python(LISTEN, one.address) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        for source in (two.address, phone.address):
            phone.host.inside(sys.executable, "-c", FORGE, source, one.address)
        assert listener.stdout.readline() == f"{phone.address}\n"  # And nothing came before it.
    nobody = str(ipaddress.IPv6Network(phone.prefix)[0xDEAD])
    ping = phone.host.command("ping", "-6", "-c", "1", "-W", "5", nobody)
    said = subprocess.run(ping, check=False, capture_output=True, text=True, timeout=20).stdout
    assert "No route" in said or "unreachable" in said


def test_names_are_answered_where_the_whole_machine_has_the_overlay(lan: tuple[Host, Host, Phone]) -> None:
    one, two, phone = lan
    assert one.inside(sys.executable, "-c", ASK, "n1.atoll", phone.resolver).strip() == two.address
