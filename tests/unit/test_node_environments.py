# SPDX-License-Identifier: Apache-2.0
"""What other nodes' servers say on streams, handed on by control: all that fits, and nothing that is too long."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from struct import Struct
from typing import Any, cast

import pytest

from atoll.base.errors import WireError
from atoll.base.ids import GroupId, NodeId
from atoll.conduit.stream import Kind, Service, Stream
from atoll.conduit.streams import StreamHost
from atoll.device.nic.client import NicClient
from atoll.domain.frames import FrameConnection, Frames
from atoll.domain.launch import EnvironmentsHandle
from atoll.domain.limits import SERVER_FRAME_BYTES_MAX, UNREAD_BYTES_MAX
from atoll.domain.messages import FromNode, control_codec
from atoll.domain.recorder.launch import Owner
from atoll.env.limits import MESSAGE_BYTES_MAX
from atoll.node.environments import Environments

WAIT_S = 20.0
LENGTH = Struct("<I")
TWO = NodeId(b"two".ljust(10, b"."))


class Line:
    """Carries a stream to nowhere."""

    def __init__(self) -> None:
        self.node, self.tag = TWO, 0

    def put(self, stream_id: int, data: bytes, *, end: bool) -> None:
        pass

    def unsent_bytes(self, stream_id: int, written_bytes: int) -> int:
        del stream_id, written_bytes
        return 0

    def took(self, stream_id: int, count: int) -> None:
        pass

    def cut(self, stream_id: int, code: int, *, sending: bool, receiving: bool) -> None:
        pass

    def done(self, stream_id: int) -> None:
        pass


class Process:
    """The server's process: it is there until it is killed."""

    pid = 7

    def __init__(self) -> None:
        self.is_killed = False

    def kill(self) -> None:
        self.is_killed = True


class World:
    """The environments of a node, of whose server there is only the other end of its connection to control."""

    def __init__(self, state: Path) -> None:
        self.process = Process()
        self.is_lost = False
        self.handle = EnvironmentsHandle(cast("asyncio.subprocess.Process", self.process), _nobody, self._lost)
        self.environments = Environments(
            state,
            "one",
            cast("Owner", None),
            cast("StreamHost", None),
            _never,
            reaches=lambda _: True,
            group=GroupId(bytes(8)),
            nic=cast("NicClient", None),
        )
        self.environments._handle = self.handle  # pyright: ignore[reportPrivateUsage]
        self.server, self._ours = socket.socketpair()
        self.server.setblocking(False)
        self.stream = Stream(Line(), 0, opener=False)
        self.connection = FrameConnection(self.handle.take, self.handle.made, self.handle.lost, is_patient=True)

    def _lost(self) -> None:
        self.is_lost = True

    async def open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self.connection, sock=self._ours)

    async def hear(self) -> FromNode:
        """Return what the server hears next."""
        frames = Frames(SERVER_FRAME_BYTES_MAX)
        while True:
            for frame in frames.feed(await asyncio.get_running_loop().sock_recv(self.server, 1 << 20)):
                message = control_codec.decode(frame)
                assert isinstance(message, FromNode)
                return message


def _nobody(node: NodeId, payload: bytes) -> None:
    raise AssertionError("nothing is said to others")


def _never(work: Coroutine[Any, Any, None]) -> None:
    raise AssertionError("nothing is begun")


def run(state: Path, test: Callable[[World], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        world = World(state)
        await world.open()
        try:
            async with asyncio.timeout(WAIT_S):
                await test(world)
        finally:
            world.server.close()
            world.connection.close()

    asyncio.run(bounded())


def test_the_longest_message_is_handed_on_whole(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        payload = bytes(MESSAGE_BYTES_MAX)
        world.stream.arrived(LENGTH.pack(len(payload)) + payload, end=True)
        serving = asyncio.ensure_future(world.environments.serve(world.stream, Service(Kind.ENVIRONMENTS)))
        assert await world.hear() == FromNode(TWO, payload)
        await serving

    run(tmp_path, body)


@pytest.mark.parametrize("size", [MESSAGE_BYTES_MAX + 1, SERVER_FRAME_BYTES_MAX])
def test_a_longer_one_ends_its_stream_and_nothing_else(tmp_path: Path, size: int) -> None:
    async def body(world: World) -> None:
        world.stream.arrived(LENGTH.pack(size) + bytes(size), end=True)
        with pytest.raises(WireError):
            await world.environments.serve(world.stream, Service(Kind.ENVIRONMENTS))
        world.handle.from_node(TWO, b"it goes on")
        assert await world.hear() == FromNode(TWO, b"it goes on")
        assert not world.is_lost
        assert not world.process.is_killed

    run(tmp_path, body)


def test_a_server_that_does_not_read_now_misses_messages_and_lives(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        payload = bytes(MESSAGE_BYTES_MAX)
        for _ in range(2 * UNREAD_BYTES_MAX // MESSAGE_BYTES_MAX):
            world.handle.from_node(TWO, payload)
            await asyncio.sleep(0)
        assert not world.is_lost
        assert not world.process.is_killed
        assert await world.hear() == FromNode(TWO, payload)

    run(tmp_path, body)
