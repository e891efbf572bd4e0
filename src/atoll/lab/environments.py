# SPDX-License-Identifier: Apache-2.0
"""Environments on simulated nodes under a swarm of faults, from one seed; then everything heals and must be well.

Crashes of a node or of the process that runs environments, pauses, partitions, loss, copies, full and slow disks,
clocks that are set, wrong news of the overlay, moves, upgrades, checkpoints and an end, while clients ask for numbered
operations. ``checks`` says what must hold in each event, and here is what must be true in the end.
"""

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any, Final, final

from atoll.base.errors import UserError
from atoll.base.units import MILLISECOND_NS, MINUTE_NS, SECOND_NS
from atoll.env.beginning import Wanted
from atoll.env.changes import Put, Take
from atoll.env.keepers import Peer
from atoll.env.orders import Moment
from atoll.env.parties import Ref
from atoll.env.query import where
from atoll.env.steward import Steward
from atoll.env.tuples import Tuple
from atoll.lab.stewards import apps
from atoll.lab.stewards.blueprint import GENERATIONS, PLANTED, Planted, bundle, loaded
from atoll.lab.stewards.clients import Client, Operation
from atoll.lab.stewards.node import GIVEN_UP, Computer
from atoll.lab.stewards.world import YEAR_NS, StewardWorld

__all__ = ["FAULTS", "Story", "tell"]

FAULTS: Final = (
    "crash",
    "process",
    "pause",
    "partition",
    "loss",
    "full",
    "stall",
    "clock",
    "move",
    "upgrade",
    "checkpoint",
    "wrong",
)
FAULTS_NS: Final = 12 * SECOND_NS
LONG_NS: Final = 50 * SECOND_NS  # Long enough for a node that is lost to be given up.
HEALED_NS: Final = 30 * SECOND_NS
ASK_NS: Final = 8 * SECOND_NS
MONEY: Final = 1000
DEFINITE: Final = ("raised", "unhandled", "killed", "queue-full", "disk-full", "unknown", "ended", "forbidden")


