# SPDX-License-Identifier: Apache-2.0
"""A deterministic world for programs under test: network, clocks, disks and faults, all from one seed.

It decides when things happen and what goes wrong, never what a program does about it. Shipped, and documented in
docs/reference/simulator.md: whoever builds on atoll tests with the same world.
"""

from atoll.sim.checkers import ClocksForward, Goal, SendBudget, reachable, relays_between
from atoll.sim.clock import NodeClock
from atoll.sim.disk import DISK_BYTES, PowerCut, SimDisk
from atoll.sim.failure import SimulationFailure, seconds
from atoll.sim.faults import Fault, FaultKind, Schedule, Swarm, draw_schedule
from atoll.sim.hostile import Hostile
from atoll.sim.link import CLEAR, WHOLE, Burst, Jitter, Link, LinkSpec
from atoll.sim.program import Factory, Program, endpoint_of
from atoll.sim.runner import Result, Scenario, parse_seeds, run, run_seeds
from atoll.sim.seeds import derive, generator
from atoll.sim.station import Stats
from atoll.sim.topology import (
    Fate,
    Pair,
    RegionPing,
    Regions,
    Topology,
    full_mesh,
    mesh_of_matrix,
    mesh_of_regions,
    mesh_of_slices,
    parse_regions,
)
from atoll.sim.trace import Happened, Kind, Trace
from atoll.sim.world import COMMAND, Checker, World

__all__ = [
    "CLEAR",
    "COMMAND",
    "DISK_BYTES",
    "WHOLE",
    "Burst",
    "Checker",
    "ClocksForward",
    "Factory",
    "Fate",
    "Fault",
    "FaultKind",
    "Goal",
    "Happened",
    "Hostile",
    "Jitter",
    "Kind",
    "Link",
    "LinkSpec",
    "NodeClock",
    "Pair",
    "PowerCut",
    "Program",
    "RegionPing",
    "Regions",
    "Result",
    "Scenario",
    "Schedule",
    "SendBudget",
    "SimDisk",
    "SimulationFailure",
    "Stats",
    "Swarm",
    "Topology",
    "Trace",
    "World",
    "derive",
    "draw_schedule",
    "endpoint_of",
    "full_mesh",
    "generator",
    "mesh_of_matrix",
    "mesh_of_regions",
    "mesh_of_slices",
    "parse_regions",
    "parse_seeds",
    "reachable",
    "relays_between",
    "run",
    "run_seeds",
    "seconds",
]
