# SPDX-License-Identifier: Apache-2.0
"""A holder's part: keep what the owner tells, and confirm it when it is on the disk.

A block is taken only after the block that the owner says comes before it, so that two journals which have a block in
common have everything before it in common. What a false owner made and no majority kept is cut off then.
"""

from typing import Final, final

from atoll.env.holding.desk import Desk
from atoll.env.holding.events import CutFrom, Keep, KeepSnapshot, Left, Moved, MoveFailed
from atoll.env.holding.ledger import Ledger
from atoll.env.holding.messages import Block, PartStored, SnapshotPart, Store, Stored
from atoll.env.holding.state import OWNER, Early, Incoming
from atoll.env.limits import EARLY_BYTES_MAX, EARLY_MESSAGES_MAX, EARLY_NS, KEEPS_MAX, PARTS_MAX

__all__ = ["Keeping"]


@final
class Keeping:
    """The journal of a node that is not the owner."""

    def __init__(self, desk: Desk) -> None:
        self._desk: Final = desk

    def store(self, node: bytes, message: Store) -> None:
        """Keep the blocks of an owner that are not here, and confirm those that are."""
        state = self._desk.state
        if not self._heard(node, message.epoch, message.sent_ns):
            return
        self._take_all(node, message)
        if not message.counted and message.sent_ns == state.echo_ns:  # Not one that was overtaken.
            self._leave()

    def _leave(self) -> None:
        """Give the journal up if it is committed that this node is no holder."""
        state, ledger = self._desk.state, self._desk.state.ledger
        if state.own in ledger.holders or ledger.changed_number > state.committed or not ledger.last or ledger.writes:
            return
        epoch, number = ledger.rank
        state.ledger = Ledger(floor_epoch=epoch, floor_number=number)
        state.committed = state.matched = state.told = 0
        state.incoming, state.early = None, Early()
        self._desk.effects.append(Left(epoch, number))

    def _take_all(self, node: bytes, message: Store) -> None:
        desk, state, ledger = self._desk, self._desk.state, self._desk.state.ledger
        if not _is_row(message):
            desk.count("blocks out of order")
            return
        state.told = max(state.told, message.committed)
        before = message.before_number
        if state.incoming is not None and state.incoming.asked:
            self._confirm()  # What comes after the snapshot is told again.
            return
        if before >= ledger.base_number and ledger.epoch_of(before) != message.before_epoch:
            if self._waits(message):
                return
            if state.promise.kept:
                hint = max(ledger.hint(before), state.committed)
                desk.tell(node, Stored(state.promise.epoch, accepted=False, number=hint, echo_ns=message.sent_ns))
            return
        pending = len(ledger.writes)
        taken = self._take(message.blocks)
        if taken is None:
            desk.count("blocks that contradict what is committed")
            return
        state.matched = max(state.matched, before, taken)
        state.early.is_level = True
        if len(ledger.writes) == pending or not message.blocks:
            self._confirm()  # Else the disk's answer does.
        if message.blocks:
            self._take_early(node)

    def _waits(self, message: Store) -> bool:
        """Return whether to wait for blocks that were overtaken, and keep what follows them; else forget what waits."""
        state, early = self._desk.state, self._desk.state.early
        if not early.is_level or message.before_number <= state.ledger.last:
            return False
        if early.since_ns is None:
            early.since_ns = state.now_ns
        size = sum(len(block.sealed) for store in (*early.stores.values(), message) for block in store.blocks)
        is_full = len(early.stores) >= EARLY_MESSAGES_MAX or size > EARLY_BYTES_MAX
        if state.now_ns >= early.since_ns + EARLY_NS or is_full:
            state.early = Early()
            return False
        if message.blocks:
            early.stores.setdefault(message.before_number, message)
        return True

    def _take_early(self, node: bytes) -> None:
        """Take what follows now, or overlaps what is here."""
        state, early = self._desk.state, self._desk.state.early
        number = min(early.stores, default=None)
        if number is None:
            state.early = Early(is_level=True)
        elif number > state.ledger.last:
            early.since_ns = state.now_ns  # Something else is missing.
        else:
            self._take_all(node, early.stores.pop(number))

    def _take(self, blocks: tuple[Block, ...]) -> int | None:
        """Write what is not here; return the last block that is, 0 for none, or None if the blocks cannot be true."""
        desk, state, ledger = self._desk, self._desk.state, self._desk.state.ledger
        taken = 0
        for block in blocks:
            if block.number > ledger.base_number and ledger.epoch_of(block.number) != block.epoch:
                before_epoch = ledger.epoch_of(block.number - 1)
                if block.number <= state.committed or before_epoch is None or block.epoch < before_epoch:
                    return None
                if block.number <= ledger.last:
                    self._cut(block.number)
                if len(ledger.writes) >= KEEPS_MAX:
                    desk.count("blocks for a disk that is behind")
                    break
                ledger.append(block.number, block.epoch, block.holders)
                desk.effects.append(Keep(block.number, block.epoch, block.holders, block.sealed))
            taken = block.number
        return taken

    def _cut(self, number: int) -> None:
        self._forget(number)
        self._desk.effects.append(CutFrom(number))

    def _heard(self, node: bytes, epoch: int, sent_ns: int) -> bool:
        """Return whether the sender is the owner; enter its epoch."""
        desk, state = self._desk, self._desk.state
        if epoch < state.promise.epoch:
            if state.promise.kept:  # So that it learns that its time is over.
                desk.tell(node, Stored(state.promise.epoch, accepted=False, number=0, echo_ns=sent_ns))
            return False
        if epoch > state.promise.epoch:
            desk.adopt(epoch)
        if state.role == OWNER or state.owner not in {b"", node}:
            desk.count("second owner in an epoch")
            return False
        is_new = not state.owner
        if is_new:
            state.early = Early()
        desk.yield_role()
        state.owner, state.heard_ns, state.echo_ns = node, state.now_ns, max(state.echo_ns, sent_ns)
        if is_new:
            state.echo_ns = sent_ns
            self._found(node)
        return True

    def _found(self, owner: bytes) -> None:
        """Answer who asked for a move, now that it is known who owns the environment."""
        desk, state = self._desk, self._desk.state
        if state.awaited is not None:
            moved = Moved(owner, state.promise.epoch)
            if state.awaited.asked:
                desk.effects.append(moved if owner == state.awaited.target else MoveFailed("another holder took over"))
            state.awaited = None

    def find_nobody(self) -> None:
        """Answer who asked for a move: it is not known who owns the environment."""
        awaited = self._desk.state.awaited
        assert awaited is not None, "nobody waits for an owner"
        awaited.until_ns = awaited.tell_ns = None
        if awaited.asked:
            awaited.asked = False
            self._desk.effects.append(MoveFailed("no owner is known"))

    def _confirm(self) -> None:
        """Tell the owner how much is here and its own; and note what of that is committed."""
        desk, state = self._desk, self._desk.state
        number = min(state.ledger.durable, state.matched)
        if state.promise.kept and state.owner not in {b"", state.own}:
            desk.tell(state.owner, Stored(state.promise.epoch, accepted=True, number=number, echo_ns=state.echo_ns))
        desk.commit(min(state.told, number))

    # What the recorder answers.

    def kept(self) -> None:
        """Confirm a block that is on the disk now, or that a promise is."""
        self._confirm()

    def failed(self, number: int) -> None:
        """Forget a block that could not be written; the owner will tell it again."""
        self._desk.count("block that the disk refused")
        self._forget(number)

    def _forget(self, number: int) -> None:
        state = self._desk.state
        assert number > state.committed, f"a cut at {number}, committed up to {state.committed}"
        state.ledger.cut(number)
        state.matched, state.early = min(state.matched, state.ledger.last), Early()

    # Snapshots.

    def part(self, node: bytes, message: SnapshotPart) -> None:
        """Put a snapshot together; have it kept when it is whole."""
        desk, state = self._desk, self._desk.state
        if not self._heard(node, message.epoch, message.sent_ns):
            return
        is_here = state.ledger.epoch_of(message.number) == message.number_epoch  # Or on its way to the disk.
        if is_here or message.number <= state.committed:
            # It is not needed, and would take blocks with it that are confirmed. All up to it is the owner's as well.
            state.matched = max(state.matched, message.number)
            self._confirm()
            return
        if message.number <= state.matched or message.number_epoch > message.epoch:
            desk.count("snapshot that cannot be the owner's")
            return
        incoming = state.incoming
        if incoming is None or (not incoming.asked and not _is_of(incoming, message)):
            incoming = Incoming(message.number, message.number_epoch, message.holders, message.total)
            state.incoming = incoming
        if incoming.asked or not _is_of(incoming, message):
            return
        if message.offset == incoming.size and message.payload:
            incoming.parts.append(message.payload)
            incoming.size += len(message.payload)
        if incoming.size > incoming.total or len(incoming.parts) > PARTS_MAX:
            desk.count("snapshot longer than it said")
            state.incoming = None
        elif incoming.size == incoming.total:
            incoming.asked = True
            whole = b"".join(incoming.parts)
            incoming.parts.clear()
            desk.effects.append(KeepSnapshot(incoming.number, incoming.epoch, incoming.holders, whole))
        elif state.promise.kept:
            desk.tell(node, PartStored(state.promise.epoch, message.number, incoming.size, state.echo_ns))

    def snapshot_kept(self, number: int, epoch: int) -> None:
        """Go on from a snapshot."""
        desk, state = self._desk, self._desk.state
        incoming = state.incoming
        if incoming is None or not incoming.asked or (incoming.number, incoming.epoch) != (number, epoch):
            desk.count("snapshot out of place")
            return
        assert number > state.committed, f"a snapshot at {number}, committed up to {state.committed}"
        state.incoming = None
        state.ledger.install(number, epoch, incoming.holders)
        state.matched = max(state.matched, number)  # It is of committed blocks, which every later owner has.
        desk.commit(number)
        self._confirm()

    def snapshot_failed(self) -> None:
        """Drop a snapshot; the owner begins again."""
        self._desk.count("snapshot that the disk refused")
        self._desk.state.incoming = None


def _is_of(incoming: Incoming, part: SnapshotPart) -> bool:
    """Return whether a part belongs to a snapshot."""
    return (incoming.number, incoming.epoch, incoming.total) == (part.number, part.number_epoch, part.total)


def _is_row(message: Store) -> bool:
    """Return whether blocks follow the one before them and each other, in epochs that do not go back."""
    number, epoch = message.before_number, message.before_epoch
    for block in message.blocks:
        if block.number != number + 1 or not epoch <= block.epoch <= message.epoch:
            return False
        number, epoch = block.number, block.epoch
    return True
