# SPDX-License-Identifier: Apache-2.0
"""The machine that decides, with those of the other nodes, which node owns one environment: Raft, the owner its leader.

Source: D. Ongaro, Consensus: Bridging Theory and Practice, 2014; elections on trial (9.6), transfer of leadership
(3.10), changes of one server at a time (4.1, with the correction of 2015), who is new catches up in rounds (4.2.1),
leaders that step down when alone (6.2).
What is not as there: the log is the journal, which another process writes, so everything waits for its answer; blocks
are told when they are on the owner's own disk; ownership can pass to a node that holds nothing yet; and who hands it
over is no owner from then on, and votes for the other before it is asked.
"""

from collections.abc import Sequence
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError, UsageError
from atoll.base.ids import NODE_ID_BYTES
from atoll.core.entropy import Draws
from atoll.core.machine import MachineKind, Tick
from atoll.env.holding.desk import Desk
from atoll.env.holding.events import (
    BlocksRead,
    Checkpointed,
    Cleared,
    Heard,
    HoldersAsked,
    HoldingEffect,
    HoldingInput,
    KeepFailed,
    Kept,
    MoveAsked,
    PromiseFailed,
    PromiseKept,
    Proposed,
    Ready,
    Sealed,
    SealFailed,
    SnapshotFailed,
    SnapshotKept,
    SnapshotRead,
    Suspected,
)
from atoll.env.holding.keeping import Keeping
from atoll.env.holding.ledger import Configured, Ledger
from atoll.env.holding.messages import (
    Canvass,
    HandOver,
    PartStored,
    Prepare,
    Prepared,
    Promised,
    SnapshotPart,
    Store,
    Stored,
)
from atoll.env.holding.planning import Planning
from atoll.env.holding.serving import Serving
from atoll.env.holding.state import CANDIDATE, OWNER, HoldingOptions, HoldingState, Promise, Role
from atoll.env.holding.voting import Voting

__all__ = ["KIND", "Holding"]


