# SPDX-License-Identifier: Apache-2.0
"""One stream of blocks over several mirrored pairs of disks: RAID-10 whose layout follows how fast each pair is.

Three plans, the scenarios of the fail-stutter paper. D blocks go to N pairs of rate B each, one of which has rate b:

* ``EQUAL`` gives each pair D/N blocks, as if the only fault were a dead disk: N b.
* ``Measured`` gives each in proportion to rates that were measured once: (N-1) B + b, until a rate changes.
* ``ADAPTIVE`` gives the next block to whichever pair is ready for one: (N-1) B + b at every moment, whatever changes.

With the last, where a block went is known only afterwards. So each block is written behind a header that says which one
it is: the *block map* is spread over the disks, is as durable as the data, and is read by one pass over the headers.
A pair both of whose disks fail gives the blocks that it did not finish to the others.

File format, per disk: records of (magic, number, length, CRC-32 of the rest of the header and of the block), then the
block; the last record, number 2^64-1, holds the count of all blocks. A record that is torn ends the file.

Source: Arpaci-Dusseau and Arpaci-Dusseau, Fail-Stutter Fault Tolerance, HotOS-VIII (2001), section 3.2.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, Self, final
from zlib import crc32

from atoll.base.errors import CorruptError, StorageError, UsageError

__all__ = ["ADAPTIVE", "BLOCK_BYTES_MAX", "EQUAL", "Measured", "Plan", "StripedWriter", "read_striped"]

BLOCK_BYTES_MAX: Final = 64 << 20
PAIRS_MAX: Final = 64
QUEUED_MAX: Final = 4  # Limit. Blocks that wait for each pair; ``write`` waits beyond it.

_HEADER: Final = Struct("<4sQII")
_MAGIC: Final = b"atS1"
_END: Final = (1 << 64) - 1
_COUNT: Final = Struct("<Q")

Opener = Callable[[Path], BinaryIO]


@dataclass(frozen=True, slots=True)
class Measured:
    """Plan: blocks in proportion to rates that were measured beforehand, in any unit, one for each pair."""

    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Fixed:
    """Plan without parameters."""

    name: str


EQUAL: Final = _Fixed("equal")
ADAPTIVE: Final = _Fixed("adaptive")
Plan = Measured | _Fixed


def _open_new(path: Path) -> BinaryIO:
    return path.open("xb", buffering=0)


@dataclass(slots=True)
class _Pair:
    """Two files that hold the same, and what waits for them."""

    files: list[BinaryIO]
    waiting: deque[tuple[int, bytes]] = field(default_factory=deque[tuple[int, bytes]])
    written: int = 0
    given: int = 0  # By the plan.


@final
class StripedWriter:
    """Writes blocks; one thread at a time may call it. Use as a context manager.

    Args:
        name: Of the stream; each disk gets one file of this name.
        pairs: Directories of each pair's two disks, 1 to PAIRS_MAX pairs.
        plan: EQUAL, ADAPTIVE or a Measured.
        opener: Makes a file that must not exist yet; by default, unbuffered, on this machine.

    Raises:
        StorageError: A file cannot be made; those that were made are removed.
        UsageError: The arguments contradict each other.
    """

    def __init__(
        self, name: str, pairs: Sequence[tuple[Path, Path]], plan: Plan = ADAPTIVE, *, opener: Opener = _open_new
    ) -> None:
        if not 1 <= len(pairs) <= PAIRS_MAX:
            raise UsageError(f"{len(pairs)} pairs")
        if isinstance(plan, Measured) and (len(plan.rates) != len(pairs) or min(plan.rates) <= 0):
            raise UsageError("a plan needs one positive rate for each pair")
        self._plan = plan
        self._pairs: Final = [_Pair(files) for files in _opened(name, pairs, opener)]
        self._state: Final = threading.Condition()
        self._shared: Final[deque[tuple[int, bytes]]] = deque()  # Of ADAPTIVE: taken by whoever is ready.
        self._count = self._unfinished = 0
        self._ending = False
        self._error: StorageError | None = None
        self._mirrors: Final = ThreadPoolExecutor(len(pairs), "atoll-mirror")
        self._threads: Final = [
            threading.Thread(target=self._serve, args=(pair,), name="atoll-stripe") for pair in self._pairs
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; after an error without waiting for the end of the stream, which is then not complete."""
        self._close(complete=kind is None)

    @property
    def written(self) -> tuple[int, ...]:
        """How many blocks each pair has written."""
        return tuple(pair.written for pair in self._pairs)

    def write(self, block: bytes) -> int:
        """Take one block; return its number. Waits while QUEUED_MAX blocks wait for each pair that may get it.

        Raises:
            StorageError: No pair is left that can write; also of earlier blocks.
            UsageError: It is empty or too large, or the writer is closed.
        """
        if not 0 < len(block) <= BLOCK_BYTES_MAX or self._ending:
            raise UsageError(f"a block of {len(block)} bytes" if not self._ending else "the writer is closed")
        with self._state:
            while True:
                self._raise()
                pair = self._next_pair()  # Chosen anew after each wait: one may have failed meanwhile.
                waiting, most = (
                    (self._shared, QUEUED_MAX * self._living) if pair is None else (pair.waiting, QUEUED_MAX)
                )
                if len(waiting) < most:
                    break
                self._state.wait()
            if pair is not None:
                pair.given += 1
            number = self._count
            waiting.append((number, bytes(block)))
            self._count += 1
            self._unfinished += 1
            self._state.notify_all()
            return number

    def flush(self) -> None:
        """Return when everything that was taken is on disk.

        Raises:
            StorageError: As ``write``.
        """
        with self._state:
            self._state.wait_for(lambda: not self._unfinished or self._error is not None)
            self._raise()
        for pair in self._pairs:
            had_any = bool(pair.files)
            _leave_out(pair, [file for file in pair.files if not _synced(file)])
            if had_any and not pair.files:  # What it was given is nowhere else.
                raise StorageError("both disks of a pair failed: blocks that were taken may be lost")

    def close(self) -> None:
        """Finish the stream: everything is on disk, and a reader can tell that it is all there.

        Raises:
            StorageError: As ``write``.
        """
        self._close(complete=True)

    def _close(self, *, complete: bool) -> None:
        try:
            if complete and not self._ending:
                self.flush()
                for pair in self._pairs:
                    if pair.files:
                        self._put(pair, _END, _COUNT.pack(self._count))
                self.flush()
        finally:
            with self._state:
                self._ending = True
                self._state.notify_all()
            for thread in self._threads:
                thread.join()
            self._mirrors.shutdown()
            for pair in self._pairs:
                for file in pair.files:
                    file.close()
                pair.files.clear()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    @property
    def _living(self) -> int:
        return sum(bool(pair.files) for pair in self._pairs)

    def _next_pair(self) -> _Pair | None:
        """Return which pair the next block is for; None: for whichever is ready."""
        if self._plan is ADAPTIVE:
            return None
        rates = self._plan.rates if isinstance(self._plan, Measured) else (1.0,) * len(self._pairs)
        shares = [((pair.given + 1) / rate, pair) for pair, rate in zip(self._pairs, rates, strict=True) if pair.files]
        return min(shares, key=lambda share: share[0])[1] if shares else None

    def _serve(self, pair: _Pair) -> None:
        """Write what waits for a pair, until the end."""
        while True:
            with self._state:
                self._state.wait_for(lambda: pair.waiting or self._shared or self._ending)
                queue = pair.waiting or self._shared
                if not queue:
                    return
                number, block = queue.popleft()
                self._state.notify_all()
            written = self._put(pair, number, block)
            with self._state:
                if written:
                    pair.written += 1
                    self._unfinished -= 1
                else:  # What it did not finish goes to those that are left.
                    self._shared.append((number, block))
                    self._shared.extend(pair.waiting)
                    pair.waiting.clear()
                    if not self._living:
                        self._error = StorageError("no disk is left that can be written")
                self._state.notify_all()
                if not written:
                    return

    def _put(self, pair: _Pair, number: int, block: bytes) -> bool:
        """Write one block to both disks of a pair; a disk that fails is left out. False: none is left."""
        sums = crc32(block, crc32(_HEADER.pack(_MAGIC, number, len(block), 0)))
        record = (_HEADER.pack(_MAGIC, number, len(block), sums), block)
        files = list(pair.files)
        others = [(file, self._mirrors.submit(_written, file, record)) for file in files[1:]]
        failed = [file for file in files[:1] if not _written(file, record)]
        failed += [file for file, other in others if not other.result()]
        _leave_out(pair, failed)
        return bool(pair.files)


