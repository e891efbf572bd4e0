# SPDX-License-Identifier: Apache-2.0
"""``atoll why A B`` about a path that starts at another member: asked over a stream, answered in that member's word."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import partial
from time import monotonic

import msgspec
import pytest

from atoll.base.errors import UserError
from atoll.base.ids import GroupId, NodeId
from atoll.conduit.stack import Stack
from atoll.conduit.stream import Kind, Service, Stream
from atoll.node.api import call
from atoll.node.asking import (
    ANSWER_BYTES_MAX,
    ASK_TIMEOUT_S,
    QUESTIONS_MAX,
    QUESTIONS_S,
    Answer,
    Answerer,
    Asked,
    Doors,
    Failure,
    ask_health,
    ask_why,
)
from atoll.node.state import SOCKET_NAME
from atoll.node.views import AilmentView, CanView, HealthView, WhyView
from tests.process.node_world import Box, nodes, until

pytestmark = pytest.mark.process

GROUP = GroupId(bytes(32))
A, B, C = (NodeId(letter * 10) for letter in (b"A", b"B", b"C"))
ASKED = Asked(source="bee", target=C, target_name="sea", tag="loss", standing="it is ok: direct")
WHY = WhyView(
    source="x",
    target="y",
    tag="z",
    path=("bee", "sea"),
    since_s=1.0,
    because="direct ok",
    candidates=(),
    history=(),
    next="nothing",
    told_by="an impostor",
)
FAULT = AilmentView(component="disk", state="slow", since_s=9, slower_percent=10_000)
WAIT_S = 20.0


class Pair:
    """Two members' stacks, joined by the loop itself; B answers questions."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.is_cut = False
        self.now = 0.0
        self.members = {A, B, C}
        self.explained: list[tuple[NodeId, str]] = []
        self.told: list[tuple[NodeId, int]] = []
        self.health = HealthView(disk_us=900, ailments=(FAULT,), wall_ms=1_800_000_000_000)
        self.answer: WhyView | Failure = WHY
        self.keys: dict[NodeId, bytes] = {}

        def carry(source: NodeId, _node: NodeId, _tag: int, packet: bytes) -> None:
            if not self.is_cut:
                loop.call_soon((self.b if source == A else self.a).receive, source, packet)

        self.a = Stack(group=GROUP, own=A, send=partial(carry, A))
        self.b = Stack(group=GROUP, own=B, send=partial(carry, B))
        answerer = Answerer(
            self.members.__contains__, Doors(self.explain, self.permit, self.offer, self.tell), lambda: self.now
        )
        self.b.answer(Kind.QUESTION, answerer.serve)

    async def offer(self, node: NodeId) -> bytes | None:
        return self.keys.get(node)

    def permit(self, source: NodeId, protocol: str, port: int) -> CanView | Failure:
        del source, protocol, port
        return Failure("question")

    async def explain(self, target: NodeId, tag: str) -> WhyView | Failure:
        self.explained.append((target, tag))
        return self.answer

    async def tell(self, asker: NodeId, port: int) -> HealthView:
        self.told.append((asker, port))
        return self.health

    async def ask(self) -> WhyView:
        return await ask_why(self.a.streams, B, ASKED)

    async def refused(self) -> UserError:
        with pytest.raises(UserError) as caught:
            await self.ask()
        return caught.value


def run(scenario: Callable[[Pair], Awaitable[None]]) -> None:
    async def main() -> None:
        pair = Pair()
        try:
            async with asyncio.timeout(WAIT_S):
                await scenario(pair)
        finally:
            await pair.a.close()
            await pair.b.close()

    asyncio.run(main())


def test_the_answer_is_marked_and_speaks_of_what_was_asked() -> None:
    async def scenario(pair: Pair) -> None:
        told = await pair.ask()
        assert pair.explained == [(C, "loss")]
        assert (told.source, told.target, told.tag, told.told_by) == ("bee", "sea", "loss", "bee")
        assert (told.path, told.because) == (("bee", "sea"), "direct ok")

    run(scenario)


