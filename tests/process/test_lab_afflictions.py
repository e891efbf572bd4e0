# SPDX-License-Identifier: Apache-2.0
"""Afflictions are real and end: a disk that is slow while a file says so, and a CPU that is always given back."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from atoll.lab.afflicted import LEAST_NS, SWITCH_NAME, set_factor
from atoll.lab.clients import Visitor, http_server
from atoll.lab.live import TRANSACTION_SYNCS, LiveGroup, free_port
from atoll.lab.process import Process
from atoll.lab.scenario import demo_topology
from atoll.lab.stealing import CYCLE_S, stolen
from atoll.node.api import call
from atoll.node.launch import launch
from atoll.node.start import LaunchOptions
from atoll.node.views import StatusView
from tests.process.node_world import children_of, until

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(120),
    # ``launch`` leaves the daemon running, as it should; here its parent lives on.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

FACTOR = 20
SLOW_MS = FACTOR * LEAST_NS / 1e6


def state_of(number: int) -> str:
    return Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


@pytest.fixture
def two() -> Generator[tuple[Process, Process]]:
    """Two processes that do nothing."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE) as one,
        subprocess.Popen(command, stdin=subprocess.PIPE) as other,
    ):
        held = Process(one.pid), Process(other.pid)
        yield held
        for process in held:
            process.resume()
            process.close()


def is_awake(two: tuple[Process, Process]) -> bool:
    return all(state_of(one.number) != "T" for one in two)


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for cannot signal it.
            await asyncio.sleep(0.001)


async def is_stopped(two: tuple[Process, Process]) -> None:
    await reached(lambda: all(state_of(one.number) == "T" for one in two))


def test_a_stolen_cpu_comes_and_goes_and_is_given_back(two: tuple[Process, Process]) -> None:
    async def scenario() -> None:
        async with stolen(two):
            for _ in range(3):
                await is_stopped(two)
                await reached(lambda: is_awake(two))
        assert is_awake(two)
        await asyncio.sleep(2 * CYCLE_S)  # Nobody takes it once more.
        assert is_awake(two)

    asyncio.run(scenario())


def test_a_stolen_cpu_is_given_back_by_who_fails_or_is_cancelled(two: tuple[Process, Process]) -> None:
    async def fail() -> None:
        async with stolen(two, 99):
            await is_stopped(two)
            raise RuntimeError

    async def steal() -> None:
        async with stolen(two, 99):
            await asyncio.sleep(60)

    async def scenario() -> None:
        with pytest.raises(RuntimeError):
            await fail()
        assert is_awake(two)
        stealing = asyncio.create_task(steal())
        await is_stopped(two)
        stealing.cancel()
        with suppress(asyncio.CancelledError):
            await stealing
        assert is_awake(two)

    asyncio.run(scenario())


def test_a_stolen_cpu_is_given_back_when_somebody_presses_ctrl_c(two: tuple[Process, Process]) -> None:
    async def steal() -> None:
        async with stolen(two, 99):
            await is_stopped(two)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(steal())
    assert is_awake(two)


def test_whose_cpu_is_stolen_may_end_meanwhile(two: tuple[Process, Process]) -> None:
    async def scenario() -> None:
        async with stolen(two):
            await is_stopped(two)
            two[0].kill()
            await asyncio.sleep(2 * CYCLE_S)

    asyncio.run(scenario())
    assert two[0].has_ended()
    assert state_of(two[1].number) != "T"


def test_the_children_of_a_process_are_held_and_those_of_nobody_else(two: tuple[Process, Process]) -> None:
    me = Process(os.getpid())
    children = me.children()
    assert {one.number for one in two} <= {one.number for one in children}
    assert {one.number for one in children} == set(children_of(os.getpid()))
    assert two[0].children() == []
    two[0].kill()
    assert two[0].children() == []
    for one in (me, *children):
        one.close()


# Real nodes.


