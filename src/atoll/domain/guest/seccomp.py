# SPDX-License-Identifier: Apache-2.0
"""Which system calls a guest may make, as a program that the kernel runs before each of them.

Two lists. ``LOADING`` holds while the code of an application is loaded: files may be read (which ones, Landlock says),
and nothing else of the world can be reached. ``RUNNING`` holds from then on: memory, waiting, one descriptor to wake
the server by, and the end. What is on no list fails with EPERM, which Python shows as ``PermissionError`` in the
handler; a call of another architecture, whose numbers mean something else, ends the process.

Numbers are those of the kernel's tables, which never change. Source: Linux, include/uapi/linux/filter.h and seccomp.h;
arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h.
"""

import fcntl
import mmap
import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

__all__ = ["AUDIT_ARCH", "LOADING", "RUNNING", "SYSCALLS", "Bits", "Check", "program"]

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_NAMES: Final = (
    *("futex", "write", "mmap", "munmap", "mremap", "mprotect", "brk", "madvise"),
    *("rt_sigreturn", "rt_sigprocmask", "rt_sigaction", "sigaltstack", "restart_syscall", "sched_yield"),
    *("exit", "exit_group"),
    *("read", "pread64", "lseek", "close", "close_range", "fcntl", "dup3", "getdents64", "openat", "newfstatat"),
    *("fstat", "statx", "readlinkat", "faccessat", "faccessat2", "getcwd", "uname", "getpid", "gettid", "getuid"),
    *("geteuid", "getgid", "getegid", "getrandom", "clock_gettime", "clock_getres", "gettimeofday", "prlimit64"),
    *("sched_getaffinity", "getcpu", "sysinfo", "prctl", "landlock_restrict_self"),
)
_X86_64: Final = (
    *(202, 1, 9, 11, 25, 10, 12, 28, 15, 14, 13, 131, 219, 24, 60, 231),
    *(0, 17, 8, 3, 436, 72, 292, 217, 257, 262, 5, 332, 267, 269, 439, 79, 63, 39, 186, 102),
    *(107, 104, 108, 318, 228, 229, 96, 302, 204, 309, 99, 157, 446),
)
_AARCH64: Final = (
    *(98, 64, 222, 215, 216, 226, 214, 233, 139, 135, 134, 132, 128, 124, 93, 94),
    *(63, 67, 62, 57, 436, 25, 24, 61, 56, 79, 80, 291, 78, 48, 439, 17, 160, 172, 178, 174),
    *(175, 176, 177, 278, 113, 114, 169, 261, 123, 168, 179, 167, 446),
)
_X86_64_OLD: Final = {"open": 2, "stat": 4, "lstat": 6, "access": 21, "readlink": 89, "dup2": 33}

SYSCALLS: Final[Mapping[str, Mapping[str, int]]] = {
    "x86_64": {**dict(zip(_NAMES, _X86_64, strict=True)), **_X86_64_OLD},
    "aarch64": dict(zip(_NAMES, _AARCH64, strict=True)),
}
"""Number by name, by ``platform.machine()``."""


@dataclass(frozen=True, slots=True)
class Bits:
    """What some bits of an argument must be.

    Attributes:
        argument: Which one, from 0.
        mask: These bits of it, of 64. What the kernel reads as an ``int`` is in the lower 32; an address is in all.
        value: must be this.
    """

    argument: int
    mask: int
    value: int


@dataclass(frozen=True, slots=True)
class Check:
    """A system call that is let through if its arguments fit. Of several of one call, one suffices.

    Attributes:
        name: Of the call.
        all_of: What must hold.
    """

    name: str
    all_of: tuple[Bits, ...]


_INT: Final = 0xFFFFFFFF
_ADDRESS: Final = 0xFFFFFFFFFFFFFFFF
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_ITSELF: Final = Bits(0, _INT, 0)  # The process that calls, where a call names one.
_NO_EXEC: Final = (
    Check("mmap", (Bits(2, mmap.PROT_EXEC, 0),)),
    Check("mprotect", (Bits(2, mmap.PROT_EXEC, 0),)),
)
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MEMORY: Final = ("munmap", "mremap", "brk", "madvise")
_PLAIN: Final = (
    *("rt_sigreturn", "rt_sigprocmask", "rt_sigaction", "sigaltstack", "restart_syscall", "sched_yield"),
    *("exit", "exit_group"),
)
_OWN_LIMITS: Final = (
    Check("prlimit64", (_ITSELF, Bits(2, _ADDRESS, 0))),  # To read one: there is no new one.
    Check("prlimit64", (_ITSELF, Bits(1, _INT, resource.RLIMIT_NOFILE))),  # The second step sets it.
)
_OF_A_FILE: Final = (  # None by which a signal could be sent to somebody: F_SETOWN, F_SETSIG, F_NOTIFY, F_SETLEASE.
    Check("fcntl", (Bits(1, _INT & ~3, 0),)),  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL.
    Check("fcntl", (Bits(1, _INT, fcntl.F_DUPFD_CLOEXEC),)),
)

