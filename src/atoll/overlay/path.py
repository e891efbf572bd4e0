# SPDX-License-Identifier: Apache-2.0
"""Decides how one path to one member is: when to probe it, what the probes say, and what state that makes.

A path is direct or goes through one relay. Both ends send probes, each at its own pace; each probe echoes the newest
one of the other end and says which of the last 32 arrived. So every probe that arrives gives its receiver a round
trip, the loss in both directions, and, by ``interval_ms``, the time at which its absence is news. No request has to
time out before a cut is seen (ADR 0005).

Rules of this file:

* A probe is never sent later than the one before it promised. It may be sent sooner, and is while the pace slows
  down: else the loss of the one probe that announces it would look like a cut.
* Our own lateness is never the peer's silence: after a stall ``forgive`` starts all waiting anew.
* One question (flag ``ASK``) gets at most one answer, answers are rationed, and an answer is never answered.
* Only a pace that a peer wants for itself (flag ``WANT``) is followed; else two ends would keep each other awake.
"""

from typing import Final

import msgspec

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.overlay.choice import URGENT_LOSS, PathState
from atoll.overlay.delivery import Probed
from atoll.overlay.estimate import Latency
from atoll.overlay.limits import (
    ANSWER_GAP_NS,
    ANSWER_SPACING_NS,
    ANSWERS_BURST,
    PROBE_INTERVAL_NS_MAX,
    PROBE_INTERVAL_NS_MIN,
    SENT_RING,
)
from atoll.overlay.loss import ALARM, CALM, MODULUS, SHARE_ONE, WINDOW, Window, newer_by
from atoll.overlay.messages import Probe

__all__ = ["ANSWER", "ASK", "NEVER_NS", "TOGETHER_NS", "WANT", "Path", "Reason"]

ASK: Final = 1  # Spec. Answer at once.
ANSWER: Final = 2  # Spec. This is such an answer.
WANT: Final = 4  # Spec. The interval is the sender's own wish, and the receiver should probe as often.

NEVER_NS: Final = (1 << 63) - 1  # Later than any clock.

JITTER_FLOOR_NS: Final = 25 * MILLISECOND_NS  # A busy host delays a probe by this much without meaning anything.
JITTER_MAX_NS: Final = 500 * MILLISECOND_NS  # No jitter excuses more.
JITTER_UNKNOWN_NS: Final = 500 * MILLISECOND_NS  # Before the first round trip.
JITTER_SIGMAS: Final = 4

SILENT_PROBES: Final = 2  # Missing probes beyond the first that make a path silent ...
SILENT_NS_MIN: Final = 50 * MILLISECOND_NS  # ... each counted as this long at least.
UNANSWERED_MAX: Final = 8  # Questions without any sound: silent too, however slow the pace was.
ONE_WAY_PROBES: Final = 3
ONE_WAY_NS: Final = 150 * MILLISECOND_NS  # So long must the oldest lost probe be overdue.
UNHEARD_NS: Final = 2 * SECOND_NS  # A path that never worked is failed after this.
CHECK_NS: Final = 20 * MILLISECOND_NS  # While in doubt, look this often.
RECENT_BITS: Final = 0xFF  # The newest 8 must have arrived for doubt or failure to end.
RECENT_WIDTH: Final = 16  # Of the probes with which a sudden loss of data is compared.
JITTERED_NS_MIN: Final = 500 * MILLISECOND_NS  # Only slow paces are jittered; fast ones need their rhythm.
TOGETHER_NS: Final = 60 * MILLISECOND_NS  # A slow probe may go so much earlier, so that one waking serves several.
SLOWING_PROBES: Final = 3  # A slower pace is announced so often before it holds: one lost probe must not be a cut.
FORGIVEN_NS: Final = 100 * MILLISECOND_NS  # After a stall, what was queued meanwhile says nothing about time.
RTT_US_MAX: Final = 60_000_000
LOSS_SAMPLES_MIN: Final = WINDOW  # Fewer probes than this do not rank a path.
MIRROR_LAPSE: Final = 3  # A peer's wish holds for this many of its intervals, and a second.


class Reason:
    """Why a path is not ok."""

    NONE: Final = ""
    NEW: Final = "new"
    MISSING: Final = "missing"  # A probe or two; nothing to conclude yet.
    SILENT: Final = "silent"
    ONE_WAY: Final = "one-way"
    LOSSY_OUT: Final = "lossy-out"
    LOSSY_IN: Final = "lossy-in"
    UNDELIVERED: Final = "undelivered"  # Probes get through, data do not.


