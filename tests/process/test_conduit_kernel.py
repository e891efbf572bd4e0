# SPDX-License-Identifier: Apache-2.0
"""Bytes between sockets of the kernel, and what is remembered of members; connections with them: tests/netns."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from errno import EADDRNOTAVAIL

import pytest

from atoll.base.errors import LinkError, UserError
from atoll.base.ids import GroupId, NodeId
from atoll.conduit import kernel
from atoll.conduit.kernel import InnerService, InnerTcp
from atoll.conduit.limits import INNER_ABSENT_S, INNER_AVOID_S, PUMP_BYTES_MAX
from atoll.conduit.opening import Opening
from atoll.conduit.pump import InnerConnection, Pump, hold_back, let_go, reset_socket, taken_over
from atoll.conduit.stack import allow_all
from atoll.conduit.stream import BrokenStreamError, Reason
from atoll.conduit.timing import Served, Timing

pytestmark = pytest.mark.process

GROUP = GroupId(bytes(32))
A, B = NodeId(b"A" * 10), NodeId(b"B" * 10)
WAIT_S = 10.0
LARGE = 5 * PUMP_BYTES_MAX + 1


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(WAIT_S):
            await scenario()

    asyncio.run(main())


def connected() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection, the first of which does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    server.settimeout(0)
    return server, client


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Pumped:
    """A program, the pump, and a member: ``program`` and ``member`` are asyncio's ends of the two connections."""

    far: InnerConnection
    task: asyncio.Task[None]
    program: Ends
    member: Ends

    @classmethod
    async def begin(cls, *, is_opener: bool = True, first: bytes = b"", timing: Timing | None = None) -> "Pumped":
        near, program = connected()
        inner, member = connected()
        far = InnerConnection(inner, B, is_opener=is_opener)
        task = asyncio.get_running_loop().create_task(Pump().splice(near, far, first, timing))
        ends = [await asyncio.open_connection(sock=end) for end in (program, member)]
        return cls(far, task, *ends)

    async def ended(self) -> None:
        await self.task
        for _, writer in (self.program, self.member):
            writer.close()
        assert self.far.socket.fileno() < 0


async def resets(reader: asyncio.StreamReader) -> bool:
    try:
        await reader.read(-1)
    except ConnectionResetError:
        return True
    return False


def test_every_byte_passes_both_ways_and_each_half_ends_by_itself() -> None:
    async def scenario() -> None:
        pumped = await Pumped.begin()
        sent = os.urandom(LARGE)
        pumped.program[1].write(sent)
        pumped.program[1].write_eof()
        assert await pumped.member[0].read(-1) == sent
        pumped.member[1].write(b"\0" + sent)  # The verdict first; the program does not see it.
        pumped.member[1].write_eof()
        assert await pumped.program[0].read(-1) == sent
        await pumped.ended()

    run(scenario)


def test_what_the_acceptor_says_first_goes_ahead() -> None:
    async def scenario() -> None:
        pumped = await Pumped.begin(is_opener=False, first=b"\0")
        pumped.member[1].write(b"question")
        assert await pumped.program[0].readexactly(8) == b"question"
        pumped.program[1].write(b"answer")
        assert await pumped.member[0].readexactly(7) == b"\0answer"
        for _, writer in (pumped.program, pumped.member):
            writer.write_eof()
        await pumped.ended()

    run(scenario)


def test_a_refusal_and_a_break_reset_the_other_side() -> None:
    async def scenario() -> None:
        pumped = await Pumped.begin()
        pumped.member[1].write(bytes((Reason.FORBIDDEN,)))
        assert await resets(pumped.program[0])
        await pumped.ended()

        pumped = await Pumped.begin()
        pumped.member[1].write(b"\0x")
        assert await pumped.program[0].readexactly(1) == b"x"
        pumped.far.break_off()
        assert await resets(pumped.program[0]), "what we break off does not look like an end"
        await pumped.ended()

    run(scenario)


