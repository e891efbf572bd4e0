# SPDX-License-Identifier: Apache-2.0
"""The proxy between two stacks, with real local sockets: what it grants, what it refuses, how it ends, its limits."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from struct import pack
from time import monotonic

import pytest

from atoll.base.errors import LimitError, UserError
from atoll.base.ids import GroupId, NodeId, packed_address_of
from atoll.base.member import Member
from atoll.conduit import correspondence, dial, forward, proxy, proxy_udp
from atoll.conduit.forward_udp import PAYLOAD_BYTES_MAX
from atoll.conduit.limits import FLOW_IDLE_S, STREAMS_MAX
from atoll.conduit.names import Book
from atoll.conduit.proxy import Proxy
from atoll.conduit.stack import Stack, allow_all
from atoll.conduit.stream import Kind, Service

pytestmark = pytest.mark.process

GROUP = GroupId(bytes(32))
HOME, WEB, GONE = (Member(bytes([n]) * 32, bytes(32), name) for n, name in enumerate(("home", "web", "gone")))
WAIT_S = 15.0
HELLO = b"\5\1\0"
SUCCEEDED = b"\5\0\0\1" + bytes(6)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Allow = Callable[[NodeId, str, int], bool]


class World:
    """Two stacks joined by the loop itself, and the proxy of the first."""

    def __init__(self, allow: Allow) -> None:
        loop = asyncio.get_running_loop()
        self.is_cut = False
        self.sent = 0
        self.now = 0.0

        def send_home(node: NodeId, _tag: int, packet: bytes) -> None:
            self.sent += 1
            if node == WEB.node and not self.is_cut:
                loop.call_soon(self.web.receive, HOME.node, packet)

        def send_web(_node: NodeId, _tag: int, packet: bytes) -> None:
            if not self.is_cut:
                loop.call_soon(self.home.receive, WEB.node, packet)

        self.home = Stack(group=GROUP, own=HOME.node, send=send_home, clock=self.clock)
        self.web = Stack(group=GROUP, own=WEB.node, send=send_web, allow=allow, clock=self.clock)
        self.members: tuple[Member, ...] = (HOME, WEB, GONE)
        self.proxy: Proxy = self.home.proxy(lambda: Book(GROUP, "lab", HOME, self.members), 0)
        self.address: tuple[str, int] = ("", 0)

    def clock(self) -> float:
        """Real time, and what a test adds to it."""
        return monotonic() + self.now

    async def until_idle(self, open_still: int = 0) -> None:
        while self.proxy.connections > open_still:  # noqa: ASYNC110 -- a condition without an event, bounded by run().
            await asyncio.sleep(0)

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def told(self, said: bytes) -> bytes:
        """Return everything that is said to a client that waits for the end."""
        async with self.client() as (reader, writer):
            writer.write(said)
            writer.write_eof()
            return await reader.read(-1)


def run(scenario: Callable[[World], Awaitable[None]], allow: Allow = allow_all) -> None:
    async def main() -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        world = World(allow)
        try:
            async with asyncio.timeout(WAIT_S):
                world.address = await world.proxy.start("127.0.0.1", 0)
                await scenario(world)
                await world.proxy.close()
        finally:
            await world.home.close()
            await world.web.close()
        assert not faults

    asyncio.run(main())


@asynccontextmanager
async def service(handle: Handler) -> AsyncGenerator[int]:
    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # The far end went away, which some scenarios are about; or the scenario is over.
        finally:
            writer.close()

    server = await asyncio.start_server(handled, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def in_capitals(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read up to the end, then answer: only a half-close gets an answer."""
    writer.write((await reader.read(-1)).upper())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def socks(host: str | bytes, port: int, command: int = 1) -> bytes:
    if isinstance(host, str):
        return bytes((5, command, 0, 3, len(host))) + host.encode() + port.to_bytes(2, "big")
    return bytes((5, command, 0, 4 if len(host) == 16 else 1)) + host + port.to_bytes(2, "big")


def connect(host: str, port: int) -> bytes:
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


OVERLAY = packed_address_of(GROUP, WEB.node)
OWN = packed_address_of(GROUP, HOME.node)


