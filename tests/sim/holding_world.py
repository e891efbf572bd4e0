# SPDX-License-Identifier: Apache-2.0
"""Nodes that decide who owns one environment, on a virtual clock, with slow and full disks and a network to match.

Each node has the real machine, a recorder whose disk survives a power cut, and a runner whose environment is the list
of the proposals that it applied. Everything follows from the seed. After each effect it is checked that nothing that
was committed is ever lost, changed or contradicted, and after the faults that the nodes find one owner and go on.
"""

from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Final

from atoll.base.ids import NodeId
from atoll.base.units import MICROSECOND_NS, MILLISECOND_NS, SECOND_NS
from atoll.core.machine import Tick
from atoll.env.holding import Block, Holding, HoldingOptions, decode, encode
from atoll.env.holding.events import (
    BlocksRead,
    Change,
    Checkpointed,
    Cleared,
    Committed,
    CutFrom,
    GetReady,
    Heard,
    Hold,
    HoldersAsked,
    HoldersChanged,
    HoldersFailed,
    HoldingEffect,
    HoldingInput,
    Keep,
    KeepFailed,
    KeepPromise,
    KeepSnapshot,
    Kept,
    Left,
    MoveAsked,
    Moved,
    MoveFailed,
    PromiseFailed,
    PromiseKept,
    Proposed,
    ReadBlocks,
    ReadSnapshot,
    Ready,
    Refused,
    Resume,
    Run,
    Seal,
    Sealed,
    SealFailed,
    SnapshotFailed,
    SnapshotKept,
    SnapshotRead,
    Stop,
    Suspected,
    Tell,
)
from atoll.env.holding.state import OWNER
from atoll.sim.failure import SimulationFailure
from atoll.sim.seeds import derive, generator

ENVIRONMENT: Final = bytes(range(16))
COMMAND: Final = "python -m tests.sim.holding_world {seed}"
FAULTS_NS: Final = 12 * SECOND_NS
HEALED_NS: Final = (
    10 * SECOND_NS
)  # Within so long after the last fault there is one owner, and proposals are committed.
EVENTS_MAX: Final = 400_000
FAULTS: Final = ("crash", "pause", "partition", "loss", "full", "stall", "suspicion", "move", "holders", "checkpoint")

Written = Seal | Keep | CutFrom | KeepPromise | KeepSnapshot | Left


class Disk:
    """What a power cut leaves: the promise, a snapshot and the blocks after it."""

    def __init__(self, holders: tuple[bytes, ...]) -> None:
        self.promise: tuple[int, bytes] = (0, b"")
        self.floor: tuple[int, int] = (0, 0)
        self.base: tuple[int, int] = (0, 0)
        self.holders = holders  # After the base.
        self.payload = b""
        self.blocks: list[Block] = []

    @property
    def last(self) -> int:
        return self.base[0] + len(self.blocks)

    @property
    def last_epoch(self) -> int:
        return self.blocks[-1].epoch if self.blocks else self.base[1]

    def block(self, number: int) -> Block | None:
        index = number - self.base[0] - 1
        return self.blocks[index] if 0 <= index < len(self.blocks) else None

    def epoch_of(self, number: int) -> int:
        block = self.block(number)
        return self.base[1] if block is None else block.epoch

    def history(self) -> list[bytes]:
        """Everything from the first block on."""
        return [*self.payload.split(b"\n")[1:], *(block.sealed for block in self.blocks)]

    def holders_at(self, number: int) -> tuple[bytes, ...]:
        changes = [block.holders for block in self.blocks if block.number <= number and block.holders]
        return changes[-1] if changes else self.holders

    def cut(self, number: int) -> list[Block]:
        keep = max(0, number - self.base[0] - 1)
        gone, self.blocks = self.blocks[keep:], self.blocks[:keep]
        return gone

    def checkpoint(self, number: int) -> None:
        holders = self.holders_at(number)
        block = self.block(number)
        assert block is not None
        self.payload = b"\n".join([b"", *self.history()[:number]])
        self.blocks = self.blocks[number - self.base[0] :]
        self.base, self.holders = (number, block.epoch), holders

    def options(self, own: bytes, seed: bytes) -> HoldingOptions:
        blocks = tuple((block.number, block.epoch, block.holders) for block in self.blocks)
        return HoldingOptions(own, seed, self.promise, self.base, self.holders, blocks, self.floor)


