# SPDX-License-Identifier: Apache-2.0
"""Environments as programs and people outside reach them: the Python interface and ``atoll env call`` and ``send``."""

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

import atoll
from atoll.base.errors import LimitError, UserError
from atoll.cli.app import run
from atoll.client import Group
from atoll.client.environments import Desk
from atoll.domain.frames import FrameConnection
from atoll.domain.messages import DOOR_NAME, Find, Found, Hello, ServerMessage, Welcome, client_codec, server_codec
from atoll.env.limits import NESTING_MAX, TUPLE_BYTES_MAX
from atoll.env.messages import FORGOTTEN, Carried, Receipt, Refusal
from atoll.env.parties import PARTY_BYTES
from tests.process.node_world import WAIT_S, Box, nodes

pytestmark = pytest.mark.process

SOURCE = """
import atoll


class Add(atoll.Tuple):
    amount: int
    fans: int = 1


class Sum(atoll.Tuple):
    value: int


class Note(atoll.Tuple):
    text: str


class Stop(atoll.Tuple):
    pass


class Wait(atoll.Tuple):
    pass


class Counter(atoll.App):
    value: int = 0

    @atoll.on(atoll.Started)
    def started(self, _, ctx):
        if not ctx.path:
            ctx.spawn(Counter, "inner")

    @atoll.on(Add)
    def add(self, add, ctx):
        if add.amount < 0:
            raise ValueError("less than nothing")
        self.value += add.amount
        for _ in range(add.fans):
            ctx.send(ctx.sender, Sum(self.value))
        ctx.send(ctx.sender, Note("added"))
        return Sum(self.value)

    @atoll.on(Wait)
    def wait(self, _, ctx):
        ctx.defer()
"""


class Add(atoll.Tuple):
    amount: int
    fans: int = 1


class Sum(atoll.Tuple):
    value: int


class Note(atoll.Tuple):
    text: str


class Wait(atoll.Tuple):
    pass


@pytest.fixture(scope="module")
def box() -> Generator[Box]:
    with nodes() as world:
        box = world.box("one")
        box.up()
        (world.directory / "counter.py").write_text(SOURCE)
        said = box.run("run", str(world.directory / "counter.py"))
        assert said.status == 0, said.err
        yield box


