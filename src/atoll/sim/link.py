# SPDX-License-Identifier: Apache-2.0
"""One direction of one path: when, whether and how often a datagram arrives. Pure; the live emulator runs it too.

A link has a base behaviour (``LinkSpec``) and any number of named impairments, each a ``LinkSpec`` as well, as if the
datagram crossed them one after the other: delays add, losses combine, the narrowest rate counts. Faults come and go by
``impair`` and ``mend`` without knowing of each other.

Delivery times never lie below the sum of the delays, and never before an earlier datagram's unless the link reorders:
most real jitter is queueing, and queues keep order.
"""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from random import Random
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.sim.limits import SOJOURN_MIN_NS
from atoll.sim.quantiles import BELL, EXPONENTIAL, HEAVY, UNIFORM, spread

__all__ = ["CLEAR", "QUEUE_BYTES", "WHOLE", "Burst", "Jitter", "Link", "LinkSpec"]

WHOLE: Final = 10_000  # All of it: shares are in 1/10000.
QUEUE_BYTES: Final = 64 * 1024  # Default queue before a rate limit: about 0.5 s at 1 Mbit/s, as in cheap routers.
_ANY_BYTES: Final = 1 << 31
_NEVER_NS: Final = 1 << 63
_HELD_BACK_NS: Final = 5 * MILLISECOND_NS  # A reordered or duplicated datagram comes up to this much later.
_DRAW_BITS: Final = 32


class Jitter(StrEnum):
    """Distribution of the delay that comes on top; each has the mean ``jitter_ns``."""

    NONE = "none"
    UNIFORM = "uniform"  # 0 to twice the mean.
    BELL = "bell"  # Normal, cut at 0 and twice the mean.
    HEAVY = "heavy"  # Log-normal: mostly small, at times twenty times the mean.


_TABLES: Final[dict[Jitter, tuple[int, ...]]] = {
    Jitter.UNIFORM: UNIFORM,
    Jitter.BELL: BELL,
    Jitter.HEAVY: HEAVY,
}


