# SPDX-License-Identifier: Apache-2.0
"""The past of a program that a real node ran: replayed, traced and compared by command, and found out when forged."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from atoll.client.environments import CallError, Desk
from atoll.domain.recorder.segments import open_segment
from atoll.env.chain import GENESIS, Frame, Position, Sealed, encode_frame, read, segment_start
from tests.process.node_world import Box, nodes, until
from tests.unit.recorder_world import Hand

pytestmark = pytest.mark.process

AUCTION = """
import atoll

class Bid(atoll.Tuple):
    who: str
    amount: int

class Best(atoll.Tuple):
    who: str
    amount: int

class Auction(atoll.App):
    best: int = 3
    who: str = ""

    @atoll.on(Bid)
    def bid(self, bid: Bid, ctx: atoll.Context) -> Best:
        if bid.amount < 0:
            raise ValueError("no")
        if bid.amount > self.best:
            self.best, self.who = bid.amount, bid.who
            ctx.log(f"best is {self.best}")
        return Best(self.who, self.best)
"""
SHOP = """
import atoll
import msgspec

class Place(msgspec.Struct, frozen=True):
    row: int

class Put(atoll.Tuple):
    row: int

class Held(atoll.Tuple):
    places: dict[Place, int]

class Shop(atoll.App):
    places: dict[Place, int] = {}

    @atoll.on(Put)
    def put(self, put: Put, ctx: atoll.Context) -> Held:
        self.places[Place(put.row)] = 1
        return Held(self.places)
"""
BIDS = 40


async def bidden(state: Path) -> None:
    async with Desk(state) as desk:
        auction = await desk.environment("auction")
        for number in range(BIDS):
            who = ("ann", "bob")[number % 2]
            await auction.call({"is": "Bid", "who": who, "amount": number})
        with pytest.raises(CallError, match="raised"):
            await auction.call({"is": "Bid", "who": "ann", "amount": -1})


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a node that ran an auction with 41 bids, and still runs."""
    directory = tmp_path_factory.mktemp("past")
    file = directory / "auction.py"
    file.write_text(AUCTION)
    made = Box(directory / "n", "one")
    made.up()
    try:
        said = made.run("run", str(file))
        assert said.status == 0, said.err
        asyncio.run(bidden(made.state))
        yield made
    finally:
        made.down()


@pytest.fixture
def copy(box: Box, tmp_path: Path) -> Box:
    """Return a copy of what the node keeps, without a node."""
    made = Box(tmp_path / "copy", "copy")
    made.state.mkdir()
    for name in ("envs", "code", "roster"):
        source = box.state / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, made.state / name)
    return made


def segment_of(box: Box) -> Path:
    (directory,) = (box.state / "envs").iterdir()
    return directory / "00000001.atb"


def blocks_of(path: Path) -> list[tuple[Frame, Sealed]]:
    frames = [frame for frame in read(path.read_bytes()) if isinstance(frame, Frame)]
    return [(frame, frame.item) for frame in frames if isinstance(frame.item, Sealed)]


def test_the_past_of_a_running_program_is_shown_by_command(box: Box) -> None:
    said = box.run("replay", "auction")
    assert said.status == 0, said.err
    assert f"auction: events 1 to {BIDS + 1} in " in said.out
    said = box.run("replay", "auction", "--event", "8")
    assert "  in       Bid(who='bob', amount=7)" in said.out
    assert "  * best  7   was 6" in said.out
    assert json.loads(box.run("replay", "auction", "--break", "best > 20", "--json").out)["event"] == 22
    assert box.run("replay", "auction", "--changed", "who").out.startswith("who  'ann' -> 'bob'\nevent 40 of 41")
    assert box.run("replay", "auction", "--at", "-0s").out.startswith("event 41 of 41")
    said = box.run("trace", "auction", "6")
    assert said.out.startswith("event 6 ")
    assert "because of best: event 5" in said.out
    assert "  best   3        19\n" in box.run("diff", "auction", "--at", "3", "--at", "20").out


