# SPDX-License-Identifier: Apache-2.0
"""How one seed becomes many independent ones: by name, so that a new consumer changes nobody else's luck."""

from hashlib import blake2b
from random import Random

__all__ = ["derive", "generator"]


def derive(seed: int, purpose: str) -> bytes:
    """Return 32 bytes that depend on the seed and the purpose, such as ``link 3>5``."""
    return blake2b(f"{seed}/{purpose}".encode(), digest_size=32, person=b"atollsim").digest()


def generator(seed: int, purpose: str) -> Random:
    """Return a fast random generator for one purpose. Draw with ``getrandbits`` only: its stream is stable."""
    return Random(int.from_bytes(derive(seed, purpose), "little"))
