# SPDX-License-Identifier: Apache-2.0
"""A real group on one machine: node processes as ``atoll up`` starts them, on the WAN emulator's sockets.

Node j's address, as the others are told it, is a face of the emulator; what it sends from its real port crosses the
link to whom it is for. So every process runs exactly the code that it runs on the Internet.
"""

import asyncio
import os
import select
import signal
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, final

import msgspec

from atoll.base.errors import UserError
from atoll.lab.emulator import EmulatorClient
from atoll.node.api import call
from atoll.node.launch import end_orphaned, launch
from atoll.node.start import LaunchOptions
from atoll.node.views import ForwardView, InviteView, StatusView, WhyView
from atoll.sim import Topology

__all__ = ["LiveGroup", "free_port"]

READY_TIMEOUT_S: Final = 20.0  # Limit. Until every node sees every other one.
POLL_S: Final = 0.1
DOWN_TIMEOUT_S: Final = 5.0  # Limit. Then the process is ended the hard way.
NS_PER_US: Final = 1000


def free_port(kind: int = socket.SOCK_DGRAM) -> int:
    """Return a port of 127.0.0.1 that is free now. Somebody else may take it before it is used: bind it soon."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@final
class Process:
    """One process, whoever has its number after it. Close it.

    A number alone would be wrong: the kernel gives it to another process as soon as this one was waited for, and a lab
    that ends a node late would then kill a stranger.

    Args:
        number: Of a process that runs now.

    Raises:
        ProcessLookupError: It does not.
    """

    def __init__(self, number: int) -> None:
        self._handle = os.pidfd_open(number)

    def has_ended(self) -> bool:
        """Return whether it has ended."""
        waiting = select.poll()
        waiting.register(self._handle, select.POLLIN)
        return bool(waiting.poll(0))

    def kill(self) -> None:
        """End it at once, and wait for that; nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        select.select([self._handle], [], [], DOWN_TIMEOUT_S)

    def close(self) -> None:
        """Give the handle back."""
        os.close(self._handle)


@final
class LiveGroup:
    """Nodes of one group and the emulator between them. Made by ``LiveGroup.running``.

    Attributes:
        names: The nodes, by index of the topology.
        emulator: Breaks and mends links.
    """

    def __init__(self, names: Sequence[str], emulator: EmulatorClient, directory: Path) -> None:
        self.names: Final = tuple(names)
        self.emulator: Final = emulator
        self._directory = directory
        self._processes: dict[str, Process] = {}

    @staticmethod
    @asynccontextmanager
    async def running(
        names: Sequence[str], topology: Topology, directory: Path, *, seed: int = 1
    ) -> AsyncGenerator["LiveGroup"]:
        """Start emulator and nodes, join them, wait until all see all; end everything with the block.

        Args:
            names: One for each node of the topology.
            topology: Delay and jitter of every link.
            directory: Empty; keeps state and logs. Its path must be short: sockets live in it.
            seed: Of the emulator's luck.

        Raises:
            UserError: A node did not start, or they did not see each other in time (A406).
        """
        async with EmulatorClient.running(seed) as emulator:
            group = LiveGroup(names, emulator, directory)
            try:
                await group._start(topology)
                yield group
            finally:
                await group._end()

    def state(self, name: str) -> Path:
        """Return a node's state directory."""
        return self._directory / name

    async def call(self, name: str, method: str, params: Mapping[str, object] | None = None) -> bytes:
        """Call a method of a node's local API."""
        return await call(self.state(name) / "control.sock", method, params)

    async def status(self, name: str) -> StatusView:
        """Return a node's status."""
        return msgspec.json.decode(await self.call(name, "status"), type=StatusView)

    async def why(self, source: str, target: str, tag: str = "latency") -> WhyView:
        """Return why a node takes the path that it takes."""
        return msgspec.json.decode(await self.call(source, "why", {"target": target, "tag": tag}), type=WhyView)

    async def forward(self, source: str, target: str, port: int, *, tag: str = "latency", protocol: str = "tcp") -> int:
        """Make a forward from a node to a loopback port of another; return its local port."""
        params = {"protocol": protocol, "local": "127.0.0.1:0", "node": target, "port": port, "tag": tag}
        view = msgspec.json.decode(await self.call(source, "forward.add", params), type=ForwardView)
        return int(view.local.rpartition(":")[2])

    def kill(self, name: str) -> None:
        """Kill both processes of a node as a power cut would."""
        if name in self._processes:
            self._processes[name].kill()
            end_orphaned(self.state(name))  # It would go on for a while.

    def _hold(self, name: str) -> None:
        """Take hold of the process of a node that has just started; it may be gone already."""
        with suppress(OSError, ValueError):
            self._processes[name] = Process(int((self.state(name) / "lock").read_text(encoding="ascii")))

    async def _start(self, topology: Topology) -> None:
        ports = {name: free_port() for name in self.names}
        faces = {name: await self.emulator.add_node(name, ports[name]) for name in self.names}
        for i, source in enumerate(self.names):
            for j, target in enumerate(self.names):
                if i < j:
                    spec = topology.specs[i][j]
                    await self.emulator.set_link(
                        source, target, delay_us=spec.delay_ns // NS_PER_US, jitter_us=spec.jitter_ns // NS_PER_US
                    )
        first = self.names[0]
        await self._up(first, ports[first], faces[first], None)
        invitations = [
            msgspec.json.decode(await self.call(first, "invite"), type=InviteView).invite for _ in self.names[1:]
        ]
        outcomes = await asyncio.gather(
            *(
                self._up(name, ports[name], faces[name], invitation)
                for name, invitation in zip(self.names[1:], invitations, strict=True)
            ),
            return_exceptions=True,  # All of them first: whoever still starts could not be ended.
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        await self._until_all_see_all()

    async def _up(self, name: str, port: int, face: tuple[str, int], invitation: str | None) -> None:
        options = LaunchOptions(
            state=str(self.state(name)),
            invite=invitation,
            name=name,
            listen=f"127.0.0.1:{port}",
            advertise=(f"{face[0]}:{face[1]}",),
            group_name="demo",
        )
        starting = asyncio.get_running_loop().run_in_executor(None, launch, options)
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(UserError):
                await starting  # A thread cannot be cancelled, and a node half started cannot be ended.
            raise
        finally:
            self._hold(name)

    async def _until_all_see_all(self) -> None:
        missing: dict[str, list[str]] = {}
        give_up_at = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        while asyncio.get_running_loop().time() < give_up_at:
            missing = {}
            for name in self.names:
                peers = {p.name for p in (await self.status(name)).peers if p.session and p.rtt_ms is not None}
                if lacking := [other for other in self.names if other not in peers and other != name]:
                    missing[name] = lacking
            if not missing:
                return
            await asyncio.sleep(POLL_S)
        raise UserError("A406", "the nodes do not see each other", where=str(missing), fix=f"read {self._directory}")

    async def _end(self) -> None:
        await asyncio.gather(*(self._down(name, process) for name, process in self._processes.items()))

    async def _down(self, name: str, process: Process) -> None:
        if not process.has_ended():
            with suppress(UserError):
                await self.call(name, "down")
        give_up_at = asyncio.get_running_loop().time() + DOWN_TIMEOUT_S
        while not process.has_ended():
            if asyncio.get_running_loop().time() > give_up_at:
                process.kill()
                end_orphaned(self.state(name))
                break
            await asyncio.sleep(POLL_S)
        process.close()
