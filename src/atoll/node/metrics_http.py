# SPDX-License-Identifier: Apache-2.0
"""Answers ``GET /metrics`` over HTTP/1.1, and nothing else (RFC 9110, RFC 9112; ADR 0038).

Whoever reaches the port may read, so what a request can cost is bounded: a head of METRICS_HEAD_BYTES_MAX, that it
comes within METRICS_REQUEST_S, METRICS_CONNECTIONS_MAX at a time, and one text a METRICS_KEPT_S, however many ask.

**The Host field is checked**, because a browser on a machine that reaches the port would read it for anybody: a page of
evil.example whose name leads to 127.0.0.1 a moment later ("DNS rebinding") is of the same origin as this server, as the
browser sees it. Its request says ``Host: evil.example``. So only hosts are answered that nobody else can make lead
here: IP addresses, ``localhost``, the host that ``--metrics`` names, and this node's names in the group.
"""

import asyncio
import errno
import ipaddress
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, final

from atoll.base.errors import UserError
from atoll.base.ids import Endpoint
from atoll.conduit.far import end_service
from atoll.node.addresses import endpoint_text
from atoll.node.limits import (
    METRICS_CONNECTIONS_MAX,
    METRICS_HEAD_BYTES_MAX,
    METRICS_KEPT_S,
    METRICS_REQUEST_S,
    METRICS_TAKEN_S,
    METRICS_TURNED_AWAY_MAX,
    METRICS_UNREAD_READS_MAX,
)

__all__ = ["METRICS_PATH", "MetricsServer", "judge"]

log: Final = logging.getLogger("atoll.node")

METRICS_PATH: Final = "/metrics"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus: "Exposition formats".
ERROR_TYPE: Final = "text/plain; charset=utf-8"
HINTS: Final = {
    HTTPStatus.MISDIRECTED_REQUEST: ": ask by address, or by the HOST of `atoll up --metrics HOST:PORT`",
    HTTPStatus.NOT_FOUND: f": there is {METRICS_PATH} and nothing else",
}
MAJOR_VERSION: Final = "1"

_END: Final = b"\r\n\r\n"
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE: Final = re.compile(rf"({_WORD}) ([!-~]+) HTTP/([0-9])\.[0-9]")
_FIELD: Final = re.compile(rf"({_WORD}):([\t -~\x80-\xff]*)")  # The blanks around a value are taken off in Python:
# an expression that does it takes time that grows with the cube of their number.
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[!-~]+)?)\]|([^\[\]:@/ ]+))(?::[0-9]*)?")
_ABSOLUTE: Final = "http://"


def judge(head: bytes, is_ours: Callable[[str], bool]) -> tuple[HTTPStatus, bool]:
    """Return what a request is answered, and whether with a body (HEAD: without).

    Args:
        head: Request line and fields, without the empty line. Any bytes.
        is_ours: Whether a host name, in small letters, means this server.
    """
    line, *fields = head.decode("latin-1").split("\r\n")
    asked = _LINE.fullmatch(line)
    told = [_FIELD.fullmatch(field) for field in fields]
    if asked is None:
        return HTTPStatus.BAD_REQUEST, True
    method, target, version = asked.groups()
    has_body = method != "HEAD"
    hosts = [field[2].strip(" \t") for field in told if field is not None and field[1].lower() == "host"]
    if version != MAJOR_VERSION:
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, has_body
    if None in told or len(hosts) != 1:
        return HTTPStatus.BAD_REQUEST, has_body
    host, path = hosts[0], target
    if target[: len(_ABSOLUTE)].lower() == _ABSOLUTE:  # RFC 9112, section 3.2.2: what it names counts.
        host, slash, path = target[len(_ABSOLUTE) :].partition("/")
        path = slash + path
    if not _is_named(host, is_ours):
        return HTTPStatus.MISDIRECTED_REQUEST, has_body
    if path.partition("?")[0] != METRICS_PATH:
        return HTTPStatus.NOT_FOUND, has_body
    return (HTTPStatus.OK if method in {"GET", "HEAD"} else HTTPStatus.METHOD_NOT_ALLOWED), has_body


def _is_named(host: str, is_ours: Callable[[str], bool]) -> bool:
    matched = _HOST.fullmatch(host)
    if matched is None:
        return False
    name = (matched[1] or matched[2]).lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        name = name.removesuffix(".")
        return matched[2] is not None and (name == "localhost" or is_ours(name))
    return True


