# SPDX-License-Identifier: Apache-2.0
"""Entry of a node that can be afflicted: ``python -m atoll.lab.afflicted``, the daemon with a disk that can be slow.

The daemon is the ordinary one, unchanged, and knows nothing of this. What is replaced is the operating system's
``fsync`` and ``fdatasync`` in this one process: while a file of the state directory says so, each takes so many times
as long as it took. That is what a disk does that retries each sector, or a volume whose provider holds it back: it
answers, and late.

A disk that is quick takes less than a millisecond, and a hundred times next to nothing would be next to nothing. So
each call counts as ``LEAST_NS`` at least, up to which no disk is called slow, however unusual that is for it
(``health/members/vitals.py``). A quick disk becomes more than a hundred times as slow by that.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Final

from atoll.base.units import SECOND_NS
from atoll.health.members.vitals import FLOORS_NS

__all__ = ["LEAST_NS", "SWITCH_NAME", "main", "set_factor", "slowed"]

SWITCH_NAME: Final = "lab-slow-disk"  # File of the state directory; holds the factor. Where it is not, all is as ever.
LEAST_NS: Final = FLOORS_NS["disk"]  # What a call counts as at least.
FACTOR_MAX: Final = 1000  # Limit.
TOOK_NS_MAX: Final = SECOND_NS  # Limit. A node that is told to end waits for its disk.

Sync = Callable[[int], None]


def set_factor(state: Path, factor: int) -> None:
    """Make the disk of the node with this state directory so many times as slow, from its next call on; 0: as it is."""
    switch = state / SWITCH_NAME
    if not factor:
        switch.unlink(missing_ok=True)
        return
    written = state / f"{SWITCH_NAME}.new"
    written.write_text(str(factor), encoding="ascii")
    written.replace(switch)  # Nobody reads half a number.


def slowed(sync: Sync, switch: Path) -> Sync:
    """Return a call of the operating system that takes as many times as long as a file says at that moment."""

    def slow(descriptor: int) -> None:
        began_ns = monotonic_ns()
        sync(descriptor)
        took_ns = monotonic_ns() - began_ns
        longer_ns = _factor(switch) * max(LEAST_NS, took_ns) - took_ns
        if longer_ns > 0:
            sleep(min(longer_ns, TOOK_NS_MAX) / SECOND_NS)

    return slow


def _factor(switch: Path) -> int:
    try:
        return min(FACTOR_MAX, int(switch.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return 0


def main() -> int:
    """Run the daemon; return its exit status."""
    switch = Path.cwd() / SWITCH_NAME  # ``launch`` starts it in its state directory.
    for name in ("fsync", "fdatasync"):
        setattr(os, name, slowed(getattr(os, name), switch))
    from atoll.node.daemon import main as run  # noqa: PLC0415 - it must find the disk as it is now.

    return run()


if __name__ == "__main__":
    sys.exit(main())