_LOSSY: Final = (Reason.LOSSY_OUT, Reason.LOSSY_IN)
_PROBED: Final = (*_LOSSY, Reason.SILENT, Reason.ONE_WAY)  # What probes find out.
_BAD: Final = (*_LOSSY, Reason.UNDELIVERED)


class Path(msgspec.Struct):
    """One path to one member.

    Attributes:
        created_ns: When it came into being; ``state_ns``: when its state began.
        wish_ns: The pace that we want, 0: none. ``mirror_ns``: the peer's, until ``mirror_until_ns``.
        sequence: Of our newest probe. ``began``: before the first one; anything, but another number in each life.
        sent_ns: When our newest probes left, by sequence modulo SENT_RING.
        due_ns: When our next probe leaves. ``check_ns``: when the state must be judged though nothing comes.
        rtt_us: The newest round trip; ``predicted_us`` and ``deviation_us``: what the estimate says, 0: never measured.
        allowance_ns: Jitter that means nothing.
        gap_ns: The pace of the newest probe; ``slowing``: how many were sent at it after a slower one was announced.
        expect_ns: When the absence of the peer's next probe is news.
        asked_ns: Our questions since we last heard anything.
        missing_out: Our newest probes that the peer should have echoed and did not; ``missing_out_ns``: since when.
        data_sent: What the peer says it sent us here by its newest probe; -1: none yet. ``data_seen``: what came.
        base_sent: The same by the probe before, like ``base_seen``.
        condemned_ns: Until when it counts as one that delivers no data; ``undelivered``: their loss, in 1/10000.
        trouble_ns: When probes last found it failed or lossy.
        good_ns: Since when the path has been ok at about a per cent of loss or less; -1: it is not.
    """

    created_ns: int
    state: int = PathState.UNKNOWN
    reason: str = Reason.NEW
    state_ns: int = 0
    wish_ns: int = 0
    mirror_ns: int = 0
    mirror_until_ns: int = 0
    mirror_floor_ns: int = PROBE_INTERVAL_NS_MIN
    sequence: int = 0
    began: int = 0
    sent_ns: list[int] = []
    last_sent_ns: int = -NEVER_NS
    due_ns: int = NEVER_NS
    check_ns: int = NEVER_NS
    gap_ns: int = 0
    slowing: int = 0
    burst: int = 0
    burst_gap_ns: int = 0
    asked_ns: list[int] = []
    answer_ns: int = 0
    heard_ns: int = -1
    interval_ns: int = 0
    expect_ns: int = NEVER_NS
    echo_sent_us: int = 0
    echoed: int = 0
    rtt_us: int = 0
    predicted_us: int = 0
    deviation_us: int = 0
    allowance_ns: int = JITTER_UNKNOWN_NS
    missing_out: int = 0
    missing_out_ns: int = 0
    forgiven_ns: int = -1
    data_sent: int = -1
    data_seen: int = 0
    base_sent: int = -1
    base_seen: int = 0
    condemned_ns: int = 0
    undelivered: int = 0
    trouble_ns: int = -NEVER_NS
    good_ns: int = -1
    inward: Window = msgspec.field(default_factory=Window)
    outward: Window = msgspec.field(default_factory=Window)
    latency: Latency = msgspec.field(default_factory=Latency)

    # Sending.

    def want(self, interval_ns: int, mirror_floor_ns: int, now_ns: int) -> None:
        """Set our own pace (0: none) and the fastest pace of the peer's that we follow."""
        if interval_ns != self.wish_ns or mirror_floor_ns != self.mirror_floor_ns:
            self.wish_ns, self.mirror_floor_ns = interval_ns, mirror_floor_ns
            self._hasten(now_ns)

    def ask(self, count: int, gap_ns: int, now_ns: int) -> None:
        """Send a burst of ``count`` questions, ``gap_ns`` apart, from now on; a burst under way is not lengthened."""
        if not self.burst:
            self.burst, self.burst_gap_ns, self.due_ns = count, gap_ns, now_ns

    @property
    def idle(self) -> bool:
        """Whether nothing wants this path any more: no wish, no burst, and the peer's promise has lapsed."""
        return not self.wish_ns and not self.burst and self.due_ns == NEVER_NS

    @property
    def deadline_ns(self) -> int:
        """When ``probe`` or ``judge`` is due."""
        return min(self.due_ns, self.check_ns)

    def is_due(self, now_ns: int) -> bool:
        """Return whether ``probe`` is due, or slow and nearly due while we are awake anyway."""
        return now_ns >= self.due_ns or (
            self.gap_ns >= JITTERED_NS_MIN and not self.burst and now_ns + TOGETHER_NS >= self.due_ns
        )

    def _pace_ns(self, now_ns: int) -> int:
        if self.burst:
            return self.burst_gap_ns
        if self.mirror_ns and now_ns < self.mirror_until_ns:
            mirror_ns = max(self.mirror_ns, self.mirror_floor_ns)
            return min(self.wish_ns, mirror_ns) if self.wish_ns else mirror_ns
        return self.wish_ns

    def _hasten(self, now_ns: int) -> None:
        pace_ns = self._pace_ns(now_ns)
        if pace_ns:
            self.due_ns = min(self.due_ns, max(now_ns, self.last_sent_ns + pace_ns))

    def probe(self, now_ns: int, jitter: int, *, answer: bool = False) -> Probe:
        """Make the probe to send now.

        Args:
            now_ns: Now; it goes out at once.
            jitter: Uniform in 0 to 255; shortens a slow pace by up to a quarter.
            answer: Whether it answers a question.
        """
        flags = ANSWER if answer else 0
        if self.burst and not answer:
            self.burst -= 1
            flags |= ASK
            if len(self.asked_ns) < SENT_RING:
                self.asked_ns.append(now_ns)
                if self.state in (PathState.FAILED, PathState.SUSPECT):
                    self.check_ns = min(self.check_ns, now_ns + CHECK_NS)
        pace_ns = self._pace_ns(now_ns)
        if pace_ns and pace_ns == self.wish_ns and not self.burst:
            flags |= WANT
        self.sequence = (self.sequence + 1) % MODULUS
        slot = self.sequence % SENT_RING
        if not self.sent_ns:
            self.sent_ns = [-NEVER_NS] * SENT_RING
        self.sent_ns[slot] = self.last_sent_ns = now_ns
        if self.gap_ns and self.slowing < SLOWING_PROBES and (pace_ns > self.gap_ns or not pace_ns):
            gap_ns = self.gap_ns
            self.slowing += 1
        else:
            gap_ns = self.gap_ns = pace_ns
            self.slowing = 0
        if gap_ns >= JITTERED_NS_MIN:
            self.due_ns = now_ns + gap_ns - (gap_ns >> 10) * jitter
        else:
            self.due_ns = now_ns + gap_ns if gap_ns else NEVER_NS
        if self.heard_ns < 0:
            self.check_ns = min(self.check_ns, self.created_ns + UNHEARD_NS)
            echo, seen, held_us = 0, 0, 0
        else:
            echo, seen = self.inward.last, self.inward.bits
            held_us = (now_ns - self.heard_ns) // 1000 % MODULUS
        return Probe(
            self.sequence,
            now_ns // 1000 % MODULUS,
            -(-pace_ns // MILLISECOND_NS),
            echo,
            self.echo_sent_us,
            held_us,
            seen,
            flags,
            max(self.data_sent, 0),
            self.data_seen,
        )

    # Receiving.

    def receive(self, probe: Probe, now_ns: int) -> bool:
        """Take a probe of the peer; return whether it must be answered now. Call ``judge`` after it."""
        if self.inward.arrived(probe.sequence):
            self.echo_sent_us, self.heard_ns = probe.sent_us, now_ns
            self.interval_ns = min(probe.interval_ms * MILLISECOND_NS, PROBE_INTERVAL_NS_MAX)
            if self.asked_ns:
                self.asked_ns = []
            if probe.flags & WANT and self.interval_ns:
                self.mirror_ns = self.interval_ns
                self.mirror_until_ns = now_ns + MIRROR_LAPSE * self.interval_ns + SECOND_NS
                if self.due_ns - now_ns > self.interval_ns:
                    self._hasten(now_ns)
        self._hear_echo(probe, now_ns)
        self.expect_ns = now_ns + self.interval_ns + self.allowance_ns if self.interval_ns else NEVER_NS
        if self.outward.holes + self.outward.run_lost + self.inward.holes + self.inward.run_lost:
            self._watch_run(now_ns)
        if probe.flags & (ASK | ANSWER) != ASK:
            return False
        # Questions that queued up while we did not run come at once; one answer tells of all of them.
        if now_ns - self.last_sent_ns < ANSWER_SPACING_NS or self.answer_ns > now_ns + ANSWERS_BURST * ANSWER_GAP_NS:
            return False
        self.answer_ns = max(self.answer_ns, now_ns) + ANSWER_GAP_NS
        return True

    def count_data(self, sent: int, seen: int) -> tuple[int, int]:
        """Note the peer's data on this path when its newest probe came; our next probe takes the numbers back.

        Returns:
            How many were sent between the two probes before this one, and how many of them are missing by now. What
            came in no more than a probe's distance late is not missing.
        """
        carried, came = newer_by(self.data_sent, self.base_sent), newer_by(seen, self.base_seen)
        known = self.base_sent >= 0 and carried > 0 and came >= 0  # Or this is a first probe, or an end began anew.
        self.base_sent, self.base_seen = self.data_sent, self.data_seen
        self.data_sent, self.data_seen = sent, seen
        return (carried, carried - came) if known else (0, 0)

    def condemn(self, until_ns: int, lost_share: int) -> None:
        """Count the path as one that delivers no data until then; a time past: no more. Call ``judge`` after it."""
        self.condemned_ns, self.undelivered = until_ns, lost_share

    def _hear_echo(self, probe: Probe, now_ns: int) -> None:
        echo = probe.echo_sequence
        age = newer_by(self.sequence, echo)
        if not echo or not 0 <= age < newer_by(self.sequence, self.began):  # Of an earlier life of ours, or a lie.
            return
        newest = self.outward.width == 0 or newer_by(echo, self.outward.last) > 0
        if not self.outward.reported(echo, probe.seen_bits, self.sequence):
            return
        if newest and age < SENT_RING and now_ns >= self.forgiven_ns:
            sent_us = self.sent_ns[echo % SENT_RING] // 1000 % MODULUS
            rtt_us = (now_ns // 1000 - sent_us - probe.echo_held_us) % MODULUS
            # An echo of a time that we did not send, or held longer than it can have been, measures nothing.
            if sent_us == probe.echo_sent_us and rtt_us <= RTT_US_MAX:
                self.rtt_us = max(rtt_us, 1)
                latency = self.latency
                latency.add(self.rtt_us, now_ns)
                self.predicted_us, self.deviation_us = latency.outlook()
                spread_ns = JITTER_SIGMAS * 1000 * self.deviation_us
                self.allowance_ns = min(max(JITTER_FLOOR_NS, spread_ns), JITTER_MAX_NS)
        self._count_missing_out(now_ns)

    def _count_missing_out(self, now_ns: int) -> None:
        """Count our newest probes that this report of the peer should have covered and did not."""
        due_ns = now_ns - self._answer_ns()
        missing = newer_by(self.sequence, self.outward.last)
        while missing > 0:
            if missing >= SENT_RING or self.sent_ns[(self.outward.last + missing) % SENT_RING] <= due_ns:
                break
            missing -= 1
        if missing and now_ns < self.forgiven_ns:
            missing = 0
        if missing and not self.missing_out:
            self.missing_out_ns = now_ns
        self.missing_out = missing

    def _answer_ns(self) -> int:
        """Return within which time an answer comes: the longer of the usual and the newest round trip, and jitter."""
        return max(self.predicted_us, self.rtt_us) * 1000 + self.allowance_ns

    def _watch_run(self, now_ns: int) -> None:
        for window in (self.outward, self.inward):
            if 100 * window.run_holes > window.run + window.width + 200:
                self.outward.restart_run()
                self.inward.restart_run()
                self.good_ns = now_ns if self.state == PathState.OK else -1
                return

    # Judging.

    def judge(self, now_ns: int) -> bool:
        """Bring the state up to date; return whether state or reason changed."""
        state, reason = self._verdict(now_ns)
        if state == PathState.OK:
            self.check_ns = self.expect_ns
        elif state == PathState.UNKNOWN:
            self.check_ns = self.created_ns + UNHEARD_NS
        elif state == PathState.FAILED:
            self.check_ns = NEVER_NS  # Only a sound ends it.
        elif reason == Reason.UNDELIVERED and now_ns < self.expect_ns:
            self.check_ns = min(self.expect_ns, self.condemned_ns)
        else:
            self.check_ns = now_ns + CHECK_NS
        if state == self.state and reason == self.reason:
            return False
        if state == PathState.OK:
            self.good_ns = now_ns
            self.outward.restart_run()
            self.inward.restart_run()
        else:
            self.good_ns = -1
        left, self.state, self.reason, self.state_ns = self.reason, state, reason, now_ns
        if reason in _PROBED or left in _PROBED:
            self.trouble_ns = now_ns
        return True

    def _verdict(self, now_ns: int) -> tuple[PathState, str]:
        if self.heard_ns < 0 or not self.outward.width:
            if now_ns < self.created_ns + UNHEARD_NS:
                return PathState.UNKNOWN, Reason.NEW
            return PathState.FAILED, Reason.SILENT if self.heard_ns < 0 else Reason.ONE_WAY
        late_ns = now_ns - self.expect_ns
        if late_ns >= 0:
            patience_ns = SILENT_PROBES * max(self.interval_ns, SILENT_NS_MIN)
            if late_ns >= patience_ns or self._unanswered(now_ns) >= UNANSWERED_MAX:
                return PathState.FAILED, Reason.SILENT
        elif self.missing_out >= ONE_WAY_PROBES and now_ns - self.missing_out_ns >= ONE_WAY_NS:
            return PathState.FAILED, Reason.ONE_WAY
        doubtful = late_ns >= 0 or self.missing_out > 0
        doubtful |= self.inward.bits & self.outward.bits & RECENT_BITS != RECENT_BITS
        if self.state == PathState.FAILED and doubtful:
            return PathState.FAILED, self.reason
        lossy = self.reason in _LOSSY
        if doubtful or lossy:
            bar = CALM if lossy else ALARM
            if self.outward.score(self.missing_out) >= bar:
                return PathState.SUSPECT, Reason.LOSSY_OUT
            if self.inward.score() >= bar:
                return PathState.SUSPECT, Reason.LOSSY_IN
        if now_ns < self.condemned_ns:
            return PathState.SUSPECT, Reason.UNDELIVERED
        return (PathState.SUSPECT, Reason.MISSING) if doubtful else (PathState.OK, Reason.NONE)

    def _unanswered(self, now_ns: int) -> int:
        due_ns = now_ns - self._answer_ns()
        count = 0
        for asked_ns in self.asked_ns:
            if asked_ns > due_ns:
                break
            count += 1
        return count

    def forgive(self, now_ns: int) -> None:
        """Begin all waiting anew: we were stalled, and what did not come may have come and gone."""
        self.forgiven_ns = now_ns + FORGIVEN_NS
        self.asked_ns = []
        self.missing_out = 0
        if self.expect_ns != NEVER_NS and self.heard_ns >= 0:
            self.expect_ns = max(self.expect_ns, now_ns + self.interval_ns + self.allowance_ns)
            if self.state == PathState.OK:
                self.check_ns = self.expect_ns
        if self.state == PathState.UNKNOWN:
            self.created_ns = now_ns
            self.check_ns = now_ns + UNHEARD_NS

    # Reading.

    @property
    def working(self) -> bool:
        """Whether packets may be trusted to it: nothing worse than a doubt."""
        return self.state == PathState.OK or self.reason == Reason.MISSING

    @property
    def bad(self) -> bool:
        """Whether it should be left: failed or lossy."""
        return self.state == PathState.FAILED or self.reason in _BAD

    @property
    def measured(self) -> bool:
        """Whether its loss rests on enough probes to rank it."""
        return self.outward.slow + self.outward.width >= LOSS_SAMPLES_MIN

    def loss_out(self) -> int:
        """Return the loss towards the peer, in 1/10000; a path that delivers no data counts as urgently lossy."""
        lost = _loss(self.outward, self.missing_out, onset=self.bad)
        if self.reason != Reason.UNDELIVERED:
            return lost
        return max(lost, self.undelivered, URGENT_LOSS)  # A path that loses data only is left, however little it is.

    def loss_in(self) -> int:
        """Return the loss from the peer, in 1/10000."""
        return _loss(self.inward, 0, onset=self.bad)

    def probed_out(self) -> Probed:
        """Return what the probes towards the peer say, for a comparison with data."""
        window = self.outward
        width = min(window.width, RECENT_WIDTH)
        lost = width - (window.bits & ((1 << width) - 1)).bit_count() + self.missing_out
        recent = lost * SHARE_ONE // (width + self.missing_out) if width else 0
        slow = window.share()
        return Probed(self.allowance_ns, max(recent, slow), slow)

    def judged_by_probes(self, since_ns: int) -> bool:
        """Whether probes find fault with it, or did since then: what data were lost is explained."""
        return self.reason in _PROBED or self.trouble_ns >= since_ns

    def lost_words(self, now_ns: int) -> str:
        """Return the evidence of loss in words, such as ``lost 3 of 412 probes out, 0 of 408 in``."""
        parts: list[str] = []
        for window, name in ((self.outward, "out"), (self.inward, "in")):
            parts.append(f"{window.slow_lost + window.holes} of {window.slow + window.width} probes {name}")
        silence = ""
        if self.state == PathState.FAILED and self.heard_ns >= 0:
            silence = f", nothing heard for {(now_ns - self.heard_ns) // MILLISECOND_NS} ms"
        data = f", {self.undelivered // 100} % of the data out" if self.reason == Reason.UNDELIVERED else ""
        return "lost " + ", ".join(parts) + data + silence


def _loss(window: Window, missing: int, *, onset: bool) -> int:
    if onset:
        return min(window.onset_share(missing), SHARE_ONE)
    return window.proven_share()
