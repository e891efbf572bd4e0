# SPDX-License-Identifier: Apache-2.0
"""How long a fixed small piece of work takes: what a machine that became slower, or is taken away, shows first."""

from hashlib import blake2b
from time import perf_counter_ns
from typing import Final

from atoll.base.units import KIB

__all__ = ["work_ns"]

_ROUNDS: Final = 128
# In pieces below 2 KiB, with which hashlib keeps the interpreter's lock: else other threads would run in between, and
# their work would be measured as this one's.
_PIECE: Final = bytes(KIB)


def work_ns() -> int:
    """Hash 128 KiB, the same each time: about 100 us. Blocks.

    BLAKE2 and not SHA-256, because no processor has it in hardware: so the time says what other work takes there.

    Returns:
        Time that passed, ns. It grows when the processor is slower than it was, and when something else ran in between.
    """
    began_ns = perf_counter_ns()
    digest = blake2b()
    for _ in range(_ROUNDS):
        digest.update(_PIECE)
    digest.digest()
    return perf_counter_ns() - began_ns
