# SPDX-License-Identifier: Apache-2.0
"""A snapshot that the owner has is kept by every holder that can check it, and by nobody else."""

import asyncio
from collections.abc import Callable, Coroutine
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from atoll.base.ids import NodeId
from atoll.domain import shipping as shipping_module
from atoll.domain.parcels import Answered, Parcels, State
from atoll.domain.recorder import messages as to
from atoll.domain.recorder.snapshots import encode_snapshot, open_snapshot
from atoll.domain.recorder.store import Store
from atoll.domain.shipping import Shipper, Shipping
from atoll.env.chain import Block, Position, Sealed, Sealer, certificate_payload, pack_body
from atoll.env.history import SNAPSHOT_FORMAT, Entry, Snapshot, encode_body
from atoll.env.messages import StateGiven, StateOffered, StateWanted, decode_message
from atoll.env.records import Checkpointed, Fired, Record
from tests.unit.recorder_world import ENVIRONMENT, key_in, node_key

ONE, TWO, THREE = NodeId(b"one......."), NodeId(b"two......."), NodeId(b"three.....")
STATE, DIGEST = b"state" * 100, b"d" * 16
WAIT_S = 10.0


def snapshot_of(state: bytes = STATE, epoch: int = 1) -> bytes:
    return Snapshot(SNAPSHOT_FORMAT, b"c" * 32, DIGEST, epoch, (ONE, TWO), 3, ONE, state).encode()


class Recorder:
    """A recorder without a process."""

    def __init__(self, state: Path, node: bytes, number: int) -> None:
        state.mkdir()
        self.key = key = key_in(state, certified=False)
        signing = node_key(number)
        certificate = signing.sign(certificate_payload(node, key.public))
        self.sealer = Sealer(node, key.public, signing.public_key().public_bytes_raw(), certificate)
        key.certify(self.sealer)
        self.store: Store[int] = Store(state, key)
        self.do(to.Create(0, ENVIRONMENT, "shop"))

    def do(self, request: to.Request) -> to.Answer:
        ((_, answer),) = self.store.serve([(0, request)])
        return answer

    def ask(self, make: Callable[[int], to.Request], told: Answered) -> None:
        told(self.do(make(1)))

    async def read(self, environment: bytes, number: int, bytes_max: int) -> to.Blocks:
        answer = self.do(to.Read(1, environment, number, bytes_max))
        if isinstance(answer, to.Refused):
            raise to.RefusedError(answer.code, answer.words)
        assert isinstance(answer, to.Blocks)
        return answer

    async def keep_snapshot(self, environment: bytes, number: int, content: bytes) -> to.Done:
        answer = self.do(to.KeepSnapshot(1, environment, number, content))
        if isinstance(answer, to.Refused):
            raise to.RefusedError(answer.code, answer.words)
        assert isinstance(answer, to.Done)
        return answer

    @property
    def snapshots(self) -> tuple[int, ...]:
        answer = self.do(to.List(1))
        assert isinstance(answer, to.Listed)
        return answer.environments[0].snapshots


class Place:
    """One node: what a shipper needs of its server."""

    def __init__(self, world: "World", node: NodeId, number: int) -> None:
        self.world, self.node = world, node
        self.recorder = Recorder(world.directory / node.decode(), node, number)
        self.sealer = self.recorder.sealer
        self.owner = ONE
        self.holders: tuple[NodeId, ...] = (ONE, TWO)
        self.known = True
        self.kept: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.shipper = Shipper(self, Parcels(self.recorder))

    def keepers(self, identity: bytes) -> tuple[bytes, tuple[bytes, ...]]:
        return (self.owner, self.holders) if identity == ENVIRONMENT else (b"", ())

    def knows(self, sealer: Sealer) -> bool:
        return self.known and sealer == self.world.sealer

    def tell_node(self, node: NodeId, payload: bytes) -> None:
        message = decode_message(payload)
        assert isinstance(message, StateOffered | StateWanted | StateGiven)
        self.world.said.append((self.node, node, message))
        if node in self.world.places and not self.world.loses(message):
            asyncio.get_running_loop().call_soon(self.world[node].shipper.heard, self.node, message)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def snapshot_kept(self, identity: bytes, number: int) -> None:
        assert identity == ENVIRONMENT
        self.kept.append(number)

    async def settle(self) -> None:
        while self.tasks:
            await self.tasks.pop()


