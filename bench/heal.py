# SPDX-License-Identifier: Apache-2.0
"""How fast paths heal, how seldom they switch for nothing, and what that costs.

    make bench-heal [BENCH_ARGS="--only sim,speed --seeds 100 --trials 10 --hours 1"]

Live figures are measured on real node processes over the WAN emulator; simulated ones on the same code under a
virtual clock. What is quoted is what ran: fewer seeds, trials or hours are said so in the figure's name. Parts may be
run apart: ``bench/results/heal.json`` keeps those that the same sources made on the same machine, and each run prints
them all.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from figures import RESULTS, Figure, Part, Row, machine, run_parts, sources_digest
from heal_idle import idle
from heal_live import live
from heal_peers import fastest_peer
from heal_sim import simulated
from units import Plan, Result, run_units

from atoll.base.ids import Endpoint
from atoll.base.units import SECOND_NS
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import packaged_regions
from atoll.node.launch import launch
from atoll.node.start import LaunchOptions
from atoll.sim import World, mesh_of_regions

RON_KBIT_S = {10: 1.8, 20: 5.9, 30: 12.3, 40: 21.0, 50: 32.0}  # Its formula, at a probe each 14 s and pair.
SPANS, SPAN_NS = 12, 10 * SECOND_NS


def quiet_world(count: int, seed: int) -> World[SimulatedNode]:
    """Return a started group on measured latencies and jitter, with no faults."""
    plans = blueprints(count, 1)
    world = World(mesh_of_regions(packaged_regions(), count=count), factory_of(plans), seed=seed)
    world.start_all()
    return world


def count_bytes(counted: list[int], _source: Endpoint, _target: Endpoint, datagram: bytes) -> None:
    """Note the size of a datagram on the wire, IPv4 and UDP headers included."""
    counted.append(len(datagram) + 28)


def sent_kbit_s(count: int) -> Result:
    """Return what each of so many idle nodes sends, in its third minute, as one row."""
    world = quiet_world(count, 1)
    world.run(120 * SECOND_NS)
    counted: list[int] = []
    world.tap(partial(count_bytes, counted))
    world.run(180 * SECOND_NS)
    return [[sum(counted) * 8 / 60 / count / 1000]]


def control() -> Part:
    """Measure the idle traffic that one node sends, beside RON's formula."""
    done = run_units(Plan("control", sent_kbit_s, tuple(RON_KBIT_S), {}))
    return [
        Figure(
            f"control traffic sent by an idle node, N = {count}; peer: RON's formula, a probe each 14 s",
            "kbit/s",
            100.0 if count == max(RON_KBIT_S) else None,
            rows[0][0],
            peer=RON_KBIT_S[count],
        )
        for count, rows in done.items()
    ], {}


def speed() -> Part:
    """Measure how much faster than life 20 idle nodes are simulated, on one core.

    By CPU time, and the best span: on a machine that others use too, slower spans measure the others.
    """
    world = quiet_world(20, 1)
    world.run(90 * SECOND_NS)
    speeds: list[float] = []
    for _ in range(SPANS):
        began = time.process_time()
        world.run(world.now_ns + SPAN_NS)
        speeds.append(SPAN_NS / 1e9 / (time.process_time() - began))
    name = f"simulator, 20 idle nodes, per CPU second, best of {SPANS} spans of {SPAN_NS // SECOND_NS} s"
    return [Figure(name, "x real time", 40.0, max(speeds), at_most=False)], {"median": statistics.median(speeds)}


def cli() -> Part:
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
    ], {}


def choose() -> Part:
    """Take over the figures of bench/choose.py, which is run unless these sources ran it on this machine."""
    written = RESULTS / "choose.json"
    if not written.exists() or _stale(json.loads(written.read_text())):
        script = Path(__file__).with_name("choose.py")
        subprocess.run([sys.executable, str(script)], check=True, stdout=subprocess.DEVNULL)
    told = json.loads(written.read_text())
    keys = ("name", "unit", "asked", "measured", "peer")
    figures = [Figure(at_most="switch" in row["name"], **{key: row[key] for key in keys}) for row in told["figures"]]
    return figures, told["extra"]


def _stale(told: Row) -> bool:
    """Say whether a run was of other sources, on another machine, or of some slices only."""
    whole = told["extra"].get("slices", 0) is None
    return not whole or (told.get("sources"), told["machine"]) != (sources_digest(), machine())


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how atoll heals.")
    parser.add_argument("--trials", type=int, default=50, help="live trials of each kind")
    parser.add_argument("--seeds", type=int, default=1000, help="simulated seeds")
    parser.add_argument("--hours", type=float, default=24.0, help="simulated hours without a fault, of each data set")
    parts: dict[str, Callable[[argparse.Namespace], Part]] = {
        "speed": lambda _: speed(),
        "control": lambda _: control(),
        "cli": lambda _: cli(),
        "choose": lambda _: choose(),
        "sim": lambda options: simulated(options.seeds),
        "live": lambda options: live(options.trials, fastest_peer()),
        "idle": lambda options: idle(options.hours),
    }
    parser.add_argument("--only", default=",".join(parts), help=f"some of {','.join(parts)}")
    options = parser.parse_args()
    run_parts("heal", {name: partial(part, options) for name, part in parts.items()}, options.only, parser)


if __name__ == "__main__":
    main()
