# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, and when: a schedule of faults that ends, written by hand or drawn from a seed.

Swarm testing: the seed first decides which kinds of faults there are at all. Runs in which some kinds never happen
reach states that a mixture of everything hides (a crash seldom meets a lossless network otherwise).

Every fault ends by the end of the schedule; then nothing is broken any more, and progress may be demanded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar, final

from atoll.base.errors import UsageError
from atoll.base.units import HOUR_NS, KIB, MILLISECOND_NS, MINUTE_NS, SECOND_NS
from atoll.core.entropy import Draws
from atoll.sim.disk import DISK_BYTES
from atoll.sim.failure import seconds
from atoll.sim.hostile import Hostile
from atoll.sim.limits import FAULTS_MAX
from atoll.sim.link import CLEAR, WHOLE, Burst, Jitter, LinkSpec
from atoll.sim.program import ProgramT
from atoll.sim.seeds import derive, generator
from atoll.sim.topology import Pair, Topology
from atoll.sim.world import World

__all__ = ["Fault", "FaultKind", "Schedule", "Swarm", "draw_schedule"]


class FaultKind(StrEnum):
    """What can go wrong."""

    BLACKHOLE = "blackhole"  # Of links.
    LOSS = "loss"
    BURSTS = "bursts"
    DELAY = "delay"
    JITTER = "jitter"
    RATE = "rate"
    DAMAGE = "damage"  # Duplicates, reordering, flipped bits.
    PARTITION = "partition"  # Blackhole of every link between two halves.
    CRASH = "crash"  # Of nodes: power cut, off until the end.
    RESTART = "restart"
    PAUSE = "pause"
    FULL_DISK = "full disk"
    WALL_STEP = "wall step"
    DRIFT = "drift"
    HOSTILE = "hostile"  # Of the world: an adversary on the wire.


_Choice = TypeVar("_Choice")