@pytest.mark.parametrize("host", ["web", "WEB.atoll.", "web.lab.atoll", OVERLAY, "home", OWN])
def test_socks5_leads_to_members_and_to_this_node_with_half_closes(host: str | bytes) -> None:
    async def scenario(world: World) -> None:
        async with service(in_capitals) as port:
            told = await world.told(HELLO + socks(host, port) + b"early and late")
            assert told == b"\5\0" + SUCCEEDED + b"EARLY AND LATE"
        await world.until_idle()
        assert bool(world.sent) == (host not in {"home", OWN}), "to itself without a detour"

    run(scenario)


@pytest.mark.parametrize("host", ["web.atoll", "home"])
def test_http_connect_leads_there_too(host: str) -> None:
    async def scenario(world: World) -> None:
        async with service(in_capitals) as port:
            told = await world.told(connect(host, port) + b"early and late")
            assert told == b"HTTP/1.1 200 Connection established\r\n\r\nEARLY AND LATE"

    run(scenario)


def test_a_member_is_reached_by_its_overlay_address_over_http() -> None:
    async def scenario(world: World) -> None:
        async with service(in_capitals) as port:
            text = socket.inet_ntop(socket.AF_INET6, OVERLAY)
            assert (await world.told(connect(f"[{text}]", port) + b"x")).endswith(b"\r\n\r\nX")

    run(scenario)


def test_much_goes_both_ways_unchanged() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def scenario(world: World) -> None:
        data = bytes(range(256)) * 2000
        async with service(echo) as port:
            for host in ("web", "home"):
                async with world.client() as (reader, writer):
                    writer.write(HELLO + socks(host, port))
                    assert await reader.readexactly(12) == b"\5\0" + SUCCEEDED
                    writer.write(data)
                    writer.write_eof()
                    assert await reader.read(-1) == data

    run(scenario)


def refusals(socks_code: int, http: bytes, host: str, port: int) -> Callable[[World], Awaitable[None]]:
    async def scenario(world: World) -> None:
        assert await world.told(HELLO + socks(host, port)) == b"\5\0" + bytes((5, socks_code, 0, 1)) + bytes(6)
        told = await world.told(connect(host, port))
        assert told.startswith(b"HTTP/1.1 " + http[:3] + b" ")
        body = told.partition(b"\r\n\r\n")[2]
        assert body.startswith(http[4:] + b": ")
        assert f"{host}:{port}".encode() in body

    return scenario


@pytest.mark.parametrize("host", ["web", "home"])
def test_a_port_where_nothing_listens_is_refused(host: str) -> None:
    run(refusals(5, b"502 A431", host, free_port()))


def test_a_port_that_policy_forbids_is_not_allowed() -> None:
    run(refusals(2, b"403 A432", "web", free_port()), lambda _node, _protocol, _port: False)


@pytest.mark.parametrize("host", ["nobody", "nobody.atoll", "web.other.atoll"])
def test_an_unknown_member_is_unreachable(host: str) -> None:
    run(refusals(4, b"502 A210", host, 80))


@pytest.mark.parametrize("host", ["www.example.com", "127.0.0.1", "192.0.2.1"])
def test_what_is_outside_is_not_allowed(host: str) -> None:
    run(refusals(2, b"403 A430", host, 80))


def test_addresses_outside_are_not_allowed_as_bytes_either() -> None:
    async def scenario(world: World) -> None:
        for address in (b"\x7f\0\0\1", bytes(15) + b"\1", packed_address_of(GroupId(b"x" * 32), WEB.node)):
            assert await world.told(HELLO + socks(address, 80)) == b"\5\0\5\2\0\1" + bytes(6)

    run(scenario)


def test_a_member_that_does_not_answer_is_unreachable_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "PROXY_VERDICT_S", 0.05)
    run(refusals(4, b"504 A406", "gone", 80))


def test_who_is_a_member_is_asked_at_each_request() -> None:
    async def scenario(world: World) -> None:
        async with service(in_capitals) as port:
            assert (await world.told(HELLO + socks("web", port)))[3] == 0
            world.members = (HOME,)
            assert (await world.told(HELLO + socks("web", port)))[3] == 4

    run(scenario)


def test_no_more_streams_is_told_as_a_limit() -> None:
    async def scenario(world: World) -> None:
        world.is_cut = True
        for _ in range(STREAMS_MAX):
            world.home.streams.open(WEB.node, 0, Service(Kind.ECHO))
        with pytest.raises(LimitError):
            world.home.streams.open(WEB.node, 0, Service(Kind.ECHO))
        await refusals(1, b"503 A499", "web", 80)(world)

    run(scenario)


