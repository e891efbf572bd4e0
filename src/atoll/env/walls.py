# SPDX-License-Identifier: Apache-2.0
"""What a runner wants to stand around the handlers of a program, and what it raises; ``domain`` has those that do."""

from typing import Final, Protocol, final

__all__ = ["OPEN", "HandlerKilled", "Walls"]


class HandlerKilled(BaseException):
    """Thrown into a handler that ran too long. No ``except Exception`` of the handler's catches it.

    Args:
        text: For people.
    """


class Walls(Protocol):
    """What stands around handlers while they run: keeps them from looking at the world, and from running for ever."""

    def enter(self, *, is_again: bool = False) -> None:
        """Code of a program runs from here on.

        Args:
            is_again: It came to its end before, or must: it gets more time, since this computer may be slower.
        """
        ...

    def leave(self) -> None:
        """No handler runs any more; also called when one raised, and twice when what ends handlers came just before."""
        ...

    def about(self, environment: bytes, party: bytes, first: int, count: int) -> None:
        """Note what is handled next, where it outlives this process, which may not survive it.

        Args:
            environment: Its id.
            party: Who sent the items; empty: a timer.
            first: Number of the first item, or of the timer.
            count: How many items.
        """
        ...

    def is_late(self, since_ns: int) -> bool:
        """Return whether others have waited so long that they have their turn before more is done.

        Args:
            since_ns: When this turn began, monotonic.
        """
        ...


@final
class _Open:
    """No walls, for trials and tests."""

    def enter(self, *, is_again: bool = False) -> None:
        pass

    def leave(self) -> None:
        pass

    def about(self, environment: bytes, party: bytes, first: int, count: int) -> None:
        pass

    def is_late(self, since_ns: int) -> bool:
        del since_ns
        return False


OPEN: Final[Walls] = _Open()
