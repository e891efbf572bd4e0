# SPDX-License-Identifier: Apache-2.0
"""Units of time and size. Inside the machines everything is an integer of the smallest unit."""

from typing import Final

__all__ = ["GIB", "HOUR_NS", "KIB", "MIB", "MICROSECOND_NS", "MILLISECOND_NS", "MINUTE_NS", "SECOND_NS"]

MICROSECOND_NS: Final = 1_000
MILLISECOND_NS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * SECOND_NS
HOUR_NS: Final = 60 * MINUTE_NS

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
