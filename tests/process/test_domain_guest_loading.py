# SPDX-License-Identifier: Apache-2.0
"""What code can reach while it is loaded in a guest: libraries to read, and nothing of anybody else."""

import os
import resource
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, suppress

import pytest

from atoll.base.errors import CorruptError, UserError
from atoll.domain.guest.confine import is_possible
from atoll.domain.guest.launch import GuestProcess, Zygote
from atoll.domain.guest.machine import GuestPlace
from atoll.domain.loading import Bundle

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not is_possible(), reason="guests need Linux on x86_64 or aarch64"),
]

WAIT_S = 30.0
GOOD = "import atoll\nclass App(atoll.App):\n    n: int = 0\n"
BEGIN = """
import ctypes, fcntl, os, resource, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
def tried(what):
    try:
        return what()
    except OSError as error:
        return error.errno
"""


@pytest.fixture
def victim() -> Generator[subprocess.Popen[bytes]]:
    """Return a process that ends when it is told so."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as made:
        yield made
        made.kill()


def place(zygote: Zygote, source: str) -> GuestPlace:
    """Return a place whose guest loads code."""
    made = GuestPlace(zygote.fork, Bundle(1, "m", "App", {"m": source}).encode(), "App")
    made.begin_loading()
    return made


def wait_for(made: GuestPlace) -> None:
    """Return when the code is loaded."""
    until = time.monotonic() + WAIT_S
    while not made.is_loaded():
        assert time.monotonic() < until, "it is never loaded"


def said(zygote: Zygote, expression: str) -> str:
    """Return what an expression comes to in code that is being loaded."""
    made = place(zygote, f"{BEGIN}raise RuntimeError(repr({expression}))")
    with pytest.raises(UserError) as raised:
        wait_for(made)
    made.close()
    return raised.value.where.removeprefix("RuntimeError: ")


@pytest.mark.parametrize(
    "attempt",
    [
        "resource.prlimit(VICTIM, resource.RLIMIT_FSIZE)",
        "resource.prlimit(VICTIM, resource.RLIMIT_FSIZE, (0, 0))",
        "resource.prlimit(VICTIM, resource.RLIMIT_CPU, (0, 0))",
        "resource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (0, 0))",
        "os.sched_getaffinity(VICTIM)",
        "os.sched_setaffinity(VICTIM, {0})",
        "os.setpriority(os.PRIO_PROCESS, VICTIM, 19)",
        "os.kill(VICTIM, 0)",
        "os.pidfd_open(VICTIM)",
        "fcntl.fcntl(os.open('/dev/null', os.O_RDONLY), fcntl.F_SETOWN, VICTIM)",
        "fcntl.fcntl(os.open(os.path.dirname(os.__file__), os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_ACCESS)",
    ],
)
def test_code_that_is_loaded_reaches_no_other_process(
    zygote: Zygote, victim: subprocess.Popen[bytes], attempt: str
) -> None:
    before = [resource.prlimit(victim.pid, limit) for limit in range(resource.RLIMIT_OFILE + 1)]
    assert said(zygote, f"tried(lambda: {attempt.replace('VICTIM', str(victim.pid))})") == "1"  # EPERM
    assert [resource.prlimit(victim.pid, limit) for limit in range(resource.RLIMIT_OFILE + 1)] == before
    assert victim.poll() is None


@pytest.mark.parametrize("option", ["1, 0", "4, 1", "15, b'x'", "23, 0", "36, 1", "1499557217, -1"])
def test_code_that_is_loaded_stays_what_its_process_was_made(zygote: Zygote, option: str) -> None:
    assert said(zygote, f"(libc.prctl({option}, 0, 0, 0), ctypes.get_errno())") == "(-1, 1)"


def test_code_that_is_loaded_does_not_outlive_what_it_was_forked_from(zygote: Zygote) -> None:
    done = "os.write(0, (1).to_bytes(8, 'little'))"  # The bell.
    source = f"{BEGIN}libc.prctl(1, 0, 0, 0, 0)\n{done}\nwhile True: pass\n"
    guest = place(zygote, source).guest
    assert isinstance(guest, GuestProcess)
    assert select.select([guest.bell], [], [], WAIT_S)[0]
    zygote.close()
    ended = select.select([guest.pidfd], [], [], WAIT_S)[0]
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(guest.pidfd, signal.SIGKILL)
    assert ended, "it goes on"


def test_code_that_is_loaded_holds_nothing_but_its_bell(zygote: Zygote) -> None:
    kinds = "[stat.S_IFMT(one.st_mode) for n in range(64) if not isinstance(one := tried(lambda: os.fstat(n)), int)]"
    bell, *others = map(int, said(zygote, kinds).strip("[]").split(","))
    assert (bell, others[:2]) == (0, [stat.S_IFCHR] * 2)  # An eventfd is of no kind.
    assert others[2:] in ([], [0]), "what the second step needs, where there is Landlock"
    assert said(zygote, "[os.fstat(n).st_rdev == os.stat('/dev/null').st_rdev for n in (1, 2)]") == "[True, True]"


def test_what_code_prints_while_it_is_loaded_is_lost() -> None:
    source = "print('hello')\nlibc.puts(b'hello')\nassert (os.write(1, b'hello'), os.write(2, b'hello')) == (5, 5)\n"
    said, log = os.pipe()  # No file: a guest may write to none, so there it would be lost in any case.
    kept = os.dup(2)
    os.dup2(log, 2)
    try:
        with closing(Zygote()) as zygote:
            made = place(zygote, f"{BEGIN}{source}print('hello', file=sys.__stderr__, flush=True)\n{GOOD}")
            wait_for(made)
            made.close()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(log)
    with os.fdopen(said, "rb") as heard:
        assert heard.read() == b"", "the log of the server is for nobody else to write"


def test_code_that_is_loaded_keeps_its_own_limits(zygote: Zygote) -> None:
    assert said(zygote, "resource.getrlimit(resource.RLIMIT_FSIZE)") == "(0, 0)"
    unlimited = "(resource.RLIM_INFINITY, resource.RLIM_INFINITY)"
    assert said(zygote, f"tried(lambda: resource.prlimit(0, resource.RLIMIT_AS, {unlimited}))") == "1"


def test_libraries_in_c_can_be_loaded(zygote: Zygote) -> None:
    made = place(zygote, f"import numpy\nassert numpy.eye(9).sum() == 9\n{GOOD}")
    wait_for(made)
    made.close()


@pytest.mark.parametrize("spoil", ["resource.setrlimit = None", "os.closerange(3, 64); resource.setrlimit = None"])
def test_what_cannot_be_closed_in_is_not_run_and_not_called_code_that_cannot_be_loaded(
    zygote: Zygote, spoil: str
) -> None:
    made = place(zygote, f"{BEGIN}{spoil}\n{GOOD}")
    with pytest.raises(UserError) as raised:
        wait_for(made)
    assert (raised.value.code, raised.value.sentence.partition(" is loaded")[0]) == ("A613", "App")
    assert "not callable" in raised.value.where or "Bad file descriptor" in raised.value.where
    assert "inline" not in raised.value.fix, "there it would do the same to the server of all"
    with pytest.raises(CorruptError, match="no code was loaded"):
        made.blank()
    made.close()
