# SPDX-License-Identifier: Apache-2.0
"""Real nodes one of whose programs fails again and again in what takes long: others are served, and it gets on."""

import asyncio
import json
from collections.abc import Generator

import pytest

from atoll.client.environments import CallError, Desk, RemoteEnvironment
from tests.process.env_apps import COUNTER
from tests.process.node_world import Nodes, nodes

pytestmark = pytest.mark.process

WAIT_S = 120.0
ITEMS = 3  # More than a server may be silent for, if each of them takes as long as a handler may.
LOOPS = """
import atoll

class Fail(atoll.Tuple):
    pass

class Bad(atoll.App):
    n: int = 0

    @atoll.on(Fail)
    def fail(self, fail: Fail, ctx: atoll.Context) -> None:
        while True:
            self.n += 1
"""
SLOW = "import ctypes\n\nn = 0\nfor _ in range(10_000_000):\n    n += 1\n"
CRASHES = SLOW + LOOPS.replace("while True:\n            self.n += 1", "ctypes.string_at(0)")


@pytest.fixture
def world() -> Generator[Nodes]:
    with nodes() as made:
        yield made


async def failure(environment: RemoteEnvironment) -> str:
    try:
        await environment.call({"is": "Fail"}, timeout_s=WAIT_S)
    except CallError as error:
        return error.failure.code
    return ""


@pytest.mark.parametrize(("level", "source"), [("inline", LOOPS), ("process", CRASHES)])
def test_others_are_served_while_items_of_one_program_are_undone(world: Nodes, level: str, source: str) -> None:
    box = world.box("one")
    box.up()
    for name, content in (("counter", COUNTER), ("bad", source)):
        path = world.directory / f"{name}.py"
        path.write_text(content)
        assert box.run("run", str(path), "--level", level if name == "bad" else "inline").status == 0

    async def test() -> None:
        async with Desk(box.state) as desk, asyncio.timeout(WAIT_S):
            counter, bad = await desk.environment("counter"), await desk.environment("bad")
            failing = [asyncio.ensure_future(failure(bad)) for _ in range(ITEMS)]
            served = 0
            while not all(one.done() for one in failing):
                await counter.call({"is": "Add", "n": 1}, timeout_s=WAIT_S)
                served += 1
            assert [one.result() for one in failing] == ["killed"] * ITEMS
            assert served > ITEMS, "another one is served between any two of them"

    asyncio.run(test())
    assert "server of environments has ended" not in box.log()
    assert json.loads(box.run("env", "show", "bad", "--json").out)["failures"] == ITEMS
