# SPDX-License-Identifier: Apache-2.0
"""Journals of environments on disk, read as they lie: also while a recorder writes them, and never changed.

Where it ends is fixed when it is opened, so a tail that is torn or grows is no matter. Frames and the chain of heads
are checked where they are read; seals are the business of ``auditing``.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final, final

from atoll.base.errors import CorruptError, UserError
from atoll.base.units import KIB
from atoll.domain.loading import Bundle, Loaded, decode_bundle, load
from atoll.domain.recorder.disk import read_at
from atoll.domain.recorder.journal import STANDING_NAME
from atoll.domain.recorder.pruning import SNAPSHOTS_NAME, snapshot_numbers
from atoll.domain.recorder.restarting import counting, is_settled, segment_numbers, segment_path
from atoll.domain.recorder.segments import Segment, open_segment
from atoll.domain.recorder.snapshots import Standing, decode_standing, open_snapshot
from atoll.env.app import Program
from atoll.env.chain import Block, Position, Sealed, Sealer, TornTail, position_after, read_frames
from atoll.env.history import Snapshot, check_written, decode_snapshot, written_in

__all__ = ["DiskShelf", "Journal", "find_journal", "journals_of", "snapshots_of", "standing_of"]

READ_BYTES: Final = 256 * KIB  # Read at a time, unless one block is larger.
ENVS_NAME: Final = "envs"
ENDED_NAME: Final = "ended"
CODE_NAME: Final = "code"
_DIRECTORY: Final = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")


@dataclass(frozen=True, slots=True)
class Journal:
    """One journal on disk.

    Attributes:
        directory: Where its segments are.
        id: Of the environment, 16 bytes.
        name: What people call it; empty: no segment says so.
        segments: The segment files that count, oldest first; none: they are gone, or cannot be listed.
        is_ended: Whether it was put aside.
    """

    directory: Path
    id: bytes
    name: str
    segments: tuple[Path, ...]
    is_ended: bool = False


def journals_of(state: Path) -> list[Journal]:
    """Return the journals that a node keeps, those that were put aside last; also such as cannot be read.

    Raises:
        UserError: A110, the directory cannot be read.
    """
    found: list[Journal] = []
    for parent in (state / ENVS_NAME, state / ENDED_NAME):
        try:
            entries = list(parent.iterdir()) if parent.is_dir() else []
        except OSError as error:
            fix = "give the directory to the user that runs atoll"
            raise UserError("A110", f"cannot read {parent}", where=error.strerror or str(error), fix=fix) from error
        entries.sort(key=lambda one: (len(one.name), one.name), reverse=parent.name == ENDED_NAME)
        opened = [_journal(one) for one in entries if _DIRECTORY.fullmatch(one.name)]
        found += [journal for journal in opened if journal is not None]
    return found


def find_journal(state: Path, name: str) -> Journal:
    """Return the journal that a name, an id or a path means.

    Raises:
        UserError: A304, there is none; A501, several could be meant; A110.
    """
    path = Path(name)
    if path.exists():
        journal = _journal(path)
        if journal is not None:
            return journal
        if len(path.parts) > 1:
            fix = "name a directory of envs/, or a .atb file"
            raise UserError("A304", f"{name} is no journal of an environment", fix=fix)
    journals = journals_of(state)
    for wanted in (
        [one for one in journals if one.name == name and not one.is_ended],
        [one for one in journals if one.name == name][:1],
        [one for one in journals if len(name) >= 4 and one.id.hex().startswith(name.lower())],
    ):
        if len({one.id for one in wanted}) > 1:
            ids = ", ".join(one.id.hex() for one in wanted)
            raise UserError("A501", f"{name} could be several environments", where=ids, fix="name one by its id")
        if wanted:
            return wanted[0]
    names = ", ".join(dict.fromkeys(one.name for one in journals if one.name)) or "none"
    damaged = ", ".join(str(one.directory) for one in journals if not one.name)
    raise UserError(
        "A304",
        f"no journal of {name} is kept on this node",
        where=f"{state}: {names}" + (f"; not to be read: {damaged}" if damaged else ""),
        fix="atoll audit verify shows what is wrong with those that cannot be read"
        if damaged
        else "atoll env list shows which nodes keep it; run this there, or name a directory",
    )


def _journal(path: Path) -> Journal | None:
    """Return the journal at a path; None: there is none, nor is the path called as one."""
    try:
        segments = [path] if path.is_file() else [segment_path(path, number) for number in segment_numbers(path)]
    except OSError:
        segments = []
    is_ended = path.parent.name == ENDED_NAME
    for segment in reversed(segments):
        try:
            manifest = open_segment(segment).manifest
        except (OSError, CorruptError, UserError):
            continue  # Whoever reads the journal finds out; here it matters only whose it is.
        journal = Journal(path, manifest.environment, manifest.name, tuple(segments), is_ended)
        return journal if path.is_file() else _settled(journal)
    called = _DIRECTORY.fullmatch(path.name)
    return None if called is None else Journal(path, bytes.fromhex(called[1]), "", tuple(segments), is_ended)


def _settled(journal: Journal) -> Journal:
    """Leave out what a crash left of a journal that began anew, as the recorder does when it starts."""
    standing = standing_of(journal)
    try:
        numbers = counting(journal.directory, 0 if standing is None else standing.segment)
    except OSError:
        return journal  # Whoever reads it finds out.
    return replace(journal, segments=tuple(segment_path(journal.directory, number) for number in numbers))


def standing_of(journal: Journal) -> Standing | None:
    """Return what holds of a journal beside its blocks; None: nothing does, or that cannot be read."""
    path = journal.directory / STANDING_NAME
    try:
        return decode_standing(path.read_bytes(), journal.id)
    except (OSError, CorruptError):
        return None


def snapshots_of(journal: Journal) -> list[int]:
    """Return the numbers of the blocks after which there is a snapshot, rising; a segment file alone has none.

    Nor has a journal that began anew while those of the one before are not moved away yet.

    Raises:
        CorruptError: They cannot be listed.
    """
    standing = standing_of(journal)
    if standing is not None and not is_settled(journal.directory, standing.segment):
        return []
    try:
        return snapshot_numbers(journal.directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(journal.directory / SNAPSHOTS_NAME, error) from error


@dataclass(slots=True)
class _Part:
    """One segment and where its blocks are; empty until one of them is asked for."""

    segment: Segment
    offsets: list[int] = field(default_factory=list[int])
    firsts: list[int] = field(default_factory=list[int])  # Number of each block's first event.
    end: Position | None = None


@final
class DiskShelf:
    """A journal on disk, as ``env.past`` reads it.

    Args:
        journal: Which.
        code: Directories in which its code may be.
        trusts: Says whether a snapshot's sealer is a node's, as a roster does; None: its certificate's word is taken.

    Attributes:
        journal: As given.
        code: All directories in which its code is looked for.
        first: Number of the first block that is kept.
        last: Number of the last one.
        first_event: Number of the first event that is kept.
        last_event: Number of the last one.
        snapshots: Numbers of the blocks after which there is a snapshot, rising.

    Raises:
        CorruptError: A segment cannot be read, is missing, or is not what was written.
    """

    def __init__(
        self, journal: Journal, code: tuple[Path, ...] = (), trusts: Callable[[Sealer], bool] | None = None
    ) -> None:
        self.journal: Final = journal
        self._trusts: Final = trusts
        parent = journal.directory.parent
        self.code: Final = (*code, *(one / CODE_NAME for one in (journal.directory, parent, parent.parent)))
        self._loaded: dict[bytes, Loaded] = {}
        if not journal.segments:
            raise CorruptError(f"{journal.directory}: there is no segment that can be read")
        self._parts: Final = [_Part(_opened(path)) for path in journal.segments]
        self._check_order()
        begin = self._parts[0].segment.manifest.at
        self.first: int = begin.number + 1
        self.first_event: int = begin.events + 1
        end = self._end_of(self._parts[-1])
        self.last: int = end.number
        self.last_event: int = end.events
        self.snapshots: tuple[int, ...] = tuple(
            number for number in snapshots_of(journal) if self.first - 1 <= number <= self.last
        )
        self._ahead: dict[int, Sealed] = {}

    def block_of(self, event: int) -> int:
        """Return the number of the block that holds an event which is kept."""
        part = self._part(bisect_right(self._parts, event, key=lambda one: one.segment.manifest.at.events + 1) - 1)
        return part.segment.first + bisect_right(part.firsts, event) - 1

    def block(self, number: int) -> Block:
        """Return a block that is kept.

        Raises:
            CorruptError: It is not what was written.
        """
        return self._sealed(number).block

    def _sealed(self, number: int) -> Sealed:
        if number in self._ahead:
            return self._ahead[number]
        part = self._part(bisect_right(self._parts, number, key=lambda one: one.segment.first) - 1)
        at = number - part.segment.first
        if not 0 <= at < len(part.firsts):
            raise CorruptError(f"block {number} is not there")
        begin = part.offsets[at]
        # As many blocks as READ_BYTES hold, and at least this one: most are asked for one after the other.
        end = part.offsets[max(bisect_right(part.offsets, begin + READ_BYTES) - 1, at + 1)]
        try:
            data = read_at(part.segment.path, begin, end - begin)
            frames = [frame for frame in read_frames(data, number, begin) if not isinstance(frame, TornTail)]
        except OSError as error:
            raise _unreadable(part.segment.path, error) from error
        self._ahead = {frame.item.block.number: frame.item for frame in frames if isinstance(frame.item, Sealed)}
        if number not in self._ahead:
            raise CorruptError(f"{part.segment.path}: block {number} is not there any more")
        return self._ahead[number]

    def snapshot(self, number: int) -> Snapshot:
        """Return a snapshot, which was checked against its block where that is kept: else against who signed it.

        Raises:
            CorruptError: It is not what was written.
        """
        path = self.journal.directory / SNAPSHOTS_NAME / f"{number}.ats"
        try:
            signed = open_snapshot(path.read_bytes(), self.journal.id, number)
            if self._trusts is not None and not self._trusts(signed.sealer):
                raise CorruptError("it was signed with a key that is no node's")
            snapshot = decode_snapshot(signed.content)
            if number < self.first:
                head = self._parts[0].segment.manifest.at.head
            else:
                sealed = self._sealed(number)
                head = sealed.seal.head
                check_written(snapshot, written_in(sealed.block))
            if signed.head != head:
                raise CorruptError(f"it was taken after another block {number}")
        except OSError as error:
            raise _unreadable(path, error) from error
        except CorruptError as error:
            raise CorruptError(f"{path}: {error}") from error
        return snapshot

    def program(self, code: bytes) -> Program:
        """Return the program of a code's digest.

        Raises:
            UserError: A304, it is not here; or it cannot be loaded.
            CorruptError: It is not what was written.
        """
        return self.loaded(code).program

    def loaded(self, code: bytes) -> Loaded:
        """Return code that can run.

        Raises:
            UserError: As ``program``.
            CorruptError: As ``program``.
        """
        if code not in self._loaded:
            self._loaded[code] = load(self.bundle(code))
        return self._loaded[code]

    def bundle(self, code: bytes) -> Bundle:
        """Return code as data.

        Raises:
            UserError: As ``program``.
            CorruptError: As ``program``.
        """
        name = f"{code.hex()}.atc"
        for directory in self.code:
            path = directory / name
            if path.is_file():
                content = path.read_bytes()
                if sha256(content).digest() != code:
                    raise CorruptError(f"{path}: it has another digest")
                return decode_bundle(content)
        raise UserError(
            "A304",
            "the code that the journal names is not here",
            where=f"{name}, in {self.code[0]}",
            fix="copy it there from the node where the journal was made; or name that with --state",
        )

    def products(self) -> tuple[str, ...]:
        """Return the versions of atoll that wrote the segments."""
        return tuple(dict.fromkeys(part.segment.manifest.product for part in self._parts))

    def _check_order(self) -> None:
        for before, part in zip(self._parts, self._parts[1:], strict=False):
            if part.segment.manifest.environment != self.journal.id or part.segment.first < before.segment.first:
                raise CorruptError(f"{part.segment.path}: it is not the one that follows")

    def _part(self, at: int) -> _Part:
        part = self._parts[max(at, 0)]
        self._end_of(part)
        return part

    def _end_of(self, part: _Part) -> Position:
        """Find the blocks of a segment; return where the journal stands behind them."""
        if part.end is not None:
            return part.end
        segment = part.segment
        position = segment.manifest.at
        part.offsets.append(segment.begin)
        try:
            data = read_at(segment.path, segment.begin, segment.size - segment.begin)
            for frame in read_frames(data, segment.first, segment.begin):
                if isinstance(frame, TornTail):
                    break
                if isinstance(frame.item, Sealed):
                    position = position_after(position, frame.item.block)
                    if position.head != frame.item.seal.head:
                        raise CorruptError(f"offset {frame.offset}: block {position.number} does not follow")
                    part.firsts.append(frame.item.block.first_event)
                    part.offsets.append(frame.end)
        except OSError as error:
            raise _unreadable(segment.path, error) from error
        except CorruptError as error:
            raise CorruptError(f"{segment.path}: {error}") from error
        part.end = position
        self._check_next(part, position)
        return position

    def _check_next(self, part: _Part, position: Position) -> None:
        """Check that the segment behind begins where this one ends."""
        at = self._parts.index(part) + 1
        if at < len(self._parts) and self._parts[at].segment.manifest.at != position:
            raise CorruptError(f"{self._parts[at].segment.path}: it does not follow block {position.number}")


def _opened(path: Path) -> Segment:
    try:
        return open_segment(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except CorruptError as error:
        raise CorruptError(f"{path}: {error}") from error


def _unreadable(path: Path, error: OSError) -> CorruptError:
    return CorruptError(f"{path}: {error.strerror or error}")
