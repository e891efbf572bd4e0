# SPDX-License-Identifier: Apache-2.0
"""One machine that decides who owns an environment, with a recorder that answers at once unless it is told not to."""

from collections.abc import Sequence
from typing import TypeVar

from atoll.base.units import MILLISECOND_NS
from atoll.core.machine import Tick
from atoll.env.holding import Block, Holding, HoldingOptions
from atoll.env.holding.events import (
    Heard,
    HoldingEffect,
    HoldingInput,
    Keep,
    KeepPromise,
    KeepSnapshot,
    Kept,
    PromiseKept,
    Proposed,
    Seal,
    Sealed,
    SnapshotKept,
    Tell,
)
from atoll.env.holding.messages import Canvass, HoldingMessage, Prepared, Promised, Store, Stored
from atoll.env.holding.state import HoldingState

A, B, C, D, E, F = (bytes([letter]) * 10 for letter in b"ABCDEF")
THREE = (A, B, C)
SIGN = Store(1, 1, 1, (), 0, 0, counted=True)
Rows = tuple[tuple[int, int, tuple[bytes, ...]], ...]
Kind = TypeVar("Kind")


def block(number: int, epoch: int, holders: tuple[bytes, ...] = ()) -> Block:
    return Block(number, epoch, holders, b"block %d of %d" % (number, epoch))


def rows(*epochs: int) -> Rows:
    """Blocks 1, 2, ... of these epochs."""
    return tuple((number, epoch, ()) for number, epoch in enumerate(epochs, 1))


class Bench:
    """A machine, its time, and what it did."""

    def __init__(
        self,
        holders: tuple[bytes, ...] = THREE,
        *,
        own: bytes = A,
        blocks: Rows = (),
        promise: tuple[int, bytes] = (0, b""),
        base: tuple[int, int] = (0, 0),
        floor: tuple[int, int] = (0, 0),
    ) -> None:
        self.now_ns = 0
        self.answers = True  # The recorder does.
        self.machine = Holding.create(HoldingOptions(own, b"seed", promise, base, holders, blocks, floor), 0)
        self.effects: list[HoldingEffect] = []
        self._obey(self.machine.start(0))

    @property
    def state(self) -> HoldingState:
        return self.machine._state  # pyright: ignore[reportPrivateUsage]  (what cannot be brought about is set)

    def role(self) -> str:
        return self.machine.role

    def _obey(self, effects: Sequence[HoldingEffect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            answer = self._answer(effect) if self.answers else None
            if answer is not None:
                self._obey(self.machine.handle(answer, self.now_ns))

    def _answer(self, effect: object) -> HoldingInput | None:
        match effect:
            case Seal(epoch, number):
                return Sealed(number, epoch, b"sealed %d" % number)
            case Keep(number, epoch):
                return Kept(number, epoch)
            case KeepPromise(epoch, node):
                return PromiseKept(epoch, node)
            case KeepSnapshot(number, epoch):
                return SnapshotKept(number, epoch)
            case _:
                return None

    def do(self, event: HoldingInput, after_ms: int = 0) -> list[HoldingEffect]:
        """Give an input; return all effects, those upon the recorder's answers included."""
        self.now_ns += after_ms * MILLISECOND_NS
        self.effects = []
        self._obey(self.machine.handle(event, self.now_ns))
        return self.effects

    def hear(self, node: bytes, message: HoldingMessage, after_ms: int = 0) -> list[HoldingEffect]:
        return self.do(Heard(node, message), after_ms)

    def tick(self) -> list[HoldingEffect]:
        """Let time pass until the deadline."""
        due_ns = self.machine.deadline_ns
        assert due_ns is not None
        self.now_ns = max(self.now_ns, due_ns)
        return self.do(Tick())

    def got(self, kind: type[Kind]) -> list[Kind]:
        """What the last input led to, of one kind."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def told(self, node: bytes) -> list[HoldingMessage]:
        """What the last input had told to a node."""
        return [effect.message for effect in self.got(Tell) if effect.node == node]

    # What others do.

    def elect(self, *voters: bytes) -> list[HoldingEffect]:
        """Let time pass until this node stands, and let these vote for it."""
        while self.machine.role == "holder":
            self.tick()
        for node in voters:
            if self.machine.role == "trial":
                self.hear(node, Promised(self.machine.epoch, self.machine.epoch + 1, trial=True, granted=True))
        return self.elect_now(*voters)

    def elect_now(self, *voters: bytes) -> list[HoldingEffect]:
        """Let these vote for this node, which is a candidate."""
        for node in voters:
            if self.machine.role == "candidate":
                self.hear(node, Promised(self.machine.epoch, self.machine.epoch, trial=False, granted=True))
        assert self.machine.role == "owner"
        return self.effects

    def store(self, *blocks: Block, before: tuple[int, int] = (0, 0), **rest: int) -> list[HoldingEffect]:
        """Be told by B, the owner of epoch 1 or as given."""
        message = Store(
            rest.get("epoch", 1),
            *before,
            blocks,
            rest.get("committed", 0),
            rest.get("sent_ns", self.now_ns),
            bool(rest.get("counted", 1)),
        )
        return self.hear(B, message)

    def propose(self, holders: tuple[bytes, ...] = (), *, body: bytes = b"body") -> list[HoldingEffect]:
        return self.do(Proposed(self.machine.epoch, 1, 1, body, holders))

    def stored(self, node: bytes, number: int, *, accepted: bool = True) -> list[HoldingEffect]:
        return self.hear(node, Stored(self.machine.epoch, accepted, number, self.now_ns))

    def prepared(self, node: bytes, failed: str = "") -> list[HoldingEffect]:
        """Be told by the target of a move that it is ready, or why it is not."""
        return self.hear(node, Prepared(self.machine.epoch, failed))

    def canvass(self, node: bytes, epoch: int, last: tuple[int, int] = (0, 0), *, trial: bool = False) -> list[object]:
        """Be asked for a vote by a node whose last block has this (epoch, number)."""
        self.hear(node, Canvass(epoch, last[1], last[0], trial, transfer=False))
        return [message for message in self.told(node) if isinstance(message, Promised)]
