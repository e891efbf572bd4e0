# SPDX-License-Identifier: Apache-2.0
"""Files are cut and read durably, and what the disk refuses has a stable name."""

import errno
import os
from pathlib import Path

import pytest

from atoll.base.errors import CorruptError, StorageError
from atoll.domain.recorder.disk import cut_file, read_at, refusal_of, sync_directory, write_all
from atoll.domain.recorder.messages import Code

PATH = Path("somewhere")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, Code.FULL),
        (errno.EDQUOT, Code.FULL),
        (errno.EFBIG, Code.FULL),
        (errno.EIO, Code.IO),
        (0, Code.IO),
    ],
)
def test_errors_have_codes(number: int, code: Code) -> None:
    error = OSError(number, "why") if number else OSError("why")
    assert (refusal_of(error, PATH).code, refusal_of(error, PATH).words) == (code, "somewhere: why")
    mapped = StorageError("somewhere: why")
    mapped.__cause__ = error
    assert (refusal_of(mapped, PATH).code, refusal_of(mapped, PATH).words) == (code, "somewhere: why")


def test_damage_is_no_trouble_of_the_disk() -> None:
    assert str(refusal_of(CorruptError("offset 3"), PATH)) == "corrupt: somewhere: offset 3"
    assert refusal_of(StorageError("why"), PATH).code is Code.IO


def test_all_of_it_is_written_however_little_is_taken_at_a_time(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    content = bytes(range(256)) * 1024  # More than a pipe takes at once.
    with pytest.raises(BlockingIOError):
        write_all(writer, content)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        taken = file.read()
    assert content.startswith(taken)
    assert len(taken) >= 4096
    path = tmp_path / "file"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    write_all(descriptor, content)
    os.close(descriptor)
    assert path.read_bytes() == content


def test_a_file_is_read_from_anywhere_and_cut(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_at(path, 3, 4) == b"3456"
    assert read_at(path, 8, 100) == b"89"
    assert read_at(path, 20, 1) == b""
    cut_file(path, 4)
    assert path.read_bytes() == b"0123"
    sync_directory(tmp_path)
    with pytest.raises(FileNotFoundError):
        cut_file(tmp_path / "none", 0)
    with pytest.raises(FileNotFoundError):
        sync_directory(tmp_path / "none")
