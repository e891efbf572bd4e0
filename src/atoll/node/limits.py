# SPDX-License-Identifier: Apache-2.0
"""Limits of the running node: its local API, its turns, its disk. Each says why, and what happens at it."""

from typing import Final

from atoll.base.units import KIB, MIB

__all__ = [
    "ANSWER_BYTES_MAX",
    "ANSWER_TAKEN_S_MAX",
    "ATTACHED_MAX",
    "ATTACHED_UNREAD_BYTES_MAX",
    "CLIENTS_MAX",
    "DESCRIPTORS_SPARE",
    "EVENTS_ALIVE_S",
    "EVENTS_INTERVAL_S",
    "FLOWS_ASKED_MAX",
    "FRAME_BYTES_MAX",
    "LOOK_RESTS",
    "METRICS_CONNECTIONS_MAX",
    "METRICS_HEAD_BYTES_MAX",
    "METRICS_KEPT_S",
    "METRICS_REQUEST_S",
    "METRICS_TAKEN_S",
    "METRICS_TURNED_AWAY_MAX",
    "METRICS_UNREAD_READS_MAX",
    "PRIVATE_RETRY_S",
    "REQUEST_BYTES_MAX",
    "STOCK_LOW",
    "STOCK_SOCKETS",
    "STOCK_TRIES",
    "STORE_S_MAX",
    "TAGGED_KEPT_S",
    "TAGGED_MAX",
    "TURN_INPUTS_MAX",
    "WITHHELD_MESSAGES_MAX",
]

# The local API.
REQUEST_BYTES_MAX: Final = 6 * MIB  # The code of an application in base64; others are below 1 KiB. Longer: the end.
ANSWER_BYTES_MAX: Final = 4 * MIB  # A status of 50 members is below 40 KiB. For clients; longer: the call fails.
CLIENTS_MAX: Final = 32  # Shells, dashboards and cron jobs of one person. One more: the longest idle one is closed.
ANSWER_TAKEN_S_MAX: Final = 30  # A client that does not read its answers for so long is gone; it is closed.

# Metrics over HTTP: strangers may reach the port.
METRICS_HEAD_BYTES_MAX: Final = 8 * KIB  # Of a request; Prometheus sends 300 bytes. Longer: 431, and the end.
METRICS_REQUEST_S: Final = 5.0  # For all of a request. Later: 408, and the end.
METRICS_TAKEN_S: Final = 5.0  # For a client to take its answer and to close; it is cut off.
METRICS_CONNECTIONS_MAX: Final = 16  # Prometheus in a pair, dashboards, people with curl. One more: 503.
METRICS_TURNED_AWAY_MAX: Final = 16  # Those who are being told 503. One more: cut off without a word.
METRICS_KEPT_S: Final = 1.0  # Who asks again within it gets the same text. One of 50 members takes 10 ms to make.
METRICS_UNREAD_READS_MAX: Final = 16  # Of 8 KiB, for what a client sends after its request. Then it is cut off.

# Programs attached to the node.
ATTACHED_MAX: Final = 512  # Connections and datagram endpoints of all programs together. One more: an error.
ATTACHED_UNREAD_BYTES_MAX: Final = MIB  # Answers to datagrams that a program has not read yet. More are dropped.
FRAME_BYTES_MAX: Final = 64 * KIB  # One write of a program, cut by our library. Longer: the connection ends.
EVENTS_ALIVE_S: Final = 10.0  # Without news a word comes so often that there are none.
EVENTS_INTERVAL_S: Final = 0.2  # How often is looked for news of the members, for those who want to hear them.

# Programs whose packets get a tag.
FLOWS_ASKED_MAX: Final = 512  # Flows that wait for one look through the processes. Beyond: the device asks again.
LOOK_RESTS: Final = 4  # A look is followed by a rest of so many times its length: a fifth of one processor at most.
TAGGED_MAX: Final = 256  # Programs started with a tag, as long as one of their processes lives. One more: an error.
TAGGED_KEPT_S: Final = 60.0  # How often is looked for those that have ended; until then their place is taken.
# The private network.
STOCK_SOCKETS: Final = 64  # Sockets made in it at a time, ahead of their use; about 3 KiB of the kernel's memory each.
STOCK_LOW: Final = 16  # With so few left more are made, which takes a tenth of a second: a browser opens fewer in it.
STOCK_TRIES: Final = 8  # Batches that one connection waits for, because others took them; FORWARD_CONNECTIONS_MAX.
PRIVATE_RETRY_S: Final = 60.0  # Where the system forbids it, members that ask do not make us try again before.

# Deciding and storing.
TURN_INPUTS_MAX: Final = 1000  # Answers within one turn; more would mean that the machine talks to itself. Rest: lost.
WITHHELD_MESSAGES_MAX: Final = 4096  # Messages that wait for a slow disk: a minute of a busy group. Newest is lost.
STORE_S_MAX: Final = 8  # A person waits so long for the disk: less than the command line's 10 s. Then it is an error.

# Open files besides what has a limit of its own: the journal, the log, the lock, libraries, and files being replaced.
DESCRIPTORS_SPARE: Final = 256

# Environments.
CARRIED_BYTES_MAX: Final = 32 * MIB  # For one other node, while it cannot be reached. More is dropped, and sent again.
ENVIRONMENTS_RETRY_S: Final = 1.0  # Before the server of environments is started again.
LINK_IDLE_S: Final = 30.0  # A stream to another node's server is closed when nothing was said for so long.
PORT_SOCKET_BYTES: Final = 256 * KIB  # Between the server and the packet device: what 50 members may have on its way.
