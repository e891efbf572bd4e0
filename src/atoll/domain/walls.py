# SPDX-License-Identifier: Apache-2.0
"""What stands around the handlers of the inline level: no look at the world (``guard``), and no running for ever.

The clock that ends a handler costs an event nothing: an alarm comes every now and then, and a handler that was running
at the alarm before, and still is, is ended by an exception in its own frame. So it may run for one to two periods. Code
that never comes back from C is not reached by an exception; control notices that the server does not answer.
"""

import logging
import mmap
import signal
from contextlib import suppress
from pathlib import Path
from struct import Struct
from time import monotonic_ns
from types import FrameType
from typing import Final, final

from atoll.base.units import SECOND_NS
from atoll.domain import guard
from atoll.domain.limits import HANDLER_S_MAX, TURN_S_MAX
from atoll.env.walls import HandlerKilled, Walls

__all__ = ["OUTSIDE", "InlineWalls", "deadly"]

log: Final = logging.getLogger("atoll.envs")

AGAIN_PERIODS: Final = 3  # Limit. Twice as long as a handler, for what came to its end before; below SILENT_S_MAX.

_TURN_NS: Final = round(TURN_S_MAX * SECOND_NS)

_ABOUT: Final = Struct("<16s?16sQQ")


def deadly(note: Path) -> tuple[bytes, bytes, int, int] | None:
    """Return what the process before this one did not survive: environment, party, first, count; None: nothing."""
    try:
        content = note.read_bytes()
    except OSError:
        return None
    if len(content) < 1 + _ABOUT.size or not content[0]:
        return None
    environment, is_item, party, first, count = _ABOUT.unpack_from(content, 1)
    return environment, party if is_item else b"", first, count


def _mapped(note: Path) -> mmap.mmap:
    """Return the file in memory: what is written there is in the file even when the process is killed.

    Where the disk refuses, it is memory without a file. Environments go on then: the note only helps one of them whose
    handler ends the process, and to refuse all of them for that would end at once what might never end.
    """
    try:
        note.touch()
        with note.open("r+b") as file:  # Written over where it is: that needs no room if it was there before.
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            return mmap.mmap(file.fileno(), mmap.PAGESIZE)
    except OSError as error:
        log.warning("what is handled cannot be noted, so a handler that ends this process is run again: %s", error)
    with suppress(OSError):
        note.unlink()  # What the process before was at is not what this one will be at.
    return mmap.mmap(-1, mmap.PAGESIZE)


@final
class InlineWalls:
    """The walls of one process, whose main thread runs all handlers. ``raise_up`` once, after everything is imported.

    Args:
        note: File that says what is handled, for the next process. Where it cannot be written, the log says so.
        handler_s_max: A handler is ended after this long, or a little sooner; at least after half of it.
    """

    __slots__ = ("_entered", "_inside", "_note", "_passed", "_period_s", "_periods", "_seen")

    def __init__(self, note: Path, handler_s_max: float = HANDLER_S_MAX) -> None:
        self._note: Final = _mapped(note)
        self._period_s: Final = handler_s_max / 2
        self._entered = self._seen = 0
        self._inside = False
        self._periods, self._passed = 1, 0  # How many whole ones it may take; how many it has taken.

    def raise_up(self) -> None:
        """Put them up."""
        guard.install()
        signal.signal(signal.SIGALRM, self._alarm)
        signal.setitimer(signal.ITIMER_REAL, self._period_s, self._period_s)

    def take_down(self) -> None:
        """Take them away again, but for the audit hook, which sees nothing any more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        guard.remove()

    def enter(self, *, is_again: bool = False) -> None:
        """Code of a program runs from here on."""
        self._entered += 1
        self._periods = AGAIN_PERIODS if is_again else 1
        self._inside = True
        self._note[0] = not is_again  # What came to its end before is not to blame.
        guard.begin()

    def leave(self) -> None:
        """No handler runs any more. Twice is harmless."""
        self._inside = False
        self._note[0] = 0
        guard.end(0)

    def about(self, environment: bytes, party: bytes, first: int, count: int) -> None:
        """Note what is handled next."""
        _ABOUT.pack_into(self._note, 1, environment, bool(party), party, first, count)

    def is_late(self, since_ns: int) -> bool:
        """Return whether a turn that began then has taken so long that others have theirs."""
        return monotonic_ns() - since_ns >= _TURN_NS

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self._inside or self._seen != self._entered:
            self._seen, self._passed = self._entered, 0
            return
        self._passed += 1
        if self._passed >= self._periods:
            passed_s, self._passed = self._passed * self._period_s, 0
            self._inside = self._periods > 1  # What clears up after a handler is not ended as well; clean-up itself is.
            raise HandlerKilled(f"it ran for more than {passed_s:g} s")


@final
class _Outside:
    """The server's side of a process that has walls of its own: only how long others wait is looked at."""

    __slots__ = ()

    def enter(self, *, is_again: bool = False) -> None:
        """No code of a program runs here."""

    def leave(self) -> None:
        """Nothing has to be undone."""

    def about(self, environment: bytes, party: bytes, first: int, count: int) -> None:
        """Note nothing: this process survives whatever a handler does there."""

    def is_late(self, since_ns: int) -> bool:
        """Return the same as ``InlineWalls``."""
        return monotonic_ns() - since_ns >= _TURN_NS


OUTSIDE: Final[Walls] = _Outside()
