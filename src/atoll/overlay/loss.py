# SPDX-License-Identifier: Apache-2.0
"""Decides how lossy one direction of one path is, from which numbered probes arrived.

Theory of operation. A window holds the newest 32 probes as a bitmap: bit ``i`` tells of probe ``last - i``. Late
arrivals set their bit, so that reordering heals itself as long as a probe is less than 32 late. What falls out of the
bitmap is *settled* and counted in two sums: the slow one, halved when it gets long (an ageing mean over 256 to 512
probes, for ranking), and the run, which the owner restarts (for "a minute below one per cent").

Onset is judged by a cumulative sum over the bitmap (Page 1954): each lost probe adds ``LOST_GAIN``, each arrived one
takes ``SEEN_COST``, never below 0; ``ALARM`` is reached by 4 losses among 15 probes. These are the log-likelihood
ratios of 20 % against 2 % loss, in tenths. At 30 % it takes about 13 probes; at 1 % a false alarm comes once in some
hundred thousand probes. A share over a fixed window would need a longer one for the same rate of false alarms.
"""

from math import isqrt
from typing import Final

import msgspec

__all__ = ["ALARM", "CALM", "PEAK", "SHARE_ONE", "STRANGE", "STRANGERS_MAX", "WINDOW", "Window", "newer_by"]

WINDOW: Final = 32  # Spec: the width of Probe.seen_bits.
ALL: Final = (1 << WINDOW) - 1
MODULUS: Final = 1 << 32  # Spec: sequence numbers wrap here.
SHARE_ONE: Final = 10_000  # Shares are in 1/10000.

LOST_GAIN: Final = 23  # 10 * ln(0.20 / 0.02).
SEEN_COST: Final = 2  # 10 * ln(0.98 / 0.80).
ALARM: Final = 70  # 4 losses among 15; 3 alone never do.
PEAK: Final = 90  # The sum grows no further; it must reach beyond ALARM, for the newest probe known always arrived.
CALM: Final = 20  # An alarm ends 25 to 32 clean probes after the last loss.
SLOW_MAX: Final = 512  # Settled probes at which the slow sums are halved.
STRANGERS_MAX: Final = 3  # This many probes in a row older than the window: the peer began anew.
STRANGE: Final = 1 << 20  # Nor is one so much newer: half a day of the fastest pace.
ONSET_NARROW: Final = 16  # The half window in which a fresh loss is not diluted by the clean past.
RUN_MIN: Final = 32  # Settled probes after which the run alone is believed.
CHANCE_SIGMAS: Final = 3  # A pair is judged some thousand times a day.
ONSET_LOST_MIN: Final = 3  # Fewer losses than this say nothing about a rate.


def newer_by(sequence: int, than: int) -> int:
    """Return how much newer ``sequence`` is, modulo 2^32, from -2^31 to 2^31 - 1."""
    return ((sequence - than + (MODULUS >> 1)) % MODULUS) - (MODULUS >> 1)


