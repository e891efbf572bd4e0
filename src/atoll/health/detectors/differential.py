# SPDX-License-Identifier: Apache-2.0
"""Who sees what of one component: the detector's view beside its clients', and an alarm where they differ.

A *gray failure* is one that those who use a component see and its failure detector does not. So both views are kept,
each with the time since when it is held, and the difference is what alarms: at least two clients, and at least half of
those that were heard lately, say that it is slow, while the detector says that it is well. One client alone
never raises it: it may be the one that is slow, or far away, or lying.

Source: Huang and others, Gray Failure: The Achilles' Heel of Cloud-Scale Systems, HotOS 2017 (differential
observability). It leaves open how many clients are enough; two and half of them are ours.
"""

from typing import Final, final

from atoll.base.errors import UsageError
from atoll.base.units import MINUTE_NS
from atoll.core.machine import Tuple
from atoll.health.detectors.verdict import Verdict

__all__ = ["CLIENTS_MAX", "CLIENTS_MIN", "Differential", "Seen", "Views", "clients_needed"]

CLIENTS_MIN: Final = 2
CLIENTS_MAX: Final = 256  # Limit. One more replaces the one that was not heard for longest.
LATELY_NS: Final = MINUTE_NS  # A view that is older is not counted.


def clients_needed(clients: int) -> int:
    """Return how many of so many clients must say that a component is slow, before its detector is wrong."""
    return max(CLIENTS_MIN, (clients + 1) // 2)


class Seen(Tuple, frozen=True):
    """One view.

    Attributes:
        by: Which client; the empty name is the detector's own.
        verdict: What it says.
        since_ns: Since when it says so.
        at_ns: When it said so last.
    """

    by: str
    verdict: Verdict
    since_ns: int
    at_ns: int


class Views(Tuple, frozen=True):
    """All views of one component that are not too old.

    Attributes:
        own: The detector's, however old; None: it has said nothing yet.
        clients: The clients', those of longest standing first.
        is_agreed: Whether no two of them differ in whether it is slow. Where nobody says anything, all agree.
        alarm_ns: Since when the detector says well and enough clients slow; None: that is not so.
    """

    own: Seen | None
    clients: tuple[Seen, ...]
    is_agreed: bool
    alarm_ns: int | None


@final
class Differential:
    """One component, as its detector and its clients see it.

    Args:
        lately_ns: How long a client's view counts.

    Raises:
        UsageError: That is not positive.
    """

    def __init__(self, lately_ns: int = LATELY_NS) -> None:
        if lately_ns < 1:
            raise UsageError(f"views that count for {lately_ns} ns: give at least 1")
        self._lately_ns = lately_ns
        self._own: Seen | None = None
        self._clients: Final[dict[str, Seen]] = {}  # Those that were heard last are last.

    def observe(self, client: str, verdict: Verdict, at_ns: int) -> None:
        """Note what somebody sees. NOTHING is no view, and takes nothing back.

        Args:
            client: Who. The empty name is the detector.
            verdict: What it sees.
            at_ns: When. From before its last view: taken for the time of that one.
        """
        if verdict is Verdict.NOTHING:
            return
        before = self._own if not client else self._clients.pop(client, None)
        if before is None:
            seen = Seen(client, verdict, at_ns, at_ns)
        else:
            at_ns = max(at_ns, before.at_ns)
            seen = Seen(client, verdict, before.since_ns if verdict is before.verdict else at_ns, at_ns)
        if not client:
            self._own = seen
            return
        if len(self._clients) >= CLIENTS_MAX:
            del self._clients[next(iter(self._clients))]
        self._clients[client] = seen

    def views(self, now_ns: int) -> Views:
        """Return who sees what, since when, and whether that is an alarm."""
        clients = [seen for seen in self._clients.values() if now_ns - seen.at_ns <= self._lately_ns]
        clients.sort(key=lambda seen: (seen.since_ns, seen.by))
        slow = [seen for seen in clients if seen.verdict is Verdict.SLOW]
        own = self._own
        said = {seen.verdict is Verdict.SLOW for seen in (clients if own is None else [*clients, own])}
        alarm_ns = None
        enough = clients_needed(len(clients))
        if own is not None and own.verdict is Verdict.WELL and len(slow) >= enough:
            alarm_ns = max(own.since_ns, slow[enough - 1].since_ns)
        return Views(own, tuple(clients), len(said) <= 1, alarm_ns)
