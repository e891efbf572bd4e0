# SPDX-License-Identifier: Apache-2.0
"""How long what a socket was given waits in the kernel: in the queue of the network card, mostly.

The kernel tells how many bytes of a socket's it still holds, not since when. So what was given is kept in a list, and
what must have left since is taken off its front.

Source: Linux udp(7), SIOCOUTQ; the kernel's own sizes are used, which are larger than those of the datagrams.
"""

import fcntl
import sys
from array import array
from collections import deque
from typing import Final, final

__all__ = ["SendQueue"]

_SIOCOUTQ: Final = 0x5411
_HELD_MAX: Final = 1_024  # Limit. Sends that are remembered; at the limit the newest count with the one before them.
_CAN_TELL: Final = sys.platform == "linux"


@final
class SendQueue:
    """The send queue of one socket.

    Args:
        fd: The socket's.

    Attributes:
        is_standing: Whether something was held when last asked: then each send has to be noted.
    """

    __slots__ = ("_charged", "_count", "_fd", "_held", "_total", "is_standing")

    def __init__(self, fd: int) -> None:
        self._fd: Final = fd
        self._count: Final = array("i", [0])
        self._held: Final[deque[list[int]]] = deque()  # [given at, ns; bytes], oldest first.
        self._total = self._charged = 0
        self.is_standing = False

    def _ask(self) -> int:
        if not _CAN_TELL:
            return 0
        try:
            fcntl.ioctl(self._fd, _SIOCOUTQ, self._count)
        except OSError:
            return 0
        return self._count[0]

    def note(self, now_ns: int) -> None:
        """Note that something was given to the socket just now."""
        charged = self._ask()
        added = charged - self._charged
        self._charged, self.is_standing = charged, charged > 0
        if added <= 0:
            return
        self._total += added
        if len(self._held) < _HELD_MAX:
            self._held.append([now_ns, added])
        else:
            self._held[-1][1] += added

    def sojourn_ns(self, now_ns: int) -> int:
        """Return how long the oldest of what is held has been held; 0: no more than one send is, which is no queue."""
        if not self.is_standing:
            return 0
        charged = self._charged = self._ask()
        held = self._held
        self.is_standing = charged > 0
        while held and self._total - held[0][1] >= charged:
            self._total -= held.popleft()[1]
        return now_ns - held[0][0] if len(held) > 1 and charged else 0
