# SPDX-License-Identifier: Apache-2.0
"""Private networks of Linux without root: a user namespace that owns a network namespace; made, entered, given names.

A *private network* is made by a short-lived process of its own, because a process with threads cannot leave its user
namespace. What keeps it alive afterwards are open files: whoever holds them can let others in.

Who enters keeps its own user id (mapped to itself) and gains no right outside: inside, it may do to this one network
what root may, until it runs another program.

Source: user_namespaces(7), network_namespaces(7), setns(2), mount_namespaces(7).
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from atoll.base.errors import LinkError
from atoll.host.owners import sockets_here
from atoll.host.tun import TunDevice
from atoll.host.udp import error_name

__all__ = ["PrivateNetwork", "enter", "make"]

_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x4_0000
_MAKE_S_MAX: Final = 10.0  # For the process that makes it; a slow machine needs one.
_ANSWER_BYTES_MAX: Final = 256
_NAME: Final = Struct("16s")


@dataclass(frozen=True, slots=True)
class PrivateNetwork:
    """Open files of a private network; it lives as long as one of the first two is open.

    Attributes:
        user: The user namespace.
        net: The network namespace.
        tun: The TUN device in it, with the overlay address.
        sockets: What tells of the sockets in it, for ``Owners``, which owns it; -1: this system tells nothing.
    """

    user: int
    net: int
    tun: int
    sockets: int = -1

    def close(self) -> None:
        """Let go of it."""
        for fd in (self.user, self.net, self.tun):
            os.close(fd)


def make(address: bytes, prefix_bits: int, mtu: int) -> PrivateNetwork:
    """Make a private network with a loopback and a TUN device.

    Args:
        address: Of the TUN device, IPv6, 16 bytes.
        prefix_bits: What of it is routed there.
        mtu: Bytes.

    Raises:
        LinkError: The text is ``STEP: ERRNO``: which step the system refused, ``user namespace``, ``tun`` or
            ``address``, and the name of its error.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(_MAKE_S_MAX)
        arguments = [str(theirs.fileno()), address.hex(), str(prefix_bits), str(mtu)]
        command = [sys.executable, "-P", "-m", "atoll.host.namespaces", *arguments]
        with subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL) as maker:  # noqa: S603 - ours.
            theirs.close()
            try:
                said, files, _, _ = socket.recv_fds(ours, _ANSWER_BYTES_MAX, 4)
            except OSError as error:
                maker.kill()
                raise LinkError(f"user namespace: {error_name(error)}") from error
    if len(files) < 3:
        for fd in files:
            os.close(fd)
        raise LinkError(said.decode("utf-8", "replace") or "user namespace: EIO")
    return PrivateNetwork(*files)


def enter(user: int, net: int) -> None:
    """Move this process, which must have one thread, into a private network that its own user made.

    Args:
        user: Open user namespace.
        net: Open network namespace that it owns.

    Raises:
        LinkError: The name of the operating system's error.
    """
    for fd, kind in ((user, _CLONE_NEWUSER), (net, _CLONE_NEWNET)):
        _call("setns", fd, kind)


def use_resolver(server: str, search: Sequence[str]) -> None:
    """Have programs that this process starts ask one name server, and no other source but /etc/hosts.

    In a mount namespace of its own, so that nobody else sees it. Call after ``enter``.

    Args:
        server: Address, text.
        search: Domains in which short names are looked up.

    Raises:
        LinkError: The name of the operating system's error.
    """
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    lines = {
        Path("/etc/resolv.conf"): f"nameserver {server}\nsearch {' '.join(search)}\noptions timeout:2 attempts:2\n",
        Path("/etc/nsswitch.conf"): "passwd: files\ngroup: files\nhosts: files dns\n",
    }
    for path, text in lines.items():
        if not path.exists():
            continue
        with tempfile.NamedTemporaryFile("w", encoding="ascii", delete=False) as file:
            file.write(text)
        Path(file.name).chmod(0o644)
        try:  # The file behind a symbolic link is what programs read.
            _call("mount", file.name.encode(), str(path.resolve()).encode(), None, _MS_BIND, None)
        finally:
            Path(file.name).unlink()


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise LinkError(errno.errorcode.get(ctypes.get_errno(), "EIO"))


def _made(control: socket.socket, address: bytes, prefix_bits: int, mtu: int) -> None:
    """Make a private network in this process, and hand out its files."""
    step = "user namespace"
    try:
        uid, gid = os.getuid(), os.getgid()
        _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path("/proc/self", name).write_text(text, encoding="ascii")
        step = "tun"
        tun = TunDevice("atoll0")
        step = "address"
        tun.bring_up(address, prefix_bits, mtu)
        tun.bring_up_loopback()
        files = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("user", "net")]
    except (LinkError, OSError) as error:
        reason = error_name(error) if isinstance(error, OSError) else str(error)
        control.send(f"{step}: {reason}".encode())
        return
    sockets = sockets_here()
    socket.send_fds(control, (b"made",), (*files, tun.fd, *((sockets,) if sockets >= 0 else ())))


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _control:
        _made(_control, bytes.fromhex(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
