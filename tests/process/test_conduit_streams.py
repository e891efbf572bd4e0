# SPDX-License-Identifier: Apache-2.0
"""Streams between two hosts over a path with delay, loss and blackholes, on a loop whose clock jumps.

Nothing sleeps for real: when the loop has nothing to do, its time moves to the next timer.
"""

import asyncio
import contextlib
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import TypeVar

import pytest
from aioquic.quic.connection import QuicConnection

from atoll.base.errors import LimitError
from atoll.base.ids import GroupId, NodeId
from atoll.conduit.far import read_exactly
from atoll.conduit.limits import (
    ACCEPT_TIMEOUT_S,
    BUFFERED_BYTES_MAX,
    CONNECT_TIMEOUT_S,
    CONNECTIONS_PER_PEER_MAX,
    IDLE_TIMEOUT_S,
    STREAM_WINDOW_BYTES,
    STREAMS_MAX,
)
from atoll.conduit.packets import UdpPacket, parse
from atoll.conduit.stream import BrokenStreamError, Kind, Reason, Service, Stream
from atoll.conduit.streams import STREAM_PORT, UNKNOWN, StreamHost

GROUP = GroupId(bytes(32))
A, B = NodeId(b"A" * 10), NodeId(b"B" * 10)
ECHO = Service(Kind.ECHO)
TCP = Service(Kind.TCP, 80)
VIRTUAL_S_MAX = 1000.0
Result = TypeVar("Result")


class JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: where a real one would sleep, its clock moves on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("everything waits for something that never comes")
        if not ready and timeout is not None:
            self.now += max(timeout, 0)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumping = JumpingSelector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


def run(main: Coroutine[object, object, Result]) -> Result:
    async def bounded() -> Result:
        async with asyncio.timeout(VIRTUAL_S_MAX):  # Keep-alives alone would go on for ever.
            return await main

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(bounded())


class World:
    """Two hosts and the path between them."""

    def __init__(self, *, delay_s: float = 0.05, seed: int = 1) -> None:
        self.delay_s, self.loss, self.is_cut = delay_s, 0.0, False
        self.draws = Random(seed)
        self.port_of_a = 0
        self.loop = asyncio.get_running_loop()
        self.served: list[Service] = []
        self.serve: Callable[[Stream, Service], Awaitable[None]] = self.serve_echo
        self.a = self.host(A)
        self.b = self.host(B)

    def host(self, own: NodeId) -> StreamHost:
        return StreamHost(
            group=GROUP,
            own=own,
            send=lambda node, _tag, packet: self.carry(own, node, packet),
            serve=self.serve_one,
            clock=self.loop.time,
        )

    def carry(self, source: NodeId, target: NodeId, packet: bytes) -> None:
        if self.is_cut or self.draws.random() < self.loss:
            return
        parsed = parse(packet)
        assert isinstance(parsed, UdpPacket)
        if source == A:
            self.port_of_a = parsed.source_port
        host = self.a if target == A else self.b
        self.loop.call_later(self.delay_s, host.receive, source, parsed)

    async def serve_one(self, stream: Stream, service: Service) -> None:
        await self.serve(stream, service)

    async def serve_echo(self, stream: Stream, service: Service) -> None:
        self.served.append(service)
        stream.accept()
        while data := await stream.read(65536):
            await stream.write(data)
        stream.write_end()

    async def close(self) -> None:
        await self.a.close()
        await self.b.close()

    async def exchange(self, stream: Stream, data: bytes) -> float:
        """Send, wait for the echo, and return how long it took."""
        start = self.loop.time()
        await stream.write(data)
        assert await read_exactly(stream, len(data)) == data
        return self.loop.time() - start


async def send_all(stream: Stream, data: bytes) -> None:
    for start in range(0, len(data), 50_000):
        await stream.write(data[start : start + 50_000])
    stream.write_end()


