# SPDX-License-Identifier: Apache-2.0
"""A logarithmic scale in integers: what is twice as slow is as far away at 1 ms as at 1 s, on every computer alike.

A *level* is log2 of a positive integer in 1/128 octaves, rounded down: one step is 0.54 %. Slow-downs are differences
of levels. Nothing here uses floating point, where the last bit may differ from one computer to the next.
"""

from math import isqrt
from typing import Final

__all__ = ["OCTAVE", "level_of", "value_of"]

OCTAVE: Final = 128
_ROOTS: Final = 7  # OCTAVE is 2 to the power of so many.
_STEPS: Final = 256
_ONE: Final = 1 << 16


def _root(number: int) -> int:
    for _ in range(_ROOTS):
        number = isqrt(number)
    return number


# Level within the octave of (256 + i) / 256: the largest k with 2^(k/128) <= (256 + i) / 256.
_LEVELS: Final[tuple[int, ...]] = tuple((i**OCTAVE).bit_length() - 1 - 8 * OCTAVE for i in range(_STEPS, 2 * _STEPS))
_MANTISSAS: Final[tuple[int, ...]] = tuple(_root(1 << (k + 16 * OCTAVE)) for k in range(OCTAVE))  # 2^(k/128), of _ONE.


def level_of(value: int) -> int:
    """Return the level of an integer; of what is less than 1, that of 1, which is 0."""
    if value <= 1:
        return 0
    octave = value.bit_length() - 1
    return octave * OCTAVE + _LEVELS[((value * _STEPS) >> octave) - _STEPS]


def value_of(level: int) -> int:
    """Return the integer at a level, at least 1: its ``level_of`` is the level, or one less."""
    octave, k = divmod(level, OCTAVE)
    return _MANTISSAS[k] << octave >> 16 if octave >= 0 else 1