@final
class Story:
    """One run.

    Args:
        seed: The whole cause.
        kinds: Faults that may occur.
    """

    def __init__(self, seed: int, kinds: tuple[str, ...] = FAULTS) -> None:
        self.world: Final = StewardWorld(seed)
        world = self.world
        world.crash = self._fault_crash
        self.ids: dict[str, bytes] = {}
        self.copies: dict[str, int] = {}
        self.stopped: dict[str, int] = {}
        self.pace_ms = (200, 600, 1500)[world.below(3)]
        self.kinds = tuple(kind for kind in kinds if world.chance(65)) or kinds
        self.span_ns = LONG_NS if world.chance(6) else FAULTS_NS
        self._commands = 0
        self._probes: dict[str, Operation] = {}
        self._swept: Operation | None = None

    # The story.

    def tell(self) -> None:
        """Run it.

        Raises:
            SimulationFailure: Something did not hold.
        """
        world = self.world
        for computer in world.computers:
            computer.boot()
        world.tell_members()
        for planted in PLANTED:
            if not planted.is_spare or world.chance(60):
                world.after(world.span_ns(5, 400), partial(self._plant, planted))
        for client in world.clients:
            world.after(world.span_ns(0, 50), client.keep)
            world.after(world.span_ns(300, 900), partial(self._work, client))
        world.after(world.span_ns(300, 3000), self._fault)
        if self.span_ns == LONG_NS:
            world.after(world.span_ns(1000, 4000), self._long)
        world.run(self.span_ns)
        self._heal()
        if not world.run(world.now_ns + HEALED_NS, lambda: self._lacks() == ""):
            raise world.failed("after healing all is well", self._lacks())
        world.checks.journals()
        self._judge()

    def _plant(self, planted: Planted) -> None:
        world = self.world
        computer = world.computers[world.below(len(world.computers))]
        process = computer.process
        if process is None or not process.is_ready or computer.paused:
            world.after(world.span_ns(100, 300), partial(self._plant, planted))
            return
        found = loaded(planted.app)
        wanted = Wanted(planted.name, found.code, b"\x80", (3, 3, 3, 3, 1, 2, 5)[world.below(7)])

        def begin() -> None:
            self.ids[planted.name] = process.create(wanted, found.program)
            self.copies[planted.name] = wanted.copies
            world.note(f"{planted.name} begins on {computer.name}, {wanted.copies} copies")

        process.keep_code(found.code, bundle(planted.app), begin)
        if planted.name == "brief" and world.chance(50):
            world.after(world.span_ns(1000, 12000), partial(self._stop, "brief"))

    def _is_there(self, name: str) -> bool:
        return name in self.ids and self.ids[name] in self.world.checks.truths

    def _owner(self, name: str) -> Computer | None:
        identity = self.ids.get(name, b"")
        for computer in self.world.computers:
            if computer.process is not None and not computer.paused:
                hosted = computer.process.steward.hosted.get(identity)
                if hosted is not None and hosted.runner is not None:
                    return computer
        return None

    # What clients do.

    def _work(self, client: Client) -> None:
        world = self.world
        if not world.faulty:
            return
        world.after(world.span_ns(20, 350), partial(self._work, client))
        names = [name for name in self.ids if self._is_there(name)]
        if not names:
            return
        name = names[world.below(len(names))]
        make = self._operation(name)
        if make is not None:
            client.ask(self.ids[name], make, ASK_NS)

    def _operation(self, name: str) -> Callable[[int, int], Tuple] | None:
        world = self.world
        match name:
            case "counter" | "brief":
                return apps.Spoil if world.chance(12) else apps.Add
            case "bank-a" | "bank-b":
                other = "bank-b" if name == "bank-a" else "bank-a"
                if not self._is_there(other):
                    return None
                to, amount = Ref(self.ids[other]), world.below(20)
                return lambda who, number: apps.Transfer(who, number, amount, to)
            case "pulse":
                delay_ms = world.below(1500)
                return lambda who, number: apps.Later(who, number, delay_ms)
            case "relay":
                if not self._is_there("counter"):
                    return None
                to, timeout_ms = Ref(self.ids["counter"]), (200, 2000, 5000)[world.below(3)]
                return lambda who, number: apps.Relayed(who, number, to, timeout_ms)
            case _:
                return self._on_board()

    def _on_board(self) -> Callable[[int, int], Tuple]:
        if self.world.chance(50):
            return lambda who, number: Put(apps.Job(who, number), 600.0)
        return _take

    # What goes wrong.

    def _fault(self) -> None:
        world = self.world
        if not world.faulty:
            return
        world.after(world.span_ns(20, self.pace_ms), self._fault)
        kind = self.kinds[world.below(len(self.kinds))]
        computer = world.computers[world.below(len(world.computers))]
        if world.chance(50) and (owner := self._owner(PLANTED[world.below(len(PLANTED))].name)) is not None:
            computer = owner
        world.tally(kind)
        getattr(self, f"_fault_{kind}")(computer)

    def _long(self) -> None:
        """Let one node be away for so long that it is given up."""
        world = self.world
        computer = world.computers[world.below(len(world.computers))]
        world.note(f"{computer.name} is away for long")
        computer.kill(power=True)
        world.after(40 * SECOND_NS, computer.boot)

    def _fault_crash(self, computer: Computer) -> None:
        self.world.note(f"{computer.name} loses its power")
        computer.kill(power=True)
        computer.full, computer.stalled_ns = False, 0
        self.world.after(self.world.span_ns(1, 3000), computer.boot)

    def _fault_process(self, computer: Computer) -> None:
        self.world.note(f"the process of {computer.name} dies")
        computer.kill(power=False)
        self.world.after(self.world.span_ns(1, 1000), computer.boot)

    def _fault_pause(self, computer: Computer) -> None:
        if computer.process is None or computer.paused:
            return
        world, process = self.world, computer.process
        span_ns = world.span_ns(100, 5000)
        world.note(f"{computer.name} stands still for {span_ns // MILLISECOND_NS} ms")
        computer.paused = True

        def resume() -> None:
            if computer.process is process:
                computer.resume()

        world.after(span_ns, resume)

    def _fault_partition(self, computer: Computer) -> None:
        world = self.world
        inside = [computer, *(one for one in world.computers if one is not computer and world.chance(30))]
        pairs = [(one.index, two.index) for one in inside for two in world.computers if two not in inside]
        if not world.chance(30):
            pairs += [(two, one) for one, two in pairs]
        world.note(f"cut off: {pairs}")
        for pair in pairs:
            world.cut_off[pair] = world.cut_off.get(pair, 0) + 1
        world.after(world.span_ns(100, 5000), partial(self._join, pairs))

    def _join(self, pairs: list[tuple[int, int]]) -> None:
        cut_off = self.world.cut_off
        for pair in pairs:
            if pair in cut_off:
                cut_off[pair] -= 1
                if not cut_off[pair]:
                    del cut_off[pair]

    def _fault_loss(self, _: Computer) -> None:
        self.world.loss_percent = (0, 2, 10, 40)[self.world.below(4)]
        self.world.note(f"{self.world.loss_percent} % are lost")

    def _fault_full(self, computer: Computer) -> None:
        self.world.note(f"the disk of {computer.name} is full")
        computer.full = True
        self.world.after(self.world.span_ns(100, 6000), lambda: setattr(computer, "full", False))

    def _fault_stall(self, computer: Computer) -> None:
        self.world.note(f"the disk of {computer.name} hangs")
        computer.stalled_ns = self.world.now_ns + self.world.span_ns(500, 3000)

    def _fault_clock(self, computer: Computer) -> None:
        world = self.world
        spans = (MINUTE_NS, 60 * MINUTE_NS, YEAR_NS, 20 * YEAR_NS, 200 * MILLISECOND_NS)
        span_ns = spans[world.below(len(spans))] * (1 if world.chance(50) else -1)
        computer.wall_ns = 0 if world.chance(25) else span_ns
        world.note(f"the clock of {computer.name} is {computer.wall_ns // SECOND_NS} s ahead")

    def _fault_move(self, _: Computer) -> None:
        world = self.world
        name = PLANTED[world.below(len(PLANTED))].name
        owner, target = self._owner(name), world.computers[world.below(len(world.computers))]
        if owner is not None and owner.process is not None:
            world.note(f"{name} is to move from {owner.name} to {target.name}")
            self._commands += 1
            owner.process.command(partial(_move, self.ids[name], target, self._commands))

    def _fault_upgrade(self, _: Computer) -> None:
        world = self.world
        planted = PLANTED[world.below(len(PLANTED))]
        owner = self._owner(planted.name)
        if owner is not None and owner.process is not None:
            generation = 1 + world.below(GENERATIONS)
            found, content = loaded(planted.app, generation), bundle(planted.app, generation)
            process, where = owner.process, f"{planted.name} on {owner.name} to generation {generation}"

            def upgrade() -> None:
                is_done = process.command(
                    lambda steward, now: steward.upgrade(self.ids[planted.name], found.program, found.code, now)
                )
                world.tally(f"upgrade {is_done}")
                world.note(f"{where}: {is_done}")

            process.keep_code(found.code, content, upgrade)

    def _fault_checkpoint(self, _: Computer) -> None:
        name = PLANTED[self.world.below(len(PLANTED))].name
        owner = self._owner(name)
        if owner is not None and owner.process is not None:
            is_done = owner.process.command(lambda steward, now: steward.checkpoint(self.ids[name], now))
            self.world.note(f"checkpoint of {name} on {owner.name}: {is_done}")

    def _fault_wrong(self, computer: Computer) -> None:
        world = self.world
        peer = Peer(computer.name, lost=world.chance(60), slow="disk" if world.chance(60) else "")
        world.note(f"{computer.name} is said to be {'lost' if peer.lost else 'there'}, {peer.slow or 'not'} slow")
        for one in world.computers:
            if one is not computer and world.chance(60):
                world.wrong[one.index, computer.index] = (world.now_ns + world.span_ns(200, 4000), peer)

    def _stop(self, name: str) -> None:
        owner = self._owner(name)
        if owner is None or owner.process is None or not self._is_there(name):
            if self.world.faulty:
                self.world.after(300 * MILLISECOND_NS, partial(self._stop, name))
            return
        self.stopped[name] = self.world.now_ns
        self.world.note(f"{name} is stopped on {owner.name}")
        owner.process.command(lambda steward, now: steward.stop(self.ids[name], now))

    def _heal(self) -> None:
        world = self.world
        world.note("all heals")
        world.faulty, world.loss_percent = False, 0
        world.cut_off.clear()
        world.wrong.clear()
        for computer in world.computers:
            computer.full, computer.stalled_ns, computer.wall_ns = False, 0, 0
            computer.resume()
            computer.boot()

    def digest(self) -> str:
        """Return what stands for the whole run: equal for two runs of one seed."""
        world = self.world
        heads = [head for truth in world.checks.truths.values() for head in truth.heads]
        outcomes = [one.outcome.encode() for client in world.clients for one in client.operations]
        return blake2b(b"|".join((*heads, *outcomes, b"%d" % world.now_ns)), digest_size=8).hexdigest()

    # How it ends.

    def _lacks(self) -> str:
        """Return what is not well yet; empty: nothing."""
        world = self.world
        for name, identity in self.ids.items():
            if not self._is_there(name):
                continue
            truth = world.checks.truths[identity]
            if name in self.stopped:
                if truth.runner is None or not truth.runner.is_over:
                    self._stop(name)  # It changed hands before it was recorded; a person would see that, and try again.
                    return f"{name} was stopped, and has not ended"
                if not self._is_forgotten(name):
                    return f"{name} has ended, and is kept, or who calls it is not told"
                continue
            owners = [one for one in world.computers if (found := one.process) and _runs(found.steward, identity)]
            if len(owners) != 1:
                return f"{name} runs on {[one.name for one in owners]}"
            process = owners[0].process
            assert process is not None
            holding = process.steward.hosted[identity].holding
            wanted = min(self.copies[name], len(world.computers))
            if len(holding.holders) != wanted:
                return f"{name} has {len(holding.holders)} holders of {wanted}"
            if not self._answers(name):
                return f"{name} does not answer"
            assert truth.runner is not None
            if owed := truth.runner.environment.owed():
                return f"{name} has {len(owed)} parcels for {world.checks.name_of(owed[0][0])}"
            for client in world.clients:
                if not client.desk.is_settled(identity):
                    return f"client {client.index} has something for {name}"
        waiting = [client.index for client in world.clients if not client.is_idle]
        if waiting:
            return f"clients {waiting} wait"
        if self._is_there("board") and self._swept is None:
            client = world.clients[0]
            self._swept = client.ask(self.ids["board"], _take_all, 10 * SECOND_NS)
            return "the board is swept"
        for name in ("bank-a", "bank-b"):
            fields = self._fields(name)
            if fields and fields["asked"] != fields["outcomes"]:
                return f"{name} waits for {fields['asked'] - fields['outcomes']} calls"
        return ""

    def _is_forgotten(self, name: str) -> bool:
        """Return whether nobody keeps an environment that was stopped, and who calls it is told so."""
        identity = self.ids[name]
        journals = [journal for one in self.world.computers if (journal := one.recorder.journals.get(identity))]
        if any(journal.position.number for journal in journals):  # A blank one is let go of when its process begins.
            return False
        probe = self._probes.get(name)
        if probe is not None and probe.outcome in {"unknown", "ended"}:
            return True
        if probe is not None and probe.outcome:
            del self._probes[name]  # It was asked before the end, and nobody would ask again.
        self._answers(name)
        return False

    def _answers(self, name: str) -> bool:
        world = self.world
        probe = self._probes.get(name)
        if probe is not None and probe.outcome not in {"", "timeout", "unknown", "ended", "queue-full", "disk-full"}:
            return True
        if probe is None or probe.outcome:
            client = world.clients[world.below(len(world.clients))]
            self._probes[name] = client.ask(self.ids[name], lambda _, number: apps.Peek(number), 3 * SECOND_NS)
        return False

    def _fields(self, name: str) -> dict[str, Any]:
        truth = self.world.checks.truths.get(self.ids.get(name, b""))
        return {} if truth is None else truth.fields()

    def _judge(self) -> None:
        """Compare what clients were told with what was done."""
        world = self.world
        done = {name: self._fields(name).get("done", {}) for name in self.ids}
        names = {identity: name for name, identity in self.ids.items()}
        for client in world.clients:
            for operation in client.operations:
                world.tally(f"outcome {operation.outcome}")
                if operation.what in {"Add", "Spoil", "Transfer", "Later", "Relayed"}:
                    self._judge_one(operation, names[operation.environment], done)
        for name, numbers in done.items():
            for who, row in numbers.items():
                if len(dict.fromkeys(row)) != len(row):
                    raise world.failed("each operation is applied once", f"{name}, of {who}: {row}")
                if name != "pulse" and row != sorted(row):
                    raise world.failed("operations are applied in order", f"{name}, of {who}: {row}")
        self._judge_state()
        self._judge_board()

    def _judge_one(self, operation: Operation, name: str, done: dict[str, Any]) -> None:
        times = done[name].get(operation.who, []).count(operation.number)
        what = f"{operation.what} {operation.number} of client {operation.who} at {name}: "
        what += f"{operation.outcome} ({operation.text}), applied {times} times"
        is_relayed = operation.what == "Relayed"  # A relay passes on what it was told, and has run all the same.
        if operation.outcome == "ok" and times != 1:
            raise self.world.failed("what was acknowledged is applied once", what)
        if operation.outcome in DEFINITE and times and not is_relayed:
            raise self.world.failed("what was refused is not applied", what)

    def _judge_state(self) -> None:
        world = self.world
        banks = [fields for name in ("bank-a", "bank-b") if (fields := self._fields(name))]
        is_sure = GIVEN_UP not in world.counts  # Else something may be lost, and a log says so.
        total = sum(fields["money"] for fields in banks)
        if len(banks) == 2 and (total > 2 * MONEY or (is_sure and total < 2 * MONEY)):
            raise world.failed("money is neither lost nor made", f"{[fields['money'] for fields in banks]}")
        for fields in banks if is_sure else ():
            for row in fields["got"].values():
                if row != list(range(1, len(row) + 1)):
                    raise world.failed("each deposit comes once, in order", f"{row}")
        if self._fields("pulse").get("early", 0):
            raise world.failed("no timer is early", f"{self._fields('pulse')['early']}")
        relay, counter = self._fields("relay"), self._fields("counter")
        for who, row in relay.get("answered", {}).items():
            if counter and (lost := [one for one in row if one not in counter["done"].get(who, [])]):
                raise world.failed("what was answered is applied", f"{lost} of {who}")

    def _judge_board(self) -> None:
        """Whatever was put is taken once; leases may end only where a clock was set."""
        world = self.world
        operations = [one for client in world.clients for one in client.operations]
        puts = {(one.who, one.number): one.outcome for one in operations if one.what == "atoll.Put"}
        takes = [one for one in operations if one.what == "atoll.Take"]
        taken = [
            (job["who"], job["number"]) for one in takes if one.outcome == "ok" for job in (one.answer or {})["tuples"]
        ]
        if twice := [job for job in dict.fromkeys(taken) if taken.count(job) > 1]:
            raise world.failed("what is put is taken once", f"{twice}")
        if false := [job for job in taken if puts.get(job) in DEFINITE]:
            raise world.failed("what was refused is not applied", f"jobs {false}")
        is_sure = "clock" not in world.counts and all(one.outcome != "timeout" for one in takes)
        if is_sure and (lost := [job for job, outcome in puts.items() if outcome == "ok" and job not in taken]):
            raise world.failed("what is put is taken once", f"lost: {lost}")


def _take(_: int, __: int) -> Tuple:
    return Take(where(apps.Job))


def _take_all(_: int, __: int) -> Tuple:
    return Take(where(apps.Job), 1000)


def _runs(steward: Steward, identity: bytes) -> bool:
    hosted = steward.hosted.get(identity)
    return hosted is not None and hosted.runner is not None


def _move(identity: bytes, target: Computer, command: int, steward: Steward, now: Moment) -> None:
    steward.move(identity, target.id, command, now)


def tell(seed: int) -> Story:
    """Run one seed.

    Raises:
        SimulationFailure: Something did not hold.
    """
    story = Story(seed)
    try:
        story.tell()
    except UserError as error:
        raise story.world.failed("nothing raises", str(error)) from error
    return story