async def read_all(stream: Stream) -> bytes:
    received = bytearray()
    while chunk := await stream.read(65536):
        received += chunk
    return bytes(received)


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.3])
def test_a_megabyte_arrives_whole_in_both_directions(loss: float) -> None:
    async def main() -> tuple[bytes, bytes, float]:
        world = World()
        world.loss = loss
        data = Random(7).randbytes(1_000_000 if loss < 0.1 else 100_000)
        stream = world.a.open(B, 0, ECHO)
        _, echoed = await asyncio.gather(send_all(stream, data), read_all(stream))
        stream.close()
        took = world.loop.time()
        await world.close()
        return data, echoed, took

    data, echoed, took = run(main())
    assert echoed == data
    assert took < (5 if loss == 0 else 300)


def test_a_first_exchange_needs_two_round_trips_and_the_next_stream_one() -> None:
    async def main() -> tuple[float, float]:
        world = World(delay_s=0.05)
        first = world.a.open(B, 0, ECHO)
        cold = await world.exchange(first, b"hello")
        second = world.a.open(B, 0, ECHO)
        warm = await world.exchange(second, b"hello")
        first.close()
        second.close()
        await world.close()
        return cold, warm

    cold, warm = run(main())
    assert cold == pytest.approx(0.2, abs=0.03)
    assert warm == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("outage_s", [0.3, 0.5, 3.0])
def test_after_a_change_of_path_an_exchange_ends_one_round_trip_after_the_nudge(outage_s: float) -> None:
    async def main(*, is_nudged: bool) -> float:
        world = World(delay_s=0.1)
        stream = world.a.open(B, 0, ECHO)
        for _ in range(5):
            await world.exchange(stream, b"x" * 500)
        world.is_cut = True
        exchange = asyncio.create_task(world.exchange(stream, b"y" * 500))
        await asyncio.sleep(outage_s)  # Virtual.
        world.is_cut, healed = False, world.loop.time()
        if is_nudged:
            world.a.nudge(B)
            world.b.nudge(A)
        await exchange
        took = world.loop.time() - healed
        stream.close()
        await world.close()
        return took

    nudged, left_alone = run(main(is_nudged=True)), run(main(is_nudged=False))
    assert nudged == pytest.approx(0.2, abs=0.02)
    assert nudged < left_alone


def test_the_answer_that_was_lost_comes_half_a_round_trip_after_the_nudge() -> None:
    async def main() -> float:
        world = World(delay_s=0.1)
        stream = world.a.open(B, 0, ECHO)
        await world.exchange(stream, b"x")
        sent = asyncio.create_task(world.exchange(stream, b"question"))
        await asyncio.sleep(0.09)  # Virtual: the question is on its way; its answer will be cut.
        world.is_cut = True
        await asyncio.sleep(1.0)
        world.is_cut, healed = False, world.loop.time()
        world.a.nudge(B)
        world.b.nudge(A)
        await sent
        stream.close()
        took = world.loop.time() - healed
        await world.close()
        return took

    assert run(main()) <= 0.22


def test_a_bulk_transfer_keeps_its_pace_across_a_blackhole() -> None:
    async def main(outage_s: float) -> float:
        world = World(delay_s=0.02)
        stream = world.a.open(B, 0, ECHO)
        await world.exchange(stream, b"x")
        data = Random(3).randbytes(1_000_000)
        start = world.loop.time()
        both = asyncio.gather(send_all(stream, data), read_all(stream))
        await asyncio.sleep(0.1)
        if outage_s:
            world.is_cut = True
            await asyncio.sleep(outage_s)
            world.is_cut = False
            world.a.nudge(B)
            world.b.nudge(A)
        _, echoed = await both
        assert echoed == data
        took = world.loop.time() - start
        stream.close()
        await world.close()
        return took

    assert run(main(0.5)) - run(main(0.0)) < 0.5 + 0.3


