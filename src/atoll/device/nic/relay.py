# SPDX-License-Identifier: Apache-2.0
"""Relaying: which frames we pass on for others, which arrive for us, and how much is enough.

Theory: a label is an entry in one of two tables. *Forward* labels are ours: they were granted to a pair of members,
say who may use them, where they lead, and at what rate. *Arrival* labels belong to a relay that we use: they say whose
packets it hands us under them. Everything is checked from cheap to dear, and a frame that fails costs nobody's budget.
"""

from dataclasses import dataclass
from typing import Final, final

from atoll.base.ids import Endpoint
from atoll.base.units import SECOND_NS
from atoll.device.nic.counters import Counters
from atoll.device.nic.endpoints import packed_endpoint
from atoll.device.nic.frame import (
    LABEL_END,
    LABEL_KEY_BYTES,
    Heading,
    inner_of,
)
from atoll.device.nic.limits import (
    ARRIVAL_LABELS_MAX,
    FORWARD_LABELS_MAX,
    METER_BURST_BYTES_MIN,
    METER_BURST_NS,
)
from atoll.device.nic.meter import Meter
from atoll.device.nic.peers import Peer
from atoll.overlay.orders import SetArrivalLabel, SetForwardLabel

__all__ = ["Arrival", "Forward", "Relay", "is_label", "source_of"]

RATE_BYTES_S_MAX: Final = 1 << 40


def is_label(label: int, key: bytes) -> bool:
    """Return whether an order's label and key are possible ones."""
    return 0 <= label < LABEL_END and len(key) == LABEL_KEY_BYTES


@dataclass(frozen=True, slots=True)
class Arrival:
    """A label under which a relay hands us packets of an origin."""

    relay: bytes
    origin: bytes
    heading: Heading


@final
class Forward:
    """A label that we granted: plain state.

    Attributes:
        heading: Of the frames that come; ``onward``: that they go on with.
        forwarded_bytes: Passed on since the last report, frame headers included.
        dropped: Frames over the rate since the last report.
        due_ns: When the next report is due; 0: none.
        told_ns: When the last one was made.
    """

    __slots__ = (
        "_is_compiled",
        "dropped",
        "due_ns",
        "forwarded_bytes",
        "heading",
        "label",
        "meter",
        "onward",
        "source",
        "target",
        "told_ns",
    )

    def __init__(self, order: SetForwardLabel, *, compiled: bool) -> None:
        self._is_compiled: Final = compiled
        self.label: Final = order.label
        self.meter: Final = Meter(per_s=order.rate_bytes_s, burst=_burst(order.rate_bytes_s))
        self.forwarded_bytes = self.dropped = self.due_ns = 0
        self.told_ns = -(1 << 63)
        self.describe(order)

    def describe(self, order: SetForwardLabel) -> None:
        """Take everything but the rate from an order."""
        self.source, self.target = order.source, order.target
        self.heading = Heading(order.label, order.key, compiled=self._is_compiled)
        self.onward = Heading(order.out_label, order.out_key, compiled=self._is_compiled)


