# SPDX-License-Identifier: Apache-2.0
"""How large packets may be on each way in use: found by asking, and asked again while they are used.

Every way is taken to carry BASE_BYTES; whatever is longer must have arrived once, whole (the packet device forbids
networks to cut it). Nothing is believed of what routers say, because many say nothing: a way that swallows large
packets in silence is found like any other. Rounds are few: when traffic begins on a way, every CONFIRM_NS while it
flows, every RAISE_NS in case the way got wider, and when somebody asks why it is slow. A size that no longer passes is
given up within a second or so of the next round. A way that does not even carry BASE_BYTES breaks what is promised to
the programs; it is told, and whoever chooses ways sees what it loses.

Source: RFC 8899 (DPLPMTUD): base, search, confirmation of the size in use, raise timer.
"""

from typing import Final

import msgspec

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.overlay.orders import ProbeSize, SetSize

__all__ = ["BASE_BYTES", "LARGEST_BYTES", "SIZES", "Sizes", "SizesEffect"]

BASE_BYTES: Final = 1280  # The least that every IPv6 link carries, as an inner packet.
SIZES: Final = (
    1408,
    1376,
    1344,
    1312,
)  # Tried at once. With IPv6 and a relay around them: 1508 and below.
LARGEST_BYTES: Final = SIZES[0]
TRIES: Final = 3  # Of each size in a round: loss must not look like a narrow way.
TRY_NS: Final = 400 * MILLISECOND_NS  # For a round trip between any two places.
CONFIRM_NS: Final = 10 * SECOND_NS  # While traffic flows.
RAISE_NS: Final = 600 * SECOND_NS  # RFC 8899, section 5.1.1.
WAYS_MAX: Final = 256  # Limit. A few ways to each member. Where all are in use, a new one is not asked: the base holds.
TOKENS: Final = 1 << 16
NEVER_NS: Final = (1 << 63) - 1

SizesEffect = ProbeSize | SetSize


class Way(msgspec.Struct):
    """What is known of one way.

    Attributes:
        node: The far end.
        via: The way.
        held: The size that is in force.
        due_ns: When the next try or round is due.
        tries: Left in this round; 0: none is under way.
        asked: Sizes of this round by token.
        passed: The largest that passed in this round; 0: none yet.
        full: Whether this round asks for all sizes, or only for the one in force.
        raise_ns: When all sizes are to be asked for again.
        is_used: Whether traffic flows; if not, there is one round for whoever asked.
        swallows: Whether the last whole round found that not even BASE_BYTES pass; None: there was none.
    """

    node: bytes
    via: bytes
    held: int = BASE_BYTES
    due_ns: int = 0
    tries: int = 0
    asked: dict[int, int] = {}
    passed: int = 0
    full: bool = True
    raise_ns: int = 0
    is_used: bool = True
    swallows: bool | None = None