def _opened(name: str, pairs: Sequence[tuple[Path, Path]], opener: Opener) -> list[list[BinaryIO]]:
    made: list[list[BinaryIO]] = []
    for pair in pairs:
        made.append([])
        for directory in pair:
            try:
                made[-1].append(opener(directory / name))
            except OSError as error:
                for file in (file for files in made for file in files):
                    file.close()
                    Path(file.name).unlink(missing_ok=True)
                raise StorageError(f"{directory / name}: {error.strerror}") from error
    return made


def _written(file: BinaryIO, record: Sequence[bytes]) -> bool:
    try:
        for part in record:
            left = memoryview(part)
            while left:
                left = left[file.write(left) :]
    except (OSError, ValueError):
        return False
    return True


def _synced(file: BinaryIO) -> bool:
    try:
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        return False
    return True


def _leave_out(pair: _Pair, failed: Sequence[BinaryIO]) -> None:
    """Do without disks that failed."""
    for file in failed:
        pair.files.remove(file)
        with suppress(OSError):
            file.close()


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    at: int
    length: int
    sums: int


def _places(path: Path) -> tuple[dict[int, _Place], int | None]:
    """Return where the blocks of one file are, and how many the whole stream has, if the file says so."""
    found: dict[int, _Place] = {}
    at, count = 0, None
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while at + _HEADER.size <= size:
            file.seek(at)
            magic, number, length, sums = _HEADER.unpack(file.read(_HEADER.size))
            at += _HEADER.size
            if magic != _MAGIC or at + length > size:
                break
            if number == _END:
                count = _COUNT.unpack(file.read(_COUNT.size))[0] if length == _COUNT.size else None
                break
            found[number] = _Place(path, at, length, sums)
            at += length
    return found, count


def read_striped(name: str, pairs: Sequence[tuple[Path, Path]]) -> Iterator[bytes]:
    """Yield the blocks of a stream in order, each from whichever disk has it right.

    Args:
        name: Of the stream.
        pairs: As it was written; directories that are gone are done without.

    Raises:
        CorruptError: A block is on no disk, or the stream was not finished; raised where the first one is missing.
    """
    places: dict[int, list[_Place]] = {}
    count: int | None = None
    for path in (directory / name for pair in pairs for directory in pair):
        try:
            found, said = _places(path)
        except OSError:
            continue
        count = said if count is None else count
        for number, place in found.items():
            places.setdefault(number, []).append(place)
    number = 0
    while number in places:
        yield _block(number, places[number])
        number += 1
    if number != count:
        raise CorruptError(f"{name}: block {number} of {'?' if count is None else count} is on no disk")


def _block(number: int, places: Sequence[_Place]) -> bytes:
    for place in places:
        try:
            with place.path.open("rb") as file:
                file.seek(place.at)
                block = file.read(place.length)
        except OSError:
            continue
        if crc32(block, crc32(_HEADER.pack(_MAGIC, number, place.length, 0))) == place.sums:
            return block
    raise CorruptError(f"block {number}: every copy is damaged")
