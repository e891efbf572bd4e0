# SPDX-License-Identifier: Apache-2.0
"""The demo's script: five sites with measured latencies, and what goes wrong when. Everything follows from the seed.

The live demo, its simulated twin and the acceptance test play the same script.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Final

from atoll.core.entropy import Draws
from atoll.sim import Regions, Topology, mesh_of_regions, parse_regions

__all__ = ["SITES", "Phase", "Trouble", "demo_topology", "packaged_regions", "phases", "sites_of"]

SITES: Final = ("fra", "ash", "sin", "home", "gpu")
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
