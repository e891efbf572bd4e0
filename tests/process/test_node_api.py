# SPDX-License-Identifier: Apache-2.0
"""The local API on a real unix socket, in one process: how lines are framed, and who gets a place."""

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll.base.errors import LimitError, UserError
from atoll.node import api
from atoll.node.api import Answer, call, check_path, serve
from atoll.node.limits import CLIENTS_MAX, REQUEST_BYTES_MAX

pytestmark = pytest.mark.process

WAIT_S = 20.0
ECHO = b'{"method":"echo","params":{"text":"hello"}}\n'
HELLO = {"ok": {"text": "hello"}}


class Said(msgspec.Struct):
    text: str


class Service:
    """A few methods, and the socket that they are served on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held = 0
        self.let = asyncio.Event()

    async def echo(self, params: dict[str, Any]) -> Answer:
        return Said(params["text"])

    async def hold(self, _params: dict[str, Any]) -> Answer:
        self.held += 1
        await self.let.wait()
        return Said("let")

    async def flood(self, _params: dict[str, Any]) -> Answer:
        async def lines() -> AsyncIterator[msgspec.Struct]:
            self.held += 1
            while True:
                yield Said("x" * 10_000)

        return lines()

    async def fail(self, _params: dict[str, Any]) -> Answer:
        raise LimitError("STREAMS_MAX", 5)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)

    async def answer(self) -> Any:
        line = await self.reader.readline()
        return json.loads(line) if line else None


@pytest.fixture
def directory() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="at") as directory:  # Short: a socket lies in it.
        yield Path(directory)


@asynccontextmanager
async def connected(path: Path) -> AsyncGenerator[Client]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=2 * REQUEST_BYTES_MAX)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


def run(directory: Path, test: Callable[[Service], Awaitable[None]]) -> None:
    async def scenario() -> None:
        service = Service(directory / "api.sock")
        methods = {name: getattr(service, name) for name in ("echo", "hold", "flood", "fail")}
        server = await serve(service.path, methods)
        try:
            async with asyncio.timeout(WAIT_S):
                await test(service)
        finally:
            server.close()

    asyncio.run(scenario())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it waits for cannot signal it.
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("size", [1, 2, 7, len(ECHO) - 1])
def test_a_request_may_come_in_pieces_of_any_size(directory: Path, size: int) -> None:
    async def scenario(service: Service) -> None:
        async with connected(service.path) as client:
            for start in range(0, len(ECHO), size):
                client.send(ECHO[start : start + size])
                await client.writer.drain()
                await asyncio.sleep(0)
            assert await client.answer() == HELLO

    run(directory, scenario)


def test_many_requests_may_come_at_once_and_are_answered_in_order(directory: Path) -> None:
    async def scenario(service: Service) -> None:
        async with connected(service.path) as client:
            client.send(*(ECHO.replace(b"hello", str(number).encode()) for number in range(50)), ECHO[:10])
            assert [(await client.answer())["ok"]["text"] for _ in range(50)] == [str(number) for number in range(50)]
            client.send(ECHO[10:])
            assert await client.answer() == HELLO

    run(directory, scenario)


@pytest.mark.parametrize("line", [b"", b"{", b"\xff\xfe", b"null", b'{"method":1}', b"\x00" * 100, b"[" * 5000])
def test_garbage_is_answered_and_the_connection_goes_on(directory: Path, line: bytes) -> None:
    async def scenario(service: Service) -> None:
        async with connected(service.path) as client:
            client.send(line + b"\n", ECHO)
            assert (await client.answer())["error"]["code"] == "A501"
            assert await client.answer() == HELLO

    run(directory, scenario)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_too_long_is_told_and_ends_the_connection(directory: Path, end: bytes) -> None:
    async def scenario(service: Service) -> None:
        async with connected(service.path) as client:
            client.send(b"x" * (REQUEST_BYTES_MAX + 1), end)
            assert "too long" in (await client.answer())["error"]["sentence"]
            assert await client.answer() is None
        async with connected(service.path) as client:
            client.send(b'{"method":"echo","params":{"text":"' + b"x" * (REQUEST_BYTES_MAX - 100) + b'"}}\n')
            assert len((await client.answer())["ok"]["text"]) == REQUEST_BYTES_MAX - 100

    run(directory, scenario)


def test_a_client_that_goes_away_in_the_middle_of_a_line_or_an_answer_is_forgotten(directory: Path) -> None:
    async def scenario(service: Service) -> None:
        for sent in (b"", ECHO[:-1], b'{"method":"hold"}\n', b'{"method":"flood"}\n'):
            for _ in range(CLIENTS_MAX):
                async with connected(service.path) as client:
                    client.send(sent)
                    await client.writer.drain()
        service.let.set()
        async with connected(service.path) as client:
            client.send(ECHO)
            assert await client.answer() == HELLO

    run(directory, scenario)


def test_errors_of_the_house_are_told_with_a_code(directory: Path) -> None:
    async def scenario(service: Service) -> None:
        with pytest.raises(UserError, match="A499: STREAMS_MAX is 5"):
            await call(service.path, "fail")
        with pytest.raises(UserError, match="A501: no method 'nothing'"):
            await call(service.path, "nothing")
        assert json.loads(await call(service.path, "echo", {"text": "x"})) == {"text": "x"}

    run(directory, scenario)


def test_idle_clients_lock_nobody_out_the_longest_idle_one_makes_room(directory: Path) -> None:
    async def scenario(service: Service) -> None:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(service.path)) for _ in range(CLIENTS_MAX)]
            for client in clients:
                client.send(ECHO)
                assert await client.answer() == HELLO
            clients[0].send(ECHO)  # So the second one is idle longest.
            assert await clients[0].answer() == HELLO
            for turned_out in clients[1:4]:
                fresh = await stack.enter_async_context(connected(service.path))
                fresh.send(ECHO)
                assert await fresh.answer() == HELLO
                error = (await turned_out.answer())["error"]
                assert (error["code"], "idle longest" in error["sentence"]) == ("A499", True)
                assert error["fix"]
                assert await turned_out.answer() is None
            clients[0].send(ECHO)
            assert await clients[0].answer() == HELLO

    run(directory, scenario)


def test_a_half_line_is_no_work_and_keeps_no_place(directory: Path) -> None:
    async def scenario(service: Service) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(CLIENTS_MAX):
                client = await stack.enter_async_context(connected(service.path))
                client.send(ECHO[:-1])
                await client.writer.drain()
            fresh = await stack.enter_async_context(connected(service.path))
            fresh.send(ECHO)
            assert await fresh.answer() == HELLO

    run(directory, scenario)


def test_clients_that_wait_for_answers_keep_their_places(directory: Path) -> None:
    async def scenario(service: Service) -> None:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(service.path)) for _ in range(CLIENTS_MAX)]
            for client in clients:
                client.send(b'{"method":"hold"}\n')
            await until(lambda: service.held == CLIENTS_MAX)
            one_more = await stack.enter_async_context(connected(service.path))
            assert (await one_more.answer())["error"]["code"] == "A499"
            assert await one_more.answer() is None
            service.let.set()
            for client in clients:
                assert await client.answer() == {"ok": {"text": "let"}}

    run(directory, scenario)


def test_clients_that_never_read_are_cut_off_and_lock_nobody_out(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "ANSWER_TAKEN_S_MAX", 0.2)

    async def scenario(service: Service) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(CLIENTS_MAX):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(service.path))
                client.sendall(b'{"method":"flood"}\n')
            await until(lambda: service.held == CLIENTS_MAX)
            while True:
                fresh = await stack.enter_async_context(connected(service.path))
                fresh.send(ECHO)
                if await fresh.answer() == HELLO:
                    return

    run(directory, scenario)


def test_a_path_too_long_for_a_socket_is_told() -> None:
    check_path(Path("/" + "x" * 106))
    with pytest.raises(UserError, match="A109"):
        check_path(Path("/" + "x" * 107))


def test_nobody_there_and_nonsense_from_there_are_told(directory: Path) -> None:
    async def scenario(service: Service) -> None:
        with pytest.raises(UserError, match="A401: no node is running here"):
            await call(directory / "nothing", "echo")

        async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"nonsense\n")
            writer.close()

        server = await asyncio.start_unix_server(nonsense, directory / "other.sock")
        with pytest.raises(UserError, match="A401: the node went away"):
            await call(directory / "other.sock", "echo")
        server.close()

    run(directory, scenario)