def _burst(rate_bytes_s: int) -> int:
    return max(rate_bytes_s * METER_BURST_NS // SECOND_NS, METER_BURST_BYTES_MIN)


@final
class Relay:
    """Both tables of labels, and the budget.

    Args:
        peers: All peers by node, kept by the engine.
        counters: Drops are counted here.
        budget_bytes_s: For all forwarding; 0: none.
        compiled: Whether the compiled loops are used, if they are installed.

    Attributes:
        forwards: By label, as the relay.
        arrivals: By label, as the receiver.
    """

    __slots__ = ("_budget", "_counters", "_is_compiled", "_peers", "arrivals", "forwards")

    def __init__(
        self, peers: dict[bytes, Peer], counters: Counters, budget_bytes_s: int, *, compiled: bool = True
    ) -> None:
        self._is_compiled: Final = compiled
        self._peers: Final = peers
        self._counters: Final = counters
        self._budget: Final = Meter(per_s=budget_bytes_s, burst=_burst(budget_bytes_s))
        self.forwards: Final[dict[int, Forward]] = {}
        self.arrivals: Final[dict[int, Arrival]] = {}

    def heading(self, label: int, key: bytes) -> Heading:
        """Return the heading of a label for which ``is_label`` holds."""
        return Heading(label, key, compiled=self._is_compiled)

    def set_forward(self, order: SetForwardLabel, now_ns: int) -> bool:
        """Grant a label, or change one and keep what it owes; False: impossible, or too many."""
        if not (
            is_label(order.label, order.key)
            and is_label(order.out_label, order.out_key)
            and 0 <= order.rate_bytes_s <= RATE_BYTES_S_MAX
        ):
            return False
        forward = self.forwards.get(order.label)
        if forward is not None:
            forward.describe(order)
            forward.meter.change(per_s=order.rate_bytes_s, burst=_burst(order.rate_bytes_s), now_ns=now_ns)
        elif len(self.forwards) >= FORWARD_LABELS_MAX:
            return False
        else:
            self.forwards[order.label] = Forward(order, compiled=self._is_compiled)
        return True

    def set_arrival(self, order: SetArrivalLabel) -> bool:
        """Learn a label of a relay; False: impossible, or too many."""
        if not is_label(order.label, order.key):
            return False
        if order.label not in self.arrivals and len(self.arrivals) >= ARRIVAL_LABELS_MAX:
            return False
        self.arrivals[order.label] = Arrival(order.relay, order.origin, self.heading(order.label, order.key))
        return True

    def forget(self, node: bytes) -> None:
        """Drop every label that has to do with a node that is no peer any more."""
        for label in [x.label for x in self.forwards.values() if node in {x.source, x.target}]:
            del self.forwards[label]
        for label in [label for label, x in self.arrivals.items() if node in {x.relay, x.origin}]:
            del self.arrivals[label]

    def pass_on(self, forward: Forward, frame: bytes, source: Endpoint, now_ns: int) -> tuple[Endpoint, bytes] | None:
        """Return where to send what, as the relay; None: not to be passed on, and counted."""
        changed = bytearray(frame)
        endpoint = self.pass_in_place(forward, memoryview(changed), source, now_ns)
        return None if endpoint is None else (endpoint, bytes(changed))

    def pass_in_place(self, forward: Forward, frame: memoryview, source: Endpoint, now_ns: int) -> Endpoint | None:
        """Make a frame that came the one that goes on, and return where to; None: not to be passed on, and counted.

        Nothing about the frame's size changes, so that a path's largest packet is the same at both ends.
        """
        holder, target = self._peers.get(forward.source), self._peers.get(forward.target)
        if holder is None or holder.where.endpoint != source:
            self._counters.drop("frame-source")
            return None
        if not forward.heading.is_on(frame):
            self._counters.drop("frame-forged")
            return None
        if target is None or target.where.endpoint is None:
            self._counters.drop("endpoint-unknown")
            return None
        if not forward.meter.fits(len(frame), now_ns):
            forward.dropped += 1
            self._counters.drop("relay-rate")
            return None
        if not self._budget.fits(len(frame), now_ns):
            forward.dropped += 1
            self._counters.drop("relay-budget")
            return None
        forward.meter.take(len(frame), now_ns)
        self._budget.take(len(frame), now_ns)
        forward.forwarded_bytes += len(frame)
        forward.onward.head(frame)
        return target.where.endpoint

    def pass_run(  # tidy: allow parameters, one place in a burst.
        self, forward: Forward, frames: memoryview, size: int, source: Endpoint, now_ns: int
    ) -> tuple[int, Endpoint | None]:
        """Do ``pass_in_place`` for the first frame of a burst, and for those after it that are like it.

        Args:
            forward: Where frames under the first one's label go.
            frames: Back to back, changed.
            size: Length of each but the last.
            source: Where all came from.
            now_ns: Monotonic time.

        Returns:
            How many bytes are done, at least the first frame's; where they go; None: nowhere, and that is counted.
        """
        holder, target = self._peers.get(forward.source), self._peers.get(forward.target)
        whole = len(frames)
        if (
            holder is None
            or holder.where.endpoint != source
            or target is None
            or target.where.endpoint is None
            or not forward.meter.fits(whole, now_ns)
            or not self._budget.fits(whole, now_ns)
            or not (end := forward.heading.run(frames, size, forward.onward))
        ):
            return min(size, whole), self.pass_in_place(forward, frames[:size], source, now_ns)
        forward.meter.take(end, now_ns)
        self._budget.take(end, now_ns)
        forward.forwarded_bytes += end
        return end, target.where.endpoint

    def arrive_run(self, arrival: Arrival, frames: memoryview, size: int, source: Endpoint) -> int:
        """Return how many bytes of a burst are frames for us like its first one; 0: none, and that is counted."""
        relay = self._peers.get(arrival.relay)
        if relay is not None and relay.where.endpoint == source:
            end = arrival.heading.run(frames, size)
            if end:
                return end
        return min(size, len(frames)) if self.is_from(arrival, frames[:size], source) else 0

    def arrive(self, arrival: Arrival, frame: bytes, source: Endpoint) -> bytes | None:
        """Return the datagram in a frame for us; None: not from that relay, and counted."""
        return inner_of(frame) if self.is_from(arrival, frame, source) else None

    def is_from(self, arrival: Arrival, frame: bytes | memoryview, source: Endpoint) -> bool:
        """Return whether a frame for us came from the relay that its label belongs to; else it is counted."""
        relay = self._peers.get(arrival.relay)
        if relay is None or relay.where.endpoint != source:
            self._counters.drop("frame-source")
            return False
        if not arrival.heading.is_on(frame):
            self._counters.drop("frame-forged")
            return False
        return True


def source_of(source: Endpoint, arrival: Arrival | None) -> bytes:
    """Return what a cookie is bound to: the sender's address, or the relay and the member behind its label."""
    if arrival is None:
        return packed_endpoint(source)
    return arrival.relay + arrival.origin + bytes(2)  # The last two bytes are where a port would be.
