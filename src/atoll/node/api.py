# SPDX-License-Identifier: Apache-2.0
"""The local API: newline-delimited JSON over a unix socket that only the node's own user can open.

One request a line, ``{"method": ..., "params": {...}}``; each answer line is ``{"ok": ...}`` or ``{"error": ...}``.
A streaming method sends several ``ok`` lines and then ``{"end": true}``; an upgrading one keeps the connection (see
``attached``). Normative text: docs/reference/api.md.

A connection may stay open as long as nobody else needs its place. At CLIENTS_MAX the one that has been idle longest is
closed, so that programs that forgot theirs lock nobody out; only if all wait for answers is a new one turned away.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

import msgspec

from atoll.base.errors import ProjectError, UserError
from atoll.node.attached import Upgrade
from atoll.node.limits import ANSWER_BYTES_MAX, ANSWER_TAKEN_S_MAX, CLIENTS_MAX, FRAME_BYTES_MAX, REQUEST_BYTES_MAX
from atoll.node.views import Problem

__all__ = ["Answer", "Method", "Request", "call", "check_path", "open_call", "serve"]

STREAMING: Final = frozenset({"events", "ping"})  # Methods that answer with many lines.
SOCKET_PATH_BYTES_MAX: Final = 107  # sun_path on Linux, less its final zero.


class Request(msgspec.Struct, frozen=True):
    """One call."""

    method: str
    params: dict[str, Any] = {}


Answer = msgspec.Struct | msgspec.Raw | Upgrade | tuple[msgspec.Struct, ...] | AsyncIterator[msgspec.Struct]
Method = Callable[[dict[str, Any]], Awaitable[Answer]]
_Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_request_decoder: Final = msgspec.json.Decoder(Request)
_encode: Final = msgspec.json.encode


def check_path(path: Path) -> None:
    """Refuse a path that no unix socket can have.

    Raises:
        UserError: A109, it is too long.
    """
    if len(bytes(path)) > SOCKET_PATH_BYTES_MAX:
        raise UserError(
            "A109",
            f"the state directory's path is too long for a unix socket ({len(bytes(path))} bytes)",
            where=str(path),
            fix=f"choose a directory so that the socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes: --state DIR",
        )


async def serve(path: Path, methods: Mapping[str, Method]) -> asyncio.AbstractServer:
    """Listen on ``path`` (mode 0600, replaced if stale) and answer with ``methods``.

    The state directory's lock is held by the caller, so a socket file that exists here is a leftover.

    Raises:
        UserError: A109, the path is longer than a unix socket's may be.
    """
    check_path(path)
    path.unlink(missing_ok=True)
    server = await _listen(_Clients(methods).serve, path)
    path.chmod(0o600)
    return server


@final
class _Clients:
    """The connections that are open.

    Args:
        methods: What they may call.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self._idle_since: dict[asyncio.StreamWriter, float | None] = {}  # None: it waits for an answer.

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        if len(self._idle_since) >= CLIENTS_MAX and not self._make_room():
            fix = "end one of the programs that hold a connection to it"
            _say_problem(writer, Problem("A499", f"{CLIENTS_MAX} clients wait for this node already", fix=fix))
            _leave(writer)
            return
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The client went away; nothing of the node's hangs on it.
        except TimeoutError:
            writer.transport.abort()  # It does not read: what is left would wait for it for ever.
        except asyncio.CancelledError:
            pass  # The node ends. Nobody waits for this task, and asyncio would log its cancellation as an error.
        finally:
            self._idle_since.pop(writer, None)
            _leave(writer)

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest; return False when all wait for answers."""
        idle = {writer: since for writer, since in self._idle_since.items() if since is not None}
        if not idle:
            return False
        longest = min(idle, key=lambda writer: idle[writer])
        del self._idle_since[longest]
        sentence = "this connection was idle longest, and made room for another client"
        _say_problem(longest, Problem("A499", sentence, fix="connect again when there is something to ask"))
        _leave(longest)
        return True

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while not writer.is_closing():
            self._idle_since[writer] = loop.time()
            try:
                line = await reader.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                _say_problem(writer, Problem("A501", "the request is too long", fix="send one JSON object a line"))
                return
            if writer.is_closing():  # It made room while its request was on the way.
                return
            self._idle_since[writer] = None
            upgrade = await _answer(line, writer, self._methods)
            await _taken(writer)
            if upgrade is not None:
                del self._idle_since[writer]  # Whoever stays attached has a limit of its own, and takes no place here.
                await upgrade.serve(reader, writer)
                return


async def _taken(writer: asyncio.StreamWriter) -> None:
    """Wait until the client has taken most of what it was told.

    Raises:
        TimeoutError: It reads nothing.
    """
    async with asyncio.timeout(ANSWER_TAKEN_S_MAX):
        await writer.drain()


def _leave(writer: asyncio.StreamWriter) -> None:
    """Close a connection once its last line is taken, or soon."""
    writer.close()
    asyncio.get_running_loop().call_later(ANSWER_TAKEN_S_MAX, writer.transport.abort)


async def _listen(client: _Client, path: Path) -> asyncio.AbstractServer:
    if sys.version_info >= (3, 13):
        # The file stays until the node has ended: that it is gone tells `atoll down` so.
        return await asyncio.start_unix_server(client, path, limit=REQUEST_BYTES_MAX, cleanup_socket=False)
    return await asyncio.start_unix_server(client, path, limit=REQUEST_BYTES_MAX)


async def _answer(line: bytes, writer: asyncio.StreamWriter, methods: Mapping[str, Method]) -> Upgrade | None:
    """Answer one request; return what serves the connection from now on, if that is the answer."""
    try:
        request = _decoded(line)
        method = methods.get(request.method)
        if method is None:
            raise UserError("A501", f"no method {request.method!r}", fix=f"use one of: {', '.join(methods)}")
        result = await method(request.params)
        if isinstance(result, AsyncIterator):
            async for item in result:
                writer.write(_encode({"ok": item}) + b"\n")
                await _taken(writer)
            writer.write(b'{"end":true}\n')
        elif isinstance(result, Upgrade):
            writer.write(_encode({"ok": result.view}) + b"\n")
            return result
        else:
            writer.write(_encode({"ok": result}) + b"\n")
    except UserError as error:
        _say_problem(writer, Problem(error.code, error.sentence, error.where, error.fix))
    except ProjectError as error:
        _say_problem(writer, Problem("A499", str(error) or type(error).__name__, fix="see the node's log: atoll logs"))
    return None


def _decoded(line: bytes) -> Request:
    try:
        return _request_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # Recursion: brackets in brackets.
        raise UserError("A501", f"the request does not decode: {error}", fix="send one JSON object a line") from error


def _say_problem(writer: asyncio.StreamWriter, problem: Problem) -> None:
    writer.write(_encode({"error": problem}) + b"\n")


async def open_call(
    path: Path, method: str, params: Mapping[str, object] | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Call a method that goes on after its answer, and return the connection behind it.

    A method that streams is not waited for: its lines are all still to be read.

    Raises:
        UserError: The node's own error; A401, no node answers there.
    """
    try:
        # Twice the limit is read ahead of the program: its answers and lines are short, what follows them is not.
        reader, writer = await asyncio.open_unix_connection(path, limit=FRAME_BYTES_MAX)
    except OSError as error:
        raise UserError("A401", "no node is running here", where=str(path), fix="atoll up") from error
    writer.write(_encode({"method": method, "params": params or {}}) + b"\n")
    if method in STREAMING:
        return reader, writer
    try:
        _checked(await reader.readline(), path)
    except OSError as error:
        writer.close()
        raise UserError("A401", "the node went away", where=str(path), fix="atoll up") from error
    except UserError:
        writer.close()
        raise
    return reader, writer


async def call(path: Path, method: str, params: Mapping[str, object] | None = None) -> bytes:
    """Call a method of a node that answers once; return its JSON as it came.

    For programs with a loop of their own; ``atoll.cli.api`` is the blocking twin.

    Raises:
        UserError: The node's own error; A401, no node answers there.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES_MAX)
    except OSError as error:
        raise UserError("A401", "no node is running here", where=str(path), fix="atoll up") from error
    try:
        writer.write(_encode({"method": method, "params": params or {}}) + b"\n")
        line = await reader.readline()
    except OSError as error:
        raise UserError("A401", "the node went away", where=str(path), fix="atoll up") from error
    finally:
        writer.close()
    return _checked(line, path)


def _checked(line: bytes, path: Path) -> bytes:
    try:
        answer = msgspec.json.decode(line, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError("A401", "the node went away", where=str(path), fix="atoll up") from error
    if answer.error is not None:
        raise answer.error.error()
    return bytes(answer.ok)


class _Answer(msgspec.Struct, frozen=True):
    ok: msgspec.Raw = msgspec.Raw()
    error: Problem | None = None
