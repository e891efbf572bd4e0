# SPDX-License-Identifier: Apache-2.0
"""A running node feels its own disk and loop: what is slow shows in its status, and is gone when it is well again."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.health.members import vitals as vitals_module
from atoll.health.model import Terms
from atoll.host.clock import SystemClock
from atoll.host.disk_trial import TRIAL_NAME
from atoll.node import sensing
from atoll.node.methods import Methods
from atoll.node.service import Node, Plan
from atoll.node.state import Settings, StateDirectory
from atoll.node.views import StatusView
from tests.unit.node_unit_world import plans

pytestmark = pytest.mark.process

WAIT_S = 30.0
TERMS = Terms(persist_ns=SECOND_NS, recover_ns=2 * SECOND_NS)


class Disk:
    """The operating system's ``fdatasync``, slower by what the test says; where it says so, it fails."""

    def __init__(self) -> None:
        self.slower_s = 0.0
        self.is_broken = False
        self._real = os.fdatasync

    def fdatasync(self, descriptor: int) -> None:
        if self.is_broken:
            raise OSError(28, "No space left on device")
        time.sleep(self.slower_s)  # tidy: allow sleep, it is the disk's
        self._real(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Generator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    # The same as ever, quicker: 32 trials of the disk take 16 s else.
    monkeypatch.setattr(vitals_module, "EARLY_NS", 20 * MILLISECOND_NS)
    monkeypatch.setattr(vitals_module, "CALM_NS", 100 * MILLISECOND_NS)
    monkeypatch.setattr(vitals_module, "SLOW_NS", 100 * MILLISECOND_NS)
    monkeypatch.setattr(vitals_module, "TERMS", TERMS)
    monkeypatch.setattr(sensing, "TURN_S", 0.02)
    monkeypatch.setattr(sensing, "LOOK_S", 0.1)
    yield disk
    disk.slower_s = 0.0


@asynccontextmanager
async def running(directory: Path) -> AsyncGenerator[tuple[Node, Methods]]:
    """Run the first node of a group of three, alone."""
    blueprint = plans()[0]
    state = StateDirectory(directory)
    state.keep_roster(blueprint.roster)
    settings = Settings(name="one", group_name="g", listen="127.0.0.1:0", advertise=("127.0.0.1:1",))
    node = Node(Plan(state, blueprint.identity, settings, blueprint.group, blueprint.roster, SystemClock()))
    methods = Methods(node)
    try:
        await node.start()
        yield node, methods
    finally:
        await methods.close()
        await node.stop()
        state.close()


async def until(methods: Methods, condition: Callable[[StatusView], bool]) -> StatusView:
    async with asyncio.timeout(WAIT_S):
        while not condition(seen := await methods.status({})):  # noqa: ASYNC110 - it cannot signal it.
            await asyncio.sleep(0.02)
        return seen


def state_of(seen: StatusView, name: str) -> str:
    return next((one.state for one in seen.components if one.name == name), "")


def run(directory: Path, scenario: Callable[[Node, Methods], Awaitable[None]]) -> None:
    async def main() -> None:
        async with running(directory) as (node, methods):
            await scenario(node, methods)

    asyncio.run(main())


def test_a_slow_disk_shows_in_the_status_and_goes_when_it_is_well(tmp_path: Path, disk: Disk) -> None:
    async def scenario(node: Node, methods: Methods) -> None:
        await until(methods, lambda seen: state_of(seen, "disk") == "ok")
        disk.slower_s = 0.1
        seen = await until(methods, lambda seen: state_of(seen, "disk") == "slow")
        assert seen.degraded
        (slow,) = (one for one in seen.components if one.state == "slow")
        assert slow.newest_ms is not None
        assert slow.newest_ms >= 90
        own = node.control.group.own.node
        await until(methods, lambda _: "disk" in {word.what for word in node.control.bulletin.health(own).words})
        disk.slower_s = 0.0
        await until(methods, lambda seen: state_of(seen, "disk") == "ok")
        await until(methods, lambda _: not node.control.bulletin.health(own).words)

    run(tmp_path, scenario)


def test_a_disk_that_hangs_shows_before_it_answers(tmp_path: Path, disk: Disk) -> None:
    async def scenario(node: Node, methods: Methods) -> None:
        await until(methods, lambda seen: state_of(seen, "disk") == "ok")
        disk.slower_s = WAIT_S
        seen = await until(methods, lambda seen: state_of(seen, "disk") == "stutter")
        assert node.senses.disk_fault == ""
        assert any((one.newest_ms or 0) >= 0 for one in seen.components if one.name == "disk")

    run(tmp_path, scenario)


def test_a_disk_that_refuses_is_told_and_the_node_goes_on(tmp_path: Path, disk: Disk) -> None:
    async def scenario(node: Node, methods: Methods) -> None:
        await until(methods, lambda seen: state_of(seen, "disk") == "ok")
        disk.is_broken = True
        async with asyncio.timeout(WAIT_S):
            while not node.senses.disk_fault:  # noqa: ASYNC110 - it cannot signal it.
                await asyncio.sleep(0.02)
        disk.is_broken = False
        async with asyncio.timeout(WAIT_S):
            while node.senses.disk_fault:  # noqa: ASYNC110 - it cannot signal it.
                await asyncio.sleep(0.02)

    run(tmp_path, scenario)
    assert not (tmp_path / TRIAL_NAME).exists()


def test_a_program_reports_what_it_uses(tmp_path: Path, disk: Disk) -> None:
    del disk

    async def scenario(node: Node, methods: Methods) -> None:
        del node
        for number in range(200):
            latency_s = 0.01 if number < 100 else 0.2
            await methods.observe({"samples": [{"component": "db:orders", "latency_s": latency_s}]})
            await asyncio.sleep(0.02)
        await until(methods, lambda seen: state_of(seen, "db:orders") == "slow")

    run(tmp_path, scenario)
