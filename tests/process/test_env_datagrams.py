# SPDX-License-Identifier: Apache-2.0
"""Programs of two real nodes whose servers speak by datagrams: also after a packet device that was killed."""

import asyncio
import base64
import json
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from atoll.cli.api import Api
from atoll.client.environments import Desk
from atoll.domain.loading import bundle_of
from tests.process.env_apps import COUNTER
from tests.process.node_world import Box, children_of, kill, nodes, until

pytestmark = pytest.mark.process

WAIT_S = 30.0
CALLS = 20


@pytest.fixture
def pair(tmp_path: Path) -> Generator[tuple[Box, Box]]:
    """Two nodes; a counter runs on the first, and is kept there alone."""
    with nodes() as world:
        one, two = world.group("one", "two")
        path = tmp_path / "counter.py"
        path.write_text(COUNTER)
        bundle = base64.b64encode(bundle_of(str(path)).encode()).decode()
        Api(one.state, WAIT_S).call("env.run", {"name": "counter", "bundle": bundle, "copies": 1})
        until(
            lambda: b"counter" in Api(two.state, WAIT_S).call("env.list", {}), "the counter, as known at the other node"
        )
        yield one, two


def ask(box: Box, count: int) -> None:
    """Add so often, one after the other, as a client of this node."""

    async def asked() -> None:
        async with asyncio.timeout(WAIT_S), Desk(box.state) as desk:
            counter = await desk.environment("counter")
            for _ in range(count):
                await counter.call({"is": "Add", "n": 1}, timeout_s=WAIT_S)

    asyncio.run(asked())


def sent(box: Box) -> int:
    """Return how many datagrams the node's server has sent, as the node knows."""
    return box.status().datagrams.get("sent", 0)


def packet_device(box: Box) -> int:
    """Return its process; 0: there is none now."""
    found = [pid for pid in children_of(box.pid) if b"atoll.device.nic" in command_line(pid)]
    return found[0] if found else 0


def command_line(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def speak(box: Box) -> None:
    """Have calls made until they are sent by datagrams: at first servers do not know each other."""

    def is_sent() -> bool:
        before = sent(box)
        ask(box, CALLS)
        with suppress(AssertionError):  # Counts come once a second.
            until(lambda: sent(box) >= before + CALLS, "the next counts", 2.0)
        return sent(box) >= before + CALLS

    until(is_sent, "calls that are sent by datagrams", WAIT_S)


def test_servers_speak_by_datagrams_again_when_a_packet_device_was_killed(pair: tuple[Box, Box]) -> None:
    one, two = pair
    speak(two)
    assert (one.status().environments, two.status().environments) == (1, 0)
    for box in pair:
        device = packet_device(box)
        kill(device)
        until(partial(has_another, box, device), "another packet device")
        speak(two)


def has_another(box: Box, device: int) -> bool:
    return packet_device(box) not in {0, device}


def test_the_metrics_say_what_runs_and_what_was_sent(pair: tuple[Box, Box]) -> None:
    one, two = pair
    speak(two)
    for box, runs in ((one, 1.0), (two, 0.0)):
        until(partial(has_sent, box), "calls, or their answers: the server says so once a second")
        assert f"atoll_environments {runs}" in metrics(box)


def metrics(box: Box) -> str:
    return str(json.loads(Api(box.state, WAIT_S).call("metrics", {}))["text"])


def has_sent(box: Box) -> bool:
    return value_of('atoll_environment_datagrams_total{fate="sent"}', metrics(box)) >= CALLS


def value_of(metric: str, text: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(metric)]
    return float(line.removeprefix(metric))
