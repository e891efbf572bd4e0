# SPDX-License-Identifier: Apache-2.0
"""The doors of the house on a real computer: clocks, files, journals on disk, sockets.

Decides how the operating system is asked, what its errors mean in ours, and how much is kept on disk; nothing else.
"""

from atoll.host.clock import SystemClock
from atoll.host.files import (
    FileDisk,
    StateLock,
    explain,
    make_private_directory,
    read_private,
    write_atomic,
    write_private,
)
from atoll.host.journal_files import JournalFiles, export_journal, read_journal

__all__ = [
    "FileDisk",
    "JournalFiles",
    "StateLock",
    "SystemClock",
    "explain",
    "export_journal",
    "make_private_directory",
    "read_journal",
    "read_private",
    "write_atomic",
    "write_private",
]
