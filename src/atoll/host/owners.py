# SPDX-License-Identifier: Apache-2.0
"""Which program a packet of this machine came from: from ports to a socket, from a socket to the process that has it.

Two steps. The kernel is asked for one socket of a network namespace by a netlink socket of that namespace (sock_diag,
what ``ss`` uses), which any user may do. Then the open files of the processes in that namespace are looked through for
it: those of the same user, or all for root. First come the processes that owned something lately, because a program
with one connection opens another; then the youngest.

Nothing here raises: a process that ends meanwhile, or that may not be looked into, owns nothing.

Source: sock_diag(7), linux/inet_diag.h, proc(5), namespaces(7).
"""

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from struct import Struct
from typing import Final, final

from atoll.host.limits import ANCESTORS_MAX, LINKS_READ_MAX, OWNERS_LATELY_MAX, PROCESS_BYTES_MAX, PROCESSES_MAX

__all__ = ["MARK_VARIABLE", "Lived", "Owner", "Owners", "born_ticks", "sockets_here"]

MARK_VARIABLE: Final = "ATOLL_EXEC"  # In the environment of what ``exec --tag`` starts, and of its children.

NETLINK_SOCK_DIAG: Final = 4
_TCP: Final = 6
_UDP: Final = 17
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY.
_REQUEST: Final = Struct("=IHHIIBBBxI")  # struct nlmsghdr; family, protocol, extensions and states wanted.
_SOCKET: Final = Struct("!HH16s16s")  # struct inet_diag_sockid: local port, remote port, local, remote; ...
_ANY_COOKIE: Final = Struct("=III").pack(0, 0xFFFF_FFFF, 0xFFFF_FFFF)  # ... interface; no cookie.
_ANSWER: Final = Struct("=4xH10x4x48x16xI")  # Type of the message; the socket's inode number.
_ANSWER_BYTES_MAX: Final = 8_192
_ANSWER_S_MAX: Final = 1.0  # The kernel answers before the request returns.
_PORTS_AT: Final = 16
_NOBODY: Final = bytes(15) + b"\1"  # ::1 is nobody's peer in the overlay, so only who listens is found for it.
_COMM_BYTES: Final = 15
_PARENT_AT, _BORN_AT = 1, 19  # Fields of /proc/PID/stat behind the name.

Lived = tuple[int, int]  # A process and when it was born, in ticks since boot: the number alone is used again.


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that sends packets.

    Attributes:
        names: Base names of its executable and of what it was started as.
        comm: What the kernel calls it: for a script its own name, cut to 15 bytes.
        line: The process, its parent, and so on.
        mark: Value of MARK_VARIABLE in its environment; empty: none.
    """

    names: tuple[bytes, ...]
    comm: bytes
    line: tuple[Lived, ...]
    mark: str = ""

    def is_called(self, name: str) -> bool:
        """Return whether a program of this name is meant."""
        raw = os.fsencode(name)
        return raw in self.names or raw[:_COMM_BYTES] == self.comm


def sockets_here() -> int:
    """Open what tells of the sockets of this process's network namespace, and try it; -1: this system tells nothing."""
    try:
        asker = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    except OSError:
        return -1
    asker.settimeout(_ANSWER_S_MAX)
    for kind, protocol in ((socket.SOCK_STREAM, _TCP), (socket.SOCK_DGRAM, _UDP)):
        try:
            with socket.socket(socket.AF_INET6, kind | socket.SOCK_CLOEXEC) as known:
                known.bind(("::", 0))
                if protocol == _TCP:
                    known.listen()
                here = (_NOBODY, int(known.getsockname()[1]))
                told = _inode(asker, protocol, here, (_NOBODY, 0)) == os.fstat(known.fileno()).st_ino
        except OSError:
            told = False
        if not told:  # The kernel has no sock_diag for this protocol.
            asker.close()
            return -1
    return asker.detach()


def born_ticks(pid: int) -> int:
    """Return when a process was born, ticks since boot; 0: there is none."""
    status = _status(pid)
    return 0 if status is None else status[2]


