# SPDX-License-Identifier: Apache-2.0
"""The node's private network: for programs that are to see the overlay and nothing else, without root.

Made when first asked for, and then kept until the node ends. Its TUN device is served by the packet device. The node
itself uses it by sockets that are made in it beforehand, because this process cannot enter.
"""

import asyncio
import ipaddress
import os
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, final

from atoll.base.errors import LinkError, UserError
from atoll.base.ids import GroupId, NodeId, packed_address_of, resolver_address
from atoll.conduit.names import TOP
from atoll.conduit.stack import ECHO_IDENTIFIER
from atoll.device.nic.client import NicClient
from atoll.device.nic.messages import AttachTun
from atoll.host.namespaces import make, more_sockets
from atoll.host.owners import Owners
from atoll.host.tun import renounce_offloads
from atoll.node.limits import STOCK_LOW, STOCK_SOCKETS, STOCK_TRIES
from atoll.node.tunnel import CONTROL_PORTS, PREFIX_BITS, RENOUNCED, is_to_get_whole_packets
from atoll.overlay.sizes import LARGEST_BYTES

__all__ = ["Door", "Private"]

_FIXES: Final = {
    "user namespace": "allow them: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), "
    "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces=10000 (others)",
    "tun": "let users open it: chmod 0666 /dev/net/tun (and `modprobe tun` where it is missing)",
    "process": "let the node open more files (LimitNOFILE=) and start more processes (TasksMax=)",
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
            network = make(packed_address_of(group, own), PREFIX_BITS, LARGEST_BYTES, STOCK_SOCKETS)
        except LinkError as error:
            raise _forbidden(str(error)) from error
        self._network: Final = network
        self.owners: Final = Owners(network.sockets, network.net, packed_address_of(group, own))
        self._stock: Final = deque(network.stock)
        try:
            self._is_whole: Final = is_to_get_whole_packets(
                network.tun, self._stock.popleft, packed_address_of(group, own)
            )
            if self._is_whole:
                renounce_offloads(network.tun)
        except LinkError as error:
            self._release()
            raise _forbidden(f"process: {error}") from error
        self._refilling: asyncio.Task[None] | None = None

    def door(self, group_name: str) -> Door:
        """Return how to enter."""
        return Door(os.getpid(), self._network.user, self._network.net, self._resolver, f"{group_name}.{TOP}")

    @property
    def offloads(self) -> str:
        """What programs in it have, for people."""
        return f"private network ({RENOUNCED})" if self._is_whole else "private network"

    def attach(self, nic: NicClient) -> None:
        """Hand the TUN device to a packet device that has just started.

        Raises:
            LinkError: It does not take it.
        """
        nic.attach(AttachTun(CONTROL_PORTS, ECHO_IDENTIFIER, self._is_whole), self._network.tun)

    async def socket(self) -> socket.socket:
        """Return a TCP socket in it, neither bound nor connected.

        Raises:
            LinkError: None can be made now.
        """
        for _ in range(STOCK_TRIES):
            if len(self._stock) <= STOCK_LOW and self._refilling is None:
                self._refilling = asyncio.get_running_loop().create_task(self._refill())
            if self._stock:
                return self._stock.popleft()
            assert self._refilling is not None
            await asyncio.wait((self._refilling,))
        raise LinkError("no socket in the private network")

    async def _refill(self) -> None:
        network = self._network
        try:
            with suppress(LinkError, OSError):  # OSError: no file or process is left. Who needs one now goes without.
                self._stock.extend(await asyncio.to_thread(more_sockets, network.user, network.net, STOCK_SOCKETS))
        finally:
            self._refilling = None

    async def close(self) -> None:
        """Let go of it; programs in it go on, without a network."""
        if self._refilling is not None:  # It uses the files that are closed here.
            await asyncio.wait((self._refilling,))
        self._release()

    def _release(self) -> None:
        self.owners.close()
        self._network.close()
        for one in self._stock:
            one.close()
        self._stock.clear()


def _forbidden(reason: str) -> UserError:
    step = reason.partition(":")[0]
    return UserError(
        "A112",
        f"this system lets its users make no private network (the {step} is refused)",
        where=reason,
        fix=f"{_FIXES.get(step, 'see docs/reference/errors.md')}; or go without: atoll forward, atoll socks",
    )
