# SPDX-License-Identifier: Apache-2.0
"""An adversary on the wire: it sees every datagram, and sends anything to anybody from any address.

It holds no keys. Its datagrams are garbage, look-alikes with a plausible type and length, damaged copies, replays, and
any of these under a member's address. It cannot suppress or hold back datagrams: losing them is what links do.
"""

from collections.abc import Callable
from random import Random
from typing import Final, Generic, final

from atoll.base.ids import Endpoint
from atoll.base.units import SECOND_NS
from atoll.sim.limits import HOSTILE_SEEN_MAX
from atoll.sim.program import ProgramT, endpoint_of
from atoll.sim.world import World

__all__ = ["Hostile"]

_GARBAGE_BYTES_MAX: Final = 2000  # A little more than any link carries in one piece.
_LENGTHS: Final = (0, 1, 3, 4, 16, 31, 32, 64, 92, 148, 149, 160, 1280, 1500)  # Around the sizes of real datagrams.
_TYPES_MAX: Final = 8  # The first little-endian u32 of a look-alike lies below this.
_STRANGERS: Final = 16


@final
class Hostile(Generic[ProgramT]):
    """One adversary. Silent until ``wake``.

    Args:
        world: Where it lives.
        rng: Everything that it does follows from this.
    """

    def __init__(self, world: World[ProgramT], rng: Random) -> None:
        self._world, self._rng = world, rng
        self._seen: list[tuple[Endpoint, Endpoint, bytes]] = []
        self._rates: dict[str, int] = {}
        self._scheduled = False
        self.sent = 0  # Datagrams so far. Read only.
        self._attacks: Final[tuple[Callable[[], None], ...]] = (
            self._garbage,
            self._lookalike,
            self._damaged,
            self._replayed,
            self._misdirected,
        )
        world.tap(self._see)

    @property
    def remembered_count(self) -> int:
        """How many datagrams it could replay, at most HOSTILE_SEEN_MAX."""
        return len(self._seen)

    def wake(self, key: str, datagrams_s: int) -> None:
        """Attack at this rate, 1 or more, until ``sleep`` with the same key; rates of several keys add."""
        self._rates[key] = datagrams_s
        self._schedule()

    def sleep(self, key: str) -> None:
        """End what ``wake`` with this key began."""
        self._rates.pop(key, None)

    def _schedule(self) -> None:
        rate = sum(self._rates.values())
        if rate and not self._scheduled:
            self._scheduled = True
            self._world.at(self._world.now_ns + 1 + self._below(2 * SECOND_NS // rate), self._attack)

    def _attack(self) -> None:
        self._scheduled = False
        if self._rates:
            self.sent += 1
            self._attacks[self._below(len(self._attacks))]()
            self._schedule()

    def _see(self, source: Endpoint, to: Endpoint, datagram: bytes) -> None:
        """Remember some datagrams, old and new: the first ones, and later ones in the place of a random one."""
        if not self._rates:
            return
        if len(self._seen) < HOSTILE_SEEN_MAX:
            self._seen.append((source, to, datagram))
        elif self._below(16) == 0:
            self._seen[self._below(HOSTILE_SEEN_MAX)] = (source, to, datagram)

    def _garbage(self) -> None:
        self._send(self._somebody(), self._member(), self._bytes(self._below(_GARBAGE_BYTES_MAX)))

    def _lookalike(self) -> None:
        size_bytes = _LENGTHS[self._below(len(_LENGTHS))]
        body = self._below(_TYPES_MAX).to_bytes(4, "little") + self._bytes(size_bytes)
        self._send(self._somebody(), self._member(), body[:size_bytes])

    def _damaged(self) -> None:
        source, to, datagram = self._remembered()
        match self._below(3):
            case 0:
                damaged = datagram[: self._below(len(datagram) + 1)]
            case 1:
                damaged = datagram + self._bytes(1 + self._below(64))
            case _:
                flipped = bytearray(datagram or b"\0")
                flipped[self._below(len(flipped))] ^= 1 << self._below(8)
                damaged = bytes(flipped)
        self._send(source, to, damaged)

    def _replayed(self) -> None:
        source, to, datagram = self._remembered()
        self._send(source if self._below(2) else self._somebody(), to, datagram)

    def _misdirected(self) -> None:
        source, _, datagram = self._remembered()
        self._send(source, self._member(), datagram)

    def _remembered(self) -> tuple[Endpoint, Endpoint, bytes]:
        if not self._seen:
            return self._somebody(), self._member(), self._bytes(148)
        return self._seen[self._below(len(self._seen))]

    def _member(self) -> Endpoint:
        return endpoint_of(self._below(self._world.count))

    def _somebody(self) -> Endpoint:
        return self._member() if self._below(2) else (f"203.0.113.{self._below(_STRANGERS)}", 4000)

    def _send(self, source: Endpoint, to: Endpoint, datagram: bytes) -> None:
        self._world.socket(source).send(to, datagram)

    def _bytes(self, size_bytes: int) -> bytes:
        return self._rng.getrandbits(8 * size_bytes).to_bytes(size_bytes, "little") if size_bytes else b""

    def _below(self, bound: int) -> int:
        return self._rng.getrandbits(32) * bound >> 32
