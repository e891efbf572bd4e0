# SPDX-License-Identifier: Apache-2.0
"""Decides how atoll is shown and measured on one machine: the WAN emulator, the demo, scale experiments."""

from dataclasses import dataclass

__all__ = ["DemoOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What ``atoll demo`` asks for; ``atoll.lab.demo.main`` takes it and returns the exit status.

    Attributes:
        seed: Decides every fault.
        speed: Of the script: 2 plays it in half the time.
        no_faults: The same traffic on a healthy network and healthy machines; nobody may be called slow.
        as_json: One JSON object instead of the live table.
    """

    seed: int = 7
    speed: float = 1.0
    no_faults: bool = False
    as_json: bool = False
