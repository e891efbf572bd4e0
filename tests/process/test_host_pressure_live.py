# SPDX-License-Identifier: Apache-2.0
"""The load of the real machine: work that is done here shows, in this process, in those it names, and in others."""

import re
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoll.base.units import SECOND_NS
from atoll.health.members.reading import SHARE_ONE, Reading
from atoll.host.pressure import Pressure

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux only"),
]

WORK_NS = SECOND_NS // 2
BUSY = f"""
import sys, time
for line in sys.stdin:
    end_ns = time.process_time_ns() + {WORK_NS}
    while time.process_time_ns() < end_ns:
        pass
    print("done", flush=True)
"""


class Worker:
    """A process that works for half a second of processor time whenever it is told to."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def work(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("work\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@contextmanager
def worker() -> Generator[Worker]:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Worker(process)
        assert process.stdin is not None
        process.stdin.close()  # It ends.


@contextmanager
def pressures(count: int) -> Generator[list[Pressure]]:
    made = [Pressure() for _ in range(count)]
    yield made
    for pressure in made:
        pressure.close()


def test_work_of_others_makes_the_machine_busy() -> None:
    with pressures(1) as (pressure,), worker() as other:
        assert pressure.read() == Reading()
        began_ns = time.monotonic_ns()
        other.work()
        span_ns = time.monotonic_ns() - began_ns
        reading = pressure.read()
        assert reading.busy_share is not None
        processors = len(re.findall(r"^cpu\d", Path("/proc/stat").read_text(encoding="ascii"), re.MULTILINE))
        assert reading.busy_share >= WORK_NS * SHARE_ONE // (span_ns * processors) // 2
        assert 0 <= (reading.stolen_share or 0) <= SHARE_ONE


def test_work_of_a_named_process_is_ones_own() -> None:
    with pressures(2) as (alone, both), worker() as other:
        alone.read()
        both.read((other.process.pid,))
        began_ns = time.monotonic_ns()
        other.work()
        mine = alone.read().own_share
        together = both.read((other.process.pid,)).own_share
        span_ns = time.monotonic_ns() - began_ns
        assert mine is not None
        assert together is not None
        assert (together - mine) * span_ns // SHARE_ONE >= WORK_NS // 2


def test_a_named_process_may_end_at_any_time() -> None:
    with pressures(1) as (pressure,):
        with worker() as other:
            pressure.read((other.process.pid,))
            other.work()
        after = pressure.read((other.process.pid,))
        again = pressure.read((other.process.pid,))
        assert after.own_share is not None
        assert again.own_share is not None


def test_work_of_this_process_is_its_own() -> None:
    with pressures(1) as (pressure,):
        pressure.read()
        began_ns, end_ns = time.monotonic_ns(), time.process_time_ns() + WORK_NS
        while time.process_time_ns() < end_ns:
            pass
        own = pressure.read().own_share
        span_ns = time.monotonic_ns() - began_ns
        assert own is not None
        assert own * span_ns // SHARE_ONE >= WORK_NS * 9 // 10
