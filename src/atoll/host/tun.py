# SPDX-License-Identifier: Apache-2.0
"""TUN devices of Linux: how one is made, given an address and told what it may leave undone.

A device lives as long as somebody holds its file: whoever opened it may hand the file on (to the packet device, which
has no rights of its own), and the device outlives that one's end.

Opening with a virtio header means that every read and write begins with ``struct virtio_net_hdr``. Then the kernel may
hand over up to 64 KiB with the cutting and the checksum left to do (``TUNSETOFFLOAD``), and takes the like.

Source: Linux Documentation/networking/tuntap.rst, linux/if_tun.h, netdevice(7), ipv6(7), rtnetlink(7).
"""

import errno
import fcntl
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from typing import Final, final

from atoll.base.errors import LinkError
from atoll.host.udp import error_name

__all__ = ["LARGE_BYTES_MAX", "NAME_CHARS_MAX", "TUN_PATH", "Offloads", "TunDevice", "renounce_offloads"]

TUN_PATH: Final = "/dev/net/tun"
NAME_CHARS_MAX: Final = 15  # Of an interface's name, in Linux.

_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_IFF_UP: Final = 0x1
_IFF_RUNNING: Final = 0x40
_TUNSETIFF: Final = 0x400454CA
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETLE: Final = 0x400454DC
_TUN_F_CSUM: Final = 0x01
_TUN_F_TSO6: Final = 0x04
_TUN_F_TSO_ECN: Final = 0x08
_TUN_F_USO4: Final = 0x20
_TUN_F_USO6: Final = 0x40
_SIOCSIFADDR: Final = 0x8916
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_SIOCSIFMTU: Final = 0x8922

# Limit. What the kernel hands over at once: 44 segments of a 1,408-byte path, which leave in one burst (host/udp.py).
# With 64 KiB a second burst of three would follow each full one, and cost as much. The kernel takes some 300 bytes off
# for headers of its own.
LARGE_BYTES_MAX: Final = 58 << 10

_RTMGRP_IPV6_IFADDR: Final = 0x100
_RTM_SETLINK: Final = 19
_NLM_F_REQUEST: Final = 1
_IFLA_GSO_MAX_SIZE: Final = 41
_RTM_NEWADDR: Final = 20
_IFA_F_TENTATIVE: Final = 0x40
_NOTICE_BYTES_MAX: Final = 4096
_SETTLE_S_MAX: Final = 5.0  # The kernel takes milliseconds, more on a machine that is busy.

_NOTICE: Final = Struct("=IH10xBBBBI")  # struct nlmsghdr: length, type; struct ifaddrmsg: family, .., flags, .., index.
_SET_LARGE: Final = Struct("=IHHII4xi8xHHI")  # struct nlmsghdr; struct ifinfomsg with its index; one attribute.
_FLAGS: Final = Struct("16sH22x")  # struct ifreq, with a short of flags.
_NUMBER: Final = Struct("16si20x")  # The same, with an int.
_ADDRESS: Final = Struct("16sIi")  # struct in6_ifreq: address, bits of the prefix, index of the interface.


@dataclass(frozen=True, slots=True)
class Offloads:
    """What the kernel may leave undone in what it hands over.

    Attributes:
        tcp: The cutting of TCP and all checksums.
        udp: The cutting of UDP (Linux 6.2 and later).
    """

    tcp: bool
    udp: bool


