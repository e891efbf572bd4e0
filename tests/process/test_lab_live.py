# SPDX-License-Identifier: Apache-2.0
"""A hold on a process stays with that process, whatever becomes of its number."""

import os
import select
import subprocess
import sys

import pytest

from atoll.lab.process import Process

pytestmark = pytest.mark.process

WAITS = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_a_process_is_seen_to_end_and_killing_it_again_reaches_nobody() -> None:
    with subprocess.Popen(WAITS, stdin=subprocess.PIPE) as child:
        held = Process(child.pid)
        assert not held.has_ended()
        held.kill()
        child.wait(10)
        assert held.has_ended()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)  # It was waited for: the number is free for anybody.
    held.kill()
    held.close()


def test_a_process_that_was_not_waited_for_has_ended_all_the_same() -> None:
    with subprocess.Popen(WAITS, stdin=subprocess.PIPE) as child:
        held = Process(child.pid)
        handle = os.pidfd_open(child.pid)
        assert child.stdin is not None
        child.stdin.close()
        watch = select.poll()
        watch.register(handle, select.POLLIN)
        assert watch.poll(10_000), "it ends when its input does"
        assert held.has_ended()
        os.close(handle)
    held.close()


def test_nobody_can_be_held() -> None:
    with subprocess.Popen(WAITS, stdin=subprocess.PIPE) as child:
        pass
    with pytest.raises(ProcessLookupError):
        Process(child.pid)


def test_a_family_is_a_process_with_its_children_and_theirs() -> None:
    script = (
        "import subprocess, sys; "
        "inner = [sys.executable, '-c', 'import sys; print(1, flush=True); sys.stdin.read()']; "
        "outer = 'import subprocess, sys; subprocess.run(sys.argv[1:])'; "
        "subprocess.run([sys.executable, '-c', outer, *inner])"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"1\n", "the innermost one runs"
        held = Process(child.pid)
        family = held.family()
        assert family[0] is held
        assert len(family) == 3
        for one in family:
            one.kill()
        assert all(one.has_ended() for one in family)
        for one in family:
            one.close()
