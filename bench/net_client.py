# SPDX-License-Identifier: Apache-2.0
"""A stock WireGuard client, attached to a node and, in the same run, to a server of its own kind.

On D runs wireguard-go three times: attached to the node on A by the file that ``atoll client add`` printed, and to a
wireguard-go on A with the packet size of that file, and with its own. All stand ready throughout, and streams take
turns, so that whatever else the machine does meets all of them.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from net_measure import Moved, middle, stream
from net_peers import INTERFACE_WAIT_S, Atoll, Overlay
from net_wan import Wan, WanError

__all__ = ["PEER", "attached"]

NODE, CLIENT = "A", "D"
PORT = 52100
DEFAULT_MTU = 1420  # wireguard-go's own.
PEER = f"wg{DEFAULT_MTU}"
READY_S = 20.0
KEYWORDS_OF_OTHERS = ("Address", "DNS", "MTU", "#")  # What ``wg-quick strip`` takes out, because ``wg`` knows it not.


@dataclass(frozen=True)
class Link:
    """One client and what it is attached to: the addresses of both on it."""

    name: str
    client: str
    server: str


def attached(wan: Wan, repeats: int, seconds: int) -> dict[str, float | None]:
    """Return medians: of ``Moved`` for each link and way, as ``LINK_WAY_FIELD``, and of ``WAY_ratio``.

    A ratio is that of the node's stream to the one of wireguard-go, with its own packet size, in the same turn.
    """
    node = _Node()
    found: dict[str, list[Moved]] = {}
    try:
        links = list(_lay(wan, node))
        for way, ends in (("up", (CLIENT, NODE)), ("down", (NODE, CLIENT))) * repeats:
            for link in links:
                own = (link.client, link.server) if way == "up" else (link.server, link.client)
                found.setdefault(f"{link.name}_{way}", []).append(stream(wan, *own, seconds, ends=ends))
    finally:
        node.stop(wan)
    told = {
        f"{kind}_{key}": middle([asdict(one)[key] for one in moved])
        for kind, moved in found.items()
        for key in ("mbit_s", "retransmits", "machine_s_per_gb", "daemons_s_per_gb")
    }
    for way in ("up", "down"):
        turns = zip(found[f"node_{way}"], found[f"{PEER}_{way}"], strict=True)
        told[f"{way}_ratio"] = middle([ours.mbit_s / other.mbit_s for ours, other in turns])
    return told


class _Node(Atoll):
    """A group of one, which admits a client."""

    def start(self, wan: Wan) -> None:
        self.up(wan, NODE)

    def admit(self, wan: Wan) -> str:
        """Return the configuration of a new client."""
        return str(json.loads(self.atoll(wan, NODE, "client", "add", "phone", "--json"))["config"])


def _lay(wan: Wan, node: _Node) -> Iterator[Link]:
    node.start(wan)
    config = node.admit(wan)
    lines = dict(line.split(" = ", 1) for line in config.splitlines() if " = " in line and not line.startswith("#"))
    address, device = lines["Address"].removesuffix("/128"), f"{wan.tag}n"
    stripped = "\n".join(line for line in config.splitlines() if not line.startswith(KEYWORDS_OF_OTHERS))
    _start(wan, CLIENT, device)
    wan.run(CLIENT, "wg", "setconf", device, str(Overlay.write(wan, "client.conf", stripped)))
    _address(wan, CLIENT, device, address, lines["MTU"], lines["AllowedIPs"])
    yield _ready(wan, Link("node", address, node.address(wan, NODE)))
    for number, mtu in enumerate((lines["MTU"], str(DEFAULT_MTU))):
        yield _ready(wan, _pair(wan, number, mtu))


def _pair(wan: Wan, number: int, mtu: str) -> Link:
    """Attach a client to a wireguard-go on the node's host."""
    ends = {CLIENT: f"fd78:{number}::2", NODE: f"fd78:{number}::1"}
    keys = {host: wan.run(host, "wg", "genkey").strip() for host in ends}
    public = {host: wan.run(host, "wg", "pubkey", text=keys[host]).strip() for host in ends}
    for host, other in ((CLIENT, NODE), (NODE, CLIENT)):
        device, key = f"{wan.tag}{number}{host}", Overlay.write(wan, f"key-{number}{host}", keys[host])
        _start(wan, host, device)
        where = ["endpoint", f"{wan.ip(other)}:{PORT + number}"]
        own = ["listen-port", str(PORT + number), "private-key", str(key)]
        wan.run(host, "wg", "set", device, *own, "peer", public[other], "allowed-ips", "::/0", *where)
        _address(wan, host, device, ends[host], mtu, f"fd78:{number}::/64")
    return Link(f"wg{mtu}", ends[CLIENT], ends[NODE])


def _start(wan: Wan, host: str, device: str) -> None:
    own = {"WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1", "WG_PROCESS_FOREGROUND": "1"}
    wan.daemon(host, "wireguard-go", "-f", device, environment=own)
    give_up = time.monotonic() + INTERFACE_WAIT_S
    while "interface" not in wan.run(host, "wg", "show", device, check=False):
        if time.monotonic() > give_up:
            raise WanError(f"wireguard-go does not start: {wan.last_words()}")
        time.sleep(0.1)


def _address(  # tidy: allow parameters, one interface.
    wan: Wan, host: str, device: str, address: str, mtu: str, prefix: str
) -> None:
    wan.run(host, "ip", "address", "add", f"{address}/128", "dev", device, "nodad")
    wan.run(host, "ip", "link", "set", device, "mtu", mtu, "up")
    wan.run(host, "ip", "-6", "route", "add", prefix, "dev", device)


def _ready(wan: Wan, link: Link) -> Link:
    give_up = time.monotonic() + READY_S
    ping = ("ping", "-n", "-c", "1", "-W", "1", link.server)
    while "1 received" not in wan.run(CLIENT, *ping, check=False):
        if time.monotonic() > give_up:
            raise WanError(f"{link.name}: the client does not get in\n{wan.last_words()}")
    return link
