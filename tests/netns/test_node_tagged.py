# SPDX-License-Identifier: Apache-2.0
"""Rules by program, and ``exec --tag``: real programs get their tag, in the private network and with ``--tun``.

The direct way from n0 to n1 is cut, and n0 says that the default tag never goes by a relay. So only what has another
tag arrives, and what arrives had it.
"""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from atoll.node.views import WhyView
from tests.netns.lan import Host, hosts
from tests.process.node_world import until

pytestmark = pytest.mark.netns

RULES = """
[tags.latency]
direct-only = true
"""

BY_PROGRAM = """
[[traffic]]
program = "fetch-by-relay.py"   # Longer than what the kernel keeps of a name.
port = 8000
tag = "throughput"
"""

SERVE = """
import socket, threading
def answer():
    answerer = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    answerer.bind(("::", 8000))
    while True:
        data, source = answerer.recvfrom(100)
        answerer.sendto(data, source)
threading.Thread(target=answer, daemon=True).start()
for port in (8001, 8000):
    listener = socket.create_server(("::", port), family=socket.AF_INET6)
    if port == 8001:
        threading.Thread(target=lambda far=listener: [far.accept()[0].sendall(b"hello") for _ in range(99)]).start()
print("ready", flush=True)
while True:
    listener.accept()[0].sendall(b"hello" * 100_000)
"""

FETCH = """#!%s
import socket, sys
address, protocol, port, wait_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
try:
    if protocol == "tcp":
        with socket.create_connection((address, port), timeout=wait_s) as connection:
            while connection.recv(65536):
                pass
    else:
        asker = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        asker.connect((address, port))
        asker.settimeout(wait_s / 10)
        for _ in range(10):
            try:
                asker.send(b"?")
                asker.recv(10)
                break
            except TimeoutError:
                pass
        else:
            raise TimeoutError
except OSError:
    print("nothing")
else:
    print("all")
"""


class World:
    """Three machines; what n0 has in its file; and two programs that do the same."""

    def __init__(self, members: list[Host], base: Path, *, tun: bool) -> None:
        self.one, self.two, self.three = members
        self.tun = tun
        self.rules = base / "atoll.toml"
        self.named, self.other = base / "fetch-by-relay.py", base / "other.py"
        for script in (self.named, self.other):
            script.write_text(FETCH % sys.executable)
            script.chmod(0o755)

    def apply(self, *rules: str) -> None:
        self.rules.write_text("".join(rules))
        assert self.one.atoll("config", "apply", "--config", str(self.rules)).returncode == 0

    def execute(self, *command: str | Path, tag: str = "") -> str:
        """Run a command by ``atoll exec``; with ``--tun`` and no tag, as any program is run."""
        prefix = [sys.executable, "-m", "atoll.cli", "exec", "--state", str(self.one.state)]
        prefix = [] if self.tun and not tag else [*prefix, *(("--tag", tag) if tag else ()), "--"]
        arguments = self.one.command(*prefix, *map(str, command))
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False, cwd="/")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def fetches(self, program: Path, protocol: str, port: int = 8000, wait_s: int = 20, tag: str = "") -> bool:
        return self.execute(program, self.two.address, protocol, str(port), str(wait_s), tag=tag) == "all"


@contextmanager
def serving(host: Host) -> Generator[None]:
    arguments = ["exec", "--state", str(host.state), "--", sys.executable, "-c", SERVE]
    command = host.command(sys.executable, "-m", "atoll.cli", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.terminate()


@pytest.fixture(scope="module", params=["private", "tun"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    is_tun = request.param == "tun"
    with hosts(3) as members:
        made = World(members, tmp_path_factory.mktemp("programs"), tun=is_tun)
        invite = made.one.up(*(("--tun",) if is_tun else ())).invite
        assert invite is not None
        made.three.up(invite)
        again = msgspec.json.decode(made.one.atoll("invite", "--json").stdout, type=dict[str, object])["invite"]
        made.two.up(str(again))
        until(lambda: len(made.one.status().peers) == 2, "three members")
        for host, far in ((made.one, made.two), (made.two, made.one)):
            host.inside(
                "ip", "neigh", "replace", far.ip, "lladdr", "02:00:00:00:00:99", "dev", "ee0", "nud", "permanent"
            )
        made.apply(RULES)

        def is_relayed() -> bool:
            said = made.one.atoll("why", "n1", "--tag", "throughput", "--json").stdout
            return "n2" in msgspec.json.decode(said, type=WhyView).path

        until(is_relayed, "the way by the relay")
        with serving(made.two):
            yield made


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_program_gets_the_tag_of_its_rule_and_others_do_not(world: World, protocol: str) -> None:
    world.apply(RULES)
    assert not world.fetches(world.named, protocol, wait_s=2)
    world.apply(RULES, BY_PROGRAM)
    assert world.fetches(world.named, protocol)
    assert not world.fetches(world.other, protocol, wait_s=2)
    if protocol == "tcp":
        assert not world.fetches(world.named, protocol, 8001, wait_s=2)  # All that the rule names must hold.


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_tag_given_to_a_program_is_its_childrens_too_and_stands_above_the_rules(world: World, protocol: str) -> None:
    world.apply(RULES)
    assert world.fetches(world.other, protocol, tag="throughput")
    arguments = f"{world.other} {world.two.address} {protocol} 8000 20"
    assert world.execute("sh", "-c", f"env -i {arguments}; :", tag="throughput") == "all"
    assert not world.fetches(world.other, protocol, wait_s=2)
    world.apply(RULES, BY_PROGRAM)
    assert not world.fetches(world.named, protocol, wait_s=2, tag="latency")


def test_a_tag_stays_on_what_leaves_its_parents(world: World, tmp_path: Path) -> None:
    world.apply(RULES)
    said = tmp_path / "said"
    daemon = f"(setsid {world.other} {world.two.address} tcp 8000 20 >{said} 2>&1 </dev/null &)"
    assert world.execute("sh", "-c", daemon, tag="throughput") == ""
    assert until(said.read_text, "the daemon's word") == "all\n"


def test_an_unknown_tag_is_refused(world: World) -> None:
    refused = world.one.atoll("exec", "--tag", "fast", "true")
    assert refused.returncode == 2
    assert "--tag" in refused.stderr


def test_the_packet_device_asks_again_when_it_is_new(world: World) -> None:
    world.apply(RULES, BY_PROGRAM)
    _, nic = world.one.processes()
    world.one.inside("kill", "-9", str(nic))
    until(lambda: world.fetches(world.named, "tcp", wait_s=3), "the rule in the new device")
