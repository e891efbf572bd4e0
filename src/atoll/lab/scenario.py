# SPDX-License-Identifier: Apache-2.0
"""The demo's script: five sites with measured latencies, and what goes wrong when. Everything follows from the seed.

The live demo, its simulated twin and the acceptance test play the same script; the machines that become slow in the end
are in the live demo only (``lab/slowness.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Final

from atoll.base.units import MILLISECOND_NS
from atoll.core.entropy import Draws
from atoll.health.members.vitals import CALM_NS, TERMS
from atoll.sim import Regions, Topology, mesh_of_regions, parse_regions

__all__ = [
    "AFFLICTABLE",
    "SITES",
    "Affliction",
    "Phase",
    "SlowPhase",
    "Trouble",
    "demo_topology",
    "packaged_regions",
    "phases",
    "sites_of",
    "slow_phases",
]

SITES: Final = ("fra", "ash", "sin", "home", "gpu")
AFFLICTABLE: Final = ("gpu", "ash", "fra")  # Neither end of the pair whose relay is killed: one of them is left.
_REGIONS: Final = ("europe-west3", "us-east4", "asia-southeast1", "europe-west2", "us-west1")


class Trouble(StrEnum):
    """What a phase does to the path of its client."""

    LOSS = "loss"
    ONE_WAY_LOSS = "one-way loss"
    BLACKHOLE = "blackhole"
    RELAY_KILLED = "relay killed"


@dataclass(frozen=True, slots=True)
class Phase:
    """One trouble and the client that suffers it.

    Attributes:
        trouble: What happens.
        source: Site of the client; ``target`` that of the server.
        begin_ms: Onset, ms of script time; ``end_ms``: when what was broken on the wire is mended.
        loss: Share of datagrams lost, 1/10000; both ways, or only from source to target.
        silence_max_ms: The promise: the client never waits longer for the next answer, beyond one round trip.
    """

    trouble: Trouble
    source: str
    target: str
    begin_ms: int
    end_ms: int
    loss: int
    silence_max_ms: int

    @property
    def title(self) -> str:
        """A few words for the table."""
        match self.trouble:
            case Trouble.LOSS:
                return f"{self.loss // 100} % loss"
            case Trouble.ONE_WAY_LOSS:
                return f"{self.loss // 100} % loss, one way"
            case Trouble.BLACKHOLE:
                return "blackhole"
            case Trouble.RELAY_KILLED:
                return "relay killed"


class Affliction(StrEnum):
    """What a machine suffers from that answers every probe all the while."""

    STOLEN_CPU = "stolen cpu"
    SLOW_DISK = "slow disk"


PERSIST_MS: Final = TERMS.persist_ns // MILLISECOND_NS  # What does not last so long is told to nobody.
# Once a second a node looks at what it found, tells the others once a second at most, and the demo looks four times.
TOLD_MS: Final = 2_300
LATE_TURNS_MS: Final = 2_000  # Eight turns of the loop, most of which have to be late before any of it counts.
LATE_WRITES_MS: Final = 3_000  # Three writes, each of which takes half a second and is half a second after the last.
RESERVE_MS: Final = 3_000  # Five nodes, an emulator and a demo share one machine, and some turns are in time by chance.
CPU_FOUND_MS_MAX: Final = LATE_TURNS_MS + PERSIST_MS + TOLD_MS + RESERVE_MS
DISK_FOUND_MS_MAX: Final = CALM_NS // MILLISECOND_NS + LATE_WRITES_MS + PERSIST_MS + TOLD_MS + RESERVE_MS


@dataclass(frozen=True, slots=True)
class SlowPhase:
    """A machine that becomes slow, and the client that is to get around it. Which machine, the route decides.

    Attributes:
        affliction: What happens to it.
        source: Site of the client.
        target: Site of the server; for a slow disk, of the second server.
        begin_ms: Onset, ms of script time, at the earliest.
        found_max_ms: The promise: so long after the onset another member's ``status`` calls the machine slow. Of the
            clock, for what is measured takes its time whatever the speed of the script.
        silence_max_ms: The promise: the client never waits longer for the next answer, beyond one round trip.
    """

    affliction: Affliction
    source: str
    target: str
    begin_ms: int
    found_max_ms: int
    silence_max_ms: int

    @property
    def title(self) -> str:
        """A few words for the table."""
        match self.affliction:
            case Affliction.STOLEN_CPU:
                return "stolen CPU"
            case Affliction.SLOW_DISK:
                return "slow disk"


def packaged_regions() -> Regions:
    """Return the measured round trips between cloud regions that the package carries."""
    table = files("atoll.lab") / "data" / "latency-cloud-regions" / "gcp_20_regions.csv"
    return parse_regions(table.read_text(encoding="utf-8"))


def sites_of(names: Sequence[str]) -> Regions:
    """Return the table of these regions alone, in this order."""
    regions = packaged_regions()
    return Regions(tuple(names), {pair: ping for pair, ping in regions.pings.items() if set(pair) <= set(names)})


def demo_topology() -> Topology:
    """Return the demo's network, node by node in the order of SITES."""
    return mesh_of_regions(sites_of(_REGIONS), count=len(SITES))


def phases(seed: int) -> tuple[Phase, ...]:
    """Return what goes wrong, by onset; the last one ends the script.

    Each client has its own trouble, because a pair that was healed stays on its relay for a minute, and a second
    fault of its direct path would show nothing. The relay is killed last: it may be anybody's.
    """
    draws = Draws(b"demo%d" % seed)

    def about(ms: int) -> int:
        return ms + draws.below(400)

    loss, one_way = 2500 + 100 * draws.below(11), 3000 + 100 * draws.below(11)
    return (
        Phase(Trouble.LOSS, "fra", "sin", about(2_000), 6_000, loss, 1_500),
        Phase(Trouble.ONE_WAY_LOSS, "ash", "sin", about(7_000), 11_000, one_way, 1_500),
        Phase(Trouble.BLACKHOLE, "home", "sin", about(12_000), 21_000, 0, 1_000),
        Phase(Trouble.RELAY_KILLED, "home", "sin", about(16_500), 21_000, 0, 1_000),
    )


def slow_phases(seed: int) -> tuple[SlowPhase, ...]:
    """Return which machines become slow, by onset, after all of ``phases``.

    First a relay in use is, so that the way through it has to be left; then one of two servers, both about as far from
    the client. A machine that was slow counts as slow for a minute after it is well again, so each phase has its own.
    """
    draws = Draws(b"demo-slow%d" % seed)
    return (
        SlowPhase(Affliction.STOLEN_CPU, "home", "sin", 22_500 + draws.below(400), CPU_FOUND_MS_MAX, 1_000),
        SlowPhase(Affliction.SLOW_DISK, "sin", "home", 24_000 + draws.below(400), DISK_FOUND_MS_MAX, 4_000),
    )
