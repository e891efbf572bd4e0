# SPDX-License-Identifier: Apache-2.0
"""How quick the programs of this machine are that members reach: each connection is timed once, at its beginning.

The wait that is timed begins with the last bytes that the program was handed before its first byte back: a client that
takes its time with its request, or sends much over a bad path, makes no wait longer. What the kernel keeps for a
program that reads slowly still counts, because there is an end to that.

A wait is no proof against the program all the same. A client may send half a request, or one that takes long by its
nature, and then the program waits for it. So each is told with who called; what one caller's waits are worth is judged
elsewhere (``health/members/programs.py``), and so is what has not been answered yet: that is told while it lasts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from time import monotonic_ns
from typing import Final, final

from atoll.base.ids import NodeId
from atoll.base.units import SECOND_NS

__all__ = ["RETOLD_NS", "Served", "Timed", "Timing", "untold"]

RETOLD_NS: Final = SECOND_NS  # That more bytes were handed is told so often at most: a long request has many pieces.

_numbers: Final = count(1)  # Of this process, whatever carries the connections.


@dataclass(frozen=True, slots=True)
class Served:
    """What is known of one connection to a program of this machine.

    Attributes:
        caller: The member that connects.
        number: The connection's; no other one of this process has it.
        port: The program's, on the loopback.
        connect_ns: How long connecting took; None: it was refused, or came to nothing in time.
        first_byte_ns: From the last bytes that the program was handed, or their end, to its first byte back; from the
            connection if it spoke first. None: not known yet.
        is_asked: Whether the program has been handed bytes, the newest just now or, without ``first_byte_ns``, up to
            RETOLD_NS ago.
        is_over: Whether there will be no first byte: the program's half ended, or all of it, or it never came about.
    """

    caller: NodeId
    number: int
    port: int
    connect_ns: int | None
    first_byte_ns: int | None = None
    is_asked: bool = False
    is_over: bool = False


Timed = Callable[[Served], None]
"""Take what is known of a connection: when it stands or is refused, while the program is handed bytes, at the program's
first byte, and, if there was none, at the end."""


def untold(served: Served) -> None:
    """Take it and do nothing."""


@final
class Timing:
    """Times one connection, from just before it is made.

    Args:
        caller: Who makes it.
        port: The program's.
        timed: Is told; after the program's first byte, a refusal or the end nothing more.
    """

    __slots__ = (
        "_caller",
        "_connect_ns",
        "_is_asked",
        "_is_over",
        "_number",
        "_port",
        "_since_ns",
        "_timed",
        "_told_ns",
    )

    def __init__(self, caller: NodeId, port: int, timed: Timed) -> None:
        self._caller, self._port, self._timed = caller, port, timed
        self._number = next(_numbers)
        self._since_ns = monotonic_ns()
        self._connect_ns: int | None = None
        self._told_ns = 0  # When it was told last that bytes were handed.
        self._is_asked = self._is_over = False

    def connected(self) -> None:
        """Note that the connection stands."""
        now_ns = monotonic_ns()
        self._connect_ns, self._since_ns = now_ns - self._since_ns, now_ns
        self._tell()

    def refused(self) -> None:
        """Note that there will be none, because the program takes none."""
        self._is_over = True
        self._tell()

    def handed(self) -> bool:
        """Note that the program was handed bytes; return whether to say so again."""
        if not self._is_over:
            self._since_ns = monotonic_ns()
            if not self._is_asked or self._since_ns - self._told_ns >= RETOLD_NS:
                self._is_asked, self._told_ns = True, self._since_ns
                self._tell()
        return not self._is_over

    def handed_end(self) -> None:
        """Note that the program was handed the end of what is sent to it. By itself that asks for no answer."""
        if self._is_asked:
            self._told_ns = 0
            self.handed()
        elif not self._is_over:
            self._since_ns = monotonic_ns()

    def answered(self) -> bool:
        """Note the program's first byte; return that it need not be said again."""
        if not self._is_over:
            self._is_over = True
            self._tell(monotonic_ns() - self._since_ns)
        return False

    def ended(self) -> None:
        """Note that the program ended its half, so that no answer can come, or that the connection is no more."""
        if not self._is_over:
            self._is_over = True
            self._tell()

    def _tell(self, first_byte_ns: int | None = None) -> None:
        is_over = self._is_over and first_byte_ns is None
        self._timed(
            Served(self._caller, self._number, self._port, self._connect_ns, first_byte_ns, self._is_asked, is_over)
        )
