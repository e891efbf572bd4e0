# SPDX-License-Identifier: Apache-2.0
"""Forwards and echoes between two stacks, with real local sockets and a real program at each end."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from errno import EMFILE
from struct import pack
from time import monotonic, monotonic_ns

import pytest

from atoll.base.errors import UserError
from atoll.base.ids import GroupId, NodeId, packed_address_of
from atoll.conduit import forward, forward_udp
from atoll.conduit.forward_udp import FLOW_PORT, PAYLOAD_BYTES_MAX
from atoll.conduit.limits import FLOW_IDLE_S
from atoll.conduit.packets import UdpPacket, build_udp, parse
from atoll.conduit.stack import Stack, allow_all
from atoll.conduit.timing import Served

pytestmark = pytest.mark.process

GROUP = GroupId(bytes(32))
A, B, C = NodeId(b"A" * 10), NodeId(b"B" * 10), NodeId(b"C" * 10)
WAIT_S = 10.0


class Pair:
    """Two stacks joined by the loop itself."""

    def __init__(self, allow: Callable[[NodeId, str, int], bool] = allow_all) -> None:
        loop = asyncio.get_running_loop()
        self.is_cut = False

        self.last_of_a = b""

        def send_a(_node: NodeId, _tag: int, packet: bytes) -> None:
            self.last_of_a = packet
            if not self.is_cut:
                loop.call_soon(self.b.receive, A, packet)

        def send_b(_node: NodeId, _tag: int, packet: bytes) -> None:
            if not self.is_cut:
                loop.call_soon(self.a.receive, B, packet)

        self.now = 0.0
        self.a = Stack(group=GROUP, own=A, send=send_a, clock=self.clock)
        self.timed: asyncio.Queue[Served] = asyncio.Queue()
        self.b = Stack(group=GROUP, own=B, send=send_b, allow=allow, timed=self.timed.put_nowait, clock=self.clock)

    def clock(self) -> float:
        """Real time, and what a test adds to it."""
        return monotonic() + self.now

    async def close(self) -> None:
        await self.a.close()
        await self.b.close()


def run(scenario: Callable[[Pair], Awaitable[None]], allow: Callable[[NodeId, str, int], bool] = allow_all) -> None:
    async def main() -> None:
        pair = Pair(allow)
        try:
            async with asyncio.timeout(WAIT_S):
                await scenario(pair)
        finally:
            await pair.close()

    asyncio.run(main())


async def service(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> tuple[asyncio.Server, int]:
    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # The far end went away, which some scenarios are about; or the scenario is over.
        finally:
            writer.close()

    server = await asyncio.start_server(handled, "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_request_and_its_answer_with_half_close() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read(-1)
        writer.write(b"you sent %d bytes" % len(question))
        writer.close()

    async def scenario(pair: Pair) -> None:
        server, port = await service(handle)
        forward = pair.a.tcp_forward((B,), port, 0)
        host, local = await forward.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(host, local)
        writer.write(bytes(300_000))
        writer.write_eof()
        assert await reader.read(-1) == b"you sent 300000 bytes"
        writer.close()
        while forward.connections:  # noqa: ASYNC110 -- a condition without an event, bounded by the scenario's timeout.
            await asyncio.sleep(0)
        await forward.close()
        server.close()

    run(scenario)


def test_many_connections_at_once_do_not_mix() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def scenario(pair: Pair) -> None:
        server, port = await service(handle)
        forward = pair.a.tcp_forward((B,), port, 2)
        host, local = await forward.start("127.0.0.1", 0)

        async def one(number: int) -> bool:
            reader, writer = await asyncio.open_connection(host, local)
            data = bytes([number]) * (1000 * number + 1)
            writer.write(data)
            writer.write_eof()
            echoed = await reader.read(-1)
            writer.close()
            return echoed == data

        assert all(await asyncio.gather(*(one(number) for number in range(20))))
        await forward.close()
        server.close()

    run(scenario)


def test_a_refusal_at_the_far_end_resets_the_local_connection() -> None:
    async def scenario(pair: Pair) -> None:
        forward = pair.a.tcp_forward((B,), free_port(), 0)
        host, local = await forward.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(host, local)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
        await forward.close()

    run(scenario)


def test_a_port_that_policy_forbids_is_refused() -> None:
    asked: list[tuple[NodeId, str, int]] = []

    def allow(node: NodeId, protocol: str, port: int) -> bool:
        asked.append((node, protocol, port))
        return False

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("reached a forbidden port")

    async def scenario(pair: Pair) -> None:
        server, port = await service(handle)
        forward = pair.a.tcp_forward((B,), port, 0)
        host, local = await forward.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(host, local)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
        assert asked == [(A, "tcp", port)]
        await forward.close()
        server.close()

    run(scenario, allow)


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
            seen.put_nowait("end")
        except ConnectionResetError:
            seen.put_nowait("reset")
        writer.close()

    async def scenario(pair: Pair) -> None:
        server, port = await service(handle)
        forward = pair.a.tcp_forward((B,), port, 0)
        host, local = await forward.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(host, local)
        writer.write(b"R")
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
        reader, writer = await asyncio.open_connection(host, local)
        writer.write(b"x")
        assert await seen.get() == "begun"
        reset(writer)
        assert await seen.get() == "reset"
        await forward.close()
        server.close()

    run(scenario)


def test_a_taken_local_port_is_a_coded_error() -> None:
    async def scenario(pair: Pair) -> None:
        first = pair.a.tcp_forward((B,), 80, 0)
        host, local = await first.start("127.0.0.1", 0)
        with pytest.raises(UserError) as caught:
            await pair.a.tcp_forward((B,), 80, 0).start(host, local)
        assert caught.value.code == "A404"
        assert "in use" in caught.value.sentence
        with pytest.raises(UserError) as caught:
            await pair.a.tcp_forward((B,), 80, 0).start("192.0.2.1", 0)
        assert caught.value.code == "A404"
        await first.close()
        udp = pair.a.udp_forward(B, 80, 0)
        host, local = await udp.start("127.0.0.1", 0)
        with pytest.raises(UserError) as caught:
            await pair.a.udp_forward(B, 80, 0).start(host, local)
        assert caught.value.code == "A404"
        await udp.close()

    run(scenario)


class Datagrams(asyncio.DatagramProtocol):
    """A UDP program: keeps what comes, or answers it in capitals."""

    def __init__(self, *, is_server: bool) -> None:
        self.is_server = is_server
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # Narrower on purpose: asyncio gives datagram protocols this kind.
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.put_nowait(data)
        if self.is_server:
            self.transport.sendto(data.upper(), addr)


def test_datagrams_of_two_clients_come_back_to_each() -> None:
    async def scenario(pair: Pair) -> None:
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(lambda: Datagrams(is_server=True), local_addr=("127.0.0.1", 0))
        forward = pair.a.udp_forward(B, int(server.get_extra_info("sockname")[1]), 1)
        address = await forward.start("127.0.0.1", 0)
        clients: list[Datagrams] = []
        for _ in range(2):
            _, client = await loop.create_datagram_endpoint(lambda: Datagrams(is_server=False), remote_addr=address)
            clients.append(client)
        for text, client in zip((b"one", b"two"), clients, strict=True):
            client.transport.sendto(text)
        assert await clients[0].heard.get() == b"ONE"
        assert await clients[1].heard.get() == b"TWO"
        clients[0].transport.sendto(b"again")
        assert await clients[0].heard.get() == b"AGAIN"
        assert (forward.connections, pair.b.flows.served_count) == (2, 2)

        clients[0].transport.sendto(bytes(PAYLOAD_BYTES_MAX + 1))
        clients[0].transport.sendto(bytes(PAYLOAD_BYTES_MAX))
        assert len(await clients[0].heard.get()) == PAYLOAD_BYTES_MAX
        assert pair.a.flows.counts.too_long == 1

        for client in clients:
            client.transport.close()
        server.close()
        await forward.close()
        assert forward.connections == 0

    run(scenario)


def test_forged_and_forbidden_flows_are_counted_and_cost_nothing() -> None:
    async def scenario(pair: Pair) -> None:
        target = packed_address_of(GROUP, B)
        source = packed_address_of(GROUP, A)
        frames = [b"", b"\x01\x00", b"\x02\x00\x00\x50\x00\x00\x00\x01back", b"\x07\x00\x00\x50\x00\x00\x00\x01x"]
        for frame in [*frames, b"\x01\x00\x00\x00\x00\x00\x00\x01zero port"]:
            pair.b.receive(A, build_udp(UdpPacket(source, target, 0, FLOW_PORT, FLOW_PORT, frame)))
        assert pair.b.flows.counts.dropped == 5
        frame = b"\x01\x00\x00\x50\x00\x00\x00\x01to a forbidden port"
        pair.b.receive(A, build_udp(UdpPacket(source, target, 0, FLOW_PORT, FLOW_PORT, frame)))
        assert (pair.b.flows.counts.refused, pair.b.flows.served_count) == (1, 0)
        pair.b.receive(A, b"not a packet")
        assert pair.b.dropped == 1

    run(scenario, lambda _node, _protocol, _port: False)


def test_an_answer_from_another_member_than_asked_is_dropped() -> None:
    async def scenario(pair: Pair) -> None:
        server, port = await udp_server()
        made = pair.a.udp_forward(B, port, 0)
        client = await udp_client(await made.start("127.0.0.1", 0))
        client.transport.sendto(b"question")
        assert await client.heard.get() == b"QUESTION"
        asked = parse(pair.last_of_a)
        assert isinstance(asked, UdpPacket)
        forged = replace(asked, payload=b"\2" + asked.payload[1:8] + b"forged")
        pair.a.receive(C, build_udp(forged))
        assert pair.a.flows.counts.dropped == 1
        pair.a.receive(B, build_udp(forged))
        assert await client.heard.get() == b"forged"
        client.transport.close()
        server.transport.close()
        await made.close()

    run(scenario)


def test_an_echo_comes_back_and_a_lost_one_is_none() -> None:
    async def scenario(pair: Pair) -> None:
        rtt_s = await pair.a.echo(B, 0, timeout_s=WAIT_S)
        assert rtt_s is not None
        assert 0 <= rtt_s < 1
        pair.is_cut = True
        assert await pair.a.echo(B, 0, timeout_s=0.01) is None

    run(scenario)


async def udp_server() -> tuple[Datagrams, int]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: Datagrams(is_server=True), local_addr=("127.0.0.1", 0)
    )
    return server, int(transport.get_extra_info("sockname")[1])


async def udp_client(address: tuple[str, int]) -> Datagrams:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_datagram_endpoint(lambda: Datagrams(is_server=False), remote_addr=address)
    return client


def test_a_burst_from_a_new_client_arrives_whole() -> None:
    async def scenario(pair: Pair) -> None:
        server, port = await udp_server()
        made = pair.a.udp_forward(B, port, 0)
        client = await udp_client(await made.start("127.0.0.1", 0))
        for number in range(8):
            client.transport.sendto(b"%d" % number)
        assert [await server.heard.get() for _ in range(8)] == [b"%d" % number for number in range(8)]
        client.transport.close()
        server.transport.close()
        await made.close()

    run(scenario)


def test_flows_are_bounded_at_both_ends_and_forgotten_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_udp, "FLOWS_MAX", 3)
    monkeypatch.setattr(forward_udp, "FLOWS_PER_PEER_MAX", 5)

    async def scenario(pair: Pair) -> None:
        server, port = await udp_server()
        made = pair.a.udp_forward(B, port, 0)
        address = await made.start("127.0.0.1", 0)
        clients = [await udp_client(address) for _ in range(5)]
        for client in clients:
            client.transport.sendto(b"x")
            assert await client.heard.get() == b"X"
        assert (made.connections, pair.b.flows.served_count) == (3, 3)
        clients[0].transport.sendto(b"a new flow for an old client")
        assert await clients[0].heard.get() == b"A NEW FLOW FOR AN OLD CLIENT"

        pair.now += FLOW_IDLE_S + 1
        clients[1].transport.sendto(b"y")
        assert await clients[1].heard.get() == b"Y"
        assert (made.connections, pair.b.flows.served_count) == (1, 1)

        monkeypatch.setattr(forward_udp, "FLOWS_PER_PEER_MAX", 1)
        clients[2].transport.sendto(b"z")
        while pair.b.flows.counts.refused == 0:  # noqa: ASYNC110 -- a condition without an event, see run().
            await asyncio.sleep(0)
        for client in clients:
            client.transport.close()
        server.transport.close()
        await made.close()

    run(scenario)


def test_one_connection_more_than_a_forward_takes_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "FORWARD_CONNECTIONS_MAX", 1)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(1))
        await reader.read(1)

    async def scenario(pair: Pair) -> None:
        server, port = await service(handle)
        made = pair.a.tcp_forward((B,), port, 0)
        host, local = await made.start("127.0.0.1", 0)
        first, first_writer = await asyncio.open_connection(host, local)
        first_writer.write(b"x")
        assert await first.read(1) == b"x"
        second, second_writer = await asyncio.open_connection(host, local)
        with pytest.raises(ConnectionResetError):
            await second.read(1)
        second_writer.close()
        await made.close()  # Resets the one that is open.
        with pytest.raises(ConnectionResetError):
            await first.read(1)
        first_writer.close()
        await pair.close()
        server.close()

    run(scenario)


WORK_S = 0.3
WORK_NS_MIN = 250_000_000


async def works(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request, which ends with a full stop, after some work."""
    await reader.readuntil(b".")
    await asyncio.sleep(WORK_S)
    writer.write(b"answer")
    await reader.read()


