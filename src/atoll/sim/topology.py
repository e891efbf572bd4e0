# SPDX-License-Identifier: Apache-2.0
"""Which nodes there are, how each direct path between two of them behaves, and what they share.

Shared fate matters: if faults strike each path alone, an overlay looks far better than it is, because a relay then
always helps. Really a good part of the trouble sits in one node's last hop, or with a provider of several nodes, and no
relay helps against that. So a topology names such groups of links (``Fate``), and faults may strike one as a whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from atoll.base.errors import CorruptError, UsageError
from atoll.sim.limits import NODES_MAX
from atoll.sim.link import CLEAR, Jitter, LinkSpec

__all__ = [
    "LOOPBACK",
    "Fate",
    "Pair",
    "RegionPing",
    "Regions",
    "Topology",
    "full_mesh",
    "mesh_of_matrix",
    "mesh_of_regions",
    "mesh_of_slices",
    "parse_regions",
]

Pair = tuple[int, int]  # From one node's index to another's: one direction.

LOOPBACK: Final = LinkSpec(delay_ns=20_000)  # What a node sends to itself crosses no network.
_REGION_COLUMNS: Final = ("source", "destination", "min_ms", "avg_ms", "max_ms", "mdev_ms")
_NS_PER_US: Final = 1000


@dataclass(frozen=True, slots=True)
class Fate:
    """Links that fail together.

    Attributes:
        name: For people, such as ``last hop of 3`` or ``provider north``.
        members: The nodes behind it, ascending.
    """

    name: str
    members: tuple[int, ...]

    def links(self, count: int) -> tuple[Pair, ...]:
        """Return both directions of each path between a member and one outside, in a world of ``count`` nodes."""
        return tuple(
            (i, j) for i in range(count) for j in range(count) if i != j and (i in self.members) != (j in self.members)
        )


@final
@dataclass(frozen=True, slots=True)
class Topology:
    """Everything about the network that a seed does not change.

    Attributes:
        names: One for each node; its length is the number of nodes.
        specs: ``specs[i][j]`` is the direction from node i to node j; ``specs[i][i]`` is the loopback.
        providers: Groups of nodes behind something that they share.
    """

    names: tuple[str, ...]
    specs: tuple[tuple[LinkSpec, ...], ...]
    providers: tuple[Fate, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.names)
        if not 1 <= count <= NODES_MAX:
            raise UsageError(f"{count} nodes; a world has 1 to {NODES_MAX}")
        if len(self.specs) != count or any(len(row) != count for row in self.specs):
            raise UsageError("the matrix of links is not square")
        if any(not 0 <= member < count for fate in self.providers for member in fate.members):
            raise UsageError("a provider of a node that does not exist")

    @property
    def count(self) -> int:
        """Number of nodes."""
        return len(self.names)

    @property
    def fates(self) -> tuple[Fate, ...]:
        """Every shared fate: the last hop of each node, then the providers."""
        return tuple(Fate(f"last hop of {node}", (node,)) for node in range(self.count)) + self.providers

    def with_providers(self, providers: Mapping[str, Sequence[int]]) -> "Topology":
        """Return the same network in which these nodes share these providers."""
        fates = tuple(Fate(f"provider {name}", tuple(sorted(members))) for name, members in providers.items())
        return replace(self, providers=fates)


def full_mesh(count: int, spec: LinkSpec = CLEAR) -> Topology:
    """Return ``count`` nodes of which each reaches each in the same way."""
    return _mesh(tuple(f"n{node}" for node in range(count)), lambda _from, _to: spec)


def mesh_of_matrix(rtt_us: Sequence[Sequence[int]], *, rest: LinkSpec = CLEAR) -> Topology:
    """Return a mesh from measured round trips.

    Args:
        rtt_us: ``rtt_us[i][j]`` as measured from i to j, microseconds; half of it is the delay from i to j.
        rest: Everything but the delay: jitter, loss, rate.
    """
    names = tuple(f"n{node}" for node in range(len(rtt_us)))
    return _mesh(names, lambda i, j: replace(rest, delay_ns=rtt_us[i][j] * _NS_PER_US // 2))


def mesh_of_slices(
    rtt_us: Sequence[Sequence[Sequence[int]]], *, slice_ns: int, rest: LinkSpec = CLEAR, start_ns: int = 0
) -> Topology:
    """Return a mesh whose delays follow matrices measured one after the other.

    Args:
        rtt_us: ``rtt_us[slice][i][j]``, microseconds; 0 or less: not measured, the last known value stays (before
            the first known one: that one).
        slice_ns: How long each slice lasts.
        rest: Everything but the delay.
        start_ns: World time of the first slice.

    Raises:
        UsageError: No slice, or a path that was never measured.
    """
    if not rtt_us:
        raise UsageError("a mesh of no slices")

    def spec_of(i: int, j: int) -> LinkSpec:
        series: list[tuple[int, int]] = []
        for index, matrix in enumerate(rtt_us):
            if matrix[i][j] > 0:
                since_ns = start_ns + index * slice_ns if series else 0
                series.append((since_ns, matrix[i][j] * _NS_PER_US // 2))
        if not series:
            raise UsageError(f"the path from {i} to {j} was never measured")
        return replace(rest, delay_ns=series[0][1], series=tuple(series))

    return _mesh(tuple(f"n{node}" for node in range(len(rtt_us[0]))), spec_of)


@dataclass(frozen=True, slots=True)
class RegionPing:
    """The summary of one run of ping: round trips in microseconds."""

    rtt_min_us: int
    rtt_mean_us: int
    rtt_max_us: int
    deviation_us: int


@final
@dataclass(frozen=True, slots=True)
class Regions:
    """A table of pings between all regions of a cloud.

    Attributes:
        names: Regions, in the order in which the table names them first.
        pings: By (source, destination); also within each region.
    """

    names: tuple[str, ...]
    pings: dict[tuple[str, str], RegionPing]


def parse_regions(text: str) -> Regions:
    """Return the table in this CSV text (``source,destination,min_ms,avg_ms,max_ms,mdev_ms``).

    Raises:
        CorruptError: Another header, a line that is not such a row, or a pair of regions without a row.
    """
    lines = text.splitlines()
    if not lines or tuple(lines[0].split(",")) != _REGION_COLUMNS:
        raise CorruptError(f"a latency table must begin with {','.join(_REGION_COLUMNS)}")
    names: dict[str, None] = {}  # A set that keeps its order.
    pings: dict[tuple[str, str], RegionPing] = {}
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split(",")
        if len(fields) != len(_REGION_COLUMNS):
            raise CorruptError(f"latency table, line {number}: {len(fields)} fields")
        source, destination = fields[:2]
        names.setdefault(source)
        pings[source, destination] = RegionPing(*(_microseconds(field, number) for field in fields[2:]))
    for source in names:
        for destination in names:
            if (source, destination) not in pings:
                raise CorruptError(f"latency table: no row from {source} to {destination}")
    return Regions(tuple(names), pings)


def mesh_of_regions(regions: Regions, *, count: int, rest: LinkSpec = CLEAR) -> Topology:
    """Return ``count`` nodes spread over the regions, with measured delay and jitter each way.

    Node k lives in region k modulo the number of regions. Delay is half the least round trip; what the mean round
    trip is above the least becomes heavy-tailed jitter, half of it each way.

    Args:
        regions: From ``parse_regions``.
        count: Nodes, 1 to NODES_MAX.
        rest: Everything but delay and jitter.
    """
    homes = [regions.names[node % len(regions.names)] for node in range(count)]

    def spec_of(i: int, j: int) -> LinkSpec:
        ping = regions.pings[homes[i], homes[j]]
        jitter_ns = max(0, ping.rtt_mean_us - ping.rtt_min_us) * _NS_PER_US // 2
        return replace(
            rest,
            delay_ns=ping.rtt_min_us * _NS_PER_US // 2,
            jitter_ns=jitter_ns,
            jitter=Jitter.HEAVY if jitter_ns else Jitter.NONE,
        )

    rounds = [node // len(regions.names) for node in range(count)]
    names = tuple(f"{home}-{again + 1}" if again else home for home, again in zip(homes, rounds, strict=True))
    return _mesh(names, spec_of)


def _mesh(names: tuple[str, ...], spec_of: Callable[[int, int], LinkSpec]) -> Topology:
    nodes = range(len(names))
    return Topology(names, tuple(tuple(LOOPBACK if i == j else spec_of(i, j) for j in nodes) for i in nodes))


def _microseconds(text: str, line: int) -> int:
    """Return decimal milliseconds as microseconds, without a float on the way."""
    whole, dot, fraction = text.partition(".")
    digits = whole + (fraction if dot else "0")
    if not (whole and digits.isascii() and digits.isdigit()):
        raise CorruptError(f"latency table, line {line}: {text!r} is no time in ms")
    return int(whole) * 1000 + int(fraction[:3].ljust(3, "0"))