def test_a_client_that_says_nothing_or_too_little_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "PROXY_HANDSHAKE_S", 0.05)

    async def scenario(world: World) -> None:
        for said in (b"", HELLO, b"CONNECT web:80 HTTP/1.1\r\n"):
            async with world.client() as (reader, writer):
                writer.write(said)
                assert len(await reader.read(2)) == 2 if said == HELLO else True
                with pytest.raises(ConnectionResetError):
                    await reader.read(1)

    run(scenario)


def test_a_client_that_ends_before_its_request_is_forgotten() -> None:
    async def scenario(world: World) -> None:
        for said in (b"", HELLO, b"CONNECT web:80 HTTP/1.1\r\n"):
            async with world.client() as (reader, writer):
                writer.write(said)
                writer.write_eof()
                assert len(await reader.read(2)) == 2 if said == HELLO else True
                await world.until_idle()

    run(scenario)


def test_a_refused_client_may_send_on_and_end_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "PROXY_LINGER_S", WAIT_S)

    async def scenario(world: World) -> None:
        async with world.client() as (reader, writer):
            writer.write(b"POST http://web/ HTTP/1.1\r\n\r\n" + bytes(1000))
            told = await reader.read(-1)
            assert told.startswith(b"HTTP/1.1 405 ")
            assert b"\r\n\r\nA433: " in told
            for _ in range(50):  # A close at once would have answered the first of these with a reset.
                writer.write(bytes(20_000))
                await writer.drain()
            writer.write_eof()
            await world.until_idle()

    run(scenario)


def test_a_refused_client_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "PROXY_LINGER_S", 0.05)

    async def scenario(world: World) -> None:
        async with world.client() as (reader, writer):
            writer.write(b"\4")
            assert (await reader.read(-1))[:2] == b"\0\x5b"
            await world.until_idle()

    run(scenario)


def test_what_a_slow_service_on_this_node_has_not_read_yet_still_reaches_it() -> None:
    size = 4_000_000
    counted: asyncio.Queue[int] = asyncio.Queue()

    async def scenario(world: World) -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write_eof()
            count = 0
            while data := await reader.read(1000 if world.proxy.connections else 100_000):
                count += len(data)
            writer.close()
            counted.put_nowait(count)

        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # So that most waits at the proxy.
            listener.bind(("127.0.0.1", 0))
            server = await asyncio.start_server(slow, sock=listener, limit=4096)
            async with world.client() as (reader, writer):
                writer.write(HELLO + socks("home", int(listener.getsockname()[1])) + bytes(size))
                writer.write_eof()
                assert await reader.read(-1) == b"\5\0" + SUCCEEDED
                assert await counted.get() == size
            server.close()

    run(scenario)


def test_a_reset_at_either_end_resets_the_other() -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    def reset(writer: asyncio.StreamWriter) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        writer.transport.abort()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"R":
            reset(writer)
            return
        seen.put_nowait("begun")
        try:
            await reader.read(-1)
        except ConnectionResetError:
            seen.put_nowait("reset")

    async def scenario(world: World) -> None:
        async with service(handle) as port:
            for host in ("web", "home"):
                async with world.client() as (reader, writer):
                    writer.write(HELLO + socks(host, port) + b"R")
                    with pytest.raises(ConnectionResetError):
                        await reader.readexactly(13)
                async with world.client() as (_, writer):
                    writer.write(HELLO + socks(host, port) + b"x")
                    assert await seen.get() == "begun"
                    reset(writer)
                    assert await seen.get() == "reset"
            await world.until_idle()

    run(scenario)


