# SPDX-License-Identifier: Apache-2.0
"""A hold on one process, which no other process can slip into: to end it, or to stop and continue it."""

import os
import select
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final, final

__all__ = ["END_TIMEOUT_S", "Process"]

END_TIMEOUT_S: Final = 5.0  # Limit. For a process that was killed to be gone.


@final
class Process:
    """One process, whoever has its number after it. Close it.

    A number alone would be wrong: the kernel gives it to another process as soon as this one was waited for, and a lab
    that ends a node late would then kill a stranger.

    Args:
        number: Of a process that runs now.

    Raises:
        ProcessLookupError: It does not.
    """

    def __init__(self, number: int) -> None:
        self._handle = os.pidfd_open(number)
        self.number: Final = number

    def has_ended(self) -> bool:
        """Return whether it has ended."""
        waiting = select.poll()
        waiting.register(self._handle, select.POLLIN)
        return bool(waiting.poll(0))

    def children(self) -> "list[Process]":
        """Return its children, each to be closed; none if it has ended."""
        held: list[Process] = []
        for listed in Path(f"/proc/{self.number}/task").glob("*/children"):
            with suppress(OSError):
                for number in map(int, listed.read_text(encoding="ascii").split()):
                    with suppress(ProcessLookupError):
                        held.append(Process(number))
        # The number was ours all the while if we live still, and who names us as its parent now that it is held is a
        # child of ours, even if it got the number of one that has just ended.
        strangers = [one for one in held if self.has_ended() or one._parent() != self.number]  # noqa: SLF001 - the same class.
        for one in strangers:
            one.close()
        return [one for one in held if one not in strangers]

    def family(self) -> "list[Process]":
        """Return this process and all that descend from it, itself first; the others are to be closed."""
        family: list[Process] = [self]
        for one in family:  # It grows meanwhile: by children first, then by theirs.
            family += one.children()
        return family

    def suspend(self) -> None:
        """Let it run no further until ``resume``; nothing happens if it has ended."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on; nothing happens if it does, or has ended."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, and wait for that; nothing happens if it has ended."""
        self._signal(signal.SIGKILL)
        select.select([self._handle], [], [], END_TIMEOUT_S)

    def close(self) -> None:
        """Give the handle back."""
        os.close(self._handle)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def _parent(self) -> int:
        try:
            stat = Path(f"/proc/{self.number}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return int(stat.rpartition(")")[2].split()[1])
