# SPDX-License-Identifier: Apache-2.0
"""Private networks of Linux without root: a user namespace that owns a network namespace; made, entered, given names.

A *private network* is made by a short-lived process of its own, because a process with threads cannot leave its user
namespace. What keeps it alive afterwards are open files: whoever holds them can let others in.

A socket belongs for ever to the network in which it was made. So a process outside uses the network without entering
it: it is given sockets, some when the network is made and more by further short-lived processes.

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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from atoll.base.errors import LinkError
from atoll.host.owners import sockets_here
from atoll.host.tun import TunDevice
from atoll.host.udp import error_name

__all__ = ["SOCKETS_MAX", "PrivateNetwork", "enter", "make", "more_sockets"]

_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x4_0000
_MAKE_S_MAX: Final = 10.0  # For the process that makes it; a slow machine needs one.
_ANSWER_BYTES_MAX: Final = 256
_NAME: Final = Struct("16s")
_MADE: Final = b"made"
_FILES: Final = 3  # Of a private network: see PrivateNetwork.

# The kernel waits for a round trip and at least 200 ms more before it sends something again, for the sake of receivers
# that acknowledge late; ours delay no more than this allows. A path that died is left within that time.
_RTO_MIN: Final = Path("/proc/sys/net/ipv4/tcp_rto_min_us")
_RTO_MIN_US: Final = 50_000

SOCKETS_MAX: Final = 128  # Limit. Made at a time; Linux hands over 253 files in one message (SCM_MAX_FD).


@dataclass(frozen=True, slots=True)
class PrivateNetwork:
    """Open files of a private network; it lives as long as one of the first two is open.

    Attributes:
        user: The user namespace.
        net: The network namespace.
        tun: The TUN device in it, with the overlay address.
        sockets: What tells of the sockets in it, for ``Owners``, which owns it; -1: this system tells nothing.
        stock: TCP sockets in it, neither bound nor connected; whoever uses one owns it.
    """

    user: int
    net: int
    tun: int
    sockets: int = -1
    stock: tuple[socket.socket, ...] = ()

    def close(self) -> None:
        """Let go of it; not of its sockets."""
        for fd in (self.user, self.net, self.tun):
            os.close(fd)


def make(address: bytes, prefix_bits: int, mtu: int, sockets: int = 0) -> PrivateNetwork:
    """Make a private network with a loopback and a TUN device.

    Args:
        address: Of the TUN device, IPv6, 16 bytes.
        prefix_bits: What of it is routed there.
        mtu: Bytes.
        sockets: How many TCP sockets to make in it, at most SOCKETS_MAX.

    Raises:
        LinkError: The text is ``STEP: ERRNO``: which step the system refused, ``process``, ``user namespace``, ``tun``
            or ``address``, and the name of its error.
    """
    count = _FILES + sockets
    files = _handed_out(("make", address.hex(), prefix_bits, mtu, sockets), count, optional=1)
    told = files[count] if len(files) > count else -1
    user, net, tun = files[:_FILES]
    return PrivateNetwork(user, net, tun, told, tuple(socket.socket(fileno=fd) for fd in files[_FILES:count]))


def more_sockets(user: int, net: int, sockets: int) -> tuple[socket.socket, ...]:
    """Make TCP sockets in a private network, neither bound nor connected.

    Args:
        user: Open user namespace.
        net: Open network namespace that it owns.
        sockets: How many, at most SOCKETS_MAX.

    Raises:
        LinkError: As ``make``; the step is ``process`` or ``sockets``.
    """
    made = _handed_out(("sockets", user, net, sockets), sockets, (user, net))
    return tuple(socket.socket(fileno=fd) for fd in made)


def _handed_out(
    arguments: Sequence[object], count: int, inherited: Sequence[int] = (), *, optional: int = 0
) -> list[int]:
    """Run this module as a process of its own; return the files that it hands out."""
    try:
        said, files = _run(arguments, count + optional, inherited)
    except OSError as error:  # No file or process is left, or it took too long.
        raise LinkError(f"process: {error_name(error)}") from error
    if not count <= len(files) <= count + optional:
        for fd in files:
            os.close(fd)
        raise LinkError(said.decode("utf-8", "replace") if said not in {b"", _MADE} else "process: EMFILE")
    return files


def _run(arguments: Sequence[object], count: int, inherited: Sequence[int]) -> tuple[bytes, list[int]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(_MAKE_S_MAX)
        words = [str(word) for word in (theirs.fileno(), *arguments)]
        command = [sys.executable, "-P", "-m", "atoll.host.namespaces", *words]
        with subprocess.Popen(command, pass_fds=(theirs.fileno(), *inherited), stdin=subprocess.DEVNULL) as maker:  # noqa: S603 - ours.
            theirs.close()
            try:
                said, files, _, _ = socket.recv_fds(ours, _ANSWER_BYTES_MAX, count)
            except OSError:
                maker.kill()
                raise
    return said, files


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


def _made(control: socket.socket, address: bytes, prefix_bits: int, mtu: int, count: int) -> None:
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
        _hasten()
        files = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("user", "net")]
        sockets = _sockets(count)
    except (LinkError, OSError) as error:
        _refuse(control, step, error)
        return
    told = sockets_here()
    handed = (*files, tun.fd, *(one.fileno() for one in sockets), *((told,) if told >= 0 else ()))
    socket.send_fds(control, (_MADE,), handed)


def _added(control: socket.socket, user: int, net: int, count: int) -> None:
    """Make sockets in a private network that this process enters, and hand them out."""
    try:
        enter(user, net)
        sockets = _sockets(count)
    except (LinkError, OSError) as error:
        _refuse(control, "sockets", error)
        return
    socket.send_fds(control, (_MADE,), [one.fileno() for one in sockets])


def _hasten() -> None:
    """Have TCP in this network send again sooner, where the kernel can be told (Linux 6.11 and later)."""
    with suppress(OSError):
        _RTO_MIN.write_text(str(_RTO_MIN_US), encoding="ascii")


def _sockets(count: int) -> list[socket.socket]:
    return [socket.socket(socket.AF_INET6, socket.SOCK_STREAM) for _ in range(min(count, SOCKETS_MAX))]


def _refuse(control: socket.socket, step: str, error: LinkError | OSError) -> None:
    reason = error_name(error) if isinstance(error, OSError) else str(error)
    control.send(f"{step}: {reason}".encode())


if __name__ == "__main__":
    with suppress(BrokenPipeError), socket.socket(fileno=int(sys.argv[1])) as _control:  # Who asked may be gone.
        if sys.argv[2] == "make":
            _made(_control, bytes.fromhex(sys.argv[3]), *map(int, sys.argv[4:7]))
        else:
            _added(_control, *map(int, sys.argv[3:6]))
