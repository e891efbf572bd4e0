# SPDX-License-Identifier: Apache-2.0
"""How long one small durable write takes on a disk, found out by trying, while the disk may hang.

The thread is a daemon of its own, and not one of the event loop's: a disk that hangs would keep one of those for as
long, trial after trial until the roster found none to be written by, and the process could not end before the disk.
The thread stays between trials, because to start one makes the loop wait until it runs.

What is measured is the two system calls, and the thread's way back into the interpreter after each. While another
thread is busy in Python, one way takes ``sys.getswitchinterval`` (5 ms) or a turn of the loop: 8 ms each were measured
with turns of 8 ms. A loop that is so busy is late, so whoever judges disks by this asks for its lateness as well
(``health/doubt.py``).
"""

import asyncio
import os
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from time import monotonic_ns
from typing import Final, final

from atoll.base.errors import StorageError
from atoll.base.units import KIB
from atoll.host.clock import SystemClock
from atoll.host.files import storage_error

__all__ = ["TRIAL_BYTES", "TRIAL_NAME", "DiskTrial"]

TRIAL_BYTES: Final = 4 * KIB  # A page, the least that a disk writes.
TRIAL_NAME: Final = "trial"
CLOSE_S_MAX: Final = 0.1  # For the file to go. A disk that hangs keeps it; the next trial there overwrites it.


@final
class DiskTrial:
    """Writes to one file of a disk, one write at a time. Of the event loop's thread alone.

    Args:
        directory: Exists, and only this process changes it. The file ``trial`` in it is there until ``close``.
    """

    def __init__(self, directory: Path) -> None:
        self._path: Final = directory / TRIAL_NAME
        self._clock: Final = SystemClock()
        # At most one trial and the end: whose loop to tell, and None.
        self._asked: Final[SimpleQueue[asyncio.AbstractEventLoop | None]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._under_way: tuple[int, asyncio.Future[int | None]] | None = None  # Since when; for whoever asked.
        self._is_closed = False

    async def measure(self) -> int | None:
        """Write TRIAL_BYTES over the same place of the file, durably.

        The first one makes the file, which is not measured. If the caller is cancelled, the trial goes on.

        Returns:
            How long it took, ns; None: another one is under way (see ``under_way_ns``), or this was closed.

        Raises:
            StorageError: The disk refused. The next trial opens the file anew.
        """
        if self._under_way is not None or self._is_closed:
            return None
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="atoll-disk-trial", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int | None] = loop.create_future()
        self._under_way = self._clock.monotonic_ns(), answer
        self._asked.put(loop)
        return await answer

    def under_way_ns(self, now_ns: int) -> int:
        """Return for how long the present trial has lasted, by which a disk that hangs shows before it answers.

        Args:
            now_ns: Of ``SystemClock``, so a time in which the machine slept counts.

        Returns:
            ns; 0: none is under way.
        """
        return 0 if self._under_way is None else max(0, now_ns - self._under_way[0])

    def close(self) -> None:
        """End, without waiting for a disk that hangs, and remove the file if the disk does it at once.

        Whoever waits for a trial is told None. Twice is harmless.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._ended(None)
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join(CLOSE_S_MAX)

    def _ended(self, outcome: int | StorageError | None) -> None:
        if self._under_way is None:
            return  # Closed meanwhile.
        (_, answer), self._under_way = self._under_way, None
        if answer.done():
            return  # Cancelled: nobody wants it any more.
        if isinstance(outcome, StorageError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _serve(self) -> None:
        """Be the thread: write whenever asked, and remove the file at the end. Shares nothing but the queue."""
        file = -1
        while (loop := self._asked.get()) is not None:
            outcome: int | StorageError
            try:
                if file < 0:
                    file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                    _written_ns(file)  # The file's first write finds a place on the disk, which later ones need not.
                outcome = _written_ns(file)
            except OSError as error:
                outcome = storage_error(error, self._path)
                outcome.__cause__ = error
                file = _closed(file)
            with suppress(RuntimeError):  # The loop has ended.
                loop.call_soon_threadsafe(self._ended, outcome)
        _closed(file)
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _written_ns(file: int) -> int:
    # Never the same twice, so that nothing on the way may find that there is nothing to do.
    content = memoryview(os.urandom(TRIAL_BYTES))
    at_byte = 0
    began_ns = monotonic_ns()
    while at_byte < TRIAL_BYTES:
        at_byte += os.pwrite(file, content[at_byte:], at_byte)
    os.fdatasync(file)
    return monotonic_ns() - began_ns


def _closed(file: int) -> int:
    if file >= 0:
        with suppress(OSError):  # Some file systems tell only here what they could not write.
            os.close(file)
    return -1