@pytest.mark.parametrize(("failure", "code"), [("path", "A406"), ("target", "A210"), ("question", "A208")])
def test_a_member_that_cannot_tell_says_so(failure: str, code: str) -> None:
    async def scenario(pair: Pair) -> None:
        pair.answer = Failure(failure)
        assert (await pair.refused()).code == code

    run(scenario)


def test_who_is_no_member_is_told_nothing() -> None:
    async def scenario(pair: Pair) -> None:
        pair.members.remove(A)
        refused = await pair.refused()
        assert (refused.code, refused.sentence) == ("A405", "bee refused to answer")
        assert pair.explained == []

    run(scenario)


def test_who_asks_too_often_waits_a_second() -> None:
    async def scenario(pair: Pair) -> None:
        for _ in range(QUESTIONS_MAX):
            await pair.ask()
        refused = await pair.refused()
        assert (refused.code, refused.where) == ("A405", "this node asked too often")
        assert len(pair.explained) == QUESTIONS_MAX
        pair.now += QUESTIONS_S
        await pair.ask()

    run(scenario)


def test_an_older_member_is_named_as_such() -> None:
    async def scenario(pair: Pair) -> None:
        pair.b = Stack(group=GROUP, own=B, send=lambda _node, _tag, packet: pair.a.receive(B, packet))
        refused = await pair.refused()
        assert (refused.code, refused.fix) == ("A208", "upgrade atoll there; or on bee run:  atoll why sea")

    run(scenario)


def test_a_member_that_is_silent_is_waited_for_only_so_long() -> None:
    async def scenario(pair: Pair) -> None:
        pair.is_cut = True
        began = monotonic()
        refused = await pair.refused()
        assert monotonic() - began < ASK_TIMEOUT_S + 2
        assert (refused.code, refused.where) == ("A406", "waited at most 5 s; it is ok: direct")

    run(scenario)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (msgspec.json.encode(Answer(why=msgspec.structs.replace(WHY, because="\x1b[2J"))), "A208"),
        (b'{"why":{}}', "A208"),
        (bytes(ANSWER_BYTES_MAX + 1), "A208"),
        (None, "A406"),
    ],
)
def test_what_a_hostile_member_says_is_a_coded_error(said: bytes | None, code: str) -> None:
    async def lie(stream: Stream, _: Service) -> None:
        stream.accept()
        if said is None:
            stream.close()
            return
        await stream.write(said)
        stream.write_end()
        while await stream.read(1024):
            pass

    async def scenario(pair: Pair) -> None:
        pair.b.answer(Kind.QUESTION, lie)
        assert (await pair.refused()).code == code

    run(scenario)


def test_a_question_without_end_is_cut_and_harms_nobody() -> None:
    async def scenario(pair: Pair) -> None:
        endless = Asked(source="bee", target=NodeId(bytes(4000)), target_name="sea", tag="loss", standing="")
        with pytest.raises(UserError):
            await ask_why(pair.a.streams, B, endless)
        assert pair.explained == []
        await pair.ask()

    run(scenario)


# Real nodes.


@pytest.fixture(scope="module")
def group() -> Generator[Mapping[str, Box]]:
    with nodes() as world:
        boxes = world.group("one", "two", "three")
        yield {box.name: box for box in boxes}


def test_why_between_two_others_is_told_by_the_first(group: Mapping[str, Box]) -> None:
    said = group["one"].run("why", "two", "three", "--json", "--tag", "loss")
    assert said.status == 0, said.err
    view = msgspec.json.decode(said.out, type=WhyView)
    assert (view.source, view.target, view.tag, view.told_by) == ("two", "three", "loss", "two")
    assert view.path == ("two", "three")
    assert {way.via for way in view.candidates} == {None, "one"}
    assert next(way for way in view.candidates if way.chosen).rtt_ms is not None
    text = group["one"].run("why", "two", "three").out
    assert text.startswith("Told by   two: its own word")
    assert "\nPath      two -> three " in text


