# SPDX-License-Identifier: Apache-2.0
"""Blocks over mirrored pairs of real files, some of which are slow, full, torn or gone."""

import io
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from atoll.adapt import ADAPTIVE, EQUAL, Measured, StripedWriter, read_striped
from atoll.base.errors import CorruptError, StorageError, UsageError

pytestmark = pytest.mark.process

Pairs = list[tuple[Path, Path]]
BLOCK = 4096


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    made = [(tmp_path / f"{number}a", tmp_path / f"{number}b") for number in range(4)]
    for directory in (directory for pair in made for directory in pair):
        directory.mkdir()
    return made


def blocks(count: int) -> list[bytes]:
    return [number.to_bytes(4) * (BLOCK // 4 if number % 3 else 7) for number in range(1, count + 1)]


class Disk(io.FileIO):
    """A real file on a disk that writes so many bytes a second, and fails once it is full."""

    def __init__(self, path: Path, bytes_s: float, full: int = 1 << 60) -> None:
        super().__init__(path, "xb")
        self._bytes_s, self._full, self._due_s = bytes_s, full, time.monotonic()

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        if self.tell() + len(data) > self._full:
            raise OSError(28, "No space left on device")
        self._due_s = max(self._due_s, time.monotonic()) + len(data) / self._bytes_s
        time.sleep(max(0.0, self._due_s - time.monotonic()))  # tidy: allow sleep, that is what makes it slow
        return super().write(data)


@pytest.mark.parametrize("plan", [EQUAL, ADAPTIVE, Measured((1, 2, 3, 4))])
def test_what_was_written_is_read_in_order(pairs: Pairs, plan: object) -> None:
    with StripedWriter("s", pairs, plan) as writer:  # type: ignore[arg-type]
        assert [writer.write(block) for block in blocks(100)] == list(range(100))
        writer.close()
        assert sum(writer.written) == 100
    assert list(read_striped("s", pairs)) == blocks(100)


def test_a_plan_by_measured_rates_gives_by_them(pairs: Pairs) -> None:
    with StripedWriter("s", pairs, Measured((1, 2, 3, 4))) as writer:
        for block in blocks(100):
            writer.write(block)
        writer.flush()
        assert writer.written == (10, 20, 30, 40)


def test_the_adaptive_plan_gives_a_slow_pair_less(pairs: Pairs) -> None:
    slow = pairs[2][1]
    rates = {directory: 40e6 if directory != slow else 2e6 for pair in pairs for directory in pair}
    with StripedWriter("s", pairs, ADAPTIVE, opener=lambda path: Disk(path, rates[path.parent])) as writer:
        for _ in range(400):
            writer.write(bytes(65536))
        writer.flush()
        others = [written for number, written in enumerate(writer.written) if number != 2]
        assert writer.written[2] * 4 < min(others)


def test_one_disk_of_each_pair_is_enough(pairs: Pairs) -> None:
    with StripedWriter("s", pairs) as writer:
        for block in blocks(50):
            writer.write(block)
    for number, (one, other) in enumerate(pairs):
        (one if number % 2 else other).joinpath("s").unlink()
    assert list(read_striped("s", pairs)) == blocks(50)


def test_a_damaged_copy_is_not_taken(pairs: Pairs) -> None:
    with StripedWriter("s", pairs) as writer:
        for block in blocks(50):
            writer.write(block)
    for one, _ in pairs:
        with one.joinpath("s").open("r+b") as file:
            file.seek(-400, os.SEEK_END)
            file.write(bytes(100))
    assert list(read_striped("s", pairs)) == blocks(50)


@pytest.mark.parametrize("plan", [EQUAL, ADAPTIVE])
def test_a_pair_that_fails_gives_its_blocks_to_the_others(pairs: Pairs, plan: object) -> None:
    def opener(path: Path) -> Disk:
        return Disk(path, 1e9, full=9 * BLOCK if path.parent in pairs[1] else 1 << 60)

    with StripedWriter("s", pairs, plan, opener=opener) as writer:  # type: ignore[arg-type]
        for block in blocks(100):
            writer.write(block)
    assert list(read_striped("s", pairs)) == blocks(100)


def write_all(writer: StripedWriter, count: int) -> None:
    for block in blocks(count):
        writer.write(block)


class StoppedError(Exception):
    """The program ends in the middle of a stream."""


def write_and_stop(pairs: Pairs, count: int) -> None:
    """Leave a stream unfinished, all of which is on disk."""
    with suppress(StoppedError), StripedWriter("s", pairs) as writer:
        write_all(writer, count)
        writer.flush()
        raise StoppedError


def test_when_no_disk_is_left_the_writer_is_told(pairs: Pairs) -> None:
    with pytest.raises(StorageError), StripedWriter("s", pairs, opener=lambda path: Disk(path, 1e9, 9000)) as writer:
        write_all(writer, 200)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("atoll")]


class Forgetful(Disk):
    """A disk that takes everything and cannot say that it is there to stay."""

    def fileno(self) -> int:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("forgetful", [1, 2])
def test_a_flush_needs_one_disk_of_each_pair(pairs: Pairs, forgetful: int) -> None:
    bad = pairs[1][:forgetful]

    def opener(path: Path) -> Disk:
        return (Forgetful if path.parent in bad else Disk)(path, 1e9)

    def write() -> None:
        with StripedWriter("s", pairs, opener=opener) as writer:
            write_all(writer, 20)
            writer.flush()

    if forgetful == 1:
        write()
        assert list(read_striped("s", pairs)) == blocks(20)
    else:
        with pytest.raises(StorageError, match="both disks"):
            write()


def test_a_stream_that_was_not_finished_says_so(pairs: Pairs) -> None:
    write_and_stop(pairs, 20)
    found: list[bytes] = []
    with pytest.raises(CorruptError):
        found.extend(read_striped("s", pairs))
    read = read_striped("s", pairs)
    assert [next(read) for _ in range(20)] == blocks(20)


def test_a_torn_end_costs_no_block_that_was_flushed(pairs: Pairs) -> None:
    write_and_stop(pairs, 20)
    for directory in (directory for pair in pairs for directory in pair):
        with directory.joinpath("s").open("ab") as file:
            file.write(b"atS1" + bytes(9))
    read = read_striped("s", pairs)
    assert [next(read) for _ in range(20)] == blocks(20)


def test_what_exists_is_not_written_over(pairs: Pairs) -> None:
    pairs[3][1].joinpath("s").write_bytes(b"precious")
    with pytest.raises(StorageError):
        StripedWriter("s", pairs)
    assert pairs[3][1].joinpath("s").read_bytes() == b"precious"
    assert [path for pair in pairs for directory in pair for path in directory.iterdir()] == [pairs[3][1] / "s"]


def test_arguments_that_contradict_each_other_are_refused(pairs: Pairs) -> None:
    with pytest.raises(UsageError):
        StripedWriter("s", [])
    with pytest.raises(UsageError):
        StripedWriter("s", pairs, Measured((1, 2)))
    with StripedWriter("s", pairs) as writer, pytest.raises(UsageError):
        writer.write(b"")
    with pytest.raises(UsageError):
        writer.write(b"late")
