# SPDX-License-Identifier: Apache-2.0
"""Writing in the background, with real threads: one at a time, the newest wins, and the loop goes on meanwhile."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from atoll.base.errors import StorageError
from atoll.host.writer import NewestWriter

pytestmark = pytest.mark.process

WAIT_S = 20.0


class Gate:
    """A disk that writes when the test lets it."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.written: list[bytes] = []
        self.at_once = self.at_once_max = 0

    def write(self, content: bytes) -> None:
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        self.begun.release()
        assert self.let.acquire(timeout=WAIT_S)
        self.at_once -= 1
        if content == b"refused":
            raise StorageError("no room")
        if content == b"bug":
            raise ZeroDivisionError
        self.written.append(content)

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=WAIT_S)


class Outcomes:
    """What the writer told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[bytes, str]] = []

    def of(self, content: bytes) -> Callable[[StorageError | None], None]:
        return partial(self._tell, content)

    def _tell(self, content: bytes, refused: StorageError | None) -> None:
        self.told.append((content, str(refused or "")))


def run(test: Callable[[Gate, NewestWriter[bytes], Outcomes], Awaitable[None]]) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with asyncio.timeout(WAIT_S):
            await test(gate, NewestWriter(gate.write), Outcomes())
        assert gate.at_once_max <= 1

    asyncio.run(scenario())


def test_the_newest_of_what_waits_is_written_and_one_at_a_time() -> None:
    async def scenario(gate: Gate, writer: NewestWriter[bytes], outcomes: Outcomes) -> None:
        for content in (b"1", b"2", b"3"):
            writer.put(content, outcomes.of(content))
        await gate.until_begun()
        assert outcomes.told == [], "the loop goes on, and nothing is called written that is not"
        writer.put(b"4", outcomes.of(b"4"))
        settled = asyncio.create_task(writer.settled())
        gate.let.release()
        await gate.until_begun()
        assert outcomes.told == [(b"1", "")]
        assert not settled.done()
        gate.let.release()
        await settled
        assert gate.written == [b"1", b"4"]
        assert outcomes.told == [(b"1", ""), (b"4", "")]

    run(scenario)


def test_a_refusal_is_told_and_the_next_content_is_tried() -> None:
    async def scenario(gate: Gate, writer: NewestWriter[bytes], outcomes: Outcomes) -> None:
        gate.let.release(2)
        writer.put(b"refused", outcomes.of(b"refused"))
        await gate.until_begun()
        writer.put(b"1", outcomes.of(b"1"))
        await writer.settled()
        assert outcomes.told == [(b"refused", "no room"), (b"1", "")]
        assert gate.written == [b"1"]

    run(scenario)


def test_an_outcome_may_want_the_next_content() -> None:
    async def scenario(gate: Gate, writer: NewestWriter[bytes], outcomes: Outcomes) -> None:
        gate.let.release(2)
        writer.put(b"1", lambda _: writer.put(b"2", outcomes.of(b"2")))
        await writer.settled()
        assert gate.written == [b"1", b"2"]
        assert outcomes.told == [(b"2", "")]

    run(scenario)


def test_nothing_to_write_is_settled() -> None:
    async def scenario(gate: Gate, writer: NewestWriter[bytes], outcomes: Outcomes) -> None:
        await writer.settled()
        assert gate.written == []

    run(scenario)


def test_a_bug_in_the_writing_reaches_the_supervisor_and_is_no_refusal() -> None:
    async def scenario(gate: Gate, writer: NewestWriter[bytes], outcomes: Outcomes) -> None:
        seen: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        gate.let.release()
        writer.put(b"bug", outcomes.of(b"bug"))
        await writer.settled()
        assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]
        assert outcomes.told == []

    run(scenario)
