# SPDX-License-Identifier: Apache-2.0
"""A node that may open no more files: new work waits or is refused with a code, it lives on, and says so once."""

import resource
import socket
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from atoll.node.daemon import DESCRIPTORS_WANTED
from tests.process.node_world import Nodes, children_of, kill, nodes, until

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, uses prlimit")]


@pytest.fixture
def world() -> Generator[Nodes]:
    with nodes() as world:
        yield world


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_a_node_raises_its_limit_of_open_files_by_itself(world: Nodes) -> None:
    one = world.box("one")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_WANTED, hard)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))  # What the command inherits, and the node from it.
    try:
        one.up()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert resource.prlimit(one.pid, resource.RLIMIT_NOFILE)[0] == wanted


def test_a_node_out_of_files_lives_on_says_so_once_and_serves_again(world: Nodes) -> None:
    one, two = world.group("one", "two")
    pid = one.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    few = open_files(pid) + 3
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, limits[1]))
    with ExitStack() as stack:
        for _ in range(8):  # Fewer than may be connected, and more than can be opened.
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(one.state / "control.sock"))
        until(lambda: "new connections wait" in one.log(), "the lack of files is noticed")
        until(lambda: two.answered("one"), "packets flow on")
    until(one.is_running, "clients are served again")
    made = [one.run("forward", "tcp", "0", "two:80") for _ in range(4)]
    assert "A404" in {said.code for said in made}, "refused with a code"
    assert {said.code for said in made} <= {"", "A404", "A406"}
    assert one.pid == pid
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    until(lambda: one.run("forward", "tcp", "0", "two:80").status == 0, "forwards can be made again")
    until(lambda: one.sees("two"), "the other is still there")
    assert one.log().count("new connections wait") == 1


def test_a_device_that_cannot_be_started_for_lack_of_files_ends_the_node_with_a_code(world: Nodes) -> None:
    one = world.box("one")
    one.up()
    pid = one.pid
    device = children_of(pid)[0]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
    kill(device)
    until(lambda: one.pid == 0, "the end of the node")
    assert "A403: the packet device did not start: Too many open files" in one.log()