def test_a_far_end_tells_verdicts_ends_and_breaks_apart() -> None:
    async def scenario() -> None:
        for said, reason in (
            (bytes((Reason.REFUSED,)), Reason.REFUSED),
            (b"\xee", Reason.RESET),
            (b"", Reason.RESET),
        ):
            ours, theirs = connected()
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
            far = InnerConnection(ours, B, is_opener=True)
            with pytest.raises(BrokenStreamError) as caught:
                await far.read(1)
            assert caught.value.reason is reason
            far.close()
            far.close()  # Harmless.
            theirs.close()

        ours, theirs = connected()
        far = InnerConnection(ours, B, is_opener=True)
        theirs.sendall(b"\0answer")
        theirs.shutdown(socket.SHUT_WR)
        await far.write(b"question")
        far.write_end()
        assert [await far.read(100), await far.read(100)] == [b"answer", b""]
        assert theirs.recv(100) == b"question"
        far.close()
        assert theirs.recv(100) == b"", "an orderly end, and no reset"
        theirs.close()

        ours, theirs = connected()
        far = InnerConnection(ours, B, is_opener=False)
        reading = asyncio.ensure_future(far.read(1))
        await asyncio.sleep(0)
        far.break_off()
        with pytest.raises(BrokenStreamError) as caught:
            await reading
        assert caught.value.reason is Reason.UNREACHABLE
        with pytest.raises(BrokenStreamError):
            await far.write(b"x")
        far.write_end()
        far.close()
        theirs.close()

    run(scenario)


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_connection_that_is_held_back_loses_nothing(is_taken: bool) -> None:
    async def scenario() -> None:
        accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hold_back(writer)
            accepted.put_nowait((reader, writer))

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        _, client = await asyncio.open_connection(host, port)
        client.write(b"early")
        await client.drain()
        reader, writer = await accepted.get()
        if is_taken:
            taken = taken_over(writer)
            assert await asyncio.get_running_loop().sock_recv(taken, 100) == b"early"
            reset_socket(taken)
            reset_socket(taken)
        else:
            let_go(writer)
            assert await reader.readexactly(5) == b"early"
            writer.close()
        client.close()
        server.close()

    run(scenario)


class Opener:
    """An opener whose members answer as a test says; there is no network behind it."""

    def __init__(self) -> None:
        self.now, self.asked = 0.0, 0
        self.answer: bytes | Exception | None = None
        self.has_network = True
        self.tcp = InnerTcp(GROUP, A, lambda: self.now)
        self.tcp.use(self.make, self.ask, lambda _: 1)

    async def make(self) -> socket.socket:
        if not self.has_network:
            raise UserError("A112", "forbidden")
        return socket.socket(socket.AF_INET6, socket.SOCK_STREAM)

    async def ask(self, node: NodeId) -> bytes | None:
        assert node == B
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_before_it_is_used_everything_goes_by_quic() -> None:
    async def scenario() -> None:
        tcp = InnerTcp(GROUP, A)
        tcp.expect(B)
        assert await tcp.open(B, 0, 80) is None
        await tcp.close()

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "hold_s"),
    [(None, INNER_ABSENT_S), (LinkError("no answer"), INNER_AVOID_S), (BrokenStreamError(Reason.LIMIT), INNER_AVOID_S)],
)
def test_a_member_that_takes_none_is_asked_again_later(answer: Exception | None, hold_s: float) -> None:
    async def scenario() -> None:
        opener = Opener()
        opener.answer = answer
        opener.tcp.expect(B)
        assert [await opener.tcp.open(B, tag, 80) for tag in range(3)] == [None] * 3
        assert opener.asked == 1
        opener.now += hold_s - 0.1
        opener.tcp.expect(B)
        assert await opener.tcp.open(B, 0, 80) is None
        assert opener.asked == 1
        opener.now += 0.1
        assert await opener.tcp.open(B, 0, 80) is None
        assert opener.asked == 2
        opener.tcp.forget(B)
        assert await opener.tcp.open(B, 0, 80) is None
        assert opener.asked == 3
        await opener.tcp.close()

    run(scenario)


def test_without_a_network_here_nobody_is_asked() -> None:
    async def scenario() -> None:
        opener = Opener()
        opener.has_network = False
        assert await opener.tcp.open(B, 0, 80) is None
        assert opener.asked == 0
        await opener.tcp.close()

    run(scenario)


def test_a_connection_that_does_not_come_about_goes_by_quic_for_a_while() -> None:
    async def scenario() -> None:
        opener = Opener()
        opener.answer = bytes(16)
        # No machine has our overlay address outside of a network that was made for it, so that binding fails.
        assert [await opener.tcp.open(B, 0, 80) for _ in range(2)] == [None, None]
        opener.now += INNER_AVOID_S
        assert await opener.tcp.open(B, 0, 80) is None
        assert opener.asked == 2
        await opener.tcp.close()
        assert await opener.tcp.open(B, 0, 80) is None

    run(scenario)


WORK_S = 0.3
WORK_NS_MIN = 250_000_000


