# SPDX-License-Identifier: Apache-2.0
"""Trying a disk, with a real file: what it takes is told, and a disk that hangs shows and keeps nobody from ending."""

import asyncio
import gc
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from atoll.base.errors import StorageError
from atoll.base.units import MILLISECOND_NS
from atoll.host.clock import SystemClock
from atoll.host.disk_trial import TRIAL_BYTES, TRIAL_NAME, DiskTrial

pytestmark = pytest.mark.process

WAIT_S = 20.0
SLOW_NS = 30 * MILLISECOND_NS
HANGS = f"""
import asyncio, os, sys, threading
from pathlib import Path
from atoll.host.disk_trial import DiskTrial

begun = threading.Event()

def hang(_file):
    begun.set()
    threading.Event().wait()

async def main():
    trial = DiskTrial(Path(sys.argv[1]))
    os.fdatasync = hang
    asked = asyncio.create_task(trial.measure())
    assert await asyncio.to_thread(begun.wait, {WAIT_S})
    if sys.argv[2] == "close":
        trial.close()
        assert await asked is None
    print("ends")

asyncio.run(main())
"""


class Disk:
    """The operating system's ``fdatasync``, which the test can stop or slow down."""

    def __init__(self) -> None:
        self.flowing = threading.Event()
        self.flowing.set()
        self.slow_ns = 0
        self.fails = False
        self.waiting = threading.Semaphore(0)
        self.in_the_loop = 0
        self.at_once = self.at_once_max = 0
        self._clock = SystemClock()
        self._real = os.fdatasync

    def fdatasync(self, descriptor: int) -> None:
        self.in_the_loop += threading.current_thread() is threading.main_thread()
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        if not self.flowing.is_set():
            self.waiting.release()
            assert self.flowing.wait(WAIT_S)
        end_ns = self._clock.monotonic_ns() + self.slow_ns
        while self._clock.monotonic_ns() < end_ns:
            pass
        self.at_once -= 1
        if self.fails:
            raise OSError(5, "Input/output error")
        self._real(descriptor)

    async def until_waiting(self) -> None:
        assert await asyncio.to_thread(self.waiting.acquire, timeout=WAIT_S)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Generator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    yield disk
    disk.flowing.set()
    assert disk.in_the_loop == 0
    assert disk.at_once_max <= 1


