# SPDX-License-Identifier: Apache-2.0
"""Limits of the packet device. Each says why it has its value and what happens at it."""

from typing import Final

from atoll.base.units import KIB, MILLISECOND_NS, SECOND_NS
from atoll.overlay.limits import MEMBERS_MAX, RELAYED_LABELS_MAX

__all__ = [
    "ACCEPTS_PER_TURN_MAX",
    "ACCESS_ENTRIES_MAX",
    "ARRIVAL_LABELS_MAX",
    "BATCHES_PER_TURN_MAX",
    "BYTES_PER_TURN",
    "CARRIERS_MAX",
    "CONTROL_BURST",
    "CONTROL_PER_S",
    "COUNTERS_NS",
    "DATAGRAMS_HELD_MAX",
    "DATAGRAMS_PER_TURN_MAX",
    "DIALS_REMEMBERED_MAX",
    "DIAL_NS",
    "DOOR_BACKLOG",
    "ENDPOINT_NS",
    "FLOWS_MAX",
    "FLOW_ASK_NS",
    "FLOW_IDLE_NS",
    "FLOW_NS",
    "FLOW_QUESTIONS_BURST",
    "FLOW_QUESTIONS_PER_S",
    "FORWARD_LABELS_MAX",
    "GATEWAYS_MAX",
    "GUESTS_MAX",
    "GUEST_BURST_BYTES",
    "GUEST_BYTES_S",
    "HELD_BYTES_MAX",
    "IPC_BYTES_MAX",
    "IPC_SOCKET_BYTES",
    "KEEPALIVE_S",
    "LISTEN_MAX",
    "METER_BURST_BYTES_MIN",
    "METER_BURST_NS",
    "METER_NS",
    "ORDERS_MAX",
    "OUTBOX_MAX",
    "OUTLIVES_NS",
    "PACKETS_QUEUED_MAX",
    "PACKETS_RECENT_MAX",
    "PACKETS_WAITING_MAX",
    "PACKET_BYTES_MAX",
    "PORT_PACKETS_PER_TURN_MAX",
    "QUEUE_NS",
    "RECENT_NS",
    "REDIAL_NS_MAX",
    "REDIAL_NS_MIN",
    "SHARES_PER_ORDER_MAX",
    "SMALL_BYTES_MAX",
    "STAMP_AHEAD_NS",
    "START_S_MAX",
    "STOP_S_MAX",
    "STRANGERS_MAX",
    "TAGS_MAX",
    "TRAFFIC_ENTRIES_MAX",
    "TRANSMIT_LABELS_MAX",
    "TUN_ERRORS_BURST",
    "TUN_ERRORS_PER_S",
    "TUN_PORTS_MAX",
    "TUN_READS_PER_TURN_MAX",
    "UDP_FLOWS_MAX",
    "UDP_FLOW_S",
    "UNUSED_NS",
    "URGENT_QUEUED_MAX",
    "WAIT_NS",
    "WAYS_COUNTED_MAX",
]

# Tables. At the limit the order is refused and counted; control keeps within the same bounds.
TAGS_MAX: Final = 64  # The policy tag travels in six bits of the traffic class.
TRANSMIT_LABELS_MAX: Final = MEMBERS_MAX  # Relays towards one peer: every other member at most.
WAYS_COUNTED_MAX: Final = 4 * MEMBERS_MAX  # Ways to one peer whose data are counted: members come and go.
ARRIVAL_LABELS_MAX: Final = 2 * MEMBERS_MAX * MEMBERS_MAX  # Every origin through every relay, twice for renewals.
FORWARD_LABELS_MAX: Final = RELAYED_LABELS_MAX  # As many as control grants.
LISTEN_MAX: Final = 8  # Sockets of one node: a few addresses of either family.

# Packets.
PACKET_BYTES_MAX: Final = 9_216  # A jumbo frame. Our conduits send at most 1280. Longer: dropped and counted.
PACKETS_RECENT_MAX: Final = 16  # To one peer: what may be sent again when a way fails. Oldest goes.
RECENT_NS: Final = SECOND_NS  # By then its program has noticed by itself.
PACKETS_WAITING_MAX: Final = 16  # For one peer without a session: a few retries of its application. Oldest goes.
OUTBOX_MAX: Final = 4_096  # Datagrams that one call may leave to send; a tick makes a few for each peer. Newest goes.
KEEPALIVE_S: Final = 25  # WireGuard's usual one: below the 30 s after which the shortest-lived mappings go.

# Rules. Looked through for each connection and each UDP packet, in order; a person writes a few dozen.
ACCESS_ENTRIES_MAX: Final = 256
TRAFFIC_ENTRIES_MAX: Final = 64
UDP_FLOWS_MAX: Final = 4_096  # Questions of ours whose answers pass, while rules are in force. Oldest goes.
UDP_FLOW_S: Final = 180  # As connection trackers have it.

# Flows of this machine whose programs control is asked for, while a rule or `exec --tag` wants to know.
FLOWS_MAX: Final = 4_096  # Beyond: the one known longest is forgotten, and asked for again if it still sends.
FLOW_IDLE_NS: Final = 60 * SECOND_NS  # A port that was silent for so long may be another program's: asked again.
FLOW_ASK_NS: Final = SECOND_NS  # One flow is asked for at most this often: control looks through all processes.
FLOW_QUESTIONS_PER_S: Final = 200  # All of them. Beyond: asked for by a later packet; until then the other rules hold.
FLOW_QUESTIONS_BURST: Final = 100

