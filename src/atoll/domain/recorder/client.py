# SPDX-License-Identifier: Apache-2.0
"""The other end of a recorder's connection: asks without waiting, and tells each asker its answer.

The first request of a turn of the event loop goes out at once, the others together; so do their answers come in.
Nothing is asked twice: when the connection is lost, whoever waits is told so, and does not know whether it was done.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, TypeVar, final

import msgspec

from atoll.base.errors import LimitError, LinkError, WireError
from atoll.domain.limits import CONNECTION_BYTES, READ_BYTES_MAX, RECEIVE_BYTES, REQUESTS_BYTES_MAX, REQUESTS_MAX
from atoll.domain.recorder.messages import (
    Answer,
    Append,
    Appended,
    Blocks,
    Certify,
    Content,
    Create,
    Cut,
    Done,
    Forget,
    Greeting,
    Inbox,
    Keep,
    KeepCode,
    KeepHead,
    KeepSnapshot,
    Kept,
    KeptHead,
    List,
    Listed,
    Promise,
    Read,
    ReadCode,
    ReadSnapshot,
    Recorded,
    Refused,
    RefusedError,
    Request,
    Restart,
    Retain,
    Retained,
    Snapshot,
    Starting,
    decode_answer,
    encode_request,
)
from atoll.domain.turns import Turn
from atoll.env.chain import GENESIS, Block, Position, Sealed, Sealer

__all__ = ["RecorderClient", "Told"]

T = TypeVar("T", bound=Answer)
Told = Callable[[Answer | LinkError], None]  # Gets the answer, ``Refused`` included, or that the connection is lost.


@final
class RecorderClient:
    """One connection to a recorder. Made and used in one event loop.

    The methods return futures: of the answer, of ``RefusedError``, or of ``LinkError`` when the connection is lost.
    All raise ``LimitError`` at once when REQUESTS_MAX requests wait or REQUESTS_BYTES_MAX are not taken, and
    ``LinkError`` when the connection is lost already.

    Args:
        end: Our end of a SOCK_STREAM socket; closed with the connection.
        on_lost: Called once when the connection is lost and ``close`` was not called, with a few words for the log,
            after all that waited were told.

    Attributes:
        greeting: What the recorder said of itself; a future.
        checked: Journals that it has checked so far while it starts.
        waiting: Requests that have no answer yet.
    """

    def __init__(self, end: socket.socket, on_lost: Callable[[str], None] | None = None) -> None:
        end.setblocking(False)  # noqa: FBT003 - the socket module's own form.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CONNECTION_BYTES)
        self._loop: Final = asyncio.get_running_loop()
        self._end: socket.socket | None = end
        self._on_lost: Final = on_lost
        self._inbox: Final = Inbox()
        self._room: Final = memoryview(bytearray(RECEIVE_BYTES))  # Made once: it takes as long as what is read mostly.
        self._told: Final[dict[int, Told]] = {}
        self._queue: list[bytes] = []
        self._queue_bytes = 0  # Not taken by the socket.
        self._rest = memoryview(b"")  # Of what the socket has taken in part.
        self._last = 0
        self._writing = False
        self._turn: Final = Turn(self._send)
        self.checked = 0
        self.greeting: Final[asyncio.Future[Greeting]] = self._loop.create_future()
        self._loop.add_reader(end, self._readable)

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return len(self._told)

    def ask(self, make: Callable[[int], Request], told: Told) -> None:
        """Ask, and have ``told`` called with the answer in the event loop; without a future's cost.

        Args:
            make: Makes the request with the number that it gets.
            told: Called exactly once.

        Raises:
            LimitError: Too much is on its way.
            LinkError: The connection is lost.
            UsageError: The request does not encode.
        """
        if self._end is None:
            raise LinkError("the connection to the recorder is lost")
        if len(self._told) >= REQUESTS_MAX:
            raise LimitError("REQUESTS_MAX", REQUESTS_MAX)
        if self._queue_bytes >= REQUESTS_BYTES_MAX:
            raise LimitError("REQUESTS_BYTES_MAX", REQUESTS_BYTES_MAX)
        number = self._last + 1
        message = encode_request(make(number))
        self._last = number
        self._told[number] = told
        self._queue.append(message)
        self._queue_bytes += len(message)
        if not self._writing:
            self._turn.now()

    def request(self, make: Callable[[int], Request], kind: type[T]) -> "asyncio.Future[T]":
        """Ask, and return a future of the answer, which is of this kind."""
        future: asyncio.Future[T] = self._loop.create_future()

        def told(answer: Answer | LinkError) -> None:
            if future.done():  # Nobody waits any more.
                return
            if isinstance(answer, kind):
                future.set_result(answer)
            elif isinstance(answer, Refused):
                future.set_exception(RefusedError(answer.code, answer.words))
            elif isinstance(answer, LinkError):
                future.set_exception(answer)
            else:
                future.set_exception(LinkError("the recorder gave an answer to something else"))

        self.ask(make, told)
        return future

    async def listed(self) -> Listed:
        """Return what is kept of all environments, and which have ended; see ``messages.Listed``."""
        return await self.request(List, Listed)

    async def environments(self) -> tuple[Recorded, ...]:
        """Return what is kept of all environments."""
        return (await self.listed()).environments

    def create(self, environment: bytes, name: str, at: Position = GENESIS) -> "asyncio.Future[Done]":
        """Begin a journal; see ``messages.Create``."""
        return self.request(lambda number: Create(number, environment, name, at), Done)

    def append(self, environment: bytes, block: Block) -> "asyncio.Future[Appended]":
        """Have a block sealed and kept; see ``messages.Append``."""
        return self.request(lambda number: Append(number, environment, block), Appended)

    def keep(self, environment: bytes, sealer: Sealer, sealed: Sealed) -> "asyncio.Future[Kept]":
        """Have a block kept that another recorder sealed; see ``messages.Keep``."""
        return self.request(lambda number: Keep(number, environment, sealer, sealed.block, sealed.seal), Kept)

    def cut(self, environment: bytes, number: int) -> "asyncio.Future[Done]":
        """Have blocks put aside; see ``messages.Cut``."""
        return self.request(lambda request: Cut(request, environment, number), Done)

    def promise(self, environment: bytes, epoch: int, node: bytes) -> "asyncio.Future[Done]":
        """Have an epoch promised; see ``messages.Promise``."""
        return self.request(lambda number: Promise(number, environment, epoch, node), Done)

    def restart(self, restart: Restart) -> "asyncio.Future[Done]":
        """Have a journal begin anew; its ``id`` does not count. See ``messages.Restart``."""
        return self.request(lambda number: msgspec.structs.replace(restart, id=number), Done)

    def keep_snapshot(self, environment: bytes, number: int, content: bytes) -> "asyncio.Future[Done]":
        """Have a state kept; see ``messages.KeepSnapshot``."""
        return self.request(lambda request: KeepSnapshot(request, environment, number, content), Done)

    def read_snapshot(self, environment: bytes, number: int, *, upto: bool = False) -> "asyncio.Future[Snapshot]":
        """Get a state back; see ``messages.ReadSnapshot``."""
        return self.request(lambda request: ReadSnapshot(request, environment, number, upto), Snapshot)

    def read(self, environment: bytes, number: int, bytes_max: int = READ_BYTES_MAX) -> "asyncio.Future[Blocks]":
        """Get blocks back; see ``messages.Read``."""
        return self.request(lambda request: Read(request, environment, number, bytes_max), Blocks)

    def keep_code(self, digest: bytes, content: bytes) -> "asyncio.Future[Done]":
        """Have an archive of code kept; see ``messages.KeepCode``."""
        return self.request(lambda number: KeepCode(number, digest, content), Done)

    async def read_code(self, digest: bytes) -> bytes:
        """Return an archive of code; see ``messages.ReadCode``."""
        return (await self.request(lambda number: ReadCode(number, digest), Content)).content

    def keep_head(self, node: bytes, kept: KeptHead) -> "asyncio.Future[Done]":
        """Have a head kept that another node showed; see ``messages.KeepHead``."""
        return self.request(lambda number: KeepHead(number, node, kept), Done)

    def forget(self, environment: bytes, *, ended: bool = True) -> "asyncio.Future[Done]":
        """Have an environment's files put aside, or deleted if there is nothing in them; see ``messages.Forget``."""
        return self.request(lambda number: Forget(number, environment, ended), Done)

    def retain(self, environment: bytes, number: int, bytes_min: int = 0) -> "asyncio.Future[Retained]":
        """Let go of what is not needed from a block on; see ``messages.Retain``."""
        return self.request(lambda request: Retain(request, environment, number, bytes_min), Retained)

    def certify(self, node: bytes, signing_key: bytes, certificate: bytes) -> "asyncio.Future[Done]":
        """Say whose recorder it is; control only. See ``messages.Certify``."""
        return self.request(lambda number: Certify(number, node, signing_key, certificate), Done)

    def attach(self) -> socket.socket:
        """Give the recorder one more connection, and return our end of it; control only.

        Raises:
            LinkError: It does not take it now, because much is on its way or it is ending.
        """
        if self._end is None or self._rest or self._queue:
            raise LinkError("the recorder does not take a connection now")
        ours, theirs = socket.socketpair()
        number = self._last + 1
        message = encode_request(List(number))  # An open file travels with bytes only, and this asks for nothing.
        try:
            with theirs:
                sent = socket.send_fds(self._end, (message,), (theirs.fileno(),))
        except OSError as error:
            ours.close()
            raise LinkError(f"the recorder does not take a connection now: {error.strerror}") from error
        self._last = number
        self._told[number] = lambda _: None
        if sent < len(message):
            self._rest = memoryview(message)[sent:]
            self._queue_bytes = len(self._rest)
            self._send()
        return ours

    def close(self) -> None:
        """End the connection; whoever waits gets ``LinkError``. Twice is harmless."""
        self._lose("closed", is_told=False)

    def _send(self) -> None:
        """Send as much as the socket takes now; the rest when it is writable."""
        while self._end is not None and (self._rest or self._queue):
            if not self._rest:
                queue, self._queue = self._queue, []
                self._rest = memoryview(queue[0] if len(queue) == 1 else b"".join(queue))
            try:
                sent = self._end.send(self._rest)
            except (BlockingIOError, InterruptedError):
                if not self._writing:
                    self._writing = True
                    self._loop.add_writer(self._end, self._send)
                return
            except OSError as error:  # Told in a turn of its own: who asks is not told before it has its future.
                self._loop.call_soon(self._lose, error.strerror or str(error))
                return
            self._rest = self._rest[sent:]
            self._queue_bytes -= sent
        if self._writing and self._end is not None:
            self._writing = False
            self._loop.remove_writer(self._end)

    def _readable(self) -> None:
        if self._end is None:
            return
        try:
            count = self._end.recv_into(self._room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not count:
            self._lose("the recorder has ended")
            return
        self._inbox.add(self._room[:count])
        try:
            while (content := self._inbox.take()) is not None:
                self._take(decode_answer(content))
        except WireError as error:
            self._lose(error.reason)

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, Greeting):
            if not self.greeting.done():
                self.greeting.set_result(answer)
            return
        if isinstance(answer, Starting):
            self.checked = answer.checked
            return
        if not self.greeting.done():  # It did not start, and says why.
            reason = answer.words if isinstance(answer, Refused) else "it did not say who it is"
            self._lose(reason)
            return
        told = self._told.pop(answer.id, None)
        if told is None:
            raise WireError("recorder answer to no request")
        told(answer)

    def _lose(self, reason: str, *, is_told: bool = True) -> None:
        end, self._end = self._end, None
        if end is None:
            return
        self._loop.remove_reader(end)
        self._loop.remove_writer(end)
        end.close()
        self._queue, self._queue_bytes, self._rest = [], 0, memoryview(b"")
        self._inbox.clear()
        error = LinkError(f"the connection to the recorder is lost: {reason}")
        if not self.greeting.done():
            self.greeting.set_exception(error)
            self.greeting.exception()  # Nobody has to wait for it.
        told, waiting = self._told, tuple(self._told.values())
        told.clear()
        for one in waiting:
            one(error)
        if is_told and self._on_lost is not None:
            self._on_lost(reason)
