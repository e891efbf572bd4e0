# SPDX-License-Identifier: Apache-2.0
"""``atoll exec``: unmodified programs, by users without rights, in a network in which there is the overlay alone."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from tests.netns.lan import Host, hosts
from tests.process.node_world import until

pytestmark = pytest.mark.netns

SERVE = """
import socket
listener = socket.create_server(("::", 8000), family=socket.AF_INET6)
print("ready", flush=True)
for _ in range(4):
    connection, _ = listener.accept()
    connection.sendall(b"hello from " + socket.gethostname().encode()[:0] + b"n1")
    connection.close()
"""

FETCH = """
import socket, sys
with socket.create_connection((sys.argv[1], 8000), timeout=20) as connection:
    print(connection.makefile().read())
"""

LOOK = """
import socket
for index, name in socket.if_nameindex():
    print(name)
"""


@pytest.fixture(scope="module")
def pair() -> Generator[tuple[Host, Host]]:
    with hosts(2) as (one, two):
        invite = one.up().invite
        assert invite is not None
        two.up(invite)
        until(lambda: all(peer.state == "ok" for peer in one.status().peers), "the two linked")
        yield one, two


def by_exec(host: Host, *command: str) -> list[str]:
    return host.command(sys.executable, "-m", "atoll.cli", "exec", "--state", str(host.state), "--", *command)


@contextmanager
def serving(host: Host) -> Generator[None]:
    """Serve in the overlay by ``atoll exec``."""
    command = by_exec(host, sys.executable, "-c", SERVE)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield


def run_in(host: Host, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command by ``atoll exec``."""
    return subprocess.run(by_exec(host, *command), capture_output=True, text=True, timeout=60, check=False, cwd="/")


def python_in(host: Host, program: str, *arguments: str) -> str:
    done = run_in(host, sys.executable, "-c", program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_reaches_one_that_serves_in_the_overlay_by_each_of_its_names(pair: tuple[Host, Host]) -> None:
    one, two = pair
    assert two.ready is not None
    with serving(two):
        names = ("n1", "n1.atoll", f"n1.{two.ready.group}.atoll", two.ready.address)
        assert [python_in(one, FETCH, name) for name in names] == ["hello from n1\n"] * 4


def test_a_program_reaches_its_own_machine_by_its_own_address(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    assert one.ready is not None
    with serving(one):
        for name in ("n0", "n0.atoll", one.ready.address, one.ready.address):
            assert python_in(one, FETCH, name) == "hello from n1\n"


def test_there_is_nothing_but_the_overlay(pair: tuple[Host, Host]) -> None:
    one, two = pair
    assert python_in(one, LOOK).split() == ["lo", "atoll0"]
    fetched = run_in(one, sys.executable, "-c", FETCH, two.ip)
    assert fetched.returncode != 0
    assert "Network is unreachable" in fetched.stderr
    unknown = run_in(one, sys.executable, "-c", FETCH, "example.org")
    assert "gaierror" in unknown.stderr


def test_the_exit_status_is_the_programs(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    assert run_in(one, "sh", "-c", "exit 42").returncode == 42
    missing = run_in(one, "no-such-program")
    assert (missing.returncode, missing.stderr) == (127, "atoll exec: no program 'no-such-program'\n")
    assert run_in(one, "/etc/passwd").returncode == 126


def test_nobody_else_sees_the_names(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    before = one.inside("cat", "/etc/resolv.conf")
    assert "::53\nsearch" in run_in(one, "cat", "/etc/resolv.conf").stdout
    assert one.inside("cat", "/etc/resolv.conf") == before