def test_history_is_run_through_changed_code(box: Box, tmp_path: Path) -> None:
    new = tmp_path / "auction.py"
    new.write_text(AUCTION.replace("bid.amount > self.best", "bid.amount > self.best and bid.who != 'bob'"))
    said = box.run("replay", "auction", "--with", str(new))
    assert said.status == 1
    assert "first at event 6 " in said.out
    assert "log[0]" in said.out


def test_a_journal_as_it_was_sealed_is_audited_by_the_roster(box: Box) -> None:
    said = box.run("audit", "verify")
    assert said.status == 0, said.out
    assert "as it was sealed" in said.out
    assert "one (key in the roster)" in said.out


def test_one_changed_byte_of_an_old_block_is_named(copy: Box) -> None:
    path = segment_of(copy)
    blocks = blocks_of(path)
    frame, sealed = blocks[4]
    data = bytearray(path.read_bytes())
    data[frame.offset + 40] ^= 1
    path.write_bytes(data)
    said = copy.run("audit", "verify")
    assert said.status == 1
    assert f"content that does not check (block {sealed.block.number})" in said.out
    assert (
        f"blocks {sealed.block.number} to {blocks[-1][1].block.number} (events {sealed.block.first_event} to 41)"
        in said.out
    )
    assert copy.run("replay", "auction").code == "A302"


def test_a_journal_that_was_sealed_anew_with_another_key_is_found_out(copy: Box) -> None:
    path = segment_of(copy)
    blocks = blocks_of(path)
    manifest = open_segment(path).manifest
    environment = manifest.environment
    hand = Hand(7, manifest.sealer.node, signer=5)
    at: Position = GENESIS
    parts = [segment_start(hand.manifest(environment=environment))]
    for _, sealed in blocks:
        block = sealed.block
        if block.number == 5:
            block = msgspec.structs.replace(block, body=b"\0" + block.body)
        made, at = hand.seal(at, block, environment)
        parts.append(encode_frame(made, made.block.number))
    path.write_bytes(b"".join(parts))
    said = copy.run("audit", "verify")
    assert said.status == 1
    assert "its certificate does not check" in said.out
    assert "key NOT in the roster" in said.out
    (copy.state / "roster").unlink()
    assert "by its certificate's word: no roster here" in copy.run("audit", "verify").out


def test_a_journal_that_only_another_node_keeps_is_said_to_be_there(tmp_path: Path) -> None:
    file = tmp_path / "auction.py"
    file.write_text(AUCTION)
    with nodes() as group:
        one, two = group.group("one", "two")
        said = one.run("run", str(file), "--copies", "1")
        assert said.status == 0, said.err
        until(lambda: two.run("replay", "auction").code == "A610", "two hears that one keeps it")
        assert "the journal of auction is kept by one" in two.run("replay", "auction").err
        said = one.run("env", "move", "auction", "two")
        assert said.status == 0, said.err
        until(lambda: one.run("replay", "auction").code == "A610", "one has given its copy away")
        said = one.run("replay", "auction")
        assert "the journal of auction is kept by two" in said.err
        assert said.field("fix") == "atoll replay auction, on one of these"
        assert two.run("replay", "auction").status == 0
        assert one.run("env", "stop", "auction").status == 0, "who has begun it may end it, wherever it runs"


@pytest.mark.parametrize("level", ["inline", "process"])
def test_a_state_with_structs_as_keys_is_shown_now_and_later(box: Box, tmp_path: Path, level: str) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    name = f"shop-{level}"
    assert box.run("run", str(tmp_path / "shop.py"), "--name", name, "--level", level).status == 0
    said = box.run("env", "call", name, "Put", "row=3")
    assert (said.status, said.out, said.err) == (0, 'Held places={"{row: 3}":1}\n', "")
    assert json.loads(box.run("env", "show", name, "--json").out)["state"] == {"places": {"{row: 3}": 1}}
    past = box.run("replay", name, "--event", "1")
    assert (past.status, past.err) == (0, "")
    assert "* places  {{'row': 3}: 1}   was {}" in past.out