class Window(msgspec.Struct):
    """One direction of one path.

    Attributes:
        last: Newest sequence number that arrived.
        bits: Bit i set: ``last - i`` arrived, or is from before the window began.
        width: How many of the bits tell of real probes, 0 to 32.
        slow: Settled probes in the slow sum, and ``slow_lost`` of them lost.
        run: Settled probes since the owner's ``restart_run``, and ``run_lost`` of them lost.
        before_run: How many of the bits are older than the run.
        strangers: Probes in a row from outside the window.
    """

    last: int = 0
    bits: int = ALL
    width: int = 0
    slow: int = 0
    slow_lost: int = 0
    run: int = 0
    run_lost: int = 0
    before_run: int = 0
    strangers: int = 0

    def arrived(self, sequence: int) -> bool:
        """Note the arrival of a probe; return whether it is the newest so far."""
        if self.width == 0:
            self.last, self.bits, self.width = sequence, ALL, 1
            return True
        by = newer_by(sequence, self.last)
        if 0 < by < STRANGE:
            self._slide(by)
            self.last, self.bits, self.strangers = sequence, self.bits | 1, 0
            return True
        if -WINDOW < by <= 0:
            self.bits |= 1 << -by
            self.strangers = 0
            return False
        self.strangers += 1
        if self.strangers < STRANGERS_MAX:
            return False
        self.last, self.bits, self.width, self.strangers = sequence, ALL, 1, 0
        return True

    def reported(self, sequence: int, seen_bits: int, sent: int) -> bool:
        """Take over the receiver's own bitmap.

        Args:
            sequence: Newest probe of ours that it saw.
            seen_bits: Its bitmap.
            sent: The newest probe that we sent; a report from beyond it is a lie or from an earlier life.

        Returns:
            Whether the report was taken: it is not older than one before.
        """
        if newer_by(sent, sequence) < 0:
            return False
        if self.width == 0:
            self.last, self.width = sequence, 1
            return True
        by = newer_by(sequence, self.last)
        if by < 0:
            return False
        if by:
            self._slide(by)
            self.last = sequence
        # Probes from before our own window began would count as lost at a peer that began later than we.
        self.bits = (seen_bits | ~((1 << self.width) - 1)) & ALL
        return True

    def _slide(self, by: int) -> None:
        """Make room for ``by`` newer probes, not arrived yet; what falls out is settled."""
        # Of a gap longer than the window only the last 32 are remembered: a long outage is a state of the path and
        # not a loss rate that lingers for minutes after it ended.
        by = min(by, WINDOW)
        settled = self.width + by - WINDOW
        if settled > 0:
            lost = settled - ((self.bits >> (WINDOW - by)) & ((1 << settled) - 1)).bit_count()
            self.slow += settled
            self.slow_lost += lost
            if self.before_run > 0:
                self.before_run -= settled
            else:
                self.run += settled
                self.run_lost += lost
            if self.slow >= SLOW_MAX:
                self.slow >>= 1
                self.slow_lost >>= 1
        self.bits = (self.bits << by) & ALL
        self.width = min(WINDOW, self.width + by)
        assert 0 <= self.slow_lost <= self.slow

    @property
    def holes(self) -> int:
        """How many of the newest 32 have not arrived."""
        return WINDOW - self.bits.bit_count()

    @property
    def clean(self) -> int:
        """How many of the newest have arrived without a hole, at most ``width``."""
        holes = ~self.bits & ALL
        return min(self.width, (holes & -holes).bit_length() - 1) if holes else self.width

    def score(self, missing: int = 0) -> int:
        """Return the cumulative sum, 0 to ``PEAK``; from ``ALARM`` on the direction is lossy.

        Args:
            missing: Probes after the newest that are known to be lost by now.
        """
        if self.holes + missing <= ONSET_LOST_MIN:
            return 0  # Three losses never reach the alarm; the common case costs nothing.
        score = 0
        bits = self.bits
        for position in range(self.width - 1, -1, -1):
            if bits >> position & 1:
                if score:
                    score = max(0, score - SEEN_COST)
            else:
                score = min(PEAK, score + LOST_GAIN)
        return min(PEAK, score + LOST_GAIN * missing)

    def share(self) -> int:
        """Return the ageing mean over some hundred probes, in 1/10000; 0 if there was none."""
        total = self.slow + self.width
        return (self.slow_lost + self.holes) * SHARE_ONE // total if total else 0

    def proven_share(self) -> int:
        """Return the loss for ranking, in 1/10000: what three standard deviations leave of the counted one.

        Paths lose a few probes in a thousand by chance, now this one and now that; a plain mean would rank them anew
        each minute. Once the run is long it speaks, for its mean is sharper.
        """
        if self.run >= RUN_MIN:
            lost, total = self.run_holes, self.run + self.width
        else:
            lost, total = self.slow_lost + self.holes, self.slow + self.width
        return max(0, lost - isqrt(CHANCE_SIGMAS**2 * lost)) * SHARE_ONE // total if total else 0

    def onset_share(self, missing: int = 0) -> int:
        """Return the loss of right now, in 1/10000, at least the slow one.

        It is the worse of the newest 16 and 32 once these hold ``ONSET_LOST_MIN`` losses; ``missing`` as in ``score``.
        """
        slow = self.share()
        missing = min(missing, ONSET_NARROW)
        lost = self.holes + missing
        if lost < ONSET_LOST_MIN or not self.width:
            return slow
        wide = lost * SHARE_ONE // min(WINDOW, self.width + missing) if self.width + missing <= WINDOW else 0
        if self.width + missing > WINDOW:
            kept = self.bits & ((1 << (WINDOW - missing)) - 1)
            wide = (WINDOW - kept.bit_count()) * SHARE_ONE // WINDOW
        width = min(self.width, ONSET_NARROW - missing)
        lost = width - (self.bits & ((1 << width) - 1)).bit_count() + missing
        narrow = lost * SHARE_ONE // (width + missing) if lost >= ONSET_LOST_MIN else 0
        return max(slow, wide, narrow)

    @property
    def run_holes(self) -> int:
        """Losses in the run, those not settled yet included."""
        fresh = (1 << max(0, self.width - max(0, self.before_run))) - 1
        return self.run_lost + (~self.bits & fresh).bit_count()

    def restart_run(self) -> None:
        """Begin a new run."""
        self.run = self.run_lost = 0
        self.before_run = self.width
