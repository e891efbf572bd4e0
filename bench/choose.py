# SPDX-License-Identifier: Apache-2.0
"""Measure path choice on real latency series: how much of an oracle's one-hop gain the product's own code captures.

For each slice t and ordered pair, a way (direct or one relay) is chosen by ``Latency`` and ``decide`` from slices
before t only, and then judged on slice t:

    share = sum(direct - chosen) / sum(direct - oracle)

over all ordered pairs of all slices from the second on. The oracle knows slice t: the best of direct and any one
relay. A pair whose direct round trip is missing in slice t is not counted; a relay with a missing leg in slice t is
no choice for the oracle, and counts as the direct round trip for the chooser (it gains nothing). One slice is taken as
a minute, so the hold-down allows one switch a slice and pair. The series have no loss, so every state is ok.

``peer`` is the plain way: the mean of the last three slices and a fixed hysteresis of 5 %.

Run: ``.venv/bin/python bench/choose.py [--data DIR] [--slices N]``. Takes some minutes. Writes
bench/results/choose.json; the last line of the output is the same as one JSON object.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from figures import Figure, report

from atoll.base.units import MINUTE_NS
from atoll.overlay.choice import EVEN_NS, Candidate, Incumbent, PathState, decide, direct, through
from atoll.overlay.estimate import Latency
from atoll.overlay.messages import Link
from atoll.overlay.policy import Metric, Rule

HERE: Final = Path(__file__).resolve().parent
SLICE_NS: Final = MINUTE_NS
PEER_WINDOW: Final = 3
PEER_HYSTERESIS: Final = 0.05
WILL_YES: Final = 2

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One data set: its file, what is asked of it, and round trips in ms, [slice, from, to]; NaN: not measured."""

    name: str
    path: str
    asked_percent: float


SERIES: Final = (
    Series("Seattle", "latency-seattle/seattle_rtt.npz", 75.0),
    Series("PlanetLab", "latency-planetlab/planetlab_rtt.npz", 80.0),
)


@dataclass(frozen=True)
class Outcome:
    """Gains by slice, ms: what was chosen, what the oracle had; and switches per slice and pair."""

    chosen_ms: Sequence[float]
    oracle_ms: Sequence[float]
    switch_share: float
    switches_max: int

    def percent(self, first: int = 0) -> float:
        """Return the share of the oracle's gain, from judged slice ``first`` on."""
        return 100.0 * sum(self.chosen_ms[first:]) / sum(self.oracle_ms[first:])


class Judge:
    """Compares choices with direct and oracle on one slice after another."""

    def __init__(self, rtt_ms: Matrix) -> None:
        self.rtt_ms = rtt_ms
        self.nodes = rtt_ms.shape[1]
        self.chosen_ms: list[float] = []
        self.oracle_ms: list[float] = []

    def judge(self, at: int, via: npt.NDArray[np.int64]) -> None:
        """Score the choices of one slice; ``via[i, j]`` is the relay's index, or -1 for direct."""
        slice_ms = self.rtt_ms[at].copy()
        np.fill_diagonal(slice_ms, np.nan)
        measured = ~np.isnan(slice_ms)
        known = np.where(measured, slice_ms, np.inf)
        oracle = known.copy()
        for relay in range(self.nodes):
            np.minimum(oracle, known[:, relay, None] + known[None, relay, :], out=oracle)
        rows, columns = np.indices(slice_ms.shape)
        relayed = slice_ms[rows, via] + slice_ms[via, columns]
        chosen = np.where((via < 0) | np.isnan(relayed), slice_ms, relayed)
        self.chosen_ms.append(float((slice_ms - chosen)[measured].sum()))
        self.oracle_ms.append(float((slice_ms - oracle)[measured].sum()))

    def outcome(self, switches: int, switches_max: int) -> Outcome:
        """Return the sums so far."""
        choices = len(self.chosen_ms) * self.nodes * (self.nodes - 1)
        return Outcome(self.chosen_ms, self.oracle_ms, switches / choices, switches_max)