@final
class Owners:
    """Finds the owners of flows in one network namespace. Not for two threads at once.

    Args:
        sockets: As ``sockets_here`` returns it, opened there; owned from now on.
        net: An open file of the namespace, or its path.
        own: The address from which its packets come, IPv6.

    Attributes:
        is_blind: Whether nobody can be found, because this system tells nothing.
    """

    def __init__(self, sockets: int, net: int | str, own: bytes) -> None:
        self._asker: Final = None if sockets < 0 else socket.socket(fileno=sockets)
        if self._asker is not None:
            self._asker.settimeout(_ANSWER_S_MAX)
        self._net: Final = f"net:[{os.stat(net).st_ino}]"  # noqa: PTH116 -- Or an open file.
        self._own: Final = own
        self.is_blind: Final = self._asker is None
        self._lately: Final[dict[int, None]] = {}  # Processes that owned a flow, the latest last.

    def find(self, flows: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], Owner]:
        """Return the owners of flows, as far as they can be found.

        Args:
            flows: (protocol, target's address with source port and target port as they stand in a packet).
        """
        asker = self._asker
        inodes = {} if asker is None else {flow: inode for flow in flows if (inode := self._socket(asker, *flow))}
        holders = self._holders(set(inodes.values())) if inodes else {}
        owners = {pid: owner for pid in set(holders.values()) if (owner := _owner(pid)) is not None}
        return {
            flow: owners[pid]
            for flow, inode in inodes.items()
            if (pid := holders.get(inode)) is not None and pid in owners
        }

    def living(self, known: Iterable[Lived]) -> tuple[set[Lived], set[str]]:
        """Return which of these processes still live, and all marks that processes here have."""
        marks = {_mark(pid) for pid in self._inhabitants()}
        return {one for one in known if born_ticks(one[0]) == one[1]}, marks - {""}

    def close(self) -> None:
        """Let go of the namespace's sockets. Twice is harmless."""
        if self._asker is not None:
            self._asker.close()

    def _socket(self, asker: socket.socket, protocol: int, flow: bytes) -> int:
        """Return the number of the socket that a flow comes from; 0: not known.

        A connection that nobody has accepted yet belongs to who listens.
        """
        target, source_port = flow[:_PORTS_AT], int.from_bytes(flow[_PORTS_AT : _PORTS_AT + 2], "big")
        target_port = int.from_bytes(flow[_PORTS_AT + 2 :], "big")
        ours, theirs = (self._own, source_port), (target, target_port)
        found = _inode(asker, protocol, ours, theirs)
        return found or (_inode(asker, protocol, ours, (_NOBODY, 0)) if protocol == _TCP else 0)

    def _holders(self, inodes: set[int]) -> dict[int, int]:
        """Return for each socket a process that has it open."""
        wanted = {f"socket:[{inode}]": inode for inode in inodes}
        found: dict[int, int] = {}
        left = LINKS_READ_MAX
        for pid in self._inhabitants(tuple(self._lately)[::-1]):
            if not wanted or left <= 0:
                break
            for link in _links(pid, left):
                left -= 1
                inode = wanted.pop(link, None)
                if inode is not None:
                    found[inode] = pid
        for pid in found.values():
            self._lately.pop(pid, None)
            self._lately[pid] = None
        while len(self._lately) > OWNERS_LATELY_MAX:
            del self._lately[next(iter(self._lately))]
        return found

    def _inhabitants(self, first: Sequence[int] = ()) -> Iterator[int]:
        """Yield the processes in the namespace: these first, then all, the youngest first."""
        yield from self._here(first)
        numbers: list[int] = []
        with suppress(OSError), os.scandir("/proc") as entries:  # No more files to be had, say.
            numbers = sorted((int(entry.name) for entry in entries if entry.name.isdigit()), reverse=True)
        yield from self._here(numbers[:PROCESSES_MAX])

    def _here(self, pids: Iterable[int]) -> Iterator[int]:
        for pid in pids:
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/net") == self._net:  # noqa: PTH115 -- Thousands of them.
                    yield pid


def _inode(asker: socket.socket, protocol: int, local: tuple[bytes, int], remote: tuple[bytes, int]) -> int:
    """Return the number of the socket with this address and port, and this peer if it has one; 0: there is none."""
    if protocol != _TCP:  # The other way round for UDP, "for historical reasons" (net/ipv4/udp_diag.c).
        local, remote = remote, local
    sought = _SOCKET.pack(local[1], remote[1], local[0], remote[0]) + _ANY_COOKIE
    size = _REQUEST.size + len(sought)
    request = _REQUEST.pack(size, _BY_FAMILY, 1, 0, 0, socket.AF_INET6, protocol, 0, 0xFFFF_FFFF) + sought
    try:
        asker.send(request)
        answer = asker.recv(_ANSWER_BYTES_MAX)
    except OSError:
        return 0
    if len(answer) < _ANSWER.size:
        return 0
    kind, inode = _ANSWER.unpack_from(answer)
    return int(inode) if kind == _BY_FAMILY else 0


def _links(pid: int, most: int) -> Iterator[str]:
    """Yield what the open files of a process are."""
    try:
        directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        with os.scandir(directory) as files:
            for file in islice(files, most):
                with suppress(OSError):
                    yield os.readlink(file.name, dir_fd=directory)
    except OSError:
        return
    finally:
        os.close(directory)


def _owner(pid: int) -> Owner | None:
    line: list[Lived] = []
    comm, at = b"", pid
    while at and len(line) < ANCESTORS_MAX:
        status = _status(at)
        if status is None:
            break
        if not line:
            comm = status[0]
        line.append((at, status[2]))
        at = status[1]
    if not line:
        return None
    names = [_read(pid, "cmdline").partition(b"\0")[0].removeprefix(b"-")]  # "-bash": a login shell.
    with suppress(OSError):
        names.append(os.fsencode(os.readlink(f"/proc/{pid}/exe")).removesuffix(b" (deleted)"))  # noqa: PTH115 -- As above.
    bases = dict.fromkeys(name.rpartition(b"/")[2] for name in names)
    return Owner(tuple(base for base in bases if base), comm, tuple(line), _mark(pid))


def _status(pid: int) -> tuple[bytes, int, int] | None:
    """Return what the kernel calls a process, its parent, and when it was born; None: there is none."""
    head, _, rest = _read(pid, "stat").rpartition(b")")  # The name may hold anything, brackets too.
    fields: Sequence[bytes] = rest.split()
    if len(fields) <= _BORN_AT:
        return None
    return head.partition(b"(")[2], int(fields[_PARENT_AT]), int(fields[_BORN_AT])


def _mark(pid: int) -> str:
    _, found, rest = (b"\0" + _read(pid, "environ")).partition(f"\0{MARK_VARIABLE}=".encode())
    return rest.partition(b"\0")[0].decode("ascii", "replace") if found else ""


def _read(pid: int, name: str) -> bytes:
    """Return a file about a process; empty: there is none, or it is not for us."""
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 -- As above.
            return file.read(PROCESS_BYTES_MAX) or b""
    except OSError:
        return b""
