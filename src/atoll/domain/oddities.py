# SPDX-License-Identifier: Apache-2.0
"""What nobody expected to be raised while a peer's message was taken: the message is dropped, and the log says it once.

Decoders are total and machines take whatever is well formed, so nothing should come here. Should it, then whatever
carries the message goes on: a peer that found one such message could end it as often as it likes, for everybody.
"""

import logging
from typing import Final, final

__all__ = ["Oddities"]

KINDS_MAX: Final = 64  # Limit. Kinds of which the log tells; further ones are only counted.


@final
class Oddities:
    """Those of one door.

    Args:
        log: Where they are told.
        of: Who says such messages, for people.

    Attributes:
        count: All of them.
    """

    def __init__(self, log: logging.Logger, of: str) -> None:
        self._log, self._of = log, of
        self._told: set[tuple[str, type[Exception]]] = set()
        self.count = 0

    def note(self, message: object, error: Exception) -> None:
        """Count one, and tell it with its traceback if there was none of its kind.

        Args:
            message: What was taken; its type is told, and nothing of what is in it.
            error: What it raised.
        """
        self.count += 1
        kind = type(message).__name__, type(error)
        if kind not in self._told and len(self._told) < KINDS_MAX:
            self._told.add(kind)
            self._log.error("a message of %s was dropped: %s", self._of, kind[0], exc_info=error)
