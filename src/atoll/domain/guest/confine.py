# SPDX-License-Identifier: Apache-2.0
"""What a guest gives up for good, in two steps: before code is loaded, and before a handler runs.

Several walls stand for each danger, because each alone has a gap somewhere: the list of system calls, limits on
resources, Landlock where the kernel has it, and descriptors that do not exist.
"""

import ctypes
import os
import platform
import resource
import site
import sys
import sysconfig
from collections.abc import Iterable
from struct import Struct
from typing import Final, final

from atoll.base.errors import LinkError
from atoll.domain.guest.seccomp import LOADING, RUNNING, SYSCALLS, program
from atoll.domain.limits import GUEST_FILES_MAX, GUEST_MEMORY_BYTES_MAX

__all__ = ["Confinement", "is_possible", "readable"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_SIGKILL: Final = 9

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION: Final = 1
_LANDLOCK_PATH_BENEATH: Final = 1
_FS_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # Rights on files that each version knows; later ones none more.
_NET_SINCE, _SCOPE_SINCE = 4, 6
_READ_FILE: Final = 1 << 2
_READ_FILE_AND_DIRECTORY: Final = _READ_FILE | (1 << 3)
_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_NPROC, 0),
    (resource.RLIMIT_MEMLOCK, 0),
    (resource.RLIMIT_MSGQUEUE, 0),
    (resource.RLIMIT_NOFILE, GUEST_FILES_MAX),
    (resource.RLIMIT_AS, GUEST_MEMORY_BYTES_MAX),
)
_OUTPUTS: Final = (1, 2)
_RULESET: Final = Struct("<QQQ")  # struct landlock_ruleset_attr: files, network, scope.
_BENEATH: Final = Struct("<Qi")  # struct landlock_path_beneath_attr, packed.

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def is_possible() -> bool:
    """Return whether this system has what a guest must be confined by."""
    return sys.platform == "linux" and platform.machine() in SYSCALLS


def readable() -> list[str]:
    """Return what loading code may read: Python's libraries, what those need of the system, and time zones."""
    places = {*sysconfig.get_paths().values(), *site.getsitepackages(), *(path for path in sys.path if path)}
    places |= {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo"}
    places |= {"/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom"}
    return sorted(place for place in places if os.path.exists(place))  # noqa: PTH110 - they are strings for the kernel.


@final
class Confinement:
    """Both steps, made ready once in the process that guests are forked from, which costs each of them 2 ms less.

    Args:
        places: What loading code may read.

    Raises:
        LinkError: The kernel has Landlock and refuses it.
    """

    def __init__(self, places: Iterable[str]) -> None:
        machine = platform.machine()
        self._parent: Final = os.getpid()
        self._loading, self._running = program(LOADING, machine), program(RUNNING, machine)
        self._reading: Final = _ruleset(places)
        self._nothing: Final = _ruleset(())
        self._null: Final = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def narrow(self) -> None:
        """Give up everything but reading: the first step.

        Of all descriptors 0 stays, and what ``close_in`` needs; what is written to 1 and 2 is lost.

        Raises:
            LinkError: The kernel refuses what no guest may run without.
        """
        _must("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _must("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        if os.getppid() != self._parent:  # It has died before, and no signal will come.
            raise LinkError("the zygote is gone")
        _must("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
        _restrict(self._reading)
        self._let_go()
        for kind, most in _LIMITS:
            resource.setrlimit(kind, (most, most))
        _filter(self._loading)

    def _let_go(self) -> None:
        """Close what the process was forked with: the way to the server first of all, and its log."""
        first = _OUTPUTS[-1] + 1
        for file in _OUTPUTS:
            os.dup2(self._null, file)
        if self._nothing >= first:
            os.closerange(first, self._nothing)
            first = self._nothing + 1
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))  # Which the limits lower: they come after it.

    def close_in(self) -> None:
        """Give up the rest: the second step. Descriptors other than 0 are closed.

        Raises:
            LinkError: As ``narrow``.
        """
        _restrict(self._nothing)
        os.closerange(1, GUEST_FILES_MAX)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        _filter(self._running)

    def close(self) -> None:
        """Let go of what was made ready."""
        for file in (self._reading, self._nothing, self._null):
            if file >= 0:
                os.close(file)


def _must(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        raise LinkError(f"{name}: {os.strerror(ctypes.get_errno())}")


def _filter(steps: bytes) -> None:
    _must("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(steps) // 8, steps)), 0, 0)


def _restrict(ruleset: int) -> None:
    if ruleset >= 0:
        _must("syscall", _LANDLOCK_RESTRICT, ruleset, 0)


def _ruleset(places: Iterable[str]) -> int:
    """Return a descriptor of rules that allow reading below these places; -1: the kernel has no Landlock."""
    version = _libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return -1
    files = (1 << _FS_BITS[min(version, max(_FS_BITS))]) - 1
    rules = _RULESET.pack(files, 3 if version >= _NET_SINCE else 0, 3 if version >= _SCOPE_SINCE else 0)
    size = 24 if version >= _SCOPE_SINCE else 16 if version >= _NET_SINCE else 8
    ruleset = int(_libc.syscall(_LANDLOCK_CREATE, rules, size, 0))
    if ruleset < 0:
        raise LinkError(f"landlock: {os.strerror(ctypes.get_errno())}")
    for place in places:
        beneath = os.open(place, os.O_PATH | os.O_CLOEXEC)
        rights = _READ_FILE_AND_DIRECTORY if os.path.isdir(place) else _READ_FILE  # noqa: PTH112 - as above.
        _libc.syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_PATH_BENEATH, _BENEATH.pack(rights, beneath), 0)
        os.close(beneath)
    return ruleset
