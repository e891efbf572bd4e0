# SPDX-License-Identifier: Apache-2.0
"""Code between nodes: given once however often it is asked for, and nothing is left of what did not come."""

import asyncio
from collections.abc import Callable
from hashlib import sha256

import pytest

from atoll.base.errors import LinkError
from atoll.base.ids import NodeId
from atoll.domain import codes as codes_module
from atoll.domain.codes import Codes
from atoll.domain.recorder.messages import Code, Done, RefusedError
from atoll.env.limits import CODE_CHUNK_BYTES_MAX
from atoll.env.messages import CodeGiven, CodeWanted
from tests.unit.server_world import THREE, TWO, WAIT_S, Server

LARGE = bytes(CODE_CHUNK_BYTES_MAX)
DIGEST = sha256(LARGE).digest()


class Node(Server):
    """A recorder that has some code, and a server around it."""

    def __init__(self, *contents: bytes) -> None:
        super().__init__()
        self.kept = {sha256(content).digest(): content for content in contents}
        self.reads = 0
        self.is_lost = False
        self.codes = Codes(self)

    @property
    def recorder(self) -> "Node":
        return self

    async def read_code(self, digest: bytes) -> bytes:
        self.reads += 1
        if self.is_lost:
            raise LinkError("it is lost")
        if digest not in self.kept:
            raise RefusedError(Code.UNKNOWN, "no such code")
        return self.kept[digest]

    async def keep_code(self, digest: bytes, content: bytes) -> Done:
        if sha256(content).digest() != digest:
            raise RefusedError(Code.DIGEST, "not what was said")
        self.kept[digest] = content
        return Done(1)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - nothing tells of it.
                await asyncio.sleep(0)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is remembered."""
        codes = self.codes
        return not (codes._giving or codes._wanted or codes._watches)  # pyright: ignore[reportPrivateUsage]


def test_who_asks_again_and_again_is_given_it_once_and_others_are_given_it_too() -> None:
    async def body() -> None:
        node = Node(LARGE)
        for _ in range(300):
            node.codes.asked(TWO, DIGEST)
        await node.until(lambda: bool(node.said))
        for _ in range(300):
            node.codes.asked(TWO, DIGEST)
        node.codes.asked(THREE, DIGEST)
        await node.until(lambda: len(node.said) == 2)
        assert node.said == [(TWO, CodeGiven(DIGEST, LARGE)), (THREE, CodeGiven(DIGEST, LARGE))]
        assert node.reads == 2
        await node.stop()
        assert node.is_idle

    asyncio.run(body())


def test_one_follows_the_other_and_what_is_not_here_or_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes_module, "GIVEN_BYTES_PER_S", 1 << 40)

    async def body() -> None:
        node = Node(b"one", b"two", LARGE + b"more")
        for content in (b"one", b"none", LARGE + b"more", b"two"):
            node.codes.asked(TWO, sha256(content).digest())
        await node.until(lambda: node.is_idle)
        assert [message.content for _, message in node.said if isinstance(message, CodeGiven)] == [b"one", b"two"]
        node.codes.asked(TWO, sha256(b"one").digest())
        await node.until(lambda: len(node.said) == 3)
        await node.stop()

    asyncio.run(body())


def test_who_asks_for_too_much_is_not_given_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes_module, "GIVEN_BYTES_PER_S", 1 << 40)
    monkeypatch.setattr(codes_module, "GIVING_MAX", 3)

    async def body() -> None:
        contents = [bytes([number]) for number in range(9)]
        node = Node(*contents)
        for digest in node.kept:
            node.codes.asked(TWO, digest)
        await node.until(lambda: node.is_idle)
        assert len(node.said) == 3

    asyncio.run(body())


def test_who_gives_code_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes_module, "CODE_SHOWN_S", 0.001)

    async def body() -> None:
        node, digest = Node(b"code"), sha256(b"code").digest()
        assert await node.codes.shown(digest, (), 0)
        shown = asyncio.ensure_future(node.codes.shown(digest, (TWO, THREE), 2))
        await node.until(lambda: len(node.said) > 4)  # Asked until they have it.
        assert set(node.said) == {(TWO, CodeWanted(digest)), (THREE, CodeWanted(digest))}
        for content in (b"code", b"no code"):
            await node.codes.given(NodeId(b"four".ljust(10, b".")), digest, content)
        await node.codes.given(TWO, digest, b"code")
        await node.codes.given(THREE, digest, b"no code")
        node.said.clear()
        await node.until(lambda: bool(node.said))
        assert not shown.done()
        assert set(node.said) == {(THREE, CodeWanted(digest))}
        await node.codes.given(THREE, digest, b"code")
        assert await shown
        assert node.is_idle
        monkeypatch.setattr(codes_module, "CODE_S_MAX", 0.01)
        assert not await node.codes.shown(digest, (TWO,), 1)
        assert node.is_idle

    asyncio.run(body())


def test_what_is_here_is_not_asked_for() -> None:
    async def body() -> None:
        node = Node(b"code")
        await node.codes.fetch(sha256(b"code").digest(), [TWO])
        assert not node.said

    asyncio.run(body())


def test_what_comes_is_kept_if_it_was_asked_for_and_is_true() -> None:
    async def body() -> None:
        node, digest = Node(), sha256(b"code").digest()
        await node.codes.given(TWO, digest, b"code")
        assert not node.kept
        fetching = [asyncio.ensure_future(node.codes.fetch(digest, [TWO])) for _ in range(2)]
        await node.until(lambda: len(node.said) == 2)
        assert node.said == [(TWO, CodeWanted(digest))] * 2
        await node.codes.given(THREE, digest, b"code")
        await node.codes.given(TWO, digest, b"another")
        assert not node.kept
        await node.codes.given(TWO, digest, b"code")
        await node.codes.given(TWO, digest, b"code")
        await asyncio.gather(*fetching)
        assert node.kept == {digest: b"code"}
        assert node.is_idle

    asyncio.run(body())


def test_nothing_is_left_of_what_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes_module, "CODE_S_MAX", 0.02)
    monkeypatch.setattr(codes_module, "CODE_AGAIN_S", 0.01)

    async def body() -> None:
        node, digest = Node(), sha256(b"code").digest()
        with pytest.raises(TimeoutError):
            await node.codes.fetch(digest, [TWO])
        assert len(node.said) > 1
        assert node.is_idle
        await node.codes.given(TWO, digest, b"code")
        assert not node.kept
        node.is_lost = True
        with pytest.raises(LinkError):
            await node.codes.fetch(digest, [TWO])

    asyncio.run(body())
