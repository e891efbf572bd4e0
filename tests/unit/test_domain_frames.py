# SPDX-License-Identifier: Apache-2.0
"""Frames on a stream, with a real socket: any cut, nothing out of order, and an end to whoever does not read."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from struct import Struct

import pytest

from atoll.base.errors import WireError
from atoll.domain.frames import FrameConnection, Frames
from atoll.domain.limits import SERVER_FRAME_BYTES_MAX, UNREAD_BYTES_MAX

LENGTH = Struct("<I")
WAIT_S = 10.0


def run(test: "Callable[[End], Coroutine[None, None, None]]", *, told: bool = True) -> None:
    async def bounded() -> None:
        end = End(told=told)
        await asyncio.get_running_loop().create_connection(lambda: end.connection, sock=end.ours)
        try:
            async with asyncio.timeout(WAIT_S):
                await test(end)
        finally:
            end.other.close()
            end.connection.close()

    asyncio.run(bounded())


def frame(content: bytes) -> bytes:
    return LENGTH.pack(len(content)) + content


class End:
    """One end of a stream, and the other one as a bare socket."""

    def __init__(self, *, told: bool = True) -> None:
        self.came: list[bytes] = []
        self.made = self.ended = 0
        self.news = asyncio.Event()
        self.batches = 0
        everything = FrameConnection(self.take, self._made, self._lost, self._taken)
        self.connection = everything if told else FrameConnection(self.take)
        self.other, self.ours = socket.socketpair()
        self.other.setblocking(False)

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.other, data)

    async def hear(self, size: int) -> bytes:
        heard = b""
        while len(heard) < size:
            data = await asyncio.get_running_loop().sock_recv(self.other, size - len(heard))
            if not data:
                break
            heard += data
        return heard

    def take(self, connection: FrameConnection, content: bytes) -> None:
        assert connection is self.connection
        if content == b"wrong":
            raise WireError("wrong")
        self.came.append(content)
        self.news.set()

    def _taken(self) -> None:
        self.batches += 1

    def _made(self, connection: FrameConnection) -> None:
        assert connection is self.connection
        self.made += 1

    def _lost(self, connection: FrameConnection) -> None:
        assert connection is self.connection
        self.ended += 1
        self.news.set()

    async def until(self, count: int) -> None:
        while len(self.came) < count and not self.ended:
            self.news.clear()
            await self.news.wait()


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_frames_come_whole_however_they_are_cut(step: int) -> None:
    async def body(end: End) -> None:
        contents = [b"", b"one", b"x" * 300, b"last"]
        stream = b"".join(map(frame, contents))
        for at in range(0, len(stream), step):
            await end.say(stream[at : at + step])
        await end.until(4)
        assert end.came == contents
        assert end.made == 1
        end.other.close()
        await end.until(5)
        assert end.ended == 1

    run(body)


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_a_stream_is_cut_into_frames_wherever_it_was_cut_before(step: int) -> None:
    contents = [b"", b"one", b"x" * 300, b"last"]
    stream = b"".join(map(frame, contents))
    frames = Frames(300)
    came = [one for at in range(0, len(stream), step) for one in frames.feed(stream[at : at + step])]
    assert came == contents


def test_a_stream_with_a_frame_that_is_too_long_is_over() -> None:
    frames = Frames(3)
    assert [*frames.feed(frame(b"one"))] == [b"one"]
    came = frames.feed(frame(b"two") + LENGTH.pack(4))
    assert next(came) == b"two"
    with pytest.raises(WireError):
        next(came)


def test_what_was_not_taken_of_a_stream_comes_with_what_is_next() -> None:
    frames = Frames(3)
    came = frames.feed(frame(b"one") + frame(b"two"))
    assert next(came) == b"one"
    came.close()
    assert [*frames.feed(frame(b"six"))] == [b"two", b"six"]


def test_what_is_sent_leaves_together_and_in_order() -> None:
    async def body(end: End) -> None:
        FrameConnection(end.take).send(b"it is not open yet")
        for content in (b"one", b"", b"two"):
            end.connection.send(content)
        whole = frame(b"one") + frame(b"") + frame(b"two")
        assert await end.hear(len(whole)) == whole
        end.connection.send(b"last words")
        end.connection.close()
        assert await end.hear(100) == frame(b"last words")
        await end.until(1)
        end.connection.send(b"too late")
        end.connection.close()
        end.connection.pause(paused=True)

    run(body)


def test_frames_that_come_together_are_told_once() -> None:
    async def body(end: End) -> None:
        await end.say(frame(b"one") + frame(b"two") + frame(b"three"))
        await end.until(3)
        assert end.batches == 1

    run(body)


def test_what_is_hurried_is_there_before_the_turn_is_over() -> None:
    async def body(end: End) -> None:
        end.connection.send(b"now")
        end.connection.hurry()
        assert end.other.recv(100) == frame(b"now")

    run(body)


@pytest.mark.parametrize("wrong", [LENGTH.pack(SERVER_FRAME_BYTES_MAX + 1), frame(b"wrong") + frame(b"more")])
def test_nonsense_ends_the_connection(wrong: bytes) -> None:
    async def body(end: End) -> None:
        await end.say(frame(b"good") + wrong)
        await end.until(2)
        assert end.came == [b"good"]
        assert end.ended == 1

    run(body)


def test_whoever_does_not_read_is_cut_off() -> None:
    async def body(end: End) -> None:
        count = 0
        while not end.ended:
            end.connection.send(bytes(8_000_000))
            count += 1
            assert count < 20
            await asyncio.sleep(0)
        assert 8_000_000 * count > UNREAD_BYTES_MAX

    run(body)


def test_whoever_is_waited_for_is_not_cut_off_and_misses_what_may_be_lost() -> None:
    async def body(end: End) -> None:
        before = FrameConnection(end.take, is_patient=True)
        assert not before.offer(b"it is not open yet")
        ours, other = socket.socketpair()
        other.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: before, sock=ours)
        content = bytes(8_000_000)
        offered = [before.offer(content) for _ in range(2 * UNREAD_BYTES_MAX // len(content))]
        assert offered.count(True) == UNREAD_BYTES_MAX // len(content)
        await asyncio.sleep(0)
        before.send(content)
        before.send(content)
        sent = (offered.count(True) + 2) * (LENGTH.size + len(content))
        while sent:
            sent -= len(await asyncio.get_running_loop().sock_recv(other, 1 << 20))
        assert before.offer(b"there is room again")
        assert await asyncio.get_running_loop().sock_recv(other, 100) == frame(b"there is room again")
        before.close()
        other.close()

    run(body)


def test_a_connection_that_is_paused_reads_nothing_until_it_goes_on() -> None:
    async def body(end: End) -> None:
        end.connection.pause(paused=True)
        await end.say(frame(b"one"))
        await asyncio.sleep(0)
        assert not end.came
        end.connection.pause(paused=False)
        await end.until(1)
        assert end.came == [b"one"]
        end.connection.close()
        end.connection.pause(paused=False)

    run(body, told=False)


def test_an_end_without_anybody_to_tell_is_harmless() -> None:
    async def body(end: End) -> None:
        end.other.close()
        await asyncio.sleep(0)
        end.connection.send(b"nobody hears it")

    run(body, told=False)
