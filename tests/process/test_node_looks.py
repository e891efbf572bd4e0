# SPDX-License-Identifier: Apache-2.0
"""The packet device's questions about flows are answered, many by one look; tags end with their programs."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Self

import pytest

from atoll.device.nic.messages import FlowOpened, FlowOwned
from atoll.host.owners import MARK_VARIABLE, Owners, born_ticks, sockets_here
from atoll.node.limits import FLOWS_ASKED_MAX, TAGGED_KEPT_S
from atoll.node.programs import Programs

pytestmark = pytest.mark.process

UDP = 17
LOOPBACK = socket.inet_pton(socket.AF_INET6, "::1")
RATE = 2

SEND = """
import socket
endpoint = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
endpoint.bind(("::1", 0))
print(endpoint.getsockname()[1], flush=True)
input()
"""


class World:
    """The programs of this machine on the loopback, inside an event loop."""

    def __init__(self, *, blind: bool = False) -> None:
        self.owners = None if blind else Owners(sockets_here(), "/proc/self/ns/net", LOOPBACK)
        self.orders: list[FlowOwned] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.programs = Programs(lambda: self.owners, self.orders.append, self.spawn)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def idle(self) -> None:
        """Wait for everything that was begun."""
        while self.tasks:
            await self.tasks.pop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.owners is not None:
            self.owners.close()


def opened(port: int) -> FlowOpened:
    return FlowOpened(UDP, LOOPBACK + port.to_bytes(2, "big") + bytes(2))


def started(environment: dict[str, str] | None = None) -> tuple[subprocess.Popen[str], int]:
    made = subprocess.Popen(
        [sys.executable, "-c", SEND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert made.stdout is not None
    return made, int(made.stdout.readline())


def test_a_flow_that_nobody_owns_is_answered_too_and_a_bounded_number_waits() -> None:
    async def asked(world: World) -> None:
        for port in range(FLOWS_ASKED_MAX + 5):
            world.programs.ask(opened(port))
        assert len(world.tasks) == 1
        await world.idle()

    with World(blind=True) as world:
        asyncio.run(asked(world))
        assert world.orders == [FlowOwned(UDP, opened(port).flow) for port in range(FLOWS_ASKED_MAX)]


def test_what_is_asked_meanwhile_is_looked_for_next() -> None:
    async def asked(world: World, *ports: int) -> None:
        world.programs.want(("no-such-program", Path(sys.executable).name))
        world.programs.ask(opened(ports[0]))
        await asyncio.sleep(0)  # The first look has begun.
        for port in ports[1:]:
            world.programs.ask(opened(port))
        await world.idle()

    program, port = started()
    with program, World() as world:
        asyncio.run(asked(world, port, 9, port))
        assert [order.flow for order in world.orders] == [opened(one).flow for one in (port, 9, port)]
        assert world.orders[1] == FlowOwned(UDP, opened(9).flow)
        assert world.orders[0] == world.orders[2] == FlowOwned(UDP, opened(port).flow, (2,))
        program.communicate("\n")


@pytest.mark.parametrize("marked", [False, True])
def test_a_tag_lives_as_long_as_a_program_that_has_it(marked: bool) -> None:
    async def tagged(world: World) -> None:
        kept_s = TAGGED_KEPT_S
        programs = world.programs
        if marked:  # Its root is gone already.
            program, port = started({MARK_VARIABLE: programs.give_tag((1, 1), RATE)})
        else:
            program, port = started()
            programs.give_tag((program.pid, born_ticks(program.pid)), RATE)
        with program:
            programs.ask(opened(port))
            programs.keep(kept_s)  # Not beside a look.
            await world.idle()
            assert world.orders == [FlowOwned(UDP, opened(port).flow, (), RATE)]
            programs.keep(2 * kept_s)
            programs.ask(opened(9))
            await world.idle()
            assert len(world.orders) == 2
            assert [programs.is_tagging] == [True]
            program.communicate("\n")
        programs.keep(3 * kept_s)
        await world.idle()
        assert not programs.is_tagging

    with World() as world:
        asyncio.run(tagged(world))


def test_without_a_network_tags_are_kept() -> None:
    async def kept(world: World) -> None:
        world.programs.give_tag((1, 1), RATE)
        world.programs.keep(TAGGED_KEPT_S)
        await world.idle()
        assert world.programs.is_tagging

    with World(blind=True) as world:
        asyncio.run(kept(world))
