# SPDX-License-Identifier: Apache-2.0
"""How fast paths heal, how seldom they switch for nothing, and what that costs.

    make bench-heal [BENCH_ARGS="--only sim,speed --seeds 100 --trials 10 --hours 1"]

Live figures are measured on real node processes over the WAN emulator; simulated ones on the same code under a virtual
clock. What is quoted is what ran: fewer seeds, trials or hours are said so in the figure's name.
"""

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from random import Random

from figures import RESULTS, Figure, report

from atoll.base.ids import Endpoint
from atoll.base.units import HOUR_NS, SECOND_NS
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.live import LiveGroup
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import SITES, demo_topology, packaged_regions
from atoll.lab.traffic import Exchange, Traffic
from atoll.node.launch import LaunchOptions, launch
from atoll.sim import LinkSpec, World, mesh_of_regions

PARTS = ("speed", "control", "cli", "choose", "sim", "live", "idle")
PACE_S = 0.02
LOSS = 3000
CLEAN = 0.02
RON_KBIT_S = {10: 1.8, 20: 5.9, 30: 12.3, 40: 21.0, 50: 32.0}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


# Live, on the emulator.


class Pinger:
    """Requests at 50 Hz over a local UDP port, answered by an echo at the far end; times in ns."""

    def __init__(self, port: int) -> None:
        self.sent_ns: list[int] = []
        self.answered_ns: list[int] = []
        self._port = port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(0)

    def hear(self) -> None:
        """Take the answers that have come."""
        while True:
            try:
                sequence = int.from_bytes(self._socket.recv(64))
            except (BlockingIOError, ConnectionRefusedError):
                return
            if self.answered_ns[sequence] < 0:
                self.answered_ns[sequence] = time.monotonic_ns()

    async def run(self, seconds: float) -> None:
        """Ask for so long, then wait a little for the last answers."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self.hear)
        try:
            began = loop.time()
            while loop.time() - began < seconds:
                self.sent_ns.append(time.monotonic_ns())
                self.answered_ns.append(-1)
                self._socket.send((len(self.sent_ns) - 1).to_bytes(8))
                await asyncio.sleep(PACE_S)
            await asyncio.sleep(0.5)
        finally:
            loop.remove_reader(self._socket)

    def exchange(self) -> Exchange:
        """Return what was seen, in the form of the simulator's traffic."""
        seen = Exchange(0, 1, int(PACE_S * 1e9), 0)
        seen.sent_ns, seen.answered_ns = self.sent_ns, self.answered_ns
        return seen

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Echo:
    """A UDP socket on a loopback port that sends back what it gets, while the loop runs."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0)
        self.port = int(self._socket.getsockname()[1])
        asyncio.get_running_loop().add_reader(self._socket, self._answer)

    def _answer(self) -> None:
        while True:
            try:
                datagram, source = self._socket.recvfrom(2048)
            except BlockingIOError:
                return
            self._socket.sendto(datagram, source)

    def close(self) -> None:
        """Stop."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


async def live_trial(
    group: LiveGroup, pair: tuple[str, str], port: int, rng: Random, *, loss: bool
) -> tuple[float, float]:
    """Break the direct path of a pair under traffic; return (seconds until healed, median round trip before)."""
    source, target = pair
    pinger = Pinger(await group.forward(source, target, port, protocol="udp"))
    try:
        running = asyncio.create_task(pinger.run(7.0 if loss else 5.0))
        await asyncio.sleep(2.0 + rng.random())
        key = f"{source}-{target}"
        if loss:
            cut_ns = await group.emulator.impair(source, target, key, loss=LOSS)
        else:
            cut_ns = await group.emulator.blackhole(source, target, key)
        await running
        await group.emulator.mend(key)
    finally:
        pinger.close()
    seen = pinger.exchange()
    before = [a - s for s, a in zip(seen.sent_ns, seen.answered_ns, strict=True) if 0 < a < cut_ns]
    rtt_s = statistics.median(before) / 1e9 if before else float("nan")
    until_ns = seen.sent_ns[-1]
    healed = seen.healed_ns(cut_ns, until_ns, SECOND_NS, CLEAN) if loss else seen.first_answer_ns(cut_ns)
    return (float("inf") if healed is None else (healed - cut_ns) / 1e9), rtt_s


async def live_round(round_number: int, trials: int, *, loss: bool) -> list[tuple[float, float]]:
    """Run trials on one fresh group, a pair each: a pair that was healed stays on its relay for a minute."""
    rng = Random(1000 * round_number + loss)
    pairs = [pair for pair in permutations(SITES, 2) if pair[0] < pair[1]]
    rng.shuffle(pairs)
    results: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        async with LiveGroup.running(SITES, demo_topology(), Path(directory), seed=round_number) as group:
            echo = Echo()
            try:
                for first, second in pairs[:trials]:
                    pair = (first, second) if rng.random() < 0.5 else (second, first)
                    results.append(await live_trial(group, pair, echo.port, rng, loss=loss))
                    print(
                        f"  live {'loss' if loss else 'cut '} {pair[0]}-{pair[1]}: {results[-1][0]:.3f} s",
                        file=sys.stderr,
                    )
            finally:
                echo.close()
    return results


