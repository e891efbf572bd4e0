# SPDX-License-Identifier: Apache-2.0
"""Writing and reading over disks one of which is slow: throughput of real files, against the formula of each scenario.

A disk is a real file behind a throttle that lets so many bytes a second through, and keeps its credit for QUEUE_S as
a disk's queue does. N pairs or disks have rate B, one has rate b.

Writing (RAID-10, the fail-stutter paper): all pairs equal: N b; by rates measured beforehand, and by what each pair
takes: (N-1) B + b. Reading (graduated declustering, River): every reader gets ((N-1) B + b) / N; with plain mirroring
the slow disk's readers get (B + b) / 2, as long as the others read.
"""

import io
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from atoll.adapt import ADAPTIVE, EQUAL, GraduatedReader, Measured, StripedWriter

PAIRS: Final = 4
READERS: Final = 8
RATIOS: Final = (0.8, 0.5, 0.2, 0.1)
RATE: Final = 20e6  # Bytes a second; far below what the machine's disk does.
READ_RATE: Final = 4e6  # Of the readers' disks, which must hold all that is read beforehand.
BLOCK: Final = 128 << 10
READ_BLOCK: Final = 32 << 10
QUEUE_S: Final = 0.05
SPAN_S: Final = 5.0  # How long a run takes by the formula.


class Throttle:
    """Lets so many bytes a second through."""

    def __init__(self, bytes_s: float) -> None:
        self._bytes_s, self._due_s = bytes_s, time.monotonic()

    def passes(self, count: int) -> None:
        """Wait until so many bytes have passed."""
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - QUEUE_S) + count / self._bytes_s
        if self._due_s > now_s:
            time.sleep(self._due_s - now_s)


class SlowFile(io.FileIO):
    """A new file behind a throttle."""

    def __init__(self, path: Path, throttle: Throttle) -> None:
        super().__init__(path, "xb")
        self._throttle = throttle

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        """Write, slowly."""
        self._throttle.passes(len(data))
        return super().write(data)


@dataclass(frozen=True)
class Result:
    """Bytes a second, and what the formula says."""

    measured: float
    formula: float

    @property
    def share(self) -> float:
        """Of the formula's."""
        return self.measured / self.formula


def writing(ratio: float) -> dict[str, Result]:
    """Return the throughput of each plan when the last pair has this share of the others' rate."""
    slow, results = ratio * RATE, {}
    for name, plan, formula in (
        ("equal", EQUAL, PAIRS * slow),
        ("measured", Measured((1.0,) * (PAIRS - 1) + (ratio,)), (PAIRS - 1) * RATE + slow),
        ("adaptive", ADAPTIVE, (PAIRS - 1) * RATE + slow),
    ):
        with TemporaryDirectory(prefix="atoll-bench-") as made:
            root = Path(made)
            pairs = [(root / f"{number}a", root / f"{number}b") for number in range(PAIRS)]
            for directory in (directory for pair in pairs for directory in pair):
                directory.mkdir()
            block, count = bytes(BLOCK), int(formula * SPAN_S / BLOCK)
            last = set(pairs[-1])

            def opened(path: Path, last: set[Path] = last) -> SlowFile:
                return SlowFile(path, Throttle(slow if path.parent in last else RATE))

            began_s = time.monotonic()
            with StripedWriter("stream", pairs, plan, opener=opened) as writer:
                for _ in range(count):
                    writer.write(block)
            results[name] = Result(count * BLOCK / (time.monotonic() - began_s), formula)
    return results


def reading(ratio: float, *, is_graduated: bool) -> Result:
    """Return the rate of the slowest reader while all read, when one disk has this share of the others' rate."""
    slow = ratio * READ_RATE
    formula = ((READERS - 1) * READ_RATE + slow) / READERS if is_graduated else (READ_RATE + slow) / 2
    count = int(READ_RATE * SPAN_S / READ_BLOCK)
    with TemporaryDirectory(prefix="atoll-bench-") as made:
        root = Path(made)
        for number in range(READERS):
            (root / str(number)).write_bytes(bytes(2 * count * READ_BLOCK))
        files = [(root / str(number)).open("rb") for number in range(READERS)]
        throttles = [Throttle(slow if number == READERS - 1 else READ_RATE) for number in range(READERS)]

        def disk(number: int) -> "ReadFrom":
            return ReadFrom(files[number], throttles[number], number, count)

        progress, ended = [0] * READERS, threading.Event()
        with GraduatedReader([disk(number).read for number in range(READERS)], count, is_graduated=is_graduated) as job:

            def follow(segment: int) -> None:
                for _ in job.segment(segment):
                    progress[segment] += 1
                ended.set()

            began_s = time.monotonic()
            readers = [threading.Thread(target=follow, args=(segment,)) for segment in range(READERS)]
            for reader in readers:
                reader.start()
            ended.wait()
            slowest, took_s = min(progress), time.monotonic() - began_s
            for reader in readers:
                reader.join()
        for file in files:
            file.close()
    return Result(slowest * READ_BLOCK / took_s, formula)


@dataclass(frozen=True)
class ReadFrom:
    """A disk that holds two segments."""

    file: io.BufferedReader
    throttle: Throttle
    number: int
    count: int

    def read(self, segment: int, block: int) -> bytes:
        """Read a block of one of them."""
        self.throttle.passes(READ_BLOCK)
        self.file.seek((self.count * (segment == self.number) + block) * READ_BLOCK)
        return self.file.read(READ_BLOCK)
