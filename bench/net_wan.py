# SPDX-License-Identifier: Apache-2.0
"""A small Internet of network namespaces, all on one machine, for the comparison with other overlays.

Each host (A, B, C, ...) has one underlay address and one wire of 1500 bytes to a *core* that routes between them. The
core can drop all or a share of what goes between two hosts, silently and both ways, while paths by third hosts go on;
it counts the bytes of each pair, so that one can see which way traffic went; and it can hold a host's wire to a rate.
No delay is added. Everything is named ``aw...`` and taken away at the end.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Wan", "WanError", "family_of"]

WAIT_S = 60.0
END_S = 3.0
CORE = "core"
_serial = itertools.count(1)


class WanError(Exception):
    """A command failed, or an overlay did not start."""


def family_of(pid: int) -> list[int]:
    """Return a process and all that it started, as far as they live."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        try:
            children = Path(f"/proc/{one}/task/{one}/children").read_text(encoding="ascii").split()
        except OSError:
            continue
        found.append(one)
        waiting += [int(child) for child in children]
    return found


class Wan:
    """Hosts, their wires, and the processes on them.

    Args:
        count: Hosts, 2 to 26.

    Attributes:
        hosts: Their names, ``A`` onwards.
        directory: For files; goes with the rest.
        daemons: Process ids of the overlay's daemons, by host; what they start counts with them.
    """

    def __init__(self, count: int = 4) -> None:
        self._tag = f"aw{os.getpid() % 0xFFFF:x}{next(_serial):x}"
        self.hosts = [chr(ord("A") + number) for number in range(count)]
        self.directory = Path(tempfile.mkdtemp(prefix="aw-"))
        self.daemons: dict[str, list[int]] = {host: [] for host in self.hosts}
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def tag(self) -> str:
        """Part of every name, different in each process and WAN."""
        return self._tag

    def namespace(self, host: str) -> str:
        """Return the name of a host's network namespace."""
        return f"{self._tag}-{host}"

    def ip(self, host: str) -> str:
        """Return a host's underlay address."""
        return f"10.77.{self.hosts.index(host) + 1}.2"

    def pairs(self) -> list[tuple[str, str]]:
        """Return all pairs of hosts."""
        return list(itertools.combinations(self.hosts, 2))

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _build(self) -> None:
        self._run(["ip", "netns", "add", self.namespace(CORE)])
        quiet = ("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv4.ip_forward=1")
        self.run(CORE, "sysctl", "-qw", *quiet, "net.ipv6.conf.default.disable_ipv6=1")
        self.run(CORE, "ip", "link", "set", "lo", "up")
        for number, host in enumerate(self.hosts, 1):
            space = self.namespace(host)
            self._run(["ip", "netns", "add", space])
            self.run(host, "sysctl", "-qw", *quiet, "net.ipv6.conf.all.forwarding=1")
            wire = ["ip", "link", "add", "u0", "netns", space, "type", "veth"]
            self._run([*wire, "peer", "name", f"w{host}", "netns", self.namespace(CORE)])
            # No chatter of IPv6 on the wire: idle traffic is the overlay's alone.
            self.run(host, "sysctl", "-qw", "net.ipv6.conf.u0.disable_ipv6=1")
            for device in ("lo", "u0"):
                self.run(host, "ip", "link", "set", device, "up")
            self.run(host, "ip", "address", "add", f"{self.ip(host)}/24", "dev", "u0")
            self.run(host, "ip", "route", "add", "10.77.0.0/16", "via", f"10.77.{number}.1")
            self.run(CORE, "ip", "address", "add", f"10.77.{number}.1/24", "dev", f"w{host}")
            self.run(CORE, "ip", "link", "set", f"w{host}", "up")
        self._load_rules()

    def _load_rules(self) -> None:
        rules = ["table ip wan {"]
        for one, other in self.pairs():
            rules += [f"counter p{one}{other} {{}}", f"chain c{one}{other} {{ counter name p{one}{other}; }}"]
        rules.append("chain crossing { type filter hook forward priority 0; policy accept;")
        for one, other in self.pairs():
            for source, target in ((one, other), (other, one)):
                rules.append(f"ip saddr {self.ip(source)} ip daddr {self.ip(target)} jump c{one}{other}")
        self.run(CORE, "nft", "-f", "-", text="\n".join([*rules, "}", "}", ""]))

    def _remove(self) -> None:
        self.end(self._processes)
        self.kill_daemons()
        for host in (*self.hosts, CORE):
            subprocess.run(["ip", "netns", "del", self.namespace(host)], check=False, capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    # Trouble.

    def _change(self, one: str, other: str, rule: str) -> float:
        pair = "".join(sorted((one, other)))
        lines = [f"flush chain ip wan c{pair}"]
        if rule:
            lines.append(f"add rule ip wan c{pair} {rule}")
        lines.append(f"add rule ip wan c{pair} counter name p{pair}")
        self.run(CORE, "nft", "-f", "-", text="\n".join([*lines, ""]))
        return time.monotonic()

    def cut(self, one: str, other: str) -> float:
        """Let nothing pass between two hosts, silently; return when."""
        return self._change(one, other, "drop")

    def lose(self, one: str, other: str, share: float) -> float:
        """Lose this share of the packets between two hosts, each way; return since when."""
        return self._change(one, other, f"numgen random mod 1000 < {round(share * 1000)} drop")

    def heal(self, one: str, other: str) -> float:
        """End the trouble between two hosts; return when."""
        return self._change(one, other, "")

    def shape(self, host: str, mbit_s: int) -> None:
        """Hold what a host sends to a rate, by a token bucket with 20 ms of queue; 0: no longer."""
        if not mbit_s:
            self.run(host, "tc", "qdisc", "del", "dev", "u0", "root")
            return
        burst = max(mbit_s * 1000 // 8 // 2, 5000)  # Half a millisecond, and three packets.
        rate = ["rate", f"{mbit_s}mbit", "burst", str(burst), "latency", "20ms"]
        self.run(host, "tc", "qdisc", "replace", "dev", "u0", "root", "tbf", *rate)

    # Counters.

    def pair_bytes(self) -> dict[str, int]:
        """Return the bytes carried so far between each pair, drops left out; keys such as ``AB``."""
        listed = json.loads(self.run(CORE, "nft", "-j", "list", "counters", "table", "ip", "wan"))
        counters = [item["counter"] for item in listed["nftables"] if "counter" in item]
        return {counter["name"][1:]: counter["bytes"] for counter in counters}

    def wire_bytes(self, host: str) -> int:
        """Return the bytes that a host has sent and received."""
        counted = json.loads(self.run(host, "ip", "-j", "-s", "link", "show", "u0"))[0]["stats64"]
        return int(counted["tx"]["bytes"]) + int(counted["rx"]["bytes"])

    # Processes.

    def command(self, host: str, *command: str) -> list[str]:
        """Return a command as it runs on a host."""
        return ["ip", "netns", "exec", self.namespace(host), *command]

    def run(self, host: str, *command: str, text: str | None = None, check: bool = True, wait_s: float = WAIT_S) -> str:
        """Run a command on a host; return what it printed."""
        return self._run(self.command(host, *command), text=text, check=check, wait_s=wait_s)

    @staticmethod
    def _run(command: Sequence[str], *, text: str | None = None, check: bool = True, wait_s: float = WAIT_S) -> str:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=wait_s)
        if check and done.returncode:
            raise WanError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def spawn(
        self, host: str, *command: str, environment: Mapping[str, str] | None = None, output: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host; what it says goes into a log, unless ``output`` is a pipe."""
        with (self.directory / f"{Path(command[0]).name}.{host}.log").open("ab") as log:
            process = subprocess.Popen(
                self.command(host, *command),
                stdin=subprocess.DEVNULL,
                stdout=log if output is None else output,
                stderr=log,
                env=dict(os.environ, **(environment or {})),
            )
        self._processes.append(process)
        return process

    def daemon(self, host: str, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a daemon of the overlay on a host."""
        self.daemons[host].append(self.spawn(host, *command, environment=environment).pid)

    def everybody(self) -> list[int]:
        """Return all processes of the overlay on all hosts."""
        return [pid for host in self.hosts for pid in self.family(host)]

    def family(self, host: str) -> list[int]:
        """Return all processes of the overlay on a host."""
        return [pid for root in self.daemons[host] for pid in family_of(root)]

    def kill_daemons(self) -> None:
        """End the daemons that did not come from ``spawn``."""
        ours = {process.pid for process in self._processes}
        for pid in (pid for pids in self.daemons.values() for pid in pids if pid not in ours):
            for one in family_of(pid):
                try:
                    os.kill(one, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def end(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """End programs, gently first."""
        for process in processes:
            if process.poll() is None:
                process.terminate()
        give_up = time.monotonic() + END_S
        for process in processes:
            try:
                process.wait(max(0.05, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        ended = set(map(id, processes))
        self._processes = [process for process in self._processes if id(process) not in ended]

    def last_words(self) -> str:
        """Return the end of every log."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"{log.name}: {' | '.join(log.read_text(errors='replace').splitlines()[-5:])}" for log in logs)
