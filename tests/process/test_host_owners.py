# SPDX-License-Identifier: Apache-2.0
"""Owners of sockets, found from their ports: real sockets on the loopback, of this process and of others."""

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from atoll.host.limits import OWNERS_LATELY_MAX
from atoll.host.owners import MARK_VARIABLE, Owners, born_ticks, sockets_here

pytestmark = pytest.mark.process

TCP, UDP = 6, 17
LOOPBACK = socket.inet_pton(socket.AF_INET6, "::1")

SEND = """
import os, socket, subprocess, sys
if len(sys.argv) > 2:
    sys.exit(subprocess.run([sys.executable, __file__, sys.argv[1]], env={}).returncode)
connection = socket.create_connection(("::1", int(sys.argv[1])))
connection.recv(1)
"""


FORK = r"""
import os, socket, sys
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        endpoint = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        endpoint.bind(("::1", 0))
        os.write(1, f"{os.getpid()} {endpoint.getsockname()[1]}\n".encode())  # In one piece.
        break
sys.stdin.read()
"""


@pytest.fixture
def owners() -> Generator[Owners]:
    made = Owners(sockets_here(), "/proc/self/ns/net", LOOPBACK)
    assert not made.is_blind
    yield made
    made.close()
    made.close()


@pytest.fixture
def listener() -> Generator[socket.socket]:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as made:
        made.settimeout(20)
        yield made


def port_of(endpoint: socket.socket) -> int:
    return int(endpoint.getsockname()[1])


def flow(source: int, target: int) -> bytes:
    return LOOPBACK + source.to_bytes(2, "big") + target.to_bytes(2, "big")


def holder(owners: Owners, protocol: int, source: int, target: int) -> int | None:
    found = owners.find([(protocol, flow(source, target))])
    return found[(protocol, flow(source, target))].line[0][0] if found else None


def test_both_ends_of_a_connection_are_found_also_before_it_is_accepted(
    owners: Owners, listener: socket.socket
) -> None:
    with socket.create_connection(("::1", port_of(listener))) as connection:
        ports = port_of(connection), port_of(listener)
        asked = [(TCP, flow(*ports)), (TCP, flow(*reversed(ports))), (TCP, flow(ports[0], 1))]
        for accepted in (False, True):
            if accepted:
                listener.accept()[0].close()
            found = owners.find(asked)
            assert list(found) == asked[:2]
            assert {one.line[0] for one in found.values()} == {(os.getpid(), born_ticks(os.getpid()))}


@pytest.mark.parametrize("connected", [False, True])
def test_a_udp_socket_is_found(owners: Owners, connected: bool) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("::", 0))
        if connected:
            endpoint.connect(("::1", 9))
        assert holder(owners, UDP, port_of(endpoint), 9) == os.getpid()
        port = port_of(endpoint)
    assert holder(owners, UDP, port, 9) is None


def test_a_script_has_its_own_name_and_its_interpreters(
    owners: Owners, listener: socket.socket, tmp_path: Path
) -> None:
    script = tmp_path / "copy-everything.py"
    script.write_text(f"#!{sys.executable}\n{SEND}")
    script.chmod(0o755)
    with subprocess.Popen([script, str(port_of(listener))]) as sender:
        connection, (_, port, *_) = listener.accept()
        with connection:
            (owner,) = owners.find([(TCP, flow(port, port_of(listener)))]).values()
    assert owner.line[0][0] == sender.pid
    assert os.getpid() in [pid for pid, _ in owner.line]
    for name in ("copy-everything.py", Path(sys.executable).name, Path(sys.executable).resolve().name):
        assert owner.is_called(name), owner
    assert not owner.is_called("sh")


def test_a_child_without_an_environment_has_its_ancestors(
    owners: Owners, listener: socket.socket, tmp_path: Path
) -> None:
    script = tmp_path / "send.py"
    script.write_text(SEND)
    environment = os.environ | {MARK_VARIABLE: "0123456789ab"}
    with subprocess.Popen([sys.executable, script, str(port_of(listener)), "by a child"], env=environment) as parent:
        born = born_ticks(parent.pid)
        connection, (_, port, *_) = listener.accept()
        with connection:
            (owner,) = owners.find([(TCP, flow(port, port_of(listener)))]).values()
            living, marks = owners.living([(parent.pid, born), (parent.pid, born + 1)])
    assert owner.mark == ""
    assert owner.line[1] == (parent.pid, born)
    assert living == {(parent.pid, born)}
    assert "0123456789ab" in marks
    assert owners.living([(parent.pid, born)])[0] == set()
    assert born_ticks(parent.pid) == 0


def test_many_programs_are_told_apart_again_and_again(owners: Owners) -> None:
    command = [sys.executable, "-c", FORK, str(OWNERS_LATELY_MAX + 1)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        said = [program.stdout.readline().split() for _ in range(OWNERS_LATELY_MAX + 1)]
        for _ in range(2):
            for pid, port in said:
                assert holder(owners, UDP, int(port), 9) == int(pid)
        program.communicate("")


@pytest.mark.parametrize("limit", ["PROCESSES_MAX", "LINKS_READ_MAX"])
def test_beyond_a_limit_nobody_is_found(owners: Owners, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(f"atoll.host.owners.{limit}", 0)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("::", 0))
        assert holder(owners, UDP, port_of(endpoint), 9) is None


@pytest.mark.parametrize("protocol", [TCP, UDP, -1])
def test_a_system_that_does_not_tell_of_sockets_is_found_out(monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    if protocol < 0:
        monkeypatch.setattr("atoll.host.owners.NETLINK_SOCK_DIAG", 31)  # There is no such thing.
    else:
        monkeypatch.setattr("atoll.host.owners._TCP" if protocol == TCP else "atoll.host.owners._UDP", 255)
    assert sockets_here() == -1


def test_without_word_from_the_system_nobody_owns_anything() -> None:
    blind = Owners(-1, "/proc/self/ns/net", LOOPBACK)
    assert blind.is_blind
    assert blind.find([(TCP, flow(1, 2)), (UDP, flow(1, 2))]) == {}
    blind.close()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("::", 0))
        closed = Owners(sockets_here(), "/proc/self/ns/net", LOOPBACK)
        closed.close()
        assert holder(closed, UDP, port_of(endpoint), 9) is None
