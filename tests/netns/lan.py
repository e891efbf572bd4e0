# SPDX-License-Identifier: Apache-2.0
"""Machines of our own: network namespaces on one Ethernet, each with a node of its own. Needs root and ``ip``.

::

    atoll-PID-0 [ee0 10.77.0.1]---.                     .---[ee0 10.77.0.2] atoll-PID-1
                                   \\                   /
                                    [bridge in atoll-PID-lan]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from atoll.node.views import Ready, StatusView
from tests.process.node_world import children_of, gone, until

WAIT_S = 20.0
PORT = 7747

_lans = count()


def cannot(reason: str) -> NoReturn:
    """Skip; in CI, where everything is installed, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


class Host:
    """One machine: a namespace, and the state directory of its node."""

    def __init__(self, lan: str, number: int, base: Path) -> None:
        self.namespace, self.name = f"{lan}-{number}", f"n{number}"
        self.ip = f"10.77.0.{number + 1}"
        self.state = base / self.name
        self.ready: Ready | None = None

    def command(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *command]

    def inside(self, *command: str) -> str:
        return run(*self.command(*command))

    def atoll(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.command(sys.executable, "-m", "atoll.cli", *arguments, "--state", str(self.state))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, cwd=tempfile.gettempdir()
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def up(self, *arguments: str, listen: str | None = None) -> Ready:
        listen = listen or f"{self.ip}:{PORT}"
        done = self.atoll("up", *arguments, "--name", self.name, "--listen", listen, "--json")
        assert done.returncode == 0, done.stderr
        self.ready = msgspec.json.decode(done.stdout, type=Ready)
        return self.ready

    @property
    def address(self) -> str:
        assert self.ready is not None
        return self.ready.address

    @property
    def device(self) -> str:
        """Name of the TUN interface."""
        assert self.ready is not None
        return self.ready.mode.removeprefix("tun ")

    def status(self) -> StatusView:
        return msgspec.json.decode(self.atoll("status", "--json").stdout, type=StatusView)

    def processes(self) -> tuple[int, int]:
        """Return the process ids of control and of the packet device."""
        control = int((self.state / "lock").read_text(encoding="ascii"))
        (nic,) = children_of(control)
        return control, nic

    def python(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a Python program on this machine."""
        command = self.command(sys.executable, "-c", program, *arguments)
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def hosts(number_of: int) -> Generator[list[Host]]:
    """Make machines on one Ethernet; end their nodes and take everything away afterwards."""
    if not shutil.which("ip") or os.geteuid() != 0:
        cannot("needs root and ip")
    lan = f"atoll-{os.getpid()}-{next(_lans)}"
    with tempfile.TemporaryDirectory(prefix="atoll-lan-") as base:
        made = [Host(lan, number, Path(base)) for number in range(number_of)]
        try:
            try:
                run("ip", "netns", "add", lan)
                run("ip", "-n", lan, "link", "add", "bridge", "type", "bridge")
            except AssertionError as error:
                cannot(f"no network namespaces here: {error}")
            run("ip", "-n", lan, "link", "set", "bridge", "up")
            for number, host in enumerate(made):
                run("ip", "netns", "add", host.namespace)
                port = f"port{number}"
                run(
                    "ip", "-n", lan, "link", "add", port, "type", "veth", "peer", "name", "ee0", "netns", host.namespace
                )
                run("ip", "-n", lan, "link", "set", port, "master", "bridge", "up")
                host.inside("ip", "address", "add", f"{host.ip}/24", "dev", "ee0")
                for device in ("lo", "ee0"):
                    host.inside("ip", "link", "set", device, "up")
            yield made
        finally:
            for host in made:
                if (host.state / "lock").exists():
                    control = int((host.state / "lock").read_text(encoding="ascii") or 0)
                    host.atoll("down")
                    if control:
                        with suppress(AssertionError):
                            until(lambda pid=control: gone(pid), "the end of a node")  # type: ignore[misc]  # a bound
            for name in (*(host.namespace for host in made), lan):
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
