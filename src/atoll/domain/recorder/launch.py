# SPDX-License-Identifier: Apache-2.0
"""Control's side of the recorder's process: starts it, says whose it is, hands connections on, and notices its death.

The process is ``python -m atoll.domain.recorder`` with one end of a socket; its options travel as one line of JSON on
standard input, as the daemon's do. Its first answer is its greeting, or why it does not start; before it there is a
word after each journal that it has checked, so that one with many journals is not taken for one that hangs. Control
holds the node's signing key and signs the recorder's key with it; the recorder never sees the node's key, nor control
the recorder's.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, final

import msgspec

from atoll.base.errors import LinkError
from atoll.domain.limits import RECORDER_START_S_MAX, RECORDER_STOP_S_MAX
from atoll.domain.recorder.client import RecorderClient
from atoll.domain.recorder.messages import Greeting, RefusedError
from atoll.domain.recorder.process import ENDING_SIGNALS, Options
from atoll.env.chain import Sealer, certificate_payload

__all__ = ["Owner", "RecorderHandle", "greeted", "launch_recorder"]

log: Final = logging.getLogger("atoll.recorder")

LAST_WORDS_BYTES_MAX: Final = 16 * 1024  # Limit. What a dying recorder says, such as a traceback; of more, the end.


class Starts(Protocol):
    """What is needed of the client of a recorder that starts."""

    @property
    def checked(self) -> int:
        """Journals that it has checked so far."""
        ...

    @property
    def greeting(self) -> "asyncio.Future[Greeting]":
        """What it says of itself."""
        ...


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose recorder it is.

    Attributes:
        node: The node's id, 10 bytes.
        signing_key: Its Ed25519 key, 32 bytes.
        sign: Signs with that key; ``group.Identity.sign``.
    """

    node: bytes
    signing_key: bytes
    sign: Callable[[bytes], bytes]


@final
class RecorderHandle:
    """A running recorder. Made by ``launch_recorder``.

    Attributes:
        client: Control's own connection.
        sealer: What it seals as.
    """

    def __init__(self, process: asyncio.subprocess.Process, client: RecorderClient, sealer: Sealer) -> None:
        self._process: Final = process
        self.client: Final = client
        self.sealer: Final = sealer
        self._words: Final = asyncio.create_task(_last_words(process.stderr), name="recorder")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def attach(self) -> socket.socket:
        """Return the end of a new connection to it, for another process.

        Raises:
            LinkError: It does not take it now.
        """
        return self.client.attach()

    async def wait(self) -> str:
        """Wait for its end, whatever the reason; return a few words about it, for the log."""
        words = await self._words
        status = await self._process.wait()
        if words:
            log.error("the recorder said: %s", words)
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    async def stop(self) -> None:
        """Let it finish what it has begun and end; after RECORDER_STOP_S_MAX it is killed. Twice is harmless."""
        self.client.close()
        try:
            async with asyncio.timeout(RECORDER_STOP_S_MAX):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """End it at once. What was acknowledged is durable all the same."""
        with suppress(ProcessLookupError):
            self._process.kill()


async def launch_recorder(state: Path, owner: Owner, *, on_lost: Callable[[str], None] | None = None) -> RecorderHandle:
    """Start the recorder of a node and wait until it has read what it keeps.

    Args:
        state: The node's state directory.
        owner: The node.
        on_lost: Called once in the event loop when it ends though nobody stopped it, with a few words for the log.

    Raises:
        LinkError: It could not be started, or does not start; the words say why.
    """
    ours, theirs = socket.socketpair()
    with theirs, _signals_held_back():
        try:
            # -P: the current directory is no place to load modules from.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "atoll.domain.recorder",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            ours.close()
            raise LinkError(f"the recorder did not start: {error.strerror}") from error
    client = RecorderClient(ours, on_lost)
    try:
        await _give(process, Options(str(state.absolute())))
        greeting = await greeted(client)
        async with asyncio.timeout(RECORDER_START_S_MAX):
            certificate = owner.sign(certificate_payload(owner.node, greeting.recorder))
            sealer = Sealer(owner.node, greeting.recorder, owner.signing_key, certificate)
            await client.certify(sealer.node, sealer.signing_key, sealer.certificate)
    except BaseException as error:
        await _end(process, client)
        if isinstance(error, LinkError | RefusedError | TimeoutError):
            words = "it said nothing in time" if isinstance(error, TimeoutError) else str(error)
            raise LinkError(f"the recorder did not start: {words}") from error
        raise
    return RecorderHandle(process, client, sealer)


async def greeted(client: Starts) -> Greeting:
    """Wait for the greeting of a recorder that starts, as long as it goes on.

    Raises:
        TimeoutError: It has checked no journal in RECORDER_START_S_MAX, nor is it done.
        LinkError: It ended.
    """
    while True:
        before = client.checked
        done, _ = await asyncio.wait((client.greeting,), timeout=RECORDER_START_S_MAX)
        if done:
            return client.greeting.result()
        if client.checked == before:
            raise TimeoutError
        log.info("the recorder is starting: it has checked %d journals so far", client.checked)


async def _give(process: asyncio.subprocess.Process, options: Options) -> None:
    assert process.stdin is not None, "it was started with a pipe"
    with suppress(OSError):  # It ended already; that it says nothing is noticed.
        process.stdin.write(msgspec.json.encode(options) + b"\n")
        await process.stdin.drain()
    process.stdin.close()


async def _end(process: asyncio.subprocess.Process, client: RecorderClient) -> None:
    """End a recorder that has not become ready."""
    client.close()
    with suppress(ProcessLookupError):
        process.kill()
    words = await _last_words(process.stderr)
    await process.wait()
    if words:
        log.error("the recorder said: %s", words)


@contextmanager
def _signals_held_back() -> Generator[None]:
    """Let a process that is started meanwhile be deaf to the signals that end a node, from its first instruction."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


async def _last_words(stream: asyncio.StreamReader | None) -> str:
    """Read what it writes to its standard error until it ends; return the end of it."""
    assert stream is not None, "it was started with a pipe"
    words = b""
    while said := await stream.read(LAST_WORDS_BYTES_MAX):
        words = (words + said)[-LAST_WORDS_BYTES_MAX:]
    return words.decode("utf-8", "replace").strip()