def test_another_member_says_nothing_of_a_port_and_connects_to_none(group: Mapping[str, Box]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.0)
        port = listener.getsockname()[1]
        view = WHY
        while view.diagnosis is None:  # Other tests asked it much.
            said = group["one"].run("why", "two", f"three:{port}", "--json")
            view = msgspec.json.decode(said.out, type=WhyView) if said.status == 0 else WHY
        assert f"port {port} of three: ask on two: atoll why three:{port}" in view.diagnosis.unknown
        assert not any(str(port) in text for text in view.diagnosis.not_it)
        with pytest.raises(BlockingIOError):
            listener.accept()
        view = msgspec.json.decode(group["one"].run("why", f"three:{port}", "--json").out, type=WhyView)
        assert view.diagnosis is not None
        assert any(str(port) in text for text in view.diagnosis.not_it), "who may reach it itself is told"
        listener.accept()[0].close()


def test_whoever_asks_a_member_much_gets_paths_and_no_more_work_out_of_it(group: Mapping[str, Box]) -> None:
    async def main() -> list[WhyView]:
        async def ask(tag: str) -> WhyView:
            params = {"source": "two", "target": "one", "tag": tag}
            return msgspec.json.decode(await call(group["three"].state / SOCKET_NAME, "why", params), type=WhyView)

        return await asyncio.gather(*(ask(tag) for tag in ("throughput", "loss")))

    views = asyncio.run(main())
    assert sum(view.diagnosis is not None for view in views) <= 1
    assert all(view.path for view in views)


def test_why_from_another_member_to_here_is_told_by_it(group: Mapping[str, Box]) -> None:
    said = group["three"].run("why", "one", "three", "--json")
    view = msgspec.json.decode(said.out, type=WhyView)
    assert (view.source, view.target, view.told_by, view.path) == ("one", "three", "one", ("one", "three"))


def test_what_a_node_knows_itself_is_told_by_nobody(group: Mapping[str, Box]) -> None:
    for arguments in (("two",), ("one", "two")):
        said = group["one"].run("why", *arguments, "--json")
        assert json.loads(said.out)["told_by"] is None
        assert "Told by" not in group["one"].run("why", *arguments).out


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("nobody", "two"), "A210", 1),
        (("two", "nobody"), "A210", 1),
        (("one", "nobody"), "A210", 1),
        (("one",), "A212", 2),
        (("one", "one"), "A212", 2),
        (("two", "two"), "A212", 2),
    ],
)
def test_names_that_make_no_path_are_coded_errors(
    group: Mapping[str, Box], arguments: tuple[str, ...], code: str, status: int
) -> None:
    said = group["one"].run("why", *arguments)
    assert (said.code, said.status, said.out) == (code, status, "")
    assert said.field("where").startswith("other members: three, two")
    assert said.field("fix")


def test_a_member_that_is_gone_is_named_in_bounded_time(group: Mapping[str, Box]) -> None:
    group["three"].kill()
    until(lambda: group["one"].peers()["three"].state == "away", "one notices that three is gone")
    began = monotonic()
    said = group["one"].run("why", "three", "two")
    assert (said.code, said.status) == ("A406", 5)
    assert monotonic() - began < ASK_TIMEOUT_S + 5
    assert "it is away" in said.field("where")
    assert "on three run:  atoll why two" in said.field("fix")


def test_a_member_says_how_it_is_and_nothing_where_it_does_not_know_the_question() -> None:
    async def scenario(pair: Pair) -> None:
        assert await ask_health(pair.a.streams, B, 8080) == pair.health
        assert pair.told == [(A, 8080)]
        pair.members.discard(A)
        assert await ask_health(pair.a.streams, B) is None

    run(scenario)
