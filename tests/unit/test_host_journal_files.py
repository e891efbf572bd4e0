# SPDX-License-Identifier: Apache-2.0
"""Journals on disk: bounded, private, suspended and resumed by name, read back from directory and file."""

import os
import re
import resource
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import CorruptError, StorageError, UsageError, UserError
from atoll.base.units import SECOND_NS
from atoll.core.journal import Provenance, Recorder, Suspension
from atoll.core.limits import INPUT_BYTES_MAX
from atoll.core.machine import MachineKind, Tuple
from atoll.core.replay import ReplayResult, replay
from atoll.host.journal_files import JournalFiles, export_journal, read_journal
from atoll.host.limits import FLUSH_BYTES_MAX, FLUSH_NS_MAX, RETRY_NS


class Noted(Tuple, frozen=True):
    text: bytes


class Stored(Tuple, frozen=True):
    count: int


class Notebook:
    """Counts notes."""

    deadline_ns: int | None = None

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def handle(self, event: Noted, now_ns: int) -> Sequence[Stored]:
        self.count += 1
        return (Stored(self.count),) if event.text and now_ns >= 0 else ()

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.count)


def restore(state: bytes) -> Notebook:
    return Notebook(msgspec.msgpack.decode(state, type=int))


KIND: MachineKind[Noted, Stored] = MachineKind("notebook", 1, Noted, Stored, restore)
NOTE = Noted(b"n" * 1000)


def started(files: JournalFiles, *, segment_bytes_max: int = 1 << 20, count: int = 0) -> Recorder[Noted, Stored]:
    return Recorder(
        KIND,
        Notebook(count),
        Provenance("0.1.0", "fra-1", 10**18, 0),
        sequence=files.sequence,
        segment_bytes_max=segment_bytes_max,
    )


