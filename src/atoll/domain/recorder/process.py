# SPDX-License-Identifier: Apache-2.0
"""The recorder as a live process: one loop between its connections and the ``Store``.

Each turn takes all requests that are there, of all connections, and has them served together: so the blocks that came
while the disk was busy share the next write and sync. A connection that does not take its answers is not read
meanwhile; one that says what is no request ends, and the others go on.

The first connection is control's. It alone may certify the recorder and bring further connections: an open socket that
comes with any of its bytes is one. Of those the oldest is served, and the next one when it is gone with all that it had
asked: a server that is started again must not see its journals as they were before. When control is gone, what had come
by then is done, and the process ends; what control started ends with it. It is started by ``launch``, and like the
packet device it leaves the signals that end a node to control.
"""

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from struct import Struct
from typing import IO, Final, final

import msgspec

from atoll.base.errors import StorageError, UserError, WireError
from atoll.base.units import HOUR_NS
from atoll.base.version import __version__
from atoll.device.nic.confine import confine
from atoll.domain.limits import (
    ANSWERS_BYTES_MAX,
    CONNECTION_BYTES,
    CONNECTIONS_MAX,
    RECEIVE_BYTES,
    RECORDER_LOCK_S_MAX,
    TURN_BYTES_MAX,
)
from atoll.domain.recorder.key import RecorderKey
from atoll.domain.recorder.messages import (
    Certify,
    Code,
    Greeting,
    Inbox,
    List,
    Read,
    ReadCode,
    ReadSnapshot,
    Refused,
    RefusedError,
    Request,
    Starting,
    decode_request,
    encode_answer,
)
from atoll.domain.recorder.store import Store
from atoll.host.cpu import ask_for_short_slices
from atoll.host.files import StateLock, make_private_directory
from atoll.host.heap import freeze_heap
from atoll.host.poller import READ, WRITE, Poller

__all__ = ["EXIT_NOT_READY", "EXIT_OK", "LOCK_NAME", "Options", "RecorderProcess", "main"]

EXIT_OK: Final = 0
EXIT_NOT_READY: Final = 3

LOCK_NAME: Final = "recorder.lock"  # In the state directory.
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)  # What terminals and service managers send.
OPTIONS_BYTES_MAX: Final = 64 * 1024  # Limit. One line of JSON, below 1 KiB.
SERVED_MAX: Final = 2  # Control, and one server.
SOCKETS_AT_ONCE: Final = 4  # Limit. Sockets that come with one read; the kernel closes more.
LOCK_RETRY_S: Final = 0.02
WAIT_NS: Final = HOUR_NS  # The recorder has no time of its own; it waits for requests.
_FILE: Final = Struct("i")  # How open files travel beside bytes.
_LONG: Final = (Read, ReadSnapshot, ReadCode, List)  # Their answers are large, so one is made at a time.


class Options(msgspec.Struct, frozen=True):
    """What the process is told on its standard input.

    Attributes:
        state: The node's state directory, absolute.
    """

    state: str


