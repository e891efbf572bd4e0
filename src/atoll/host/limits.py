# SPDX-License-Identifier: Apache-2.0
"""Limits of the host room: how much a node keeps on disk, and how often it tries again."""

from typing import Final

from atoll.base.units import KIB, MIB, SECOND_NS

__all__ = [
    "ANCESTORS_MAX",
    "FLUSH_BYTES_MAX",
    "FLUSH_NS_MAX",
    "JOURNAL_BYTES_MAX",
    "LINKS_READ_MAX",
    "LOG_BYTES_MAX",
    "LOG_FILES_MAX",
    "LOG_TAIL_BYTES_MAX",
    "OWNERS_LATELY_MAX",
    "PRIVATE_BYTES_MAX",
    "PROCESSES_MAX",
    "PROCESS_BYTES_MAX",
    "RETRY_NS",
    "SEGMENTS_MAX",
]

PRIVATE_BYTES_MAX: Final = 64 * KIB
"""A key file. Keys are below 1 KiB; anything larger is the wrong file."""

SEGMENTS_MAX: Final = 64
"""Segments of one journal on disk. With 4 MiB segments the byte bound comes first, unless the node restarts often."""

JOURNAL_BYTES_MAX: Final = 64 * MIB
"""One journal on disk: hours of an idle group of 50, about a day of a group of 5. The oldest segment goes first."""

FLUSH_BYTES_MAX: Final = 64 * KIB
"""Records that wait for one write: a write of this size costs some 30 us, one for each record would cost more."""

FLUSH_NS_MAX: Final = SECOND_NS
"""How much of the recent past a killed process may lose from its journal."""

RETRY_NS: Final = 30 * SECOND_NS
"""Pause before journalling is tried again after the disk refused."""

LOG_BYTES_MAX: Final = 4 * MIB
"""One file of a node's log, some 30,000 lines: weeks of a group whose paths change now and then. Then it is rotated."""

LOG_FILES_MAX: Final = 4
"""Files of a node's log, the one being written included: 16 MiB in all. The oldest goes."""

LOG_TAIL_BYTES_MAX: Final = 256 * KIB
"""Read at a time from a log, and from its end to find the last lines."""

PROCESSES_MAX: Final = 4_096
"""Processes looked through for the owner of a flow, the youngest; a desktop has 500. Of others nothing is known."""

LINKS_READ_MAX: Final = 65_536
"""Open files looked at in one such look, 2 us each. Sockets beyond have no owner: the rules without a program hold."""

OWNERS_LATELY_MAX: Final = 16
"""Processes that are looked at first, because they owned a flow lately: the programs that a person uses at once."""

ANCESTORS_MAX: Final = 64
"""Generations looked at above a process. A tag given further above does not reach it."""

PROCESS_BYTES_MAX: Final = 256 * KIB
"""Read of a process's environment or command line: twice what one variable may have. What stands beyond is not seen."""
