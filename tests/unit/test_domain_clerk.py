# SPDX-License-Identifier: Apache-2.0
"""Orders of holdings go to a real recorder in their order, and each answer comes back as an input."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec
import pytest

from atoll.domain.clerk import RECORDED_NUMBER_MAX, Clerk
from atoll.domain.recorder import client as client_module
from atoll.domain.recorder.client import RecorderClient
from atoll.domain.recorder.messages import Certify, Recorded, encode_request
from atoll.domain.recorder.process import RecorderProcess
from atoll.domain.recorder.store import Store
from atoll.env.chain import GENESIS, Block, Sealer, certificate_payload, seal_payload, signed_by
from atoll.env.history import SNAPSHOT_FORMAT, Snapshot
from atoll.env.holding import events as on
from atoll.env.limits import NUMBER_MAX
from atoll.env.orders import RecorderOrder
from tests.unit.recorder_world import ENVIRONMENT, Hand, block_after, key_in, node_key, writing

WAIT_S = 10.0
OTHER = b"o" * 16
ONE, TWO = b"one.......", b"two......."


class Held:
    """What a holding says of its blocks."""

    def __init__(self) -> None:
        self.committed = 0
        self.holders: dict[int, tuple[bytes, ...]] = {}

    def holders_since(self, number: int) -> tuple[bytes, ...]:
        return self.holders.get(number, ())


class Desk:
    """A recorder, its client, and the clerk between it and a test."""

    def __init__(self, state: Path, node: bytes, number: int) -> None:
        state.mkdir()
        key = key_in(state, certified=False)
        control, theirs = socket.socketpair()
        self.process = RecorderProcess(theirs, Store(state, key), key)
        signing = node_key(number)
        self.sealer = Sealer(
            node,
            key.public,
            signing.public_key().public_bytes_raw(),
            signing.sign(certificate_payload(node, key.public)),
        )
        control.sendall(encode_request(Certify(0, node, self.sealer.signing_key, self.sealer.certificate)))
        self.process.turn(0)
        self.client = RecorderClient(control)
        self.client._told[0] = lambda _: None  # Of what was asked above.  # pyright: ignore[reportPrivateUsage]
        self.fed: list[tuple[bytes, on.HoldingInput]] = []
        self.known: list[Sealer] = []
        self.held: Held | None = Held()
        self.clerk = Clerk(
            self.client,
            self.sealer,
            lambda sealer: sealer in self.known,
            lambda environment, event: self.fed.append((environment, event)),
            lambda _: self.held,
        )

    async def settle(self) -> None:
        """Let the recorder answer everything."""
        while True:
            self.process.turn(0)
            await asyncio.sleep(0)
            if not self.client.waiting:
                return

    async def begin(self, environment: bytes = ENVIRONMENT) -> None:
        created = self.client.create(environment, "shop")
        await self.settle()
        await created

    async def ask(self, *orders: RecorderOrder, environment: bytes = ENVIRONMENT) -> list[on.HoldingInput]:
        """Give orders; return what comes back."""
        self.fed.clear()
        for order in orders:
            self.clerk.obey(environment, order)
        await self.settle()
        assert all(one == environment for one, _ in self.fed)
        return [event for _, event in self.fed]

    def close(self) -> None:
        self.client.close()
        while self.process.turn(0):
            pass
        self.process._store.close()  # pyright: ignore[reportPrivateUsage]


def run(state: Path, test: Callable[[Desk, Desk], Coroutine[None, None, None]]) -> None:
    """Run a test with the recorders of two nodes that know each other."""

    async def body() -> None:
        one, two = Desk(state / "one", ONE, 1), Desk(state / "two", TWO, 2)
        one.known, two.known = [two.sealer], [one.sealer]
        try:
            async with asyncio.timeout(WAIT_S):
                await one.begin()
                await two.begin()
                await test(one, two)
        finally:
            one.close()
            two.close()

    asyncio.run(body())


def seal(number: int, epoch: int = 1) -> on.Seal:
    return on.Seal(epoch, number, number, 1, b"body %d" % number, ())


def test_what_cannot_be_asked_at_all_fails_and_holds_up_nothing(tmp_path: Path) -> None:
    async def body(one: Desk, _: Desk) -> None:
        answers = await one.ask(on.ReadBlocks(TWO, 1 << 70, 1), on.KeepPromise(3, TWO))
        assert answers == [on.BlocksRead(TWO, 1 << 70, ()), on.PromiseKept(3, TWO)]

    run(tmp_path, body)


def test_of_an_environment_that_has_all_its_answers_nothing_is_kept(tmp_path: Path) -> None:
    async def body(one: Desk, _: Desk) -> None:
        asked = one.clerk._asked  # pyright: ignore[reportPrivateUsage]
        answers = await one.ask(on.KeepPromise(1, ONE), seal(1))
        assert [type(answer) for answer in answers] == [on.PromiseKept, on.Sealed]
        assert not asked
        feed = one.clerk._feed  # pyright: ignore[reportPrivateUsage]
        impossible = on.Seal(RECORDED_NUMBER_MAX + 1, 3, 3, 1, b"body", ())  # Its answer is there at once.

        def go_on(environment: bytes, event: on.HoldingInput) -> None:
            """Ask for more when an answer comes, and once more when all that is done."""
            feed(environment, event)
            if len(one.fed) == 1:
                one.clerk.obey(environment, impossible)
                one.clerk.obey(environment, seal(3))
                asyncio.get_running_loop().call_soon(one.clerk.obey, environment, impossible)

        one.clerk._feed = go_on  # pyright: ignore[reportPrivateUsage]
        answers = await one.ask(seal(2))
        assert [type(answer) for answer in answers] == [on.Sealed, on.SealFailed, on.Sealed, on.SealFailed]
        assert not asked

    run(tmp_path, body)


def test_numbers_that_the_recorder_could_not_read_never_reach_it(tmp_path: Path) -> None:
    async def body(one: Desk, two: Desk) -> None:
        top = RECORDED_NUMBER_MAX
        answers = await one.ask(
            on.KeepPromise(top + 1, TWO),
            on.Seal(1, 1, top, 1, b"body", ()),
            on.Seal(top + 1, 1, 1, 1, b"body", ()),
            on.KeepPromise(3, TWO),
        )
        assert answers == [
            on.PromiseFailed(top + 1, TWO, "epoch"),
            on.SealFailed(1, 1, "number"),
            on.SealFailed(1, top + 1, "number"),
            on.PromiseKept(3, TWO),
        ]
        hand = Hand(8, TWO, signer=3)
        two.known = [hand.sealer]
        sealed, _ = hand.seal(GENESIS, block_after(GENESIS))
        for block in (Block(1, top, 1, 1, b"x"), Block(1, 1, NUMBER_MAX + 1, 1, b"x")):
            made = msgspec.msgpack.encode((hand.sealer, msgspec.structs.replace(sealed, block=block)))
            assert await two.ask(on.Keep(1, 1, (), made)) == [on.KeepFailed(1, 1, "sealer")]

    run(tmp_path, body)


def seal_state(number: int) -> on.Seal:
    """Return the order to seal a block after which ``state_of`` is stored."""
    return on.Seal(1, number, number, 1, writing(STATE), ())


def test_what_one_seals_another_keeps_and_reads_back(tmp_path: Path) -> None:
    async def body(one: Desk, two: Desk) -> None:
        sealed = await one.ask(seal(1), seal(2))
        assert [(type(event), event.number, event.epoch) for event in sealed if isinstance(event, on.Sealed)] == [
            (on.Sealed, 1, 1),
            (on.Sealed, 2, 1),
        ]
        keeps = [on.Keep(event.number, 1, (), event.sealed) for event in sealed if isinstance(event, on.Sealed)]
        assert await two.ask(*keeps) == [on.Kept(1, 1), on.Kept(2, 1)]
        assert two.held is not None
        two.held.holders[2] = (ONE, TWO)
        (read,) = await two.ask(on.ReadBlocks(b"three.....", 1, 1_000_000))
        assert isinstance(read, on.BlocksRead)
        assert (read.node, read.first) == (b"three.....", 1)
        assert [(block.number, block.epoch, block.holders) for block in read.blocks] == [(1, 1, ()), (2, 1, (ONE, TWO))]
        assert [block.sealed for block in read.blocks] == [keep.sealed for keep in keeps], "sealed by whoever made it"
        (own,) = await one.ask(on.ReadBlocks(TWO, 2, 1))
        assert isinstance(own, on.BlocksRead)
        assert [block.sealed for block in own.blocks] == [keeps[1].sealed]

    run(tmp_path, body)


def test_what_the_recorder_refuses_comes_back_as_a_failure_with_its_code(tmp_path: Path) -> None:
    async def body(one: Desk, two: Desk) -> None:
        assert await one.ask(seal(2)) == [on.SealFailed(2, 1, "number")]
        sealed = await one.ask(seal(1), seal(2))
        keeps = [on.Keep(event.number, 1, (), event.sealed) for event in sealed if isinstance(event, on.Sealed)]
        assert await two.ask(keeps[1]) == [on.KeepFailed(2, 1, "number")]
        assert await two.ask(on.ReadBlocks(ONE, 1, 1), environment=OTHER) == [on.BlocksRead(ONE, 1, ())]

    run(tmp_path, body)


def test_blocks_that_nobody_of_the_group_has_sealed_are_not_kept(tmp_path: Path) -> None:
    async def body(one: Desk, two: Desk) -> None:
        (sealed,) = await one.ask(seal(1))
        assert isinstance(sealed, on.Sealed)
        two.known = []
        for wrong in (
            on.Keep(1, 1, (), sealed.sealed),
            on.Keep(2, 1, (), sealed.sealed),
            on.Keep(1, 1, (), b"nonsense"),
            on.Keep(1, 1, (), b"\x91" * 100_000),
        ):
            assert await two.ask(wrong) == [on.KeepFailed(wrong.number, 1, "sealer")]
        two.known = [one.sealer]
        assert await two.ask(on.Keep(2, 1, (), sealed.sealed)) == [on.KeepFailed(2, 1, "sealer")]
        forged = Hand(8, TWO, signer=3)
        theirs, _ = forged.seal(GENESIS, block_after(GENESIS))
        one.known = [forged.sealer]
        made = msgspec.msgpack.encode((forged.sealer, theirs))
        assert await one.ask(on.Keep(1, 1, (), made)) == [on.KeepFailed(1, 1, "number")]

    run(tmp_path, body)


def test_blocks_are_cut_without_an_answer(tmp_path: Path) -> None:
    async def body(one: Desk, _: Desk) -> None:
        await one.ask(seal(1), seal(2), seal(3))
        (sealed,) = await one.ask(on.CutFrom(2), seal(2, 2))
        assert isinstance(sealed, on.Sealed)
        assert (sealed.number, sealed.epoch) == (2, 2)

    run(tmp_path, body)


def test_a_promise_is_kept_and_a_lower_one_refused(tmp_path: Path) -> None:
    async def body(one: Desk, _: Desk) -> None:
        assert await one.ask(on.KeepPromise(3, b"")) == [on.PromiseKept(3, b"")]
        assert await one.ask(on.KeepPromise(3, TWO)) == [on.PromiseKept(3, TWO)]
        assert await one.ask(on.KeepPromise(2, TWO)) == [on.PromiseFailed(2, TWO, "epoch")]

    run(tmp_path, body)


STATE = b"state" * 100


def state_of(holders: tuple[bytes, ...] = (ONE, TWO), epoch: int = 1) -> bytes:
    """A snapshot as a runner makes it."""
    return Snapshot(SNAPSHOT_FORMAT, b"c" * 32, bytes(16), epoch, holders, 3, ONE, STATE).encode()


async def read_all(one: Desk, number: int = 0, bytes_max: int = 100) -> tuple[on.SnapshotRead, bytes]:
    """Read a snapshot in parts; return what the last part says, and all of it."""
    payload = b""
    while True:
        (read,) = await one.ask(on.ReadSnapshot(TWO, number, len(payload), bytes_max))
        assert isinstance(read, on.SnapshotRead)
        assert read.offset == len(payload)
        assert 0 < len(read.payload) <= bytes_max
        payload += read.payload
        number = read.number
        if len(payload) == read.total:
            return read, payload


async def recorded(one: Desk) -> Recorded:
    listed = asyncio.ensure_future(one.client.environments())
    await one.settle()
    (found,) = await listed
    return found


def test_a_snapshot_goes_over_in_parts_and_takes_the_place_of_the_journal(tmp_path: Path) -> None:
    async def body(one: Desk, two: Desk) -> None:
        await one.ask(seal(1), seal_state(2))
        kept = one.client.keep_snapshot(ENVIRONMENT, 2, state_of())
        await one.settle()
        await kept
        read, payload = await read_all(one)
        assert (read.node, read.number, read.epoch, read.holders) == (TWO, 2, 1, (ONE, TWO))
        assert one.clerk.parcels.kept_bytes == 0
        await two.ask(seal(1), on.KeepPromise(5, b""))
        order = on.KeepSnapshot(2, 1, (ONE, TWO), payload)
        assert await two.ask(order) == [on.SnapshotKept(2, 1)]
        found = await recorded(two)
        assert (found.at, found.first, found.snapshots) == ((await recorded(one)).at, 3, (2,))
        assert (found.promised_epoch, found.promised_to) == (5, b"")
        again, theirs = await read_all(two, 2, 1_000_000)
        assert (again.number, again.epoch, again.holders) == (2, 1, (ONE, TWO))
        assert theirs != payload  # Its own recorder has signed it.

    run(tmp_path, body)


def test_a_snapshot_that_does_not_check_changes_nothing(tmp_path: Path) -> None:
    async def body(one: Desk, two: Desk) -> None:
        await one.ask(seal(1), seal_state(2))
        kept = one.client.keep_snapshot(ENVIRONMENT, 2, state_of())
        await one.settle()
        await kept
        _, payload = await read_all(one)
        await two.ask(seal(1))
        before = await recorded(two)
        changed = bytearray(payload)
        changed[200] ^= 1
        failed = on.SnapshotFailed(2, 1, "content")
        for order in (
            on.KeepSnapshot(2, 1, (ONE, TWO), b"nonsense"),
            on.KeepSnapshot(2, 1, (ONE, TWO), bytes(changed)),
            on.KeepSnapshot(2, 1, (ONE,), payload),
        ):
            assert await two.ask(order) == [failed]
        assert await two.ask(on.KeepSnapshot(3, 1, (ONE, TWO), payload)) == [on.SnapshotFailed(3, 1, "content")]
        assert await two.ask(on.KeepSnapshot(2, 2, (ONE, TWO), payload)) == [on.SnapshotFailed(2, 2, "content")]
        two.known = []
        assert await two.ask(on.KeepSnapshot(2, 1, (ONE, TWO), payload)) == [failed]
        assert await recorded(two) == before

    run(tmp_path, body)


def test_answers_come_in_the_order_of_the_orders(tmp_path: Path) -> None:
    async def body(one: Desk, _: Desk) -> None:
        fed = await one.ask(
            seal(1),
            on.Keep(2, 1, (), b"nonsense"),
            on.KeepSnapshot(2, 1, (), b"nonsense"),
            on.KeepPromise(1, ONE),
            seal(3),
        )
        assert [type(event) for event in fed] == [
            on.Sealed,
            on.KeepFailed,
            on.SnapshotFailed,
            on.PromiseKept,
            on.SealFailed,
        ]

    run(tmp_path, body)


def test_a_node_that_is_no_holder_any_more_remembers_what_it_had(tmp_path: Path) -> None:
    async def body(one: Desk, _: Desk) -> None:
        await one.ask(on.KeepPromise(4, ONE), seal(1, 4), seal(2, 4))
        assert await one.ask(on.Left(4, 2)) == []
        found = await recorded(one)
        assert (found.at, found.floor, found.promised_epoch, found.promised_to) == (GENESIS, (4, 2), 4, ONE)

    run(tmp_path, body)


def test_what_has_no_room_on_its_way_is_overtaken_by_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(one: Desk, _: Desk) -> None:
        await one.ask(seal(1), seal(2), seal(3))
        monkeypatch.setattr(client_module, "REQUESTS_MAX", 0)
        assert await one.ask(on.CutFrom(3), on.CutFrom(2)) == []
        assert await one.ask(seal(4)) == [on.SealFailed(4, 1, "link")]
        monkeypatch.undo()
        assert (await one.ask(seal(2)))[0].__class__ is on.Sealed
        assert (await recorded(one)).at.number == 2
        monkeypatch.setattr(client_module, "REQUESTS_MAX", 0)
        assert await one.ask(on.CutFrom(2), on.Left(1, 3), on.CutFrom(1)) == []
        monkeypatch.undo()
        assert await one.ask(on.KeepPromise(6, b"")) == [on.PromiseKept(6, b"")]
        found = await recorded(one)
        assert (found.at, found.floor, found.promised_epoch, found.promised_to) == (GENESIS, (1, 3), 6, b"")

    run(tmp_path, body)


def test_there_is_no_snapshot_to_read(tmp_path: Path) -> None:
    async def body(one: Desk, _: Desk) -> None:
        nothing = on.SnapshotRead(TWO, 0, 0, (), 0, 0, b"")
        assert await one.ask(on.ReadSnapshot(TWO, 0, 0, 1_000)) == [nothing]
        assert await one.ask(on.ReadSnapshot(TWO, 3, 0, 1_000)) == [nothing]

    run(tmp_path, body)


def test_without_a_recorder_everything_fails_and_nothing_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(one: Desk, two: Desk) -> None:
        monkeypatch.setattr(client_module, "REQUESTS_MAX", 0)
        assert await one.ask(seal(1)) == [on.SealFailed(1, 1, "link")]
        monkeypatch.undo()
        one.client.close()
        (sealed,) = await two.ask(seal_state(1))
        assert isinstance(sealed, on.Sealed)
        kept = two.client.keep_snapshot(ENVIRONMENT, 1, state_of())
        await two.settle()
        await kept
        _, payload = await read_all(two)
        assert await one.ask(
            seal(1),
            on.CutFrom(1),
            on.KeepPromise(1, ONE),
            on.KeepSnapshot(1, 1, (ONE, TWO), payload),
            on.ReadBlocks(TWO, 1, 1),
            on.ReadSnapshot(TWO, 1, 0, 1),
        ) == [
            on.SealFailed(1, 1, "link"),
            on.PromiseFailed(1, ONE, "link"),
            on.SnapshotFailed(1, 1, "link"),
            on.BlocksRead(TWO, 1, ()),
            on.SnapshotRead(TWO, 0, 0, (), 0, 0, b""),
        ]
        assert await one.ask(on.Keep(1, 1, (), sealed.sealed)) == [on.KeepFailed(1, 1, "link")]

    run(tmp_path, body)


def told(desk: Desk, committed: int) -> list[tuple[int, int]]:
    """Return number and epoch of what is told when so much is committed; it must be what the recorder has sealed."""
    assert desk.held is not None
    desk.held.committed = committed
    news = desk.clerk.news()
    for environment, (link, seal) in news.items():
        assert (environment, link.head) == (ENVIRONMENT, seal.head)
        assert signed_by(desk.sealer.recorder, seal_payload(environment, link.head), seal.signature)
    return [(link.number, link.epoch) for link, _ in news.values()]


def test_the_newest_committed_seal_of_each_journal_is_told_once(tmp_path: Path) -> None:
    async def body(one: Desk, _: Desk) -> None:
        await one.ask(seal(1), seal(2), seal(3))
        assert told(one, 0) == []
        assert told(one, 2) == [(2, 1)]
        assert told(one, 2) == []
        await one.ask(seal(4), seal(5))
        assert told(one, 4) == [(4, 1)]
        assert told(one, 5) == [(5, 1)]

    run(tmp_path, body)


def test_no_more_seals_wait_than_are_not_committed(tmp_path: Path) -> None:
    async def body(one: Desk, _: Desk) -> None:
        assert one.held is not None
        for number in range(1, 9):
            one.held.committed = max(number - 3, 0)
            await one.ask(seal(number))
            waiting = one.clerk._sealed[ENVIRONMENT]  # pyright: ignore[reportPrivateUsage]
            assert len(waiting) <= 4
        assert told(one, 7) == [(7, 1)]
        one.held = None
        assert one.clerk.news() == {}
        assert one.clerk._sealed == {}  # pyright: ignore[reportPrivateUsage]
        await one.ask(seal(9))

    run(tmp_path, body)


def test_what_was_cut_after_a_change_of_hands_is_never_told(tmp_path: Path) -> None:
    async def body(one: Desk, two: Desk) -> None:
        sealed = await one.ask(seal(1), seal(2), seal(3))
        assert isinstance(sealed[0], on.Sealed)
        others = await two.ask(on.Keep(1, 1, (), sealed[0].sealed), seal(2, 2))
        assert isinstance(others[1], on.Sealed)
        assert await one.ask(on.CutFrom(2), on.Keep(2, 2, (), others[1].sealed)) == [on.Kept(2, 2)]
        assert told(one, 2) == [(1, 1)]
        assert told(two, 2) == [(2, 2)]
        await one.ask(seal(3, 3), on.CutFrom(3), seal(3, 4))
        assert told(one, 3) == [(3, 4)]
        await one.ask(seal(4, 4))
        await one.ask(on.Left(4, 4))
        assert told(one, 4) == []

    run(tmp_path, body)
