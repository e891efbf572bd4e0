# SPDX-License-Identifier: Apache-2.0
"""A group to which nothing happens: its links follow measured round trips, and every change of route is judged by them.

With no fault injected, a change of route is a *switch*, whatever its cause was. A switch is *false* when the network
itself does not bear it out: over ``HORIZON_NS``, the time for which it binds the pair, the mean round trip of the way
taken is no better than that of the way left. Back to the direct way an equal one will do, for it burdens no relay. A
switch is *regretted* when the same is so over the whole time for which the pair then stayed. That weighs, besides, what
nobody could know: how the series went on.
The judge knows what the links do, and the future; it never looks at what the machines measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.lab.program import Blueprint, SimulatedNode
from atoll.overlay.choice import HOLD_NS
from atoll.overlay.policy import TAG_LATENCY
from atoll.sim import CLEAR, LinkSpec, Topology, World, mesh_of_slices

__all__ = ["HORIZON_NS", "Series", "Switched", "filled", "switches"]

HORIZON_NS: Final = HOLD_NS  # A pair that moved has to live with it for so long.

Matrix = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Switched:
    """One change of route of the tag ``latency``, as the group made it, and what the series says of it.

    Attributes:
        at_ns: World time.
        source: Index of the node that changed its route.
        target: Index of the node at the far end.
        before: Index of the relay that was left; None: the direct way.
        via: Index of the relay that was taken; None: the direct way.
        cause: As in ``RouteNotice``.
        gain_us: Mean round trip of the way left less that of the way taken, over ``HORIZON_NS``.
        held_gain_us: The same over the time for which it was held, and ``HORIZON_NS`` at least.
    """

    at_ns: int
    source: int
    target: int
    before: int | None
    via: int | None
    cause: str
    gain_us: int
    held_gain_us: int

    @property
    def false(self) -> bool:
        """Whether the way taken was no better than the way left; back to the direct way, which is nobody's: worse."""
        return self._is_no_gain(self.gain_us)

    @property
    def regretted(self) -> bool:
        """The same over the whole time for which it was held."""
        return self._is_no_gain(self.held_gain_us)

    def _is_no_gain(self, gain_us: int) -> bool:
        return gain_us < 0 if self.via is None else gain_us <= 0


def filled(rtt_us: Sequence[Matrix]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Return the matrices with each gap (0 or less) closed by the last value before it, or else the first after it.

    Raises:
        UsageError: No slice, or a path that was never measured.
    """
    if not rtt_us:
        raise UsageError("a series of no slices")
    nodes = range(len(rtt_us[0]))
    known = [[next((m[i][j] for m in rtt_us if m[i][j] > 0), 0) for j in nodes] for i in nodes]
    for i in nodes:
        for j in nodes:
            if i != j and not known[i][j]:
                raise UsageError(f"the path from {i} to {j} was never measured")
    slices: list[tuple[tuple[int, ...], ...]] = []
    for matrix in rtt_us:
        known = [[matrix[i][j] if matrix[i][j] > 0 else known[i][j] for j in nodes] for i in nodes]
        slices.append(tuple(tuple(row) for row in known))
    return tuple(slices)


@final
class Series:
    """Round trips of all pairs, slice by slice.

    Args:
        rtt_us: ``rtt_us[slice][i][j]``, microseconds, above 0 off the diagonal; see ``filled``.
        slice_ns: How long each slice holds; the last one holds for ever.
        start_ns: World time of the first slice, also negative: some of it is past. It holds before, too.
        rest: What every link has besides its delay.
    """

    def __init__(self, rtt_us: Sequence[Matrix], slice_ns: int, *, start_ns: int = 0, rest: LinkSpec = CLEAR) -> None:
        if start_ns <= -slice_ns:
            raise UsageError("a series whose first slice is over when the world begins")
        self._rtt_us, self._slice_ns, self._start_ns, self._rest = rtt_us, slice_ns, start_ns, rest
        self._jitter_us = rest.jitter_ns // 1000

    def topology(self) -> Topology:
        """Return the network: from i to j it takes half of what was measured from i to j."""
        return mesh_of_slices(self._rtt_us, slice_ns=self._slice_ns, rest=self._rest, start_ns=self._start_ns)

    def mean_us(self, way: Sequence[int], span_ns: tuple[int, int]) -> int:
        """Return the mean round trip of packets along a way over a span of time, mean jitter included.

        Args:
            way: Nodes from end to end.
            span_ns: From and until, world time; not empty.
        """
        from_ns, until_ns = span_ns
        assert from_ns < until_ns, "a mean needs a span"
        total, at_ns = 0, from_ns
        while at_ns < until_ns:
            index = min(max(0, (at_ns - self._start_ns) // self._slice_ns), len(self._rtt_us) - 1)
            last = index == len(self._rtt_us) - 1
            next_ns = until_ns if last else min(until_ns, self._start_ns + (index + 1) * self._slice_ns)
            matrix = self._rtt_us[index]
            total += sum(matrix[i][j] + matrix[j][i] for i, j in pairwise(way)) * (next_ns - at_ns)
            at_ns = next_ns
        return total // (2 * (until_ns - from_ns)) + 2 * self._jitter_us * (len(way) - 1)


def switches(
    world: World[SimulatedNode], plans: Sequence[Blueprint], series: Series, settled_ns: int
) -> tuple[Switched, ...]:
    """Return every switch of a run that is over, in order of nodes and time.

    Args:
        world: Ran with ``series.topology()``; no node crashed, no clock drifted.
        plans: The blueprints of its nodes, by index.
        series: What its links followed.
        settled_ns: World time before which nothing counts: the group got to know its paths.
    """
    index_of: dict[bytes, int] = {plan.member.node: index for index, plan in enumerate(plans)}
    found: list[Switched] = []
    for source, node in enumerate(world.programs()):
        shift_ns = world.clock(source).shift_ns
        assert shift_ns is not None, "no clock drifts here"
        moves: dict[int, list[tuple[int, int | None, int | None, str]]] = {}
        for at_ns, notice in node.notices:
            if notice.tag == TAG_LATENCY:
                before, via = (index_of[relay] if relay else None for relay in (notice.before, notice.via))
                moves.setdefault(index_of[notice.node], []).append((at_ns - shift_ns, before, via, notice.cause))
        for target, made in moves.items():
            ends = [*(one[0] for one in made[1:]), world.now_ns]
            for (at_ns, before, via, cause), end_ns in zip(made, ends, strict=True):
                if at_ns < settled_ns:
                    continue
                bound_ns = at_ns + HORIZON_NS
                left, taken = (
                    (source, target) if relay is None else (source, relay, target) for relay in (before, via)
                )
                gain_us, held_gain_us = (
                    series.mean_us(left, (at_ns, until_ns)) - series.mean_us(taken, (at_ns, until_ns))
                    for until_ns in (bound_ns, max(end_ns, bound_ns))
                )
                found.append(Switched(at_ns, source, target, before, via, cause, gain_us, held_gain_us))
    return tuple(found)
