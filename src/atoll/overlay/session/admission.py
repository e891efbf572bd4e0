# SPDX-License-Identifier: Apache-2.0
"""Whether one more handshake message is let in: rates in total and for each source, in bounded memory.

A rate is kept as one integer, the time at which its allowance will be full again (the generic cell rate algorithm):
no timers, no floats, and a source that stayed silent until then needs no memory at all.
"""

from collections import OrderedDict
from typing import Final, final

from atoll.base.units import SECOND_NS
from atoll.overlay.session.limits import (
    HANDSHAKES_PER_S_MAX,
    HANDSHAKES_PER_SOURCE_BURST,
    HANDSHAKES_PER_SOURCE_PER_S,
    SOURCE_BYTES_MAX,
    SOURCES_MAX,
)

__all__ = ["Allowance", "HandshakeLoad", "SourceAllowances", "network_of"]

_PORT_BYTES: Final = 2
_IPV6_BYTES: Final = 16
_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"
_IPV6_NETWORK_BYTES: Final = 8


def network_of(source: bytes) -> bytes:
    """Return what of a packed address and port counts as one sender.

    The port does not count, and of an IPv6 address only the /64: a sender can choose the rest at will.
    """
    address = source[:-_PORT_BYTES][:SOURCE_BYTES_MAX]
    if len(address) != _IPV6_BYTES or address.startswith(_IPV4_MAPPED):
        return address
    return address[:_IPV6_NETWORK_BYTES]


@final
class Allowance:
    """One rate with a burst.

    Args:
        per_s: Events a second.
        burst: Events at once after silence.
    """

    __slots__ = ("_burst_ns", "_full_ns", "_interval_ns")

    def __init__(self, *, per_s: int, burst: int) -> None:
        self._interval_ns: Final = SECOND_NS // per_s
        self._burst_ns: Final = self._interval_ns * (burst - 1)
        self._full_ns = 0

    def take(self, now_ns: int) -> bool:
        """Return whether one more event is within the rate; if so it counts."""
        start_ns = max(self._full_ns, now_ns)
        if start_ns - now_ns > self._burst_ns:
            return False
        self._full_ns = start_ns + self._interval_ns
        return True

    def is_full(self, now_ns: int) -> bool:
        """Return whether the whole burst is available, so that a fresh Allowance would behave the same."""
        return now_ns >= self._full_ns


@final
class HandshakeLoad:
    """Whether so many initiations come, from those who know our public key, that each must show a cookie first.

    They are counted in periods of a second. The load of a period lasts until the end of the next one, as WireGuard's
    does, so that a flood in waves finds no gaps.
    """

    __slots__ = ("_count", "_start_ns", "_under_until_ns")

    def __init__(self) -> None:
        self._count, self._start_ns, self._under_until_ns = 0, 0, 0

    def note(self, now_ns: int) -> None:
        """Count one initiation. Call it only for one whose first MAC is right; that costs a stranger a hash."""
        if now_ns - self._start_ns >= SECOND_NS:
            self._count, self._start_ns = 0, now_ns
        self._count += 1
        if self._count > HANDSHAKES_PER_S_MAX:
            self._under_until_ns = now_ns + SECOND_NS

    def is_high(self, now_ns: int) -> bool:
        """Return whether we are under load now."""
        return now_ns < self._under_until_ns


@final
class SourceAllowances:
    """One Allowance for each sender that has shown a valid cookie; at most SOURCES_MAX of them."""

    __slots__ = ("_sources",)

    def __init__(self) -> None:
        self._sources: OrderedDict[bytes, Allowance] = OrderedDict()  # The longest silent first.

    def __len__(self) -> int:
        return len(self._sources)

    def take(self, source: bytes, now_ns: int) -> bool:
        """Return whether this source may have one more handshake message processed."""
        source = network_of(source)
        allowance = self._sources.get(source)
        if allowance is None:
            if len(self._sources) >= SOURCES_MAX:
                oldest = next(iter(self._sources))
                if not self._sources[oldest].is_full(now_ns):
                    return False
                del self._sources[oldest]
            allowance = Allowance(per_s=HANDSHAKES_PER_SOURCE_PER_S, burst=HANDSHAKES_PER_SOURCE_BURST)
            self._sources[source] = allowance
        self._sources.move_to_end(source)
        return allowance.take(now_ns)