def test_a_refusal_reaches_the_opener_with_its_reason() -> None:
    async def refuse(stream: Stream, service: Service) -> None:
        stream.refuse(Reason.REFUSED)

    async def main() -> Reason:
        world = World()
        world.serve = refuse
        stream = world.a.open(B, 0, TCP)
        await stream.write(b"early bytes")
        with pytest.raises(BrokenStreamError) as caught:
            await stream.accepted()
        with pytest.raises(BrokenStreamError):
            await stream.read(1)
        stream.close()
        await world.close()
        return caught.value.reason

    assert run(main()) is Reason.REFUSED


def test_half_close_keeps_the_other_direction_open() -> None:
    async def serve(stream: Stream, service: Service) -> None:
        stream.accept()
        question = await read_all(stream)
        await stream.write(b"you said " + question)
        stream.write_end()

    async def main() -> bytes:
        world = World()
        world.serve = serve
        stream = world.a.open(B, 0, TCP)
        await stream.write(b"this")
        stream.write_end()
        answer = await read_all(stream)
        stream.close()
        await world.close()
        return answer

    assert run(main()) == b"you said this"


def test_a_reset_ends_both_directions_at_the_other_side() -> None:
    seen: list[Reason] = []

    async def serve(stream: Stream, service: Service) -> None:
        stream.accept()
        try:
            await read_all(stream)
        except BrokenStreamError as broken:
            seen.append(broken.reason)

    async def main() -> None:
        world = World()
        world.serve = serve
        stream = world.a.open(B, 0, TCP)
        await stream.accepted()
        stream.close()
        await asyncio.sleep(1)
        await world.close()

    run(main())
    assert seen == [Reason.RESET]


def test_a_slow_reader_stops_its_writer() -> None:
    async def serve(stream: Stream, service: Service) -> None:
        stream.accept()
        await asyncio.Event().wait()

    async def main() -> tuple[int, int]:
        world = World(delay_s=0.01)
        world.serve = serve
        stream = world.a.open(B, 0, TCP)
        written = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                while True:
                    await stream.write(bytes(50_000))
                    written += 50_000
        waiting = world.b.buffered_bytes
        stream.close()
        await world.close()
        assert world.b.buffered_bytes == 0
        return written, waiting

    written, waiting = run(main())
    assert waiting <= STREAM_WINDOW_BYTES
    assert STREAM_WINDOW_BYTES - 50_000 <= written <= STREAM_WINDOW_BYTES + 300_000


def test_a_reader_gets_more_than_one_window_and_the_account_ends_at_zero() -> None:
    async def main() -> tuple[int, int, int]:
        world = World(delay_s=0.01)
        size = 3 * STREAM_WINDOW_BYTES
        stream = world.a.open(B, 0, ECHO)
        _, echoed = await asyncio.gather(send_all(stream, bytes(size)), read_all(stream))
        await world.close()
        return len(echoed), world.a.buffered_bytes, world.b.buffered_bytes

    assert run(main()) == (3 * STREAM_WINDOW_BYTES, 0, 0)


def test_beyond_the_hosts_buffer_a_stream_is_reset() -> None:
    async def main() -> Reason:
        world = World(delay_s=0.01)
        stream = world.a.open(B, 0, ECHO)
        await world.exchange(stream, b"x")
        world.b.buffered_bytes += BUFFERED_BYTES_MAX
        with pytest.raises(BrokenStreamError) as caught:
            await world.exchange(stream, b"one too many")
        stream.close()
        world.b.buffered_bytes -= BUFFERED_BYTES_MAX
        await world.close()
        return caught.value.reason

    assert run(main()) is Reason.RESET


