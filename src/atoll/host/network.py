# SPDX-License-Identifier: Apache-2.0
"""Notices that addresses or routes of this machine changed: it moved to another network, or a link came or went.

Source: rtnetlink(7). Elsewhere than on Linux nothing is noticed, and probes find out a little later.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, final

__all__ = ["CALM_S", "NetworkWatch"]

CALM_S: Final = (
    0.2  # Addresses and routes change in several steps; the last one counts. Also the shortest time between calls.
)
_GROUPS: Final = 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
_READ_BYTES: Final = 1 << 16
_READS_MAX: Final = 64  # Limit a turn, so that a storm of notices does not hold the loop.


@final
class NetworkWatch:
    """Calls back, in the running loop, ``CALM_S`` after the first of some changes.

    Args:
        changed: Called without arguments; must not raise.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._notices: socket.socket | None = None
        if not sys.platform.startswith("linux"):
            return
        with suppress(OSError):  # A sandbox without netlink: as elsewhere.
            notices = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
            )
            try:
                notices.bind((0, _GROUPS))
            except OSError:
                notices.close()
                raise
            self._notices = notices
            self._loop.add_reader(notices, self._read)

    def _read(self) -> None:
        assert self._notices is not None
        for _ in range(_READS_MAX):
            try:
                self._notices.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: there were more than it could keep, and all say the same.
                continue
        if self._timer is None:
            self._timer = self._loop.call_later(CALM_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._changed()

    def close(self) -> None:
        """Notice no more. Twice is harmless."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._notices is not None:
            self._loop.remove_reader(self._notices)
            self._notices.close()
            self._notices = None
