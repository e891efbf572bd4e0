# SPDX-License-Identifier: Apache-2.0
"""Components of one machine that its programs report: a database, an API that they call, a disk of theirs.

A program that ended reports no more, and what it said last would stand for ever: silence is no recovery (model.py). So
what was not reported for QUIET_NS is forgotten, and, if it was told to be slow, told to be so no more.

Pure: part of ``Vitals``.
"""

import re
from typing import Final, final

from atoll.base.errors import LimitError, UsageError
from atoll.base.units import MINUTE_NS
from atoll.health.members.bulletin import Found
from atoll.health.model import TOLD, State
from atoll.health.watch import Watch

__all__ = ["REPORTED_MAX", "Reported"]

REPORTED_MAX: Final = 256  # Limit. Components; one more is refused.
QUIET_NS: Final = 10 * MINUTE_NS
_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,15}:[a-z0-9_.:/-]{1,31}", re.ASCII)
_NAME_CHARS_MAX: Final = 32  # What a message to the others holds.
_OURS: Final = frozenset({"program", "link", "answers"})  # Kinds that the node measures itself.


@final
class Reported:
    """What the programs of one machine report.

    Args:
        watch: Who judges it.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch: Final = watch
        self._heard_ns: dict[str, int] = {}

    def observe(self, component: str, latency_ns: int, amount: int, now_ns: int) -> None:
        """Note how long a component took.

        Args:
            component: ``kind:which``, such as ``db:orders``, at most 32 characters of a-z, 0-9 and ``_ . - : /``.
            latency_ns: Of one answer; what cannot be is counted by the watch and not taken.
            amount: How much was done.
            now_ns: Now.

        Raises:
            LimitError: There are REPORTED_MAX already.
            UsageError: The name is none.
        """
        if component not in self._heard_ns:
            fits = len(component) <= _NAME_CHARS_MAX and _NAME.fullmatch(component) is not None
            if not fits or component.partition(":")[0] in _OURS:
                raise UsageError(
                    f"{component[:40]!r} names no component: use kind:which, such as db:orders, with at most "
                    f"{_NAME_CHARS_MAX} characters of a-z, 0-9 and _ . - : /, and a kind that the node has not itself"
                )
            if len(self._heard_ns) >= REPORTED_MAX:
                raise LimitError("REPORTED_MAX", REPORTED_MAX)
        self._heard_ns[component] = now_ns
        self._watch.observe(component, latency_ns, now_ns, amount=amount)

    def found(self, now_ns: int) -> list[Found]:
        """Forget what was not reported for long; return what is slow no more for that."""
        told: list[Found] = []
        for component in [one for one, heard_ns in self._heard_ns.items() if now_ns - heard_ns >= QUIET_NS]:
            standing = self._watch.standing(component)
            if standing is not None and standing.state in TOLD:
                told.append(Found(b"", component, State.OK, standing.since_ns, standing.usual_ns, standing.newest_ns))
            self._watch.forget(component)
            del self._heard_ns[component]
        return told