def test_an_unreachable_member_fails_in_bounded_time_and_can_be_tried_again() -> None:
    async def main() -> tuple[Reason, float]:
        world = World()
        world.is_cut = True
        stream = world.a.open(B, 0, ECHO)
        with pytest.raises(BrokenStreamError) as caught:
            await stream.read(1)
        took = world.loop.time()
        stream.close()
        assert world.a.connection_count == 0
        world.is_cut = False
        again = world.a.open(B, 0, ECHO)
        await world.exchange(again, b"back")
        again.close()
        await world.close()
        return caught.value.reason, took

    reason, took = run(main())
    assert reason is Reason.UNREACHABLE
    assert took == pytest.approx(CONNECT_TIMEOUT_S, abs=0.1)


def test_an_idle_connection_ends_but_one_with_a_silent_stream_does_not() -> None:
    async def main() -> None:
        world = World()
        kept = world.a.open(B, 1, ECHO)
        await world.exchange(kept, b"x")
        idle = world.a.open(B, 2, ECHO)
        await world.exchange(idle, b"x")
        idle.write_end()
        assert await idle.read(1) == b""
        assert (world.a.connection_count, world.b.connection_count) == (2, 2)
        await asyncio.sleep(3 * IDLE_TIMEOUT_S)
        assert (world.a.connection_count, world.b.connection_count) == (1, 1)
        await world.exchange(kept, b"still here")
        kept.close()
        await world.close()

    run(main())


def test_a_restarted_member_replaces_its_lost_connection() -> None:
    async def main() -> None:
        world = World()
        lost = world.a.open(B, 0, ECHO)
        await world.exchange(lost, b"x")
        world.a = world.host(A)  # The old one vanishes without a word.
        fresh = world.a.open(B, 0, ECHO)
        await world.exchange(fresh, b"y")
        assert world.b.connection_count == 1
        fresh.close()
        await world.close()

    run(main())


def test_a_stream_to_a_member_that_was_restarted_ends_at_once_and_the_next_one_works() -> None:
    async def main() -> None:
        world = World()
        stale = world.a.open(B, 0, ECHO)
        await world.exchange(stale, b"x")
        world.b = world.host(B)  # The old one vanishes without a word, and the new one opens nothing.
        await stale.write(b"is anybody there?")
        async with asyncio.timeout(2):
            with pytest.raises(BrokenStreamError):
                await stale.read(1)
        fresh = world.a.open(B, 0, ECHO)
        await world.exchange(fresh, b"y")
        world.a.receive(B, UdpPacket(bytes(16), bytes(16), 0, STREAM_PORT, 50_001, UNKNOWN))
        world.b.receive(A, UdpPacket(bytes(16), bytes(16), 0, world.port_of_a, STREAM_PORT, UNKNOWN))
        assert await world.exchange(fresh, b"z") < 0.2, "who accepted it ends nothing for that"
        fresh.close()
        await world.close()

    run(main())


def test_openings_beyond_the_limits_are_refused() -> None:
    async def main() -> None:
        world = World()
        streams = [world.a.open(B, 0, ECHO) for _ in range(STREAMS_MAX)]
        with pytest.raises(LimitError):
            world.a.open(B, 0, ECHO)
        for stream in streams:
            stream.close()
        for tag in range(CONNECTIONS_PER_PEER_MAX + 3):
            stream = world.a.open(B, tag, ECHO)
            await asyncio.wait([asyncio.create_task(world.exchange(stream, b"x"))], timeout=1)
        assert world.b.connection_count == CONNECTIONS_PER_PEER_MAX
        assert world.b.counts.refused > 0
        await world.close()

    run(main())


def test_garbage_opens_nothing_and_raises_nothing() -> None:
    async def main() -> None:
        world = World()
        draws = Random(11)
        stream = world.a.open(B, 0, ECHO)
        await world.exchange(stream, b"x")
        for size in [0, 1, 20, 1199, 1200, 1232]:
            for port in (STREAM_PORT, 50_000):
                world.b.receive(A, UdpPacket(bytes(16), bytes(16), 0, 50_001, port, draws.randbytes(size)))
        assert world.b.connection_count == 1
        assert world.b.counts.dropped == 12
        for size in (0, 1, 30, 1200):
            world.b.receive(A, UdpPacket(bytes(16), bytes(16), 0, world.port_of_a, STREAM_PORT, draws.randbytes(size)))
        assert await world.exchange(stream, b"still here") < 0.2
        stream.close()
        await world.close()

    run(main())