def product(rtt_ms: Matrix) -> Outcome:
    """Choose with the product's estimator and decision."""
    slices, nodes, _ = rtt_ms.shape
    ids = [bytes([0, 0, 0, 0, 0, 0, 0, 0, *node.to_bytes(2, "big")]) for node in range(nodes)]
    index = {one: at for at, one in enumerate(ids)} | {b"": -1}
    estimates = [[Latency() for _ in range(nodes)] for _ in range(nodes)]
    incumbents = [[Incumbent(b"", 0) for _ in range(nodes)] for _ in range(nodes)]
    via = np.full((nodes, nodes), -1, dtype=np.int64)
    judge, switches, switches_max, rule = Judge(rtt_ms), 0, 0, Rule(Metric.LATENCY)
    for at in range(slices):
        now_ns = (at + 1) * SLICE_NS
        if at:
            before = via.copy()
            links = [[_link(ids[j], estimates[i][j]) for j in range(nodes)] for i in range(nodes)]
            for source in range(nodes):
                for target in range(nodes):
                    if source != target:
                        candidates = _candidates(links, source, target)
                        incumbent = incumbents[source][target]
                        for seen_ns in (now_ns - EVEN_NS, now_ns):  # The slice's numbers stand for a minute or more.
                            incumbent.watch(candidates, rule, seen_ns)
                        pair_key = ids[source] + ids[target]
                        incumbent.take(decide(incumbent, candidates, rule, pair_key, now_ns), now_ns)
                        via[source, target] = index[incumbent.via]
            changed = before != via
            switches += int(changed.sum())
            switches_max = max(switches_max, int(changed.max()))
            judge.judge(at, via)
        for source, target in zip(*np.nonzero(~np.isnan(rtt_ms[at])), strict=True):
            if source != target:
                estimates[source][target].add(round(float(rtt_ms[at, source, target]) * 1000), now_ns)
    return judge.outcome(switches, switches_max)


def _link(node: bytes, estimate: Latency) -> Link:
    state = PathState.OK if estimate.samples else PathState.UNKNOWN
    return Link(node, estimate.predicted_us, estimate.deviation_us, 0, 0, int(state))


def _candidates(links: Sequence[Sequence[Link]], source: int, target: int) -> list[Candidate]:
    ours = links[source]
    return [
        direct(ours[target]),
        *(
            through(ours[relay], links[relay][target], 0, WILL_YES)
            for relay in range(len(links))
            if relay not in (source, target)
        ),
    ]


def peer(rtt_ms: Matrix) -> Outcome:
    """Choose by the mean of the last three slices with a hysteresis of 5 %."""
    slices, nodes, _ = rtt_ms.shape
    via = np.full((nodes, nodes), -1, dtype=np.int64)
    rows, columns = np.indices(via.shape)
    judge, switches = Judge(rtt_ms), 0
    for at in range(1, slices):
        window = rtt_ms[max(0, at - PEER_WINDOW) : at]
        counts = (~np.isnan(window)).sum(axis=0)
        mean = np.where(counts > 0, np.nansum(window, axis=0) / np.maximum(counts, 1), np.inf)
        np.fill_diagonal(mean, np.inf)
        best, best_via = mean.copy(), np.full_like(via, -1)
        for relay in range(nodes):
            total = mean[:, relay, None] + mean[None, relay, :]
            better = total < best
            best[better], best_via[better] = total[better], relay
        current = np.where(via < 0, mean, mean[rows, via] + mean[via, columns])
        moves = (best < current * (1 - PEER_HYSTERESIS)) & (best_via != via)
        switches += int(moves.sum())
        via = np.where(moves, best_via, via)
        judge.judge(at, via)
    return judge.outcome(switches, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Share of the oracle's one-hop latency gain on real series.")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder with the latency-* folders")
    parser.add_argument("--slices", type=int, default=None, help="only so many slices of each series")
    options = parser.parse_args()
    rows: list[Figure] = []
    switches: dict[str, object] = {}
    for series in SERIES:
        with np.load(options.data / series.path) as archive:
            rtt_ms = archive["rtt_ms"][: options.slices].astype(np.float64)
        ours, plain = product(rtt_ms), peer(rtt_ms)
        half = len(ours.chosen_ms) // 2
        late, plain_late = ours.percent(half), plain.percent(half)
        gain = f"{series.name}, share of the oracle's one-hop gain"
        rows += [
            Figure(gain, "%", series.asked_percent, ours.percent(), at_most=False, peer=plain.percent()),
            Figure(f"{gain}, second half alone", "%", None, late, at_most=False, peer=plain_late),
            Figure(f"{series.name}, most switches of a pair in a slice", "switches", 1, ours.switches_max, peer=1),
        ]
        switches[series.name] = {"atoll": ours.switch_share, "peer": plain.switch_share}
    report("choose", rows, {"switches per slice and pair": switches, "slices": options.slices})


if __name__ == "__main__":
    main()
