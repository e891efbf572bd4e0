# SPDX-License-Identifier: Apache-2.0
"""The server's end of the zygote and of each guest: processes, descriptors and memory, made and given back.

What a guest has on this side is one object; ``close`` kills it and lets go of all of it, whatever state it is in.
"""

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, final

from atoll.base.errors import LinkError
from atoll.base.units import SECOND_NS
from atoll.domain.guard import INTERPRETER_VARIABLES
from atoll.domain.guest.confine import is_possible
from atoll.domain.guest.nearness import Here, Nearness
from atoll.domain.guest.process import EXIT_UNCONFINED
from atoll.domain.guest.ring import MEMORY_BYTES, SERVER_END, Exchange, Memory, RingError
from atoll.domain.guest.zygote import MESSAGE_BYTES_MAX, Bury, Done, Fork, Order, decode_done, encode_order
from atoll.domain.limits import GUEST_LOOK_S, GUEST_START_S_MAX

__all__ = ["GuestGoneError", "GuestProcess", "UnconfinedError", "Zygote"]

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_LOOK_NS: Final = round(GUEST_LOOK_S * SECOND_NS)


class GuestGoneError(LinkError):
    """A guest has ended, or was ended because it broke a rule."""


class UnconfinedError(GuestGoneError):
    """A guest has ended before any code came near it: the kernel refuses what no guest may run without."""


class _ZygoteGoneError(LinkError):
    """The zygote has ended, and was let go of: the next order starts another one."""

    def __init__(self) -> None:
        super().__init__("the zygote is gone")


@final
class GuestProcess:
    """One guest, as the server sees it. Made by ``Zygote.fork``.

    Args:
        pid: Of the process.
        files: Its pidfd, and the descriptor that becomes readable when it answers while nobody waits.
        memory: What both see.
        bury: Takes it from the process table once it is dead; returns its status.
        here: Where the server runs.

    Attributes:
        pid: As above.
        pidfd: Readable when it is dead.
        bell: Readable when it has answered after ``answer`` had returned nothing.
        is_closed: Whether it was let go of.
        is_untouched: Whether it had not begun to read what it was asked last, when it was let go of.
    """

    def __init__(
        self, pid: int, files: tuple[int, int], memory: Memory, bury: Callable[[int], int], here: Here
    ) -> None:
        self.pid: Final = pid
        self.pidfd, self.bell = files
        self._memory, self._bury = memory, bury
        self._exchange: Final = Exchange(memory, SERVER_END)
        self._sender, self._receiver = self._exchange.sender, self._exchange.receiver
        self._poll: Final = select.poll()
        self._poll.register(self.pidfd, select.POLLIN)
        self._nearness: Final = Nearness(pid, here)
        self._bytes_max = 0
        self._is_awaited = False
        self.is_closed = self.is_untouched = False

    def begin(self, request: bytes, bytes_max: int) -> None:
        """Ask. The answer may have this many bytes.

        Raises:
            GuestGoneError: It broke a rule.
        """
        self._bytes_max = bytes_max
        try:
            self._sender.begin(request)
        except RingError as error:
            raise GuestGoneError(str(error)) from error

    def ask(self, request: bytes, bytes_max: int, patience_s: float) -> bytes | None:
        """Ask, and return the answer as ``answer`` does: the path of each event.

        Raises:
            GuestGoneError: As ``begin`` and ``answer``.
        """
        self._bytes_max = bytes_max
        self._nearness.stay()
        try:
            if (answer := self._exchange.turn(request, bytes_max, _LOOK_NS)) is not None:
                return answer
        except RingError as error:
            raise GuestGoneError(str(error)) from error
        return self.answer(patience_s)

    def answer(self, patience_s: float) -> bytes | None:
        """Return the answer; None: it did not come in this time.

        Raises:
            GuestGoneError: It is dead, or broke a rule.
        """
        try:
            if self._is_awaited:
                self._is_awaited = False
                self._memory.await_bell(awaited=False)
                with suppress(BlockingIOError):
                    os.eventfd_read(self.bell)
            if patience_s:
                (self._receiver if self._sender.is_sent else self._sender).wait(_LOOK_NS)
            answer = self._step()  # It is there, but for guests that take long, and all that is below is for those.
            if answer is None:
                answer = self._patient(patience_s)
            if answer is None:
                self._is_awaited = True
                self._nearness.let_run()
                self._memory.await_bell(awaited=True)
                answer = self._step()
        except RingError as error:
            raise GuestGoneError(str(error)) from error
        return answer

    def _patient(self, patience_s: float) -> bytes | None:
        until = time.monotonic() + patience_s
        while True:
            if self._poll.poll(0):
                return self._last_words()
            if time.monotonic() >= until:
                return None
            (self._receiver if self._sender.is_sent else self._sender).wait(_LOOK_NS)
            if (answer := self._step()) is not None:
                return answer

    def _step(self) -> bytes | None:
        if not self._sender.is_sent:
            self._sender.go_on()
            return None
        return self._receiver.pull(self._bytes_max)

    def _last_words(self) -> bytes:
        """Return the answer of a guest that has ended, if it gave one before."""
        if self._sender.is_sent and (answer := self._receiver.pull(self._bytes_max)) is not None:
            return answer
        status = self.close()
        # Code could end with that status as well, but has been read by then.
        if self.is_untouched and os.WIFEXITED(status) and os.WEXITSTATUS(status) == EXIT_UNCONFINED:
            raise UnconfinedError("the kernel refuses what no guest may run without")
        raise GuestGoneError(_fate(status))

    def close(self) -> int:
        """Kill it and let go of everything; return how it ended, as of ``os.waitpid``. Twice is harmless."""
        if self.is_closed:
            return 0
        self.is_closed = True
        self._poll.unregister(self.pidfd)
        _end(self.pidfd)
        self.is_untouched = self._sender.is_untouched
        os.close(self.bell)
        self._memory.close()
        return self._bury(self.pid)


