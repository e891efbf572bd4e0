# SPDX-License-Identifier: Apache-2.0
"""Limits of the session layer: ours, not the protocol's. Each says why it has its value and what happens at it."""

from typing import Final

from atoll.base.units import SECOND_NS

__all__ = [
    "BURST_MAX",
    "COOKIE_REPLIES_PER_S",
    "COOKIE_REPLY_BURST",
    "HANDSHAKES_PER_SOURCE_BURST",
    "HANDSHAKES_PER_SOURCE_PER_S",
    "HANDSHAKES_PER_S_MAX",
    "INITIATION_INTERVAL_NS",
    "KEEPALIVE_S_MAX",
    "OUTBOX_MAX",
    "PEERS_MAX",
    "PLAINTEXT_BYTES_MAX",
    "PREVIOUS_MAX",
    "RESPONDED_HOLD_NS",
    "SOURCES_MAX",
    "SOURCE_BYTES_MAX",
    "TIMESTAMP_GRAIN_NS",
]

# A full mesh of 50 nodes with room for a fivefold growth. A tick looks at every peer, so this also bounds a tick.
# At the limit: ``add_peer`` raises LimitError.
PEERS_MAX: Final = 256

# Old keypairs that may still open packets in flight. WireGuard keeps one; when both ends start a handshake at once two
# are superseded within one round trip, and dropping the older would lose what is on its way. At the limit: oldest goes.
PREVIOUS_MAX: Final = 2

# Datagrams waiting for the caller, who drains after each call; a tick makes at most 2 for each peer.
# At the limit: the new datagram is dropped and counted, as if the network had lost it.
OUTBOX_MAX: Final = 4 * PEERS_MAX

# Packets sealed at once: what the kernel hands over at once. At the limit: the caller has cut it.
BURST_MAX: Final = 128

# Fits the largest IPv6 packet without jumbograms. At the limit: ``seal`` raises UsageError.
PLAINTEXT_BYTES_MAX: Final = 65_536

# A port-mapping is forgotten after 30 s to minutes; an hour is already no keepalive. Above it: UsageError.
KEEPALIVE_S_MAX: Final = 3_600

# 50 initiations a second and peer, as the WireGuard of Linux has it. Faster ones are dropped and counted.
INITIATION_INTERVAL_NS: Final = SECOND_NS // 50

# More initiations than this in a second, from those who know our key, and each must show a cookie first. At about
# 0.3 ms each it is 3 % of a core.
HANDSHAKES_PER_S_MAX: Final = 100

# Under load, for each source that proved its address with a cookie; the numbers of Linux. Beyond: dropped and counted.
HANDSHAKES_PER_SOURCE_PER_S: Final = 20
HANDSHAKES_PER_SOURCE_BURST: Final = 5

# Sources remembered under load. At the limit the longest silent one goes if it has its full allowance again;
# otherwise the newcomer is dropped and counted.
SOURCES_MAX: Final = 1_024
SOURCE_BYTES_MAX: Final = 64  # Longer source names are cut; an IPv6 address with its port is 18 bytes.

# A reply costs about 15 us, so this is at most 3 % of a core. Beyond: no reply, counted; honest peers try again.
COOKIE_REPLIES_PER_S: Final = 2_000
COOKIE_REPLY_BURST: Final = 200

# Timestamps are rounded down to this (2^24 ns, as Linux does), so that a peer learns little about our clock.
TIMESTAMP_GRAIN_NS: Final = 1 << 24

# After we answered a handshake we start none of our own for this time: the answer is about to be confirmed, and two
# crossing handshakes cost twice the work. A second is more than any round trip and less than the peer's own retry.
RESPONDED_HOLD_NS: Final = SECOND_NS
