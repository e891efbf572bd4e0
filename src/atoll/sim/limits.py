# SPDX-License-Identifier: Apache-2.0
"""Every bound of the simulator, with its reason."""

from typing import Final

from atoll.base.units import MILLISECOND_NS

__all__ = [
    "BACKLOG_BYTES_MAX",
    "DATAGRAM_BYTES_MAX",
    "DRIFT_PPM_MAX",
    "EVENTS_MAX",
    "FAULTS_MAX",
    "HOSTILE_SEEN_MAX",
    "IN_FLIGHT_MAX",
    "IP_UDP_BYTES",
    "NODES_MAX",
    "OUTBOX_MAX",
    "SEEDS_MAX",
    "SOJOURN_MIN_NS",
    "STUCK_TICKS_MAX",
    "TRACE_BUFFER_BYTES",
]

NODES_MAX: Final = 1000  # Links are N^2 and each costs about 3 kB for its own random generator.
IN_FLIGHT_MAX: Final = 1_000_000  # More datagrams than this at once is a storm, not a network: about 300 MB.
EVENTS_MAX: Final = 1_000_000_000  # In one world: 20 busy nodes for some weeks. Beyond it, packets breed packets.
OUTBOX_MAX: Final = 4096  # One call to a program sends at most this many datagrams; more is an amplifier.
DATAGRAM_BYTES_MAX: Final = 65_507  # Spec: the most that UDP over IPv4 carries.
IP_UDP_BYTES: Final = 28  # Spec: what IPv4 and UDP add to each datagram; counted against a link's rate.
BACKLOG_BYTES_MAX: Final = 212_992  # A paused node's socket buffer: Linux' default for one UDP socket.
STUCK_TICKS_MAX: Final = 1000  # Ticks in a row that leave the deadline in the past: the program will never move on.
DRIFT_PPM_MAX: Final = 10_000  # 1 %: fifty times worse than a bad crystal, so that margins show.
SOJOURN_MIN_NS: Final = 10 * MILLISECOND_NS  # Shortest mean stay in a state of bursty loss; bounds the work per second.
FAULTS_MAX: Final = 1000  # In one schedule; a reader must be able to follow it.
HOSTILE_SEEN_MAX: Final = 64  # Datagrams that an adversary remembers for replay, newest first to go last.
TRACE_BUFFER_BYTES: Final = 1 << 16  # Hashed in one go; smaller costs more calls, larger gains nothing.
SEEDS_MAX: Final = 1_000_000  # In one run; about a week.