def test_a_stream_of_an_unknown_kind_is_refused() -> None:
    class Unknown(Service):
        def encode(self) -> bytes:
            return b"\x01\xee\x00\x00"

    async def main() -> Reason:
        world = World()
        stream = world.a.open(B, 0, Unknown(Kind.ECHO))
        with pytest.raises(BrokenStreamError) as caught:
            await stream.accepted()
        stream.close()
        await world.close()
        return caught.value.reason

    assert run(main()) is Reason.NO_SERVICE


def test_forgetting_a_member_fails_its_streams() -> None:
    async def main() -> Reason:
        world = World()
        stream = world.a.open(B, 0, ECHO)
        await world.exchange(stream, b"x")
        world.a.forget(B)
        with pytest.raises(BrokenStreamError) as caught:
            await stream.read(1)
        stream.close()
        assert world.a.connection_count == 0
        await world.close()
        return caught.value.reason

    assert run(main()) is Reason.UNREACHABLE


def test_a_nudge_also_revives_a_handshake() -> None:
    async def main() -> float:
        world = World(delay_s=0.05)
        world.is_cut = True
        stream = world.a.open(B, 0, ECHO)
        exchange = asyncio.create_task(world.exchange(stream, b"x"))
        await asyncio.sleep(1.6)
        world.is_cut, healed = False, world.loop.time()
        world.a.nudge(B)
        await exchange
        took = world.loop.time() - healed
        stream.close()
        await world.close()
        return took

    assert run(main()) < 0.23  # Two round trips, as without any outage.


def test_late_bytes_of_a_stream_that_was_given_up_do_not_open_it_again() -> None:
    async def serve(stream: Stream, service: Service) -> None:
        served.append(service)
        stream.accept()
        await read_exactly(stream, 100_000)  # By now many more are on their way.
        stream.close()

    served: list[Service] = []

    async def main() -> int:
        world = World(delay_s=0.1)
        world.serve = serve
        stream = world.a.open(B, 0, TCP)
        with pytest.raises(BrokenStreamError):
            await send_all(stream, b"\1" * 10_000_000)  # Any four of them could open a stream.
        stream.close()
        await asyncio.sleep(2)
        left = world.b.buffered_bytes
        await world.close()
        return left

    assert run(main()) == 0
    assert served == [TCP]


def test_a_bug_inside_the_library_ends_one_connection_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        world = World()
        stream = world.a.open(B, 0, ECHO)
        await world.exchange(stream, b"x")
        with monkeypatch.context() as patched:
            patched.setattr(QuicConnection, "receive_datagram", fail)  # aioquic's, not ours.
            with pytest.raises(BrokenStreamError):
                await world.exchange(stream, b"y")
        stream.close()
        assert world.a.counts.faults + world.b.counts.faults > 0
        again = world.a.open(B, 0, ECHO)
        await world.exchange(again, b"z")
        again.close()
        await world.close()

    run(main())


def test_an_opener_that_never_says_what_it_wants_is_given_up() -> None:
    class Silent(Service):
        def encode(self) -> bytes:
            return b"\x01"

    async def main() -> tuple[Reason, float]:
        world = World()
        stream = world.a.open(B, 0, Silent(Kind.ECHO))
        with pytest.raises(BrokenStreamError) as caught:
            await stream.accepted()
        stream.close()
        took = world.loop.time()
        await world.close()
        return caught.value.reason, took

    reason, took = run(main())
    assert reason is Reason.RESET
    assert took == pytest.approx(ACCEPT_TIMEOUT_S, abs=1)
