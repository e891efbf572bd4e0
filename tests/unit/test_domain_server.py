# SPDX-License-Identifier: Apache-2.0
"""The server between a steward and a recorder: what the recorder refuses is tried again as long as it is wanted."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll.base.errors import WireError
from atoll.base.ids import NodeId
from atoll.base.units import SECOND_NS
from atoll.domain import server as server_module
from atoll.domain.loading import Bundle
from atoll.domain.messages import FromNode, Hello, MemberSeen
from atoll.domain.recorder.client import RecorderClient
from atoll.domain.recorder.messages import Answer, Code, Create, KeepSnapshot, RefusedError
from atoll.domain.recorder.process import RecorderProcess
from atoll.domain.recorder.store import Store
from atoll.domain.server import Server, now
from atoll.env.beginning import Wanted
from atoll.env.chain import Sealer
from atoll.env.limits import MESSAGE_BYTES_MAX
from atoll.env.messages import Carried, Letter, Notice, Notices, encode_message
from atoll.env.orders import Moment, Rest, Restore, Say, TellNode
from tests.unit.recorder_world import key_in
from tests.unit.steward_world import ANN, BOB, CODE, PROGRAM, Add, encode, items

WAIT_S = 20.0


SEALERS = ((b"h" * 10, b"1" * 32), (b"g" * 10, b"2" * 32), (b"g" * 10, b"3" * 32))


class Around:
    """A server, and its recorder in the same process; the first ``refusals`` journals cannot be begun."""

    def __init__(self, state: Path, refusals: int, code: Code = Code.FULL) -> None:
        self.tries = 0
        key = key_in(state)
        ours, theirs = socket.socketpair()
        store: Store[int] = Store(state, key)
        honest = store._ways[Create]  # pyright: ignore[reportPrivateUsage]

        def create(request: Create) -> Answer:
            self.tries += 1
            if self.tries <= refusals:
                raise RefusedError(code, "so it is")
            return honest(request)

        store._ways[Create] = create  # pyright: ignore[reportPrivateUsage]
        self.ways = store._ways  # pyright: ignore[reportPrivateUsage]
        self.process = RecorderProcess(theirs, store, key)
        sealer = key.sealer
        assert sealer is not None
        self.server = Server(RecorderClient(ours), sealer, "one", b"s" * 32)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the recorder work until something is so."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.process.turn(0)
                await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.server.stop()
        self.server.recorder.close()
        self.process.run()

    async def do(self, verb: str, **params: Any) -> Any:
        """Obey a command."""
        work = asyncio.ensure_future(self.server.commands.obey(verb, msgspec.json.encode(params)))
        await self.until(work.done)
        return msgspec.json.decode(work.result())

    def begin(self) -> bytes:
        identity = self.server.steward.create(Wanted("shop", CODE, encode({}), 1), PROGRAM, now())
        self.server.stir()
        return identity


def test_a_journal_that_cannot_be_begun_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CREATE_AGAIN_S", 0.01)

    async def body() -> None:
        around = Around(tmp_path, 2)
        hosted = around.server.steward.hosted[around.begin()]
        await around.until(lambda: hosted.is_open)
        assert around.tries == 3
        await around.stop()

    asyncio.run(body())


def test_a_command_that_the_disk_refuses_says_so(tmp_path: Path) -> None:
    source = "import atoll\nclass Shop(atoll.App):\n    n: int = 0\n"
    bundle = Bundle(1, "shop", "Shop", {"shop": source}).encode()
    following = Bundle(1, "shop", "Shop", {"shop": source + "    m: int = 0\n"}).encode()

    def refuse(_: KeepSnapshot) -> Answer:
        raise RefusedError(Code.FULL, "so it is")

    async def body() -> None:
        around = Around(tmp_path, 1)
        with pytest.raises(RefusedError, match="so it is"):
            await around.do("run", name="shop", bundle=bundle, copies=1)
        await around.until(lambda: not around.server.steward.hosted)
        await around.do("run", name="shop", bundle=bundle, copies=1)
        assert (await around.do("checkpoint", name="shop"))["name"] == "shop"
        assert (await around.do("upgrade", name="shop", bundle=following))["name"] == "shop"
        around.ways[KeepSnapshot] = refuse
        with pytest.raises(RefusedError, match="so it is"):
            await around.do("checkpoint", name="shop")
        await around.stop()

    asyncio.run(body())


def test_an_order_that_cannot_be_obeyed_does_not_take_others_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        around = Around(tmp_path, 0)
        hosted = around.server.steward.hosted[around.begin()]
        await around.until(lambda: hosted.is_open)
        too_long = TellNode(NodeId(b"n" * 10), Letter(bytes(MESSAGE_BYTES_MAX)))
        around.server.steward._orders += [  # pyright: ignore[reportPrivateUsage]
            too_long,
            Say(hosted.facts.id, "it was said"),
        ]
        around.server.stir()
        await asyncio.sleep(0)
        lines = await around.server.commands.obey("logs", b'{"name": "shop"}')
        assert b"it was said" in lines
        assert "an order cannot be obeyed: TellNode" in caplog.text
        await around.stop()

    asyncio.run(body())


def test_it_is_not_tried_again_when_nobody_wants_it_or_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CREATE_AGAIN_S", 0.01)

    async def body(state: Path, code: Code) -> None:
        around = Around(state, 9, code)
        identity = around.begin()
        await around.until(lambda: around.tries == 1)
        around.server.steward.stop(identity, now())
        around.server.stir()
        await around.until(lambda: identity not in around.server.steward.hosted)
        over = asyncio.get_running_loop().time() + 10 * server_module.CREATE_AGAIN_S
        await around.until(lambda: asyncio.get_running_loop().time() > over)
        assert around.tries == 1
        await around.stop()

    for name, code in (("full", Code.FULL), ("there", Code.EXISTS)):
        (tmp_path / name).mkdir()
        asyncio.run(body(tmp_path / name, code))


def test_a_restore_is_answered_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unforeseen(*_: object) -> None:
        raise RecursionError("nobody expected this")

    async def body() -> None:
        around = Around(tmp_path, 0)
        identity = around.begin()
        hosted = around.server.steward.hosted[identity]
        await around.until(lambda: hosted.is_open)
        monkeypatch.setattr(around.server.warming, "take", unforeseen)
        order = Restore(identity, hosted.epoch, hosted.holding.last)
        hosted._drop()  # pyright: ignore[reportPrivateUsage]
        hosted.epoch = order.epoch
        with pytest.raises(RecursionError):
            await around.server._restore(order)  # pyright: ignore[reportPrivateUsage]
        assert hosted.failed == "it cannot be restored"
        assert hosted.deadline_ns is not None
        await around.stop()

    asyncio.run(body())


def test_what_a_former_member_has_sealed_stays_true_and_nothing_else_that_it_says_counts(tmp_path: Path) -> None:
    async def body() -> None:
        around = Around(tmp_path, 0)
        here, gone, forged = (Sealer(node, b"r" * 32, key, b"c" * 64) for node, key in SEALERS)
        around.server._learn(  # pyright: ignore[reportPrivateUsage]
            (
                MemberSeen(here.node, "two", here.signing_key),
                MemberSeen(gone.node, "three", gone.signing_key, former=True),
            ),
            "",
        )
        assert [around.server.knows(sealer) for sealer in (here, gone, forged)] == [True, True, False]
        assert list(around.server.members) == [here.node]
        await around.stop()

    asyncio.run(body())


def test_what_nobody_expected_of_a_message_ends_neither_control_nor_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = NodeId(b"n" * 10)

    class Session:
        """One end of a connection, as the server uses it: what it is sent is dropped."""

        def send(self, frame: bytes) -> None:
            pass

        def close(self) -> None:
            pass

    async def body() -> None:
        around = Around(tmp_path, 0)
        hosted = around.server.steward.hosted[around.begin()]
        await around.until(lambda: hosted.is_open)
        around.server.adoption.is_listed = True
        session: Any = Session()
        around.server._client_made(session)  # pyright: ignore[reportPrivateUsage]
        around.server._from_client(session, encode(Hello(ANN)))  # pyright: ignore[reportPrivateUsage]
        carried, other = (Carried(party, hosted.facts.id, 1, items(Add(1))) for party in (ANN, BOB))
        del hosted.filling.inbox._bytes  # pyright: ignore[reportPrivateUsage]  As if we had made a mistake.
        for _ in range(2):
            around.server.from_control(session, encode(FromNode(node, encode_message(other))))
            around.server.from_control(session, encode(FromNode(node, b"\xc1")))
            around.server.from_control(session, b"\xc1")
            around.server._from_node(node, encode_message(other))  # pyright: ignore[reportPrivateUsage]
            around.server._from_client(session, encode(carried))  # pyright: ignore[reportPrivateUsage]
        told = [record.message for record in caplog.records]
        assert told == [
            "a message of another node was dropped: Carried",
            "a message of control was dropped: NoneType",
            "a message of a client was dropped: Carried",
        ]
        with pytest.raises(WireError):
            around.server._from_client(session, encode(Hello(ANN)))  # pyright: ignore[reportPrivateUsage]
        await around.stop()

    asyncio.run(body())


def test_a_journal_that_is_damaged_or_makes_no_sense_is_said_whenever_somebody_looks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def begin(state: Path) -> bytes:
        around = Around(state, 0)
        hosted = around.server.steward.hosted[around.begin()]
        await around.until(lambda: hosted.is_open)
        await around.stop()
        return hosted.facts.id

    async def body(path: Path, why: str) -> None:
        around = Around(path, 0)
        starting = asyncio.ensure_future(around.server.start(path / "door"))
        await around.until(starting.done)
        await starting
        (listed,) = msgspec.json.decode(await around.server.commands.obey("list", b""))["environments"]
        assert (listed["name"], listed["node"]) == ("shop", "")
        assert why in listed["barred"]
        assert f"the environment shop is not run: {listed['barred']}" in caplog.text
        assert not around.server.steward.hosted
        await around.stop()

    for name, why in (("damaged", "offset"), ("odd", "a snapshot without a header")):
        state = tmp_path / name
        state.mkdir()
        identity = asyncio.run(begin(state))
        directory = state / "envs" / identity.hex()
        if name == "damaged":
            (segment,) = directory.glob("*.atb")
            segment.write_bytes(bytes([segment.read_bytes()[0]]) + segment.read_bytes()[1:-3] + b"odd")
        else:
            (directory / "snapshots").mkdir(exist_ok=True)
            (directory / "snapshots" / "1.ats").write_bytes(b"odd")
        asyncio.run(body(state, why))


def test_what_other_nodes_say_before_it_is_known_what_is_here_waits_within_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = NodeId(b"four".ljust(10, b"."))
    said = [Notices((Notice(bytes([n]) * 16, 1, node, f"shop{n}", "Shop", CODE, (node,)),)) for n in (1, 2)]
    payloads = [encode_message(one) for one in said]

    async def body(state: Path, bound: int, known: list[str]) -> None:
        monkeypatch.setattr(server_module, "LISTING_BYTES_MAX", bound)
        state.mkdir()
        around = Around(state, 0)
        for payload in payloads:
            around.server._from_node(node, payload)  # pyright: ignore[reportPrivateUsage]
        assert not list(around.server.steward.directory.all())
        starting = asyncio.ensure_future(around.server.start(state / "door"))
        await around.until(starting.done)
        await starting
        assert [notice.name for notice in around.server.steward.directory.all()] == known
        await around.stop()

    both = sum(map(len, payloads))
    for bound, known in ((both, ["shop1", "shop2"]), (both - 1, ["shop1"])):
        asyncio.run(body(tmp_path / str(bound), bound, known))


def test_an_environment_that_took_long_goes_on_in_a_later_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REST_S_MAX", 0.01)
    resumed: list[bytes] = []

    def resume(identity: bytes, _: Moment) -> None:
        resumed.append(identity)

    async def body() -> None:
        around = Around(tmp_path, 0)
        steward = around.server.steward
        monkeypatch.setattr(steward, "resume", resume)
        since_ns = now().ns
        orders = [Rest(b"a" * 16, since_ns + 1_000 * SECOND_NS), Rest(b"b" * 16, since_ns - 1_000 * SECOND_NS)]
        steward._orders += orders  # pyright: ignore[reportPrivateUsage]
        around.server.stir()
        await around.until(lambda: len(resumed) == 2)
        assert resumed == [b"a" * 16, b"b" * 16], "who has taken long rests, but not for so long as it took"
        await around.stop()

    asyncio.run(body())
