# SPDX-License-Identifier: Apache-2.0
"""The one idea: what a machine is, how its inputs and state are written, and how its past is re-run.

Decides when bytes are a well-formed tuple (``codec``), who still holds a lease (``lease``), what a machine's journal
looks like (``journal``), and whether a machine decides again what it decided then (``replay``).
"""

from atoll.core.codec import Codec
from atoll.core.entropy import SEED_BYTES, Draws
from atoll.core.journal import Append, Provenance, Recorder, Suspension
from atoll.core.lease import Lease, LeaseTable
from atoll.core.machine import Machine, MachineKind, Tick, Tuple
from atoll.core.replay import Replayed, ReplayResult, replay

__all__ = [
    "SEED_BYTES",
    "Append",
    "Codec",
    "Draws",
    "Lease",
    "LeaseTable",
    "Machine",
    "MachineKind",
    "Provenance",
    "Recorder",
    "ReplayResult",
    "Replayed",
    "Suspension",
    "Tick",
    "Tuple",
    "replay",
]