@contextmanager
def files_of_at_most(size: int) -> Generator[None]:
    """A full disk without root: the kernel refuses to let any file grow beyond this size, with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def run(directory: Path, test: Callable[[DiskTrial], Awaitable[None]]) -> None:
    async def scenario() -> None:
        trial = DiskTrial(directory)
        try:
            async with asyncio.timeout(WAIT_S):
                await test(trial)
        finally:
            trial.close()
            trial.close()

    asyncio.run(scenario())


def now_ns() -> int:
    return SystemClock().monotonic_ns()


async def until_gone(path: Path) -> None:
    while path.exists():  # noqa: ASYNC110 - what it waits for cannot signal it.
        await asyncio.sleep(0.005)


def test_a_write_takes_time_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / TRIAL_NAME

    async def scenario(trial: DiskTrial) -> None:
        assert not file.exists()
        assert trial.under_way_ns(now_ns()) == 0
        contents: set[bytes] = set()
        for _ in range(3):
            took_ns = await trial.measure()
            assert took_ns is not None
            assert took_ns > 0
            assert trial.under_way_ns(now_ns()) == 0
            contents.add(file.read_bytes())
        assert [len(content) for content in contents] == [TRIAL_BYTES] * 3
        assert file.stat().st_mode & 0o777 == 0o600
        trial.close()
        await until_gone(file)
        assert await trial.measure() is None

    run(tmp_path, scenario)
    assert list(tmp_path.iterdir()) == []


def test_one_that_was_never_asked_has_nothing_to_end(tmp_path: Path) -> None:
    async def scenario(trial: DiskTrial) -> None:
        trial.close()

    (tmp_path / TRIAL_NAME).write_bytes(b"another's")
    run(tmp_path, scenario)
    assert (tmp_path / TRIAL_NAME).read_bytes() == b"another's"


def test_a_slow_disk_is_told_and_only_once_at_a_time(disk: Disk, tmp_path: Path) -> None:
    async def scenario(trial: DiskTrial) -> None:
        disk.slow_ns = SLOW_NS
        first, second = await asyncio.gather(trial.measure(), trial.measure())
        assert first is not None
        assert first >= SLOW_NS
        assert second is None
        again = await trial.measure()
        assert again is not None
        assert again >= SLOW_NS

    run(tmp_path, scenario)


def test_a_disk_that_hangs_shows_before_it_answers(disk: Disk, tmp_path: Path) -> None:
    async def scenario(trial: DiskTrial) -> None:
        disk.flowing.clear()
        asked_ns = now_ns()
        hanging = asyncio.create_task(trial.measure())
        await disk.until_waiting()
        assert await trial.measure() is None
        reached_ns = now_ns()
        while trial.under_way_ns(now_ns()) < SLOW_NS:  # noqa: ASYNC110 - it is the clock that is waited for.
            await asyncio.sleep(0.005)
        assert trial.under_way_ns(reached_ns) <= reached_ns - asked_ns
        assert trial.under_way_ns(0) == 0, "a clock of another zero makes nothing negative"
        assert not hanging.done()
        disk.flowing.set()
        assert await hanging is not None
        assert trial.under_way_ns(now_ns()) == 0

    run(tmp_path, scenario)


def test_who_is_cancelled_leaves_the_trial_under_way(disk: Disk, tmp_path: Path) -> None:
    async def scenario(trial: DiskTrial) -> None:
        disk.flowing.clear()
        hanging = asyncio.create_task(trial.measure())
        await disk.until_waiting()
        hanging.cancel()
        with suppress(asyncio.CancelledError):
            await hanging
        assert hanging.cancelled()
        assert await trial.measure() is None
        assert trial.under_way_ns(now_ns()) > 0
        disk.flowing.set()
        while trial.under_way_ns(now_ns()):  # noqa: ASYNC110 - what it waits for cannot signal it.
            await asyncio.sleep(0.005)
        assert await trial.measure() is not None

    run(tmp_path, scenario)


def test_closing_does_not_wait_for_a_disk_that_hangs(disk: Disk, tmp_path: Path) -> None:
    async def scenario(trial: DiskTrial) -> None:
        disk.flowing.clear()
        hanging = asyncio.create_task(trial.measure())
        await disk.until_waiting()
        trial.close()
        assert not disk.flowing.is_set()
        assert await hanging is None
        assert trial.under_way_ns(now_ns()) == 0
        assert await trial.measure() is None
        disk.flowing.set()
        await until_gone(tmp_path / TRIAL_NAME)

    run(tmp_path, scenario)


def test_the_loop_may_end_before_the_disk_answers(disk: Disk, tmp_path: Path) -> None:
    async def begun(trial: DiskTrial) -> None:
        asking = asyncio.create_task(trial.measure())
        await disk.until_waiting()
        assert not asking.done()

    disk.flowing.clear()
    trial = DiskTrial(tmp_path)
    asyncio.run(begun(trial))
    disk.flowing.set()
    trial.close()

    async def gone() -> None:
        async with asyncio.timeout(WAIT_S):
            await until_gone(tmp_path / TRIAL_NAME)

    asyncio.run(gone())


@pytest.mark.parametrize("how", ["close", "leave"])
def test_a_process_ends_while_its_disk_hangs(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-c", HANGS, str(tmp_path), how]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ends\n", "")


def test_a_full_disk_is_told_and_tried_again(tmp_path: Path) -> None:
    async def scenario(trial: DiskTrial) -> None:
        with files_of_at_most(TRIAL_BYTES // 4), pytest.raises(StorageError, match="trial: File too large") as told:
            await trial.measure()
        assert isinstance(told.value.__cause__, OSError)
        assert trial.under_way_ns(now_ns()) == 0
        assert await trial.measure() is not None

    run(tmp_path, scenario)


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    async def scenario(trial: DiskTrial) -> None:
        for _ in range(2):
            with pytest.raises(StorageError, match="trial: No such file or directory"):
                await trial.measure()

    run(tmp_path / "gone", scenario)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / TRIAL_NAME).symlink_to(tmp_path / "precious")

    async def scenario(trial: DiskTrial) -> None:
        with pytest.raises(StorageError):
            await trial.measure()

    run(tmp_path, scenario)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_disk_that_fails_is_told_as_often_as_it_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = os.close

    def fails(_file: int) -> None:
        raise OSError(5, "Input/output error")

    def fails_to_close(file: int) -> None:
        close(file)
        fails(file)

    async def scenario(trial: DiskTrial) -> None:
        assert await trial.measure() is not None
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fails)
            with pytest.raises(StorageError, match="Input/output error"):
                await trial.measure()
            patch.setattr(os, "close", fails_to_close)
            with pytest.raises(StorageError, match="Input/output error"):
                await trial.measure()
        assert await trial.measure() is not None

    run(tmp_path, scenario)


def test_a_refusal_that_nobody_waits_for_any_more_is_dropped(disk: Disk, tmp_path: Path) -> None:
    async def scenario(trial: DiskTrial) -> None:
        told: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        disk.flowing.clear()
        disk.fails = True
        hanging = asyncio.create_task(trial.measure())
        await disk.until_waiting()
        hanging.cancel()
        with suppress(asyncio.CancelledError):
            await hanging
        disk.flowing.set()
        while trial.under_way_ns(now_ns()):  # noqa: ASYNC110 - what it waits for cannot signal it.
            await asyncio.sleep(0.005)
        del hanging
        gc.collect()
        assert told == []
        disk.fails = False
        assert await trial.measure() is not None

    run(tmp_path, scenario)
