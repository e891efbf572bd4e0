# SPDX-License-Identifier: Apache-2.0
"""Speed, cost and recovery beside the overlays that people use today, in one run on one machine.

    make bench-net [BENCH_ARGS="--only throughput --peers atoll,yggdrasil --trials 20"]

Needs root, and from Debian: babeld bird2 ethtool iperf3 iproute2 iputils-ping n2n nebula nftables tinc wireguard-go
wireguard-tools yggdrasil. Overlays whose programs are missing are left out, and named. Everything runs in
network namespaces of its own; both ends and the relay share this machine's cores, so a throughput says what the whole
path costs.
"""

import argparse
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

from figures import Figure, Part, run_parts
from net_client import PEER, attached
from net_measure import Moved, await_ready, failover, idle, latency, lossy, middle, shaped, throughput
from net_peers import PEERS, Overlay
from net_wan import Wan, WanError

HOSTS = 4
RATES_MBIT_S = (100, 300, 1000)
OURS = "atoll"
RIVAL = "nebula"  # In the round trip.

Results = dict[str, dict[str, float | None]]


@contextmanager
def running(overlay: Overlay) -> Generator[Wan]:
    """Start an overlay on a WAN of its own."""
    with Wan(HOSTS) as wan:
        try:
            overlay.start(wan)
            await_ready(wan, overlay)
            yield wan
        finally:
            overlay.stop(wan)


def each(overlays: Sequence[Overlay], measure: Callable[[Wan, Overlay], dict[str, float | None]]) -> Results:
    """Measure one after the other; who fails is told of and left out."""
    results: Results = {}
    for overlay in overlays:
        try:
            with running(overlay) as wan:
                results[overlay.name] = measure(wan, overlay)
        except WanError as error:
            print(f"  {overlay.name}: {error}", file=sys.stderr)
            continue
        print(f"  {overlay.name}: {results[overlay.name]}", file=sys.stderr)
    return results


def best(results: Results, key: str, *, most: bool, among: Sequence[Overlay]) -> float | None:
    """Return the best value of the encrypted others."""
    encrypted = {overlay.name for overlay in among if overlay.encrypted and overlay.name != OURS}
    found = [value for name, told in results.items() if name in encrypted and (value := told.get(key)) is not None]
    return (max(found) if most else min(found)) if found else None


def ratio(name: str, asked: float, ours: float | None, other: float | None, *, at_most: bool) -> Figure:
    """Return a figure that is ours divided by another's."""
    measured = None if ours is None or not other else ours / other
    return Figure(name, "ratio", asked, measured, at_most=at_most, peer=other)


def part_throughput(overlays: Sequence[Overlay], options: argparse.Namespace) -> Part:
    def measure(wan: Wan, overlay: Overlay) -> dict[str, float | None]:
        moved = throughput(wan, overlay, options.repeats, options.seconds)
        return {
            f"{kind}_{key}": middle([asdict(one)[key] for one in found])
            for kind, found in moved.items()
            for key in Moved.__dataclass_fields__
        }

    results = each([overlay for overlay in overlays if not overlay.retimed], measure)
    ours = results.get(OURS, {})
    figures = [
        Figure(f"one TCP stream, direct, {name}", "Mbit/s", None, told["direct_mbit_s"])
        for name, told in results.items()
    ]
    for name, asked, key, at_most in (
        ("one TCP stream, direct, against the best encrypted peer", 2.0, "direct_mbit_s", False),
        ("CPU seconds per GB of all daemons, against the best encrypted peer", 0.6, "direct_daemons_s_per_gb", True),
        ("one TCP stream, relayed, against the best encrypted peer", 2.5, "relayed_mbit_s", False),
    ):
        other = best(results, key, most=not at_most, among=overlays)
        figures.append(ratio(name, asked, ours.get(key), other, at_most=at_most))
    return figures, results


def part_latency(overlays: Sequence[Overlay], options: argparse.Namespace) -> Part:
    """Take turns, started afresh each time: how cold memory is changes by the minute, and by the start.

    The two that are compared take every turn, the others the first.
    """
    turns = [[overlay for overlay in overlays if not overlay.retimed]]
    turns += [[overlay for overlay in overlays if overlay.name in {OURS, RIVAL}]] * (options.rounds - 1)
    rounds = [each(turn, lambda wan, overlay: dict(latency(wan, overlay))) for turn in turns]
    results: Results = {}
    for overlay in overlays:
        told = [one[overlay.name] for one in rounds if overlay.name in one]
        for key in told[0] if told else ():
            found = [value for one in told if (value := one[key]) is not None]
            results.setdefault(overlay.name, {})[key] = middle(found)
    ours, rival = results.get(OURS, {}), results.get(RIVAL, {})
    return [
        ratio(f"added round trip p{share}, against {RIVAL}", 1.5, ours.get(key), rival.get(key), at_most=True)
        for share in (50, 99)
        for key in (f"added_p{share}_ms",)
    ], results


def part_idle(overlays: Sequence[Overlay], _: argparse.Namespace) -> Part:
    results = each(overlays, lambda wan, _overlay: dict(idle(wan)))
    ours = results.get(OURS, {})
    peers = {key: best(results, key, most=False, among=overlays) for key in ("wire_bytes_s", "rss_mib")}
    return [
        Figure(
            f"idle, node of {HOSTS}: wire bytes both ways",
            "B/s",
            1500.0,
            ours.get("wire_bytes_s"),
            peer=peers["wire_bytes_s"],
        ),
        Figure("resident memory of a node, all processes", "MiB", 120.0, ours.get("rss_mib"), peer=peers["rss_mib"]),
    ], results


