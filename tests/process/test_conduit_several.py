# SPDX-License-Identifier: Apache-2.0
"""A forward to several members: whom each new connection goes to, what a refusal costs, and what stays where it is."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from atoll.base.ids import GroupId, NodeId
from atoll.conduit import forward
from atoll.conduit.pump import InnerConnection
from atoll.conduit.stack import Stack
from atoll.conduit.stream import Reason
from atoll.conduit.timing import Served

pytestmark = pytest.mark.process

GROUP = GroupId(bytes(32))
A, B, C = NodeId(b"A" * 10), NodeId(b"B" * 10), NodeId(b"C" * 10)
WAIT_S = 10.0
EARLY = b"sent before anybody said yes"


class Three:
    """Three stacks joined by the loop itself. A forwards; who serves a connection notes it in ``served``.

    Attributes:
        refusing: Members that forbid everything.
        cut: Members to which nothing gets through.
        slow: Members that a new connection tries last.
    """

    def __init__(self) -> None:
        self.served: list[NodeId] = []
        self.asked: list[NodeId] = []
        self.refusing: list[NodeId] = []
        self.cut: list[NodeId] = []
        self.slow: list[NodeId] = []
        self.stacks = {
            node: Stack(
                group=GROUP,
                own=node,
                send=partial(self._send, node),
                allow=partial(self._allow, node),
                timed=partial(self._timed, node),
            )
            for node in (A, B, C)
        }

    def order(self, nodes: tuple[NodeId, ...]) -> list[NodeId]:
        return sorted(nodes, key=lambda node: node in self.slow)

    def _send(self, source: NodeId, target: NodeId, _tag: int, packet: bytes) -> None:
        if source not in self.cut and target not in self.cut:
            asyncio.get_running_loop().call_soon(self.stacks[target].receive, source, packet)

    def _allow(self, own: NodeId, _node: NodeId, _protocol: str, _port: int) -> bool:
        self.asked.append(own)
        return own not in self.refusing

    def _timed(self, own: NodeId, served: Served) -> None:
        if served.connect_ns is not None and not (served.first_byte_ns or served.is_asked or served.is_over):
            self.served.append(own)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except (ConnectionError, asyncio.CancelledError):
        pass  # It was reset, or the scenario is over.
    writer.close()


def run(scenario: Callable[[Three, int], Awaitable[None]]) -> None:
    async def main() -> None:
        three = Three()
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        try:
            async with asyncio.timeout(WAIT_S):
                await scenario(three, int(server.sockets[0].getsockname()[1]))
        finally:
            for stack in three.stacks.values():
                await stack.close()
            server.close()

    asyncio.run(main())


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def started(three: Three, port: int, nodes: tuple[NodeId, ...] = (B, C)) -> tuple[forward.TcpForward, str, int]:
    made = three.stacks[A].tcp_forward(nodes, port, 0, three.order)
    return made, *await made.start("127.0.0.1", 0)


async def connect(host: str, local: int) -> Ends:
    """Connect, and send at once; what was sent comes back."""
    reader, writer = await asyncio.open_connection(host, local)
    writer.write(EARLY)
    assert await reader.readexactly(len(EARLY)) == EARLY
    return reader, writer


async def is_reset(host: str, local: int) -> bool:
    reader, writer = await asyncio.open_connection(host, local)
    try:
        await reader.read(1)
    except ConnectionResetError:
        return True
    finally:
        writer.close()
    return False


def test_new_connections_go_to_the_first_and_to_another_while_it_is_slow_and_what_stands_stays() -> None:
    async def scenario(three: Three, port: int) -> None:
        made, host, local = await started(three, port)
        ends = [await connect(host, local)]
        three.slow.append(B)
        ends.append(await connect(host, local))
        three.slow.append(C)  # Of two slow ones the one that was named first.
        ends.append(await connect(host, local))
        three.slow.clear()
        ends.append(await connect(host, local))
        assert three.served == [B, C, B, B]
        for reader, writer in ends:
            writer.write(b"still")
            assert await reader.readexactly(5) == b"still"
        assert made.connections == 4
        assert made.carrier == "quic"
        for _, writer in ends:
            writer.close()
        await made.close()

    run(scenario)


def test_from_one_that_refuses_a_connection_goes_to_the_next_and_no_byte_is_lost() -> None:
    async def scenario(three: Three, port: int) -> None:
        made, host, local = await started(three, port)
        three.refusing.append(B)
        _, writer = await connect(host, local)
        assert (three.asked, three.served) == ([B, C], [C])
        writer.close()
        three.refusing.append(C)
        three.asked.clear()
        assert await is_reset(host, local)
        assert three.asked == [B, C], "each is asked once"
        await made.close()

    run(scenario)


def test_from_one_that_does_not_answer_a_connection_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "TARGET_VERDICT_S", 0.1)

    async def scenario(three: Three, port: int) -> None:
        made, host, local = await started(three, port)
        three.cut.append(B)
        _, writer = await connect(host, local)
        assert three.served == [C]
        writer.close()
        await made.close()

    run(scenario)


def test_this_node_is_one_of_them_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(three: Three, port: int) -> None:
        made, host, local = await started(three, port, (A, B))
        _, first = await connect(host, local)
        assert (three.served, made.carrier) == ([], ""), "over its own loopback"
        monkeypatch.setattr(forward, "FORWARD_CONNECTIONS_MAX", 3)  # Which leaves no room for one more of its sockets.
        _, second = await connect(host, local)
        assert (three.served, made.carrier) == ([B], "quic")
        first.close()
        second.close()
        await made.close()

        with socket.create_server(("127.0.0.1", 0)) as probe:
            nobody = int(probe.getsockname()[1])
        made, host, local = await started(three, nobody, (A, B))
        assert await is_reset(host, local)
        await made.close()

    run(scenario)


def test_one_that_is_no_member_any_more_is_left_out_also_while_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "TARGET_VERDICT_S", 0.1)

    async def scenario(three: Three, port: int) -> None:
        made, host, local = await started(three, port, (B, C, A))
        three.cut.append(B)
        reader, writer = await asyncio.open_connection(host, local)
        writer.write(EARLY)
        while not made.connections:  # noqa: ASYNC110 - a condition without an event, bounded by the scenario's timeout.
            await asyncio.sleep(0)
        assert made.drop(C)
        assert made.drop(B)
        assert await reader.readexactly(len(EARLY)) == EARLY
        assert (made.nodes, three.asked) == ((A,), [])
        assert not made.drop(A)
        assert made.nodes == (A,), "a forward leads somewhere, to its end"
        writer.close()
        await made.close()

    run(scenario)


def test_by_the_kernels_tcp_nothing_is_read_before_the_yes_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernel TCP has no network here: connections of this machine's loopback stand for it."""

    async def scenario(three: Three, port: int) -> None:
        tried: list[NodeId] = []

        async def open_(node: NodeId, _tag: int, _port: int) -> InnerConnection:
            tried.append(node)
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ours = socket.create_connection(listener.getsockname())
                theirs, _ = listener.accept()
            ours.settimeout(0)
            if node == B:
                theirs.sendall(bytes((Reason.REFUSED,)))
                theirs.close()
            else:
                theirs.sendall(b"\0")
                reader, writer = await asyncio.open_connection(sock=theirs)
                serving.append(asyncio.ensure_future(echo(reader, writer)))
            return InnerConnection(ours, node, is_opener=True)

        serving: list[asyncio.Future[None]] = []
        monkeypatch.setattr(three.stacks[A].kernel, "open", open_)
        made, host, local = await started(three, port)
        _, writer = await connect(host, local)
        assert (tried, made.carrier) == ([B, C], "tcp")
        writer.close()
        await asyncio.gather(*serving)
        await made.close()

    run(scenario)
