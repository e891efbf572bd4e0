# SPDX-License-Identifier: Apache-2.0
"""Control's side of the server of environments: starts its process, talks to it, and notices its death."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import msgspec

from atoll.base.errors import LimitError, LinkError, UserError, WireError
from atoll.base.ids import NodeId
from atoll.domain.frames import FrameConnection
from atoll.domain.guard import INTERPRETER_VARIABLES
from atoll.domain.limits import COMMAND_S_MAX, COMMANDS_MAX, RECORDER_STOP_S_MAX, SILENT_S_MAX
from atoll.domain.messages import (
    DOOR_NAME,
    Alive,
    Command,
    ControlMessage,
    FromNode,
    Members,
    MemberSeen,
    Outcome,
    ToNode,
    control_codec,
    server_codec,
)
from atoll.domain.process import Options
from atoll.env.chain import Sealer

__all__ = ["Ends", "EnvironmentsHandle", "launch_environments"]

NOTE_NAME: Final = "envs.running"


@dataclass(frozen=True, slots=True)
class Ends:
    """What a server of environments is handed, and closed here then.

    Attributes:
        recorder: Connection to the recorder.
        sealer: What that seals as.
        device: Connection to the packet device; None: all goes by control.
        group: The group, for overlay addresses; needed with ``device``.
    """

    recorder: socket.socket
    sealer: Sealer
    device: socket.socket | None = None
    group: bytes = b""


@final
class EnvironmentsHandle:
    """A running server of environments. Made by ``launch_environments``.

    Args:
        process: It.
        tell: Sends what it says to another node's server.
        lost: Called once when it ends though nobody stopped it.

    Attributes:
        alive: What it said last of itself.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, tell: Callable[[NodeId, bytes], None], lost: Callable[[], None]
    ) -> None:
        self._process: Final = process
        self._tell, self._on_lost = tell, lost
        self.alive = Alive()
        self._connection: FrameConnection | None = None
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}
        self._last = 0
        self._is_stopping = False
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def made(self, connection: FrameConnection) -> None:
        """Use this connection."""
        self._connection = connection

    def take(self, connection: FrameConnection, frame: bytes) -> None:
        """Take a frame of the server's.

        Raises:
            WireError: It is none.
        """
        del connection
        message = server_codec.decode(frame)
        self._heard_at = self._loop.time()
        match message:
            case ToNode(node, payload):
                self._tell(NodeId(node), payload)
            case Alive():
                self.alive = message
            case Outcome():
                waiting = self._waiting.pop(message.number, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case _:
                raise WireError("message for control")

    def lost(self, connection: FrameConnection) -> None:
        """It is gone, or says nonsense: then it must go, because the next one waits for that."""
        del connection
        self._connection = None
        if not self._is_stopping:
            self.kill()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(LinkError("the server of environments has ended"))
        self._waiting.clear()
        if not self._is_stopping:
            self._on_lost()

    def look(self) -> None:
        """Kill it if it has said nothing for too long: a handler that nothing inside can end."""
        if self._loop.time() - self._heard_at > SILENT_S_MAX:
            self.kill()

    def members(self, members: tuple[MemberSeen, ...], slow: str) -> None:
        """Tell it who is in the group, and why this machine is slow (empty: it is not)."""
        self._say(Members(members, slow))

    def from_node(self, node: NodeId, payload: bytes) -> None:
        """Hand it what another node's server says; it is dropped while it does not read, and said again."""
        if self._connection is not None:
            self._connection.offer(control_codec.encode(FromNode(node, payload)))

    async def command(self, verb: str, params: bytes) -> bytes:
        """Have it do something; return what came of it as JSON.

        Raises:
            UserError: Its own; A611, it is not running.
            LimitError: Too many commands wait.
        """
        if self._connection is None:
            raise _gone()
        if len(self._waiting) >= COMMANDS_MAX:
            raise LimitError("commands_max", COMMANDS_MAX)
        self._last += 1
        waiting: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = waiting
        self._say(Command(self._last, verb, params))
        try:
            async with asyncio.timeout(2 * COMMAND_S_MAX):
                outcome = await waiting
        except (LinkError, TimeoutError) as error:
            raise _gone() from error
        if not outcome.ok:
            raise UserError(outcome.code, outcome.sentence, where=outcome.where, fix=outcome.fix)
        return outcome.ok

    def _say(self, message: ControlMessage) -> None:
        if self._connection is not None:
            self._connection.send(control_codec.encode(message))

    async def stop(self) -> None:
        """End it in order; after RECORDER_STOP_S_MAX it is killed. Twice is harmless."""
        self._is_stopping = True
        if self._connection is not None:
            self._connection.close()
        try:
            async with asyncio.timeout(RECORDER_STOP_S_MAX):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        """End it at once. What was confirmed is durable all the same."""
        with suppress(ProcessLookupError):
            self._process.kill()


async def launch_environments(
    state: Path,
    name: str,
    ends: Ends,
    tell: Callable[[NodeId, bytes], None],
    lost: Callable[[], None],
) -> EnvironmentsHandle:
    """Start the server of environments of a node.

    Args:
        state: The node's state directory.
        name: The node's name.
        ends: What it is handed.
        tell: Sends what it says to another node's server: (node, message).
        lost: Called once when it ends though nobody stopped it.

    Raises:
        LinkError: It did not start.
    """
    ours, theirs = socket.socketpair()
    passed = [one for one in (ends.recorder, ends.device) if one is not None]
    with ExitStack() as opened:
        for one in (theirs, *passed):
            opened.enter_context(one)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # The current directory is no place to load modules from.
                "-m",
                "atoll.domain",
                stdin=asyncio.subprocess.PIPE,
                pass_fds=[one.fileno() for one in (theirs, *passed)],
                env={**os.environ, **INTERPRETER_VARIABLES},
                start_new_session=True,  # A terminal's Ctrl-C is for control, which ends it in order.
            )
        except OSError as error:
            ours.close()
            raise LinkError(f"the server of environments did not start: {error.strerror}") from error
        options = Options(
            name,
            str(state / DOOR_NAME),
            str(state / NOTE_NAME),
            ends.sealer,
            recorder=ends.recorder.fileno(),
            control=theirs.fileno(),
            device=-1 if ends.device is None else ends.device.fileno(),
            group=ends.group,
        )
        assert process.stdin is not None, "it was started with a pipe"
        with suppress(OSError):
            process.stdin.write(msgspec.json.encode(options) + b"\n")
            await process.stdin.drain()
        process.stdin.close()
    handle = EnvironmentsHandle(process, tell, lost)
    ours.setblocking(False)  # noqa: FBT003 - the socket module's own form.
    loop = asyncio.get_running_loop()
    await loop.create_connection(
        lambda: FrameConnection(handle.take, handle.made, handle.lost, is_patient=True), sock=ours
    )
    return handle


def _gone() -> UserError:
    return UserError("A611", "environments do not run on this node now", fix="see: atoll logs; try again in a second")
