# SPDX-License-Identifier: Apache-2.0
"""The emulator's process with real sockets: delay, loss, blackhole and who is who, judged by counts and wide bounds."""

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from time import monotonic

import msgspec
import pytest

from atoll.base.errors import UsageError
from atoll.lab.emulator import COMMAND_BYTES_MAX, Answer, EmulatorClient

pytestmark = pytest.mark.process

WAIT_S = 10.0


class Node(asyncio.DatagramProtocol):
    """A program on a real port that keeps what it gets."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, bytes, tuple[str, int]]] = []
        self.transport: asyncio.DatagramTransport | None = None
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # Narrower on purpose: asyncio gives datagram protocols this kind.
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append((monotonic(), data, addr))
        self.changed.set()

    @property
    def port(self) -> int:
        assert self.transport is not None
        return int(self.transport.get_extra_info("sockname")[1])

    def send(self, data: bytes, face: tuple[str, int]) -> None:
        assert self.transport is not None
        self.transport.sendto(data, face)

    async def hears(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.heard) < count:
                self.changed.clear()
                await self.changed.wait()


class Lab:
    def __init__(self, client: EmulatorClient, nodes: dict[str, Node], faces: dict[str, tuple[str, int]]) -> None:
        self.client, self.nodes, self.faces = client, nodes, faces

    async def settled(self, offered: int) -> int:
        """Wait until the emulator has seen so many datagrams from a to b; return how many it delivered."""
        async with asyncio.timeout(WAIT_S):
            while True:
                answer = await self.client.counts()
                for count in answer.counts:
                    if (count.source, count.target) == ("a", "b") and count.offered >= offered:
                        return count.delivered


@asynccontextmanager
async def lab() -> AsyncGenerator[Lab]:
    loop = asyncio.get_running_loop()
    async with EmulatorClient.running(seed=7) as client:
        nodes: dict[str, Node] = {}
        faces: dict[str, tuple[str, int]] = {}
        for name in ("a", "b"):
            _, node = await loop.create_datagram_endpoint(Node, local_addr=("127.0.0.1", 0))
            nodes[name], faces[name] = node, await client.add_node(name, node.port)
        try:
            yield Lab(client, nodes, faces)
        finally:
            for node in nodes.values():
                assert node.transport is not None
                node.transport.close()


def run(scenario: Callable[[Lab], Awaitable[None]]) -> None:
    async def main() -> None:
        async with lab() as made:
            await scenario(made)

    asyncio.run(main())


def test_each_node_sees_the_other_at_its_face_after_the_delay() -> None:
    async def scenario(made: Lab) -> None:
        await made.client.set_link("a", "b", delay_us=40_000)
        sent = monotonic()
        made.nodes["a"].send(b"ping", made.faces["b"])
        await made.nodes["b"].hears(1)
        at, data, address = made.nodes["b"].heard[0]
        assert (data, address) == (b"ping", made.faces["a"])
        assert at - sent >= 0.040
        made.nodes["b"].send(b"pong", address)
        await made.nodes["a"].hears(1)
        at, data, address = made.nodes["a"].heard[0]
        assert (data, address) == (b"pong", made.faces["b"])
        assert at - sent >= 0.080

    run(scenario)


def test_two_thousand_packets_a_second_arrive_close_to_their_time() -> None:
    async def scenario(made: Lab) -> None:
        await made.client.set_link("a", "b", delay_us=20_000)
        sent: list[float] = []
        start = monotonic()
        while len(sent) < 1000:
            while len(sent) < min(1000, (monotonic() - start) * 2000):
                sent.append(monotonic())
                made.nodes["a"].send(len(sent).to_bytes(4), made.faces["b"])
            await asyncio.sleep(0)
        await made.nodes["b"].hears(1000)
        late = [at - sent[int.from_bytes(data) - 1] - 0.020 for at, data, _ in made.nodes["b"].heard]
        assert min(late) >= 0
        assert median(late) < 0.010  # Wide: a busy machine. Measured figures stand in the bench.

    run(scenario)


def test_loss_a_one_way_blackhole_and_mending() -> None:
    async def scenario(made: Lab) -> None:
        a, b, faces = made.nodes["a"], made.nodes["b"], made.faces
        await made.client.impair("a", "b", "lossy", loss=3000)
        for sent in range(1, 1001):
            a.send(b"x", faces["b"])
            if sent % 100 == 0:  # No more at a time than any kernel keeps for a busy reader.
                await b.hears(await made.settled(sent))
        assert 600 <= len(b.heard) <= 800
        await made.client.mend("lossy")

        cut_ns = await made.client.blackhole("a", "b", "cut", both=False)
        heard = len(b.heard)
        for _ in range(50):
            a.send(b"lost", faces["b"])
        b.send(b"other way", faces["a"])
        await a.hears(1)
        await made.settled(1050)
        assert len(b.heard) == heard

        assert await made.client.mend() > cut_ns
        a.send(b"back", faces["b"])
        async with asyncio.timeout(WAIT_S):
            while b.heard[-1][1] != b"back":
                b.changed.clear()
                await b.changed.wait()

    run(scenario)


def test_strangers_are_counted_and_mistakes_are_answered() -> None:
    async def scenario(made: Lab) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"who am I", made.faces["b"])
            async with asyncio.timeout(WAIT_S):
                while (await made.client.counts()).strangers == 0:
                    pass
        assert made.nodes["b"].heard == []
        with pytest.raises(UsageError, match="no link"):
            await made.client.set_link("a", "nowhere", delay_us=1)
        with pytest.raises(UsageError, match="share"):
            await made.client.impair("a", "b", "bad", loss=20_000)

    run(scenario)


def test_a_node_that_moves_to_another_port_keeps_its_face() -> None:
    async def scenario(made: Lab) -> None:
        _, moved = await asyncio.get_running_loop().create_datagram_endpoint(Node, local_addr=("127.0.0.1", 0))
        assert await made.client.add_node("b", moved.port) == made.faces["b"]
        made.nodes["a"].send(b"hello again", made.faces["b"])
        await moved.hears(1)
        assert made.nodes["b"].heard == []
        assert moved.transport is not None
        moved.transport.close()

    run(scenario)


class Commands:
    """The emulator's process, spoken to in lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, line: bytes) -> Answer:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line)
        async with asyncio.timeout(WAIT_S):
            return msgspec.json.decode(await self.process.stdout.readline(), type=Answer)


