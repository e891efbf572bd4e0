# SPDX-License-Identifier: Apache-2.0
"""The Python interface: connections, datagrams and news through real nodes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager

import msgspec
import pytest

import atoll
from atoll.base.errors import UserError
from atoll.client import Group
from atoll.client.datagrams import DATAGRAM_BYTES_MAX
from atoll.conduit.forward import reset
from atoll.node.api import call
from atoll.node.state import SOCKET_NAME
from atoll.node.views import StatusView
from tests.process.node_world import Box, nodes

pytestmark = pytest.mark.process

WAIT_S = 20.0
MUCH = 3_000_000


@pytest.fixture(scope="module")
def pair() -> Generator[tuple[Box, Box]]:
    with nodes() as world:
        one, two = world.group("one", "two")
        yield one, two


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            await test()

    asyncio.run(bounded())


Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(client: Client) -> AsyncGenerator[int]:
    """A TCP service on the loopback; gives its port."""
    server = await asyncio.start_server(client, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with capitals when all was heard."""
    heard = await reader.read()
    writer.write(heard.upper())
    writer.close()


def test_who_is_there(pair: tuple[Box, Box]) -> None:
    async def test() -> None:
        async with atoll.join(pair[0].state) as group:
            assert group.node == "one"
            assert set(group.peers) == {"two"}
            assert group.peers["two"].state == "ok"
            assert group.address.startswith("fd")

    run(test)


def test_a_program_reports_how_quick_what_it_uses_is(pair: tuple[Box, Box]) -> None:
    async def test() -> None:
        async with atoll.join(pair[0].state) as group:
            await group.observe(("db:orders", 0.012), ("db:orders", 0.02, 4096), ("db:orders", float("inf")))
            with pytest.raises(UserError, match="use kind:which") as caught:
                await group.observe(("cpu", 0.1))
            assert caught.value.code == "A501"
        status = await call(pair[0].state / SOCKET_NAME, "status")
        (component,) = (one for one in msgspec.json.decode(status, type=StatusView).components if ":" in one.name)
        assert (component.name, component.samples) == ("db:orders", 2)

    run(test)


@pytest.mark.parametrize("node", ["two", "two.atoll", "one"])
def test_a_connection_ends_each_way_on_its_own(pair: tuple[Box, Box], node: str) -> None:
    async def test() -> None:
        async with serving(shout) as port, atoll.join(pair[0].state) as group:
            reader, writer = await group.open_connection(node, port)
            assert writer.get_extra_info("peername") == (node, port)
            writer.write(b"hello " * 50_000)
            await writer.drain()
            writer.write_eof()
            assert await reader.read() == b"HELLO " * 50_000
            writer.close()
            await writer.wait_closed()
            with pytest.raises(ConnectionResetError):
                writer.write(b"too late")

    run(test)


def test_a_slow_reader_slows_the_sender(pair: tuple[Box, Box]) -> None:
    sent = 0

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _number in range(64):
            writer.write(bytes(MUCH // 4))
            await writer.drain()
            sent += MUCH // 4
        writer.close()

    async def test() -> None:
        async with serving(pour) as port, atoll.join(pair[0].state) as group:
            reader, writer = await group.open_connection("two", port)
            before = -1
            while before != sent:  # Until it stops, because nobody reads.
                before = sent
                await asyncio.sleep(0.5)
            assert sent < 32 * MUCH // 4
            got = 0
            while data := await reader.read(1 << 20):
                got += len(data)
            assert got == 64 * (MUCH // 4)
            writer.close()

    run(test)


def test_a_break_is_no_end(pair: tuple[Box, Box]) -> None:
    async def snap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of")
        await writer.drain()
        await reader.readexactly(2)
        reset(writer)

    async def test() -> None:
        async with serving(snap) as port, atoll.join(pair[0].state) as group:
            reader, writer = await group.open_connection("two", port)
            assert await reader.readexactly(7) == b"half of"
            writer.write(b"go")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(test)


def test_a_program_that_goes_away_is_a_break_for_the_member(pair: tuple[Box, Box]) -> None:
    heard: asyncio.Future[Exception | bytes]

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.set_result(await reader.read())
        except ConnectionResetError as error:
            heard.set_result(error)
        writer.close()

    async def test() -> None:
        nonlocal heard
        heard = asyncio.get_running_loop().create_future()
        async with serving(listen) as port, atoll.join(pair[0].state) as group:
            _, writer = await group.open_connection("two", port)
            writer.write(b"unfinished")
            await writer.drain()
            writer._raw.transport.abort()  # pyright: ignore[reportPrivateUsage] - as the end of the process does.
            assert isinstance(await heard, ConnectionResetError)

    run(test)


@pytest.mark.parametrize(
    ("node", "port", "code"),
    [("nobody", 80, "A210"), ("example.org", 80, "A430"), ("two", 1, "A431"), ("two", 0, "A501")],
)
def test_a_refusal_has_a_code(pair: tuple[Box, Box], node: str, port: int, code: str) -> None:
    async def test() -> None:
        async with atoll.join(pair[0].state) as group:
            with pytest.raises(UserError) as refused:
                await group.open_connection(node, port)
            assert refused.value.code == code
            assert refused.value.fix

    run(test)


def test_datagrams_reach_members_and_this_machine_and_are_answered(pair: tuple[Box, Box]) -> None:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data[::-1], addr)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        port = server.get_extra_info("sockname")[1]
        async with atoll.join(pair[0].state) as group:
            endpoint = await group.open_datagram_endpoint()
            for node in ("two", "one"):
                for payload in (b"abc", bytes(range(256)) * 4):
                    endpoint.sendto(payload, (node, port))
                    assert await endpoint.recvfrom() == (payload[::-1], (node, port))
            with pytest.raises(ValueError, match="at most"):
                endpoint.sendto(bytes(DATAGRAM_BYTES_MAX + 1), ("two", port))
            with pytest.raises(ValueError, match="no address"):
                endpoint.sendto(b"", ("two", 70_000))
            endpoint.close()
            with pytest.raises(ConnectionResetError):
                await endpoint.recvfrom()
        server.close()

    run(test)


def test_without_a_node_it_says_so(tmp_path: object) -> None:
    async def test() -> None:
        with pytest.raises(UserError, match="A401"):
            async with atoll.join(f"{tmp_path}/none"):
                pass

    run(test)


def test_news_of_a_member_that_falls_silent_and_of_the_end_of_the_node() -> None:
    with nodes() as world:
        one, two = world.group("one", "two")

        async def hear(group: Group, wanted: str) -> str:
            async for event in group.events():
                if event.what == wanted:
                    return f"{event.peer} {event.before} {event.after}"
            return "the end"

        async def test() -> None:
            async with atoll.join(one.state) as group:
                listening = asyncio.ensure_future(hear(group, "state"))
                await asyncio.sleep(0)
                two.kill()
                assert await listening == "two ok away"
                assert group.peers["two"].state == "away"
                listening = asyncio.ensure_future(hear(group, "none"))
                await asyncio.sleep(0)
                one.kill()
                assert await listening == "the end"

        asyncio.run(asyncio.wait_for(test(), 60))
