# SPDX-License-Identifier: Apache-2.0
"""What other encrypted overlays need to leave a dead path: the ``peer`` field of part ``live`` of bench/heal.py.

They cannot run on atoll's emulator, which is sockets in user space. They were measured on the same kind of trouble in
kernel network namespaces, with the harness and the results that bench/data/peers/README.md describes; the ratio is
one of behaviours, not of two runs side by side. The fastest encrypted peer is quoted, tuned as far as it was tuned
there.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Peers", "fastest_peer"]

MEASURED: Final = Path(__file__).resolve().parent / "data" / "peers" / "failover.json"


@dataclass(frozen=True)
class Peers:
    """The fastest peer: seconds from the cut until answers flow again, median and worst; and who it was."""

    cut_median_s: float | None
    cut_worst_s: float | None
    told: str


def fastest_peer() -> Peers:
    """Return the encrypted peer with the least median."""
    measured = json.loads(MEASURED.read_text())
    healed = [one for one in measured["peers"] if one["median_s"] is not None]
    best = min(healed, key=lambda one: float(one["median_s"]))
    told = f"{best['name']} ({best['about']}; {best['version']}), {best['trials']} trials"
    return Peers(float(best["median_s"]), float(best["max_s"]), told)
