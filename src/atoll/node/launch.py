# SPDX-License-Identifier: Apache-2.0
"""Start a node in the background and wait until it is ready, or say why it is not.

The daemon is ``python -m atoll.node``. Its options travel as one JSON line on standard input, because an argument list
can be read by every user of the machine; its first line of output is the answer: a ``Ready`` or a coded error.
"""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import msgspec

from atoll.base.errors import StorageError, UserError
from atoll.base.units import SECOND_NS
from atoll.device.nic.orphan import DOOR_NAME, end_orphan
from atoll.group.limits import JOIN_NS_MAX
from atoll.host.files import StateLock, explain, make_private_directory, storage_error
from atoll.host.log_files import log_to_stderr
from atoll.node.start import LaunchAnswer, LaunchOptions
from atoll.node.state import LOCK_NAME, LOG_NAME, STATE_SIGNS
from atoll.node.views import Ready

__all__ = ["ANSWER_BYTES_MAX", "ORDINARY", "end_orphaned", "launch", "stay"]

ORDINARY: Final = "atoll.node"

ANSWER_BYTES_MAX: Final = 64 * 1024  # Limit. One line of JSON; a Ready is below 1 KiB.
# Limit. Longer than any join, so that a join that fails says itself why; and two starts of the packet device.
READY_TIMEOUT_S: Final = JOIN_NS_MAX / SECOND_NS + 45.0
ENDING_TIMEOUT_S: Final = 10.0  # Limit. For a daemon that has said why it does not start, or was told to end.


def launch(options: LaunchOptions, environment: Mapping[str, str] | None = None, *, module: str = ORDINARY) -> Ready:
    """Start the node and return once it answers.

    Args:
        options: What to start.
        environment: Variables for the daemon; None: this process's.
        module: What is run as the daemon; a lab has one of its own.

    Raises:
        UserError: The daemon refused (its own code), or did not answer in READY_TIMEOUT_S (A403); A102 or A110, the
            state directory cannot be used.
    """
    with _log_of(Path(options.state)) as log:
        daemon = subprocess.Popen(  # noqa: S603 - the module is named by our own code.
            [sys.executable, "-P", "-m", module],  # -P: the state directory is no place to load modules from.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=options.state,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    with daemon.stdin, daemon.stdout:
        try:
            with suppress(BrokenPipeError):  # It ended already; that it says nothing is noticed below.
                daemon.stdin.write(msgspec.json.encode(options) + b"\n")
                daemon.stdin.close()
            ready, _, _ = select.select([daemon.stdout], [], [], READY_TIMEOUT_S)
        except KeyboardInterrupt:
            _end(daemon)  # It has a session of its own, so Ctrl-C did not reach it.
            raise
        line = daemon.stdout.readline(ANSWER_BYTES_MAX) if ready else b""
    try:
        answer = msgspec.json.decode(line, type=LaunchAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = LaunchAnswer()
    if answer.error is not None:
        with suppress(subprocess.TimeoutExpired):  # It has said why; that it takes long to end is not the answer.
            daemon.wait(timeout=ENDING_TIMEOUT_S)
        raise answer.error.error()
    if answer.ok is None:
        _end(daemon)
        raise UserError(
            "A403",
            "the node ended before it was ready" if ready else "the node was not ready in time, and was ended",
            where=f"{options.state}/{LOG_NAME}",
            fix=f"read the last lines of {options.state}/{LOG_NAME}",
        )
    return answer.ok


def _end(daemon: "subprocess.Popen[bytes]") -> None:
    """End a daemon that has not become ready, kindly and then not, so that the state directory is free again."""
    daemon.terminate()
    try:
        daemon.wait(timeout=ENDING_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def end_orphaned(state: Path) -> bool:
    """End a packet device that has outlived its control; False: there is none, or a node runs or starts."""
    door = state / DOOR_NAME
    if not door.exists():
        return False
    try:
        with StateLock(state / LOCK_NAME):
            return end_orphan(door)
    except (UserError, StorageError):
        return False


def _log_of(state: Path) -> IO[bytes]:
    """Make the state directory if need be, and open the log in it."""
    path = state / LOG_NAME
    try:
        make_private_directory(state, signs=STATE_SIGNS)
        try:
            return open(path, "ab", opener=_open_private)
        except OSError as error:
            raise storage_error(error, path) from error
    except StorageError as error:
        raise explain(error, path) from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def stay(options: LaunchOptions, announce: Callable[[Ready], None]) -> None:
    """Run the node in this process until it is told to end (SIGTERM, SIGINT, ``atoll down``).

    Args:
        options: What to run.
        announce: Called once, when the node is ready.

    Raises:
        UserError: It did not start, or had to stop.
    """
    from atoll.node.daemon import live  # noqa: PLC0415 - it brings the whole node, which ``launch`` does not need.

    def tell(answer: LaunchAnswer) -> None:
        if answer.ok is not None:
            announce(answer.ok)

    log_to_stderr()
    live(options, tell)
