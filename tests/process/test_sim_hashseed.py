# SPDX-License-Identifier: Apache-2.0
"""A seed means the same run in another process, whatever Python's hashes are there."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
from atoll.sim.gossip import gossip_scenario
from atoll.sim.runner import run
print(hash("atoll"))
for seed in range(1, 6):
    result = run(gossip_scenario(count=6), seed)
    print(result.trace_digest, result.stats, result.schedule)
"""


def lines_under(hash_seed: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.process
def test_traces_do_not_depend_on_the_hash_seed() -> None:
    one, two = lines_under("1"), lines_under("2")
    assert one[0] != two[0]  # Hashes do differ, so the rest proves something.
    assert one[1:] == two[1:]
    assert len(one) > 10