def part_rate(overlays: Sequence[Overlay], options: argparse.Namespace) -> Part:
    def measure(wan: Wan, overlay: Overlay) -> dict[str, float | None]:
        return {
            f"{rate}_{key}": value
            for rate in RATES_MBIT_S
            for key, value in shaped(wan, overlay, rate, options.seconds).items()
        }

    results = each([overlay for overlay in overlays if overlay.name == OURS], measure)
    ours = results.get(OURS, {})
    figures = []
    for rate in RATES_MBIT_S:
        name = f"link held to {rate} Mbit/s"
        share, raw, delay = (ours.get(f"{rate}_{key}") for key in ("share", "raw_share", "added_p99_ms"))
        # Headers alone take 10 % of the link's own rate: two of IP, UDP, the seal and TCP in each 1500 bytes.
        figures.append(Figure(f"{name}: delivered, of its rate", "share", None, share, peer=raw))
        part = share / raw if share and raw else None
        figures.append(Figure(f"{name}: delivered, of what TCP gets from it", "share", 0.93, part, at_most=False))
        figures.append(Figure(f"{name}: p99 added delay", "ms", 5.0, delay))
    return figures, results


def part_failover(overlays: Sequence[Overlay], options: argparse.Namespace) -> Part:
    def measure(wan: Wan, overlay: Overlay) -> dict[str, float | None]:
        found = []
        for number in range(options.trials if overlay.name == OURS else options.peer_trials):
            found.append(failover(wan, overlay, streams=overlay.name == OURS))
            print(f"    {overlay.name} {number}: {found[-1]}", file=sys.stderr)
            if len(found) >= 2 and all(one["recovery_s"] is None for one in found):
                break
        never = float("inf")
        times = [never if one["recovery_s"] is None else float(one["recovery_s"]) for one in found]
        median = middle(times)
        return {
            "trials": len(found),
            "median_s": None if median == never else median,
            "worst_s": None if max(times) == never else max(times),
            "tcp_broken": sum(one["tcp_survived"] is False for one in found),
            "not_direct": sum(not one["was_direct"] for one in found),
        }

    results = each(overlays, measure)
    ours, trials = results.get(OURS, {}), results.get(OURS, {}).get("trials") or 0
    peer = best(results, "median_s", most=False, among=overlays)
    return [
        Figure(f"blackhole, {trials:.0f} trials: median", "s", 0.4, ours.get("median_s"), peer=peer),
        Figure("the same: worst", "s", 1.0, ours.get("worst_s")),
        Figure("the same: TCP streams that broke", "", 0.0, ours.get("tcp_broken")),
        Figure("the same: trials that did not begin on the direct path", "", 0.0, ours.get("not_direct")),
    ], results


def part_lossy(overlays: Sequence[Overlay], options: argparse.Namespace) -> Part:
    def measure(wan: Wan, overlay: Overlay) -> dict[str, float | None]:
        number = options.loss_trials
        found = [lossy(wan, overlay) for _ in range(number)]
        return {key: middle([float(one[key]) for one in found]) for key in ("after_2_s", "last_10_s")} | {
            "worst_after_2_s": max(float(one["after_2_s"]) for one in found)
        }

    results = each(overlays, measure)
    ours = results.get(OURS, {})
    peer = best(results, "after_2_s", most=False, among=overlays)
    return [
        Figure(
            "30 % loss each way: application's loss after 2 s, median", "share", 0.01, ours.get("after_2_s"), peer=peer
        ),
        Figure("the same: worst", "share", None, ours.get("worst_after_2_s")),
    ], results


def part_client(_: Sequence[Overlay], options: argparse.Namespace) -> Part:
    try:
        with Wan(HOSTS) as wan:
            found = attached(wan, options.repeats, options.seconds)
    except WanError as error:
        print(f"  client: {error}", file=sys.stderr)
        found = {}
    figures = [
        Figure(
            f"stock client, one TCP stream {told}, against its own speed to wireguard-go",
            "ratio",
            1.0,
            found.get(f"{way}_ratio"),
            at_most=False,
            peer=found.get(f"{PEER}_{way}_mbit_s"),
        )
        for way, told in (("up", "to its node"), ("down", "from its node"))
    ]
    return figures, {"links": found}


PARTS: dict[str, Callable[[Sequence[Overlay], argparse.Namespace], Part]] = {
    "throughput": part_throughput,
    "latency": part_latency,
    "rate": part_rate,
    "client": part_client,
    "idle": part_idle,
    "failover": part_failover,
    "lossy": part_lossy,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure atoll beside other overlays.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"some of {','.join(PEERS)}")
    parser.add_argument("--repeats", type=int, default=3, help="streams of each kind")
    parser.add_argument("--seconds", type=int, default=10, help="length of a stream")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each, for the round trip")
    parser.add_argument("--trials", type=int, default=20, help="cuts")
    parser.add_argument("--peer-trials", type=int, default=5, help="cuts of each peer")
    parser.add_argument("--loss-trials", type=int, default=3, help="lossy spans of each")
    options = parser.parse_args()
    names = options.peers.split(",")
    for name in names:
        if name not in PEERS:
            parser.error(f"no peer {name!r}")
    overlays = []
    for overlay in (PEERS[name] for name in names):
        if missing := overlay.missing():
            print(f"  {overlay.name} is left out: not installed: {', '.join(missing)}", file=sys.stderr)
        else:
            overlays.append(overlay)
    parts = {name: partial(measure, overlays, options) for name, measure in PARTS.items()}
    run_parts("net", parts, options.only, parser)


if __name__ == "__main__":
    main()
