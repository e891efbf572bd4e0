# SPDX-License-Identifier: Apache-2.0
"""An environment that runs and is recorded: records in, blocks and held effects out, failed handlers undone.

Rules of this file:

* What was applied since the last checkpoint is kept, so that a failed handler can be undone: restore the checkpoint,
  apply what came since, and go on with a ``Failed`` in place of what failed. Handlers therefore need no transactions of
  their own, and one that never fails pays nothing for this.
* Of items that came together one failure at a time is undone, and nothing behind it is applied: whoever gives them
  (``env.pieces``) can make a block of what was done, and let others have their turn. Undoing itself lets them, too.
* Effects are held until ``release``: outputs wait for the block that holds their causes.
* A checkpoint that is stored is the last record of its block, so that a snapshot has a block's number. Where handlers
  fail again and again, others are taken in memory only, so that undoing stays cheap; they are records all the same,
  because what lives on is what was read back.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Final, TypeVar, final

import msgspec

from atoll.base.errors import CorruptError, DivergenceError, UsageError, UserError
from atoll.env.app import Program
from atoll.env.history import (
    DIGEST_BYTES,
    NO_MARK,
    SNAPSHOT_FORMAT,
    Body,
    Entry,
    Snapshot,
    digest_after,
    encode_body,
    mark_of,
)
from atoll.env.limits import (
    BLOCK_BYTES,
    BLOCK_EVENTS_MAX,
    CHECKPOINT_BLOCK_BYTES,
    CHECKPOINT_BLOCKS,
    CHECKPOINT_BYTES,
    CHECKPOINT_EVENTS,
    COPIES,
    GONE_MAX,
    UNDO_EVENT_BYTES,
    UNDO_EVENTS,
)
from atoll.env.parties import PARTY_BYTES
from atoll.env.places import HandlerFailedError, Inline, Place, Running, UnansweredError
from atoll.env.records import (
    INLINE,
    TEXT_CHARS_MAX,
    Arrived,
    Began,
    Checkpointed,
    Effect,
    Ended,
    Failed,
    Fired,
    Found,
    Held,
    Item,
    Level,
    Opened,
    Post,
    Record,
    Told,
    Upgraded,
)
from atoll.env.texts import plain, words_of
from atoll.env.walls import OPEN, HandlerKilled, Walls

__all__ = ["Made", "Runner"]

_RECORD_BYTES: Final = 64  # With its time, its mark and its numbers; but for what is counted by itself.
_HANDLED: Final = (Arrived, Fired, Told, Opened, Found, Began)  # Only these run handlers, which can fail.

T = TypeVar("T")

_encode: Final = msgspec.msgpack.Encoder().encode
_raw_items: Final = msgspec.msgpack.Decoder(list[Item])


class Made(msgspec.Struct, frozen=True):
    """A block that is ready to be sealed.

    Attributes:
        number: Its number in the journal.
        first_event: Number of the first event in it.
        events: How many.
        body: Encoded records.
        snapshot: The state after it, if its last record is a checkpoint.
    """

    number: int
    first_event: int
    events: int
    body: bytes
    snapshot: bytes | None


@final
class Runner:
    """One recorded environment. ``begin`` a new one, or give what is stored of an old one.

    Args:
        program: The code: that of the snapshot, or that of the ``Began`` which is to come; or where to run it.
        code: Its SHA-256.
        snapshot: Where to go on from, with the number of its block; feed what came after it to ``redo``.
        walls: What stands around handlers while they run in this process.

    Attributes:
        environment: The machine; read only.
        code: SHA-256 of the code that runs it.
        walls: As above; or those of the place.
        digest: Of all effects so far.
        number: Number of the last block.
        epoch: Of the last ``Opened``; 0: none yet.
        holders: Of the last ``Held``; empty: none yet.
        copies: How many holders there should be, by the same.
        origin: Node that began it.
        level: Where its handlers are to run, by the ``Began``.
        is_elsewhere: Whether it is busy because of what runs elsewhere; else others shall have their turn.
        is_over: Whether it has come to its end; no checkpoint is taken after that, so a replay knows it, too.
        failures: Handlers that failed since the start.

    Raises:
        CorruptError: The snapshot does not fit the code.
    """

    def __init__(
        self, program: Program | Place, code: bytes, snapshot: tuple[int, Snapshot] | None = None, walls: Walls = OPEN
    ) -> None:
        self.place, self.code = _place(program), code
        self.walls = walls if self.place.walls is None else self.place.walls
        self.number, kept = (0, None) if snapshot is None else snapshot
        self._base = None if kept is None else kept.state
        self.digest = bytes(DIGEST_BYTES) if kept is None else kept.digest
        self.epoch, self.holders = (0, ()) if kept is None else (kept.epoch, kept.holders)
        self.copies, self.origin = (COPIES, b"") if kept is None else (kept.copies, kept.origin)
        self.level: Level = INLINE if kept is None else kept.level
        self.environment = self._restored()
        self.is_over = False
        self._work: Generator[None] | None = None
        self._is_let_go = self.is_elsewhere = False
        self._since_ns: int | None = None  # When the turn at hand began; None: nobody waits.
        self._gone = 0  # How often in a row whoever ran it was gone before a record.
        self.failures = 0
        self._since: list[Entry] = []  # Applied since ``_base``.
        self._redone = 0  # What was applied again since then, to undo what failed, in events.
        self._unsealed: list[Entry] = []  # Of these, what is in no block yet.
        self._bytes = 0  # Of these, about.
        self._first_event = self.environment.events + 1
        self._stored_events = self.environment.events  # When a checkpoint was stored last.
        self._stored_bytes = 0  # Of items since then.
        self._stored_number = self.number
        self._state_bytes = 0 if kept is None else len(kept.state)
        self._snapshot: bytes | None = None
        self._effects: list[Effect] = []
        self._held: deque[tuple[int, list[Effect]]] = deque()

    # Running.

    def take(self, record: Record, now_ns: int, since_ns: int | None = None) -> bool:
        """Apply a record. A handler that raises is undone, and its event counts as failed.

        Of several items nothing is applied behind one that has failed, and none where it is not known which it was:
        ``environment.received`` says how far it came, and ``Pieces`` what is next.

        Args:
            record: Any but a ``Checkpointed`` or an ``Upgraded``.
            now_ns: Time, ns since 1970.
            since_ns: Since when others wait, monotonic; None: nobody does.

        Returns:
            Whether all of it was applied, and nothing failed.

        Raises:
            UserError: A602, a new environment could not begin: it is to be thrown away.
            CorruptError: It cannot go on: what was applied before fails now.
        """
        assert self._work is None, "a handler runs"
        self._since_ns = since_ns
        try:
            effects = self._handle(record, now_ns)
        except BaseException as error:  # noqa: BLE001  A stranger's handler: whatever it raises is its failure.
            self._work = self._mending(record, now_ns, error)
            self.go_on(since_ns)
            return False
        self._went_well(record, now_ns, effects)
        return True

    @property
    def is_busy(self) -> bool:
        """Whether ``take`` is not done, so that nothing can be taken before ``go_on`` has come to its end."""
        return self._work is not None

    def go_on(self, since_ns: int | None = None) -> None:
        """Go on with what ``take`` has begun, if what runs elsewhere is done or others have had their turn.

        Args:
            since_ns: As of ``take``.

        Raises:
            UserError: As ``take``.
            CorruptError: As ``take``.
        """
        work, self._work, self._since_ns, self.is_elsewhere = self._work, None, since_ns, False
        assert work is not None, "no handler runs"
        try:
            for _ in work:
                self._work = work
                return
        except (CorruptError, UserError):
            raise
        except Exception as error:  # What is in memory now is in no record: whoever drives it throws it away.
            raise CorruptError(f"what failed cannot be undone: {words_of(error, TEXT_CHARS_MAX)}") from error

    def withdraw(self) -> bool:
        """Forget what was to leave; return whether the state is that after the last block, and may be of use again."""
        self._held.clear()
        self._effects, self._snapshot = [], None
        return self._work is None and not self._unsealed and self.environment.is_quiescent

    def close(self) -> None:
        """Let go of the place where it runs. Nothing may be taken any more."""
        self._work = None
        self.place.close()

    def _went_well(self, record: Record, now_ns: int, effects: Sequence[Effect]) -> None:
        self._applied(record, now_ns, effects)
        if self._redone >= UNDO_EVENTS and self.environment.is_quiescent:
            self._rest(now_ns)

    def _mending(self, record: Record, now_ns: int, error: BaseException) -> Generator[None]:
        """Finish a record that is not done, or has failed; yield while it cannot be."""
        waiting: deque[Record] = deque((record,))
        raised: BaseException | None = error
        while waiting:
            record = waiting.popleft()
            try:
                effects = yield from self._handling(record, now_ns, raised)
            except BaseException as found:
                if self._is_let_go:
                    raise
                instead = yield from self._failed(record, found)
                if not self._gone:
                    waiting.clear()  # It was to come after what has failed now, and is given again.
                waiting.extendleft(reversed(instead))
            else:
                self.failures += isinstance(record, Failed)
                self._went_well(record, now_ns, effects)
            raised = None

    def _handling(
        self, record: Record, now_ns: int, raised: BaseException | None = None, *, is_again: bool = False
    ) -> Generator[None, None, Sequence[Effect]]:
        """Apply a record, or go on after what applying it has raised; yield while a handler runs elsewhere."""
        try:
            if raised is not None:
                raise raised
            return self._handle(record, now_ns, is_again=is_again)
        except UnansweredError:
            pass
        while True:
            yield from self._elsewhere()
            try:
                return self.place.answered()
            except UnansweredError:
                pass

    def _elsewhere(self) -> Generator[None]:
        """Yield once, because of what runs elsewhere."""
        self.is_elsewhere = True
        yield from self._others()

    def _others(self) -> Generator[None]:
        """Yield once, so that others have their turn."""
        try:
            yield
        except GeneratorExit:
            self._is_let_go = True
            raise

    def _handle(self, record: Record, now_ns: int, *, is_again: bool = False) -> Sequence[Effect]:
        self.walls.enter(is_again=is_again)
        try:
            try:
                return self.environment.handle(record, now_ns)
            finally:
                self.walls.leave()
        except HandlerKilled:
            self.walls.leave()  # It may have come just before that, and the next is whole periods away.
            raise

    def _applied(self, record: Record, now_ns: int, effects: Sequence[Effect]) -> None:
        self._gone = 0
        mark = NO_MARK
        if effects:
            self.digest = digest_after(self.digest, effects)
            mark = mark_of(self.digest)
            self._effects += effects
            self._look(effects)
        entry = Entry(now_ns, mark, record)
        self._unsealed.append(entry)
        self._bytes += _size(record)
        self._keep(entry)

    def _look(self, effects: Sequence[Effect]) -> None:
        self.is_over = self.is_over or any(isinstance(effect, Ended) for effect in effects)

    def _keep(self, entry: Entry) -> None:
        self._since.append(entry)
        if isinstance(entry.record, Arrived):
            self._stored_bytes += len(memoryview(entry.record.items))
        elif isinstance(entry.record, Opened):
            self.epoch = entry.record.epoch
        elif isinstance(entry.record, Began):
            self.origin, self.level = entry.record.node, entry.record.level
        elif isinstance(entry.record, Held):
            self.holders, self.copies = entry.record.nodes, entry.record.copies

    def _failed(self, record: Record, error: BaseException) -> Generator[None, None, list[Record]]:
        """Undo what a record has done; return what to apply in its place, up to what has failed.

        Raises:
            UserError: As ``take``.
            CorruptError: As ``take``.
        """
        code, text = self._judged(error)
        is_known = not isinstance(error, HandlerFailedError) or error.is_known
        self._gone = self._gone + 1 if code == "gone" or not isinstance(record, _HANDLED) else 0
        if self._gone > GONE_MAX:
            raise CorruptError(f"{type(record).__name__} cannot be applied: {text}")
        if self._gone:
            yield from self._undo()
            return [record]  # No handler is to blame.
        match record:
            case Arrived(party, first, raw):
                items = _raw_items.decode(raw)
                index = self._next(record) - first
                if index >= len(items) or (isinstance(error, HandlerKilled) and index):
                    is_known = False  # What all made cannot leave; or those before it had used up the time.
                yield from self._undo()
                if not is_known:
                    index = self._next(record) - first
                    if index + 1 < len(items):
                        return []  # Which of them it was is seen when they come one by one.
                if index >= len(items):
                    raise CorruptError(f"items fail that were taken before: {text}")
                instead: list[Record] = [Failed(party, first + index, code, text, _encode(items[index]))]
                if index:
                    instead.insert(0, Arrived(party, first, msgspec.Raw(_encode(items[:index]))))
                return instead
            case Fired():
                yield from self._undo()
                return [Failed(b"", self.environment.first_timer, code, text)]
            case Told():
                yield from self._undo()
                return [Failed(b"", 0, code, text)]
            case Opened():  # The epoch begins all the same.
                yield from self._undo()
                return [msgspec.structs.replace(record, silent=True), Failed(b"", 0, code, text)]
            case Found(number):
                yield from self._undo()
                return [Failed(b"", 0, code, text, search=number)]
            case _:
                assert isinstance(record, Began), f"a {type(record).__name__} has no handlers"
                raise UserError(
                    "A602", f"{record.name} cannot begin", where=text, fix="mend its Started handler, or the fields"
                )

    def _next(self, record: Arrived) -> int:
        """Return the number of the first item of a record that was not taken; it may begin behind a gap."""
        return max(record.first, self.environment.received(record.party) + 1)

    def _judged(self, error: BaseException) -> tuple[str, str]:
        """Return code and text, as of ``Failed``, for what a handler raised."""
        match error:
            case HandlerFailedError():
                code, text = error.code, error.text
            case HandlerKilled():
                code, text = "killed", str(error)
            case MemoryError():
                code, text = "grown", "out of memory"
            case _:
                code, text = "raised", words_of(error, TEXT_CHARS_MAX)
        return code, plain(text, TEXT_CHARS_MAX)

    def _undo(self) -> Generator[None]:
        """Go back to before the record at hand; yield where others shall have their turn meanwhile.

        Raises:
            CorruptError: What was applied before fails now: a handler is not deterministic.
        """
        self._inside(CorruptError, self.environment.discard)
        self.environment = yield from self._remade()
        before, size = self.environment.events, 0
        for entry in self._since:
            if self._since_ns is not None and self.walls.is_late(self._since_ns):
                yield from self._others()
            try:
                yield from self._handling(entry.record, entry.now_ns, is_again=True)
            except BaseException as error:
                if self._is_let_go:
                    raise
                raise CorruptError(f"what was applied once fails the second time: {error}") from error
            size += _size(entry.record)
        self._redone += self.environment.events - before + size // UNDO_EVENT_BYTES

    def _remade(self) -> Generator[None, None, Running]:
        """Return the environment as it was at the last checkpoint; yield while that is made elsewhere."""
        while True:
            try:
                return self._inside(CorruptError, partial(self.place.remake, self._base))
            except UnansweredError:
                yield from self._elsewhere()

    def _restored(self) -> Running:
        base = self._base
        return self._inside(CorruptError, self.place.blank if base is None else partial(self.place.restore, base))

    def _inside(self, late: type[CorruptError | UsageError], work: Callable[[], T]) -> T:
        """Run code of the program that is no handler: migrations, what its types do when they are made, clean-up.

        It leaves as ``_handle`` does, and so it is no context manager: those end in code that is outside of it.
        """
        self.walls.enter(is_again=True)
        try:
            try:
                return work()
            finally:
                self.walls.leave()
        except HandlerKilled as error:
            self.walls.leave()
            raise late(f"it does not come to an end: {error}") from error
        except Exception:
            raise
        except BaseException as error:  # ``sys.exit()`` of one program must not end those of all others.
            raise late(f"it ends in {words_of(error, TEXT_CHARS_MAX)}") from error

    # Blocks.

    @property
    def has_news(self) -> bool:
        """Whether there is something to seal."""
        return bool(self._unsealed)

    @property
    def is_block_full(self) -> bool:
        """Whether a block should be made before more is taken."""
        return self.environment.events - self._first_event + 1 >= BLOCK_EVENTS_MAX or self._bytes >= BLOCK_BYTES

    @property
    def wants_checkpoint(self) -> bool:
        """Whether a restore would take long by now, and a checkpoint is possible."""
        is_due = (
            self.environment.events - self._stored_events >= CHECKPOINT_EVENTS
            or self._stored_bytes >= CHECKPOINT_BYTES
            or self.number - self._stored_number >= CHECKPOINT_BLOCKS + self._state_bytes // CHECKPOINT_BLOCK_BYTES
        )
        return is_due and self.environment.is_quiescent and not self.is_over

    def checkpoint(self, now_ns: int) -> None:
        """Go on from what would be restored; call ``block`` next.

        Raises:
            UsageError: A coroutine waits, or a field holds what is no data. Nothing has changed, but that
                ``wants_checkpoint`` waits until as much has happened again.
        """
        self._mark_stored()
        state = self._inside(UsageError, self.environment.checkpoint)
        self._checkpointed(state, now_ns)

    def _checkpointed(self, state: bytes, now_ns: int) -> None:
        self._rebase(state)
        self._mark_stored()
        self._state_bytes = len(state)
        self._unsealed.append(Entry(now_ns, NO_MARK, Checkpointed(sha256(state).digest())))
        self._snapshot = Snapshot(
            SNAPSHOT_FORMAT,
            self.code,
            self.digest,
            self.epoch,
            self.holders,
            self.copies,
            self.origin,
            state,
            self.level,
        ).encode()

    def upgrade(self, program: Program | Place, code: bytes, now_ns: int) -> None:
        """Run other code from here on; call ``block`` next.

        Raises:
            UsageError: A coroutine waits, or a field holds what is no data.
            CorruptError: The state does not fit the code. In both cases nothing has changed.
        """
        place = _place(program)
        try:
            upgraded = self._inside(CorruptError, partial(_moved, self.environment, place))
            state = self._inside(CorruptError, upgraded.checkpoint)
        except (CorruptError, UsageError):
            place.close()
            raise
        self._replace(place, upgraded, code)
        self._unsealed.append(Entry(now_ns, NO_MARK, Upgraded(code)))
        self._checkpointed(state, now_ns)

    def _replace(self, place: Place, environment: Running, code: bytes) -> None:
        self._inside(CorruptError, self.environment.discard)
        self.place.close()
        self.place, self.environment, self.code = place, environment, code

    def _rest(self, now_ns: int) -> None:
        """Go on from what would be restored, in memory only, so that the next failure has little to repeat."""
        self._redone = 0
        with suppress(UsageError):  # A field holds what is no data: the next checkpoint that is stored says so.
            state = self._inside(UsageError, self.environment.checkpoint)
            self._rebase(state)
            self._unsealed.append(Entry(now_ns, NO_MARK, Checkpointed()))

    def _rebase(self, state: bytes) -> None:
        self._base = state
        self._since.clear()
        self._redone = 0

    def _mark_stored(self) -> None:
        self._stored_events, self._stored_bytes, self._stored_number = self.environment.events, 0, self.number

    def block(self) -> Made | None:
        """Return what was applied since the last block as a block; None: nothing was."""
        if not self._unsealed:
            return None
        self.number += 1
        events = self.environment.events - self._first_event + 1
        made = Made(self.number, self._first_event, events, encode_body(self.digest, self._unsealed), self._snapshot)
        self._first_event += events
        self._unsealed, self._snapshot, self._bytes = [], None, 0
        if self._effects:
            self._held.append((self.number, self._effects))
            self._effects = []
        return made

    def release(self, number: int) -> list[Effect]:
        """Return the effects of all blocks up to ``number``, which are durable: they may be performed."""
        released: list[Effect] = []
        while self._held and self._held[0][0] <= number:
            released += self._held.popleft()[1]
        return released

    def first_held(self) -> dict[bytes, int]:
        """Return the number of the first item that is still held back, of every party that is to get one."""
        held: dict[bytes, int] = {}
        for effects in (*(effects for _, effects in self._held), self._effects):
            for effect in effects:
                if isinstance(effect, Post):
                    held.setdefault(effect.party, effect.first)
        return held

    def redo(self, number: int, body: Body, upgraded: Program | Place | None = None) -> None:
        """Apply a block as ``redoing`` does, however long that takes."""
        for _ in self.redoing(number, body, upgraded):
            pass

    def redoing(self, number: int, body: Body, upgraded: Program | Place | None = None) -> Generator[None]:
        """Apply a block that is in the journal already; its effects are made again and given to nobody.

        Yields while a handler runs elsewhere.

        What parties have not confirmed is in ``environment.owed()``.

        Args:
            number: Of the block.
            body: Its content.
            upgraded: The code of the ``Upgraded`` in it, if there is one.

        Raises:
            DivergenceError: The effects, or the state at a checkpoint, are not the recorded ones.
            CorruptError: A record fails that did not fail then.
        """
        for entry in body.entries:
            if isinstance(entry.record, Checkpointed):
                self._recheck(number, entry.record.digest)
                continue
            if isinstance(entry.record, Upgraded):
                assert upgraded is not None, "the code of an upgrade is missing"
                place = _place(upgraded)
                environment = self._inside(CorruptError, partial(_moved, self.environment, place))
                self._replace(place, environment, entry.record.code)
                continue
            try:
                effects = yield from self._handling(entry.record, entry.now_ns, is_again=True)
            except BaseException as error:
                if self._is_let_go:
                    raise
                raise CorruptError(f"block {number}: what was applied once fails now: {error}") from error
            if effects:
                self.digest = digest_after(self.digest, effects)
                if mark_of(self.digest) != entry.mark:
                    got = f"mark {mark_of(self.digest):08x}"
                    raise DivergenceError(self.environment.events, f"mark {entry.mark:08x}", got)
                self._look(effects)
            self._keep(entry)
        if body.digest != self.digest:
            raise DivergenceError(self.environment.events, body.digest.hex(), self.digest.hex())
        self.number = number
        self._first_event = self.environment.events + 1

    def _recheck(self, number: int, digest: bytes) -> None:
        """Take a checkpoint that was taken then."""
        try:
            state = self._inside(UsageError, self.environment.checkpoint)
        except UsageError as error:
            raise CorruptError(f"block {number}: a checkpoint that was taken once fails now: {error}") from error
        if digest:
            if (found := sha256(state).digest()) != digest:
                raise DivergenceError(self.environment.events, f"state {digest.hex()}", f"state {found.hex()}")
            self._mark_stored()
            self._state_bytes = len(state)
        self._rebase(state)


def _size(record: Record) -> int:
    """Return about how many bytes a record takes in a block."""
    match record:
        case Arrived():
            return _RECORD_BYTES + len(memoryview(record.items))
        case Found():
            return _RECORD_BYTES + len(record.parties) * (PARTY_BYTES + 2)
        case Failed():
            return _RECORD_BYTES + len(record.item) + len(record.text)
        case _:
            return _RECORD_BYTES


def _moved(environment: Running, place: Place) -> Running:
    """Return an environment in its state at another place."""
    return place.restore(environment.snapshot())


def _place(program: Program | Place) -> Place:
    return Inline(program) if isinstance(program, Program) else program