_OF_LINKS: Final = (
    FaultKind.BLACKHOLE,
    FaultKind.LOSS,
    FaultKind.BURSTS,
    FaultKind.DELAY,
    FaultKind.JITTER,
    FaultKind.RATE,
    FaultKind.DAMAGE,
)
_OF_LIFE: Final = (FaultKind.CRASH, FaultKind.RESTART, FaultKind.PAUSE)  # One at a time for each node.


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: What goes wrong.
        begin_ns: World time of its onset.
        end_ns: World time at which all is well again.
        links: Directions struck, for the kinds that strike links.
        nodes: Nodes struck, for the kinds that strike nodes; for a partition, one of the halves.
        impairment: What the links suffer.
        amount: CRASH: the power goes during this many changes of the disk from the onset, 0: at once. RESTART: 1 for
            the whole computer, 0 for the process. WALL_STEP: ns. DRIFT: millionths. HOSTILE: datagrams per second.
        where: For people.
    """

    kind: FaultKind
    begin_ns: int
    end_ns: int
    links: tuple[Pair, ...] = ()
    nodes: tuple[int, ...] = ()
    impairment: LinkSpec = CLEAR
    amount: int = 0
    where: str = ""

    def __str__(self) -> str:
        what = _words(self)
        span = f"{seconds(self.begin_ns):>14} to {seconds(self.end_ns):>14}"
        return f"{span}  {self.kind:9} {self.where or _places(self)}{': ' if what else ''}{what}"


@final
@dataclass(frozen=True, slots=True)
class Schedule:
    """Faults by onset, all over by ``end_ns``.

    Attributes:
        seed: What it was drawn from, and what the adversary draws from.
        kinds: Kinds that could occur.
        faults: By onset.
        end_ns: World time from which on nothing is broken.
    """

    seed: int
    kinds: tuple[FaultKind, ...]
    faults: tuple[Fault, ...]
    end_ns: int

    def __post_init__(self) -> None:
        if len(self.faults) > FAULTS_MAX:
            raise UsageError(f"{len(self.faults)} faults; a schedule has at most {FAULTS_MAX}")
        if any(not 0 <= fault.begin_ns <= fault.end_ns <= self.end_ns for fault in self.faults):
            raise UsageError("a fault that ends before it begins, or after the schedule")

    def __str__(self) -> str:
        kinds = ", ".join(self.kinds) or "none"
        head = f"seed {self.seed}: {len(self.faults)} faults, all over by {seconds(self.end_ns)}; kinds: {kinds}"
        return "\n".join([head, *(f"  {fault}" for fault in self.faults)])

    def install(self, world: World[ProgramT]) -> None:
        """Let all of it happen to a world."""
        hostile: Hostile[ProgramT] | None = None
        if any(fault.kind is FaultKind.HOSTILE for fault in self.faults):
            hostile = Hostile(world, generator(self.seed, "hostile"))
        for number, fault in enumerate(self.faults):
            _Cause(world, hostile, fault, f"fault {number} {fault.kind}").install()


@final
class _Cause(Generic[ProgramT]):
    """One fault at work in one world."""

    def __init__(self, world: World[ProgramT], hostile: Hostile[ProgramT] | None, fault: Fault, key: str) -> None:
        self._world, self._hostile, self._fault, self._key = world, hostile, fault, key

    def install(self) -> None:
        self._world.at(self._fault.begin_ns, self.begin)
        self._world.at(self._fault.end_ns, self.end)

    def begin(self) -> None:
        world, fault = self._world, self._fault
        for source, target in fault.links:
            world.impair(source, target, self._key, fault.impairment)
        for node in fault.nodes:
            match fault.kind:
                case FaultKind.CRASH if fault.amount:
                    world.disk(node).cut_power_after(fault.amount)
                case FaultKind.CRASH:
                    world.crash(node)
                case FaultKind.RESTART:
                    world.restart(node, reboot=fault.amount > 0)
                case FaultKind.PAUSE:
                    world.pause(node)
                case FaultKind.FULL_DISK:
                    world.disk(node).capacity_bytes = 0
                case FaultKind.WALL_STEP:
                    world.step_wall(node, fault.amount)
                case FaultKind.DRIFT:
                    world.set_drift(node, fault.amount)
                case _:
                    pass  # Strikes links, or the world.
        if self._hostile is not None and fault.kind is FaultKind.HOSTILE:
            self._hostile.wake(self._key, max(1, fault.amount))

    def end(self) -> None:
        world, fault = self._world, self._fault
        for source, target in fault.links:
            world.mend(source, target, self._key)
        for node in fault.nodes:
            match fault.kind:
                case FaultKind.CRASH:
                    world.disk(node).cut_power_after(None)
                    if world.program(node) is None:
                        world.restart(node, reboot=True)
                case FaultKind.PAUSE:
                    world.resume(node)
                case FaultKind.FULL_DISK:
                    world.disk(node).capacity_bytes = DISK_BYTES
                case FaultKind.WALL_STEP:
                    world.step_wall(node, -fault.amount)
                case FaultKind.DRIFT:
                    world.set_drift(node, 0)
                case _:
                    pass  # A restart is over at once; the others strike links, or the world.
        if self._hostile is not None and fault.kind is FaultKind.HOSTILE:
            self._hostile.sleep(self._key)


@dataclass(frozen=True, slots=True)
class Swarm:
    """What a drawn schedule may contain.

    Attributes:
        kinds: Kinds of which the seed switches each on or off.
        begin_ns: Nothing happens before.
        end_ns: Everything is over by then.
        faults_max: The seed draws 1 to this many.
        length_min_ns: A fault lasts at least this long (a restart lasts no time).
        length_max_ns: And at most this long.
        correlation: Share of link faults, 1/10000, that strike a shared fate (a last hop, a provider) as a whole
            instead of a single path. 0: none. 10000: all.
    """

    kinds: tuple[FaultKind, ...] = tuple(FaultKind)
    begin_ns: int = 5 * SECOND_NS
    end_ns: int = MINUTE_NS
    faults_max: int = 12
    length_min_ns: int = 200 * MILLISECOND_NS
    length_max_ns: int = 20 * SECOND_NS
    correlation: int = WHOLE // 3  # Studies of failing paths put a third or more near an endpoint.

    def __post_init__(self) -> None:
        room_ns = self.end_ns - self.begin_ns
        if not (0 < self.length_min_ns <= self.length_max_ns and self.length_min_ns <= room_ns):
            raise UsageError("lengths of faults must be positive, ordered, and fit between begin and end")
        if not (0 <= self.correlation <= WHOLE and 1 <= self.faults_max <= FAULTS_MAX and self.kinds):
            raise UsageError("correlation is 0 to 10000, faults_max 1 to 1000, and some kind must be possible")


def draw_schedule(swarm: Swarm, topology: Topology, seed: int) -> Schedule:
    """Return the schedule of this seed.

    Raises:
        UsageError: The topology has a single node, so nothing between nodes can fail.
    """
    if topology.count < 2:
        raise UsageError("a swarm of faults needs two nodes or more")
    return _Drawing(swarm, topology, seed).schedule()


@final
class _Drawing:
    """The making of one schedule. Draws from ``core``'s generator: schedules are printed, quoted and must not move."""

    def __init__(self, swarm: Swarm, topology: Topology, seed: int) -> None:
        self._swarm, self._topology, self._seed = swarm, topology, seed
        self._draws = Draws(derive(seed, "swarm"))
        self._lives: dict[int, list[tuple[int, int]]] = {}  # By node: spans of faults of its life.

    def schedule(self) -> Schedule:
        kinds = tuple(kind for kind in self._swarm.kinds if self._draws.below(2))
        kinds = kinds or (self._pick(self._swarm.kinds),)
        drawn = [self._fault(self._pick(kinds)) for _ in range(self._between(1, self._swarm.faults_max))]
        faults = sorted((fault for fault in drawn if fault is not None), key=lambda fault: fault.begin_ns)
        return Schedule(self._seed, kinds, tuple(faults), self._swarm.end_ns)

    def _fault(self, kind: FaultKind) -> Fault | None:
        """Return one fault of this kind, or None if its node is struck otherwise at that time."""
        begin_ns, end_ns = self._span()
        if kind is FaultKind.PARTITION:
            return self._partition(begin_ns, end_ns)
        if kind is FaultKind.HOSTILE:
            return Fault(kind, begin_ns, end_ns, amount=self._between(1, 300), where="on the wire")
        if kind in _OF_LINKS:
            links, where = self._strike()
            return Fault(kind, begin_ns, end_ns, links, impairment=self._impairment(kind, begin_ns), where=where)
        node = self._draws.below(self._topology.count)
        if kind is FaultKind.RESTART:
            end_ns = begin_ns
        if kind in _OF_LIFE:
            spans = self._lives.setdefault(node, [])
            if any(begin_ns <= other_end and other_begin <= end_ns for other_begin, other_end in spans):
                return None
            spans.append((begin_ns, end_ns))
        return Fault(kind, begin_ns, end_ns, nodes=(node,), amount=self._amount(kind))

    def _span(self) -> tuple[int, int]:
        swarm = self._swarm
        room_ns = swarm.end_ns - swarm.begin_ns
        length_ns = self._between(swarm.length_min_ns, min(swarm.length_max_ns, room_ns))
        begin_ns = swarm.begin_ns + self._between(0, room_ns - length_ns)
        return begin_ns, begin_ns + length_ns

    def _strike(self) -> tuple[tuple[Pair, ...], str]:
        """Return the directions that one fault of links strikes: a path, or a shared fate; both ways or one."""
        count = self._topology.count
        way = self._draws.below(4)  # 0, 1: both ways. 2: out only. 3: in only.
        if self._draws.below(WHOLE) < self._swarm.correlation:
            fate = self._pick(self._topology.fates)
            inside, links, where = fate.members, fate.links(count), fate.name
        else:
            i = self._draws.below(count)
            j = (i + 1 + self._draws.below(count - 1)) % count
            inside, links, where = (i,), ((i, j), (j, i)), f"path {i} {j}"
        if way < 2:
            return links, f"{where}, both ways"
        outward = tuple(link for link in links if (link[0] in inside) == (way == 2))
        return outward, f"{where}, only {'from' if way == 2 else 'to'} {', '.join(map(str, inside))}"

    def _impairment(self, kind: FaultKind, begin_ns: int) -> LinkSpec:
        between = self._between
        match kind:
            case FaultKind.LOSS:
                return LinkSpec(loss=between(500, 6500))
            case FaultKind.BURSTS:
                burst = Burst(
                    good_ns=between(200, 5000) * MILLISECOND_NS,
                    bad_ns=between(50, 1000) * MILLISECOND_NS,
                    loss_bad=between(5000, WHOLE),
                    seed=self._draws.bits(32),
                    since_ns=begin_ns,
                )
                return LinkSpec(burst=burst)
            case FaultKind.DELAY:
                return LinkSpec(delay_ns=between(10, 500) * MILLISECOND_NS)
            case FaultKind.JITTER:
                jitter = self._pick((Jitter.UNIFORM, Jitter.BELL, Jitter.HEAVY))
                return LinkSpec(jitter_ns=between(1, 100) * MILLISECOND_NS, jitter=jitter)
            case FaultKind.RATE:
                return LinkSpec(rate_bytes_s=between(5_000, 500_000), queue_bytes=between(16, 256) * KIB)
            case FaultKind.DAMAGE:
                return LinkSpec(duplicate=between(0, 1000), reorder=between(0, 1000), corrupt=between(0, 1000))
            case _:
                return LinkSpec(blackhole=True)

    def _amount(self, kind: FaultKind) -> int:
        match kind:
            case FaultKind.CRASH:
                return self._draws.below(2) * self._between(1, 20)
            case FaultKind.RESTART:
                return self._draws.below(2)
            case FaultKind.WALL_STEP:
                return self._between(-48 * HOUR_NS, 48 * HOUR_NS)
            case FaultKind.DRIFT:
                return self._between(-500, 500)
            case _:
                return 0

    def _partition(self, begin_ns: int, end_ns: int) -> Fault:
        count = self._topology.count
        order = list(range(count))
        for last in range(count - 1, 0, -1):  # Fisher and Yates.
            other = self._draws.below(last + 1)
            order[last], order[other] = order[other], order[last]
        half = tuple(sorted(order[: self._between(1, count - 1)]))
        links = tuple((i, j) for i in range(count) for j in range(count) if (i in half) != (j in half))
        where = f"{', '.join(map(str, half))} from the rest"
        return Fault(FaultKind.PARTITION, begin_ns, end_ns, links, half, LinkSpec(blackhole=True), where=where)

    def _between(self, low: int, high: int) -> int:
        return low + self._draws.below(high - low + 1)

    def _pick(self, choices: Sequence[_Choice]) -> _Choice:
        return choices[self._draws.below(len(choices))]


