# SPDX-License-Identifier: Apache-2.0
"""What is measured of an overlay, the same way for every one. All times are in seconds."""

import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import percentile
from net_peers import Overlay
from net_wan import Wan, WanError

__all__ = [
    "Moved",
    "Pinger",
    "Stream",
    "await_ready",
    "failover",
    "idle",
    "latency",
    "lossy",
    "middle",
    "settle_direct",
    "shaped",
    "stream",
    "throughput",
]

PROBE = Path(__file__).with_name("net_probe.py")
PORT = 7777
RATE_HZ = 100
GIVE_UP_S = 120.0  # "Never" means: not within this.
READY_S = 90.0
TICKS = os.sysconf("SC_CLK_TCK")
RETURN_S = 120.0  # Some go back only after a minute without a loss; a trial that does not begin direct shows nothing.


class Pinger:
    """A steady UDP ping-pong from A to B, and its record."""

    def __init__(self, wan: Wan, source: str, target: str) -> None:
        self._wan = wan
        self._sent: dict[int, float] = {}
        self._got: dict[int, float] = {}
        program = (sys.executable, "-S", str(PROBE))
        self._server = wan.spawn("B", *program, "serve", target, str(PORT))
        time.sleep(0.3)
        drive = ("drive", source, target, str(PORT), str(RATE_HZ))
        self._client = wan.spawn("A", *program, *drive, output=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._client.stdout is not None
        for line in self._client.stdout:
            kind, number, at = line.split()
            (self._sent if kind == b"S" else self._got)[int(number)] = float(at)

    def stop(self) -> None:
        """End both sides."""
        self._wan.end([self._client, self._server])
        self._reader.join(2)

    def flowing_since(self, since: float, span: float = 0.5, share: float = 0.8) -> float | None:
        """Return when answers to probes sent since then began to come steadily; None: not yet."""
        sent, got = dict(self._sent), dict(self._got)
        times = sorted(at for number, at in got.items() if sent.get(number, 0.0) >= since)
        need = int(span * RATE_HZ * share)
        for first, last in zip(times, times[need:], strict=False):
            if last - first <= span:
                return first
        return None

    def lost(self, since: float, until: float) -> float:
        """Return the share of the probes sent in that time that were never answered."""
        sent, got = dict(self._sent), dict(self._got)
        numbers = [number for number, at in sent.items() if since <= at < until]
        return sum(number not in got for number in numbers) / max(1, len(numbers))


class Stream:
    """One iperf3 stream from A to B that runs for long, to see whether it survives."""

    def __init__(self, wan: Wan, source: str, target: str, seconds: int) -> None:
        self._wan = wan
        self._server = wan.spawn("B", "iperf3", "-s", "-1", "-B", target, "-p", "5299")
        time.sleep(0.5)
        command = ("iperf3", "-c", target, "-B", source, "-p", "5299", "-t", str(seconds), "-b", "2M", "-J")
        self._client = wan.spawn("A", *command, output=subprocess.PIPE)

    def survived(self) -> bool:
        """Wait for its end; return whether it ended well and moved bytes to the end."""
        out, _ = self._client.communicate(timeout=GIVE_UP_S)
        self._wan.end([self._client, self._server])
        try:
            told = json.loads(out)
            return "error" not in told and told["intervals"][-1]["sum"]["bytes"] > 0
        except (ValueError, LookupError):
            return False


def direct_share(before: dict[str, int], after: dict[str, int]) -> float:
    """Return the share of A's bytes that went straight to B."""
    delta = {pair: after[pair] - before[pair] for pair in after if "A" in pair}
    return delta["AB"] / max(1, sum(delta.values()))


def await_direct(wan: Wan, wait_s: float) -> float | None:
    """Wait until what flows now takes the direct path; return how long that took."""
    began, before = time.monotonic(), wan.pair_bytes()
    while time.monotonic() - began < wait_s:
        time.sleep(0.5)
        after = wan.pair_bytes()
        moved = sum(after[pair] - before[pair] for pair in after if "A" in pair)
        if moved > 3000 and direct_share(before, after) >= 0.7:
            return time.monotonic() - began
        before = after
    return None


def settle_direct(wan: Wan, overlay: Overlay, wait_s: float = 60.0) -> None:
    """Give a fresh overlay time to find the direct path between A and B."""
    ping = Pinger(wan, overlay.address(wan, "A"), overlay.address(wan, "B"))
    await_direct(wan, wait_s)
    ping.stop()


def await_ready(wan: Wan, overlay: Overlay) -> float:
    """Wait until all pairs reach each other over the overlay; return how long that took."""
    began, left = time.monotonic(), wan.pairs()
    while True:
        left = [pair for pair in left if not _reaches(wan, overlay, *pair)]
        if not left:
            return time.monotonic() - began
        if time.monotonic() - began > READY_S:
            raise WanError(f"{overlay.name}: not ready: {left}\n{wan.last_words()}")
        time.sleep(0.3)


def _reaches(wan: Wan, overlay: Overlay, one: str, other: str) -> bool:
    ends = overlay.address(wan, one), overlay.address(wan, other)
    return "1 received" in wan.run(one, "ping", "-n", "-c", "1", "-W", "1", "-I", ends[0], ends[1], check=False)


@dataclass(frozen=True)
class Moved:
    """What one stream moved, and what that cost."""

    mbit_s: float
    retransmits: int
    machine_s_per_gb: float
    daemons_s_per_gb: float
    direct: float


def stream(wan: Wan, source: str, target: str, seconds: int, ends: tuple[str, str] = ("A", "B")) -> Moved:
    """Run one iperf3 stream from a host to another one, between these addresses of theirs."""
    server = wan.spawn(ends[1], "iperf3", "-s", "-1", "-B", target)
    time.sleep(0.5)
    pids, before = wan.everybody(), wan.pair_bytes()
    busy, own = _busy_s(), _cpu_s(pids)
    command = ("iperf3", "-c", target, "-B", source, "-t", str(seconds), "-J")
    out = wan.run(ends[0], *command, check=False, wait_s=seconds + 30)
    busy, own = _busy_s() - busy, _cpu_s(pids) - own
    share = direct_share(before, wan.pair_bytes())
    wan.end([server])
    try:
        end = json.loads(out)["end"]
        got, retransmits = end["sum_received"], end["sum_sent"].get("retransmits", 0)
    except (ValueError, LookupError) as error:
        raise WanError(f"iperf3: {out[-300:]}") from error
    gb = got["bytes"] / 1e9
    return Moved(got["bits_per_second"] / 1e6, retransmits, busy / gb, own / gb, share)


def throughput(wan: Wan, overlay: Overlay, repeats: int, seconds: int) -> dict[str, list[Moved]]:
    """Measure raw and direct in turn, then through a relay; see ``stream``."""
    ends = overlay.address(wan, "A"), overlay.address(wan, "B")
    moved: dict[str, list[Moved]] = {"raw": [], "direct": [], "relayed": []}
    settle_direct(wan, overlay)
    for _ in range(repeats):
        moved["raw"].append(stream(wan, wan.ip("A"), wan.ip("B"), seconds))
        moved["direct"].append(stream(wan, *ends, seconds))
    since = wan.cut("A", "B")
    ping = Pinger(wan, *ends)
    while (flows := ping.flowing_since(since)) is None and time.monotonic() < since + GIVE_UP_S:
        time.sleep(0.5)
    ping.stop()
    if flows is not None:
        time.sleep(2)
        moved["relayed"] = [stream(wan, *ends, seconds) for _ in range(repeats)]
    wan.heal("A", "B")
    return moved


def shaped(wan: Wan, overlay: Overlay, mbit_s: int, seconds: int) -> dict[str, float]:
    """Hold A's wire to a rate; return the share of it that one stream delivers, and the delay added meanwhile."""
    settle_direct(wan, overlay)
    wan.shape("A", mbit_s)
    try:
        ends = overlay.address(wan, "A"), overlay.address(wan, "B")
        raw, raw_ms = _loaded(wan, wan.ip("A"), wan.ip("B"), seconds)
        got, ms = _loaded(wan, *ends, seconds)
    finally:
        wan.shape("A", 0)
    return {
        "raw_share": raw / mbit_s,
        "share": got / mbit_s,
        "added_p50_ms": percentile(ms, 0.5) - percentile(raw_ms, 0.5),
        "added_p99_ms": percentile(ms, 0.99) - percentile(raw_ms, 0.99),
    }


def _loaded(wan: Wan, source: str, target: str, seconds: int) -> tuple[float, list[float]]:
    """Run a stream and, beside it, pings; return Mbit/s and round trips in ms."""
    command = ("ping", "-n", "-i", "0.02", "-w", str(seconds), "-I", source, target)
    ping = wan.spawn("A", *command, output=subprocess.PIPE)
    moved = stream(wan, source, target, seconds)
    out, _ = ping.communicate(timeout=seconds + 10)
    wan.end([ping])
    return moved.mbit_s, _times(out.decode())


def _times(said: str) -> list[float]:
    return [float(found) for found in re.findall(r"time=([\d.]+) ms", said)]


def latency(wan: Wan, overlay: Overlay, count: int = 1000) -> dict[str, float]:
    """Ping every 10 ms, raw and by the overlay in turn; return what the overlay adds, in ms."""
    settle_direct(wan, overlay)

    def times(source: str, target: str, number: int) -> list[float]:
        command = ("ping", "-n", "-i", "0.01", "-c", str(number), "-W", "1", "-I", source, target)
        return _times(wan.run("A", *command, check=False))

    raw = times(wan.ip("A"), wan.ip("B"), count // 2)
    over = times(overlay.address(wan, "A"), overlay.address(wan, "B"), count)
    raw += times(wan.ip("A"), wan.ip("B"), count // 2)
    return {f"added_p{share}_ms": percentile(over, share / 100) - percentile(raw, share / 100) for share in (50, 99)}


def idle(wan: Wan, settle_s: float = 20.0, span_s: float = 60.0) -> dict[str, float]:
    """Return what a host without traffic sends and receives, bytes a second, and what it holds and uses."""
    time.sleep(settle_s)
    before, cpu, began = [wan.wire_bytes(host) for host in wan.hosts], _cpu_s(wan.everybody()), time.monotonic()
    time.sleep(span_s)
    span = (time.monotonic() - began) * len(wan.hosts)
    moved = sum(wan.wire_bytes(host) - was for host, was in zip(wan.hosts, before, strict=True))
    return {
        "wire_bytes_s": moved / span,
        "rss_mib": max(_rss_mib(wan.family(host)) for host in wan.hosts),
        "cpu_percent": 100 * (_cpu_s(wan.everybody()) - cpu) / span,
    }


def failover(wan: Wan, overlay: Overlay, *, streams: bool) -> dict[str, float | bool | None]:
    """Cut the direct path under a steady ping-pong; return how long until answers flow again; None: never."""
    time.sleep(random.uniform(0, overlay.phase_s))
    ends = overlay.address(wan, "A"), overlay.address(wan, "B")
    ping = Pinger(wan, *ends)
    was_direct = await_direct(wan, 20.0) is not None
    tcp = Stream(wan, *ends, 8) if streams else None
    if tcp is not None:
        time.sleep(2)
    since, back = wan.cut("A", "B"), None
    while back is None and time.monotonic() < since + GIVE_UP_S:
        time.sleep(0.2)
        back = ping.flowing_since(since)
    survived = None if tcp is None else tcp.survived()
    wan.heal("A", "B")
    await_direct(wan, RETURN_S)
    ping.stop()
    recovery = None if back is None or back - since > GIVE_UP_S else back - since
    return {"recovery_s": recovery, "was_direct": was_direct, "tcp_survived": survived}


def lossy(wan: Wan, overlay: Overlay, share: float = 0.3, span_s: float = 30.0) -> dict[str, float | bool]:
    """Lose this share on the direct path, each way; return what the application loses after 2 s and at the end."""
    time.sleep(random.uniform(0, overlay.phase_s))
    ping = Pinger(wan, overlay.address(wan, "A"), overlay.address(wan, "B"))
    was_direct = await_direct(wan, 20.0) is not None
    since = wan.lose("A", "B", share)
    time.sleep(span_s + 2)
    after = {
        "after_2_s": ping.lost(since + 2, since + span_s),
        "last_10_s": ping.lost(since + span_s - 10, since + span_s),
    }
    wan.heal("A", "B")
    await_direct(wan, RETURN_S)
    ping.stop()
    return {**after, "was_direct": was_direct}


def _busy_s() -> float:
    """Return the CPU seconds for which the whole machine was busy so far."""
    numbers = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4] - numbers[7]) / TICKS


def _cpu_s(pids: Sequence[int]) -> float:
    ticks = 0
    for pid in pids:
        try:
            numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(numbers[11]) + int(numbers[12])
    return ticks / TICKS


def _rss_mib(pids: Sequence[int]) -> float:
    kib = 0
    for pid in pids:
        try:
            found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        except OSError:
            continue
        kib += int(found.group(1)) if found else 0
    return kib / 1024


def middle(values: Sequence[float]) -> float | None:
    """Return the median; None of nothing."""
    return statistics.median(values) if values else None