def live(trials: int) -> list[Figure]:
    """Blackhole and loss under traffic, on real processes."""
    figures: list[Figure] = []
    for loss in (False, True):
        results: list[tuple[float, float]] = []
        number = 0
        while len(results) < trials:
            number += 1
            results += asyncio.run(live_round(number, min(10, trials - len(results)), loss=loss))
        times = [seconds for seconds, _ in results]
        if loss:
            figures += [
                Figure(f"live, 30 % loss until < 2 %, {len(times)} trials, median", "s", 1.0, percentile(times, 0.5)),
                Figure(f"live, 30 % loss until < 2 %, {len(times)} trials, p95", "s", 2.5, percentile(times, 0.95)),
            ]
        else:
            beyond = [seconds - rtt for seconds, rtt in results]
            figures += [
                Figure(f"live, blackhole, {len(times)} trials, median beyond 1 RTT", "s", 0.3, percentile(beyond, 0.5)),
                Figure(f"live, blackhole, {len(times)} trials, median", "s", None, percentile(times, 0.5)),
                Figure(f"live, blackhole, {len(times)} trials, p95", "s", 1.0, percentile(times, 0.95)),
            ]
    return figures


# In simulation.

SIM_PAIRS = 3
SIM_WARM_NS = 6 * SECOND_NS
SIM_AFTER_NS = 4 * SECOND_NS


def simulated_trial(seed: int) -> list[tuple[str, float]]:
    """Break three pairs of 20 nodes at once; return (kind, seconds until healed) of each, inf for never.

    Some faults are correlated: the source loses the same share to half of all members, as a bad last hop would.
    """
    rng = Random(seed)
    plans = blueprints(20, 1)  # One group for all seeds: what varies is luck, faults and pairs.
    world = World(mesh_of_regions(packaged_regions(), count=20), factory_of(plans), seed=seed)
    traffic = Traffic(world, plans)
    nodes = rng.sample(range(20), 2 * SIM_PAIRS)
    found: list[tuple[str, Exchange, int]] = []
    end_ns = SIM_WARM_NS + SECOND_NS + SIM_AFTER_NS
    for source, target in zip(nodes[::2], nodes[1::2], strict=True):
        cut_ns = SIM_WARM_NS + rng.randrange(SECOND_NS)
        kind = rng.choice(("cut", "loss", "shared cut"))
        spec = LinkSpec(loss=LOSS) if kind == "loss" else LinkSpec(blackhole=True)
        others = [target]
        if kind == "shared cut":
            others += rng.sample([n for n in range(20) if n not in {source, target}], 9)
        found.append((kind, traffic.begin(source, target, (SIM_WARM_NS - 2 * SECOND_NS, end_ns)), cut_ns))

        def strike(source: int = source, others: list[int] = others, spec: LinkSpec = spec) -> None:
            for other in others:
                world.impair(source, other, "fault", spec)
                world.impair(other, source, "fault", spec)

        world.at(cut_ns, strike)
    world.start_all()
    world.run(end_ns + SECOND_NS)
    told: list[tuple[str, float]] = []
    for kind, exchange, cut_ns in found:
        if kind == "loss":
            healed = exchange.healed_ns(cut_ns, end_ns, SECOND_NS, CLEAN)
        else:
            healed = exchange.first_answer_ns(cut_ns)
        told.append((kind, float("inf") if healed is None else (healed - cut_ns) / 1e9))
    return told


def simulated(seeds: int) -> list[Figure]:
    """Heal 20 nodes from many seeds, on both cores."""
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        told = [one for many in pool.imap_unordered(simulated_trial, range(seeds), chunksize=4) for one in many]
    print(f"  sim: {len(told)} destinations of {seeds} seeds in {time.monotonic() - began:.0f} s", file=sys.stderr)
    times = [seconds for _, seconds in told]
    healed = [seconds for seconds in times if seconds != float("inf")]
    return [
        Figure(
            f"simulated, 20 nodes, {seeds} seeds: healed of {len(times)}",
            "share",
            1.0,
            len(healed) / len(times),
            at_most=False,
        ),
        Figure(f"simulated, 20 nodes, {seeds} seeds: median", "s", None, percentile(times, 0.5)),
        Figure(f"simulated, 20 nodes, {seeds} seeds: p99", "s", 1.5, percentile(times, 0.99)),
    ]


