# SPDX-License-Identifier: Apache-2.0
"""What a process can still do after the first step of confining it, and what time it sees; each in one of its own."""

import ctypes
import errno
import os
import platform
import subprocess
import sys
from struct import Struct
from typing import Final

import pytest

from atoll.base.errors import LinkError
from atoll.domain.guest.confine import Confinement, is_possible, readable
from atoll.domain.guest.vdso import stop_clock

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not is_possible(), reason="guests need Linux on x86_64 or aarch64"),
]

PRCTL: Final = {"x86_64": 157, "aarch64": 167}
STEP: Final = Struct("<HBBI")  # struct sock_filter.
WAIT_S: Final = 60.0
PLACING = """
import asyncio, ctypes, sys
from atoll.base.errors import UserError
from atoll.domain.guest.guests import Guests
from atoll.domain.loading import Bundle

class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

steps, libc = bytes.fromhex(sys.argv[1]), ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(steps) // 8, steps)), 0, 0) == 0

async def place():
    guests = Guests()
    try:
        await guests.place(Bundle(1, "x", "X", {"x": "import atoll"}).encode())
    except UserError as error:
        print(error.code, error.fix)
    finally:
        guests.close()

asyncio.run(place())
"""
REFUSED, NO_WALLS, GONE, ELSE = 13, 14, 15, 99


def _forked(work: str) -> int:
    """Run a line in a process that can only read libraries; return its exit status."""
    confinement = Confinement(readable())
    child = os.fork()
    if child:
        confinement.close()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = ELSE
    try:
        os.dup2(0, 100)  # More than a guest may have.
        confinement.narrow()
        exec(work, {"os": os, "confinement": confinement})
        status = 0
    except PermissionError:
        status = REFUSED
    except LinkError:
        status = NO_WALLS
    except OSError as error:
        status = GONE if error.errno == errno.EBADF else ELSE
    finally:
        os._exit(status)


@pytest.mark.parametrize(
    ("work", "status"),
    [
        ("os.listdir(os.path.dirname(os.__file__))", 0),
        ("open(os.__file__).read()", 0),
        ("open('/etc/passwd')", REFUSED),
        ("open('/dev/null', 'wb')", REFUSED),
        ("os.fork()", REFUSED),
        ("import socket; socket.socket()", REFUSED),
        ("os.kill(os.getppid(), 0)", REFUSED),
        ("os.execv('/bin/true', ['true'])", REFUSED),
        ("os.fstat(100)", GONE),
        ("os.write(1, b'.') + os.write(2, b'.')", 0),
        ("confinement.close_in()", 0),
        ("confinement.close_in(); os.write(1, b'.')", REFUSED),
    ],
)
def test_the_first_step_leaves_reading_libraries(work: str, status: int) -> None:
    assert _forked(work) == status


def test_whoever_is_no_child_of_what_made_the_walls_ready_does_not_begin() -> None:
    child = os.fork()
    if not child:
        status = ELSE
        try:
            Confinement(readable()).narrow()
        except LinkError:
            status = NO_WALLS
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == NO_WALLS


def test_a_kernel_that_confines_nobody_is_said_and_no_code_is_blamed() -> None:
    """The process that asks lets none below it have a list of system calls: prctl(22, ...) is refused with EPERM."""
    steps = ((0x20, 0, 0, 0), (0x15, 0, 3, PRCTL[platform.machine()]), (0x20, 0, 0, 16), (0x15, 0, 1, 22))
    answers = ((6, 0, 0, 0x00050001), (6, 0, 0, 0x7FFF0000))
    argument = b"".join(STEP.pack(*step) for step in (*steps, *answers)).hex()
    command = [sys.executable, "-c", PLACING, argument]
    done = subprocess.run(command, capture_output=True, timeout=WAIT_S, check=True, text=True)
    assert done.stdout == "A613 atoll run --level inline\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the stubs are x86_64's")
def test_the_clock_of_a_forked_process_stands() -> None:
    child = os.fork()
    if not child:
        libc = ctypes.CDLL(None)
        os._exit(0 if stop_clock() and libc.time(None) == 0 and libc.time(None) == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