def _places(fault: Fault) -> str:
    if fault.links:
        shown = ", ".join(f"{i}>{j}" for i, j in fault.links[:6])
        return f"{shown} and {len(fault.links) - 6} more" if len(fault.links) > 6 else shown
    return f"node {', '.join(map(str, fault.nodes))}"


def _words(fault: Fault) -> str:
    """Return the parameters of a fault for people."""
    spec = fault.impairment
    match fault.kind:
        case FaultKind.LOSS:
            return f"{spec.loss / 100:.1f} %"
        case FaultKind.BURSTS if spec.burst is not None:
            burst = spec.burst
            good_ms, bad_ms = burst.good_ns // MILLISECOND_NS, burst.bad_ns // MILLISECOND_NS
            return f"{burst.loss_bad / 100:.1f} % for {bad_ms} ms after each {good_ms} ms, in the mean"
        case FaultKind.DELAY:
            return f"{spec.delay_ns // MILLISECOND_NS} ms more"
        case FaultKind.JITTER:
            return f"{spec.jitter}, mean {spec.jitter_ns // MILLISECOND_NS} ms"
        case FaultKind.RATE:
            return f"{spec.rate_bytes_s} B/s, queue {spec.queue_bytes} B"
        case FaultKind.DAMAGE:
            return f"duplicates {spec.duplicate}, reorders {spec.reorder}, flips bits of {spec.corrupt} in 10000"
        case FaultKind.CRASH:
            return f"power cut at change {fault.amount} of its disk" if fault.amount else "power cut at once"
        case FaultKind.RESTART:
            return "computer" if fault.amount else "process"
        case FaultKind.WALL_STEP:
            return f"by {seconds(fault.amount)}"
        case FaultKind.DRIFT:
            return f"{fault.amount} ppm"
        case FaultKind.HOSTILE:
            return f"{fault.amount} datagrams/s"
        case _:
            return ""
