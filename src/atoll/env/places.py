# SPDX-License-Identifier: Apache-2.0
"""Where an environment runs: in the process that records it, or in one of its own. A ``Runner`` needs no more of it.

The machine is the same at each place, and so is its journal; what differs is what a handler can do beside it, and
what can be lost with it.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol, final

from atoll.env.app import Program
from atoll.env.channel import Parcel
from atoll.env.environment import Environment
from atoll.env.records import Effect, Record
from atoll.env.walls import Walls

__all__ = ["HandlerFailedError", "Inline", "Place", "Running", "UnansweredError"]


class UnansweredError(Exception):
    """A handler still runs, elsewhere. Ask ``answered`` later; nothing else may be asked until then."""


class HandlerFailedError(Exception):
    """A handler failed, elsewhere.

    Args:
        code: As of ``Failed``; or ``gone``: whoever ran it was gone before it began, so it is to be tried again.
        text: For people.
        is_known: Whether it is known which item failed, of several in one record.
    """

    def __init__(self, code: str, text: str, *, is_known: bool = True) -> None:
        super().__init__(code, text)
        self.code: Final = code
        self.text: Final = text
        self.is_known: Final = is_known


class Running(Protocol):
    """An environment that runs, as ``Environment`` describes it."""

    @property
    def now_ns(self) -> int:
        """Time of the last input."""
        ...

    @property
    def events(self) -> int:
        """Events so far."""
        ...

    @property
    def deadline_ns(self) -> int | None:
        """When a ``Fired`` is owed."""
        ...

    @property
    def first_timer(self) -> int:
        """Number of the timer that is due first."""
        ...

    @property
    def is_quiescent(self) -> bool:
        """Whether no coroutine waits."""
        ...

    def received(self, party: bytes) -> int:
        """Return the number of the last item that was taken of a party."""
        ...

    def confirmed(self, party: bytes) -> int:
        """Return the number of our last item that a party has confirmed."""
        ...

    def owes(self, party: bytes) -> int:
        """Return how many items a party has not confirmed."""
        ...

    def knows(self, party: bytes) -> bool:
        """Return whether a party is known."""
        ...

    @property
    def parties(self) -> int:
        """How many parties are known."""
        ...

    @property
    def room(self) -> int:
        """How many parties that are not known can be known now."""
        ...

    @property
    def lived_ns(self) -> int:
        """As of ``State``."""
        ...

    @property
    def forgot_ns(self) -> int:
        """As of ``State``."""
        ...

    def taken(self) -> dict[bytes, int]:
        """Return the number of the last item that was taken, of every party."""
        ...

    def owed(self) -> tuple[tuple[bytes, Parcel], ...]:
        """Return everything that parties have not confirmed."""
        ...

    def fields(self, path: str = "") -> dict[str, Any]:
        """Return the declared state of one environment of the tree, for people."""
        ...

    def handle(self, event: Record, now_ns: int) -> Sequence[Effect]:
        """Apply one record.

        Raises:
            UnansweredError: It takes long, and is not done here.
            HandlerFailedError: As any other exception, of a handler that is not run here.
        """
        ...

    def snapshot(self) -> bytes:
        """Return the whole state."""
        ...

    def checkpoint(self) -> bytes:
        """Return the whole state, and go on from what was written."""
        ...

    def discard(self) -> None:
        """Let go of coroutines: it is thrown away."""
        ...


class Place(Protocol):
    """What makes an environment, of one code: a new one, or one as it was. Only the last one that it made is used."""

    @property
    def name(self) -> str:
        """Name of the application's class."""
        ...

    @property
    def walls(self) -> Walls | None:
        """What stands around handlers there, as seen from here; None: they run here, in the walls of this process."""
        ...

    def blank(self) -> Running:
        """Return an environment before its first record."""
        ...

    def restore(self, snapshot: bytes) -> Running:
        """Return an environment as it was.

        Raises:
            CorruptError: The snapshot does not fit the code, or nothing can be made here.
        """
        ...

    def remake(self, snapshot: bytes | None) -> Running:
        """Return an environment as it was, in place of one that failed.

        Args:
            snapshot: Its state; None: before its first record.

        Raises:
            UnansweredError: It is not done, elsewhere. Ask again with the same; nothing else may be asked until then.
            CorruptError: As ``restore``.
        """
        ...

    def answered(self) -> Sequence[Effect]:
        """Return what came of the record for which ``handle`` raised ``UnansweredError``.

        Raises:
            UnansweredError: It is still not done.
            HandlerFailedError: As ``Running.handle``.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Twice is harmless."""
        ...


@final
class Inline:
    """In this process.

    Args:
        program: The code.
    """

    __slots__ = ("_program",)
    walls = None

    def __init__(self, program: Program) -> None:
        self._program: Final = program

    @property
    def name(self) -> str:
        """Name of the application's class."""
        return self._program.main.name

    def blank(self) -> Environment:
        """Return an environment before its first record."""
        return Environment.blank(self._program)

    def restore(self, snapshot: bytes) -> Environment:
        """Return an environment as it was.

        Raises:
            CorruptError: The snapshot does not fit the code.
        """
        return Environment.restore(self._program, snapshot)

    def remake(self, snapshot: bytes | None) -> Environment:
        """Return an environment as it was, at once.

        Raises:
            CorruptError: As ``restore``.
        """
        return self.blank() if snapshot is None else self.restore(snapshot)

    def answered(self) -> Sequence[Effect]:
        """Never asked: here a record is done when ``handle`` returns."""
        raise AssertionError("a record is done when handle returns")

    def close(self) -> None:
        """There is nothing to let go of."""
