# SPDX-License-Identifier: Apache-2.0
"""What becomes of exceptions that reached nobody else: some pass, and a bug ends the node."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, final

from atoll.base.errors import UserError
from atoll.host.descriptors import is_scarce

__all__ = ["SCARCE_TOLD_S", "Supervisor"]

log: Final = logging.getLogger("atoll.node")

SCARCE_TOLD_S: Final = 60.0  # A lack of files comes back each second; it is told once in this time.


@final
class Supervisor:
    """The exception handler of a node's event loop.

    Two kinds of ``OSError`` are expected: ``accept`` finds no room for another file, and asyncio tries again in a
    second; and the far end of a connection goes away while nobody reads from it. All others are bugs like any other
    exception: whoever opens a file or a socket knows what to do when it is refused.

    Args:
        fail: Ends the node with an error: what it decides after a bug could not be trusted.
    """

    def __init__(self, fail: Callable[[UserError], None]) -> None:
        self._fail = fail
        self._told_s: float | None = None  # When a lack of files was told last, on the loop's clock.

    def judge(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Take what asyncio hands to an exception handler."""
        error = context.get("exception")
        match error:
            case OSError() if is_scarce(error):
                if self._told_s is None or loop.time() - self._told_s >= SCARCE_TOLD_S:
                    self._told_s = loop.time()
                    log.warning("%s: new connections wait (raise the limit of open files, or end some)", error.strerror)
            case ConnectionError():
                log.warning("a connection ended: %s", error)
            case Exception():
                loop.default_exception_handler(context)
                self._fail(
                    UserError(
                        "A500",
                        "this node met a bug of its own and ended",
                        where=f"{type(error).__name__}: {error}",
                        fix="start it again with atoll up; and please report it with the log and the journal",
                    )
                )
            case _:
                loop.default_exception_handler(context)
