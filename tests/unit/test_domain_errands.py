# SPDX-License-Identifier: Apache-2.0
"""Commands between nodes: each is done once and answered, whatever becomes of it, and nothing waits for ever."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from atoll.base.errors import LimitError, UserError
from atoll.base.ids import NodeId
from atoll.domain import errands as errands_module
from atoll.domain.errands import WORDS_CHARS_MAX, Errands, answer_of, explain
from atoll.domain.limits import ERRANDS_MAX
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.env.messages import Answered, Asked
from tests.unit.server_world import THREE, TWO, WAIT_S, Server


class Node(Server):
    """Does what it is asked when it may, and fails as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.failure: Exception | None = None
        self.may = asyncio.Event()
        self.errands = Errands(self)

    @property
    def commands(self) -> "Node":
        return self

    def check_asker(self, node: NodeId, verb: str, params: bytes) -> None:
        del params
        if node != TWO:
            raise UserError("A612", f"it may not {verb}", where="here", fix="do it there")

    async def obey(self, verb: str, params: bytes) -> bytes:
        self.done.append(verb)
        await self.may.wait()
        if self.failure is not None:
            raise self.failure
        return params

    def name_of(self, node: NodeId) -> str:
        return node.decode().rstrip(".")

    def stir(self) -> None:
        pass


def run(test: Callable[[Node], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        node = Node()
        try:
            async with asyncio.timeout(WAIT_S):
                await test(node)
        finally:
            await node.stop()

    asyncio.run(bounded())


def test_what_is_asked_again_and_again_is_done_once_and_answered_again() -> None:
    async def body(node: Node) -> None:
        for _ in range(3):
            node.errands.asked(TWO, Asked(7, "stop", b"{}"))
        node.may.set()
        await node.rest()
        assert node.said == [(TWO, Answered(7, b"{}"))]
        node.errands.asked(TWO, Asked(7, "stop", b"{}"))
        assert node.said == [(TWO, Answered(7, b"{}"))] * 2
        assert node.done == ["stop"]

    run(body)


@pytest.mark.parametrize(
    "failure", [LimitError("waiting", 1), TypeError("a bug"), RefusedError(Code.FULL, "path"), UserError("A607", "no")]
)
def test_whatever_becomes_of_it_it_is_answered(failure: Exception) -> None:
    async def body(node: Node) -> None:
        node.failure = failure
        node.may.set()
        node.errands.asked(TWO, Asked(7, "show", b"{}"))
        await node.rest()
        ((_, answered),) = node.said
        assert isinstance(answered, Answered)
        assert (answered.ok, answered.code) == (b"", explain(failure).code)

    run(body)


def test_who_may_not_is_told_so() -> None:
    async def body(node: Node) -> None:
        node.errands.asked(THREE, Asked(7, "stop", b"{}"))
        await node.rest()
        assert node.said == [(THREE, Answered(7, b"", "A612", "it may not stop", "here", "do it there"))]
        assert not node.done

    run(body)


def test_what_was_called_off_may_be_asked_for_once_more() -> None:
    async def body(node: Node) -> None:
        node.errands.asked(TWO, Asked(7, "move", b"{}"))
        await asyncio.sleep(0)
        await node.stop()
        assert not node.said
        node.may.set()
        node.errands.asked(TWO, Asked(7, "move", b"{}"))
        await node.rest()
        assert node.said == [(TWO, Answered(7, b"{}"))]

    run(body)


def test_a_node_has_only_so_much_done_at_a_time_and_so_many_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands_module, "ANSWERS_MAX", 2)

    async def body(node: Node) -> None:
        for number in range(ERRANDS_MAX + 1):
            node.errands.asked(TWO, Asked(number, "show", b"{}"))
        node.may.set()
        await node.rest()
        assert len(node.said) == len(node.done) == ERRANDS_MAX
        node.errands.asked(TWO, Asked(0, "show", b"{}"))
        await node.rest()
        assert len(node.done) == ERRANDS_MAX + 1, "its answer was forgotten, so it is done again"

    run(body)


def test_so_many_bytes_of_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands_module, "KEPT_ANSWERS_BYTES_MAX", 2_500)

    async def body(node: Node) -> None:
        node.may.set()
        for number in range(4):  # Of which two fit.
            node.errands.asked(TWO, Asked(number, "show", bytes(1_000)))
            await node.rest()
        for number in (3, 2):
            node.errands.asked(TWO, Asked(number, "show", b""))
        await node.rest()
        assert (len(node.done), len(node.said)) == (4, 6), "they are given again"
        node.errands.asked(TWO, Asked(9, "show", bytes(3_000)))
        await node.rest()
        node.errands.asked(TWO, Asked(9, "show", bytes(3_000)))
        assert (len(node.done), len(node.said)) == (5, 8), "the newest is kept however long it is"
        node.errands.asked(TWO, Asked(3, "show", b"{}"))
        await node.rest()
        assert len(node.done) == 6, "all others went for it"

    run(body)