def replayed(path: Path) -> ReplayResult:
    return replay({"notebook": KIND}, read_journal(path))


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@contextmanager
def files_of_at_most(size: int) -> Generator[None]:
    """A full disk without root: the kernel refuses to let any file grow beyond this size, with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def keep_and_flush(files: JournalFiles, recorder: Recorder[Noted, Stored], now_ns: int) -> None:
    """Keep, and once more when the buffer has waited long enough."""
    files.keep(recorder, now_ns)
    files.keep(recorder, now_ns + FLUSH_NS_MAX)


def test_what_was_kept_is_read_back_and_private(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    files = JournalFiles(directory)
    recorder = started(files)
    for now_ns in range(5):
        recorder.handle(NOTE, now_ns)
        files.keep(recorder, now_ns)
    files.close()
    assert names(directory) == ["00000001.atj"]
    assert (directory.stat().st_mode & 0o777, (directory / "00000001.atj").stat().st_mode & 0o777) == (0o700, 0o600)
    result = replayed(directory)
    assert (result.inputs, result.digest, result.torn) == (5, recorder.digest, 0)


def test_writes_wait_for_a_second_or_a_buffer(tmp_path: Path) -> None:
    files = JournalFiles(tmp_path)
    recorder = started(files)
    files.keep(recorder, 100)
    assert files.deadline_ns == 100 + FLUSH_NS_MAX
    files.keep(recorder, 99 + FLUSH_NS_MAX)
    assert names(tmp_path) == []
    files.keep(recorder, 100 + FLUSH_NS_MAX)
    assert names(tmp_path) == ["00000001.atj"]
    assert [files.deadline_ns] == [None]
    size = (tmp_path / "00000001.atj").stat().st_size
    for _ in range(FLUSH_BYTES_MAX // 1000 + 1):
        recorder.handle(NOTE, 0)
    files.keep(recorder, 200)
    assert (tmp_path / "00000001.atj").stat().st_size > size + FLUSH_BYTES_MAX
    files.close()


def test_the_next_run_goes_on_with_the_next_file_and_number(tmp_path: Path) -> None:
    for run in range(3):
        files = JournalFiles(tmp_path)
        assert files.sequence == 2 * run
        recorder = started(files)
        for _ in range(2):
            recorder.handle(NOTE, 0)
        files.keep(recorder, 0)
        files.close()
    assert names(tmp_path) == ["00000001.atj", "00000002.atj", "00000003.atj"]
    result = replayed(tmp_path)
    assert (result.runs, result.inputs, result.sequence) == (3, 6, 6)


def test_a_torn_or_damaged_last_file_never_makes_numbers_repeat(tmp_path: Path) -> None:
    files = JournalFiles(tmp_path)
    recorder = started(files)
    for _ in range(9):
        recorder.handle(NOTE, 0)
    files.keep(recorder, 0)
    files.close()
    path = tmp_path / "00000001.atj"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert JournalFiles(tmp_path).sequence == 8
    path.write_bytes(whole[:1500] + b"?" + whole[1501:])
    assert JournalFiles(tmp_path).sequence >= 9
    (tmp_path / "00000002.atj").write_bytes(b"no journal at all")
    assert JournalFiles(tmp_path).sequence >= 9


def test_only_so_many_segments_are_kept(tmp_path: Path) -> None:
    files = JournalFiles(tmp_path, segments_max=3)
    recorder = started(files, segment_bytes_max=2000)
    for now_ns in range(20):
        recorder.handle(NOTE, now_ns)
        files.keep(recorder, now_ns * SECOND_NS)
    files.close()
    assert len(names(tmp_path)) == 3
    assert names(tmp_path)[-1] == "00000011.atj"
    assert replayed(tmp_path).digest == recorder.digest


def test_only_so_many_bytes_are_kept(tmp_path: Path) -> None:
    files = JournalFiles(tmp_path, bytes_max=10_000)
    recorder = started(files, segment_bytes_max=2000)
    for now_ns in range(40):
        recorder.handle(NOTE, now_ns)
        files.keep(recorder, now_ns * SECOND_NS)
    files.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert 6_000 < sum(sizes) <= 10_000 + max(sizes)
    assert replayed(tmp_path).digest == recorder.digest


def test_files_that_are_not_segments_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("mine")
    (tmp_path / "1.atj").write_text("mine")
    files = JournalFiles(tmp_path, segments_max=2)
    recorder = started(files, segment_bytes_max=1)
    for now_ns in range(5):
        recorder.handle(NOTE, now_ns)
        files.keep(recorder, now_ns * SECOND_NS)
    files.close()
    assert names(tmp_path)[-2:] == ["1.atj", "readme.txt"]
    assert len(names(tmp_path)) == 4


def test_a_full_disk_suspends_the_journal_once_and_never_the_node(tmp_path: Path) -> None:
    files = JournalFiles(tmp_path)
    recorder = started(files)
    recorder.handle(NOTE, 0)
    files.keep(recorder, 0)
    files.flush()
    with files_of_at_most(2500):
        for _ in range(3):
            recorder.handle(NOTE, 1)
        with pytest.raises(StorageError, match=r"journal suspended \(storage\): .*00000001.atj: File too large"):
            keep_and_flush(files, recorder, SECOND_NS)
    assert recorder.suspended is Suspension.STORAGE
    assert "File too large" in (files.warning or "")
    assert files.deadline_ns == 2 * SECOND_NS + RETRY_NS
    assert recorder.handle(NOTE, 3 * SECOND_NS) == (Stored(5),)
    assert files.keep(recorder, 3 * SECOND_NS) is False
    assert files.keep(recorder, 2 * SECOND_NS + RETRY_NS) is True
    assert not files.warning
    recorder.handle(NOTE, 40 * SECOND_NS)
    files.keep(recorder, 40 * SECOND_NS)
    files.close()
    result = replayed(tmp_path)
    assert (result.gaps, result.torn, result.sequence, result.state) == (1, 1, 6, recorder.snapshot())


def test_a_disk_that_stays_full_is_tried_again_and_again_without_pushing_out_old_segments(tmp_path: Path) -> None:
    files = JournalFiles(tmp_path, segments_max=3)
    recorder = started(files)
    files.keep(recorder, 0)
    files.flush()
    with files_of_at_most(10):
        recorder.handle(NOTE, 0)
        files.keep(recorder, 0)
        with pytest.raises(StorageError):
            files.keep(recorder, SECOND_NS)
        for retry in range(1, 9):
            assert files.keep(recorder, SECOND_NS + retry * RETRY_NS) is False
            assert files.warning is not None
        assert names(tmp_path) == ["00000001.atj"]
    assert files.keep(recorder, SECOND_NS + 9 * RETRY_NS) is True
    assert names(tmp_path) == ["00000001.atj", "00000010.atj"]
    files.close()


def test_a_directory_that_vanishes_suspends_too_and_its_return_resumes(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    files = JournalFiles(directory)
    recorder = started(files)
    directory.rmdir()
    with pytest.raises(StorageError, match="No such file or directory"):
        keep_and_flush(files, recorder, 0)
    directory.mkdir()
    assert files.keep(recorder, SECOND_NS + RETRY_NS) is True
    files.close()


def test_an_input_too_large_to_record_is_warned_of_and_recording_resumes(tmp_path: Path) -> None:
    files = JournalFiles(tmp_path)
    recorder = started(files)
    files.keep(recorder, 0)
    recorder.handle(Noted(bytes(INPUT_BYTES_MAX)), 1)
    with pytest.raises(StorageError, match="input-not-recordable"):
        files.keep(recorder, 1)
    assert files.keep(recorder, 1 + RETRY_NS) is True
    files.close()


def test_a_state_that_stays_too_large_stays_suspended(tmp_path: Path) -> None:
    class Bloated(Notebook):
        def snapshot(self) -> bytes:
            return bytes(9 << 20)

    files = JournalFiles(tmp_path)
    recorder = Recorder(KIND, Bloated(), Provenance("0.1.0", "fra-1", 0, 0))
    with pytest.raises(StorageError, match="snapshot-too-large"):
        files.keep(recorder, 0)
    assert files.keep(recorder, RETRY_NS) is False
    assert files.warning is not None
    assert files.deadline_ns == 2 * RETRY_NS


def test_an_export_is_one_file_that_replays_the_same(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    files = JournalFiles(directory)
    recorder = started(files, segment_bytes_max=2000)
    for now_ns in range(7):
        recorder.handle(NOTE, now_ns)
    files.keep(recorder, 0)
    files.close()
    last = max(directory.iterdir())
    last.write_bytes(last.read_bytes() + b"\x10\x00")  # Torn: the next frame was being written.
    target = tmp_path / "fra-1.atj"
    size = export_journal(read_journal(directory), target)
    assert (target.stat().st_size, target.stat().st_mode & 0o777) == (size, 0o600)
    once, again = replayed(directory), replayed(target)
    assert (once.torn, again.torn) == (1, 0)
    assert (again.inputs, again.digest, again.state) == (once.inputs, once.digest, once.state)


def test_a_corrupt_journal_is_not_exported(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(CorruptError):
        export_journal([b"nonsense bytes"], target)
    assert not target.exists()


def test_a_place_without_a_journal_is_named_with_the_fix(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        os.truncate(file.fileno(), (256 << 20) + 1)
    for path, where in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "no segment files"),
        (large, "more than 268435456 bytes"),
    ):
        with pytest.raises(UserError, match=f"A304: there is no journal to read at {re.escape(str(path))}") as caught:
            read_journal(path)
        assert where in caught.value.where


def test_a_segment_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "00000009.atj").mkdir()
    with pytest.raises(StorageError, match=re.escape("00000009.atj")):
        JournalFiles(tmp_path)


def test_a_file_in_the_place_of_the_directory_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"")
    with pytest.raises(StorageError, match="journal"):
        JournalFiles(tmp_path / "journal")


@pytest.mark.parametrize(("segments_max", "bytes_max"), [(1, 1), (2, 0)])
def test_senseless_bounds_are_refused(tmp_path: Path, segments_max: int, bytes_max: int) -> None:
    with pytest.raises(UsageError):
        JournalFiles(tmp_path, segments_max=segments_max, bytes_max=bytes_max)
