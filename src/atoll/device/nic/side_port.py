# SPDX-License-Identifier: Apache-2.0
"""The other end of a process of this node that speaks UDP with members by itself, past control. Decides nothing."""

import os
import socket
from collections.abc import Sequence
from typing import Final, final

from atoll.base.errors import LinkError
from atoll.device.nic.counters import Counters
from atoll.device.nic.limits import PACKET_BYTES_MAX
from atoll.host.udp import error_name

__all__ = ["SidePort"]


@final
class SidePort:
    """One such process.

    Args:
        fd: A local socket, one inner packet a message; owned from now on.
        counters: What it does not take is counted here.
    """

    __slots__ = ("_counters", "_socket")

    def __init__(self, fd: int, counters: Counters) -> None:
        os.set_blocking(fd, False)
        self._socket: Final = socket.socket(fileno=fd)
        self._counters: Final = counters

    def fileno(self) -> int:
        """Return the file descriptor, for a selector."""
        return self._socket.fileno()

    def read(self) -> bytes | None:
        """Return a packet of its; None: there is none now.

        Raises:
            LinkError: It is gone.
        """
        try:
            packet = self._socket.recv(PACKET_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise LinkError(error_name(error)) from error
        if not packet:
            raise LinkError("EOF")
        return packet

    def write(self, packets: Sequence[bytes]) -> None:
        """Hand it packets; those that it does not take are counted, and their senders send them again."""
        for packet in packets:
            try:
                self._socket.send(packet)
            except OSError:  # It is gone, which the next read says, or slow.
                self._counters.drop("port-full")

    def close(self) -> None:
        """Let go of it. Twice is harmless."""
        self._socket.close()
