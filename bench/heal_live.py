# SPDX-License-Identifier: Apache-2.0
"""How fast real node processes heal on the WAN emulator: part ``live`` of bench/heal.py.

Each trial has a pair of five nodes, requests at 50 Hz through ``forward udp``, and a fault of the direct path at a
random moment; ten trials share a group. The seeds decide pairs and moments; what the machine's scheduler does is its
own.
"""

import asyncio
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Final

from figures import Figure, percentile
from heal_peers import Peers

from atoll.base.units import SECOND_NS
from atoll.lab.live import LiveGroup
from atoll.lab.scenario import SITES, demo_topology
from atoll.lab.traffic import Exchange

PACE_S: Final = 0.02
LOSS: Final = 3000
CLEAN: Final = 0.02
NEVER: Final = float("inf")
VOID_MAX: Final = 30  # Limit. Trials that prove nothing, before a figure says that it has fewer.
TRIALS_PER_GROUP: Final = 10  # All pairs of five nodes: a pair that was healed stays on its relay for a minute.


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


@dataclass(frozen=True)
class Trial:
    """One fault: seconds until healed, NEVER for never; the median round trip before it, NaN where nothing came."""

    healed_s: float
    rtt_s: float


async def live_trial(group: LiveGroup, pair: tuple[str, str], port: int, rng: Random, *, loss: bool) -> Trial | None:
    """Break the direct path of a pair under traffic; None: the pair was not on it, so the trial proves nothing."""
    source, target = pair
    pinger = Pinger(await group.forward(source, target, port, protocol="udp"))
    try:
        running = asyncio.create_task(pinger.run(7.0 if loss else 5.0))
        await asyncio.sleep(2.0 + rng.random())
        ways = [(await group.why(one, other)).path for one, other in (pair, (target, source))]
        key = f"{source}-{target}"
        if loss:
            cut_ns = await group.emulator.impair(source, target, key, loss=LOSS)
        else:
            cut_ns = await group.emulator.blackhole(source, target, key)
        await running
        await group.emulator.mend(key)
    finally:
        pinger.close()
    if any(len(way) > 2 for way in ways):
        return None
    seen = pinger.exchange()
    before = [a - s for s, a in zip(seen.sent_ns, seen.answered_ns, strict=True) if 0 < a < cut_ns]
    rtt_s = statistics.median(before) / 1e9 if before else float("nan")
    until_ns = seen.sent_ns[-1]
    healed = seen.healed_ns(cut_ns, until_ns, SECOND_NS, CLEAN) if loss else seen.first_answer_ns(cut_ns)
    return Trial(NEVER if healed is None else (healed - cut_ns) / 1e9, rtt_s)


async def live_round(round_number: int, trials: int, *, loss: bool) -> list[Trial | None]:
    """Run trials on one fresh group, a pair each; None for those that prove nothing."""
    rng = Random(1000 * round_number + loss)
    pairs = [pair for pair in permutations(SITES, 2) if pair[0] < pair[1]]
    rng.shuffle(pairs)
    results: list[Trial | None] = []
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        async with LiveGroup.running(SITES, demo_topology(), Path(directory), seed=round_number) as group:
            echo = Echo()
            try:
                for first, second in pairs[:trials]:
                    pair = (first, second) if rng.random() < 0.5 else (second, first)
                    result = await live_trial(group, pair, echo.port, rng, loss=loss)
                    results.append(result)
                    told = "not on the direct path, void" if result is None else f"{result.healed_s:.3f} s"
                    print(f"  live {'loss' if loss else 'cut '} {pair[0]}-{pair[1]}: {told}", file=sys.stderr)
            finally:
                echo.close()
    return results


def run_trials(trials: int, *, loss: bool) -> tuple[list[Trial], int]:
    """Return so many trials that prove something (fewer if VOID_MAX do not), and how many did not."""
    good: list[Trial] = []
    void = number = 0
    while len(good) < trials and void < VOID_MAX:
        number += 1
        some = asyncio.run(live_round(number, min(TRIALS_PER_GROUP, trials - len(good)), loss=loss))
        good += [one for one in some if one is not None]
        void += sum(one is None for one in some)
    return good, void


def live(trials: int, peers: Peers) -> tuple[list[Figure], dict[str, object]]:
    """Blackhole and loss under traffic, on real processes."""
    cuts, cuts_void = run_trials(trials, loss=False)
    losses, losses_void = run_trials(trials, loss=True)
    cut_s, loss_s = [one.healed_s for one in cuts], [one.healed_s for one in losses]
    beyond_s = [one.healed_s - one.rtt_s for one in cuts]
    blackhole, lossy = f"live, blackhole, {len(cuts)} trials", f"live, 30 % loss until < 2 %, {len(losses)} trials"
    figures = [
        Figure(f"{blackhole}: median beyond 1 RTT", "s", 0.3, percentile(beyond_s, 0.5), peer=peers.cut_median_s),
        Figure(f"{blackhole}: median", "s", None, percentile(cut_s, 0.5), peer=peers.cut_median_s),
        Figure(f"{blackhole}: p95", "s", 1.0, percentile(cut_s, 0.95), peer=peers.cut_worst_s),
        Figure(f"{lossy}: median", "s", 1.0, percentile(loss_s, 0.5)),
        Figure(f"{lossy}: p95", "s", 2.5, percentile(loss_s, 0.95)),
    ]
    return figures, {
        "void trials": {"blackhole": cuts_void, "loss": losses_void},
        "worst": {"blackhole": max(cut_s), "loss": max(loss_s)},
        "peer": peers.told,
    }
