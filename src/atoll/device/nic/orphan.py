# SPDX-License-Identifier: Apache-2.0
"""A packet device that has outlived its control, and how whoever comes next ends it (ADR 0029).

Control makes a unix socket in the state directory, and the device alone listens at it; nobody ever speaks there. Who
connects learns from the kernel which process listens, and as long as the connection stands that process lives, so its
number means no other. A file with a number in it could not say that.
"""

import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final

from atoll.device.nic.limits import DOOR_BACKLOG, STOP_S_MAX

__all__ = ["DOOR_NAME", "end_orphan", "listen", "made_door"]

DOOR_NAME: Final = "nic.sock"  # In the state directory.
_CREDENTIALS: Final = Struct("3i")  # struct ucred: process, user, group.


def made_door(path: Path) -> socket.socket | None:
    """Return a socket at this path for a new device; None: it cannot be had, and the device ends with its control.

    What is there is a leftover: the caller has the state directory's lock, and has called ``end_orphan``.
    """
    if sys.platform != "linux":  # Elsewhere nobody says safely who listens.
        return None
    door = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        door.bind(str(path))
    except OSError:
        door.close()
        return None
    return door


def listen(door: socket.socket) -> None:
    """Become the process that this door leads to."""
    door.listen(DOOR_BACKLOG)


def end_orphan(path: Path) -> bool:
    """End the device behind a door, if there is one, and wait until its ports and its TUN device are free.

    Returns:
        Whether there was one.
    """
    if sys.platform != "linux":
        return False
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(0)
        try:
            line.connect(str(path))
            number, _, _ = _CREDENTIALS.unpack(
                line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            process = os.pidfd_open(number)
        except OSError:  # No file, nobody behind it, or gone in this moment.
            return False
        try:
            # It stands still, so the process opened above is the one behind the door.
            with suppress(BlockingIOError):
                line.recv(1)
                return False
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], STOP_S_MAX)
        except OSError:  # It has just ended, or is not ours to end.
            return False
        finally:
            os.close(process)
    return True