def quiet_world(count: int, seed: int) -> World[SimulatedNode]:
    """Return a started group on measured latencies and jitter, with no faults."""
    plans = blueprints(count, 1)
    world = World(mesh_of_regions(packaged_regions(), count=count), factory_of(plans), seed=seed)
    world.start_all()
    return world


def idle(hours: float) -> list[Figure]:
    """Count switches of a healthy, idle group."""
    world = quiet_world(20, 1)
    world.run(int(hours * HOUR_NS))
    switches = [n.cause for i in range(20) for _, n in world.programs()[i].notices if n.cause != "start"]
    print(
        f"  idle: {len(switches)} switches: { {cause: switches.count(cause) for cause in set(switches)} }",
        file=sys.stderr,
    )
    per_day = len(switches) / (20 * 19) / (hours / 24)
    return [Figure(f"false switches, 20 nodes, {hours:g} simulated hours", "per pair, day", 1.0, per_day)]


def count_bytes(counted: list[int], _source: Endpoint, _target: Endpoint, datagram: bytes) -> None:
    """Note the size of a datagram on the wire, IPv4 and UDP headers included."""
    counted.append(len(datagram) + 28)


def control() -> list[Figure]:
    """Measure the idle traffic that one node sends, beside RON's formula."""
    figures: list[Figure] = []
    for count in (10, 20, 30, 40, 50):
        world = quiet_world(count, 1)
        world.run(60 * SECOND_NS)
        counted: list[int] = []
        world.tap(partial(count_bytes, counted))
        world.run(120 * SECOND_NS)
        kbit_s = sum(counted) * 8 / 60 / count / 1000
        figures.append(
            Figure(
                f"control traffic sent, N = {count}",
                "kbit/s",
                100.0 if count == 50 else None,
                kbit_s,
                peer=RON_KBIT_S[count],
            )
        )
    return figures


def speed() -> list[Figure]:
    """Measure how much faster than life 20 idle nodes are simulated, on one core."""
    best = 0.0
    world = quiet_world(20, 1)
    world.run(90 * SECOND_NS)
    for _ in range(3):
        began, from_ns = time.process_time(), world.now_ns
        world.run(world.now_ns + 30 * SECOND_NS)
        best = max(best, (world.now_ns - from_ns) / 1e9 / (time.process_time() - began))
    return [
        Figure(
            "simulator, 20 idle nodes, per CPU second, best of 3 spans of 30 s",
            "x real time",
            40.0,
            best,
            at_most=False,
        )
    ]


def cli() -> list[Figure]:
    """Time the two commands that people wait for most."""
    atoll = [str(Path(sys.executable).with_name("atoll"))]

    def timed(arguments: list[str]) -> float:
        spans = []
        for _ in range(15):
            began = time.monotonic()
            subprocess.run([*atoll, *arguments], check=True, stdout=subprocess.DEVNULL)
            spans.append((time.monotonic() - began) * 1000)
        return statistics.median(spans)

    with tempfile.TemporaryDirectory(prefix="ab-") as state:
        launch(LaunchOptions(state=state, name="bench", listen="127.0.0.1:0"))
        try:
            status_ms = timed(["status", "--state", state])
        finally:
            subprocess.run([*atoll, "down", "--state", state], check=True, stderr=subprocess.DEVNULL)
    return [
        Figure("atoll --version, median of 15", "ms", 150.0, timed(["--version"])),
        Figure("atoll status, median of 15", "ms", 300.0, status_ms),
    ]


def choose() -> list[Figure]:
    """Take over the figures of bench/choose.py, which has a run of its own."""
    written = RESULTS / "choose.json"
    if not written.exists():
        subprocess.run(
            [sys.executable, str(Path(__file__).with_name("choose.py"))], check=True, stdout=subprocess.DEVNULL
        )
    rows = json.loads(written.read_text())["figures"]
    return [
        Figure(
            row["name"], row["unit"], row["asked"], row["measured"], at_most="switch" in row["name"], peer=row["peer"]
        )
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how atoll heals.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--trials", type=int, default=50, help="live trials of each kind")
    parser.add_argument("--seeds", type=int, default=1000, help="simulated seeds")
    parser.add_argument("--hours", type=float, default=24.0, help="simulated hours without a fault")
    options = parser.parse_args()
    figures: list[Figure] = []
    for part in options.only.split(","):
        print(f"{part} ...", file=sys.stderr)
        match part:
            case "speed":
                figures += speed()
            case "control":
                figures += control()
            case "cli":
                figures += cli()
            case "choose":
                figures += choose()
            case "sim":
                figures += simulated(options.seeds)
            case "live":
                figures += live(options.trials)
            case "idle":
                figures += idle(options.hours)
            case _:
                parser.error(f"no part {part!r}")
    report("heal", figures)


if __name__ == "__main__":
    main()
