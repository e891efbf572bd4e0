# SPDX-License-Identifier: Apache-2.0
"""A log that stays within its bounds whoever writes it, and a reader that loses no line over its rotations."""

import logging
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from atoll.host.limits import LOG_FILES_MAX, LOG_TAIL_BYTES_MAX
from atoll.host.log_files import LogReader, StderrLog

BYTES_MAX = 2000


@contextmanager
def stderr_in(path: Path) -> Generator[None]:
    """Let descriptor 2 be a file, as ``atoll up`` makes it for the node in the background."""
    kept = os.dup(2)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def log_to(path: Path) -> StderrLog:
    handler = StderrLog()
    handler.stream = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115 -- pytest has its own.
    handler.rotate(path, bytes_max=BYTES_MAX)
    return handler


def say(handler: logging.Handler, text: str) -> None:
    handler.handle(logging.LogRecord("atoll", logging.INFO, "", 0, text, (), None))


def files(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_a_log_stays_within_its_bounds_and_keeps_the_newest_lines_in_order(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    with stderr_in(path):
        handler = log_to(path)
        for number in range(1000):
            say(handler, f"line {number:04d}")
    assert files(path) == ["node.log", "node.log.1", "node.log.2", "node.log.3"]
    assert len(files(path)) == LOG_FILES_MAX
    assert all(entry.stat().st_size <= BYTES_MAX + 10 for entry in tmp_path.iterdir())
    assert all(entry.stat().st_mode & 0o777 == 0o600 for entry in tmp_path.iterdir())
    lines = "".join((tmp_path / name).read_text() for name in reversed(files(path))).split()[1::2]
    assert lines == [f"{number:04d}" for number in range(1000 - len(lines), 1000)]


def test_what_others_write_to_standard_error_is_in_the_newest_file_too(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    with stderr_in(path):
        handler = log_to(path)
        say(handler, "x" * BYTES_MAX)
        assert (path.stat().st_size, (tmp_path / "node.log.1").stat().st_size) == (0, BYTES_MAX + 1)
        subprocess.run([sys.executable, "-S", "-c", "import os; os.write(2, b'a child')"], check=True)
        os.write(2, b" and we")
    assert path.read_bytes() == b"a child and we"


def test_a_log_that_goes_elsewhere_is_left_alone(tmp_path: Path) -> None:
    path, other = tmp_path / "node.log", tmp_path / "terminal"
    path.write_bytes(b"of another process")
    with stderr_in(other):
        for place in (path, tmp_path / "missing"):
            handler = log_to(place)
            say(handler, "x" * BYTES_MAX * 2)
    assert files(path) == ["node.log", "terminal"]
    assert path.read_bytes() == b"of another process"


def test_a_log_that_somebody_moved_goes_on_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    with stderr_in(path):
        handler = log_to(path)
        say(handler, "before")
        path.rename(tmp_path / "moved")
        say(handler, "x" * BYTES_MAX)
        say(handler, "after")
    assert path.read_bytes() == b"after\n"
    assert files(path) == ["moved", "node.log"]


def test_a_disk_that_refuses_loses_lines_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "node.log"
    with stderr_in(path):
        handler = log_to(path)
        (tmp_path / "node.log.1" / "in the way").mkdir(parents=True)
        say(handler, "x" * BYTES_MAX)  # It cannot be renamed.
        say(handler, "still here")
        assert path.read_bytes().endswith(b"still here\n")
        handler.stream = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 -- left to the handler.
        say(handler, "lost")
        with pytest.raises(OSError, match="No space"):
            handler.stream.close()
    assert capsys.readouterr().err == ""


def test_a_record_that_does_not_format_is_told_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    StderrLog().handle(logging.LogRecord("atoll", logging.INFO, "", 0, "%d", ("no number",), None))
    assert "--- Logging error ---" in capsys.readouterr().err


def test_the_tail_goes_back_into_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    (tmp_path / "node.log.1").write_bytes(b"1\n2\n3\n")
    path.write_bytes(b"4\n")
    for lines, expected in ((0, b""), (1, b"4\n"), (2, b"3\n4\n"), (9, b"1\n2\n3\n4\n")):
        with closing(LogReader(path)) as reader:
            assert reader.tail(lines) == expected
            assert b"".join(reader.added()) == b""
    path.write_bytes(b"x" * 2 * LOG_TAIL_BYTES_MAX + b"\nlast\n")
    with closing(LogReader(path)) as reader:
        assert reader.tail(1) == b"last\n"


def test_a_reader_follows_over_any_number_of_rotations_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    with stderr_in(path):
        handler = log_to(path)
        say(handler, "first")
        with closing(LogReader(path)) as reader:
            read, said = [reader.tail(10)], ["first\n"]
            for number in range(600):
                said.append(f"line {number:04d}" + "." * (number % 40) + "\n")
                say(handler, said[-1][:-1])
                if number % 83 == 0:  # Some rotations lie between two looks, never more than are kept.
                    read += reader.added()
            read += reader.added()
    assert b"".join(read).decode() == "".join(said)
    assert len(files(path)) == LOG_FILES_MAX


def test_a_reader_that_slept_too_long_goes_on_with_the_oldest_that_is_left(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_bytes(b"old\n")
    with closing(LogReader(path)) as reader:
        assert reader.tail(1) == b"old\n"
        path.unlink()
        assert b"".join(reader.added()) == b""
        (tmp_path / "node.log.2").write_bytes(b"2\n")
        path.write_bytes(b"0\n")
        assert b"".join(reader.added()) == b"2\n0\n"
        path.unlink()
        (tmp_path / "node.log.2").unlink()
        assert b"".join(reader.added()) == b""


def test_a_log_that_is_not_there_is_the_callers_to_tell(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogReader(tmp_path / "node.log")