def test_closing_resets_what_is_open_and_frees_the_port() -> None:
    async def hold(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async def scenario(world: World) -> None:
        async with service(hold) as port, world.client() as (joined, first), world.client() as (waiting, second):
            first.write(HELLO + socks("web", port))
            await joined.readexactly(12)
            second.write(HELLO)
            await waiting.readexactly(2)
            assert world.proxy.connections == 2
            await world.proxy.close()
            for reader in (joined, waiting):
                with pytest.raises(ConnectionResetError):
                    await reader.read(1)
            assert world.proxy.connections == 0
            again = world.home.proxy(lambda: Book(GROUP, "lab", HOME, world.members), 0)
            assert await again.start(*world.address) == world.address
            with pytest.raises(UserError) as caught:
                await world.home.proxy(lambda: Book(GROUP, "lab", HOME, world.members), 0).start(*world.address)
            assert caught.value.code == "A404"
            await again.close()

    run(scenario)


def test_sockets_are_counted_whoever_they_lead_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "FORWARD_CONNECTIONS_MAX", 3)

    async def hold(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async def scenario(world: World) -> None:
        async with service(hold) as port, world.client() as (reader, writer):
            writer.write(HELLO + socks("home", port))
            assert await reader.readexactly(12) == b"\5\0" + SUCCEEDED  # Two of three.
            assert (await world.told(HELLO + socks("home", port)))[3] == 1
            assert (await world.told(HELLO + socks("web", port, 3)))[3] == 1
            await world.until_idle(1)
            async with world.client() as (last, last_writer):
                last_writer.write(HELLO)
                await last.readexactly(2)
                async with world.client() as (more, _):
                    with pytest.raises(ConnectionResetError):
                        await more.read(1)

    run(scenario)


# UDP ASSOCIATE.


class Datagrams(asyncio.DatagramProtocol):
    """A UDP program: keeps what comes, and answers in capitals if it is a server."""

    def __init__(self, *, is_server: bool) -> None:
        self.is_server = is_server
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.peer: tuple[str, int] = ("", 0)  # Whom it heard last.

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # Narrower on purpose: asyncio gives datagram protocols this kind.
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.peer = addr
        self.heard.put_nowait(data)
        if self.is_server:
            self.transport.sendto(data.upper(), addr)


async def udp_server() -> tuple[Datagrams, int]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: Datagrams(is_server=True), local_addr=("127.0.0.1", 0)
    )
    return server, int(transport.get_extra_info("sockname")[1])


async def udp_client(relay: tuple[str, int]) -> Datagrams:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_datagram_endpoint(lambda: Datagrams(is_server=False), remote_addr=relay)
    return client


async def associated(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = 0) -> tuple[str, int]:
    writer.write(HELLO + socks(bytes(4), port, 3))
    answer = await reader.readexactly(12)
    assert answer[:6] == b"\5\0\5\0\0\1"
    return socket.inet_ntoa(answer[6:10]), int.from_bytes(answer[10:], "big")


def wrapped(host: str | bytes, port: int, payload: bytes, fragment: int = 0) -> bytes:
    return bytes((0, 0, fragment)) + socks(host, port)[3:] + payload


def test_datagrams_go_to_members_and_to_this_node_and_come_back_with_their_address() -> None:
    async def scenario(world: World) -> None:
        server, port = await udp_server()
        other, other_port = await udp_server()
        async with world.client() as (reader, writer):
            client = await udp_client(await associated(reader, writer))
            for host, address in (("web", OVERLAY), (OVERLAY, OVERLAY), ("home.atoll", OWN), (OWN, OWN)):
                for target in (port, other_port):
                    client.transport.sendto(wrapped(host, target, b"to %d" % target))
                    assert await client.heard.get() == wrapped(address, target, b"TO %d" % target)
            assert world.web.flows.served_count == 2
            client.transport.close()
        server.transport.close()
        other.transport.close()

    run(scenario)


def test_what_cannot_be_relayed_is_dropped_and_counted() -> None:
    async def scenario(world: World) -> None:
        server, port = await udp_server()
        counts = world.home.flows.counts
        async with world.client() as (reader, writer):
            client = await udp_client(await associated(reader, writer))
            for dropped in (b"\0", b"\0\0\0\3", wrapped("web", port, b"x", fragment=1)):
                client.transport.sendto(dropped)
            for refused in ("nobody", "www.example.com", b"\x7f\0\0\1"):
                client.transport.sendto(wrapped(refused, port, b"x"))
            client.transport.sendto(wrapped("web", 0, b"x"))
            client.transport.sendto(wrapped("web", port, bytes(PAYLOAD_BYTES_MAX + 1)))
            client.transport.sendto(wrapped("web", port, bytes(PAYLOAD_BYTES_MAX)))
            assert await client.heard.get() == wrapped(OVERLAY, port, bytes(PAYLOAD_BYTES_MAX))
            assert (counts.dropped, counts.refused, counts.too_long) == (3, 4, 1)
            assert server.heard.qsize() == 1
            client.transport.close()
        server.transport.close()

    run(scenario)


