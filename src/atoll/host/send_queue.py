# SPDX-License-Identifier: Apache-2.0
"""How long what a socket is given waits in the kernel: in the queue of the network card, mostly.

The kernel tells how many bytes of a socket's it still holds, neither since when nor how fast they leave. So what was
given is kept in a list, and what must have left since is taken off its front: that is how long the oldest has waited.
And while something is held, what leaves in a while is the rate: that is how long the newest will wait.

Source: Linux udp(7), SIOCOUTQ; the kernel's own sizes are used, which are larger than those of the datagrams.
"""

import fcntl
import sys
from array import array
from collections import deque
from typing import Final, final

from atoll.base.units import MILLISECOND_NS

__all__ = ["SendQueue"]

_SIOCOUTQ: Final = 0x5411
_HELD_MAX: Final = 1_024  # Limit. Sends that are remembered; at the limit the newest count with the one before them.
_WINDOW_NS: Final = 8 * MILLISECOND_NS  # A send leaves as a whole, as far as the kernel tells; this is some of them.
_WINDOWS: Final = 32  # The fastest of them counts: in the others less was given than the card could send.
_QUEUE_MIN: Final = 2
_CAN_TELL: Final = sys.platform == "linux"


@final
class SendQueue:
    """The send queue of one socket.

    Args:
        fd: The socket's.

    Attributes:
        is_standing: Whether something was held when last asked: then each send has to be noted.
    """

    __slots__ = (
        "_began_ns",
        "_charged",
        "_count",
        "_drained",
        "_fd",
        "_held",
        "_rate",
        "_rates",
        "_total",
        "is_standing",
    )

    def __init__(self, fd: int) -> None:
        self._fd: Final = fd
        self._count: Final = array("i", [0])
        self._held: Final[deque[list[int]]] = deque()  # [given at, ns; bytes], oldest first.
        self._total = self._charged = 0
        self._began_ns = self._drained = self._rate = 0  # Of the window; bytes left in it; bytes in a millisecond.
        self._rates: Final[deque[int]] = deque(maxlen=_WINDOWS)
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
        if not self.is_standing:
            self._began_ns, self._drained = now_ns, 0
        self._charged, self.is_standing = charged, charged > 0
        if added <= 0:
            self._drained -= added
            return
        self._total += added
        if len(self._held) < _HELD_MAX:
            self._held.append([now_ns, added])
        else:
            self._held[-1][1] += added

    def wait_ns(self, now_ns: int) -> int:
        """Return how long the oldest of what is held has waited, or the newest will, whichever is longer.

        0: nothing is held, or one send only, which is on its way and not in a queue.
        """
        if not self.is_standing:
            return 0
        charged, held = self._ask(), self._held
        self._drained += self._charged - charged
        self._charged, self.is_standing = charged, charged > 0
        while held and self._total - held[0][1] >= charged:
            self._total -= held.popleft()[1]
        if now_ns - self._began_ns >= _WINDOW_NS:
            self._rates.append(self._drained * MILLISECOND_NS // (now_ns - self._began_ns))
            self._rate = max(self._rates)
            self._began_ns, self._drained = now_ns, 0
        if len(held) < _QUEUE_MIN:
            return 0
        return max(now_ns - held[0][0], charged * MILLISECOND_NS // self._rate if self._rate else 0)
