# SPDX-License-Identifier: Apache-2.0
"""Control's side of the packet device: starts the process, carries orders and reports, and notices its death.

Nothing here waits for the device: orders are buffered, and go out once per turn of the event loop, many to a system
call. The device's death is told once, by ``on_lost``; the caller starts it anew and tells its machines
``NicRestarted``, because all tables and sessions are gone.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final, final

import msgspec

from atoll.base.errors import LimitError, LinkError, UsageError, WireError
from atoll.device.nic.backlog import ITEM_BYTES_MAX, Backlog
from atoll.device.nic.limits import (
    BATCHES_PER_TURN_MAX,
    IPC_BYTES_MAX,
    IPC_SOCKET_BYTES,
    PACKET_BYTES_MAX,
    START_S_MAX,
    STOP_S_MAX,
    URGENT_QUEUED_MAX,
)
from atoll.device.nic.messages import (
    AttachPort,
    AttachTun,
    Configure,
    Listening,
    Order,
    Report,
    SendPacket,
    Stop,
    decode_reports,
    encode_item,
    join_items,
)
from atoll.device.nic.orphan import made_door
from atoll.host.compiled_tree import COMPILED_VARIABLE, compiled_tree

__all__ = ["NicClient", "message_pair"]

log: Final = logging.getLogger("atoll.nic")

LAST_WORDS_BYTES_MAX: Final = 16 * 1024  # Limit. What a dying device says, such as a traceback; of more, the end.
_HELD_BACK: Final = (signal.SIGINT, signal.SIGTERM)  # Those that ``process.py`` ignores later.


@final
class NicClient:
    """One packet device in its own process.

    ``start`` it, give ``order``s, take what ``on_reports`` brings. After ``on_lost`` or ``stop`` it can be started
    again.

    Args:
        on_reports: Called in the event loop with reports, in order, at least one.
        on_lost: Called once when the process ends though nobody stopped it, with a few words for the log. A device that
            no longer takes orders, or talks nonsense, is killed and then lost as well.
        door: Where ``end_orphan`` finds a device that has outlived this process; None: it ends with it. The file goes
            with ``stop``.

    Attributes:
        dropped: Packets that the device did not take in time, or that are too long for it.
        pid: Of the process; None: not running.
    """

    def __init__(
        self,
        on_reports: Callable[[Sequence[Report]], None],
        on_lost: Callable[[str], None],
        door: Path | None = None,
    ) -> None:
        self._door: Final = door
        self._on_reports, self._on_lost = on_reports, on_lost
        self._backlog: Final = Backlog()
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._listening: asyncio.Future[Listening] | None = None
        self._flushing = self._writing = self._stopping = False
        self._tree = compiled_tree() if os.environ.get(COMPILED_VARIABLE) != "no" else None
        self._fault = ""
        self.dropped = 0

    @property
    def pid(self) -> int | None:
        """Process id of the device; None: it is not running."""
        return None if self._process is None else self._process.pid

    async def start(self, configure: Configure) -> Listening:
        """Start the process and configure it; if a compiled one fails at that, one in Python.

        Returns:
            Where it listens; with ``error`` set, nowhere: then the process has ended and ``on_lost`` is not called.

        Raises:
            LinkError: The process could not be started, or ended, or said nothing for START_S_MAX.
            UsageError: It is running.
        """
        if self._process is not None:
            raise UsageError("the packet device is running already")
        was_compiled = self._tree is not None
        try:
            return await self._start(configure)
        except LinkError:
            if self._tree is None and was_compiled:
                return await self._start(configure)
            raise

    async def _start(self, configure: Configure) -> Listening:
        loop = asyncio.get_running_loop()
        try:
            ours, theirs = message_pair()
        except OSError as error:
            raise LinkError(f"the packet device did not start: {error.strerror}") from error
        door = None if self._door is None else made_door(self._door)
        if door is None:
            configure = msgspec.structs.replace(configure, outlives_ns=0)
        passed = [one.fileno() for one in (theirs, door) if one is not None]
        with theirs, door or nullcontext(), _signals_held_back():
            try:
                # -P: the current directory is no place to load modules from.
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "atoll.device.nic",
                    *map(str, passed),
                    stdin=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,  # Not our own: the file behind it may have been rotated away.
                    pass_fds=passed,
                    env=self._environment(),
                )
            except OSError as error:
                ours.close()
                raise LinkError(f"the packet device did not start: {error.strerror}") from error
        self._process, self._socket = process, ours
        self._stopping, self._fault = False, ""
        self._listening = loop.create_future()
        loop.add_reader(ours, self._readable)
        self._watch = asyncio.create_task(self._wait(process), name="nic")
        self._put(configure)
        self._flush()  # Alone in its batch: an order that came before the next turn would make it unreadable.
        try:
            async with asyncio.timeout(START_S_MAX):
                listening = await self._listening
        except (TimeoutError, LinkError) as error:
            await self._end()
            raise LinkError("the packet device ended at its start or said nothing") from error
        except asyncio.CancelledError:
            await self._end()
            raise
        finally:
            self._listening = None
        if listening.error:
            await self._end()
        return listening

    def _environment(self) -> dict[str, str] | None:
        """Return what lets the process find the compiled device first; None: there is none."""
        if self._tree is None:
            return None
        before = os.environ.get("PYTHONPATH")
        return os.environ | {"PYTHONPATH": os.pathsep.join((str(self._tree), before) if before else (str(self._tree),))}

    def attach(self, order: AttachTun | AttachPort, fd: int) -> None:
        """Have the device serve an open file from the next turn of the event loop on, instead of any other such.

        Args:
            order: What it is, and which ports are whose.
            fd: The open TUN device or socket; the packet device gets a copy of its own.

        Raises:
            LinkError: It does not take it now. (The socket was idle, so it is ending, or stuck.)
        """
        if self._socket is None or self._stopping:
            raise LinkError("the packet device is not running")
        try:
            socket.send_fds(self._socket, (join_items((encode_item(order),)),), (fd,))
        except OSError as error:
            raise LinkError(f"the packet device does not take an open file: {error.strerror}") from error

    def order(self, order: Order) -> None:
        """Give an order; never blocks. It goes out in this turn of the event loop; packets after everything else.

        When the device is not running the order is lost, as all orders before its death are.

        Raises:
            UsageError: ``Configure`` (give it to ``start``), ``Stop`` (call ``stop``), ``AttachTun`` or ``AttachPort``.
        """
        if isinstance(order, Configure | Stop | AttachTun | AttachPort):
            raise UsageError("start, stop and attach are methods")
        if self._process is not None and not self._stopping:
            self._put(order)

    async def stop(self) -> None:
        """End the process, kindly and then not; ``on_lost`` is not called. Not running: nothing."""
        if self._process is None:
            return
        # Behind the packets that are still to be sent, such as the ends of streams.
        self.dropped += self._backlog.put_packet(encode_item(Stop()))
        self._flush()
        await self._end(grace_s=STOP_S_MAX)
        if self._door is not None:
            with suppress(OSError):  # A leftover does no harm.
                self._door.unlink(missing_ok=True)

    def _put(self, order: Order) -> None:
        if isinstance(order, SendPacket):
            if len(order.packet) > PACKET_BYTES_MAX:
                self.dropped += 1
                return
            self.dropped += self._backlog.put_packet(encode_item(order))
        else:
            item = encode_item(order)
            if len(item) > ITEM_BYTES_MAX:
                raise LimitError("ITEM_BYTES_MAX", ITEM_BYTES_MAX)
            if self._backlog.is_full:
                self._kill(f"more than {URGENT_QUEUED_MAX} orders not taken")
                return
            self._backlog.put_urgent(item)
        if not self._flushing and not self._writing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send as much as the socket takes now; the rest when it is writable."""
        self._flushing = False
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        while (batch := self._backlog.batch()) is not None:
            try:
                self._socket.send(batch)
            except (BlockingIOError, InterruptedError):
                if not self._writing:
                    self._writing = True
                    loop.add_writer(self._socket, self._flush)
                return
            except OSError:  # The other end is gone; the task that waits for the process says so.
                self._backlog.clear()
                break
            self._backlog.sent()
        if self._writing:
            self._writing = False
            loop.remove_writer(self._socket)

    def _readable(self) -> None:
        for _ in range(BATCHES_PER_TURN_MAX):
            if self._socket is None:  # A callback stopped us.
                return
            try:
                batch = self._socket.recv(IPC_BYTES_MAX)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                batch = b""
            if not batch:
                asyncio.get_running_loop().remove_reader(self._socket)
                return
            try:
                reports = decode_reports(batch)
            except WireError as error:
                self._kill(error.reason)
                return
            self._deliver(reports)

    def _deliver(self, reports: Sequence[Report]) -> None:
        waiter = self._listening
        if waiter is not None and reports and isinstance(reports[0], Listening):
            if not waiter.done():
                waiter.set_result(reports[0])
            reports = reports[1:]
        if reports:
            self._on_reports(reports)

    def _kill(self, reason: str) -> None:
        """End a device that cannot be worked with; ``_wait`` tells the caller."""
        self._fault = reason
        self._backlog.clear()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the end of the process, whatever its reason."""
        words = await _last_words(process.stderr)
        status = await process.wait()
        if words:
            log.error("the packet device said: %s", words)
            if self._tree is not None and status > 0:
                log.warning("the compiled packet device failed by itself; Python's own takes its place")
                self._tree = None
        self._readable()  # Its last reports.
        self._close()
        if self._listening is not None:
            if not self._listening.done():
                self._listening.set_exception(LinkError("ended"))
        elif not self._stopping:
            ended = f"signal {-status}" if status < 0 else f"exit status {status}"
            self._on_lost(f"{ended}, {self._fault}" if self._fault else ended)

    def _close(self) -> None:
        if self._socket is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            self._socket.close()
        self._socket = self._process = None
        self._writing = False
        self._backlog.clear()

    async def _end(self, grace_s: float = 0) -> None:
        self._stopping = True
        watch = self._watch
        if watch is None:
            return
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.shield(watch)
        except TimeoutError:
            if self._process is not None:
                with suppress(ProcessLookupError):
                    self._process.kill()
            await watch
        self._watch = None


@contextmanager
def _signals_held_back() -> Generator[None]:
    """Let a process that is started meanwhile be deaf to the signals that end a node, from its first instruction.

    It inherits the mask. Until its own code ignores them, a second goes by in which Ctrl-C would end it with a
    traceback. Ours that come meanwhile are delivered at the end of the block.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)


async def _last_words(stream: asyncio.StreamReader | None) -> str:
    """Read what the device writes to its standard error until it ends; return the end of it."""
    assert stream is not None, "it was started with a pipe"
    words = b""
    while said := await stream.read(LAST_WORDS_BYTES_MAX):
        words = (words + said)[-LAST_WORDS_BYTES_MAX:]
    return words.decode("utf-8", "replace").strip()


def message_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a local socket that keeps messages apart; ours, the first, does not block.

    SOCK_DGRAM where there is no SOCK_SEQPACKET (macOS).
    """
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.settimeout(0)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IPC_SOCKET_BYTES)
    return ours, theirs
