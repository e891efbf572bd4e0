# SPDX-License-Identifier: Apache-2.0
"""Judges how quick the programs of one machine are that other members reach, each port by its own past.

Who hears that a program is slow goes elsewhere with new connections. Then nothing of it is measured any more, and it
would be slow for ever: silence is no recovery (model.py). So a slow program of which nothing was measured for QUIET_NS
is *excused*: it is told to be well, so that somebody tries it. If it then answers late once, it is slow again at once,
with its old onset, and not after another five seconds; if it answers in time, it is excused until its recovery is sure.

Pure: part of ``Vitals``.
"""

from math import isqrt
from typing import Final, final

from atoll.base.units import MILLISECOND_NS, MINUTE_NS
from atoll.health.members.bulletin import Found
from atoll.health.model import TOLD, State
from atoll.health.watch import Standing, Watch

__all__ = ["PROGRAM", "PROGRAMS_MAX", "PROGRAM_FLOOR_NS", "Programs"]

PROGRAM: Final = "program"  # Of ``program:PORT``.
PROGRAM_FLOOR_NS: Final = 20 * MILLISECOND_NS
PROGRAMS_MAX: Final = 64  # Limit. Ports; one more is not watched.
QUIET_NS: Final = MINUTE_NS


@final
class Programs:
    """The programs of one machine, by port.

    Args:
        watch: Who judges them, as ``program:PORT``.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch: Final = watch
        self._heard_ns: dict[str, int] = {}  # When each was measured last.
        self._excused: dict[str, int] = {}  # From which latency on it is slow again.
        self._again: list[str] = []

    def served(self, port: int, latency_ns: int, now_ns: int) -> None:
        """Note how long the program at a port took to answer; of a port beyond PROGRAMS_MAX nothing is kept."""
        component = f"{PROGRAM}:{port}"
        if component not in self._heard_ns and len(self._heard_ns) >= PROGRAMS_MAX:
            return
        self._heard_ns[component] = now_ns
        self._watch.observe(component, latency_ns, now_ns)
        if component in self._excused and latency_ns >= self._excused[component]:
            del self._excused[component]
            self._again.append(component)

    def standing(self, port: int) -> Standing | None:
        """Return how the program at a port stands; None: it was never measured."""
        return self._watch.standing(f"{PROGRAM}:{port}")

    def is_excused(self, component: str) -> bool:
        """Return whether a slow component is not to be told, because nobody knows whether it still is."""
        return component in self._excused

    def found(self, now_ns: int) -> list[Found]:
        """Return which programs are excused from now on, and which are slow again that were."""
        told: list[Found] = []
        for component, heard_ns in self._heard_ns.items():
            standing = self._watch.standing(component)
            if standing is None or standing.state not in TOLD:
                self._excused.pop(component, None)
            elif component in self._again:
                told.append(_found(standing, standing.state))
            elif component not in self._excused and now_ns - heard_ns >= QUIET_NS:
                midway_ns = isqrt(standing.usual_ns * standing.newest_ns)  # As ratios go.
                self._excused[component] = max(PROGRAM_FLOOR_NS, midway_ns)
                told.append(_found(standing, State.OK))
        self._again.clear()
        return told


def _found(standing: Standing, state: State) -> Found:
    return Found(b"", standing.component, state, standing.since_ns, standing.usual_ns, standing.newest_ns)
