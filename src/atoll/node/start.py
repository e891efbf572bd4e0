# SPDX-License-Identifier: Apache-2.0
"""What passes between who starts a node and the node: options in, one answer out."""

import msgspec

from atoll.base.member import RelayWill
from atoll.node.rules import Rules
from atoll.node.views import Problem, Ready

__all__ = ["LaunchAnswer", "LaunchOptions"]


class LaunchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``atoll up`` asks for.

    Attributes:
        state: The node's state directory.
        invite: Invitation to join a group with; None: start, or found a group where there is none yet.
        name: Name of this node, a DNS label; None: the kept one, or the host's.
        listen: ``HOST:PORT`` of the underlay sockets, with commas, TCP as ``tcp/HOST:PORT``; None: the kept ones, or
            all addresses on the default port.
        tcp: Port at which TCP connections are taken as well; 0: none; None: as kept, or as ``listen`` says.
        advertise: ``HOST:PORT`` addresses to tell the members instead of the detected ones (port forwarding, labs);
            empty: the detected ones; None: the kept choice.
        relay: Whether to forward for others; None: the kept one, or yes.
        relay_bytes_s: Budget for forwarding, bytes per second.
        group_name: Name of a new group; None: two random words.
        tun: Join this machine's network stack to the overlay; None: the kept choice.
        rules: What atoll.toml says of access and traffic; None: there is no file, and the kept ones hold.
        metrics: ``HOST:PORT`` where metrics are served; empty: nowhere; None: the kept choice.
        journal: Keep the journal of decisions.
    """

    state: str
    invite: str | None = None
    name: str | None = None
    listen: str | None = None
    tcp: int | None = None
    advertise: tuple[str, ...] | None = None
    relay: RelayWill | None = None
    relay_bytes_s: int | None = None
    group_name: str | None = None
    tun: bool | None = None
    rules: Rules | None = None
    metrics: str | None = None
    journal: bool = True


class LaunchAnswer(msgspec.Struct, frozen=True):
    """The daemon's first line: exactly one of the two is set."""

    ok: Ready | None = None
    error: Problem | None = None