RUNNING: Final[tuple[str | Check, ...]] = (
    *("futex", Check("write", (Bits(0, _INT, 0),))),
    *(*_NO_EXEC, *_MEMORY, *_PLAIN),
)
"""While handlers run. ``write`` only to descriptor 0: there is no other, and it is the one that wakes the server."""

LOADING: Final[tuple[str | Check, ...]] = (
    *("futex", "mmap", "mprotect", *_MEMORY, *_PLAIN),
    Check("openat", (Bits(2, _WRITES, 0),)),
    Check("open", (Bits(1, _WRITES, 0),)),
    *("write", "read", "pread64", "lseek", "close", "close_range", *_OF_A_FILE, "dup2", "dup3", "getdents64"),
    *("newfstatat", "stat", "lstat", "fstat", "statx", "readlink", "readlinkat", "access", "faccessat", "faccessat2"),
    *("getcwd", "uname", "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getrandom"),
    *("clock_getres", *_OWN_LIMITS, Check("sched_getaffinity", (_ITSELF,)), "getcpu", "sysinfo"),
    *(Check("prctl", (Bits(0, _INT, _PR_SET_SECCOMP), Bits(1, _INT, _SECCOMP_MODE_FILTER))), "landlock_restrict_self"),
)
"""While code is loaded, and until ``RUNNING`` is laid over it: filters only ever take away. None may have another
process for its target, because those of one user may signal, limit and trace each other; nor take back what the first
step has said of the process, such as that it ends with the one that it was forked from. ``prctl`` and Landlock are for
the second step.
"""

_STEP: Final = Struct("<HBBI")  # struct sock_filter: code, jump if true, jump if false, constant.
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_REFUSE: Final = 0x00050001  # SECCOMP_RET_ERRNO | EPERM
_X32: Final = 0x40000000  # Numbers of the x32 ABI begin here; they mean other calls.
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data.


def program(allowed: Sequence[str | Check], machine: str) -> bytes:
    """Return the filter: an array of ``struct sock_filter``.

    Args:
        allowed: Calls in the order in which they are looked for; those that the machine does not have are left out.
        machine: A key of ``SYSCALLS``.

    Raises:
        KeyError: An unknown machine.
    """
    numbers = SYSCALLS[machine]
    steps = [
        _STEP.pack(_LOAD, 0, 0, _ARCH_AT),
        _STEP.pack(_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        _STEP.pack(_RETURN, 0, 0, _KILL_PROCESS),
        _STEP.pack(_LOAD, 0, 0, _NUMBER_AT),
        _STEP.pack(_AT_LEAST, 0, 1, _X32),
        _STEP.pack(_RETURN, 0, 0, _KILL_PROCESS),
    ]
    for rule in allowed:
        name = rule if isinstance(rule, str) else rule.name
        if name in numbers:
            steps += _rule(numbers[name], () if isinstance(rule, str) else rule.all_of)
    return b"".join((*steps, _STEP.pack(_RETURN, 0, 0, _REFUSE)))


def _rule(number: int, all_of: Sequence[Bits]) -> list[bytes]:
    """Return steps that let a call through if all of this holds, and go on behind them with its number if not."""
    halves = [
        (_ARGUMENTS_AT + 8 * bits.argument + at, bits.mask >> 8 * at & _INT, bits.value >> 8 * at & _INT)
        for bits in all_of
        for at in (0, 4)  # The machines that there are have the lower half first.
        if bits.mask >> 8 * at & _INT
    ]
    if not halves:
        return [_STEP.pack(_EQUAL, 0, 1, number), _STEP.pack(_RETURN, 0, 0, _ALLOW)]
    steps = [_STEP.pack(_EQUAL, 0, 3 * len(halves) + 2, number)]
    for left, (at, mask, value) in zip(range(len(halves) - 1, -1, -1), halves, strict=True):
        steps += [
            _STEP.pack(_LOAD, 0, 0, at),
            _STEP.pack(_AND, 0, 0, mask),
            _STEP.pack(_EQUAL, 0, 3 * left + 1, value),
        ]
    return [*steps, _STEP.pack(_RETURN, 0, 0, _ALLOW), _STEP.pack(_LOAD, 0, 0, _NUMBER_AT)]
