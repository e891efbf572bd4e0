# SPDX-License-Identifier: Apache-2.0
"""The node's TUN device: opened with this process's rights, kept open over the lives of the packet device.

The packet device has no rights and may end; the interface, its address and every connection over it stay, because this
process holds the file too.
"""

import logging
import socket
from collections.abc import Callable
from typing import Final, final

from atoll.base.errors import LinkError, UserError
from atoll.base.ids import GroupId, NodeId, packed_address_of
from atoll.conduit.datagrams import DATAGRAM_PORT
from atoll.conduit.forward_udp import FLOW_PORT
from atoll.conduit.stack import ECHO_IDENTIFIER
from atoll.conduit.streams import STREAM_PORT
from atoll.device.nic.client import NicClient
from atoll.device.nic.messages import AttachTun
from atoll.device.nic.tun_trial import large_packets_pass
from atoll.host.owners import Owners, sockets_here
from atoll.host.tun import TUN_PATH, TunDevice, renounce_offloads
from atoll.host.udp import error_name
from atoll.overlay.sizes import LARGEST_BYTES

__all__ = ["CONTROL_PORTS", "PREFIX_BITS", "RENOUNCED", "Tunnel", "is_to_get_whole_packets"]

log: Final = logging.getLogger("atoll.node")

NAME: Final = "atoll%d"  # The kernel counts, for several nodes on one machine.
PREFIX_BITS: Final = 48  # The group's: fd and 40 bits.
RENOUNCED: Final = "no offloads: they failed a self-test"
CONTROL_PORTS: Final = (STREAM_PORT, FLOW_PORT, DATAGRAM_PORT)  # Inner UDP ports that are not the kernel's.
_MISSING: Final = frozenset({"ENOENT", "ENODEV", "ENXIO"})


@final
class Tunnel:
    """One TUN device with the node's overlay address.

    Args:
        group: The group, whose prefix is routed to it, and nothing else.
        own: This node.

    Attributes:
        owners: Finds the programs that use it.

    Raises:
        UserError: A111, it cannot be had.
    """

    def __init__(self, group: GroupId, own: NodeId) -> None:
        self._address: Final = packed_address_of(group, own)
        self._is_whole: bool | None = None
        self._device = self._opened()
        self.owners: Final = Owners(sockets_here(), "/proc/self/ns/net", self._address)

    def _opened(self) -> TunDevice:
        try:
            device = TunDevice(NAME)
        except LinkError as error:
            raise _cannot(str(error)) from error
        try:
            device.bring_up(self._address, PREFIX_BITS, LARGEST_BYTES)
            if self._is_whole is None:
                self._is_whole = is_to_get_whole_packets(device.fd, _tcp_socket, self._address)
            if self._is_whole:
                renounce_offloads(device.fd)
        except LinkError as error:
            device.close()
            raise _cannot(str(error)) from error
        return device

    @property
    def name(self) -> str:
        """Name of the interface."""
        return self._device.name

    @property
    def offloads(self) -> str:
        """What the kernel leaves undone in what it hands over, for people."""
        return f"{self.name} ({RENOUNCED})" if self._is_whole else str(self._device)

    def attach(self, nic: NicClient) -> None:
        """Hand the device to a packet device that has just started.

        Raises:
            LinkError: It does not take it.
        """
        nic.attach(AttachTun(CONTROL_PORTS, ECHO_IDENTIFIER, bool(self._is_whole)), self._device.fd)

    async def socket(self) -> socket.socket:
        """Return a TCP socket of the network that the device is part of: this machine's.

        Raises:
            LinkError: No file is left.
        """
        return _tcp_socket()

    def renew(self) -> None:
        """Open another one, because this one is gone.

        Raises:
            UserError: As the constructor.
        """
        self._device.close()
        self._device = self._opened()

    def close(self) -> None:
        """Take the interface away."""
        self.owners.close()
        self._device.close()


def is_to_get_whole_packets(fd: int, program: Callable[[], socket.socket], address: bytes) -> bool:
    """Try a TUN device that nobody serves yet; return whether nothing may be left to the kernel, and log that.

    Args:
        fd: The device.
        program: Makes a TCP socket of its network.
        address: The device's.

    Raises:
        LinkError: No file is left.
    """
    if large_packets_pass(fd, program, address):
        return False
    log.warning("this kernel's offloads of the TUN device lose or spoil what they carry; going without them, slower")
    return True


def _tcp_socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError as error:
        raise LinkError(error_name(error)) from error


def _cannot(reason: str) -> UserError:
    if reason in _MISSING:
        return UserError(
            "A111",
            "this machine has no TUN device",
            where=f"{TUN_PATH}: {reason}",
            fix="load it with `modprobe tun`, or go without: atoll forward, atoll socks",
        )
    return UserError(
        "A111",
        "the TUN device cannot be had",
        where=f"{TUN_PATH}: {reason}",
        fix="run it as root, or with CAP_NET_ADMIN; or go without: atoll forward, atoll socks",
    )
