# SPDX-License-Identifier: Apache-2.0
"""The log of a running node: it stays within its bounds, whoever writes it, and a reader follows over a rotation."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest

from atoll.host.limits import LOG_BYTES_MAX
from tests.process.node_world import Box, Nodes, children_of, nodes, until

pytestmark = pytest.mark.process


@pytest.fixture
def world() -> Generator[Nodes]:
    with nodes() as world:
        yield world


def lose_device(box: Box, times: int) -> None:
    """Kill the packet device, and wait until it has been missed and is back: two lines of the log."""
    control = box.pid
    log = box.state / "node.log"
    for _ in range(times):
        (device,) = children_of(control)
        os.kill(device, signal.SIGKILL)
        until(partial(another, control, device), "another device")
        until(lambda: log.read_bytes().endswith(b"the packet device is back\n"), "its return is told")


def another(control: int, device: int) -> bool:
    return bool([pid for pid in children_of(control) if pid != device])


def test_a_full_log_is_rotated_and_commands_read_on_over_it(world: Nodes) -> None:
    one = world.box("one")
    one.state.mkdir(mode=0o700)
    log = one.state / "node.log"
    log.write_bytes(b"an old line\n" * (LOG_BYTES_MAX // 12 + 1))
    one.up()
    command = [sys.executable, "-m", "atoll.cli", "logs", "-f", "-n", "0", "--state", str(one.state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as follower:
        heard: list[bytes] = []
        assert follower.stdout is not None
        stdout = follower.stdout
        reader = threading.Thread(target=lambda: heard.extend(iter(stdout.readline, b"")))
        reader.start()
        try:
            until(lambda: any(str(log) in link for link in open_files(follower.pid)), "it follows")
            lose_device(one, times=2)
            until(lambda: b"".join(heard).count(b"the packet device is back") == 2, "all lines over the rotation")
            assert b"".join(heard).count(b"the packet device is lost") == 2
        finally:
            follower.kill()
            reader.join()
    assert (one.state / "node.log.1").stat().st_size > LOG_BYTES_MAX
    assert log.stat().st_size < 10_000
    tail = one.run("logs", "-n", "20").out.splitlines()
    assert len(tail) == 20
    assert tail[0] == "an old line", "as many as asked for, from the file before"
    told = [line.rpartition("the packet device is ")[2].split()[0] for line in tail if "packet device is" in line]
    assert told == ["lost", "back", "lost", "back"]


def open_files(pid: int) -> list[str]:
    try:
        return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:
        return []


def test_a_second_start_does_not_rotate_the_log_of_the_node_that_runs(world: Nodes) -> None:
    one = world.box("one")
    one.up()
    log = one.state / "node.log"
    with log.open("ab") as file:
        file.write(b"an old line\n" * (LOG_BYTES_MAX // 12 + 1))
    assert one.run("up").code == "A103"
    assert not (one.state / "node.log.1").exists()
    lose_device(one, times=1)
    assert (one.state / "node.log.1").exists()