@dataclass(frozen=True, slots=True)
class Burst:
    """Bursty loss after Gilbert and Elliott: two states that last exponentially long, each with its own loss.

    In continuous time, so that a sparse prober and a dense flow see the same bursts. The states follow from ``seed``
    alone: links with one seed go bad together, as links that share a last hop do.

    Attributes:
        good_ns: Mean stay in the good state; at least 10 ms.
        bad_ns: Mean stay in the bad state; at least 10 ms.
        loss_good: Loss in the good state, 1/10000.
        loss_bad: Loss in the bad state, 1/10000.
        seed: Decides when the states change; any integer.
        since_ns: The good state begins here.
    """

    good_ns: int
    bad_ns: int
    loss_good: int = 0
    loss_bad: int = WHOLE
    seed: int = 0
    since_ns: int = 0

    def __post_init__(self) -> None:
        if min(self.good_ns, self.bad_ns) < SOJOURN_MIN_NS:
            raise UsageError(f"a state of bursty loss shorter than {SOJOURN_MIN_NS} ns")
        if not (0 <= self.loss_good <= WHOLE and 0 <= self.loss_bad <= WHOLE):
            raise UsageError("a loss outside 0 to 10000")


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Behaviour of one direction.

    Attributes:
        delay_ns: One-way delay that no datagram undercuts.
        series: (since_ns, delay_ns) by rising time; from the first entry on it replaces ``delay_ns``.
        jitter_ns: Mean of the random delay on top.
        jitter: Its distribution.
        loss: Share lost by chance, each datagram alone, 1/10000.
        burst: Loss in bursts, on top.
        rate_bytes_s: Bytes per second; 0: unlimited.
        queue_bytes: What may wait for the rate; what does not fit is lost (drop-tail).
        blackhole: Everything is lost.
        duplicate: Share delivered twice, 1/10000.
        reorder: Share held back so that later datagrams overtake it, 1/10000.
        corrupt: Share with one to three bits flipped, 1/10000; see ``Link.corrupted``.
        bytes_max: What is longer on the wire is lost in silence, as before a tunnel that nobody knows of; 0: any.
    """

    delay_ns: int = 0
    series: tuple[tuple[int, int], ...] = ()
    jitter_ns: int = 0
    jitter: Jitter = Jitter.NONE
    loss: int = 0
    burst: Burst | None = None
    rate_bytes_s: int = 0
    queue_bytes: int = QUEUE_BYTES
    blackhole: bool = False
    duplicate: int = 0
    reorder: int = 0
    corrupt: int = 0
    bytes_max: int = 0

    def __post_init__(self) -> None:
        shares = (self.loss, self.duplicate, self.reorder, self.corrupt)
        if not all(0 <= share <= WHOLE for share in shares):
            raise UsageError("a share outside 0 to 10000")
        if min(self.delay_ns, self.jitter_ns, self.rate_bytes_s, self.queue_bytes, self.bytes_max) < 0:
            raise UsageError("a negative delay, rate, queue or size")
        if (self.jitter is Jitter.NONE) != (self.jitter_ns == 0):
            raise UsageError("jitter needs both a mean and a distribution")
        times = [since_ns for since_ns, _ in self.series]
        if times != sorted(times) or any(delay_ns < 0 for _, delay_ns in self.series):
            raise UsageError("a delay series must rise in time and hold no negative delay")


CLEAR: Final = LinkSpec()  # Impairs nothing.


@final
class _Bursts:
    """Where one ``Burst`` stands; asked at times that never go back."""

    __slots__ = ("_bad", "_rng", "_until_ns", "spec")

    def __init__(self, spec: Burst) -> None:
        seed = blake2b(str(spec.seed).encode(), digest_size=16, person=b"atollburst").digest()
        self.spec: Final = spec
        self._rng = Random(int.from_bytes(seed, "little"))
        self._bad, self._until_ns = False, spec.since_ns + spread(EXPONENTIAL, spec.good_ns, self._rng)

    def loss_at(self, now_ns: int) -> int:
        """Return the loss in the state of this moment, 1/10000."""
        spec = self.spec
        while self._until_ns <= now_ns:  # Mean stays are bounded below, so this is at most some 100 steps a second.
            self._bad = not self._bad
            self._until_ns += 1 + spread(EXPONENTIAL, spec.bad_ns if self._bad else spec.good_ns, self._rng)
        return spec.loss_bad if self._bad else spec.loss_good


@final
class Link:
    """One direction of one path.

    Args:
        base: Behaviour without faults.
        rng: Drawn from by this link only, so that traffic elsewhere does not change its luck.
    """

    __slots__ = (
        "_base",
        "_bursts",
        "_busy_until_ns",
        "_bytes_max",
        "_corrupt",
        "_delay_ns",
        "_duplicate",
        "_impairments",
        "_jitters",
        "_last_ns",
        "_loss",
        "_plain",
        "_queue_bytes",
        "_rate_bytes_s",
        "_reorder",
        "_rng",
        "_series_due_ns",
        "_series_index",
        "blackholed",
        "corrupts",
    )

    def __init__(self, base: LinkSpec, rng: Random) -> None:
        self._base, self._rng = base, rng
        self._impairments: dict[str, LinkSpec] = {}
        self._bursts: dict[str, _Bursts] = {}
        self._last_ns = self._busy_until_ns = 0
        self._series_index = -1
        self._series_due_ns = base.series[0][0] if base.series else _NEVER_NS  # When the delay changes next.
        self.blackholed = False  # Nothing passes at present. Read only.
        self.corrupts = False  # The caller must pass each arrival through ``corrupted``. Read only.
        self._fold()

    @property
    def base(self) -> LinkSpec:
        """Behaviour without faults."""
        return self._base

    @property
    def impairments(self) -> dict[str, LinkSpec]:
        """What is wrong at present, by key, in the order of onset; a copy."""
        return dict(self._impairments)

    @property
    def delay_ns(self) -> int:
        """One-way delay that no datagram offered now undercuts (impairments included)."""
        return self._delay_ns

    @property
    def loss(self) -> int:
        """Chance loss at present, bursts not counted, 1/10000."""
        return self._loss * WHOLE >> _DRAW_BITS

    def impair(self, key: str, impairment: LinkSpec) -> None:
        """Lay one impairment on the link, under a key; the same key replaces."""
        self._impairments[key] = impairment
        self._fold()

    def mend(self, key: str) -> None:
        """Take one impairment away; nothing happens when there is none of that key."""
        if self._impairments.pop(key, None) is not None:
            self._fold()

    def mend_all(self) -> None:
        """Take all impairments away."""
        self._impairments.clear()
        self._fold()

    def offer(self, size_bytes: int, now_ns: int) -> tuple[int, ...]:
        """Send one datagram; return its delivery times, in order of copies.

        Args:
            size_bytes: On the wire, headers included.
            now_ns: Never before an earlier offer.

        Returns:
            Empty: lost. Two: duplicated. Each at least ``now_ns`` plus the link's delay.
        """
        if now_ns >= self._series_due_ns:
            self._follow_series(now_ns)
        if not self._plain:
            return self._offer_impaired(size_bytes, now_ns)
        at_ns = now_ns + self._delay_ns
        for table, mean_ns in self._jitters:
            at_ns += spread(table, mean_ns, self._rng)
        if at_ns < self._last_ns:
            return (self._last_ns,)
        self._last_ns = at_ns
        return (at_ns,)

    def corrupted(self, datagram: bytes) -> bytes:
        """Return what arrives of a datagram: itself, or by chance a copy with one to three bits flipped."""
        if not datagram or self._rng.getrandbits(_DRAW_BITS) >= self._corrupt:
            return datagram
        copy = bytearray(datagram)
        for _ in range(1 + self._below(3)):
            bit = self._below(8 * len(copy))
            copy[bit >> 3] ^= 1 << (bit & 7)
        return bytes(copy)

    def _offer_impaired(self, size_bytes: int, now_ns: int) -> tuple[int, ...]:
        if self.blackholed or size_bytes > self._bytes_max or self._lost(now_ns):
            return ()
        at_ns = now_ns
        if self._rate_bytes_s:
            wait_ns = max(0, self._busy_until_ns - now_ns)
            waiting_bytes = -(-wait_ns * self._rate_bytes_s // SECOND_NS)  # Rounded up: a started byte still waits.
            if waiting_bytes + size_bytes > self._queue_bytes:
                return ()
            at_ns += wait_ns + size_bytes * SECOND_NS // self._rate_bytes_s
            self._busy_until_ns = at_ns
        at_ns += self._delay_ns
        for table, mean_ns in self._jitters:
            at_ns += spread(table, mean_ns, self._rng)
        at_ns = max(at_ns, self._last_ns)
        if self._reorder and self._rng.getrandbits(_DRAW_BITS) < self._reorder:
            at_ns += 1 + self._below(_HELD_BACK_NS)  # And the order mark stays: later datagrams overtake this one.
        else:
            self._last_ns = at_ns
        if self._duplicate and self._rng.getrandbits(_DRAW_BITS) < self._duplicate:
            return (at_ns, at_ns + self._below(_HELD_BACK_NS))
        return (at_ns,)

    def _lost(self, now_ns: int) -> bool:
        if self._loss and self._rng.getrandbits(_DRAW_BITS) < self._loss:
            return True
        for bursts in self._bursts.values():
            loss = bursts.loss_at(now_ns)
            if loss and self._below(WHOLE) < loss:
                return True
        return False

    def _follow_series(self, now_ns: int) -> None:
        series, index = self._base.series, self._series_index
        while index + 1 < len(series) and series[index + 1][0] <= now_ns:  # Amortised: the index only rises.
            index += 1
        self._series_index = index
        self._series_due_ns = series[index + 1][0] if index + 1 < len(series) else _NEVER_NS
        self._delay_ns = self._summed_delay_ns()

    def _summed_delay_ns(self) -> int:
        index = self._series_index
        base_ns = self._base.delay_ns if index < 0 else self._base.series[index][1]
        return base_ns + sum(impairment.delay_ns for impairment in self._impairments.values())

    def _fold(self) -> None:
        """Recompute what ``offer`` reads; the number of impairments does not slow the datagrams down."""
        layers = {"base": self._base} | {f"+{key}": layer for key, layer in self._impairments.items()}
        passing = WHOLE**2
        for layer in layers.values():
            passing = passing * (WHOLE - layer.loss) // WHOLE
        self._loss = ((WHOLE**2 - passing) << _DRAW_BITS) // WHOLE**2
        self._delay_ns = self._summed_delay_ns()
        self._jitters = tuple((_TABLES[layer.jitter], layer.jitter_ns) for layer in layers.values() if layer.jitter_ns)
        rated = [layer for layer in layers.values() if layer.rate_bytes_s]
        narrowest = min(rated, key=lambda layer: layer.rate_bytes_s, default=self._base)
        self._rate_bytes_s, self._queue_bytes = narrowest.rate_bytes_s, narrowest.queue_bytes
        self._duplicate, self._reorder, self._corrupt = (
            (max(shares) << _DRAW_BITS) // WHOLE
            for shares in zip(*((x.duplicate, x.reorder, x.corrupt) for x in layers.values()), strict=True)
        )
        self.corrupts = self._corrupt > 0
        self._bytes_max = min((layer.bytes_max for layer in layers.values() if layer.bytes_max), default=_ANY_BYTES)
        self.blackholed = any(layer.blackhole for layer in layers.values())
        before, self._bursts = self._bursts, {}
        for key, layer in layers.items():
            if layer.burst is not None:
                known = before.get(key)
                self._bursts[key] = known if known and known.spec == layer.burst else _Bursts(layer.burst)
        self._plain = not (
            self.blackholed
            or self._loss
            or self._bursts
            or self._rate_bytes_s
            or self._reorder
            or self._duplicate
            or self._bytes_max < _ANY_BYTES
        )

    def _below(self, bound: int) -> int:
        return self._rng.getrandbits(_DRAW_BITS) * bound >> _DRAW_BITS
