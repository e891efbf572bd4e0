# SPDX-License-Identifier: Apache-2.0
"""Entry of the emulator's process: ``python -m atoll.lab.emulator_process [SEED]``, JSON lines on stdin and stdout.

Ends when its standard input does, so that it never outlives whoever started it.
"""

import asyncio
import contextlib
import os
import sys
from typing import Final

from atoll.lab.emulator import COMMAND_BYTES_MAX, WRONG, precise_loop, serve

__all__ = ["main"]

NICENESS: Final = -10


async def _serve_standard_streams(seed: int) -> None:
    reader = asyncio.StreamReader(limit=COMMAND_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def answer(line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    await serve(seed, reader, answer)


def main() -> int:
    """Serve until the end of the commands; return the exit status: 2 if the seed is no number."""
    text = sys.argv[1] if len(sys.argv) > 1 else "1"
    if not (text.isascii() and text.isdigit()):
        sys.stderr.write(f"error {WRONG}: {text!r} is no seed\n  fix     use a number, 0 or more\n")
        return 2
    with contextlib.suppress(OSError):  # Allowed to root only. The network should not wait for the busy nodes on it.
        os.nice(NICENESS)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError), asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(_serve_standard_streams(int(text)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