def test_an_answer_counts_of_who_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(node: Node) -> None:
        asking = asyncio.ensure_future(node.errands.ask(TWO, "stop", b"{}"))
        await asyncio.sleep(0)
        ((_, asked),) = node.said
        assert isinstance(asked, Asked)
        node.errands.answered(THREE, Answered(asked.number, b"forged"))
        node.errands.answered(TWO, Answered(asked.number + 1, b"another"))
        node.errands.answered(TWO, Answered(asked.number, b"{}"))
        node.errands.answered(TWO, Answered(asked.number, b"late"))
        assert await asking == b"{}"
        asking = asyncio.ensure_future(node.errands.ask(TWO, "stop", b"{}"))
        await asyncio.sleep(0)
        node.errands.answered(TWO, Answered(asked.number + 1, b"", "A607", "no", "here", "mend it"))
        with pytest.raises(UserError) as caught:
            await asking
        assert (caught.value.code, caught.value.where, caught.value.fix) == ("A607", "here", "mend it")
        monkeypatch.setattr(errands_module, "COMMAND_S_MAX", 0.02)
        monkeypatch.setattr(errands_module, "ASK_AGAIN_S", 0.001)
        before = len(node.said)
        with pytest.raises(UserError, match="two did not answer"):
            await node.errands.ask(TWO, "stop", b"{}")
        assert len(node.said) > before + 1

    run(body)


@pytest.mark.parametrize(
    ("failure", "code", "where"),
    [
        (RefusedError(Code.FULL, "path"), "A102", "path"),
        (RefusedError(Code.IO, "path"), "A102", "path"),
        (RefusedError(Code.LIMIT, "environments"), "A499", ""),
        (LimitError("requests", 8), "A499", ""),
        (ValueError("odd"), "A499", "ValueError: odd"),
        (UserError("A607", "no", where="there"), "A607", "there"),
    ],
)
def test_each_failure_has_a_code_and_what_mends_it(failure: Exception, code: str, where: str) -> None:
    told = explain(failure)
    assert (told.code, told.where) == (code, where)
    assert told.fix or isinstance(failure, UserError)


def test_what_nobody_expected_is_told_in_a_few_words_and_what_is_too_long_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def gives(content: bytes) -> bytes:
        return content

    async def body(node: Node) -> None:
        del node
        assert len(explain(RuntimeError("x" * 100_000)).where) == WORDS_CHARS_MAX
        monkeypatch.setattr(errands_module, "COMMAND_BYTES_MAX", 3)
        assert await answer_of(gives(b"abc")) == b"abc"
        with pytest.raises(UserError) as caught:
            await answer_of(gives(b"abcd"))
        assert (caught.value.code, caught.value.fix.startswith("ask for less")) == ("A499", True)

    run(body)


def test_what_is_called_off_stays_so() -> None:
    async def body(node: Node) -> None:
        work: Any = asyncio.ensure_future(answer_of(node.obey("move", b"{}")))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    run(body)
