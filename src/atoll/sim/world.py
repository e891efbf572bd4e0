# SPDX-License-Identifier: Apache-2.0
"""The world: programs, links and disks on one virtual clock. Everything that happens follows from the seed.

How it works. One heap holds what will happen: datagrams that arrive, deadlines, actions of the scenario; ties are
broken by a counter, so that order never depends on anything else. The world jumps from one to the next, calls the
program concerned, sends what it put into its outbox through the links, and notes its next deadline.

Rules of this file:
* No iteration over a set, no ``hash``, no ``id``, no clock of the computer: two runs of a seed are equal, digest for
  digest, under any PYTHONHASHSEED.
* Each link, disk and program draws from its own generator, named by purpose: traffic here changes no luck there.
* Deadlines are armed lazily. An armed timer that fires early (the deadline moved away) is armed again; one that was
  overtaken (the deadline came nearer) is recognised by its time and ignored. So a datagram that moves a deadline costs
  no heap operation in the common case.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Final, Generic, Protocol, final

from atoll.base.errors import UsageError
from atoll.base.ids import Endpoint
from atoll.base.ports import Datagrams
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.sim.clock import NodeClock
from atoll.sim.disk import PowerCut, SimDisk
from atoll.sim.failure import SimulationFailure
from atoll.sim.limits import (
    BACKLOG_BYTES_MAX,
    DATAGRAM_BYTES_MAX,
    EVENTS_MAX,
    IN_FLIGHT_MAX,
    IP_UDP_BYTES,
    OUTBOX_MAX,
    STUCK_TICKS_MAX,
)
from atoll.sim.link import Link, LinkSpec
from atoll.sim.program import Factory, ProgramT
from atoll.sim.seeds import derive, generator
from atoll.sim.station import Station, Stats, StrangerSocket
from atoll.sim.topology import Topology
from atoll.sim.trace import WORLD, Kind, Trace

__all__ = ["COMMAND", "Checker", "Tap", "World"]

COMMAND: Final = "make sim SEED={seed}"
Tap = Callable[[Endpoint, Endpoint, bytes], object]  # (source, destination, datagram) of each datagram sent.

_STRANGER_DELAY_NS: Final = 10 * MILLISECOND_NS  # An injected datagram is this long on its way.
_BOOT_CLOCK_NS_MAX: Final = 90 * 86_400 * SECOND_NS  # Monotonic clocks start within 90 days of uptime.
_NOBODY: Final[Endpoint] = ("", 0)
_ACTION: Final = -1  # Code of an action in the heap; codes below it are timers.
_TIMER_BASE: Final = -2  # The timer of node i has the code _TIMER_BASE - i.


class Checker(Protocol[ProgramT]):
    """An invariant, asked again and again."""

    @property
    def name(self) -> str:
        """What must hold, in few words."""
        ...

    @property
    def every_ns(self) -> int:
        """How often to ask; 0: after each event."""
        ...

    def check(self, world: "World[ProgramT]") -> str | None:
        """Return None if it holds, else what is wrong."""
        ...


@final
class World(Generic[ProgramT]):
    """N nodes, their network and their disks. Create it, ``start`` the nodes, then ``run`` to times of your choice.

    Args:
        topology: The nodes and the links between them.
        factory: Makes the program of a node, at its start and after each crash.
        seed: The whole cause of everything that is random.
        keep: How many records of the trace to keep for people; 0 is fastest.
        command: Repeats the run; ``{seed}`` stands for the seed.
    """

    def __init__(
        self, topology: Topology, factory: Factory[ProgramT], *, seed: int, keep: int = 0, command: str = COMMAND
    ) -> None:
        self.now_ns = 0  # World time. Read only.
        self.seed, self.topology, self.stats, self.trace = seed, topology, Stats(), Trace(keep)
        self._factory, self._command = factory, command
        self._heap: list[tuple[int, int, int, bytes, Endpoint, int]] = []  # At, counter, code, datagram, source, peer.
        self._counter = 0
        self._actions: dict[int, Callable[[], object]] = {}
        self._taps: list[Tap] = []
        self._watchers: list[Checker[ProgramT]] = []
        self._nodes: list[Station[ProgramT]] = []
        for index in range(topology.count):
            start_ns = self._boot_clock_ns(generator(seed, f"clock {index}"))
            disk = SimDisk(generator(seed, f"disk {index}"))
            self._nodes.append(Station(index, NodeClock(lambda: self.now_ns, start_ns), disk, topology.count))
        self._index_of = {node.endpoint: node.index for node in self._nodes}

    # What is there.

    @property
    def count(self) -> int:
        """Number of nodes."""
        return len(self._nodes)

    def program(self, index: int) -> ProgramT | None:
        """Return the program of a node, or None while it is down."""
        return self._nodes[index].program

    def programs(self) -> list[ProgramT]:
        """Return the programs of all nodes that are up, by index."""
        return [node.program for node in self._nodes if node.program is not None]

    def disk(self, index: int) -> SimDisk:
        """Return the disk of a node; it outlives crashes."""
        return self._nodes[index].disk

    def clock(self, index: int) -> NodeClock:
        """Return the clock of a node."""
        return self._nodes[index].clock

    def boots(self, index: int) -> int:
        """Return how often a node was started."""
        return self._nodes[index].boots

    def paused(self, index: int) -> bool:
        """Return whether a node is paused."""
        return self._nodes[index].paused

    def link(self, source: int, target: int) -> Link:
        """Return the direction from one node to another."""
        node = self._nodes[source]
        link = node.links[target]
        if link is None:
            link = Link(self.topology.specs[source][target], generator(self.seed, f"link {source}>{target}"))
            node.links[target] = link
        return link

    def failure(self, invariant: str, detail: str) -> SimulationFailure:
        """Return an error that says how to see it again; raise it."""
        return SimulationFailure(self.seed, self.now_ns, invariant, detail, self._command.format(seed=self.seed))

    # What a scenario does to it.

    def at(self, when_ns: int, action: Callable[[], object]) -> None:
        """Call this at a world time, or now if that is past."""
        self._counter += 1
        self._actions[self._counter] = action
        heappush(self._heap, (max(when_ns, self.now_ns), self._counter, _ACTION, b"", _NOBODY, WORLD))

    def watch(self, checker: Checker[ProgramT]) -> None:
        """Ask a checker from now on; the first that does not hold ends the run."""
        if checker.every_ns == 0:
            self._watchers.append(checker)
            return

        def again() -> None:
            self._ask(checker)
            self.at(self.now_ns + checker.every_ns, again)

        self.at(self.now_ns + checker.every_ns, again)

    def tap(self, tap: Tap) -> None:
        """Show every datagram that a program sends, before its link decides on it."""
        self._taps.append(tap)

    def socket(self, source: Endpoint) -> Datagrams:
        """Return a socket that sends to any node as if from this endpoint, a stranger's or a forged one.

        What it sends arrives surely, 10 ms later: an adversary has the better network.
        """
        return StrangerSocket(self._inject, source)

    def start(self, index: int) -> None:
        """Start a node that is down.

        Raises:
            UsageError: It is up.
        """
        node = self._nodes[index]
        if node.program is not None:
            raise UsageError(f"node {index} is up")
        node.boots += 1
        node.paused, node.stuck = False, 0
        self.trace.add(self.now_ns, index, WORLD, Kind.START, b"")
        program = self._factory(index, node.disk, derive(self.seed, f"program {index} boot {node.boots}"))
        node.program = program
        self._call(node, program, program.start, node.clock.monotonic_ns(), node.clock.wall_ns())

    def start_all(self) -> None:
        """Start every node that is down, by index."""
        for node in self._nodes:
            if node.program is None:
                self.start(node.index)

    def act(self, index: int, name: str, call: Callable[[ProgramT, int, int], object]) -> bool:
        """Call a program from outside, as its user would, with its monotonic and wall time.

        Args:
            index: The node.
            name: For the trace.
            call: Does it; what it puts into the outbox is sent.

        Returns:
            False, and nothing was called, if the node is down or paused.
        """
        node = self._nodes[index]
        program = node.program
        if program is None or node.paused:
            return False
        self.trace.add(self.now_ns, index, WORLD, Kind.ACT, name.encode())
        self._call(node, program, call, program, node.clock.monotonic_ns(), node.clock.wall_ns())
        return True

    def kill(self, index: int) -> None:
        """Kill the process of a node: its program is gone; what it wrote is still with the kernel, synced or not."""
        node = self._nodes[index]
        if node.program is None:
            return
        self.note("kill", index)
        self.stats.crashes += 1
        node.program, node.armed_ns, node.paused = None, None, False
        node.backlog.clear()
        node.backlog_bytes = 0

    def crash(self, index: int) -> None:
        """Cut the power of a node: its program is gone, its disk keeps what ``SimDisk.crash`` leaves."""
        self.note("crash", index)
        self.kill(index)
        self._nodes[index].disk.crash()

    def restart(self, index: int, *, reboot: bool) -> None:
        """End a node if it is up, and start it.

        Args:
            index: The node.
            reboot: By a power cut of the computer, so that the disk loses what ``crash`` loses and the monotonic clock
                begins anew; else only the process is killed.
        """
        if not reboot:
            self.kill(index)
        else:
            self.crash(index)
            node = self._nodes[index]
            node.clock.reboot(generator(self.seed, f"reboot {index} {node.boots}").getrandbits(33))
        self.start(index)

    def pause(self, index: int) -> None:
        """Let a node stand still: its clock goes on, datagrams wait in a bounded buffer, deadlines pass."""
        if self._nodes[index].program is not None:
            self.note("pause", index)
            self._nodes[index].paused = True

    def resume(self, index: int) -> None:
        """Let a paused node go on: first what waited, then its deadline."""
        node = self._nodes[index]
        if not node.paused:
            return
        self.note("resume", index)
        node.paused, node.backlog_bytes = False, 0
        waiting, node.backlog = node.backlog, []
        for datagram, source, peer in waiting:
            self._deliver(node, datagram, source, peer)
        self._rearm(node)

    def step_wall(self, index: int, by_ns: int) -> None:
        """Step a node's wall clock."""
        self.note(f"wall clock {by_ns} ns", index)
        self._nodes[index].clock.step_wall(by_ns)

    def set_drift(self, index: int, drift_ppm: int) -> None:
        """Let a node's clocks run fast or slow from now on."""
        self.note(f"drift {drift_ppm} ppm", index)
        node = self._nodes[index]
        node.clock.set_drift(drift_ppm)
        node.armed_ns = None
        self._rearm(node)

    def impair(self, source: int, target: int, key: str, impairment: LinkSpec) -> None:
        """Lay an impairment on one direction, under a key."""
        self.note(f"{key} {source}>{target} on", source)
        self.link(source, target).impair(key, impairment)

    def mend(self, source: int, target: int, key: str) -> None:
        """Take the impairment of this key away from one direction."""
        self.note(f"{key} {source}>{target} off", source)
        self.link(source, target).mend(key)

    def note(self, text: str, index: int = WORLD) -> None:
        """Write something that the scenario did into the trace."""
        self.trace.add(self.now_ns, index, WORLD, Kind.FAULT, text.encode())

    def heal(self) -> None:
        """End all trouble: links mended, clocks without drift, every node up and running."""
        self.note("heal")
        for node in self._nodes:
            for link in node.links:
                if link is not None:
                    link.mend_all()
            node.disk.cut_power_after(None)
            if node.clock.drift_ppm:
                self.set_drift(node.index, 0)
            self.resume(node.index)
            if node.program is None:
                self.start(node.index)

    # The engine.

    def run(self, until_ns: int) -> None:
        """Let everything happen up to and including this world time.

        Raises:
            SimulationFailure: A checker or one of the world's own invariants did not hold.
            UsageError: The time is past.
        """
        if until_ns < self.now_ns:
            raise UsageError(f"run to {until_ns} ns at {self.now_ns} ns")
        heap, nodes = self._heap, self._nodes
        while heap and heap[0][0] <= until_ns:
            at_ns, counter, code, datagram, source, peer = heappop(heap)
            assert at_ns >= self.now_ns, "time never goes back"
            self.now_ns = at_ns
            if code >= 0:
                self._deliver(nodes[code], datagram, source, peer)
            elif code == _ACTION:
                self._actions.pop(counter)()
            else:
                self._fire(nodes[_TIMER_BASE - code])
            for checker in self._watchers:
                self._ask(checker)
        self.now_ns = until_ns

    def _deliver(self, node: Station[ProgramT], datagram: bytes, source: Endpoint, peer: int) -> None:
        program = node.program
        if program is None:
            self.stats.deaf += 1
            return
        if node.paused:
            if node.backlog_bytes + len(datagram) > BACKLOG_BYTES_MAX:
                self.stats.deaf += 1
            else:
                node.backlog_bytes += len(datagram)
                node.backlog.append((datagram, source, peer))
            return
        self.stats.delivered += 1
        now_ns, clock = self.now_ns, node.clock
        self.trace.add(now_ns, node.index, peer, Kind.RECEIVE, datagram)
        monotonic_ns = clock.monotonic_at(now_ns)
        self._call(node, program, program.receive, datagram, source, monotonic_ns, monotonic_ns + clock.wall_ahead_ns)

    def _fire(self, node: Station[ProgramT]) -> None:
        """Serve a timer, unless it was overtaken; see the rules of this file."""
        program = node.program
        if node.armed_ns != self.now_ns or program is None:
            return
        node.armed_ns = None
        if node.paused:
            return
        deadline_ns, clock = program.deadline_ns, node.clock
        if deadline_ns is None:
            return
        monotonic_ns = clock.monotonic_at(self.now_ns)
        if deadline_ns > monotonic_ns:
            self._arm(node, deadline_ns)
            return
        self.stats.ticks += 1
        self.trace.add(self.now_ns, node.index, WORLD, Kind.TICK, b"")
        deadline_ns = self._call(node, program, program.tick, monotonic_ns, monotonic_ns + clock.wall_ahead_ns)
        if deadline_ns is None or deadline_ns > monotonic_ns:
            node.stuck = 0
            return
        node.stuck += 1
        if node.stuck > STUCK_TICKS_MAX:
            raise self.failure("a tick moves the deadline", f"node {node.index} stays at {deadline_ns} ns")

    def _call(
        self, node: Station[ProgramT], program: ProgramT, method: Callable[..., object], *args: object
    ) -> int | None:
        """Call into a program, then send what it left; arm the deadline that it has now, and return it."""
        try:
            method(*args)
        except PowerCut:
            self.crash(node.index)  # What was in the outbox had not left yet.
            return None
        except Exception as error:
            raise self.failure("no program raises", f"node {node.index}: {error!r}") from error
        outbox = program.outbox
        if outbox:
            self._send(node, outbox)
        deadline_ns = program.deadline_ns  # Read once: a program may have to compute it.
        if deadline_ns is not None and node.program is program:
            self._arm(node, deadline_ns)
        return deadline_ns

    def _rearm(self, node: Station[ProgramT]) -> None:
        """Arm the deadline of a node whose clock or state changed."""
        program = node.program
        if program is not None and not node.paused and (deadline_ns := program.deadline_ns) is not None:
            self._arm(node, deadline_ns)

    def _arm(self, node: Station[ProgramT], deadline_ns: int) -> None:
        shift_ns, now_ns, armed_ns = node.clock.shift_ns, self.now_ns, node.armed_ns
        at_ns = node.clock.world_at(deadline_ns) if shift_ns is None else deadline_ns - shift_ns
        at_ns = max(at_ns, now_ns)
        if armed_ns is None or at_ns < armed_ns:
            node.armed_ns = at_ns
            self._counter += 1
            heappush(self._heap, (at_ns, self._counter, _TIMER_BASE - node.index, b"", _NOBODY, WORLD))

    def _send(self, node: Station[ProgramT], outbox: list[tuple[Endpoint, bytes]]) -> None:
        if len(outbox) > OUTBOX_MAX:
            raise self.failure("outboxes are bounded", f"node {node.index} sends {len(outbox)} datagrams at once")
        now_ns, source, endpoint, links = self.now_ns, node.index, node.endpoint, node.links
        heap, stats, add = self._heap, self.stats, self.trace.add
        for to, datagram in outbox:
            if len(datagram) > DATAGRAM_BYTES_MAX:
                raise self.failure("datagrams fit UDP", f"node {source} sends one of {len(datagram)} bytes")
            target = self._index_of.get(to, WORLD)
            add(now_ns, source, target, Kind.SEND, datagram)
            for tap in self._taps:
                tap(endpoint, to, datagram)
            if target < 0:
                stats.unroutable += 1
                continue
            link = links[target] or self.link(source, target)
            times = link.offer(len(datagram) + IP_UDP_BYTES, now_ns)
            if not times:
                stats.lost += 1
            for at_ns in times:
                arriving = link.corrupted(datagram) if link.corrupts else datagram
                self._counter += 1
                heappush(heap, (at_ns, self._counter, target, arriving, endpoint, source))
        stats.sent += len(outbox)
        outbox.clear()
        if len(heap) > IN_FLIGHT_MAX or self._counter > EVENTS_MAX:
            raise self.failure("traffic is bounded", f"{len(heap)} in flight, {self._counter} events so far")

    def _inject(self, source: Endpoint, to: Endpoint, datagram: bytes) -> None:
        target = self._index_of.get(to, WORLD)
        self.stats.injected += 1
        peer = self._index_of.get(source, WORLD)
        self.trace.add(self.now_ns, peer, target, Kind.INJECT, datagram)
        if target < 0:
            self.stats.unroutable += 1
            return
        self._counter += 1
        heappush(self._heap, (self.now_ns + _STRANGER_DELAY_NS, self._counter, target, datagram, source, peer))

    def _ask(self, checker: Checker[ProgramT]) -> None:
        wrong = checker.check(self)
        if wrong is not None:
            raise self.failure(checker.name, wrong)

    @staticmethod
    def _boot_clock_ns(rng: Random) -> int:
        return SECOND_NS + (rng.getrandbits(64) * _BOOT_CLOCK_NS_MAX >> 64)
