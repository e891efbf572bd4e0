# SPDX-License-Identifier: Apache-2.0
"""A node whose disk hangs: it probes, answers and routes on, says nothing that is not stored, and forgets nothing."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from atoll.base.errors import UserError
from atoll.base.units import SECOND_NS
from atoll.device.nic.limits import STAMP_AHEAD_NS
from atoll.group.events import RemoveAsked
from atoll.group.roster import Roster
from atoll.host.clock import SystemClock
from atoll.node import keeping
from atoll.node.service import Node, Plan
from atoll.node.state import Settings, StateDirectory
from tests.process.node_world import children_of
from tests.unit.node_unit_world import plans

pytestmark = pytest.mark.process

WAIT_S = 20.0


class Disk:
    """The operating system's ``fsync``, which the test can stop; that it was called in the loop's thread is noted."""

    def __init__(self) -> None:
        self.flowing = threading.Event()
        self.flowing.set()
        self.waiting = 0
        self.in_the_loop = 0
        self._real = os.fsync

    def fsync(self, descriptor: int) -> None:
        if not self.flowing.is_set():
            self.in_the_loop += threading.current_thread() is threading.main_thread()
            self.waiting += 1
            assert self.flowing.wait(WAIT_S)
            self.waiting -= 1
        self._real(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Generator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    yield disk
    disk.flowing.set()


@asynccontextmanager
async def running(directory: Path) -> AsyncGenerator[tuple[Node, StateDirectory]]:
    """Run the first node of a group of three, alone."""
    blueprint = plans()[0]
    state = StateDirectory(directory)
    state.keep_roster(blueprint.roster)
    settings = Settings(name="one", group_name="g", listen="127.0.0.1:0", advertise=("127.0.0.1:1",))
    node = Node(Plan(state, blueprint.identity, settings, blueprint.group, blueprint.roster, SystemClock()))
    try:
        await node.start()
        await node.confirm()
        yield node, state
    finally:
        await node.stop()
        state.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what it waits for cannot signal it.
            await asyncio.sleep(0.005)


def is_back(caplog: pytest.LogCaptureFixture, count: int) -> bool:
    return caplog.text.count("the packet device is back") == count


def members(node: Node) -> int:
    return len(node.control.group.roster.members())


def test_a_disk_that_hangs_stops_neither_the_loop_nor_the_promise(disk: Disk, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (node, state):
            before = state.roster()
            disk.flowing.clear()
            node.feed(RemoveAsked(plans()[1].member.node))
            await until(lambda: disk.waiting >= 1)
            confirmed = asyncio.create_task(node.confirm())
            # Housekeeping feeds the machine once a second: it goes on.
            began_ns = node.around().now_ns
            await until(lambda: node.around().now_ns - began_ns > 2 * SECOND_NS)
            assert disk.in_the_loop == 0
            assert not confirmed.done()
            assert members(node) == 3
            assert state.roster() == before
            disk.flowing.set()
            async with asyncio.timeout(WAIT_S):
                await confirmed
            assert members(node) == 2
            assert Roster.decode(state.roster() or b"").digest() == node.control.group.roster.digest()

    asyncio.run(scenario())


def test_who_waits_for_a_disk_that_hangs_is_told_in_bounded_time(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (node, _):
            disk.flowing.clear()
            node.feed(RemoveAsked(plans()[1].member.node))
            monkeypatch.setattr(keeping, "STORE_S_MAX", 0.2)
            with pytest.raises(UserError, match=r"A110: the disk has not taken the roster within 0\.2 s") as told:
                await node.confirm()
            monkeypatch.setattr(keeping, "STORE_S_MAX", WAIT_S)
            assert "counts by itself" in told.value.fix
            disk.flowing.set()
            await until(lambda: members(node) == 2)
            await node.confirm()

    asyncio.run(scenario())


def test_a_node_that_ends_lets_the_disk_finish_first(disk: Disk, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (node, state):
            disk.flowing.clear()
            node.feed(RemoveAsked(plans()[1].member.node))
            await until(lambda: disk.waiting >= 1)
            asyncio.get_running_loop().call_later(1.0, disk.flowing.set)  # Later than a node ends that does not wait.
        assert members(node) == 2
        assert Roster.decode(state.roster() or b"").digest() == node.control.group.roster.digest()

    asyncio.run(scenario())


def test_a_new_packet_device_starts_above_every_timestamp_of_its_elder_also_before_it_is_stored(
    disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        others = children_of(os.getpid())  # Of tests before this one, such as the tracker of ``multiprocessing``.
        async with running(tmp_path) as (_, state):
            await until(lambda: state.timestamp_ns() > 0)
            first_ns = state.timestamp_ns()
            disk.flowing.clear()
            for count in range(1, 5):  # Each device reserves anew, above what it was started with.
                (device,) = (child for child in children_of(os.getpid()) if child not in others)
                os.kill(device, signal.SIGKILL)
                await until(partial(is_back, caplog, count))
            await until(lambda: disk.waiting >= 1)
            assert disk.in_the_loop == 0
            assert state.timestamp_ns() == first_ns
            disk.flowing.set()
            await until(lambda: state.timestamp_ns() >= first_ns + 2 * STAMP_AHEAD_NS)

    asyncio.run(scenario())