def _end(pidfd: int) -> None:
    """Kill a process, and let go of it."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def _fate(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"its process was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"its process ended with status {os.WEXITSTATUS(status)}"


@final
class Zygote:
    """The process that guests are forked from, started when the first one is wanted, and again when it died.

    Attributes:
        here: Where the server runs, which is kept there while it waits for guests.
    """

    def __init__(self) -> None:
        self.here: Final = Here()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._is_ready = False
        self._number = 0  # Of the last order.
        self._strays: list[int] = []  # Guests to be buried that were made when nobody waited for them any more.

    def fork(self) -> GuestProcess:
        """Make a guest.

        Raises:
            LinkError: It cannot be made: this system has no walls, or no more processes or memory.
        """
        try:
            return self._fork()
        except _ZygoteGoneError:
            return self._fork()

    def _fork(self) -> GuestProcess:
        connection = self._start()
        files: list[int] = []
        try:
            files.append(os.memfd_create("atoll-guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            os.ftruncate(files[0], MEMORY_BYTES)
            fcntl.fcntl(files[0], fcntl.F_ADD_SEALS, _SEALS)  # So that nobody can take it away under the server.
            files.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            memory = Memory(files[0])
            try:
                pid, pidfd = self._guest(connection, files)
            except LinkError:
                memory.close()
                raise
        except (OSError, LinkError) as error:
            for file in files:
                os.close(file)
            raise error if isinstance(error, LinkError) else LinkError(f"no guest: {error.strerror}") from error
        os.close(files[0])
        return GuestProcess(pid, (pidfd, files[1]), memory, partial(self._bury, connection), self.here)

    def _guest(self, connection: socket.socket, files: Sequence[int]) -> tuple[int, int]:
        """Return the pid and the pidfd of a guest that was just made."""
        pid, pidfd = self._ask(connection, Fork(self._next()), files)
        if pidfd < 0:
            os.kill(pid, signal.SIGKILL)  # Nobody else can have this number before it is buried.
            self._bury(connection, pid)
            raise LinkError("no guest: there is no descriptor for it")
        return pid, pidfd

    def is_ready(self) -> bool:
        """Start it if it was not, and return whether it is ready: ``fork`` does not have to wait for that then.

        Raises:
            LinkError: It cannot be started, or has died while it started; to be asked again starts another one.
        """
        connection = self._spawn() if self._connection is None else self._connection
        if not self._is_ready:
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            if not poll.poll(0):
                return False
            self._start()
        return True

    def _start(self) -> socket.socket:
        """Return the way to it, when it is ready."""
        connection = self._spawn() if self._connection is None else self._connection
        if not self._is_ready:
            self._receive(connection)
            self._is_ready = True
        return connection

    def _spawn(self) -> socket.socket:
        if not is_possible():
            raise LinkError("the process level needs Linux on x86_64 or aarch64")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.here.rest()  # Whoever is started inherits where it may run.
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "atoll.domain.guest"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, **INTERPRETER_VARIABLES, **_ONE_THREAD},
                )
        except OSError as error:
            ours.close()
            raise LinkError(f"no zygote: {error.strerror}") from error
        ours.settimeout(GUEST_START_S_MAX)
        self._connection = ours
        return ours

    def _ask(self, connection: socket.socket, order: Order, files: Sequence[int] = ()) -> tuple[int, int]:
        """Return what the answer says, and the descriptor that came with it; -1: none did."""
        try:
            socket.send_fds(connection, [encode_order(order)], files)
        except ConnectionError as error:
            self.close()
            raise _ZygoteGoneError from error
        except OSError as error:
            raise LinkError(f"the zygote takes no order: {error.strerror or error}") from error
        while (answer := self._receive(connection))[0].number != order.number:
            if answer[1]:  # A guest that nobody waits for any more.
                self._strays.append(answer[0].value)
                _end(answer[1][0])
        done, found = answer
        while self._strays:
            self._bury(connection, self._strays.pop())
        return done.value, found[0] if found else -1

    def _receive(self, connection: socket.socket) -> tuple[Done, list[int]]:
        try:
            data, files, _, _ = socket.recv_fds(connection, MESSAGE_BYTES_MAX, 1)
        except ConnectionError as error:
            self.close()
            raise _ZygoteGoneError from error
        except OSError as error:
            raise LinkError("the zygote does not answer") from error
        if not data:
            self.close()  # Whatever guests it had have ended with it.
            raise _ZygoteGoneError
        return decode_done(data), files

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _bury(self, connection: socket.socket, pid: int) -> int:
        if connection is not self._connection:
            return signal.SIGKILL  # Another zygote's, which is gone, and the kernel has ended its guests.
        try:
            return self._ask(connection, Bury(self._next(), pid))[0]
        except LinkError:
            return signal.SIGKILL

    @property
    def pid(self) -> int:
        """Of the process; 0: it was not started."""
        return 0 if self._process is None else self._process.pid

    def close(self) -> None:
        """End it, and its guests with it; the server may run anywhere again. Twice is harmless."""
        self.here.rest()
        if self._connection is not None:
            self._connection.close()
            self._connection, self._is_ready = None, False
            self._strays.clear()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Libraries that start threads when they are loaded: a guest can have only one."""