class World:
    """Two nodes with the same journal, of which the first one owns it and has a snapshot."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[tuple[NodeId, NodeId, Shipping]] = []
        self.losses = 0
        self.places: dict[NodeId, Place] = {}
        self.places = {ONE: Place(self, ONE, 1), TWO: Place(self, TWO, 2)}
        self.sealer = self[ONE].sealer

    def __getitem__(self, node: NodeId) -> Place:
        return self.places[node]

    def loses(self, message: Shipping) -> bool:
        if isinstance(message, StateOffered) or not self.losses:
            return False
        self.losses -= 1
        return True

    def write(self, last: Record | None, digest: bytes = DIGEST) -> None:
        """Have both keep two blocks, the second one ending with this record."""
        self.sealed: list[Sealed] = []
        entries = [] if last is None else [Entry(1, 0, Fired()), Entry(1, 0, last)]
        for number, body in enumerate((b"first", encode_body(digest, entries)), 1):
            block = Block(number, 1, number, 1, pack_body(body))
            answer = self[ONE].recorder.do(to.Append(1, ENVIRONMENT, block))
            assert isinstance(answer, to.Appended)
            self.sealed.append(Sealed(block, answer.seal))

    def copy(self) -> None:
        """Have the second one keep what the first one has."""
        for sealed in self.sealed:
            keep = to.Keep(1, ENVIRONMENT, self[ONE].sealer, sealed.block, sealed.seal)
            assert isinstance(self[TWO].recorder.do(keep), to.Kept)

    def snapshot(self) -> None:
        """Have the first one keep a snapshot."""
        assert isinstance(self[ONE].recorder.do(to.KeepSnapshot(1, ENVIRONMENT, 2, snapshot_of())), to.Done)

    def whole(self, content: bytes, number: int = 2) -> bytes:
        """Return a snapshot as it travels, signed by the first one though its own recorder would refuse it."""
        own = self[ONE].recorder
        after = Position(number, 1, number, self.sealed[number - 1].seal.head)
        data = encode_snapshot(own.key, ENVIRONMENT, (number, after.head), content)
        signed = open_snapshot(data, ENVIRONMENT, number)
        return msgspec.msgpack.encode(State(after, content, own.sealer, signed.signature))

    async def asked(self, offset: int) -> None:
        """Wait until a part is asked for."""
        for _ in range(10_000):
            if self.said and self.said[-1][2] == StateWanted(ENVIRONMENT, 2, offset):
                return
            await asyncio.sleep(0)
        pytest.fail(f"nobody asks for byte {offset}")

    async def ship(self) -> None:
        self[ONE].shipper.offer(ENVIRONMENT, 2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await self[TWO].settle()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHIP_PAUSE_S", "SHIP_PART_S", "SHIP_LOOK_S"):
        monkeypatch.setattr(shipping_module, name, 0.001)
    monkeypatch.setattr(shipping_module, "PART_BYTES", 300)


def run(directory: Path, test: Callable[[World], Coroutine[None, None, None]]) -> None:
    async def body() -> None:
        async with asyncio.timeout(WAIT_S):
            await test(World(directory))

    asyncio.run(body())


CHECKPOINTED = Checkpointed(sha256(STATE).digest())


def test_a_holder_reads_checks_and_keeps_what_the_owner_offers(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        world.write(CHECKPOINTED)
        world.copy()
        world.snapshot()
        await world.ship()
        two = world[TWO]
        assert (two.recorder.snapshots, two.kept) == ((2,), [2])
        parts = [message for _, _, message in world.said if isinstance(message, StateGiven)]
        assert len(parts) > 2
        assert all(len(part.payload) <= 300 for part in parts)
        assert [node for _, node, message in world.said if isinstance(message, StateOffered)] == [TWO]

    run(tmp_path, body)


def test_what_is_lost_is_asked_for_again_and_at_last_given_up(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        world.write(CHECKPOINTED)
        world.copy()
        world.snapshot()
        world.losses = 4
        await world.ship()
        assert world[TWO].recorder.snapshots == (2,)
        world.losses = 1_000
        await world.ship()
        assert world[TWO].kept == [2]
        world.losses = 0
        await world.ship()
        assert world[TWO].kept == [2, 2]

    run(tmp_path, body)


def test_a_holder_waits_for_the_block(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        world.write(CHECKPOINTED)
        world.snapshot()
        await world.ship()
        assert world[TWO].kept == []
        world[ONE].shipper.offer(ENVIRONMENT, 2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        world.copy()
        await world[TWO].settle()
        assert world[TWO].kept == [2]

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("last", "digest", "state", "epoch", "number"),
    [
        (Checkpointed(sha256(b"other").digest()), DIGEST, STATE, 1, 2),
        (Checkpointed(), DIGEST, STATE, 1, 2),
        (Fired(), DIGEST, STATE, 1, 2),
        (None, DIGEST, STATE, 1, 2),
        (CHECKPOINTED, b"e" * 16, STATE, 1, 2),
        (CHECKPOINTED, DIGEST, STATE, 2, 2),
        (CHECKPOINTED, DIGEST, b"other", 1, 2),
        (CHECKPOINTED, DIGEST, STATE, 1, 1),
    ],
)
def test_what_the_own_journal_does_not_say_is_not_kept(
    tmp_path: Path, last: Record | None, digest: bytes, state: bytes, epoch: int, number: int
) -> None:
    async def body(world: World) -> None:
        world.write(last, digest)
        world.copy()
        whole, two = world.whole(snapshot_of(state, epoch), number), world[TWO]
        del world.places[ONE]  # Nobody answers but this test.
        two.shipper.heard(ONE, StateOffered(ENVIRONMENT, 2))
        await world.asked(0)
        two.shipper.heard(ONE, StateGiven(ENVIRONMENT, 2, 0, len(whole), whole))
        await two.settle()
        assert two.recorder.snapshots == ()

    run(tmp_path, body)


def test_who_is_no_member_signs_nothing(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        world.write(CHECKPOINTED)
        world.copy()
        world.snapshot()
        world[TWO].known = False
        await world.ship()
        assert world[TWO].recorder.snapshots == ()

    run(tmp_path, body)


def test_only_the_owner_offers_and_only_holders_take(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        world.write(CHECKPOINTED)
        world.copy()
        world.snapshot()
        one, two = world[ONE], world[TWO]
        two.shipper.heard(THREE, StateOffered(ENVIRONMENT, 2))
        two.shipper.heard(ONE, StateOffered(b"e" * 16, 2))
        two.owner = TWO
        two.shipper.heard(TWO, StateOffered(ENVIRONMENT, 2))
        two.owner, two.holders = ONE, (ONE,)
        two.shipper.heard(ONE, StateOffered(ENVIRONMENT, 2))
        assert two.tasks == []
        one.shipper.heard(THREE, StateWanted(ENVIRONMENT, 2, 0))
        one.shipper.heard(ONE, StateGiven(ENVIRONMENT, 2, 0, 9, b"x"))
        one.shipper.offer(b"e" * 16, 2)
        assert world.said == []
        one.shipper.heard(TWO, StateWanted(ENVIRONMENT, 1, 0))
        assert world.said == [(ONE, TWO, StateGiven(ENVIRONMENT, 1, 0, 0))]

    run(tmp_path, body)


def test_one_at_a_time_and_only_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(world: World) -> None:
        world.write(CHECKPOINTED)
        world.copy()
        world.snapshot()
        two = world[TWO]
        two.shipper.heard(ONE, StateOffered(ENVIRONMENT, 2))
        two.shipper.heard(ONE, StateOffered(ENVIRONMENT, 2))
        assert len(two.tasks) == 1
        two.shipper.heard(ONE, StateGiven(ENVIRONMENT, 2, 0, 9, b"early"))
        await world.asked(0)
        two.shipper.heard(ONE, StateGiven(ENVIRONMENT, 2, 5, 9, b"elsewhere"))
        two.shipper.heard(THREE, StateGiven(ENVIRONMENT, 2, 0, 9, b"somebody"))
        await two.settle()
        assert two.kept == [2]
        monkeypatch.setattr(shipping_module, "SHIPPED_PENDING_MAX", 0)
        two.shipper.heard(ONE, StateOffered(ENVIRONMENT, 2))
        assert two.tasks == []

    run(tmp_path, body)


@pytest.mark.parametrize(
    "given", [(0, b""), (1 << 28, b"x"), (9, b""), (3, b"more"), (9, b"abc"), (9, b"abc", 10, b"def")]
)
def test_parts_that_do_not_fit_are_given_up(tmp_path: Path, given: tuple[int | bytes, ...]) -> None:
    async def body(world: World) -> None:
        world.write(CHECKPOINTED)
        world.copy()
        two = world[TWO]
        del world.places[ONE]
        world.places[THREE] = two  # Nobody answers but this test.
        two.shipper.heard(ONE, StateOffered(ENVIRONMENT, 2))
        rest, offset = list(given), 0
        while rest:
            total, payload = rest.pop(0), rest.pop(0)
            assert isinstance(total, int)
            assert isinstance(payload, bytes)
            await world.asked(offset)
            two.shipper.heard(ONE, StateGiven(ENVIRONMENT, 2, offset, total, payload))
            two.shipper.heard(ONE, StateGiven(ENVIRONMENT, 2, offset, total, payload))
            offset += len(payload)
        await two.settle()
        assert two.recorder.snapshots == ()

    run(tmp_path, body)


def test_a_journal_that_has_gone_on_to_something_else_refuses_it(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        world.write(CHECKPOINTED)
        world.copy()
        world.snapshot()
        world.losses = 2
        two = world[TWO]
        two.shipper.heard(ONE, StateOffered(ENVIRONMENT, 2))
        for _ in range(3):
            await asyncio.sleep(0)
        two.recorder.do(to.Restart(1, ENVIRONMENT, floor=(1, 2)))
        await two.settle()
        assert two.kept == []

    run(tmp_path, body)
