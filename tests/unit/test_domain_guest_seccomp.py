# SPDX-License-Identifier: Apache-2.0
"""The programs that judge system calls, run by a small interpreter of their language as the kernel would run them."""

import fcntl
import mmap
import os
import resource
import struct

import pytest

from atoll.domain.guest.seccomp import AUDIT_ARCH, LOADING, RUNNING, SYSCALLS, Bits, Check, program

ALLOW, KILL, EPERM = 0x7FFF0000, 0x80000000, 0x00050001
SOMEBODY = 4_711  # A process, or where something is in memory.
FORBIDDEN = {
    "x86_64": {"socket": 41, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "ptrace": 101}
    | {"io_uring_setup": 425, "clone3": 435, "openat2": 437, "tgkill": 234, "memfd_create": 319, "bpf": 321}
    | {"connect": 42, "sendto": 44, "unlink": 87, "rename": 82, "pidfd_open": 434, "process_vm_writev": 311}
    | {"seccomp": 317, "landlock_create_ruleset": 444, "landlock_add_rule": 445},
    "aarch64": {"socket": 198, "clone": 220, "execve": 221, "kill": 129, "ptrace": 117, "io_uring_setup": 425}
    | {"seccomp": 277, "landlock_create_ruleset": 444, "landlock_add_rule": 445},
}


