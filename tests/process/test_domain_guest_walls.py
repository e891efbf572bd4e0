# SPDX-License-Identifier: Apache-2.0
"""What a process can still do after the first step of confining it, and what time it sees; each in one of its own."""

import ctypes
import errno
import os
import platform

import pytest

from atoll.base.errors import LinkError
from atoll.domain.guest.confine import Confinement, is_possible, readable
from atoll.domain.guest.vdso import stop_clock

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not is_possible(), reason="guests need Linux on x86_64 or aarch64"),
]

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


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the stubs are x86_64's")
def test_the_clock_of_a_forked_process_stands() -> None:
    child = os.fork()
    if not child:
        libc = ctypes.CDLL(None)
        os._exit(0 if stop_clock() and libc.time(None) == 0 and libc.time(None) == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