@final
class TunDevice:
    """One open TUN device without an address, down.

    Args:
        name: Of the interface; with ``%d`` in it the kernel counts.

    Attributes:
        fd: The open file; does not block.
        name: As the kernel has it.
        offloads: What the kernel agreed to.

    Raises:
        LinkError: The text is the name of the operating system's error: ``ENOENT`` and ``ENODEV``, there is no TUN
            here; ``EACCES``, the file is closed to this user; ``EPERM``, no right to make a device; ``EBUSY``, the
            name is taken.
    """

    def __init__(self, name: str) -> None:
        try:
            self.fd = os.open(TUN_PATH, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise LinkError(error_name(error)) from error
        try:
            asked = _FLAGS.pack(name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
            given = fcntl.ioctl(self.fd, _TUNSETIFF, asked)
            fcntl.ioctl(self.fd, _TUNSETVNETLE, Struct("i").pack(1))
        except OSError as error:
            os.close(self.fd)
            raise LinkError(error_name(error)) from error
        self.name: Final[str] = _FLAGS.unpack(given)[0].rstrip(b"\0").decode()
        self.offloads: Final = self._agree()

    def _agree(self) -> Offloads:
        tcp = _TUN_F_CSUM | _TUN_F_TSO6 | _TUN_F_TSO_ECN
        for wanted, agreed in (
            (tcp | _TUN_F_USO4 | _TUN_F_USO6, Offloads(tcp=True, udp=True)),
            (tcp, Offloads(tcp=True, udp=False)),
        ):
            try:
                fcntl.ioctl(self.fd, _TUNSETOFFLOAD, wanted)
            except OSError:
                continue
            return agreed
        return Offloads(tcp=False, udp=False)

    def bring_up(self, address: bytes, prefix_bits: int, mtu: int) -> None:
        """Bring it up and give it an address, and with that the route to the address's prefix and no other.

        Returns when the address can be used: the kernel takes it in two steps, and refuses to bind in between.

        Args:
            address: IPv6, 16 bytes.
            prefix_bits: 1 to 128.
            mtu: Bytes, 1280 to 65535.

        Raises:
            LinkError: The name of the operating system's error; ``EACCES`` also where IPv6 is switched off.
        """
        name = self.name.encode()
        with (
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control,
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as notices,
        ):
            try:
                notices.bind((0, _RTMGRP_IPV6_IFADDR))
                fcntl.ioctl(control, _SIOCSIFMTU, _NUMBER.pack(name, mtu))
                flags = _FLAGS.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, _FLAGS.pack(name, 0)))[1]
                index = socket.if_nametoindex(self.name)
                _bound_large(index)
                fcntl.ioctl(control, _SIOCSIFFLAGS, _FLAGS.pack(name, flags | _IFF_UP | _IFF_RUNNING))
                fcntl.ioctl(control, _SIOCSIFADDR, _ADDRESS.pack(address, prefix_bits, index))
                _settle(notices, index, address)
            except OSError as error:
                raise LinkError(error_name(error)) from error

    @staticmethod
    def bring_up_loopback() -> None:
        """Bring up the loopback of a network namespace that has just been made.

        Raises:
            LinkError: The name of the operating system's error.
        """
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            try:
                fcntl.ioctl(control, _SIOCSIFFLAGS, _FLAGS.pack(b"lo", _IFF_UP | _IFF_RUNNING))
            except OSError as error:
                raise LinkError(error_name(error)) from error

    def close(self) -> None:
        """Close the file; with the last one that is open the device is gone. Twice is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __str__(self) -> str:
        return f"{self.name} ({'tcp and udp' if self.offloads.udp else 'tcp' if self.offloads.tcp else 'no'} offloads)"


def renounce_offloads(fd: int) -> None:
    """Have the kernel cut and sum all that it hands over by an open TUN device.

    Raises:
        LinkError: The name of the operating system's error.
    """
    try:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)
    except OSError as error:
        raise LinkError(error_name(error)) from error


def _bound_large(index: int) -> None:
    """Have the kernel hand over at most LARGE_BYTES_MAX at once; a kernel that does not is only slower."""
    request = _SET_LARGE.pack(
        _SET_LARGE.size, _RTM_SETLINK, _NLM_F_REQUEST, 0, 0, index, 8, _IFLA_GSO_MAX_SIZE, LARGE_BYTES_MAX
    )
    with (
        suppress(OSError),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as link,
    ):
        link.send(request)


def _settle(notices: socket.socket, index: int, address: bytes) -> None:
    """Wait until an address is no longer tentative (RFC 4862, section 5.4); the kernel clears that by a task."""
    deadline = time.monotonic() + _SETTLE_S_MAX
    while (left := deadline - time.monotonic()) > 0:
        notices.settimeout(left)
        notice = notices.recv(_NOTICE_BYTES_MAX)
        _, kind, _, _, flags, _, of = _NOTICE.unpack_from(notice)
        if kind == _RTM_NEWADDR and of == index and address in notice and not flags & _IFA_F_TENTATIVE:
            return
    raise TimeoutError(errno.ETIMEDOUT, "the address stays tentative")