@final
class _Connection:
    """One end of a socket: what came in and is not served, what goes out and is not taken."""

    __slots__ = ("answers", "end", "events", "inbox", "is_ended", "is_keeper", "room")

    def __init__(self, end: socket.socket, *, is_keeper: bool) -> None:
        end.setblocking(False)  # noqa: FBT003 - the socket module's own form.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CONNECTION_BYTES)
        self.end: Final = end
        self.is_keeper: Final = is_keeper
        self.room: Final = memoryview(bytearray(RECEIVE_BYTES))
        self.inbox: Final = Inbox()
        self.answers = bytearray()
        self.events = READ
        self.is_ended = False

    def receive(self) -> tuple[memoryview, list[int]]:
        """Read what is there, once, and only until the next time; with open files that came along.

        Empty: the other end is gone.
        """
        if not self.is_keeper:
            return self.room[: self.end.recv_into(self.room)], []
        size, came, _, _ = self.end.recvmsg_into((self.room,), socket.CMSG_LEN(SOCKETS_AT_ONCE * _FILE.size))
        return self.room[:size], [file for _, _, content in came for file in _files(content)]

    def send(self) -> None:
        """Send what the socket takes now. What was asked by who takes no answer any more is done all the same."""
        try:
            while self.answers:
                del self.answers[: self.end.send(self.answers)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.answers.clear()  # Its end is seen when all is read.


@final
class RecorderProcess:
    """The loop.

    Args:
        keeper: Socket to control, SOCK_STREAM; closed with the process.
        store: What is kept.
        key: Of the recorder; each connection is greeted with it.
    """

    def __init__(self, keeper: socket.socket, store: Store[int], key: RecorderKey) -> None:
        self._store: Final = store
        self._key: Final = key
        self._poller: Final = Poller()
        self._connections: Final[dict[int, _Connection]] = {}
        self._keeper: Final = self._connect(keeper, is_keeper=True)

    def run(self) -> None:
        """Work until control is gone."""
        while self.turn(WAIT_NS):
            pass
        for fd in tuple(self._connections):
            self._disconnect(fd)
        self._poller.close()
        self._store.close()

    def turn(self, wait_ns: int) -> bool:
        """Wait for requests, at most so long, and serve all that are there; return whether control is still there."""
        connections, poller = self._connections, self._poller
        for fd, found in poller.wait(wait_ns):
            poller.serve(fd, found)
        count = 0
        while len(connections) != count:  # When one is gone, what the next one has asked meanwhile is served.
            while requests := self._requests():
                for fd, answer in self._store.serve(requests):
                    connections[fd].answers += encode_answer(answer)
                for connection in connections.values():
                    if connection.answers:
                        connection.send()
            count = len(connections)
            for fd, connection in tuple(connections.items()):
                self._settle(fd, connection)
        return self._keeper in connections

    def _connect(self, end: socket.socket, *, is_keeper: bool = False) -> int:
        connection = _Connection(end, is_keeper=is_keeper)
        fd = end.fileno()
        self._connections[fd] = connection
        self._poller.register(fd, lambda found: self._ready(connection, found))
        connection.answers += encode_answer(Greeting(self._key.public, __version__, self._key.certified))
        connection.send()
        return fd

    def _disconnect(self, fd: int) -> None:
        connection = self._connections.pop(fd)
        self._poller.unregister(fd)
        connection.end.close()

    def _settle(self, fd: int, connection: _Connection) -> None:
        """Drop a connection that has ended; else wait for what it can do next."""
        if connection.is_ended:
            self._disconnect(fd)
            return
        events = READ | WRITE if connection.answers else READ
        if len(connection.answers) >= ANSWERS_BYTES_MAX:
            events = WRITE
        if events != connection.events:
            connection.events = events
            self._poller.modify(fd, events)

    def _ready(self, connection: _Connection, found: int) -> None:
        if found & WRITE and connection.answers:
            connection.send()
        room = TURN_BYTES_MAX if found & READ and connection.events & READ else 0
        while room > 0 and not connection.is_ended:
            try:
                data, files = connection.receive()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data, files = connection.room[:0], []
            for file in files:
                self._attach(file)
            connection.is_ended = not data
            connection.inbox.add(data)
            if len(data) < RECEIVE_BYTES:
                return
            room -= len(data)

    def _attach(self, file: int) -> None:
        """Take one more connection, from control; something else than a socket is closed."""
        try:
            end = socket.socket(fileno=file)
        except OSError:
            os.close(file)
            return
        if len(self._connections) >= CONNECTIONS_MAX or end.type != socket.SOCK_STREAM:
            end.close()
        else:
            self._connect(end)

    def _requests(self) -> list[tuple[int, Request]]:
        """Take the requests that are there; of a connection that leaves its answers or is not its turn, none."""
        requests: list[tuple[int, Request]] = []
        for fd, connection in tuple(self._connections.items())[:SERVED_MAX]:
            if len(connection.answers) >= ANSWERS_BYTES_MAX or not connection.inbox:
                continue
            try:
                while (content := connection.inbox.take()) is not None:
                    request = decode_request(content)
                    if isinstance(request, Certify) and not connection.is_keeper:
                        raise WireError("a certificate that is not from control")
                    requests.append((fd, request))
                    if isinstance(request, _LONG):
                        break
            except WireError:
                connection.is_ended = True
                connection.inbox.clear()
        return requests


def _files(content: bytes) -> list[int]:
    """Return the open files that came beside bytes: numbers, as many as are whole."""
    return [file for (file,) in _FILE.iter_unpack(content[: len(content) // _FILE.size * _FILE.size])]


def main(arguments: Sequence[str], options_from: IO[bytes]) -> int:
    """Run the process; return its exit status.

    Args:
        arguments: As in ``sys.argv``; the second is the number of the file descriptor of control's socket.
        options_from: Gives one line of JSON, ``Options``.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    with socket.socket(fileno=int(arguments[1])) as keeper:
        try:
            options = msgspec.json.decode(options_from.readline(OPTIONS_BYTES_MAX), type=Options)
            confine(0)
            state = Path(options.state)
            make_private_directory(state)
            lock = _locked(state / LOCK_NAME)
            key = RecorderKey(state)
            store: Store[int] = Store(state, key, on_checked=partial(_say_checked, keeper))
        except (StorageError, UserError, OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            with suppress(OSError):  # Nobody hears it then.
                keeper.sendall(encode_answer(Refused.of(0, RefusedError(Code.IO, str(error)))))
            return EXIT_NOT_READY
        with lock:
            freeze_heap()
            ask_for_short_slices()
            RecorderProcess(keeper, store, key).run()
    return EXIT_OK


def _say_checked(keeper: socket.socket, checked: int) -> None:
    """Say that a start goes on. Raises ``OSError`` when control is gone: then there is nobody to start for."""
    keeper.sendall(encode_answer(Starting(checked)))


def _locked(path: Path) -> StateLock:
    """Become the only recorder of a state directory; one whose control has just died ends in a moment.

    Raises:
        UserError: A103, there is another.
        StorageError: The file cannot be made.
    """
    until = time.monotonic() + RECORDER_LOCK_S_MAX
    while True:
        try:
            return StateLock(path)
        except UserError:
            if time.monotonic() >= until:
                raise
        time.sleep(LOCK_RETRY_S)
