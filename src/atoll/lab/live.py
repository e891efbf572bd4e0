# SPDX-License-Identifier: Apache-2.0
"""A real group on one machine: node processes as ``atoll up`` starts them, on the WAN emulator's sockets.

Node j's address, as the others are told it, is a face of the emulator; what it sends from its real port crosses the
link to whom it is for. So every process runs exactly the code that it runs on the Internet.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Collection, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, final

import msgspec

from atoll.base.errors import UserError
from atoll.lab.afflicted import SWITCH_NAME, set_factor, slowed
from atoll.lab.emulator import EmulatorClient
from atoll.lab.process import Process
from atoll.lab.stealing import stolen
from atoll.node.api import call
from atoll.node.launch import ORDINARY, end_orphaned, launch
from atoll.node.start import LaunchOptions
from atoll.node.views import ForwardView, InviteView, StatusView, WhyView
from atoll.sim import Topology

__all__ = ["LiveGroup", "free_port"]

READY_TIMEOUT_S: Final = 20.0  # Limit. Until every node sees every other one.
POLL_S: Final = 0.1
DOWN_TIMEOUT_S: Final = 5.0  # Limit. Then the process is ended the hard way.
NS_PER_US: Final = 1000
AFFLICTED: Final = "atoll.lab.afflicted"
DISK_FACTOR: Final = 100
TRANSACTION_SYNCS: Final = 3  # SQLite: the journal, its header, the database.


def free_port(kind: int = socket.SOCK_DGRAM) -> int:
    """Return a port of 127.0.0.1 that is free now. Somebody else may take it before it is used: bind it soon."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@final
class LiveGroup:
    """Nodes of one group and the emulator between them. Made by ``LiveGroup.running``.

    Attributes:
        names: The nodes, by index of the topology.
        emulator: Breaks and mends links.
        afflictable: The nodes whose disks can be made slow.
    """

    def __init__(
        self, names: Sequence[str], emulator: EmulatorClient, directory: Path, afflictable: Collection[str] = ()
    ) -> None:
        self.names: Final = tuple(names)
        self.emulator: Final = emulator
        self.afflictable: Final = tuple(afflictable)
        self._directory = directory
        self._processes: dict[str, Process] = {}

    @staticmethod
    @asynccontextmanager
    async def running(
        names: Sequence[str],
        topology: Topology,
        directory: Path,
        *,
        seed: int = 1,
        afflictable: Collection[str] = (),
    ) -> AsyncGenerator["LiveGroup"]:
        """Start emulator and nodes, join them, wait until all see all; end everything with the block.

        Args:
            names: One for each node of the topology.
            topology: Delay and jitter of every link.
            directory: Empty; keeps state and logs. Its path must be short: sockets live in it.
            seed: Of the emulator's luck.
            afflictable: Nodes whose disks ``slow_disk`` will be asked to slow down.

        Raises:
            UserError: A node did not start, or they did not see each other in time (A406).
        """
        async with EmulatorClient.running(seed) as emulator:
            group = LiveGroup(names, emulator, directory, afflictable)
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

    def has_ended(self, name: str) -> bool:
        """Return whether a node's process has ended."""
        return name not in self._processes or self._processes[name].has_ended()

    def living(self) -> tuple[str, ...]:
        """Return the nodes that have not ended, in order."""
        return tuple(name for name in self.names if not self.has_ended(name))

    @contextmanager
    def slow_disk(self, name: str, factor: int = DISK_FACTOR) -> Generator[None]:
        """Let each durable write of a node take so many times as long while the block lasts (``lab/afflicted.py``).

        Args:
            name: One of ``afflictable``.
            factor: At least 2.
        """
        assert name in self.afflictable, f"{name} was not started as a node that can be afflicted"
        set_factor(self.state(name), factor)
        try:
            yield
        finally:
            set_factor(self.state(name), 0)

    @asynccontextmanager
    async def stolen_cpu(self, name: str) -> AsyncGenerator[None]:
        """Take the CPU from a node in turns while the block lasts, from all of its processes (``lab/stealing.py``)."""
        control = self._processes[name]
        children = control.children()
        try:
            async with stolen((control, *children)):
                yield
        finally:
            for one in children:
                one.close()

    def served_by(self, from_port: int) -> str:
        """Return on which node a program is that was called from this loopback port; empty: on none.

        As a database does for a transaction, it has written durably before it answers: on the disk of that node.
        """
        name = self._holder(from_port)
        if name:
            state = self.state(name)
            sync = slowed(os.fdatasync, state / SWITCH_NAME)
            with (state / "lab-served").open("wb", buffering=0) as file:
                for _ in range(TRANSACTION_SYNCS):
                    file.write(b"served\n")
                    sync(file.fileno())
        return name

    def _holder(self, from_port: int) -> str:
        """Return which node holds the end at this loopback port of a TCP connection; empty: none does.

        The nodes share one loopback, and so each program on it: who connects to it tells for which machine it answers.
        """
        local = f"0100007F:{from_port:04X}"
        lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        sockets = {f"socket:[{fields[9]}]" for fields in map(str.split, lines) if fields[1] == local}
        for name, process in self._processes.items():
            for file in Path(f"/proc/{process.number}/fd").glob("*"):
                with suppress(OSError):  # It was closed meanwhile.
                    if str(file.readlink()) in sockets:
                        return name
        return ""

    def kill(self, name: str) -> None:
        """Kill all processes of a node at once, as a power cut would; nothing happens if it has ended."""
        if name not in self._processes:
            return
        control = self._processes[name]
        family = control.family()
        for one in family:
            one.suspend()  # Or one that is still there would see another one die, and say so.
        for one in family:
            one.kill()
        for one in family[1:]:
            one.close()
        end_orphaned(self.state(name))  # One that was an orphan already is nobody's child; it would go on for a while.

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
        module = AFFLICTED if name in self.afflictable else ORDINARY
        start = partial(launch, options, module=module)
        starting = asyncio.get_running_loop().run_in_executor(None, start)
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
                self.kill(name)
                break
            await asyncio.sleep(POLL_S)
        process.close()
