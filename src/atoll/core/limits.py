# SPDX-License-Identifier: Apache-2.0
"""Limits of the core room: how much one journal may hold in memory and in one file. The spec's constants are apart."""

from typing import Final

from atoll.base.units import KIB, MIB

__all__ = ["INPUT_BYTES_MAX", "PENDING_BYTES_MAX", "SEGMENT_BYTES_MAX", "SNAPSHOT_BYTES_MAX"]

INPUT_BYTES_MAX: Final = 1 * MIB
"""One journalled input. The largest real one, a roster of 1,000 members, is about 300 KiB."""

SNAPSHOT_BYTES_MAX: Final = 8 * MIB
"""The state of one machine; must stay below the 16 MiB of the frame's length field."""

SEGMENT_BYTES_MAX: Final = 4 * MIB
"""Records of one segment before the next one starts. Larger: fewer snapshots, coarser dropping of old ones."""

PENDING_BYTES_MAX: Final = 16 * MIB
"""Recorded but not yet taken by the shell. Room for one snapshot and two segments; beyond it recording pauses."""

assert SNAPSHOT_BYTES_MAX < 16 * MIB - KIB
assert SNAPSHOT_BYTES_MAX + SEGMENT_BYTES_MAX <= PENDING_BYTES_MAX
