# SPDX-License-Identifier: Apache-2.0
"""Time, chance, the network between the computers, and what their overlay tells them of each other."""

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Final, final

from atoll.base.ids import NodeId
from atoll.base.units import HOUR_NS, MICROSECOND_NS, MILLISECOND_NS
from atoll.env.chain import Sealer
from atoll.env.holding.events import KeepPromise
from atoll.env.keepers import Peer
from atoll.env.messages import Carried, Message, Receipt, Refusal, decode_message
from atoll.env.orders import RecorderOrder
from atoll.lab.stewards.checks import Checks
from atoll.lab.stewards.clients import Client
from atoll.lab.stewards.node import Computer, Process
from atoll.lab.stewards.recorder import Signatures
from atoll.sim import SimulationFailure, derive, generator, seconds

__all__ = ["EVENTS_MAX", "StewardWorld"]

EVENTS_MAX: Final = 200_000  # Limit. Of one run; more is a storm of messages.
OVERLAY_NS: Final = 500 * MILLISECOND_NS
LOST_AFTER_NS: Final = 1500 * MILLISECOND_NS  # What the overlay takes to call a member lost.
COMMAND: Final = "make sim SEED={seed} SIM_ARGS='--only environments'"


@final
class StewardWorld:
    """All computers, all clients, and what lies between them.

    Args:
        seed: The whole cause.

    Attributes:
        now_ns: Time.
        computers: In order.
        clients: In order.
        checks: What must hold.
        schedule: What went wrong so far, for people.
        counts: How often what happened.
        crash: Cuts the power of a computer.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.now_ns = seed, 0
        self.random: Final[Random] = generator(seed, "environments")
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._counter = 0
        self.faulty = True
        self.loss_percent = 2
        self.twice_percent = (0, 2, 10)[self.below(3)]
        self.late_percent = (1, 5, 20)[self.below(3)]
        self.slow_percent = (0, 3, 20)[self.below(3)]
        self.hasty_permille = (0, 0, 3, 15)[
            self.below(4)
        ]  # Of what is written, so much is followed by a crash at once.
        self.crash: Callable[[Computer], object] = _nothing
        self.delay_ns = (1 + self.below(30)) * MILLISECOND_NS
        self.cut_off: dict[tuple[int, int], int] = {}
        self.silent_ns: dict[tuple[int, int], int] = {}  # Since when one cannot hear another.
        self.wrong: dict[tuple[int, int], tuple[int, Peer]] = {}
        self.schedule: list[str] = []
        self.counts: dict[str, int] = {}
        sealers: dict[NodeId, Sealer] = {}
        signatures = Signatures()
        count = 3 + self.below(3)
        self.computers = [Computer(self, index, sealers, signatures) for index in range(count)]
        self._of = {computer.id: computer for computer in self.computers}
        self.clients = [
            Client(self, index, self.computers[index % count], derive(seed, f"client {index}")[:16])
            for index in range(2 + self.below(3))
        ]
        by_party = {client.party: client for client in self.clients}
        self.checks = Checks(self.computers, by_party, signatures, self.failed)

    # Chance and time.

    def seed_of(self, purpose: str) -> bytes:
        """Return 32 bytes."""
        return derive(self.seed, purpose)

    def below(self, bound: int) -> int:
        """Draw a number."""
        return self.random.getrandbits(40) % bound

    def chance(self, percent: int) -> bool:
        """Draw whether."""
        return self.below(100) < percent

    def span_ns(self, first_ms: int, last_ms: int) -> int:
        """Draw a time."""
        return first_ms * MILLISECOND_NS + self.below((last_ms - first_ms) * 1000 + 1) * MICROSECOND_NS

    def after(self, span_ns: int, action: Callable[[], object]) -> None:
        """Do this later."""
        self._counter += 1
        heappush(self._heap, (self.now_ns + max(0, span_ns), self._counter, action))

    def run(self, until_ns: int, is_done: Callable[[], bool] | None = None) -> bool:
        """Let time pass; return whether it was done before its end."""
        look_ns = self.now_ns
        while self._heap and self._heap[0][0] <= until_ns:
            self.now_ns, _, action = heappop(self._heap)
            action()
            if self._counter >= EVENTS_MAX:
                raise self.failed("what happens is bounded", f"{self._counter} events")
            if is_done is not None and self.now_ns >= look_ns:
                look_ns = self.now_ns + 50 * MILLISECOND_NS
                if is_done():
                    return True
        self.now_ns = until_ns
        return False

    def tally(self, what: str) -> None:
        """Count."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def note(self, what: str) -> None:
        """Note something for the schedule."""
        self.schedule.append(f"{seconds(self.now_ns)} {what}")

    def failed(self, invariant: str, detail: str) -> SimulationFailure:
        """Return the failure to raise."""
        failure = SimulationFailure(self.seed, self.now_ns, invariant, detail, COMMAND.format(seed=self.seed))
        failure.add_note("schedule:\n  " + "\n  ".join(self.schedule))
        return failure

    # What computers need.

    def disk_ns(self, computer: Computer) -> int:
        """Return how long the disk takes."""
        wait_ns = max(0, computer.stalled_ns - self.now_ns)
        is_slow = self.faulty and self.chance(self.slow_percent)
        return wait_ns + (self.span_ns(20, 300) if is_slow else self.span_ns(0, 4))

    def refuses(self, computer: Computer) -> bool:
        """Return whether the disk refuses."""
        return computer.full and self.chance(80)

    def send(self, source: Computer, target: NodeId, payload: bytes) -> None:
        """Carry bytes to another computer."""
        computer = self._of[target]
        copies = 1
        if self.faulty:
            if self.chance(self.loss_percent):
                return
            # What clients sent is never carried twice, by streams or by datagrams (ADR 0045): only senders repeat.
            copies += self.chance(self.twice_percent) and not self._is_of_client(payload)
        for _ in range(copies):
            late_ns = 0  # When all is well a link is a stream, which keeps the order.
            if self.faulty:
                late_ns = self.span_ns(0, 1500 if self.chance(self.late_percent) else 4)
            self.after(self.delay_ns + late_ns, lambda: self._arrive(source, computer, payload))

    def _is_of_client(self, payload: bytes) -> bool:
        message = decode_message(payload)
        return isinstance(message, Carried | Receipt | Refusal) and any(
            message.source == client.party for client in self.clients
        )

    def _arrive(self, source: Computer, target: Computer, payload: bytes) -> None:
        if (source.index, target.index) not in self.cut_off:
            target.put(lambda process: process.from_node(source.id, payload))

    def leaves(self, message: Message, computer: Computer) -> None:
        """Look at what leaves a steward."""
        self.checks.leaves(message, computer)

    def looked(self, process: Process) -> None:
        """Look at a steward after each input."""
        self.checks.looked(process)

    def forgets(self, computer: Computer, identity: bytes) -> None:
        """Look at a journal that is about to be put aside."""
        self.checks.forgets(computer, identity)

    def asked(self, computer: Computer, order: RecorderOrder) -> None:
        """Crash a node in the moment in which it hurts most."""
        if self.faulty and self.below(1000) < self.hasty_permille * (5 if isinstance(order, KeepPromise) else 1):
            self.after(self.span_ns(0, 60), lambda: self.crash(computer) if self.faulty else None)

    # The overlay.

    def tell_members(self) -> None:
        """Tell each computer who is there; for ever."""
        for one in self.computers:
            seen: dict[NodeId, Peer] = {}
            for other in self.computers:
                if other is not one:
                    seen[other.id] = self._seen(one, other)
            if seen != one.members:
                one.members = seen
                one.put(partial(_meet, seen))
        self.after(OVERLAY_NS, self.tell_members)

    def _seen(self, one: Computer, other: Computer) -> Peer:
        pair = (one.index, other.index)
        is_deaf = other.process is None or other.paused or pair in self.cut_off or pair[::-1] in self.cut_off
        if not is_deaf:
            self.silent_ns.pop(pair, None)
        since_ns = self.silent_ns.setdefault(pair, self.now_ns) if is_deaf else self.now_ns
        until_ns, wrong = self.wrong.get(pair, (0, Peer("")))
        if until_ns > self.now_ns:
            return wrong
        return Peer(other.name, lost=self.now_ns - since_ns >= LOST_AFTER_NS)


def _nothing(_: Computer) -> None:
    """Crash nobody."""


def _meet(seen: dict[NodeId, Peer], process: Process) -> None:
    process.members(seen)


YEAR_NS: Final = 366 * 24 * HOUR_NS
