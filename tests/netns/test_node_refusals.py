# SPDX-License-Identifier: Apache-2.0
"""Whoever connects to what is closed, or forbidden, is told so at once, by each way in; never by a time-out.

::

    n0 (no root: exec, forward, socks)     n1 (up --tun, with rules)     n2 (no root, no network stack in the group)
"""

import sys
from collections.abc import Generator

import msgspec
import pytest

from atoll.node.tunnel import CONTROL_PORTS
from tests.netns.lan import Host, hosts
from tests.process.node_world import until

pytestmark = pytest.mark.netns

CLOSED, FORBIDDEN = 8000, 22
RULES = f'access = ["allow * -> *:{CLOSED}"]\n'

CONNECT = """
import errno, socket, sys
try:
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=15)
    connection.sendall(bytes.fromhex(sys.argv[3] if len(sys.argv) > 3 else ""))
    got = connection.recv(2)
    while got and (more := connection.recv(8)):  # What a proxy says, up to its end.
        got += more
    print(got.hex())
except OSError as error:
    print(errno.errorcode.get(error.errno, "timed out"))
"""

SPEAK = """
import errno, os, socket, sys
os.setuid(65534)
speaker = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
speaker.settimeout(15)
speaker.connect((sys.argv[1], int(sys.argv[2])))
try:
    speaker.send(b"in the node's name")
    print(speaker.recv(100))
except OSError as error:
    print(errno.errorcode.get(error.errno, "timed out"))
"""


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Host, Host, Host]]:
    rules = tmp_path_factory.mktemp("rules") / "atoll.toml"
    rules.write_text(RULES)
    with hosts(3) as (one, two, three):
        invite = one.up().invite
        assert invite is not None
        two.up("--tun", invite, "--config", str(rules))
        again = msgspec.json.decode(one.atoll("invite", "--json").stdout, type=dict[str, object])["invite"]
        three.up(str(again))
        members = (one, two, three)
        until(
            lambda: all([peer.state for peer in host.status().peers] == ["ok", "ok"] for host in members), "all linked"
        )
        yield one, two, three


def tries(host: Host, address: str, port: int, *, said: str = "", by_exec: bool = False) -> str:
    prefix = [sys.executable, "-m", "atoll.cli", "exec", "--state", str(host.state), "--"] if by_exec else []
    return host.inside(*prefix, sys.executable, "-c", CONNECT, address, str(port), said).strip()


def test_by_the_tun_device(lan: tuple[Host, Host, Host]) -> None:
    _, two, three = lan
    assert tries(two, three.address, CLOSED) == "ECONNREFUSED"  # Nobody there could take a connection at all.
    assert tries(two, two.address, CLOSED) == "ECONNREFUSED"


@pytest.mark.parametrize("port", CONTROL_PORTS)
def test_no_program_speaks_at_the_ports_of_the_nodes(lan: tuple[Host, Host, Host], port: int) -> None:
    one, two, _ = lan
    assert two.inside(sys.executable, "-c", SPEAK, one.address, str(port)).strip() == "EACCES"


def test_by_exec(lan: tuple[Host, Host, Host]) -> None:
    one, two, three = lan
    assert tries(one, two.address, CLOSED, by_exec=True) == "ECONNREFUSED"
    assert tries(one, two.address, FORBIDDEN, by_exec=True) == "EACCES"
    assert tries(one, three.address, CLOSED, by_exec=True) == "ECONNREFUSED"
    assert tries(one, one.address, CLOSED, by_exec=True) == "ECONNREFUSED"


@pytest.mark.parametrize("port", [CLOSED, FORBIDDEN])
def test_by_a_forward(lan: tuple[Host, Host, Host], port: int) -> None:
    one, *_ = lan
    assert one.atoll("forward", "tcp", str(10_000 + port), f"n1:{port}").returncode == 0
    assert [tries(one, "127.0.0.1", 10_000 + port) for _ in range(5)] == ["ECONNRESET"] * 5


@pytest.mark.parametrize(
    ("name", "port", "reply"), [("n1", CLOSED, "05"), ("n1", FORBIDDEN, "02"), ("n0", CLOSED, "05")]
)
def test_by_the_proxy(lan: tuple[Host, Host, Host], name: str, port: int, reply: str) -> None:
    one, *_ = lan
    one.atoll("socks", "--listen", "10080")
    asked = b"\5\1\0\5\1\0\3" + bytes((len(name),)) + name.encode() + port.to_bytes(2, "big")
    assert tries(one, "127.0.0.1", 10_080, said=asked.hex())[:8] == "0500" + "05" + reply
