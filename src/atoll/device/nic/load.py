# SPDX-License-Identifier: Apache-2.0
"""Whether so many handshakes come that each must show a cookie first."""

from typing import Final, final

from atoll.base.units import SECOND_NS
from atoll.device.nic.frame import FRAME_HEADER_BYTES, FRAME_KIND
from atoll.device.nic.limits import HANDSHAKES_PER_S_MAX

__all__ = ["HandshakeLoad"]

_INITIATION: Final = b"\x01\x00\x00\x00"


@final
class HandshakeLoad:
    """Counts handshake initiations, relayed ones too, in periods of a second.

    The load of a period lasts until the end of the next one, as WireGuard's does, so that a flood in waves finds no
    gaps.
    """

    __slots__ = ("_count", "_start_ns", "_under_until_ns")

    def __init__(self) -> None:
        self._count, self._start_ns, self._under_until_ns = 0, 0, 0

    def note(self, datagram: bytes, now_ns: int) -> bool:
        """Count the datagram if it is an initiation; return whether we are under load now."""
        at = FRAME_HEADER_BYTES if datagram.startswith(FRAME_KIND) else 0
        if datagram.startswith(_INITIATION, at):
            if now_ns - self._start_ns >= SECOND_NS:
                self._count, self._start_ns = 0, now_ns
            self._count += 1
            if self._count > HANDSHAKES_PER_S_MAX:
                self._under_until_ns = now_ns + SECOND_NS
        return now_ns < self._under_until_ns
