# SPDX-License-Identifier: Apache-2.0
"""The TAI64N timestamp of each handshake: never twice the same, never back, whatever the wall clock does."""

from struct import Struct
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.overlay.session.limits import TIMESTAMP_GRAIN_NS

__all__ = ["Timestamps"]

_TAI64N: Final = Struct(">QI")
_TAI_OF_1970: Final = (1 << 62) + 10  # TAI was 10 s ahead when it was tied to UTC; leap seconds do not matter here.
_FLOOR_NS_MAX: Final = (1 << 63) - 1  # The year 2262, where clocks of 64-bit nanoseconds end.


@final
class Timestamps:
    """Strictly rising timestamps out of a wall clock that may step.

    A peer answers only a timestamp above all that it has seen from us. So a caller that wants its node reachable at
    once after a restart with a wrong clock stores ``last_ns`` and gives it back as the floor.

    Args:
        floor_ns: The last timestamp used in an earlier life, ns since 1970, 0 to 2^63 - 1; 0: none.

    Raises:
        UsageError: The floor is out of range.
    Source: WireGuard paper, section 5.1; https://cr.yp.to/libtai/tai64.html.
    """

    __slots__ = ("last_ns",)

    def __init__(self, floor_ns: int) -> None:
        if not 0 <= floor_ns <= _FLOOR_NS_MAX:
            raise UsageError(f"a timestamp floor of {floor_ns} ns")
        self.last_ns = floor_ns

    def following(self, wall_ns: int) -> bytes:
        """Return the next timestamp, 12 bytes, above all before it in byte order."""
        self.last_ns = max(wall_ns - wall_ns % TIMESTAMP_GRAIN_NS, self.last_ns + 1)
        seconds, nanoseconds = divmod(self.last_ns, SECOND_NS)
        return _TAI64N.pack(_TAI_OF_1970 + seconds, nanoseconds)
