# SPDX-License-Identifier: Apache-2.0
"""Files that survive, keys that stay private, one process per state directory; refusals with their fix."""

import errno
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from atoll.base.errors import LimitError, StorageError, UsageError, UserError
from atoll.base.ports import Disk
from atoll.host import files
from atoll.host.files import (
    FileDisk,
    StateLock,
    explain,
    make_private_directory,
    read_private,
    storage_error,
    write_atomic,
    write_private,
)
from atoll.host.limits import PRIVATE_BYTES_MAX

if TYPE_CHECKING:
    from _typeshed import TraceFunction


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_replaced_file_has_the_new_content_and_mode_and_nothing_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "roster"
    write_atomic(path, b"old", mode=0o644)
    write_atomic(path, b"new")
    assert (path.read_bytes(), mode_of(path)) == (b"new", 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["roster"]


def test_the_mode_asked_for_is_the_mode_given_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "public", b"", mode=0o644)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "public") == 0o644


def test_what_a_crash_left_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "roster.new").symlink_to(victim)
    write_atomic(tmp_path / "roster", b"content")
    assert (victim.read_bytes(), (tmp_path / "roster").read_bytes()) == (b"precious", b"content")


def test_a_refused_replacement_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "roster"
    path.mkdir()  # A directory cannot be replaced by a file, even by root.
    with pytest.raises(StorageError, match=re.escape(str(path))):
        write_atomic(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["roster"]


class Killed(BaseException):
    """Nobody's to catch: after it no line of the code runs that would change a file."""


def killed_at(line: int, path: Path) -> bool:
    """Replace a file and be killed before line number ``line`` of our code is run; return whether it came to that."""
    left = line

    def step(frame: FrameType, event: str, _argument: object) -> "TraceFunction | None":
        nonlocal left
        if frame.f_code.co_filename != files.__file__:
            return None
        left -= event == "line"
        if left == -1:
            raise Killed
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        write_atomic(path, b"new" * 1000)
    except Killed:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_crash_between_any_two_lines_leaves_the_old_content_or_the_new_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "roster"
    found: list[bytes] = []
    for line in itertools.count():
        write_atomic(path, b"old")
        was_killed = killed_at(line, path)
        found.append(path.read_bytes())
        if not was_killed:
            break
        write_atomic(path, b"next")  # What the crash left is in nobody's way.
        assert path.read_bytes() == b"next"
    assert len(found) > 15
    changed = found.index(b"new" * 1000)
    assert set(found[:changed]) == {b"old"}
    assert set(found[changed:]) == {b"new" * 1000}
    assert changed < len(found) - 1, "the directory is synced after it"


def test_a_directory_is_made_with_its_parents_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_private_directory(path)
    assert mode_of(path) == 0o700
    path.chmod(0o755)
    make_private_directory(path)
    assert mode_of(path) == 0o700


def test_a_directory_of_somebody_else_is_not_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o755)
    (path / "theirs").write_bytes(b"")
    with pytest.raises(StorageError, match=re.escape(str(path))):
        make_private_directory(path, signs=("lock",))
    assert mode_of(path) == 0o755
    (path / "lock").write_bytes(b"")
    make_private_directory(path, signs=("lock",))
    assert mode_of(path) == 0o700


def test_a_file_in_the_way_of_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StorageError, match=re.escape(str(tmp_path / "a" / "b"))):
        make_private_directory(tmp_path / "a" / "b")


def test_a_key_file_is_private_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    write_private(path, b"secret")
    assert (read_private(path), mode_of(path)) == (b"secret", 0o600)


def test_a_key_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    write_private(path, b"first")
    with pytest.raises(StorageError, match="never replaced"):
        write_private(path, b"second")
    assert read_private(path) == b"first"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="never replaced"):
        write_private(path, b"second")


