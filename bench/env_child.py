# SPDX-License-Identifier: Apache-2.0
"""Parts of bench/env.py that run in a process of their own, so that each begins alike and leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from figures import Row

from atoll.domain.guard import INTERPRETER_VARIABLES

__all__ = ["answer", "run", "synced"]

HERE: Final = Path(__file__).resolve().parent
TIMEOUT_S: Final = 1200.0  # Limit. The longest one, a million events three times, is some seconds.


def run(script: str, *arguments: object) -> Row:
    """Run a script beside this one, with what a process that runs handlers has around it; return what it answers.

    Raises:
        RuntimeError: It failed; the words are the last ones that it said.
    """
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(
        command,
        env={**os.environ, **INTERPRETER_VARIABLES},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{script} {' '.join(map(str, arguments))}: {done.stderr.strip()[-2000:]}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def answer(row: dict[str, Any]) -> None:
    """Give the result to whoever started this process."""
    print(json.dumps(row), flush=True)


def synced(descriptor: int, content: bytes, clock: Any) -> float:
    """Append and flush; return how long that took, by a clock in seconds."""
    began = clock()
    os.write(descriptor, content)
    os.fdatasync(descriptor)
    return float(clock() - began)
