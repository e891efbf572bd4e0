# SPDX-License-Identifier: Apache-2.0
"""A blocking client of the local API, on nothing but the standard library and msgspec.

One request a connection: ``{"method", "params"}`` out, then lines ``{"ok"}``, ``{"error"}`` or ``{"end"}`` back. What
goes wrong becomes a ``UserError`` with a catalogue code, here and nowhere else. Normative text: docs/reference/api.md.
"""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, Final, TypeVar, final

import msgspec

from atoll.base.errors import UserError
from atoll.node.views import ENDED_NAME, Problem

__all__ = ["ANSWER_TIMEOUT_S", "Api", "socket_path", "view"]

ANSWER_TIMEOUT_S: Final = 10.0  # Limit. The node answers from memory; only a stopped one takes longer.
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024  # Limit. The longest answer, a status of 50 members, is below 40 KiB.
_RECEIVE_BYTES: Final = 65_536
_SOCKET_NAME: Final = "control.sock"

View = TypeVar("View")


class _Answer(msgspec.Struct, frozen=True):
    """One line from the node; exactly one of the three is set."""

    ok: msgspec.Raw = msgspec.Raw()
    error: "_Error | None" = None
    end: bool = False


class _Error(msgspec.Struct, frozen=True):
    code: str
    sentence: str
    where: str = ""
    fix: str = ""


def socket_path(state: Path) -> Path:
    """Return where the node of this state directory listens."""
    return state / _SOCKET_NAME


def view(raw: bytes, kind: type[View]) -> View:
    """Return an answer as its view type. Fields that this version does not know are left out.

    Raises:
        UserError: A208, it is not such a view.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _skew(str(error)) from error


@final
class Api:
    """The node of one state directory.

    Args:
        state: The directory.
        timeout_s: How long to wait for each line of an answer.
    """

    def __init__(self, state: Path, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._state, self._path, self._timeout_s = state, socket_path(state), timeout_s

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> bytes:
        """Call a method with one answer; return its JSON as it came.

        Raises:
            UserError: A401, no node runs here; A406, no answer in time; A109 or A110, no socket can be there; or the
                node's own error.
        """
        for answer in self.stream(method, params):
            return answer
        raise _skew("an answer without content")

    def stream(self, method: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        """Call a method; give each answer's JSON as it comes, until the node says that it was the last.

        Raises:
            UserError: As ``call``.
        """
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout_s)
                connection.connect(str(self._path))
                connection.sendall(msgspec.json.encode({"method": method, "params": dict(params or {})}) + b"\n")
                for line in self._lines(connection):
                    answer = _decoded(line)
                    if answer.end:
                        return
                    if answer.error is not None:
                        error = answer.error
                        raise UserError(error.code, error.sentence, where=error.where, fix=error.fix)
                    yield bytes(answer.ok)
                fix = f"{self._command('logs')}; {self._command('up')}"
                raise UserError("A401", "the node went away", where=str(self._path), fix=fix)
        except (FileNotFoundError, ConnectionError, PermissionError) as error:
            raise self._not_running(error) from error
        except TimeoutError as error:
            raise UserError(
                "A406",
                f"the node did not answer within {self._timeout_s:g} s",
                where=str(self._path),
                fix=f"look at `{self._command('logs')}`; if it hangs, end its process ({self._holder()}) and run "
                f"`{self._command('up')}`",
            ) from error
        except OSError as error:
            if error.errno is None:  # "AF_UNIX path too long" comes as a bare OSError.
                fix = "choose a shorter path: --state DIR"
                raise UserError("A109", str(error), where=str(self._path), fix=fix) from error
            reason = f"{self._path}: {error.strerror}"
            raise UserError(
                "A110", "the state directory cannot be used", where=reason, fix="check --state DIR"
            ) from error

    def _lines(self, connection: socket.socket) -> Iterator[bytes]:
        pending = b""
        while True:
            head, newline, rest = pending.partition(b"\n")
            if newline:
                pending = rest
                yield head
                continue
            received = connection.recv(_RECEIVE_BYTES)
            if not received:
                return
            pending += received
            if len(pending) > ANSWER_BYTES_MAX:
                raise _skew(f"an answer of more than {ANSWER_BYTES_MAX} bytes")

    def _not_running(self, error: OSError) -> UserError:
        if isinstance(error, PermissionError):
            return UserError(
                "A401",
                "the node here is another user's",
                where=f"{self._path}: {error.strerror}",
                fix="run it as that user, or name another state directory: --state DIR",
            )
        where = f"{self._path} (nothing answers)"
        ended = self._ended()
        if ended is not None:
            return UserError(
                "A401",
                f"no node is running here: it ended with {ended.code}, {ended.sentence}",
                where=where,
                fix=ended.fix,
            )
        return UserError("A401", "no node is running here", where=where, fix=self._command("up"))

    def _ended(self) -> Problem | None:
        """Return why the node ended by itself, if it did and has not run since."""
        try:
            return msgspec.json.decode((self._state / ENDED_NAME).read_bytes(), type=Problem)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _holder(self) -> str:
        try:
            return f"process {int((self._state / 'lock').read_text(encoding='ascii'))}"
        except (OSError, ValueError):
            return "named in its file `lock`"

    def _command(self, verb: str) -> str:
        """Return a command about the same node, as a person would type it."""
        from atoll.host.places import default_state  # noqa: PLC0415 -- it costs an import, and only errors ask.

        return f"atoll {verb}" if self._state == default_state() else f"atoll {verb} --state {quote(str(self._state))}"


def _decoded(line: bytes) -> _Answer:
    try:
        return msgspec.json.decode(line, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _skew(str(error)) from error


def _skew(detail: str) -> UserError:
    return UserError(
        "A208",
        "the node speaks another version than this command",
        where=detail,
        fix="run `atoll down` and `atoll up` with this version",
    )