class Sizes(msgspec.Struct):
    """All ways that carry traffic now. A part of the mesh: it decides, and returns what is to be done."""

    ways: dict[bytes, Way] = {}
    token: int = 0

    @property
    def deadline_ns(self) -> int:
        """When ``tick`` is due; NEVER_NS: never."""
        due_ns = NEVER_NS
        for way in self.ways.values():
            due_ns = min(due_ns, way.due_ns)
        return due_ns

    def use(self, node: bytes, vias: tuple[bytes, ...], now_ns: int) -> list[SizesEffect]:
        """Note which ways to a member carry traffic now; empty: none."""
        for way in self.ways.values():
            if way.node == node and way.via not in vias and way.due_ns != NEVER_NS:
                way.due_ns, way.tries, way.is_used = NEVER_NS, 0, False
        effects: list[SizesEffect] = []
        for via in vias:
            key = node + via
            if key in self.ways:
                way = self.ways[key]
                way.is_used = True
                if way.due_ns == NEVER_NS:
                    way.due_ns = now_ns
            else:
                effects += self._add(Way(node, via, due_ns=now_ns))
        return effects

    def ask(self, node: bytes, via: bytes, now_ns: int) -> list[SizesEffect]:
        """Begin a whole round on a way now, whether traffic flows or not; one under way goes on."""
        way = self.ways.get(node + via)
        if way is None:
            return self._add(Way(node, via, due_ns=now_ns, is_used=False))
        if not way.tries:
            way.due_ns, way.raise_ns = now_ns, now_ns
        return []

    def known(self, node: bytes, via: bytes) -> tuple[int, bool | None, bool]:
        """Return what a way carries: the size in force, whether it swallows all large packets, whether we still ask."""
        way = self.ways.get(node + via)
        return (BASE_BYTES, None, False) if way is None else (way.held, way.swallows, way.tries > 0)

    def forget(self, node: bytes) -> None:
        """A member is gone, or began anew: nothing is known of the ways to it."""
        self.ways = {key: way for key, way in self.ways.items() if way.node != node}

    def began_anew(self, node: bytes, via: bytes, now_ns: int) -> list[SizesEffect]:
        """A way leads through other networks from now on: what it carries is to be found again."""
        way = self.ways.get(node + via)
        if way is None:
            return []
        due_ns = NEVER_NS if way.due_ns == NEVER_NS else now_ns  # A question is under way, if nobody uses it.
        self.ways[node + via] = Way(node, via, due_ns=due_ns, is_used=way.is_used)
        return _given_up(way)

    def restate(self) -> list[SizesEffect]:
        """Return what the packet device must be told that has lost its tables."""
        return [SetSize(way.node, way.via, way.held) for way in self.ways.values() if way.held != BASE_BYTES]

    def passed(self, node: bytes, token: int) -> list[SizesEffect]:
        """Take the answer to a probe: that size arrived."""
        for way in self.ways.values():
            size = way.asked.get(token) if way.node == node else None
            if size is None:
                continue
            way.passed, way.swallows = max(way.passed, size), False
            if size > way.held:
                way.held = size
                return [SetSize(node, way.via, size)]
        return []

    def tick(self, now_ns: int) -> list[SizesEffect]:
        """Do what is due."""
        effects: list[SizesEffect] = []
        for way in self.ways.values():
            if now_ns >= way.due_ns:
                effects += self._step(way, now_ns)
        return effects

    def _add(self, way: Way) -> list[SizesEffect]:
        """Add a way; at the limit in place of an unused one, that whose last whole round was the longest ago.

        One whose round is under way goes only if there is no other: somebody waits for what it finds. Questions that
        come faster than their rounds end drive each other out, but never a way with traffic.
        """
        effects: list[SizesEffect] = []
        if len(self.ways) >= WAYS_MAX:
            unused = [one for one in self.ways.values() if not one.is_used]
            if not unused:
                return []
            oldest = min(unused, key=lambda one: (one.due_ns != NEVER_NS, one.raise_ns))
            del self.ways[oldest.node + oldest.via]
            effects = _given_up(oldest)
        self.ways[way.node + way.via] = way
        return effects

    def _step(self, way: Way, now_ns: int) -> list[SizesEffect]:
        if not way.tries:
            way.full = way.held == BASE_BYTES or now_ns >= way.raise_ns
            way.tries, way.passed, way.asked = TRIES, 0, {}
            if way.full:
                way.raise_ns = now_ns + RAISE_NS
        elif self._is_answered(way):
            way.tries = 0
            way.due_ns = now_ns + CONFIRM_NS if way.is_used else NEVER_NS
            return []
        elif way.tries == 1:
            return self._end(way, now_ns)
        else:
            way.tries -= 1
        way.due_ns = now_ns + TRY_NS
        sizes = (*SIZES, BASE_BYTES) if way.full else (way.held,)
        return [self._probe(way, size) for size in sizes if size > way.passed]

    def _is_answered(self, way: Way) -> bool:
        return way.passed == LARGEST_BYTES or (not way.full and way.passed == way.held)

    def _end(self, way: Way, now_ns: int) -> list[SizesEffect]:
        """End a round in which not everything passed."""
        way.tries = 0
        best = max(way.passed, BASE_BYTES)
        way.due_ns = now_ns + (RAISE_NS if best == BASE_BYTES and way.full else CONFIRM_NS)
        if not way.full:  # What was in force does not pass: see at once what does.
            way.due_ns, way.raise_ns = now_ns, now_ns
        else:
            way.swallows = not way.passed
            if not way.is_used:
                way.due_ns = NEVER_NS
        if best == way.held:
            return []
        way.held = best
        return [SetSize(way.node, way.via, best)]

    def _probe(self, way: Way, size: int) -> SizesEffect:
        self.token = (self.token + 1) % TOKENS
        way.asked[self.token] = size
        return ProbeSize(way.node, way.via, size, self.token)


def _given_up(way: Way) -> list[SizesEffect]:
    """Return what the packet device must be told of a way of which nothing is known any more."""
    return [] if way.held == BASE_BYTES else [SetSize(way.node, way.via, BASE_BYTES)]
