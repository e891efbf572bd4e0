# SPDX-License-Identifier: Apache-2.0
"""The scheduler is asked for short turns, and for nothing else."""

import os
import platform
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

ASK = """
import os
from pathlib import Path
os.nice(3)
from atoll.host.cpu import ask_for_short_slices
ask_for_short_slices()
print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_OTHER)
print(Path("/proc/self/sched").read_text() if Path("/proc/self/sched").exists() else "")
"""
LISTENS = (6, 12)


@pytest.mark.usefixtures("compiled")
@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_short_slices_are_asked_for_and_the_share_stays() -> None:
    said = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout
    first, _, rest = said.partition("\n")
    assert first == f"{os.nice(0) + 3} True"
    slice_ns = re.search(r"^se\.slice *: *(\d+)$", rest, re.MULTILINE)
    release = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    if release >= LISTENS and slice_ns:
        assert slice_ns[1] == "100000"
