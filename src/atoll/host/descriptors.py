# SPDX-License-Identifier: Apache-2.0
"""How many files and sockets this process may have open, and what it means when there are no more."""

import errno
import resource
from typing import Final

__all__ = ["descriptors_allowed", "is_scarce"]

# What ``accept`` and ``open`` say when the process, or the computer, has no room for another one. It passes.
_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def descriptors_allowed(wanted: int) -> int:
    """Raise this process's limit of open files, if it is lower, as far as it may; return what it is now.

    The limit that a login or a service gets is often 1024, for the sake of programs that use ``select``; the one up to
    which a process may raise it by itself is far higher.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (ValueError, OSError):  # A system may have bounds that it does not tell.
        return soft
    return target


def is_scarce(error: BaseException | None) -> bool:
    """Tell whether an error says that nothing more can be opened now."""
    return isinstance(error, OSError) and error.errno in _SCARCE