@pytest.mark.parametrize("is_told", [True, False])
def test_an_association_is_for_one_client_only(is_told: bool) -> None:
    async def scenario(world: World) -> None:
        server, port = await udp_server()
        async with world.client() as (reader, writer):
            client_port = free_port() if is_told else 0
            relay = await associated(reader, writer, client_port)
            loop = asyncio.get_running_loop()
            local = ("127.0.0.1", client_port)
            _, client = await loop.create_datagram_endpoint(
                lambda: Datagrams(is_server=False), local_addr=local, remote_addr=relay
            )
            if not is_told:  # Else the first datagram is nobody's claim.
                client.transport.sendto(wrapped("web", port, b"mine"))
                assert await client.heard.get() == wrapped(OVERLAY, port, b"MINE")
            thief = await udp_client(relay)
            thief.transport.sendto(wrapped("web", port, b"stolen"))
            while not world.home.flows.counts.dropped:  # noqa: ASYNC110 -- no event, bounded by run().
                await asyncio.sleep(0)
            client.transport.sendto(wrapped("web", port, b"again"))
            assert await client.heard.get() == wrapped(OVERLAY, port, b"AGAIN")
            assert b"stolen" not in [server.heard.get_nowait() for _ in range(server.heard.qsize())]
            for one in (client, thief):
                one.transport.close()
        server.transport.close()

    run(scenario)


def test_an_association_ends_with_its_connection_and_answers_after_it_are_dropped() -> None:
    async def scenario(world: World) -> None:
        server, port = await udp_server()
        async with world.client() as (reader, writer):
            relay = await associated(reader, writer)
            client = await udp_client(relay)
            client.transport.sendto(wrapped("web", port, b"x"))
            assert await client.heard.get()
            writer.write(b"what is said on the connection means nothing")
            client.transport.sendto(wrapped("web", port, b"y"))
            assert await client.heard.get() == wrapped(OVERLAY, port, b"Y")
            writer.write_eof()
            assert await reader.read(-1) == b""
            await world.until_idle()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(relay)  # Free again.
            client.transport.close()
        server.transport.close()

    run(scenario)


def test_a_program_on_this_machine_that_was_not_asked_cannot_answer() -> None:
    async def scenario(world: World) -> None:
        server, port = await udp_server()
        intruder, _ = await udp_server()
        async with world.client() as (reader, writer):
            client = await udp_client(await associated(reader, writer))
            client.transport.sendto(wrapped("home", port, b"x"))
            assert await client.heard.get() == wrapped(OWN, port, b"X")
            intruder.transport.sendto(b"forged", server.peer)
            server.transport.sendto(b"true", server.peer)
            assert await client.heard.get() == wrapped(OWN, port, b"true")
            assert world.home.flows.counts.dropped == 1
            client.transport.close()
        server.transport.close()
        intruder.transport.close()

    run(scenario)


def test_an_association_without_a_socket_is_a_coded_error() -> None:
    async def scenario(world: World) -> None:
        book = Book(GROUP, "lab", HOME, world.members)
        one = proxy_udp.Association(world.home.flows, lambda: book, 0, ("127.0.0.1", 0))
        with pytest.raises(UserError) as caught:
            await one.start("192.0.2.1")
        assert caught.value.code == "A404"
        one.close()

    run(scenario)


def test_targets_are_bounded_and_forgotten_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correspondence, "PROXY_TARGETS_MAX", 2)

    async def scenario(world: World) -> None:
        servers = [await udp_server() for _ in range(3)]
        flows = world.home.flows
        async with world.client() as (reader, writer):
            client = await udp_client(await associated(reader, writer))
            for _, port in servers:
                client.transport.sendto(wrapped("web", port, b"x"))
                assert await client.heard.get() == wrapped(OVERLAY, port, b"X")
            assert flows.asked_count == 2
            world.now += FLOW_IDLE_S + 1
            client.transport.sendto(wrapped("home", servers[0][1], b"y"))
            assert await client.heard.get() == wrapped(OWN, servers[0][1], b"Y")
            assert flows.asked_count == 0
            client.transport.close()
        for server, _ in servers:
            server.transport.close()

    run(scenario)
