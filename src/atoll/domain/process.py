# SPDX-License-Identifier: Apache-2.0
"""The server of environments as a live process, started by ``launch``; it ends when control does."""

import asyncio
import logging
import resource
import secrets
import socket
import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec

from atoll.base.errors import LinkError
from atoll.base.ids import GroupId
from atoll.domain import guard
from atoll.domain.adoption import Victim
from atoll.domain.frames import FrameConnection
from atoll.domain.limits import MEMORY_BYTES_MAX
from atoll.domain.recorder.client import RecorderClient
from atoll.domain.server import Server
from atoll.domain.walls import InlineWalls, deadly
from atoll.env.chain import Sealer
from atoll.host.heap import freeze_heap
from atoll.host.log_files import log_to_stderr

__all__ = ["EXIT_NOT_READY", "EXIT_OK", "Options", "main"]

log: Final = logging.getLogger("atoll.envs")

EXIT_OK: Final = 0
EXIT_NOT_READY: Final = 3
OPTIONS_BYTES_MAX: Final = 64 * 1024  # Limit. One line of JSON, below 1 KiB.


class Options(msgspec.Struct, frozen=True):
    """What the process is told on its standard input.

    Attributes:
        name: The node's name.
        door: Path of the unix socket for clients.
        note: File that says what was handled when the server before this one ended.
        sealer: What the recorder seals as.
        recorder: Inherited socket to the recorder.
        control: Inherited socket to control.
        device: Inherited socket to the packet device; -1: everything goes through control.
        group: For overlay addresses.
    """

    name: Annotated[str, msgspec.Meta(max_length=64)]
    door: str
    note: str
    sealer: Sealer
    recorder: int
    control: int
    device: int = -1
    group: bytes = b""


def main() -> int:
    """Run the server until control is gone; return the exit status."""
    log_to_stderr()
    for fault in guard.check_interpreter():
        log.warning("replays may differ: %s", fault)
    options = msgspec.json.decode(sys.stdin.buffer.readline(OPTIONS_BYTES_MAX), type=Options)
    try:
        asyncio.run(_serve(options))
    except LinkError as error:
        log.error("environments do not run: %s", error)  # noqa: TRY400 - the sentence is the message.
        return EXIT_NOT_READY
    return EXIT_OK


async def _serve(options: Options) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end(cause: object) -> None:
        if not ended.done():
            log.info("environments end: %s", cause if isinstance(cause, str) else "control has let go")
            ended.set_result(None)

    recorder = RecorderClient(socket.socket(fileno=options.recorder), end)
    before = deadly(Path(options.note))
    walls = InlineWalls(Path(options.note))
    server = Server(recorder, options.sealer, options.name, secrets.token_bytes(32), walls)
    walls.raise_up()
    # Control is heard, and hears that the loop turns, from the first moment: what follows may take minutes.
    await loop.create_connection(
        lambda: FrameConnection(server.from_control, server.controlled, end, is_patient=True),
        sock=socket.socket(fileno=options.control),
    )
    server.spawn(server.beat())
    if options.device >= 0:
        server.speak_through(socket.socket(fileno=options.device), GroupId(options.group))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))  # Each guest takes three.
    starting = loop.create_task(_start(server, Path(options.door), before))
    try:
        await asyncio.wait((starting, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await starting  # What went wrong is raised.
            await ended
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await server.stop()
        recorder.close()


async def _start(server: Server, door: Path, before: Victim | None) -> None:
    await server.recorder.greeting
    await server.start(door, before)
    freeze_heap()
