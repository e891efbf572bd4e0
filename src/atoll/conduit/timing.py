# SPDX-License-Identifier: Apache-2.0
"""How quick the programs of this machine are that members reach: each connection is timed once, at its beginning.

What is timed is the program and not the member that calls it: the wait begins with the last bytes that the program was
handed before its first byte back, so that a client that takes its time with its request, or sends much over a bad path,
accuses nobody. What the kernel keeps for a program that reads slowly still counts, because there is an end to that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import final

__all__ = ["Served", "Timed", "Timing", "untold"]


@dataclass(frozen=True, slots=True)
class Served:
    """What is known of one connection to a program of this machine.

    Attributes:
        port: The program's, on the loopback.
        connect_ns: How long connecting took; None: it was refused, or came to nothing in time.
        first_byte_ns: From the last bytes that the program was handed, or their end, to its first byte back; from the
            connection if it spoke first. None: not known yet.
    """

    port: int
    connect_ns: int | None
    first_byte_ns: int | None


Timed = Callable[[Served], None]
"""Take what is known of a connection: when it stands or is refused, and once more at the program's first byte."""


def untold(served: Served) -> None:
    """Take it and do nothing."""


@final
class Timing:
    """Times one connection, from just before it is made.

    Args:
        port: The program's.
        timed: Is told. A connection that ends before the program said anything is told of once only.
    """

    __slots__ = ("_connect_ns", "_is_over", "_port", "_since_ns", "_timed")

    def __init__(self, port: int, timed: Timed) -> None:
        self._port, self._timed = port, timed
        self._since_ns = monotonic_ns()
        self._connect_ns = 0
        self._is_over = False

    def connected(self) -> None:
        """Note that the connection stands."""
        now_ns = monotonic_ns()
        self._connect_ns, self._since_ns = now_ns - self._since_ns, now_ns
        self._timed(Served(self._port, self._connect_ns, None))

    def refused(self) -> None:
        """Note that there will be none."""
        self._timed(Served(self._port, None, None))

    def handed(self) -> bool:
        """Note that the program was handed bytes, or their end; return whether to say so again."""
        if not self._is_over:
            self._since_ns = monotonic_ns()
        return not self._is_over

    def answered(self) -> bool:
        """Note the program's first byte; return that it need not be said again."""
        if not self._is_over:
            self._is_over = True
            self._timed(Served(self._port, self._connect_ns, monotonic_ns() - self._since_ns))
        return False
