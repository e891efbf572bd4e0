# SPDX-License-Identifier: Apache-2.0
"""Decides how two nodes keep a secret: WireGuard's handshake and transport, unchanged, as machines without I/O."""

from atoll.overlay.session.box import BOX_BYTES, open_box, seal_box
from atoll.overlay.session.events import DROP_REASONS, Burst, Counters, Data, Established, Outgoing, Received, Run
from atoll.overlay.session.limits import BURST_MAX, KEEPALIVE_S_MAX, PEERS_MAX, PLAINTEXT_BYTES_MAX
from atoll.overlay.session.noise import PrivateKey
from atoll.overlay.session.sessions import DATA_KINDS, Sessions

__all__ = [
    "BOX_BYTES",
    "BURST_MAX",
    "DATA_KINDS",
    "DROP_REASONS",
    "KEEPALIVE_S_MAX",
    "PEERS_MAX",
    "PLAINTEXT_BYTES_MAX",
    "Burst",
    "Counters",
    "Data",
    "Established",
    "Outgoing",
    "PrivateKey",
    "Received",
    "Run",
    "Sessions",
    "open_box",
    "seal_box",
]
