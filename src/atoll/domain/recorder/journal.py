# SPDX-License-Identifier: Apache-2.0
"""The journal of one environment on disk: blocks come in behind the last one, durable before anybody hears of them.

Blocks are *staged* one after the other and written together by ``commit``: one write and one sync for all of them. When
the disk refuses, the file is cut back to its last sealed byte and all that was staged is refused; until that cut has
succeeded nothing else is accepted. So what is on disk is at each moment what was acknowledged, and a torn tail.

    <environment id>/00000001.atb ...     segments, docs/spec/environment-journal.md
    <environment id>/promise              the standing: the epoch promised last, and what else holds beside the blocks
    <environment id>/snapshots/N.ats      the state after block N
    <environment id>/orphans/N-K.atb      blocks from N on that were cut or given up, numbered by K; and their snapshots
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError, StorageError, UserError
from atoll.domain.limits import BATCH_BYTES_MAX, KEPT_SNAPSHOTS_MAX, SEGMENT_BYTES_MAX, SNAPSHOTS_STAY
from atoll.domain.recorder.disk import cut_file, refusal_of, sync_directory, write_all
from atoll.domain.recorder.key import RecorderKey
from atoll.domain.recorder.messages import Code, Recorded, RefusedError, Restart
from atoll.domain.recorder.pruning import (
    ORPHANS_NAME,
    SNAPSHOTS_NAME,
    base_of,
    check_room,
    drop_old,
    first_within,
    keep_aside,
    shorten,
    snapshot_numbers,
    thin_out,
)
from atoll.domain.recorder.restarting import begin_anew, segment_numbers, segment_path, settle
from atoll.domain.recorder.segments import Segment, open_segment
from atoll.domain.recorder.snapshots import (
    Signed,
    Standing,
    checks,
    decode_standing,
    encode_snapshot,
    encode_standing,
    open_snapshot,
)
from atoll.env.chain import (
    GENESIS,
    Block,
    ChainError,
    Fault,
    Frame,
    Position,
    Seal,
    Sealed,
    Sealer,
    TornTail,
    Verifier,
    encode_frame,
    is_certified,
    position_after,
    read,
    seal_payload,
    segment_start,
    signed_by,
)
from atoll.env.history import check_written, decode_snapshot, written_in
from atoll.host.files import make_private_directory, write_atomic

__all__ = ["BlockJournal", "create_journal"]

STANDING_NAME: Final = "promise"  # What it was at first.
_CODES: Final = {
    Fault.CHAIN: Code.CHAIN,
    Fault.NUMBER: Code.NUMBER,
    Fault.EPOCH: Code.EPOCH,
    Fault.SIGNATURE: Code.SIGNATURE,
    Fault.CERTIFICATE: Code.SIGNATURE,
}


def create_journal(directory: Path, key: RecorderKey, name: str, at: Position) -> None:
    """Make the directory of an environment, which is called as its id in hexadecimal; whole or not at all.

    Raises:
        RefusedError: FULL or IO; SIGNATURE, the recorder has no certificate yet.
    """
    start = segment_start(key.manifest(bytes.fromhex(directory.name), name, at))
    temporary = directory.with_name(f".{directory.name}.new")
    try:
        for path in (temporary, temporary / SNAPSHOTS_NAME, temporary / ORPHANS_NAME):
            make_private_directory(path)
        write_atomic(segment_path(temporary, 1), start)
        temporary.rename(directory)
        sync_directory(directory.parent)
    except (OSError, StorageError) as error:
        raise refusal_of(error, directory) from error


@final
class BlockJournal:
    """The files of one environment.

    Args:
        directory: Made by ``create_journal``; called as the environment's id in hexadecimal. Nobody else writes there.
        key: Seals what is appended.
        segment_bytes_max: Size of a segment file, bytes.

    Attributes:
        environment: Its id.
        damage: What is wrong with the files, with the place; empty: nothing. Else only ``recorded`` may be called.
        staged_bytes: Staged and not yet written.
    """

    def __init__(self, directory: Path, key: RecorderKey, *, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> None:
        self._directory: Final = directory
        self._key: Final = key
        self._roll_bytes: Final = max(segment_bytes_max - BATCH_BYTES_MAX, 1)
        self.environment: Final = bytes.fromhex(directory.name)
        self._descriptor = -1
        self._segments: list[Segment] = []
        self._snapshots: list[int] = []
        self._standing = Standing(self.environment, 0, b"")
        self._position = self._staged_position = GENESIS  # Durable, and with what is staged.
        self._sealer: Sealer | None = None  # Of the last block on disk; None: no block nor manifest yet.
        self._staged_sealer: Sealer | None = None
        self._staged: list[bytes] = []
        self._needs_cut = False  # The file may be longer than what is sealed of it.
        self._uncut: int | None = None  # Blocks from here on were to be cut, and the disk refused.
        self._unleft: Restart | None = None  # All of it was to be put aside, and the disk refused.
        self.staged_bytes = 0
        self.damage = ""
        self._load()

    @property
    def position(self) -> Position:
        """Where the journal stands on disk."""
        return self._position

    @property
    def first(self) -> int:
        """Number of the first block that is kept."""
        return self._segments[0].first

    @property
    def base(self) -> int:
        """Block after which the oldest snapshot stands that the blocks follow; 0: they go back to the beginning."""
        return 0 if self.first == 1 else max(self.first - 1, min(self._snapshots, default=0))

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Numbers of the blocks after which there is a snapshot, rising."""
        return tuple(self._snapshots)

    @property
    def is_blank(self) -> bool:
        """Whether nothing of it was ever kept, but perhaps a promise; blocks that were put aside count."""
        return self.recorded().is_blank and not any((self._directory / ORPHANS_NAME).iterdir())

    @property
    def is_open(self) -> bool:
        """Whether a descriptor is held; ``release`` gives it back."""
        return self._descriptor >= 0

    def recorded(self) -> Recorded:
        """Return what ``List`` tells of it."""
        if self.damage:
            return Recorded(self.environment, self._name(), 1, GENESIS, damage=self.damage)
        standing = self._standing
        return Recorded(
            self.environment,
            self._segments[-1].manifest.name,
            self.first,
            self._position,
            standing.epoch,
            standing.node,
            self.snapshots,
            floor=(standing.floor_epoch, standing.floor_number),
        )

    def _name(self) -> str:
        """Return what people call what is damaged, by the newest segment that says so; empty: none does."""
        with suppress(OSError, CorruptError, UserError):
            for number in reversed(segment_numbers(self._directory)):
                with suppress(OSError, CorruptError, UserError):
                    return open_segment(segment_path(self._directory, number)).manifest.name
        return ""

    def append(self, block: Block) -> tuple[Seal, bytes]:
        """Seal a block with our own key and stage it; it is durable after ``commit``.

        Returns:
            Its seal, and the head of the block before it.

        Raises:
            RefusedError: NUMBER, EPOCH, SIGNATURE, LIMIT, FULL, IO.
        """
        sealer, standing = self._key.sealer, self._standing
        if block.epoch < standing.epoch:
            raise RefusedError(Code.EPOCH, f"epoch {standing.epoch} was promised, and {block.epoch} is earlier")
        if block.epoch == standing.epoch and standing.node != sealer.node:
            raise RefusedError(Code.EPOCH, f"epoch {block.epoch} was promised to another node")
        after = self._follow(block)
        before, seal = self._staged_position.head, self._key.seal(self.environment, after.head)
        self._stage(sealer, Sealed(block, seal), after)
        return seal, before

    def keep(self, sealer: Sealer, sealed: Sealed) -> None:
        """Stage a block that another recorder sealed; it is durable after ``commit``.

        It may be of an epoch before the one that was promised: the owner of that one gives older blocks to a node that
        lacks them. Whoever asks has heard the owner, and knows that it is none of before.

        Raises:
            RefusedError: As ``append``, and CHAIN.
        """
        after = self._follow(sealed.block)
        number = after.number
        if after.head != sealed.seal.head:
            raise RefusedError(Code.CHAIN, f"block {number}: its head does not follow")
        if sealer != self._staged_sealer and not is_certified(sealer):
            raise RefusedError(Code.SIGNATURE, f"block {number}: the sealer's certificate does not check")
        if not signed_by(sealer.recorder, seal_payload(self.environment, after.head), sealed.seal.signature):
            raise RefusedError(Code.SIGNATURE, f"block {number}: its seal does not check")
        self._stage(sealer, sealed, after)

    def commit(self) -> None:
        """Write what is staged, durably.

        Raises:
            RefusedError: FULL or IO; none of it counts, and none of it is there after the next start.
        """
        if not self._staged:
            return
        staged, self._staged, self.staged_bytes = self._staged, [], 0
        segment = self._segments[-1]
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            write_all(self._descriptor, staged[0] if len(staged) == 1 else b"".join(staged))
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._needs_cut = True
            self._staged_position, self._staged_sealer = self._position, self._sealer
            self.release()  # After a sync that failed, what a descriptor says of later ones is worth nothing.
            with suppress(OSError):
                self._cut_back()
            raise refusal_of(error, segment.path) from error
        self._position, self._sealer = self._staged_position, self._staged_sealer
        segment.size += sum(map(len, staged))
        assert self._sealer is not None, "something was staged"
        segment.grow(self._position.number + 1, segment.size, self._sealer)

    def release(self) -> None:
        """Give the descriptor back; the next ``commit`` opens the file again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, number: int, bytes_max: int, blocks_max: int = 1 << 63) -> tuple[Sealer | Sealed, ...]:
        """Return blocks from a number on, about so many bytes, at most so many and at least one; none: it is the next.

        Raises:
            RefusedError: NUMBER, it is not kept, or not written yet; IO; CORRUPT.
        """
        if not self.first <= number <= self._position.number + 1:
            raise RefusedError(Code.NUMBER, f"blocks {self.first} to {self._position.number} are here, not {number}")
        items: list[Sealer | Sealed] = []
        said: Sealer | None = None
        try:
            for sealer, sealed in self._blocks_from(number):
                bytes_max -= len(sealed.block.body)
                if items and (bytes_max < 0 or sealed.block.number >= number + blocks_max):
                    break
                if sealer != said:
                    items.append(sealer)
                    said = sealer
                items.append(sealed)
        except (OSError, CorruptError) as error:
            raise refusal_of(error, self._directory) from error
        return tuple(items)

    def promise(self, epoch: int, node: bytes) -> None:
        """Promise an epoch to a node, durably. The same promise again: nothing.

        Args:
            epoch: May be that of the last block.
            node: Empty: to nobody yet.

        Raises:
            RefusedError: EPOCH, a later epoch was promised or has begun, or this one was promised to another; FULL, IO.
        """
        before = self._standing
        if (epoch, node) == (before.epoch, before.node):
            return
        floor = max(before.epoch, before.floor_epoch, self._position.epoch)
        if epoch < floor:
            raise RefusedError(Code.EPOCH, f"epoch {floor} was promised or has begun, and {epoch} is earlier")
        if epoch == before.epoch and before.node:
            raise RefusedError(Code.EPOCH, f"epoch {epoch} was promised to another node")
        standing = msgspec.structs.replace(before, epoch=epoch, node=node)
        try:
            self._write_standing(standing)
        except StorageError as error:
            raise refusal_of(error, self._directory / STANDING_NAME) from error
        self._standing = standing

    def restart(self, request: Restart) -> None:
        """Begin anew after a snapshot, or without a block, in one step; what there was is moved to ``orphans``.

        Raises:
            RefusedError: NUMBER, there would be nothing to begin with; SIGNATURE; LIMIT; FULL, IO: the journal is as it
                was. CORRUPT: the disk refused in the middle; it is the one or the other, and said at the next start.
        """
        at, taken, before = request.at, request.snapshot, self._standing
        number = int(self._segments[-1].path.stem) + 1
        if taken is None and at != GENESIS:
            raise RefusedError(Code.NUMBER, f"a journal that begins after block {at.number} needs the state there")
        if taken is not None and not checks(
            self.environment, at.number, Signed(at.head, taken.content, taken.sealer, taken.signature)
        ):
            raise RefusedError(Code.SIGNATURE, f"the snapshot after block {at.number}: its signature does not check")
        unleft = request.floor if self._unleft is None else self._unleft.floor
        epoch, block = max(request.floor, unleft, (before.floor_epoch, before.floor_number))
        if taken is None:
            self._unleft = msgspec.structs.replace(request, floor=(epoch, block))
        standing = msgspec.structs.replace(before, floor_epoch=epoch, floor_number=block, segment=number)
        self.release()
        refusal: RefusedError | None = None
        try:
            check_room(self._directory)
            where = at.number, at.head
            content = b"" if taken is None else encode_snapshot(self._key, self.environment, where, taken.content)
            manifest = self._key.manifest(self.environment, self._segments[-1].manifest.name, at)
            begin_anew(self._directory, number, manifest, content)
            self._write_standing(standing)
        except (OSError, StorageError) as error:
            refusal = refusal_of(error, self._directory)
        self._load()  # Whatever was done of it; where the standing was written and its sync failed, it counts.
        if self.damage:
            raise RefusedError(Code.CORRUPT, self.damage)
        if refusal is not None and self._standing != standing:
            raise refusal
        self._uncut = self._unleft = None

    def keep_snapshot(self, number: int, content: bytes) -> None:
        """Keep the state after a block, durably. One that is kept already is replaced.

        Raises:
            RefusedError: NUMBER, that block is not here; DIGEST, it says another state; LIMIT; SIGNATURE; FULL, IO,
                CORRUPT.
        """
        if not self.first - 1 <= number <= self._position.number:
            raise RefusedError(Code.NUMBER, f"block {number} is not here")
        is_new = number not in self._snapshots
        if is_new and len(self._snapshots) >= KEPT_SNAPSHOTS_MAX:
            raise RefusedError(Code.LIMIT, f"KEPT_SNAPSHOTS_MAX is {KEPT_SNAPSHOTS_MAX}")
        path = self._snapshot(number)
        try:
            at, block = self._after(number), self._block(number)
            try:
                _check_state(content, block)
            except CorruptError as error:
                raise RefusedError(Code.DIGEST, f"a state that is not kept: {error}") from error
            write_atomic(path, encode_snapshot(self._key, self.environment, (number, at.head), content))
        except (OSError, StorageError) as error:
            raise refusal_of(error, path) from error
        if is_new:
            self._snapshots = sorted((*self._snapshots, number))

    def snapshot(self, number: int, *, upto: bool = False) -> tuple[Position, Signed]:
        """Return where the journal stood when a snapshot was taken, and the state.

        Args:
            number: Block after which it was taken.
            upto: The newest will do that was not taken later.

        Raises:
            RefusedError: UNKNOWN; IO; CORRUPT, it is not what this recorder has signed, or not of this journal.
        """
        if upto:
            number = base_of(self._snapshots, number + 1) or 0
        if number not in self._snapshots:
            raise RefusedError(Code.UNKNOWN, f"there is no snapshot after block {number}")
        path = self._snapshot(number)
        try:
            signed = open_snapshot(path.read_bytes(), self.environment, number)
            if not self._key.is_own(signed.sealer):  # Whatever comes from elsewhere is signed anew before it is kept.
                raise CorruptError("it was signed by another recorder than that of this node")
            if not self.first - 1 <= number <= self._position.number:
                raise CorruptError(f"block {number} is not here")
            at = self._after(number)
            if signed.head != at.head:
                raise CorruptError("it was taken after another block")
            _check_state(signed.content, self._block(number))
        except (OSError, CorruptError) as error:
            raise refusal_of(error, path) from error
        return at, signed

    def cut(self, number: int) -> None:
        """Move the blocks from this number on, and their snapshots, to ``orphans``.

        When that fails it is done before the next block is taken: whoever asked counts on it.

        Raises:
            RefusedError: NUMBER, that block is not here, or what remained could not be replayed; LIMIT; FULL, IO,
                CORRUPT.
        """
        number = number if self._uncut is None else min(number, self._uncut)
        if number == self._position.number + 1:
            return
        base = base_of(self._snapshots, number)
        if not self.first <= number <= self._position.number or (self.first > 1 and base is None):
            raise RefusedError(Code.NUMBER, f"the journal cannot be cut at block {number}")
        self.release()
        self._uncut = number
        try:
            kept = self._segment_of(number)
            at, size, _ = kept.after(number - 1)
            manifest = self._key.manifest(self.environment, kept.manifest.name, at)
            snapshots = [snapshot for snapshot in self._snapshots if snapshot >= number]
            keep_aside(self._directory, manifest, self._blocks_from(number), snapshots)
            shorten(self._directory, self._segments[self._segments.index(kept) :], size)
        except (OSError, StorageError) as error:
            raise refusal_of(error, self._directory) from error
        finally:
            self._load()  # Whatever was done of it.
        self._uncut = None

    def retain(self, number: int, bytes_min: int = 0) -> int:
        """Let go of what is not needed to replay the blocks from this number on; return the first that is kept.

        Args:
            number: Of the block.
            bytes_min: So many bytes of the newest segments stay as well.

        Raises:
            RefusedError: NUMBER, it is beyond the next block; IO.
        """
        if number > self._position.number + 1:
            raise RefusedError(Code.NUMBER, f"block {number} is not here")
        if bytes_min:
            number = min(number, first_within(self._segments, bytes_min))
        base = base_of(self._snapshots, number)
        try:
            if base is not None:
                drop_old(self._directory, self._segments, base)
            self._snapshots = thin_out(self._directory, SNAPSHOTS_STAY)
        except OSError as error:
            raise refusal_of(error, self._directory) from error
        return self.first

    def _follow(self, block: Block) -> Position:
        """Return where the journal stands with a block more, all that is staged included."""
        if self._needs_cut:
            try:
                self._cut_back()
            except OSError as error:
                raise refusal_of(error, self._directory) from error
        if self._unleft is not None:
            self.restart(self._unleft)
        if self._uncut is not None:
            self.cut(self._uncut)
        try:
            return position_after(self._staged_position, block)
        except ChainError as error:
            at = self._staged_position
            words = f"{error}; the last one is {at.number} of epoch {at.epoch}, to event {at.events}"
            raise RefusedError(_CODES[error.fault], words) from error

    def _stage(self, sealer: Sealer, sealed: Sealed, after: Position) -> None:
        if not self._staged and self._segments[-1].size > self._roll_bytes:
            self._roll()
        frame = encode_frame(sealed, after.number)
        if sealer != self._staged_sealer:
            frame = encode_frame(sealer, after.number) + frame
        self._staged.append(frame)
        self.staged_bytes += len(frame)
        self._staged_position, self._staged_sealer = after, sealer

    def _roll(self) -> None:
        """Begin a new segment."""
        before = self._segments[-1]
        path = segment_path(self._directory, int(before.path.stem) + 1)
        manifest = self._key.manifest(self.environment, before.manifest.name, self._position)
        try:
            write_atomic(path, segment_start(manifest))
            self._segments.append(open_segment(path))
        except (OSError, StorageError) as error:
            raise refusal_of(error, path) from error
        self.release()
        self._sealer = self._staged_sealer = manifest.sealer

    def _cut_back(self) -> None:
        segment = self._segments[-1]
        cut_file(segment.path, segment.size)
        self._needs_cut = False

    def _segment_of(self, number: int) -> Segment:
        """Return the segment that a block is in, or would be."""
        return next((one for one in reversed(self._segments) if one.first <= number), self._segments[0])

    def _blocks_from(self, number: int) -> Iterator[tuple[Sealer, Sealed]]:
        for segment in self._segments[self._segments.index(self._segment_of(number)) :]:
            for sealer, sealed, _ in segment.walk(number):
                yield sealer, sealed
                number += 1
            if segment is not self._segments[-1] and number < self._segments[self._segments.index(segment) + 1].first:
                raise CorruptError(f"{segment.path}: it ends before block {number}")

    def _after(self, number: int) -> Position:
        """Return where the journal stood after a block that is here, or the one before the first."""
        return self._position if number == self._position.number else self._segment_of(number).after(number)[0]

    def _block(self, number: int) -> Block | None:
        """Return a block up to the last one; None: it went, or never was here."""
        return next(self._blocks_from(number))[1].block if number >= self.first else None

    def _write_standing(self, standing: Standing) -> None:
        write_atomic(self._directory / STANDING_NAME, encode_standing(standing))

    def _snapshot(self, number: int) -> Path:
        return self._directory / SNAPSHOTS_NAME / f"{number}.ats"

    def _load(self) -> None:
        """Read what there is and cut a torn tail off; what is not as it was written is ``damage``."""
        self._staged, self.staged_bytes, self._needs_cut = [], 0, False
        try:
            self._standing = self._read_standing()
            settle(self._directory, self._standing.segment)
            self._segments = self._found()
            self._check_last(self._segments[-1])
            self._snapshots = snapshot_numbers(self._directory)
        except (OSError, CorruptError, UserError) as error:
            self.damage = str(error)

    def _found(self) -> list[Segment]:
        numbers = segment_numbers(self._directory)
        if not numbers or numbers[-1] - numbers[0] + 1 != len(numbers):
            raise CorruptError(f"{self._directory}: a segment is missing; there are {numbers}")
        segments: list[Segment] = []
        for number in numbers:
            path = segment_path(self._directory, number)
            try:
                segment = open_segment(path)
            except CorruptError as error:
                raise CorruptError(f"{path}: {error}") from error
            if segment.manifest.environment != self.environment or (segments and segment.first < segments[-1].first):
                raise CorruptError(f"{path}: it is not the one that follows")
            segments.append(segment)
        return segments

    def _check_last(self, segment: Segment) -> None:
        """Check the newest segment: its chain block by block, and one seal, which covers all of them."""
        path = segment.path
        Verifier(self.environment).feed(segment.manifest, str(path))
        verifier = Verifier(self.environment, signatures=False)
        try:
            for found in read(path.read_bytes()):
                if isinstance(found, TornTail):
                    cut_file(path, found.offset)
                    segment.size = found.offset
                    break
                verifier.feed(found.item, f"{path}: offset {found.offset}")
                self._note(verifier, found, segment)
            verifier.check_last(str(path))
        except ChainError:
            raise
        except CorruptError as error:
            raise CorruptError(f"{path}: {error}") from error
        assert verifier.position is not None, "it has a manifest"
        self._position = self._staged_position = verifier.position
        self._sealer = self._staged_sealer = verifier.sealer

    @staticmethod
    def _note(verifier: Verifier, frame: Frame, segment: Segment) -> None:
        assert verifier.position is not None, "the manifest came first"
        assert verifier.sealer is not None, "the manifest came first"
        segment.grow(verifier.position.number + 1, frame.end, verifier.sealer)

    def _read_standing(self) -> Standing:
        path = self._directory / STANDING_NAME
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return Standing(self.environment, 0, b"")
        try:
            return decode_standing(data, self.environment)
        except CorruptError as error:
            raise CorruptError(f"{path}: {error}") from error


def _check_state(content: bytes, block: Block | None) -> None:
    """Check a state against its block. Where that is not here, place and signature have to do. Raises CorruptError."""
    if block is not None:
        check_written(decode_snapshot(content), written_in(block))
