# SPDX-License-Identifier: Apache-2.0
"""A server of environments that takes long to start is not taken for one that hangs, and says how far it is."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import pytest

from atoll.base.errors import UserError
from tests.process.env_apps import COUNTER
from tests.process.node_world import Box, alive, nodes, until
from tests.process.test_env_node import command, kill_one, processes

pytestmark = pytest.mark.process


@contextmanager
def stopped(pid: int) -> Generator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def why(box: Box) -> UserError:
    """Return what a command is told that cannot be done now."""
    with pytest.raises(UserError) as caught:
        command(box, "list")
    return caught.value


def test_a_command_is_told_that_it_still_starts_and_then_it_runs() -> None:
    with nodes() as world:
        box = world.box("one")
        box.up()
        (world.directory / "counter.py").write_text(COUNTER)
        said = box.run("run", str(world.directory / "counter.py"), "--copies", "1")
        assert said.status == 0, said.err
        kill_one(box, "envs")
        with stopped(processes(box)["recorder"]):  # So that the next one has nothing to start from.
            envs = until(partial(another, box), "another server")
            told = why(box)
            assert (told.code, told.where) == ("A611", "the recorder has not answered yet")
            assert "still being taken up" in told.sentence
            said = box.run("env", "list")
            assert (said.code, said.status) == ("A611", 5)
            assert "try again" in said.field("fix")
            assert alive(envs)
        listed = until(partial(running, box), "it runs")
        assert listed == ["counter"]
        assert processes(box)["envs"] == envs, "it was not started once more"


def another(box: Box) -> int:
    return processes(box).get("envs", 0)


def running(box: Box) -> list[str]:
    try:
        return [one["name"] for one in command(box, "list")["environments"]]
    except UserError:
        return []
