# SPDX-License-Identifier: Apache-2.0
"""The clock of a guest: it stands at the time of the event at hand.

In a guest nothing can read a real clock (``vdso``). What the guard lets through all the same, such as the time of a
line that is logged, therefore gets the time of the event. Put in place before the guard, which then stands before it.
"""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any, Final, final

from atoll.base.units import SECOND_NS
from atoll.domain.guard import put

__all__ = ["Clock"]

_CLOCKS: Final = ("time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime")
_OF_A_TIME: Final = ("localtime", "gmtime", "ctime")
_OF_ITS_PARTS: Final = {"asctime": 1, "strftime": 2}  # And which argument says what ``gmtime`` gives.


@final
class Clock:
    """The time.

    Attributes:
        ns: Since 1970; set before each event.
    """

    __slots__ = ("ns",)

    def __init__(self) -> None:
        self.ns = 0

    def install(self) -> None:
        """Have all of Python's clocks show it, for good: this process has no other time any more."""
        for name in _CLOCKS:
            put(time, name, self._seconds)
            put(time, f"{name}_ns", self._nanoseconds)
        to_parts = time.gmtime
        for name in _OF_A_TIME:
            put(time, name, self._completed(getattr(time, name), 1, lambda now: now))
        for name, least in _OF_ITS_PARTS.items():
            put(time, name, self._completed(getattr(time, name), least, to_parts))

        def now(kind: type[dt.datetime], tz: dt.tzinfo | None = None) -> dt.datetime:
            return kind.fromtimestamp(self._seconds(), tz)

        def today(kind: type[dt.date]) -> dt.date:
            return kind.fromtimestamp(self._seconds())

        put(dt.datetime, "now", classmethod(now))
        put(dt.datetime, "utcnow", classmethod(now))  # Local time is UTC where handlers run.
        put(dt.date, "today", classmethod(today))

    def _seconds(self, *_: object) -> float:
        return self.ns / SECOND_NS

    def _nanoseconds(self, *_: object) -> int:
        return self.ns

    def _completed(
        self, original: Callable[..., Any], least: int, form: Callable[[float], object]
    ) -> Callable[..., Any]:
        """Return the function with the time of the event in place of argument number ``least``, if that is missing."""

        def completed(*args: Any) -> Any:
            if len(args) >= least and args[least - 1] is not None:
                return original(*args)
            return original(*args[: least - 1], form(self._seconds()))

        return completed