class Node:
    """One computer: machine, recorder, runner."""

    def __init__(self, index: int, holders: tuple[bytes, ...]) -> None:
        self.index, self.id = index, node_id(index)
        self.disk = Disk(holders)
        self.machine: Holding | None = None
        self.boots = 0
        self.paused = False
        self.waiting: list[HoldingInput] = []
        self.writes: list[Written] = []
        self.full = False
        self.stalled_ns = 0  # Nothing is written until then.
        self.committed = 0
        self.armed_ns: int | None = None
        self.running = 0  # Epoch; 0: nothing runs.
        self.held = False
        self.events = 0
        self.changes: dict[int, tuple[bytes, ...]] = {}  # Proposed and not known to be taken, by first event.
        self.refused: list[tuple[bytes, ...]] = []


def node_id(index: int) -> NodeId:
    return NodeId(bytes([index + 1]) * 10)


class HoldingWorld:
    """All nodes and what lies between them.

    Args:
        seed: The whole cause.
        nodes: 3 to 5.
        holders: How many of them hold the environment at first.
    """

    def __init__(self, seed: int, *, nodes: int | None = None, holders: int | None = None) -> None:
        self.seed, self.now_ns = seed, 0
        self.random: Random = generator(seed, "holding")
        count = 3 + self.below(3) if nodes is None else nodes
        held = 1 + self.below(count) if holders is None else holders
        first = tuple(node_id(index) for index in range(held))
        self.nodes = [Node(index, first if index < held else ()) for index in range(count)]
        self._index_of = {node.id: node.index for node in self.nodes}
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._counter = 0
        self.cut_off: dict[tuple[int, int], bool] = {}
        self.loss_percent = 2
        self.delay_ns = (1 + self.below(40)) * MILLISECOND_NS
        self.far_ns: dict[int, int] = {}  # Nodes that are so much further away from all others.
        self.late_percent = (1, 5, 20)[self.below(3)]
        self.slow_percent = (1, 5, 30)[self.below(3)]  # Writes that take long.
        self.hasty_percent = (0, 25, 60)[self.below(3)]  # Of what happens in the moment in which it hurts most.
        self.restore_ms = (3, 300)[self.below(2)]  # What a runner takes to begin.
        self.pace_ms = (150, 500, 1200)[self.below(3)]  # Between two faults, at most.
        # Not every kind in every run: some troubles hide behind others.
        self.kinds = tuple(kind for kind in FAULTS if self.chance(70)) or FAULTS
        self.faulty = True
        self.committed: list[bytes] = []  # What the outside world has seen: block 1, 2, ...
        self.committed_in: list[int] = []  # In which epoch each was.
        self.committer: dict[int, bytes] = {}
        self.ran: dict[int, bytes] = {}
        self.proposed = 0
        self.stats: dict[str, int] = {}

    # Chance and time.

    def below(self, bound: int) -> int:
        return self.random.getrandbits(40) % bound

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def span_ns(self, first_ms: int, last_ms: int) -> int:
        return first_ms * MILLISECOND_NS + self.below((last_ms - first_ms) * 1000 + 1) * MICROSECOND_NS

    def at(self, when_ns: int, action: Callable[[], object]) -> None:
        self._counter += 1
        heappush(self._heap, (max(when_ns, self.now_ns), self._counter, action))

    def after(self, span_ns: int, action: Callable[[], object]) -> None:
        self.at(self.now_ns + span_ns, action)

    def tally(self, what: str) -> None:
        self.stats[what] = self.stats.get(what, 0) + 1

    def fail(self, invariant: str, detail: str) -> SimulationFailure:
        return SimulationFailure(self.seed, self.now_ns, invariant, detail, COMMAND.format(seed=self.seed))

    def run(self, until_ns: int, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; return whether it was done before its end."""
        while self._heap and self._heap[0][0] <= until_ns and self._counter < EVENTS_MAX:
            self.now_ns, _, action = heappop(self._heap)
            action()
            if done():
                return True
        if self._counter >= EVENTS_MAX:
            raise self.fail("what happens is bounded", f"{self._counter} events")
        self.now_ns = until_ns
        return False

    # Nodes.

    def start(self, node: Node) -> None:
        if node.machine is not None:
            return
        node.boots += 1
        node.committed = node.disk.base[0]
        options = node.disk.options(node.id, derive(self.seed, f"node {node.index} boot {node.boots}"))
        node.machine = Holding.create(options, self.now_ns)
        self._obey(node, node.machine.start(self.now_ns))

    def crash(self, node: Node) -> None:
        """Cut the power. The write under way may be on the disk although nobody was told."""
        if node.machine is None:
            return
        if node.writes and not node.full and self.chance(50):
            self._write(node, node.writes[0])
        node.machine, node.running, node.held, node.armed_ns = None, 0, False, None
        node.paused, node.full, node.stalled_ns = False, False, 0
        node.boots += 1  # What was under way for the last life does not reach the next.
        node.writes.clear()
        node.waiting.clear()
        node.refused.clear()

    def put(self, node: Node, event: HoldingInput) -> None:
        """Give an input to a node, or let it wait while the node stands still."""
        if node.machine is None:
            return
        if node.paused:
            node.waiting.append(event)
            return
        effects = node.machine.handle(event, self.now_ns)
        if self.below(64) == 0:
            node.machine = Holding.restore(node.machine.snapshot())
        self._obey(node, effects)

    def resume(self, node: Node) -> None:
        if not node.paused:
            return
        node.paused = False
        waiting, node.waiting = node.waiting, []
        for event in waiting:
            self.put(node, event)
        self._arm(node)

    def _deadline_ns(self, node: Node) -> int | None:
        return None if node.machine is None else node.machine.deadline_ns

    def _arm(self, node: Node) -> None:
        due_ns = self._deadline_ns(node)
        if due_ns is None or (node.armed_ns is not None and node.armed_ns <= due_ns):
            return
        node.armed_ns = due_ns
        boots = node.boots

        def tick() -> None:
            if node.boots != boots or node.armed_ns != due_ns:
                return
            node.armed_ns = None
            if node.paused or node.machine is None:
                return
            deadline_ns = node.machine.deadline_ns
            if deadline_ns is not None and deadline_ns <= self.now_ns:
                self.put(node, Tick())
                later_ns = self._deadline_ns(node)
                if later_ns is not None and later_ns <= self.now_ns:
                    raise self.fail("a tick moves the deadline", f"node {node.index}: {later_ns}")
            self._arm(node)

        self.at(due_ns, tick)

    def _obey(self, node: Node, effects: Sequence[HoldingEffect]) -> None:
        for effect in effects:
            self._do(node, effect)
        self._arm(node)

    def _do(self, node: Node, effect: HoldingEffect) -> None:
        match effect:
            case Tell(target, _):
                self._send(node, self.nodes[self._index_of[NodeId(target)]], encode(ENVIRONMENT, effect.message))
            case Seal() | Keep() | KeepPromise() | KeepSnapshot():
                self._queue(node, effect)
                if isinstance(effect, KeepPromise) and self._is_hasty() and self.chance(20):
                    self._later(node, self.span_ns(0, 100), lambda: self._fault_crash(node))
            case CutFrom(number):
                if number <= node.committed:
                    raise self.fail("nothing committed is cut", f"node {node.index} cuts {number} of {node.committed}")
                self._queue(node, effect)
            case ReadBlocks() | ReadSnapshot():
                self._later(node, self.span_ns(0, 10), lambda: self._read(node, effect))
            case Committed(number):
                self._commit(node, number)
            case Run(epoch, number):
                self._run(node, epoch, number)
            case GetReady():
                failed = "it cannot be" if self._is_hasty() and self.chance(5) else ""
                self._later(node, self.span_ns(0, 400), lambda: self.put(node, Ready(failed)))
            case Stop(epoch):
                if node.running != epoch:
                    raise self.fail("what stops was running", f"node {node.index}: {epoch}, ran {node.running}")
                node.running, node.held = 0, False
                node.refused.clear()
            case Hold(_, reason):
                self.tally(f"hold {reason}")
                node.held = True
            case Resume():
                self._resumed(node)
            case Refused(epoch, first_event, reason):
                self._refused(node, epoch, first_event, reason)
            case Change(epoch, holders):
                self._propose(node, epoch, b"change", holders)
            case Left():
                self.tally("left")
                node.committed = 0
                self._queue(node, effect)
            case Moved() | MoveFailed() | HoldersChanged() | HoldersFailed():
                self.tally(type(effect).__name__)

    # The recorder.

    def _later(self, node: Node, span_ns: int, action: Callable[[], object]) -> None:
        boots = node.boots
        self.after(span_ns, lambda: action() if node.boots == boots else None)

    def _queue(self, node: Node, effect: Written) -> None:
        node.writes.append(effect)
        if len(node.writes) == 1:
            self._later(node, self._disk_ns(node), lambda: self._next_write(node))

    def _disk_ns(self, node: Node) -> int:
        wait_ns = max(0, node.stalled_ns - self.now_ns)
        return wait_ns + (
            self.span_ns(20, 400) if self.faulty and self.chance(self.slow_percent) else self.span_ns(0, 6)
        )

    def _next_write(self, node: Node) -> None:
        effect = node.writes.pop(0)
        if node.writes:
            self._later(node, self._disk_ns(node), lambda: self._next_write(node))
        answer = self._write(node, effect)
        if answer is not None:
            self.put(node, answer)

    def _write(self, node: Node, effect: Written) -> HoldingInput | None:
        disk = node.disk
        match effect:
            case KeepPromise(epoch, voted):
                if node.full and self.chance(80):
                    return PromiseFailed(epoch, voted, "full")
                if (epoch, b"") < disk.promise and (epoch, voted) != disk.promise:
                    raise self.fail("promises stand", f"node {node.index}: {(epoch, voted)} after {disk.promise}")
                disk.promise = (epoch, voted)
                return PromiseKept(epoch, voted)
            case CutFrom(number):
                for block in disk.cut(number):
                    if block.number <= len(self.committed) and self.committed[block.number - 1] == block.sealed:
                        raise self.fail("nothing committed is cut", f"node {node.index} cuts block {block.number}")
                return None
            case Left(epoch, number):
                promise, node.disk = disk.promise, Disk(())
                node.disk.promise, node.disk.floor = promise, (epoch, number)
                return None
            case KeepSnapshot(number, epoch, holders, payload):
                if node.full:
                    return SnapshotFailed(number, epoch, "full")
                self._check_history(node, payload.split(b"\n")[1:], number)
                disk.base, disk.holders, disk.payload, disk.blocks = (number, epoch), holders, payload, []
                self.tally("snapshots")
                return SnapshotKept(number, epoch)
            case Seal(epoch, number, _, _, body, holders):
                if (node.full and self.chance(80)) or number != disk.last + 1:
                    return SealFailed(number, epoch, "full")
                sealed = b"%d/%d/%d/%s" % (number, epoch, node.index, body)
                disk.blocks.append(Block(number, epoch, holders, sealed))
                return Sealed(number, epoch, sealed)
            case Keep(number, epoch, holders, sealed):
                if (node.full and self.chance(80)) or number != disk.last + 1:
                    return KeepFailed(number, epoch, "full")
                if not sealed.startswith(b"%d/%d/" % (number, epoch)):
                    raise self.fail("blocks are told as they are", f"{number} of {epoch}: {sealed!r}")
                disk.blocks.append(Block(number, epoch, holders, sealed))
                return Kept(number, epoch)

    def _read(self, node: Node, effect: ReadBlocks | ReadSnapshot) -> None:
        disk = node.disk
        if isinstance(effect, ReadBlocks):
            blocks = [disk.block(number) for number in range(effect.first, min(disk.last, effect.first + 20) + 1)]
            found = tuple(block for block in blocks if block is not None)
            if not found or found[0].number != effect.first or self.chance(2):
                found = ()
            self.put(node, BlocksRead(effect.node, effect.first, found))
            return
        number, epoch = disk.base
        if not number:
            self.put(node, SnapshotRead(effect.node, 0, 0, (), 0, 0, b""))
            return
        offset = effect.offset if effect.number in {0, number} else 0
        part = disk.payload[offset : offset + 1 + len(disk.payload) // 3]
        self.put(node, SnapshotRead(effect.node, number, epoch, disk.holders, offset, len(disk.payload), part))

    def checkpoint(self, node: Node) -> None:
        """Take a snapshot at some committed block; drop what is before it."""
        base = node.disk.base[0]
        if node.machine is None or node.paused or node.writes or node.committed <= base:
            return
        number = base + 1 + self.below(node.committed - base)
        node.disk.checkpoint(number)
        self.put(node, Checkpointed(number))

    # The network.

    def _send(self, source: Node, target: Node, letter: bytes) -> None:
        for _ in range(2 if self.faulty and self.chance(3) else 1):
            if self.chance(self.loss_percent):
                continue
            is_late = self.faulty and self.chance(self.late_percent)
            late_ns = self.span_ns(0, 2000) if is_late else self.span_ns(0, 5)
            far_ns = max(self.far_ns.get(node.index, 0) for node in (source, target))
            self.after(self.delay_ns + far_ns + late_ns, lambda: self._arrive(source, target, letter))

    def _arrive(self, source: Node, target: Node, letter: bytes) -> None:
        if (source.index, target.index) not in self.cut_off:
            environment, message = decode(letter)
            assert environment == ENVIRONMENT
            self.put(target, Heard(source.id, message))

    # The runner.

    def _propose(self, node: Node, epoch: int, body: bytes, holders: tuple[bytes, ...] = ()) -> None:
        node.events += 1
        first_event = node.events
        if holders:
            node.changes[first_event] = holders
        self.proposed += 1
        whole = b"%s %d of node %d" % (body, self.proposed, node.index)
        self._later(node, self.span_ns(0, 3), lambda: self.put(node, Proposed(epoch, first_event, 1, whole, holders)))

    def _refused(self, node: Node, epoch: int, first_event: int, reason: str) -> None:
        self.tally(f"refused {reason}")
        if reason == "holders":
            raise self.fail("a change that was asked for is taken", f"node {node.index}: {epoch}")
        if first_event in node.changes and epoch == node.running:
            node.refused.append(node.changes.pop(first_event))

    def _resumed(self, node: Node) -> None:
        node.held = False
        refused, node.refused = node.refused, []
        for holders in refused:
            self._propose(node, node.running, b"change", holders)

    def client(self, node: Node) -> None:
        """Something for the environment to do, again and again."""
        if node.machine is not None and node.running and not node.held and not node.paused:
            for _ in range(1 + self.below(3)):
                self._propose(node, node.running, b"work")
        self.after(self.span_ns(30, 200), lambda: self.client(node))

    # What must hold.

    def _run(self, node: Node, epoch: int, number: int) -> None:
        self.tally("runs")
        if epoch in self.ran:
            raise self.fail(
                "one owner in an epoch", f"epoch {epoch}: node {node.index}, {self.ran[epoch].hex()} before"
            )
        if node.disk.last != number or node.writes:
            raise self.fail("an owner has what it runs on its disk", f"{number}, but {node.disk.last}")
        if node.running:
            raise self.fail("what runs is stopped first", f"node {node.index}: {node.running}")
        self.ran[epoch], node.running, node.held = node.id, epoch, False
        node.changes.clear()
        # Votes may be late: then there is a newer owner, and only what was committed before this epoch must be there.
        self._check_history(node, node.disk.history(), sum(before < epoch for before in self.committed_in))
        self._later(node, self.span_ns(0, self.restore_ms), lambda: self._propose(node, epoch, b"open"))
        if self._is_hasty():
            self._later(node, self.span_ns(0, 400), lambda: self._fault_holders(node))
        if self._is_hasty():
            hurt = (self._fault_crash, self._fault_partition)[self.below(2)]
            self._later(node, self.span_ns(0, 400), lambda: hurt(node))

    def _is_hasty(self) -> bool:
        return self.faulty and self.chance(self.hasty_percent)

    def _check_history(self, node: Node, history: list[bytes], number: int) -> None:
        if number > len(self.committed) or history[:number] != self.committed[:number]:
            detail = f"node {node.index}, up to {number}: {history[-3:]}, committed {self.committed[-3:]}"
            raise self.fail("what was committed is there", detail)

    def _commit(self, node: Node, number: int) -> None:
        machine, known = node.machine, len(self.committed)
        assert machine is not None
        if number <= node.committed:
            raise self.fail("committed numbers never go back", f"node {node.index}: {number} after {node.committed}")
        history = node.disk.history()
        if number > len(history):
            raise self.fail("what is committed is on the disk", f"node {node.index}: {number} of {len(history)}")
        if number > known:
            epoch = node.running  # The machine may have handed over since, in the same step.
            if not epoch or self.committer.setdefault(epoch, node.id) != node.id:
                raise self.fail("only one owner commits in an epoch", f"node {node.index} commits {number}")
            if node.disk.epoch_of(number) != epoch:
                raise self.fail("an owner counts blocks of its own epoch", f"node {node.index}: {number}")
            self.committed += history[known:number]
            self.committed_in += [epoch] * (number - known)
            sealed = self.committed[-1]
            having = sum(self._has(holder, number, sealed) for holder in machine.holders)
            if 2 * having <= len(machine.holders):
                raise self.fail("a majority has what is committed", f"{having} of {len(machine.holders)}: {sealed!r}")
        node.committed = number
        self._check_history(node, history, number)

    def _has(self, holder: bytes, number: int, sealed: bytes) -> bool:
        history = self.nodes[self._index_of[NodeId(holder)]].disk.history()
        return len(history) >= number and history[number - 1] == sealed

    # What goes wrong.

    def _fault(self) -> None:
        if not self.faulty:
            return
        node = self.nodes[self.below(len(self.nodes))]
        owners = [one for one in self.nodes if one.running]
        if owners and self.chance(40):
            node = owners[self.below(len(owners))]
        kind = self.kinds[self.below(len(self.kinds))]
        self.tally(kind)
        {
            "crash": self._fault_crash,
            "pause": self._fault_pause,
            "partition": self._fault_partition,
            "loss": self._fault_loss,
            "full": self._fault_full,
            "stall": self._fault_stall,
            "suspicion": self._fault_suspicion,
            "move": self._fault_move,
            "holders": self._fault_holders,
            "checkpoint": self.checkpoint,
        }[kind](node)
        self.after(self.span_ns(20, self.pace_ms), self._fault)

    def _fault_crash(self, node: Node) -> None:
        self.crash(node)
        self.after(self.span_ns(1, 3000), lambda: self.start(node))

    def _fault_pause(self, node: Node) -> None:
        if node.machine is not None and not node.paused:
            node.paused = True
            self._later(node, self.span_ns(100, 5000), lambda: self.resume(node))

    def _fault_partition(self, node: Node) -> None:
        others = [one for one in self.nodes if one is not node and self.chance(40)]
        inside = [node, *others]
        one_way = self.chance(25)
        pairs = [(one.index, two.index) for one in inside for two in self.nodes if two not in inside]
        pairs += [] if one_way else [(two, one) for one, two in pairs]
        for pair in pairs:
            self.cut_off[pair] = True

        def heal() -> None:
            for pair in pairs:
                self.cut_off.pop(pair, None)

        self.after(self.span_ns(100, 5000), heal)

    def _fault_loss(self, _: Node) -> None:
        self.loss_percent = (0, 2, 10, 40)[self.below(4)]

    def _fault_full(self, node: Node) -> None:
        node.full = True
        self._later(node, self.span_ns(100, 6000), lambda: setattr(node, "full", False))

    def _fault_stall(self, node: Node) -> None:
        node.stalled_ns = self.now_ns + self.span_ns(500, 3000)

    def _fault_suspicion(self, node: Node) -> None:
        for other in self.nodes:
            if other is not node and self.chance(60):
                self.put(other, Suspected(node.id))
                self._later(other, self.span_ns(100, 4000), partial(self.put, other, Cleared(node.id)))

    def _fault_move(self, _: Node) -> None:
        for owner in self.nodes:
            if owner.running:
                self.put(owner, MoveAsked(self.nodes[self.below(len(self.nodes))].id))

    def _fault_holders(self, _: Node) -> None:
        for owner in self.nodes:
            if owner.running:
                others = tuple(one.id for one in self.nodes if one is not owner and self.chance(60))
                self.put(owner, HoldersAsked((owner.id, *others)))

    # The whole story.

    def begin(self) -> None:
        for node in self.nodes:
            self.start(node)
            self.client(node)

    def heal(self) -> None:
        """End all faults."""
        self.faulty, self.loss_percent = False, 0
        self.cut_off.clear()
        for node in self.nodes:
            node.full, node.stalled_ns = False, 0
            self.resume(node)
            self.start(node)
            for other in self.nodes:
                self.put(node, Cleared(other.id))

    def settled(self) -> bool:
        """Return whether one node owns the environment, and all its holders have what was committed lately."""
        owners = [node for node in self.nodes if node.machine is not None and node.machine.role == OWNER]
        if len(owners) != 1 or owners[0].machine is None or owners[0].held:
            return False
        holders = [self.nodes[self._index_of[NodeId(holder)]] for holder in owners[0].machine.holders]
        return all(node.committed > self._goal for node in holders)

    _goal = 0

    def story(self) -> None:
        """Faults, healing, and work as before."""
        self.begin()
        self.after(self.span_ns(500, 2500), self._fault)
        self.run(FAULTS_NS)
        self.heal()
        self._goal = len(self.committed) + 3
        if not self.run(self.now_ns + HEALED_NS, self.settled):
            states = [
                f"{node.index}: {machine.role} of {machine.epoch}, {machine.committed} of {machine.last} committed, "
                f"holders {[self._index_of[NodeId(one)] for one in machine.holders]}, held {node.held}"
                for node in self.nodes
                if (machine := node.machine) is not None
            ]
            raise self.fail("after healing one owner goes on", f"goal {self._goal}; " + "; ".join(states))
        self.stats["committed"] = len(self.committed)


def main(first: int, last: int) -> int:
    """Run seeds; return how many failed."""
    failed = 0
    totals: dict[str, int] = {}
    for seed in range(first, last + 1):
        world = HoldingWorld(seed)
        try:
            world.story()
        except SimulationFailure as failure:
            failed += 1
            print(failure)
        for what, count in world.stats.items():
            totals[what] = totals.get(what, 0) + count
    print(f"{last - first + 1} seeds, {failed} failed; {dict(sorted(totals.items()))}")
    return failed


if __name__ == "__main__":
    import sys

    sys.exit(1 if main(int(sys.argv[1]), int(sys.argv[-1])) else 0)
