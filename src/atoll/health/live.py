# SPDX-License-Identifier: Apache-2.0
"""Health for programs without a node: one watch for the whole process, with the machine's clock.

The one module of the deciding rooms that reads a clock: a program that reports what it saw should not have to bring the
time as well (ADR 0036). Everything else is ``Watch``, which never does.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic, monotonic_ns
from typing import Final

from atoll.health.spec import LATENCY_NS_MAX, Bound, Specification
from atoll.health.watch import Change, Standing, Watch

__all__ = ["changes", "observe", "shunned", "specify", "standings", "timed"]

_S: Final = 1e9
_LATENCY_S_MAX: Final = LATENCY_NS_MAX / _S

_lock: Final = threading.Lock()
_watch: Final = Watch()


def observe(component: str, latency_s: float, amount: float = 1) -> None:
    """Report how long a component took for one answer that came just now. From any thread; about a microsecond.

    Args:
        component: ``kind:which``, such as ``disk:/data`` or ``api:billing``.
        latency_s: Seconds, 0 to a day. Anything else (negative, NaN) is counted and not taken.
        amount: How much was done, in any unit that stays the same, such as bytes.

    Raises:
        LimitError: There are too many components.
        UsageError: The name is empty or too long.
    """
    latency_ns = int(latency_s * _S) if 0.0 <= latency_s <= _LATENCY_S_MAX else -1
    try:
        count = int(amount)
    except (ValueError, OverflowError):  # NaN, or without end.
        count = 1
    now_ns = monotonic_ns()
    with _lock:
        _watch.observe(component, latency_ns, now_ns, count)
        if now_ns >= _watch.due_ns:
            _watch.tick(now_ns)


@contextmanager
def timed(component: str, amount: float = 1) -> Generator[None]:
    """Report how long the block took, unless it raised: what fails quickly is not quick."""
    began = monotonic()
    yield
    observe(component, monotonic() - began, amount)


def specify(component: str, spec: Specification | float | None) -> None:
    """Declare how long an answer may take.

    Args:
        component: Its name.
        spec: Seconds; or a ``Bound``, ``Line``, ``Curve`` or ``Quantiles``, which count in ns. None: what is usual
            is learnt.

    Raises:
        LimitError: There are too many components.
        UsageError: The name or the number is no good.
    """
    if isinstance(spec, int | float):
        spec = Bound(int(spec * _S) if 0 < spec <= _LATENCY_S_MAX else 0)
    with _lock:
        _watch.specify(component, spec)


def standings() -> list[Standing]:
    """Return how all components stand, in the order in which they were first seen; times by the monotonic clock."""
    with _lock:
        return list(_watch.standings())


def shunned(kind: str) -> list[str]:
    """Return which components of a kind are to be gone around, the worst first; never more than a quarter of them."""
    with _lock:
        return list(_watch.shunned(kind))


def changes() -> list[Change]:
    """Return what changed since this was last asked, oldest first."""
    with _lock:
        found = list(_watch.changes)
        _watch.changes.clear()
    return found
