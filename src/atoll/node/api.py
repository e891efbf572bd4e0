# SPDX-License-Identifier: Apache-2.0
"""The local API: newline-delimited JSON over a unix socket that only the node's own user can open.

One request a line, ``{"method": ..., "params": {...}}``; each answer line is ``{"ok": ...}`` or ``{"error": ...}``.
A streaming method sends several ``ok`` lines and then ``{"end": true}``. Normative text: docs/reference/api.md.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from atoll.base.errors import ProjectError, UserError
from atoll.node.launch import Problem

__all__ = ["Answer", "Method", "Request", "call", "check_path", "serve"]

REQUEST_BYTES_MAX: Final = 64 * 1024  # Limit. The longest request, an invitation, is below 1 KiB.
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024  # Limit. A status of 50 members is below 40 KiB.
CLIENTS_MAX: Final = 32  # Limit. Shells, dashboards and cron jobs of one person.
SOCKET_PATH_BYTES_MAX: Final = 107  # sun_path on Linux, less its final zero.


class Request(msgspec.Struct, frozen=True):
    """One call."""

    method: str
    params: dict[str, Any] = {}


Answer = msgspec.Struct | tuple[msgspec.Struct, ...] | AsyncIterator[msgspec.Struct]
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
    clients = 0

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal clients
        if clients >= CLIENTS_MAX:
            fix = "end one of the programs that hold a connection to it"
            _say_problem(writer, Problem("A499", f"{CLIENTS_MAX} clients speak with this node already", fix=fix))
            writer.close()
            return
        clients += 1
        try:
            await _converse(reader, writer, methods)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The client went away; nothing of the node's hangs on it.
        except asyncio.CancelledError:
            pass  # The node ends. Nobody waits for this task, and asyncio would log its cancellation as an error.
        finally:
            clients -= 1
            writer.close()

    server = await _listen(client, path)
    path.chmod(0o600)
    return server


async def _listen(client: _Client, path: Path) -> asyncio.AbstractServer:
    if sys.version_info >= (3, 13):
        # The file stays until the node has ended: that it is gone tells `atoll down` so.
        return await asyncio.start_unix_server(client, path, limit=REQUEST_BYTES_MAX, cleanup_socket=False)
    return await asyncio.start_unix_server(client, path, limit=REQUEST_BYTES_MAX)


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, methods: Mapping[str, Method]) -> None:
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            _say_problem(writer, Problem("A501", "the request is too long", fix="send one JSON object a line"))
            return
        await _answer(line, writer, methods)
        await writer.drain()


async def _answer(line: bytes, writer: asyncio.StreamWriter, methods: Mapping[str, Method]) -> None:
    try:
        request = _decoded(line)
        method = methods.get(request.method)
        if method is None:
            raise UserError("A501", f"no method {request.method!r}", fix=f"use one of: {', '.join(methods)}")
        result = await method(request.params)
        if isinstance(result, AsyncIterator):
            async for item in result:
                writer.write(_encode({"ok": item}) + b"\n")
                await writer.drain()
            writer.write(b'{"end":true}\n')
        else:
            writer.write(_encode({"ok": result}) + b"\n")
    except UserError as error:
        _say_problem(writer, Problem(error.code, error.sentence, error.where, error.fix))
    except ProjectError as error:
        _say_problem(writer, Problem("A499", str(error) or type(error).__name__, fix="see the node's log: atoll logs"))


def _decoded(line: bytes) -> Request:
    try:
        return _request_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # Recursion: brackets in brackets.
        raise UserError("A501", f"the request does not decode: {error}", fix="send one JSON object a line") from error


def _say_problem(writer: asyncio.StreamWriter, problem: Problem) -> None:
    writer.write(_encode({"error": problem}) + b"\n")


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
