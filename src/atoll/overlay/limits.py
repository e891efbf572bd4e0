# SPDX-License-Identifier: Apache-2.0
"""Named bounds of the overlay: what a member can make us hold, send or compute at most, and why that much."""

from typing import Final

from atoll.base.units import MILLISECOND_NS, MINUTE_NS, SECOND_NS

__all__ = [
    "ANSWERS_BURST",
    "ANSWER_GAP_NS",
    "ANSWER_SPACING_NS",
    "CANDIDATES_MAX",
    "COPY_BUDGET_NS",
    "COPY_NS_MAX",
    "COPY_REFILL_SHARE",
    "EVIDENCE_CHARS_MAX",
    "FAST_PAIRS_MAX",
    "HISTORY_MAX",
    "MEMBERS_MAX",
    "PATHS_PER_PAIR_MAX",
    "PROBE_INTERVAL_NS_MAX",
    "PROBE_INTERVAL_NS_MIN",
    "REJECT_REASONS_MAX",
    "RELAYED_LABELS_MAX",
    "SENT_RING",
]

MEMBERS_MAX: Final = 64  # Probing is quadratic in the group; at 50 it costs 74 kbit/s a node, and RON stopped there.
CANDIDATES_MAX: Final = 3  # Relays kept ready for one pair: the oracle's gain beyond the third is a few per cent.
PATHS_PER_PAIR_MAX: Final = 10  # Direct, our candidates, the peer's candidates, and room for a change of either.
FAST_PAIRS_MAX: Final = 16  # Pairs probed at the active pace: 16 * 2 directions * 20/s * 108 B is 0.5 Mbit/s.
HISTORY_MAX: Final = 16  # Switches remembered for each pair: a screenful, and 16 minutes at the highest normal rate.
EVIDENCE_CHARS_MAX: Final = 160  # One line.

SENT_RING: Final = (
    128  # Own probes remembered for each path: a burst and 4 s at the active pace. Longer round trips look lossy.
)
PROBE_INTERVAL_NS_MIN: Final = 20 * MILLISECOND_NS  # No peer can make us probe faster than a burst.
PROBE_INTERVAL_NS_MAX: Final = 60 * SECOND_NS  # What interval_ms can express is about 65 s.
ANSWERS_BURST: Final = (
    48  # Answers in a row on one path: one burst and a half. One answer for one question, never more.
)
ANSWER_GAP_NS: Final = 10 * MILLISECOND_NS  # Sustained: 100 answers a second and path, twice the pace of a burst.
ANSWER_SPACING_NS: Final = 5 * MILLISECOND_NS  # No answer so soon after another probe on the path, which says the same.

COPY_NS_MAX: Final = SECOND_NS  # One suspicion doubles the traffic for at most this long.
COPY_BUDGET_NS: Final = 2 * SECOND_NS  # Two suspicions in a row get it in full ...
COPY_REFILL_SHARE: Final = 5  # ... and in the long run copies take at most a fifth of the time.

RELAYED_LABELS_MAX: Final = 4096  # Labels whose traffic we meter: all ordered pairs of a full group.
REJECT_REASONS_MAX: Final = 32  # Counters of rejected input, by reason; reasons are constants of ours.

assert COPY_NS_MAX <= COPY_BUDGET_NS < MINUTE_NS
