# SPDX-License-Identifier: Apache-2.0
"""Decides whether a path that carries our probes also carries our data.

A relay that lies can tell probes from data by their length; a path can be too narrow for full packets; a policer can
take bulk only. Probes see none of this. So every control message says how many data packets went by its way before it,
its receiver says how many came, and each probe takes the two numbers back (docs/spec/control.md, section 2). This
machine gets such pairs of one path in one direction and compares them.

Theory of operation. At any moment some packets are on their way, and some overtake others. The comparison therefore
takes the number *sent* from a report that is a jitter allowance old and the number *seen* from the newest one, and
counts from an *anchor*, a report whose two numbers were taken at once. Both choices err on the side of "arrived".
``LOST_MIN`` lost packets that are a quarter of those sent condemn the path for a minute, and for twice as long each
time, up to an hour: unlike probes, data cost somebody something to find out with. In the long run more than a twentieth
is enough, so that a little theft does not pay. A path that loses probes as well is honest, and the probes judge it. A
path that must be used although it is condemned is acquitted by data that get through.
"""

from typing import Final, NamedTuple

import msgspec

from atoll.base.units import HOUR_NS, MINUTE_NS, SECOND_NS
from atoll.overlay.loss import SHARE_ONE, newer_by

__all__ = ["Delivery", "Probed"]

LOST_MIN: Final = 5  # Of 20 packets at 2 % loss so many are lost once in 30,000 times.
LOST_PARTS: Final = 4  # A quarter: well above what a path that loses probes as well would get away with.
EXCESS_MAX: Final = 16  # Lost packets beyond a twentieth of those sent, in a cumulative sum ...
EXCESS_PARTS: Final = 20  # ... which a clean past does not dilute.
EXCESS_SPAN_MAX: Final = (
    EXCESS_MAX * EXCESS_PARTS // 4
)  # So that one span with many packets on their way proves nothing.
HONEST: Final = 3  # Data must be lost at this many times the rate of probes: the one draws few samples, and bursts.
SPAN_NS: Final = SECOND_NS  # An anchor is used for so long at least ...
SPAN_PACKETS_MIN: Final = 32  # ... and for so many packets. A clean span acquits.
CONDEMNED_NS: Final = MINUTE_NS
CONDEMNED_NS_MAX: Final = HOUR_NS
REFORMED_PACKETS: Final = 4_096  # So many delivered packets in a row make up for former failures.
PENDING_MAX: Final = 16  # Reports younger than the allowance; at the pace of a burst half a second has 25. Oldest goes.


class Probed(NamedTuple):
    """What the probes of the same path and direction say.

    Attributes:
        allowance_ns: By how much packets overtake each other at most.
        recent: Loss among the last few, in 1/10000, or ``slow`` if that is more.
        slow: Loss among the last hundreds, in 1/10000.
    """

    allowance_ns: int
    recent: int
    slow: int


class Delivery(msgspec.Struct):
    """What became of our data on one path, by the far end's count.

    Attributes:
        sent: Data packets sent, by the newest report; -1: there was none. ``seen``: those that had come.
        anchor_sent: What was sent at the anchor; ``anchor_seen``: what had come; ``anchor_ns``: when that was.
        settled: Sent by the newest report older than the allowance.
        pending: (at_ns, sent) of younger reports, oldest first.
        lost_share: Of the data, in 1/10000, when the path was condemned last.
        failures: How often it was condemned without making up for it.
        until_ns: Until when it is condemned.
        delivered: Packets sent in spans without a failure since the last one.
        excess: Lost packets beyond a twentieth, times EXCESS_PARTS; not below 0.
    """

    sent: int = -1
    seen: int = 0
    anchor_sent: int = 0
    anchor_seen: int = 0
    anchor_ns: int = 0
    settled: int = 0
    pending: list[tuple[int, int]] = []
    lost_share: int = 0
    failures: int = 0
    until_ns: int = 0
    delivered: int = 0
    excess: int = 0

    def report(self, sent: int, seen: int, probed: Probed, now_ns: int) -> bool:
        """Take the numbers of one report; return whether the verdict changed.

        Args:
            sent: Data packets that went by this path, modulo 2^32, as the far end was told.
            seen: Those that had come, modulo 2^32, when it was told.
            probed: What the probes say.
            now_ns: Now.
        """
        # A count that went back: an end began anew, and so do we.
        if self.sent < 0 or newer_by(sent, self.sent) < 0 or newer_by(seen, self.seen) < 0:
            self.restart(sent, seen, now_ns)
            return False
        self.seen = seen
        if sent != self.sent:
            self.pending = [*self.pending[1 - PENDING_MAX :], (now_ns, sent)]
            self.sent = sent
        while self.pending and self.pending[0][0] <= now_ns - probed.allowance_ns:
            self.settled = self.pending[0][1]
            self.pending = self.pending[1:]
        carried = newer_by(self.settled, self.anchor_sent)
        lost = carried - newer_by(seen, self.anchor_seen)
        if lost >= LOST_MIN and lost * LOST_PARTS >= carried and _is_worse(lost, carried, probed.recent):
            self.restart(sent, seen, now_ns)
            return self._condemn(lost, carried, now_ns)
        if carried < SPAN_PACKETS_MIN or now_ns - self.anchor_ns < SPAN_NS:
            return False
        # Over many spans packets on their way cancel out, so here all that did not come yet counts.
        carried = newer_by(sent, self.anchor_sent)
        missing = carried - newer_by(seen, self.anchor_seen)
        self.restart(sent, seen, now_ns)
        self.excess = max(0, self.excess + min(missing * EXCESS_PARTS - carried, EXCESS_SPAN_MAX))
        if self.excess >= EXCESS_MAX * EXCESS_PARTS and _is_worse(missing, carried, probed.slow):
            return self._condemn(missing, carried, now_ns)
        return missing * EXCESS_PARTS < carried and self._approve(carried, now_ns)

    def restart(self, sent: int, seen: int, now_ns: int) -> None:
        """Begin to count anew: what was lost before has been explained."""
        self.sent = self.settled = self.anchor_sent = sent
        self.seen = self.anchor_seen = seen
        self.anchor_ns = now_ns
        self.pending = []

    def _condemn(self, lost: int, carried: int, now_ns: int) -> bool:
        news = now_ns >= self.until_ns
        if news:
            self.failures += 1
        self.delivered = self.excess = 0
        self.lost_share = min(lost * SHARE_ONE // carried, SHARE_ONE)
        self.until_ns = now_ns + min(CONDEMNED_NS << min(self.failures - 1, 16), CONDEMNED_NS_MAX)
        return news

    def _approve(self, carried: int, now_ns: int) -> bool:
        self.delivered += carried
        if self.delivered >= REFORMED_PACKETS:
            self.failures = 0
        if now_ns >= self.until_ns:
            return False
        self.until_ns = now_ns
        return True


def _is_worse(lost: int, carried: int, probes_lost: int) -> bool:
    """Whether data are lost at clearly more than the rate of the probes."""
    return lost * SHARE_ONE > HONEST * probes_lost * carried
