# SPDX-License-Identifier: Apache-2.0
"""Which of some open files are ready, and who serves them.

The standard library's ``selectors`` do the same in interpreted Python, through some hundred cache lines more, and even
its ``epoll`` through some dozens: most of what a packet costs that comes alone is such memory, cold. Where there is no
epoll, they are what is used.
"""

import select
import selectors
from collections.abc import Callable
from typing import Final, final

from atoll.base.compiled import COMPILED
from atoll.base.units import SECOND_NS

__all__ = ["READ", "WRITE", "Poller"]

READ: Final = 1  # These two are epoll's own numbers.
WRITE: Final = 4

Handler = Callable[[int], None]
Wait = Callable[[int, int], list[tuple[int, int]]]


@final
class Poller:
    """A set of open files, each with the function that serves it, which is told READ, WRITE or both.

    A file in trouble is ready for both: its next read or write says what the trouble is.

    Args:
        compiled: Whether to wait in the compiled way, if there is one (``native/src/turn.c``).
    """

    __slots__ = ("_compiled", "_epoll", "_handlers", "_waiter")

    def __init__(self, *, compiled: bool = False) -> None:
        self._handlers: Final[dict[int, Handler]] = {}
        self._waiter: Final = select.epoll() if hasattr(select, "epoll") else _Selector()
        self._compiled: Final[Wait | None] = getattr(COMPILED, "wait", None) if compiled else None
        self._epoll: Final = self._waiter.fileno()

    def register(self, fd: int, handler: Handler, events: int = READ) -> None:
        """Watch another file."""
        self._waiter.register(fd, events)
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        """Watch a file for something else."""
        self._waiter.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Watch a file no longer; it is still open."""
        del self._handlers[fd]
        self._waiter.unregister(fd)

    def wait(self, timeout_ns: int) -> list[tuple[int, int]]:
        """Wait until a file is ready, or for so long; return those that are, for ``serve``. 0 or less: do not wait."""
        if self._compiled is not None:
            return self._compiled(self._epoll, timeout_ns)
        ready = self._waiter.poll(max(timeout_ns, 0) / SECOND_NS)
        return [(fd, READ * bool(found & ~WRITE) | WRITE * bool(found & ~READ)) for fd, found in ready]

    def serve(self, fd: int, found: int) -> None:
        """Serve a file that ``wait`` returned, unless it is watched no longer."""
        handler = self._handlers.get(fd)
        if handler is not None:
            handler(found)

    def close(self) -> None:
        """Watch nothing any more; the files stay open."""
        self._handlers.clear()
        self._waiter.close()


class _Selector:
    """What of epoll is used, made of ``selectors``."""

    def __init__(self) -> None:
        self._selector: Final = selectors.DefaultSelector()

    def register(self, fd: int, events: int) -> None:
        self._selector.register(fd, _selected(events))

    def modify(self, fd: int, events: int) -> None:
        self._selector.modify(fd, _selected(events))

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        found = self._selector.select(timeout_s)
        return [
            (key.fd, (events & selectors.EVENT_READ and READ) | (events & selectors.EVENT_WRITE and WRITE))
            for key, events in found
        ]

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._selector.close()


def _selected(events: int) -> int:
    return (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & WRITE else 0)
