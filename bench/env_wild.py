# SPDX-License-Identifier: Apache-2.0
"""Random lives of the application ``Wild``, each replayed from begin and checkpoints: part of bench/env.py.

Everything follows from the seed; nothing here waits or writes. What drives the environment is ``Runner``, as in a node,
and what it makes goes through the bytes of journal and snapshots.
"""

import time
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Final, final

import msgspec
from env_child import HERE

from atoll.domain.loading import Loaded, bundle_of, load
from atoll.env.changes import PeerSlow
from atoll.env.history import decode_body, decode_snapshot
from atoll.env.records import Arrived, Began, Confirmed, Effect, Fired, Held, Item, Opened, Post, Told
from atoll.env.runner import Runner

__all__ = ["Life", "trial"]

EVENTS: Final = 10_000
MS_NS: Final = 1_000_000
NODE: Final = bytes(10)
PARTIES: Final = 4
CHECKPOINTS_REPLAYED: Final = 3  # Of each life, beside the begin.
KINDS: Final = (
    *("reply", "draw", "timer", "cancel", "call", "defer", "answer"),
    *("nested", "deep-fail", "end", "space", "log", "fail"),
)

_encode: Final = msgspec.msgpack.Encoder().encode
_items: Final = msgspec.msgpack.Decoder(list[Item])


@dataclass(frozen=True)
class Life:
    """What came of one seed; seconds of one process.

    Attributes:
        difference: What a replay did otherwise; empty: nothing.
        replays: How many there were.
    """

    seed: int
    events: int
    effects: int
    failures: int
    checkpoints: int
    replays: int
    lived_s: float
    replayed_s: float
    difference: str


@cache
def _loaded() -> Loaded:
    return load(bundle_of(f"{HERE / 'env_apps.py'}:Wild"))


@dataclass
class _Party:
    id: bytes
    sent: int = 0
    asked: int = 0
    confirmed: int = 0
    received: int = 0
    calls: list[int] = field(default_factory=list[int])  # Of the environment's, to be answered.


@final
class _World:
    """What surrounds the environment: parties, a clock, a journal."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.now_ns = 1_800_000_000_000_000_000
        loaded = _loaded()
        self.runner = Runner(loaded.program, loaded.code)
        self.parties = [_Party(bytes([number]) * 16) for number in range(1, PARTIES + 1)]
        self.bodies: list[bytes] = []
        self.snapshots: dict[int, bytes] = {}
        self.effects = 0
        self.has_tasks = seed % 4 == 0  # While a coroutine waits there is no checkpoint: not in all lives.

    def live(self) -> None:
        """Go through the whole of it."""
        began = Began(bytes(15) + b"e", self.rng.randbytes(32), "wild", _loaded().code, _encode({}), NODE)
        self.runner.take(began, self.now_ns)
        self.runner.take(Held((NODE,), 1), self.now_ns)
        while self.runner.environment.events < EVENTS:
            self.now_ns += self.rng.randrange(3 * MS_NS)
            self._ring()
            self._happen()
            if self.rng.random() < 0.3:
                self._block()
        while not self.runner.environment.is_quiescent:
            self.now_ns += 10 * MS_NS
            self._ring()
        self._block()

    def _happen(self) -> None:
        chance, party = self.rng.random(), self.rng.choice(self.parties)
        if chance < 0.85:
            count = self.rng.randrange(1, 16)
            items = [self._item(party) for _ in range(count)]
            self.runner.take(Arrived(party.id, party.sent + 1, msgspec.Raw(_encode(items))), self.now_ns)
            party.sent += count
        elif chance < 0.95:
            if party.received > party.confirmed:
                party.confirmed = self.rng.randrange(party.confirmed, party.received + 1)
                self.runner.take(Confirmed(party.id, party.confirmed), self.now_ns)
        elif chance < 0.98:
            event = PeerSlow("somebody", self.rng.random() < 0.5, "a disk")
            self.runner.take(Told(msgspec.Raw(_encode(event))), self.now_ns)
        else:
            self.runner.take(Opened(NODE, "one", self.runner.epoch + 1), self.now_ns)

    def _item(self, party: _Party) -> Item:
        if party.calls and self.rng.random() < 0.3:
            event, re = {"is": "Told", "n": self.rng.randrange(1000)}, party.calls.pop()
            return Item(msgspec.Raw(_encode(event)), re=re)
        ask = 0
        if self.rng.random() < 0.5:
            party.asked += 1
            ask = party.asked
        number = self.rng.randrange(1000)
        if self.has_tasks and self.rng.random() < 0.01:
            return Item(msgspec.Raw(_encode({"is": "Slow", "n": number})), ask=ask)
        kind = self.rng.choice(KINDS)
        if kind == "fail" and self.rng.random() < 0.5:
            kind = "what-nobody-knows"
        return Item(msgspec.Raw(_encode({"is": "Act", "kind": kind, "n": number})), ask=ask)

    def _ring(self) -> None:
        while (due_ns := self.runner.environment.deadline_ns) is not None and due_ns <= self.now_ns:
            self.runner.take(Fired(), self.now_ns)

    def _block(self) -> None:
        runner = self.runner
        if runner.environment.is_quiescent and self.rng.random() < 0.02:
            runner.checkpoint(self.now_ns)
        made = runner.block()
        if made is None:
            return
        self.bodies.append(made.body)
        if made.snapshot is not None:
            self.snapshots[made.number] = made.snapshot
        for effect in runner.release(made.number):
            self._deliver(effect)

    def _deliver(self, effect: Effect) -> None:
        self.effects += 1
        if isinstance(effect, Post):
            for party in self.parties:
                if party.id == effect.party:
                    party.received = max(party.received, effect.first + effect.count - 1)
                    party.calls += [item.ask for item in _items.decode(effect.items) if item.ask]


def trial(seed: int) -> Life:
    """Live one life and replay it."""
    began = time.perf_counter()
    world = _World(seed)
    world.live()
    lived_s = time.perf_counter() - began
    numbers = sorted(world.snapshots)
    starts = [0, *world.rng.sample(numbers, min(len(numbers), CHECKPOINTS_REPLAYED))]
    difference, replayed_s = "", 0.0
    for start in starts:
        began = time.perf_counter()
        difference = difference or _replayed(world, start)
        replayed_s = replayed_s or time.perf_counter() - began
    return Life(
        seed=seed,
        events=world.runner.environment.events,
        effects=world.effects,
        failures=world.runner.failures,
        checkpoints=len(numbers),
        replays=len(starts),
        lived_s=lived_s,
        replayed_s=replayed_s,
        difference=difference,
    )


def _replayed(world: _World, start: int) -> str:
    """Replay from the block of a checkpoint, or from the begin; return what differs."""
    loaded = _loaded()
    snapshot = (start, decode_snapshot(world.snapshots[start])) if start else None
    runner = Runner(loaded.program, loaded.code, snapshot)
    try:
        for number, body in enumerate(world.bodies[start:], start + 1):
            runner.redo(number, decode_body(body))
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is the difference.
        return f"from block {start}: {type(error).__name__}: {error}"
    if runner.digest != world.runner.digest:
        return f"from block {start}: effects"
    if runner.environment.snapshot() != world.runner.environment.snapshot():
        return f"from block {start}: state"
    return ""
