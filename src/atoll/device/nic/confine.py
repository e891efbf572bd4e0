# SPDX-License-Identifier: Apache-2.0
"""What the packet device gives up once its sockets are open.

Best effort where a system has no such thing, because the device works all the same; but a change of user that was asked
for and fails ends the process. Nothing here is a sandbox: that comes with the room ``domain``.
"""

import ctypes
import os
import resource
import sys
from typing import Final

__all__ = ["confine"]

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38


def confine(run_as_uid: int) -> None:
    """Give up privileges for good.

    No core dumps (they would hold the keys); another user and group, if one is given and we are root; on Linux also no
    inspection by other processes of the same user, and no way back to privileges through a set-uid program.

    Args:
        run_as_uid: User to become; the group gets the same number. 0: stay.

    Raises:
        OSError: The user could not be changed.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if run_as_uid and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(run_as_uid)
        os.setuid(run_as_uid)
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # After the change of user, which would reset it.
