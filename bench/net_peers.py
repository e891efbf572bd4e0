# SPDX-License-Identifier: Apache-2.0
"""The overlays that are compared, each set up as its own documents say, and this one among them.

Debian brings the others: nebula, tinc, yggdrasil, n2n, wireguard-go with babeld, and BIRD (OSPF with BFD over VXLAN,
which does not encrypt, for the recovery alone). Who is not installed is left out, and said so.
"""

import json
import os
import shutil
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path

from net_wan import Wan

__all__ = ["PEERS", "Overlay"]

INTERFACE_WAIT_S = 5.0


class Overlay(ABC):
    """One overlay on all hosts of a WAN.

    Attributes:
        name: In results.
        about: How it is set up here.
        encrypted: Whether it encrypts.
        programs: What must be installed.
        phase_s: A fault comes at a random moment within so many seconds, so that it meets every state of its timers.
        retimed: Only its timers differ from another's here: what a byte and a round trip cost is measured with that.
    """

    name: str
    about: str
    encrypted = True
    retimed = False
    programs: tuple[str, ...] = ()
    phase_s = 10.0

    @abstractmethod
    def start(self, wan: Wan) -> None:
        """Start it on all hosts."""

    def address(self, wan: Wan, host: str) -> str:
        """Return a host's address on it."""
        return f"10.99.0.{wan.hosts.index(host) + 1}"

    def stop(self, wan: Wan) -> None:  # noqa: B027 -- most have nothing to do here.
        """End what ``Wan`` does not end by itself."""

    def missing(self) -> list[str]:
        """Return the programs that are not installed."""
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        return [program for program in self.programs if shutil.which(program, path=path) is None]

    @staticmethod
    def write(wan: Wan, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a file of the overlay."""
        path = wan.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path


class Atoll(Overlay):
    """This one."""

    name, about = "atoll", "atoll up --tun on every host; relay budget lifted"
    phase_s = 3.0

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}

    def start(self, wan: Wan) -> None:
        invite: list[str] = []
        for host in wan.hosts:
            self.up(wan, host, *invite)
            invite = [json.loads(self.atoll(wan, wan.hosts[0], "invite", "--json"))["invite"]]

    def up(self, wan: Wan, host: str, *invite: str) -> None:
        """Start the node of one host."""
        options = ["--tun", "--listen", f"{wan.ip(host)}:7747", "--name", host.lower(), "--relay-budget", "100000"]
        ready = json.loads(self.atoll(wan, host, "up", *invite, *options, "--json"))
        self._addresses[host] = ready["address"]
        lock = wan.directory / f"atoll-{host}" / "lock"
        wan.daemons[host].append(int(lock.read_text(encoding="ascii")))

    def stop(self, wan: Wan) -> None:
        for host in self._addresses:
            self.atoll(wan, host, "down")

    @staticmethod
    def atoll(wan: Wan, host: str, *arguments: str) -> str:
        """Run the command on a host; return what it printed."""
        state = str(wan.directory / f"atoll-{host}")
        return wan.run(host, sys.executable, "-m", "atoll.cli", *arguments, "--state", state)

    def address(self, wan: Wan, host: str) -> str:  # noqa: ARG002 -- the shape of the others.
        return self._addresses[host]


NEBULA = """
pki: {{ca: {directory}/ca.crt, cert: {directory}/{host}.crt, key: {directory}/{host}.key}}
static_host_map: {{"{hub}": ["{hub_ip}:4242"]}}
lighthouse: {{am_lighthouse: {is_hub}, interval: 10, hosts: [{hubs}]}}
listen: {{host: 0.0.0.0, port: 4242}}
relay: {{am_relay: {is_hub}, use_relays: true, relays: [{hubs}]}}
tun: {{dev: n0, mtu: 1300}}
logging: {{level: info, format: text}}
punchy: {{punch: true}}
{extra}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"""


class Nebula(Overlay):
    """Nebula with one lighthouse, which relays as well."""

    programs = ("nebula", "nebula-cert")
    phase_s = 15.0

    def __init__(self, name: str = "nebula", extra: str = "", told: str = "the sample configuration's timers") -> None:
        self.name, self._extra, self.retimed = name, extra, bool(extra)
        self.about = f"C is lighthouse and relay; {told}"

    def start(self, wan: Wan) -> None:
        directory, hub = wan.directory / "nebula", wan.hosts[min(2, len(wan.hosts) - 1)]
        directory.mkdir()
        ca = [f"{directory}/ca.crt", f"{directory}/ca.key"]
        wan.run(hub, "nebula-cert", "ca", "-name", "test", "-out-crt", ca[0], "-out-key", ca[1])
        for host in wan.hosts:
            at = self.address(wan, host)
            made = ["-out-crt", f"{directory}/{host}.crt", "-out-key", f"{directory}/{host}.key"]
            wan.run(
                host, "nebula-cert", "sign", "-ca-crt", ca[0], "-ca-key", ca[1], "-name", host, "-ip", f"{at}/24", *made
            )
            text = NEBULA.format(
                directory=directory,
                host=host,
                hub=self.address(wan, hub),
                hub_ip=wan.ip(hub),
                is_hub=str(host == hub).lower(),
                hubs="" if host == hub else f'"{self.address(wan, hub)}"',
                extra=self._extra,
            )
            wan.daemon(host, "nebula", "-config", str(self.write(wan, f"nebula/{host}.yml", text)))


class Tinc(Overlay):
    """Tinc 1.0 in router mode."""

    programs = ("tincd",)

    def __init__(self, name: str, extra: str, about: str, phase_s: float) -> None:
        self.name, self._extra, self.about, self.phase_s = name, extra, about, phase_s
        self.retimed = bool(extra)

    def start(self, wan: Wan) -> None:
        for host in wan.hosts:
            others = "".join(f"ConnectTo = {other}\n" for other in wan.hosts if other != host)
            base, at = f"tinc-{host}", self.address(wan, host)
            self.write(
                wan, f"{base}/tinc.conf", f"Name = {host}\nInterface = t0\nAddressFamily = ipv4\n{self._extra}{others}"
            )
            up = f"#!/bin/sh\nip addr add {at}/24 dev $INTERFACE\nip link set $INTERFACE up\n"
            self.write(wan, f"{base}/tinc-up", up, 0o700)
            self.write(wan, f"{base}/hosts/{host}", f"Address = {wan.ip(host)}\nSubnet = {at}/32\n")
            wan.run(host, "tincd", "-c", str(wan.directory / base), "-K", "2048", text="\n\n")
        for host in wan.hosts:
            text = (wan.directory / f"tinc-{host}/hosts/{host}").read_text(encoding="utf-8")
            for other in wan.hosts:
                self.write(wan, f"tinc-{other}/hosts/{host}", text)
        for host in wan.hosts:
            base = str(wan.directory / f"tinc-{host}")
            wan.daemon(host, "tincd", "-c", base, "-D", f"--pidfile={base}/pid")


class Yggdrasil(Overlay):
    """Yggdrasil, every host a static peer of every other."""

    name, about = "yggdrasil", "full mesh of static TLS peerings, multicast off, defaults"
    programs = ("yggdrasil",)

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}

    def start(self, wan: Wan) -> None:
        # The last one first: a peering that finds nobody listening waits a minute.
        for number, host in reversed(list(enumerate(wan.hosts))):
            made = json.loads(wan.run(host, "yggdrasil", "-genconf", "-json"))
            made.update(
                Listen=[f"tls://{wan.ip(host)}:9001"],
                Peers=[f"tls://{wan.ip(other)}:9001" for other in wan.hosts[number + 1 :]],
                MulticastInterfaces=[],
                AdminListen="none",
                IfName="y0",
            )
            path = str(self.write(wan, f"ygg-{host}.json", json.dumps(made)))
            said = wan.run(host, "yggdrasil", "-useconffile", path, "-address").strip().splitlines()
            self._addresses[host] = said[-1]
            wan.daemon(host, "yggdrasil", "-useconffile", path)
            time.sleep(0.7)

    def address(self, wan: Wan, host: str) -> str:  # noqa: ARG002 -- the shape of the others.
        return self._addresses[host]


class N2n(Overlay):
    """n2n 2.8, as Debian has it."""

    name, about = "n2n", "supernode on C, an edge on every host, defaults"
    programs = ("edge", "supernode")
    phase_s = 20.0

    def start(self, wan: Wan) -> None:
        hub = wan.hosts[min(2, len(wan.hosts) - 1)]
        wan.daemon(hub, "supernode", "-l", "7654")
        for number, host in enumerate(wan.hosts, 1):
            device = [
                "-d",
                "n2n0",
                "-a",
                self.address(wan, host),
                "-s",
                "255.255.255.0",
                "-m",
                f"02:00:00:00:00:{number:02x}",
            ]
            group = ["-c", "group", "-k", "secret", "-p", "7000", "-l", f"{wan.ip(hub)}:7654"]
            wan.daemon(host, "edge", *device, *group)


class WireGuardBabel(Overlay):
    """A wireguard-go tunnel for each pair, babeld on top."""

    programs = ("wireguard-go", "wg", "babeld")
    phase_s = 16.0

    def __init__(self, name: str, options: tuple[str, ...], told: str) -> None:
        self.name, self._options, self.retimed = name, options, bool(options)
        self.about = f"a wireguard-go tunnel for each pair, babeld on them, {told}"

    def start(self, wan: Wan) -> None:
        devices: dict[str, list[str]] = {host: [] for host in wan.hosts}
        for number, pair in enumerate(wan.pairs()):
            self._lay(wan, 52000 + number, pair, devices)
        for host in wan.hosts:
            wan.run(host, "ip", "-6", "address", "add", f"{self.address(wan, host)}/128", "dev", "lo")
            files = ["-I", f"{wan.directory}/babel-{host}.pid", "-S", f"{wan.directory}/babel-{host}.state"]
            rules = ("redistribute local ip fd77::/16 allow", "redistribute local deny", "redistribute deny")
            said = [word for rule in rules for word in ("-C", rule)]
            wan.daemon(host, "babeld", *files, *self._options, *said, *devices[host])

    @staticmethod
    def _lay(wan: Wan, port: int, pair: tuple[str, str], devices: dict[str, list[str]]) -> None:
        ends = (pair, pair[::-1])
        keys = {host: wan.run(host, "wg", "genkey").strip() for host in pair}
        public = {host: wan.run(host, "wg", "pubkey", text=keys[host]).strip() for host in pair}
        for host, other in ends:
            device = f"{wan.tag}{host}{other}"  # The control sockets share a folder, so names must differ.
            devices[host].append(device)
            own = {"WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1", "WG_PROCESS_FOREGROUND": "1"}
            wan.daemon(host, "wireguard-go", "-f", device, environment=own)
        for host, other in ends:
            device, key = f"{wan.tag}{host}{other}", Overlay.write(wan, f"key-{host}{other}", keys[host])
            give_up = time.monotonic() + INTERFACE_WAIT_S
            while "interface" not in wan.run(host, "wg", "show", device, check=False) and time.monotonic() < give_up:
                time.sleep(0.1)
            peer = ["peer", public[other], "allowed-ips", "0.0.0.0/0,::/0", "endpoint", f"{wan.ip(other)}:{port}"]
            wan.run(host, "wg", "set", device, "listen-port", str(port), "private-key", str(key), *peer)
            numbers = [wan.hosts.index(one) + 1 for one in (host, other)]
            wan.run(host, "ip", "address", "add", f"fe80::{numbers[0]}:{numbers[1]}/64", "dev", device)
            wan.run(host, "ip", "link", "set", device, "mtu", "1420", "up")

    def address(self, wan: Wan, host: str) -> str:
        return f"fd77::{wan.hosts.index(host) + 1}"


BIRD = """
router id {address};
protocol device {{ }}
protocol kernel {{ ipv4 {{ import none; export filter {{ krt_prefsrc = {address}; accept; }}; }}; }}
protocol bfd {{ interface "*" {{ interval 50 ms; multiplier 3; }}; }}
protocol ospf v2 {{
  ipv4 {{ import all; export none; }};
  area 0 {{
    interface {devices} {{ type ptp; bfd on; hello 1; }};
    interface "lo" {{ stub; }};
  }};
}}
"""


class OspfBfd(Overlay):
    """BIRD's OSPF with BFD over VXLAN: no encryption, and nothing that a stranger could not forge."""

    name, about, encrypted = "ospf-bfd", "a VXLAN link for each pair, BIRD OSPF, hello 1 s, BFD 50 ms x 3", False
    programs = ("bird",)

    def start(self, wan: Wan) -> None:
        devices: dict[str, list[str]] = {host: [] for host in wan.hosts}
        for number, pair in enumerate(wan.pairs()):
            for low, (host, other) in enumerate((pair, pair[::-1])):
                device = f"x{host}{other}"
                link = ["id", str(100 + number), "local", wan.ip(host), "remote", wan.ip(other), "dstport", "4789"]
                wan.run(host, "ip", "link", "add", device, "type", "vxlan", *link, "nolearning", "dev", "u0")
                wan.run(host, "ip", "link", "set", device, "mtu", "1450", "up")
                wan.run(host, "ip", "address", "add", f"10.88.{number}.{low}/31", "dev", device)
                devices[host].append(device)
        for host in wan.hosts:
            at = self.address(wan, host)
            wan.run(host, "ip", "address", "add", f"{at}/32", "dev", "lo")
            text = BIRD.format(address=at, devices=", ".join(f'"{device}"' for device in devices[host]))
            path = str(self.write(wan, f"bird-{host}.conf", text))
            files = ["-s", f"{wan.directory}/bird-{host}.ctl", "-P", f"{wan.directory}/bird-{host}.pid"]
            wan.daemon(host, "bird", "-f", "-c", path, *files)


def _babel(*words: str) -> tuple[str, ...]:
    return ("-C", " ".join(words))


PEERS = {
    overlay.name: overlay
    for overlay in (
        Atoll(),
        Yggdrasil(),
        Nebula(),
        Nebula(
            "nebula-tuned",
            "timers: {connection_alive_interval: 1, pending_deletion_interval: 1}",
            "connection_alive_interval 1 s, pending_deletion_interval 1 s",
        ),
        Tinc(
            "tinc",
            "",
            "router mode, every host connects to all others, defaults (PingInterval 60, PingTimeout 5)",
            60.0,
        ),
        Tinc("tinc-tuned", "PingInterval = 1\nPingTimeout = 1\n", "as tinc, PingInterval 1, PingTimeout 1", 3.0),
        N2n(),
        WireGuardBabel("wg-babel", (), "defaults (hello 4 s)"),
        WireGuardBabel(
            "wg-babel-tuned",
            _babel("default link-quality true hello-interval 0.5 update-interval 2"),
            "hello 0.5 s, update 2 s, link-quality on",
        ),
        OspfBfd(),
    )
}
