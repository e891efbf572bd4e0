# SPDX-License-Identifier: Apache-2.0
"""Randomness as state: a keyed counter that a snapshot can hold and a replay repeats.

The seed comes from the operating system once, as part of a machine's first snapshot. Keys and handshakes never draw
from here: a journal holds the seed, and a journal must not hold secrets that outlive it (ADR 0004).
"""

from hashlib import blake2b
from typing import Final

import msgspec

from atoll.base.errors import UsageError

__all__ = ["SEED_BYTES", "Draws"]

SEED_BYTES: Final = 32
_BLOCK_BYTES: Final = 64


class Draws(msgspec.Struct):
    """A deterministic stream of random integers: BLAKE2b in counter mode.

    Attributes:
        seed: Key of the stream, 1 to 64 bytes.
        count: Blocks drawn so far.
    """

    seed: bytes
    count: int = 0

    def bits(self, width: int) -> int:
        """Return a uniform integer of ``width`` bits, 1 to 512.

        Raises:
            UsageError: Another width.
        """
        if not 1 <= width <= 8 * _BLOCK_BYTES:
            raise UsageError(f"a draw of {width} bits")
        block = blake2b(self.count.to_bytes(8, "little"), key=self.seed, digest_size=_BLOCK_BYTES).digest()
        self.count += 1
        return int.from_bytes(block, "little") >> (8 * _BLOCK_BYTES - width)

    def below(self, bound: int) -> int:
        """Return an integer in [0, bound). The bias is below 2^-64 for bounds up to 2^64.

        Raises:
            UsageError: The bound is not in 1 to 2^64.
        """
        if not 1 <= bound <= 1 << 64:
            raise UsageError(f"a draw below {bound}")
        return (self.bits(128) * bound) >> 128

    def token(self, size_bytes: int) -> bytes:
        """Return 1 to 64 random bytes."""
        return self.bits(8 * size_bytes).to_bytes(size_bytes, "little")