def judged(code: bytes, machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Run a filter over one call."""
    arguments = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, AUDIT_ARCH[machine] if arch is None else arch, 0, *arguments)
    steps = list(struct.iter_unpack("<HBBI", code))
    accumulator = at = 0
    while True:
        operation, if_true, if_false, constant = steps[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, constant)[0]
        elif operation == 0x54:
            accumulator &= constant
        elif operation in {0x15, 0x35}:
            holds = accumulator == constant if operation == 0x15 else accumulator >= constant
            at += if_true if holds else if_false
        else:
            assert operation == 0x06, "an operation that no filter has"
            return int(constant)


@pytest.mark.parametrize("machine", sorted(SYSCALLS))
@pytest.mark.parametrize("allowed", [LOADING, RUNNING])
def test_what_reaches_the_world_is_refused(machine: str, allowed: tuple[str | Check, ...]) -> None:
    code = program(allowed, machine)
    for number in FORBIDDEN[machine].values():
        assert judged(code, machine, number) == EPERM
    listed = {rule if isinstance(rule, str) else rule.name for rule in allowed}
    for name, number in SYSCALLS[machine].items():
        if name not in listed:
            assert judged(code, machine, number) == EPERM, name
    for rule in allowed:
        if isinstance(rule, str) and rule in SYSCALLS[machine]:
            assert judged(code, machine, SYSCALLS[machine][rule]) == ALLOW, rule


def test_running_code_writes_to_its_one_descriptor_only() -> None:
    code, write = program(RUNNING, "x86_64"), SYSCALLS["x86_64"]["write"]
    assert judged(code, "x86_64", write, 0) == ALLOW
    assert judged(code, "x86_64", write, 1) == EPERM
    assert judged(code, "x86_64", SYSCALLS["x86_64"]["read"], 0) == EPERM


def test_running_code_makes_no_memory_that_can_be_run() -> None:
    code, numbers = program(RUNNING, "x86_64"), SYSCALLS["x86_64"]
    assert judged(code, "x86_64", numbers["mmap"], 0, 4096, mmap.PROT_READ | mmap.PROT_WRITE) == ALLOW
    assert judged(code, "x86_64", numbers["mmap"], 0, 4096, mmap.PROT_READ | mmap.PROT_EXEC) == EPERM
    assert judged(code, "x86_64", numbers["mprotect"], 0, 4096, mmap.PROT_EXEC) == EPERM


def test_loading_code_opens_files_to_read_only() -> None:
    code, numbers = program(LOADING, "x86_64"), SYSCALLS["x86_64"]
    assert judged(code, "x86_64", numbers["openat"], 0, 0, os.O_RDONLY | os.O_CLOEXEC) == ALLOW
    assert judged(code, "x86_64", numbers["openat"], 0, 0, os.O_WRONLY) == EPERM
    assert judged(code, "x86_64", numbers["openat"], 0, 0, os.O_RDONLY | os.O_CREAT) == EPERM
    assert judged(code, "x86_64", numbers["open"], 0, os.O_RDWR) == EPERM
    assert "open" not in SYSCALLS["aarch64"]


@pytest.mark.parametrize("machine", sorted(SYSCALLS))
def test_loading_code_reads_its_own_limits_and_sets_that_of_its_files_only(machine: str) -> None:
    code, prlimit = program(LOADING, machine), SYSCALLS[machine]["prlimit64"]
    for limit in range(16):
        assert judged(code, machine, prlimit, 0, limit, 0, SOMEBODY) == ALLOW
        assert judged(code, machine, prlimit, SOMEBODY, limit, 0, SOMEBODY) == EPERM
        assert judged(code, machine, prlimit, 0xFFFFFFFF, limit, 0, SOMEBODY) == EPERM
        for new in (SOMEBODY, SOMEBODY << 32):  # Both halves of where the new one is count.
            may = ALLOW if limit == resource.RLIMIT_NOFILE else EPERM
            assert judged(code, machine, prlimit, 0, limit, new) == may
            assert judged(code, machine, prlimit, SOMEBODY, limit, new) == EPERM


@pytest.mark.parametrize("machine", sorted(SYSCALLS))
def test_loading_code_names_no_other_process(machine: str) -> None:
    code, numbers = program(LOADING, machine), SYSCALLS[machine]
    assert judged(code, machine, numbers["sched_getaffinity"], 0, 128, SOMEBODY) == ALLOW
    assert judged(code, machine, numbers["sched_getaffinity"], SOMEBODY, 128, SOMEBODY) == EPERM
    harmless = {fcntl.F_DUPFD, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_DUPFD_CLOEXEC}
    for command in (*range(64), *range(1_024, 1_088)):  # F_SETOWN and F_SETSIG say whom a signal goes to.
        assert judged(code, machine, numbers["fcntl"], 5, command, SOMEBODY) == (
            ALLOW if command in harmless else EPERM
        )


@pytest.mark.parametrize("machine", sorted(SYSCALLS))
def test_loading_code_says_nothing_of_its_process_but_that_it_may_do_less(machine: str) -> None:
    code, numbers = program(LOADING, machine), SYSCALLS[machine]
    for option in range(80):  # 1 is PR_SET_PDEATHSIG, by which it ends when the server does.
        assert judged(code, machine, numbers["prctl"], option, 2, SOMEBODY) == (ALLOW if option == 22 else EPERM)
    assert judged(code, machine, numbers["prctl"], 22, 1) == EPERM


def test_calls_of_another_architecture_end_the_process() -> None:
    code, futex = program(RUNNING, "x86_64"), SYSCALLS["x86_64"]["futex"]
    assert judged(code, "x86_64", futex, arch=0x40000003) == KILL  # 32-bit calls by int 0x80.
    assert judged(code, "x86_64", futex | 0x40000000) == KILL  # The x32 ABI.


def test_the_bytes_of_a_small_program() -> None:
    allowed = ("futex", "open", Check("write", (Bits(0, 0xFF, 3),)), Check("open", (Bits(1, 1, 0),)))
    assert program(allowed, "aarch64").hex(" ", 8) == (
        "2000000004000000 15000100b70000c0 0600000000000080 2000000000000000 3500000100000040 0600000000000080 "
        "1500000162000000 060000000000ff7f 1500000540000000 2000000010000000 54000000ff000000 1500000103000000 "
        "060000000000ff7f 2000000000000000 0600000001000500"
    )


def test_an_unknown_machine_has_no_program() -> None:
    with pytest.raises(KeyError):
        program(RUNNING, "pdp11")
