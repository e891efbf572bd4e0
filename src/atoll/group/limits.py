# SPDX-License-Identifier: Apache-2.0
"""Named bounds of the group: what a member or an invited stranger can make us hold, send or compute, and why."""

from typing import Final

from atoll.base.units import HOUR_NS, MINUTE_NS, SECOND_NS

__all__ = [
    "BOOTS_MAX",
    "BOOT_FORGET_NS",
    "CONTROL_BYTES_MAX",
    "CYCLE_MAX",
    "CYCLE_ROUNDS_MAX",
    "DIGEST_INTERVAL_NS",
    "FANOUT_MAX",
    "FORKS_MAX",
    "GUESTS_MAX",
    "HEADS_MAX",
    "INVITES_MAX",
    "INVITE_BACK_NS",
    "INVITE_FORGET_NS",
    "INVITE_KEEP_NS",
    "INVITE_VALID_NS",
    "INVITE_VALID_S",
    "ISSUER_STATEMENTS_MAX",
    "JOIN_ASK_INTERVAL_NS",
    "JOIN_CLOCK_SKEW_S",
    "JOIN_CONNECT_NS",
    "JOIN_MESSAGES_MAX",
    "JOIN_NS_MAX",
    "JOIN_RESUME_NS",
    "JOIN_STALL_NS",
    "MEMBERS_MAX",
    "PENDING_MAX",
    "REMOVES_RESERVE",
    "RESTATE_NS",
    "RESTATE_NS_MAX",
    "SHARES_MAX",
    "STATEMENTS_MAX",
    "STATEMENT_BYTES_MAX",
    "SUMMARY_GAP_NS",
    "SYNC_MESSAGES_MAX",
    "TWIN_GRACE_NS",
    "TWIN_REPEAT_NS",
    "TWIN_TELL_NS",
    "VERDICT_ROUNDS_MAX",
]

# Constants of the specification: every member must use the same, or rosters do not converge.
MEMBERS_MAX: Final = 64  # Spec. Probing is quadratic in the group; the overlay holds as many.
FORKS_MAX: Final = 4  # Spec. Statements of one issuer under one counter. A restored backup makes 2; more is malice.
ISSUER_STATEMENTS_MAX: Final = 512  # Spec. Highest counter of admissions and removals: eight whole groups by one hand.
HEADS_MAX: Final = 4  # Spec. Ends of a history that one removal can keep: one for each fork.
STATEMENT_BYTES_MAX: Final = 900  # Spec. The largest one (8 IPv6 endpoints) is 680 bytes; must fit one message.
CYCLE_MAX: Final = 32  # Spec. Removals in dispute that are weighed one against the other, nearest to the founder first.
CYCLE_ROUNDS_MAX: Final = 32  # Spec. Disputes settled one after the other; the removals of all others are void.
VERDICT_ROUNDS_MAX: Final = 32  # Spec. Depth of removers of removers of removers... that is followed exactly.
CONTROL_BYTES_MAX: Final = 1200  # Spec. One control message (docs/spec/control.md; overlay/messages.py has the same).

GUESTS_MAX: Final = 32  # Spec. Telephones and the like, for all members together; the first to be admitted stay.
SHARES_MAX: Final = 7  # Spec. Recipients of a gateway's key in one statement: as many as fit STATEMENT_BYTES_MAX.
STATEMENTS_MAX: Final = 1024  # Admissions and removals held: 300 KiB, 0.2 s to verify at start.
REMOVES_RESERVE: Final = 128  # Room above STATEMENTS_MAX that only removals may use, so that a flood can be answered.

# A profile of ours that is not ours, by a copy of this machine or from a backup, is answered with one of our own so
# much later, and each time twice as late: two that are never told of each other make some twenty on the first day.
RESTATE_NS: Final = 10 * SECOND_NS
RESTATE_NS_MAX: Final = 6 * HOUR_NS

DIGEST_INTERVAL_NS: Final = 20 * SECOND_NS  # To one neighbour: 43 bit/s. Repairs what the immediate push lost.
SUMMARY_GAP_NS: Final = SECOND_NS  # Between two summaries to one peer: bounds what a hostile member can pull.
SYNC_MESSAGES_MAX: Final = 64  # One answer to a summary: 77 kB. The rest follows when the peer asks again.
FANOUT_MAX: Final = 4  # Members to whom a new admission or profile is passed on; removals go to all.
PENDING_MAX: Final = 16  # Own statements waiting for a signature: more than a person can ask for in that time.

INVITES_MAX: Final = 64  # Invitations open or remembered.
INVITE_VALID_S: Final = 600  # Time to walk to the other machine; short, because whoever reads the text can use it.
INVITE_VALID_NS: Final = INVITE_VALID_S * SECOND_NS
INVITE_FORGET_NS: Final = INVITE_VALID_NS + HOUR_NS  # Until then a late comer is told "expired" or "used".
INVITE_KEEP_NS: Final = MINUTE_NS  # Stored so often while one is open: what a crash can add to it.
INVITE_BACK_NS: Final = MINUTE_NS  # A clock that went back by less between two processes was adjusted, not set back.
JOIN_MESSAGES_MAX: Final = 32  # One slice of the roster to a joiner: 38 kB, about 120 statements.
JOIN_CONNECT_NS: Final = 20 * SECOND_NS  # Four WireGuard handshake attempts (5 s apart).
JOIN_ASK_INTERVAL_NS: Final = SECOND_NS  # A request or its answer may be lost.
JOIN_STALL_NS: Final = 15 * SECOND_NS  # Without any progress: the inviter is gone.
JOIN_RESUME_NS: Final = SECOND_NS // 4  # After the last part of a slice: longer than the gaps within one.
JOIN_NS_MAX: Final = 2 * MINUTE_NS  # Whatever the inviter sends.
JOIN_CLOCK_SKEW_S: Final = 300  # A joiner's own clock may be wrong by this before it calls an invitation expired.

BOOTS_MAX: Final = 4  # Processes of one member that are told apart.
BOOT_FORGET_NS: Final = 10 * MINUTE_NS  # A process silent for so long is taken for ended.
TWIN_GRACE_NS: Final = 5 * SECOND_NS  # A packet of a process that just ended may come so late; later it is alive.
TWIN_REPEAT_NS: Final = (
    SECOND_NS  # Only one of them holds the session at a time, so the one that must end is told often.
)
TWIN_TELL_NS: Final = MINUTE_NS  # For so long after it was last seen that there are two.
