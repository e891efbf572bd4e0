# SPDX-License-Identifier: Apache-2.0
"""When the packet device reports what it measures, so that evidence is fresh and reports are few.

Each report has a shortest distance in time from the one before it. The first after a pause is due at once; what comes
within the distance is added up and reported when it is over.
"""

from typing import Final, final

from atoll.device.nic.limits import ENDPOINT_NS, FLOW_NS, METER_NS
from atoll.device.nic.messages import EndpointSeen, Report
from atoll.device.nic.peers import Peer
from atoll.device.nic.relay import Forward
from atoll.overlay.reports import FlowSeen, RelayMetered

__all__ = ["NEVER_NS", "Evidence"]

NEVER_NS: Final = 1 << 63


@final
class Evidence:
    """Reports that are waiting for their time.

    Bounded by the tables that they are about: a peer or a label waits at most once.

    Args:
        reports: Where reports go.

    Attributes:
        wake_ns: When ``flush`` is due; NEVER_NS: never.
    """

    __slots__ = ("_endpoints", "_flows", "_forwards", "_reports", "wake_ns")

    def __init__(self, reports: list[Report]) -> None:
        self._reports: Final = reports
        self._flows: list[Peer] = []
        self._endpoints: list[Peer] = []
        self._forwards: list[Forward] = []
        self.wake_ns = NEVER_NS

    def flow(self, peer: Peer, now_ns: int) -> None:
        """Data flows to or from a peer for which no report is due yet."""
        peer.flow_due_ns = self._due(peer.flow_told_ns + FLOW_NS, now_ns)
        self._flows.append(peer)

    def endpoint(self, peer: Peer, now_ns: int) -> None:
        """A peer's endpoint changed or was proven, and no report about that is due yet."""
        peer.endpoint_due_ns = self._due(peer.endpoint_told_ns + ENDPOINT_NS, now_ns)
        self._endpoints.append(peer)

    def forward(self, forward: Forward, now_ns: int) -> None:
        """Frames came under a label for which no report is due yet."""
        forward.due_ns = self._due(forward.told_ns + METER_NS, now_ns)
        self._forwards.append(forward)

    def forget(self, peer: Peer) -> None:
        """Report nothing more about a peer that is none any more."""
        self._flows = [x for x in self._flows if x is not peer]
        self._endpoints = [x for x in self._endpoints if x is not peer]

    def flush(self, now_ns: int) -> None:
        """Report what is due."""
        if now_ns < self.wake_ns:
            return
        self._flows = [peer for peer in self._flows if not self._told_flow(peer, now_ns)]
        self._endpoints = [peer for peer in self._endpoints if not self._told_endpoint(peer, now_ns)]
        self._forwards = [forward for forward in self._forwards if not self._told_forward(forward, now_ns)]
        self.wake_ns = min(
            *(peer.flow_due_ns for peer in self._flows),
            *(peer.endpoint_due_ns for peer in self._endpoints),
            *(forward.due_ns for forward in self._forwards),
            NEVER_NS,
            NEVER_NS,  # Twice, because ``min`` of one argument wants a sequence.
        )

    def _due(self, due_ns: int, now_ns: int) -> int:
        if due_ns <= now_ns:
            due_ns = now_ns or 1  # 0 means that nothing is due.
        if due_ns < self.wake_ns:  # noqa: PLR1730 - a third of the price of min(), on the packet path.
            self.wake_ns = due_ns
        return due_ns

    def _told_flow(self, peer: Peer, now_ns: int) -> bool:
        if now_ns < peer.flow_due_ns:
            return False
        self._reports.append(FlowSeen(peer.node, peer.flow_sent, peer.flow_received))
        peer.flow_sent = peer.flow_received = peer.flow_due_ns = 0
        peer.flow_told_ns = now_ns
        return True

    def _told_endpoint(self, peer: Peer, now_ns: int) -> bool:
        if now_ns < peer.endpoint_due_ns:
            return False
        if peer.where.endpoint is not None:
            self._reports.append(EndpointSeen(peer.node, *peer.where.endpoint))
        peer.endpoint_due_ns, peer.endpoint_told_ns = 0, now_ns
        return True

    def _told_forward(self, forward: Forward, now_ns: int) -> bool:
        if now_ns < forward.due_ns:
            return False
        self._reports.append(RelayMetered(forward.label, forward.forwarded_bytes, forward.dropped))
        forward.forwarded_bytes = forward.dropped = forward.due_ns = 0
        forward.told_ns = now_ns
        return True
