# SPDX-License-Identifier: Apache-2.0
"""Exceptions that reached nobody: what passes is told without a traceback, and everything else ends the node."""

import asyncio
import errno
import logging
from collections.abc import Generator

import pytest

from atoll.base.errors import UserError
from atoll.node.supervisor import SCARCE_TOLD_S, Supervisor


class Loop(asyncio.SelectorEventLoop):
    """A loop that never runs, with a clock that the test moves."""

    now_s = 5.0

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def loop() -> Generator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def judged(loop: Loop, error: BaseException | None, supervisor: Supervisor | None = None) -> list[UserError]:
    failed: list[UserError] = []
    context: dict[str, object] = {"message": "something", **({} if error is None else {"exception": error})}
    (supervisor or Supervisor(failed.append)).judge(loop, context)
    return failed


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        OSError(errno.EIO, "Input/output error"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "Permission denied"),
        TimeoutError(),
        OSError(),
    ],
)
def test_a_bug_ends_the_node_also_when_it_is_an_error_of_the_operating_system(
    loop: Loop, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    (failed,) = judged(loop, error)
    assert failed.code == "A500"
    assert type(error).__name__ in failed.where
    assert "something" in caplog.text


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "Reset")])
def test_a_far_end_that_goes_away_is_no_bug(loop: Loop, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert judged(loop, error) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Traceback" not in caplog.text


def test_a_lack_of_files_passes_and_is_told_once_in_a_while(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    failed: list[UserError] = []
    supervisor = Supervisor(failed.append)
    for _ in range(100):
        judged(loop, OSError(errno.EMFILE, "Too many open files"), supervisor)
        loop.now_s += 1.5 * SCARCE_TOLD_S / 100
    assert failed == []
    assert caplog.text.count("Too many open files: new connections wait") == 2


def test_what_is_no_exception_or_the_end_of_the_process_is_only_logged(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (None, KeyboardInterrupt(), asyncio.CancelledError()):
        assert judged(loop, error) == []
    assert len(caplog.records) == 3
    assert all(record.levelno == logging.ERROR for record in caplog.records)
