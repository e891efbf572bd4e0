# SPDX-License-Identifier: Apache-2.0
"""The node's private network: for programs that are to see the overlay and nothing else, without root.

Made when first asked for, and then kept until the node ends. Its TUN device is served by the packet device.
"""

import ipaddress
import os
from dataclasses import dataclass
from typing import Final, final

from atoll.base.errors import LinkError, UserError
from atoll.base.ids import GroupId, NodeId, packed_address_of, resolver_address
from atoll.conduit.names import TOP
from atoll.conduit.stack import ECHO_IDENTIFIER
from atoll.device.nic.client import NicClient
from atoll.device.nic.messages import AttachTun
from atoll.host.namespaces import make
from atoll.host.owners import Owners
from atoll.node.tunnel import CONTROL_PORTS, PREFIX_BITS
from atoll.overlay.sizes import LARGEST_BYTES

__all__ = ["Door", "Private"]

_FIXES: Final = {
    "user namespace": "allow them: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), "
    "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces=10000 (others)",
    "tun": "let users open it: chmod 0666 /dev/net/tun (and `modprobe tun` where it is missing)",
    "address": "switch IPv6 on: sysctl -w net.ipv6.conf.all.disable_ipv6=0",
}


@dataclass(frozen=True, slots=True)
class Door:
    """What another process of the same user needs to enter.

    Attributes:
        pid: The process that holds the files.
        user: Number of its file of the user namespace; ``net``: of the network namespace.
        resolver: Address of the name server.
        search: Domain in which short names are looked up.
    """

    pid: int
    user: int
    net: int
    resolver: str
    search: str


@final
class Private:
    """One private network.

    Args:
        group: The group.
        own: This node.

    Attributes:
        owners: Finds the programs in it.

    Raises:
        UserError: A112, the system forbids it.
    """

    def __init__(self, group: GroupId, own: NodeId) -> None:
        self._resolver: Final = str(ipaddress.IPv6Address(resolver_address(group)))
        try:
            network = self._network = make(packed_address_of(group, own), PREFIX_BITS, LARGEST_BYTES)
        except LinkError as error:
            raise _forbidden(str(error)) from error
        self.owners: Final = Owners(network.sockets, network.net, packed_address_of(group, own))

    def door(self, group_name: str) -> Door:
        """Return how to enter."""
        return Door(os.getpid(), self._network.user, self._network.net, self._resolver, f"{group_name}.{TOP}")

    @property
    def offloads(self) -> str:
        """What programs in it have, for people."""
        return "private network"

    def attach(self, nic: NicClient) -> None:
        """Hand the TUN device to a packet device that has just started.

        Raises:
            LinkError: It does not take it.
        """
        nic.attach(AttachTun(CONTROL_PORTS, ECHO_IDENTIFIER), self._network.tun)

    def close(self) -> None:
        """Let go of it; programs in it go on, without a network."""
        self.owners.close()
        self._network.close()


def _forbidden(reason: str) -> UserError:
    step = reason.partition(":")[0]
    return UserError(
        "A112",
        f"this system lets its users make no private network (the {step} is refused)",
        where=reason,
        fix=f"{_FIXES.get(step, 'see docs/howto/exec.md')}; or go without: atoll forward, atoll socks",
    )
