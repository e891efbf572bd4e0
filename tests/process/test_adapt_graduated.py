# SPDX-License-Identifier: Apache-2.0
"""Readers of mirrored segments on real files, one of whose disks is slow or fails."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from atoll.adapt import GraduatedReader
from atoll.base.errors import StorageError, UsageError

pytestmark = pytest.mark.process

BLOCK = 16_384
COUNT = 60
DISKS = 4


def content(segment: int, block: int) -> bytes:
    return bytes((segment, block)) * (BLOCK // 2)


class Disk:
    """A file that holds two segments, on a disk that reads so many bytes a second, and fails after so many blocks."""

    def __init__(self, path: Path, number: int, bytes_s: float, fails_after: int = 1 << 30) -> None:
        self.number, self._bytes_s, self._left, self._due_s, self.reads = number, bytes_s, fails_after, 0.0, 0
        self._file = path.open("x+b")
        for segment in ((number - 1) % DISKS, number):
            for block in range(COUNT):
                self._file.write(content(segment, block))

    def read(self, segment: int, block: int) -> bytes:
        if self.reads == self._left:
            raise OSError(5, "Input/output error")
        self.reads += 1
        self._due_s = max(self._due_s, time.monotonic()) + BLOCK / self._bytes_s
        time.sleep(max(0.0, self._due_s - time.monotonic()))  # tidy: allow sleep, that is what makes it slow
        self._file.seek((COUNT * (segment == self.number) + block) * BLOCK)
        return self._file.read(BLOCK)

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def disks(tmp_path: Path) -> Callable[..., list[Disk]]:
    def make(*rates: float, fails: dict[int, int] | None = None) -> list[Disk]:
        return [
            Disk(tmp_path / str(number), number, rate, (fails or {}).get(number, 1 << 30))
            for number, rate in enumerate(rates)
        ]

    return make


def read_all(made: list[Disk], *, is_graduated: bool = True) -> list[list[bytes] | None]:
    """Return what each reader got; None: an error."""
    found: list[list[bytes] | None] = [None] * DISKS

    def read(segment: int) -> None:
        with suppress(StorageError):
            found[segment] = list(job.segment(segment))

    with GraduatedReader([disk.read for disk in made], COUNT, is_graduated=is_graduated) as job:
        readers = [threading.Thread(target=read, args=(segment,)) for segment in range(DISKS)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    for disk in made:
        disk.close()
    return found


WHOLE = [[content(segment, block) for block in range(COUNT)] for segment in range(DISKS)]


@pytest.mark.parametrize("is_graduated", [True, False])
def test_every_block_comes_once_and_in_order(disks: Callable[..., list[Disk]], is_graduated: bool) -> None:
    made = disks(*[1e9] * DISKS)
    assert read_all(made, is_graduated=is_graduated) == WHOLE
    assert sum(disk.reads for disk in made) == DISKS * COUNT


def test_a_slow_disk_serves_less(disks: Callable[..., list[Disk]]) -> None:
    made = disks(8e6, 8e6, 1e6, 8e6)
    assert read_all(made) == WHOLE
    assert made[2].reads * 3 < min(disk.reads for disk in made if disk is not made[2])


def test_a_disk_that_fails_is_done_without(disks: Callable[..., list[Disk]]) -> None:
    assert read_all(disks(*[1e9] * DISKS, fails={1: 10})) == WHOLE


def test_a_segment_both_of_whose_disks_fail_is_an_error_for_its_reader_alone(disks: Callable[..., list[Disk]]) -> None:
    found = read_all(disks(*[1e9] * DISKS, fails={1: 3, 2: 3}))
    assert [got == whole for got, whole in zip(found, WHOLE, strict=True)] == [True, False, True, True]


def test_one_disk_is_no_mirror() -> None:
    with pytest.raises(UsageError):
        GraduatedReader([lambda _segment, _block: b""], 1)
