# SPDX-License-Identifier: Apache-2.0
"""Metrics on a real port: of the server alone, where time is short, and of nodes as a person has them."""

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from atoll.base.errors import UserError
from atoll.cli.api import Api
from atoll.lab.live import free_port
from atoll.node import metrics_http
from atoll.node.limits import METRICS_CONNECTIONS_MAX, METRICS_HEAD_BYTES_MAX, METRICS_TURNED_AWAY_MAX
from atoll.node.metrics_http import MetricsServer
from tests.process.node_world import WAIT_S, Box, nodes, until

pytestmark = pytest.mark.process

GET = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BIG = "a_metric 1\n" * 400_000  # More than the kernel takes for a client that does not read.


def port() -> int:
    return free_port(socket.SOCK_STREAM)


class Served:
    """A server by itself, with a text that counts how often it was made."""

    def __init__(self, port: int, text: str) -> None:
        self.port, self.made, self._text = port, 0, text
        self.server = MetricsServer(self.text, lambda name: name == "fra")

    def text(self) -> str:
        self.made += 1
        return self._text


def run(test: Callable[[Served], Awaitable[None]], text: str = "a_metric 1\n") -> None:
    """Run a scenario; whatever the server lets escape fails it, as it would end a node."""
    escaped: list[dict[str, object]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
        served = Served(port(), text)
        await served.server.start(("127.0.0.1", served.port))
        try:
            async with asyncio.timeout(WAIT_S):
                await test(served)
        finally:
            await served.server.close()

    asyncio.run(scenario())
    assert not escaped


@asynccontextmanager
async def connected(served: Served) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def said(served: Served, *pieces: bytes) -> bytes:
    """Send pieces one by one; return the whole answer up to the server's end."""
    async with connected(served) as (reader, writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return await reader.read()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return what still comes: nothing from a connection that was cut off, whether by an end or a reset."""
    with suppress(ConnectionError):
        return await reader.read()
    return b""


async def until_made(served: Served) -> None:
    while not served.made:  # noqa: ASYNC110 - what it waits for cannot signal it.
        await asyncio.sleep(0.005)


async def until_served(served: Served) -> None:
    """Wait until nobody has a place any more."""
    while served.server.connections:  # noqa: ASYNC110 - as above.
        await asyncio.sleep(0.005)


def status(answer: bytes) -> int:
    line, _, rest = answer.partition(b"\r\n")
    head, _, body = rest.partition(b"\r\n\r\n")
    assert line.startswith(b"HTTP/1.1 ")
    assert b"\r\nConnection: close" in b"\r\n" + head
    (length,) = (one.partition(b": ")[2] for one in head.split(b"\r\n") if one.startswith(b"Content-Length: "))
    assert int(length) == len(body)
    return int(line.split()[1])


@pytest.mark.parametrize("size", [1, 2, 7, len(GET) - 1, len(GET)])
def test_a_request_may_come_in_pieces_of_any_size(size: int) -> None:
    async def scenario(served: Served) -> None:
        answer = await said(served, *(GET[start : start + size] for start in range(0, len(GET), size)))
        assert status(answer) == 200
        assert answer.endswith(b"\r\n\r\na_metric 1\n")

    run(scenario)


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_request_is_told_so(request_: bytes) -> None:
    async def scenario(served: Served) -> None:
        assert status(await said(served, request_)) == 400
        assert (status(await said(served, GET)), served.made) == (200, 1)

    run(scenario)


def test_a_head_that_is_too_long_is_told_so_and_its_rest_is_not_kept() -> None:
    longest = GET[:-2] + b"X: " + b"x" * (METRICS_HEAD_BYTES_MAX - len(GET) - 5) + b"\r\n\r\n"

    async def scenario(served: Served) -> None:
        assert status(await said(served, longest)) == 200
        for end in (b"", b"\r\n\r\n"):
            assert status(await said(served, b"x" * (METRICS_HEAD_BYTES_MAX + 4) + end)) == 431

    run(scenario)


def test_a_body_takes_the_answer_from_nobody_unless_it_has_no_end() -> None:
    async def scenario(served: Served) -> None:
        post = GET.replace(b"GET", b"POST")
        assert status(await said(served, post, b"x" * 50_000)) == 405
        async with connected(served) as (reader, writer):
            writer.write(post)
            with suppress(ConnectionError):
                while True:  # To the server's end.
                    writer.write(b"x" * 10_000)
                    await writer.drain()
            await rest(reader)

    run(scenario)


def test_a_client_that_says_nothing_or_half_is_told_so_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "METRICS_REQUEST_S", 0.1)

    async def scenario(served: Served) -> None:
        assert status(await said(served)) == 408
        assert status(await said(served, GET[:-1])) == 408

    run(scenario)


def test_a_client_that_drops_its_end_is_forgotten_and_one_that_closes_half_is_answered() -> None:
    async def scenario(served: Served) -> None:
        for _ in range(3 * METRICS_CONNECTIONS_MAX):
            async with connected(served) as (_, writer):
                writer.write(GET[:-1])
                await writer.drain()
        await until_served(served)
        assert status(await said(served, GET)) == 200
        async with connected(served) as (reader, writer):
            writer.write(GET)
            writer.write_eof()
            assert status(await reader.read()) == 200
        async with connected(served) as (reader, writer):
            writer.write(GET[:-1])
            writer.write_eof()
            assert status(await reader.read()) == 400

    run(scenario)


def test_the_17th_connection_is_told_503_and_far_more_are_cut_off() -> None:
    async def scenario(served: Served) -> None:
        async with AsyncExitStack() as stack:
            held = [await stack.enter_async_context(connected(served)) for _ in range(METRICS_CONNECTIONS_MAX)]
            turned_away = [await stack.enter_async_context(connected(served)) for _ in range(METRICS_TURNED_AWAY_MAX)]
            for reader, writer in turned_away:
                assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
                writer.write(GET)  # As http.client does before it reads: its answer must not be lost.
            one_more = await stack.enter_async_context(connected(served))
            assert await rest(one_more[0]) == b""
            for reader, writer in held:
                writer.write(GET)
                assert status(await reader.read()) == 200
        await until_served(served)
        assert status(await said(served, GET)) == 200
        assert served.made == 1, "so many questions within a second are one"

    run(scenario)


def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "METRICS_TAKEN_S", 0.2)

    async def scenario(served: Served) -> None:
        with socket.socket() as client:
            client.connect(("127.0.0.1", served.port))
            client.sendall(GET)
            client.setblocking(False)
            await until_made(served)
            await until_served(served)
            taken, loop = 0, asyncio.get_running_loop()
            with suppress(ConnectionError):
                while data := await loop.sock_recv(client, 1 << 20):
                    taken += len(data)
            assert taken < len(BIG)
        whole = await said(served, GET)
        assert status(whole) == 200
        assert whole.endswith(BIG.encode()[-1000:])

    run(scenario, BIG)


def test_who_asks_later_gets_a_newer_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "METRICS_KEPT_S", 0.0)

    async def scenario(served: Served) -> None:
        for made in (1, 2):
            assert status(await said(served, GET)) == 200
            assert served.made == made

    run(scenario)


def test_the_configured_host_may_be_asked_for_by_its_name() -> None:
    async def scenario() -> None:
        served = Served(port(), "x 1\n")
        await served.server.start(("LocalHost", served.port))
        try:
            for host, code in ((b"localhost", 200), (b"fra", 200), (b"ash", 421)):
                assert status(await said(served, GET.replace(b"127.0.0.1", host))) == code
        finally:
            await served.server.close()

    asyncio.run(scenario())


def test_closing_ends_what_is_open_and_frees_the_port() -> None:
    async def scenario(served: Served) -> None:
        async with connected(served) as (reader, writer):
            writer.write(GET[:-1])
            await writer.drain()
            await served.server.close()
            assert await rest(reader) == b""
        again = MetricsServer(served.text, lambda _: True)
        await again.start(("127.0.0.1", served.port))
        await again.close()

    run(scenario)


@pytest.mark.parametrize(
    ("host", "sentence"),
    [("127.0.0.1", "in use"), ("192.0.2.1", "cannot listen"), ("no-such.invalid", "cannot listen")],
)
def test_a_port_that_cannot_be_had_is_told(host: str, sentence: str) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(UserError, match=f"A113: .*{sentence}") as caught:
                await MetricsServer(str, bool).start((host, taken.getsockname()[1]))
            assert "--metrics none" in caught.value.fix

    asyncio.run(scenario())


def test_a_socket_that_asyncio_leaves_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    start_server = asyncio.start_server

    async def without_sockets(*arguments: Any, **options: Any) -> asyncio.Server:
        server = await start_server(*arguments, **options)
        server.close()  # Such a server is what it returns then.
        return server

    monkeypatch.setattr(asyncio, "start_server", without_sockets)
    with pytest.raises(UserError, match="A113: cannot listen"):
        asyncio.run(MetricsServer(str, bool).start(("127.0.0.1", port())))


# Nodes.


def fetched(
    port: int, method: str = "GET", path: str = "/metrics", **fields: str
) -> tuple[http.client.HTTPResponse, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)) as connection:
        connection.request(method, path, headers=fields)
        answer = connection.getresponse()
        return answer, answer.read().decode()


def peers_of(text: str) -> dict[str, str]:
    """Return each member's state."""
    return {
        sample.labels["peer"]: sample.labels["state"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "atoll_peer_state" and sample.value
    }


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), WAIT_S).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_group_is_read_over_http_by_the_command_and_through_the_overlay() -> None:
    with nodes() as world:
        fra, ash = world.box("fra"), world.box("ash")
        at_fra, at_ash = port(), port()
        fra.up("--metrics", str(at_fra))
        ash.up(fra.invite(), "--metrics", f"127.0.0.1:{at_ash}")
        until(lambda: peers_of(fetched(at_fra)[1]) == {"ash": "ok"}, "fra tells that ash is ok")
        answer, text = fetched(at_fra)
        assert (answer.status, answer.getheader("Content-Type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert 'atoll_path_round_trip_seconds{path="direct",peer="ash"}' in text
        head, nothing = fetched(at_fra, "HEAD")
        assert (head.status, nothing) == (200, "")
        for method, path, host, code in (
            ("GET", "/", "127.0.0.1", 404),
            ("DELETE", "/metrics", "127.0.0.1", 405),
            ("GET", "/metrics", "evil.example", 421),
            ("GET", "/metrics", f"fra.atoll:{at_fra}", 200),
            ("GET", "/metrics", "ash.atoll", 421),
        ):
            assert fetched(at_fra, method, path, Host=host)[0].status == code
        with socket.create_connection(("127.0.0.1", at_fra), WAIT_S) as stranger:
            stranger.sendall(b"\xff" * (2 * METRICS_HEAD_BYTES_MAX))
            assert stranger.recv(100).startswith(b"HTTP/1.1 431 ")

        printed = fra.run("metrics")
        assert (printed.status, peers_of(printed.out)) == (0, {"ash": "ok"})
        assert json.loads(fra.run("metrics", "--json").out)["schema"] == "atoll.metrics/1"

        raw = Api(fra.state).call(
            "forward.add", {"protocol": "tcp", "local": "127.0.0.1:0", "node": "ash", "port": at_ash}
        )
        local = int(json.loads(raw)["local"].rpartition(":")[2])
        answer, text = fetched(local, Host="ash.atoll:9747")
        assert (answer.status, peers_of(text)) == (200, {"fra": "ok"})


def up_again(box: Box, *arguments: str) -> None:
    box.down()
    box.ready(box.run("up", "--json", *arguments))


def test_where_metrics_are_served_is_kept_until_it_is_taken_back() -> None:
    with nodes() as world:
        box, at = world.box("one"), port()
        box.up("--metrics", str(at))
        assert fetched(at)[0].status == 200
        up_again(box)
        assert fetched(at)[0].status == 200
        up_again(box, "--metrics", "none")
        assert refuses(at)
        up_again(box)
        assert refuses(at)
        assert box.run("metrics").status == 0


def test_a_port_in_use_ends_the_start_with_a_code_and_a_node_that_ends_lets_go_of_it() -> None:
    with nodes() as world:
        one, two, at = world.box("one"), world.box("two"), port()
        one.up("--metrics", str(at))
        said = two.try_up("--metrics", str(at))
        assert (said.code, said.status) == ("A113", 7)
        assert f"127.0.0.1:{at}" in said.err
        assert two.pid == 0
        with socket.create_connection(("127.0.0.1", at), WAIT_S) as half:
            half.sendall(b"GET /met")
            assert one.down().status == 0
            with suppress(ConnectionError):
                assert half.recv(1) == b""
        assert refuses(at)
        two.again()
        assert fetched(at)[0].status == 200