async def emulator_process(*arguments: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "atoll.lab.emulator_process", *arguments)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, bytes]:
    """Close the commands; return the exit status, and what was said on standard error."""
    async with asyncio.timeout(WAIT_S):
        _, said = await process.communicate(b"")
    return process.returncode, said


def test_a_wrong_line_is_answered_with_a_code_and_the_next_one_is_obeyed() -> None:
    async def scenario() -> None:
        process = await emulator_process("1")
        commands = Commands(process)
        padding = b"x" * (COMMAND_BYTES_MAX + 1)
        deep = b'{"type":"Count","more":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
        for line, expected in (
            (padding + b"\n", "more than"),
            (padding * 5 + b"\n", "more than"),
            (b"\n", "not a command"),
            (b"\xff\n", "not a command"),
            (deep + b"\n", "not a command"),
            (b'{"type":"AddNode","name":"a","port":70000}\n', "65535"),
            (b'{"type":"SetLink","source":"a","target":"b"}\n', "no link"),
        ):
            answer = await commands.ask(line)
            assert (answer.code, expected in answer.error) == ("A501", True), answer
        assert (await commands.ask(b'{"type":"AddNode","name":"a","port":4000}\n')).face is not None
        answer = await commands.ask(b'{"type":"AddNode","name":"b","port":4000}\n')
        assert (answer.code, answer.error) == ("A501", "port 4000 is that of 'a'")
        assert (await commands.ask(b'{"type":"Count"}\n')).error == ""
        assert await ended(process) == (0, b"")

    asyncio.run(scenario())


def test_commands_that_end_in_the_midst_of_a_line_end_the_emulator() -> None:
    async def scenario() -> None:
        process = await emulator_process()
        assert process.stdin is not None
        process.stdin.write(b"x" * (COMMAND_BYTES_MAX + 10))
        assert await ended(process) == (0, b"")

    asyncio.run(scenario())


def test_a_seed_that_is_no_number_is_a_coded_error() -> None:
    async def scenario() -> None:
        status, said = await ended(await emulator_process("many"))
        assert (status, said.startswith(b"error A501: 'many'")) == (2, True)
        assert b"Traceback" not in said

    asyncio.run(scenario())