@final
class Holding:
    """The part of one node in the ownership of one environment.

    Make it with ``create`` or ``restore``, then call ``start`` once, then ``handle`` for each input.
    """

    def __init__(self, state: HoldingState) -> None:
        self._state: Final = state
        self._desk: Final = Desk(state)
        self._voting: Final = Voting(self._desk)
        self._keeping: Final = Keeping(self._desk)
        self._serving: Final = Serving(self._desk)
        self._planning: Final = Planning(self._desk, self._serving)

    @classmethod
    def create(cls, options: HoldingOptions, now_ns: int) -> "Holding":
        """Make the machine of a process that starts now.

        Raises:
            CorruptError: The blocks leave a gap, or their epochs go back.
            UsageError: The own id is not a node's.
        """
        if len(options.own) != NODE_ID_BYTES:
            raise UsageError(f"a node id of {len(options.own)} bytes")
        number, epoch = options.base
        ledger = Ledger(number, epoch, number, number)
        ledger.floor_epoch, ledger.floor_number = options.floor
        if options.holders:
            ledger.configs.append(Configured(number, options.holders))
        for block_number, block_epoch, holders in options.blocks:
            if block_number != ledger.last + 1 or block_epoch < ledger.last_epoch:
                raise CorruptError(f"block {block_number} of epoch {block_epoch} after block {ledger.last}")
            ledger.append(block_number, block_epoch, holders)
        ledger.durable = ledger.last
        ledger.writes.clear()
        # A disk that is full may have refused the promise and then taken a block: its epoch is no secret then.
        promise = Promise(*max(options.promise, (ledger.last_epoch, b"")))
        state = HoldingState(options.own, Draws(options.seed), ledger, promise, now_ns=now_ns)
        state.committed = state.matched = number
        return cls(state)

    # What a driver may read.

    @property
    def deadline_ns(self) -> int | None:
        """When a ``Tick`` is owed; None: never, for an owner that is alone, or who is no holder and hears nothing."""
        state = self._state
        dues = [state.promise.retry_ns]
        if state.awaited is not None:
            dues += [state.awaited.until_ns, state.awaited.tell_ns]
        dues += [self._serving.deadline_ns] if state.role == OWNER else [state.election_ns, state.canvass_ns]
        return min((due for due in dues if due is not None), default=None)

    @property
    def role(self) -> Role:
        """What this node is in its epoch."""
        return self._state.role

    @property
    def epoch(self) -> int:
        """The newest epoch that was heard of."""
        return self._state.promise.epoch

    @property
    def owner(self) -> bytes:
        """Who owns the environment in this epoch; empty: not known."""
        return self._state.owner

    @property
    def heir(self) -> bytes:
        """Who was told to take over from this node, while it is not known whether it has; empty: nobody."""
        awaited = self._state.awaited
        return b"" if awaited is None or awaited.tell_ns is None else awaited.target

    @property
    def is_heir(self) -> bool:
        """Whether the owner told this node to take over, and it has not yet."""
        state = self._state
        is_summoned = state.summons is not None and state.summons.epoch == state.promise.epoch
        return is_summoned or (state.role == CANDIDATE and state.transfer)

    @property
    def holders(self) -> tuple[bytes, ...]:
        """Who keeps the journal, by its newest block that says so."""
        return self._state.ledger.holders

    def holders_since(self, number: int) -> tuple[bytes, ...]:
        """Return who holds from exactly this block on; empty: it changes nothing, or is not in the journal."""
        return next((one.holders for one in self._state.ledger.configs if one.number == number), ())

    @property
    def durable(self) -> int:
        """The last block that is on the disk here, with all before it."""
        return self._state.ledger.durable

    def epoch_of(self, number: int) -> int | None:
        """Return the epoch of a block; None: it is before the journal, or not in it."""
        return self._state.ledger.epoch_of(number)

    def knows(self, node: bytes) -> bool:
        """Return whether a node has to do with this environment: it holds it, held it, learns it, or owns it."""
        state = self._state
        if node == state.owner or (state.reign is not None and node in state.reign.peers):
            return True
        return any(node in one.holders for one in state.ledger.configs)

    @property
    def committed(self) -> int:
        """Blocks up to this number are kept by a majority."""
        return self._state.committed

    @property
    def last(self) -> int:
        """The last block, committed or not."""
        return self._state.ledger.last

    @property
    def counts(self) -> dict[str, int]:
        """What was dropped or refused so far, by reason."""
        return dict(self._state.counts)

    def snapshot(self) -> bytes:
        """Return the whole state as MessagePack bytes."""
        return msgspec.msgpack.encode(self._state)

    @classmethod
    def restore(cls, snapshot: bytes) -> "Holding":
        """Make the machine from ``snapshot()`` bytes.

        Raises:
            CorruptError: The bytes do not decode.
        """
        try:
            return cls(msgspec.msgpack.decode(snapshot, type=HoldingState))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CorruptError("a holding snapshot that does not decode") from error

    # Inputs.

    def start(self, now_ns: int) -> Sequence[HoldingEffect]:
        """Return the first effects: a holder that is alone stands at once."""
        self._state.now_ns = now_ns
        self._desk.arm()
        self._voting.stand_alone()
        return self._taken()

    def handle(self, event: HoldingInput, now_ns: int) -> Sequence[HoldingEffect]:
        """Apply one input; return what to do, in order.

        Raises:
            UsageError: Time went back, or a proposal is too large. Nothing that a peer sends can raise.
        """
        state = self._state
        if now_ns < state.now_ns:
            raise UsageError(f"{type(event).__name__} at {now_ns} ns, after {state.now_ns} ns")
        state.now_ns = now_ns
        match event:
            case Heard(node, message):
                self._heard(node, message)
            case Tick():
                self._tick()
            case Sealed() | SealFailed() | Kept() | KeepFailed():
                self._written(event)
            case PromiseKept() | PromiseFailed():
                self._promised(event)
            case Suspected(node):
                self._voting.suspect(node)
            case Cleared(node):
                state.suspected.pop(node, None)
            case MoveAsked(target):
                self._planning.move(target)
            case Ready(failed):
                self._voting.ready(failed)
            case HoldersAsked(holders):
                self._planning.change(holders)
            case Checkpointed(number):
                self._checkpointed(number)
            case SnapshotKept(number, epoch):
                self._keeping.snapshot_kept(number, epoch)
            case SnapshotFailed():
                self._keeping.snapshot_failed()
            case _:
                self._for_owner(event)
        if state.reign is not None:
            self._planning.advance()
        if state.reign is not None:  # The step may have been the last.
            self._serving.tell_hold()
        return self._taken()

    def _taken(self) -> list[HoldingEffect]:
        effects, self._desk.effects = self._desk.effects, []
        return effects

    def _heard(self, node: bytes, message: object) -> None:
        state = self._state
        was_owner = state.role == OWNER
        match message:
            case Store():
                self._keeping.store(node, message)
            case SnapshotPart():
                self._keeping.part(node, message)
            case Canvass():
                self._voting.canvassed(node, message)
                if state.role == OWNER:
                    self._serving.dismiss(node)
            case Promised():
                self._voting.promised(node, message)
            case HandOver():
                self._voting.hand_over(node, message)
            case Prepare():
                self._voting.prepare(node, message)
            case Prepared() if was_owner:
                self._planning.prepared(node, message)
            case Stored() if was_owner:
                self._serving.stored(node, message)
            case PartStored() if was_owner:
                self._serving.part_stored(node, message)
            case _:
                self._desk.count("answer to no owner")
        self._begin(was_owner=was_owner)

    def _begin(self, *, was_owner: bool) -> None:
        """Take up the reign if the input made this node the owner."""
        if self._state.role == OWNER and not was_owner:
            self._planning.begin()
            self._serving.begin()

    def _tick(self) -> None:
        state = self._state
        if state.promise.retry_ns is not None and state.now_ns >= state.promise.retry_ns:
            self._desk.promise_again()
        awaited = state.awaited
        if awaited is not None and awaited.until_ns is not None and state.now_ns >= awaited.until_ns:
            self._keeping.find_nobody()
        elif awaited is not None and awaited.tell_ns is not None and state.now_ns >= awaited.tell_ns:
            self._desk.summon(awaited)
        if state.role == OWNER:
            self._serving.tick()
        else:
            self._voting.due()

    def _written(self, event: Sealed | SealFailed | Kept | KeepFailed) -> None:
        """Take the recorder's answer to a write."""
        state = self._state
        live = state.ledger.settle(event.number, event.epoch, kept=isinstance(event, Sealed | Kept))
        if live is None:
            self._desk.count("answer of the recorder out of place")
        elif not live:
            return
        elif state.role == OWNER:
            if isinstance(event, Sealed):
                self._serving.sealed(event.number, event.sealed)
            else:
                self._serving.seal_failed()
        elif isinstance(event, Sealed | Kept):
            self._keeping.kept()
            self._voting.obey()
        else:
            self._keeping.failed(event.number)

    def _promised(self, event: PromiseKept | PromiseFailed) -> None:
        """Take the recorder's answer to a promise; only the newest one matters."""
        promise = self._state.promise
        if (event.epoch, event.node) != (promise.epoch, promise.node) or promise.kept:
            return
        if isinstance(event, PromiseFailed):
            self._desk.promise_failed()
            return
        self._voting.promise_kept()
        self._begin(was_owner=False)
        if self._state.role != OWNER:
            self._keeping.kept()
            self._voting.obey()

    def _checkpointed(self, number: int) -> None:
        """Let the journal begin later, if that is committed."""
        ledger = self._state.ledger
        if ledger.base_number < number <= min(self._state.committed, ledger.durable):
            ledger.checkpoint(number)
        else:
            self._desk.count("checkpoint out of place")

    def _for_owner(self, event: Proposed | BlocksRead | SnapshotRead) -> None:
        state = self._state
        if state.role != OWNER or (isinstance(event, Proposed) and event.epoch != state.promise.epoch):
            self._desk.count("too late for an owner")
        elif isinstance(event, Proposed):
            self._serving.propose(event)
        elif isinstance(event, BlocksRead):
            self._serving.blocks_read(event)
        else:
            self._serving.snapshot_read(event)


KIND: Final[MachineKind[HoldingInput, HoldingEffect]] = MachineKind(
    name="holding", version=1, inputs=HoldingInput, effects=HoldingEffect, restore=Holding.restore
)
