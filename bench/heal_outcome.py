# SPDX-License-Identifier: Apache-2.0
"""What one trial of healing comes to, and what many of them come to: the statistics of ``heal``, and nothing that runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from figures import Figure

__all__ = ["Healing", "Measured", "by_kind", "healed_share", "percentile", "times_s"]


@dataclass(frozen=True)
class Measured:
    """What one part of the benchmark found: figures for the table, and details for the file."""

    figures: list[Figure]
    extra: dict[str, object]


@dataclass(frozen=True)
class Healing:
    """One fault on the path of a pair that talks.

    Attributes:
        name: Enough to repeat it, such as ``seed 7, 3>5``.
        kind: What was done to the path.
        took_s: From the fault until it was healed; None: not while it was watched.
        watched_s: How long it was watched after the fault; what was not healed counts as so long, so this must be
            longer than any bound.
        rtt_s: Median round trip before the fault.
    """

    name: str
    kind: str
    took_s: float | None
    watched_s: float
    rtt_s: float

    @property
    def counted_s(self) -> float:
        """Return the time that goes into the statistics."""
        return self.watched_s if self.took_s is None else self.took_s


def percentile(values: Iterable[float], share: float) -> float:
    """Return the least value that at least this share of the values does not exceed (nearest rank).

    Raises:
        ValueError: No values, or a share outside 0 to 1.
    """
    ranked = sorted(values)
    if not ranked or not 0 <= share <= 1:
        raise ValueError(f"the {share} quantile of {len(ranked)} values")
    return ranked[max(0, ceil(share * len(ranked) - 1e-9) - 1)]


def times_s(healings: Iterable[Healing], *, beyond_rtt: bool = False) -> list[float]:
    """Return the times to heal, in the order given; each less one round trip if so asked."""
    return [one.counted_s - (one.rtt_s if beyond_rtt else 0.0) for one in healings]


def healed_share(healings: Sequence[Healing]) -> float:
    """Return the share that healed while it was watched."""
    return sum(one.took_s is not None for one in healings) / len(healings)


def by_kind(healings: Sequence[Healing], worst: int = 5) -> dict[str, object]:
    """Return count, healed, median, p95, p99 and worst trials of each kind of fault, for the file."""
    told: dict[str, object] = {}
    for kind in sorted({one.kind for one in healings}):
        of_kind = [one for one in healings if one.kind == kind]
        slowest = sorted(of_kind, key=lambda one: -one.counted_s)[:worst]
        told[kind] = {
            "trials": len(of_kind),
            "healed": sum(one.took_s is not None for one in of_kind),
            "median_s": percentile(times_s(of_kind), 0.5),
            "p95_s": percentile(times_s(of_kind), 0.95),
            "p99_s": percentile(times_s(of_kind), 0.99),
            "worst": [f"{one.name}: {one.counted_s:.3f} s" for one in slowest],
        }
    return told