def attached(box: Box, test: Callable[[Group], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S), atoll.join(box.state) as group:
            await test(group)

    asyncio.run(bounded())


def test_calls_are_typed_or_plain(box: Box) -> None:
    async def test(group: Group) -> None:
        counter = await group.environment("counter")
        before = (await counter.call(Add(0), Sum)).value
        assert await counter.call({"is": "Add", "amount": 2}) == {"is": "Sum", "value": before + 2}
        with pytest.raises(atoll.CallError, match="raised: ValueError: less than nothing"):
            await counter.call(Add(-1), Sum)
        with pytest.raises(atoll.CallError, match="unexpected: Sum"):
            await counter.call(Add(1), Note)
        with pytest.raises(atoll.CallError, match=r"timeout: no response within 0.1 s"):
            await counter.call(Wait(), timeout_s=0.1)

    attached(box, test)


def test_what_is_too_large_is_refused_at_once_and_keeps_nothing_back(box: Box) -> None:
    async def test(group: Group) -> None:
        counter = await group.environment("counter")
        before = (await counter.call(Add(0), Sum)).value
        large = {"is": "Note", "text": "x" * 300_000}
        for way in (counter.send, counter.call):
            with pytest.raises(atoll.CallError, match="too-large: a tuple of 300019 bytes; at most 262144 fit in one"):
                await way(large)
        assert (await counter.call(Add(1), Sum)).value == before + 1
        await counter.send(Add(1))
        await counter.flush()
        with pytest.raises(atoll.CallError, match="too-large: a path of 300 characters"):
            await (await group.environment(f"counter/{'x' * 300}")).send(Add(1))

    attached(box, test)


def test_what_is_too_large_or_too_deep_fails_before_it_is_sent(box: Box) -> None:
    async def test(group: Group) -> None:
        counter = await group.environment("counter")
        before = (await counter.call(Add(0), Sum)).value
        deep, endless = list[Any](), list[Any]()
        for _ in range(NESTING_MAX - 1):
            deep = [deep]
        endless.append(endless)
        for event, code in (
            ({"is": "Add", "amount": 1, "more": deep}, "too-deep"),
            ({"is": "Add", "amount": 1, "more": endless}, "too-deep"),
            ({"is": "Add", "amount": 1, "more": bytes(TUPLE_BYTES_MAX)}, "too-large"),
        ):
            with pytest.raises(atoll.CallError) as failed:
                await counter.call(event)
            assert failed.value.failure.code == code
            with pytest.raises(atoll.CallError):
                await counter.send(event)
        assert await counter.call({"is": "Add", "amount": 1, "more": deep[0]}) == {"is": "Sum", "value": before + 1}

    attached(box, test)


def test_what_others_send_too_deep_is_refused_and_the_program_goes_on(box: Box) -> None:
    """By hand, as a client that checks nothing: depths around the one at which decoders run out of stack, too."""
    unknown = b"\x91\x95\x83\xa2is\xa3Add\xa6amount\x01\xa2zz"

    async def test(group: Group) -> None:
        counter = await group.environment("counter")
        before = (await counter.call(Add(0), Sum)).value
        refused = list[int]()
        for depth in (NESTING_MAX - 1, NESTING_MAX, *range(900, 1_000, 9)):
            party, came = secrets.token_bytes(PARTY_BYTES), asyncio.Queue[Any]()
            _, connection = await asyncio.get_running_loop().create_unix_connection(
                lambda came=came: FrameConnection(lambda _, frame: came.put_nowait(server_codec.decode(frame))),  # type: ignore[misc]
                str(box.state / DOOR_NAME),
            )
            connection.send(client_codec.encode(Hello(party)))
            items = unknown + b"\x91" * depth + b"\xc0\x00\x00\xa0\xa0"
            connection.send(client_codec.encode(Carried(party, counter.party, 1, items)))
            while not isinstance(said := await came.get(), Receipt | Refusal):
                pass
            if isinstance(said, Refusal):
                assert (said.code, said.first) == ("too-deep", 1)
                refused.append(depth)
            connection.close()
        assert refused == [NESTING_MAX, *range(900, 1_000, 9)]
        assert (await counter.call(Add(1), Sum)).value == before + 2

    attached(box, test)
    replayed = box.run("replay", "counter")
    assert replayed.status == 0, replayed.err
    assert "gave the same effects" in replayed.out


def test_what_comes_unasked_is_kept_until_it_is_read(box: Box) -> None:
    async def test(group: Group) -> None:
        counter = await group.environment("counter")
        inner = await group.environment("counter/inner")
        total = await counter.call(Add(1), Sum)
        part = await inner.call(Add(5), Sum)
        async for event in counter.events(Sum, Note):
            assert event == total
            break
        async for plain in counter.events():
            assert plain == {"is": "Note", "text": "added"}
            break
        async for note in inner.events(Note):
            assert note == Note("added")
            break
        await inner.call(Add(1, fans=0), Sum)
        waiting = asyncio.ensure_future(anext(inner.events(Sum)))
        await asyncio.sleep(0)
        assert (await inner.call(Add(1), Sum)).value == part.value + 2
        assert await waiting == Sum(part.value + 2)

    attached(box, test)


def test_a_reader_that_is_too_slow_is_told_so(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.client.environments.TOLD_MAX", 3)

    async def test(group: Group) -> None:
        counter = await group.environment("counter")
        total = await counter.call(Add(1, fans=5), Sum)
        with pytest.raises(LimitError, match="told_max is 3"):
            await anext(counter.events())
        kept = [await anext(counter.events(Sum, Note)) for _ in range(3)]
        assert kept == [total, total, Note("added")]

    attached(box, test)


def test_what_was_sent_is_delivered_before_a_program_leaves(box: Box) -> None:
    async def value(group: Group) -> int:
        return (await (await group.environment("counter")).call(Add(0), Sum)).value

    async def test(group: Group) -> None:
        before = await value(group)
        async with atoll.join(box.state) as other:
            counter = await other.environment("counter")
            for _ in range(3):
                await counter.send(Add(1))
            await counter.flush()
            await counter.send(Add(1))
        assert await value(group) == before + 4

    attached(box, test)


def test_a_call_that_waits_when_a_program_leaves_fails(box: Box) -> None:
    async def test(group: Group) -> None:
        async with Desk(box.state) as desk:
            assert desk.node == group.node == "one" or not desk.node
            counter = await desk.environment("counter")
            waiting = asyncio.ensure_future(counter.call(Wait()))
            await counter.call(Add(0), Sum)
        with pytest.raises(atoll.CallError, match="ended: this program has detached"):
            await waiting

    attached(box, test)


def test_what_is_not_there_is_named(box: Box) -> None:
    async def test(group: Group) -> None:
        with pytest.raises(UserError, match="A609: there is no environment 'nothing'"):
            await group.environment("nothing")
        nested = await group.environment("counter/nothing")
        with pytest.raises(atoll.CallError, match="unknown: no environment 'nothing' in counter"):
            await nested.call(Add(1))
        with pytest.raises(UserError, match=r"A2|A6"):
            await group.move("counter", "nowhere")

    async def nowhere() -> None:
        async with Desk(box.state.parent / "nowhere"):
            pass

    attached(box, test)
    with pytest.raises(UserError, match="A401"):
        asyncio.run(nowhere())


def test_what_may_not_have_been_taken_is_no_success_of_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = b"e" * 16

    def take(connection: FrameConnection, frame: bytes) -> None:
        match client_codec.decode(frame):
            case Hello():
                answer: ServerMessage = Welcome("one")
            case Find(number):
                answer = Found(number, environment, "one")
            case Carried(source, target, first):
                answer = Refusal(target, source, FORGOTTEN, "it has forgotten you", first)
            case _:
                return
        connection.send(server_codec.encode(answer))

    async def serve() -> int:
        loop = asyncio.get_running_loop()
        door = await loop.create_unix_server(lambda: FrameConnection(take), str(tmp_path / DOOR_NAME))
        async with asyncio.timeout(WAIT_S), door:
            arguments = ["env", "send", "counter", "Add", "amount=1", "--state", str(tmp_path)]
            return await asyncio.to_thread(run, arguments)

    assert asyncio.run(serve()) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith('Failure code="forgotten" text="it is not known whether 1 tuples')


def test_people_try_it_from_the_shell(box: Box) -> None:
    before = json.loads(box.run("env", "call", "counter", "Add", "amount=0", "--json").out)["response"]["value"]
    said = box.run("env", "call", "counter", "Add", "amount=5")
    assert (said.status, said.out, said.err) == (0, f"Sum value={before + 5}\n", "")
    assert box.run("env", "send", "counter", "Add", "amount=1").status == 0
    said = box.run("env", "call", "counter", "Add", "amount=-1")
    assert (said.status, said.out) == (1, "")
    assert said.err == 'Failure code="raised" text="ValueError: less than nothing"\n'
    said = box.run("env", "call", "counter", "Add", "amount=-1", "--json")
    assert said.status == 1
    text = "ValueError: less than nothing"
    assert json.loads(said.out) == {
        "schema": "atoll.call/1",
        "response": {"is": "Failure", "code": "raised", "text": text},
    }
    assert box.run("env", "call", "counter/inner", "Add", "amount=0").status == 0
    assert box.run("env", "call", "counter", "Wait", "--timeout", "0.1").status == 1
    assert box.run("env", "call", "counter", "Add", "amount").code == "A501"
    assert box.run("env", "call", "nothing", "Add").code == "A609"