def test_a_key_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    with pytest.raises(UsageError):
        write_private(path, bytes(PRIVATE_BYTES_MAX + 1))
    write_private(path, bytes(PRIVATE_BYTES_MAX))
    assert len(read_private(path)) == PRIVATE_BYTES_MAX
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"A101: .* is too large"):
        read_private(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_file_that_others_can_use_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity"
    write_private(path, b"secret")
    path.chmod(mode)
    with pytest.raises(UserError, match="A104") as caught:
        read_private(path)
    assert caught.value.fix.startswith(f"chmod 600 {path}")
    assert f"mode {mode:04o}" in caught.value.where


def test_an_unreadable_key_file_is_named_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="A101: cannot read the key file") as caught:
        read_private(tmp_path / "identity")
    assert caught.value.where == os.strerror(errno.ENOENT)
    with pytest.raises(UserError, match="A101"):
        read_private(tmp_path)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "A102"),
        (errno.EDQUOT, "A102"),
        (errno.EACCES, "A110"),
        (errno.EROFS, "A110"),
        (errno.EIO, "A110"),
    ],
)
def test_a_refusal_of_the_disk_is_explained_by_its_cause(number: int, code: str) -> None:
    cause = OSError(number, os.strerror(number))
    path = Path("/state/roster")
    refused = storage_error(cause, path)
    refused.__cause__ = cause
    problem = explain(refused, path)
    assert problem.code == code
    assert "/state/roster: " + os.strerror(number) == problem.where
    assert "--state" in problem.fix


def test_a_refusal_without_a_cause_is_explained_too() -> None:
    assert explain(StorageError("x"), Path("/state/roster")).code == "A110"


def test_a_lock_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with StateLock(path) as lock:
        with pytest.raises(UserError, match=rf"A103: another atoll node \(process {os.getpid()}\)") as caught:
            StateLock(path)
        assert caught.value.where == str(tmp_path)
        lock.release()
        with StateLock(path):
            assert path.read_bytes() == b"%d\n" % os.getpid()
    StateLock(path).release()


def test_a_lock_of_a_holder_that_wrote_no_number_is_still_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with StateLock(path):
        path.write_bytes(b"")
        with pytest.raises(UserError, match="process unknown"):
            StateLock(path)


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold = (
        f"import sys; from pathlib import Path; from atoll.host import StateLock; lock = StateLock(Path({str(path)!r}))"
    )
    wait = "print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", f"{hold}; {wait}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=rf"process {holder.pid}\)"):
            StateLock(path)
        holder.kill()
        holder.wait()
        StateLock(path).release()


def test_a_lock_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="lock"):
        StateLock(tmp_path / "missing" / "lock")


def test_a_directory_of_the_disk_keeps_files(tmp_path: Path) -> None:
    disk: Disk = FileDisk(tmp_path, file_bytes_max=8)
    disk.write("b", b"long")
    disk.write("b", b"one")
    disk.append("b", b" two")
    disk.append("a", b"new")
    disk.sync("a")
    (tmp_path / "subdirectory").mkdir()
    assert (disk.read("b"), disk.read("a"), disk.names()) == (b"one two", b"new", ("a", "b"))
    disk.rename("b", "a")
    assert (disk.read("a"), disk.names()) == (b"one two", ("a",))
    assert mode_of(tmp_path / "a") == 0o600
    disk.remove("a")
    assert disk.names() == ()


def test_a_disk_refuses_what_is_not_there_and_names_it(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, file_bytes_max=8)
    for refused in (disk.read, disk.sync, disk.remove):
        with pytest.raises(StorageError, match="absent"):
            refused("absent")
    with pytest.raises(StorageError, match="absent"):
        disk.rename("absent", "other")
    gone = FileDisk(tmp_path / "gone", file_bytes_max=8)
    with pytest.raises(StorageError, match="gone"):
        gone.names()
    for put in (gone.write, gone.append):
        with pytest.raises(StorageError, match="gone/a"):
            put("a", b"")


def test_a_disk_bounds_what_it_reads(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, file_bytes_max=8)
    disk.write("a", bytes(9))
    with pytest.raises(LimitError, match="file_bytes_max is 8"):
        disk.read("a")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_a_disk_does_not_leave_its_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        FileDisk(tmp_path, file_bytes_max=8).read(name)