# Connections over TCP. Peers are few; whoever else calls has little time, and the next one takes its place.
CARRIERS_MAX: Final = 2 * MEMBERS_MAX
STRANGERS_MAX: Final = 32
ACCEPTS_PER_TURN_MAX: Final = 16
UNUSED_NS: Final = 10 * SECOND_NS  # Without a peer that uses it, a connection is closed.
DIAL_NS: Final = 5 * SECOND_NS  # For a connection to come about.
REDIAL_NS_MIN: Final = 2 * SECOND_NS  # Between two tries; doubled until a peer used one, up to ...
REDIAL_NS_MAX: Final = 300 * SECOND_NS
DIALS_REMEMBERED_MAX: Final = 4 * MEMBERS_MAX

# Guests. The rate is more than the client of a gigabit network can send; more is a flood. Beyond: dropped and counted.
GUESTS_MAX: Final = 32  # As many as a group has.
GATEWAYS_MAX: Final = 4  # One, and those before it that some guests still know.
GUEST_BYTES_S: Final = 250_000_000
GUEST_BURST_BYTES: Final = 4 << 20
SHARES_PER_ORDER_MAX: Final = MEMBERS_MAX

# The TUN device. A read is up to 64 KiB; so many before orders and the network are looked at again.
TUN_READS_PER_TURN_MAX: Final = 8
BYTES_PER_TURN: Final = 32 << 10  # Sent, before the network is looked at: a large packet takes up to a millisecond.

# While the queue of the way out stands. What waits is looked at again after WAIT_NS; the queue must last that long.
QUEUE_NS: Final = 2 * MILLISECOND_NS  # What stands in the queue of the card; all that is more waits here.
WAIT_NS: Final = MILLISECOND_NS
HELD_BYTES_MAX: Final = 4 << 20  # 40 ms of 1 Gbit/s. Beyond: the newest is dropped and counted.
SMALL_BYTES_MAX: Final = 576  # A packet up to this may go ahead.
TUN_ERRORS_PER_S: Final = 100  # ICMPv6 errors to our own programs. Beyond: dropped.
TUN_ERRORS_BURST: Final = 100
TUN_PORTS_MAX: Final = 16  # Inner ports that stay control's.

# Control messages from one peer. Ten paths probed at the fastest pace are below 600 a second; more is a flood, and
# the control process is slower than this one. Beyond: dropped and counted.
CONTROL_PER_S: Final = 1_000
CONTROL_BURST: Final = 512

# Relaying. A burst is what a label may send at once after silence: a quarter of a second of its rate, and never less
# than a few full packets, or a small rate could not carry even one. Beyond: dropped, counted, reported.
METER_BURST_NS: Final = SECOND_NS // 4
METER_BURST_BYTES_MIN: Final = 16 * KIB

# Reports, each at most this often for one peer or label: often enough to be evidence, seldom enough to be cheap.
FLOW_NS: Final = 50 * MILLISECOND_NS
METER_NS: Final = 500 * MILLISECOND_NS
ENDPOINT_NS: Final = SECOND_NS
COUNTERS_NS: Final = 10 * SECOND_NS
STAMP_AHEAD_NS: Final = (
    60 * SECOND_NS
)  # One report a minute; a restart sets our handshake clock at most this far ahead.

# The process. A batch is what one system call carries between control and device; four of them fit a socket buffer.
# Small on purpose: a probe waits behind at most a buffer full of packets, a few milliseconds.
IPC_BYTES_MAX: Final = 32 * KIB  # At the limit: the next batch begins.
IPC_SOCKET_BYTES: Final = 256 * KIB
PACKETS_QUEUED_MAX: Final = 2_048  # On either side, towards the other. At the limit: the oldest packet goes, counted.
URGENT_QUEUED_MAX: Final = 8_192  # All but packets. At the limit: see ``queue.py``.
DATAGRAMS_HELD_MAX: Final = 64  # Until the end of a turn, to leave together: as many as one burst takes.
DATAGRAMS_PER_TURN_MAX: Final = 64  # From one socket before orders are looked at again: about a millisecond.
PORT_PACKETS_PER_TURN_MAX: Final = 32  # From a process that speaks with members: what it may have on its way to one.
BATCHES_PER_TURN_MAX: Final = 8  # From control before packets are looked at again.
START_S_MAX: Final = 20  # For the process to say that it listens; a slow machine needs two.
STOP_S_MAX: Final = 5  # For the process to end when asked; then it is killed.
DOOR_BACKLOG: Final = 8  # Who connects ends the process, so one does; see ``orphan.py``.
# Without control. Who was expelled stays admitted so long; and for so long the timestamp that control has stored is
# sure to be ahead of every handshake. A service manager starts a node again in a second or two.
OUTLIVES_NS: Final = STAMP_AHEAD_NS // 2
ORDERS_MAX: Final = 8192  # Orders that the nic has not taken; beyond it packets are dropped, and then the nic is stuck.
SOCKET_BUFFER_BYTES: Final = 4 * 1024 * KIB  # Asked for; the system may give less.