def test_the_pump_tells_once_how_long_the_program_took_to_answer() -> None:
    async def scenario() -> None:
        told: list[Served] = []
        pumped = await Pumped.begin(is_opener=False, timing=Timing(B, 80, told.append))
        for part in (b"request", b"."):
            pumped.member[1].write(part)
            assert await pumped.program[0].readexactly(len(part)) == part
        await asyncio.sleep(WORK_S)
        assert [one.is_asked for one in told] == [True], "that it waits"
        pumped.program[1].write(b"answer")
        assert await pumped.member[0].readexactly(6) == b"answer"
        pumped.member[1].write(b"more")
        assert await pumped.program[0].readexactly(4) == b"more"
        pumped.program[1].write(b"more")
        for _, writer in (pumped.program, pumped.member):
            writer.write_eof()
        await pumped.ended()
        _, served = told
        assert served.first_byte_ns is not None
        assert served.first_byte_ns >= WORK_NS_MIN

    run(scenario)


def test_the_pump_tells_no_answer_of_a_program_that_ends_without_a_word() -> None:
    async def scenario() -> None:
        told: list[Served] = []
        pumped = await Pumped.begin(is_opener=False, timing=Timing(B, 80, told.append))
        pumped.member[1].write(b"request")
        for _, writer in (pumped.program, pumped.member):
            writer.write_eof()
        await pumped.ended()
        assert told
        assert all(one.is_asked and one.first_byte_ns is None for one in told)

    run(scenario)


KEY = bytes(16)
HERE = NodeId(bytes(9) + b"\x01")  # As which ::1 calls.


@dataclass
class Serving:
    """The serving side on the system's own loopback, which stands for the overlay's network; HERE is the caller."""

    inner: InnerService
    host: str
    port: int
    told: "asyncio.Queue[Served]"

    @classmethod
    async def begin(cls, monkeypatch: pytest.MonkeyPatch) -> "Serving":
        def here(_group: GroupId, _node: NodeId) -> bytes:
            return socket.inet_pton(socket.AF_INET6, "::1")

        monkeypatch.setattr(kernel, "packed_address_of", here)
        told: asyncio.Queue[Served] = asyncio.Queue()
        inner = InnerService(GROUP, allow_all, Pump(), told.put_nowait)
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
        listener.settimeout(0)
        host, port = listener.getsockname()[:2]
        await inner.serve(listener, lambda _: KEY)
        return cls(inner, host, port, told)

    async def call(self, port: int) -> Ends:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(Opening(port, 0, KEY).encode())
        return reader, writer


def test_the_serving_side_times_the_program_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(WORK_S)
        writer.write(b"welcome")
        await reader.read(1)
        writer.close()

    async def scenario() -> None:
        serving = await Serving.begin(monkeypatch)
        program = await asyncio.start_server(greets, "127.0.0.1", 0)
        port = int(program.sockets[0].getsockname()[1])
        reader, writer = await serving.call(port)
        assert await reader.readexactly(8) == b"\0welcome"
        first, second = await serving.told.get(), await serving.told.get()
        assert first == Served(HERE, first.number, port, first.connect_ns)
        assert first.connect_ns is not None
        assert second.first_byte_ns is not None
        assert second.first_byte_ns >= WORK_NS_MIN
        assert (second.caller, second.number, second.is_asked) == (HERE, first.number, False)
        writer.close()
        program.close()
        await serving.inner.close()

    run(scenario)


def test_the_serving_side_tells_of_a_program_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        serving = await Serving.begin(monkeypatch)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        reader, writer = await serving.call(port)
        assert await reader.read(1) == bytes((Reason.REFUSED,))
        told = await serving.told.get()
        assert told == Served(HERE, told.number, port, None, is_over=True)
        writer.close()
        await serving.inner.close()
        assert serving.told.empty()

    run(scenario)


def test_the_serving_side_tells_of_an_end_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async def scenario() -> None:
        serving = await Serving.begin(monkeypatch)
        program = await asyncio.start_server(leaves, "127.0.0.1", 0)
        port = int(program.sockets[0].getsockname()[1])
        reader, writer = await serving.call(port)
        writer.write(b"x")
        assert await reader.read(-1) == b"\0"
        writer.close()
        told = [await serving.told.get() for _ in range(3)]
        assert [(one.is_asked, one.is_over) for one in told] == [(False, False), (True, False), (True, True)]
        assert all(one.first_byte_ns is None for one in told)
        program.close()
        await serving.inner.close()
        assert serving.told.empty()

    run(scenario)


def test_for_lack_of_a_port_here_no_program_has_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        serving = await Serving.begin(monkeypatch)
        reader, writer = await serving.call(1)

        async def fails(*_: object) -> None:
            raise OSError(EADDRNOTAVAIL, "no port is left")

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", fails)
        assert await reader.read(1) == bytes((Reason.REFUSED,))
        writer.close()
        await serving.inner.close()
        assert serving.told.empty()

    run(scenario)