def _answer(status: HTTPStatus, text: str, *, has_body: bool) -> bytes:
    is_good = status is HTTPStatus.OK
    body = (text if is_good else f"{status.value} {status.phrase}{HINTS.get(status, '')}\n").encode()
    allow = "Allow: GET, HEAD\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n{allow}Content-Type: {CONTENT_TYPE if is_good else ERROR_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if has_body else b"")


@final
class MetricsServer:
    """Listens, and answers each connection once.

    Args:
        text: Returns what to answer; called at most once in METRICS_KEPT_S.
        is_ours: Whether a host name, in small letters, means this node.
    """

    def __init__(self, text: Callable[[], str], is_ours: Callable[[str], bool]) -> None:
        self._text, self._is_ours = text, is_ours
        self._server: asyncio.Server | None = None
        self._host = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: tuple[float, str] | None = None  # When it was made, on the loop's clock.

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._tasks)

    async def start(self, endpoint: Endpoint) -> None:
        """Listen.

        Args:
            endpoint: Host, also by name, and port.

        Raises:
            UserError: A113, it cannot be had.
        """
        host, port = endpoint
        try:
            server = await asyncio.start_server(self._accepted, host, port, limit=METRICS_HEAD_BYTES_MAX)
        except OSError as error:
            raise _refused(endpoint, error) from error
        if not server.sockets:  # asyncio leaves out a socket that cannot be made, and does not say why.
            raise _refused(endpoint, OSError(errno.EAFNOSUPPORT, "no socket can be opened"))
        self._server, self._host = server, host.lower()
        log.info("metrics for Prometheus: http://%s%s", endpoint_text(endpoint), METRICS_PATH)

    async def close(self) -> None:
        """Stop listening and end what is open. Nothing to do if it was never started."""
        await end_service(self._server, self._tasks)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_count = self.connections
        if open_count >= METRICS_CONNECTIONS_MAX + METRICS_TURNED_AWAY_MAX:
            writer.transport.abort()
            return
        work = self._serve(reader, writer, has_place=open_count < METRICS_CONNECTIONS_MAX)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, has_place: bool) -> None:
        try:
            status, has_body = (HTTPStatus.SERVICE_UNAVAILABLE, True) if not has_place else await self._asked(reader)
            text = self._current() if status is HTTPStatus.OK else ""
            async with asyncio.timeout(METRICS_TAKEN_S):
                await _say(writer, _answer(status, text, has_body=has_body))
                await _end(reader, writer)
            writer.close()
        except OSError:  # The client is gone, or reads too slowly: TimeoutError is one of them.
            pass
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    async def _asked(self, reader: asyncio.StreamReader) -> tuple[HTTPStatus, bool]:
        try:
            async with asyncio.timeout(METRICS_REQUEST_S):
                head = await reader.readuntil(_END)
        except TimeoutError:
            return HTTPStatus.REQUEST_TIMEOUT, True
        except asyncio.LimitOverrunError:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, True
        except asyncio.IncompleteReadError:
            return HTTPStatus.BAD_REQUEST, True
        return judge(head.removesuffix(_END), lambda name: name == self._host or self._is_ours(name))

    def _current(self) -> str:
        now_s = asyncio.get_running_loop().time()
        if self._kept is None or now_s - self._kept[0] >= METRICS_KEPT_S:
            self._kept = (now_s, self._text())
        return self._kept[1]


async def _say(writer: asyncio.StreamWriter, answer: bytes) -> None:
    """Return once the operating system has all of the answer."""
    writer.transport.set_write_buffer_limits(0)
    writer.write(answer)
    await writer.drain()
    writer.write_eof()


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait for the client's end: closing before something is read would take the answer back (RFC 9112, 9.6)."""
    for _ in range(METRICS_UNREAD_READS_MAX):
        if not await reader.read(METRICS_HEAD_BYTES_MAX):
            return
    writer.transport.abort()


def _refused(endpoint: Endpoint, error: OSError) -> UserError:
    where = endpoint_text(endpoint)
    if error.errno == errno.EADDRINUSE:
        sentence, fix = f"the metrics port is in use: {where}", "end the program that has it, or choose another one"
    else:
        sentence, fix = (
            f"cannot listen for metrics on {where}",
            "choose an address of this machine, and a port above 1023",
        )
    return UserError(
        "A113",
        sentence,
        where=error.strerror or str(error),
        fix=f"{fix}: --metrics [HOST:]PORT; or none: --metrics none",
    )
