# SPDX-License-Identifier: Apache-2.0
"""Which clocks of the operating system a live node goes by."""

import time
from collections.abc import Callable
from typing import Final, final

from atoll.base.compiled import COMPILED

__all__ = ["SystemClock"]

# A laptop that slept for an hour has leases that ended an hour ago. CLOCK_MONOTONIC stands still in sleep and would
# let them live on; CLOCK_BOOTTIME (Linux) counts the sleep. Where it does not exist, the plain one has to do.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
# The packet device asks twice a packet; see native/src/turn.c.
_clock_ns: Final[Callable[[int], int]] = time.clock_gettime_ns if COMPILED is None else COMPILED.clock_ns


@final
class SystemClock:
    """The clocks of this computer; see ``base.ports.Clock``."""

    def monotonic_ns(self) -> int:
        """Return time since the computer started, ns, sleep included. An asyncio loop has another zero."""
        return _clock_ns(_CLOCK)

    def wall_ns(self) -> int:
        """Return time since 1970, ns; may jump either way when somebody sets the clock."""
        return time.time_ns()