def disk_of(socket: Path) -> tuple[int, float]:
    """Return how many durable writes a node has measured, and how long the newest took, ms."""
    status = msgspec.json.decode(asyncio.run(call(socket, "status")), type=StatusView)
    disk = next((one for one in status.components if one.name == "disk"), None)
    return (0, 0.0) if disk is None or disk.newest_ms is None else (disk.samples, disk.newest_ms)


def test_the_disk_of_a_node_is_slow_while_the_switch_says_so(tmp_path: Path) -> None:
    state = tmp_path / "n"
    options = LaunchOptions(state=str(state), name="n", listen=f"127.0.0.1:{free_port()}", group_name="g")
    launch(options, module="atoll.lab.afflicted")
    node = Process(int((state / "lock").read_text(encoding="ascii")))
    socket = state / "control.sock"
    try:
        until(lambda: disk_of(socket)[0] >= 8, "the disk is measured")
        assert disk_of(socket)[1] < SLOW_MS / 2
        set_factor(state, FACTOR)
        until(lambda: disk_of(socket)[1] >= SLOW_MS * 0.9, "most of the newest writes are slow")
        set_factor(state, 0)
        assert not (state / SWITCH_NAME).exists()
        until(lambda: disk_of(socket)[1] < SLOW_MS / 2, "most of the newest writes are quick again")
    finally:
        with suppress(OSError):
            asyncio.run(call(socket, "down"))
        until(node.has_ended, "the node ends")
        node.close()


@asynccontextmanager
async def pair(directory: Path) -> AsyncGenerator[LiveGroup]:
    async with LiveGroup.running(("one", "two"), demo_topology(), directory, afflictable=("one",)) as group:
        yield group


def test_both_processes_of_a_node_lose_their_cpu_and_the_node_lives_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as group:
            number = int((group.state("two") / "lock").read_text(encoding="ascii"))
            processes = number, *children_of(number)
            assert len(processes) >= 2
            async with group.stolen_cpu("two"):
                await reached(lambda: all(state_of(one) == "T" for one in processes))
                assert (await group.status("two")).name == "two", "it answers, late"
            assert all(state_of(one) != "T" for one in processes)
            assert (await group.status("one")).peers[0].state in {"ok", "degraded"}

    asyncio.run(scenario())


def fail_while_slow(group: LiveGroup, name: str) -> None:
    with group.slow_disk(name, FACTOR):
        assert (group.state(name) / SWITCH_NAME).read_text(encoding="ascii") == str(FACTOR)
        raise RuntimeError


def test_a_slow_disk_is_felt_by_a_program_on_that_node_and_well_again_after_the_block(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as group:
            assert group.living() == ("one", "two")
            with pytest.raises(RuntimeError):
                fail_while_slow(group, "one")
            assert not (group.state("one") / SWITCH_NAME).exists()
            with pytest.raises(AssertionError, match="two"):
                fail_while_slow(group, "two")
            with http_server(group.served_by) as port:
                visitor = Visitor(await group.forward("two", "one", port))
                visitor.pacer.start()
                await reached(lambda: visitor.moved_s("nobody") is not None)
                before = len(visitor.visits)
                with group.slow_disk("one", FACTOR):
                    await reached(lambda: len(visitor.visits) > before + 1)
                visitor.pacer.ask_to_stop()
            assert {visit.who for visit in visitor.visits} == {"one"}
            newest = visitor.visits[-1]
            assert newest.ended_s - newest.began_s >= TRANSACTION_SYNCS * SLOW_MS / 1000
            assert group.served_by(1) == "", "nobody called from there"
            group.kill("two")
            assert (group.living(), group.has_ended("two")) == (("one",), True)

    asyncio.run(scenario())


def test_the_product_has_no_hook() -> None:
    root = Path(__file__).parents[2] / "src" / "atoll"
    naming = [path for path in root.rglob("*.py") if "afflicted" in path.read_text(encoding="utf-8")]
    assert {path.relative_to(root).parts[0] for path in naming} == {"lab"}