async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak first, after some work."""
    await asyncio.sleep(WORK_S)
    writer.write(b"welcome")
    await reader.read()


@pytest.mark.parametrize(("program", "says"), [(works, b"request."), (greets, b"")])
def test_how_long_a_program_takes_to_answer_is_told_once(
    program: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], says: bytes
) -> None:
    async def scenario(pair: Pair) -> None:
        server, port = await service(program)
        made = pair.a.tcp_forward((B,), port, 0)
        reader, writer = await asyncio.open_connection(*await made.start("127.0.0.1", 0))
        writer.write(says)
        assert await reader.read(100)
        writer.write(b"and more.")
        writer.close()
        told = [await pair.timed.get() for _ in range(3 if says else 2)]
        first, last = told[0], told[-1]
        assert {(one.caller, one.number, one.port, one.connect_ns) for one in told} == {
            (A, first.number, port, first.connect_ns)
        }
        assert first.connect_ns is not None
        assert [one.is_asked for one in told] == [False, bool(says), bool(says)][: len(told)]
        assert [one.first_byte_ns for one in told[:-1]] == [None] * len(told[:-1])
        assert last.first_byte_ns is not None
        assert last.first_byte_ns >= WORK_NS_MIN
        await made.close()
        server.close()
        assert pair.timed.empty()

    run(scenario)


async def answer_of(pair: Pair) -> Served:
    while (told := await pair.timed.get()).first_byte_ns is None:
        pass
    return told


def test_a_client_that_takes_its_time_with_its_request_makes_no_wait_longer() -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b".")
        writer.write(b"answer")
        await reader.read()

    async def scenario(pair: Pair) -> None:
        server, port = await service(answers)
        made = pair.a.tcp_forward((B,), port, 0)
        reader, writer = await asyncio.open_connection(*await made.start("127.0.0.1", 0))
        writer.write(b"request")
        await asyncio.sleep(WORK_S)
        asked_ns = monotonic_ns()
        writer.write(b".")
        assert await reader.read(100) == b"answer"
        told = await answer_of(pair)
        assert told.first_byte_ns is not None
        assert told.first_byte_ns <= monotonic_ns() - asked_ns
        writer.close()
        await made.close()
        server.close()

    run(scenario)


def test_a_program_that_waits_for_the_end_of_a_request_is_timed_from_there() -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.write(b"answer")

    async def scenario(pair: Pair) -> None:
        server, port = await service(answers)
        made = pair.a.tcp_forward((B,), port, 0)
        reader, writer = await asyncio.open_connection(*await made.start("127.0.0.1", 0))
        writer.write(b"request")
        await asyncio.sleep(WORK_S)
        asked_ns = monotonic_ns()
        writer.write_eof()
        assert await reader.read(-1) == b"answer"
        told = await answer_of(pair)
        assert told.first_byte_ns is not None
        assert told.first_byte_ns <= monotonic_ns() - asked_ns
        writer.close()
        await made.close()
        server.close()

    run(scenario)


def test_a_program_that_was_not_asked_for_lack_of_a_file_has_not_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(pair: Pair) -> None:
        made = pair.a.tcp_forward((B,), free_port(), 0)
        reader, writer = await asyncio.open_connection(*await made.start("127.0.0.1", 0))

        async def fails(*_: object, **__: object) -> None:
            raise OSError(EMFILE, "no file is left")

        monkeypatch.setattr(asyncio, "open_connection", fails)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
        await made.close()
        assert pair.timed.empty()

    run(scenario)


def test_a_program_that_refuses_is_told_of_and_so_is_the_end_of_one_that_says_nothing() -> None:
    async def leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def scenario(pair: Pair) -> None:
        made = pair.a.tcp_forward((B,), free_port(), 0)
        reader, writer = await asyncio.open_connection(*await made.start("127.0.0.1", 0))
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        refused = await pair.timed.get()
        assert refused == Served(A, refused.number, made.port, None, is_over=True)
        writer.close()
        await made.close()

        server, port = await service(leaves)
        made = pair.a.tcp_forward((B,), port, 0)
        reader, writer = await asyncio.open_connection(*await made.start("127.0.0.1", 0))
        writer.write(b"x")
        assert await reader.read(1) == b""
        told = [await pair.timed.get() for _ in range(3)]
        assert all(one.connect_ns is not None and one.first_byte_ns is None for one in told)
        assert [(one.is_asked, one.is_over) for one in told] == [(False, False), (True, False), (True, True)]
        writer.close()
        await made.close()
        server.close()
        assert pair.timed.empty()

    run(scenario)
